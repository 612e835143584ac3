/* Reading segments: blocks, strings, columns, groups, and the traces in them. */
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

static uint32_t get_u32(struct codec_reader *r)
{
    uint32_t n = 0;
    const uint8_t *p = codec_bytes(r, sizeof n);
    if (p)
        memcpy(&n, p, sizeof n);
    return le32toh(n);
}

static struct block_ref get_ref(struct codec_reader *r)
{
    struct block_ref ref;
    ref.offset = codec_varint(r);
    ref.length = codec_varint(r);
    ref.checksum = get_u32(r);
    return ref;
}

/* Room for `n` things that were listed in the rest of the input, each with at least one byte. */
static void *list_new(struct segment *seg, struct codec_reader *r, uint64_t n, size_t size)
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
    seg->trace_blocks = list_new(seg, r, n, sizeof *seg->trace_blocks);
    seg->n_trace_blocks = seg->trace_blocks ? (uint32_t)n : 0;
    for (uint32_t i = 0; i < seg->n_trace_blocks && !r->err; i++) {
        struct segment_trace_block *b = &seg->trace_blocks[i];
        b->ref = get_ref(r);
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
    seg->groups = list_new(seg, r, n, sizeof *seg->groups);
    seg->n_groups = seg->groups ? (uint32_t)n : 0;
    for (uint32_t i = 0; i < seg->n_groups && !r->err; i++) {
        struct segment_group *g = &seg->groups[i];
        g->directory = get_ref(r);
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
    seg->string_index = get_ref(&r);
    seg->columns_ref = get_ref(&r);
    seg->resources_ref = get_ref(&r);
    seg->scopes_ref = get_ref(&r);
    seg->operations_ref = get_ref(&r);
    seg->hashes_ref = get_ref(&r);
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
    if (le32toh(version) != SEGMENT_VERSION || le32toh(required) & ~(uint32_t)SEGMENT_DERIVED_IDS)
        return ERR_UNSUPPORTED;
    seg->derived_ids = le32toh(required) & SEGMENT_DERIVED_IDS;
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
    struct segment_string_block *list = list_new(seg, &r, blocks, sizeof *list);
    if (!r.err && blocks != (n + (uint64_t)SEGMENT_STRINGS - 1) / SEGMENT_STRINGS)
        r.err = ERR_CORRUPT;
    for (uint32_t i = 0; !r.err && i < blocks; i++) {
        list[i].ref = get_ref(&r);
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
    struct segment_column *columns = list_new(seg, &r, n, sizeof *columns);
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
            c->dictionary = get_ref(&r);
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
    struct str *resources, *scopes;
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

/* ---- groups ---- */

static struct block_ref directory_ref(struct codec_reader *r, uint64_t *offset)
{
    struct block_ref ref = {.offset = *offset, .length = codec_varint(r)};
    ref.checksum = get_u32(r);
    *offset += ref.length;
    return ref;
}

int segment_group_read(struct segment *seg, const struct segment_group *g, struct arena *arena,
                       struct group_read *ret)
{
    struct codec_reader r;
    int err = segment_columns(seg);
    if (!err)
        err = segment_block(seg, g->directory, arena, &r);
    if (err)
        return err;
    struct group_read group = {.group = g};
    uint64_t offset = g->offset;
    for (int i = 0; i < FIXED_COLUMNS; i++)
        group.fixed[i] = directory_ref(&r, &offset);
    group.n_shapes = codec_varint(&r);
    group.n_shape_cells = codec_varint(&r);
    group.n_columns = codec_u32(&r);
    if (group.n_shapes > g->n || group.n_columns > seg->n_columns)
        r.err = ERR_CORRUPT;
    group.columns = r.err ? NULL : arena_array(arena, group.n_columns, sizeof *group.columns);
    if (!r.err && !group.columns)
        r.err = ERR_NOMEM;
    uint64_t column = 0;
    for (uint32_t i = 0; !r.err && i < group.n_columns; i++) {
        struct group_column_read *gc = &group.columns[i];
        column += codec_varint(&r) + (i != 0);
        if (column >= seg->n_columns) {
            r.err = ERR_CORRUPT;
            break;
        }
        const struct segment_column *c = &seg->columns[column];
        *gc = (struct group_column_read){.column = (uint32_t)column, .n = codec_varint(&r)};
        gc->values = directory_ref(&r, &offset);
        if (c->how == HOW_PLAIN && c->type == VALUE_STRING)
            gc->filter = directory_ref(&r, &offset);
        if (c->type == VALUE_INT) {
            gc->low = codec_zigzag(&r);
            gc->high = codec_zigzag(&r);
        }
        if (gc->n == 0 || gc->n > c->n)
            r.err = ERR_CORRUPT;
    }
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, g->directory.offset, "the directory of a group");
    *ret = group;
    return 0;
}

int segment_shapes(struct segment *seg, const struct group_read *g, struct arena *arena,
                   struct group_shapes *ret)
{
    struct codec_reader r;
    struct group_shapes sh;
    int err = segment_numbers(seg, g->fixed[FIXED_SHAPE], g->group->n, arena, &sh.of_row);
    if (!err)
        err = segment_block(seg, g->fixed[FIXED_SHAPES], arena, &r);
    if (err)
        return err;
    sh.lengths = stream_sized(&r, g->n_shapes);
    sh.columns = stream_numbers(&r, g->n_shape_cells);
    sh.first = r.err ? NULL : arena_array(arena, g->n_shapes, sizeof *sh.first);
    if (!r.err && !sh.first)
        r.err = ERR_NOMEM;
    uint64_t at = 0;
    for (uint64_t i = 0; !r.err && i < g->n_shapes; i++) {
        sh.first[i] = at;
        if (sh.lengths[i] > g->n_shape_cells - at) {
            r.err = ERR_CORRUPT;
            break;
        }
        uint64_t before = UINT64_MAX; /* -1 */
        for (uint64_t k = 0; k < sh.lengths[i]; k++, at++) {
            uint64_t column = before + 1 + sh.columns[at];
            if (sh.columns[at] >= seg->n_columns)
                r.err = ERR_CORRUPT;
            if (column >= seg->n_columns)
                column -= seg->n_columns;
            sh.columns[at] = before = column;
        }
    }
    if (!r.err && at != g->n_shape_cells)
        r.err = ERR_CORRUPT;
    for (uint32_t i = 0; !r.err && i < g->group->n; i++)
        if (sh.of_row[i] >= g->n_shapes)
            r.err = ERR_CORRUPT;
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, g->fixed[FIXED_SHAPES].offset, "the shapes of a group");
    *ret = sh;
    return 0;
}

int segment_column_values(struct segment *seg, const struct group_column_read *gc,
                          struct arena *arena, uint64_t **ret_numbers, struct str **ret_texts)
{
    struct segment_column *c = &seg->columns[gc->column];
    struct codec_reader r;
    uint64_t *numbers = NULL;
    struct str *texts = NULL;
    int err = 0;
    if (c->how == HOW_DICTIONARY)
        err = segment_dictionary(seg, c);
    if (!err && c->how != HOW_NOTHING)
        err = segment_block(seg, gc->values, arena, &r);
    if (err)
        return err;
    if (c->how == HOW_PLAIN)
        texts = stream_list(&r, gc->n);
    else if (c->how != HOW_NOTHING)
        numbers = stream_numbers(&r, gc->n);
    for (uint64_t i = 0; c->how == HOW_DICTIONARY && numbers && i < gc->n; i++)
        if (numbers[i] >= c->n_codes)
            r.err = ERR_CORRUPT;
    if (c->how != HOW_NOTHING && (err = codec_finish(&r)))
        return segment_fail(seg, err, gc->values.offset, "a column of attributes");
    *ret_numbers = numbers;
    *ret_texts = texts;
    return 0;
}

int segment_value(struct segment *seg, const struct segment_column *c, const uint64_t *numbers,
                  const struct str *texts, uint64_t i, struct arena *arena, struct value *ret)
{
    struct value v = {.type = c->type};
    switch (c->type) {
    case VALUE_BOOL:
        v.boolean = numbers[i] != 0;
        break;
    case VALUE_INT:
        v.integer = segment_unzigzag(numbers[i]);
        break;
    case VALUE_DOUBLE:
        memcpy(&v.real, &numbers[i], sizeof v.real);
        break;
    case VALUE_STRING:
        if (c->how == HOW_DICTIONARY) {
            int err = segment_string(seg, c->codes[numbers[i]], &v.string);
            if (err)
                return err;
        } else {
            v.string = texts[i];
        }
        break;
    case VALUE_BYTES:
        v.bytes = texts[i];
        break;
    case VALUE_ARRAY:
    case VALUE_MAP: {
        struct codec_reader r = codec_reader(texts[i], arena);
        codec_value(&r, &v);
        int err = codec_finish(&r);
        if (err || v.type != c->type)
            return segment_fail(seg, err ? err : ERR_CORRUPT, seg->columns_ref.offset, "a value");
        break;
    }
    default:
        break;
    }
    *ret = v;
    return 0;
}

/* ---- finding a trace ---- */

int segment_traces(struct segment *seg, const struct segment_trace_block *b, struct arena *arena,
                   struct traces_read *ret)
{
    struct codec_reader r;
    int err = segment_block(seg, b->ref, arena, &r);
    if (err)
        return err;
    struct traces_read t = {.block = b};
    t.ids = seg->derived_ids ? ids_get_traces(&r, b->n)
                             : codec_bytes(&r, (size_t)b->n * TRACE_ID_SIZE);
    t.n = stream_sized(&r, b->n);
    t.start = stream_sized(&r, b->n);
    uint64_t rows = 0;
    for (uint32_t i = 0; !r.err && i < b->n; i++) {
        rows += t.n[i];
        if (t.n[i] == 0 || rows > b->n_rows)
            r.err = ERR_CORRUPT;
    }
    if (r.err || rows != b->n_rows)
        return segment_fail(seg, r.err ? r.err : ERR_CORRUPT, b->ref.offset, "a block of traces");
    t.rest = r;
    *ret = t;
    return 0;
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
    struct segment_hash_block *blocks = list_new(seg, &r, n, sizeof *blocks);
    for (uint64_t i = 0; !r.err && i < n; i++) {
        blocks[i].ref = get_ref(&r);
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

static int candidate_check(struct segment *seg, const struct trace_id *id, uint64_t ordinal,
                           struct trace_found *ret)
{
    uint32_t low = 0, high = seg->n_trace_blocks;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (seg->trace_blocks[middle].first_trace <= ordinal)
            low = middle;
        else
            high = middle;
    }
    struct traces_read t;
    int err = segment_traces(seg, &seg->trace_blocks[low], &seg->scratch, &t);
    if (err)
        return err;
    uint32_t place = (uint32_t)ordinal - t.block->first_trace;
    if (memcmp(t.ids + (size_t)place * TRACE_ID_SIZE, id->bytes, TRACE_ID_SIZE))
        return 0;
    uint32_t row = t.block->first_row;
    for (uint32_t i = 0; i < place; i++)
        row += (uint32_t)t.n[i];
    *ret = (struct trace_found){t, place, row, true};
    return 0;
}

/* Kept in 8 bytes a trace: a search asks for many traces. */
static int hash_block_read(struct segment *seg, struct segment_hash_block *b)
{
    struct codec_reader r;
    if (b->hashes)
        return 0;
    int err = segment_block(seg, b->ref, &seg->scratch, &r);
    if (err)
        return err;
    uint64_t *hashes = stream_sized(&r, b->n), *ordinals = stream_numbers(&r, b->n);
    uint32_t *kept = arena_array(&seg->arena, b->n, 2 * sizeof *kept);
    if (!kept && !r.err)
        r.err = ERR_NOMEM;
    for (uint32_t i = 0; !r.err && i < b->n; i++) {
        if (hashes[i] > UINT32_MAX || ordinals[i] >= seg->n_traces ||
            (i && hashes[i] < hashes[i - 1]))
            r.err = ERR_CORRUPT;
        kept[i] = (uint32_t)hashes[i];
        kept[b->n + i] = (uint32_t)ordinals[i];
    }
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, b->ref.offset, "the index of traces");
    b->hashes = kept;
    b->ordinals = kept + b->n;
    return 0;
}

int segment_trace_find(struct segment *seg, const struct trace_id *id, struct trace_found *ret)
{
    uint32_t hash = segment_trace_hash(id->bytes);
    ret->found = false;
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
        err = hash_block_read(seg, b);
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
            err = candidate_check(seg, id, b->ordinals[i], ret);
            if (err || ret->found)
                return err;
        }
    }
    return 0;
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

