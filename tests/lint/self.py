#!/usr/bin/python3
"""The lints can fail: each is given something wrong and must complain."""
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import includes
import protos
import style

from google.protobuf import descriptor_pb2


class Includes(unittest.TestCase):
    table = includes.read_table()

    def complaint(self, folder, kind, name):
        return includes.check_line(folder, folder + "/x.c", kind, name, self.table)

    def test_floors(self):
        self.assertIn("may not include", self.complaint("tailnet", '"', "net/loop.h"))
        self.assertIn("may not include", self.complaint("dns", '"', "tailnet/state.h"))
        self.assertIn("may not include", self.complaint("agent", '"', "tailnet/tailnet.h"))
        self.assertIn("internal", self.complaint("cluster", '"', "proto/x_int.h"))
        self.assertIn("no such file", self.complaint("net", '"', "base/no_such_file.h"))
        self.assertIn("by path", self.complaint("net", '"', "loop.h"))
        self.assertIsNone(self.complaint("net", '"', "proto/skerry/v1/agent.pb-c.h"))

    def test_foreign(self):
        self.assertIn("no raft", self.complaint("net", "<", "raft.h"))
        self.assertIn("no openssl", self.complaint("base", "<", "openssl/ssl.h"))
        self.assertIsNone(self.complaint("net", "<", "uv.h"))
        self.assertIsNone(self.complaint("tailnet", "<", "string.h"))

    def test_table_is_whole(self):
        folders, may, ext = self.table
        self.assertEqual(len(folders), 11)
        self.assertEqual(set(folders), set(may))
        self.assertEqual(set(folders), set(ext))


class Protos(unittest.TestCase):
    def file(self):
        file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="skerry.v1", syntax="proto3")
        message = file.message_type.add(name="M")
        message.field.add(name="f", number=1, type=9, label=1)
        return file, message

    def lint(self, file):
        return protos.lint(descriptor_pb2.FileDescriptorSet(file=[file]))[0]

    def test_clean(self):
        self.assertEqual(self.lint(self.file()[0]), [])

    def test_recursive(self):
        file, message = self.file()
        message.field.add(name="m", number=2, type=11, label=1, type_name=".skerry.v1.M")
        self.assertIn("recursive", self.lint(file)[0])

    def test_optional(self):
        file, message = self.file()
        message.field[0].proto3_optional = True
        self.assertIn("optional", self.lint(file)[0])

    def test_access(self):
        file, _ = self.file()
        file.service.add(name="S").method.add(name="Get", input_type=".skerry.v1.M", output_type=".skerry.v1.M")
        self.assertIn("no access option", self.lint(file)[0])


class Style(unittest.TestCase):
    def what(self, name, data):
        return [what for _, what in style.check_text(name, data)]

    def test_complaints(self):
        self.assertEqual(self.what("a.c", b"\tint x;\n"), [])
        self.assertEqual(self.what("a.c", b"int x; \n"), ["trailing white space"])
        self.assertEqual(self.what("a.c", b"int x;"), ["no newline at the end"])
        self.assertEqual(self.what("a.c", b"        int x;\n"), ["indented with spaces"])
        self.assertEqual(self.what("a.md", b"see /wo" + b"rk/x/y\n"), ["a path of one machine"])
        self.assertEqual(self.what("a.c", b"/* TO" + b"DO */\n"), ["an unfinished place"])


class Purity(unittest.TestCase):
    def test_clock(self):
        here = os.path.dirname(os.path.abspath(__file__))
        with tempfile.TemporaryDirectory() as tmp:
            for body, rv in (("return (long)time(0);", 1), ("return (long)strlen(s);", 0)):
                source = os.path.join(tmp, "x.c")
                with open(source, "w", encoding="utf-8") as out:
                    out.write("#include <string.h>\n#include <time.h>\nlong f(const char *s);\n"
                              "long f(const char *s) { (void)s; %s }\n" % body)
                subprocess.run(["cc", "-c", "-o", tmp + "/x.o", source], check=True)
                subprocess.run(["rm", "-f", tmp + "/x.a"], check=True)
                subprocess.run(["ar", "rc", tmp + "/x.a", tmp + "/x.o"], check=True)
                done = subprocess.run([sys.executable, here + "/purity.py", tmp + "/x.a"], capture_output=True)
                self.assertEqual(done.returncode, rv, done.stdout)


if __name__ == "__main__":
    unittest.main()
