#!/usr/bin/python3
"""bad_wire.py HOST PORT... | SOCKET | dns ADDRESS
    Sends what is no protocol; every connection must be answered with an error or closed, none may hang, and a good
    client must be served afterwards.
bad_wire.py grpc HOST PORT PATH BODYFILE [NAME=VALUE...]
    One gRPC call with these bytes as its body, framing included; prints the answer's headers and trailers."""
import ctypes
import os
import socket
import ssl
import struct
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = struct.pack(">I", 0)[1:] + b"\x04\x00\x00\x00\x00\x00"


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


# name, what is sent, what must be in the answer (None: only the end counts)
HTTP1 = [
    ("a word", b"hello\r\n\r\n", b" 400 "),
    ("no version", b"GET /\r\n\r\n", b" 505 "),
    ("a header without a colon", b"GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", b" 400 "),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b" 400 "),
    ("length and chunks", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b" 400 "),
    ("a length that is none", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b" 400 "),
    ("a NUL in a header", b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", b" 400 "),
    ("headers without end", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"x" * 200000, None),
    ("random bytes", os.urandom(4096), None),
]
HTTP2 = [
    ("no preface", b"\0" * 64, None),
    ("a preface cut", PREFACE[:10] + b"x" * 30, None),
    ("DATA on stream 0", PREFACE + SETTINGS + frame(0, 0, 0, b"x"), b"\x07"),
    ("HEADERS that are no HPACK", PREFACE + SETTINGS + frame(1, 4, 1, b"\xff" * 20), b"\x07"),
    ("a frame that is too long", PREFACE + SETTINGS + struct.pack(">I", 1 << 22)[1:] + b"\0\0\0\0\0\1" + b"x" * 65536, b"\x07"),
    ("SETTINGS of a wrong size", PREFACE + frame(4, 0, 0, b"abc"), b"\x07"),
    ("an even stream", PREFACE + SETTINGS + frame(1, 5, 2, b"\x82"), b"\x07"),
    ("a window of nothing", PREFACE + SETTINGS + frame(8, 0, 0, b"\0\0\0\0"), b"\x07"),
    ("random bytes", PREFACE + SETTINGS + os.urandom(4096), None),
]
TLS = [
    ("plain HTTP at a TLS port", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
    ("random bytes at a TLS port", os.urandom(512), None),
    ("a record of TLS cut", b"\x16\x03\x01\x40\x00" + b"\x01" * 100 + b"\0" * 16300, None),
]


def goaway(data):
    """The kinds of the frames in an answer."""
    kinds, at = set(), 0
    while at + 9 <= len(data):
        kinds.add(data[at + 3])
        at += 9 + int.from_bytes(data[at:at + 3], "big")
    return kinds


class Inflater:
    """HPACK, by the library that the programs use too."""

    class Field(ctypes.Structure):
        _fields_ = [("name", ctypes.POINTER(ctypes.c_uint8)), ("value", ctypes.POINTER(ctypes.c_uint8)),
                    ("namelen", ctypes.c_size_t), ("valuelen", ctypes.c_size_t), ("flags", ctypes.c_uint8)]

    def __init__(self):
        self.lib = ctypes.CDLL("libnghttp2.so.14")
        self.lib.nghttp2_hd_inflate_hd2.restype = ctypes.c_ssize_t
        self.handle = ctypes.c_void_p()
        if self.lib.nghttp2_hd_inflate_new(ctypes.byref(self.handle)):
            raise MemoryError

    def read(self, block):
        at, out = 0, []
        while True:
            field, flags = self.Field(), ctypes.c_int(0)
            used = self.lib.nghttp2_hd_inflate_hd2(
                self.handle, ctypes.byref(field), ctypes.byref(flags), block[at:], ctypes.c_size_t(len(block) - at), 1)
            if used < 0:
                raise ValueError(f"HPACK error {used}")
            at += used
            if flags.value & 2:
                out.append((ctypes.string_at(field.name, field.namelen).decode(),
                            ctypes.string_at(field.value, field.valuelen).decode("utf-8", "replace")))
            if flags.value & 1:
                self.lib.nghttp2_hd_inflate_end_headers(self.handle)
                return out
            if not flags.value & 2 and used == 0:
                return out


def literal(name, value):
    name, value = name.encode(), value.encode()
    if len(value) > 126:  # a length of more than seven bits continues in the next bytes
        return bytes([0, len(name)]) + name + b"\x7f" + bytes([(len(value) - 127) & 127 | 128, (len(value) - 127) >> 7]) + value
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


def grpc(host, port, path, body, headers):
    fields = [(":method", "POST"), (":scheme", "https"), (":path", "/" + path), (":authority", host),
              ("content-type", "application/grpc"), ("te", "trailers")]
    fields += [tuple(header.split("=", 1)) for header in headers]
    connection = secure((host, int(port)), "h2")
    connection.settimeout(5)
    connection.sendall(PREFACE + SETTINGS + frame(1, 4, 1, b"".join(literal(*field) for field in fields)) +
                       frame(0, 1, 1, body))
    inflater, data = Inflater(), b""
    while True:
        while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
            part = connection.recv(65536)
            if not part:
                print("closed without an answer")
                return 1
            data += part
        size = int.from_bytes(data[:3], "big")
        kind, flags, stream, payload, data = data[3], data[4], data[8], data[9:9 + size], data[9 + size:]
        if kind == 1:
            for name, value in inflater.read(payload):
                print(f"{name}: {value}")
        if kind in (3, 7):
            print(f"frame {kind}: {payload.hex()}")
        if kind == 7 or (stream == 1 and (kind == 3 or (kind in (0, 1) and flags & 1))):
            return 0


def talk(connection, data):
    """Everything that comes back until the end; None if the end does not come."""
    out = b""
    connection.settimeout(8)
    try:
        connection.sendall(data)
    except OSError:
        pass
    try:
        while True:
            part = connection.recv(65536)
            if not part:
                return out
            out += part
    except (TimeoutError, socket.timeout):
        return None
    except OSError:
        return out


def plain(target):
    if isinstance(target, str):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(target)
        return connection
    return socket.create_connection(target, timeout=5)


def secure(target, alpn):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(plain(target))


class Report:
    def __init__(self):
        self.bad = self.done = 0

    def judge(self, where, name, answer, wanted, h2=False):
        self.done += 1
        if answer is None:
            why = "neither answered nor closed"
        elif wanted is None:
            return
        elif h2 and wanted[0] not in goaway(answer):
            why = f"no GOAWAY: {answer[:60]!r}"
        elif not h2 and wanted not in answer[:40]:
            why = f"{answer[:60]!r} instead of {wanted!r}"
        else:
            return
        self.bad += 1
        print(f"{where}: {name}: {why}")


def api(report, where, connect):
    for name, data, wanted in HTTP1:
        report.judge(where + " HTTP/1.1", name, talk(connect("http/1.1"), data), wanted)
    for name, data, wanted in HTTP2:
        report.judge(where + " HTTP/2", name, talk(connect("h2"), data), wanted, True)


def serves(connect):
    answer = talk(connect("http/1.1"), b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return answer is not None and b" 200 " in answer[:20]


def dns(report, address):
    queries = [b"", b"\0", os.urandom(12), os.urandom(200), struct.pack(">6H", 7, 0, 1, 0, 0, 0),
               struct.pack(">6H", 7, 0, 65535, 65535, 65535, 65535),
               struct.pack(">6H", 7, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
               struct.pack(">6H", 7, 0, 1, 0, 0, 0) + b"\x3f" + b"a" * 20,
               struct.pack(">6H", 7, 0x8000, 1, 0, 0, 0) + b"\1a\0\0\1\0\1"]
    good = struct.pack(">6H", 0x1234, 0x100, 1, 0, 0, 0) + b"\2d1\0\0\1\0\1"
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(3)
    for query in queries:
        udp.sendto(query, (address, 53))
        tcp = socket.create_connection((address, 53), timeout=3)
        tcp.sendall(struct.pack(">H", len(query)) + query)
        tcp.close()
        report.done += 2
    udp.sendto(good, (address, 53))
    while True:
        answer = udp.recv(4096)
        if answer[:2] == b"\x12\x34":
            break
    if answer[3] & 15 or answer[6:8] == b"\0\0":
        report.bad += 1
        print(f"{address}: no answer to a good query afterwards: {answer!r}")


def main():
    report = Report()
    if sys.argv[1] == "grpc":
        return grpc(*sys.argv[2:5], open(sys.argv[5], "rb").read(), sys.argv[6:])
    if sys.argv[1] == "dns":
        dns(report, sys.argv[2])
    elif sys.argv[1].startswith("/"):
        path = sys.argv[1]
        # On a socket without TLS the first bytes tell the protocol.
        for name, data, wanted in HTTP2[2:]:
            report.judge(path, name, talk(plain(path), data), wanted, True)
        report.judge(path, "random bytes", talk(plain(path), os.urandom(4096)), None)
    else:
        host, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
        for port in ports:
            for name, data, wanted in TLS:
                report.judge(f"{host}:{port}", name, talk(plain((host, port)), data), wanted)
        target = (host, ports[0])
        api(report, f"{host}:{ports[0]}", lambda alpn: secure(target, alpn))
        if not serves(lambda alpn: secure(target, alpn)):
            report.bad += 1
            print("a good client is not served afterwards")
    print(f"{report.done} connections, {report.bad} wrong")
    return 1 if report.bad or not report.done else 0


if __name__ == "__main__":
    sys.exit(main())
