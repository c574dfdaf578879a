#!/usr/bin/python3
"""The services of administration, on a real lighthouse: stock gRPC over the Unix socket and TLS, JSON over POST."""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lighthouse import Failed, main, refused, wait  # noqa: E402

T = "tailnets/1"


def user(api, name, **more):
    return api.call("UserService/CreateUser", {"parent": T, "user": {"loginName": name, **more}})


def api_key(api, role="ROLE_ADMIN", parent="tailnets/0", **more):
    return api.call("ApiKeyService/CreateApiKey", {"parent": parent, "apiKey": {"role": role}, **more})


def socket_and_tls(lh):
    """The same answer by each of the three ways."""
    unix = lh.unix()
    key = api_key(unix)["secret"]
    assert key.startswith("sk-api-")
    by_unix = unix.call("UserService/ListUsers", {"parent": T})
    by_tls = lh.tls(key).call("UserService/ListUsers", {"parent": T})
    by_json = lh.json(key).call("UserService/ListUsers", {"parent": T})
    assert by_unix == by_tls == by_json and by_unix["users"][0]["loginName"] == "admin"


def cluster_as_seen(lh):
    unix = lh.unix()
    c = unix.call("ClusterService/GetCluster")
    assert c["quorum"] and c["leaderId"] == c["lighthouseId"] and len(c["members"]) == 1
    m = c["members"][0]
    assert m["role"] == "MEMBER_ROLE_VOTER" and m["connected"] and m["leader"] and len(m["digest"]) == 64
    assert unix.call("ClusterService/GetMember", {"name": m["name"]})["displayName"] == "lh1"
    assert [x["name"] for x in unix.call("ClusterService/ListMembers")["members"]] == [m["name"]]
    d = unix.call("ClusterService/CompareDigests")
    assert d["equal"] and len(d["digests"]) == 1 and len(d["digests"][0]["digest"]) == 64
    refused("NOT_FOUND", lambda: unix.call("ClusterService/GetMember", {"name": "members/5"}))
    refused("INVALID_ARGUMENT", lambda: unix.call("ClusterService/GetMember", {"name": "members/x"}), field="name")
    refused("FAILED_PRECONDITION", lambda: unix.call("ClusterService/DeleteMember", {"name": m["name"]}))


def auth_keys(lh):
    unix = lh.unix()
    k = unix.call("AuthKeyService/CreateAuthKey", {"parent": T})
    assert k["secret"].startswith("sk-auth-") and k["secret"].count("-") == 4, "a pin by default"
    assert k["user"] == "tailnets/1/users/2" and "reusable" not in k
    shown = unix.call("AuthKeyService/GetAuthKey", {"name": k["name"]})
    assert "secret" not in shown and shown["etag"] == k["etag"]
    plain = unix.call("AuthKeyService/CreateAuthKey", {"parent": T, "noPin": True, "lifetime": "3600s",
                                                       "authKey": {"reusable": True, "tags": ["tag:x"]}})
    assert plain["secret"].count("-") == 3 and plain["tags"] == ["tag:x"] and "user" not in plain
    refused("INVALID_ARGUMENT", lambda: unix.call("AuthKeyService/CreateAuthKey", {
        "parent": T, "authKey": {"tags": ["no"]}}), "TAG_INVALID", "auth_key.tags")
    refused("INVALID_ARGUMENT", lambda: unix.call("AuthKeyService/CreateAuthKey", {
        "parent": T, "lifetime": "-5s"}), field="lifetime")
    refused("NOT_FOUND", lambda: unix.call("AuthKeyService/CreateAuthKey", {
        "parent": T, "authKey": {"user": "tailnets/1/users/999"}}), "USER_NOT_FOUND", "auth_key.user")
    refused("INVALID_ARGUMENT", lambda: unix.call("AuthKeyService/CreateAuthKey", {
        "parent": T, "authKey": {"user": "tailnets/2/users/9"}}), field="auth_key.user")
    unix.call("AuthKeyService/DeleteAuthKey", {"name": k["name"]})
    refused("NOT_FOUND", lambda: unix.call("AuthKeyService/GetAuthKey", {"name": k["name"]}))
    refused("NOT_FOUND", lambda: unix.call("AuthKeyService/DeleteAuthKey", {"name": k["name"]}))


