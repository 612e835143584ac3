/* Pugmark: tracing for C and C++ programs.
 *
 *     #include <pugmark/pugmark.h>                      // link with -lpugmark
 *
 *     int main(void)
 *     {
 *         pug_start(NULL);                              // PUG_TRACING=true turns it on
 *         for (int i = 0; i < 3; i++) {
 *             PUG_SPAN("work.step", PUG_INT("step", i), PUG_STR("colour", "red"));
 *             ...                                       // ends with the enclosing scope
 *         }
 *         pug_stop();
 *     }
 *
 * Manners. The library never exits, prints, blocks without bound or changes errno. What it cannot
 * record it counts, and the count is in the data (spans named `pugmark.lost`) and in
 * pug_counts_read(). Beginning and ending a span takes no lock, allocates nothing and makes no
 * system call (the one exception is the first span of a process after fork, which sets up the
 * child's own memory).
 *
 * Threads. Everything here may be called from any thread. A scope belongs to the thread that
 * entered it; a `struct pug_span` may be ended by another thread than the one that started it, as
 * long as only one uses it at a time. In a signal handler spans are safe: one that interrupts the
 * recording of another span is dropped and counted.
 *
 * Strings. Names and keys of spans, events and their attributes given in the macros are string
 * literals. Values are copied, at most PUG_STR_MAX bytes of each; NULL is the empty string.
 *
 * With -DPUG_DISABLE all of this compiles away; arguments are not evaluated then, but for those that
 * results are written to.
 *
 * C99 and C++11 with the extensions of gcc and clang (`cleanup`, statement expressions). */
#ifndef PUGMARK_PUGMARK_H
#define PUGMARK_PUGMARK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUG_STR_MAX 2048       /* bytes of one string value */
#define PUG_ATTRS_MAX 12       /* attributes in one macro call */
#define PUG_DEPTH_MAX 512      /* open scopes of one thread; deeper ones are dropped and counted */
#define PUG_TRACESTATE_MAX 512 /* characters of tracestate that are passed on */

/* ---- start and stop ---- */

enum pug_backend {
    PUG_BACKEND_DEFAULT, /* PUG_BACKEND, or local */
    PUG_BACKEND_LOCAL,   /* Chrome trace JSON in trace_dir; opens in Perfetto */
    PUG_BACKEND_OTLP,    /* OTLP over HTTP or gRPC, by libcurl, which is loaded only then */
    PUG_BACKEND_DISCARD, /* spans are taken in and thrown away: for measuring */
    PUG_BACKEND_ZIPKIN,  /* Zipkin v2 JSON over HTTP */
    PUG_BACKEND_STDOUT,  /* a line of JSON for each span on standard output */
};

enum pug_tracing {
    PUG_TRACING_ENVIRONMENT, /* on when PUG_TRACING is true, 1, yes or on */
    PUG_TRACING_ON,
    PUG_TRACING_OFF,
};

/* What the library wants to tell (a full disk, a collector that refuses): each kind of trouble
 * once, from the library's own thread, or from pug_start on its caller's: why tracing stays off is told
 * here alone. From within pug_start, pug_flush() has nothing to do, and pug_start() and pug_stop() say
 * PUG_ERR_BUSY. */
typedef void pug_log_fn(void *user, const char *message);

/* Fields that are 0 or NULL are taken from the environment, else have the default. Strings are
 * copied. */
struct pug_options {
    size_t size; /* sizeof(struct pug_options); 0 is PUG_ERR_INVALID */
    enum pug_tracing tracing;
    enum pug_backend backend;
    const char *service_name;    /* PUG_SERVICE_NAME, OTEL_SERVICE_NAME; the program's name */
    const char *service_version; /* PUG_SERVICE_VERSION */
    const char *trace_dir;       /* PUG_TRACE_DIR; ".local/traces" */
    /* PUG_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (taken as it is),
     * OTEL_EXPORTER_OTLP_ENDPOINT; http://localhost:4317. "/v1/traces" is added to a URL without a
     * path. Port 4317 speaks gRPC, every other HTTP with protobuf, unless
     * OTEL_EXPORTER_OTLP_PROTOCOL says otherwise. */
    const char *otlp_endpoint;
    const char *otlp_headers; /* "name=value,..."; OTEL_EXPORTER_OTLP_HEADERS */
    /* Of each thread, a power of two from 128 KiB to 256 MiB; PUG_RING_KIB; 1 MiB. The first start
     * of the process decides; later ones keep its rings. */
    size_t ring_bytes;
    size_t queue_bytes_max; /* encoded and not yet sent; 16 MiB */
    /* How often the rings are looked at: sooner when much comes, up to four times later when little does.
     * They are emptied when one is an eighth full, and every 20 times this in any case; 5000 */
    unsigned drain_interval_us;
    unsigned flush_interval_ms; /* how long spans are gathered before they are sent; 200 */
    unsigned stop_timeout_ms;   /* how long pug_stop() and exit() wait for the last spans; 2000 */
    pug_log_fn *log;            /* may be NULL */
    void *log_user;
    /* The configuration file: PUG_CONFIG, then pugmark.toml in the working directory, in
     * $XDG_CONFIG_HOME/pugmark/ and in /etc/pugmark/. "" reads none. Values of this struct stand
     * over the environment, which stands over the file. */
    const char *config_file;
    /* "always_on", "always_off", "ratio:0.25", "rate:100" (traces a second), "rules:FILE"; with
     * "parentbased_" in front (which is the default) only where a trace begins. */
    const char *sampler;
};

