/* How much of its traces a service should keep, as Jaeger's clients are told: from a file in Jaeger's format.
 *
 *   {"default_strategy": {"type": "probabilistic", "param": 0.5,
 *                         "operation_strategies": [{"operation": "/healthz", "type": "probabilistic", "param": 0}]},
 *    "service_strategies": [{"service": "api", "type": "ratelimiting", "param": 20}]}
 *
 * A service that is not there has the default. Operations of the default count for every service that says nothing of them.
 * Source: jaeger, internal/sampling/samplingstrategy/file (format, what has precedence); jaeger-idl,
 * proto/api_v2/sampling.proto (the answer). */
#ifndef WEB_STRATEGIES_H
#define WEB_STRATEGIES_H

#include "base/json.h"

/* Without a file, or without a default in it: all of them. */
#define STRATEGY_RATE_DEFAULT 1.0
#define STRATEGIES_BYTES_MAX ((size_t)4 << 20)
#define STRATEGIES_MAX 10000           /* services; of one, operations */
#define STRATEGY_OPERATIONS_MAX 100000 /* of all, with those that the default lends */

struct operation_strategy {
    struct str operation;
    double rate;
};

struct strategy {
    struct str service;
    bool is_rate_limiting;
    double param; /* from 0 to 1; or traces per second, a whole number */
    /* With operations: what the others have, and the lot; n 0: all are alike. */
    double other_rate;
    struct operation_strategy *operations;
    size_t n_operations;
};

struct strategies;

/* Everything is copied. What is wrong: ERR_INVALID, ERR_TRUNCATED, ERR_TOO_LARGE, with the byte in `ret_detail->position`;
 * ERR_NOMEM. */
MUST_USE int strategies_parse(struct str json, struct strategies **ret,
                              struct error_detail *ret_detail);
/* What holds without a file. */
MUST_USE int strategies_default(struct strategies **ret);
void strategies_free(struct strategies *s); /* NULL is allowed */
const struct strategy *strategies_of(const struct strategies *s, struct str service);
/* One value, as clients poll it. */
void strategy_json(const struct strategy *strategy, struct json_writer *w);
/* SamplingStrategyResponse. */
void strategy_protobuf(const struct strategy *strategy, struct buf *out);

#endif
