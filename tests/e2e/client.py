#!/usr/bin/python3
"""A client of the JSON API for the scenarios: writes that are recorded, their check, and a watch on who is online.

client.py write  --urls U,U --key-file F --prefix P --out FILE [--count N] [--seconds S] [--parallel K] [--rate R]
    Creates users P-<n>, each with a request id, and retries each at the next lighthouse until it is acknowledged or
    refused. A line per acknowledged write: "ACK <begun> <acknowledged> <tries> <name> <url>"; times are seconds since
    boot. SIGTERM ends it after the calls in flight, and so do ten minutes.
client.py verify --urls U --key-file F --prefix P --out FILE
    Every acknowledged write is there exactly once. Prints the counts; fails if one is missing or doubled.
client.py next   --out FILE --since T
    Prints the longest time without an acknowledgement in the ten seconds from T on, in milliseconds; fails while no
    write that was begun a second after T is acknowledged. T is taken just before a kill, and a second later the killed
    one answers nothing any more.
client.py online --urls U,U --key-file F --names A,B --seconds S
    Lists the nodes at every lighthouse that answers, ten times a second; fails if one of the named is shown offline.
client.py call   --urls U --key-file F [--read LEVEL] [--deadline SECONDS] METHOD JSON
    One call, its answer on stdout: client.py call … skerry.v1.UserService/ListUsers '{"parent":"tailnets/1"}'
"""
import argparse
import http.client
import json
import os
import signal
import ssl
import sys
import threading
import time
import urllib.parse

RETRY = {"unavailable", "unknown", "deadline_exceeded", "aborted", "resource_exhausted", "canceled"}


def clock():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Refused(Exception):
    def __init__(self, status, code, message):
        super().__init__(f"{status} {code}: {message}")
        self.code = code


