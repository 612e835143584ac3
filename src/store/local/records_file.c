/* The layout is in docs/formats/records.md: header, blocks, shared things, positions, index, filter,
 * footer. A file is written under another name, synced, and renamed: a name of ours is a whole file.
 *
 * A reader maps the file. Everything but the blocks is checked when it is opened, each block against
 * its checksum whenever it is read. */
#include "store/local/records_file.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "base/hash.h"
#include "base/log.h"
#include "store/local/file.h"

enum {
    VERSION = 1,
    HEADER_SIZE = 16,
    FOOTER_SIZE = 248,
    BLOCK_SIZE = 64, /* in the index */
    ZSTD_LEVEL = 3,
    FILTER_BITS_PER_TRACE = 10,
    FILTER_PROBES = 7,
    SHARED_BYTES_MAX = 1 << 30,
    RAW_BYTES_MAX = RECORDS_BLOCK_BYTES + RECORDS_ROW_BYTES_MAX + 256,
};
static const char magic[8] = "PUGREC\r\n";

/* Numbers of the footer, by their place; all are of 64 bits, little endian. */
enum footer {
    FIRST_SEQUENCE,
    LAST_SEQUENCE,
    LAST_ORDINAL,
    MADE,
    LOGS,
    LOGS_MIN,
    LOGS_MAX,
    POINTS,
    POINTS_MIN,
    POINTS_MAX,
    RAW_BYTES,
    SHARED_AT,
    SHARED_STORED,
    SHARED_RAW,
    SHARED_COUNT,
    SHARED_CHECKSUM,
    POSITIONS_AT,
    POSITIONS_BYTES,
    POSITIONS_CHECKSUM,
    INDEX_AT,
    INDEX_BLOCKS,
    INDEX_CHECKSUM,
    FILTER_AT,
    FILTER_BYTES,
    FILTER_CHECKSUM,
    FEATURES, /* version in the low half, features that a reader must know in the high one */
    SPARE_1,
    SPARE_2,
    SPARE_3,
    CHECKSUM, /* of all before */
    FOOTER_NUMBERS,
};
_Static_assert(FOOTER_SIZE == FOOTER_NUMBERS * 8 + sizeof magic, "docs/formats/records.md");

void records_file_name(char name[RECORDS_NAME_SIZE], uint64_t first_sequence,
                       uint64_t last_sequence)
{
    snprintf(name, RECORDS_NAME_SIZE, "rec-%016llx-%016llx.rec", (unsigned long long)first_sequence,
             (unsigned long long)last_sequence);
}

bool records_file_name_parse(const char *name, uint64_t *ret_first, uint64_t *ret_last)
{
    unsigned long long first, last;
    char again[RECORDS_NAME_SIZE];
    if (sscanf(name, "rec-%16llx-%16llx.rec", &first, &last) != 2 || first > last)
        return false;
    records_file_name(again, first, last);
    if (strcmp(name, again) != 0)
        return false;
    *ret_first = first;
    *ret_last = last;
    return true;
}

/* ---- the filter: which traces may be there (Bloom, two hashes for all probes) ---- */

static void filter_hashes(const uint8_t key[ROW_KEY_SIZE], uint64_t *a, uint64_t *b)
{
    *a = hash_bytes(key, ROW_KEY_SIZE);
    *b = hash_mix64(*a) | 1;
}

static bool filter_test(const char *bits, uint64_t bytes, const uint8_t key[ROW_KEY_SIZE])
{
    uint64_t a, b;
    filter_hashes(key, &a, &b);
    for (int i = 0; i < FILTER_PROBES; i++, a += b) {
        uint64_t bit = a % (bytes * 8);
        if (!((uint8_t)bits[bit / 8] >> bit % 8 & 1))
            return false;
    }
    return true;
}

static void filter_add(char *bits, uint64_t bytes, const uint8_t key[ROW_KEY_SIZE])
{
    uint64_t a, b;
    filter_hashes(key, &a, &b);
    for (int i = 0; i < FILTER_PROBES; i++, a += b) {
        uint64_t bit = a % (bytes * 8);
        bits[bit / 8] = (char)((uint8_t)bits[bit / 8] | 1U << bit % 8);
    }
}

static bool key_is_zero(const uint8_t key[ROW_KEY_SIZE])
{
    static const uint8_t zero[ROW_KEY_SIZE];
    return memcmp(key, zero, sizeof zero) == 0;
}

