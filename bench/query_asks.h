/* What bench/query asks, in the words of each store, and what is right: counted while the same spans are drawn
 * again, trace by trace. */
#ifndef BENCH_QUERY_ASKS_H
#define BENCH_QUERY_ASKS_H

#include "base/buf.h"
#include "cli/load_gen.h"

enum ask_class {
    ASK_TRACE,
    ASK_SERVICE,
    ASK_OPERATION,
    ASK_DURATION,
    ASK_TIME,
    ASK_ATTRIBUTE,
    ASK_TWO_ATTRIBUTES,
    ASK_ABSENT,
    ASK_STRUCTURE,
    ASK_STRUCTURE_RARE,
    ASK_STRUCTURE_ATTRIBUTES,
    ASK_RATE,
    ASK_CLASSES
};

enum { ASKS = 25, ASK_LIMIT = 20, ASK_SPANS_PER_TRACE = 10 };

/* Conditions of one span; those that are not set hold. Texts are the generator's. */
struct ask_side {
    const char *service, *operation;
    const char *keys[2], *values[2];
    uint64_t duration_min_ns;
    bool error;
};

struct ask_trace {
    struct trace_id id;
    uint64_t start_ns, matched;
};

struct ask {
    struct ask_side of, above; /* above: `{above} >> {of}` */
    bool has_above;
    uint64_t from_ns, to_ns; /* of the span's start; 0: everything */
    uint64_t step_ns;
    struct trace_id id;
    /* What is right: the newest traces. */
    struct ask_trace best[ASK_LIMIT];
    size_t n_best;
};

struct asks {
    struct ask of[ASK_CLASSES][ASKS];
    struct arena texts;
    uint64_t start_ns, end_ns; /* of all spans' starts */
    uint64_t per_service[LOAD_SERVICES];
    const char *services[LOAD_SERVICES];
};

const char *ask_class_name(enum ask_class c);
/* Draws the data set: questions from its first traces, and the right answers from all. 0; ERR_NOMEM. */
MUST_USE int asks_make(struct asks *asks, uint64_t seed, uint64_t start_ns, uint64_t traces);
void asks_done(struct asks *asks);

/* The path of our own API. */
void ask_path(const struct asks *asks, enum ask_class c, const struct ask *a, struct buf *out);
/* Whether our answer is right; else `problem` says what is not. */
bool ask_check(const struct asks *asks, enum ask_class c, const struct ask *a, struct str answer,
               char *problem, size_t size);
/* The same question in ClickHouse's SQL. */
void ask_sql(const struct asks *asks, enum ask_class c, const struct ask *a, struct buf *out);

#endif
