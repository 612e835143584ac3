/* The trace store: the interface that every engine implements. local/ is the first.
 *
 * Writing: `store_append` takes a request body as it came and the spans decoded from it. The spans
 * are durable, and visible to every view made from then on, when the callback says so. Bodies are
 * made durable in groups: many appends share one sync.
 *
 * Reading: a view is a snapshot. It sees all that was acknowledged before it was made, does not
 * change while it lives, and may be used by one thread at a time; many views may live at once.
 * Strings and arrays that a view hands out live in the arena passed, or as long as the view where
 * said so.
 *
 * A trace may lie in several parts (the memtable and some segments), because spans come late. The
 * functions below put the parts together. A span that was appended twice is there twice. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/arena.h"
#include "base/err.h"
#include "model/span.h"

struct store;
struct store_view;

enum store_durability {
    STORE_DURABILITY_SYNC = 0, /* fdatasync before the answer: survives a power cut */
    STORE_DURABILITY_WRITE,    /* written before the answer: survives kill -9 */
};

typedef uint64_t store_clock_fn(void *arg); /* nanoseconds since the epoch */

struct predicate;

#define STORE_RULES_MAX 32
#define STORE_RULE_TEXT_MAX 512

/* The first rule whose predicate a span fulfils says how long it stays. */
struct store_rule {
    struct str text;               /* what the predicate was made of: what its counter goes by */
    const struct predicate *match; /* NULL: all spans */
    uint64_t keep_ns;              /* 0: for ever */
};

/* What goes by itself. A span goes within a minute once it is older, when all that is in its segment is; else
 * once a quarter of its time more has passed, so that a segment is not written again for each span. */
struct store_retention {
    const struct store_rule *rules; /* at most STORE_RULES_MAX */
    size_t n_rules;
    uint64_t keep_ns; /* of spans that no rule is about; 0: for ever */
    /* The oldest segments go while segments and log take more; 0: no limit. */
    uint64_t disk_bytes_max;
};

struct store_options {
    const char *dir; /* made when it does not exist */
    enum store_durability durability;
    uint64_t memtable_bytes_max;  /* sealed into a segment beyond this; 0: the default */
    uint64_t memtable_age_ms_max; /* or when its oldest span waited this long; 0: the default */
    uint64_t queue_bytes_max;     /* bodies waiting for the log; beyond: ERR_BUSY; 0: the default */
    struct store_retention retention; /* copied */
    store_clock_fn *clock;            /* NULL: the real one */
    store_clock_fn *steady_clock;     /* NULL: since the machine started; nobody sets it */
    /* Retention believes the clock at once. Else a clock that is a day ahead of what the store has seen, or
     * steps forward by an hour, is believed after a day: nothing is dropped for a wrong one. */
    bool clock_is_trusted;
    void *clock_arg;
};

/* ERR_BUSY when another process holds the directory, ERR_CORRUPT, ERR_IO, ERR_UNSUPPORTED (written
 * by a newer version); `ret_detail` names the file. Replays the log: what was acknowledged is
 * visible when this returns. A segment that is missing or damaged is told (in the log of the program and
 * in store_stats), and the others are served. */
MUST_USE int store_open(const struct store_options *options, struct store **ret_store,
                        struct error_detail *ret_detail);
/* Waits for appends under way, seals the memtable, and lets the directory go. NULL is allowed. */
void store_close(struct store *store);

/* ---- writing ---- */

/* What a body in the log is, so that recovery can decode it again. Numbers are on disk. */
enum body_format {
    BODY_OTLP_PROTOBUF = 1, /* ExportTraceServiceRequest */
    BODY_OTLP_JSON = 2,
};

/* `err` is 0 when the batch is durable; else nothing of it will ever be visible. Called on the
 * store's own thread: hand over and return. */
typedef void store_durable_fn(void *arg, int err);

