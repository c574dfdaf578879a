#!/usr/bin/python3
"""Three lighthouses, and what they trust renewed: the feature level, the CA in two steps, cluster.key; one sleeps through it."""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import grpc  # noqa: E402
import lighthouse as lab  # noqa: E402
from lighthouse import SKERRYD, Grpc, Lighthouse, main, refused  # noqa: E402

others = []
old = {}


def wait(condition, what):
    """Generous: sanitizers and a loaded machine make elections long; a cluster without a leader answers later."""
    def holds():
        try:
            return condition()
        except lab.Failed as e:
            if e.status != 14:
                raise
            return False
    lab.wait(holds, what, 90)


def trust(lh):
    return lh.unix().call("ClusterService/GetTrust")


def rotate(lh, **more):
    return lh.unix().call("ClusterService/RotateCa", more, timeout=30)


def token(lh):
    return lh.unix().call("ClusterService/CreateJoinToken")["secret"]


def members(lh):
    return {m["displayName"]: m for m in lh.unix().call("ClusterService/GetCluster").get("members", [])}


def everybody(lh):
    return [lh] + others


def leads(lh):
    return any(m.get("leader") for m in members(lh).values())


def confirmed(lh, ca, seal, n):
    """All of n lighthouses have said that they hold both, as each of those that run sees it."""
    for each in everybody(lh):
        if each.process:
            found = trust(each).get("members", [])
            if len(found) != n or any(m.get("caGeneration") != ca or m.get("sealGeneration") != seal for m in found):
                return False
    return True


def chain(lh):
    """What the API listener shows: leaf first, the CA that signs now last."""
    shown = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{lh.api}", "-showcerts"],
                           stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout.decode()
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", shown, re.S)


def by_tls(lh, ca):
    """A stock client that trusts this CA alone."""
    cluster = lh.unix().call("ClusterService/GetCluster")["id"]
    client = Grpc(f"127.0.0.1:{lh.api}", old["key"], ca.encode(), cluster + ".skerry.invalid")
    try:
        client.call("ClusterService/GetCluster", metadata=[("skerry-read", "local")])
        return True
    except (lab.Failed, grpc.RpcError):
        return False
    finally:
        client.close()


def file(lh, name):
    path = os.path.join(lh.dir, "state", name)
    if not os.path.exists(path):
        return None
    with open(path, encoding="ascii") as f:
        return f.read()


def backup(lh, path):
    request = lab.schema.type("skerry.v1.CreateBackupRequest")()
    with open(path, "wb") as f:
        for m in lh.unix().stream("/skerry.v1.BackupService/CreateBackup", request):
            f.write(m.data)


def verify(path, key=None, recovery=None):
    how = ["--cluster-key", key] if key else ["--recovery-string", "env:RECOVERY"]
    return subprocess.run([SKERRYD, "backup", "verify", path, *how], env={**os.environ, "RECOVERY": recovery or ""},
                          capture_output=True, text=True, check=False)


def alone(lh):
    t = trust(lh)
    assert t["caGeneration"] == 1 and t["sealGeneration"] == 1 and "oldCaPin" not in t, t
    level = lh.unix().call("ClusterService/FinalizeUpgrade")
    assert level["featureLevel"] == level["previousLevel"] == 2, level
    refused("FAILED_PRECONDITION", lambda: rotate(lh, retire=True, requestId="retire-1"), "NOTHING_TO_RETIRE")
    old["key"] = lh.unix().call("ApiKeyService/CreateApiKey",
                                {"parent": "tailnets/0", "apiKey": {"role": "ROLE_ADMIN"}})["secret"]


def three(lh):
    for name in ("lh2", "lh3"):
        others.append(Lighthouse(name, token(lh)))
    wait(lambda: confirmed(lh, 1, 1, 3), "three lighthouses that hold the first CA and key")
    old["token"] = token(lh)
    old["pin"] = trust(lh)["caPin"]
    old["ca"] = chain(lh)[-1]
    assert by_tls(lh, old["ca"])


def ca_rotates(lh):
    answer = rotate(others[0], requestId="ca-1")
    # An answer that was lost: the same request, at whichever lighthouse, makes no third one.
    for each in everybody(lh):
        again = rotate(each, requestId="ca-1")
        assert again["caGeneration"] == 2 and again["caPin"] == answer["caPin"], again
    refused("INVALID_ARGUMENT", lambda: rotate(lh, requestId="ca-1", retire=True, force=True), "REQUEST_ID_REUSED")
    assert answer["caGeneration"] == 2 and answer["oldCaPin"] == old["pin"] != answer["caPin"], answer
    wait(lambda: confirmed(lh, 2, 1, 3), "every lighthouse took the new CA")
    for each in everybody(lh):
        assert trust(each)["caPin"] == answer["caPin"] == each.unix().call("ClusterService/GetCluster")["caPin"]
        wait(lambda each=each: len(chain(each)) == 4, "the API listener shows old and new")
        shown = chain(each)
        assert shown[2] == old["ca"] and shown[3] != old["ca"]
        wait(lambda each=each: by_tls(each, old["ca"]), "who knows the old CA is served")
        wait(lambda each=each: by_tls(each, chain(each)[3]), "and who knows the new one alone")
    old["second"] = chain(lh)[-1]
    refused("FAILED_PRECONDITION", lambda: rotate(lh), "CA_NOT_RETIRED")
    refused("FAILED_PRECONDITION", lambda: rotate(others[1], retire=True), "TOO_EARLY")
    # What was answered before the rotation is not judged by what is now.
    refused("FAILED_PRECONDITION", lambda: rotate(others[1], retire=True, requestId="retire-1"), "NOTHING_TO_RETIRE")