int segment_group_rows(struct segment *seg, const struct group_read *g, uint32_t first, uint32_t n,
                       uint64_t trace_start, uint32_t to, uint64_t *places, struct trace_rows *rows)
{
    struct arena *a = &seg->scratch;
    uint32_t n_group = g->group->n;
    uint64_t *parents, *starts, *durations, *operations, *status;
    struct codec_reader ids, foreign;
    int err = segment_ids(seg, g->fixed[FIXED_SPAN_ID], n_group, a, &ids);
    if (!err)
        err = segment_block(seg, g->fixed[FIXED_FOREIGN_PARENTS], a, &foreign);
    if (!err)
        err = segment_numbers(seg, g->fixed[FIXED_PARENT], n_group, a, &parents);
    if (!err)
        err = segment_numbers(seg, g->fixed[FIXED_START], n_group, a, &starts);
    if (!err)
        err = segment_numbers(seg, g->fixed[FIXED_DURATION], n_group, a, &durations);
    if (!err)
        err = segment_numbers(seg, g->fixed[FIXED_OPERATION], n_group, a, &operations);
    if (!err)
        err = segment_numbers(seg, g->fixed[FIXED_STATUS], n_group, a, &status);
    if (err)
        return err;
    uint64_t start = trace_start;
    for (uint32_t i = 0; i < first + n; i++) {
        const uint8_t *id = codec_bytes(&ids, SPAN_ID_SIZE);
        const uint8_t *parent = parents[i] == SEGMENT_FOREIGN_PARENT
                                    ? codec_bytes(&foreign, SPAN_ID_SIZE)
                                    : NULL;
        if (!id || foreign.err)
            return segment_fail(seg, ERR_CORRUPT, g->fixed[FIXED_SPAN_ID].offset,
                                "the ids of a group");
        if (i < first)
            continue;
        uint32_t k = to + i - first;
        start += starts[i];
        rows->ids[k] = id;
        if (parent)
            memcpy(rows->parents[k].bytes, parent, SPAN_ID_SIZE);
        places[k] = parents[i];
        rows->start[k] = start;
        rows->end[k] = start + durations[i];
        rows->operation[k] = operations[i];
        rows->status[k] = status[i];
        if (operations[i] >= seg->n_operations)
            return segment_fail(seg, ERR_CORRUPT, g->fixed[FIXED_OPERATION].offset,
                                "the operations of a group");
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
        struct group_read g;
        uint32_t first = first_row > sg->first_row ? first_row - sg->first_row : 0;
        uint64_t end = end_row - sg->first_row < sg->n ? end_row - sg->first_row : sg->n;
        int err = segment_group_read(seg, sg, &seg->scratch, &g);
        if (!err)
            err = fn(arg, seg, &g, first, (uint32_t)end - first, sg->first_row + first - first_row);
        if (err)
            return err;
    }
    return 0;
}

