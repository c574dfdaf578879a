#!/usr/bin/python3
"""Every RPC without a credential, with an expired one, a read-only one, and one of another tailnet: refused as the table
in the .proto files says. What is expected of each method is computed from its option `access` alone."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lighthouse as lab  # noqa: E402
from lighthouse import Failed, main, wait  # noqa: E402

NONE, DEVICE, CALLER = 1, 2, 3
VIEWER, OPERATOR, ADMIN = 1, 2, 3
TAILNET, SYSTEM = 1, 2
UNAUTHENTICATED, DENIED, LIMITED = 16, 7, 8


class Addresses:
    """A source address for each call: bad credentials are counted by it."""

    def __init__(self):
        self.n = 0

    def next(self):
        self.n += 1
        return f"127.1.{self.n // 250}.{self.n % 250 + 1}"


addresses = Addresses()


def methods():
    return sorted((path, access) for path, access in lab.schema.access.items() if path.startswith("/skerry.v1."))


def request(path, tailnet):
    """A request that names objects of the tailnet (members for the system's)."""
    method = lab.schema.methods[path]
    body = {}
    names = {"Tailnet": "tailnets/{t}", "User": "tailnets/{t}/users/2", "Node": "tailnets/{t}/nodes/4",
             "AuthKey": "tailnets/{t}/authKeys/5", "ApiKey": "tailnets/{t}/apiKeys/6",
             "AuditEntry": "tailnets/{t}/auditEntries/1", "Member": "members/7"}
    kind = next((k for k in names if method.name.endswith(k)), None)
    for field in lab.schema.type(method.input_type).DESCRIPTOR.fields:
        if field.name == "parent":
            body["parent"] = f"tailnets/{tailnet}"
        elif field.name == "name" and kind:
            body["name"] = names[kind].format(t=tailnet)
        elif field.message_type and field.message_type.name == kind:
            body[field.json_name] = {"name": names[kind].format(t=tailnet)}
        elif field.name == "code":
            body["code"] = "abcd-efgh"
    return body


def ask(lh, path, key, tailnet):
    """The status of the call, 0 when it was answered. Streams go by gRPC: JSON has none."""
    if lab.schema.methods[path].server_streaming:
        stub = lh.tls(key)
        try:
            message = lab.schema.make(lab.schema.methods[path].input_type, {})
            next(stub.stream(path, message))
        except Exception as e:  # grpc.RpcError
            why = lab.failed(e)
            return why.status, why.reason
        finally:
            stub.close()
        return 0, ""
    try:
        lh.json(key, addresses.next()).call(path, request(path, tailnet))
    except Failed as e:
        return e.status, e.reason
    return 0, ""


def expect(lh, path, key, tailnet, status, what):
    got, reason = ask(lh, path, key, tailnet)
    if status is None:
        assert got not in (UNAUTHENTICATED, DENIED), f"{path} {what}: {got} {reason}, should pass the gate"
    else:
        assert got == status, f"{path} {what}: {got} {reason} instead of {status}"
    return got, reason


def revision(lh):
    """Once the lighthouse has said what keys it holds: until then it changes the state by itself."""
    wait(lambda: all(m.get("caGeneration") for m in lh.unix().call("ClusterService/GetTrust")["members"]), "its word on its keys")
    return lh.unix().call("ClusterService/GetCluster")["revision"]


def make_key(lh, role, parent="tailnets/0", **more):
    return lh.unix().call("ApiKeyService/CreateApiKey", {"parent": parent, "apiKey": {"role": role}, **more})["secret"]


def table_is_complete(lh):
    del lh
    have = {path for path in lab.schema.methods if path.startswith("/skerry.v1.")}
    assert have == {path for path, _ in methods()} and len(have) >= 35, len(have)
    for path, access in methods():
        assert access.credential in (NONE, DEVICE, CALLER), path
        if access.credential == CALLER:
            assert access.role and access.scope, path


def without_credential(lh):
    before = revision(lh)
    for path, access in methods():
        if access.credential == NONE:
            got, reason = ask(lh, path, None, 1)
            assert reason != "CREDENTIAL_REQUIRED" and got, f"{path}: {got} {reason}"
        else:
            expect(lh, path, None, 1, UNAUTHENTICATED, "without a credential")
    assert revision(lh) == before, "and nothing changed"


def with_expired(lh):
    key = make_key(lh, "ROLE_ADMIN", lifetime="1s")
    wait(lambda: ask(lh, "/skerry.v1.UserService/ListUsers", key, 1)[1] == "API_KEY_EXPIRED", "the key expires")
    before = revision(lh)
    for path, access in methods():
        if access.credential == CALLER:
            _, reason = expect(lh, path, key, 1, UNAUTHENTICATED, "with an expired key")
            assert reason == "API_KEY_EXPIRED", f"{path}: {reason}"
        elif access.credential == DEVICE:
            expect(lh, path, key, 1, UNAUTHENTICATED, "with an expired key")
    assert revision(lh) == before, "and nothing changed"


def with_read_only(lh):
    for role, name in ((VIEWER, "ROLE_VIEWER"), (OPERATOR, "ROLE_OPERATOR")):
        key = make_key(lh, name)
        before = revision(lh)
        for path, access in methods():
            if access.credential == CALLER and access.role > role:
                _, reason = expect(lh, path, key, 1, DENIED, f"as {name}")
                assert reason == "ROLE_TOO_LOW", f"{path}: {reason}"
            elif access.credential == DEVICE:
                expect(lh, path, key, 1, UNAUTHENTICATED, f"as {name}")
        assert revision(lh) == before, "and nothing changed"
        for path, access in methods():
            if access.credential == CALLER and not access.write and access.role <= role:
                expect(lh, path, key, 1, None, f"as {name}")


def of_another_tailnet(lh):
    other = lh.unix().call("TailnetService/CreateTailnet", {"tailnet": {"displayName": "other"}})["name"]
    key = make_key(lh, "ROLE_ADMIN", other)
    number = int(other.rpartition("/")[2])
    before = revision(lh)
    for path, access in methods():
        if access.credential == CALLER:
            _, reason = expect(lh, path, key, 1, DENIED, "of another tailnet")
            assert reason == "OUT_OF_SCOPE", f"{path}: {reason}"
            # Whether the tailnet exists is not told.
            if access.scope == TAILNET:
                expect(lh, path, key, 999999, DENIED, "for a tailnet that is not there")
                expect(lh, path, key, 0, DENIED, "for the system")
        elif access.credential == DEVICE:
            expect(lh, path, key, 1, UNAUTHENTICATED, "of another tailnet")
    assert revision(lh) == before, "and nothing changed"
    for path, access in methods():
        if access.credential == CALLER and access.scope == TAILNET and not access.write:
            expect(lh, path, key, number, None, "in its own tailnet")


def with_a_key_that_never_was(lh):
    """The right form, an unknown id; and a known id with another secret."""
    good = make_key(lh, "ROLE_ADMIN")
    lh.unix().call("ApiKeyService/DeleteApiKey", {"name": f"tailnets/0/apiKeys/{good.split('-')[2]}"})
    for path, access in methods():
        if access.credential == CALLER:
            _, reason = expect(lh, path, good, 1, UNAUTHENTICATED, "with a deleted key")
            assert reason == "API_KEY_UNKNOWN", f"{path}: {reason}"


main([table_is_complete, without_credential, with_expired, with_read_only, of_another_tailnet,
      with_a_key_that_never_was])
