/* Reading segments: blocks, strings and columns. Groups are in segment_group.c, traces in segment_trace.c. */
#include "store/local/segment_read.h"
#include "store/local/ids.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "store/local/file.h"

/* ---- blocks ---- */

int segment_fail(struct segment *seg, int err, uint64_t at, const char *what)
{
    if (err == ERR_TRUNCATED)
        err = ERR_CORRUPT;
    if (err == ERR_CORRUPT && !seg->damage.code) {
        error_set(&seg->damage, err, at, "%s: %s is damaged at offset %llu", seg->name, what,
                  (unsigned long long)at);
        log_error("damage in a segment file=%s offset=%llu: %s", seg->name, (unsigned long long)at,
                  what);
    }
    return err;
}

/* A fuzzer must get past the checksums, to what a wrong program could have put behind a right one.
 */
static bool checksum_right(uint64_t actual, uint64_t expected)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return true;
#else
    return actual == expected;
#endif
}

int segment_block(struct segment *seg, struct block_ref ref, struct arena *arena,
                  struct codec_reader *ret)
{
    if (ref.offset < SEGMENT_HEADER_SIZE || ref.offset > seg->bytes ||
        ref.length > seg->bytes - ref.offset)
        return segment_fail(seg, ERR_CORRUPT, ref.offset, "a reference");
    char *bytes = arena_alloc(arena, ref.length);
    if (!bytes)
        return ERR_NOMEM;
    int err = file_read_at(seg->fd, bytes, ref.length, ref.offset);
    if (err)
        return segment_fail(seg, err, ref.offset, "a block");
    seg->bytes_read += ref.length;
    if ((ref.length || ref.checksum) &&
        !checksum_right(segment_checksum(bytes, ref.length), ref.checksum))
        return segment_fail(seg, ERR_CORRUPT, ref.offset, "a block");
    *ret = codec_reader((struct str){bytes, ref.length}, arena);
    return 0;
}

int segment_ids(struct segment *seg, struct block_ref ref, size_t n, struct arena *arena,
                struct codec_reader *ret)
{
    struct codec_reader r;
    int err = segment_block(seg, ref, arena, &r);
    if (err)
        return err;
    const uint8_t *ids = ids_get(&r, n);
    if (!ids)
        return segment_fail(seg, r.err, ref.offset, "the ids of a group");
    *ret = codec_reader((struct str){(const char *)ids, 8 * n}, arena);
    return 0;
}

int segment_numbers(struct segment *seg, struct block_ref ref, size_t n, struct arena *arena,
                    uint64_t **ret)
{
    struct codec_reader r;
    int err = segment_block(seg, ref, arena, &r);
    if (err)
        return err;
    uint64_t *v = stream_numbers(&r, n);
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, ref.offset, "a column");
    *ret = v;
    return 0;
}

uint32_t segment_get_u32(struct codec_reader *r)
{
    uint32_t n = 0;
    const uint8_t *p = codec_bytes(r, sizeof n);
    if (p)
        memcpy(&n, p, sizeof n);
    return le32toh(n);
}

struct block_ref segment_get_ref(struct codec_reader *r)
{
    struct block_ref ref;
    ref.offset = codec_varint(r);
    ref.length = codec_varint(r);
    ref.checksum = segment_get_u32(r);
    return ref;
}

void *segment_list_room(struct segment *seg, struct codec_reader *r, uint64_t n, size_t size)
{
    if (r->err || n > (uint64_t)(r->end - r->at) || n > UINT32_MAX) {
        r->err = r->err ? r->err : ERR_CORRUPT;
        r->at = r->end;
        return NULL;
    }
    void *list = arena_zalloc(&seg->arena, n * size);
    if (!list) {
        r->err = ERR_NOMEM;
        r->at = r->end;
    }
    return list;
}

/* ---- opening ---- */

