#include "wire/thrift.h"

/* The compact protocol's types. */
enum {
    COMPACT_TRUE = 1,
    COMPACT_FALSE = 2,
    COMPACT_DOUBLE = 7,
    COMPACT_TYPES = 13,
    COMPACT_VERSION = 1,
    COMPACT_MAGIC = 0x82,
};

void thrift_init(struct thrift *r, struct str bytes, enum thrift_protocol protocol)
{
    static const uint8_t nothing[1];
    const uint8_t *start = bytes.ptr ? (const uint8_t *)bytes.ptr : nothing;
    *r = (struct thrift){start, start, start + bytes.len, protocol, 0, 0, NULL};
}

void thrift_fail(struct thrift *r, int err, const char *message)
{
    if (r->err)
        return;
    r->err = err;
    r->message = message;
    r->position = (size_t)(r->at - r->start);
    r->at = r->end;
}

/* `n` bytes, or NULL. */
static const uint8_t *take(struct thrift *r, uint64_t n)
{
    if (r->err)
        return NULL;
    if (n > (uint64_t)(r->end - r->at)) {
        thrift_fail(r, ERR_TRUNCATED, "the bytes end within a value");
        return NULL;
    }
    const uint8_t *p = r->at;
    r->at += n;
    return p;
}

static uint64_t big_endian(struct thrift *r, unsigned size)
{
    const uint8_t *p = take(r, size);
    uint64_t n = 0;
    for (unsigned i = 0; p && i < size; i++)
        n = n << 8 | p[i];
    return n;
}

static int64_t big_endian_signed(struct thrift *r, unsigned size)
{
    uint64_t n = big_endian(r, size);
    unsigned above = 64 - 8 * size;
    return (int64_t)(n << above) >> above;
}

static uint64_t varint(struct thrift *r)
{
    uint64_t n = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        const uint8_t *p = take(r, 1);
        if (!p)
            return 0;
        n |= shift < 64 ? (uint64_t)(*p & 0x7f) << shift : 0;
        if (*p < 0x80)
            return n;
    }
    thrift_fail(r, ERR_INVALID, "a number of more than ten bytes");
    return 0;
}

static int64_t zigzag(struct thrift *r)
{
    uint64_t n = varint(r);
    return (int64_t)(n >> 1 ^ (0 - (n & 1)));
}

static uint8_t type_of_compact(struct thrift *r, uint8_t wire)
{
    static const uint8_t types[COMPACT_TYPES] = {[0] = THRIFT_STOP,
                                                 [COMPACT_TRUE] = THRIFT_BOOL,
                                                 [COMPACT_FALSE] = THRIFT_BOOL,
                                                 [3] = THRIFT_BYTE,
                                                 [4] = THRIFT_I16,
                                                 [5] = THRIFT_I32,
                                                 [6] = THRIFT_I64,
                                                 [7] = THRIFT_DOUBLE,
                                                 [8] = THRIFT_STRING,
                                                 [9] = THRIFT_LIST,
                                                 [10] = THRIFT_SET,
                                                 [11] = THRIFT_MAP,
                                                 [12] = THRIFT_STRUCT};
    if (wire < COMPACT_TYPES && types[wire])
        return types[wire];
    thrift_fail(r, ERR_INVALID, "no such type");
    return THRIFT_STOP;
}

static bool is_type(uint8_t type)
{
    return type <= THRIFT_LIST && type != THRIFT_STOP && type != 1 && type != 5 && type != 7 &&
           type != 9;
}

