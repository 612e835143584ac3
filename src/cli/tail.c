/* pugmark tail: spans as the server stores them, one a line.
 *
 * The server sends events (docs/api.md): a span, how many were left out because more came than it sends, and a comment
 * now and then. When that ends or nothing comes for a while, tail says so and connects again; what was stored meanwhile
 * is not shown, and it says that too. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/term.h"

#include "base/json.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    RETRY_MS_FIRST = 500,
    RETRY_MS_MAX = 5000,
    SERVICE_WIDTH_MAX = 18,
};
#define LIMIT_MAX 1000000000
#define LINE_BYTES_MAX ((size_t)1 << 20) /* of one event; names are shorter */

struct options {
    const char *query, *server;
    uint64_t limit;
    bool json, no_reconnect;
};

static const char help[] =
    "usage: pugmark tail ['TRACEQL'] [--limit N] [--json] [--no-reconnect] [--server URL]\n"
    "\n"
    "Shows spans as the server stores them, until it is interrupted: when a span began,\n"
    "how long it took, its service and name, and its trace.\n"
    "\n"
    "  --limit N       end after N spans\n"
    "  --json          one line of JSON a span\n"
    "  --no-reconnect  end when the connection does, with status 1\n"
    "  --server URL    default " CLIENT_SERVER_DEFAULT "\n"
    "\n"
    "The query can ask what one span knows of itself: no structure, no aggregates.\n"
    "\n"
    "Examples:\n"
    "  pugmark tail '{ status = error }'\n"
    "  pugmark tail '{ resource.service.name = \"api\" && duration > 100ms }'\n"
    "  pugmark tail --json | jq -r .traceId\n";

