#!/usr/bin/python3
"""What proto/generate.py refuses, and that it writes only what changed.

generate_test.py PROTOC INCLUDE GENERATE.PY"""
import os
import subprocess
import sys
import tempfile

PROTOC, INCLUDE, GENERATE = sys.argv[1:4]
PROTO = os.path.dirname(GENERATE)

HEAD = 'syntax = "proto3"; package %s; import "skerry/v1/options.proto"; message M {} %s'
CASES = [
    ("no access", "skerry.v1", "service S { rpc R(M) returns (M); }", "say who may call it"),
    ("no credential", "skerry.v1", "service S { rpc R(M) returns (M) { option (skerry.v1.access) = {write: true}; } }",
     "say who may call it"),
    ("no role", "skerry.v1",
     "service S { rpc R(M) returns (M) { option (skerry.v1.access) = {credential: CREDENTIAL_CALLER scope: SCOPE_SYSTEM}; } }",
     "needs role and scope"),
    ("no scope", "skerry.v1",
     "service S { rpc R(M) returns (M) { option (skerry.v1.access) = {credential: CREDENTIAL_CALLER role: ROLE_ADMIN}; } }",
     "needs role and scope"),
    ("role of a device", "skerry.v1",
     "service S { rpc R(M) returns (M) { option (skerry.v1.access) = {credential: CREDENTIAL_DEVICE role: ROLE_ADMIN}; } }",
     "belong to CREDENTIAL_CALLER"),
    ("complete", "skerry.v1",
     "service S { rpc R(M) returns (M) { option (skerry.v1.access) = "
     "{credential: CREDENTIAL_CALLER role: ROLE_ADMIN scope: SCOPE_SYSTEM}; } }", None),
    ("elsewhere", "skerry.internal.v1", "service S { rpc R(M) returns (M); }", None),
    ("optional", "skerry.v1", "message O { optional uint32 x = 1; }", "oneof of one field"),
    ("recursive", "skerry.v1", "message A { B b = 1; } message B { repeated A a = 1; }", "contains itself"),
    ("recursive elsewhere", "other", "message A { A a = 1; }", None),
    ("257 fields", "skerry.v1", "message W {" + "".join(f"bool f{i} = {i};" for i in range(1, 258)) + "}", "256 fields"),
    ("256 fields", "skerry.v1", "message W {" + "".join(f"bool f{i} = {i};" for i in range(1, 257)) + "}", None),
]

failures = 0
with tempfile.TemporaryDirectory() as tmp:
    out, messages, pset = (os.path.join(tmp, n) for n in ("t.c", "m.protoset", "all.protoset"))
    for name, package, text, complaint in CASES:
        with open(os.path.join(tmp, "case.proto"), "w", encoding="utf-8") as f:
            f.write(HEAD % (package, text))
        subprocess.run([PROTOC, "-I" + tmp, "-I" + PROTO, "-I" + INCLUDE, "--experimental_allow_proto3_optional",
                        "--include_imports", "--descriptor_set_out=" + pset, "case.proto"], check=True,
                       stderr=subprocess.DEVNULL)
        if os.path.exists(out):
            os.unlink(out)
        run = subprocess.run([sys.executable, GENERATE, pset, out, messages], capture_output=True, text=True)
        refused = run.returncode != 0
        if refused != (complaint is not None) or (complaint or "") not in run.stderr or refused == os.path.exists(out):
            print(f"{name}: exit {run.returncode}, expected {complaint!r}\n{run.stderr}")
            failures += 1
    before = (os.stat(out).st_mtime_ns, os.stat(messages).st_mtime_ns)
    subprocess.run([sys.executable, GENERATE, pset, out, messages], check=True)
    if (os.stat(out).st_mtime_ns, os.stat(messages).st_mtime_ns) != before:
        print("an unchanged table was written again")
        failures += 1
print(f"{len(CASES)} cases, {failures} failures")
sys.exit(1 if failures else 0)
