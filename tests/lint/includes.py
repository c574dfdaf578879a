#!/usr/bin/python3
"""Include lint: a folder includes only folders of lower floors (the table in cmake/SkerryFloors.cmake), of those only
public headers (not *_int.h), and only the foreign libraries that the table gives it."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Which foreign library a system header belongs to. Headers not matched here are the C library's and free for all.
FOREIGN = [
    ("raft", r"raft(\.h|/)"),
    ("lmdb", r"lmdb\.h"),
    ("uv", r"uv(\.h|/)"),
    ("nghttp2", r"nghttp2/"),
    ("llhttp", r"llhttp"),
    ("openssl", r"openssl/"),
    ("zlib", r"z(lib|conf)\.h"),
    ("protobuf-c", r"(protobuf-c/|google/protobuf-c/)"),
    ("sodium", r"sodium(\.h|/)"),
    ("jansson", r"jansson"),
    ("yaml", r"yaml\.h"),
    ("mnl", r"libmnl/"),
    ("nftables", r"nftables/"),
    ("systemd", r"systemd/"),
    ("qrencode", r"qrencode\.h"),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def read_table():
    may, ext, folders = {}, {}, []
    for line in open(os.path.join(ROOT, "cmake/SkerryFloors.cmake")):
        m = re.match(r"set\(SKERRY_(MAY|EXT)_(\w+)\s*([^)]*)\)", line)
        if m:
            (may if m[1] == "MAY" else ext)[m[2]] = m[3].split()
        m = re.match(r"set\(SKERRY_FOLDERS ([^)]*)\)", line)
        if m:
            folders = m[1].split()
    return folders, may, ext


def check_line(folder, path, kind, name, table):
    """The complaint about one #include line, or None."""
    folders, may, ext = table
    if kind == "<":
        for lib, pattern in FOREIGN:
            if re.match(pattern, name):
                # The generated messages are protobuf-c structs: whoever may use proto may use its runtime header.
                if lib == "protobuf-c" and "proto" in may.get(folder, []):
                    return None
                if lib not in ext.get(folder, []):
                    return f"<{name}>: {folder} has no {lib} in the table of floors"
        return None
    top = name.split("/")[0]
    if "/" not in name:
        return f'"{name}": include by path from the root ("{folder}/{name}")'
    if name.endswith(".pb-c.h"):
        top = "proto"
    exists = os.path.exists(os.path.join(ROOT, name)) or top == "proto"
    if top == folder:
        return None if exists else f'"{name}": no such file'
    if top not in folders:
        return f'"{name}": {top} is no folder of the table of floors'
    if top not in may.get(folder, []):
        return f'"{name}": {folder} may not include {top}'
    if name.endswith("_int.h"):
        return f'"{name}": an internal header of {top}'
    if not exists:
        return f'"{name}": no such file'
    return None


def main():
    table = read_table()
    folders = table[0]
    complaints, files = [], 0
    for folder in folders:
        for where, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in sorted(names):
                if not name.endswith((".c", ".h")):
                    continue
                path = os.path.relpath(os.path.join(where, name), ROOT)
                files += 1
                text = open(os.path.join(ROOT, path), encoding="utf-8").read()
                if name.endswith(".h"):
                    if not text.startswith("/*"):
                        complaints.append(f"{path}:1: the first line of a header says its purpose")
                    if not re.search(r"^#pragma once$", text, re.M):
                        complaints.append(f"{path}:1: no #pragma once")
                for number, line in enumerate(text.split("\n"), 1):
                    m = INCLUDE.match(line)
                    if m:
                        complaint = check_line(folder, path, m[1], m[2], table)
                        if complaint:
                            complaints.append(f"{path}:{number}: {complaint}")
    # A unit test sees the internal headers of its own folder alone.
    unit = os.path.join(ROOT, "tests/unit")
    for where, _, names in os.walk(unit):
        for name in sorted(names):
            if not name.endswith((".c", ".h")):
                continue
            path = os.path.join(where, name)
            files += 1
            folder = os.path.relpath(path, unit).split("/")[0]
            for number, line in enumerate(open(path, encoding="utf-8"), 1):
                m = INCLUDE.match(line)
                if m and m[1] == '"' and m[2].endswith("_int.h") and m[2].split("/")[0] != folder:
                    complaints.append(
                        f'{os.path.relpath(path, ROOT)}:{number}: "{m[2]}": an internal header of another folder')
    for complaint in complaints:
        print(complaint)
    print(f"includes: {files} files, {len(complaints)} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
