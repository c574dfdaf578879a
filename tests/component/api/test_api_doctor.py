#!/usr/bin/python3
"""Three lighthouses and the operator's tools: Diagnose, TransferLeadership and PromoteMember, from any of them."""
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lighthouse import Failed, Lighthouse, main, refused, wait  # noqa: E402

second = third = None
# What the machine the test runs on may have.
OF_THE_HOST = {"SLOW_DISK", "DISK_SPACE"}


def token(lh):
    return lh.unix().call("ClusterService/CreateJoinToken")["secret"]


def members(lh):
    return {m["displayName"]: m for m in lh.unix().call("ClusterService/GetCluster").get("members", [])}


def codes(lh):
    """Code -> names of the lighthouses, notes left out."""
    found = {}
    answer = lh.unix().call("ClusterService/Diagnose")
    for f in answer.get("findings", []):
        assert f["message"] and f["remedy"]
        if f["severity"] != "SEVERITY_NOTE" and f["code"] not in OF_THE_HOST:
            found[f["code"]] = sorted(found.get(f["code"], []) + [f.get("member", "")])
    return found


def margin(lh):
    return lh.unix().call("ClusterService/Diagnose").get("quorumMargin", 0)


def leader(lh):
    return next((name for name, m in members(lh).items() if m.get("leader")), None)


def voters(lh, n):
    found = members(lh).values()
    return sum(m["role"] == "MEMBER_ROLE_VOTER" and m.get("connected", False) for m in found) == n and leader(lh)


def transfer(lh, name=None):
    body = {"name": members(lh)[name]["name"]} if name else {}
    return lh.unix().call("ClusterService/TransferLeadership", body)["leader"]


def measured(lh):
    """The disk is judged once a second."""
    return "appendCount" in lh.unix().call("ClusterService/Diagnose")["members"][0]


def one(lh):
    wait(lambda: measured(lh), "the times of appends")
    assert codes(lh) == {"SINGLE_VOTER": [""]} and margin(lh) == 0
    answer = lh.unix().call("ClusterService/Diagnose")
    facts = answer["members"][0]
    assert facts["displayName"] == "lh1" and facts["leader"] and int(facts["diskBytes"]) > int(facts["diskFreeBytes"]) > 0
    assert int(facts["appendCount"]) > 0 and int(facts["appendP99Us"]) > 0
    assert facts["apiCertificateExpireTime"] < facts["peerCertificateExpireTime"] < facts["caCertificateExpireTime"]
    assert answer["severity"] in ("SEVERITY_WARNING", "SEVERITY_ERROR")
    refused("FAILED_PRECONDITION", lambda: transfer(lh), "NO_OTHER_VOTER")
    refused("FAILED_PRECONDITION", lambda: transfer(lh, "lh1"), "LEADS_ALREADY")
    refused("NOT_FOUND", lambda: lh.unix().call("ClusterService/TransferLeadership", {"name": "members/5"}),
            "MEMBER_NOT_FOUND")
    refused("INVALID_ARGUMENT", lambda: lh.unix().call("ClusterService/TransferLeadership", {"name": "five"}), field="name")


def promote_of_two(lh):
    global second
    second = Lighthouse("lh2", token(lh))
    wait(lambda: len(members(second)) == 2 and members(second)["lh1"].get("connected"), "the second", 20)
    name = members(lh)["lh2"]["name"]
    for asked in (lh, second):  # the standby passes it to the leader
        refused("FAILED_PRECONDITION", lambda asked=asked: asked.unix().call("ClusterService/PromoteMember", {"name": name}),
                "EVEN_VOTERS")
        refused("FAILED_PRECONDITION", lambda asked=asked: transfer(asked, "lh2"), "NOT_A_VOTER")
    refused("NOT_FOUND", lambda: lh.unix().call("ClusterService/PromoteMember", {"name": "members/5"}))


def three(lh):
    global third
    third = Lighthouse("lh3", token(lh))
    for each in (lh, second, third):
        wait(lambda each=each: voters(each, 3), "three voters", 20)
    for each in (lh, second, third):
        wait(lambda each=each: codes(each) == {} and margin(each) == 1, f"all is well: {codes(each)}", 10)
    refused("FAILED_PRECONDITION",
            lambda: second.unix().call("ClusterService/PromoteMember", {"name": members(lh)["lh3"]["name"]}), "ALREADY_VOTER")


def transfers(lh):
    """From each to each, while somebody writes: no write fails."""
    stop, failed, written = threading.Event(), [], []

    def write(each, tag):
        unix = each.unix()
        while not stop.is_set():
            name = f"w{tag}-{len(written)}"
            try:
                unix.call("UserService/CreateUser", {"parent": "tailnets/1", "user": {"loginName": name}, "requestId": name})
                written.append(name)
            except Failed as e:
                failed.append(e)

    writers = [threading.Thread(target=write, args=(each, i)) for i, each in enumerate((lh, second, third))]
    for w in writers:
        w.start()
    try:
        for n, name in enumerate(["lh2", "lh3", "lh1", "lh3", "lh2", "lh1"]):
            assert transfer((lh, second, third)[n % 3], name) == name
            wait(lambda: all(leader(each) == name for each in (lh, second, third)), f"{name} leads")
            enough = len(written) + 4
            wait(lambda enough=enough: len(written) >= enough or failed, "writes go on")
        assert transfer(third) in ("lh2", "lh3")
    finally:
        stop.set()
        for w in writers:
            w.join()
    assert not failed, failed[:3]
    # On a loaded machine one of them may be told from a lost leader no more.
    total = sum(each.metric('skerry_raft_elections_total{cause="transfer"}') for each in (lh, second, third))
    assert total >= 5, total
    assert sum(each.metric("skerry_raft_leaderships_total") for each in (lh, second, third)) >= 8
    assert sum(each.metric('skerry_peer_forwarded_total{kind="command"}') for each in (lh, second, third)) > 0
    print(f"     {len(written)} writes, 7 hand-overs")


def one_is_killed(lh):
    transfer(lh, "lh1") if leader(lh) != "lh1" else None
    third.stop(signal.SIGKILL)
    for each in (lh, second):
        wait(lambda each=each: codes(each) == {"NOT_CONNECTED": ["lh3"], "QUORUM_MARGIN": [""]}, "what is missing")
        assert margin(each) == 0
    refused("FAILED_PRECONDITION", lambda: transfer(second, "lh3"), "MEMBER_NOT_CONNECTED")
    third.start()
    wait(lambda: codes(lh) == {} and margin(lh) == 1, "all is well again", 20)


def without_quorum(lh):
    second.stop(signal.SIGKILL)
    third.stop(signal.SIGKILL)
    wait(lambda: codes(lh) == {"NOT_CONNECTED": ["lh2", "lh3"], "QUORUM_LOST": [""]}, "what is missing", 20)
    assert margin(lh) == -1
    answer = lh.unix().call("ClusterService/Diagnose")
    assert answer["severity"] == "SEVERITY_ERROR"
    try:
        transfer(lh)
        raise AssertionError("transferred without quorum")
    except Failed as e:
        assert e.reason in ("WOULD_LOSE_QUORUM", "NO_QUORUM") or e.status == 14, e
    second.start()
    third.start()
    wait(lambda: codes(lh) == {}, "all is well again", 20)
    for each in (second, third):
        assert not each.close()


main([one, promote_of_two, three, transfers, one_is_killed, without_quorum])