bool thrift_call(struct thrift *r, struct thrift_call *ret)
{
    struct thrift_call call = {.name = STR("")};
    uint64_t len;
    if (r->protocol == THRIFT_COMPACT) {
        const uint8_t *head = take(r, 2);
        if (head && (head[0] != COMPACT_MAGIC || (head[1] & 0x1f) != COMPACT_VERSION))
            thrift_fail(r, ERR_INVALID, "no message of the compact protocol");
        call.type = head ? head[1] >> 5 : 0;
        varint(r); /* the sequence */
        len = varint(r);
    } else {
        int64_t version = big_endian_signed(r, 4);
        if (version < 0) { /* with a version: then the name's length comes next */
            call.type = (uint8_t)(version & 0xff);
            if ((version & 0xffff0000) != 0x80010000)
                thrift_fail(r, ERR_INVALID, "a version of the binary protocol that is not known");
            version = big_endian_signed(r, 4);
            if (version < 0)
                thrift_fail(r, ERR_INVALID, "a length below zero");
            len = (uint64_t)version;
            call.name.ptr = (const char *)take(r, len);
            big_endian(r, 4);
        } else {
            len = (uint64_t)version;
            call.name.ptr = (const char *)take(r, len);
            call.type = (uint8_t)big_endian(r, 1);
            big_endian(r, 4);
        }
    }
    if (r->protocol == THRIFT_COMPACT)
        call.name.ptr = (const char *)take(r, len);
    call.name.len = len;
    if (r->err)
        return false;
    *ret = call;
    return true;
}

bool thrift_next(struct thrift *r, struct thrift_field *f)
{
    const uint8_t *head = take(r, 1);
    if (!head || (*head & (r->protocol == THRIFT_COMPACT ? 0x0f : 0xff)) == THRIFT_STOP)
        return false;
    if (r->protocol == THRIFT_COMPACT) {
        f->wire = *head & 0x0f;
        f->type = type_of_compact(r, f->wire);
        f->id = (int16_t)(*head >> 4 ? f->id + (*head >> 4) : zigzag(r));
    } else {
        f->type = *head;
        f->id = (int16_t)big_endian_signed(r, 2);
        if (!is_type(f->type))
            thrift_fail(r, ERR_INVALID, "no such type");
    }
    return !r->err;
}

/* The head of a list, or (`is_map`) of a map. An item takes at least a byte. */
static uint32_t head_of_many(struct thrift *r, bool is_map, uint8_t *ret_type, uint8_t *ret_second)
{
    uint64_t n;
    uint8_t first = 0, second = 0;
    if (r->protocol == THRIFT_COMPACT && is_map) {
        n = varint(r);
        const uint8_t *types = n ? take(r, 1) : NULL;
        if (types) {
            first = type_of_compact(r, *types >> 4);
            second = type_of_compact(r, *types & 0x0f);
        }
    } else if (r->protocol == THRIFT_COMPACT) {
        const uint8_t *head = take(r, 1);
        n = head ? *head >> 4 : 0;
        if (n == 15)
            n = varint(r);
        /* An empty list need not say of what. */
        if (head && n)
            first = type_of_compact(r, *head & 0x0f);
    } else {
        const uint8_t *types = take(r, is_map ? 2 : 1);
        n = big_endian(r, 4);
        if (types) {
            first = types[0];
            second = is_map ? types[1] : 0;
            if (n && (!is_type(first) || (is_map && !is_type(second))))
                thrift_fail(r, ERR_INVALID, "no such type");
        }
    }
    if (!r->err && n > (uint64_t)(r->end - r->at))
        thrift_fail(r, ERR_TRUNCATED, "a list longer than its bytes");
    *ret_type = first;
    *ret_second = second;
    return r->err ? 0 : (uint32_t)n;
}

static void skip_value(struct thrift *r, uint8_t type, unsigned depth);

static void skip_bytes(struct thrift *r)
{
    take(r, r->protocol == THRIFT_COMPACT ? varint(r) : big_endian(r, 4));
}

static void skip_many(struct thrift *r, uint8_t type, unsigned depth)
{
    uint8_t first, second;
    uint32_t n = head_of_many(r, type == THRIFT_MAP, &first, &second);
    for (uint32_t i = 0; i < n && !r->err; i++) {
        skip_value(r, first, depth + 1);
        if (type == THRIFT_MAP)
            skip_value(r, second, depth + 1);
    }
}

static void skip_number(struct thrift *r, unsigned size)
{
    if (r->protocol == THRIFT_COMPACT)
        varint(r);
    else
        take(r, size);
}

