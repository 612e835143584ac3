/* The traces of a segment: finding one by its id, its rows, its summary. */
#include "store/local/ids.h"
#include "store/local/match.h"
#include "store/local/segment_read.h"

#include <stdlib.h>

/* ---- finding a trace ---- */

static int traces_read(struct segment *seg, const struct segment_trace_block *b,
                       struct traces_kept *kept)
{
    struct codec_reader r;
    int err = segment_block(seg, b->ref, &kept->arena, &r);
    if (err)
        return err;
    struct traces_read t = {.block = b};
    t.ids = seg->derived_ids ? ids_get_traces(&r, b->n)
                             : codec_bytes(&r, (size_t)b->n * TRACE_ID_SIZE);
    t.n = stream_sized(&r, b->n);
    t.start = stream_sized(&r, b->n);
    t.first_row = r.err ? NULL : arena_array(&kept->arena, (size_t)b->n + 1, sizeof *t.first_row);
    if (!r.err && !t.first_row)
        return ERR_NOMEM;
    uint64_t rows = 0;
    for (uint32_t i = 0; !r.err && i < b->n; i++) {
        t.first_row[i] = b->first_row + (uint32_t)rows;
        rows += t.n[i];
        if (t.n[i] == 0 || rows > b->n_rows)
            r.err = ERR_CORRUPT;
    }
    if (r.err || rows != b->n_rows)
        return segment_fail(seg, r.err ? r.err : ERR_CORRUPT, b->ref.offset, "a block of traces");
    t.first_row[b->n] = b->first_row + b->n_rows;
    t.rest = r;
    kept->traces = t;
    return 0;
}

int segment_traces(struct segment *seg, const struct segment_trace_block *b,
                   struct traces_read **ret)
{
    struct traces_kept *kept = &seg->kept_traces[0];
    for (int i = 0; i < SEGMENT_KEPT_TRACES; i++) {
        struct traces_kept *k = &seg->kept_traces[i];
        if (k->traces.block == b || k->used < kept->used)
            kept = k;
        if (k->traces.block == b)
            break;
    }
    int err = 0;
    kept->used = ++seg->clock;
    if (kept->traces.block != b) {
        kept->traces.block = NULL;
        arena_reset(&kept->arena);
        err = traces_read(seg, b, kept);
    }
    *ret = &kept->traces;
    return err;
}

int segment_traces_all(struct segment *seg, struct arena *arena, struct segment_traces_all *ret)
{
    size_t n = seg->n_traces;
    struct segment_traces_all all = {
        .ids = arena_array(arena, n, sizeof *all.ids),
        .starts = arena_array(arena, n, sizeof *all.starts),
        .first_rows = arena_array(arena, n + 1, sizeof *all.first_rows)};
    if (!all.ids || !all.starts || !all.first_rows)
        return ERR_NOMEM;
    uint32_t row = 0, at = 0;
    for (uint32_t i = 0; i < seg->n_trace_blocks; i++) {
        const struct segment_trace_block *b = &seg->trace_blocks[i];
        struct traces_read *t;
        int err = segment_traces(seg, b, &t);
        if (err)
            return err;
        memcpy(all.ids + at, t->ids, (size_t)b->n * TRACE_ID_SIZE);
        for (uint32_t k = 0; k < b->n; k++, at++) {
            all.starts[at] = t->start[k];
            all.first_rows[at] = row;
            row += (uint32_t)t->n[k];
        }
    }
    if (row != seg->n_rows)
        return segment_fail(seg, ERR_CORRUPT, 0, "the sums of the traces");
    all.first_rows[at] = row;
    *ret = all;
    return 0;
}