/* Thread-safe. `batch` must be all that decoding `body` gives, because recovery decodes it again: who
 * leaves something out changes the body too. `body` and `batch` must live until `done` is called; `done` is called exactly once
 * if and only if this returns 0. ERR_BUSY: the queue is full, try again later; ERR_CLOSED. */
MUST_USE int store_append(struct store *store, enum body_format format, struct str body,
                          const struct span_batch *batch, store_durable_fn *done, void *arg);
/* The same and waits. */
MUST_USE int store_append_wait(struct store *store, enum body_format format, struct str body,
                               const struct span_batch *batch);
/* Seals the memtable now and waits until the segment is in the catalogue, and the log does without it. */
MUST_USE int store_seal(struct store *store);

/* Other rules from now on. ERR_NOMEM, ERR_TOO_LARGE: the old ones stay. */
MUST_USE int store_retention_set(struct store *store, const struct store_retention *retention);

/* Bytes beside the store that count in its disk budget, of which they take half at most; from the next round on. */
void store_disk_other(struct store *store, uint64_t bytes);

struct store_rule_state {
    struct str text; /* empty: of spans that no rule is about */
    uint64_t keep_ns;
    uint64_t spans; /* that it took, since the store was made */
};
/* The rules in force, in their order, and what is about the others last. Lives in `arena`. */
MUST_USE int store_retention_state(struct store *store, struct arena *arena,
                                   struct store_rule_state **ret_rules, size_t *ret_n,
                                   uint64_t *ret_disk_bytes_max, uint64_t *ret_next_ns);

/* ---- erasing ---- */

#define STORE_ERASE_SPANS_MAX ((size_t)1 << 20)
#define STORE_ERASE_TEXTS_MAX 128

enum erase_kind { ERASE_DELETE = 1, ERASE_REDACT }; /* numbers are on disk */

struct erase_span {
    struct trace_id trace_id;
    struct span_id span_id; /* zeros: all of the trace */
};

struct store_erase {
    enum erase_kind kind;
    /* Those that are listed; or, when `spans` is NULL, those that fulfil `where` (NULL: all) and started in
     * the range, as in a scan. */
    const struct erase_span *spans;
    size_t n_spans;
    const struct predicate *where;
    uint64_t start_min_ns, start_max_ns;
    /* Of a redaction, in the words of model/redact.h: globs of keys whose values go, of span, events, links and
     * resource, and patterns that go from all texts. */
    const char *const *keys, *const *patterns;
    size_t n_keys, n_patterns;
};

struct store_erased {
    uint64_t spans;                     /* that are gone, or changed */
    uint64_t segments, unread_segments; /* written anew; damaged, and not looked through */
};

/* Erases what was acknowledged before this is called, pinned or not. When it returns 0, no view that is made
 * from then on sees it, nor after a crash, and it is in no file of the store, except those that a view made
 * before still reads. One at a time: ERR_BUSY. ERR_INVALID with words. On another error the detail says whether
 * nothing has happened, or whether it was begun and goes on by itself. */
MUST_USE int store_erase(struct store *store, const struct store_erase *erase,
                         struct store_erased *ret_erased, struct error_detail *ret_detail);

/* One round of what the store does by itself each minute and after each sealing: drops what retention
 * and the disk budget say, and merges small segments. With `all`, merges whatever can be merged. Waits
 * for it. */
MUST_USE int store_keep(struct store *store, bool all);

/* The spans of a pinned trace outlive retention and budget. Durable when it returns. ERR_TOO_LARGE: there are
 * STORE_PINS_MAX already. */
#define STORE_PINS_MAX 10000
MUST_USE int store_pin(struct store *store, const struct trace_id *id);
MUST_USE int store_unpin(struct store *store, const struct trace_id *id); /* ERR_NOT_FOUND */
/* By id; the array lives in `arena`. */
MUST_USE int store_pins(struct store *store, struct arena *arena, struct trace_id **ret_ids,
                        size_t *ret_n);

/* Called on the store's thread after each batch became durable, for the live tail: be short, do not
 * block. One watcher; NULL removes it (and waits until a call under way has returned). */
