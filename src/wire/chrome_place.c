#include "wire/chrome_place.h"

#include "base/json.h"

#include <stdlib.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* An event is these pieces with numbers, ids and values between them. */
struct piece {
    uint32_t at, n; /* in `bytes` */
};

struct chrome_place {
    uint32_t n_keys;
    size_t bytes_max;  /* of an event, without its trace state and its texts */
    struct piece head; /* ,\n{"name":"..","ph":"X","pid":1,"tid": */
    struct piece kind; /* ,"cat":"..","ts": */
    struct {
        struct piece key; /* "..": with what stands before it */
        uint8_t type;
    } keys[PLAIN_KEYS_MAX];
    char bytes[]; /* and PLAIN_STEP more */
};

#define U64_DIGITS_MAX 20
#define DOUBLE_CHARS_MAX 40
#define DUR ",\"dur\":"
#define TRACE_ID ",\"args\":{\"trace_id\":\""
#define SPAN_ID "\",\"span_id\":\""
#define PARENT_ID "\",\"parent_id\":\""
#define TRACE_STATE ",\"trace_state\":"
#define ATTRIBUTES ",\"attributes\":{"
/* All that is not in a place or a value. */
#define FIXED_BYTES_MAX                                                                            \
    (sizeof(DUR TRACE_ID SPAN_ID PARENT_ID TRACE_STATE ATTRIBUTES) +                               \
     2 * (TRACE_ID_SIZE + 2 * SPAN_ID_SIZE) + 3 * (U64_DIGITS_MAX + 4) + 8)

static struct piece piece_end(const struct buf *b, size_t from)
{
    return (struct piece){(uint32_t)from, (uint32_t)(b->len - from)};
}

struct chrome_place *chrome_place_new(const struct chrome_process *process,
                                      const struct plain_place *place)
{
    struct chrome_place p = {.n_keys = place->n_keys}, *ret = NULL;
    struct buf b = BUF_INIT;
    buf_cstr(&b, ",\n{\"name\":");
    json_text_str(&b, place->name);
    buf_cstr(&b, ",\"ph\":\"X\",\"pid\":");
    json_text_u64(&b, process->pid);
    buf_cstr(&b, ",\"tid\":");
    p.head = piece_end(&b, 0);
    buf_cstr(&b, ",\"cat\":\"");
    buf_cstr(&b, span_kind_tag(place->kind));
    buf_cstr(&b, "\",\"ts\":");
    p.kind = piece_end(&b, p.head.n);
    for (uint32_t i = 0; i < place->n_keys; i++) {
        size_t from = b.len;
        buf_cstr(&b, i ? "," : ATTRIBUTES);
        json_text_str(&b, place->keys[i].name);
        buf_byte(&b, ':');
        p.keys[i].key = piece_end(&b, from);
        p.keys[i].type = place->keys[i].type;
    }
    p.bytes_max = PLAIN_ROOM(FIXED_BYTES_MAX + b.len + place->n_keys * (size_t)DOUBLE_CHARS_MAX);
    if (buf_ok(&b) && (ret = calloc(1, sizeof *ret + PLAIN_ROOM(b.len)))) {
        *ret = p;
        memcpy(ret->bytes, b.ptr, b.len);
    }
    buf_done(&b);
    return ret;
}

/* ---- writing; there is room ---- */

static inline char *piece_write(char *out, const struct chrome_place *p, struct piece piece)
{
    return plain_copy(out, p->bytes + piece.at, piece.n);
}

#define WRITE(out, literal) (memcpy(out, literal, sizeof literal - 1), (out) + sizeof literal - 1)

#if defined(__SSE2__)
/* Eight bytes at a time: their halves side by side, and what is above 9 goes up to the letters. */
static inline char *hex_write(char *out, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i += 8, out += 16) {
        const __m128i low = _mm_set1_epi8(0x0f), nine = _mm_set1_epi8(9);
        __m128i b = _mm_loadl_epi64((const __m128i *)(const void *)(bytes + i));
        __m128i d = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(b, 4), low),
                                      _mm_and_si128(b, low));
        __m128i letters = _mm_and_si128(_mm_cmpgt_epi8(d, nine), _mm_set1_epi8('a' - '9' - 1));
        d = _mm_add_epi8(_mm_add_epi8(d, _mm_set1_epi8('0')), letters);
        _mm_storeu_si128((__m128i *)(void *)out, d);
    }
    return out;
}
#else
static inline char *hex_write(char *out, const uint8_t *bytes, size_t n)
{
    hex_put(out, bytes, n);
    return out + 2 * n;
}
#endif

