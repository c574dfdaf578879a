#!/usr/bin/python3
"""Backups by schedule of three lighthouses: one at a time, verified, the oldest deleted; failure is an alarm; the audit chain."""
import glob
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lighthouse import CODES, SKERRYD, Failed, Lighthouse, main, wait  # noqa: E402

KEEP = 3
SCHEDULE = f"""backup:
  directory: {{dir}}/backups
  every: 1s
  keep: {KEEP}
"""
first = None
others = []


def everybody():
    return [first] + others


def files(lh):
    return sorted(glob.glob(os.path.join(lh.dir, "backups", "skerry-*.backup")))


def made(lh):
    return lh.metric("skerry_backups_total") or 0


def audit(lh):
    found = lh.unix().call("AuditService/ListAuditEntries", {"parent": "tailnets/0", "pageSize": 500})
    return [e for e in found["auditEntries"] if e["action"] == "backup.create"]


def leader(lh):
    try:
        cluster = lh.unix().call("ClusterService/GetCluster")
    except Failed:  # a joiner that has no state yet
        return None
    for m in cluster.get("members", []):
        if m.get("leader"):
            return next((e for e in everybody() if e.name == m["displayName"]), None)
    return None


def findings(lh):
    return {f["code"]: f["message"] for f in lh.unix().call("ClusterService/Diagnose").get("findings", [])}


def taken(path, copy):
    try:
        shutil.copyfile(path, copy)
        return True
    except FileNotFoundError:
        return False


def handed_over(lh):
    """A hand-over may be refused while another change is under way, and may not be taken over in time."""
    try:
        lh.unix().call("ClusterService/TransferLeadership", timeout=30)
        return True
    except Failed as e:
        if CODES[e.status].name not in ("FAILED_PRECONDITION", "ABORTED", "UNAVAILABLE"):
            raise
        return False


def begin(lh):
    """The one of the harness has no schedule: a cluster of its own here."""
    global first
    assert findings(lh).get("NO_BACKUP"), "without a schedule"
    first = Lighthouse("one", more=SCHEDULE)
    first.name = "one"
    for name in ("two", "three"):
        token = first.unix().call("ClusterService/CreateJoinToken")["secret"]
        others.append(Lighthouse(name, token, SCHEDULE))
        others[-1].name = name
    wait(lambda: all(leader(e) is not None for e in everybody()), "a leader that all know", 30)


def kept(lh):
    del lh
    chief = leader(first)
    wait(lambda: made(chief) > KEEP + 2, "more backups than are kept", 60)
    names = files(chief)
    assert len(names) <= KEEP + 1, names
    # What is being written has another name; it comes and goes.
    wait(lambda: not glob.glob(os.path.join(chief.dir, "backups", ".*")), "nothing is left behind")
    assert oct(os.stat(names[0]).st_mode & 0o777) == "0o600"
    how = ["--cluster-key", os.path.join(chief.dir, "state", "cluster.key")]
    copy = os.path.join(first.dir, "copy")
    wait(lambda: taken(files(chief)[-1], copy), "a copy before it is deleted")
    subprocess.run([SKERRYD, "backup", "verify", copy, *how], check=True, stdout=subprocess.DEVNULL)
    assert leader(first) is not chief or not any(files(e) for e in everybody() if e is not chief), "only who leads makes them"
    entry = audit(first)[0]
    assert entry["actor"].startswith("lighthouse:") and "revision" in entry["detail"] and ".backup" in entry["detail"], entry
    assert "NO_BACKUP" not in findings(first) and "BACKUP_FAILED" not in findings(first)


def another_leads(lh):
    del lh
    chief = leader(first)
    before = made(chief)
    wait(lambda: leader(first) is not chief or handed_over(first), "a hand-over", 60)
    wait(lambda: leader(first) is not chief and leader(first) is not None, "another leader", 30)
    heir = leader(first)
    wait(lambda: len(files(heir)) >= 1, "its backups", 30)
    after = made(chief)
    assert after <= before + 2, "the one before makes none any more"


def failure_is_told(lh):
    del lh
    chief = leader(first)
    good = files(chief)
    path = os.path.join(chief.dir, "backups")
    # A directory in the way of each file that could be made: also for root.
    os.rename(path, path + ".away")
    with open(path, "w", encoding="ascii"):
        pass
    wait(lambda: chief.metric("skerry_backup_failing") == 1, "the failure", 30)
    wait(lambda: "BACKUP_FAILED" in findings(first), "the doctor says so")
    os.unlink(path)
    os.rename(path + ".away", path)
    assert set(good) & set(files(chief)), "what was there stays"
    wait(lambda: chief.metric("skerry_backup_failing") == 0, "it is tried again", 90)
    assert "BACKUP_FAILED" not in findings(first)


def by_hand_too(lh):
    del lh
    count = sum(e["actor"].startswith("unix:") for e in audit(first))
    request = __import__("lighthouse").schema.type("skerry.v1.CreateBackupRequest")()
    for _ in first.unix().stream("/skerry.v1.BackupService/CreateBackup", request):
        pass
    wait(lambda: sum(e["actor"].startswith("unix:") for e in audit(first)) == count + 1, "the audit entry")


def age_outlives_a_restart(lh):
    del lh
    for each in everybody():
        assert each.stop() == 0
        with open(each.config, encoding="ascii") as f:
            text = f.read()
        with open(each.config, "w", encoding="ascii") as f:
            f.write(text.replace("every: 1s", "every: 24h"))
    for each in everybody():
        each.start(ready=False)
    wait(lambda: first.plain("/readyz")[0] == 200, "ready again", 30)
    wait(lambda: leader(first) is not None, "a leader", 30)
    facts = first.unix().call("ClusterService/Diagnose")["members"]
    assert any(m.get("backupTime") for m in facts), "when the last one was made"
    assert "NO_BACKUP" not in findings(first) and "BACKUP_AGE" not in findings(first)
    looks = {e.name: e.metric("skerry_backup_looks_total") for e in everybody()}
    wait(lambda: all(e.metric("skerry_backup_looks_total") >= looks[e.name] + 3 for e in everybody()), "three looks", 60)
    assert all(made(e) == 0 for e in everybody()), "none is due for a day"


def end(lh):
    del lh
    wrong = [w for w in (each.close() for each in everybody()) if w]
    assert not wrong, wrong


main([begin, kept, another_leads, failure_is_told, by_hand_too, age_outlives_a_restart, end])