/* The part of a block that only summaries need. */
static int summaries_read(struct segment *seg, struct traces_read *t)
{
    struct codec_reader *r = &t->rest;
    uint32_t n = t->block->n;
    uint64_t total = 0;
    if (t->has_summaries)
        return 0;
    t->length = stream_sized(r, n);
    t->root = stream_sized(r, n);
    t->operation = stream_sized(r, n);
    t->errors = stream_sized(r, n);
    t->orphans = stream_sized(r, n);
    t->services = stream_sized(r, n);
    t->first_service = r->err ? NULL : arena_array(r->arena, n, sizeof *t->first_service);
    if (!r->err && !t->first_service)
        r->err = ERR_NOMEM;
    for (uint32_t i = 0; !r->err && i < n; i++) {
        t->first_service[i] = total;
        total += t->services[i];
        if (t->services[i] > seg->n_rows || total > seg->n_rows ||
            t->operation[i] >= seg->n_operations)
            r->err = ERR_CORRUPT;
    }
    t->names = stream_sized(r, total);
    t->spans = stream_sized(r, total);
    t->wrong = stream_sized(r, total);
    int err = codec_finish(r);
    if (err) {
        const struct block_ref ref = t->block->ref;
        t->block = NULL; /* half read: not to be kept */
        return segment_fail(seg, err, ref.offset, "a block of traces");
    }
    t->has_summaries = true;
    return 0;
}

const struct segment_trace_block *segment_trace_block_of(const struct segment *seg,
                                                         uint64_t ordinal)
{
    uint32_t low = 0, high = seg->n_trace_blocks;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (seg->trace_blocks[middle].first_trace <= ordinal)
            low = middle;
        else
            high = middle;
    }
    return &seg->trace_blocks[low];
}

static int hash_index_read(struct segment *seg)
{
    struct codec_reader r;
    if (seg->hash_blocks)
        return 0;
    int err = segment_block(seg, seg->hashes_ref, &seg->arena, &r);
    if (err)
        return err;
    uint64_t n = codec_varint(&r);
    struct segment_hash_block *blocks = segment_list_room(seg, &r, n, sizeof *blocks);
    for (uint64_t i = 0; !r.err && i < n; i++) {
        blocks[i].ref = segment_get_ref(&r);
        blocks[i].n = codec_u32(&r);
        blocks[i].first_hash = codec_u32(&r);
        if (blocks[i].n > SEGMENT_HASHES)
            r.err = ERR_CORRUPT;
    }
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, seg->hashes_ref.offset, "the index of traces");
    seg->hash_blocks = blocks;
    seg->n_hash_blocks = (uint32_t)n;
    return 0;
}

/* Kept in 4 bytes a trace, and 4 more where a trace was found: a search asks for many traces, and most are in one of
 * the segments only. */
static int hash_block_read(struct segment *seg, struct segment_hash_block *b, bool ordinals)
{
    struct codec_reader r;
    uint32_t **at = ordinals ? &b->ordinals : &b->hashes;
    if (*at)
        return 0;
    int err = segment_block(seg, b->ref, &seg->scratch, &r);
    if (err)
        return err;
    uint64_t *numbers, below = ordinals ? seg->n_traces : UINT64_C(1) << 32;
    if (ordinals) {
        codec_bytes(&r, codec_varint(&r));
        numbers = stream_numbers(&r, b->n);
        (void)!codec_finish(&r);
    } else {
        numbers = stream_sized(&r, b->n);
    }
    uint32_t *kept = arena_array(&seg->arena, b->n, sizeof *kept);
    if (!kept && !r.err)
        r.err = ERR_NOMEM;
    for (uint32_t i = 0; !r.err && i < b->n; i++) {
        if (numbers[i] >= below || (!ordinals && i && numbers[i] < numbers[i - 1]))
            r.err = ERR_CORRUPT;
        kept[i] = (uint32_t)numbers[i];
    }
    if (r.err)
        return segment_fail(seg, r.err, b->ref.offset, "the index of traces");
    *at = kept;
    return 0;
}

/* Calls for each trace whose id has the hash, until it returns an error or that it is enough. */
typedef int hash_fn(void *arg, struct traces_read *traces, uint32_t place, bool *ret_enough);

