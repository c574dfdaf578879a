#include "net/reflection.h"

#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "net/rpc.h"
#include "proto/descriptors.h"

/*
 * Both versions of the service have the same messages, field by field, under two package names: one
 * handler serves both with the types of v1.
 */

typedef Grpc__Reflection__V1__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_t;

enum { FILES_MAX = 64, SERVICES_MAX = 128 };

static void send(struct rpc_call *call, response_t *reply)
{
	int rc = rpc_call_send(call, &reply->base);

	if (rc == ERR_LIMIT) {
		rpc_call_fail(call, ERR_LIMIT, "the answers are not read");
	}
}

static void send_error(struct rpc_call *call, response_t *reply, const char *what)
{
	Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

	error.error_code = err_grpc(ERR_NOT_FOUND);
	error.error_message = (char *)what;
	reply->message_response_case =
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
	reply->error_response = &error;
	send(call, reply);
}

/* The file and all that it imports. */
static void send_file(struct rpc_call *call, response_t *reply, const struct proto_file *file)
{
	Grpc__Reflection__V1__FileDescriptorResponse files =
		GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
	ProtobufCBinaryData slices[FILES_MAX];
	size_t n = 0;

	if (file == NULL) {
		send_error(call, reply, "not found");
		return;
	}
	slices[n++] = (ProtobufCBinaryData){.data = (uint8_t *)file->data, .len = file->len};
	for (size_t i = 0; i < file->n_deps && n < FILES_MAX; i++) {
		slices[n++] = (ProtobufCBinaryData){
			.data = (uint8_t *)file->deps[i]->data,
			.len = file->deps[i]->len,
		};
	}
	files.n_file_descriptor_proto = n;
	files.file_descriptor_proto = slices;
	reply->message_response_case =
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
	reply->file_descriptor_response = &files;
	send(call, reply);
}

static void send_services(struct rpc_call *call, response_t *reply)
{
	Grpc__Reflection__V1__ListServiceResponse list =
		GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
	Grpc__Reflection__V1__ServiceResponse services[SERVICES_MAX], *pointers[SERVICES_MAX];
	const char *last = "";

	for (size_t i = 0; i < proto_method_count() && list.n_service < SERVICES_MAX; i++) {
		const struct proto_method *m = proto_method_at(i);

		/* The table is sorted by path, so the methods of a service stand together. */
		if (strcmp(m->service, last) == 0 ||
		    rpc_server_method(rpc_call_server(call), m->path) == NULL) {
			continue;
		}
		last = m->service;
		Grpc__Reflection__V1__ServiceResponse *s = &services[list.n_service];
		grpc__reflection__v1__service_response__init(s);
		s->name = (char *)m->service;
		pointers[list.n_service++] = s;
	}
	list.service = pointers;
	reply->message_response_case =
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
	reply->list_services_response = &list;
	send(call, reply);
}

static void send_extensions(struct rpc_call *call, response_t *reply, const char *type)
{
	Grpc__Reflection__V1__ExtensionNumberResponse numbers =
		GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
	const int32_t *list;
	int n = proto_extension_numbers(type, &list);

	if (n < 0) {
		send_error(call, reply, "no such message type");
		return;
	}
	numbers.base_type_name = (char *)type;
	numbers.n_extension_number = (size_t)n;
	numbers.extension_number = (int32_t *)list;
	reply->message_response_case =
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
	reply->all_extension_numbers_response = &numbers;
	send(call, reply);
}

static void on_message(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const request_t *req = (const request_t *)msg;
	request_t original = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
	response_t reply = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;

	(void)arg;
	original.host = req->host;
	original.message_request_case = req->message_request_case;
	original.file_by_filename = req->file_by_filename; /* the whole union: one pointer */
	reply.valid_host = req->host;
	reply.original_request = &original;
	switch (req->message_request_case) {
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
		send_file(call, &reply, proto_file_find(req->file_by_filename));
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
		send_file(call, &reply, proto_file_of_symbol(req->file_containing_symbol));
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
		send_file(
			call, &reply,
			proto_file_of_extension(req->file_containing_extension->containing_type,
						req->file_containing_extension->extension_number));
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
		send_extensions(call, &reply, req->all_extension_numbers_of_type);
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
		send_services(call, &reply);
		break;
	default: rpc_call_fail(call, ERR_INVALID, "the request asks for nothing"); break;
	}
}

static const struct rpc_handler handler = {.on_message = on_message};

void reflection_add(struct rpc_server *server)
{
	rpc_server_add(server, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		       &handler, NULL);
	rpc_server_add(server, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
		       &handler, NULL);
}
