#!/usr/bin/python3
"""The gRPC interoperability cases, driven by the stock Python client.

usage: interop.py INTEROP_SERVER tls|h2c PROTO_DIR

Starts the server, generates the messages into a temporary directory, runs every case, and prints one line each.
"""
import http.client
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

try:
    import grpc
    import google.protobuf  # noqa: F401
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

SERVER, MODE, PROTOS = sys.argv[1:4]


def generate(out):
    """Generated modules live in package grpc.testing: the installed package grpc must find them too."""
    subprocess.run(
        ["protoc", f"-I{PROTOS}", f"--python_out={out}", "grpc/testing/messages.proto", "grpc/testing/empty.proto",
         "grpc/health/v1/health.proto", "grpc/reflection/v1alpha/reflection.proto"], check=True)
    grpc.__path__.append(os.path.join(out, "grpc"))
    sys.path.insert(0, out)


TMP = tempfile.TemporaryDirectory()
generate(TMP.name)
from grpc.testing import empty_pb2, messages_pb2  # noqa: E402
from grpc.health.v1 import health_pb2  # noqa: E402
from grpc.reflection.v1alpha import reflection_pb2  # noqa: E402
from google.protobuf import descriptor_pb2  # noqa: E402

TEST = "/grpc.testing.TestService/"


class Stub:
    def __init__(self, channel):
        m = messages_pb2

        def unary(path, req, res):
            return channel.unary_unary(path, req.SerializeToString, res.FromString)

        self.empty = unary(TEST + "EmptyCall", empty_pb2.Empty, empty_pb2.Empty)
        self.unary = unary(TEST + "UnaryCall", m.SimpleRequest, m.SimpleResponse)
        self.unimplemented = unary(TEST + "UnimplementedCall", empty_pb2.Empty, empty_pb2.Empty)
        self.unimplemented_service = unary("/grpc.testing.UnimplementedService/UnimplementedCall", empty_pb2.Empty,
                                           empty_pb2.Empty)
        self.output = channel.unary_stream(TEST + "StreamingOutputCall",
                                           m.StreamingOutputCallRequest.SerializeToString,
                                           m.StreamingOutputCallResponse.FromString)
        self.input = channel.stream_unary(TEST + "StreamingInputCall", m.StreamingInputCallRequest.SerializeToString,
                                          m.StreamingInputCallResponse.FromString)
        self.duplex = channel.stream_stream(TEST + "FullDuplexCall", m.StreamingOutputCallRequest.SerializeToString,
                                            m.StreamingOutputCallResponse.FromString)
        self.half_duplex = channel.stream_stream(TEST + "HalfDuplexCall",
                                                 m.StreamingOutputCallRequest.SerializeToString,
                                                 m.StreamingOutputCallResponse.FromString)
        self.health = unary("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest,
                            health_pb2.HealthCheckResponse)
        self.watch = channel.unary_stream("/grpc.health.v1.Health/Watch",
                                          health_pb2.HealthCheckRequest.SerializeToString,
                                          health_pb2.HealthCheckResponse.FromString)
        self.reflection = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString)


def payload(n):
    return messages_pb2.Payload(body=b"\0" * n)


def yes(v):
    return messages_pb2.BoolValue(value=v)


def expect_code(code, fn):
    try:
        fn()
    except grpc.RpcError as e:
        assert e.code() == code, f"{e.code()} instead of {code}: {e.details()}"
        return e
    raise AssertionError(f"no error instead of {code}")


def request(sizes, **kw):
    return messages_pb2.StreamingOutputCallRequest(
        response_parameters=[messages_pb2.ResponseParameters(size=s) for s in sizes], **kw)


class Feed:
    """A request iterator that a test feeds by hand."""

    def __init__(self):
        self.items, self.cond, self.closed = [], threading.Condition(), False

    def send(self, item):
        with self.cond:
            self.items.append(item)
            self.cond.notify()

    def close(self):
        with self.cond:
            self.closed = True
            self.cond.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self.cond:
            while not self.items and not self.closed:
                self.cond.wait()
            if self.items:
                return self.items.pop(0)
            raise StopIteration


