#!/usr/bin/python3
"""Hostile HTTP/2 clients, frame by frame: each must be stopped with bounded memory, and others must be served meanwhile.

usage: attacks.py INTEROP_SERVER
"""
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time

try:
    import grpc
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

SERVER = sys.argv[1]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CALM = 11


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(prefix_bits, first, value):
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out = bytearray([first | limit])
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def literal(name, value):
    """A header without indexing and without Huffman coding."""
    return b"\0" + integer(7, 0, len(name)) + name + integer(7, 0, len(value)) + value


def request(method=b"EmptyCall", extra=()):
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/grpc.testing.TestService/" + method),
              (b":authority", b"x"), (b"te", b"trailers"), (b"content-type", b"application/grpc")]
    return b"".join(literal(n, v) for n, v in fields + list(extra))


class Client:
    def __init__(self, port, settings=b""):
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.settimeout(5)
        self.buf = b""
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        try:
            self.sock.sendall(data)
            return True
        except OSError:
            return False

    def frames(self, limit=5.0):
        """Yields what comes until the server closes or nothing comes for `limit` seconds."""
        self.sock.settimeout(limit)
        while True:
            while len(self.buf) >= 9:
                n = int.from_bytes(self.buf[:3], "big")
                if len(self.buf) < 9 + n:
                    break
                kind, flags, stream = self.buf[3], self.buf[4], int.from_bytes(self.buf[5:9], "big")
                payload, self.buf = self.buf[9:9 + n], self.buf[9 + n:]
                yield kind, flags, stream, payload
            try:
                got = self.sock.recv(65536)
            except socket.timeout:
                yield "timeout", 0, 0, b""
                return
            except OSError:
                yield "closed", 0, 0, b""
                return
            if not got:
                yield "closed", 0, 0, b""
                return
            self.buf += got

    def ends_with(self, limit=5.0):
        """How the server ended it: the last GOAWAY's (code, debug), and whether the connection was closed."""
        goaway, closed = None, False
        for kind, _, _, payload in self.frames(limit):
            if kind == GOAWAY:
                goaway = (int.from_bytes(payload[4:8], "big"), payload[8:])
            closed = kind == "closed"
        self.sock.close()
        return goaway, closed


class Server:
    def __init__(self, tmp):
        self.proc = subprocess.Popen([SERVER, os.path.join(tmp, "ca.pem")], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True)
        self.port = int(re.search(r"h2c=(\d+)", self.proc.stdout.readline()).group(1))
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.call = self.channel.unary_unary("/grpc.testing.TestService/EmptyCall", lambda b: b, lambda b: b)

    def serves(self):
        assert self.call(b"", timeout=10) == b""

    def stats(self):
        self.proc.stdin.write("stats\n")
        self.proc.stdin.flush()
        return {k: int(v) for k, v in (x.split("=") for x in self.proc.stdout.readline().split())}

    def settled(self):
        """Waits until only our own channel is connected."""
        for _ in range(100):
            s = self.stats()
            if s["conns"] <= 1 and s["calls"] == 0:
                return s
            time.sleep(0.05)
        raise AssertionError(f"left over: {s}")


# ---- Attacks --------------------------------------------------------------------------------------------------------

def rapid_reset(s):
    c = Client(s.port)
    block = request(b"FullDuplexCall")
    for i in range(5000):
        stream = 2 * i + 1
        if not c.send(frame(HEADERS, END_HEADERS, stream, block) + frame(RST, 0, stream, struct.pack(">I", 8))):
            break
    _, closed = c.ends_with()
    assert closed, "not closed"


def header_flood(s):
    c = Client(s.port)
    block = request(extra=[(b"x-%d" % i, b"v" * 4000) for i in range(5)])  # 20 KB: over 8 KiB, refused as a request
    c.send(frame(HEADERS, END_STREAM, 1, block[:16000]) + frame(CONTINUATION, END_HEADERS, 1, block[16000:]))
    answered = any(kind == HEADERS for kind, *_ in c.frames(1.0))
    c.sock.close()
    assert answered, "no answer (431) to a request with large headers"
    c = Client(s.port)
    # HPACK bomb: one 3 KB value in the table, referred to 5,000 times (15 MB of headers in 8 KB).
    big = b"\x40" + integer(7, 0, 1) + b"a" + integer(7, 0, 3000) + b"v" * 3000
    c.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, request() + big + b"\xbe" * 5000))
    goaway, closed = c.ends_with()
    assert closed and goaway and goaway[0] == CALM, goaway


def continuation_flood(s):
    c = Client(s.port)
    c.send(frame(HEADERS, 0, 1, request()))
    for _ in range(2000):
        if not c.send(frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 100))):
            break
    _, closed = c.ends_with()
    assert closed


def ping_flood(s):
    c = Client(s.port)
    for _ in range(200):
        if not c.send(frame(PING, 0, 0, b"x" * 8) * 500):
            break
    _, closed = c.ends_with()
    assert closed


def ping_strikes(s):
    c = Client(s.port)
    for _ in range(5):
        c.send(frame(PING, 0, 0, b"x" * 8))
        time.sleep(0.02)
    goaway, closed = c.ends_with()
    assert closed and goaway == (CALM, b"too_many_pings") or goaway == (CALM, b""), goaway


def settings_flood(s):
    c = Client(s.port)
    for _ in range(300):
        if not c.send(frame(SETTINGS, 0, 0) * 500):
            break
    _, closed = c.ends_with()
    assert closed
    c = Client(s.port)
    c.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 0x99, 1) * 40))
    goaway, closed = c.ends_with()
    assert closed and goaway[0] == CALM, goaway


