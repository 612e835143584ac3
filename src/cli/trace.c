/* pugmark trace ID|FILE: a waterfall in the terminal.
 *
 * A trace of a server comes whole, with what its spans carry, when it is small. Of a large one, or when somebody asks
 * for a part (--depth, --max-rows), the lines come in windows (docs/api.md), without attributes. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/span_io.h"
#include "cli/term.h"
#include "cli/waterfall.h"

#include "wire/otlp.h"
#include "wire/otlp_json.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { ROWS_ON_TERMINAL = 500, WHOLE_SPANS_MAX = 5000, WINDOW_LINES = 1000 };
#define ROWS_MAX 10000000
#define FILE_BYTES_MAX ((size_t)1 << 30)

struct options {
    const char *what, *server;
    uint64_t depth, rows; /* UINT64_MAX, 0: not given */
    bool json, all, attributes, ledger;
};

static const char help[] =
    "usage: pugmark trace ID|FILE [--attributes] [--all] [--depth N] [--max-rows N]\n"
    "                     [--ledger] [--json] [--server URL]\n"
    "\n"
    "Shows one trace as a waterfall: of a server, or those in any file that `pugmark import`\n"
    "reads.\n"
    "\n"
    "  --attributes  attributes and events of every span; else of errors only\n"
    "  --all         every span, also of a trace with more than 500\n"
    "  --depth N     spans below N levels are folded into the ones above; not of a file\n"
    "  --max-rows N  as many lines; default 500 on a terminal, else all\n"
    "  --ledger      what became of its spans: stored, cut, refused and why\n"
    "  --json        the server's answer as it is; not of a file\n"
    "  --server URL  default " CLIENT_SERVER_DEFAULT "\n"
    "\n"
    "`pugmark query` finds ids.\n";

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    int status;
    *o = (struct options){.server = CLIENT_SERVER_DEFAULT, .depth = UINT64_MAX};
    const struct args_option options[] = {
        {.name = "json", .flag = &o->json},
        {.name = "all", .flag = &o->all},
        {.name = "ledger", .flag = &o->ledger},
        {.name = "attributes", .flag = &o->attributes},
        {.name = "depth", .count = &o->depth, .min = 1, .max = UINT32_MAX},
        {.name = "max-rows", .count = &o->rows, .min = 1, .max = ROWS_MAX},
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
    if (o->ledger && (o->all || o->attributes || o->depth != UINT64_MAX || o->rows))
        return args_wrong("trace",
                          "--ledger draws no waterfall: only --json and --server go with it");
    return -1;
}

/* ---- a file ---- */

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

struct file_spans {
    struct arena *arena;
    struct buf spans;
};

/* A batch lives as long as its part of the file: what is kept of it is encoded and decoded once more. */
static int spans_keep(void *arg, const struct span_batch *batch)
{
    struct file_spans *f = arg;
    struct buf body = BUF_INIT;
    struct span_batch own = {0};
    otlp_encode(batch, &body);
    struct str copy = buf_ok(&body) ? arena_str(f->arena, buf_as_str(&body)) : STR_NONE;
    buf_done(&body);
    int err = copy.ptr ? otlp_decode(copy, f->arena, &own, NULL) : ERR_NOMEM;
    if (!err && own.n)
        buf_put(&f->spans, own.spans, own.n * sizeof *own.spans);
    return err ? err : buf_ok(&f->spans) ? 0 : ERR_NOMEM;
}

