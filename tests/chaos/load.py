#!/usr/bin/python3
"""The clients of a chaos run: calls against the JSON API, each written down with its result (docs/testing.md, "History").

load.py run    --urls U,U,U --key-file F --out FILE [--seed N] [--clients N] [--lose PERCENT] [--parents P,P]
               [--sources A,A,...] [--devices PROGRAM]
    Calls until SIGTERM: client i calls lighthouse i modulo their number, and repeats at any of them what it lost. What is
    under way at the signal is finished. --lose: so many of a hundred writes with a request id close the connection before
    the answer, and are repeated. --sources: one address for each client to call from. --devices: chaos_devices, for
    registrations with one-use keys.
load.py finish --urls U,U,U --key-file F --out FILE
    Adds reads of every object of the history at every lighthouse, by leader-level lists. Fails if a create that was
    acknowledged is missing at one of them.
"""
import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from client import Api, Refused, pages  # noqa: E402

USERS = "skerry.v1.UserService/"
KEYS = "skerry.v1.AuthKeyService/"
LEADER = {"Skerry-Read": "leader"}
# Said by a lighthouse that has looked at the state: the call changed nothing.
DEFINITE = {"already_exists", "aborted", "not_found", "failed_precondition"}
# Nothing is known, or another lighthouse may do it.
LOST = {"unavailable", "unknown", "deadline_exceeded", "canceled"}
CALL_SECONDS = 1.0
REPEAT_SECONDS = 20.0  # far below the five minutes that a request id is kept
OBJECTS = 6            # in use at a time
OBJECT_CALLS = 150     # then another one takes its place, so that each history stays short
OBJECT_OPEN = 10
OBJECT_SECONDS = 45
DEVICE_MS = 8000


def now():
    return time.monotonic_ns()


class Link(Api):
    """A kept connection to one lighthouse, from an address of its own."""

    def __init__(self, url, key, source):
        super().__init__([url], key, timeout=CALL_SECONDS + 0.3, source=source)

    def call(self, method, body, headers=None):
        sent = {"Connect-Timeout-Ms": str(int(CALL_SECONDS * 1000))}
        sent.update(headers or {})
        return super().call(method, body, sent)

    def call_unheard(self, method, body, pause):
        """Sends a call and goes away before the answer."""
        try:
            self.connect()
            self.connection.request("POST", "/" + method, json.dumps(body), self.headers())
            time.sleep(pause)
        finally:
            self.drop()


class Object:
    """A user of a tailnet; its display name is the register."""

    def __init__(self, number, parent, prefix):
        self.id, self.parent = f"{prefix}{number}", parent
        self.name, self.creators, self.calls, self.open = None, 0, 0, 0
        self.begun = time.monotonic()

    def spent(self):
        return self.calls >= OBJECT_CALLS or self.open >= OBJECT_OPEN or \
            time.monotonic() - self.begun > OBJECT_SECONDS


class Run:
    def __init__(self, args, key):
        self.args, self.key = args, key
        self.lock = threading.Lock()
        self.out = open(args.out, "a", buffering=1, encoding="ascii")
        self.stop = False
        self.prefix = f"s{args.seed}-"
        self.made = 0
        self.counts = {}
        self.objects = [self.fresh() for _ in range(OBJECTS)]

    def fresh(self):
        self.made += 1
        return Object(self.made, self.args.parents[self.made % len(self.args.parents)], self.prefix + "u")

    def write(self, **line):
        with self.lock:
            self.out.write(json.dumps(line, separators=(",", ":")) + "\n")
            key = f"{line['op']} {line['result']}"
            self.counts[key] = self.counts.get(key, 0) + 1

    def pick(self, dice):
        with self.lock:
            at = dice.randrange(OBJECTS)
            if self.objects[at].spent():
                self.objects[at] = self.fresh()
            return self.objects[at]


