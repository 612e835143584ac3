/* pugmark query 'TRACEQL': the newest traces that match, one a line; of a metrics query its series. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/query_series.h"
#include "cli/query_spans.h"
#include "cli/term.h"
#include "query/traceql.h"

#include "base/clock.h"
#include "base/json.h"

#include <stdlib.h>

enum { LIMIT_DEFAULT = 20, LIMIT_MAX = 1000 };

struct row {
    struct str trace_id, service, name;
    uint64_t start_ns, duration_ns, spans, errors, orphans, matched;
    struct str sets; /* the JSON of spanSets; none: the query is about traces */
};

struct rows {
    struct row items[LIMIT_MAX];
    size_t n;
    bool more;
    struct str scanned, plan; /* the JSON */
    struct str cursor;
};

enum format { FORMAT_TABLE, FORMAT_JSON, FORMAT_CSV };

struct options {
    const char *query, *server, *since, *cursor;
    uint64_t limit, since_ns, step_ns, spans;
    enum format format;
    bool explain;
};

static const char help[] =
    "usage: pugmark query 'TRACEQL' [--since 1h] [--limit N] [--cursor TEXT] [--json|--csv]\n"
    "                     [--spans N] [--explain] [--step 1m] [--server URL]\n"
    "\n"
    "Lists the newest traces in which spans match; of a query with select() the spans,\n"
    "with by() the groups; of one that ends in a metric, such as | rate(), its series.\n"
    "\n"
    "  --since DURATION  how far to look back, by the start of the span: 15m, 1h, 7d;\n"
    "                    default 1h\n"
    "  --limit N         traces, 1 to 1000; default 20\n"
    "  --cursor TEXT     go on behind an answer that said there are more; it gives the text,\n"
    "                    and the time that is looked through is the one of that answer\n"
    "  --step DURATION   of series: the time of one sample; default about 1/60 of all\n"
    "  --json            the server's answer as it is\n"
    "  --csv             a header line and one line a trace; durations in nanoseconds.\n"
    "                    Of series one line a sample\n"
    "  --spans N         of a query with select() or by(): so many spans of each group,\n"
    "                    1 to 1000; default 20\n"
    "  --explain         also how they were found, and what was read for it, on stderr\n"
    "  --server URL      default " CLIENT_SERVER_DEFAULT "\n"
    "\n"
    "Examples:\n"
    "  pugmark query '{ status = error }'\n"
    "  pugmark query '{ resource.service.name = \"api\" && duration > 100ms }'\n"
    "  pugmark query '{ .http.route =~ \"/cart/.*\" } && { name = \"db.query\" }' --since 7d\n"
    "  pugmark query '{ status = error } | select(.http.route, statusMessage)'\n"
    "  pugmark query '{ } | by(resource.service.name) | count() > 100'\n"
    "  pugmark query '{ kind = server } | rate() by (resource.service.name)' --step 1m\n"
    "  pugmark query '{ } | quantile_over_time(duration, .5, .99) by (name)' --csv\n";

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    bool json = false, csv = false;
    int status;
    *o = (struct options){.server = CLIENT_SERVER_DEFAULT,
                          .limit = LIMIT_DEFAULT,
                          .since = "1h",
                          .since_ns = 3600 * NS_PER_S};
    const struct args_option options[] = {
        {.name = "since", .duration_ns = &o->since_ns, .text = &o->since},
        {.name = "limit", .count = &o->limit, .min = 1, .max = LIMIT_MAX},
        {.name = "cursor", .text = &o->cursor},
        {.name = "spans", .count = &o->spans, .min = 1, .max = 1000},
        {.name = "step", .duration_ns = &o->step_ns},
        {.name = "json", .flag = &json},
        {.name = "csv", .flag = &csv},
        {.name = "explain", .flag = &o->explain},
        {.name = "server", .text = &o->server},
    };
    int n = args_parse("query", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n == 0)
        return args_wrong("query", "which traces? An example: pugmark query '{ status = error }'");
    if (n > 1)
        return args_wrong("query", "one query at a time, in quotes");
    if (json && csv)
        return args_wrong("query", "--json or --csv");
    o->format = json ? FORMAT_JSON : csv ? FORMAT_CSV : FORMAT_TABLE;
    o->query = argv[1];
    return -1;
}

