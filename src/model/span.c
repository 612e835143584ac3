#include "model/span.h"

#include "base/hash.h"

static bool id_parse(struct str hex, uint8_t *bytes, size_t n)
{
    char digits[2 * TRACE_ID_SIZE];
    size_t at = 2 * n;
    if (hex.len == 0)
        return false;
    for (size_t i = hex.len; i-- > 0;) {
        if (hex.ptr[i] == '-')
            continue;
        if (at == 0)
            return false;
        digits[--at] = hex.ptr[i];
    }
    if (at == 2 * n)
        return false;
    while (at > 0)
        digits[--at] = '0';
    return hex_get(bytes, (struct str){digits, 2 * n}, n);
}

bool trace_id_parse(struct str hex, struct trace_id *ret)
{
    struct trace_id id;
    if (!id_parse(hex, id.bytes, TRACE_ID_SIZE))
        return false;
    *ret = id;
    return true;
}

bool span_id_parse(struct str hex, struct span_id *ret)
{
    struct span_id id;
    if (!id_parse(hex, id.bytes, SPAN_ID_SIZE))
        return false;
    *ret = id;
    return true;
}

static const struct {
    const char *name, *tag;
} kinds[] = {
    {"UNSPECIFIED", ""},  {"INTERNAL", "internal"}, {"SERVER", "server"},
    {"CLIENT", "client"}, {"PRODUCER", "producer"}, {"CONSUMER", "consumer"},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

const char *span_kind_name(unsigned kind)
{
    return kinds[kind < N_KINDS ? kind : 0].name;
}

const char *span_kind_tag(unsigned kind)
{
    return kinds[kind < N_KINDS ? kind : 0].tag;
}

bool span_kind_parse(struct str name, uint8_t *ret)
{
    if (str_starts(name, STR("SPAN_KIND_")))
        name = str_skip(name, sizeof "SPAN_KIND_" - 1);
    for (unsigned i = 0; i < N_KINDS; i++) {
        if (str_eq_nocase(name, str_from(kinds[i].name))) {
            *ret = (uint8_t)i;
            return true;
        }
    }
    return false;
}

const struct attr *attrs_find(const struct attrs *attrs, struct str key)
{
    for (uint32_t i = 0; i < attrs->n; i++)
        if (str_eq(attrs->items[i].key, key))
            return &attrs->items[i];
    return NULL;
}

bool value_eq(const struct value *a, const struct value *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case VALUE_STRING:
        return str_eq(a->string, b->string);
    case VALUE_BYTES:
        return str_eq(a->bytes, b->bytes);
    case VALUE_BOOL:
        return a->boolean == b->boolean;
    case VALUE_INT:
        return a->integer == b->integer;
    case VALUE_DOUBLE:
        /* By bits, so that a NaN equals itself. */
        return memcmp(&a->real, &b->real, sizeof a->real) == 0;
    case VALUE_ARRAY:
        if (a->array.n != b->array.n)
            return false;
        for (size_t i = 0; i < a->array.n; i++)
            if (!value_eq(&a->array.items[i], &b->array.items[i]))
                return false;
        return true;
    case VALUE_MAP:
        if (a->map.n != b->map.n)
            return false;
        for (size_t i = 0; i < a->map.n; i++)
            if (!str_eq(a->map.items[i].key, b->map.items[i].key) ||
                !value_eq(&a->map.items[i].value, &b->map.items[i].value))
                return false;
        return true;
    default:
        return true;
    }
}

/* ---- fingerprints ---- */

static uint64_t attrs_fingerprint(const struct attr *items, size_t n);

static uint64_t value_fingerprint(const struct value *v)
{
    uint64_t bits = 0;
    switch (v->type) {
    case VALUE_STRING:
    case VALUE_BYTES:
        return hash_bytes_seed(v->string.ptr, v->string.len, v->type);
    case VALUE_BOOL:
        bits = v->boolean;
        break;
    case VALUE_INT:
        bits = (uint64_t)v->integer;
        break;
    case VALUE_DOUBLE:
        memcpy(&bits, &v->real, sizeof bits);
        break;
    case VALUE_ARRAY:
        for (size_t i = 0; i < v->array.n; i++)
            bits = hash_mix64(bits + value_fingerprint(&v->array.items[i]));
        break;
    case VALUE_MAP:
        bits = attrs_fingerprint(v->map.items, v->map.n);
        break;
    default:
        break;
    }
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(bits >> 8 * i);
    return hash_bytes_seed(bytes, sizeof bytes, v->type);
}

/* A sum, so that the order does not matter. */
static uint64_t attrs_fingerprint(const struct attr *items, size_t n)
{
    uint64_t sum = n;
    for (size_t i = 0; i < n; i++)
        sum += hash_mix64(hash_bytes_seed(items[i].key.ptr, items[i].key.len,
                                          value_fingerprint(&items[i].value)));
    return hash_mix64(sum);
}

uint64_t resource_fingerprint(const struct resource *r)
{
    return attrs_fingerprint(r->attrs.items, r->attrs.n);
}

const struct attr *resource_attr_find(const struct resource *r, struct str key,
                                      struct resource_derived *derived)
{
    static const char digits[] = "0123456789abcdef";
    if (key.len != sizeof RESOURCE_FINGERPRINT - 1 || !str_eq(key, STR(RESOURCE_FINGERPRINT)))
        return attrs_find(&r->attrs, key);
    uint64_t n = resource_fingerprint(r);
    for (size_t i = FINGERPRINT_DIGITS; i-- > 0; n >>= 4)
        derived->text[i] = digits[n & 15];
    derived->attr =
        (struct attr){STR(RESOURCE_FINGERPRINT),
                      {.type = VALUE_STRING, .string = {derived->text, FINGERPRINT_DIGITS}}};
    return &derived->attr;
}

void resource_set_service_name(struct resource *r)
{
    const struct attr *name = attrs_find(&r->attrs, STR("service.name"));
    if (name && name->value.type == VALUE_STRING && name->value.string.len)
        r->service_name = name->value.string;
    else
        r->service_name = STR("unknown_service");
}