def cheap_frames(s):
    for name, payload in ((PRIORITY, b"\0\0\0\0\0"), (WINDOW, struct.pack(">I", 1))):
        c = Client(s.port)
        stream = 0 if name == WINDOW else 5
        for _ in range(100):
            if not c.send(frame(name, 0, stream, payload) * 500):
                break
        goaway, closed = c.ends_with()
        assert closed and goaway and goaway[0] == CALM, (name, goaway)
    c = Client(s.port)
    c.send(frame(HEADERS, END_HEADERS, 1, request(b"StreamingInputCall")))
    for _ in range(100):
        if not c.send(frame(DATA, 0, 1) * 500):
            break
    goaway, closed = c.ends_with()
    assert closed and goaway and goaway[0] == CALM, goaway


def too_many_streams(s):
    c = Client(s.port)
    block = request(b"FullDuplexCall")
    for i in range(150):
        c.send(frame(HEADERS, END_HEADERS, 2 * i + 1, block))
    refused = 0
    for kind, _, _, payload in c.frames(1.0):
        refused += kind == RST and payload == struct.pack(">I", 7)
    c.sock.close()
    assert refused == 50, refused


def amplification(s):
    # 2 million empty sub-messages in 4 MiB: refused before it is unpacked.
    body = b"\x12\x00" * ((4 << 20) // 2)
    call = s.channel.unary_stream("/grpc.testing.TestService/StreamingOutputCall", lambda b: b, lambda b: b)
    try:
        list(call(body, timeout=20))
    except grpc.RpcError as e:
        assert e.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT), e
        return
    raise AssertionError("accepted")


def gzip_bomb(s):
    import gzip
    packed = gzip.compress(b"\0" * (64 << 20))
    c = Client(s.port)
    c.send(frame(HEADERS, END_HEADERS, 1, request(b"UnaryCall", [(b"grpc-encoding", b"gzip")])))
    message = b"\1" + struct.pack(">I", len(packed)) + packed
    for i in range(0, len(message), 16000):
        c.send(frame(DATA, 0, 1, message[i:i + 16000]))
        if i == 48000:
            time.sleep(0.2)
    c.send(frame(DATA, END_STREAM, 1))
    text = b"".join(p for kind, _, _, p in c.frames(2.0) if kind == HEADERS)
    c.sock.close()
    assert text, "no answer"


def slow_reader(s):
    before = s.settled()["rss"]
    clients = []
    sizes = b"".join(b"\x12\x04\x08" + b"\x80\x80\x40" for _ in range(100))  # 100 x 1 MiB
    message = b"\0" + struct.pack(">I", len(sizes)) + sizes
    for _ in range(8):
        # The largest windows: only the server's own bound holds it back.
        c = Client(s.port, struct.pack(">HI", 4, 0x7fffffff))
        c.send(frame(WINDOW, 0, 0, struct.pack(">I", 0x7fff0000 - 65535)))
        for i in range(4):
            c.send(frame(HEADERS, END_HEADERS, 2 * i + 1, request(b"StreamingOutputCall")) +
                   frame(DATA, END_STREAM, 2 * i + 1, message))
        clients.append(c)
    time.sleep(0.5)
    s.serves()
    grown = s.stats()["rss"] - before
    for c in clients:
        c.sock.close()
    # 32 streams asked for 3.2 GB; each may hold its queue of 4 MiB and what was allocated on the way, no more.
    assert grown < 32 * 12 * 1024, f"{grown} KiB more"
    print(f"     slow readers: {grown} KiB for 32 streams that ask for 100 MiB each")


def silent_clients(s):
    socks = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(50)]
    for sock in socks:
        sock.sendall(PREFACE[:20])
    s.serves()
    for sock in socks:
        sock.close()


def garbage(s):
    for data in (os.urandom(4096), PREFACE + os.urandom(4096), b"\x16\x03\x01" + os.urandom(500), b"\0" * 1000):
        sock = socket.create_connection(("127.0.0.1", s.port))
        sock.sendall(data)
        sock.settimeout(8)
        try:
            while sock.recv(65536):
                pass
        except OSError:
            pass
        sock.close()


def bad_frames(s):
    bad = [
        frame(HEADERS, END_HEADERS, 2, request()),  # an even stream
        frame(HEADERS, END_HEADERS, 0, request()),
        frame(DATA, 0, 1, b"x"),  # a stream that is idle
        frame(WINDOW, 0, 0, struct.pack(">I", 0)),
        frame(SETTINGS, 0, 0, b"12345"),
        frame(PING, 0, 0, b"short"),
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        frame(5, END_HEADERS, 1, b"\0\0\0\2" + request()),  # a client's push promise
        b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 20000,  # a frame over the size
    ]
    for data in bad:
        c = Client(s.port)
        c.send(data)
        _, closed = c.ends_with()
        assert closed, data[:20]


ATTACKS = [rapid_reset, header_flood, continuation_flood, ping_flood, ping_strikes, settings_flood, cheap_frames,
           too_many_streams, amplification, gzip_bomb, slow_reader, silent_clients, garbage, bad_frames]


def main():
    with tempfile.TemporaryDirectory() as tmp:
        s = Server(tmp)
        s.serves()
        first = s.stats()["rss"]
        failed = 0
        for attack in ATTACKS:
            start = time.monotonic()
            try:
                attack(s)
                s.serves()
                s.settled()
                print(f"ok   {attack.__name__} ({time.monotonic() - start:.2f} s)")
            except Exception as e:  # every attack is run
                failed += 1
                print(f"FAIL {attack.__name__}: {type(e).__name__}: {e}")
        last = s.settled()["rss"]
        print(f"{len(ATTACKS)} attacks, {failed} failed; memory {first} -> {last} KiB")
        s.channel.close()
        s.proc.stdin.close()
        if s.proc.wait(20) != 0:
            print(f"FAIL the server ended with {s.proc.returncode}")
            failed += 1
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
