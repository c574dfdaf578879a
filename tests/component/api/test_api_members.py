#!/usr/bin/python3
"""Who votes and who is a member, from any lighthouse: grow, promote, demote, remove, replace, cancel, and what is refused."""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lighthouse import Lighthouse, free_port, main, refused, wait  # noqa: E402

lhs = {}
REMOVED = 76


def cluster(lh):
    return lh.unix().call("ClusterService/GetCluster")


def members(lh):
    return {m["displayName"]: m for m in cluster(lh).get("members", [])}


def name(lh, member):
    return members(lh)[member]["name"]


def leader(lh):
    return next((n for n, m in members(lh).items() if m.get("leader")), None)


def voters(lh):
    return sorted(n for n, m in members(lh).items() if m["role"] == "MEMBER_ROLE_VOTER")


def quiet(lh):
    return "change" not in cluster(lh)


def join(new, lh, token=None, **more):
    token = token or lh.unix().call("ClusterService/CreateJoinToken")["secret"]
    lhs[new] = Lighthouse(new, token, **more)


def settled(want, running=None):
    """All that run agree on the voters, on a leader, and that nothing is under way."""
    for each in running or list(lhs.values()):
        wait(lambda each=each: voters(each) == sorted(want) and leader(each) and quiet(each),
             f"voters {want}, there are {voters(each)}, {cluster(each).get('change')}", 30)


def call(lh, method, member=None, **body):
    if member:
        body["name"] = name(lh, member)
    for key in ("more", "with"):
        if key in body:
            body[key] = [name(lh, m) for m in body[key]] if key == "more" else name(lh, body[key])
    return lh.unix().call("ClusterService/" + method, body, timeout=40)


def equal(lh, n):
    wait(lambda: lh.unix().call("ClusterService/CompareDigests").get("equal"), "equal digests", 20)
    assert len(lh.unix().call("ClusterService/CompareDigests")["digests"]) == n


def one_and_two(lh):
    lhs["lh1"] = lh
    refused("FAILED_PRECONDITION", lambda: call(lh, "DeleteMember", "lh1"), "LAST_VOTER")
    refused("FAILED_PRECONDITION", lambda: call(lh, "DemoteMember", "lh1"), "LAST_VOTER")
    refused("FAILED_PRECONDITION", lambda: call(lh, "PromoteMember", "lh1"), "ALREADY_VOTER")
    refused("FAILED_PRECONDITION", lambda: call(lh, "CancelChange"), "NO_CHANGE")
    refused("NOT_FOUND", lambda: lh.unix().call("ClusterService/DemoteMember", {"name": "members/5"}))
    join("lh2", lh)
    wait(lambda: members(lhs["lh2"]).get("lh1", {}).get("connected"), "the second", 20)
    for each in lhs.values():
        assert members(each)["lh2"]["note"] == "two lighthouses: one vote; a third makes three voters", members(each)["lh2"]
        refused("FAILED_PRECONDITION", lambda each=each: call(each, "PromoteMember", "lh2"), "EVEN_VOTERS")
        refused("FAILED_PRECONDITION", lambda each=each: call(each, "DemoteMember", "lh2"), "ALREADY_STANDBY")
        refused("FAILED_PRECONDITION", lambda each=each: call(each, "DeleteMember", "lh1", noFill=True), "LAST_VOTER")


def three(lh):
    join("lh3", lh)
    settled(["lh1", "lh2", "lh3"])
    assert cluster(lh)["lastChange"]["kind"] == "grow" and cluster(lh)["lastChange"]["outcome"] == "done"
    for each in lhs.values():
        refused("FAILED_PRECONDITION", lambda each=each: call(each, "DemoteMember", "lh2"), "EVEN_VOTERS")
        refused("INVALID_ARGUMENT", lambda each=each: call(each, "DemoteMember", "lh2", more=["lh2"]), "NAMED_TWICE")
        refused("NOT_FOUND", lambda each=each: each.unix().call("ClusterService/DeleteMember", {"name": "members/5"}),
                "MEMBER_NOT_FOUND")
        refused("INVALID_ARGUMENT", lambda each=each: each.unix().call("ClusterService/DeleteMember", {"name": "five"}), field="name")


def a_standby_takes_the_place(lh):
    """Demoted, the leader or another: the fourth has the vote at once; promoted again, by name."""
    join("lh4", lh)
    wait(lambda: members(lh).get("lh4", {}).get("connected"), "the fourth", 20)
    assert "a fifth lighthouse makes five" in members(lh)["lh4"]["note"]
    went = leader(lh)
    wait(lambda: not refusal(lambda: call(lhs["lh4"], "DemoteMember", went)), "the demotion", 20)
    left = sorted({"lh1", "lh2", "lh3", "lh4"} - {went})
    settled(left)
    assert leader(lh) != went
    assert "skerry cluster promote " + went in members(lh)[went]["note"]
    change = cluster(lhs["lh4"])["lastChange"]
    assert change["leave"] == [went] and change["enter"] == ["lh4"] and change["actor"].startswith("unix:"), change
    equal(lh, 4)


