#!/usr/bin/python3
"""The command against a real lighthouse: over the Unix socket and over TLS, with an API key."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
from lighthouse import main  # noqa: E402

SKERRY = os.path.join(os.environ.get("SKERRY_BIN", "build/bin"), "skerry")
if not os.path.exists(SKERRY):
    print(f"skipped: there is no {SKERRY}")
    sys.exit(77)


def skerry(lh, *words, status=0, text="", key=None, stdin=None):
    """Runs it: by the socket, or with a key by the network. Returns stdout."""
    env = {"PATH": os.environ["PATH"], "SKERRY_SOCKET": lh.socket}
    if key:
        env = {"PATH": os.environ["PATH"], "SKERRY_API_KEY": key, "SKERRY_LIGHTHOUSE": f"https://127.0.0.1:{lh.api}"}
    done = subprocess.run([SKERRY, *words], env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    said = f"skerry {' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == status, f"{said}instead of {status}"
    assert text in done.stdout + done.stderr, f"{said}lacks {text!r}"
    return done.stdout


def made(lh, *words, **more):
    return json.loads(skerry(lh, *words, "-o", "json", **more))


def cluster(lh):
    assert made(lh, "cluster", "status")["members"][0]["displayName"] == "lh1"
    skerry(lh, "cluster", "status", text="lh1 (this)")
    assert made(lh, "cluster", "digest")["equal"]
    token = skerry(lh, "cluster", "token", "--expiry", "10m").split()
    assert len(token) == 1 and token[0].startswith("sk-join-")
    skerry(lh, "cluster", "remove", "lh9", status=6, text="there is no lighthouse lh9")


def keys(lh):
    key = skerry(lh, "auth-key", "create", "--reusable", "--tags", "server", "--description", "for racks").split()
    assert len(key) == 1 and key[0].startswith("sk-auth-")
    listed = made(lh, "auth-key", "list")["authKeys"]
    one = [k for k in listed if k["description"] == "for racks"][0]
    assert one["tags"] == ["tag:server"] and one["reusable"] and not one["needsApproval"] and not one["secret"]
    number = one["name"].split("/")[-1]
    skerry(lh, "auth-key", "get", number, text="for racks")
    skerry(lh, "auth-key", "revoke", number, text="revoked " + one["name"])
    skerry(lh, "auth-key", "get", number, status=6)
    key = made(lh, "api-key", "create", "--role", "operator", "--expiry", "1h")
    assert key["secret"].startswith("sk-api-") and key["role"] == "ROLE_OPERATOR"
    assert key["name"] in [k["name"] for k in made(lh, "api-key", "list")["apiKeys"]]
    skerry(lh, "api-key", "revoke", key["name"])


def users_and_tailnets(lh):
    skerry(lh, "user", "create", "ann", "--role", "viewer", "--display-name", "Ann", text="Ann")
    skerry(lh, "user", "create", "ann", status=7)
    skerry(lh, "user", "get", "Ann", text="viewer")
    for i in range(3):
        skerry(lh, "user", "create", f"u{i}")
    assert len(made(lh, "user", "list")["users"]) == 5
    skerry(lh, "user", "delete", "ann", text="deleted")
    skerry(lh, "user", "delete", "ann", status=6)
    skerry(lh, "tailnet", "create", "work", text="work.internal")
    skerry(lh, "user", "create", "bob", "-t", "work")
    skerry(lh, "user", "get", "bob", status=6, text="there is no user bob")
    skerry(lh, "tailnet", "delete", "work", "--force", text="deleted")
    skerry(lh, "user", "list", "-t", "work", status=6, text="there is no tailnet work")
    skerry(lh, "audit", "list", "-n", "3", text="unix:0" if os.getuid() == 0 else "unix:")


def nodes(lh):
    lh.unix().call("NodeService/CreateNode", {"parent": "tailnets/1", "node": {
        "user": "tailnets/1/users/2", "hostname": "box", "machineKey": "mkey:" + "11" * 32, "nodeKey": "nodekey:" + "22" * 32}})
    skerry(lh, "node", "list", text="box")
    skerry(lh, "node", "rename", "box", "crate", text="crate")
    skerry(lh, "node", "get", "box", status=6, text="there is no node box")
    skerry(lh, "node", "tag", "crate", "server", text="tag:server")
    skerry(lh, "node", "tag", "crate", "not a tag", status=2, text="tag")
    skerry(lh, "node", "approve", "XXXX-XXXX", status=6)
    skerry(lh, "node", "delete", "crate", text="deleted")
    assert made(lh, "node", "list")["nodes"] == []


def network(lh):
    ca = os.path.join(lh.dir, "state", "ca.crt")
    key = made(lh, "api-key", "create", "--system", "--role", "admin")["secret"]
    assert made(lh, "user", "list", "--ca", ca, key=key) == made(lh, "user", "list")
    skerry(lh, "cluster", "status", "--ca", ca, key=key, text="lh1 (this)")
    # What is shown as the pin is what --pin takes.
    pin = made(lh, "cluster", "status")["caPin"]
    skerry(lh, "cluster", "status", text=f"pin {pin}")
    skerry(lh, "cluster", "status", "--pin", pin, key=key, text="lh1 (this)")
    skerry(lh, "cluster", "status", key=key, status=5, text="skerry cluster status on a lighthouse shows it")
    # From a file, from standard input, and as an argument with a warning.
    path = os.path.join(lh.dir, "key")
    with open(path, "w", encoding="ascii") as f:
        f.write(key + "\n")
    url = ["--lighthouse", f"https://127.0.0.1:{lh.api}", "--ca", ca]
    env = {"PATH": os.environ["PATH"]}
    for spec, given in ((f"file:{path}", None), ("-", key + "\n"), (key, None)):
        done = subprocess.run([SKERRY, "user", "list", *url, "--api-key", spec], env=env, input=given, capture_output=True,
                              text=True, timeout=60, check=True)
        assert "admin" in done.stdout and ("warning" in done.stderr) == (spec == key) and key not in done.stderr
    # A dead lighthouse before a living one.
    env["SKERRY_API_KEY"] = key
    both = f"https://127.0.0.1:1,https://127.0.0.1:{lh.api}"
    subprocess.run([SKERRY, "user", "list", "--lighthouse", both, "--ca", ca], env=env, capture_output=True, timeout=60,
                   check=True)


def network_refused(lh):
    ca = os.path.join(lh.dir, "state", "ca.crt")
    key = made(lh, "api-key", "create")["secret"]
    skerry(lh, "user", "list", "--ca", ca, "--tailnet", "1", key=key)
    skerry(lh, "user", "create", "x", "--ca", ca, "--tailnet", "1", key=key, status=5, text="operator")
    skerry(lh, "user", "list", "--ca", ca, key=key, status=5, text="--tailnet 1")
    skerry(lh, "user", "list", "--tailnet", "1", "--pin", "ab" * 32, key=key, status=5, text="not trusted")
    skerry(lh, "user", "list", "--ca", ca, key=key[:-2], status=2, text="the key is cut")
    other = skerry(lh, "auth-key", "create").strip()
    skerry(lh, "user", "list", "--ca", ca, key=other, status=2, text="holds an auth key")
    number = made(lh, "api-key", "list")["apiKeys"][-1]["name"]
    skerry(lh, "api-key", "revoke", number)
    for k in made(lh, "api-key", "list")["apiKeys"]:
        skerry(lh, "api-key", "revoke", k["name"])
    skerry(lh, "user", "list", "--ca", ca, "--tailnet", "1", key=key, status=5)


main([cluster, keys, users_and_tailnets, nodes, network, network_refused])
