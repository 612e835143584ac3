#include "cli/load_gen.h"

#include "base/clock.h"
#include "base/hash.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { GAP_MEAN_NS = 1000000, ROOT_DURATION_MAX_NS = 500000000, ERROR_ONE_IN = 50 };

/* What the children of a span need to know of it. */
struct drawn {
    struct span_id id;
    uint64_t start_ns, end_ns;
};

struct load_gen {
    uint64_t state;
    uint64_t clock_ns; /* start of the trace drawn last */
    unsigned spans_per_trace;
    uint64_t trace_id[2]; /* of the trace that is being drawn */
    struct drawn *drawn;  /* its spans so far */
    unsigned n_drawn;
    double bits;
    double key_set_bits; /* of choosing LOAD_ATTRS among LOAD_KEYS */
    struct arena texts;
    struct str keys[LOAD_KEYS], values[LOAD_VALUES];
    struct str operations[LOAD_SERVICES][LOAD_OPERATIONS];
    struct attr resource_attrs[LOAD_SERVICES][3];
    struct resource resources[LOAD_SERVICES];
    struct scope scope;
};

/* SplitMix64: small, fast, and every seed is a good one. */
static uint64_t draw64(struct load_gen *gen)
{
    gen->state += UINT64_C(0x9e3779b97f4a7c15);
    return hash_mix64(gen->state);
}

/* Uniform in [0, n), by multiplication (Lemire 2019, without the rejection step: the bias is below
 * 2^-32 here). */
static uint64_t draw_below_free(struct load_gen *gen, uint64_t n)
{
    return (uint64_t)((unsigned __int128)draw64(gen) * n >> 64);
}

static uint64_t draw_below(struct load_gen *gen, uint64_t n)
{
    if (n <= 1)
        return 0;
    gen->bits += log2((double)n);
    return draw_below_free(gen, n);
}

static uint64_t draw_exponential(struct load_gen *gen, double mean)
{
    double uniform = ((double)(draw64(gen) >> 11) + 1) * 0x1p-53;
    double x = -mean * log(uniform);
    gen->bits += (x / mean) / M_LN2 + log2(mean);
    return (uint64_t)x;
}

static const char *const service_names[LOAD_SERVICES] = {
    "frontend", "cart",     "checkout", "payment",   "shipping",
    "catalog",  "currency", "email",    "recommend", "inventory",
};
static const char *const verbs[LOAD_OPERATIONS] = {
    "GET /api/%s",    "POST /api/%s",   "%s.find",     "%s.update",         "SELECT %s",
    "INSERT INTO %s", "redis GET %s:*", "%s.validate", "publish %s.events", "consume %s.events",
};
static const uint8_t verb_kinds[LOAD_OPERATIONS] = {
    SPAN_KIND_SERVER, SPAN_KIND_SERVER, SPAN_KIND_INTERNAL, SPAN_KIND_INTERNAL, SPAN_KIND_CLIENT,
    SPAN_KIND_CLIENT, SPAN_KIND_CLIENT, SPAN_KIND_INTERNAL, SPAN_KIND_PRODUCER, SPAN_KIND_CONSUMER,
};
static const char *const areas[] = {"http", "db",      "rpc", "messaging",
                                    "user", "feature", "app", "net"};

static struct str text(struct load_gen *gen, const char *format, ...) PRINTF_LIKE(2, 3);
static struct str text(struct load_gen *gen, const char *format, ...)
{
    char line[128];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return arena_str(&gen->texts, str_from(line));
}

static void resource_init(struct load_gen *gen, unsigned service)
{
    struct attr *attrs = gen->resource_attrs[service];
    attrs[0] = (struct attr){STR("service.name"),
                             {.type = VALUE_STRING, .string = str_from(service_names[service])}};
    attrs[1] = (struct attr){STR("service.version"),
                             {.type = VALUE_STRING, .string = text(gen, "1.%u.0", service)}};
    attrs[2] =
        (struct attr){STR("host.name"),
                      {.type = VALUE_STRING, .string = text(gen, "node-%02u", service * 7 % 10)}};
    gen->resources[service].attrs = (struct attrs){attrs, 3, 0};
    resource_set_service_name(&gen->resources[service]);
}

/* Texts do not depend on the seed: 1000 values of 4 to 23 characters. */
static bool texts_init(struct load_gen *gen)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    for (unsigned i = 0; i < LOAD_KEYS; i++)
        gen->keys[i] = text(gen, "%s.key_%u", areas[i % (sizeof areas / sizeof *areas)], i);
    for (unsigned i = 0; i < LOAD_VALUES; i++) {
        uint64_t h = hash_mix64(i + 1);
        gen->values[i] = text(gen, "%.*s%03u", (int)(1 + h % 20), &letters[h / 20 % 6], i);
    }
    for (unsigned s = 0; s < LOAD_SERVICES; s++) {
        resource_init(gen, s);
        for (unsigned o = 0; o < LOAD_OPERATIONS; o++) {
            char *name = arena_alloc(&gen->texts, 64);
            if (!name)
                return false;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(name, 64, verbs[o], service_names[s]);
#pragma GCC diagnostic pop
            gen->operations[s][o] = str_from(name);
        }
    }
    return gen->values[LOAD_VALUES - 1].ptr != NULL;
}

