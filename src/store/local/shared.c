#include "store/local/shared.h"

#include <string.h>

int hash_list_add(struct hash_list *list, uint32_t hash)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 1024;
        uint32_t *items = realloc(list->items, cap * sizeof *items);
        if (!items)
            return ERR_NOMEM;
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = hash;
    return 0;
}

/* By 11 bits at a time, the lowest first. */
int hash_list_sort(struct hash_list *list, struct hash_list *room)
{
    enum { BITS = 11, BUCKETS = 1 << BITS };
    if (room->cap < list->n) {
        uint32_t *items = realloc(room->items, list->n * sizeof *items);
        if (!items)
            return ERR_NOMEM;
        room->items = items;
        room->cap = list->n;
    }
    uint32_t *from = list->items, *to = room->items;
    for (unsigned shift = 0; shift < 32; shift += BITS) {
        uint32_t counts[BUCKETS] = {0}, at = 0;
        for (size_t i = 0; i < list->n; i++)
            counts[from[i] >> shift & (BUCKETS - 1)]++;
        for (unsigned b = 0; b < BUCKETS; b++) {
            uint32_t n = counts[b];
            counts[b] = at;
            at += n;
        }
        for (size_t i = 0; i < list->n; i++)
            to[counts[from[i] >> shift & (BUCKETS - 1)]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    /* Three passes: what is sorted lies in the room. */
    size_t cap = list->cap;
    room->items = list->items;
    list->items = from;
    list->cap = room->cap;
    room->cap = cap;
    return 0;
}

int shared_add(struct shared_traces *s, uint32_t hash)
{
    struct hash_list list = {s->hashes, s->n, s->cap};
    int err = hash_list_add(&list, hash);
    s->hashes = list.items;
    s->n = list.n;
    s->cap = list.cap;
    return err;
}

int shared_finish(struct shared_traces *s)
{
    struct hash_list list = {s->hashes, s->n, s->cap}, room = {0};
    int err = s->n ? hash_list_sort(&list, &room) : 0;
    free(room.items);
    s->hashes = list.items;
    s->cap = list.cap;
    memset(s->first, 0, sizeof s->first);
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        uint32_t hash = s->hashes[i];
        s->first[hash >> 6 & 1023] |= UINT64_C(1) << (hash & 63);
        if (!n || s->hashes[n - 1] != hash)
            s->hashes[n++] = hash;
    }
    s->n = n;
    return err;
}

void shared_free(struct shared_traces *s)
{
    if (s)
        free(s->hashes);
    free(s);
}