static int hash_walk(struct segment *seg, uint32_t hash, hash_fn *fn, void *arg)
{
    int err = hash_index_read(seg);
    if (err)
        return err;
    uint32_t at = 0, high = seg->n_hash_blocks;
    while (at < high) { /* the first block that begins at or behind the hash */
        uint32_t middle = at + (high - at) / 2;
        if (seg->hash_blocks[middle].first_hash < hash)
            at = middle + 1;
        else
            high = middle;
    }
    at -= at > 0; /* the hash may stand at the end of the one before */
    for (; at < seg->n_hash_blocks && seg->hash_blocks[at].first_hash <= hash; at++) {
        struct segment_hash_block *b = &seg->hash_blocks[at];
        err = hash_block_read(seg, b, false);
        if (err)
            return err;
        uint32_t i = 0;
        for (high = b->n; i < high;) {
            uint32_t middle = i + (high - i) / 2;
            if (b->hashes[middle] < hash)
                i = middle + 1;
            else
                high = middle;
        }
        for (; i < b->n && b->hashes[i] == hash; i++) {
            struct traces_read *t;
            bool enough = false;
            err = hash_block_read(seg, b, true);
            if (err)
                return err;
            err = segment_traces(seg, segment_trace_block_of(seg, b->ordinals[i]), &t);
            if (!err)
                err = fn(arg, t, b->ordinals[i] - t->block->first_trace, &enough);
            if (err || enough)
                return err;
        }
    }
    return 0;
}

struct found_by_id {
    const struct trace_id *id;
    struct trace_found *found;
};

static int id_check(void *arg, struct traces_read *t, uint32_t place, bool *ret_enough)
{
    struct found_by_id *f = arg;
    *ret_enough = !memcmp(t->ids + (size_t)place * TRACE_ID_SIZE, f->id->bytes, TRACE_ID_SIZE);
    if (*ret_enough)
        *f->found = (struct trace_found){t, place, t->first_row[place], true};
    return 0;
}

int segment_trace_find(struct segment *seg, const struct trace_id *id, struct trace_found *ret)
{
    struct found_by_id f = {id, ret};
    ret->found = false;
    return hash_walk(seg, segment_trace_hash(id->bytes), id_check, &f);
}

static int id_take(void *arg, struct traces_read *t, uint32_t place, bool *ret_enough)
{
    struct ids_of_hash *ids = arg;
    if (ids->n < IDS_OF_HASH_MAX)
        memcpy(ids->items[ids->n].bytes, t->ids + (size_t)place * TRACE_ID_SIZE, TRACE_ID_SIZE);
    *ret_enough = ++ids->n > IDS_OF_HASH_MAX;
    return 0;
}

int segment_ids_of_hash(struct segment *seg, uint32_t hash, struct ids_of_hash *ids)
{
    arena_reset(&seg->scratch);
    return hash_walk(seg, hash, id_take, ids);
}

int segment_trace_hashes(struct segment *seg, uint32_t low, uint32_t high, struct hash_list *list)
{
    int err = hash_index_read(seg);
    for (uint32_t i = 0; !err && i < seg->n_hash_blocks; i++) {
        const struct segment_hash_block *b = &seg->hash_blocks[i];
        struct codec_reader r;
        bool is_last = i + 1 == seg->n_hash_blocks;
        if (b->first_hash > high)
            break;
        if (!is_last && b[1].first_hash < low)
            continue;
        arena_reset(&seg->scratch);
        err = segment_block(seg, b->ref, &seg->scratch, &r);
        if (err)
            break;
        uint64_t *hashes = stream_sized(&r, b->n);
        if (!hashes)
            return segment_fail(seg, r.err, b->ref.offset, "the index of traces");
        for (uint32_t k = 0; !err && k < b->n; k++)
            if (hashes[k] >= low && hashes[k] <= high)
                err = hash_list_add(list, (uint32_t)hashes[k]);
    }
    return err;
}

int segment_has(struct segment *seg, const struct trace_id *id, bool *ret_has)
{
    struct trace_found found;
    arena_reset(&seg->scratch);
    int err = segment_trace_find(seg, id, &found);
    if (!err)
        *ret_has = found.found;
    return err;
}

/* ---- the spans of a trace ---- */