class Client(threading.Thread):
    def __init__(self, run, index):
        super().__init__(daemon=True)
        self.run_, self.index = run, index
        self.dice = random.Random(f"{run.args.seed}/{index}")
        sources = run.args.sources
        source = sources[index % len(sources)] if sources else None
        self.links = [Link(url, run.key, source) for url in run.args.urls]
        self.home = index % len(self.links)
        self.number = 0

    def value(self):
        self.number += 1
        return f"v{self.index}.{self.number}"

    def request(self, method, body, repeats):
        """Calls until the result is known. Returns (result, answer, tries); result is ok, refused, open or none."""
        begun, tries, lost, at = time.monotonic(), 0, False, self.home
        while True:
            tries += 1
            try:
                if repeats and self.dice.randrange(100) < self.run_.args.lose and tries < 3:
                    lost = True
                    self.links[at].call_unheard(method, body, self.dice.random() * 0.02)
                else:
                    return "ok", self.links[at].call(method, body), tries
            except Refused as error:
                if "the change was made" in str(error):
                    return "ok", {}, tries
                if error.code in DEFINITE:
                    return "refused", {"code": error.code}, tries
                if error.code == "resource_exhausted":
                    if not lost:
                        return "none", {}, tries
                elif error.code in LOST:
                    lost = True
                else:
                    return "error", {"error": str(error)[:300]}, tries
            except ConnectionRefusedError:
                pass
            except (OSError, http.client.HTTPException, ValueError):
                lost = True
            if not repeats or self.run_.stop or time.monotonic() - begun > REPEAT_SECONDS:
                time.sleep(0.05)
                return ("open" if lost else "none"), {}, tries
            time.sleep(0.01 + self.dice.random() * 0.1)
            at = self.dice.randrange(len(self.links))

    def change(self, thing, op, method, body, **more):
        repeats = self.dice.randrange(100) < 70
        if repeats:
            body["requestId"] = f"{self.run_.prefix}{self.index}.{self.number}"
        start = now()
        result, answer, tries = self.request(USERS + method, body, repeats)
        end = now()
        if result == "none":
            return None
        if result == "open":
            thing.open += 1
            end = 0
        self.run_.write(object=thing.id, op=op, client=self.index, start=start, end=end, result=result, tries=tries,
                        **more, **({"error": answer["error"]} if result == "error" else {}))
        return answer if result == "ok" else None

    def create(self, thing):
        value = self.value()
        body = {"parent": thing.parent, "user": {"loginName": thing.id, "displayName": value}}
        answer = self.change(thing, "create", "CreateUser", body, value=value, parent=thing.parent)
        if answer and "name" in answer:
            thing.name = answer["name"]

    def read(self, thing):
        """A leader-level read. Returns (value, etag), or None."""
        start = now()
        try:
            answer = self.links[self.home].call(USERS + "GetUser", {"name": thing.name}, LEADER)
        except Refused as error:
            if error.code != "not_found":
                if error.code not in LOST and error.code != "resource_exhausted":
                    self.run_.write(object=thing.id, op="read", client=self.index, start=start, end=now(), result="error",
                                    error=str(error)[:300])
                time.sleep(0.02)
                return None
            answer = {}
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(0.05)
            return None
        value = answer.get("displayName", "")
        self.run_.write(object=thing.id, op="read", client=self.index, start=start, end=now(), result="ok", value=value,
                        etag=answer.get("etag", ""), at=self.home)
        return value, answer.get("etag", "")

    def step(self):
        thing = self.run_.pick(self.dice)
        thing.calls += 1
        if not thing.name:
            if thing.creators < 3:
                thing.creators += 1
                self.create(thing)
            else:
                time.sleep(0.01)
            return
        what = self.dice.random()
        if what < 0.4:
            self.read(thing)
            return
        value = self.value()
        body = {"user": {"name": thing.name, "displayName": value}, "updateMask": "displayName"}
        if what < 0.8:
            seen = self.read(thing)
            if seen and seen[1]:
                body["user"]["etag"] = seen[1]
                self.change(thing, "cas", "UpdateUser", body, expect=seen[0], value=value)
        else:
            self.change(thing, "write", "UpdateUser", body, value=value)

    def run(self):
        while not self.run_.stop:
            self.step()
            time.sleep(self.dice.random() * 0.03)