/* Codes of the functions that return int: 0 or negative. */
#define PUG_ERR_NOMEM (-1)
#define PUG_ERR_INVALID (-2)
#define PUG_ERR_IO (-5)
#define PUG_ERR_FULL (-6)
#define PUG_ERR_BUSY (-8)
#define PUG_ERR_NOT_FOUND (-9)
#define PUG_ERR_UNSUPPORTED (-10)
#define PUG_ERR_CLOSED (-11)
#define PUG_ERR_TIMEOUT (-12)
#define PUG_ERR_EMPTY (-14)

#ifndef PUG_DISABLE /* else they are in disable.h */
/* Starts tracing; without it, and when tracing is off, spans cost one branch. 0 also when it is
 * off. Otherwise tracing stays off:
 *     PUG_ERR_BUSY         started already; it stays on, the options are ignored
 *     PUG_ERR_INVALID      a value that makes no sense; options->size not set
 *     PUG_ERR_UNSUPPORTED  no such backend or protocol, or libcurl missing
 *     PUG_ERR_NOT_FOUND    trace_dir cannot be made or opened: a part of its path is missing;
 *                          or config_file is not there; or the OTLP headers, which
 *                          otlp_headers_optional = false asks for, cannot be had
 *     PUG_ERR_FULL         no space left for the trace or for the rings
 *     PUG_ERR_IO           trace_dir cannot be written for another reason (permission, ...), or
 *                          standard output is closed
 *     PUG_ERR_NOMEM        no memory, or no thread
 *
 * exit() and quick_exit() flush as pug_stop() does. _exit(), abort(), exec and a signal that kills
 * leave behind what has been written: call pug_flush() before exec and daemon(). After fork() the
 * child records for itself, from its first span on, and what was open stays the parent's; after
 * _Fork() or a bare clone() it must not record. A program may close our descriptors.
 * Not signal-safe, no cancellation point. */
int pug_start(const struct pug_options *options);
/* Sends what is recorded and stops. Spans that are open are written with the end they have now and
 * the attribute `pugmark.unfinished`. PUG_ERR_TIMEOUT when not all could be sent in time. Any thread,
 * also while another one flushes; not signal-safe, no cancellation point. */
int pug_stop(void);
/* Waits until everything recorded before the call has been handed to the backend and, with OTLP,
 * was accepted. PUG_ERR_TIMEOUT, PUG_ERR_IO when some of it was lost on the way. Any thread; not
 * signal-safe, no cancellation point. */
int pug_flush(unsigned timeout_ms);
/* Is tracing on? For work that only prepares attributes. */
int pug_on(void);
const char *pug_error_text(int code);
#endif

/* Sums since the start: every span begun is, once it has ended, in exactly one of the counts below
 * `recorded` or was not sampled. */
struct pug_counts {
    size_t size;              /* sizeof(struct pug_counts), set by the caller */
    uint64_t recorded;        /* taken out of the rings */
    uint64_t exported;        /* written, or accepted by the collector */
    uint64_t lost_ring_full;  /* begun while the ring of its thread was full */
    uint64_t lost_depth;      /* deeper than PUG_DEPTH_MAX */
    uint64_t lost_no_lane;    /* begun while no ring was ready for a new thread */
    uint64_t lost_interrupt;  /* begun in a signal handler inside the library */
    uint64_t lost_queue_full; /* the collector is too slow */
    uint64_t lost_export;     /* refused, or not written */
    uint64_t lost_memory;     /* the drain found no memory */
    uint64_t lost_details;    /* attributes, events and links, not spans */
    /* Beside the spans: data points of metrics. */
    uint64_t metrics_exported; /* written, or accepted by the collector */
    uint64_t metrics_lost;
    /* Not of spans, and counted also when tracing is off: */
    uint64_t damaged_contexts; /* headers and `_trace` members that break their format */
    uint64_t lost_captured;    /* what a capture brought and nobody had room to keep (capture.h) */
};
#ifndef PUG_DISABLE
void pug_counts_read(struct pug_counts *ret_counts);
#endif