# ---- Cases ----------------------------------------------------------------------------------------------------------

def empty_unary(s):
    assert s.empty(empty_pb2.Empty(), timeout=10) == empty_pb2.Empty()


def large_unary(s):
    r = s.unary(messages_pb2.SimpleRequest(response_size=314159, payload=payload(271828)), timeout=20)
    assert len(r.payload.body) == 314159


def client_compressed_unary(s):
    probe = messages_pb2.SimpleRequest(expect_compressed=yes(True), response_size=314159, payload=payload(271828))
    expect_code(grpc.StatusCode.INVALID_ARGUMENT, lambda: s.unary(probe, timeout=20))
    r = s.unary(probe, timeout=20, compression=grpc.Compression.Gzip)
    assert len(r.payload.body) == 314159
    r = s.unary(messages_pb2.SimpleRequest(expect_compressed=yes(False), response_size=314159,
                                           payload=payload(271828)), timeout=20)
    assert len(r.payload.body) == 314159


def server_compressed_unary(s):
    for flag in (True, False):
        r = s.unary(messages_pb2.SimpleRequest(response_compressed=yes(flag), response_size=314159,
                                               payload=payload(271828)), timeout=20)
        assert len(r.payload.body) == 314159


def client_streaming(s):
    r = s.input(iter([messages_pb2.StreamingInputCallRequest(payload=payload(n)) for n in (27182, 8, 1828, 45904)]),
                timeout=20)
    assert r.aggregated_payload_size == 74922


def client_compressed_streaming(s):
    probe = [messages_pb2.StreamingInputCallRequest(expect_compressed=yes(True), payload=payload(27182))]
    expect_code(grpc.StatusCode.INVALID_ARGUMENT, lambda: s.input(iter(probe), timeout=20))
    both = [messages_pb2.StreamingInputCallRequest(expect_compressed=yes(True), payload=payload(27182)),
            messages_pb2.StreamingInputCallRequest(payload=payload(45904))]
    r = s.input(iter(both), timeout=20, compression=grpc.Compression.Gzip)
    assert r.aggregated_payload_size == 73086


def server_streaming(s):
    sizes = [31415, 9, 2653, 58979]
    assert [len(r.payload.body) for r in s.output(request(sizes), timeout=20)] == sizes


def server_compressed_streaming(s):
    m = messages_pb2
    req = m.StreamingOutputCallRequest(response_parameters=[
        m.ResponseParameters(size=31415, compressed=yes(True)), m.ResponseParameters(size=92653, compressed=yes(False))])
    assert [len(r.payload.body) for r in s.output(req, timeout=20)] == [31415, 92653]


def ping_pong(s):
    feed = Feed()
    call = s.duplex(feed, timeout=20)
    for up, down in ((27182, 31415), (8, 9), (1828, 2653), (45904, 58979)):
        feed.send(request([down], payload=payload(up)))
        assert len(next(call).payload.body) == down
    feed.close()
    assert list(call) == []


def half_duplex(s):
    reqs = [request([n]) for n in (31415, 9, 2653)]
    assert [len(r.payload.body) for r in s.half_duplex(iter(reqs), timeout=20)] == [31415, 9, 2653]


def interval_us(s):
    m = messages_pb2
    req = m.StreamingOutputCallRequest(response_parameters=[m.ResponseParameters(size=1, interval_us=50000)] * 3)
    start = time.monotonic()
    assert len(list(s.output(req, timeout=20))) == 3
    assert time.monotonic() - start >= 0.14


def empty_stream(s):
    assert list(s.duplex(iter([]), timeout=10)) == []


