/* pugmark trace ID|FILE: a waterfall in the terminal. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/term.h"
#include "cli/waterfall.h"

#include "wire/otlp.h"
#include "wire/otlp_json.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { ROWS_ON_TERMINAL = 500 };
#define FILE_BYTES_MAX ((size_t)1 << 30)

struct options {
    const char *what, *server;
    bool json, all, attributes;
};

static const char help[] =
    "usage: pugmark trace ID|FILE [--attributes] [--all] [--json] [--server URL]\n"
    "\n"
    "Shows one trace as a waterfall: of a server, or those in a file of OTLP (JSON or\n"
    "protobuf).\n"
    "\n"
    "  --attributes  attributes and events of every span; else of errors only\n"
    "  --all         every span, also of a trace with more than 500\n"
    "  --json        the server's answer as it is\n"
    "  --server URL  default " CLIENT_SERVER_DEFAULT "\n"
    "\n"
    "`pugmark query` finds ids.\n";

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    int status;
    *o = (struct options){.server = CLIENT_SERVER_DEFAULT};
    const struct args_option options[] = {
        {.name = "json", .flag = &o->json},
        {.name = "all", .flag = &o->all},
        {.name = "attributes", .flag = &o->attributes},
        {.name = "server", .text = &o->server},
    };
    int n = args_parse("trace", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n == 0)
        return args_wrong("trace", "which one? `pugmark query '{}'` lists ids");
    if (n > 1)
        return args_wrong("trace", "one trace at a time");
    o->what = argv[1];
    return -1;
}

/* ---- a file ---- */

static int file_read(const char *path, struct buf *ret)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "pugmark trace: %s: %s\n", path, strerror(errno));
        return err_from_errno(errno);
    }
    struct buf bytes = {.bytes_max = FILE_BYTES_MAX};
    char block[1 << 14];
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        buf_put(&bytes, block, n);
    bool failed = ferror(file) || !buf_ok(&bytes);
    fclose(file);
    if (failed) {
        fprintf(stderr, "pugmark trace: %s cannot be read\n", path);
        buf_done(&bytes);
        return ERR_IO;
    }
    *ret = bytes;
    return 0;
}