int segment_group_rows(struct segment *seg, struct group_kept *k, uint32_t first, uint32_t n,
                       uint64_t trace_start, uint32_t to, uint64_t *places, struct trace_rows *rows)
{
    struct stream_view parents, starts, durations, operations, status;
    int err = segment_operations_read(seg);
    if (!err)
        err = group_ids(seg, k);
    if (!err)
        err = group_some(seg, k, FIXED_PARENT, n, &parents);
    if (!err)
        err = group_some(seg, k, FIXED_START, n, &starts);
    if (!err)
        err = group_some(seg, k, FIXED_DURATION, n, &durations);
    if (!err)
        err = group_some(seg, k, FIXED_OPERATION, n, &operations);
    if (!err)
        err = group_some(seg, k, FIXED_STATUS, n, &status);
    if (err)
        return err;
    uint8_t *ids = arena_array(&seg->scratch, n,
                               SPAN_ID_SIZE); /* the group may go before the rows */
    if (!ids)
        return ERR_NOMEM;
    memcpy(ids, k->ids + (size_t)first * SPAN_ID_SIZE, (size_t)n * SPAN_ID_SIZE);
    const uint8_t *foreign = k->foreign;
    for (uint32_t i = 0; k->n_foreign && i < first; i++)
        foreign += stream_view_at(&parents, i) == SEGMENT_FOREIGN_PARENT ? SPAN_ID_SIZE : 0;
    uint64_t start = trace_start;
    for (uint32_t i = first; i < first + n; i++) {
        uint32_t at = to + i - first;
        start += stream_view_at(&starts, i);
        places[at] = stream_view_at(&parents, i);
        rows->ids[at] = ids + (size_t)(i - first) * SPAN_ID_SIZE;
        if (places[at] == SEGMENT_FOREIGN_PARENT) {
            memcpy(rows->parents[at].bytes, foreign, SPAN_ID_SIZE);
            foreign += SPAN_ID_SIZE;
        }
        rows->start[at] = start;
        rows->end[at] = start + stream_view_at(&durations, i);
        rows->operation[at] = stream_view_at(&operations, i);
        rows->status[at] = stream_view_at(&status, i);
    }
    return 0;
}