class Api:
    """One kept connection to one of several lighthouses; moves on when a call fails."""

    def __init__(self, urls, key, timeout=2.0, first=0, source=None):
        self.urls, self.key, self.timeout, self.source = urls, key, timeout, source
        self.at, self.connection = first % len(urls), None
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.set_alpn_protocols(["http/1.1"])

    @property
    def url(self):
        return self.urls[self.at]

    def drop(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def next(self):
        self.drop()
        self.at = (self.at + 1) % len(self.urls)

    def connect(self):
        if not self.connection:
            where = urllib.parse.urlsplit(self.url)
            self.connection = http.client.HTTPSConnection(
                where.hostname, where.port or 8443, timeout=self.timeout, context=self.context,
                source_address=(self.source, 0) if self.source else None)

    def headers(self):
        sent = {"Content-Type": "application/json", "Connect-Protocol-Version": "1"}
        if self.key:
            sent["Authorization"] = "Bearer " + self.key
        return sent

    def call(self, method, body, headers=None):
        self.connect()
        sent = self.headers()
        sent.update(headers or {})
        try:
            self.connection.request("POST", "/" + method, json.dumps(body), sent)
            answer = self.connection.getresponse()
            data = answer.read()
        except Exception:
            self.drop()
            raise
        if answer.status != 200:
            try:
                error = json.loads(data)
            except ValueError:
                error = {}
            raise Refused(answer.status, error.get("code", "?"), error.get("message", data[:200]))
        return json.loads(data or b"{}")


class Writer:
    def __init__(self, args, key):
        self.args, self.key = args, key
        self.lock = threading.Lock()
        self.out = open(args.out, "a", buffering=1, encoding="ascii")
        self.number, self.refused, self.stop = 0, 0, False
        self.begun = clock()

    def take(self):
        with self.lock:
            if self.stop or (self.args.count and self.number >= self.args.count):
                return None
            if self.args.seconds and clock() - self.begun > self.args.seconds:
                return None
            self.number += 1
            return self.number

    def run(self, index):
        api = Api(self.args.urls, self.key, first=index)
        while True:
            number = self.take()
            if number is None:
                return
            name = f"{self.args.prefix}-{number}"
            body = {"parent": self.args.parent, "user": {"loginName": name},
                    "requestId": f"{self.args.prefix}-{os.getpid()}-{number}"}
            begun, tries = clock(), 0
            while True:
                tries += 1
                try:
                    api.call("skerry.v1.UserService/CreateUser", body)
                    with self.lock:
                        self.out.write(f"ACK {begun:.4f} {clock():.4f} {tries} {name} {api.url}\n")
                    break
                except Refused as error:
                    if error.code not in RETRY:
                        with self.lock:
                            self.out.write(f"REFUSED {begun:.4f} {clock():.4f} {tries} {name} {error}\n")
                            self.refused += 1
                        break
                    api.next()
                except (OSError, http.client.HTTPException, ValueError):
                    api.next()
                if self.stop and tries > 3:
                    break
                time.sleep(0.02)
            if self.args.rate:
                time.sleep(self.args.parallel / self.args.rate)

    def go(self):
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop", True))
        threads = [threading.Thread(target=self.run, args=(i,)) for i in range(self.args.parallel)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
        return 1 if self.refused else 0


def pages(api, method, field, parent, headers=None):
    token = ""
    while True:
        answer = api.call(method, {"parent": parent, "pageSize": 500, "pageToken": token}, headers)
        yield from answer.get(field, [])
        token = answer.get("nextPageToken", "")
        if not token:
            return


def acks(path):
    for line in open(path, encoding="ascii"):
        parts = line.split()
        if parts and parts[0] == "ACK":
            yield float(parts[1]), float(parts[2]), int(parts[3]), parts[4]


def verify(args, key):
    api = Api(args.urls, key, timeout=10)
    names = {}
    for user in pages(api, "skerry.v1.UserService/ListUsers", "users", args.parent):
        name = user.get("loginName", "")
        if name.startswith(args.prefix + "-"):
            names[name] = names.get(name, 0) + 1
    acknowledged = [name for _, _, _, name in acks(args.out)]
    missing = [name for name in acknowledged if name not in names]
    doubled = [name for name, count in names.items() if count > 1] + \
        [name for name in set(acknowledged) if acknowledged.count(name) > 1]
    print(f"{len(acknowledged)} acknowledged, {len(names)} there, {len(missing)} missing, {len(doubled)} doubled")
    for name in (missing + doubled)[:10]:
        print("  ", name)
    return 1 if missing or doubled or not acknowledged else 0


def online(args, key):
    apis = [Api([url], key, timeout=0.5) for url in args.urls]
    end, polls, bad = clock() + args.seconds, 0, 0
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    while clock() < end and not stopped.is_set():
        for api in apis:
            try:
                nodes = list(pages(api, "skerry.v1.NodeService/ListNodes", "nodes", args.parent,
                                   {"Skerry-Read": "local"}))
            except (OSError, http.client.HTTPException, ValueError, Refused):
                continue
            polls += 1
            on = {node.get("givenName") for node in nodes if node.get("online")}
            off = [name for name in args.names if name not in on]
            if off:
                bad += 1
                print(f"{clock():.3f} {api.url}: offline or missing: {off}")
        time.sleep(0.1)
    print(f"{polls} lists, {bad} with somebody offline")
    return 1 if bad or not polls else 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("what", choices=["write", "verify", "next", "online", "call"])
    parser.add_argument("--urls", type=lambda text: text.split(","), default=[])
    parser.add_argument("--key-file")
    parser.add_argument("--names", type=lambda text: text.split(","), default=[])
    parser.add_argument("--parent", default="tailnets/1")
    parser.add_argument("--prefix", default="w")
    parser.add_argument("--out")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--since", type=float)
    parser.add_argument("--read")
    parser.add_argument("--deadline", type=float, default=8)
    parser.add_argument("rest", nargs="*")
    args = parser.parse_intermixed_args()
    key = open(args.key_file, encoding="ascii").read().strip() if args.key_file else ""
    if args.what == "write":
        return Writer(args, key).go()
    if args.what == "verify":
        return verify(args, key)
    if args.what == "online":
        return online(args, key)
    if args.what == "next":
        known = list(acks(args.out))
        if not any(begun >= args.since + 1 for begun, _, _, _ in known):
            print("none")
            return 1
        times = [args.since] + sorted(done for _, done, _, _ in known if args.since < done < args.since + 10)
        print(int(max(later - earlier for earlier, later in zip(times, times[1:])) * 1000))
        return 0
    try:
        headers = {"Connect-Timeout-Ms": str(int(args.deadline * 1000))}
        if args.read:
            headers["Skerry-Read"] = args.read
        print(json.dumps(Api(args.urls, key, timeout=10).call(args.rest[0], json.loads(args.rest[1]), headers)))
        return 0
    except (OSError, http.client.HTTPException, Refused) as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
