#!/usr/bin/python3
"""/metrics of a real lighthouse: every series has a row in docs/metrics.md, and the names follow the conventions."""
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lighthouse import main, wait  # noqa: E402

ROOT = os.environ.get("SKERRY_ROOT", ".")
# Where series of the lighthouse are made.
FOLDERS = ("base", "net", "cluster", "api", "relay", "lighthouse")
# What an operator is promised (the rest may come and go with what has happened).
PROMISED = """skerry_raft_role skerry_raft_term skerry_raft_commit_index skerry_raft_applied_index skerry_raft_last_index
skerry_state_revision skerry_raft_append_seconds skerry_raft_apply_seconds skerry_raft_commit_seconds
skerry_raft_group_commands skerry_queue_length skerry_commands_refused_total skerry_raft_snapshot_bytes
skerry_raft_snapshot_age_seconds skerry_peer_links skerry_peer_forwarded_total skerry_peer_probes_total
skerry_peer_probe_lost_total skerry_peer_probe_false_alarms_total skerry_raft_elections_total skerry_store_map_bytes
skerry_store_used_bytes skerry_store_free_pages skerry_digest_mismatches_total skerry_grpc_calls_total
skerry_grpc_call_seconds""".split()


def documented():
    with open(os.path.join(ROOT, "docs", "metrics.md"), encoding="utf-8") as f:
        rows = re.findall(r"^\| `(skerry_\w+)` \| (\w+) \| ([^|]*) \| (.+) \|$", f.read(), re.M)
    assert len(rows) == len({name for name, _, _, _ in rows}), "a row stands twice in docs/metrics.md"
    return {name: (kind, {label.strip() for label in labels.split(",") if label.strip()}) for name, kind, labels, _ in rows}


def families(text):
    """name -> (type, labels, samples) of what is exported."""
    found = {}
    for line in text.splitlines():
        kind = re.fullmatch(r"# TYPE (\S+) (counter|gauge|histogram)", line)
        if kind:
            found[kind[1]] = (kind[2], set(), [])
        elif not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            family = name if name in found else re.sub(r"_(bucket|sum|count)$", "", name)
            assert family in found, f"{line}: without a TYPE line"
            found[family][1].update(set(re.findall(r'(\w+)="', labels or "")) - {"le"})
            found[family][2].append(float(value))
    return found


def exported(lh):
    unix = lh.unix()
    assert unix.call("ClusterService/CompareDigests")["equal"]
    unix.call("UserService/CreateUser", {"parent": "tailnets/1", "user": {"loginName": f"measured{time.monotonic_ns()}"}})
    wait(lambda: lh.metric("skerry_raft_leader") == 1 and lh.metric("skerry_store_map_bytes") > 0, "the gauges")
    return families(lh.plain("/metrics")[1])


def rows(lh):
    table, real = documented(), exported(lh)
    for name, (kind, labels, _) in sorted(real.items()):
        assert name in table, f"{name} has no row in docs/metrics.md"
        assert table[name][0] == kind, f"docs/metrics.md: {name} is a {kind}"
        assert labels <= table[name][1], f"docs/metrics.md: {name} has the labels {labels}"
    for name in PROMISED:
        assert name in real, f"{name} is not exported"


def rows_are_real(lh):
    """No row is left of a series that is gone."""
    source = ""
    for folder in FOLDERS:
        where = os.path.join(ROOT, folder)
        for file in sorted(os.listdir(where)) if os.path.isdir(where) else ():
            if file.endswith(".c"):
                with open(os.path.join(where, file), encoding="utf-8") as f:
                    source += f.read()
    made = set(re.findall(r'"(skerry_[a-z0-9_]+)"', source))
    assert set(documented()) == made, f"docs/metrics.md and the source differ in {set(documented()) ^ made}"


def conventions(lh):
    for name, (kind, _, samples) in exported(lh).items():
        assert (kind == "counter") == name.endswith("_total"), f"{name} is a {kind}"
        assert kind == "gauge" or all(v >= 0 for v in samples), name
        assert not re.search(r"_(ms|us|ns|kib|mib|kb|mb|percent)(_|$)", name), f"{name}: not a base unit"


def truth(lh):
    real = exported(lh)
    text = lh.plain("/metrics")[1]
    assert 'skerry_raft_role{role="leader"} 1' in text and 'skerry_raft_role{role="follower"} 0' in text
    assert 'skerry_raft_elections_total{cause="alone"} 1' in text and "skerry_raft_leaderships_total 1" in text
    assert lh.metric("skerry_raft_append_seconds_count") > 0 and lh.metric("skerry_raft_apply_seconds_count") > 0
    assert lh.metric("skerry_raft_group_commands_count") > 0 and lh.metric("skerry_raft_commit_seconds_count") > 0
    assert lh.metric("skerry_digest_comparisons_total") > 0 and lh.metric("skerry_digest_mismatches_total") == 0
    assert sum(real["skerry_raft_role"][2]) == 1, "one role at a time"
    used, whole = lh.metric("skerry_store_used_bytes"), lh.metric("skerry_store_map_bytes")
    assert 0 < used < whole
    assert re.search(r'skerry_grpc_calls_total\{server="[a-z]+",method="skerry.v1.ClusterService/CompareDigests",code="OK"\} [1-9]',
                     text), text


main([rows, rows_are_real, conventions, truth])
