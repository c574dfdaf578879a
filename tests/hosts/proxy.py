#!/usr/bin/env python3
"""A caching HTTP proxy for apt: listens in one network namespace, fetches in the one it was started in.

proxy.py NETNS-FILE ADDRESS PORT CACHE-DIR. The hosts of the test have no way out but this; five of them that want the
same package fetch it once. Prints "ready" when it listens.
"""
import ctypes
import hashlib
import http.server
import os
import select
import shutil
import socket
import sys
import threading
import urllib.error
import urllib.request

CLONE_NEWNET = 0x40000000
locks = {}
locks_lock = threading.Lock()


def setns(path):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "rb") as ns:
        if libc.setns(ns.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def cached(self, url):
        """The file that holds the body of url, fetched now if it is not there."""
        path = os.path.join(self.server.cache, hashlib.sha256(url.encode()).hexdigest())
        with locks_lock:
            lock = locks.setdefault(path, threading.Lock())
        with lock:
            if not os.path.exists(path):
                with urllib.request.urlopen(url, timeout=60) as answer, open(path + ".part", "wb") as out:
                    shutil.copyfileobj(answer, out)
                os.rename(path + ".part", path)
        return path

    def do_GET(self):
        try:
            path = self.cached(self.path)
        except urllib.error.HTTPError as e:
            self.send_error(e.code)
            return
        except OSError as e:
            self.send_error(502, str(e)[:80])
            return
        with open(path, "rb") as body:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(body.fileno()).st_size))
            self.end_headers()
            shutil.copyfileobj(body, self.wfile)

    def do_CONNECT(self):
        host, _, port = self.path.rpartition(":")
        try:
            there = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
        except OSError as e:
            self.send_error(502, str(e)[:80])
            return
        self.send_response(200)
        self.end_headers()
        pair = {self.connection: there, there: self.connection}
        while True:
            for s in select.select(list(pair), [], [])[0]:
                data = s.recv(65536)
                if not data:
                    there.close()
                    self.close_connection = True
                    return
                pair[s].sendall(data)


def main():
    netns, address, port, cache = sys.argv[1:]
    os.makedirs(cache, exist_ok=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    setns(netns)
    http.server.ThreadingHTTPServer.daemon_threads = True
    server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
    setns(f"/proc/self/fd/{own}")
    server.cache = cache
    print("ready", flush=True)
    server.serve_forever()


main()