def pages(lh):
    unix = lh.unix()
    names = [user(unix, f"page-{i}")["name"] for i in range(25)]
    got, token, sizes = [], "", []
    while True:
        answer = unix.call("UserService/ListUsers", {"parent": T, "pageSize": 7, "pageToken": token})
        got += [u["name"] for u in answer["users"]]
        sizes.append(len(answer["users"]))
        token = answer.get("nextPageToken", "")
        if not token:
            break
        refused("INVALID_ARGUMENT", lambda: unix.call("NodeService/ListNodes", {"parent": T, "pageToken": token}),
                "PAGE_TOKEN_INVALID", "page_token")
    assert set(names) <= set(got) and len(got) == len(set(got)), "each of them once"
    assert sizes[:-1] == [7] * (len(sizes) - 1) and 0 < sizes[-1] <= 7, sizes
    everything = unix.call("UserService/ListUsers", {"parent": T, "pageSize": 100000})
    assert len(everything["users"]) == len(got) and "nextPageToken" not in everything
    # A token stays good while things come and go.
    token = unix.call("UserService/ListUsers", {"parent": T, "pageSize": 3})["nextPageToken"]
    unix.call("UserService/DeleteUser", {"name": got[2]})
    rest = unix.call("UserService/ListUsers", {"parent": T, "pageSize": 1000, "pageToken": token})
    assert [u["name"] for u in rest["users"]] == got[3:]
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/ListUsers", {"parent": T, "pageSize": -1}),
            field="page_size")
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/ListUsers", {"parent": T, "pageToken": "zzz"}),
            field="page_token")


def large_pages_end_early(lh):
    """No answer is larger than stock clients take, however many entries were asked for."""
    unix = lh.unix()
    records = [{"name": f"a-rather-long-name-{n}.big{{}}.internal", "type": "A", "value": "10.0.0.1"} for n in range(900)]
    made = []
    for i in range(50):
        own = [{**r, "name": r["name"].format(i)} for r in records]
        made.append(unix.call("TailnetService/CreateTailnet", {"tailnet": {
            "displayName": f"big{i}", "dns": {"records": own}}})["name"])
    got, token, sizes = [], "", []
    while True:
        answer = unix.call("TailnetService/ListTailnets", {"pageSize": 1000, "pageToken": token})
        got += [t["name"] for t in answer["tailnets"]]
        sizes.append(len(answer["tailnets"]))
        token = answer.get("nextPageToken", "")
        if not token:
            break
    assert len(sizes) > 1 and set(made) <= set(got) and len(got) == len(set(got)), sizes
    for name in made:
        unix.call("TailnetService/DeleteTailnet", {"name": name})


def etags(lh):
    unix = lh.unix()
    u = user(unix, "etag")
    first = unix.call("UserService/UpdateUser", {"user": {"name": u["name"], "displayName": "One", "etag": u["etag"]}})
    assert first["displayName"] == "One" and first["etag"] != u["etag"]
    refused("ABORTED", lambda: unix.call("UserService/UpdateUser", {
        "user": {"name": u["name"], "displayName": "Two", "etag": u["etag"]}}), "ETAG_MISMATCH")
    refused("ABORTED", lambda: unix.call("UserService/DeleteUser", {"name": u["name"], "etag": u["etag"]}),
            "ETAG_MISMATCH", "etag")
    assert unix.call("UserService/GetUser", {"name": u["name"]})["displayName"] == "One"
    unix.call("UserService/DeleteUser", {"name": u["name"], "etag": first["etag"]})


