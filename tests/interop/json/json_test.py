#!/usr/bin/python3
"""JSON and protobuf over POST, as curl, urllib and a browser send them, against json_server.

json_test.py JSON_SERVER"""
import base64
import gzip
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest

SERVER = sys.argv.pop(1)
NODE = "/skerry.v1.NodeService/"
JSON = {"Content-Type": "application/json"}


class Face(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.process = subprocess.Popen([SERVER, cls.dir.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cls.tls_port, cls.port = map(int, cls.process.stdout.readline().split())
        cls.ca = cls.dir.name + "/ca.pem"
        cls.context = ssl.create_default_context(cafile=cls.ca)

    @classmethod
    def tearDownClass(cls):
        cls.process.stdin.close()
        code = cls.process.wait(20)
        cls.process.stdout.close()
        cls.dir.cleanup()
        assert code == 0, f"json_server ended with {code}"

    def connect(self, tls=True):
        if tls:
            c = http.client.HTTPSConnection("localhost", self.tls_port, context=self.context, timeout=20)
        else:
            c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        self.addCleanup(c.close)
        return c

    def post(self, connection, method, body, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", NODE + method, data, headers or JSON)
        answer = connection.getresponse()
        return answer, answer.read()

    def test_call(self):
        for tls in (True, False):
            c = self.connect(tls)
            for _ in range(3):  # one connection serves many
                answer, body = self.post(c, "GetNode", {"name": "tailnets/1/nodes/2"}, {**JSON, "X-Echo": "e"})
                self.assertEqual(answer.status, 200)
                self.assertEqual(answer.headers["content-type"], "application/json")
                self.assertEqual(answer.headers["x-echo"], "e")
                self.assertEqual(json.loads(body), {"name": "tailnets/1/nodes/2", "online": True,
                                                    "createTime": "2023-11-14T22:13:20.250Z"})

    def test_error(self):
        answer, body = self.post(self.connect(), "GetNode", {"name": "missing"})
        self.assertEqual(answer.status, 404)
        error = json.loads(body)
        self.assertEqual(error["code"], "not_found")
        self.assertEqual(error["message"], "there is no node \u201cmissing\u201d")
        info = next(d for d in error["details"] if d["type"] == "google.rpc.ErrorInfo")
        self.assertEqual(info["debug"]["reason"], "NO_NODE")
        self.assertIn(b"NO_NODE", base64.b64decode(info["value"] + "=" * (-len(info["value"]) % 4)))
        answer, body = self.post(self.connect(), "GetNode", {"nam": "x"})
        self.assertEqual((answer.status, json.loads(body)["code"]), (400, "invalid_argument"))
        self.assertIn("nam", json.loads(body)["message"])

    def test_protobuf(self):
        answer, body = self.post(self.connect(), "GetNode", b"\x0a\x02n1", {"Content-Type": "application/proto"})
        self.assertEqual(answer.status, 200)
        self.assertTrue(body.startswith(b"\x0a\x02n1"))

    def test_gzip(self):
        data = gzip.compress(json.dumps({"name": "n" * 10000}).encode())
        answer, body = self.post(self.connect(), "GetNode", data, {**JSON, "Content-Encoding": "gzip"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(len(json.loads(body)["name"]), 10000)

    def test_chunked(self):
        c = self.connect()
        c.request("POST", NODE + "GetNode", iter([b'{"na', b'me":', b'"x"}']), JSON, encode_chunked=True)
        self.assertEqual(json.loads(c.getresponse().read())["name"], "x")

    def test_large_answer(self):
        answer, body = self.post(self.connect(), "ListNodes", {"parent": "tailnets/1", "pageSize": 15000})
        self.assertEqual(answer.status, 200)
        self.assertEqual(len(json.loads(body)["nodes"]), 15000)

    def test_large_request(self):
        answer, body = self.post(self.connect(), "GetNode", {"name": "x" * (1 << 20)})
        self.assertEqual((answer.status, json.loads(body)["code"]), (429, "resource_exhausted"))

    def test_round_trip(self):
        node = {"name": "a", "tags": ["tag:x", "tag:y"], "hostInfo": {"os": "linux", "capabilities": ["b"]},
                "createTime": "2026-11-22T13:30:00Z", "ephemeral": True}
        _, body = self.post(self.connect(), "CreateNode", {"node": node, "requestId": "r"})
        self.assertEqual(json.loads(body), node)

    def test_refused(self):
        c = self.connect()
        c.request("GET", NODE + "GetNode?message=%7B%7D")
        answer = c.getresponse()
        answer.read()
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "POST"))
        answer, _ = self.post(c, "GetNode", b"x=1", {"Content-Type": "application/x-www-form-urlencoded"})
        self.assertEqual(answer.status, 415)
        answer, body = self.post(c, "NoSuch", {})
        self.assertEqual((answer.status, json.loads(body)["code"]), (404, "unimplemented"))
        c.request("POST", "/nothing", b"{}", JSON)
        self.assertEqual(c.getresponse().status, 404)

    def test_deadline(self):
        answer, body = self.post(self.connect(), "GetNode", {"name": "never"}, {**JSON, "Connect-Timeout-Ms": "50"})
        self.assertEqual((answer.status, json.loads(body)["code"]), (504, "deadline_exceeded"))

    def test_client_leaves(self):
        for _ in range(20):
            s = socket.create_connection(("127.0.0.1", self.port))
            s.sendall(b"POST /skerry.v1.NodeService/GetNode HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b'Content-Length: 16\r\n\r\n{"name":"never"}')
            s.close()
        self.test_call()

    def test_many_at_once(self):
        failures = []

        def client():
            try:
                c = self.connect()
                for i in range(30):
                    _, body = self.post(c, "GetNode", {"name": f"n{i}"})
                    assert json.loads(body)["name"] == f"n{i}"
            except Exception as e:  # pylint: disable=broad-except
                failures.append(e)

        threads = [threading.Thread(target=client) for _ in range(15)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_curl(self):
        for version in ("--http1.1", "--http2", "--http2-prior-knowledge"):
            plain = version == "--http2-prior-knowledge"
            url = f"http://127.0.0.1:{self.port}" if plain else f"https://localhost:{self.tls_port}"
            run = subprocess.run(["curl", "-sS", "--fail-with-body", "--max-time", "20", version, "--cacert", self.ca,
                                  "-H", "Content-Type: application/json", "-d", '{"name": "n"}', "-w", "\n%{http_version}",
                                  url + NODE + "GetNode"], capture_output=True, text=True, check=False)
            self.assertEqual(run.returncode, 0, run.stderr + run.stdout)
            body, used = run.stdout.rsplit("\n", 1)
            self.assertEqual(json.loads(body)["name"], "n")
            self.assertEqual(used[0], "1" if version == "--http1.1" else "2")
            # a body larger than curl sends without asking: Expect: 100-continue
            run = subprocess.run(["curl", "-sS", "--max-time", "20", version, "--cacert", self.ca, "-H",
                                  "Content-Type: application/json", "-H", "Expect: 100-continue", "-d",
                                  json.dumps({"name": "n" * 50000}), url + NODE + "GetNode"], capture_output=True, text=True, check=False)
            self.assertEqual(len(json.loads(run.stdout)["name"]), 50000)


if __name__ == "__main__":
    unittest.main()
