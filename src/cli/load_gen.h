/* The synthetic data set of `pugmark load`: the shape of the published Jaeger-on-ClickHouse
 * benchmark (10 services, traces of 10 spans, 11 attributes a span out of 97 keys and 1000 values),
 * drawn from one seed.
 *
 * Every draw adds its self-information, -log2(probability), to a sum. Divided by the spans that is
 * the entropy of the data set, below which no store can go however clever it is:
 *
 *   once a trace   id 128 bits; start: exponential gap, mean 1 ms; root's duration
 *   once a span    id 64 bits; parent uniform among the spans before it; service of 10; operation
 * of 10; start uniform inside the parent's first half; duration uniform up to the parent's rest;
 *                  status: error with probability 1/50; which 11 of 97 keys; 11 values of 1000
 *
 * What follows from these (kind, names, texts, resources) costs nothing. */
#ifndef CLI_LOAD_GEN_H
#define CLI_LOAD_GEN_H

#include "base/arena.h"
#include "model/span.h"

enum {
    LOAD_SERVICES = 10,
    LOAD_OPERATIONS = 10, /* of each service */
    LOAD_KEYS = 97,
    LOAD_VALUES = 1000,
    LOAD_ATTRS = 11, /* of each span */
    LOAD_SPANS_PER_TRACE_MAX = 10000000,
    LOAD_PART_SPANS_MAX = 10000, /* a larger trace comes in several batches of as many spans */
};

struct load_gen;

/* NULL when there is no memory. Traces start at `start_ns` and go on from there. */
struct load_gen *load_gen_new(uint64_t seed, unsigned spans_per_trace, uint64_t start_ns);
void load_gen_free(struct load_gen *gen);

/* The next traces, or the next part of a trace of more than LOAD_PART_SPANS_MAX spans, whatever `traces` says;
 * spans ordered by service as senders would have them. Arrays live in `arena`, texts as long as `gen`. */
MUST_USE int load_gen_batch(struct load_gen *gen, unsigned traces, struct arena *arena,
                            struct span_batch *ret_batch);

/* Self-information of all that was drawn so far, in bits. */
double load_gen_bits(const struct load_gen *gen);

#endif
