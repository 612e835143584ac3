#include "bodies.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "cli/load_gen.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"
#include "wire/zipkin.h"

#include <stdio.h>
#include <stdlib.h>

enum { SPANS_PER_TRACE = 10, DATA_START_S = 1700000000, PATCHES_MAX = 5 /* of a span */ };

enum patch_how {
    PATCH_ID,     /* eight bytes */
    PATCH_ID_HEX, /* sixteen digits */
    PATCH_TIME,   /* fixed64 */
    PATCH_NS,     /* decimal digits, as many as the value has */
    PATCH_US
};

const char *body_form_name(enum body_form form)
{
    static const char *const names[] = {"OTLP/HTTP protobuf", "OTLP gRPC", "OTLP/HTTP JSON",
                                        "Zipkin v2 JSON"};
    return names[form];
}

static void die(void)
{
    fprintf(stderr, "bench: out of memory: take fewer traces\n");
    exit(1);
}

static void encode(enum body_form form, const struct span_batch *batch, struct buf *out)
{
    struct json_writer w = json_writer(out);
    switch (form) {
    case BODY_OTLP_HTTP:
        otlp_encode(batch, out);
        break;
    case BODY_OTLP_GRPC:
        buf_put(out, "\0\0\0\0\0", 5);
        otlp_encode(batch, out);
        for (unsigned i = 0; i < 4 && buf_ok(out); i++)
            out->ptr[1 + i] = (char)((out->len - 5) >> (24 - 8 * i));
        break;
    case BODY_OTLP_AS_JSON:
        otlp_json_encode(batch, &w);
        break;
    default:
        zipkin_json_encode(batch, &w);
    }
    if (!buf_ok(out))
        die();
}

/* ---- where the numbers are ---- */

struct needle {
    char bytes[32];
    size_t n;
    uint64_t value;
    enum patch_how how;
};

static uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t n;
    memcpy(&n, bytes, sizeof n);
    return __builtin_bswap64(n);
}

static struct needle needle_id(enum body_form form, const uint8_t *bytes)
{
    struct needle n = {.n = 8, .how = PATCH_ID, .value = big_endian(bytes)};
    if (form == BODY_OTLP_HTTP || form == BODY_OTLP_GRPC) {
        memcpy(n.bytes, bytes, 8);
    } else {
        n.n = (size_t)snprintf(n.bytes, sizeof n.bytes, "%016llx", (unsigned long long)n.value);
        n.how = PATCH_ID_HEX;
    }
    return n;
}

static struct needle needle_time(enum body_form form, uint64_t ns)
{
    struct needle n = {.n = 8, .how = PATCH_TIME, .value = ns};
    if (form == BODY_OTLP_HTTP || form == BODY_OTLP_GRPC) {
        memcpy(n.bytes, &ns, 8);
        return n;
    }
    n.how = form == BODY_OTLP_AS_JSON ? PATCH_NS : PATCH_US;
    n.value = n.how == PATCH_NS ? ns : ns / 1000;
    n.n = (size_t)snprintf(n.bytes, sizeof n.bytes, "%llu", (unsigned long long)n.value);
    return n;
}

/* Ids are random, so their bytes are nowhere else; the numbers of a span stand together. */
static void patches_find(enum body_form form, const struct span_batch *batch, struct body *body)
{
    static const struct span_id none;
    size_t span_at = 0;
    body->patches = calloc(batch->n * PATCHES_MAX, sizeof *body->patches);
    if (!body->patches)
        die();
    for (size_t i = 0; i < batch->n; i++) {
        const struct span *s = &batch->spans[i];
        struct needle needles[PATCHES_MAX];
        unsigned n = 0;
        needles[n++] = needle_id(form, s->trace_id.bytes);
        needles[n++] = needle_id(form, s->span_id.bytes);
        if (memcmp(&s->parent_id, &none, sizeof none) != 0)
            needles[n++] = needle_id(form, s->parent_id.bytes);
        needles[n++] = needle_time(form, s->start_ns);
        if (form != BODY_ZIPKIN_AS_JSON)
            needles[n++] = needle_time(form, s->end_ns);
        size_t from = span_at, last = 0;
        for (unsigned k = 0; k < n; k++) {
            /* The end may be the same number as the start and stands behind it. */
            if (k && needles[k].how != PATCH_ID && needles[k].how != PATCH_ID_HEX &&
                needles[k - 1].how == needles[k].how)
                from = last;
            const char *at = memmem(body->bytes + from, body->len - from, needles[k].bytes,
                                    needles[k].n);
            if (!at) {
                fprintf(stderr, "bench: the number %u of a span is not in its body\n", k);
                exit(1);
            }
            size_t offset = (size_t)(at - body->bytes);
            if (k == 0)
                span_at = from = offset;
            last = offset + needles[k].n;
            body->patches[body->n_patches++] = (struct patch){needles[k].value, (uint32_t)offset,
                                                              (uint8_t)needles[k].how};
        }
        span_at += needles[0].n;
    }
}

