/* One immutable file of records: docs/formats/records.md. */
#ifndef STORE_LOCAL_RECORDS_FILE_H
#define STORE_LOCAL_RECORDS_FILE_H

#include <stdatomic.h>

#include "store/local/records_rows.h"

enum { RECORDS_BLOCK_BYTES = 64 << 10, RECORDS_NAME_SIZE = 48 };

/* A block as the index has it; in the byte order of the machine. */
struct records_block {
    uint8_t key[ROW_KEY_SIZE]; /* of its first row */
    uint64_t time_min_ns, time_max_ns, at, checksum;
    uint32_t stored, raw, rows, kind;
};

/* Shared by the list of files and by who reads it; nothing but the flags changes. */
struct records_file {
    _Atomic unsigned refs;
    int dir; /* lent */
    char name[RECORDS_NAME_SIZE];
    uint64_t first_sequence, last_sequence, last_ordinal, made_ns;
    uint64_t bytes, raw_bytes;
    uint64_t n_kind[ROW_KINDS], time_min_ns[ROW_KINDS], time_max_ns[ROW_KINDS];
    _Atomic bool is_gone;    /* the file goes with the last reference */
    _Atomic bool is_damaged; /* something in it cannot be read; told once */
    /* inside */
    const char *map; /* NULL: cannot be read at all */
    const char *index, *filter;
    uint32_t n_blocks;
    uint64_t filter_bytes;
    struct str shared, positions; /* as stored: compressed; plain */
    uint64_t n_shared, shared_raw;
};

void records_file_name(char name[RECORDS_NAME_SIZE], uint64_t first_sequence,
                       uint64_t last_sequence);
/* False: not a name of ours. */
bool records_file_name_parse(const char *name, uint64_t *ret_first, uint64_t *ret_last);

/* What a new file says of itself, beside its rows. */
struct records_file_info {
    uint64_t first_sequence, last_sequence, last_ordinal, made_ns;
    const struct rows_position *positions;
};
/* Durable under its name when it returns 0 (with `sync`). Sorts nothing in place. */
MUST_USE int records_file_write(int dir, bool sync, const struct rows *rows,
                                const struct records_file_info *info);

/* Checks all but the blocks, and those with `all`. ERR_CORRUPT with the place in `ret_detail`, ERR_UNSUPPORTED. */
MUST_USE int records_file_open(int dir, const char *name, bool all, struct records_file **ret,
                               struct error_detail *ret_detail);
/* Whose bytes cannot be read: it holds its place in the list. */
MUST_USE int records_file_lost(int dir, const char *name, struct records_file **ret);
struct records_file *records_file_ref(struct records_file *file);
void records_file_unref(struct records_file *file);

/* False: surely no log of that trace in it. */
bool records_file_may_have(const struct records_file *file, const struct trace_id *id);
void records_file_block(const struct records_file *file, uint32_t i, struct records_block *ret);

/* What a reader of one file needs; the caller's arena bounds it. */
struct records_reader {
    struct records_file *file;
    struct str *shared; /* by number; read with the first block */
    char *raw;          /* the block read last */
    size_t raw_room;
};
void records_reader_done(struct records_reader *r);
/* The shared things; they live in `arena`. ERR_CORRUPT is told and marks the file. */
MUST_USE int records_reader_shared(struct records_reader *r, struct arena *arena);
/* Calls back for each row of a block; payloads live until the next call. A return other than 0 ends
 * it. */
typedef int records_row_fn(void *arg, const struct row *row);
MUST_USE int records_reader_block(struct records_reader *r, uint32_t i, records_row_fn *fn,
                                  void *arg);

#endif