/* ---- writing ---- */

struct writer {
    int fd;
    uint64_t at;
    ZSTD_CCtx *zstd;
    struct buf raw, packed, index;
    struct records_block block; /* that fills */
    const struct row **order;
    uint64_t footer[FOOTER_NUMBERS];
};

static int order_cmp(const void *a, const void *b)
{
    return row_cmp(*(const struct row *const *)a, *(const struct row *const *)b);
}

static void put_u64(struct buf *b, uint64_t n)
{
    n = htole64(n);
    buf_put(b, &n, sizeof n);
}

static void put_u32(struct buf *b, uint32_t n)
{
    n = htole32(n);
    buf_put(b, &n, sizeof n);
}

static int write_out(struct writer *w, const void *bytes, size_t n)
{
    int err = file_write(w->fd, bytes, n);
    w->at += err ? 0 : n;
    return err;
}

/* What is in `raw`, compressed; left in `packed`. */
static int pack(struct writer *w)
{
    buf_clear(&w->packed);
    size_t room = ZSTD_compressBound(w->raw.len);
    if (!buf_ok(&w->raw) || !buf_reserve(&w->packed, room))
        return ERR_NOMEM;
    size_t n = ZSTD_compressCCtx(w->zstd, w->packed.ptr, room, w->raw.ptr ? w->raw.ptr : "",
                                 w->raw.len, ZSTD_LEVEL);
    if (ZSTD_isError(n))
        return ERR_NOMEM;
    w->packed.len = n;
    return 0;
}

static int block_end(struct writer *w)
{
    struct records_block *b = &w->block;
    if (!b->rows)
        return 0;
    int err = pack(w);
    if (err)
        return err;
    buf_put(&w->index, b->key, sizeof b->key);
    put_u64(&w->index, b->time_min_ns);
    put_u64(&w->index, b->time_max_ns);
    put_u64(&w->index, w->at);
    put_u64(&w->index, hash_bytes(w->packed.ptr, w->packed.len));
    put_u32(&w->index, (uint32_t)w->packed.len);
    put_u32(&w->index, (uint32_t)w->raw.len);
    put_u32(&w->index, b->rows);
    put_u32(&w->index, b->kind);
    w->footer[INDEX_BLOCKS]++;
    w->footer[RAW_BYTES] += w->raw.len;
    *b = (struct records_block){.rows = 0};
    buf_clear(&w->raw);
    return write_out(w, w->packed.ptr, w->packed.len);
}

static int block_add(struct writer *w, const struct row *row)
{
    struct records_block *b = &w->block;
    if (b->rows && (b->kind != row->kind || w->raw.len >= RECORDS_BLOCK_BYTES)) {
        int err = block_end(w);
        if (err)
            return err;
    }
    if (!b->rows++) {
        memcpy(b->key, row->key, sizeof b->key);
        b->kind = row->kind;
        b->time_min_ns = b->time_max_ns = row->time_ns;
    }
    b->time_min_ns = row->time_ns < b->time_min_ns ? row->time_ns : b->time_min_ns;
    b->time_max_ns = row->time_ns > b->time_max_ns ? row->time_ns : b->time_max_ns;
    buf_put(&w->raw, row->key, sizeof row->key);
    put_u64(&w->raw, row->time_ns);
    codec_put_varint(&w->raw, row->ordinal);
    codec_put_varint(&w->raw, row->shared);
    codec_put_str(&w->raw, (struct str){row->payload, row->len});
    return 0;
}

static int blocks_write(struct writer *w, const struct rows *rows)
{
    int err = 0;
    w->order = malloc((rows->n + 1) * sizeof(struct row *));
    if (!w->order)
        return ERR_NOMEM;
    for (size_t i = 0; i < rows->n; i++)
        w->order[i] = &rows->items[i];
    qsort(w->order, rows->n, sizeof *w->order, order_cmp);
    for (size_t i = 0; i < rows->n && !err; i++)
        err = block_add(w, w->order[i]);
    return err ? err : block_end(w);
}