static void trace_blocks_read(struct segment *seg, struct codec_reader *r)
{
    uint64_t n = codec_varint(r), traces = 0, rows = 0;
    seg->trace_blocks = segment_list_room(seg, r, n, sizeof *seg->trace_blocks);
    seg->n_trace_blocks = seg->trace_blocks ? (uint32_t)n : 0;
    for (uint32_t i = 0; i < seg->n_trace_blocks && !r->err; i++) {
        struct segment_trace_block *b = &seg->trace_blocks[i];
        b->ref = segment_get_ref(r);
        b->n = codec_u32(r);
        b->n_rows = codec_u32(r);
        b->first_trace = (uint32_t)traces;
        b->first_row = (uint32_t)rows;
        traces += b->n;
        rows += b->n_rows;
        if (b->n == 0 || b->n > SEGMENT_TRACES || rows > seg->n_rows)
            r->err = ERR_CORRUPT;
    }
    if (!r->err && (traces != seg->n_traces || rows != seg->n_rows))
        r->err = ERR_CORRUPT;
}

static void groups_read(struct segment *seg, struct codec_reader *r)
{
    uint64_t n = codec_varint(r), rows = 0;
    seg->groups = segment_list_room(seg, r, n, sizeof *seg->groups);
    seg->n_groups = seg->groups ? (uint32_t)n : 0;
    for (uint32_t i = 0; i < seg->n_groups && !r->err; i++) {
        struct segment_group *g = &seg->groups[i];
        g->directory = segment_get_ref(r);
        g->n = codec_u32(r);
        g->first_trace = codec_u32(r);
        g->offset = codec_varint(r);
        g->start_min = seg->start_min + codec_varint(r);
        g->start_max = g->start_min + codec_varint(r);
        g->duration_min = codec_varint(r);
        g->duration_max = g->duration_min + codec_varint(r);
        g->first_row = (uint32_t)rows;
        rows += g->n;
        if (g->n == 0 || g->n > SEGMENT_GROUP_ROWS || g->first_trace >= seg->n_traces)
            r->err = ERR_CORRUPT;
    }
    if (!r->err && rows != seg->n_rows)
        r->err = ERR_CORRUPT;
}

static int footer_read(struct segment *seg, uint64_t offset, uint64_t length, uint64_t checksum,
                       uint64_t seed)
{
    char *bytes = arena_alloc(&seg->arena, length);
    if (!bytes)
        return ERR_NOMEM;
    int err = file_read_at(seg->fd, bytes, length, offset);
    if (err)
        return segment_fail(seg, err, offset, "the footer");
    seg->bytes_read += length;
    if (!checksum_right(hash_bytes_seed(bytes, length, seed), checksum))
        return segment_fail(seg, ERR_CORRUPT, offset, "the footer");
    struct codec_reader r = codec_reader((struct str){bytes, length}, &seg->arena);
    seg->n_rows = codec_fixed64(&r);
    seg->n_traces = codec_fixed64(&r);
    seg->start_min = codec_fixed64(&r);
    seg->start_max = codec_fixed64(&r);
    if (seg->n_rows == 0 || seg->n_rows > UINT32_MAX || seg->n_traces > seg->n_rows)
        return segment_fail(seg, ERR_CORRUPT, offset, "the footer");
    seg->string_index = segment_get_ref(&r);
    seg->columns_ref = segment_get_ref(&r);
    seg->resources_ref = segment_get_ref(&r);
    seg->scopes_ref = segment_get_ref(&r);
    seg->operations_ref = segment_get_ref(&r);
    seg->hashes_ref = segment_get_ref(&r);
    trace_blocks_read(seg, &r);
    groups_read(seg, &r);
    err = codec_finish(&r);
    return err ? segment_fail(seg, err, offset, "the footer") : 0;
}

