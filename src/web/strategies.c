#include "web/strategies.h"

#include "wire/protobuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct strategies {
    struct arena arena;
    struct strategy otherwise;
    struct strategy *services; /* by name */
    size_t n, n_operations;    /* the second: of all together */
};

/* ---- reading ---- */

struct reading {
    struct json_reader json;
    struct strategies *s;
    size_t n_file; /* services in the file */
};

static bool fail(struct reading *r, const char *expected)
{
    json_fail(&r->json, expected);
    return false;
}

static bool keep(struct reading *r, struct str text, struct str *ret)
{
    *ret = arena_str(&r->s->arena, text);
    if (!ret->ptr)
        json_fail_with(&r->json, ERR_NOMEM, "out of memory");
    return ret->ptr != NULL;
}

/* What a strategy is told by; whether it makes sense is seen at the end of its object. */
struct told {
    bool has_type, is_rate_limiting, has_param;
    double param;
};

/* The value of "type" or "param" comes. */
static bool read_told(struct reading *r, bool is_type, struct told *told)
{
    if (!is_type) {
        if (json_next(&r->json) != JSON_NUMBER || !json_to_double(&r->json, &told->param))
            return fail(r, "a number");
        told->has_param = true;
        return true;
    }
    if (json_next(&r->json) != JSON_STRING)
        return fail(r, "\"probabilistic\" or \"ratelimiting\"");
    told->is_rate_limiting = str_eq(r->json.text, STR("ratelimiting"));
    if (!told->is_rate_limiting && !str_eq(r->json.text, STR("probabilistic")))
        return fail(r, "\"probabilistic\" or \"ratelimiting\"");
    told->has_type = true;
    return true;
}

static bool check_told(struct reading *r, const struct told *told)
{
    if (!told->has_type || !told->has_param)
        return fail(r, "a strategy with a type and a param");
    if (told->is_rate_limiting && !(told->param >= 0 && told->param <= INT32_MAX))
        return fail(r, "a param from 0 on: traces per second");
    if (!told->is_rate_limiting && !(told->param >= 0 && told->param <= 1))
        return fail(r, "a param from 0 to 1: which part of the traces is kept");
    return true;
}

/* Its '{' was read. */
static bool read_operation(struct reading *r, struct operation_strategy *ret)
{
    struct told told = {.has_type = false};
    *ret = (struct operation_strategy){.rate = 0};
    while (json_next(&r->json) == JSON_KEY) {
        struct str key = r->json.text;
        if (str_eq(key, STR("operation"))) {
            if (json_next(&r->json) != JSON_STRING || !r->json.text.len)
                return fail(r, "the name of an operation");
            if (!keep(r, r->json.text, &ret->operation))
                return false;
        } else if (str_eq(key, STR("type")) || str_eq(key, STR("param"))) {
            if (!read_told(r, str_eq(key, STR("type")), &told))
                return false;
        } else if (json_skip(&r->json) == JSON_ERROR) {
            return false;
        }
    }
    if (r->json.type != JSON_OBJECT_END)
        return false;
    if (!ret->operation.len)
        return fail(r, "a strategy with an operation");
    if (told.is_rate_limiting)
        return fail(r, "type \"probabilistic\": of an operation no other is possible");
    if (!check_told(r, &told))
        return false;
    ret->rate = told.param;
    return true;
}

static bool count_operations(struct reading *r, size_t n)
{
    r->s->n_operations += n;
    if (r->s->n_operations <= STRATEGY_OPERATIONS_MAX)
        return true;
    json_fail_with(&r->json, ERR_TOO_LARGE, "too many strategies of operations");
    return false;
}

static bool read_operations(struct reading *r, struct strategy *to)
{
    struct buf items = BUF_INIT;
    bool good = json_next(&r->json) == JSON_ARRAY || fail(r, "a list of strategies");
    while (good && json_next(&r->json) == JSON_OBJECT) {
        struct operation_strategy one;
        good = read_operation(r, &one);
        buf_put(&items, &one, sizeof one);
        to->n_operations = items.len / sizeof one;
        if (good && to->n_operations > STRATEGIES_MAX) {
            json_fail_with(&r->json, ERR_TOO_LARGE, "too many strategies of operations");
            good = false;
        }
    }
    if (good && r->json.type != JSON_ARRAY_END)
        good = fail(r, "a strategy: {\"operation\":..,\"type\":..,\"param\":..}");
    if (good) {
        to->operations = arena_array(&r->s->arena, to->n_operations, sizeof *to->operations);
        if (!buf_ok(&items) || !to->operations) {
            json_fail_with(&r->json, ERR_NOMEM, "out of memory");
            good = false;
        } else if (items.len) {
            memcpy(to->operations, items.ptr, items.len);
        }
    }
    buf_done(&items);
    return good && count_operations(r, to->n_operations);
}

