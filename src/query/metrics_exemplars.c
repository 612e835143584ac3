#include "query/metrics_exemplars.h"

#include <assert.h>
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
        .arena = arena, .most = most, .n_slots = n_slots, .start_ns = start_ns, .end_ns = end_ns};
    if (!most)
        return 0;
    x->slot_ns = (end_ns - start_ns - 1) / n_slots + 1;
    x->in_slot = arena_zalloc(arena, n_slots * sizeof *x->in_slot);
    x->chosen = arena_array(arena, most, sizeof *x->chosen);
    return x->in_slot && x->chosen ? 0 : ERR_NOMEM;
}

bool metrics_exemplars_want(const struct metrics_exemplars *x, uint64_t start_ns)
{
    return x->most && start_ns >= x->start_ns && start_ns < x->end_ns &&
           x->in_slot[(start_ns - x->start_ns) / x->slot_ns] < OFFERED_MAX;
}

static bool has_room(struct metrics_exemplars *x)
{
    if (x->n < x->cap)
        return true;
    size_t cap = x->cap ? 2 * x->cap : 64;
    struct offered_exemplar *offered = arena_array(x->arena, cap, sizeof *offered);
    if (!offered)
        return false;
    if (x->n)
        memcpy(offered, x->offered, x->n * sizeof *offered);
    x->offered = offered;
    x->cap = cap;
    return true;
}

int metrics_exemplars_offer(struct metrics_exemplars *x, const struct metrics_exemplar *span,
                            size_t row, struct arena *out)
{
    if (!metrics_exemplars_want(x, span->start_ns))
        return 0;
    if (!has_room(x))
        return ERR_NOMEM;
    size_t slot = (span->start_ns - x->start_ns) / x->slot_ns;
    struct offered_exemplar *o = &x->offered[x->n];
    *o = (struct offered_exemplar){*span, row, slot};
    o->exemplar.name = arena_str(out, span->name);
    o->exemplar.service = arena_str(out, span->service);
    if (!o->exemplar.name.ptr || !o->exemplar.service.ptr)
        return ERR_NOMEM;
    x->in_slot[slot]++;
    x->n++;
    return 0;
}

static int by_slot_and_id(const void *a, const void *b)
{
    const struct offered_exemplar *x = a, *y = b;
    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    int order = trace_id_cmp(&x->exemplar.trace_id, &y->exemplar.trace_id);
    return order ? order
                 : memcmp(x->exemplar.span_id.bytes, y->exemplar.span_id.bytes, SPAN_ID_SIZE);
}

static bool has_trace(const struct metrics_exemplars *x, const struct trace_id *id)
{
    for (size_t i = 0; i < x->n_chosen; i++)
        if (!trace_id_cmp(&x->chosen[i].exemplar.trace_id, id))
            return true;
    return false;
}

int metrics_exemplars_choose(struct metrics_exemplars *x, size_t n_rows)
{
    uint8_t *of_row = arena_zalloc(x->arena, n_rows + 1);
    if (!of_row)
        return ERR_NOMEM;
    static_assert(METRICS_EXEMPLARS_MAX <= UINT8_MAX, "a byte counts those of a row");
    if (x->n)
        qsort(x->offered, x->n, sizeof *x->offered, by_slot_and_id);
    for (size_t first = 0, end; first < x->n; first = end) {
        for (end = first; end < x->n && x->offered[end].slot == x->offered[first].slot;)
            end++;
        for (int k = 0; k < PER_SLOT && x->n_chosen < x->most; k++) {
            const struct offered_exemplar *best = NULL;
            for (size_t i = first; i < end; i++) {
                const struct offered_exemplar *o = &x->offered[i];
                if ((!best || of_row[o->row] < of_row[best->row]) &&
                    !has_trace(x, &o->exemplar.trace_id))
                    best = o;
            }
            if (!best)
                break;
            x->chosen[x->n_chosen++] = *best;
            of_row[best->row]++;
        }
    }
    return 0;
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
    size_t n = 0, k = 0;
    for (size_t i = 0; i < x->n_chosen; i++)
        n += x->chosen[i].row == row;
    *ret = NULL;
    *ret_n = n;
    if (!n)
        return 0;
    struct metrics_exemplar *list = arena_array(out, n, sizeof *list);
    if (!list)
        return ERR_NOMEM;
    for (size_t i = 0; i < x->n_chosen; i++)
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