/* ---- the answer ---- */

static void row_read(struct json_reader *r, struct row *row)
{
    while (json_next(r) == JSON_KEY) {
        struct str key = r->text;
        struct {
            const char *key;
            struct str *text;
            uint64_t *number;
        } fields[] = {
            {"traceId", &row->trace_id, NULL},
            {"rootService", &row->service, NULL},
            {"rootName", &row->name, NULL},
            {"startUnixNano", NULL, &row->start_ns},
            {"durationNano", NULL, &row->duration_ns},
            {"spanCount", NULL, &row->spans},
            {"errorCount", NULL, &row->errors},
            {"orphanCount", NULL, &row->orphans},
            {"matched", NULL, &row->matched},
        };
        size_t i = 0, n = sizeof fields / sizeof *fields;
        while (i < n && !str_eq(key, str_from(fields[i].key)))
            i++;
        if (i == n) {
            bool sets = str_eq(key, STR("spanSets"));
            struct str value = json_skip_text(r);
            if (sets)
                row->sets = value;
            continue;
        }
        json_next(r);
        if (fields[i].number) {
            if (!json_to_u64(r, fields[i].number))
                json_fail(r, "a number");
        } else if (r->type == JSON_STRING) {
            *fields[i].text = r->text;
        } else {
            json_fail(r, "a string");
        }
    }
}

