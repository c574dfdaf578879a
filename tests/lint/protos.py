#!/usr/bin/python3
"""Proto lint, on the descriptor set that protoc makes of proto/:
- no proto3 `optional` (protobuf-c 1.4 does not know it) and no map, group or required field;
- no recursive message type in the public package skerry.v1 (a nesting bomb would have no end);
- each RPC of skerry.v1 carries the `access` option with a credential;
- enums begin with ..._UNSPECIFIED = 0; syntax proto3."""
import glob
import os
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROTO = os.path.join(ROOT, "proto")
PUBLIC = "skerry.v1"
ACCESS = 50501


def load():
    files = sorted(glob.glob(os.path.join(PROTO, "**", "*.proto"), recursive=True))
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", "-I", PROTO, "-I", "/usr/include", "--include_imports",
                        "--experimental_allow_proto3_optional", "-o", out.name] + files, check=True)
        data = out.read()
    return data, len(files)


def messages(file):
    def walk(prefix, items):
        for message in items:
            name = f"{prefix}.{message.name}"
            yield name, message
            yield from walk(name, message.nested_type)
    yield from walk("." + file.package, file.message_type)


def find_cycle(graph, start):
    """A path from start back to start, or None."""
    stack, seen = [(start, [start])], set()
    while stack:
        name, path = stack.pop()
        for target in graph.get(name, ()):
            if target == start:
                return path + [start]
            if target not in seen:
                seen.add(target)
                stack.append((target, path + [target]))
    return None


def lint(files):
    bad, graph, rpcs = [], {}, 0
    for file in files.file:
        own = file.package.startswith("skerry")
        for name, message in messages(file):
            graph[name] = [f.type_name for f in message.field if f.type_name]
            if not own:
                continue
            if message.options.map_entry:
                bad.append(f"{file.name}: {name}: a map; use a repeated message")
            for field in message.field:
                if field.proto3_optional:
                    bad.append(f"{file.name}: {name}.{field.name}: proto3 optional; wrap it in a message or a oneof")
                if field.type == field.TYPE_GROUP or field.label == field.LABEL_REQUIRED:
                    bad.append(f"{file.name}: {name}.{field.name}: group or required")
        if not own:
            continue
        if file.syntax != "proto3":
            bad.append(f"{file.name}: syntax is not proto3")
        enums = list(file.enum_type)
        for _, message in messages(file):
            enums.extend(message.enum_type)
        for enum in enums:
            first = enum.value[0]
            if first.number != 0 or not first.name.endswith("_UNSPECIFIED"):
                bad.append(f"{file.name}: enum {enum.name}: its first value is not ..._UNSPECIFIED = 0")
        if file.package != PUBLIC:
            continue
        for service in file.service:
            for method in service.method:
                rpcs += 1
                if not credential(method):
                    bad.append(f"{file.name}: {service.name}.{method.name}: no access option with a credential")
    for name in sorted(graph):
        if name.startswith(f".{PUBLIC}."):
            cycle = find_cycle(graph, name)
            if cycle:
                bad.append(f"recursive: {' -> '.join(cycle)}")
    return bad, rpcs


def credential(method):
    """The credential of the access option, 0 without one. The option is read from the unknown fields' bytes."""
    data = method.options.SerializeToString()
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        if key & 7 != 2:
            return 0
        size = varint()
        body = data[at:at + size]
        at += size
        if key >> 3 == ACCESS:
            # Access.credential is field 1, a varint: the first byte of the message is 8.
            return body[1] if len(body) > 1 and body[0] == 8 else 0
    return 0


def main():
    data, count = load()
    files = descriptor_pb2.FileDescriptorSet.FromString(data)
    bad, rpcs = lint(files)
    for line in bad:
        print(line)
    print(f"protos: {count} files, {rpcs} public RPCs, {len(bad)} complaints")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
