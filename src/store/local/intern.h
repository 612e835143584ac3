/* Distinct byte strings, numbered from 0 in the order they came.
 *
 * One writer, any number of readers, no lock:
 * - A slot of the table is one 64-bit word, (hash << 32 | number + 1), stored with release order
 *   after the entry is complete; its partner is the acquire load in intern_find.
 * - When the table grows, the new one is filled first and then published; the old one stays until
 *   intern_done, so that a reader may finish in it. A reader that looks for what it was told of
 *   (through something published later than the entry) finds it in whichever it loads. */
#ifndef STORE_LOCAL_INTERN_H
#define STORE_LOCAL_INTERN_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/hash.h"
#include "store/local/steps.h"

#define INTERN_NONE UINT32_MAX

struct intern_table {
    struct intern_table *older;
    uint32_t mask;
    _Atomic uint64_t slots[];
};

struct intern {
    struct arena *arena; /* the bytes live here; lent */
    uint64_t seed;       /* secret: the strings come from outside */
    _Atomic(struct intern_table *) table;
    struct steps entries; /* struct str */
    _Atomic uint32_t n;   /* stored by the writer only */
    size_t table_bytes;
};

void intern_init(struct intern *in, struct arena *arena);
void intern_done(struct intern *in);
/* The number of `s`, which is added when it is new; INTERN_NONE when there is no memory. */
uint32_t intern_add(struct intern *in, struct str s);
/* INTERN_NONE when it is not there. */
uint32_t intern_find(const struct intern *in, struct str s);

static inline uint32_t intern_count(const struct intern *in)
{
    return atomic_load_explicit(&in->n, memory_order_acquire);
}
static inline struct str intern_get(const struct intern *in, uint32_t i)
{
    return *(const struct str *)steps_at(&in->entries, sizeof(struct str), i);
}
static inline size_t intern_bytes(const struct intern *in)
{
    return in->table_bytes + intern_count(in) * sizeof(struct str);
}

#endif
