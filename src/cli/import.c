/* pugmark import FILE...: spans of any kind of file into a server that runs. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/span_io.h"

#include "base/json.h"
#include "wire/otlp.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a server takes in one request is more; and it is asked again while it is busy. */
enum { SPANS_AT_ONCE = 8192, TRIES_MAX = 60, BUSY_WAIT_S = 1 };

static const char help[] =
    "usage: pugmark import FILE... [--server URL] [--otlp URL]\n"
    "\n"
    "Sends the spans in files to a server: OTLP (JSON, or protobuf as `pugmark export`\n"
    "writes it), Zipkin's JSON, Jaeger's JSON as its UI downloads it, our own Chrome\n"
    "traces. What a file is, its content says; - is standard input.\n"
    "\n"
    "  --server URL  the page of the server; default " CLIENT_SERVER_DEFAULT "\n"
    "  --otlp URL    instead: any server that takes OTLP over HTTP\n";

struct import {
    const char *otlp; /* without the path */
    uint64_t spans, rejected, rejected_here;
};

/* The endpoint for OTLP over HTTP, as the server's status has it. malloc'ed. */
static char *endpoint_find(const char *server)
{
    struct buf body = BUF_INIT;
    struct arena arena = ARENA_INIT;
    struct json_reader r;
    long status;
    char *found = NULL;
    if (client_get("import", server, "/api/pugmark/status", &status, &body))
        return NULL;
    json_reader_init(&r, buf_as_str(&body), &arena, NULL);
    if (status == 200 && json_next(&r) == JSON_OBJECT)
        while (json_next(&r) == JSON_KEY) {
            if (!str_eq(r.text, STR("endpoints")) || json_next(&r) != JSON_OBJECT) {
                json_skip(&r);
                continue;
            }
            while (json_next(&r) == JSON_KEY) {
                bool wanted = str_eq(r.text, STR("otlp_http"));
                if (json_next(&r) == JSON_STRING && wanted && !found)
                    found = strndup(r.text.ptr, r.text.len);
            }
        }
    if (!found)
        fprintf(stderr,
                "pugmark import: %s does not say where it takes OTLP over HTTP; --otlp names it\n",
                server);
    arena_done(&arena);
    buf_done(&body);
    return found;
}

static int request_send(struct import *im, struct str body)
{
    struct buf answer = BUF_INIT;
    long status = 0;
    uint64_t rejected;
    struct str message;
    for (int tries = 0;; tries++) {
        int err = client_post("import", im->otlp, "/v1/traces", "application/x-protobuf", body,
                              &status, &answer);
        if (err)
            return err;
        if ((status != 429 && status != 503) || tries == TRIES_MAX)
            break;
        buf_done(&answer);
        sleep(BUSY_WAIT_S);
    }
    int err = status == 200 ? 0 : ERR_IO;
    if (err)
        fprintf(stderr, "pugmark import: %s answers with HTTP status %ld\n", im->otlp, status);
    else if (!otlp_decode_response(buf_as_str(&answer), &rejected, &message))
        im->rejected += rejected;
    buf_done(&answer);
    return err;
}

static int batch_send(void *arg, const struct span_batch *batch)
{
    struct import *im = arg;
    int err = 0;
    im->rejected_here += batch->n_rejected;
    for (size_t at = 0; at < batch->n && !err; at += SPANS_AT_ONCE) {
        size_t n = batch->n - at < SPANS_AT_ONCE ? batch->n - at : SPANS_AT_ONCE;
        const struct span_batch some = {.spans = batch->spans + at, .n = n};
        struct buf body = BUF_INIT;
        otlp_encode(&some, &body);
        err = buf_ok(&body) ? request_send(im, buf_as_str(&body)) : ERR_NOMEM;
        im->spans += err ? 0 : n;
        buf_done(&body);
    }
    return err;
}

int cli_import(int argc, char **argv)
{
    const char *server = CLIENT_SERVER_DEFAULT, *otlp = NULL;
    struct import im = {.spans = 0};
    int status;
    const struct args_option options[] = {
        {.name = "server", .text = &server},
        {.name = "otlp", .text = &otlp},
    };
    int n = args_parse("import", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n == 0)
        return args_wrong("import", "which file");
    char *found = otlp ? NULL : endpoint_find(server);
    im.otlp = otlp ? otlp : found;
    if (!im.otlp)
        return CLI_COULD_NOT;
    status = CLI_DONE;
    for (int i = 1; i <= n; i++) {
        struct import before = im;
        const char *kind = NULL;
        int err = span_io_read("import", argv[i], batch_send, &im, &kind);
        if (err == ERR_NOMEM)
            fputs("pugmark import: out of memory\n", stderr);
        uint64_t left_out = im.rejected - before.rejected + im.rejected_here - before.rejected_here;
        uint64_t taken = im.spans - before.spans - (im.rejected - before.rejected);
        fprintf(stderr, "%s: %llu span%s%s%s", argv[i], (unsigned long long)taken,
                taken == 1 ? "" : "s", kind ? " from " : "", kind ? kind : "");
        if (left_out)
            fprintf(stderr, ", %llu could not be kept", (unsigned long long)left_out);
        fputs(err ? ", then it failed\n" : "\n", stderr);
        if (err || left_out)
            status = CLI_COULD_NOT;
    }
    free(found);
    return status;
}
