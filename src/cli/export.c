/* pugmark export FILE [QUERY]: spans of a server that runs, into a file.
 *
 * The server gives what fits in one answer; where it does not, the range of time is halved, so that neither side
 * holds more than that. A span belongs to the range it started in, so that none comes twice. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/span_io.h"

#include "base/clock.h"

#include <string.h>

static const char help[] =
    "usage: pugmark export FILE [QUERY] [--since AGE] [--until AGE] [--force] [--server URL]\n"
    "\n"
    "Writes the spans of a server, or those that a TraceQL query finds, as length-delimited OTLP\n"
    "protobuf: before each ExportTraceServiceRequest its length. `pugmark import` and\n"
    "`pugmark trace FILE` read it; - is standard output.\n"
    "\n"
    "  --since AGE   only spans that started since: 2h, 7d\n"
    "  --until AGE   only spans that started before that\n"
    "  --force       replace a file that is there\n"
    "  --server URL  default " CLIENT_SERVER_DEFAULT "\n";

struct export
{
    const char *server, *query;
    struct span_writer writer;
    bool is_partial;
    uint64_t spans;
};

static int count(void *arg, const struct span_batch *batch)
{
    *(uint64_t *)arg += batch->n;
    return 0;
}

static int range_take(struct export *e, uint64_t start_ns, uint64_t end_ns)
{
    struct buf path = BUF_INIT, body = BUF_INIT;
    long status;
    buf_printf(&path, "/api/pugmark/export?start=%llu&end=%llu", (unsigned long long)start_ns,
               (unsigned long long)end_ns);
    if (e->query) {
        buf_cstr(&path, "&q=");
        client_escape(&path, str_from(e->query));
    }
    buf_byte(&path, '\0');
    int err = buf_ok(&path) ? client_get("export", e->server, path.ptr, &status, &body) : ERR_NOMEM;
    buf_done(&path);
    if (err)
        return err;
    if (status == 413 && start_ns < end_ns) {
        uint64_t middle = start_ns + (end_ns - start_ns) / 2;
        buf_done(&body);
        err = range_take(e, middle + 1, end_ns);
        return err ? err : range_take(e, start_ns, middle);
    }
    if (status != 200 && status != 206) {
        client_say_error("export", status, buf_as_str(&body), e->query);
        err = ERR_IO;
    } else {
        const char *kind;
        e->is_partial |= status == 206;
        span_writer_put_bytes(&e->writer, buf_as_str(&body));
        if (body.len && span_file_read(buf_as_str(&body), count, &e->spans, &kind, NULL))
            err = ERR_IO;
    }
    buf_done(&body);
    return err;
}

int cli_export(int argc, char **argv)
{
    struct export e = {.server = CLIENT_SERVER_DEFAULT};
    const char *since = NULL, *until = NULL;
    uint64_t since_ns = 0, until_ns = 0, now = clock_realtime_ns();
    bool force = false;
    int status;
    const struct args_option options[] = {
        {.name = "server", .text = &e.server},
        {.name = "force", .flag = &force},
        {.name = "since", .text = &since, .duration_ns = &since_ns},
        {.name = "until", .text = &until, .duration_ns = &until_ns},
    };
    int n = args_parse("export", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n == 0)
        return args_wrong("export", "into which file");
    if (n > 2)
        return args_wrong("export", "one file and one query, not also \"%s\"", argv[3]);
    e.query = n > 1 ? argv[2] : NULL;
    if (span_writer_open(&e.writer, "export", argv[1], force))
        return CLI_COULD_NOT;
    uint64_t start_ns = since && since_ns < now ? now - since_ns : 0;
    int err = range_take(&e, start_ns, until && until_ns < now ? now - until_ns : INT64_MAX);
    int closed = span_writer_close(&e.writer, !err);
    if (err || closed)
        return CLI_COULD_NOT;
    fprintf(stderr, "%s: %llu spans, %llu bytes\n", argv[1], (unsigned long long)e.spans,
            (unsigned long long)e.writer.bytes);
    if (e.is_partial)
        fputs("pugmark export: a damaged segment could not be read: what is in it is missing\n",
              stderr);
    return e.is_partial ? CLI_COULD_NOT : CLI_DONE;
}