typedef void store_watch_fn(void *arg, const struct span_batch *batch);
void store_watch(struct store *store, store_watch_fn *fn, void *arg);

/* ---- reading ---- */

struct store_view *store_view_new(struct store *store);
void store_view_free(struct store_view *view); /* NULL is allowed */

/* Whether something of what was asked for lies in a segment that is damaged: the answers hold what can be
 * read. Where nothing of what was asked for can be read, the answer is ERR_CORRUPT. */
bool store_view_is_damaged(const struct store_view *view);

/* All spans of a trace in start order (ties by span id), copied into `arena`. ERR_NOT_FOUND. */
MUST_USE int store_trace(struct store_view *view, const struct trace_id *id, struct arena *arena,
                         struct span_batch *ret_batch);

/* The same, only of those spans that start in the time given (both included): the way to read a large
 * trace piece by piece. n is 0 when there are none; ERR_NOT_FOUND only when the trace is not there. */
MUST_USE int store_trace_between(struct store_view *view, const struct trace_id *id,
                                 uint64_t start_min_ns, uint64_t start_max_ns, struct arena *arena,
                                 struct span_batch *ret_batch);

/* What the shape of a trace needs of a span. Strings live as long as the view. */
struct store_outline {
    struct span_id span_id, parent_id;
    uint64_t start_ns, end_ns;
    struct str service, name;
    uint8_t kind, status_code;
};
/* All spans of a trace in start order (ties by span id), without what they carry: 72 bytes a span. The
 * array is malloc'ed: free it. ERR_NOT_FOUND. */
MUST_USE int store_trace_outline(struct store_view *view, const struct trace_id *id,
                                 struct store_outline **ret_spans, size_t *ret_n);

struct trace_service {
    struct str name;
    uint32_t span_count, error_count;
};

struct trace_summary {
    struct trace_id id;
    uint64_t start_ns, end_ns;          /* first start, last end */
    struct str root_service, root_name; /* of the root; without one, of the earliest span */
    uint32_t span_count, error_count;
    uint32_t orphan_count; /* spans whose parent is not in the store, roots not counted */
    bool has_root;
    const struct trace_service *services; /* by name */
    uint32_t n_services;
};

/* Over all parts of the trace. */
MUST_USE int store_trace_summary(struct store_view *view, const struct trace_id *id,
                                 struct arena *arena, struct trace_summary *ret_summary);

/* ---- predicates: what a scan asks of one span ---- */

/* Numbers are on disk, in erasures. */
enum predicate_op {
    PREDICATE_TRUE,
    PREDICATE_AND, /* of children; none: true */
    PREDICATE_OR,  /* of children; none: false */
    PREDICATE_NOT, /* of the one child */
    PREDICATE_EQ,
    /* Present and different; for an attribute that is absent: false. An array is compared by its elements, one of
     * which has to fulfil the comparison; here none may be equal. */
    PREDICATE_NE,
    PREDICATE_LT,
    PREDICATE_LE,
    PREDICATE_GT,
    PREDICATE_GE,
    PREDICATE_REGEX, /* base/pattern.h, the whole value; strings only */
    PREDICATE_EXISTS,
};

enum predicate_field {
    FIELD_NAME,
    FIELD_SERVICE,
    FIELD_KIND,   /* integer: enum span_kind */
    FIELD_STATUS, /* integer: enum status_code */
    FIELD_STATUS_MESSAGE,
    FIELD_DURATION,      /* integer, nanoseconds */
    FIELD_START,         /* integer, nanoseconds since the epoch */
    FIELD_IS_ROOT,       /* boolean */
    FIELD_SPAN_ATTR,     /* with `key` */
    FIELD_RESOURCE_ATTR, /* with `key` */
    FIELD_ANY_ATTR,      /* with `key`: the span's, else the resource's */
};