struct rows_arg {
    struct trace_rows *rows;
    uint64_t *places, trace_start;
};

static int rows_gather(void *arg, struct segment *seg, const struct group_read *g, uint32_t first,
                       uint32_t n, uint32_t to)
{
    struct rows_arg *a = arg;
    return segment_group_rows(seg, g, first, n, a->trace_start, to, a->places, a->rows);
}

int segment_trace_rows(struct segment *seg, const struct trace_found *found, struct trace_rows *ret)
{
    struct arena *a = &seg->scratch;
    size_t n = found->traces.n[found->place];
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
    struct rows_arg arg = {&rows, places, found->traces.start[found->place]};
    int err = segment_operations_read(seg);
    if (!err)
        err = segment_trace_groups(seg, found->first_row, n, rows_gather, &arg);
    for (size_t i = 0; !err && i < n; i++) {
        if (places[i] == 0 || places[i] == SEGMENT_FOREIGN_PARENT)
            continue;
        if (places[i] > n)
            err = segment_fail(seg, ERR_CORRUPT, found->traces.block->ref.offset, "a parent");
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
    struct codec_reader *r = &found.traces.rest;
    uint32_t n = found.traces.block->n, at = found.place;
    uint64_t *length = stream_sized(r, n), *root = stream_sized(r, n),
             *operation = stream_sized(r, n), *errors = stream_sized(r, n),
             *orphans = stream_sized(r, n), *services = stream_sized(r, n), total = 0, first = 0;
    for (uint32_t i = 0; !r->err && i < n; i++) {
        first += i < at ? services[i] : 0;
        total += services[i];
        if (services[i] > seg->n_rows || total > seg->n_rows)
            r->err = ERR_CORRUPT;
    }
    uint64_t *names = stream_sized(r, total), *spans = stream_sized(r, total),
             *wrong = stream_sized(r, total);
    err = codec_finish(r);
    if (!err && operation[at] >= seg->n_operations)
        err = ERR_CORRUPT;
    if (err)
        return segment_fail(seg, err, found.traces.block->ref.offset, "a block of traces");
    const struct segment_operation *op = &seg->operations[operation[at]];
    const struct resource *resource;
    struct str name;
    struct trace_service *list = arena_array(arena, services[at], sizeof *list);
    struct trace_summary s = {
        .id = *id,
        .start_ns = found.traces.start[at],
        .end_ns = found.traces.start[at] + length[at],
        .span_count = (uint32_t)found.traces.n[at],
        .error_count = (uint32_t)errors[at],
        .orphan_count = (uint32_t)orphans[at],
        .has_root = root[at] != 0,
        .services = list,
        .n_services = (uint32_t)services[at],
    };
    err = segment_resource(seg, op->resource, &resource);
    if (!err)
        err = segment_string(seg, op->name, &name);
    if (!err && (!list || !text_copy(arena, name, &s.root_name) ||
                 !text_copy(arena, resource->service_name, &s.root_service)))
        err = ERR_NOMEM;
    for (uint64_t i = 0; !err && i < services[at]; i++) {
        list[i] = (struct trace_service){.span_count = (uint32_t)spans[first + i],
                                         .error_count = (uint32_t)wrong[first + i]};
        err = segment_string(seg, names[first + i], &name);
        if (!err && !text_copy(arena, name, &list[i].name))
            err = ERR_NOMEM;
    }
    if (!err)
        *ret = s;
    return err;
}

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