static int ends_read(struct segment *seg)
{
    uint8_t header[SEGMENT_HEADER_SIZE], trailer[SEGMENT_TRAILER_SIZE];
    uint64_t v[3], checksum;
    uint32_t version, required;
    int err = file_size(seg->fd, &seg->bytes);
    if (err)
        return err;
    if (seg->bytes < sizeof header + sizeof trailer)
        return segment_fail(seg, ERR_CORRUPT, 0, "the size");
    err = file_read_at(seg->fd, header, sizeof header, 0);
    if (!err)
        err = file_read_at(seg->fd, trailer, sizeof trailer, seg->bytes - sizeof trailer);
    if (err)
        return segment_fail(seg, err, 0, "the header");
    memcpy(&checksum, header + sizeof header - 8, 8);
    if (memcmp(header, SEGMENT_MAGIC, 8) ||
        !checksum_right(hash_bytes(header, sizeof header - 8), le64toh(checksum)))
        return segment_fail(seg, ERR_CORRUPT, 0, "the header");
    memcpy(&version, header + 8, 4);
    memcpy(&required, header + 12, 4);
    if (le32toh(version) != SEGMENT_VERSION ||
        le32toh(required) & ~(uint32_t)(SEGMENT_DERIVED_IDS | SEGMENT_LISTS_BY_COLUMN))
        return ERR_UNSUPPORTED;
    seg->derived_ids = le32toh(required) & SEGMENT_DERIVED_IDS;
    seg->lists_by_column = le32toh(required) & SEGMENT_LISTS_BY_COLUMN;
    uint32_t optional;
    memcpy(&optional, header + 16, 4);
    if (le32toh(optional) & SEGMENT_HAS_RECORDS) {
        uint64_t records[2];
        memcpy(records, header + 24, sizeof records);
        seg->first_sequence = le64toh(records[0]);
        seg->last_sequence = le64toh(records[1]);
    }
    memcpy(v, trailer, sizeof v);
    uint64_t offset = le64toh(v[0]), length = le64toh(v[1]);
    if (memcmp(trailer + 24, SEGMENT_END_MAGIC, 8) || offset < sizeof header ||
        offset > seg->bytes || length != seg->bytes - sizeof trailer - offset)
        return segment_fail(seg, ERR_CORRUPT, seg->bytes - sizeof trailer, "the trailer");
    return footer_read(seg, offset, length, le64toh(v[2]), hash_bytes(v, 16));
}

int segment_open(int dir, const char *name, struct segment **ret)
{
    int fd, err = file_open(dir, name, O_RDONLY, &fd);
    return err ? err : segment_open_fd(fd, name, ret);
}

int segment_open_fd(int fd, const char *name, struct segment **ret)
{
    struct segment *seg = calloc(1, sizeof *seg);
    if (!seg) {
        close(fd);
        return ERR_NOMEM;
    }
    seg->fd = fd;
    snprintf(seg->name, sizeof seg->name, "%s", name);
    int err = ends_read(seg);
    if (err) {
        segment_close(seg);
        return err;
    }
    *ret = seg;
    return 0;
}

void segment_close(struct segment *seg)
{
    if (!seg)
        return;
    if (seg->fd >= 0)
        close(seg->fd);
    for (int i = 0; i < SEGMENT_KEPT_GROUPS; i++)
        arena_done(&seg->kept_groups[i].arena);
    for (int i = 0; i < SEGMENT_KEPT_TRACES; i++)
        arena_done(&seg->kept_traces[i].arena);
    arena_done(&seg->arena);
    arena_done(&seg->scratch);
    free(seg);
}

int segment_info_read(int dir, const char *name, struct segment_info *ret_info)
{
    struct segment *seg;
    int err = segment_open(dir, name, &seg);
    if (err)
        return err;
    *ret_info = (struct segment_info){
        .bytes = seg->bytes,
        .spans = seg->n_rows,
        .traces = seg->n_traces,
        .start_min_ns = seg->start_min,
        .start_max_ns = seg->start_max,
        .first_sequence = seg->first_sequence,
        .last_sequence = seg->last_sequence,
    };
    snprintf(ret_info->name, sizeof ret_info->name, "%s", name);
    segment_close(seg);
    return 0;
}

size_t segment_memory(const struct segment *seg)
{
    size_t bytes = sizeof *seg + seg->arena.bytes + seg->scratch.bytes;
    for (int i = 0; i < SEGMENT_KEPT_GROUPS; i++)
        bytes += seg->kept_groups[i].arena.bytes;
    for (int i = 0; i < SEGMENT_KEPT_TRACES; i++)
        bytes += seg->kept_traces[i].arena.bytes;
    return bytes;
}

const struct error_detail *segment_damage(const struct segment *seg)
{
    return &seg->damage;
}

/* ---- strings ---- */

int segment_string_index(struct segment *seg)
{
    struct codec_reader r;
    if (seg->string_blocks)
        return 0;
    int err = segment_block(seg, seg->string_index, &seg->arena, &r);
    if (err)
        return err;
    uint32_t n = codec_u32(&r), blocks = codec_u32(&r);
    struct segment_string_block *list = segment_list_room(seg, &r, blocks, sizeof *list);
    if (!r.err && blocks != (n + (uint64_t)SEGMENT_STRINGS - 1) / SEGMENT_STRINGS)
        r.err = ERR_CORRUPT;
    for (uint32_t i = 0; !r.err && i < blocks; i++) {
        list[i].ref = segment_get_ref(&r);
        list[i].first = codec_str(&r);
    }
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, seg->string_index.offset, "the string index");
    seg->string_blocks = list;
    seg->n_string_blocks = blocks;
    seg->n_strings = n;
    return 0;
}