class Contest(threading.Thread):
    """One-use keys, each fought for by some devices at different lighthouses."""

    def __init__(self, run):
        super().__init__(daemon=True)
        self.run_ = run
        self.dice = random.Random(f"{run.args.seed}/keys")
        source = run.args.sources[-1] if run.args.sources else None
        self.links = [Link(url, run.key, source) for url in run.args.urls]
        self.devices = subprocess.Popen([run.args.devices], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.waiting, self.ended = {}, threading.Condition()
        self.number = 0
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.devices.stdout:
            device, result, *text = line.split(None, 2)
            with self.ended:
                thing, start = self.waiting.pop(device)
                self.ended.notify_all()
            more = {}
            end = 0 if result == "open" else now()
            # The key was spent; every other refusal is a surprise that the checker shows.
            if result == "refused" and not " ".join(text).startswith("AUTH_KEY_SPENT "):
                result, more = "error", {"error": " ".join(text).strip()[:300]}
            self.run_.write(object=thing, op="use", device=device, start=start, end=end, result=result, **more)

    def look(self, thing, name):
        link = self.dice.choice(self.links)
        start = now()
        try:
            answer = link.call(KEYS + "GetAuthKey", {"name": name}, LEADER)
        except (Refused, OSError, http.client.HTTPException, ValueError):
            return
        self.run_.write(object=thing, op="look", start=start, end=now(), result="ok", used=int(answer.get("useCount", 0)))

    def contest(self):
        link = self.dice.choice(self.links)
        try:
            key = link.call(KEYS + "CreateAuthKey", {"parent": self.run_.args.parents[0], "authKey": {}})
        except (Refused, OSError, http.client.HTTPException, ValueError):
            time.sleep(0.3)
            return
        self.number += 1
        thing = f"{self.run_.prefix}k{self.number}"
        for i in range(self.dice.randint(2, 4)):
            device = f"{thing}.{i}"
            with self.ended:
                self.waiting[device] = (thing, now())
            url = self.dice.choice(self.run_.args.urls)
            self.devices.stdin.write(f"{device} {url} {key['secret']} {DEVICE_MS}\n")
        self.devices.stdin.flush()
        while True:
            self.look(thing, key["name"])
            with self.ended:
                if self.ended.wait_for(lambda: not self.waiting, 0.05 + self.dice.random() * 0.2):
                    break
            if self.devices.poll() is not None:
                raise RuntimeError("chaos_devices ended")
        self.look(thing, key["name"])

    def run(self):
        while not self.run_.stop:
            self.contest()
            time.sleep(self.dice.random() * 0.5)
        self.devices.stdin.close()


def run(args, key):
    run_ = Run(args, key)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run_, "stop", True))
    threads = [Client(run_, i) for i in range(args.clients)]
    if args.devices:
        threads.append(Contest(run_))
    for thread in threads:
        thread.start()
    bad = False
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
        bad |= not run_.stop and not all(thread.is_alive() for thread in threads)
        run_.stop |= bad
    run_.out.close()
    print("calls: " + ", ".join(f"{name} {count}" for name, count in sorted(run_.counts.items())))
    if bad:
        print("a client ended before its time")
    return 1 if bad else 0


def history(path):
    with open(path, encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)


def finish(args, key):
    parents, created = {}, set()
    for line in history(args.out):
        if line["op"] == "create":
            parents[line["object"]] = line["parent"]
            if line["result"] == "ok":
                created.add(line["object"])
    missing, out = 0, open(args.out, "a", encoding="ascii")
    for url in args.urls:
        api, seen = Api([url], key, timeout=10), set()
        begun = now()
        for parent in sorted(set(parents.values())):
            start = now()
            for user in pages(api, USERS + "ListUsers", "users", parent, LEADER):
                name = user.get("loginName", "")
                if name in parents:
                    seen.add(name)
                    out.write(json.dumps({"object": name, "op": "read", "client": -1, "start": start, "end": now(),
                                          "result": "ok", "value": user.get("displayName", ""),
                                          "etag": user.get("etag", ""), "at": url}) + "\n")
        for name in set(parents) - seen:
            out.write(json.dumps({"object": name, "op": "read", "client": -1, "start": begun, "end": now(),
                                  "result": "ok", "value": "", "etag": "", "at": url}) + "\n")
        lacks = sorted(created - seen)
        missing += len(lacks)
        print(f"{url}: {len(created)} creates acknowledged, {len(lacks)} missing {' '.join(lacks[:5])}")
    out.close()
    return 1 if missing or not created else 0


def main():
    def comma(text):
        return text.split(",")

    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("what", choices=["run", "finish"])
    parser.add_argument("--urls", type=comma, required=True)
    parser.add_argument("--key-file", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--clients", type=int, default=9)
    parser.add_argument("--lose", type=int, default=5)
    parser.add_argument("--parents", type=comma, default=["tailnets/1"])
    parser.add_argument("--sources", type=comma, default=[])
    parser.add_argument("--devices")
    args = parser.parse_args()
    with open(args.key_file, encoding="ascii") as file:
        key = file.read().strip()
    if args.what == "run":
        return run(args, key)
    try:
        return finish(args, key)
    except (Refused, OSError, http.client.HTTPException, ValueError) as error:
        print(f"a lighthouse does not answer: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
