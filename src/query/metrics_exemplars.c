#include "query/metrics_exemplars.h"

#include <math.h>
#include <stdlib.h>

enum {
    PER_SLOT = 2,
    OFFERED_MAX = 256, /* in a slot; further ones are not looked at */
};

int metrics_exemplars_init(struct metrics_exemplars *x, size_t most, uint64_t start_ns,
                           uint64_t end_ns, struct arena *arena)
{
    size_t n_slots = most > PER_SLOT ? most / PER_SLOT : 1;
    *x = (struct metrics_exemplars){
        .most = most, .n_slots = n_slots, .start_ns = start_ns, .end_ns = end_ns};
    if (!most)
        return 0;
    x->slot_ns = (end_ns - start_ns - 1) / n_slots + 1;
    x->chosen = arena_array(arena, most, sizeof *x->chosen);
    x->offered = arena_zalloc(arena, n_slots * sizeof *x->offered);
    return x->chosen && x->offered ? 0 : ERR_NOMEM;
}

bool metrics_exemplars_want(const struct metrics_exemplars *x, uint64_t start_ns)
{
    return x->most && start_ns >= x->start_ns && start_ns < x->end_ns &&
           x->offered[(start_ns - x->start_ns) / x->slot_ns] < OFFERED_MAX;
}

static size_t count_of_row(const struct metrics_exemplars *x, size_t row)
{
    size_t n = 0;
    for (size_t i = 0; i < x->n; i++)
        n += x->chosen[i].row == row;
    return n;
}

/* Whether what stands there may give way to a span of a series that has `n` so far. */
static bool may_replace(const struct metrics_exemplars *x, const struct chosen_exemplar *there,
                        size_t row, size_t n)
{
    return there->row != row && count_of_row(x, there->row) > n + 1;
}

/* Where the span may stand: a free place, or that of another in the same slot; of a trace that is there already, its
 * own only. NULL: nowhere. */
static struct chosen_exemplar *
place_for(struct metrics_exemplars *x, const struct metrics_exemplar *span, size_t row, size_t slot)
{
    struct chosen_exemplar *other = NULL;
    size_t in_slot = 0, n = count_of_row(x, row);
    for (size_t i = 0; i < x->n; i++) {
        struct chosen_exemplar *c = &x->chosen[i];
        if (!trace_id_cmp(&c->exemplar.trace_id, &span->trace_id))
            return c->slot == slot && may_replace(x, c, row, n) ? c : NULL;
        if (c->slot != slot)
            continue;
        in_slot++;
        if (may_replace(x, c, row, n))
            other = c;
    }
    return in_slot == PER_SLOT || x->n == x->most ? other : &x->chosen[x->n++];
}

int metrics_exemplars_offer(struct metrics_exemplars *x, const struct metrics_exemplar *span,
                            size_t row, struct arena *out)
{
    if (!metrics_exemplars_want(x, span->start_ns))
        return 0;
    size_t slot = (span->start_ns - x->start_ns) / x->slot_ns;
    x->offered[slot]++;
    struct chosen_exemplar *place = place_for(x, span, row, slot);
    if (!place)
        return 0;
    *place = (struct chosen_exemplar){*span, row, slot};
    place->exemplar.name = arena_str(out, span->name);
    place->exemplar.service = arena_str(out, span->service);
    return place->exemplar.name.ptr && place->exemplar.service.ptr ? 0 : ERR_NOMEM;
}

static int by_time(const void *a, const void *b)
{
    const struct metrics_exemplar *x = a, *y = b;
    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    return trace_id_cmp(&x->trace_id, &y->trace_id);
}

int metrics_exemplars_of(const struct metrics_exemplars *x, size_t row, struct arena *out,
                         struct metrics_exemplar **ret, size_t *ret_n)
{
    size_t n = count_of_row(x, row), k = 0;
    *ret = NULL;
    *ret_n = n;
    if (!n)
        return 0;
    struct metrics_exemplar *list = arena_array(out, n, sizeof *list);
    if (!list)
        return ERR_NOMEM;
    for (size_t i = 0; i < x->n; i++)
        if (x->chosen[i].row == row)
            list[k++] = x->chosen[i].exemplar;
    qsort(list, n, sizeof *list, by_time);
    *ret = list;
    return 0;
}

void metrics_exemplars_settle(struct metrics_result *set, bool all)
{
    for (size_t i = 0; i < set->n; i++) {
        struct metrics_series *s = &set->series[i];
        size_t kept = 0;
        for (size_t k = 0; k < s->n_exemplars; k++) {
            struct metrics_exemplar x = s->exemplars[k];
            double sample = s->samples[(x.start_ns - set->start_ns) / set->step_ns];
            if (isnan(sample))
                continue;
            if (all || isnan(x.value))
                x.value = sample;
            s->exemplars[kept++] = x;
        }
        s->n_exemplars = kept;
    }
}
