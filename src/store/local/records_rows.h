/* Records as rows: how a batch stands in the log, in memory, and in files. The layout is in
 * docs/formats/records.md. */
#ifndef STORE_LOCAL_RECORDS_ROWS_H
#define STORE_LOCAL_RECORDS_ROWS_H

#include "store/local/codec.h"
#include "store/records.h"

/* Numbers are on disk. */
enum row_kind { ROW_LOG = 1, ROW_POINT = 2 };
#define ROW_KINDS 3

enum { ROW_KEY_SIZE = 16 };

/* One record. A log's key is its trace id (zeros: none), a point's its series. What many rows share
 * (a resource and a scope; a series) is kept once, and numbered. */
struct row {
    uint8_t key[ROW_KEY_SIZE];
    uint64_t time_ns;
    uint64_t ordinal; /* which one it is of all that ever came */
    const char *payload;
    uint32_t len, shared;
    uint8_t kind;
};

/* By kind, key, time, ordinal: how files are sorted. */
int row_cmp(const struct row *a, const struct row *b);

/* ---- encoding a batch ---- */

/* Asked for each series of a batch: whether its points are kept. */
typedef bool rows_series_fn(void *arg, const uint8_t key[ROW_KEY_SIZE]);

MUST_USE int rows_encode(const struct records_batch *batch, rows_series_fn *series, void *arg,
                         struct buf *out, struct records_refused *ret_refused, size_t *ret_n);

/* ---- rows in memory: written by one thread ---- */

struct rows_shared {
    struct str bytes; /* the kind first */
    uint64_t hash;
};

struct rows_position {
    struct rows_position *next;
    size_t name_len, value_len;
    char bytes[]; /* name, value */
};

struct rows {
    struct arena arena; /* payloads and shared things */
    struct row *items;
    size_t n, room;
    struct rows_shared *shared;
    uint32_t n_shared, shared_room;
    uint32_t *slots; /* of the shared by hash: number + 1 */
    uint32_t n_slots;
    uint64_t n_kind[ROW_KINDS], time_min_ns[ROW_KINDS], time_max_ns[ROW_KINDS];
};

void rows_init(struct rows *rows);
void rows_done(struct rows *rows);
size_t rows_bytes(const struct rows *rows);

/* Copies. `ret_number` is that of an equal one, when there is one. */
MUST_USE int rows_share(struct rows *rows, struct str bytes, uint32_t *ret_number);
/* Copies the payload; the row's `shared` is a number of these rows. */
MUST_USE int rows_add(struct rows *rows, const struct row *row);

/* Adds what an encoded batch holds, all or nothing; its rows get the ordinals from `ordinal` on.
 * Positions are told one by one. ERR_CORRUPT, ERR_NOMEM. */
typedef int rows_position_fn(void *arg, struct str name, struct str value);
MUST_USE int rows_add_batch(struct rows *rows, struct str batch, uint64_t ordinal,
                            rows_position_fn *position, void *arg);

/* ---- decoding: borrows from the bytes; arrays live in `arena` ---- */

struct shared_log {
    struct resource resource;
    struct scope scope;
};
struct shared_series {
    struct metric metric; /* without points */
    struct attrs attrs;
    struct resource resource;
    struct scope scope;
};

/* The kind of a shared thing; 0: none that is known. */
static inline uint8_t shared_kind(struct str bytes)
{
    return bytes.len ? (uint8_t)bytes.ptr[0] : 0;
}
MUST_USE int shared_log_decode(struct str bytes, struct arena *arena, struct shared_log *ret);
MUST_USE int shared_series_decode(struct str bytes, struct arena *arena, struct shared_series *ret);
/* Without decoding the rest. */
MUST_USE int shared_series_name(struct str bytes, struct str *ret);
/* Of the series that these bytes are. */
void shared_series_key(struct str bytes, uint8_t key[ROW_KEY_SIZE]);
uint8_t row_log_severity(const struct row *row); /* 0 also for what cannot be read */
/* `ret->resource` and `ret->scope` are left to the caller. */
MUST_USE int row_log_decode(const struct row *row, struct arena *arena, struct log_record *ret);
MUST_USE int row_point_decode(const struct row *row, uint8_t metric_type, struct arena *arena,
                              struct metric_point *ret);

#endif
