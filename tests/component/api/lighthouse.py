"""A real skerryd of one on loopback for the tests in Python, and its clients: stock gRPC, and JSON over POST."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

try:
    import grpc
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

SKERRYD = os.path.join(os.environ.get("SKERRY_BIN", "build/bin"), "skerryd")
PROTOS = os.path.join(os.environ.get("SKERRY_ROOT", "."), "proto")
CODES = {c.value[0]: c for c in grpc.StatusCode}


class Schema:
    """Messages and methods from the descriptors of the build; `access` is the table of who may call what."""

    def __init__(self):
        files = descriptor_pb2.FileDescriptorSet()
        sources = ["skerry/v1/admin.proto", "skerry/v1/backup.proto", "skerry/v1/agent.proto", "google/rpc/error_details.proto",
                   "google/rpc/status.proto", "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto"]
        with tempfile.NamedTemporaryFile() as f:
            subprocess.run(["protoc", f"-I{PROTOS}", "--include_imports", f"--descriptor_set_out={f.name}", *sources],
                           check=True)
            files.ParseFromString(f.read())
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)
        self.factory = message_factory.MessageFactory(self.pool)
        self.methods = {}
        self.access = {}
        options = self.type("google.protobuf.MethodOptions")
        extension = self.pool.FindExtensionByName("skerry.v1.access")
        # The class of the pool's own MethodOptions knows the extension once its message type was made.
        self.type("skerry.v1.Access")
        for file in files.file:
            for service in file.service:
                name = f"{file.package}.{service.name}"
                for method in service.method:
                    path = f"/{name}/{method.name}"
                    self.methods[path] = method
                    raw = options.FromString(method.options.SerializeToString())
                    for field, value in raw.ListFields():
                        if field.number == extension.number:
                            self.access[path] = value

    def type(self, name):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(name.lstrip(".")))

    def make(self, kind, fields):
        return json_format.ParseDict(fields, self.type(kind)(), descriptor_pool=self.pool)


schema = None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Failed(Exception):
    """A refusal, in one form for gRPC and JSON: status number, message, reason and field of the details."""

    def __init__(self, status, message, reason="", field="", headers=None):
        super().__init__(f"{CODES[status].name}: {message} ({reason} {field})")
        self.status, self.message, self.reason, self.field = status, message, reason, field
        self.headers = headers or {}


class Grpc:
    """A stock channel. call() takes and gives dictionaries."""

    def __init__(self, target, key=None, ca=None, server_name=None):
        if ca:
            options = [("grpc.ssl_target_name_override", server_name)]
            self.channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(ca), options)
        else:
            self.channel = grpc.insecure_channel(target)
        self.key = key

    def metadata(self, more=()):
        own = [("authorization", "Bearer " + self.key)] if self.key else []
        return own + list(more)

    def call(self, method, body=None, metadata=(), timeout=10):
        path = method if method.startswith("/") else "/skerry.v1." + method
        m = schema.methods[path]
        request = schema.make(m.input_type, body or {})
        stub = self.channel.unary_unary(path, type(request).SerializeToString, schema.type(m.output_type).FromString)
        try:
            answer, state = stub.with_call(request, timeout=timeout, metadata=self.metadata(metadata))
        except grpc.RpcError as e:
            raise failed(e) from None
        self.headers = dict(state.initial_metadata())
        return json_format.MessageToDict(answer, descriptor_pool=schema.pool)

    def stream(self, path, requests, metadata=()):
        m = schema.methods[path]
        kind = self.channel.stream_stream if m.client_streaming else self.channel.unary_stream
        stub = kind(path, schema.type(m.input_type).SerializeToString, schema.type(m.output_type).FromString)
        return stub(requests, metadata=self.metadata(metadata), timeout=30)

    def close(self):
        self.channel.close()


def details(text):
    status = schema.type("google.rpc.Status").FromString(text)
    reason = field = ""
    for any_ in status.details:
        name = any_.type_url.rpartition("/")[2]
        detail = schema.type(name).FromString(any_.value)
        if name == "google.rpc.ErrorInfo":
            reason = detail.reason
            assert detail.domain == "skerry"
        elif name == "google.rpc.BadRequest":
            field = detail.field_violations[0].field
    return status, reason, field


def failed(e):
    code, reason, field = e.code().value[0], "", ""
    for key, value in e.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status, reason, field = details(value)
            assert status.code == code and status.message == e.details(), "details agree with the status"
    return Failed(code, e.details(), reason, field, dict(e.initial_metadata() or ()))


class Json:
    """JSON over POST on HTTP/1.1, from a source address of choice."""

    NAMES = {c.name.lower(): c.value[0] for c in grpc.StatusCode}
    NAMES["canceled"] = 1

    def __init__(self, port, key=None, source="127.0.0.1"):
        self.port, self.key, self.source = port, key, source

    def raw(self, path, data, headers=None, method="POST"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context,
                                                 source_address=(self.source, 0))
        sent = {"Content-Type": "application/json"}
        if self.key:
            sent["Authorization"] = "Bearer " + self.key
        sent.update(headers or {})
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), answer.read()
        finally:
            connection.close()

    def call(self, method, body=None, headers=None):
        path = method if method.startswith("/") else "/skerry.v1." + method
        status, self.headers, data = self.raw(path, json.dumps(body or {}), headers)
        if status == 200:
            return json.loads(data)
        error = json.loads(data)
        reason = field = ""
        for detail in error.get("details", ()):
            debug = detail.get("debug", {})
            reason = debug.get("reason", reason)
            for violation in debug.get("fieldViolations", ()):
                field = violation["field"]
        raise Failed(self.NAMES[error["code"]], error.get("message", ""), reason, field, self.headers)


class Lighthouse:
    """The first of a cluster, or with a token one that joins."""

    def __init__(self, name="lh1", token=None, more="", peer=None):
        """`more`: further lines of the configuration; {dir} in them is the lighthouse's own directory."""
        global schema
        schema = schema or Schema()
        if not os.path.exists(SKERRYD):
            print(f"skipped: there is no {SKERRYD}")
            sys.exit(77)
        self.dir = tempfile.mkdtemp(prefix="skerry-api-")
        os.chmod(self.dir, 0o700)
        self.api, self.peer, self.metrics = free_port(), peer or free_port(), free_port()
        self.socket = os.path.join(self.dir, "s.sock")
        self.config = os.path.join(self.dir, "lighthouse.yaml")
        with open(self.config, "w", encoding="ascii") as f:
            f.write(f"""state_dir: {self.dir}/state
socket: {self.socket}
peer_listen: 127.0.0.1:{self.peer}
drain: 2s
listeners:
  - address: 127.0.0.1:{self.api}
    tls: cluster
    serve: [agent, admin, web]
  - address: 127.0.0.1:{self.metrics}
    tls: none
    serve: [metrics]
{more.format(dir=self.dir)}""")
        how = ["join", "-"] if token else ["init"]
        try:
            subprocess.run([SKERRYD, *how, "--config", self.config, "--name", name, "--api-address",
                            f"127.0.0.1:{self.api}", "--peer-address", f"127.0.0.1:{self.peer}"],
                           check=True, stdout=subprocess.DEVNULL, input=(token or "").encode())
        except subprocess.CalledProcessError:
            shutil.rmtree(self.dir)
            raise
        self.log = open(os.path.join(self.dir, "log"), "wb")
        self.process = None
        self.start()

    def start(self, ready=True):
        self.process = subprocess.Popen([SKERRYD, "run", "--config", self.config], stderr=self.log)
        if ready:
            wait(lambda: self.plain("/readyz")[0] == 200, "the lighthouse is ready", 20)

    def plain(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=2)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def metric(self, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.plain("/metrics")[1], re.M)
        return float(found.group(1)) if found else None

    def unix(self):
        return Grpc("unix:" + self.socket)

    def tls(self, key=None):
        shown = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{self.api}", "-showcerts"],
                               stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout.decode()
        chain = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", shown, re.S)
        assert len(chain) >= 2, "the cluster's CA is in the chain"
        cluster = self.unix().call("ClusterService/GetCluster")["id"]
        return Grpc(f"127.0.0.1:{self.api}", key, chain[-1].encode(), cluster + ".skerry.invalid")

    def json(self, key=None, source="127.0.0.1"):
        return Json(self.api, key, source)

    def stop(self, sig=signal.SIGTERM):
        if self.process:
            self.process.send_signal(sig)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            code, self.process = self.process.returncode, None
            return code
        return None

    def close(self):
        """Ends it in order, so that a sanitizer can speak; returns what is wrong with that or with its log."""
        code = self.stop()
        self.log.close()
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            text = f.read()
        shutil.rmtree(self.dir)
        report = re.search(r"^.*(Sanitizer|runtime error).*(\n.*){0,60}", text, re.M)
        if report:
            return report.group(0)
        return f"it ended with status {code}" if code else ""