struct load_gen *load_gen_new(uint64_t seed, unsigned spans_per_trace, uint64_t start_ns)
{
    struct load_gen *gen = calloc(1, sizeof *gen);
    if (!gen)
        return NULL;
    gen->state = hash_mix64(seed + 1);
    gen->spans_per_trace = spans_per_trace;
    gen->drawn = calloc(spans_per_trace, sizeof *gen->drawn);
    gen->clock_ns = start_ns;
    gen->scope = (struct scope){.name = STR("pugmark.load"), .version = STR("1")};
    gen->key_set_bits =
        (lgamma(LOAD_KEYS + 1) - lgamma(LOAD_ATTRS + 1) - lgamma(LOAD_KEYS - LOAD_ATTRS + 1)) /
        M_LN2;
    if (!gen->drawn || !texts_init(gen)) {
        load_gen_free(gen);
        return NULL;
    }
    return gen;
}

void load_gen_free(struct load_gen *gen)
{
    if (!gen)
        return;
    arena_done(&gen->texts);
    free(gen->drawn);
    free(gen);
}

/* Knuth's selection sampling: each set of LOAD_ATTRS keys is as likely as any other, and they come
 * in order. */
static void draw_attrs(struct load_gen *gen, struct attr *attrs)
{
    unsigned n = 0;
    for (unsigned key = 0; n < LOAD_ATTRS; key++) {
        if (draw_below_free(gen, LOAD_KEYS - key) >= LOAD_ATTRS - n)
            continue;
        attrs[n].key = gen->keys[key];
        attrs[n].value = (struct value){.type = VALUE_STRING,
                                        .string = gen->values[draw_below(gen, LOAD_VALUES)]};
        n++;
    }
    gen->bits += gen->key_set_bits;
}

static void draw_span(struct load_gen *gen, struct span *s, struct attr *attrs)
{
    unsigned nth = gen->n_drawn++;
    uint64_t id = draw64(gen) | 1;
    memcpy(s->span_id.bytes, &id, sizeof id);
    gen->bits += 63;
    if (nth == 0) {
        gen->clock_ns += draw_exponential(gen, GAP_MEAN_NS);
        s->start_ns = gen->clock_ns;
        s->end_ns = s->start_ns + draw_below(gen, ROOT_DURATION_MAX_NS);
    } else {
        const struct drawn *parent = &gen->drawn[draw_below(gen, nth)];
        s->parent_id = parent->id;
        s->start_ns = parent->start_ns +
                      draw_below(gen, (parent->end_ns - parent->start_ns) / 2 + 1);
        s->end_ns = s->start_ns + draw_below(gen, parent->end_ns - s->start_ns + 1);
    }
    gen->drawn[nth] = (struct drawn){s->span_id, s->start_ns, s->end_ns};
    unsigned service = (unsigned)draw_below(gen, LOAD_SERVICES);
    unsigned operation = (unsigned)draw_below(gen, LOAD_OPERATIONS);
    s->resource = &gen->resources[service];
    s->scope = &gen->scope;
    s->name = gen->operations[service][operation];
    s->kind = verb_kinds[operation];
    s->flags = 1;
    bool error = draw_below_free(gen, ERROR_ONE_IN) == 0;
    gen->bits += error ? log2(ERROR_ONE_IN) : log2((double)ERROR_ONE_IN / (ERROR_ONE_IN - 1));
    s->status_code = error ? STATUS_ERROR : STATUS_UNSET;
    draw_attrs(gen, attrs);
    s->attrs = (struct attrs){attrs, LOAD_ATTRS, 0};
}

int load_gen_batch(struct load_gen *gen, unsigned traces, struct arena *arena,
                   struct span_batch *ret_batch)
{
    size_t n = (size_t)traces * gen->spans_per_trace;
    if (gen->spans_per_trace > LOAD_PART_SPANS_MAX) {
        n = gen->spans_per_trace - gen->n_drawn % gen->spans_per_trace;
        n = n < LOAD_PART_SPANS_MAX ? n : LOAD_PART_SPANS_MAX;
    }
    struct span *drawn = arena_array(arena, n, sizeof *drawn);
    struct span *spans = arena_array(arena, n, sizeof *spans);
    struct attr *attrs = arena_array(arena, n * LOAD_ATTRS, sizeof *attrs);
    if (!drawn || !spans || !attrs)
        return ERR_NOMEM;
    memset(drawn, 0, n * sizeof *drawn);
    for (size_t i = 0; i < n; i++) {
        if (gen->n_drawn % gen->spans_per_trace == 0) {
            gen->n_drawn = 0;
            gen->trace_id[0] = draw64(gen);
            gen->trace_id[1] = draw64(gen) | 1;
            gen->bits += 127;
        }
        memcpy(drawn[i].trace_id.bytes, gen->trace_id, sizeof gen->trace_id);
        draw_span(gen, &drawn[i], attrs + i * LOAD_ATTRS);
    }
    size_t at = 0;
    for (unsigned s = 0; s < LOAD_SERVICES; s++)
        for (size_t i = 0; i < n; i++)
            if (drawn[i].resource == &gen->resources[s])
                spans[at++] = drawn[i];
    *ret_batch = (struct span_batch){.spans = spans, .n = n};
    return ERR_OK;
}

double load_gen_bits(const struct load_gen *gen)
{
    return gen->bits;
}
