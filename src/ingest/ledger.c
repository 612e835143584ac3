/* Spans of one request come trace by trace, more or less: neighbours of the same trace become one entry. A
 * request whose spans are all of different traces writes at most LEDGER_REQUEST_ENTRIES_MAX, so that no single
 * one drives out all that is known of the others. Asking looks at every entry (2 MiB): people ask, and rarely. */
#include "ingest/ledger.h"

#include "base/clock.h"

#include <stdlib.h>

enum { LEDGER_REQUEST_ENTRIES_MAX = LEDGER_ENTRIES / 16 };

int ledger_init(struct ledger *ledger)
{
    *ledger = (struct ledger){.skipped = 0};
    for (int i = 0; i < LEDGER_RINGS; i++)
        ledger->rings[i].entries = calloc(LEDGER_ENTRIES, sizeof *ledger->rings[i].entries);
    for (int i = 0; i < LEDGER_RINGS; i++)
        if (!ledger->rings[i].entries) {
            for (int k = 0; k < LEDGER_RINGS; k++)
                free(ledger->rings[k].entries);
            return ERR_NOMEM;
        }
    pthread_mutex_init(&ledger->lock, NULL);
    return 0;
}

void ledger_done(struct ledger *ledger)
{
    if (!ledger->rings[0].entries)
        return;
    pthread_mutex_destroy(&ledger->lock);
    for (int i = 0; i < LEDGER_RINGS; i++)
        free(ledger->rings[i].entries);
    *ledger = (struct ledger){.skipped = 0};
}

static bool is_marked(const uint8_t *marks, size_t i, uint8_t bits)
{
    return !marks || marks[i] & bits;
}

/* Of one request, as it is written. */
struct writing {
    struct ledger *ledger;
    struct ledger_entry *last;
    uint64_t now_ns;
    size_t n;
    uint8_t fate, ring;
};

static struct writing writing(struct ledger *ledger, enum fate fate)
{
    return (struct writing){.ledger = ledger,
                            .now_ns = clock_realtime_ns(),
                            .fate = (uint8_t)fate,
                            .ring = fate == FATE_REDACTED ? LEDGER_REDACTIONS : LEDGER_FATES};
}

/* With the lock held. */
static void write_one(struct writing *w, const struct trace_id *id)
{
    if (w->last && !trace_id_cmp(&w->last->trace_id, id)) {
        w->last->spans++;
        return;
    }
    if (w->n == LEDGER_REQUEST_ENTRIES_MAX) {
        w->ledger->skipped++;
        return;
    }
    uint64_t at = w->ledger->rings[w->ring].written++;
    w->last = &w->ledger->rings[w->ring].entries[at % LEDGER_ENTRIES];
    *w->last =
        (struct ledger_entry){.trace_id = *id, .time_ns = w->now_ns, .spans = 1, .fate = w->fate};
    w->n++;
}

static void put(struct ledger *ledger, const struct span_batch *batch, const uint8_t *marks,
                uint8_t bits, enum fate fate)
{
    struct writing w = writing(ledger, fate);
    pthread_mutex_lock(&ledger->lock);
    for (size_t i = 0; i < batch->n; i++)
        if (is_marked(marks, i, bits))
            write_one(&w, &batch->spans[i].trace_id);
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_put(struct ledger *ledger, const struct span_batch *batch, enum fate fate)
{
    put(ledger, batch, NULL, 0, fate);
}

void ledger_put_marked(struct ledger *ledger, const struct span_batch *batch, const uint8_t *marks,
                       uint8_t bits, enum fate fate)
{
    put(ledger, batch, marks, bits, fate);
}

void ledger_put_ids(struct ledger *ledger, const struct trace_id *ids, size_t n, enum fate fate)
{
    struct writing w = writing(ledger, fate);
    pthread_mutex_lock(&ledger->lock);
    for (size_t i = 0; i < n; i++)
        write_one(&w, &ids[i]);
    pthread_mutex_unlock(&ledger->lock);
}

/* The one written `back` entries ago, 1 the last; NULL: there is none, or not any more. */
static const struct ledger_entry *entry(const struct ledger *ledger, int ring, uint64_t back)
{
    uint64_t written = ledger->rings[ring].written;
    if (back > written || back > LEDGER_ENTRIES)
        return NULL;
    return &ledger->rings[ring].entries[(written - back) % LEDGER_ENTRIES];
}

void ledger_find(struct ledger *ledger, const struct trace_id *id, struct ingest_ledger *ret)
{
    uint64_t back[LEDGER_RINGS] = {1, 1};
    *ret = (struct ingest_ledger){.n = 0};
    pthread_mutex_lock(&ledger->lock);
    uint64_t written = ledger->rings[LEDGER_FATES].written;
    ret->entries = written < LEDGER_ENTRIES ? written : LEDGER_ENTRIES;
    ret->skipped = ledger->skipped;
    /* What was written before the oldest entry is forgotten. */
    if (written > LEDGER_ENTRIES)
        ret->since_ns = entry(ledger, LEDGER_FATES, LEDGER_ENTRIES)->time_ns;
    for (;;) { /* the newest of both first */
        const struct ledger_entry *a = entry(ledger, LEDGER_FATES, back[LEDGER_FATES]),
                                  *b = entry(ledger, LEDGER_REDACTIONS, back[LEDGER_REDACTIONS]);
        bool is_b = b && (!a || b->time_ns > a->time_ns);
        const struct ledger_entry *e = is_b ? b : a;
        if (!e)
            break;
        back[is_b ? LEDGER_REDACTIONS : LEDGER_FATES]++;
        if (trace_id_cmp(&e->trace_id, id))
            continue;
        ret->spans[e->fate] += e->spans;
        if (ret->n < LEDGER_FOUND_MAX)
            ret->found[ret->n++] = *e;
        else
            ret->more = true;
    }
    pthread_mutex_unlock(&ledger->lock);
}