def refusal(call_):
    """Reason of what may pass: the new one has not caught up yet."""
    try:
        call_()
    except KeyError:
        return "UNKNOWN_HERE"  # its own join has not come to the one that is asked
    except Exception as e:  # noqa: BLE001
        assert getattr(e, "reason", "") in ("MEMBER_BEHIND", "MEMBER_NOT_CONNECTED", "EVEN_VOTERS", "CHANGE_IN_FLIGHT", "NO_STATE"), e
        return e.reason
    return None


def five_and_back(lh):
    """A kept standby does not vote by itself; named with another it does; five to three, of which one leads."""
    join("lh5", lh)
    wait(lambda: members(lh).get("lh5", {}).get("connected"), "the fifth", 20)
    kept = next(n for n, m in members(lh).items() if m["role"] == "MEMBER_ROLE_STANDBY" and n != "lh5")
    assert len(voters(lh)) == 3
    refused("FAILED_PRECONDITION", lambda: call(lh, "PromoteMember", kept), "EVEN_VOTERS")
    wait(lambda: not refusal(lambda: call(lhs["lh5"], "PromoteMember", kept, more=["lh5"])), "the promotion", 20)
    settled(["lh1", "lh2", "lh3", "lh4", "lh5"])
    first, second = leader(lh), "lh5" if leader(lh) != "lh5" else "lh4"
    call(lhs["lh3"], "DemoteMember", first, more=[second])
    settled(sorted(set(lhs) - {first, second}))
    call(lhs["lh2"], "PromoteMember", first, more=[second])
    settled(list(lhs))
    equal(lh, 5)


def remove_the_leader(lh):
    """Asked at itself: it hands over, is told, stops and says why."""
    goes = leader(lh)
    if goes == "lh1":  # the fixture's own stays
        call(lh, "TransferLeadership", "lh5")
        wait(lambda: leader(lh) == "lh5", "lh5 leads")
        goes = "lh5"
    call(lhs[goes], "DeleteMember", goes)
    gone = lhs.pop(goes)
    wait(lambda: gone.process.poll() is not None, "its end", 20)
    assert gone.process.returncode == REMOVED, gone.process.returncode
    gone.log.flush()
    assert "was removed from" in open(gone.log.name, encoding="utf-8").read()
    settled(list(lhs))  # four voters: an even number that a removal left
    gone.start(ready=False)
    wait(lambda: gone.process.poll() is not None, "its end again", 20)
    assert gone.process.returncode == REMOVED
    gone.process = None
    gone.close()
    assert "survive no more losses than 3" in members(lh)[voters(lh)[0]]["note"]


def remove_one_that_is_down(lh):
    """It learns of it at its next dial."""
    goes = next(n for n in lhs if n not in ("lh1", leader(lh)))
    gone = lhs.pop(goes)
    gone.stop(signal.SIGKILL)
    wait(lambda: not members(lh)[goes].get("connected"), "it is away")
    call(next(each for n, each in lhs.items() if n != leader(lh)), "DeleteMember", goes)
    settled(list(lhs))
    gone.start(ready=False)
    wait(lambda: gone.process.poll() is not None, "its end", 20)
    assert gone.process.returncode == REMOVED
    gone.process = None
    gone.close()
    equal(lh, 3)


def replace_a_dead_host(lh):
    """One command, and the join of the host that was set up anew: under the name and at the peer address of the old one."""
    goes = next(n for n in lhs if n not in ("lh1", leader(lh)))
    follower = next(each for n, each in lhs.items() if n not in (goes, leader(lh)))
    gone = lhs.pop(goes)
    old = members(lh)[goes]
    gone.stop(signal.SIGKILL)
    wait(lambda: not members(lh)[goes].get("connected"), "it is away")
    wait(lambda: leader(follower) and leader(follower) != goes, "a leader", 20)
    answer = call(follower, "ReplaceMember", goes)
    token = answer["token"]["secret"]
    assert answer["change"]["step"] == "join" and token.startswith("sk-join-"), answer["change"]
    # Nothing else meanwhile, and the answer names what runs.
    for each in lhs.values():
        e = refused("FAILED_PRECONDITION", lambda each=each: call(each, "DeleteMember", goes), "CHANGE_IN_FLIGHT")
        assert "replace " + goes in e.message, e.message
        wait(lambda each=each: cluster(each).get("change", {}).get("step") == "join", "the step")
    for wrong in (lhs["lh1"],):
        refused("FAILED_PRECONDITION", lambda wrong=wrong: call(wrong, "ReplaceMember", goes), "CHANGE_IN_FLIGHT")
    new = Lighthouse(goes, token, peer=gone.peer)
    lhs["new"] = new
    settled_names = sorted(list(set(lhs) - {"new"}) + [goes])
    for each in lhs.values():
        wait(lambda each=each: voters(each) == settled_names and quiet(each) and members(each)[goes]["id"] != old["id"],
             f"the replacement: {cluster(each).get('change')}", 30)
    assert cluster(lh)["lastChange"]["kind"] == "replace" and cluster(lh)["lastChange"]["outcome"] == "done"
    lhs[goes] = lhs.pop("new")
    gone.start(ready=False)
    wait(lambda: gone.process.poll() is not None, "the old one's end", 20)
    assert gone.process.returncode in (REMOVED, 1), gone.process.returncode  # 1: its port is taken
    gone.process = None
    gone.close()
    equal(lh, 3)