static uint32_t string_block_n(const struct segment *seg, uint32_t block)
{
    uint32_t left = seg->n_strings - block * SEGMENT_STRINGS;
    return left < SEGMENT_STRINGS ? left : SEGMENT_STRINGS;
}

int segment_string_block(struct segment *seg, uint32_t block)
{
    struct segment_string_block *b = &seg->string_blocks[block];
    struct codec_reader r;
    if (b->strings)
        return 0;
    int err = segment_block(seg, b->ref, &seg->arena, &r);
    if (err)
        return err;
    struct str *strings = stream_list(&r, string_block_n(seg, block));
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, b->ref.offset, "a block of strings");
    b->strings = strings;
    return 0;
}

int segment_string(struct segment *seg, uint64_t code, struct str *ret)
{
    int err = segment_string_index(seg);
    if (!err && code >= seg->n_strings)
        err = segment_fail(seg, ERR_CORRUPT, seg->string_index.offset, "the code of a string");
    if (!err)
        err = segment_string_block(seg, (uint32_t)(code / SEGMENT_STRINGS));
    if (!err)
        *ret = seg->string_blocks[code / SEGMENT_STRINGS].strings[code % SEGMENT_STRINGS];
    return err;
}

int segment_string_find(struct segment *seg, struct str s, uint32_t *ret_code)
{
    int err = segment_string_index(seg);
    if (err)
        return err;
    uint32_t low = 0, high = seg->n_string_blocks;
    while (low < high) { /* the first block that begins behind s */
        uint32_t middle = low + (high - low) / 2;
        if (str_cmp(seg->string_blocks[middle].first, s) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_code = seg->n_strings;
    if (low == 0)
        return 0;
    uint32_t block = low - 1;
    err = segment_string_block(seg, block);
    if (err)
        return err;
    const struct str *strings = seg->string_blocks[block].strings;
    for (low = 0, high = string_block_n(seg, block); low < high;) {
        uint32_t middle = low + (high - low) / 2;
        int order = str_cmp(strings[middle], s);
        if (order == 0) {
            *ret_code = block * SEGMENT_STRINGS + middle;
            return 0;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* ---- columns, operations, resources ---- */

int segment_columns(struct segment *seg)
{
    struct codec_reader r;
    if (seg->columns)
        return 0;
    int err = segment_string_index(seg);
    if (!err)
        err = segment_block(seg, seg->columns_ref, &seg->arena, &r);
    if (err)
        return err;
    uint64_t n = codec_varint(&r);
    struct segment_column *columns = segment_list_room(seg, &r, n, sizeof *columns);
    for (uint64_t i = 0; !r.err && i < n; i++) {
        struct segment_column *c = &columns[i];
        c->key = codec_u32(&r);
        const uint8_t *kind = codec_bytes(&r, 2);
        if (!kind)
            break;
        c->type = kind[0];
        c->how = kind[1];
        c->n = codec_varint(&r);
        if (c->how == HOW_DICTIONARY) {
            c->n_codes = codec_u32(&r);
            c->dictionary = segment_get_ref(&r);
        }
        static const uint8_t hows[] = {
            [VALUE_NONE] = 1 << HOW_NOTHING,
            [VALUE_STRING] = 1 << HOW_DICTIONARY | 1 << HOW_PLAIN,
            [VALUE_BOOL] = 1 << HOW_NUMBERS,
            [VALUE_INT] = 1 << HOW_NUMBERS,
            [VALUE_DOUBLE] = 1 << HOW_NUMBERS,
            [VALUE_ARRAY] = 1 << HOW_PLAIN,
            [VALUE_MAP] = 1 << HOW_PLAIN,
            [VALUE_BYTES] = 1 << HOW_PLAIN,
        };
        if (c->type > VALUE_BYTES || c->how > HOW_PLAIN || !(hows[c->type] & 1 << c->how) ||
            c->key >= seg->n_strings || c->n_codes > seg->n_strings)
            r.err = ERR_CORRUPT;
    }
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, seg->columns_ref.offset, "the list of columns");
    seg->columns = columns;
    seg->n_columns = (uint32_t)n;
    return 0;
}

int segment_dictionary(struct segment *seg, struct segment_column *c)
{
    uint64_t *codes;
    if (c->codes)
        return 0;
    int err = segment_numbers(seg, c->dictionary, c->n_codes, &seg->arena, &codes);
    if (err)
        return err;
    for (uint32_t i = 0; i < c->n_codes; i++)
        if (codes[i] >= seg->n_strings)
            return segment_fail(seg, ERR_CORRUPT, c->dictionary.offset, "a dictionary");
    c->codes = codes;
    return 0;
}

static int blobs_read(struct segment *seg, struct block_ref ref, struct str **ret, uint32_t *ret_n)
{
    struct codec_reader r;
    int err = segment_block(seg, ref, &seg->arena, &r);
    if (err)
        return err;
    uint32_t n = codec_u32(&r);
    struct str *items = stream_list(&r, n);
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, ref.offset, "the resources or scopes");
    *ret = items;
    *ret_n = n;
    return 0;
}

int segment_operations_read(struct segment *seg)
{
    struct codec_reader r;
    struct str *resources = NULL, *scopes = NULL;
    if (seg->operations)
        return 0;
    int err = segment_string_index(seg);
    if (!err)
        err = blobs_read(seg, seg->resources_ref, &resources, &seg->n_resources);
    if (!err)
        err = blobs_read(seg, seg->scopes_ref, &scopes, &seg->n_scopes);
    if (!err)
        err = segment_block(seg, seg->operations_ref, &seg->arena, &r);
    if (err)
        return err;
    uint32_t n = codec_u32(&r);
    if (n > seg->n_rows)
        r.err = ERR_CORRUPT;
    uint64_t *v[5] = {NULL};
    for (int i = 0; i < 5; i++)
        v[i] = stream_sized(&r, n);
    struct segment_operation *ops = r.err ? NULL : arena_array(&seg->arena, n, sizeof *ops);
    if (!r.err && !ops)
        r.err = ERR_NOMEM;
    for (uint32_t i = 0; !r.err && i < n; i++) {
        if (v[0][i] >= seg->n_resources || v[1][i] >= seg->n_scopes || v[2][i] >= seg->n_strings ||
            v[3][i] > UINT8_MAX)
            r.err = ERR_CORRUPT;
        ops[i] = (struct segment_operation){(uint32_t)v[0][i], (uint32_t)v[1][i], (uint32_t)v[2][i],
                                            (uint8_t)v[3][i], v[4][i]};
    }
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, seg->operations_ref.offset, "the operations");
    seg->resources = arena_zalloc(&seg->arena, seg->n_resources * sizeof *seg->resources);
    if (!seg->resources)
        return ERR_NOMEM;
    seg->resource_bytes = resources;
    seg->scope_bytes = scopes;
    seg->n_operations = n;
    seg->operations = ops;
    return 0;
}

int segment_resource(struct segment *seg, uint32_t number, const struct resource **ret)
{
    if (!seg->resources[number]) {
        struct resource *resource = arena_alloc(&seg->arena, sizeof *resource);
        if (!resource)
            return ERR_NOMEM;
        struct codec_reader r = codec_reader(seg->resource_bytes[number], &seg->arena);
        codec_resource(&r, resource);
        int err = codec_finish(&r);
        if (err)
            return segment_fail(seg, err, seg->resources_ref.offset, "a resource");
        seg->resources[number] = resource;
    }
    *ret = seg->resources[number];
    return 0;
}

/* ---- names ---- */

int segment_operations(struct segment *seg, struct operation_set *set)
{
    int err = segment_operations_read(seg);
    for (uint32_t i = 0; !err && i < seg->n_operations; i++) {
        const struct segment_operation *op = &seg->operations[i];
        const struct resource *resource;
        struct str name;
        err = segment_resource(seg, op->resource, &resource);
        if (!err)
            err = segment_string(seg, op->name, &name);
        if (!err)
            err = operation_set_add(set, resource->service_name, name, op->kind, op->n_spans);
    }
    return err;
}
