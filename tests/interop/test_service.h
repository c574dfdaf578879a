/* grpc.testing.TestService on our server, as the gRPC interoperability tests describe it. */
#pragma once

#include "grpc/testing/empty.pb-c.h"
#include "grpc/testing/messages.pb-c.h"
#include "net/rpc.h"

#define TEST_SERVICE "/grpc.testing.TestService/"

/* What the tests look at; one service per process. */
struct test_service_stats {
	unsigned cancelled; /* calls that ended by themselves */
	unsigned open_streams;
	unsigned conn_data_freed;
};
extern struct test_service_stats test_service_stats;

void test_service_add(struct rpc_server *server);
