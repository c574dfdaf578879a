#!/usr/bin/python3
"""`buf curl` against json_server: services by reflection over gRPC; unary calls over TLS by gRPC, and by Connect.

buf_test.py JSON_SERVER WORK_DIR PROTO_DIR

buf comes from npm (package @bufbuild/buf) into WORK_DIR, unless it is on PATH. Exit code 77, skipped, without both."""
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile

SERVER, WORK, PROTO = sys.argv[1:4]
VERSION = "1.75.0"


def find_buf():
    if shutil.which("buf"):
        return shutil.which("buf")
    path = os.path.join(WORK, "node_modules", ".bin", "buf")
    if os.path.exists(path):
        return path
    if not shutil.which("npm"):
        print("skipped: neither buf nor npm is installed")
        sys.exit(77)
    os.makedirs(WORK, exist_ok=True)
    run = subprocess.run(["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", WORK,
                          f"@bufbuild/buf@{VERSION}"], capture_output=True, text=True, check=False)
    if run.returncode or not os.path.exists(path):
        print("skipped: npm could not install @bufbuild/buf:", run.stderr.strip()[-500:])
        sys.exit(77)
    return path


def main():
    buf = find_buf()
    with tempfile.TemporaryDirectory() as tmp:
        server = subprocess.Popen([SERVER, tmp], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            port = int(server.stdout.readline().split()[0])
            url = f"https://localhost:{port}"

            def curl(*args, ok=True):
                run = subprocess.run([buf, "curl", "--cacert", os.path.join(tmp, "ca.pem"), *args],
                                     capture_output=True, text=True, timeout=60, check=False)
                assert (run.returncode == 0) == ok, f"{args}: {run.returncode}\n{run.stdout}{run.stderr}"
                return run.stdout if ok else run.stdout + run.stderr

            ways = {"connect": ("--protocol", "connect", "--schema", PROTO)}
            for reflect in ("grpc-v1", "grpc-v1alpha"):
                way = ways[reflect] = ("--protocol", "grpc", "--reflect-protocol", reflect)
                services = curl(*way, "--list-services", url).split()
                for name in ("skerry.v1.NodeService", "grpc.health.v1.Health"):
                    assert name in services, services
                assert "skerry.v1.UserService" not in services, "a service that is not served is listed"
                methods = curl(*way, "--list-methods", url).split()
                assert "skerry.v1.NodeService/GetNode" in methods, methods
            for way in ways.values():
                node = json.loads(curl(*way, "-d", '{"name": "tailnets/1/nodes/2"}',
                                       url + "/skerry.v1.NodeService/GetNode"))
                assert node["name"] == "tailnets/1/nodes/2" and node["online"], node
                assert node["createTime"].startswith("2023-11-14T22:13:20.25"), node
                error = curl(*way, "-d", '{"name": "missing"}', url + "/skerry.v1.NodeService/GetNode", ok=False)
                details = json.loads(error[error.index("{"):])["details"]
                info = next(d for d in details if d["type"] == "google.rpc.ErrorInfo")
                assert "not_found" in error and "there is no node \u201cmissing\u201d" in error, error
                assert b"NO_NODE" in base64.b64decode(info["value"] + "=" * (-len(info["value"]) % 4)), error
                status = json.loads(curl(*way, "-d", "{}", url + "/grpc.health.v1.Health/Check"))
                assert status["status"] == "SERVING", status
        finally:
            server.stdin.close()
            code = server.wait(20)
        assert code == 0, f"json_server ended with {code}"
    print("all calls answered")


main()