static int shared_write(struct writer *w, const struct rows *rows)
{
    buf_clear(&w->raw);
    for (uint32_t i = 0; i < rows->n_shared; i++)
        codec_put_str(&w->raw, rows->shared[i].bytes);
    int err = pack(w);
    if (err)
        return err;
    w->footer[SHARED_AT] = w->at;
    w->footer[SHARED_STORED] = w->packed.len;
    w->footer[SHARED_RAW] = w->raw.len;
    w->footer[SHARED_COUNT] = rows->n_shared;
    w->footer[SHARED_CHECKSUM] = hash_bytes(w->packed.ptr, w->packed.len);
    return write_out(w, w->packed.ptr, w->packed.len);
}

static int positions_write(struct writer *w, const struct rows_position *positions)
{
    buf_clear(&w->raw);
    for (const struct rows_position *p = positions; p; p = p->next) {
        codec_put_str(&w->raw, (struct str){p->bytes, p->name_len});
        codec_put_str(&w->raw, (struct str){p->bytes + p->name_len, p->value_len});
    }
    if (!buf_ok(&w->raw))
        return ERR_NOMEM;
    w->footer[POSITIONS_AT] = w->at;
    w->footer[POSITIONS_BYTES] = w->raw.len;
    w->footer[POSITIONS_CHECKSUM] = hash_bytes(w->raw.ptr, w->raw.len);
    return write_out(w, w->raw.ptr, w->raw.len);
}

static int index_write(struct writer *w)
{
    if (!buf_ok(&w->index))
        return ERR_NOMEM;
    w->footer[INDEX_AT] = w->at;
    w->footer[INDEX_CHECKSUM] = hash_bytes(w->index.ptr, w->index.len);
    return write_out(w, w->index.ptr, w->index.len);
}

/* `order` has the rows by key: equal traces are neighbours. */
static int filter_write(struct writer *w, const struct rows *rows)
{
    uint64_t traces = 0;
    for (size_t i = 0; i < rows->n && w->order[i]->kind == ROW_LOG; i++)
        traces += !i || memcmp(w->order[i]->key, w->order[i - 1]->key, ROW_KEY_SIZE) != 0;
    uint64_t bytes = (traces * FILTER_BITS_PER_TRACE + 7) / 8;
    char *bits = calloc(bytes + 1, 1);
    if (!bits)
        return ERR_NOMEM;
    for (size_t i = 0; i < rows->n && w->order[i]->kind == ROW_LOG; i++)
        if (!key_is_zero(w->order[i]->key))
            filter_add(bits, bytes, w->order[i]->key);
    w->footer[FILTER_AT] = w->at;
    w->footer[FILTER_BYTES] = bytes;
    w->footer[FILTER_CHECKSUM] = hash_bytes(bits, bytes);
    int err = write_out(w, bits, bytes);
    free(bits);
    return err;
}

static int footer_write(struct writer *w, const struct rows *rows,
                        const struct records_file_info *info)
{
    uint64_t *f = w->footer;
    f[FIRST_SEQUENCE] = info->first_sequence;
    f[LAST_SEQUENCE] = info->last_sequence;
    f[LAST_ORDINAL] = info->last_ordinal;
    f[MADE] = info->made_ns;
    f[LOGS] = rows->n_kind[ROW_LOG];
    f[LOGS_MIN] = rows->time_min_ns[ROW_LOG];
    f[LOGS_MAX] = rows->time_max_ns[ROW_LOG];
    f[POINTS] = rows->n_kind[ROW_POINT];
    f[POINTS_MIN] = rows->time_min_ns[ROW_POINT];
    f[POINTS_MAX] = rows->time_max_ns[ROW_POINT];
    f[FEATURES] = VERSION;
    buf_clear(&w->raw);
    for (int i = 0; i < CHECKSUM; i++)
        put_u64(&w->raw, f[i]);
    if (!buf_ok(&w->raw))
        return ERR_NOMEM;
    put_u64(&w->raw, hash_bytes(w->raw.ptr, w->raw.len));
    buf_put(&w->raw, magic, sizeof magic);
    return buf_ok(&w->raw) ? write_out(w, w->raw.ptr, w->raw.len) : ERR_NOMEM;
}

static int parts_write(struct writer *w, const struct rows *rows,
                       const struct records_file_info *info)
{
    char header[HEADER_SIZE] = {0};
    uint32_t version = htole32(VERSION);
    memcpy(header, magic, sizeof magic);
    memcpy(header + sizeof magic, &version, sizeof version);
    int err = write_out(w, header, sizeof header);
    if (!err)
        err = blocks_write(w, rows);
    if (!err)
        err = shared_write(w, rows);
    if (!err)
        err = positions_write(w, info->positions);
    if (!err)
        err = index_write(w);
    if (!err)
        err = filter_write(w, rows);
    return err ? err : footer_write(w, rows, info);
}