struct predicate {
    enum predicate_op op;
    enum predicate_field field; /* of a comparison */
    struct str key;
    struct value value;
    /* A string in `value` also equals an int, a double or a boolean whose text it is (clients that
     * know no types: Jaeger's tags). */
    bool untyped;
    const struct predicate *children;
    size_t n_children;
};

/* Whether a whole span fulfils it: the meaning that every engine must keep to, and what the live
 * tail uses. The regular expression is compiled at each call here. */
bool predicate_match(const struct predicate *p, const struct span *span);

/* With all that it points to, in `arena`. NULL: no memory. */
const struct predicate *predicate_copy(const struct predicate *p, struct arena *arena);

/* ---- scans ---- */

#define SCAN_ATTRS_MAX 16

/* An attribute that the rows of a scan bring along. */
struct scan_attr {
    enum predicate_field field; /* FIELD_SPAN_ATTR, FIELD_RESOURCE_ATTR or FIELD_ANY_ATTR */
    struct str key;
};

struct scan {
    const struct predicate *where;       /* NULL: every span */
    uint64_t start_min_ns, start_max_ns; /* of the span's start, both included; max 0: no bound */
    const struct scan_attr *attrs;       /* at most SCAN_ATTRS_MAX */
    size_t n_attrs;
    /* Not 0: spans may come counted. The rows of the same resource, name and kind that start in the same step (from
     * start_min_ns on, which the callback must leave) are then one, which has no ids, duration and status, and the
     * start of the step; `attrs` may ask for FIELD_RESOURCE_ATTR only. */
    uint64_t step_ns;
};

/* One span that fulfils the predicate. Strings live as long as the view, those in `attrs` until the
 * callback returns. */
struct scan_row {
    struct trace_id trace_id;
    struct span_id span_id;
    uint64_t start_ns, duration_ns;
    uint64_t trace_start_ns; /* earliest start in this part of the trace */
    uint64_t count;          /* spans that this row stands for: 1 but for a scan with steps */
    struct str service, name;
    uint8_t kind, status_code;
    const struct value
        *attrs; /* one for each of the scan's; VALUE_NONE: absent. Arrays and maps have
                                * their type only */
};

/* Return 0 to go on, anything else to stop: the scan then returns that. The callback may raise
 * `scan->start_min_ns`, to say that it has no more use for older spans, and read traces and summaries
 * through the same view. */
typedef int scan_fn(void *arg, struct scan *scan, const struct scan_row *row);

struct scan_cost {
    uint64_t parts, parts_pruned;   /* memtables and segments */
    uint64_t parts_damaged;         /* of which something could not be read */
    uint64_t groups, groups_pruned; /* row groups */
    uint64_t rows_read, rows_matched;
    uint64_t bytes_read;
};

/* Parts come newest first; inside a part the order is not defined. */
MUST_USE int store_scan(struct store_view *view, struct scan *scan, scan_fn *fn, void *arg,
                        struct scan_cost *ret_cost /* may be NULL */);

/* Every span that a store_erase is about (its kind, keys and patterns do not matter), whole, in no order that
 * is defined; a batch lives until `fn` returns, and its spans are the callee's to change. A non-zero return ends
 * it. Damaged segments are passed over (store_view_is_damaged). */
typedef int store_spans_fn(void *arg, struct span_batch *batch);
MUST_USE int store_spans(struct store_view *view, const struct store_erase *which,
                         store_spans_fn *fn, void *arg);

/* ---- scans that give traces ---- */

#define MATCH_FILTERS_MAX 8
#define MATCH_NO_PARENT UINT32_MAX

/* Several questions to each span at once; what is asked for are traces in which spans answer enough of them. A
 * trace that lacks what is needed is left out where the columns are. */
struct trace_match {
    const struct predicate *const *filters;
    size_t n_filters; /* at most MATCH_FILTERS_MAX */
    /* By the set of filters that some span of the trace fulfils (bit i: filters[i]): whether the trace is wanted.
     * More in the set never makes a trace unwanted; nothing in it always does. */
    const bool *wanted;
    uint64_t start_min_ns,
        start_max_ns; /* spans that start outside fulfil nothing; max 0: no bound */
};