def masks(lh):
    unix = lh.unix()
    u = user(unix, "mask", displayName="Before", role="ROLE_VIEWER")
    both = {"name": u["name"], "displayName": "After", "role": "ROLE_OPERATOR"}
    got = unix.call("UserService/UpdateUser", {"user": both, "updateMask": "role"})
    assert got["displayName"] == "Before" and got["role"] == "ROLE_OPERATOR"
    got = unix.call("UserService/UpdateUser", {"user": {"name": u["name"]}, "updateMask": "displayName"})
    assert "displayName" not in got and got["role"] == "ROLE_OPERATOR", "a mask can empty a field"
    got = unix.call("UserService/UpdateUser", {"user": {"name": u["name"], "displayName": "Again"}})
    assert got["displayName"] == "Again" and got["role"] == "ROLE_OPERATOR", "without a mask: what is filled"
    for bad in ("loginName", "createTime"):
        refused("INVALID_ARGUMENT", lambda bad=bad: unix.call("UserService/UpdateUser", {
            "user": both, "updateMask": bad}), field="update_mask")
    refused("NOT_FOUND", lambda: unix.call("UserService/UpdateUser", {
        "user": {"name": "tailnets/1/users/4711", "displayName": "Nobody"}}), "NOT_FOUND",
        message="there is no tailnets/1/users/4711")
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/UpdateUser", {"updateMask": "role"}),
            field="user.name")


def names(lh):
    unix = lh.unix()
    for bad in ("", "nonsense", "1", "tailnets/", "tailnets/x", "tailnets/-1", "tailnets/1/users", "tailnets/01",
                "tailnets/99999999999999999999", "tailnets/1/"):
        refused("INVALID_ARGUMENT", lambda bad=bad: unix.call("UserService/ListUsers", {"parent": bad}),
                field="parent")
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/GetUser", {"name": "tailnets/1/nodes/2"}),
            field="name", message="tailnets/<id>/users/<id>")
    refused("NOT_FOUND", lambda: unix.call("UserService/ListUsers", {"parent": "tailnets/4711"}), "TAILNET_NOT_FOUND")
    refused("NOT_FOUND", lambda: unix.call("UserService/GetUser", {"name": "tailnets/1/users/4711"}))
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/ListUsers", {"parent": "tailnets/0"}), field="parent")
    for bad in ("", "a b", "a/b", "x" * 200):
        refused("INVALID_ARGUMENT", lambda bad=bad: user(unix, bad), field="user.login_name")
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/CreateUser", {"parent": T}), field="user")
    user(unix, "taken")
    refused("ALREADY_EXISTS", lambda: user(unix, "taken"), "LOGIN_NAME_TAKEN", "user.login_name")


def request_ids(lh):
    unix = lh.unix()
    body = {"parent": T, "user": {"loginName": "once"}, "requestId": "r-1"}
    first = unix.call("UserService/CreateUser", body)
    again = unix.call("UserService/CreateUser", body)
    assert first == again and unix.headers.get("skerry-repeated") == "true"
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/CreateUser", {**body, "user": {"loginName": "other"}}),
            "REQUEST_ID_REUSED", "request_id")
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/CreateUser", {**body, "requestId": "x" * 65}),
            field="request_id")
    # Another caller's ids are another's.
    other = lh.tls(api_key(unix)["secret"])
    refused("ALREADY_EXISTS", lambda: other.call("UserService/CreateUser", body))
    # A secret is told once.
    make = {"parent": T, "requestId": "r-2"}
    key = unix.call("AuthKeyService/CreateAuthKey", make)
    again = unix.call("AuthKeyService/CreateAuthKey", make)
    assert again["name"] == key["name"] and "secret" not in again
    assert unix.headers.get("skerry-note") == "SECRET_NOT_RETAINED"
    assert "secret" in unix.call("AuthKeyService/CreateAuthKey", {"parent": T, "requestId": "r-3"})
    token = unix.call("ClusterService/CreateJoinToken", {"requestId": "r-4"})
    again = unix.call("ClusterService/CreateJoinToken", {"requestId": "r-4"})
    assert token["secret"].startswith("sk-join-") and again["id"] == token["id"] and "secret" not in again


