#!/usr/bin/python3
"""`buf curl` against json_server: services by reflection, unary calls over TLS by gRPC and by Connect.

buf_test.py JSON_SERVER WORK_DIR

buf comes from npm (package @bufbuild/buf) into WORK_DIR, unless it is on PATH. Exit code 77, skipped, without both."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

SERVER, WORK = sys.argv[1:3]
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

            for reflect in ("grpc-v1", "grpc-v1alpha"):
                services = curl("--reflect-protocol", reflect, "--list-services", url).split()
                for name in ("skerry.v1.NodeService", "grpc.health.v1.Health"):
                    assert name in services, services
                assert "skerry.v1.UserService" not in services, "a service that is not served is listed"
                methods = curl("--reflect-protocol", reflect, "--list-methods", url).split()
                assert "skerry.v1.NodeService/GetNode" in methods, methods
                for protocol in ("grpc", "connect"):
                    common = ("--reflect-protocol", reflect, "--protocol", protocol)
                    node = json.loads(curl(*common, "-d", '{"name": "tailnets/1/nodes/2"}',
                                           url + "/skerry.v1.NodeService/GetNode"))
                    assert node["name"] == "tailnets/1/nodes/2" and node["online"], node
                    assert node["createTime"].startswith("2023-11-14T22:13:20.25"), node
                    error = curl(*common, "-d", '{"name": "missing"}', url + "/skerry.v1.NodeService/GetNode", ok=False)
                    assert "not_found" in error and "NO_NODE" in error, error
                    status = json.loads(curl(*common, "-d", "{}", url + "/grpc.health.v1.Health/Check"))
                    assert status["status"] == "SERVING", status
        finally:
            server.stdin.close()
            code = server.wait(20)
        assert code == 0, f"json_server ended with {code}"
    print("all calls answered")


main()