def replace_and_cancel(lh):
    goes = next(n for n in lhs if n not in ("lh1", leader(lh)))
    token = call(lh, "ReplaceMember", goes)["token"]["secret"]
    assert call(lhs[goes], "CancelChange").get("outcome") in (None, "cancelled")
    settled(list(lhs))
    assert cluster(lh)["lastChange"]["outcome"] == "cancelled"
    try:
        Lighthouse("late", token)
        raise AssertionError("joined with the token of a change that was given up")
    except Exception as e:  # noqa: BLE001
        assert "returned non-zero" in str(e), e


def replace_by_a_standby(lh):
    goes = next(n for n in lhs if n not in ("lh1", leader(lh)))
    join("spare", lh)
    wait(lambda: not refusal(lambda: call(lhs["spare"], "ReplaceMember", goes, **{"with": "spare"})), "the replacement", 20)
    gone = lhs.pop(goes)
    settled(list(lhs))
    wait(lambda: gone.process.poll() is not None, "its end", 20)
    assert gone.process.returncode == REMOVED
    gone.process = None
    gone.close()


def quorum(lh):
    """With one of three away no other goes; with two away there is no leader."""
    goes = next(n for n in lhs if n not in ("lh1", leader(lh)))
    lhs[goes].stop(signal.SIGKILL)
    others = [n for n in lhs if n != goes]
    for n in others:
        wait(lambda n=n: not members(lhs[n])[goes].get("connected") and leader(lhs[n]), "what is missing")
    before = cluster(lh)["revision"]
    for asked in others:
        for n in others:
            e = refused("FAILED_PRECONDITION", lambda asked=asked, n=n: call(lhs[asked], "DeleteMember", n), "WOULD_LOSE_QUORUM")
            assert "of then 2 voters 1 would be reached, 2 are needed" in e.message, e.message
    assert cluster(lh)["revision"] == before and quiet(lh)
    other = next(n for n in others if n != "lh1")
    lhs[other].stop(signal.SIGKILL)
    wait(lambda: not leader(lh), "no leader", 20)
    for method in ("DeleteMember", "DemoteMember", "ReplaceMember", "PromoteMember"):
        refused("UNAVAILABLE", lambda method=method: call(lh, method, goes), "NO_QUORUM", message="no leader")
    refused("UNAVAILABLE", lambda: call(lh, "CancelChange"), "NO_QUORUM")
    lhs[goes].start()
    lhs[other].start()
    settled(list(lhs))


def addresses(lh):
    """A follower moves, peer port and API, while the third is away: the others dial it where it is now, and it says so."""
    moves, away = [n for n in lhs if n != "lh1"]
    lhs[away].stop(signal.SIGKILL)
    wait(lambda: not members(lh)[away].get("connected") and leader(lh), "two are left")
    each = lhs[moves]
    each.stop()
    old_api, old_peer = each.api, each.peer
    each.api, each.peer = free_port(), free_port()
    with open(each.config, encoding="ascii") as f:
        text = f.read()
    text = text.replace(str(old_api), str(each.api)).replace(str(old_peer), str(each.peer))
    text += f"peer_address: 127.0.0.1:{each.peer}\napi_url: https://localhost:{each.api}\n"
    with open(each.config, "w", encoding="ascii") as f:
        f.write(text)
    each.start(ready=False)
    for asked in (lh, each):
        wait(lambda asked=asked: members(asked)[moves].get("peerAddress") == f"127.0.0.1:{each.peer}" and
             members(asked)[moves].get("connected"), "the new address", 30)
        assert members(asked)[moves]["apiUrl"] == f"https://localhost:{each.api}"
    # Its certificate is for the new host, too.
    def shown():
        out = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{each.api}"], stdin=subprocess.DEVNULL,
                             capture_output=True, check=False).stdout
        return b"DNS:localhost" in subprocess.run(["openssl", "x509", "-noout", "-ext", "subjectAltName"], input=out,
                                                  capture_output=True, check=False).stdout
    each.stop()  # the API's listener loads its certificate at the start, or within the hour
    each.start(ready=False)
    wait(shown, "the certificate", 20)
    lhs[away].start()
    settled(list(lhs))
    equal(lh, 3)


def end(lh):
    for n, each in lhs.items():
        if n != "lh1":
            wrong = each.close()
            assert not wrong, f"{n}: {wrong}"


main([one_and_two, three, a_standby_takes_the_place, five_and_back, remove_the_leader, remove_one_that_is_down,
      replace_a_dead_host, replace_and_cancel, replace_by_a_standby, quorum, addresses, end])