static bool rows_read(struct str body, struct arena *arena, struct rows *rows)
{
    struct json_reader r;
    json_reader_init(&r, body, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return false;
    while (json_next(&r) == JSON_KEY) {
        if (str_eq(r.text, STR("traces"))) {
            if (json_next(&r) != JSON_ARRAY)
                return false;
            while (json_next(&r) == JSON_OBJECT && rows->n < LIMIT_MAX) {
                rows->items[rows->n] = (struct row){0};
                row_read(&r, &rows->items[rows->n++]);
            }
            if (r.type != JSON_ARRAY_END)
                return false;
        } else if (str_eq(r.text, STR("more"))) {
            rows->more = json_next(&r) == JSON_TRUE;
        } else if (str_eq(r.text, STR("cursor"))) {
            if (json_next(&r) != JSON_STRING)
                return false;
            rows->cursor = r.text;
        } else if (str_eq(r.text, STR("scanned"))) {
            rows->scanned = json_skip_text(&r);
        } else if (str_eq(r.text, STR("plan"))) {
            rows->plan = json_skip_text(&r);
        } else {
            json_skip(&r);
        }
    }
    return r.type == JSON_OBJECT_END;
}

/* ---- showing ---- */

static void put_csv(const struct rows *rows, struct buf *out)
{
    buf_cstr(out, "start,duration_ns,service,name,spans,errors,orphans,matched,trace_id\n");
    for (size_t i = 0; i < rows->n; i++) {
        const struct row *r = &rows->items[i];
        char start[CLOCK_RFC3339_SIZE];
        clock_rfc3339(start, r->start_ns);
        buf_printf(out, "%s,%llu,", start, (unsigned long long)r->duration_ns);
        csv_field(out, r->service);
        buf_byte(out, ',');
        csv_field(out, r->name);
        buf_printf(out, ",%llu,%llu,%llu,%llu,", (unsigned long long)r->spans,
                   (unsigned long long)r->errors, (unsigned long long)r->orphans,
                   (unsigned long long)r->matched);
        csv_field(out, r->trace_id);
        buf_cstr(out, "\n");
    }
}

static size_t at_most(size_t n, size_t most)
{
    return n > most ? most : n;
}

struct widths {
    size_t start, duration, service, name, spans, errors;
    bool counts; /* SPANS and ERRORS have a place; else errors are a mark */
};

static void widen(size_t *width, size_t n)
{
    *width = n > *width ? n : *width;
}

static size_t digits(uint64_t n)
{
    size_t count = 1;
    while (n /= 10)
        count++;
    return count;
}

/* Names share what the rest leaves; a pipe gets them whole. */
static struct widths measure(const struct rows *rows, const struct term *t)
{
    enum { ID = 2 * 16, GAP = 2, NAMES_MIN = 24 };
    struct widths w = {.start = 5, .duration = 8, .service = 7, .name = 4, .spans = 5, .errors = 6};
    for (size_t i = 0; i < rows->n; i++) {
        const struct row *r = &rows->items[i];
        char time[TERM_TIME_SIZE], duration[TERM_DURATION_SIZE];
        widen(&w.start, strlen(term_time(time, r->start_ns, false)));
        widen(&w.duration, term_width(str_from(term_duration(duration, r->duration_ns))));
        widen(&w.service, term_width(r->service));
        widen(&w.name, term_width(r->name));
        widen(&w.spans, digits(r->spans));
        widen(&w.errors, digits(r->errors));
    }
    size_t fixed = w.start + w.duration + ID + 4 * GAP;
    size_t counts = w.spans + w.errors + 2 * GAP;
    size_t names = w.service + w.name < NAMES_MIN ? w.service + w.name : NAMES_MIN;
    w.counts = !t->tty || fixed + counts + names <= t->width;
    if (!t->tty)
        return w;
    fixed += w.counts ? counts : 1 + GAP;
    size_t left = t->width > fixed + 8 ? t->width - fixed : 8;
    if (w.service + w.name > left) {
        w.service = at_most(w.service, left / 3);
        w.name = at_most(w.name, left - w.service);
    }
    return w;
}

static void put_count(struct buf *out, uint64_t n, size_t width)
{
    buf_printf(out, "%*llu", (int)width, (unsigned long long)n);
}

static void put_right(struct buf *out, const char *text, size_t width)
{
    size_t n = term_width(str_from(text));
    term_blanks(out, n < width ? width - n : 0);
    buf_cstr(out, text);
}

static void put_table(const struct rows *rows, const struct term *t, struct buf *out)
{
    struct widths w = measure(rows, t);
    const char *dim = term_style(t, TERM_DIM), *plain = term_style(t, TERM_PLAIN);
    const char *red = term_style(t, TERM_RED);
    buf_cstr(out, dim);
    term_cell(out, STR("START"), w.start);
    buf_cstr(out, "  ");
    put_right(out, "DURATION", w.duration);
    buf_cstr(out, "  ");
    term_cell(out, STR("SERVICE"), w.service);
    buf_cstr(out, "  ");
    term_cell(out, STR("ROOT"), w.name);
    if (w.counts) {
        buf_cstr(out, "  ");
        put_right(out, "SPANS", w.spans);
        buf_cstr(out, "  ");
        put_right(out, "ERRORS", w.errors);
    } else {
        buf_cstr(out, "   ");
    }
    buf_printf(out, "  TRACE%s\n", plain);
    for (size_t i = 0; i < rows->n; i++) {
        const struct row *r = &rows->items[i];
        char time[TERM_TIME_SIZE], duration[TERM_DURATION_SIZE], colour[16];
        term_cell(out, str_from(term_time(time, r->start_ns, false)), w.start);
        buf_cstr(out, "  ");
        put_right(out, term_duration(duration, r->duration_ns), w.duration);
        buf_printf(out, "  %s", term_service_style(t, r->service, colour));
        term_cell(out, r->service, w.service);
        buf_printf(out, "%s  ", plain);
        term_cell(out, r->name, w.name);
        buf_cstr(out, "  ");
        if (w.counts) {
            put_count(out, r->spans, w.spans);
            buf_cstr(out, "  ");
            if (!r->errors)
                term_blanks(out, w.errors - 1);
        }
        if (r->errors && w.counts) {
            buf_cstr(out, red);
            put_count(out, r->errors, w.errors);
        } else if (r->errors) {
            buf_printf(out, "%s%s", red, t->utf8 ? "\xe2\x9c\x97" : "x"); /* ✗ */
        } else {
            buf_printf(out, "%s%s", dim, t->utf8 ? "\xc2\xb7" : "-");
        }
        buf_printf(out, "%s  %.*s\n", plain, STR_ARG(r->trace_id));
    }
}

static void say_rest(const struct rows *rows, const struct options *o)
{
    if (!rows->n)
        fprintf(stderr, "No trace matches in the last %s. A longer time: --since 7d\n", o->since);
    else if (rows->more)
        fprintf(stderr,
                "There are more; --limit N shows up to %d, and this goes on:\n--cursor %.*s\n",
                LIMIT_MAX, STR_ARG(rows->cursor));
}

/* The strings of an array that comes next, joined. */
static void join_strings(struct json_reader *r, const char *between, struct buf *out)
{
    if (json_next(r) != JSON_ARRAY) {
        json_fail(r, "an array");
        return;
    }
    while (json_next(r) == JSON_STRING)
        buf_printf(out, "%s%.*s", out->len ? between : "", STR_ARG(r->text));
}

static void explain_plan(struct str plan, struct arena *arena)
{
    struct json_reader r;
    struct str way = STR("");
    struct buf columns = BUF_INIT, whole = BUF_INIT;
    json_reader_init(&r, plan, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return;
    while (json_next(&r) == JSON_KEY) {
        if (str_eq(r.text, STR("columns")))
            join_strings(&r, " | ", &columns);
        else if (str_eq(r.text, STR("wholeTracesFor")))
            join_strings(&r, "; ", &whole);
        else if (!str_eq(r.text, STR("way")))
            json_skip(&r);
        else if (json_next(&r) == JSON_STRING)
            way = r.text;
    }
    struct str asked = columns.len ? buf_as_str(&columns) : STR("true");
    if (str_eq(way, STR("id")))
        fputs("Plan: the query names its trace, which is read whole.\n", stderr);
    else
        fprintf(stderr, "Plan: the columns are asked for %.*s; ", STR_ARG(asked));
    if (str_eq(way, STR("spans")))
        fputs("each span found is an answer.\n", stderr);
    else if (str_eq(way, STR("columns")))
        fputs("what is asked of traces is decided there.\n", stderr);
    else if (str_eq(way, STR("traces")))
        fprintf(stderr, "traces found are read whole, for %.*s.\n",
                STR_ARG(whole.len ? buf_as_str(&whole) : STR("other comparisons")));
    buf_done(&columns);
    buf_done(&whole);
}

static void explain(struct str scanned, struct arena *arena)
{
    struct json_reader r;
    json_reader_init(&r, scanned, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return;
    fputs("Read to find them:", stderr);
    const char *before = " ";
    while (json_next(&r) == JSON_KEY) {
        struct str key = r.text;
        uint64_t n;
        json_next(&r);
        if (str_eq(key, STR("start")) || str_eq(key, STR("end")) || !json_to_u64(&r, &n))
            continue;
        fprintf(stderr, "%s%.*s %llu", before, STR_ARG(key), (unsigned long long)n);
        before = ", ";
    }
    fputc('\n', stderr);
}

/* ---- series ---- */

static bool asks_for_series(const char *text)
{
    struct traceql *q = NULL;
    /* What is wrong with it the server says, with its place. */
    bool series = !traceql_parse(str_from(text), &q, NULL) && q->metric;
    traceql_free(q);
    return series;
}

/* The body as it is to be written; false: it is no answer of ours. */
static bool show_series(const struct options *o, const struct term *t, struct str body,
                        struct arena *arena, struct buf *out, struct str *ret_scanned)
{
    struct series_rows rows;
    if (!series_read(body, arena, &rows))
        return false;
    if (o->format == FORMAT_CSV)
        series_csv(&rows, out);
    else if (o->format == FORMAT_TABLE && rows.n)
        series_table(&rows, t, out);
    if (o->format == FORMAT_TABLE && !rows.n)
        fprintf(stderr, "No span matches in the last %s. A longer time: --since 7d\n", o->since);
    *ret_scanned = rows.scanned;
    return true;
}

/* Of a query with select() or by(): spans or groups. */
static bool show_spans(const struct options *o, const struct term *t, const struct rows *rows,
                       struct arena *arena, struct buf *out)
{
    struct grid grid = {.n_columns = 0};
    bool ours = true;
    for (size_t i = 0; i < rows->n && ours; i++)
        ours = query_spans_add(&grid, rows->items[i].trace_id, rows->items[i].sets,
                               o->format == FORMAT_CSV, arena);
    ours &= !grid.failed;
    if (ours && o->format == FORMAT_CSV)
        grid_csv(&grid, out);
    else if (ours && o->format == FORMAT_TABLE)
        grid_table(&grid, t, out);
    grid_done(&grid);
    return ours;
}

static bool show_traces(const struct options *o, const struct term *t, struct str body,
                        struct arena *arena, struct buf *out, struct str *ret_scanned)
{
    struct rows *rows = calloc(1, sizeof *rows);
    bool ours = rows && rows_read(body, arena, rows);
    if (ours) {
        if (rows->n && rows->items[0].sets.ptr)
            ours = show_spans(o, t, rows, arena, out);
        else if (o->format == FORMAT_CSV)
            put_csv(rows, out);
        else if (o->format == FORMAT_TABLE && rows->n)
            put_table(rows, t, out);
        if (o->format == FORMAT_TABLE)
            say_rest(rows, o);
        if (o->explain)
            explain_plan(rows->plan, arena);
        *ret_scanned = rows->scanned;
    }
    free(rows);
    return ours;
}

/* ---- the verb ---- */

static void put_path(const struct options *o, bool series, struct buf *path)
{
    uint64_t now_ns = clock_realtime_ns();
    uint64_t start_ns = now_ns > o->since_ns ? now_ns - o->since_ns : 0;
    buf_printf(path, "/api/pugmark/%s?start=%llu", series ? "metrics" : "search",
               (unsigned long long)start_ns);
    if (series && o->step_ns)
        buf_printf(path, "&step=%lluns", (unsigned long long)o->step_ns);
    if (!series)
        buf_printf(path, "&limit=%llu%s", (unsigned long long)o->limit,
                   o->explain ? "&explain=1" : "");
    if (!series && o->spans)
        buf_printf(path, "&spans=%llu", (unsigned long long)o->spans);
    if (!series && o->cursor) {
        buf_cstr(path, "&cursor=");
        client_escape(path, str_from(o->cursor));
    }
    buf_cstr(path, "&q=");
    client_escape(path, str_from(o->query));
    buf_byte(path, '\0');
}

static int show(const struct options *o, bool series, struct str body)
{
    struct term term = term_of(stdout);
    struct buf out = BUF_INIT;
    struct arena arena = ARENA_INIT;
    struct str scanned = STR_NONE;
    int status = CLI_COULD_NOT;
    bool ours = series ? show_series(o, &term, body, &arena, &out, &scanned)
                       : show_traces(o, &term, body, &arena, &out, &scanned);
    if (o->format == FORMAT_JSON) {
        buf_str(&out, body);
        buf_byte(&out, '\n');
    }
    if (!ours) {
        fprintf(stderr, "pugmark query: %s is not a pugmark server: its answer is another\n",
                o->server);
    } else {
        bool written = buf_ok(&out) &&
                       fwrite(out.ptr ? out.ptr : "", 1, out.len, stdout) == out.len &&
                       fflush(stdout) == 0;
        if (!written)
            perror("pugmark query: stdout");
        if (o->explain)
            explain(scanned, &arena);
        status = written ? CLI_DONE : CLI_COULD_NOT;
    }
    arena_done(&arena);
    buf_done(&out);
    return status;
}

int cli_query(int argc, char **argv)
{
    struct options o;
    int status = parse(argc, argv, &o);
    if (status >= 0)
        return status;
    bool series = asks_for_series(o.query);
    struct buf path = BUF_INIT, body = BUF_INIT;
    long answer;
    put_path(&o, series, &path);
    status = CLI_COULD_NOT;
    if (!buf_ok(&path))
        fputs("pugmark query: out of memory\n", stderr);
    else if (client_get("query", o.server, path.ptr, &answer, &body))
        status = CLI_COULD_NOT; /* has been said */
    else if (answer != 200)
        client_say_error("query", answer, buf_as_str(&body), o.query);
    else
        status = show(&o, series, buf_as_str(&body));
    buf_done(&path);
    buf_done(&body);
    return status;
}