uint32_t segment_group_of(const struct segment *seg, uint32_t row)
{
    uint32_t low = 0, high = seg->n_groups;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (seg->groups[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int segment_trace_groups(struct segment *seg, uint32_t first_row, uint64_t n_rows, rows_fn *fn,
                         void *arg)
{
    uint64_t end_row = first_row + n_rows;
    for (uint32_t i = segment_group_of(seg, first_row);
         i < seg->n_groups && seg->groups[i].first_row < end_row; i++) {
        const struct segment_group *sg = &seg->groups[i];
        struct group_kept *k;
        uint32_t first = first_row > sg->first_row ? first_row - sg->first_row : 0;
        uint64_t end = end_row - sg->first_row < sg->n ? end_row - sg->first_row : sg->n;
        int err = segment_group_keep(seg, sg, &k);
        if (!err)
            err = fn(arg, seg, k, first, (uint32_t)end - first, sg->first_row + first - first_row);
        if (err)
            return err;
    }
    return 0;
}

struct rows_arg {
    struct trace_rows *rows;
    uint64_t *places, trace_start;
};

static int rows_gather(void *arg, struct segment *seg, struct group_kept *k, uint32_t first,
                       uint32_t n, uint32_t to)
{
    struct rows_arg *a = arg;
    return segment_group_rows(seg, k, first, n, a->trace_start, to, a->places, a->rows);
}

int segment_trace_rows(struct segment *seg, const struct trace_found *found, struct trace_rows *ret)
{
    struct arena *a = &seg->scratch;
    size_t n = found->traces->n[found->place];
    uint64_t *places = arena_array(a, n, sizeof *places);
    struct trace_rows rows = {
        .n = (uint32_t)n,
        .ids = arena_array(a, n, sizeof *rows.ids),
        .parents = arena_zalloc(a, n * sizeof *rows.parents),
        .start = arena_array(a, n, sizeof *rows.start),
        .end = arena_array(a, n, sizeof *rows.end),
        .operation = arena_array(a, n, sizeof *rows.operation),
        .status = arena_array(a, n, sizeof *rows.status),
    };
    if (!places || !rows.ids || !rows.parents || !rows.start || !rows.end || !rows.operation ||
        !rows.status)
        return ERR_NOMEM;
    struct rows_arg arg = {&rows, places, found->traces->start[found->place]};
    int err = segment_operations_read(seg);
    if (!err)
        err = segment_trace_groups(seg, found->first_row, n, rows_gather, &arg);
    for (size_t i = 0; !err && i < n; i++) {
        if (places[i] == 0 || places[i] == SEGMENT_FOREIGN_PARENT)
            continue;
        if (places[i] > n)
            err = segment_fail(seg, ERR_CORRUPT, found->traces->block->ref.offset, "a parent");
        else
            memcpy(rows.parents[i].bytes, rows.ids[places[i] - 1], SPAN_ID_SIZE);
    }
    if (!err)
        *ret = rows;
    return err;
}

int segment_outline(struct segment *seg, const struct trace_id *id, struct outline_list *outline)
{
    struct trace_found found;
    struct trace_rows rows;
    arena_reset(&seg->scratch);
    int err = segment_trace_find(seg, id, &found);
    if (err || !found.found)
        return err;
    err = segment_trace_rows(seg, &found, &rows);
    for (uint32_t i = 0; !err && i < rows.n; i++) {
        const struct segment_operation *op = &seg->operations[rows.operation[i]];
        const struct resource *resource;
        struct store_outline *o = outline_list_add(outline);
        if (!o)
            return ERR_NOMEM;
        *o = (struct store_outline){.parent_id = rows.parents[i],
                                    .start_ns = rows.start[i],
                                    .end_ns = rows.end[i],
                                    .kind = op->kind,
                                    .status_code = (uint8_t)rows.status[i]};
        memcpy(o->span_id.bytes, rows.ids[i], SPAN_ID_SIZE);
        err = segment_resource(seg, op->resource, &resource);
        if (!err)
            err = segment_string(seg, op->name, &o->name);
        if (!err)
            o->service = resource->service_name;
    }
    return err;
}

/* ---- summaries and names ---- */

int segment_summary(struct segment *seg, const struct trace_id *id, struct arena *arena,
                    struct trace_summary *ret)
{
    struct trace_found found;
    arena_reset(&seg->scratch);
    int err = segment_trace_find(seg, id, &found);
    if (!err)
        err = found.found ? segment_operations_read(seg) : ERR_NOT_FOUND;
    if (err)
        return err;
    struct traces_read *t = found.traces;
    uint32_t at = found.place;
    err = summaries_read(seg, t);
    if (err)
        return err;
    const struct segment_operation *op = &seg->operations[t->operation[at]];
    const struct resource *resource;
    struct str name;
    uint64_t first = t->first_service[at];
    struct trace_service *list = arena_array(arena, t->services[at], sizeof *list);
    struct trace_summary s = {
        .id = *id,
        .start_ns = t->start[at],
        .end_ns = t->start[at] + t->length[at],
        .span_count = (uint32_t)t->n[at],
        .error_count = (uint32_t)t->errors[at],
        .orphan_count = (uint32_t)t->orphans[at],
        .has_root = t->root[at] != 0,
        .services = list,
        .n_services = (uint32_t)t->services[at],
    };
    err = segment_resource(seg, op->resource, &resource);
    if (!err)
        err = segment_string(seg, op->name, &name);
    if (!err && (!list || !text_copy(arena, name, &s.root_name) ||
                 !text_copy(arena, resource->service_name, &s.root_service)))
        err = ERR_NOMEM;
    for (uint64_t i = 0; !err && i < t->services[at]; i++) {
        list[i] = (struct trace_service){.span_count = (uint32_t)t->spans[first + i],
                                         .error_count = (uint32_t)t->wrong[first + i]};
        err = segment_string(seg, t->names[first + i], &name);
        if (!err && !text_copy(arena, name, &list[i].name))
            err = ERR_NOMEM;
    }
    if (!err)
        *ret = s;
    return err;
}