/* Its '{' was read. */
static bool read_strategy(struct reading *r, bool with_service, struct strategy *ret)
{
    struct told told = {.has_type = false};
    *ret = (struct strategy){.n_operations = 0};
    while (json_next(&r->json) == JSON_KEY) {
        struct str key = r->json.text;
        if (with_service && str_eq(key, STR("service"))) {
            if (json_next(&r->json) != JSON_STRING || !r->json.text.len)
                return fail(r, "the name of a service");
            if (!keep(r, r->json.text, &ret->service))
                return false;
        } else if (str_eq(key, STR("operation_strategies"))) {
            if (!read_operations(r, ret))
                return false;
        } else if (str_eq(key, STR("type")) || str_eq(key, STR("param"))) {
            if (!read_told(r, str_eq(key, STR("type")), &told))
                return false;
        } else if (json_skip(&r->json) == JSON_ERROR) {
            return false;
        }
    }
    if (r->json.type != JSON_OBJECT_END)
        return false;
    if (with_service && !ret->service.len)
        return fail(r, "a strategy with a service");
    /* Operations alone: the others are as without a strategy. */
    if (!told.has_type && !told.has_param && ret->n_operations)
        told = (struct told){.has_type = true, .has_param = true, .param = STRATEGY_RATE_DEFAULT};
    if (!check_told(r, &told))
        return false;
    ret->is_rate_limiting = told.is_rate_limiting;
    ret->param = told.param;
    ret->other_rate = told.is_rate_limiting ? STRATEGY_RATE_DEFAULT : told.param;
    return true;
}

static bool read_services(struct reading *r, struct buf *services)
{
    if (json_next(&r->json) != JSON_ARRAY)
        return fail(r, "a list of strategies");
    while (json_next(&r->json) == JSON_OBJECT) {
        struct strategy one;
        if (!read_strategy(r, true, &one))
            return false;
        buf_put(services, &one, sizeof one);
        if (++r->n_file > STRATEGIES_MAX) {
            json_fail_with(&r->json, ERR_TOO_LARGE, "too many services");
            return false;
        }
    }
    return r->json.type == JSON_ARRAY_END ||
           fail(r, "a strategy: {\"service\":..,\"type\":..,\"param\":..}");
}

static bool read_file(struct reading *r, struct buf *services)
{
    if (json_next(&r->json) != JSON_OBJECT)
        return fail(r, "an object with default_strategy and service_strategies");
    while (json_next(&r->json) == JSON_KEY) {
        struct str key = r->json.text;
        bool good = true;
        if (str_eq(key, STR("default_strategy"))) {
            enum json_type type = json_next(&r->json);
            if (type == JSON_OBJECT)
                good = read_strategy(r, false, &r->s->otherwise);
            else if (type != JSON_NULL)
                good = fail(r, "a strategy: {\"type\":..,\"param\":..}");
        } else if (str_eq(key, STR("service_strategies"))) {
            good = read_services(r, services);
        } else {
            good = json_skip(&r->json) != JSON_ERROR;
        }
        if (!good)
            return false;
    }
    return r->json.type == JSON_OBJECT_END && json_next(&r->json) == JSON_END;
}

/* ---- what the default lends ---- */

static bool has_operation(const struct strategy *s, struct str operation)
{
    for (size_t i = 0; i < s->n_operations; i++)
        if (str_eq(s->operations[i].operation, operation))
            return true;
    return false;
}

static bool lend(struct reading *r, struct strategy *to)
{
    const struct strategy *from = &r->s->otherwise;
    size_t n = to->n_operations + from->n_operations;
    if (!from->n_operations || !count_operations(r, from->n_operations))
        return !from->n_operations;
    struct operation_strategy *all = arena_array(&r->s->arena, n, sizeof *all);
    if (!all) {
        json_fail_with(&r->json, ERR_NOMEM, "out of memory");
        return false;
    }
    if (!to->n_operations && to->is_rate_limiting)
        to->other_rate = from->other_rate;
    n = to->n_operations;
    if (n)
        memcpy(all, to->operations, n * sizeof *all);
    for (size_t i = 0; i < from->n_operations; i++)
        if (!has_operation(to, from->operations[i].operation))
            all[n++] = from->operations[i];
    to->operations = all;
    to->n_operations = n;
    return true;
}

static int by_service(const void *a, const void *b)
{
    const struct strategy *x = a, *y = b;
    return str_cmp(x->service, y->service);
}

static bool take_services(struct reading *r, const struct buf *services)
{
    struct strategies *s = r->s;
    s->services = arena_array(&s->arena, r->n_file, sizeof *s->services);
    if (!buf_ok(services) || !s->services) {
        json_fail_with(&r->json, ERR_NOMEM, "out of memory");
        return false;
    }
    if (r->n_file) {
        memcpy(s->services, services->ptr, services->len);
        qsort(s->services, r->n_file, sizeof *s->services, by_service);
    }
    s->n = r->n_file;
    for (size_t i = 0; i < s->n; i++) {
        if (i && !by_service(&s->services[i - 1], &s->services[i])) {
            char message[128];
            struct str name = s->services[i].service;
            snprintf(message, sizeof message, "each service once: \"%.*s\" is there twice",
                     (int)(name.len < 80 ? name.len : 80), name.ptr);
            json_fail_with(&r->json, ERR_INVALID, message);
            return false;
        }
        if (!lend(r, &s->services[i]))
            return false;
    }
    return true;
}

