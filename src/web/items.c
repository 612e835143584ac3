#include "web/items.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

void items_init(struct items *items, struct arena *arena, size_t most)
{
    *items = (struct items){.arena = arena, .most = most};
}

static uint32_t *slot_of(const struct items *items, const char *kind, struct str text)
{
    size_t mask = 2 * items->capacity - 1;
    size_t i = hash_bytes_seed(text.ptr, text.len, hash_secret()) & mask;
    for (; items->slots[i]; i = (i + 1) & mask) {
        const struct item *item = &items->list[items->slots[i] - 1];
        if (!strcmp(item->kind, kind) && str_eq(item->text, text))
            break;
    }
    return &items->slots[i];
}

static bool items_grow(struct items *items)
{
    struct item *old = items->list;
    size_t capacity = items->capacity ? 2 * items->capacity : 64;
    items->list = arena_array(items->arena, capacity, sizeof *items->list);
    items->slots = arena_zalloc(items->arena, 2 * capacity * sizeof *items->slots);
    items->capacity = capacity;
    if (!items->list || !items->slots)
        return false;
    for (size_t i = 0; i < items->n; i++) {
        items->list[i] = old[i];
        *slot_of(items, old[i].kind, old[i].text) = (uint32_t)i + 1;
    }
    return true;
}

void items_add(struct items *items, const char *kind, struct str text)
{
    if (items->n == items->most || items->failed || !text.len || text.len > ITEM_BYTES_MAX)
        return;
    if (items->n == items->capacity && !items_grow(items)) {
        items->failed = true;
        return;
    }
    uint32_t *slot = slot_of(items, kind, text);
    if (*slot)
        return;
    struct str kept = arena_str(items->arena, text);
    items->failed = !kept.ptr;
    if (items->failed)
        return;
    items->list[items->n++] = (struct item){kind, kept};
    *slot = (uint32_t)items->n;
}

static int item_order(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = strcmp(x->kind, y->kind);
    return order ? order : str_cmp(x->text, y->text);
}

void items_sort(struct items *items, uint64_t most)
{
    if (items->n)
        qsort(items->list, items->n, sizeof *items->list, item_order);
    if (items->n > most)
        items->n = (size_t)most;
}
