/* What crossing a process costs: pug_inject and pug_extract together, as client and server of one
 * request, against the floor: 55 characters of a traceparent written from ids and read back, with
 * nothing around it. Bursts of all of them take turns in one thread; values are medians over the
 * bursts, the ratio is that of the medians.
 *
 * The carrier is a small table of headers, copied as a request would be. Tracing is on, in a span;
 * nothing is recorded by what is measured but for "handed over" and "log", which say so. */
#include "pugmark/capture.h"
#include "pugmark/log.h"
#include "pugmark/pugmark.h"
#include "report.h"

#include "base/clock.h"
#include "base/str.h"
#include "sdk/options.h"
#include "sdk/propagate.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

enum { BURST = 2000, ROUNDS = 400, HEADERS_MAX = 8 };

struct headers {
    struct {
        char name[24], value[1024];
    } items[HEADERS_MAX];
    size_t n;
};

static void header_set(void *carrier, const char *name, const char *value)
{
    struct headers *h = carrier;
    memcpy(h->items[h->n].name, name, strlen(name) + 1);
    memcpy(h->items[h->n].value, value, strlen(value) + 1);
    h->n++;
}

static const char *header_get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    struct headers *h = carrier;
    for (size_t i = 0; i < h->n; i++)
        if (strcasecmp(h->items[i].name, name) == 0 && nth-- == 0)
            return h->items[i].value;
    return NULL;
}

static struct headers headers;
static struct pug_context plain, with_state;
static struct pug_baggage bag;

static void must(bool condition)
{
    if (!condition) {
        fprintf(stderr, "bench: what came back is not what was sent\n");
        exit(1);
    }
}

/* ---- what is measured ---- */

static void floor_burst(void)
{
    char text[56];
    uint8_t trace[16], span[8], flags;
    for (int i = 0; i < BURST; i++) {
        memcpy(text, "00-", 3);
        hex_put(text + 3, plain.trace_id, 16);
        text[35] = '-';
        hex_put(text + 36, plain.span_id, 8);
        text[52] = '-';
        hex_put(text + 53, &plain.flags, 1);
        text[55] = '\0';
        __asm__ __volatile__("" : : "r"(text) : "memory");
        must(hex_get_lower(trace, text + 3, 16) && hex_get_lower(span, text + 36, 8) &&
             hex_get_lower(&flags, text + 53, 1));
        __asm__ __volatile__("" : : "r"(trace), "r"(span) : "memory");
    }
}