struct match_trace {
    struct trace_id id;
    uint64_t start_ns; /* of what is in this part of the store */
    /* All of the trace is here; else it may be told again, and is told when any of its spans fulfils anything. */
    bool is_whole;
    /* Of a whole one, until the callback returns, by span in start order (ties by span id). */
    uint32_t n;
    const uint8_t *marks;    /* bit i: it fulfils filters[i] */
    const uint32_t *parents; /* place of the parent (the first with that id), or MATCH_NO_PARENT */
};

/* As scan_fn; it may raise `match->start_min_ns`. */
typedef int match_fn(void *arg, struct trace_match *match, const struct match_trace *trace);
/* Parts come newest first. */
MUST_USE int store_match(struct store_view *view, struct trace_match *match, match_fn *fn,
                         void *arg, struct scan_cost *ret_cost /* may be NULL */);

/* ---- names and counts ---- */

/* In byte order, each once; strings live in `arena`. */
MUST_USE int store_services(struct store_view *view, struct arena *arena, struct str **ret_names,
                            size_t *ret_n);

struct store_operation {
    struct str service, name;
    uint8_t kind;
    uint64_t span_count;
};
/* Of one service, or of all when `service` is empty; by service, name, kind. */
MUST_USE int store_operations(struct store_view *view, struct str service, struct arena *arena,
                              struct store_operation **ret_operations, size_t *ret_n);

/* How often spans of one service called another: spans whose parent is a span of the other. */
struct store_call {
    struct str caller, callee;
    uint64_t count, errors; /* the second: of them, spans with an error */
};
/* Over all spans that started in the range (as in a scan), without putting traces together; by caller, then
 * callee, in `arena`. ERR_TIMEOUT after `timeout_ns` (0: no bound). `*ret_is_cut` (may be NULL): some
 * calls are missing, because there are more services, or more spans whose parents lie in other parts of the store,
 * than could be looked at. */
MUST_USE int store_calls(struct store_view *view, uint64_t start_min_ns, uint64_t start_max_ns,
                         uint64_t timeout_ns, struct arena *arena, struct store_call **ret_calls,
                         size_t *ret_n, bool *ret_is_cut);

/* What sent spans: resources with the same fingerprint are one. */
struct store_resource {
    uint64_t fingerprint;
    const struct resource *resource;
    uint64_t span_count;
    uint64_t start_first_ns, start_last_ns; /* of its spans in the range */
};
#define STORE_RESOURCES_MAX 100000 /* that are told apart in one call */
struct store_resources {
    uint64_t start_min_ns, start_max_ns; /* of the spans, as in a scan */
    struct str service;                  /* empty: of all */
    uint64_t timeout_ns;                 /* ERR_TIMEOUT after it; 0: no bound */
};
/* The one whose last span started last comes first, then by fingerprint; in `arena`. `*ret_is_cut`: there are more than
 * STORE_RESOURCES_MAX, and which are left out is not defined. */
MUST_USE int store_resources(struct store_view *view, const struct store_resources *which,
                             struct arena *arena, struct store_resource **ret, size_t *ret_n,
                             bool *ret_is_cut);

/* A call that two spans tell of: one asks (client or producer), its child answers (server or consumer). Strings live as
 * long as the view. */
struct store_edge {
    struct trace_id trace_id;
    struct span_id client_id;
    struct store_edge_side {
        struct str service;
        uint64_t duration_ns;
        uint8_t kind, status_code;
    } client, server;
    uint64_t start_ns; /* of the answering span */
};
/* Non-zero ends it, and is what store_edges returns. */
typedef int store_edge_fn(void *arg, const struct store_edge *edge);
/* Those whose answering span started in the range (as in a scan), in no order that is defined, without putting traces
 * together. ERR_TIMEOUT and `*ret_is_cut` as of store_calls. */
