/* What became of spans that were not stored as they came, by trace: "where did my span go?".
 *
 * A ring: the newest LEDGER_ENTRIES fates are known, older ones only to the counters. Nothing is written
 * for a span to which nothing happened. What rules of redaction changed has a ring of its own: it may be every span.
 * All functions are thread-safe. */
#ifndef INGEST_LEDGER_H
#define INGEST_LEDGER_H

#include <pthread.h>

#include "ingest/ingest.h"

enum { LEDGER_FATES, LEDGER_REDACTIONS, LEDGER_RINGS };

struct ledger {
    pthread_mutex_t lock;
    struct {
        struct ledger_entry *entries; /* LEDGER_ENTRIES; used as they are needed */
        uint64_t written;             /* ever; the next goes to this modulo LEDGER_ENTRIES */
    } rings[LEDGER_RINGS];
    uint64_t skipped;
};

MUST_USE int ledger_init(struct ledger *ledger);
void ledger_done(struct ledger *ledger);

/* All spans of the batch had this fate. */
void ledger_put(struct ledger *ledger, const struct span_batch *batch, enum fate fate);
/* Spans of these traces had it: one each. */
void ledger_put_ids(struct ledger *ledger, const struct trace_id *ids, size_t n, enum fate fate);
/* Those spans had it of which `marks` has one of `bits`. */
void ledger_put_marked(struct ledger *ledger, const struct span_batch *batch, const uint8_t *marks,
                       uint8_t bits, enum fate fate);

void ledger_find(struct ledger *ledger, const struct trace_id *id, struct ingest_ledger *ret);

#endif