/* A boolean that is an item of a list is a byte in both protocols. */
static void skip_value(struct thrift *r, uint8_t type, unsigned depth)
{
    if (depth > THRIFT_DEPTH_MAX) {
        thrift_fail(r, ERR_TOO_LARGE, "values are nested too deeply");
        return;
    }
    switch (type) {
    case THRIFT_BOOL:
    case THRIFT_BYTE:
        take(r, 1);
        break;
    case THRIFT_DOUBLE:
        take(r, 8);
        break;
    case THRIFT_I16:
        skip_number(r, 2);
        break;
    case THRIFT_I32:
        skip_number(r, 4);
        break;
    case THRIFT_I64:
        skip_number(r, 8);
        break;
    case THRIFT_STRING:
        skip_bytes(r);
        break;
    case THRIFT_STRUCT: {
        struct thrift_field f = {0};
        while (thrift_next(r, &f)) {
            if (r->protocol != THRIFT_COMPACT || f.type != THRIFT_BOOL)
                skip_value(r, f.type, depth + 1);
        }
        break;
    }
    default:
        skip_many(r, type, depth);
    }
}

void thrift_skip(struct thrift *r, const struct thrift_field *f)
{
    if (r->protocol != THRIFT_COMPACT || f->type != THRIFT_BOOL)
        skip_value(r, f->type, 0);
}

/* ---- values ---- */

bool thrift_int(struct thrift *r, const struct thrift_field *f, int64_t *ret)
{
    int64_t n;
    bool compact = r->protocol == THRIFT_COMPACT;
    switch (f->type) {
    case THRIFT_BYTE:
        n = big_endian_signed(r, 1);
        break;
    case THRIFT_I16:
        n = compact ? zigzag(r) : big_endian_signed(r, 2);
        break;
    case THRIFT_I32:
        n = compact ? zigzag(r) : big_endian_signed(r, 4);
        break;
    case THRIFT_I64:
        n = compact ? zigzag(r) : big_endian_signed(r, 8);
        break;
    default:
        thrift_skip(r, f);
        return false;
    }
    if (r->err)
        return false;
    *ret = n;
    return true;
}

bool thrift_bool(struct thrift *r, const struct thrift_field *f, bool *ret)
{
    if (f->type != THRIFT_BOOL) {
        thrift_skip(r, f);
        return false;
    }
    bool value = r->protocol == THRIFT_COMPACT ? f->wire == COMPACT_TRUE : big_endian(r, 1) != 0;
    if (r->err)
        return false;
    *ret = value;
    return true;
}

bool thrift_double(struct thrift *r, const struct thrift_field *f, double *ret)
{
    if (f->type != THRIFT_DOUBLE) {
        thrift_skip(r, f);
        return false;
    }
    /* The one number whose bytes are turned round in the compact protocol. */
    uint64_t bits = big_endian(r, 8);
    if (r->err)
        return false;
    if (r->protocol == THRIFT_COMPACT)
        bits = __builtin_bswap64(bits);
    memcpy(ret, &bits, sizeof bits);
    return true;
}

bool thrift_bytes(struct thrift *r, const struct thrift_field *f, struct str *ret)
{
    if (f->type != THRIFT_STRING) {
        thrift_skip(r, f);
        return false;
    }
    uint64_t n = r->protocol == THRIFT_COMPACT ? varint(r) : big_endian(r, 4);
    const uint8_t *p = take(r, n);
    if (!p)
        return false;
    *ret = (struct str){(const char *)p, n};
    return true;
}

bool thrift_struct(struct thrift *r, const struct thrift_field *f)
{
    if (f->type == THRIFT_STRUCT)
        return !r->err;
    thrift_skip(r, f);
    return false;
}

bool thrift_bare_list(struct thrift *r, uint32_t *ret_n)
{
    uint8_t type, none;
    uint32_t n = head_of_many(r, false, &type, &none);
    if (n && type != THRIFT_STRUCT)
        thrift_fail(r, ERR_INVALID, "not a list of structs");
    if (r->err)
        return false;
    *ret_n = n;
    return true;
}

bool thrift_list(struct thrift *r, const struct thrift_field *f, uint32_t *ret_n)
{
    if (f->type == THRIFT_LIST || f->type == THRIFT_SET)
        return thrift_bare_list(r, ret_n);
    thrift_skip(r, f);
    return false;
}