def tailnets(lh):
    unix = lh.unix()
    t = unix.call("TailnetService/CreateTailnet", {"tailnet": {"displayName": "second"}})
    assert t["dns"]["baseDomain"] == "second.internal"
    refused("ALREADY_EXISTS", lambda: unix.call("TailnetService/CreateTailnet", {
        "tailnet": {"displayName": "second"}}), "TAILNET_NAME_TAKEN", "tailnet.display_name")
    refused("INVALID_ARGUMENT", lambda: unix.call("TailnetService/CreateTailnet", {
        "tailnet": {"displayName": "No Label"}}), field="tailnet.display_name")
    got = unix.call("TailnetService/UpdateTailnet", {
        "tailnet": {"name": t["name"], "dns": {"resolvers": ["9.9.9.9"]}}, "updateMask": "dns.resolvers"})
    assert got["dns"] == {"baseDomain": "second.internal", "resolvers": ["9.9.9.9"]}, "the rest stays"
    refused("INVALID_ARGUMENT", lambda: unix.call("TailnetService/UpdateTailnet", {
        "tailnet": {"name": t["name"], "dns": {"resolvers": ["nine"]}}, "updateMask": "dns.resolvers"}))
    # Queries for a single label go elsewhere only by the system's will.
    key = api_key(unix, parent=t["name"])["secret"]
    route = {"tailnet": {"name": t["name"], "dns": {"routes": [{"domain": "com", "resolvers": ["9.9.9.9"]}]}},
             "updateMask": "dns.routes"}
    refused("PERMISSION_DENIED", lambda: lh.tls(key).call("TailnetService/UpdateTailnet", route),
            "SYSTEM_ROLE_REQUIRED")
    unix.call("TailnetService/UpdateTailnet", route)
    listed = [x["displayName"] for x in unix.call("TailnetService/ListTailnets")["tailnets"]]
    assert listed[0] == "default" and "second" in listed
    unix.call("TailnetService/DeleteTailnet", {"name": t["name"]})
    refused("NOT_FOUND", lambda: unix.call("TailnetService/GetTailnet", {"name": t["name"]}))
    refused("UNAUTHENTICATED", lambda: lh.json(key, "127.0.0.2").call("UserService/ListUsers", {"parent": t["name"]}))


def nodes(lh):
    unix = lh.unix()

    def node(n, **more):
        return unix.call("NodeService/CreateNode", {"parent": T, "node": {
            "hostname": f"host{n}", "machineKey": "mkey:" + f"{n:02x}" * 32, "nodeKey": "nodekey:" + f"{n + 100:02x}" * 32,
            **more}})
    a, b = node(1), node(2, tags=["tag:server"], ephemeral=True)
    assert a["givenName"] == "host1" and a["user"] == "tailnets/1/users/2" and a["registeredBy"] == "api"
    assert len(a["addresses"]) == 2 and a["approved"] and "online" not in a
    assert "user" not in b and b["tags"] == ["tag:server"] and b["ephemeral"]
    refused("INVALID_ARGUMENT", lambda: node(3, machineKey="mkey:12"), field="node.machine_key")
    refused("INVALID_ARGUMENT", lambda: node(3, nodeKey="mkey:" + "01" * 32), field="node.node_key")
    refused("ALREADY_EXISTS", lambda: node(3, nodeKey=a["nodeKey"]))
    got = unix.call("NodeService/UpdateNode", {"node": {"name": a["name"], "givenName": "web", "tags": ["tag:x"]},
                                               "updateMask": "givenName,tags"})
    assert got["givenName"] == "web" and got["tags"] == ["tag:x"]
    got = unix.call("NodeService/UpdateNode", {"node": {"name": a["name"]}, "updateMask": "expireTime"})
    assert "expireTime" not in got, "an empty time is never"
    refused("INVALID_ARGUMENT", lambda: unix.call("NodeService/UpdateNode", {
        "node": {"name": a["name"], "givenName": "no_label"}, "updateMask": "givenName"}))
    refused("INVALID_ARGUMENT", lambda: unix.call("NodeService/UpdateNode", {
        "node": {"name": a["name"]}, "updateMask": "nodeKey"}), field="update_mask")
    listed = unix.call("NodeService/ListNodes", {"parent": T})
    assert {n["name"] for n in listed["nodes"]} == {a["name"], b["name"]} and int(listed["revision"]["revision"]) > 1
    refused("NOT_FOUND", lambda: unix.call("NodeService/ApproveNode", {"parent": T, "code": "abcd-efgh"}),
            "CODE_UNKNOWN", "code")
    refused("INVALID_ARGUMENT", lambda: unix.call("NodeService/ApproveNode", {"parent": T}), field="code")
    for n in (a, b):
        unix.call("NodeService/DeleteNode", {"name": n["name"]})


