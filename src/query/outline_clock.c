/* How far the clocks of the services of one trace are apart, as far as its own calls prove it.
 *
 * A span of one service under a span of another is a call: what is called begins after the call and, when somebody
 * waits for it (a server span under a client's), ends before it. With the clock of B ahead of that of A by t, the
 * call [c1, c2] on A's clock and the work [s1, s2] on B's say
 *
 *     s2 - c2 <= t <= s1 - c1
 *
 * Each call gives such bounds; those of a pair of services are their intersection. Where it holds 0 nothing is touched:
 * what is possible is not called wrong. Where it does not, the middle is taken, which is off by half the width at most; of
 * bounds on one side alone the bound itself. Shifts are added up from the root's service outwards, so that a service that
 * agrees with its caller moves with it. Where the bounds contradict each
 * other (several hosts under one name, a clock that was set, spans that are not calls) nothing can be said, and nothing
 * is shifted. A producer does not wait for a consumer: such a pair has the upper bound alone.
 *
 * Jaeger's adjuster (model/adjuster/clockskew.go there) moves each span with its subtree to the middle of its parent:
 * one sample, and delays that are taken for equal; here all calls of a pair are used and the answer has an error bar. */
#include "query/outline.h"

#include <stdlib.h>

/* What is known of the clock of `to` less that of `from`. */
struct pair {
    uint16_t from, to;
    int64_t low, high;
    uint32_t calls;
};

struct pairs {
    struct pair *items;
    uint32_t n, capacity;
    uint32_t *slots;
    uint32_t mask;
};

#define UNBOUNDED (INT64_MAX / 4)

static struct pair *pair_get(struct pairs *p, uint16_t from, uint16_t to)
{
    uint32_t at = ((uint32_t)from * 2654435761u + to * 40503u) & p->mask;
    for (; p->slots[at]; at = (at + 1) & p->mask) {
        struct pair *pair = &p->items[p->slots[at] - 1];
        if (pair->from == from && pair->to == to)
            return pair;
    }
    if (p->n == p->capacity)
        return NULL; /* CLOCK_PAIRS_MAX: the others say nothing */
    p->items[p->n] = (struct pair){.from = from, .to = to, .low = -UNBOUNDED, .high = UNBOUNDED};
    p->slots[at] = ++p->n;
    return &p->items[p->n - 1];
}

/* Differences of times in a trace; what is not of this world is no evidence. */
static bool is_sane(uint64_t ns)
{
    return ns < UNBOUNDED / 4;
}

static void call_count(struct pairs *pairs, const struct outline_row *call,
                       const struct outline_row *work)
{
    uint64_t c1 = call->start_ns, c2 = c1 + call->duration_ns;
    uint64_t s1 = work->start_ns, s2 = s1 + work->duration_ns;
    bool waits = call->kind == SPAN_KIND_CLIENT && work->kind == SPAN_KIND_SERVER;
    bool sends = call->kind == SPAN_KIND_PRODUCER && work->kind == SPAN_KIND_CONSUMER;
    if ((!waits && !sends) || call->service == work->service || !is_sane(c2) || !is_sane(s2))
        return;
    /* A call that was given up while the work went on bounds nothing from below. */
    if (waits && work->duration_ns > call->duration_ns)
        waits = false;
    struct pair *p = pair_get(pairs, call->service, work->service);
    if (!p)
        return;
    int64_t high = (int64_t)s1 - (int64_t)c1, low = (int64_t)s2 - (int64_t)c2;
    p->calls++;
    p->high = high < p->high ? high : p->high;
    if (waits)
        p->low = low > p->low ? low : p->low;
}

static int64_t shift_of(int64_t low, int64_t high)
{
    if (low <= 0 && high >= 0)
        return 0;
    if (low > -UNBOUNDED && high < UNBOUNDED)
        return low + (high - low) / 2;
    return low > 0 ? low : high;
}

/* Breadth first from the root's service: the bounds of a pair, moved by what its other end got. */
static void offsets_choose(const struct pairs *pairs, struct outline_clock *clocks, uint32_t n,
                           uint16_t root, uint16_t *queue)
{
    uint32_t first = 0, last = 0;
    clocks[root].is_known = true;
    queue[last++] = root;
    while (first < last) {
        uint16_t at = queue[first++];
        for (uint32_t i = 0; i < pairs->n; i++) {
            const struct pair *p = &pairs->items[i];
            if (p->from != at && p->to != at)
                continue;
            uint16_t other = p->from == at ? p->to : p->from;
            struct outline_clock *c = &clocks[other];
            int64_t low = p->from == at ? p->low : -p->high,
                    high = p->from == at ? p->high : -p->low;
            if (p->low > p->high) {
                c->is_contradicted = true;
                continue;
            }
            if (c->is_known)
                continue;
            int64_t near = clocks[at].ahead_ns;
            *c = (struct outline_clock){
                .is_known = true,
                .has_bounds = p->low > -UNBOUNDED && p->high < UNBOUNDED,
                .ahead_ns = near + shift_of(low, high),
                .low_ns = near + low,
                .high_ns = near + high,
                .relative_to = at,
                .calls = p->calls,
            };
            if (last < n)
                queue[last++] = other;
        }
    }
}

int outline_clocks(const struct outline *o, struct outline_clock **ret)
{
    enum { SLOTS = 2 * OUTLINE_CLOCK_PAIRS_MAX };
    struct pairs pairs = {.items = malloc(OUTLINE_CLOCK_PAIRS_MAX * sizeof *pairs.items),
                          .capacity = OUTLINE_CLOCK_PAIRS_MAX,
                          .slots = calloc(SLOTS, sizeof *pairs.slots),
                          .mask = SLOTS - 1};
    struct outline_clock *clocks = calloc(o->n_services, sizeof *clocks);
    uint16_t *queue = malloc(o->n_services * sizeof *queue);
    int err = pairs.items && pairs.slots && clocks && queue ? 0 : ERR_NOMEM;
    if (!err) {
        for (uint32_t i = 0; i < o->n; i++)
            if (o->rows[i].parent != OUTLINE_NONE)
                call_count(&pairs, &o->rows[o->rows[i].parent], &o->rows[i]);
        offsets_choose(&pairs, clocks, o->n_services, outline_root(o)->service, queue);
        *ret = clocks;
        clocks = NULL;
    }
    free(pairs.items);
    free(pairs.slots);
    free(clocks);
    free(queue);
    return err;
}
