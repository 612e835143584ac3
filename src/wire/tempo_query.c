#include "wire/tempo_query.h"

#include "wire/protobuf.h"

#include <stddef.h>

/* Where a field goes. */
enum place { PLACE_NONE, PLACE_TEXT, PLACE_U32, PLACE_U64, PLACE_TAG };

struct field {
    uint32_t tag;
    enum place place;
    size_t offset; /* in struct tempo_request */
};

enum { FIELDS_MAX = 9 };

#define AT(member) offsetof(struct tempo_request, member)
#define TEXT(number, member)                                                                       \
    {                                                                                              \
        PB_TAG(number, PB_BYTES), PLACE_TEXT, AT(member)                                           \
    }
#define U32(number, member)                                                                        \
    {                                                                                              \
        PB_TAG(number, PB_VARINT), PLACE_U32, AT(member)                                           \
    }
#define U64(number, member)                                                                        \
    {                                                                                              \
        PB_TAG(number, PB_VARINT), PLACE_U64, AT(member)                                           \
    }
static const struct field fields[][FIELDS_MAX] = {
    [TEMPO_SEARCH] = {{PB_TAG(1, PB_BYTES), PLACE_TAG, AT(tags)},
                      U32(2, duration_min_ms),
                      U32(3, duration_max_ms),
                      U32(4, limit),
                      U64(5, start),
                      U64(6, end),
                      TEXT(8, query),
                      U32(9, spans_per_set)},
    [TEMPO_TAGS] = {TEXT(1, scope), TEXT(2, query), U64(3, start), U64(4, end), U32(5, limit)},
    [TEMPO_TAG_VALUES] = {TEXT(1, tag_name), TEXT(2, query), U64(4, start), U64(5, end),
                          U32(6, limit)},
    [TEMPO_QUERY_RANGE] = {TEXT(1, query), U64(2, start), U64(3, end), U64(4, step_ns),
                           U32(16, exemplars), U32(17, series_max)},
    [TEMPO_QUERY_INSTANT] = {TEXT(1, query), U64(2, start), U64(3, end)},
};

static int read_text(const struct pb_field *f, struct str *ret, struct error_detail *detail)
{
    *ret = pb_as_str(f);
    return str_is_utf8(*ret) ? 0 : error_set(detail, ERR_INVALID, 0, "text that is not UTF-8");
}

/* An entry of a map: its key is field 1, its value field 2. */
static int read_tag(struct tempo_request *q, const struct pb_field *f, struct arena *arena,
                    struct error_detail *detail)
{
    if (!q->tags)
        q->tags = arena_array(arena, TEMPO_TAGS_MAX, sizeof *q->tags);
    if (!q->tags)
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    if (q->n_tags == TEMPO_TAGS_MAX)
        return error_set(detail, ERR_TOO_LARGE, 0, "more than %d tags", TEMPO_TAGS_MAX);
    struct tempo_tag tag = {STR(""), STR("")};
    struct pb p = pb_from_field(f);
    struct pb_field part;
    int got;
    while ((got = pb_next(&p, &part)) > 0) {
        int err = part.tag == PB_TAG(1, PB_BYTES)   ? read_text(&part, &tag.key, detail)
                  : part.tag == PB_TAG(2, PB_BYTES) ? read_text(&part, &tag.value, detail)
                                                    : 0;
        if (err)
            return err;
    }
    q->tags[q->n_tags++] = tag;
    return got;
}

static int read_field(enum tempo_request_type type, struct tempo_request *q,
                      const struct pb_field *f, struct arena *arena, struct error_detail *detail)
{
    const struct field *known = fields[type];
    size_t i = 0;
    while (i < FIELDS_MAX && known[i].tag != f->tag)
        i++;
    if (i == FIELDS_MAX)
        return 0;
    char *at = (char *)q + known[i].offset;
    switch (known[i].place) {
    case PLACE_TEXT:
        return read_text(f, (struct str *)(void *)at, detail);
    case PLACE_U32:
        *(uint32_t *)(void *)at = f->n > UINT32_MAX ? UINT32_MAX : (uint32_t)f->n;
        return 0;
    case PLACE_U64:
        *(uint64_t *)(void *)at = f->n;
        return 0;
    case PLACE_TAG:
        return read_tag(q, f, arena, detail);
    default:
        return 0;
    }
}

int tempo_request_decode(enum tempo_request_type type, struct str bytes, struct arena *arena,
                         struct tempo_request *ret, struct error_detail *ret_detail)
{
    struct tempo_request q = {.n_tags = 0};
    struct error_detail detail = {0};
    struct pb p = pb_from_str(bytes);
    struct pb_field f;
    int err = 0, got = 0;
    while (!err && (got = pb_next(&p, &f)) > 0)
        err = read_field(type, &q, &f, arena, &detail);
    if (!err)
        err = got;
    if (!err && (q.start > INT64_MAX || q.end > INT64_MAX || q.step_ns > INT64_MAX))
        err = error_set(&detail, ERR_INVALID, 0, "a time that no clock shows");
    if (err && ret_detail) {
        if (detail.message[0])
            *ret_detail = detail;
        else
            return error_set(ret_detail, err, 0, "not the message of this method");
    }
    if (!err)
        *ret = q;
    return err;
}
