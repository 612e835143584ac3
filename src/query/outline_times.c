/* Where the time of a trace went: its spans by service and operation. */
#include "query/outline.h"

#include "base/hash.h"

#include <stdlib.h>

/* A service and a name as one number. */
static uint64_t operation_key(uint16_t service, uint32_t name)
{
    return (uint64_t)service << 32 | name;
}

static int longest_self_first(const void *a, const void *b)
{
    const struct outline_operation *x = a, *y = b;
    if (x->self_ns != y->self_ns)
        return x->self_ns > y->self_ns ? -1 : 1;
    if (x->spans != y->spans)
        return x->spans > y->spans ? -1 : 1;
    if (x->service != y->service)
        return x->service < y->service ? -1 : 1;
    return (x->name > y->name) - (x->name < y->name);
}

static void operation_add(struct outline_operation *op, const struct outline *o, uint32_t row)
{
    const struct outline_row *r = &o->rows[row];
    op->spans++;
    op->errors += (r->bits & OUTLINE_ERROR) != 0;
    op->self_ns += outline_self_ns(o, row);
    op->duration_ns += r->duration_ns;
    if (op->spans == 1 || r->duration_ns > op->longest_ns) {
        op->longest_ns = r->duration_ns;
        op->longest = row;
    }
}

/* An open table of operations, never more than half full. */
struct table {
    struct outline_operation *list;
    uint32_t *slots; /* operation + 1 */
    size_t n_slots;  /* a power of two */
    uint32_t n;
};

static int table_grow(struct table *t)
{
    size_t n_slots = t->n_slots ? 2 * t->n_slots : 64;
    struct outline_operation *list = realloc(t->list, n_slots / 2 * sizeof *list);
    if (!list)
        return ERR_NOMEM;
    t->list = list;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < t->n; i++) {
        size_t at = hash_mix64(operation_key(list[i].service, list[i].name)) & (n_slots - 1);
        while (slots[at])
            at = (at + 1) & (n_slots - 1);
        slots[at] = i + 1;
    }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n_slots;
    return 0;
}

static int table_add(struct table *t, const struct outline *o, uint32_t row)
{
    const struct outline_row *r = &o->rows[row];
    int err = 2 * (size_t)t->n >= t->n_slots ? table_grow(t) : 0;
    if (err)
        return err;
    size_t at = hash_mix64(operation_key(r->service, r->name)) & (t->n_slots - 1);
    while (t->slots[at] && (t->list[t->slots[at] - 1].service != r->service ||
                            t->list[t->slots[at] - 1].name != r->name))
        at = (at + 1) & (t->n_slots - 1);
    if (!t->slots[at]) {
        t->list[t->n] = (struct outline_operation){.service = r->service, .name = r->name};
        t->slots[at] = ++t->n;
    }
    operation_add(&t->list[t->slots[at] - 1], o, row);
    return 0;
}

int outline_operations(const struct outline *o, struct outline_operation **ret, uint32_t *ret_n)
{
    struct table t = {0};
    int err = 0;
    for (uint32_t row = 0; row < o->n && !err; row++)
        err = table_add(&t, o, row);
    free(t.slots);
    if (err) {
        free(t.list);
        return err;
    }
    if (t.n)
        qsort(t.list, t.n, sizeof *t.list, longest_self_first);
    *ret = t.list;
    *ret_n = t.n;
    return 0;
}
