#!/usr/bin/python3
"""Lighthouses of before a restore, or of before a recovery, that meet each other and the new one: they are told, and stop."""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lighthouse import SKERRYD, Lighthouse, main, wait  # noqa: E402

SKERRY = os.path.join(os.path.dirname(SKERRYD), "skerry")
REMOVED = 76
others = {}


def cluster(lh):
    return lh.unix().call("ClusterService/GetCluster")


def voters(lh):
    return sum(m["role"] == "MEMBER_ROLE_VOTER" and m.get("connected", False) for m in cluster(lh).get("members", []))


def ends(lh, what, says):
    wait(lambda: lh.process.poll() is not None, what, 40)
    assert lh.process.returncode == REMOVED, (what, lh.process.returncode)
    lh.process = None
    lh.log.flush()
    with open(lh.log.name, encoding="utf-8") as f:
        text = f.read()
    assert says in text and "join anew" in text, text[-1000:]


def three(lh):
    for name in ("lh2", "lh3"):
        others[name] = Lighthouse(name, lh.unix().call("ClusterService/CreateJoinToken")["secret"])
    for each in (lh, *others.values()):
        wait(lambda each=each: voters(each) == 3, "three voters", 30)


def restored(lh):
    """lh3's host is lost, and what a backup restores takes its place; lh1 and lh2 are a majority and know nothing of it."""
    file = os.path.join(lh.dir, "backup")
    subprocess.run([SKERRY, "backup", "create", file, "--socket", lh.socket], check=True, stdout=subprocess.DEVNULL)
    gone = others.pop("lh3")
    gone.stop(signal.SIGKILL)
    wait(lambda: cluster(lh).get("leaderId"), "two go on", 20)
    lh.unix().call("UserService/CreateUser", {"parent": "tailnets/1", "user": {"loginName": "later"}})
    gone.start(ready=False)
    gone.stop(signal.SIGKILL)
    subprocess.run(["rm", "-rf", f"{gone.dir}/state"], check=True)
    subprocess.run([SKERRYD, "restore", file, "--config", gone.config, "--cluster-key", f"{lh.dir}/state/cluster.key", "--name",
                    "new", "--api-address", f"127.0.0.1:{gone.api}", "--peer-address", f"127.0.0.1:{gone.peer}"],
                   check=True, stdout=subprocess.DEVNULL)
    gone.start()
    others["new"] = gone
    ends(others["lh2"], "lh2 ends", "newer epoch")
    ends(lh, "lh1 ends", "newer epoch")
    # Again, both at once.
    lh.start(ready=False)
    others["lh2"].start(ready=False)
    ends(others["lh2"], "lh2 ends again", "newer epoch")
    ends(lh, "lh1 ends again", "newer epoch")
    assert voters(gone) == 1


def recovered(lh):
    """The survivor of three goes on alone; the two others, a majority of before, come back."""
    new = others["new"]
    for name in ("lh5", "lh6"):
        others[name] = Lighthouse(name, new.unix().call("ClusterService/CreateJoinToken")["secret"])
    wait(lambda: voters(new) == 3, "three voters", 30)
    for each in (new, others["lh5"], others["lh6"]):
        each.stop(signal.SIGKILL)
    subprocess.run([SKERRYD, "recover", "--yes", "--config", new.config], check=True, stdout=subprocess.DEVNULL)
    new.start()
    for name in ("lh5", "lh6"):
        others[name].start(ready=False)
    for name in ("lh5", "lh6"):
        ends(others[name], f"{name} ends", "join anew")
    assert voters(new) == 1
    for each in others.values():
        assert not each.close()


main([three, restored, recovered])