def an_old_token_joins(lh):
    others.append(Lighthouse("lh4", old["token"]))
    wait(lambda: confirmed(lh, 2, 1, 4), "the fourth, by a token that names the old CA")


def ca_retires(lh):
    for each in everybody(lh):
        answer = rotate(each, retire=True, force=True, requestId="ca-2")
        assert "oldCaPin" not in answer and answer["caGeneration"] == 2
    refused("FAILED_PRECONDITION", lambda: rotate(lh, retire=True, force=True), "NOTHING_TO_RETIRE")
    for each in everybody(lh):
        wait(lambda each=each: len(chain(each)) == 2, "the old CA is gone")
        assert chain(each)[1] == old["second"] and not by_tls(each, old["ca"]) and by_tls(each, old["second"])
        assert file(each, "ca-old.crt") is None and file(each, "ca-cross.crt") is None


def one_sleeps(lh):
    """A new CA and a new cluster.key while one is down: neither is finished without it, and it takes both when it is back."""
    sleeper = others[1]
    sleeper.stop()
    wait(lambda: leads(lh), "a leader")
    path = os.path.join(lh.dir, "before")
    old["cluster.key"] = file(lh, "cluster.key")
    backup(lh, path)
    wait(lambda: sum(m.get("connected", False) for m in members(others[0]).values()) == 3, "those that run are linked")
    answer = others[0].unix().call("ClusterService/RotateSeal", {"requestId": "seal-1"}, timeout=30)
    assert answer["sealGeneration"] == 2 and answer["recoveryString"].startswith("skr1-")
    assert answer["holders"] == 3 and answer["lighthouses"] == 4, answer
    new = lambda: file(lh, "cluster.key")  # noqa: E731
    wait(lambda: new() != old["cluster.key"] and new() == file(others[0], "cluster.key") == file(others[2], "cluster.key"),
         "the three that run have the new key")
    assert file(lh, "cluster.key.old") == old["cluster.key"], "the old one is kept for the sleeper's sake"
    for each in (lh, others[0], others[2]):
        again = each.unix().call("ClusterService/RotateSeal", {"requestId": "seal-1"}, timeout=30)
        assert again == {**answer, "holders": again["holders"]}, "the repeat has the recovery string, and rotates nothing"
    refused("FAILED_PRECONDITION", lambda: lh.unix().call("ClusterService/RotateSeal"), "MEMBER_NOT_CONFIRMED")
    refused("FAILED_PRECONDITION", lambda: lh.unix().call("ClusterService/RotateSeal", {"requestId": "seal-2"}),
            "MEMBER_NOT_CONFIRMED")
    rotate(lh)
    wait(lambda: [m["displayName"] for m in trust(lh)["members"] if m["caGeneration"] != 3] == ["lh3"], "only one lacks it")
    refused("FAILED_PRECONDITION", lambda: rotate(lh, retire=True, force=True), "MEMBER_NOT_CONFIRMED", message="lh3")
    assert file(sleeper, "cluster.key") == old["cluster.key"]
    sleeper.start()
    wait(lambda: confirmed(lh, 3, 2, 4), "the sleeper took both")
    assert file(sleeper, "cluster.key") == new() != old["cluster.key"]
    for each in everybody(lh):
        wait(lambda each=each: file(each, "cluster.key.old") is None, "nobody keeps the old key")
        assert file(each, "cluster.key.next") is None
    # Backups: each with the key of its time.
    after = os.path.join(lh.dir, "after")
    backup(lh, after)
    with tempfile.NamedTemporaryFile("w") as key:
        key.write(old["cluster.key"])
        key.flush()
        assert verify(path, key=key.name).returncode == 0
        wrong = verify(after, key=key.name)
        assert wrong.returncode != 0 and "does not open" in wrong.stderr, wrong.stderr
        assert verify(after, recovery=answer["recoveryString"]).returncode == 0
        assert verify(path, recovery=answer["recoveryString"]).returncode != 0


def all_start_again(lh):
    rotate(lh, retire=True, force=True)
    for each in everybody(lh):
        assert each.stop() == 0
    for each in everybody(lh):
        each.start(ready=False)
    wait(lambda: lh.plain("/readyz")[0] == 200, "ready again")
    wait(lambda: confirmed(lh, 3, 2, 4), "all are there")
    # One that is just taking its new certificate cannot be asked.
    wait(lambda: lh.unix().call("ClusterService/CompareDigests").get("equal"), "equal digests")
    chain_ = lh.unix().call("AuditService/ListAuditEntries", {"parent": "tailnets/0", "pageSize": 200})["auditEntries"]
    actions = [e["action"] for e in chain_]
    assert actions.count("ca.rotate") == 2 and actions.count("ca.retire") == 2 and actions.count("seal.rotate") == 1
    assert all(e["actor"].startswith("unix:") for e in chain_ if e["action"] in ("ca.rotate", "ca.retire", "seal.rotate"))


def end(lh):
    del lh
    wrong = [w for w in (each.close() for each in others) if w]
    assert not wrong, wrong


main([alone, three, ca_rotates, an_old_token_joins, ca_retires, one_sleeps, all_start_again, end])