def roles(lh):
    unix = lh.unix()
    viewer = lh.tls(api_key(unix, "ROLE_VIEWER")["secret"])
    operator = lh.tls(api_key(unix, "ROLE_OPERATOR")["secret"])
    refused("PERMISSION_DENIED", lambda: user(viewer, "v"), "ROLE_TOO_LOW")
    refused("PERMISSION_DENIED", lambda: api_key(operator, "ROLE_VIEWER"), "ROLE_TOO_LOW")
    refused("PERMISSION_DENIED", lambda: user(operator, "boss", role="ROLE_ADMIN"), "ROLE_TOO_HIGH", "user.role")
    refused("PERMISSION_DENIED", lambda: operator.call("UserService/UpdateUser", {
        "user": {"name": "tailnets/1/users/2", "suspended": True}}), "ROLE_TOO_HIGH")
    refused("INVALID_ARGUMENT", lambda: unix.call("ApiKeyService/CreateApiKey", {"parent": T, "apiKey": {}}),
            field="api_key.role")
    # The key of a user has at most the user's role, and stops when the user is suspended.
    u = user(unix, "carol", role="ROLE_OPERATOR")
    refused("PERMISSION_DENIED", lambda: unix.call("ApiKeyService/CreateApiKey", {
        "parent": T, "apiKey": {"role": "ROLE_ADMIN", "user": u["name"]}}), "ROLE_TOO_HIGH", "api_key.role")
    key = unix.call("ApiKeyService/CreateApiKey", {"parent": T, "apiKey": {"role": "ROLE_OPERATOR", "user": u["name"]}})
    carol = lh.tls(key["secret"])
    carol.call("UserService/ListUsers", {"parent": T})
    unix.call("UserService/UpdateUser", {"user": {"name": u["name"], "role": "ROLE_VIEWER"}})
    refused("PERMISSION_DENIED", lambda: user(carol, "y"), "ROLE_TOO_LOW")
    unix.call("UserService/UpdateUser", {"user": {"name": u["name"], "suspended": True}})
    refused("UNAUTHENTICATED", lambda: carol.call("UserService/ListUsers", {"parent": T}), "API_KEY_EXPIRED")


def deleting_its_own_key(lh):
    key = api_key(lh.unix())
    own = lh.tls(key["secret"])
    own.call("ApiKeyService/DeleteApiKey", {"name": key["name"]})
    refused("UNAUTHENTICATED", lambda: own.call("UserService/ListUsers", {"parent": T}), "API_KEY_UNKNOWN")


def open_call_ends_with_its_key(lh):
    """Reflection is a stream that stays open; its key goes."""
    unix = lh.unix()
    key = api_key(unix, "ROLE_VIEWER")
    done = threading.Event()
    asked = threading.Event()

    def requests():
        from lighthouse import schema
        yield schema.make("grpc.reflection.v1.ServerReflectionRequest", {"listServices": ""})
        asked.set()
        done.wait(20)
    channel = lh.tls(key["secret"])
    stream = channel.stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", requests())
    services = {s.name for s in next(stream).list_services_response.service}
    assert {"skerry.v1.NodeService", "skerry.v1.AgentService", "grpc.health.v1.Health"} <= services, services
    asked.wait(10)
    unix.call("ApiKeyService/DeleteApiKey", {"name": key["name"]})
    try:
        next(stream)
        raise AssertionError("the stream goes on")
    except Exception as e:
        assert "UNAUTHENTICATED" in str(e), e
    finally:
        done.set()
    refused_stream = lh.tls().stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", iter(()))
    try:
        next(refused_stream)
        raise AssertionError("reflection without a credential")
    except Exception as e:
        assert "UNAUTHENTICATED" in str(e), e


def expired_key(lh):
    unix = lh.unix()
    key = api_key(unix, lifetime="1s")["secret"]
    lh.tls(key).call("UserService/ListUsers", {"parent": T})
    sources = iter(range(10, 250))

    def gone():
        # Another source each time: too many bad credentials of one are refused as such.
        try:
            lh.json(key, f"127.0.3.{next(sources)}").call("UserService/ListUsers", {"parent": T})
        except Failed as e:
            assert e.reason == "API_KEY_EXPIRED", e
            return True
        return False
    wait(gone, "the key expires")


