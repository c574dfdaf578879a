#!/usr/bin/python3
"""Three lighthouses: each serves everything; and what one says that has lost the others."""
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lighthouse import Failed, Lighthouse, main, refused, wait  # noqa: E402

T = "tailnets/1"
KEYS = {}
LOCAL = {"Skerry-Read": "local"}
second = third = None


def key(lh, **more):
    return lh.unix().call("ApiKeyService/CreateApiKey", {"parent": "tailnets/0", "apiKey": {"role": "ROLE_ADMIN"},
                                                         **more})["secret"]


def user(name, request_id=None):
    body = {"parent": T, "user": {"loginName": name}}
    return {**body, "requestId": request_id} if request_id else body


def all_there(lh):
    members = lh.unix().call("ClusterService/GetCluster").get("members", [])
    return len(members) == 3 and all(m["role"] == "MEMBER_ROLE_VOTER" and m.get("connected") for m in members)


def two_more_join(lh):
    global second, third
    second = Lighthouse("lh2", lh.unix().call("ClusterService/CreateJoinToken")["secret"])
    third = Lighthouse("lh3", lh.unix().call("ClusterService/CreateJoinToken")["secret"])
    wait(lambda: all_there(lh), "all are voters", 20)
    KEYS["good"] = key(lh)
    unix = lh.unix()
    wait(lambda: unix.call("ClusterService/CompareDigests").get("equal"), "equal digests")


def each_serves_everything(lh):
    """What one has acknowledged the others show in the next call, whoever leads."""
    every = (lh, second, third)
    for n in range(12):
        here, there = every[n % 3], every[(n + 1 + n // 6) % 3]
        u = here.json(KEYS["good"]).call("UserService/CreateUser", user(f"both-{n}"))
        assert there.json(KEYS["good"]).call("UserService/GetUser", {"name": u["name"]}) == u
        # A pre-check on a state that lags behind must not refuse it.
        k = there.json(KEYS["good"]).call("AuthKeyService/CreateAuthKey", {"parent": T, "authKey": {"user": u["name"]}})
        refused("ALREADY_EXISTS", lambda n=n: there.json(KEYS["good"]).call("UserService/CreateUser", user(f"both-{n}")))
        here.json(KEYS["good"]).call("AuthKeyService/DeleteAuthKey", {"name": k["name"]})
    # A new credential works at the other one at once, a deleted one does not.
    fresh = lh.unix().call("ApiKeyService/CreateApiKey", {"parent": T, "apiKey": {"role": "ROLE_VIEWER"}})
    second.json(fresh["secret"]).call("UserService/ListUsers", {"parent": T})
    again = second.json(KEYS["good"]).call("UserService/CreateUser", user("once", "q-1"))
    assert lh.json(KEYS["good"]).call("UserService/CreateUser", user("once", "q-1")) == again, "one request id, one user"


def without_quorum(lh):
    second.stop(signal.SIGKILL)
    third.stop(signal.SIGKILL)
    web = lh.json(KEYS["good"])
    # Written into the log of one: nobody can say what becomes of it.
    fate = refused("UNAVAILABLE", lambda: web.call("UserService/CreateUser", user("fate", "q-2"),
                                                   {"Connect-Timeout-Ms": "3000"}))
    assert fate.reason in ("FATE_UNKNOWN", "NO_QUORUM", "NO_LEADER"), fate
    wait(lambda: not lh.unix().call("ClusterService/GetCluster").get("quorum"), "the loss is noticed", 15)
    e = refused("UNAVAILABLE", lambda: web.call("UserService/ListUsers", {"parent": T}, {"Connect-Timeout-Ms": "2000"}))
    assert "skerry-read: local" in e.message, e
    assert len(web.call("UserService/ListUsers", {"parent": T}, LOCAL)["users"]) > 10
    refused("UNAVAILABLE", lambda: web.call("UserService/CreateUser", user("no", "q-3"), {"Connect-Timeout-Ms": "2000"}))
    # A credential that is not known here may be known elsewhere.
    unknown = KEYS["good"]
    lost = refused("UNAVAILABLE", lambda: lh.json(KEYS["other"]).call("UserService/ListUsers", {"parent": T}, LOCAL),
                   "NO_QUORUM")
    assert "not known here" in lost.message and unknown
    refused("UNAUTHENTICATED", lambda: lh.json("nonsense").call("UserService/ListUsers", {"parent": T}, LOCAL))
    assert lh.plain("/healthz")[0] == 200 and lh.metric("skerry_cluster_quorum") == 0
    wait(lambda: lh.plain("/readyz") == (503, "no quorum\n"), "not ready after 10 s", 15)


def the_others_come_back(lh):
    second.start(ready=False)
    third.start()
    wait(lambda: all_there(lh), "all are connected", 20)
    wait(lambda: lh.plain("/readyz")[0] == 200, "ready again")
    web = second.json(KEYS["good"])

    def repeat():
        try:
            return web.call("UserService/CreateUser", user("fate", "q-2"))
        except Failed as e:
            assert e.status == 14, e
            return None
    wait(repeat, "the repeat is answered")
    users = [u["loginName"] for u in web.call("UserService/ListUsers", {"parent": T, "pageSize": 1000})["users"]]
    assert users.count("fate") == 1
    wait(lambda: lh.unix().call("ClusterService/CompareDigests").get("equal"), "equal digests")


def one_is_removed(lh):
    members = lh.unix().call("ClusterService/GetCluster")["members"]
    other = next(m["name"] for m in members if m["displayName"] == "lh3")
    lh.unix().call("ClusterService/DeleteMember", {"name": other}, timeout=20)
    wait(lambda: len(lh.unix().call("ClusterService/ListMembers")["members"]) == 2, "two members are left")
    refused("NOT_FOUND", lambda: lh.unix().call("ClusterService/DeleteMember", {"name": other}))
    lh.json(KEYS["good"]).call("UserService/CreateUser", user("two"))


def setup(lh):
    """A key of another cluster: of the right form, and unknown here."""
    foreign = Lighthouse()
    KEYS["other"] = key(foreign)
    foreign.close()
    refused("UNAUTHENTICATED", lambda: lh.json(KEYS["other"]).call("UserService/ListUsers", {"parent": T}),
            "API_KEY_UNKNOWN")


def end(lh):
    del lh
    second.close()
    third.close()


main([setup, two_more_join, each_serves_everything, without_quorum, the_others_come_back, one_is_removed, end])
