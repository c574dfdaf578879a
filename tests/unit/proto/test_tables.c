/* The generated tables: methods, descriptors, symbols, JSON names.
 * LIBS: proto */
#include "tests/lib/test.h"

#include <ctype.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "proto/descriptors.h"
#include "proto/json_map.h"
#include "proto/methods.h"
#include "skerry/v1/admin.pb-c.h"
#include "skerry/v1/agent.pb-c.h"
#include "skerry/v1/options.pb-c.h"

static void test_methods(void **state UNUSED)
{
	const struct proto_method *m = proto_method_find("/skerry.v1.NodeService/GetNode");
	const struct proto_method *watch = proto_method_find("/skerry.v1.AgentService/Watch");

	assert_non_null(m);
	assert_string_equal(m->service, "skerry.v1.NodeService");
	assert_string_equal(m->method, "GetNode");
	assert_ptr_equal(m->input, &skerry__v1__get_node_request__descriptor);
	assert_ptr_equal(m->output, &skerry__v1__node__descriptor);
	assert_int_equal(m->credential, SKERRY__V1__CREDENTIAL__CREDENTIAL_CALLER);
	assert_int_equal(m->role, SKERRY__V1__ROLE__ROLE_VIEWER);
	assert_int_equal(m->scope, SKERRY__V1__SCOPE__SCOPE_TAILNET);
	assert_false(m->write || m->client_streaming || m->server_streaming);
	assert_int_equal(m->max_request_bytes, 65536);

	assert_non_null(watch);
	assert_true(watch->server_streaming);
	assert_false(watch->client_streaming);
	assert_int_equal(watch->credential, SKERRY__V1__CREDENTIAL__CREDENTIAL_DEVICE);
	assert_true(proto_method_find("/skerry.v1.UserService/DeleteUser")->write);
	assert_true(proto_method_find("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
			    ->client_streaming);

	assert_null(proto_method_find("/skerry.v1.NodeService/getNode"));
	assert_null(proto_method_find("skerry.v1.NodeService/GetNode"));
	assert_null(proto_method_find("/skerry.v1.NodeService/GetNodeX"));
	assert_null(proto_method_find(""));
	assert_null(proto_method_find(NULL));
}

static void test_methods_all(void **state UNUSED)
{
	const struct proto_method *m;
	size_t n;

	for (n = 0; (m = proto_method_at(n)); n++) {
		char path[200];
		size_t len = strlen(m->path);

		assert_int_equal(m->index, n);
		assert_ptr_equal(proto_method_find(m->path), m);
		/* the form without NUL: neither a prefix nor an extension counts */
		snprintf(path, sizeof(path), "%sX", m->path);
		assert_ptr_equal(proto_method_find_n(path, len), m);
		assert_null(proto_method_find_n(path, len + 1));
		assert_ptr_not_equal(proto_method_find_n(path, len - 1), m);
		snprintf(path, sizeof(path), "/%s/%s", m->service, m->method);
		assert_string_equal(path, m->path);
		assert_true(m->max_request_bytes > 0);
		if (n)
			assert_true(strcmp(proto_method_at(n - 1)->path, m->path) < 0);
		/* the build refuses it otherwise */
		if (!strncmp(m->path, "/skerry.v1.", 11))
			assert_int_not_equal(m->credential, 0);
	}
	assert_int_equal(n, proto_method_count());
	assert_true(n > 30);
	assert_null(proto_method_find_n("", 0));
}

static void test_files(void **state UNUSED)
{
	const struct proto_file *f, *agent = proto_file_find("skerry/v1/agent.proto");
	size_t n;

	assert_null(proto_file_find("agent.proto"));
	assert_non_null(agent);
	for (n = 0; (f = proto_file_at(n)); n++) {
		Google__Protobuf__FileDescriptorProto *d;

		d = google__protobuf__file_descriptor_proto__unpack(NULL, f->len, f->data);
		assert_non_null(d);
		assert_string_equal(d->name, f->name);
		/* what is imported is among the dependencies, and before who imports it */
		for (size_t i = 0; i < d->n_dependency; i++) {
			size_t k = 0;

			while (k < f->n_deps && strcmp(f->deps[k]->name, d->dependency[i]))
				k++;
			assert_true(k < f->n_deps);
		}
		for (size_t i = 0; i < f->n_deps; i++) {
			for (size_t k = 0; k < f->deps[i]->n_deps; k++) {
				size_t earlier = 0;

				while (earlier < i && f->deps[earlier] != f->deps[i]->deps[k])
					earlier++;
				assert_true(earlier < i);
			}
		}
		google__protobuf__file_descriptor_proto__free_unpacked(d, NULL);
	}
	assert_int_equal(n, proto_file_count());
}

static void test_symbols(void **state UNUSED)
{
	static const struct {
		const char *symbol;
		const char *file;
	} cases[] = {
		{"skerry.v1.AgentService", "skerry/v1/agent.proto"},
		{"skerry.v1.AgentService.Watch", "skerry/v1/agent.proto"},
		{"skerry.v1.WatchResponse", "skerry/v1/agent.proto"},
		{"skerry.v1.WatchResponse.chunk", "skerry/v1/agent.proto"},
		{"skerry.v1.WatchResponse.event", "skerry/v1/agent.proto"},
		{"skerry.v1.EndpointKind", "skerry/v1/types.proto"},
		{"skerry.v1.ENDPOINT_KIND_STUN", "skerry/v1/types.proto"},
		{"skerry.v1.access", "skerry/v1/options.proto"},
		{"google.rpc.BadRequest.FieldViolation", "google/rpc/error_details.proto"},
		{"grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"},
		{"grpc.health.v1.HealthCheckResponse.SERVING", "grpc/health/v1/health.proto"},
		{"grpc.reflection.v1alpha.ServerReflection",
		 "grpc/reflection/v1alpha/reflection.proto"},
		{"google.protobuf.Timestamp", "google/protobuf/timestamp.proto"},
		{"skerry.v1", NULL},
		{".skerry.v1.AgentService", NULL},
		{"skerry.v1.AgentService.watch", NULL},
		{"", NULL},
	};
	const int32_t *numbers = NULL;

	TEST_TABLE(c, cases)
	{
		const struct proto_file *f = proto_file_of_symbol(c->symbol);

		if (!c->file != !f || (f && strcmp(f->name, c->file)))
			TEST_FAIL("%s: in %s", c->symbol, f ? f->name : "no file");
	}
	assert_string_equal(proto_file_of_extension("google.protobuf.MethodOptions", 50501)->name,
			    "skerry/v1/options.proto");
	assert_null(proto_file_of_extension("google.protobuf.MethodOptions", 50502));
	assert_null(proto_file_of_extension("google.protobuf.FileOptions", 50501));
	assert_int_equal(proto_extension_numbers("google.protobuf.MethodOptions", &numbers), 1);
	assert_int_equal(numbers[0], 50501);
	assert_int_equal(proto_extension_numbers("google.protobuf.FileOptions", &numbers), 0);
	assert_int_equal(proto_extension_numbers("google.protobuf.Nothing", &numbers), -1);
}

static void test_services(void **state UNUSED)
{
	bool seen = false;
	size_t n;

	for (n = 0; proto_service_at(n); n++) {
		assert_non_null(proto_file_of_symbol(proto_service_at(n)));
		seen = seen || !strcmp(proto_service_at(n), "skerry.v1.ClusterService");
	}
	assert_int_equal(n, proto_service_count());
	assert_true(seen);
}

static void test_messages(void **state UNUSED)
{
	const struct proto_message_info *info = proto_message_info(&skerry__v1__node__descriptor),
					*m;
	ProtobufCMessageDescriptor other = skerry__v1__node__descriptor;
	size_t n;

	assert_non_null(info);
	assert_string_equal(info->json_names[0], "name");
	assert_string_equal(info->json_names[1], "stableId");
	assert_string_equal(info->json_names[2], "givenName");
	assert_false(info->map_entry);
	assert_int_equal(proto_message_find("google.protobuf.Timestamp")->kind,
			 PROTO_JSON_TIMESTAMP);
	assert_true(proto_message_find("google.rpc.ErrorInfo.MetadataEntry")->map_entry);
	assert_null(proto_message_find("Node"));
	/* a stranger's type with the same name is not it */
	assert_null(proto_message_info(&other));
	for (n = 0; (m = proto_message_at(n)); n++) {
		assert_string_equal(m->name, m->desc->name);
		for (unsigned i = 0; i < m->desc->n_fields; i++) {
			assert_non_null(m->json_names[i]);
			assert_int_equal(tolower(m->json_names[i][0]),
					 tolower(m->desc->fields[i].name[0]));
			/* the order that both rely on */
			if (i)
				assert_true(m->desc->fields[i - 1].id < m->desc->fields[i].id);
		}
	}
	assert_int_equal(n, proto_message_count());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_methods),  cmocka_unit_test(test_methods_all),
		cmocka_unit_test(test_files),    cmocka_unit_test(test_symbols),
		cmocka_unit_test(test_services), cmocka_unit_test(test_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