int records_file_write(int dir, bool sync, const struct rows *rows,
                       const struct records_file_info *info)
{
    char name[RECORDS_NAME_SIZE], part[RECORDS_NAME_SIZE + 8];
    struct writer w = {.fd = -1, .zstd = ZSTD_createCCtx()};
    records_file_name(name, info->first_sequence, info->last_sequence);
    snprintf(part, sizeof part, "%s.tmp", name);
    int err = w.zstd ? file_open(dir, part, O_WRONLY | O_CREAT | O_TRUNC, &w.fd) : ERR_NOMEM;
    if (!err) {
        err = parts_write(&w, rows, info);
        if (!err && sync)
            err = file_sync(w.fd);
        close(w.fd);
        if (!err)
            err = file_rename(dir, part, name);
        if (err)
            (void)!file_remove(dir, part);
        else if (sync)
            err = file_sync(dir);
    }
    ZSTD_freeCCtx(w.zstd);
    buf_done(&w.raw);
    buf_done(&w.packed);
    buf_done(&w.index);
    free(w.order);
    return err;
}

/* ---- opening ---- */

struct records_file *records_file_ref(struct records_file *file)
{
    atomic_fetch_add_explicit(&file->refs, 1, memory_order_relaxed);
    return file;
}

void records_file_unref(struct records_file *file)
{
    /* acq_rel: who frees sees what the others did before they let go */
    if (!file || atomic_fetch_sub_explicit(&file->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (file->map)
        munmap((void *)(uintptr_t)file->map, file->bytes);
    if (atomic_load(&file->is_gone) && file_remove(file->dir, file->name))
        log_warn("a file of records could not be removed file=%s", file->name);
    free(file);
}

static uint64_t get_u64(const char *p)
{
    uint64_t n;
    memcpy(&n, p, sizeof n);
    return le64toh(n);
}

static uint32_t get_u32(const char *p)
{
    uint32_t n;
    memcpy(&n, p, sizeof n);
    return le32toh(n);
}

void records_file_block(const struct records_file *file, uint32_t i, struct records_block *ret)
{
    const char *p = file->index + (size_t)i * BLOCK_SIZE;
    memcpy(ret->key, p, ROW_KEY_SIZE);
    ret->time_min_ns = get_u64(p + 16);
    ret->time_max_ns = get_u64(p + 24);
    ret->at = get_u64(p + 32);
    ret->checksum = get_u64(p + 40);
    ret->stored = get_u32(p + 48);
    ret->raw = get_u32(p + 52);
    ret->rows = get_u32(p + 56);
    ret->kind = get_u32(p + 60);
}

/* A part that the footer names: inside the file, and right. */
static bool part_get(const struct records_file *file, uint64_t at, uint64_t bytes,
                     uint64_t checksum, struct str *ret)
{
    uint64_t end = file->bytes - FOOTER_SIZE;
    if (at < HEADER_SIZE || at > end || bytes > end - at)
        return false;
    *ret = (struct str){file->map + at, bytes};
    return hash_bytes(ret->ptr, ret->len) == checksum;
}

static int damage(struct error_detail *detail, uint64_t at, const char *what)
{
    return error_set(detail, ERR_CORRUPT, at, "%s is damaged", what);
}

static int parts_read(struct records_file *file, const uint64_t f[FOOTER_NUMBERS],
                      struct error_detail *detail)
{
    struct str index, filter;
    if (!part_get(file, f[SHARED_AT], f[SHARED_STORED], f[SHARED_CHECKSUM], &file->shared) ||
        f[SHARED_RAW] > SHARED_BYTES_MAX || f[SHARED_COUNT] > f[SHARED_RAW])
        return damage(detail, f[SHARED_AT], "what records share");
    if (!part_get(file, f[POSITIONS_AT], f[POSITIONS_BYTES], f[POSITIONS_CHECKSUM],
                  &file->positions))
        return damage(detail, f[POSITIONS_AT], "the list of positions");
    if (f[INDEX_BLOCKS] > file->bytes / BLOCK_SIZE ||
        !part_get(file, f[INDEX_AT], f[INDEX_BLOCKS] * BLOCK_SIZE, f[INDEX_CHECKSUM], &index))
        return damage(detail, f[INDEX_AT], "the index");
    if (!part_get(file, f[FILTER_AT], f[FILTER_BYTES], f[FILTER_CHECKSUM], &filter))
        return damage(detail, f[FILTER_AT], "the filter");
    file->index = index.ptr;
    file->n_blocks = (uint32_t)f[INDEX_BLOCKS];
    file->filter = filter.ptr;
    file->filter_bytes = filter.len;
    file->n_shared = f[SHARED_COUNT];
    file->shared_raw = f[SHARED_RAW];
    for (uint32_t i = 0; i < file->n_blocks; i++) {
        struct records_block b;
        records_file_block(file, i, &b);
        if (b.at < HEADER_SIZE || b.at > file->bytes || b.stored > file->bytes - b.at ||
            b.raw > RAW_BYTES_MAX || (b.kind != ROW_LOG && b.kind != ROW_POINT))
            return damage(detail, f[INDEX_AT] + (uint64_t)i * BLOCK_SIZE, "the index");
    }
    return 0;
}

static int footer_read(struct records_file *file, struct error_detail *detail)
{
    char header[HEADER_SIZE] = {0};
    uint64_t f[FOOTER_NUMBERS], first, last;
    uint32_t version = htole32(VERSION);
    if (file->bytes < HEADER_SIZE + FOOTER_SIZE)
        return damage(detail, 0, "a file that is too short");
    const char *at = file->map + file->bytes - FOOTER_SIZE;
    for (int i = 0; i < FOOTER_NUMBERS; i++)
        f[i] = get_u64(at + 8 * i);
    if (memcmp(at + FOOTER_SIZE - sizeof magic, magic, sizeof magic) != 0 ||
        f[CHECKSUM] != hash_bytes(at, CHECKSUM * 8) ||
        !records_file_name_parse(file->name, &first, &last) || f[FIRST_SEQUENCE] != first ||
        f[LAST_SEQUENCE] != last)
        return damage(detail, file->bytes - FOOTER_SIZE, "the footer");
    if (f[FEATURES] != VERSION)
        return error_set(detail, ERR_UNSUPPORTED, 0, "written by a newer version");
    memcpy(header, magic, sizeof magic);
    memcpy(header + sizeof magic, &version, sizeof version);
    if (memcmp(file->map, header, sizeof header) != 0)
        return damage(detail, 0, "the header");
    file->last_ordinal = f[LAST_ORDINAL];
    file->made_ns = f[MADE];
    file->raw_bytes = f[RAW_BYTES];
    for (int kind = ROW_LOG; kind <= ROW_POINT; kind++) {
        const uint64_t *k = &f[kind == ROW_LOG ? LOGS : POINTS];
        file->n_kind[kind] = k[0];
        file->time_min_ns[kind] = k[1];
        file->time_max_ns[kind] = k[2];
    }
    return parts_read(file, f, detail);
}

int records_file_lost(int dir, const char *name, struct records_file **ret)
{
    struct records_file *file = calloc(1, sizeof *file);
    if (!file)
        return ERR_NOMEM;
    *file = (struct records_file){.refs = 1, .dir = dir, .is_damaged = true};
    snprintf(file->name, sizeof file->name, "%s", name);
    if (!records_file_name_parse(name, &file->first_sequence, &file->last_sequence)) {
        free(file);
        return ERR_INVALID;
    }
    *ret = file;
    return 0;
}

static int no_row(void *arg, const struct row *row)
{
    (void)arg;
    (void)row;
    return 0;
}

static int blocks_check(struct records_file *file, struct error_detail *detail)
{
    struct arena arena = ARENA_INIT;
    struct records_reader r = {.file = file};
    atomic_store(&file->is_damaged, true); /* so that it is told here alone */
    int err = records_reader_shared(&r, &arena);
    if (err == ERR_CORRUPT)
        damage(detail, (uint64_t)(file->shared.ptr - file->map), "what records share");
    for (uint32_t i = 0; i < file->n_blocks && !err; i++) {
        struct records_block b;
        records_file_block(file, i, &b);
        err = records_reader_block(&r, i, no_row, NULL);
        if (err == ERR_CORRUPT)
            damage(detail, b.at, "a block of records");
    }
    if (!err)
        atomic_store(&file->is_damaged, false);
    records_reader_done(&r);
    arena_done(&arena);
    return err;
}

int records_file_open(int dir, const char *name, bool all, struct records_file **ret,
                      struct error_detail *ret_detail)
{
    struct records_file *file;
    uint64_t size = 0;
    int fd, err = records_file_lost(dir, name, &file);
    if (err)
        return error_set(ret_detail, err, 0, "%s", err_text(err));
    atomic_store(&file->is_damaged, false);
    err = file_open(dir, name, O_RDONLY, &fd);
    if (!err) {
        err = file_size(fd, &size);
        void *map = !err && size ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
        if (!err && !size)
            err = ERR_CORRUPT;
        else if (!err && map == MAP_FAILED)
            err = ERR_NOMEM;
        if (map != MAP_FAILED) {
            file->map = map;
            file->bytes = size;
        }
        close(fd);
    }
    if (err)
        error_set(ret_detail, err, 0, "%s", err_text(err));
    else
        err = footer_read(file, ret_detail);
    if (!err && all)
        err = blocks_check(file, ret_detail);
    if (err) {
        records_file_unref(file);
        return err;
    }
    *ret = file;
    return 0;
}

/* ---- reading ---- */

bool records_file_may_have(const struct records_file *file, const struct trace_id *id)
{
    return file->filter_bytes && filter_test(file->filter, file->filter_bytes, id->bytes);
}

void records_reader_done(struct records_reader *r)
{
    free(r->raw);
}

static int told(struct records_reader *r, uint64_t at)
{
    if (!atomic_exchange(&r->file->is_damaged, true))
        log_error("a file of records is damaged file=%s offset=%llu: what else is in it is served",
                  r->file->name, (unsigned long long)at);
    return ERR_CORRUPT;
}

int records_reader_shared(struct records_reader *r, struct arena *arena)
{
    const struct records_file *file = r->file;
    if (r->shared)
        return 0;
    char *raw = arena_alloc(arena, file->shared_raw);
    struct str *shared = arena_array(arena, file->n_shared, sizeof *shared);
    if (!raw || !shared)
        return ERR_NOMEM;
    size_t n = ZSTD_decompress(raw, file->shared_raw, file->shared.ptr, file->shared.len);
    struct codec_reader c = codec_reader((struct str){raw, file->shared_raw}, arena);
    for (uint64_t i = 0; i < file->n_shared && !c.err; i++)
        shared[i] = codec_str(&c);
    if (ZSTD_isError(n) || n != file->shared_raw || codec_finish(&c))
        return told(r, (uint64_t)(file->shared.ptr - file->map));
    r->shared = shared;
    return 0;
}

static int rows_walk(struct records_reader *r, const struct records_block *b, records_row_fn *fn,
                     void *arg)
{
    struct codec_reader c = codec_reader((struct str){r->raw, b->raw}, NULL);
    for (uint32_t i = 0; i < b->rows; i++) {
        struct row row = {.kind = (uint8_t)b->kind};
        const uint8_t *key = codec_bytes(&c, ROW_KEY_SIZE);
        row.time_ns = codec_fixed64(&c);
        row.ordinal = codec_varint(&c);
        row.shared = codec_u32(&c);
        struct str payload = codec_str(&c);
        if (c.err || row.shared >= r->file->n_shared || payload.len > RECORDS_ROW_BYTES_MAX)
            return told(r, b->at);
        memcpy(row.key, key, ROW_KEY_SIZE);
        row.payload = payload.ptr;
        row.len = (uint32_t)payload.len;
        int stop = fn(arg, &row);
        if (stop)
            return stop;
    }
    return codec_finish(&c) ? told(r, b->at) : 0;
}

int records_reader_block(struct records_reader *r, uint32_t i, records_row_fn *fn, void *arg)
{
    struct records_block b;
    records_file_block(r->file, i, &b);
    if (r->raw_room < b.raw) {
        free(r->raw);
        r->raw = malloc(b.raw);
        r->raw_room = r->raw ? b.raw : 0;
        if (!r->raw)
            return ERR_NOMEM;
    }
    const char *stored = r->file->map + b.at;
    if (hash_bytes(stored, b.stored) != b.checksum)
        return told(r, b.at);
    size_t n = ZSTD_decompress(r->raw, b.raw, stored, b.stored);
    if (ZSTD_isError(n) || n != b.raw)
        return told(r, b.at);
    return rows_walk(r, &b, fn, arg);
}
