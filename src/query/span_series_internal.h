/* What span_series.c (names, series, answers) and span_graph.c (edges of the service graph) share. */
#ifndef QUERY_SPAN_SERIES_INTERNAL_H
#define QUERY_SPAN_SERIES_INTERNAL_H

#include "query/span_series.h"

#define BUCKETS_MAX 17 /* without the last, +Inf */
#define ENTITY_TEXTS_MAX 4

/* Numbers of one kind that spans add to: cells by place. */
struct tally {
    uint64_t first_ns; /* of the earliest; UINT64_MAX: none */
    double *count, *sum;
    double *buckets[BUCKETS_MAX];
};

/* Of an edge of the service graph: all calls, as long as they are for the client; those that failed; all, as long as
 * they are for the server. Of spans there is the first only. */
enum { TALLY_MAIN, TALLY_FAILED, TALLY_SERVER, TALLIES };

/* What shares its labels but the name of the metric and `le`. */
struct entity {
    struct str texts[ENTITY_TEXTS_MAX]; /* values of the family's labels, in their order */
    uint64_t hash;
    struct tally tallies[TALLIES];
};

struct family;

/* Entities of a family while they are counted. */
struct gatherer {
    struct span_series *source;
    const struct family *family;
    const struct promql_select *select;
    struct arena *arena;
    struct error_detail *detail;
    bool with_counts, with_histograms;
    struct entity *entities;
    size_t n, cap;
    uint32_t *slots; /* entity + 1 */
    size_t mask;
    size_t cells_left;
    unsigned until_clock;
    /* The place found last holds for starts in [from, to). */
    uint64_t place_from_ns, place_to_ns;
    size_t place;
};

/* The latest start that matters: of a span that makes a series be born at the last instant. */
uint64_t gatherer_end_ns(const struct gatherer *g);
MUST_USE int gatherer_clock(struct gatherer *g);
/* The entity of these texts, which are borrowed: they must live as long as the arena. */
MUST_USE int gatherer_entity(struct gatherer *g, const struct str *texts, struct entity **ret);
/* Counts at `start_ns`, with what was measured where the histogram is asked for. */
MUST_USE int gatherer_add(struct gatherer *g, struct tally *t, uint64_t start_ns, double count,
                          bool measured, uint64_t duration_ns);

/* Edges of the service graph (span_graph.c). */
MUST_USE int span_graph_gather(struct gatherer *g);

#endif