/* Nanoseconds as microseconds with three decimals. */
static inline char *us_write(char *out, uint64_t ns)
{
    uint64_t us = ns / 1000, rest = ns - us * 1000;
    out = json_write_u64(out, us);
    out[0] = '.';
    out[1] = (char)('0' + rest / 100);
    out[2] = (char)('0' + rest / 10 % 10);
    out[3] = (char)('0' + rest % 10);
    return out + 4;
}

/* Has one of the eight bytes to be escaped, or is it no ASCII? A byte is below n (up to 0x80) when
 * taking n from it, with its top bit set, takes that bit away; and a quote when what is left of it by
 * exclusive or is below 1. */
static inline uint64_t is_special(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones * 0x80;
    uint64_t quote = word ^ ones * '"', backslash = word ^ ones * '\\';
    return (word | ~((word | tops) - ones * 0x20) | ~((quote | tops) - ones) |
            ~((backslash | tops) - ones)) &
           tops;
}

static inline uint64_t word_at(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* The last bytes of a text, with spaces for those that are not there. */
static inline uint64_t tail_word(struct str text, size_t i)
{
    return plain_text_word(text, i) | UINT64_C(0x2020202020202020) >> (8 * (text.len - i) & 63);
}

/* NULL: it has to be escaped. */
static inline char *text_write(char *out, struct str text)
{
    uint64_t special = 0;
    *out++ = '"';
    for (size_t i = 0; i < text.len; i += 8) {
        memcpy(out + i, text.ptr + i, 8);
        special |= is_special(i + 8 <= text.len ? word_at(text.ptr + i) : tail_word(text, i));
    }
    out += text.len;
    *out++ = '"';
    return special ? NULL : out;
}

static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (is_special((unsigned char)s.ptr[i] * UINT64_C(0x0101010101010101)))
            return false;
    return true;
}

static char *double_write(char *out, uint64_t bits)
{
    struct buf b = {.ptr = out, .cap = DOUBLE_CHARS_MAX, .bytes_max = DOUBLE_CHARS_MAX};
    struct json_writer w = json_writer(&b);
    double d;
    memcpy(&d, &bits, sizeof d);
    json_double(&w, d);
    return out + b.len;
}

/* NULL: not plain ones. */
static char *values_write(char *out, const struct chrome_place *p, const char *at, const char *end)
{
    for (uint32_t i = 0; i < p->n_keys; i++) {
        struct str text;
        uint64_t word;
        out = piece_write(out, p, p->keys[i].key);
        if (p->keys[i].type == VALUE_STRING) {
            if (!plain_text(&at, end, &text) || !(out = text_write(out, text)))
                return NULL;
            continue;
        }
        if (!plain_word(&at, end, &word))
            return NULL;
        if (p->keys[i].type == VALUE_INT) {
            if ((int64_t)word < 0) {
                *out++ = '-';
                word = -word;
            }
            out = json_write_u64(out, word);
        } else if (p->keys[i].type == VALUE_BOOL) {
            out = word ? WRITE(out, "true") : WRITE(out, "false");
        } else {
            out = double_write(out, word);
        }
    }
    *out++ = '}';
    return out;
}

bool chrome_place_encode(const struct chrome_place *p, const struct chrome_process *process,
                         const struct plain_span *s, struct buf *b)
{
    if (s->trace_state.len && !is_plain(s->trace_state))
        return false;
    if (!buf_reserve(b, p->bytes_max + s->n_values + s->trace_state.len))
        return true; /* the failure is in `b` */
    char *start = b->ptr + b->len, *out = piece_write(start, p, p->head);
    out = json_write_u64(out, s->thread);
    out = piece_write(out, p, p->kind);
    out = us_write(out, s->start_ns > process->base_ns ? s->start_ns - process->base_ns : 0);
    out = WRITE(out, DUR);
    out = us_write(out, s->end_ns - s->start_ns);
    out = WRITE(out, TRACE_ID);
    out = hex_write(out, s->trace_id.bytes, TRACE_ID_SIZE);
    out = WRITE(out, SPAN_ID);
    out = hex_write(out, s->span_id.bytes, SPAN_ID_SIZE);
    if (!span_id_is_zero(&s->parent_id)) {
        out = WRITE(out, PARENT_ID);
        out = hex_write(out, s->parent_id.bytes, SPAN_ID_SIZE);
    }
    *out++ = '"';
    if (s->trace_state.len) {
        out = WRITE(out, TRACE_STATE "\"");
        memcpy(out, s->trace_state.ptr, s->trace_state.len);
        out += s->trace_state.len;
        *out++ = '"';
    }
    if (s->values && p->n_keys) {
        out = values_write(out, p, s->values, s->values + s->n_values);
        if (!out)
            return false;
    }
    *out++ = '}';
    *out++ = '}';
    b->len += (size_t)(out - start);
    return true;
}
