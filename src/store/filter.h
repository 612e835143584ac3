/* A predicate made ready: regular expressions compiled, leaves numbered so that an engine can keep
 * an answer per leaf and distinct value. The meaning of a comparison is written here, once. */
#ifndef STORE_FILTER_H
#define STORE_FILTER_H

#include "base/pattern.h"
#include "store/store.h"

struct filter {
    enum predicate_op op;
    enum predicate_field field;
    struct str key;
    struct value value;
    bool untyped;
    bool never; /* a leaf that no value fulfils: a regular expression that does not compile */
    struct pattern *regex;
    unsigned leaf; /* of a comparison: its number, from 0 */
    struct filter *children;
    size_t n_children;
};

/* Borrows the strings of `p` (NULL: PREDICATE_TRUE). An expression that does not compile matches
 * nothing. ERR_NOMEM. */
MUST_USE int filter_new(const struct predicate *p, struct filter **ret_filter,
                        unsigned *ret_leaves);
void filter_free(struct filter *f); /* NULL is allowed */

/* Whether `v` (NULL: absent) fulfils the comparison. */
bool filter_value(const struct filter *leaf, const struct value *v);
bool filter_string(const struct filter *leaf, struct str s);
bool filter_integer(const struct filter *leaf, int64_t n);
/* Of a whole span. */
bool filter_span(const struct filter *f, const struct span *span);

#endif