def bad_credentials_are_limited(lh):
    unix = lh.unix()
    good = api_key(unix)["secret"]
    source = "127.0.0.77"
    before = lh.metric("skerry_api_bad_credentials_total") or 0
    for _ in range(10):
        refused("UNAUTHENTICATED", lambda: lh.json("nonsense", source).call("UserService/ListUsers", {"parent": T}))
    e = refused("RESOURCE_EXHAUSTED", lambda: lh.json("nonsense", source).call("UserService/ListUsers", {"parent": T}),
                "TOO_MANY_BAD_CREDENTIALS")
    assert "wait" in e.message
    lh.json(good, source).call("UserService/ListUsers", {"parent": T})  # who has a good one is not shut out
    refused("UNAUTHENTICATED", lambda: lh.json("nonsense", "127.0.0.78").call("UserService/ListUsers", {"parent": T}))
    assert lh.metric("skerry_api_bad_credentials_total") == before + 12
    assert lh.metric("skerry_api_bad_credentials_limited_total") == 1


def forms_of_bad_keys(lh):
    unix = lh.unix()
    key = api_key(unix)["secret"]
    auth = unix.call("AuthKeyService/CreateAuthKey", {"parent": T})["secret"]
    prefix, _, _ = key.partition("-api-")
    for n, (text, reason) in enumerate(((key[:-3], "KEY_CUT"), (key[:-1] + ("0" if key[-1] != "0" else "1"), None),
                                        (auth, "CREDENTIAL_KIND"), ("sk-api-1-" + "0" * 58, None))):
        refused("UNAUTHENTICATED", lambda: lh.json(text, f"127.0.1.{n + 1}").call("UserService/ListUsers",
                                                                                  {"parent": T}), reason)
    basic = lh.json(source="127.0.1.9")
    status, _, _ = basic.raw("/skerry.v1.UserService/ListUsers", "{}", {"Authorization": "Basic abc"})
    assert status == 401


def refused_commands_are_limited(lh):
    unix = lh.unix()
    t = unix.call("TailnetService/CreateTailnet", {"tailnet": {"displayName": "noisy"}})["name"]
    again = {"parent": t, "user": {"loginName": "admin"}}
    begun = time.monotonic()
    for n in range(5000):
        e = refused(None, lambda: unix.call("UserService/CreateUser", again))
        if e.reason == "TOO_MANY_REFUSED":
            break
        assert e.reason == "LOGIN_NAME_TAKEN", e
    # 600 at once, then ten more each second.
    assert 600 <= n <= 610 + 10 * (time.monotonic() - begun) and e.status == 8, (n, e)
    unix.call("UserService/CreateUser", {"parent": t, "user": {"loginName": "good"}})  # what is good goes on
    refused("ALREADY_EXISTS", lambda: user(unix, "admin"))  # and other tailnets feel nothing
    assert lh.metric("skerry_api_refused_limited_total") == 1


def audit(lh):
    unix = lh.unix()
    u = unix.call("UserService/CreateUser", {"parent": T, "user": {"loginName": "audited"}},
                  metadata=[("skerry-reason", "because")])
    e = unix.call("AuditService/ListAuditEntries", {"parent": T, "pageSize": 1})["auditEntries"][0]
    assert e["action"] == "user.create" and e["target"] == u["name"] and e["reason"] == "because"
    assert e["actor"] == f"unix:{os.getuid()}", e["actor"]
    assert unix.call("AuditService/GetAuditEntry", {"name": e["name"]}) == e
    key = api_key(unix)
    user(lh.tls(key["secret"]), "audited2")
    entries = unix.call("AuditService/ListAuditEntries", {"parent": T, "pageSize": 2})["auditEntries"]
    number = [int(x["name"].rpartition("/")[2]) for x in entries]
    assert entries[0]["actor"] == "api-key:" + key["name"].rpartition("/")[2] and number[0] == number[1] + 1
    system = unix.call("AuditService/ListAuditEntries", {"parent": "tailnets/0", "pageSize": 1000})["auditEntries"]
    assert "api_key.create" in {x["action"] for x in system}
    text = str(entries) + str(system)
    assert key["secret"] not in text and "sk-api-" not in text, "no secret in the audit"