def wait(condition, what, seconds=10):
    """Until the condition holds; one that asks a lighthouse which has no state or leader yet does not.

    Within the seconds, or half a minute on a machine that is busy.
    """
    def holds():
        try:
            return condition()
        except Failed as e:
            if CODES[e.status].name != "UNAVAILABLE":
                raise
            return False

    end = time.monotonic() + max(seconds, 30)
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not within {max(seconds, 30)} s: {what}")
        time.sleep(0.02)


def refused(status, call, reason=None, field=None, message=None):
    """The call is refused with this status name (None: any); says what came instead."""
    try:
        answer = call()
    except Failed as e:
        assert status in (None, CODES[e.status].name), f"{e} instead of {status}"
        assert reason is None or e.reason == reason, f"{e}: reason {e.reason!r} instead of {reason!r}"
        assert field is None or e.field == field, f"{e}: field {e.field!r} instead of {field!r}"
        assert message is None or message in e.message, f"{e}: no {message!r}"
        assert e.message, "a refusal says why"
        return e
    raise AssertionError(f"answered {answer} instead of {status}")


def main(tests):
    """Runs each test with one lighthouse; prints a line each."""
    lighthouse = Lighthouse()
    bad = 0
    try:
        for test in tests:
            begun = time.monotonic()
            try:
                test(lighthouse)
                print(f"ok   {test.__name__} {time.monotonic() - begun:.2f} s")
            except Exception as e:  # noqa: BLE001  the rest still runs
                bad += 1
                import traceback
                traceback.print_exc()
                print(f"FAIL {test.__name__}: {e}")
        if bad:
            lighthouse.log.flush()
            with open(lighthouse.log.name, encoding="utf-8", errors="replace") as f:
                print("".join(f.readlines()[-30:]))
    finally:
        wrong = lighthouse.close()
        if wrong:
            bad += 1
            print(f"FAIL the end of the lighthouse: {wrong}")
    print(f"{len(tests) - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
