#!/usr/bin/python3
"""generate.py IN.protoset TABLES.c MESSAGES.protoset

Writes the tables behind proto/methods.h, proto/descriptors.h and proto/json_map.h, and the set of descriptors without
services that protoc-c reads.

Also refuses what the C side cannot serve: an RPC of skerry.v1 without `access`, proto3 `optional` (protoc-c has no
support: use a oneof of one field), types that contain themselves (decoding recurses), messages of over 256 fields.
"""
import os
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FD = descriptor_pb2.FieldDescriptorProto
KINDS = {
    "google.protobuf.Timestamp": "PROTO_JSON_TIMESTAMP",
    "google.protobuf.Duration": "PROTO_JSON_DURATION",
    "google.protobuf.FieldMask": "PROTO_JSON_FIELD_MASK",
    "google.protobuf.Any": "PROTO_JSON_ANY",
    "google.protobuf.Empty": "PROTO_JSON_EMPTY",
}
DEFAULT_REQUEST = 64 * 1024
DEFAULT_INTERNAL_REQUEST = 4 * 1024 * 1024
MAX_FIELDS = 256  # the check of repeated singular messages keeps one bit per field (pb_check.c)

errors = []


def refuse(where, what):
    errors.append(f"{where}: {what}")


def c_word(word):
    """protoc-c's name of one part: NodeService -> node_service, APIKey -> apikey."""
    out, was_upper = "", True
    for ch in word:
        if ch.isupper() and not was_upper:
            out += "_"
        out += ch.lower()
        was_upper = ch.isupper()
    return out


def c_descriptor(full_name):
    return "&" + "__".join(c_word(p) for p in full_name.split(".")) + "__descriptor"


