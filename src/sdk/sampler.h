/* Which traces are kept. Asked where a trace begins in this process, on the recording thread: no lock, no allocation, no
 * system call.
 *
 * There is one for the life of the process, and threads may be inside at any time, also across a
 * stop and a start: every field is an atomic that is valid by itself.
 *
 * The rules of the file are replaced while threads read them. A reader says so in its own lane
 * (`reading`, sequentially consistent) before it loads the pointer; who replaces them keeps the old
 * ones until it has seen every lane outside once. */
#ifndef SDK_SAMPLER_H
#define SDK_SAMPLER_H

#include "sdk/lane.h"
#include "sdk/options.h"
#include "sdk/ot_state.h"
#include "sdk/sampling_rules.h"

struct sampler {
    _Atomic uint32_t kind; /* enum sampler_kind */
    _Atomic bool ignores_sender;
    _Atomic uint64_t threshold; /* SAMPLER_RATIO; ot_state.h */
    _Atomic double gap_scale;   /* -1 / ln(1 - its probability) */

    /* SAMPLER_RATE, a leaky bucket that holds a second's worth, at least one: the moment at which it
     * would be empty. A trace fits in when that lies less than `burst_ns` ahead. */
    _Atomic uint64_t interval_ns, burst_ns;
    _Alignas(64) _Atomic uint64_t empty_at;

    _Alignas(64) _Atomic(struct sampling_rules *) rules;
    /* of whoever looks at the file: start, then the drain */
    struct sampling_rules *retired;
    uint64_t looked_ns;
    struct {
        uint64_t inode, size, mtime_ns;
        bool there, again; /* again: it was not read for want of memory */
    } file;
    _Atomic bool told;
};

struct sampling_answer {
    bool keep;
    bool has_threshold; /* else nobody can say how many spans a kept one stands for */
    uint64_t threshold;
};

/* By pug_start: reads the rules file if there is one. `m`: whose threads may be asking, also from before. */
void sampler_start(struct sampler *s, const struct config *config, struct memory *m);
/* Must it be asked at all? False: everything that begins here is kept, senders decide for theirs. */
bool sampler_is_needed(const struct sampler *s);
/* Is the sender's decision kept? */
bool sampler_keeps_senders(const struct sampler *s);
/* By the drain, now and then: takes in a rules file that has changed, frees what nobody reads. */
void sampler_look(struct sampler *s, const struct config *config, struct memory *m);

/* Traces that begin here, where each is kept with the same probability whatever it is (a ratio, never): not every one is
 * asked about, but how many are not kept before the next one that is (a geometric distribution, which has no memory, so
 * that numbers of spans which are no roots may be among them). `random` moves on. UINT64_MAX: all there will be. */
uint64_t sampler_gap(const struct sampler *s, uint64_t threshold, uint64_t *random);
/* The threshold of such a sampler. False: this one must be asked each time. */
static inline bool sampler_threshold(const struct sampler *s, uint64_t *ret)
{
    uint32_t kind = atomic_load_explicit(&s->kind, memory_order_relaxed);
    *ret = kind == SAMPLER_RATIO ? atomic_load_explicit(&s->threshold, memory_order_relaxed)
                                 : OT_RANGE;
    return kind == SAMPLER_RATIO || kind == SAMPLER_ALWAYS_OFF;
}

/* With the lane entered. `values`: of the site's keys, may be NULL. */
void sampler_ask(struct sampler *s, struct lane *lane, uint64_t randomness,
                 const struct pug__site *site, const union pug__value *values,
                 struct sampling_answer *ret);

#endif
