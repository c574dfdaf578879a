#!/usr/bin/python3
"""dns_upstream.py ADDRESS NAME TARGET: a resolver on UDP and TCP that knows one name; everything else is NXDOMAIN."""
import socket
import struct
import sys
import threading


def answer(query, name, target):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind = query[at + 1:at + 3]
    question = query[12:at + 5]
    known = ".".join(labels) == name
    record = b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 60, 4) + socket.inet_aton(target) if known and kind == b"\0\1" else b""
    return query[:2] + struct.pack(">5H", 0x8180 | (0 if known else 3), 1, 1 if record else 0, 0, 0) + question + record


def stream(listener, name, target):
    while True:
        connection, _ = listener.accept()
        with connection:
            size = connection.recv(2)
            if len(size) == 2:
                reply = answer(connection.recv(int.from_bytes(size, "big")), name, target)
                connection.sendall(struct.pack(">H", len(reply)) + reply)


def main():
    address, name, target = sys.argv[1:4]
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = socket.create_server((address, 53))
    threading.Thread(target=stream, args=(tcp, name, target), daemon=True).start()
    while True:
        query, peer = udp.recvfrom(4096)
        try:
            udp.sendto(answer(query, name, target), peer)
        except (IndexError, ValueError):
            pass


if __name__ == "__main__":
    main()