void body_set_make(enum body_form form, uint64_t traces, unsigned batch_traces, uint64_t seed,
                   struct body_set *ret)
{
    struct load_gen *gen = load_gen_new(seed, SPANS_PER_TRACE, DATA_START_S * NS_PER_S);
    struct arena arena = ARENA_INIT;
    uint64_t last_ns = 0;
    *ret = (struct body_set){.form = form,
                             .n = (size_t)((traces + batch_traces - 1) / batch_traces)};
    ret->bodies = calloc(ret->n, sizeof *ret->bodies);
    if (!gen || !ret->bodies)
        die();
    for (size_t i = 0; i < ret->n; i++) {
        struct body *body = &ret->bodies[i];
        uint64_t left = traces - i * batch_traces;
        struct span_batch batch;
        struct buf out = BUF_INIT;
        arena_reset(&arena);
        if (load_gen_batch(gen, left < batch_traces ? (unsigned)left : batch_traces, &arena,
                           &batch))
            die();
        encode(form, &batch, &out);
        body->bytes = buf_detach(&out, &body->len);
        body->spans = (uint32_t)batch.n;
        atomic_flag_clear(&body->taken);
        patches_find(form, &batch, body);
        for (size_t k = 0; k < batch.n; k++)
            last_ns = batch.spans[k].start_ns > last_ns ? batch.spans[k].start_ns : last_ns;
        ret->spans += batch.n;
        ret->bytes += body->len;
    }
    /* In whole microseconds, for those who send no finer ones. */
    ret->round_ns = (last_ns - DATA_START_S * NS_PER_S) / 1000 * 1000 + NS_PER_S;
    ret->entropy_bytes = load_gen_bits(gen) / 8 / (double)ret->spans;
    arena_done(&arena);
    load_gen_free(gen);
}

void body_set_done(struct body_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        free(set->bodies[i].bytes);
        free(set->bodies[i].patches);
    }
    free(set->bodies);
}

/* ---- turning ---- */

static void put_hex(char *to, uint64_t n)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < 16; i++)
        to[i] = digits[n >> (60 - 4 * i) & 15];
}

/* All times have as many digits as those of 2023, until 2286. */
static void put_decimal(char *to, uint64_t n, unsigned digits)
{
    while (digits) {
        to[--digits] = (char)('0' + n % 10);
        n /= 10;
    }
}

void body_turn(const struct body_set *set, struct body *body, uint64_t round)
{
    uint64_t key = round ? hash_mix64(round) : 0, shift = round * set->round_ns;
    for (uint32_t i = 0; i < body->n_patches; i++) {
        const struct patch *p = &body->patches[i];
        char *at = body->bytes + p->at;
        uint64_t n;
        switch ((enum patch_how)p->how) {
        case PATCH_ID:
            n = __builtin_bswap64(p->value ^ key);
            memcpy(at, &n, sizeof n);
            break;
        case PATCH_ID_HEX:
            put_hex(at, p->value ^ key);
            break;
        case PATCH_TIME:
            n = p->value + shift;
            memcpy(at, &n, sizeof n);
            break;
        case PATCH_NS:
            put_decimal(at, p->value + shift, 19);
            break;
        case PATCH_US:
            put_decimal(at, p->value + shift / 1000, 16);
        }
    }
}