/* ---- context: where in which trace ---- */

#define PUG_FLAG_SAMPLED 0x01 /* W3C trace flags */
#define PUG_FLAG_RANDOM 0x02

/* A value: copy it freely. All zeros is "none". */
struct pug_context {
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint8_t flags;  /* PUG_FLAG_ */
    uint8_t remote; /* came from another process */
    uint16_t tracestate_len;
    char tracestate[PUG_TRACESTATE_MAX]; /* not terminated */
};

struct pug_span; /* see below */

/* ---- spans that end with their scope ----
 *
 *     PUG_SPAN("name", ...)             attributes PUG_INT, PUG_STR, ..., also PUG_KIND
 *     PUG_FN(...)                       the same, named after the function; its attributes only when
 *                                       the configuration says include_args
 *     PUG_SPAN_ONE_IN(n, "name", ...)   one in n of these, at random, whatever the sampler says of
 *                                       the trace; the others are left out, and what is inside them
 *                                       belongs to the span around. Those that are kept have the
 *                                       attribute pugmark.one_in, and are kept alone when their
 *                                       trace is not
 *     PUG_SPAN_FROM(&context, "name", ...)   child of `context`, whatever is current; when it is
 *                                       NULL or none, the same as PUG_SPAN
 *
 * A span begun inside becomes its child. Attributes are evaluated only when tracing is on and the
 * trace is kept (docs/sampling.md); at most PUG_ATTRS_MAX of them. These and PUG_ATTACH are declarations and stand in a block: after an `if`
 * write { PUG_SPAN("name"); ... }, else C does not compile and in C++ the span is over at once.
 *
 *     PUG_INT("key", int64_t)  PUG_BOOL("key", bool)  PUG_DOUBLE("key", double)
 *     PUG_STR("key", const char *)  PUG_STRN("key", const char *, size_t)
 *     PUG_KIND(PUG_KIND_SERVER)
 */

/* OpenTelemetry's: what the span's work is to the process on the other side, if there is one. */
enum pug_kind {
    PUG_KIND_UNSPECIFIED,
    PUG_KIND_INTERNAL, /* the default */
    PUG_KIND_SERVER,
    PUG_KIND_CLIENT,
    PUG_KIND_PRODUCER,
    PUG_KIND_CONSUMER,
};

/* OpenTelemetry's; UNSET is "nothing went wrong that the span knows of". */
enum pug_status_code { PUG_STATUS_UNSET, PUG_STATUS_OK, PUG_STATUS_ERROR };

/* The innermost scope of this thread, for the functions that take a span. */
#define PUG_CURRENT ((struct pug_span *)0)

/* ---- spans with a handle, which end elsewhere ----
 *
 *     struct pug_span span;                            // yours; may live in your request
 *     pug_span_start(&span, "http.request", PUG_STR("path", path));   // child of what is current
 *     pug_span_start_from(&span, &context, "name", ...);
 *     ... on any thread: pug_set_int(&span, "status", 200);
 *     pug_span_end(&span);                             // once; a second end does nothing
 *
 * They do not become the current span; PUG_ATTACH(&span.context) makes one current for the scope.
 *
 *     pug_event(&span, "name", ...)                    // or PUG_CURRENT
 *     pug_link_with(&span, &context, PUG_INT("position", 3))    // pug_link with attributes
 *     PUG_ATTACH(&context)                             // children of it until the scope ends
 */

/* ---- a table of functions, traced without touching its callers ----
 *
 *     #define REPO_METHODS(X, T)                                              \
 *         X(T, int, add_log, (struct repo *r, const struct row *row), (r, row)) \
 *         X(T, void, close, (struct repo *r), (r))
 *     PUG_WRAP_TABLE(repo_traced, struct repo_methods, "db.", REPO_METHODS)
 *
 * defines `static void repo_traced(struct repo_methods *table)`, which replaces each named member
 * of `table` by one that runs the original inside the span "db.add_log", "db.close". A member that
 * is NULL stays NULL. One table for each PUG_WRAP_TABLE. */