static void carrier_burst(void)
{
    static const char value[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    size_t len;
    for (int i = 0; i < BURST; i++) {
        headers.n = 0;
        header_set(&headers, "traceparent", value);
        must(header_get(&headers, "traceparent", 0, &len) != NULL);
        must(header_get(&headers, "traceparent", 1, &len) == NULL);
        must(header_get(&headers, "tracestate", 0, &len) == NULL);
    }
}

static void round_trip(const struct pug_context *c)
{
    struct pug_context back;
    for (int i = 0; i < BURST; i++) {
        headers.n = 0;
        pug_inject(c, header_set, &headers);
        must(pug_extract(header_get, &headers, &back));
    }
    must(back.span_id[7] == c->span_id[7] && back.tracestate_len == c->tracestate_len);
}

static void w3c_burst(void)
{
    round_trip(&plain);
}

static void current_burst(void)
{
    struct pug_context back;
    for (int i = 0; i < BURST; i++) {
        headers.n = 0;
        pug_inject(NULL, header_set, &headers);
        must(pug_extract(header_get, &headers, &back));
    }
}

static void state_burst(void)
{
    round_trip(&with_state);
}

static void b3_burst(void)
{
    propagators_use(PROPAGATE_B3);
    round_trip(&plain);
    propagators_use(PROPAGATE_DEFAULT);
}

static void jaeger_burst(void)
{
    propagators_use(PROPAGATE_JAEGER);
    round_trip(&plain);
    propagators_use(PROPAGATE_DEFAULT);
}

static void xray_burst(void)
{
    propagators_use(PROPAGATE_XRAY);
    round_trip(&plain);
    propagators_use(PROPAGATE_DEFAULT);
}

static void baggage_burst(void)
{
    static struct pug_baggage back;
    struct pug_context context;
    PUG_BAGGAGE(&bag);
    for (int i = 0; i < BURST; i++) {
        headers.n = 0;
        pug_inject(&plain, header_set, &headers);
        must(pug_extract(header_get, &headers, &context));
        must(pug_baggage_extract(header_get, &headers, &back) == 3);
    }
}

static void capture_burst(void)
{
    for (int i = 0; i < BURST; i++) {
        struct pug_capture c = pug_capture_current();
        __asm__ __volatile__("" : : "r"(&c) : "memory");
    }
}

static void resume_burst(void)
{
    struct pug_capture c = pug_capture_current();
    for (int i = 0; i < BURST; i++) {
        PUG_RESUME(&c);
        __asm__ __volatile__("" : : : "memory");
    }
}

static void log_burst(void)
{
    for (int i = 0; i < BURST; i++) {
        const char *trace = pug_log_trace_id(), *span = pug_log_span_id();
        __asm__ __volatile__("" : : "r"(trace), "r"(span) : "memory");
    }
}

/* ---- rows ---- */

struct row {
    const char *what;
    void (*burst)(void);
    double values[ROUNDS];
};

static struct row rows[] = {
    {"floor: 55 characters written and read", floor_burst, {0}},
    {"the carrier alone", carrier_burst, {0}},
    {"inject + extract, W3C", w3c_burst, {0}},
    {"inject + extract, W3C, of the current span", current_burst, {0}},
    {"inject + extract, W3C with a tracestate of 60 characters", state_burst, {0}},
    {"inject + extract, W3C with 3 members of baggage", baggage_burst, {0}},
    {"inject + extract, b3", b3_burst, {0}},
    {"inject + extract, uber-trace-id", jaeger_burst, {0}},
    {"inject + extract, X-Amzn-Trace-Id", xray_burst, {0}},
    {"capture", capture_burst, {0}},
    {"resume and leave (two records)", resume_burst, {0}},
    {"both ids for a log", log_burst, {0}},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct row *r)
{
    qsort(r->values, ROUNDS, sizeof(double), by_value);
    return r->values[ROUNDS / 2];
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

int main(void)
{
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    static const char state[] = "ot=th:8;rv:6e6d1a75832a2f,congo=t61rcWkgMzE,rojo=00f067aa0b9";
    pin(0); /* where the drain stays */
    if (pug_start(&o) != 0 ||
        pug_context_from_hex(&plain, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331") != 0)
        return 1;
    pin((int)sysconf(_SC_NPROCESSORS_ONLN) - 1);
    with_state = plain;
    with_state.tracestate_len = sizeof state - 1;
    memcpy(with_state.tracestate, state, sizeof state - 1);
    pug_baggage_init(&bag);
    must(pug_baggage_set(&bag, "tenant", "blue & green", NULL) == 0 &&
         pug_baggage_set(&bag, "user", "alice", "class=1") == 0 &&
         pug_baggage_set(&bag, "production", "false", NULL) == 0);
    struct report *report = report_new("context");
    {
        PUG_SPAN("bench.context");
        for (int round = 0; round < ROUNDS; round++) {
            for (int i = 0; i < ROWS; i++) {
                uint64_t start = clock_monotonic_ns();
                rows[i].burst();
                rows[i].values[round] = (double)(clock_monotonic_ns() - start) / BURST;
                if (rows[i].burst == resume_burst)
                    pug_flush(5000);
            }
        }
    }
    double floor_ns = median(&rows[0]);
    report_row(report, rows[0].what, floor_ns, "ns");
    for (int i = 1; i < ROWS; i++) {
        report_row(report, rows[i].what, median(&rows[i]), "ns");
        report_ratio(report, "floor", floor_ns);
    }
    pug_stop();
    return report_finish(report);
}