static int show_file(const struct options *o, const struct waterfall_options *options,
                     struct arena *arena, struct buf *out)
{
    struct file_spans f = {.arena = arena, .spans = {.bytes_max = FILE_BYTES_MAX}};
    int err = span_io_read("trace", o->what, spans_keep, &f, NULL);
    struct span_batch batch = {.spans = (struct span *)(void *)f.spans.ptr,
                               .n = f.spans.len / sizeof(struct span)};
    if (err == ERR_NOMEM)
        fprintf(stderr, "pugmark trace: %s does not fit into memory\n", o->what);
    else if (!err && !batch.n)
        fprintf(stderr, "pugmark trace: there are no spans in %s\n", o->what);
    else if (!err && (err = put_all(&batch, options, arena, out)))
        fprintf(stderr, "pugmark trace: %s\n", err_text(err));
    buf_done(&f.spans);
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

/* ---- a part of a large trace ---- */

struct part {
    struct arena *arena;
    struct waterfall_whole whole;
    uint64_t as_of;
    struct resource *services; /* by number */
    size_t n_services;
    struct trace_id id;
    struct span_batch batch;
    size_t capacity;
};

/* A member that is a number, or a string of one. */
static uint64_t number_of(struct json_reader *r)
{
    uint64_t n = 0;
    json_next(r);
    (void)!json_to_u64(r, &n);
    return n;
}

static bool services_read(struct json_reader *r, struct part *p)
{
    if (json_next(r) != JSON_ARRAY)
        return false;
    size_t capacity = 0;
    while (json_next(r) == JSON_OBJECT) {
        if (p->n_services == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            struct resource *more = arena_array(p->arena, capacity, sizeof *more);
            if (!more)
                return false;
            if (p->n_services)
                memcpy(more, p->services, p->n_services * sizeof *more);
            p->services = more;
        }
        struct resource *service = &p->services[p->n_services++];
        *service = (struct resource){0};
        while (json_next(r) == JSON_KEY) {
            bool is_name = str_eq(r->text, STR("name"));
            json_next(r);
            if (is_name)
                service->service_name = arena_str(p->arena, r->text);
        }
    }
    return r->type == JSON_ARRAY_END;
}

static bool outline_read(struct str body, struct part *p)
{
    struct json_reader r;
    json_reader_init(&r, body, p->arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return false;
    while (json_next(&r) == JSON_KEY) {
        const struct {
            const char *key;
            uint64_t *number;
        } fields[] = {
            {"asOf", &p->as_of},
            {"startUnixNano", &p->whole.start_ns},
            {"durationNano", &p->whole.end_ns},
            {"spanCount", &p->whole.spans},
            {"errorCount", &p->whole.errors},
            {"orphanCount", &p->whole.orphans},
            {"lines", &p->whole.lines},
        };
        size_t i = 0, n = sizeof fields / sizeof *fields;
        while (i < n && !str_eq(r.text, str_from(fields[i].key)))
            i++;
        if (i < n)
            *fields[i].number = number_of(&r);
        else if (!str_eq(r.text, STR("services")))
            json_skip(&r);
        else if (!services_read(&r, p))
            return false;
    }
    p->whole.end_ns += p->whole.start_ns; /* it was the duration */
    p->whole.services = p->n_services;
    return r.type == JSON_OBJECT_END && p->as_of;
}

/* One line as a span that has what a line shows. */
static bool line_read(struct json_reader *r, struct part *p)
{
    static const struct scope no_scope;
    static const struct resource no_service;
    uint64_t service = UINT64_MAX, start = 0, duration = 0, below = 0;
    bool folded = false;
    struct str name = STR_NONE;
    struct span s = {.trace_id = p->id, .scope = &no_scope, .resource = &no_service};
    while (json_next(r) == JSON_KEY) {
        struct str key = r->text;
        if (str_eq(key, STR("service")))
            service = number_of(r);
        else if (str_eq(key, STR("startOffsetNano")))
            start = number_of(r);
        else if (str_eq(key, STR("durationNano")))
            duration = number_of(r);
        else if (str_eq(key, STR("below")))
            below = number_of(r);
        else if (json_next(r) == JSON_STRING) {
            if (str_eq(key, STR("name")))
                name = arena_str(p->arena, r->text);
            else if (str_eq(key, STR("spanId")))
                (void)!span_id_parse(r->text, &s.span_id);
            else if (str_eq(key, STR("parentSpanId")))
                (void)!span_id_parse(r->text, &s.parent_id);
        } else if (r->type == JSON_TRUE) {
            folded |= str_eq(key, STR("folded"));
            if (str_eq(key, STR("error")))
                s.status_code = STATUS_ERROR;
            if (str_eq(key, STR("orphan")))
                memset(s.parent_id.bytes, 0xff, SPAN_ID_SIZE); /* some span that is not there */
        }
    }
    if (r->type != JSON_OBJECT_END)
        return false;
    if (service < p->n_services)
        s.resource = &p->services[service];
    s.name = name;
    if (folded) {
        char *text = arena_printf(p->arena, "%.*s (+%llu)", STR_ARG(name),
                                  (unsigned long long)below);
        s.name = text ? str_from(text) : name;
    }
    s.start_ns = p->whole.start_ns + start;
    s.end_ns = s.start_ns + duration;
    if (p->batch.n == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : WINDOW_LINES;
        struct span *more = realloc(p->batch.spans, p->capacity * sizeof *more);
        if (!more)
            return false;
        p->batch.spans = more;
    }
    p->batch.spans[p->batch.n++] = s;
    return true;
}

static bool window_read(struct str body, struct part *p)
{
    struct json_reader r;
    struct arena scratch = ARENA_INIT; /* of names with escapes */
    json_reader_init(&r, body, &scratch, NULL);
    bool good = json_next(&r) == JSON_OBJECT;
    while (good && json_next(&r) == JSON_KEY) {
        if (str_eq(r.text, STR("lines"))) {
            p->whole.lines = number_of(&r);
        } else if (!str_eq(r.text, STR("rows"))) {
            json_skip(&r);
        } else {
            good = json_next(&r) == JSON_ARRAY;
            while (good && json_next(&r) == JSON_OBJECT)
                good = line_read(&r, p);
            good = good && r.type == JSON_ARRAY_END;
        }
    }
    good = good && r.type == JSON_OBJECT_END;
    arena_done(&scratch);
    return good;
}

/* The answer at `path`, or the exit status when there is none: then the user has been told. */
static int ask(const struct options *o, const char *path, const char *hex, struct buf *ret)
{
    long answer;
    if (client_get("trace", o->server, path, &answer, ret))
        return CLI_COULD_NOT;
    if (answer == 200)
        return CLI_DONE;
    if (answer == 404 && str_starts(buf_as_str(ret), STR("{\"error\"")))
        fprintf(stderr, "pugmark trace: %s has no trace %s\n", o->server, hex);
    else
        client_say_error("trace", answer, buf_as_str(ret), NULL);
    buf_done(ret);
    return CLI_COULD_NOT;
}

static int show_part(const struct options *o, const struct waterfall_options *options,
                     struct part *p, const char *hex, struct buf *out)
{
    uint64_t rows = o->rows ? o->rows : options->rows_max ? options->rows_max : ROWS_MAX;
    int status = CLI_DONE;
    bool good = true;
    while (status == CLI_DONE && good && p->batch.n < rows) {
        char path[256];
        uint64_t left = rows - p->batch.n, first = p->batch.n;
        int n = snprintf(path, sizeof path,
                         "/api/pugmark/traces/%s/window?asOf=%llu&first=%llu&lines=%llu", hex,
                         (unsigned long long)p->as_of, (unsigned long long)first,
                         (unsigned long long)(left < WINDOW_LINES ? left : WINDOW_LINES));
        if (o->depth != UINT64_MAX)
            snprintf(path + n, sizeof path - (size_t)n, "&fold=%llu",
                     (unsigned long long)(o->depth - 1));
        struct buf body = BUF_INIT;
        status = ask(o, path, hex, &body);
        if (status != CLI_DONE)
            break;
        good = window_read(buf_as_str(&body), p);
        buf_done(&body);
        if (p->batch.n == first || p->batch.n >= p->whole.lines)
            break;
    }
    struct waterfall_options with = *options;
    with.whole = &p->whole;
    with.rows_max = 0;
    if (status == CLI_DONE && (!good || !p->batch.n)) {
        fprintf(stderr, "pugmark trace: %s is not a pugmark server: its answer is another\n",
                o->server);
        status = CLI_COULD_NOT;
    } else if (status == CLI_DONE) {
        int err = waterfall_put(&p->batch, &with, p->arena, out);
        if (err)
            fprintf(stderr, "pugmark trace: %s\n", err_text(err));
        status = err ? CLI_COULD_NOT : CLI_DONE;
    }
    free(p->batch.spans);
    return status;
}

static int show_trace(const struct options *o, const struct waterfall_options *options,
                      struct arena *arena, struct buf *out)
{
    struct part part = {.arena = arena};
    if (!trace_id_parse(str_from(o->what), &part.id)) {
        fprintf(stderr,
                "pugmark trace: \"%s\" is neither a trace id (1 to 32 hexadecimal digits) nor a "
                "file\n",
                o->what);
        return CLI_USAGE;
    }
    char hex[2 * TRACE_ID_SIZE + 1] = "", path[96];
    hex_put(hex, part.id.bytes, TRACE_ID_SIZE);
    struct buf body = BUF_INIT;
    int status;
    if (!o->json) {
        snprintf(path, sizeof path, "/api/pugmark/traces/%s/outline", hex);
        status = ask(o, path, hex, &body);
        if (status != CLI_DONE)
            return status;
        bool ours = outline_read(buf_as_str(&body), &part);
        buf_done(&body);
        if (ours && (o->depth != UINT64_MAX || o->rows || part.whole.spans > WHOLE_SPANS_MAX))
            return show_part(o, options, &part, hex, out);
    }
    snprintf(path, sizeof path, "%s%s", o->json ? "/api/pugmark/traces/" : "/api/v3/traces/", hex);
    status = ask(o, path, hex, &body);
    if (status != CLI_DONE)
        return status;
    if (o->json) {
        buf_str(out, buf_as_str(&body));
        buf_byte(out, '\n');
    } else {
        status = show_answer(o, options, buf_as_str(&body), arena, out);
    }
    buf_done(&body);
    return status;
}

/* ---- what became of its spans ---- */

static struct str text_of(struct json_reader *r)
{
    return json_next(r) == JSON_STRING ? r->text : STR_NONE;
}

/* [{"fate":..,"reason":..,"spans":..}]; with `verb`, [{"reason":..,"count":..}] that are not 0. */
static void fates_put(struct json_reader *r, const char *verb, struct buf *out)
{
    if (json_next(r) != JSON_ARRAY)
        return;
    while (json_next(r) == JSON_OBJECT) {
        struct str fate = str_from(verb ? verb : ""), reason = STR_NONE;
        uint64_t spans = 0;
        while (json_next(r) == JSON_KEY) {
            if (str_eq(r->text, STR("fate")))
                fate = text_of(r);
            else if (str_eq(r->text, STR("reason")))
                reason = text_of(r);
            else if (str_eq(r->text, STR("spans")) || str_eq(r->text, STR("count")))
                spans = number_of(r);
            else
                json_skip(r);
        }
        if (!spans)
            continue;
        buf_printf(out, "  %10llu  ", (unsigned long long)spans);
        term_text(out, fate, SIZE_MAX);
        buf_cstr(out, ": ");
        term_text(out, reason, SIZE_MAX);
        buf_byte(out, '\n');
    }
}

/* The number of a member of the object that comes; 0 when it is null, or has none of that name. */
static uint64_t member_of(struct json_reader *r, struct str name)
{
    uint64_t number = 0;
    if (json_next(r) != JSON_OBJECT)
        return 0;
    while (json_next(r) == JSON_KEY) {
        if (str_eq(r->text, name))
            number = number_of(r);
        else
            json_skip(r);
    }
    return number;
}

static void totals_put(struct json_reader *r, struct buf *out)
{
    if (json_next(r) != JSON_OBJECT)
        return;
    buf_cstr(out, "all spans since the server started\n");
    while (json_next(r) == JSON_KEY) {
        struct str key = r->text;
        static const struct {
            const char *key, *text;
            bool only_if_any; /* of what nobody counted the spans */
        } rows[] = {{"received", "received", false},
                    {"stored", "stored", false},
                    {"onTheirWay", "on their way", false},
                    {"requestsRefused", "requests refused as a whole", true},
                    {"datagramsDropped", "datagrams dropped by the kernel", true}};
        size_t i = 0, n = sizeof rows / sizeof *rows;
        while (i < n && !str_eq(key, str_from(rows[i].key)))
            i++;
        if (i < n) {
            uint64_t number = number_of(r);
            if (number || !rows[i].only_if_any)
                buf_printf(out, "  %10llu  %s\n", (unsigned long long)number, rows[i].text);
        } else if (str_eq(key, STR("refused"))) {
            fates_put(r, "refused", out);
        } else {
            json_skip(r);
        }
    }
}

static bool ledger_put(struct str body, struct arena *arena, struct buf *out)
{
    struct json_reader r;
    bool ours = false;
    json_reader_init(&r, body, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return false;
    while (json_next(&r) == JSON_KEY) {
        struct str key = r.text;
        if (str_eq(key, STR("traceId"))) {
            buf_cstr(out, "trace ");
            term_text(out, text_of(&r), SIZE_MAX);
            buf_byte(out, '\n');
        } else if (str_eq(key, STR("stored"))) {
            uint64_t n = member_of(&r, STR("spanCount"));
            buf_printf(out, "  %10llu  stored now\n", (unsigned long long)n);
        } else if (str_eq(key, STR("fates"))) {
            fates_put(&r, NULL, out);
        } else if (str_eq(key, STR("horizon"))) {
            uint64_t n = member_of(&r, STR("entriesMax"));
            buf_printf(
                out,
                "  (the last %llu fates of all traces are remembered; of spans that cannot be "
                "read\n   or kept, and of those retention or a deletion took, there are "
                "only counts)\n",
                (unsigned long long)n);
        } else if (str_eq(key, STR("totals"))) {
            totals_put(&r, out);
            ours = true;
        } else {
            json_skip(&r);
        }
    }
    return ours && r.type == JSON_OBJECT_END;
}

static int show_ledger(const struct options *o, struct arena *arena, struct buf *out)
{
    struct trace_id id;
    if (!trace_id_parse(str_from(o->what), &id))
        return args_wrong("trace", "--ledger needs a trace id (1 to 32 hexadecimal digits)");
    char hex[2 * TRACE_ID_SIZE + 1] = "", path[96];
    hex_put(hex, id.bytes, TRACE_ID_SIZE);
    struct buf body = BUF_INIT;
    snprintf(path, sizeof path, "/api/pugmark/ledger?trace=%s", hex);
    int status = ask(o, path, hex, &body);
    if (status != CLI_DONE)
        return status;
    if (o->json) {
        buf_str(out, buf_as_str(&body));
        buf_byte(out, '\n');
    } else if (!ledger_put(buf_as_str(&body), arena, out)) {
        fprintf(stderr, "pugmark trace: %s is not a pugmark server: its answer is another\n",
                o->server);
        status = CLI_COULD_NOT;
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
    if (o.rows)
        options.rows_max = o.rows;
    if (o.ledger)
        status = show_ledger(&o, &arena, &out);
    else if (stat(o.what, &st) == 0 && S_ISREG(st.st_mode))
        status = o.json || o.depth != UINT64_MAX
                     ? args_wrong("trace", "--json and --depth need a server; this is a file")
                     : show_file(&o, &options, &arena, &out);
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
