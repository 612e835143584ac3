#include "store/local/intern.h"

enum { SLOTS_MIN = 128 };

void intern_init(struct intern *in, struct arena *arena)
{
    *in = (struct intern){.arena = arena, .seed = hash_secret()};
}

void intern_done(struct intern *in)
{
    for (struct intern_table *t = atomic_load(&in->table); t;) {
        struct intern_table *older = t->older;
        free(t);
        t = older;
    }
    steps_done(&in->entries);
}

/* At most two thirds full. */
static struct intern_table *table_grown(struct intern *in, struct intern_table *old)
{
    uint32_t slots = old ? (old->mask + 1) * 2 : SLOTS_MIN;
    size_t bytes = sizeof *old + slots * sizeof old->slots[0];
    struct intern_table *t = slots ? calloc(1, bytes) : NULL;
    if (!t)
        return NULL;
    t->mask = slots - 1;
    t->older = old;
    for (uint32_t i = 0; old && i <= old->mask; i++) {
        uint64_t slot = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        if (!slot)
            continue;
        uint32_t at = (uint32_t)(slot >> 32) & t->mask;
        while (atomic_load_explicit(&t->slots[at], memory_order_relaxed))
            at = (at + 1) & t->mask;
        atomic_store_explicit(&t->slots[at], slot, memory_order_relaxed);
    }
    in->table_bytes += bytes;
    atomic_store_explicit(&in->table, t, memory_order_release);
    return t;
}

static inline uint64_t load8(const char *p)
{
    uint64_t n;
    memcpy(&n, p, sizeof n);
    return n;
}

static inline uint32_t load4(const char *p)
{
    uint32_t n;
    memcpy(&n, p, sizeof n);
    return n;
}

/* As str_eq, for texts that are short and nearly always the same: a call of memcmp costs more than
 * the comparison. */
static inline bool same(struct str a, struct str b)
{
    const char *x = a.ptr, *y = b.ptr;
    size_t n = a.len;
    if (n != b.len)
        return false;
    if (n >= 8) {
        uint64_t differ = load8(x + n - 8) ^ load8(y + n - 8);
        for (size_t i = 0; i + 8 < n && !differ; i += 8)
            differ = load8(x + i) ^ load8(y + i);
        return !differ;
    }
    if (n >= 4)
        return load4(x) == load4(y) && load4(x + n - 4) == load4(y + n - 4);
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return false;
    return true;
}

uint32_t intern_add(struct intern *in, struct str s)
{
    uint32_t n = atomic_load_explicit(&in->n, memory_order_relaxed);
    struct intern_table *t = atomic_load_explicit(&in->table, memory_order_relaxed);
    if (!t || n >= (t->mask + 1) / 3 * 2) {
        t = n < STEPS_MAX ? table_grown(in, t) : NULL;
        if (!t)
            return INTERN_NONE;
    }
    uint32_t hash = (uint32_t)hash_bytes_seed(s.ptr, s.len, in->seed);
    uint32_t at = hash & t->mask;
    for (uint64_t slot; (slot = atomic_load_explicit(&t->slots[at], memory_order_relaxed));
         at = (at + 1) & t->mask)
        if ((uint32_t)(slot >> 32) == hash && same(intern_get(in, (uint32_t)slot - 1), s))
            return (uint32_t)slot - 1;

    struct str *entry = steps_room(&in->entries, sizeof *entry, n);
    char *copy = entry ? arena_alloc(in->arena, s.len) : NULL;
    if (!copy)
        return INTERN_NONE;
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    *entry = (struct str){copy, s.len};
    atomic_store_explicit(&in->n, n + 1, memory_order_release);
    atomic_store_explicit(&t->slots[at], (uint64_t)hash << 32 | (n + 1), memory_order_release);
    return n;
}

uint32_t intern_find(const struct intern *in, struct str s)
{
    const struct intern_table *t = atomic_load_explicit(&in->table, memory_order_acquire);
    if (!t)
        return INTERN_NONE;
    uint32_t hash = (uint32_t)hash_bytes_seed(s.ptr, s.len, in->seed);
    uint32_t at = hash & t->mask;
    for (uint64_t slot; (slot = atomic_load_explicit(&t->slots[at], memory_order_acquire));
         at = (at + 1) & t->mask)
        if ((uint32_t)(slot >> 32) == hash && same(intern_get(in, (uint32_t)slot - 1), s))
            return (uint32_t)slot - 1;
    return INTERN_NONE;
}