MUST_USE int store_edges(struct store_view *view, uint64_t start_min_ns, uint64_t start_max_ns,
                         uint64_t timeout_ns, store_edge_fn *fn, void *arg, bool *ret_is_cut);

struct store_key {
    enum predicate_field field; /* FIELD_RESOURCE_ATTR or FIELD_SPAN_ATTR */
    struct str name;
};
/* The keys of attributes in the parts of the store that have spans which started in the range (as in a
 * scan); those of the resources first, in byte order. When there are more than `most`, which of them is
 * not defined. */
MUST_USE int store_keys(struct store_view *view, uint64_t start_min_ns, uint64_t start_max_ns,
                        size_t most, struct arena *arena, struct store_key **ret_keys,
                        size_t *ret_n);

struct store_stats {
    uint64_t spans, traces_upper_bound; /* a trace in two parts counts twice */
    uint64_t segments, segment_bytes, segment_spans;
    uint64_t log_bytes, memtable_bytes, memtable_spans;
    uint64_t appended_batches, appended_spans; /* since the store was opened */
    uint64_t start_min_ns, start_max_ns;       /* 0 when empty */
    /* Since the store was made. What was written to disk beside the log is sealed + rewritten. */
    uint64_t sealed_bytes, rewritten_bytes;
    uint64_t expired_age_spans, expired_disk_spans, deleted_spans, redacted_spans;
    uint64_t pins;
    /* Segments that are not there any more, or in which a reader met damage; spans of the former; places in
     * the log that were damaged at open. */
    uint64_t damaged_segments, lost_spans, damaged_log_places;
};
void store_stats(struct store *store, struct store_stats *ret_stats);

/* A file of sealed spans. */
struct store_segment {
    struct str name;
    uint64_t spans, bytes;
    uint64_t start_min_ns, start_max_ns; /* of its spans */
    uint64_t sealed_ns;                  /* when its newest spans came to disk; 0: not known */
    bool is_damaged;                     /* a reader met damage in it */
};
/* As they are now, those with the newest spans first; lives in `arena`. */
MUST_USE int store_segments(struct store *store, struct arena *arena,
                            struct store_segment **ret_segments, size_t *ret_n);

/* ---- a directory that nobody has open ---- */

/* Something that is wrong, or (a note) worth knowing. Told in the order it is found. */
struct store_finding {
    const char *file;
    uint64_t offset; /* in the file; 0 where that has no meaning */
    bool is_note;
    const char *text;
};
typedef void store_finding_fn(void *arg, const struct store_finding *finding);

struct store_verified {
    uint64_t segments, segment_spans, log_records, log_spans, bytes;
    uint64_t damaged; /* findings that are no notes */
};

/* Reads every byte of a store, and changes none. 0 also when something is damaged. ERR_BUSY when a process
 * holds the directory, ERR_NOT_FOUND when there is no store, ERR_UNSUPPORTED. */
MUST_USE int store_verify(const char *dir, store_finding_fn *fn, void *arg,
                          struct store_verified *ret_verified, struct error_detail *ret_detail);

/* What takes the room in the segments: a fixed column, an attribute column, an index. */
struct store_column {
    struct str name, type; /* type: "span", "string", "int", ..., "index" */
    uint64_t values, bytes;
};

struct store_description {
    uint64_t segments, spans, traces_upper_bound, segment_bytes, log_bytes, pins;
    uint64_t start_min_ns, start_max_ns; /* 0 when empty */
    uint64_t sealed_bytes, rewritten_bytes, expired_age_spans, expired_disk_spans, deleted_spans;
    uint64_t unread_segments;     /* damaged or missing; not in the columns and services */
    struct store_column *columns; /* largest first */
    size_t n_columns;
    struct store_operation *services; /* by name; only service and span_count */
    size_t n_services;
};

/* Of what is sealed; the log's spans are not in it. Lives in `arena`. Errors as store_verify's. */
MUST_USE int store_describe(const char *dir, struct arena *arena,
                            struct store_description *ret_description,
                            struct error_detail *ret_detail);

#endif
