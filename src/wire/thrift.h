/* Reading thrift: the binary and the compact protocol behind one set of calls. Nothing is generated;
 * a decoder asks for fields by number and passes over what it does not know.
 *
 * Errors stay in the reader: after the first every call ends at once and gives nothing, so that
 * only loops have to look. A list can be no longer than the bytes left could hold, and what is passed
 * over nests no deeper than THRIFT_DEPTH_MAX.
 *
 * Source: apache/thrift, doc/specs/thrift-binary-protocol.md and thrift-compact-protocol.md. */
#ifndef WIRE_THRIFT_H
#define WIRE_THRIFT_H

#include "base/err.h"
#include "base/str.h"

#define THRIFT_DEPTH_MAX 32

/* The binary protocol's numbers; those of the compact one are translated. */
enum thrift_type {
    THRIFT_STOP = 0,
    THRIFT_BOOL = 2,
    THRIFT_BYTE = 3,
    THRIFT_DOUBLE = 4,
    THRIFT_I16 = 6,
    THRIFT_I32 = 8,
    THRIFT_I64 = 10,
    THRIFT_STRING = 11,
    THRIFT_STRUCT = 12,
    THRIFT_MAP = 13,
    THRIFT_SET = 14,
    THRIFT_LIST = 15,
};

enum thrift_protocol { THRIFT_BINARY, THRIFT_COMPACT };

struct thrift {
    const uint8_t *start, *at, *end;
    enum thrift_protocol protocol;
    int err;         /* ERR_TRUNCATED, ERR_INVALID, ERR_TOO_LARGE (depth) */
    size_t position; /* where */
    const char *message;
};

/* A field of a struct. Begin each struct with zeros. */
struct thrift_field {
    int16_t id;
    uint8_t type; /* enum thrift_type */
    uint8_t wire; /* of the compact protocol: a boolean's value stands here */
};

void thrift_init(struct thrift *r, struct str bytes, enum thrift_protocol protocol);
void thrift_fail(struct thrift *r, int err, const char *message);

/* The head of a call; in the binary protocol with a version or the old way without. */
struct thrift_call {
    struct str name;
    uint8_t type; /* 1 call, 2 reply, 3 exception, 4 oneway */
};
bool thrift_call(struct thrift *r, struct thrift_call *ret);

/* The next field of the struct; false at its end or after an error. */
bool thrift_next(struct thrift *r, struct thrift_field *f);
/* Passes over the value of the field. */
void thrift_skip(struct thrift *r, const struct thrift_field *f);

/* The value of the field, when it has the type: else passes over it and returns false. Whole numbers
 * of any size are `int`. `ret` is written on success only. */
bool thrift_int(struct thrift *r, const struct thrift_field *f, int64_t *ret);
bool thrift_bool(struct thrift *r, const struct thrift_field *f, bool *ret);
bool thrift_double(struct thrift *r, const struct thrift_field *f, double *ret);
bool thrift_bytes(struct thrift *r, const struct thrift_field *f, struct str *ret); /* borrows */
bool thrift_struct(struct thrift *r, const struct thrift_field *f); /* read its fields next */
/* A list (or set) of structs; read each of `*ret_n` with thrift_next. */
bool thrift_list(struct thrift *r, const struct thrift_field *f, uint32_t *ret_n);
/* The same where a list stands for itself. */
bool thrift_bare_list(struct thrift *r, uint32_t *ret_n);

#endif
