/* Erasing: what somebody wants gone from the store, spans or values in them. erase.c has the design. */
#ifndef STORE_LOCAL_ERASE_H
#define STORE_LOCAL_ERASE_H

#include "base/buf.h"
#include "store/local/engine.h"

/* docs/formats/erasure.md. ERR_TOO_LARGE: more than it can say; ERR_NOMEM. */
MUST_USE int erase_encode(const struct store_erase *e, struct buf *out);
/* What it points to lives in `arena`, or in `body`. ERR_CORRUPT, ERR_UNSUPPORTED, ERR_NOMEM. */
MUST_USE int erase_decode(struct str body, struct arena *arena, struct store_erase *ret);

/* The spans that it is about: what `e` says, made ready; `e` is lent. */
struct erase_choice {
    const struct store_erase *e;
    struct filter *filter;
    unsigned leaves;
    struct erase_span *spans; /* in order; NULL: none are listed */
};
/* To be ended in any case. */
MUST_USE int erase_choice_init(struct erase_choice *c, const struct store_erase *e);
void erase_choice_done(struct erase_choice *c);
bool erase_choice_has(const struct erase_choice *c, const struct span *s);

/* At open: how many are not done. */
MUST_USE int erasures_open(struct store *st);
/* The keeper's: does all that is not done. */
MUST_USE int erasures_run(struct store *st);

#endif