def c_string(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Tables:
    def __init__(self, data):
        self.files = descriptor_pb2.FileDescriptorSet.FromString(data).file
        self.messages = {}  # full name -> (DescriptorProto, file)
        self.symbols = {}  # full name -> file name
        self.extensions = []  # (extendee, number, file name)
        self.services = []
        self.methods = []  # (path, service, MethodDescriptorProto, file)
        for f in self.files:
            prefix = f.package + "." if f.package else ""
            for m in f.message_type:
                self.add_message(prefix, m, f)
            for e in f.enum_type:
                self.add_enum(prefix, e, f)
            for x in f.extension:
                self.add_extension(prefix, x, f)
            for s in f.service:
                name = prefix + s.name
                self.symbols[name] = f.name
                self.services.append(name)
                for m in s.method:
                    self.symbols[name + "." + m.name] = f.name
                    self.methods.append((f"/{name}/{m.name}", name, m, f))
        self.methods.sort(key=lambda m: m[0])
        self.services.sort()

    def add_message(self, prefix, m, f):
        name = prefix + m.name
        self.messages[name] = (m, f)
        self.symbols[name] = f.name
        for field in m.field:
            self.symbols[f"{name}.{field.name}"] = f.name
            if field.proto3_optional:
                refuse(f"{f.name}: {name}.{field.name}", "protoc-c cannot do proto3 `optional`; write a oneof of one field")
        for oneof in m.oneof_decl:
            self.symbols[f"{name}.{oneof.name}"] = f.name
        for x in m.extension:
            self.add_extension(name + ".", x, f)
        for nested in m.nested_type:
            self.add_message(name + ".", nested, f)
        for e in m.enum_type:
            self.add_enum(name + ".", e, f)
        if len(m.field) > MAX_FIELDS:
            refuse(f"{f.name}: {name}", f"more than {MAX_FIELDS} fields")

    def add_enum(self, prefix, e, f):
        self.symbols[prefix + e.name] = f.name
        for v in e.value:
            self.symbols[prefix + v.name] = f.name  # values live beside their enum

    def add_extension(self, prefix, x, f):
        self.symbols[prefix + x.name] = f.name
        self.extensions.append((x.extendee.lstrip("."), x.number, f.name))

    def deps(self, name):
        """All files that `name` needs, imports before importers."""
        by_name = {f.name: f for f in self.files}
        out = []

        def walk(n):
            for d in by_name[n].dependency:
                if d not in out:
                    walk(d)
                    out.append(d)

        walk(name)
        return out

    def check_recursion(self):
        def children(name):
            return [x.type_name.lstrip(".") for x in self.messages[name][0].field if x.type == FD.TYPE_MESSAGE]

        done = set()

        def walk(name, path):
            if name in path:
                refuse(self.messages[name][1].name, "contains itself: " + " -> ".join(path[path.index(name):] + [name]))
                return
            if name in done:
                return
            for child in children(name):
                walk(child, path + [name])
            done.add(name)

        for name in sorted(self.messages):
            if name.startswith("skerry."):
                walk(name, [])


def access_reader(files):
    """Returns a function: MethodOptions -> the value of the extension skerry.v1.access, or None."""
    pool = descriptor_pool.DescriptorPool()
    for f in files:
        pool.AddSerializedFile(f.SerializeToString())
    try:
        extension = pool.FindExtensionByName("skerry.v1.access")
    except KeyError:
        return lambda options: None
    factory = message_factory.MessageFactory(pool)
    factory.GetPrototype(extension.message_type)
    options_class = factory.GetPrototype(pool.FindMessageTypeByName("google.protobuf.MethodOptions"))

    def read(options):
        parsed = options_class.FromString(options.SerializeToString())
        return parsed.Extensions[extension] if parsed.HasExtension(extension) else None

    return read


def method_row(index, row, read_access):
    path, service, m, f = row
    where = f"{f.name}: rpc {service}.{m.name}"
    access = read_access(m.options)
    public = f.package == "skerry.v1"
    if public and (access is None or not access.credential):
        refuse(where, "no `option (access) = {credential: …}`: say who may call it")
    if public and access is not None and access.credential == 3 and not (access.role and access.scope):
        refuse(where, "CREDENTIAL_CALLER needs role and scope")
    if public and access is not None and access.credential in (1, 2) and (access.role or access.scope):
        refuse(where, "role and scope belong to CREDENTIAL_CALLER only")
    size = access.max_request_bytes if access is not None else 0
    size = size or (DEFAULT_INTERNAL_REQUEST if f.package.startswith("skerry.internal") else DEFAULT_REQUEST)
    a = (access.credential, access.role, access.scope, access.write) if access is not None else (0, 0, 0, False)
    return (f"\t{{{c_string(path)}, {c_string(service)}, {c_string(m.name)},\n"
            f"\t {c_descriptor(m.input_type.lstrip('.'))}, {c_descriptor(m.output_type.lstrip('.'))},\n"
            f"\t {int(m.client_streaming)}, {int(m.server_streaming)}, {a[0]}, {a[1]}, {a[2]}, {int(a[3])}, {size}, {index}}},")


def emit(t):
    files = sorted(t.files, key=lambda f: f.name)
    number = {f.name: i for i, f in enumerate(files)}
    out = ["/* Made by proto/generate.py from the .proto files. */", '#include "proto/tables_int.h"', ""]
    for f in files:
        out.append(f'#include "{f.name[:-len(".proto")]}.pb-c.h"')
    out.append("")

    read_access = access_reader(t.files)
    out.append("const struct proto_method proto_methods[] = {")
    out += [method_row(i, row, read_access) for i, row in enumerate(t.methods)]
    out += ["};", f"const size_t proto_methods_len = {len(t.methods)};", ""]

    for i, f in enumerate(files):
        data = f.SerializeToString()
        out.append(f"static const uint8_t file_{i}[] = {{")
        out += ["\t" + ",".join(str(b) for b in data[k:k + 32]) + "," for k in range(0, len(data), 32)]
        out.append("};")
    for i, f in enumerate(files):
        deps = t.deps(f.name)
        if deps:
            rows = ", ".join(f"&proto_files[{number[d]}]" for d in deps)
            out.append(f"static const struct proto_file *const deps_{i}[] = {{{rows}}};")
    out.append("const struct proto_file proto_files[] = {")
    for i, f in enumerate(files):
        deps = t.deps(f.name)
        out.append(f"\t{{{c_string(f.name)}, file_{i}, sizeof(file_{i}), {f'deps_{i}' if deps else 'NULL'}, {len(deps)}}},")
    out += ["};", f"const size_t proto_files_len = {len(files)};", ""]

    out.append("const struct proto_symbol proto_symbols[] = {")
    out += [f"\t{{{c_string(s)}, &proto_files[{number[t.symbols[s]]}]}}," for s in sorted(t.symbols)]
    out += ["};", f"const size_t proto_symbols_len = {len(t.symbols)};", ""]

    out.append("const struct proto_extension proto_extensions[] = {")
    out += [f"\t{{{c_string(x)}, {n}, &proto_files[{number[f]}]}}," for x, n, f in sorted(t.extensions)]
    out += ["\t{NULL, 0, NULL},", "};", f"const size_t proto_extensions_len = {len(t.extensions)};"]
    out.append("const int32_t proto_extension_list[] = {" + ", ".join(str(n) for _, n, _ in sorted(t.extensions)) + "};")
    out.append("")

    out.append("const char *const proto_services[] = {")
    out += [f"\t{c_string(s)}," for s in t.services]
    out += ["};", f"const size_t proto_services_len = {len(t.services)};", ""]

    names = sorted(t.messages)
    for i, name in enumerate(names):
        fields = sorted(t.messages[name][0].field, key=lambda x: x.number)
        rows = ", ".join(c_string(x.json_name) for x in fields) or "NULL"
        out.append(f"static const char *const json_{i}[] = {{{rows}}};")
    out.append("const struct proto_message_info proto_messages[] = {")
    for i, name in enumerate(names):
        entry = int(t.messages[name][0].options.map_entry)
        out.append(f"\t{{{c_string(name)}, {c_descriptor(name)}, json_{i}, {entry}, {KINDS.get(name, 'PROTO_JSON_PLAIN')}}},")
    out += ["};", f"const size_t proto_messages_len = {len(names)};", ""]
    return "\n".join(out)


def write(path, data):
    """Writes only what differs: an unchanged file keeps its time."""
    if os.path.exists(path):
        with open(path, "rb") as f:
            if f.read() == data:
                return
    with open(path + ".tmp", "wb") as f:
        f.write(data)
    os.replace(path + ".tmp", path)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    with open(sys.argv[1], "rb") as f:
        data = f.read()
    tables = Tables(data)
    tables.check_recursion()
    text = emit(tables)
    for e in errors:
        print(f"proto: {e}", file=sys.stderr)
    if errors:
        sys.exit(1)
    messages = descriptor_pb2.FileDescriptorSet.FromString(data)
    for f in messages.file:
        f.ClearField("service")
    write(sys.argv[2], text.encode())
    write(sys.argv[3], messages.SerializeToString())


if __name__ == "__main__":
    main()