static int by_trace(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    int order = trace_id_cmp(&x->trace_id, &y->trace_id);
    if (order)
        return order;
    return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

/* Waterfalls of all the traces in `batch`, which is sorted. */
static int put_all(struct span_batch *batch, const struct waterfall_options *options,
                   struct arena *arena, struct buf *out)
{
    qsort(batch->spans, batch->n, sizeof *batch->spans, by_trace);
    for (size_t i = 0, n; i < batch->n; i += n) {
        n = 1;
        while (i + n < batch->n &&
               !trace_id_cmp(&batch->spans[i].trace_id, &batch->spans[i + n].trace_id))
            n++;
        if (i)
            buf_byte(out, '\n');
        struct span_batch one = {.spans = batch->spans + i, .n = n};
        int err = waterfall_put(&one, options, arena, out);
        if (err)
            return err;
    }
    return 0;
}

static int show_file(const struct options *o, const struct waterfall_options *options,
                     struct arena *arena, struct buf *out)
{
    struct buf bytes = BUF_INIT;
    if (file_read(o->what, &bytes))
        return CLI_COULD_NOT;
    struct span_batch batch = {0};
    struct error_detail detail = {0};
    struct str text = str_trim(buf_as_str(&bytes));
    int err = str_starts(text, STR("{")) ? otlp_json_decode(text, arena, &batch, &detail)
                                         : otlp_decode(buf_as_str(&bytes), arena, &batch, &detail);
    if (err)
        fprintf(stderr, "pugmark trace: %s is no OTLP: at byte %zu: %s\n", o->what, detail.position,
                detail.message[0] ? detail.message : err_text(err));
    else if (!batch.n)
        fprintf(stderr, "pugmark trace: there are no spans in %s\n", o->what);
    else if ((err = put_all(&batch, options, arena, out)))
        fprintf(stderr, "pugmark trace: %s\n", err_text(err));
    buf_done(&bytes);
    return !err && batch.n ? CLI_DONE : CLI_COULD_NOT;
}

/* ---- a server ---- */

/* {"result":{"resourceSpans":[..]}}: the inner document. */
static struct str result_of(struct str body, struct arena *arena)
{
    struct json_reader r;
    json_reader_init(&r, body, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return STR_NONE;
    while (json_next(&r) == JSON_KEY) {
        bool wanted = str_eq(r.text, STR("result"));
        struct str from = {r.at, (size_t)(r.end - r.at)};
        if (json_skip(&r) == JSON_ERROR)
            break;
        if (!wanted)
            continue;
        from.len = (size_t)(r.at - from.ptr);
        while (from.len && from.ptr[0] != '{')
            from = str_skip(from, 1);
        return from;
    }
    return STR_NONE;
}

static int show_answer(const struct options *o, const struct waterfall_options *options,
                       struct str body, struct arena *arena, struct buf *out)
{
    struct span_batch batch = {0};
    struct error_detail detail = {0};
    struct str document = result_of(body, arena);
    int err = document.ptr ? otlp_json_decode(document, arena, &batch, &detail) : ERR_INVALID;
    if (err || !batch.n) {
        fprintf(stderr, "pugmark trace: %s is not a pugmark server: its answer is another\n",
                o->server);
        return CLI_COULD_NOT;
    }
    err = waterfall_put(&batch, options, arena, out);
    if (err)
        fprintf(stderr, "pugmark trace: %s\n", err_text(err));
    return err ? CLI_COULD_NOT : CLI_DONE;
}

static int show_trace(const struct options *o, const struct waterfall_options *options,
                      struct arena *arena, struct buf *out)
{
    struct trace_id id;
    if (!trace_id_parse(str_from(o->what), &id)) {
        fprintf(stderr,
                "pugmark trace: \"%s\" is neither a trace id (1 to 32 hexadecimal digits) nor a "
                "file\n",
                o->what);
        return CLI_USAGE;
    }
    char hex[2 * TRACE_ID_SIZE], path[96];
    hex_put(hex, id.bytes, TRACE_ID_SIZE);
    snprintf(path, sizeof path, "%s%.*s", o->json ? "/api/pugmark/traces/" : "/api/v3/traces/",
             (int)sizeof hex, hex);
    struct buf body = BUF_INIT;
    long answer;
    if (client_get("trace", o->server, path, &answer, &body))
        return CLI_COULD_NOT;
    int status = CLI_COULD_NOT;
    if (answer == 404 && str_starts(buf_as_str(&body), STR("{\"error\"")))
        fprintf(stderr, "pugmark trace: %s has no trace %.*s\n", o->server, (int)sizeof hex, hex);
    else if (answer != 200)
        client_say_error("trace", answer, buf_as_str(&body), NULL);
    else if (o->json) {
        buf_str(out, buf_as_str(&body));
        buf_byte(out, '\n');
        status = CLI_DONE;
    } else {
        status = show_answer(o, options, buf_as_str(&body), arena, out);
    }
    buf_done(&body);
    return status;
}

int cli_trace(int argc, char **argv)
{
    struct options o;
    int status = parse(argc, argv, &o);
    if (status >= 0)
        return status;
    struct waterfall_options options = {.term = term_of(stdout), .attributes = o.attributes};
    options.rows_max = options.term.tty && !o.all ? ROWS_ON_TERMINAL : 0;
    struct arena arena = ARENA_INIT;
    struct buf out = BUF_INIT;
    struct stat st;
    if (stat(o.what, &st) == 0 && S_ISREG(st.st_mode))
        status = show_file(&o, &options, &arena, &out);
    else
        status = show_trace(&o, &options, &arena, &out);
    if (status == CLI_DONE && !buf_ok(&out)) {
        fputs("pugmark trace: out of memory\n", stderr);
        status = CLI_COULD_NOT;
    } else if (status == CLI_DONE &&
               (fwrite(out.ptr, 1, out.len, stdout) != out.len || fflush(stdout) != 0)) {
        perror("pugmark trace: stdout");
        status = CLI_COULD_NOT;
    }
    buf_done(&out);
    arena_done(&arena);
    return status;
}