struct tail {
    struct options options;
    struct term term;
    struct buf line;  /* of the stream, not yet whole */
    struct buf event; /* name of the event that is being read */
    struct buf data;
    struct buf out;
    size_t service_width;
    uint64_t shown, missed;
    bool connected, failed;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* ---- a span ---- */

struct live_span {
    struct str trace_id, service, name, kind, status;
    uint64_t start_ns, duration_ns;
};

static bool span_read(struct str data, struct arena *arena, struct live_span *s)
{
    struct json_reader r;
    json_reader_init(&r, data, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return false;
    while (json_next(&r) == JSON_KEY) {
        const struct {
            const char *key;
            struct str *text;
            uint64_t *number;
        } fields[] = {
            {"traceId", &s->trace_id, NULL},
            {"service", &s->service, NULL},
            {"name", &s->name, NULL},
            {"kind", &s->kind, NULL},
            {"status", &s->status, NULL},
            {"startUnixNano", NULL, &s->start_ns},
            {"durationNano", NULL, &s->duration_ns},
        };
        size_t i = 0, n = sizeof fields / sizeof *fields;
        while (i < n && !str_eq(r.text, str_from(fields[i].key)))
            i++;
        if (i == n) {
            json_skip(&r);
            continue;
        }
        json_next(&r);
        if (fields[i].number)
            (void)!json_to_u64(&r, fields[i].number);
        else if (r.type == JSON_STRING)
            *fields[i].text = r.text;
    }
    return r.type == JSON_OBJECT_END && s->trace_id.ptr;
}

static void span_put(struct tail *t, const struct live_span *s)
{
    enum { TIME = 12, DURATION = 9, ID = 2 * 16 };
    const struct term *term = &t->term;
    char time[TERM_TIME_SIZE], duration[TERM_DURATION_SIZE], colour[16];
    bool error = str_eq(s->status, STR("ERROR"));
    const char *plain = term_style(term, TERM_PLAIN);
    size_t service = term_width(s->service);
    service = service < SERVICE_WIDTH_MAX ? service : SERVICE_WIDTH_MAX;
    t->service_width = service > t->service_width ? service : t->service_width;
    struct str took = str_from(term_duration(duration, s->duration_ns));
    buf_cstr(&t->out, term_style(term, TERM_DIM));
    term_cell(&t->out, str_from(term_time(time, s->start_ns, false)), TIME);
    buf_printf(&t->out, "%s  ", plain);
    size_t n = term_width(took);
    term_blanks(&t->out, n < DURATION ? DURATION - n : 0);
    buf_str(&t->out, took);
    buf_printf(&t->out, "  %s", term_service_style(term, s->service, colour));
    if (term->tty)
        term_cell(&t->out, s->service, t->service_width);
    else
        term_text(&t->out, s->service, SIZE_MAX);
    buf_printf(&t->out, "%s  %s%s", plain, error ? term_style(term, TERM_RED) : "",
               error ? (term->utf8 ? "\xe2\x9c\x97 " : "x ") : "");
    /* A terminal gets a line a span; the id whole where it fits, because it is there to be copied. */
    size_t used = TIME + 2 + DURATION + 2 + t->service_width + 2 + (error ? 2 : 0);
    bool whole = !term->tty || term->width >= used + 20 + 2 + ID;
    size_t id = whole ? ID : 8;
    size_t room = term->width > used + 2 + id + 8 ? term->width - used - 2 - id : 8;
    if (term->tty)
        term_cell(&t->out, s->name, room);
    else
        term_text(&t->out, s->name, SIZE_MAX);
    struct str trace = s->trace_id;
    trace.len = trace.len < id ? trace.len : id;
    buf_printf(&t->out, "%s  %s%.*s%s\n", plain, term_style(term, TERM_DIM), STR_ARG(trace), plain);
}

/* ---- events ---- */

static void missed_say(struct tail *t, uint64_t n)
{
    t->missed += n;
    fprintf(stderr,
            "pugmark tail: %llu spans were stored and not sent: more came than the server sends\n",
            (unsigned long long)n);
}

static void event_done(struct tail *t)
{
    struct str event = buf_as_str(&t->event), data = buf_as_str(&t->data);
    struct arena arena = ARENA_INIT;
    if (str_eq(event, STR("span")) && data.len) {
        struct live_span s = {0};
        if (t->options.json) {
            buf_str(&t->out, data);
            buf_byte(&t->out, '\n');
            t->shown++;
        } else if (span_read(data, &arena, &s)) {
            span_put(t, &s);
            t->shown++;
        }
    } else if (str_eq(event, STR("dropped"))) {
        struct json_reader r;
        uint64_t n;
        json_reader_init(&r, data, &arena, NULL);
        if (json_next(&r) == JSON_OBJECT && json_next(&r) == JSON_KEY && json_next(&r) &&
            json_to_u64(&r, &n))
            missed_say(t, n);
    }
    arena_done(&arena);
    buf_clear(&t->event);
    buf_clear(&t->data);
}

static void line_done(struct tail *t)
{
    struct str value, line = buf_as_str(&t->line);
    if (line.len && line.ptr[line.len - 1] == '\r')
        line.len--;
    if (!line.len) {
        event_done(t);
    } else {
        struct str field = str_split(line, ':', &value);
        if (value.len && value.ptr[0] == ' ')
            value = str_skip(value, 1);
        if (str_eq(field, STR("event")))
            buf_str(&t->event, value);
        else if (str_eq(field, STR("data")))
            buf_str(&t->data, value);
    }
    buf_clear(&t->line);
}

static bool is_done(const struct tail *t)
{
    return interrupted || t->failed || (t->options.limit && t->shown >= t->options.limit);
}

/* Whatever has come of the stream. False: enough. */
static bool stream_take(void *arg, struct str bytes)
{
    struct tail *t = arg;
    if (!t->connected && t->term.tty && !t->options.json)
        fprintf(stderr, "Watching %s; Ctrl-C ends\n", t->options.server);
    t->connected = true;
    for (size_t i = 0; i < bytes.len && !is_done(t); i++) {
        if (bytes.ptr[i] == '\n')
            line_done(t);
        else
            buf_byte(&t->line, bytes.ptr[i]);
    }
    if (t->out.len && (fwrite(t->out.ptr, 1, t->out.len, stdout) != t->out.len || fflush(stdout)))
        t->failed = true; /* nobody reads any more */
    buf_clear(&t->out);
    if (!buf_ok(&t->line) || !buf_ok(&t->data) || !buf_ok(&t->event)) {
        /* A line without an end is none of ours. */
        buf_clear(&t->line);
        buf_clear(&t->data);
        buf_clear(&t->event);
    }
    return !is_done(t);
}

static bool stream_wants(void *arg)
{
    return !is_done(arg);
}

/* ---- the verb ---- */

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    int status;
    *o = (struct options){.server = CLIENT_SERVER_DEFAULT};
    const struct args_option options[] = {
        {.name = "limit", .count = &o->limit, .min = 1, .max = LIMIT_MAX},
        {.name = "json", .flag = &o->json},
        {.name = "no-reconnect", .flag = &o->no_reconnect},
        {.name = "server", .text = &o->server},
    };
    int n = args_parse("tail", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n > 1)
        return args_wrong("tail", "one query, in quotes");
    o->query = n ? argv[1] : NULL;
    return -1;
}

/* Waits, but not when interrupted. */
static void pause_ms(int ms)
{
    (void)!poll(NULL, 0, ms);
}

static int watch(struct tail *t, const char *path)
{
    int retry_ms = RETRY_MS_FIRST;
    bool ever = false;
    while (!is_done(t)) {
        struct client_stream stream = {.take = stream_take, .wants = stream_wants, .arg = t};
        struct buf answer = BUF_INIT;
        long status = 0;
        t->connected = false;
        int err = client_stream("tail", t->options.server, path, &stream, ever, &status, &answer);
        bool refused = status && status != 200;
        /* 503: there are too many streams, or the server is stopping. */
        if (refused && (!ever || status != 503)) {
            client_say_error("tail", status, buf_as_str(&answer), t->options.query);
            buf_done(&answer);
            return CLI_COULD_NOT;
        }
        buf_done(&answer);
        if (is_done(t))
            break;
        if (err && !ever && !t->connected)
            return CLI_COULD_NOT; /* has been said */
        if (t->connected) {
            ever = true;
            retry_ms = RETRY_MS_FIRST;
            fprintf(stderr, "pugmark tail: the connection to %s ended; %s\n", t->options.server,
                    t->options.no_reconnect
                        ? "that is all"
                        : "trying again (what is stored meanwhile is not shown)");
            if (t->options.no_reconnect)
                return CLI_COULD_NOT;
            buf_clear(&t->line);
            buf_clear(&t->event);
            buf_clear(&t->data);
        }
        pause_ms(retry_ms);
        retry_ms = retry_ms * 2 < RETRY_MS_MAX ? retry_ms * 2 : RETRY_MS_MAX;
    }
    return CLI_DONE;
}

int cli_tail(int argc, char **argv)
{
    struct tail t = {.line.bytes_max = LINE_BYTES_MAX, .data.bytes_max = LINE_BYTES_MAX};
    int status = parse(argc, argv, &t.options);
    if (status >= 0)
        return status;
    t.term = term_of(stdout);
    t.service_width = 8;
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    struct buf path = BUF_INIT;
    buf_cstr(&path, "/api/pugmark/live");
    if (t.options.query) {
        buf_cstr(&path, "?q=");
        client_escape(&path, str_from(t.options.query));
    }
    buf_byte(&path, '\0');
    if (buf_ok(&path)) {
        status = watch(&t, path.ptr);
    } else {
        fputs("pugmark tail: out of memory\n", stderr);
        status = CLI_COULD_NOT;
    }
    if (t.missed)
        fprintf(stderr, "pugmark tail: %llu spans shown, %llu missed\n",
                (unsigned long long)t.shown, (unsigned long long)t.missed);
    buf_done(&path);
    buf_done(&t.line);
    buf_done(&t.event);
    buf_done(&t.data);
    buf_done(&t.out);
    return status;
}
