#!/usr/bin/python3
"""Load by stock gRPC clients with nothing but a retry policy: what they see is what anybody's program sees.

grpc_load.py --targets IP:PORT,... --server-name NAME --ca FILE --key-file F --prefix P --out FILE [--threads N] [--fixed]

Each thread creates users (with request ids) and reads them back at the leader's level, until SIGTERM. Without --fixed a
channel knows all lighthouses and takes any, in turn (round_robin); with it, each thread stays with one lighthouse, whatever
happens to that. A call that fails in spite of the policy is a line "FAILED ...", an acknowledged write "ACK ... NAME"; the
last line counts. Fails if a call failed.
"""
import argparse
import json
import os
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "component", "api"))
os.environ.setdefault("SKERRY_ROOT", os.path.join(HERE, "..", ".."))
import grpc  # noqa: E402
from lighthouse import Schema  # noqa: E402

# Five attempts are what a client may ask for at most; the server of a restart is away for a second or two.
POLICY = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{
        "name": [{}],
        "waitForReady": True,
        "timeout": "20s",
        "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 3,
                        "retryableStatusCodes": ["UNAVAILABLE"]},
    }],
}


class Load:
    def __init__(self, args):
        self.args = args
        self.schema = Schema()
        with open(args.key_file, encoding="ascii") as f:
            self.metadata = [("authorization", "Bearer " + f.read().strip())]
        with open(args.ca, "rb") as f:
            self.credentials = grpc.ssl_channel_credentials(f.read())
        self.out = open(args.out, "a", buffering=1, encoding="utf-8")
        self.lock = threading.Lock()
        self.stop = False
        self.calls = self.failed = 0

    def channel(self, index):
        targets = self.args.targets
        target = targets[index % len(targets)] if self.args.fixed else ",".join(targets)
        return grpc.secure_channel("ipv4:" + target, self.credentials, [
            ("grpc.ssl_target_name_override", self.args.server_name),
            ("grpc.service_config", json.dumps(POLICY)),
            ("grpc.enable_retries", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ])

    def call(self, channel, method, body, line):
        path = "/skerry.v1." + method
        m = self.schema.methods[path]
        request = self.schema.make(m.input_type, body)
        stub = channel.unary_unary(path, type(request).SerializeToString, self.schema.type(m.output_type).FromString)
        begun = time.monotonic()
        try:
            stub(request, timeout=20, metadata=self.metadata)
        except grpc.RpcError as e:
            line = f"FAILED {time.time():.3f} after {time.monotonic() - begun:.2f} s {method}: {e.code().name}: {e.details()}"
        with self.lock:
            self.calls += 1
            self.failed += line.startswith("FAILED")
            if line:
                self.out.write(line + "\n")

    def run(self, index):
        channel = self.channel(index)
        number = 0
        while not self.stop:
            number += 1
            name = f"{self.args.prefix}-{index}-{number}"
            self.call(channel, "UserService/CreateUser",
                      {"parent": "tailnets/1", "user": {"loginName": name}, "requestId": f"{name}-{os.getpid()}"},
                      f"ACK 0 0 1 {name} -")
            self.call(channel, "UserService/ListUsers", {"parent": "tailnets/1", "pageSize": 5}, "")
            time.sleep(0.05)
        channel.close()

    def go(self):
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop", True))
        threads = [threading.Thread(target=self.run, args=(i,)) for i in range(self.args.threads)]
        for t in threads:
            t.start()
        for t in threads:
            while t.is_alive():
                t.join(0.1)
        print(f"{self.calls} calls, {self.failed} failed")
        return 1 if self.failed or not self.calls else 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--targets", type=lambda text: text.split(","), required=True)
    parser.add_argument("--server-name", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--key-file", required=True)
    parser.add_argument("--prefix", default="g")
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--fixed", action="store_true")
    return Load(parser.parse_args()).go()


if __name__ == "__main__":
    sys.exit(main())