/* ---- the set ---- */

int strategies_default(struct strategies **ret)
{
    struct strategies *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->otherwise = (struct strategy){.param = STRATEGY_RATE_DEFAULT,
                                     .other_rate = STRATEGY_RATE_DEFAULT};
    *ret = s;
    return 0;
}

int strategies_parse(struct str json, struct strategies **ret, struct error_detail *ret_detail)
{
    struct reading r = {.n_file = 0};
    struct buf services = BUF_INIT;
    int err = json.len > STRATEGIES_BYTES_MAX ? ERR_TOO_LARGE : strategies_default(&r.s);
    if (err)
        return error_set(ret_detail, err, 0,
                         err == ERR_NOMEM ? "out of memory" : "larger than 4 MiB");
    json_reader_init(&r.json, json, &r.s->arena, ret_detail);
    bool good = read_file(&r, &services) && take_services(&r, &services);
    buf_done(&services);
    if (good) {
        *ret = r.s;
        return 0;
    }
    strategies_free(r.s);
    return r.json.err ? r.json.err : error_set(ret_detail, ERR_INVALID, 0, "not JSON");
}

void strategies_free(struct strategies *s)
{
    if (!s)
        return;
    arena_done(&s->arena);
    free(s);
}

const struct strategy *strategies_of(const struct strategies *s, struct str service)
{
    const struct strategy key = {.service = service};
    const struct strategy *found = s->n ? bsearch(&key, s->services, s->n, sizeof key, by_service)
                                        : NULL;
    return found ? found : &s->otherwise;
}

/* ---- answers ---- */

static void key_double(struct json_writer *w, const char *key, double value)
{
    json_key(w, str_from(key));
    json_double(w, value);
}

static void rate_json(struct json_writer *w, double rate)
{
    json_key(w, STR("probabilisticSampling"));
    json_open(w, '{');
    key_double(w, "samplingRate", rate);
    json_close(w, '}');
}

void strategy_json(const struct strategy *s, struct json_writer *w)
{
    json_open(w, '{');
    json_key(w, STR("strategyType"));
    json_str(w, s->is_rate_limiting ? STR("RATE_LIMITING") : STR("PROBABILISTIC"));
    if (s->is_rate_limiting) {
        json_key(w, STR("rateLimitingSampling"));
        json_open(w, '{');
        json_key(w, STR("maxTracesPerSecond"));
        json_i64(w, (int32_t)s->param);
        json_close(w, '}');
    } else {
        rate_json(w, s->param);
    }
    if (s->n_operations) {
        json_key(w, STR("operationSampling"));
        json_open(w, '{');
        key_double(w, "defaultSamplingProbability", s->other_rate);
        key_double(w, "defaultLowerBoundTracesPerSecond", 0);
        key_double(w, "defaultUpperBoundTracesPerSecond", 0);
        json_key(w, STR("perOperationStrategies"));
        json_open(w, '[');
        for (size_t i = 0; i < s->n_operations; i++) {
            json_open(w, '{');
            json_key(w, STR("operation"));
            json_str(w, s->operations[i].operation);
            rate_json(w, s->operations[i].rate);
            json_close(w, '}');
        }
        json_close(w, ']');
        json_close(w, '}');
    }
    json_close(w, '}');
}

static void rate_protobuf(double rate, uint32_t number, struct buf *out)
{
    struct pb_message m = pb_open(out, PB_TAG(number, PB_BYTES), 1);
    uint64_t bits;
    memcpy(&bits, &rate, sizeof bits);
    if (bits)
        pb_put_fixed64(out, PB_TAG(1, PB_FIXED64), bits);
    pb_close(out, m);
}

void strategy_protobuf(const struct strategy *s, struct buf *out)
{
    enum { TYPE = 1, PROBABILISTIC, RATE_LIMITING, OPERATIONS };
    if (s->is_rate_limiting) {
        pb_put_varint(out, PB_TAG(TYPE, PB_VARINT), 1);
        struct pb_message m = pb_open(out, PB_TAG(RATE_LIMITING, PB_BYTES), 1);
        if (s->param >= 1)
            pb_put_varint(out, PB_TAG(1, PB_VARINT), (uint64_t)s->param);
        pb_close(out, m);
    } else {
        rate_protobuf(s->param, PROBABILISTIC, out);
    }
    if (!s->n_operations)
        return;
    struct pb_message all = pb_open(out, PB_TAG(OPERATIONS, PB_BYTES), 2);
    uint64_t bits;
    memcpy(&bits, &s->other_rate, sizeof bits);
    if (bits)
        pb_put_fixed64(out, PB_TAG(1, PB_FIXED64), bits);
    for (size_t i = 0; i < s->n_operations; i++) {
        struct pb_message one = pb_open(out, PB_TAG(3, PB_BYTES), 1);
        pb_put_str(out, PB_TAG(1, PB_BYTES), s->operations[i].operation);
        rate_protobuf(s->operations[i].rate, 2, out);
        pb_close(out, one);
    }
    pb_close(out, all);
}
