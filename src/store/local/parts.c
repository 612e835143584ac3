#include "store/local/parts.h"

#include <stdlib.h>

#include "base/hash.h"

struct span *span_list_add(struct span_list *list)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 16;
        struct span *spans = arena_array(list->arena, cap, sizeof *spans);
        if (!spans)
            return NULL;
        if (list->n)
            memcpy(spans, list->spans, list->n * sizeof *spans);
        list->spans = spans;
        list->cap = cap;
    }
    struct span *s = &list->spans[list->n++];
    memset(s, 0, sizeof *s);
    return s;
}

struct store_outline *outline_list_add(struct outline_list *list)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 64;
        struct store_outline *items = realloc(list->items, cap * sizeof *items);
        if (!items)
            return NULL;
        list->items = items;
        list->cap = cap;
    }
    return &list->items[list->n++];
}

static uint64_t operation_hash(struct str service, struct str name, uint8_t kind)
{
    return hash_bytes_seed(name.ptr, name.len, hash_str(service) + kind);
}

static int operation_set_grow(struct operation_set *set)
{
    size_t cap = set->cap ? set->cap * 2 : 32;
    struct store_operation *items = realloc(set->items, cap * sizeof *items);
    if (!items)
        return ERR_NOMEM;
    set->items = items;
    uint32_t *slots = calloc(cap * 2, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    free(set->slots);
    set->slots = slots;
    set->cap = cap;
    set->mask = cap * 2 - 1;
    for (size_t i = 0; i < set->n; i++) {
        size_t at = operation_hash(items[i].service, items[i].name, items[i].kind) & set->mask;
        while (slots[at])
            at = (at + 1) & set->mask;
        slots[at] = (uint32_t)i + 1;
    }
    return 0;
}

int operation_set_add(struct operation_set *set, struct str service, struct str name, uint8_t kind,
                      uint64_t count)
{
    if (set->n == set->cap) {
        int err = operation_set_grow(set);
        if (err)
            return err;
    }
    size_t at = operation_hash(service, name, kind) & set->mask;
    for (; set->slots[at]; at = (at + 1) & set->mask) {
        struct store_operation *o = &set->items[set->slots[at] - 1];
        if (o->kind == kind && str_eq(o->service, service) && str_eq(o->name, name)) {
            o->span_count += count;
            return 0;
        }
    }
    struct store_operation o = {.service = arena_str(set->arena, service),
                                .name = arena_str(set->arena, name),
                                .kind = kind,
                                .span_count = count};
    if (!o.service.ptr || !o.name.ptr)
        return ERR_NOMEM;
    set->items[set->n++] = o;
    set->slots[at] = (uint32_t)set->n;
    return 0;
}

void operation_set_done(struct operation_set *set)
{
    free(set->items);
    free(set->slots);
}
