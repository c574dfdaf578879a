#!/usr/bin/python3
"""BackupService by a stock client: a stream of chunks that is the file; who may have it, and at which level."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lighthouse import SKERRYD, failed, main, refused, wait  # noqa: E402
import lighthouse  # noqa: E402
import grpc  # noqa: E402

PATH = "/skerry.v1.BackupService/CreateBackup"
LEVEL = "skerry-read"


def chunks(client, level=None):
    request = lighthouse.schema.type("skerry.v1.CreateBackupRequest")()
    return client.stream(PATH, request, [(LEVEL, level)] if level else ())


def take(client, level=None):
    """The first message, and the bytes of the others."""
    info, data = None, b""
    try:
        for m in chunks(client, level):
            if info is None:
                info = m.info
                assert not m.data, "the first message has no data"
            else:
                assert 0 < len(m.data) <= 256 << 10 and not m.HasField("info")
                data += m.data
    except grpc.RpcError as e:
        raise failed(e) from None
    return info, data


def api_key(lh, role, parent="tailnets/0"):
    return lh.unix().call("ApiKeyService/CreateApiKey", {"parent": parent, "apiKey": {"role": role}})["secret"]


def the_file_verifies(lh):
    unix = lh.unix()
    for n in range(200):
        unix.call("UserService/CreateUser", {"parent": "tailnets/1", "user": {"loginName": f"u{n}"}})
    cluster = unix.call("ClusterService/GetCluster")
    info, data = take(unix)
    assert info.size == len(data) and info.revision == int(cluster["revision"])
    assert info.digest == cluster["digest"] and info.epoch == int(cluster["epoch"])
    assert data.startswith(b"SKRYBKUP")
    path = os.path.join(lh.dir, "backup")
    with open(path, "wb") as f:
        f.write(data)
    shown = subprocess.run([SKERRYD, "backup", "verify", path, "--cluster-key", f"{lh.dir}/state/cluster.key"],
                           check=True, capture_output=True, env={"TMPDIR": lh.dir}).stdout.decode()
    assert info.digest in shown and f"revision {info.revision}," in shown and "201 users" in shown, shown
    assert not [n for n in os.listdir(lh.dir) if n.startswith("skerry-verify")], "the scratch directory is gone"
    with open(f"{lh.dir}/state/cluster.key", encoding="ascii") as f:
        key = f.read().strip()
    assert bytes.fromhex(key) not in data and key.encode() not in data, "cluster.key is not in it"
    with open(f"{lh.dir}/state/node.key", encoding="ascii") as f:
        assert f.read().encode() not in data


def one_after_the_other(lh):
    unix = lh.unix()
    first = take(unix)
    second = take(unix)
    # That the first was taken is noted in the state: before the second, or after it.
    assert (second[0].digest == first[0].digest) == (second[0].revision == first[0].revision)
    # A client that goes in the middle leaves the place free.
    call = chunks(unix)
    next(iter(call))
    call.cancel()

    def again():
        try:
            return take(unix)[0].size > 0
        except lighthouse.Failed as e:
            assert e.reason == "BACKUP_RUNNING", e
            return False
    wait(again, "another backup")


def only_administrators_of_the_system(lh):
    for role, parent in (("ROLE_VIEWER", "tailnets/0"), ("ROLE_OPERATOR", "tailnets/0"), ("ROLE_ADMIN", "tailnets/1")):
        refused("PERMISSION_DENIED", lambda role=role, parent=parent: take(lh.tls(api_key(lh, role, parent))))
    refused("UNAUTHENTICATED", lambda: take(lh.tls()))
    assert take(lh.tls(api_key(lh, "ROLE_ADMIN")))[0].size > 0


def levels(lh):
    unix = lh.unix()
    assert take(unix, "local")[0].size > 0
    refused("INVALID_ARGUMENT", lambda: take(unix, "sometimes"), field="skerry-read")
    cluster = unix.call("ClusterService/GetCluster")
    assert take(unix, f"revision={cluster['epoch']}.{cluster['revision']}")[0].revision >= int(cluster["revision"])
    refused("FAILED_PRECONDITION", lambda: take(unix, f"revision=1.{cluster['revision']}"), "EPOCH_CHANGED")


main([the_file_verifies, one_after_the_other, only_administrators_of_the_system, levels])
