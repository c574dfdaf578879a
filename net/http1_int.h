/* Inside of the HTTP/1.1 server engine: input in net/http1.c, output in net/http1_out.c. */
#pragma once

#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/limits.h"
#include "base/list.h"
#include "net/http.h"

/*
 * One request at a time. Its head is parsed into `head`, then the handler is chosen (http_route), then its body is handed over
 * piece by piece. The next request of the connection is not parsed before the response has left the queue.
 *
 *   HTTP1_HEAD --head complete--> HTTP1_BODY --body complete--> HTTP1_DONE --response sent--> HTTP1_HEAD
 *        \________ error, reset, upgrade, "connection: close" _______/   \______> HTTP1_DEAD
 *
 * llhttp's callbacks pause it after the head and after the body, so that handlers never run inside it, except on_body.
 */
enum http1_state {
	HTTP1_HEAD, /* reading a request's head, or waiting for one */
	HTTP1_BODY, /* reading its body */
	HTTP1_DONE, /* all of it read: the response is awaited */
	HTTP1_DEAD, /* nothing is read any more; what is queued is sent, then the connection ends */
};

enum http1_framing {
	HTTP1_NO_BODY, /* HEAD, 204, 304: what the handler writes is dropped */
	HTTP1_LENGTH,  /* content-length */
	HTTP1_CHUNKED,
	HTTP1_UNTIL_CLOSE, /* HTTP/1.0 */
};

/* Bytes that wait to be sent. */
struct http1_piece {
	struct list link;
	struct blob *blob;
	size_t off;
	size_t len;
};

struct http1 {
	struct http_engine engine; /* first: the two are one pointer */
	llhttp_t parser;
	enum http1_state state;
	struct buf in; /* read and not parsed yet */
	size_t in_pos; /* parsed up to here */
	bool in_run;   /* parsing: a handler called from here must not start it again */

	/* The request. */
	struct http_request req;
	bool active; /* a handler has it: on_close is due */
	bool has_body;
	bool keep_alive;
	bool expect_continue;                 /* the client waits for 100 Continue */
	bool reset;                           /* by http_reset() */
	bool shutdown;                        /* this request is the last one */
	bool detached;                        /* upgraded: the stream is someone else's */
	bool paused;                          /* reading from the stream is paused */
	struct buf head;                      /* target, names and values, each with a NUL */
	size_t head_bytes;                    /* read for this head */
	size_t body_bytes;                    /* handed over */
	size_t raw_bytes;                     /* read for this body, chunk sizes included */
	size_t discarded;                     /* of the body, after the response was complete */
	size_t unconsumed;                    /* handed over and not acknowledged */
	size_t offsets[LIM_HTTP1_HEADERS][2]; /* of name and value in head */
	size_t n_headers;
	struct http_header headers[LIM_HTTP1_HEADERS];
	int refuse_status; /* set inside a parser callback */
	const char *refuse_text;

	/* The response. */
	enum http1_framing framing;
	uint64_t length_left; /* HTTP1_LENGTH */
	struct list out;      /* http1_piece */
	size_t out_bytes;
	bool above_mark; /* on_writable is due when it falls */

	/* Times, taken at tick(). */
	uint64_t
		since_ms; /* when this head or this progress of the body began; 0: at the next tick */
	size_t since_bytes;
	uint64_t body_since_ms;
};

extern const struct http_request_ops http1_request_ops;

/* Moves queued output to the connection as far as it takes it. */
void http1_flush(struct http1 *h);
/* Drops queued output. */
void http1_drop_output(struct http1 *h);
/* Queues an interim or final answer of our own, with connection: close unless interim. */
void http1_answer(struct http1 *h, int status, const char *text);
void http1_continue(struct http1 *h);
/* Ends the exchange for its handler (err NULL: complete). */
void http1_close_request(struct http1 *h, const struct err *err);
