#!/usr/bin/python3
"""Stock grpcio asks json_server for its descriptors (v1 and v1alpha), builds its messages from them alone, and calls.

reflection_test.py JSON_SERVER PROTOSET"""
import subprocess
import sys
import tempfile
import unittest

try:
    import grpc
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError as e:
    print("skipped:", e)
    sys.exit(77)

SERVER, PROTOSET = sys.argv[1:3]
del sys.argv[1:3]

with open(PROTOSET, "rb") as source:
    ALL = descriptor_pb2.FileDescriptorSet.FromString(source.read())


def classes(files):
    """A function from full name to message class, over these FileDescriptorProtos."""
    pool = descriptor_pool.DescriptorPool()
    for f in files:
        pool.AddSerializedFile(f.SerializeToString())
    factory = message_factory.MessageFactory(pool)
    return lambda name: factory.GetPrototype(pool.FindMessageTypeByName(name))


class Reflection(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.process = subprocess.Popen([SERVER, cls.dir.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = int(cls.process.stdout.readline().split()[0])
        with open(cls.dir.name + "/ca.pem", "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        cls.channel = grpc.secure_channel(f"localhost:{port}", credentials)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.process.stdin.close()
        code = cls.process.wait(20)
        cls.process.stdout.close()
        cls.dir.cleanup()
        assert code == 0, f"json_server ended with {code}"

    def ask(self, *requests, version="v1"):
        package = f"grpc.reflection.{version}."
        known = classes(ALL.file)
        request, response = known(package + "ServerReflectionRequest"), known(package + "ServerReflectionResponse")
        call = self.channel.stream_stream(f"/{package}ServerReflection/ServerReflectionInfo",
                                          request.SerializeToString, response.FromString)
        return list(call((request(**r) for r in requests), timeout=20))

    def test_services(self):
        for version in ("v1", "v1alpha"):
            (answer,) = self.ask({"list_services": "*"}, version=version)
            names = [s.name for s in answer.list_services_response.service]
            self.assertIn("skerry.v1.NodeService", names)
            self.assertIn(f"grpc.reflection.{version}.ServerReflection", names)
            self.assertNotIn("skerry.v1.UserService", names)
            self.assertEqual(len(names), len(set(names)))
            self.assertEqual(answer.original_request.list_services, "*")

    def test_call_from_descriptors_alone(self):
        for symbol in ("skerry.v1.NodeService", "skerry.v1.NodeService.GetNode", "skerry.v1.Node", "skerry.v1.Node.tags"):
            (answer,) = self.ask({"file_containing_symbol": symbol})
            files = [descriptor_pb2.FileDescriptorProto.FromString(b)
                     for b in answer.file_descriptor_response.file_descriptor_proto]
            by_name = {f.name: f for f in files}
            self.assertEqual(len(by_name), len(files))
            ordered = []

            def add(name, by_name=by_name, ordered=ordered):
                for d in by_name[name].dependency:  # fails when an import is missing
                    add(d)
                if by_name[name] not in ordered:
                    ordered.append(by_name[name])

            for name in sorted(by_name):
                add(name)
            known = classes(ordered)
            request, node = known("skerry.v1.GetNodeRequest"), known("skerry.v1.Node")
            get = self.channel.unary_unary("/skerry.v1.NodeService/GetNode", request.SerializeToString, node.FromString)
            self.assertEqual(get(request(name="n"), timeout=20).name, "n")

    def test_files(self):
        for version in ("v1", "v1alpha"):
            for f in ALL.file:
                (answer,) = self.ask({"file_by_filename": f.name}, version=version)
                got = [descriptor_pb2.FileDescriptorProto.FromString(b)
                       for b in answer.file_descriptor_response.file_descriptor_proto]
                self.assertIn(f, got)

    def test_extensions(self):
        options = "google.protobuf.MethodOptions"
        numbers, file, none, no_type = self.ask(
            {"all_extension_numbers_of_type": options},
            {"file_containing_extension": {"containing_type": options, "extension_number": 50501}},
            {"file_containing_extension": {"containing_type": options, "extension_number": 50502}},
            {"all_extension_numbers_of_type": "no.Such"})
        self.assertEqual(list(numbers.all_extension_numbers_response.extension_number), [50501])
        names = [descriptor_pb2.FileDescriptorProto.FromString(b).name
                 for b in file.file_descriptor_response.file_descriptor_proto]
        self.assertIn("skerry/v1/options.proto", names)
        self.assertEqual(none.error_response.error_code, 5)
        self.assertEqual(no_type.error_response.error_code, 5)

    def test_not_found_goes_on(self):
        answers = self.ask({"file_by_filename": "no/such.proto"}, {"file_containing_symbol": "no.Such"},
                           {"file_containing_symbol": ""}, {"list_services": ""})
        self.assertEqual([a.error_response.error_code for a in answers[:3]], [5, 5, 5])
        self.assertTrue(answers[3].list_services_response.service)


if __name__ == "__main__":
    unittest.main()
