/* The numbers of docs/formats/segment.md that writer and reader share. */
#ifndef STORE_LOCAL_SEGMENT_FORMAT_H
#define STORE_LOCAL_SEGMENT_FORMAT_H

#include "base/hash.h"
#include "store/local/codec.h"

enum {
    SEGMENT_VERSION = 1,
    SEGMENT_DERIVED_IDS = 1,     /* required feature: columns of ids may be kept as counters */
    SEGMENT_LISTS_BY_COLUMN = 2, /* required feature: columns may say which rows have them */
    SEGMENT_HAS_RECORDS = 1,     /* optional feature: the header says which log records it covers */
    SEGMENT_HEADER_SIZE = 64,
    SEGMENT_TRAILER_SIZE = 32,
    SEGMENT_GROUP_ROWS = 8192,
    SEGMENT_GROUP_ROWS_MIN = 4096,
    SEGMENT_STRINGS = 512,
    SEGMENT_TRACES = 1024,
    SEGMENT_HASHES = 1024,
    SEGMENT_FILTER_PROBES = 7,
    SEGMENT_FILTER_BITS = 10,
};

#define SEGMENT_MAGIC "PUGSEG\r\n"
#define SEGMENT_END_MAGIC "PUGSEND\n"
#define SEGMENT_FOREIGN_PARENT (UINT64_C(1) << 32)

enum fixed_column {
    FIXED_SPAN_ID,
    FIXED_PARENT,
    FIXED_FOREIGN_PARENTS,
    FIXED_START,
    FIXED_DURATION,
    FIXED_OPERATION,
    FIXED_STATUS,
    FIXED_FLAGS,
    FIXED_SHAPE,
    FIXED_SHAPES,
    FIXED_TRACE_STATE,
    FIXED_STATUS_MESSAGE,
    FIXED_DROPPED,
    FIXED_EVENTS,
    FIXED_LINKS,
    FIXED_COLUMNS,
};

enum column_how { HOW_NOTHING, HOW_NUMBERS, HOW_DICTIONARY, HOW_PLAIN };

struct block_ref {
    uint64_t offset;
    uint64_t length;
    uint32_t checksum;
};

static inline uint32_t segment_checksum(const void *bytes, size_t n)
{
    return (uint32_t)hash_bytes(bytes, n);
}

static inline uint32_t segment_trace_hash(const uint8_t id[16])
{
    return (uint32_t)hash_bytes(id, 16);
}

static inline uint64_t segment_zigzag(int64_t n)
{
    return ((uint64_t)n << 1) ^ (uint64_t)(n >> 63);
}
static inline int64_t segment_unzigzag(uint64_t n)
{
    return (int64_t)((n >> 1) ^ -(n & 1));
}

/* Bit i of the probes of a text in a filter of m bytes. */
static inline uint64_t segment_probe(uint64_t hash, unsigned i, uint64_t m)
{
    return (hash + i * (hash >> 32 | 1)) % (8 * m);
}

#endif
