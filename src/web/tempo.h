/* What the files of Tempo's API share. */
#ifndef WEB_TEMPO_H
#define WEB_TEMPO_H

#include "query/metrics.h"
#include "query/search.h"
#include "web/web_internal.h"

/* `start` and `end`, in seconds; the whole of the last second counts. Where `start` is absent it is
 * `fallback_ns`. False: answered with an error. */
bool tempo_range(struct web_request *q, uint64_t fallback_ns, struct search *search);

/* A value of a field as Tempo says it: kinds and statuses are words, durations text. `scratch` (of the
 * request) is for what has to be written. False: nothing that can be said. `ret_type` may be NULL. */
bool tempo_value(struct web_request *q, const struct traceql_expr *field, const struct value *value,
                 struct value *ret, const char **ret_type);

/* ERR_INVALID says what is wrong and where. */
MUST_USE int tempo_query_parse(struct str text, struct traceql **ret,
                               struct error_detail *ret_detail);
/* "metrics":{...}: what was read for an answer. */
void tempo_cost_json(struct json_writer *w, const struct scan_cost *cost, uint64_t traces_read);
/* "1h30m0s", "1.5ms" */
void tempo_put_duration(struct buf *out, uint64_t ns);

/* ---- search (tempo_search.c) ---- */

/* Which attributes spans come with. */
struct tempo_shown {
    const struct traceql_expr *fields[TRACEQL_SHOWN_MAX];
    struct str keys[TRACEQL_SHOWN_MAX];
    size_t n;
};

struct tempo_searched {
    struct search search;
    struct conditions conditions;
    struct traceql *query; /* NULL: none */
    uint64_t spans_max;    /* of a set, in the answer */
    struct tempo_shown shown;
};
/* False: answered with an error. The query is the caller's to free. */
bool tempo_search_params(struct web_request *q, struct tempo_searched *ret);
/* One attribute of a span, and what by() or an aggregate said of a set. False: there is nothing to say. */
bool tempo_shown_value(struct web_request *q, const struct tempo_shown *shown, size_t i,
                       const struct span *span, const struct traceql_trace *trace,
                       struct traceql_hex *hex, struct value *ret);
bool tempo_label(struct web_request *q, const struct traceql_label *label, struct str *ret_key,
                 struct value *ret);
#define TEMPO_NO_ROOT "<root span not yet received>"

/* ---- completion (tempo_tags.c) ---- */

enum { TEMPO_SCOPES = 6 };
extern const char *const tempo_scopes[TEMPO_SCOPES];

/* ---- the same over gRPC: where a request has a `rpc` ---- */

/* Sends a message (and empties it). False: nobody reads it any more, or there is no memory; what comes after it is not
 * needed. */
bool tempo_send(struct web_request *q, struct buf *message);
/* The answer is whole, and the request gone. */
void tempo_sent(struct web_request *q);
/* How far an answer of several is. */
struct tempo_progress {
    const struct scan_cost *cost;
    uint64_t traces_read;
    unsigned jobs_done, jobs;
};

void tempo_search_stream(struct web_request *q, struct tempo_searched *s);
struct tempo_series;
void tempo_series_stream(struct web_request *q, const struct tempo_series *s);
struct items;
void tempo_tags_stream(struct web_request *q, const struct items *of_scope, bool is_v2);
void tempo_values_stream(struct web_request *q, const struct items *items, bool is_v2);

/* ---- series (tempo_metrics.c) ---- */

struct tempo_metrics {
    struct str query;
    uint64_t start_ns, end_ns, step_ns; /* step 0: a round one */
    size_t exemplars;                   /* unless the query says how many */
    size_t series_max;                  /* in the answer; 0: all */
    bool is_instant;                    /* one value for all of the time */
};

struct tempo_series {
    struct metrics_result result;
    size_t series_max;
    bool is_instant;
};

/* In `arena`. ERR_INVALID also where too much is asked for; else as metrics_run. Fills in the step. */
MUST_USE int tempo_metrics_run(struct store_view *view, struct tempo_metrics *m,
                               uint64_t timeout_ns, struct arena *arena, struct tempo_series *ret,
                               struct error_detail *ret_detail);
/* How many series are answered; whether others are not; and words for that, empty when all are. */
size_t tempo_series_n(const struct tempo_series *s);
bool tempo_series_is_cut(const struct tempo_series *s);
struct str tempo_series_message(const struct tempo_series *s, struct arena *arena);

#define TEMPO_LABELS_MAX (TRACEQL_BY_MAX + 2)
/* As Tempo has them; strings are the series'. Returns how many. */
size_t tempo_series_labels(const struct metrics_series *s, struct metrics_label *ret);
uint64_t tempo_stamp_ms(const struct metrics_result *r, size_t step);

struct tempo_exemplar_labels {
    char trace_id[2 * TRACE_ID_SIZE], span_id[2 * SPAN_ID_SIZE];
    struct metrics_label items[4];
};
size_t tempo_exemplar_labels(const struct metrics_exemplar *x, struct tempo_exemplar_labels *ret);

#endif
