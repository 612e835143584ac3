/* Comparing and calculating, as TraceQL does. Inside src/query only. */
#ifndef QUERY_TRACEQL_EVAL_H
#define QUERY_TRACEQL_EVAL_H

#include "query/traceql.h"

/* Whether `a op b` holds. Ints and doubles are numbers; anything else compares with its own type
 * only, and what does not compare fulfils nothing, not even `!=`. Of an array some element must; of
 * "!=" and "!~" none may be equal or match. `regex` is that of the regular
 * expression operators, which do not look at `b`. */
bool traceql_compare(enum traceql_op op, const struct value *a, const struct value *b,
                     struct pattern *regex);

/* False when an operand is no number or there is no result (x / 0). `a` NULL: the sign of `b`.
 * Whole numbers stay whole where the result is whole and fits. */
bool traceql_arithmetic(enum traceql_op op, const struct value *a, const struct value *b,
                        struct value *ret);

#endif