def read_levels(lh):
    unix = lh.unix()
    r = user(unix, "level")["revision"]
    for level in ("local", "leader", f"revision={r['epoch']}.{r['revision']}"):
        unix.call("UserService/ListUsers", {"parent": T}, metadata=[("skerry-read", level)])
    refused("INVALID_ARGUMENT", lambda: unix.call("UserService/ListUsers", {"parent": T},
                                                  metadata=[("skerry-read", "stale")]), field="skerry-read")
    refused("FAILED_PRECONDITION", lambda: unix.call("UserService/ListUsers", {"parent": T},
                                                     metadata=[("skerry-read", "revision=1.1")]), "EPOCH_CHANGED")
    refused("DEADLINE_EXCEEDED", lambda: unix.call("UserService/ListUsers", {"parent": T}, timeout=0.3, metadata=[
        ("skerry-read", f"revision={r['epoch']}.{int(r['revision']) + 1000}")]))


def pages_of_health(lh):
    assert lh.plain("/healthz") == (200, "ok\n") and lh.plain("/readyz") == (200, "ready\n")
    assert lh.plain("/generate_204") == (204, "") and lh.plain("/healthz", "POST")[0] == 405
    assert lh.plain("/nonsense")[0] == 404
    web = lh.json()
    assert web.raw("/readyz", None, method="GET")[0] == 200 and web.raw("/metrics", None, method="GET")[0] == 404
    status, _, page = web.raw("/approve/abcd-ef01", None, method="GET")
    assert status == 200 and b"skerry node approve abcd-ef01" in page
    assert web.raw("/approve/%3Cscript%3E", None, method="GET")[0] == 404
    assert lh.metric("skerry_cluster_quorum") == 1 and lh.metric("skerry_raft_leader") == 1
    assert 'skerry_build_info{version="' in lh.plain("/metrics")[1]
    health = lh.tls()
    check = "/grpc.health.v1.Health/Check"
    assert health.call(check)["status"] == "SERVING"
    key = lh.tls(api_key(lh.unix(), "ROLE_VIEWER")["secret"])
    for name in ("skerry.Coordinator", "skerry.leader"):
        assert key.call(check, {"service": name})["status"] == "SERVING"
        refused("UNAUTHENTICATED", lambda name=name: health.call(check, {"service": name}))
    refused("NOT_FOUND", lambda: key.call(check, {"service": "nonsense"}))


def json_rules(lh):
    web = lh.json(api_key(lh.unix())["secret"])
    path = "/skerry.v1.UserService/ListUsers"
    for body in ("{", '{"nonsense":1}', '{"parent":1}', "[]", '{"parent":"tailnets/1","parent":"tailnets/1"}'):
        status, _, _ = web.raw(path, body)
        assert status == 400, (body, status)
    status, headers, _ = web.raw(path, None, method="GET")
    assert status == 405 and headers["allow"] == "POST"
    assert web.raw(path, "x", {"Content-Type": "text/plain"})[0] == 415
    assert web.raw("/skerry.v1.UserService/Nonsense", "{}")[0] == 404
    assert web.raw(path, " " * (2 << 20))[0] == 429
    status, _, data = web.raw("/skerry.v1.UserService/CreateUser", '{"parent":"tailnets/1","user":{"loginName":"a\\u0000b"}}')
    assert status == 400, data


def nothing_is_lost_by_a_restart(lh):
    unix = lh.unix()
    u = user(unix, "kept")
    key = api_key(unix)["secret"]
    unix.close()
    assert lh.stop() == 0, "an orderly end"
    lh.start()
    assert lh.json(key).call("UserService/GetUser", {"name": u["name"]}) == u


main([socket_and_tls, cluster_as_seen, auth_keys, pages, large_pages_end_early, etags, masks, names, request_ids, tailnets, nodes, roles,
      deleting_its_own_key, open_call_ends_with_its_key, expired_key, bad_credentials_are_limited, forms_of_bad_keys,
      refused_commands_are_limited, audit, read_levels, pages_of_health, json_rules, nothing_is_lost_by_a_restart])
