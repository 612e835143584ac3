/* The requests of Tempo's StreamingQuerier.
 * Source: grafana/tempo, pkg/tempopb/tempo.proto. */
#ifndef WIRE_TEMPO_QUERY_H
#define WIRE_TEMPO_QUERY_H

#include "base/arena.h"
#include "model/span.h"

#define TEMPO_TAGS_MAX 100

struct tempo_tag {
    struct str key, value;
};

/* What any of the requests has; strings borrow from the bytes, numbers are 0 when they are not there. */
struct tempo_request {
    struct str query, scope, tag_name;
    struct tempo_tag *tags;
    size_t n_tags;
    uint64_t start, end; /* seconds; of metrics: nanoseconds */
    uint64_t step_ns;
    uint32_t duration_min_ms, duration_max_ms;
    uint32_t limit, spans_per_set, exemplars, series_max;
};

enum tempo_request_type {
    TEMPO_SEARCH,
    TEMPO_TAGS,
    TEMPO_TAG_VALUES,
    TEMPO_QUERY_RANGE,
    TEMPO_QUERY_INSTANT,
};

/* ERR_TRUNCATED, ERR_INVALID (also text that is not UTF-8, and times no clock shows), ERR_TOO_LARGE (TEMPO_TAGS_MAX), ERR_NOMEM. */
MUST_USE int tempo_request_decode(enum tempo_request_type type, struct str bytes,
                                  struct arena *arena, struct tempo_request *ret,
                                  struct error_detail *ret_detail);

#endif