#ifdef PUG_DISABLE
#include <pugmark/disable.h>
#else
struct pug_span {
    struct pug_context context; /* of this span: to inject, to attach, to link */
    uint8_t parent_id[8];
    uint64_t pug__start;
    uint32_t pug__site, pug__state;
};

#include <pugmark/inline.h>

/* Ends it, on whatever thread; a second end does nothing. Thread-safe as long as one thread uses the
 * handle at a time; safe in signal handlers, as everything below up to the links. */
void pug_span_end(struct pug_span *span);

/* Attributes that are known late, of `span` or of PUG_CURRENT; the last word on a key counts. `key` and
 * text are copied, text up to PUG_STR_MAX bytes. 128 attributes of one span are kept, the others
 * counted. They do nothing for a span that has ended or is not recorded. */
void pug_set_int(struct pug_span *span, const char *key, int64_t value);
void pug_set_bool(struct pug_span *span, const char *key, int value);
void pug_set_double(struct pug_span *span, const char *key, double value);
void pug_set_str(struct pug_span *span, const char *key, const char *value);
void pug_set_strn(struct pug_span *span, const char *key, const char *value, size_t len);
/* A better name, known late (a route, for example). */
void pug_set_name(struct pug_span *span, const char *name);
/* How it went; the message, for errors, may be NULL. The last word counts. */
void pug_status(struct pug_span *span, enum pug_status_code code, const char *message);
/* pug_status(span, PUG_STATUS_ERROR, message) */
void pug_error(struct pug_span *span, const char *message);
/* This span continues, or gathers, the work of another one: a batch has a link for each record it takes
 * in, which are of many traces. 128 links of one span are kept, the others counted. pug_link_with adds
 * attributes to the link. */
void pug_link(struct pug_span *span, const struct pug_context *to);

/* ---- the current context ---- */

/* Of the innermost scope; none when there is none or tracing is off. */
struct pug_context pug_context_current(void);
int pug_context_valid(const struct pug_context *context);
/* From hexadecimal digits (32 and 16), as they stand in a database or a log. 0 or PUG_ERR_INVALID.
 */
int pug_context_from_hex(struct pug_context *ret, const char *trace_id, const char *span_id);
/* Lower-case digits with a terminator; "" when there is none. */
void pug_trace_id_hex(const struct pug_context *context, char out[33]);
void pug_span_id_hex(const struct pug_context *context, char out[17]);

/* For code without scopes (an event loop): what PUG_ATTACH does. The context is copied. Detach in
 * reverse order, on the same thread; scopes that were left open inside end there. */
typedef struct pug__slot *pug_attachment;
pug_attachment pug_context_attach(const struct pug_context *context);
void pug_context_detach(pug_attachment attachment);

/* ---- crossing a process: W3C Trace Context ---- */

/* Sets header `name` ("traceparent", "tracestate") to `value`. */
typedef void pug_carrier_set(void *carrier, const char *name, const char *value);
/* The value of the nth header (from 0) of that name, without regard to case; NULL when there is
 * none. Terminated, unless *ret_len is set. */
typedef const char *pug_carrier_get(void *carrier, const char *name, size_t nth, size_t *ret_len);

/* `context` NULL: the current one. Sets nothing when there is none. */
void pug_inject(const struct pug_context *context, pug_carrier_set *set, void *carrier);
/* 1 and the sender's context, or 0 and none when there is no valid traceparent (a damaged
 * tracestate alone is only left out). Works also when tracing is off. */
int pug_extract(pug_carrier_get *get, void *carrier, struct pug_context *ret_context);

/* The same through `_trace`: {"traceparent": .., "tracestate": ..} in a JSON object.
 *
 * Inject: adds the member to the object in record[0..len), in place; a `_trace` that is there
 * already is replaced. Returns the length it has then; when that is not less than `size` nothing
 * was changed (the buffer is too small: there must be room for a terminator). What is no object
 * stays as it is and `len` is returned, also when there is no context.
 * Extract: takes the member out, in place, and returns the new length; ret_context is none when
 * there was no valid one. A record that is not valid JSON stays as it is. Works also when tracing
 * is off. A terminator is written after the text when there is room for it (`size`; extract always
 * shortens, so there is). */
size_t pug_json_inject(const struct pug_context *context, char *record, size_t len, size_t size);
size_t pug_json_extract(char *record, size_t len, struct pug_context *ret_context);

#endif /* PUG_DISABLE */

#ifdef __cplusplus
}
#endif
#endif
