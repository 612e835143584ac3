/* Keys come from where they stand once: a memtable has them as columns and resources, a segment in
 * its list of columns and its resources. No row group is read. */
#include "store/local/keys.h"

#include <stdlib.h>

#include "store/local/codec.h"
#include "store/local/segment_read.h"

void key_set_init(struct key_set *set, size_t most)
{
    *set = (struct key_set){.most = most};
    intern_init(&set->spans, &set->arena);
    intern_init(&set->resources, &set->arena);
}

void key_set_done(struct key_set *set)
{
    intern_done(&set->spans);
    intern_done(&set->resources);
    arena_done(&set->arena);
}

static bool is_full(const struct key_set *set)
{
    return (size_t)intern_count(&set->spans) + intern_count(&set->resources) >= set->most;
}

static int key_add(struct key_set *set, struct intern *keys, struct str key)
{
    if (is_full(set))
        return 0;
    return intern_add(keys, key) == INTERN_NONE ? ERR_NOMEM : 0;
}

static int resource_keys(struct key_set *set, const struct resource *resource)
{
    int err = 0;
    for (uint32_t i = 0; i < resource->attrs.n && !err; i++)
        err = key_add(set, &set->resources, resource->attrs.items[i].key);
    return err;
}

/* The tables may hold what rows beyond the snapshot, or such as were taken back, brought; so the rows
 * say what is used. */
int memtable_keys(const struct memtable *mt, uint32_t rows, struct key_set *set)
{
    struct arena scratch = {0};
    uint32_t n_columns = atomic_load_explicit(&mt->n_columns, memory_order_acquire);
    uint32_t n_resources = intern_count(&mt->resources);
    uint8_t *columns = calloc(n_columns + (size_t)1, 1),
            *resources = calloc(n_resources + (size_t)1, 1);
    int err = columns && resources ? 0 : ERR_NOMEM;
    for (uint32_t i = 0; i < rows && !err; i++) {
        const struct mem_row *row = memtable_row(mt, i);
        resources[row->resource] = 1;
        for (uint32_t k = 0; k < row->n_cells; k++)
            columns[row->cells[k].column] = 1;
    }
    for (uint32_t i = 0; i < n_columns && !err; i++)
        if (columns[i])
            err = key_add(set, &set->spans, intern_get(&mt->keys, memtable_column(mt, i)->key));
    for (uint32_t i = 0; i < n_resources && !err; i++) {
        if (!resources[i])
            continue;
        struct resource resource;
        arena_reset(&scratch);
        struct codec_reader r = codec_reader(intern_get(&mt->resources, i), &scratch);
        codec_resource(&r, &resource);
        err = codec_finish(&r);
        if (!err)
            err = resource_keys(set, &resource);
    }
    arena_done(&scratch);
    free(columns);
    free(resources);
    return err;
}

int segment_keys(struct segment *seg, struct key_set *set)
{
    int err = segment_columns(seg);
    if (!err)
        err = segment_operations_read(seg);
    for (uint32_t i = 0; !err && i < seg->n_columns; i++) {
        struct str key;
        err = segment_string(seg, seg->columns[i].key, &key);
        if (!err)
            err = key_add(set, &set->spans, key);
    }
    for (uint32_t i = 0; !err && i < seg->n_resources; i++) {
        const struct resource *resource;
        err = segment_resource(seg, i, &resource);
        if (!err)
            err = resource_keys(set, resource);
    }
    return err;
}