def custom_metadata(s):
    sent = (("x-grpc-test-echo-initial", "test_initial_metadata_value"),
            ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"))
    _, call = s.unary.with_call(messages_pb2.SimpleRequest(response_size=314159, payload=payload(271828)),
                                metadata=sent, timeout=20)
    assert dict(call.initial_metadata())["x-grpc-test-echo-initial"] == "test_initial_metadata_value"
    assert dict(call.trailing_metadata())["x-grpc-test-echo-trailing-bin"] == b"\xab\xab\xab"
    call = s.duplex(iter([request([314159], payload=payload(271828))]), metadata=sent, timeout=20)
    assert len(list(call)) == 1
    assert dict(call.initial_metadata())["x-grpc-test-echo-initial"] == "test_initial_metadata_value"
    assert dict(call.trailing_metadata())["x-grpc-test-echo-trailing-bin"] == b"\xab\xab\xab"


def status_code_and_message(s):
    echo = messages_pb2.EchoStatus(code=2, message="test status message")
    e = expect_code(grpc.StatusCode.UNKNOWN, lambda: s.unary(messages_pb2.SimpleRequest(response_status=echo), timeout=10))
    assert e.details() == "test status message"
    e = expect_code(grpc.StatusCode.UNKNOWN,
                    lambda: list(s.duplex(iter([messages_pb2.StreamingOutputCallRequest(response_status=echo)]), timeout=10)))
    assert e.details() == "test status message"


def special_status_message(s):
    text = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
    echo = messages_pb2.EchoStatus(code=2, message=text)
    e = expect_code(grpc.StatusCode.UNKNOWN, lambda: s.unary(messages_pb2.SimpleRequest(response_status=echo), timeout=10))
    assert e.details() == text


def unimplemented_method(s):
    expect_code(grpc.StatusCode.UNIMPLEMENTED, lambda: s.unimplemented(empty_pb2.Empty(), timeout=10))


def unimplemented_service(s):
    expect_code(grpc.StatusCode.UNIMPLEMENTED, lambda: s.unimplemented_service(empty_pb2.Empty(), timeout=10))


def cancel_after_begin(s):
    feed = Feed()
    future = s.input.future(feed)
    future.cancel()
    assert future.code() == grpc.StatusCode.CANCELLED
    feed.close()


def cancel_after_first_response(s):
    feed = Feed()
    call = s.duplex(feed, timeout=20)
    feed.send(request([31415], payload=payload(27182)))
    assert len(next(call).payload.body) == 31415
    call.cancel()
    expect_code(grpc.StatusCode.CANCELLED, lambda: next(call))
    feed.close()


def timeout_on_sleeping_server(s):
    feed = Feed()
    call = s.duplex(feed, timeout=0.001)
    feed.send(messages_pb2.StreamingOutputCallRequest(payload=payload(27182)))
    expect_code(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: next(call))
    feed.close()


def message_limits(s):
    overhead = messages_pb2.SimpleRequest(payload=payload(4 << 20)).ByteSize() - (4 << 20)
    exact = messages_pb2.SimpleRequest(payload=payload((4 << 20) - overhead))
    assert exact.ByteSize() == 4 << 20
    assert s.unary(exact, timeout=30).payload.body == b""
    over = messages_pb2.SimpleRequest(payload=payload((4 << 20) - overhead + 10))
    expect_code(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: s.unary(over, timeout=30))


def concurrent_large_unary(s):
    req = messages_pb2.SimpleRequest(response_size=314159, payload=payload(271828))
    futures = [s.unary.future(req, timeout=90) for _ in range(1000)]
    for f in futures:
        assert len(f.result().payload.body) == 314159


def health(s):
    assert s.health(health_pb2.HealthCheckRequest(), timeout=10).status == 1
    expect_code(grpc.StatusCode.NOT_FOUND, lambda: s.health(health_pb2.HealthCheckRequest(service="no"), timeout=10))
    call = s.watch(health_pb2.HealthCheckRequest(service="no"), timeout=10)
    assert next(call).status == 3
    call.cancel()


def many_streams(s):
    feeds = [Feed() for _ in range(90)]
    calls = [s.duplex(f, timeout=60) for f in feeds]
    for f in feeds:
        f.send(request([100]))
    for c in calls:
        assert len(next(c).payload.body) == 100
    for c, f in zip(calls, feeds):
        c.cancel()
        f.close()


def reflection(s):
    r = reflection_pb2
    reqs = [r.ServerReflectionRequest(list_services=""), r.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
            r.ServerReflectionRequest(file_by_filename="no/such.proto")]
    services, file, missing = list(s.reflection(iter(reqs), timeout=10))
    names = [x.name for x in services.list_services_response.service]
    assert "grpc.health.v1.Health" in names, names
    assert "skerry.v1.NodeService" not in names, "listed but not served"
    fd = descriptor_pb2.FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
    assert "Health" in [x.name for x in fd.service]
    assert missing.error_response.error_code == 5


CASES = [empty_unary, large_unary, client_compressed_unary, server_compressed_unary, client_streaming,
         client_compressed_streaming, server_streaming, server_compressed_streaming, ping_pong, half_duplex, interval_us,
         empty_stream, custom_metadata, status_code_and_message, special_status_message, unimplemented_method,
         unimplemented_service, cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server,
         message_limits, many_streams, health, reflection, concurrent_large_unary]


def plain_http(ports, ca):
    """HTTP/1.1 on the same ports, and TLS 1.2 for clients that have no 1.3."""
    conns = [http.client.HTTPConnection("localhost", int(ports["h2c"]), timeout=10)]
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        ctx = ssl.create_default_context(cafile=ca)
        ctx.minimum_version = ctx.maximum_version = version
        conns.append(http.client.HTTPSConnection("localhost", int(ports["tls"]), context=ctx, timeout=10))
    for c in conns:
        for _ in range(2):  # the connection is kept
            c.request("GET", "/healthz")
            r = c.getresponse()
            assert (r.status, r.read()) == (200, b"ok\n"), r.status
        c.request("GET", "/nothing")
        r = c.getresponse()
        r.read()
        assert r.status == 405, r.status
        c.request("POST", "/nothing", body="x", headers={"content-type": "text/plain"})
        r = c.getresponse()
        r.read()
        assert r.status == 415, r.status
        c.close()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(ca)
    old.set_ciphers("AES128-GCM-SHA256")  # no forward secrecy: refused
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        old.wrap_socket(socket.create_connection(("localhost", int(ports["tls"]))), server_hostname="localhost")
    except ssl.SSLError:
        return
    raise AssertionError("a cipher without forward secrecy was accepted")


def main():
    ca = os.path.join(TMP.name, "ca.pem")
    server = subprocess.Popen([SERVER, ca], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ports = dict(x.split("=") for x in server.stdout.readline().split())
    if MODE == "tls":
        with open(ca, "rb") as f:
            creds = grpc.ssl_channel_credentials(f.read())
        channel = grpc.secure_channel(f"localhost:{ports['tls']}", creds)
    else:
        channel = grpc.insecure_channel(f"localhost:{ports['h2c']}")
    failed = 0
    stub = Stub(channel)
    for case in CASES:
        start = time.monotonic()
        try:
            case(stub)
            print(f"ok   {case.__name__} ({time.monotonic() - start:.2f} s)")
        except Exception as e:  # every case is run
            failed += 1
            print(f"FAIL {case.__name__}: {type(e).__name__}: {e}")
    if MODE == "tls":
        try:
            plain_http(ports, ca)
            print("ok   plain_http")
        except Exception as e:
            failed += 1
            print(f"FAIL plain_http: {type(e).__name__}: {e}")
    # Everything was cancelled or answered: the server holds nothing.
    for _ in range(100):
        server.stdin.write("stats\n")
        server.stdin.flush()
        stats = dict(x.split("=") for x in server.stdout.readline().split())
        if stats["calls"] == "0":
            break
        time.sleep(0.05)
    if stats["calls"] != "0" or stats["streams"] != "0":
        failed += 1
        print(f"FAIL calls left over: {stats}")
    # Shutdown with an open stream: it ends UNAVAILABLE, the process ends well.
    feed = Feed()
    call = stub.duplex(feed, timeout=20)
    feed.send(request([10]))
    next(call)
    server.stdin.close()
    try:
        expect_code(grpc.StatusCode.UNAVAILABLE, lambda: next(call))
        print("ok   drain")
    except Exception as e:
        failed += 1
        print(f"FAIL drain: {e}")
    feed.close()
    channel.close()
    status = server.wait(20)
    if status != 0:
        failed += 1
        print(f"FAIL the server ended with {status}")
    print(f"{len(CASES) + 1} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
