/* shop_plain.c with every kind of instrumentation. Under PUG_DISABLE nothing of it may be left. */
#include <pugmark/capture.h>
#include <pugmark/log.h>
#include <pugmark/pugmark.h>
#include <pugmark/request_id.h>

#include <stdlib.h>
#include <string.h>

struct order {
    int id, n_items;
    unsigned urgent : 1;
    double total;
    const char *customer;
};

struct methods {
    int (*save)(struct order *o, int version);
    void (*close)(struct order *o);
};

int order_check(struct order *o, const char *header);
int order_sum(struct order *o);
int order_wrap(struct methods *m, struct order *o);
size_t order_forward(struct order *o, char *record, size_t len, size_t size);
int order_ship(struct order *o, char *line, size_t len, size_t size);

#define METHODS(X, T)                                                                              \
    X(T, int, save, (struct order * o, int version), (o, version))                                 \
    X(T, void, close, (struct order * o), (o))
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wpedantic" /* return of a void call, in the wrapper of close */
#endif
PUG_WRAP_TABLE(methods_traced, struct methods, "shop.", METHODS)

#define USED __attribute__((unused))
/* Never called when disabled, and then not in the object file. */
struct pair {
    const void *a, *b;
};
static USED int order_number(struct order *o)
{
    return ++o->id;
}
static USED void header_set(void *carrier, const char *name, const char *value)
{
    struct pair *p = (struct pair *)carrier;
    p->a = name;
    p->b = value;
}
static USED const char *header_get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    struct pair *p = (struct pair *)carrier;
    *ret_len = nth;
    return p->a == name ? name : NULL;
}

int order_sum(struct order *o)
{
    int only_for_the_span = o->id * 2;
    PUG_FN();
    PUG_SPAN_ONE_IN(only_for_the_span, "order.sum", PUG_INT("id", o->id),
                    PUG_STR("c", o->customer));
    PUG_FN(PUG_INT("items", o->n_items), PUG_INT("twice", only_for_the_span));
    for (int i = 0; i < o->n_items; i++)
        o->total += i * 1.5;
    pug_set_double(PUG_CURRENT, "total", o->total);
    return (int)o->total;
}

int order_check(struct order *o, const char *header)
{
    PUG_SPAN("order.check", PUG_STR("customer", o->customer), PUG_BOOL("urgent", o->urgent),
             PUG_DOUBLE("total", o->total), PUG_STRN("header", header, 3),
             PUG_KIND(PUG_KIND_SERVER));
    struct pug_span later;
    struct pug_context from = pug_context_current();
    pug_span_start(&later, "order.later", PUG_INT("id", o->id));
    pug_span_start_from(&later, &from, "order.from");
    if (!o->customer)
        return -1;
    PUG_SPAN_FROM(&from, "order.sum");
    int sum = order_sum(o);
    if (sum > 100)
        o->urgent = 1;
    pug_event(PUG_CURRENT, "summed", PUG_INT("sum", sum));
    pug_set_int(&later, "sum", sum);
    pug_set_str(&later, "customer", o->customer);
    pug_link(&later, &from);
    pug_error(&later, "none");
    void (*end)(struct pug_span *) = pug_span_end;
    end(&later);
    char hex[33];
    pug_trace_id_hex(&from, hex);
#ifndef __cplusplus
    pug_link(&later, &(struct pug_context){.flags = 1, .remote = 1});
    pug_span_id_hex(&(struct pug_context){.flags = 1, .remote = 1}, hex);
    pug_set_str(&later, "pair", (const char *[]){"left", "right"}[o->id & 1]);
    pug_set_int(&later, "called", order_number(o));
    pug_inject(NULL, header_set, &(struct pair){o, header});
    pug_extract(header_get, &(struct pair){o, header}, &from);
#endif
    return sum + (int)strlen(header);
}

int order_wrap(struct methods *m, struct order *o)
{
#ifndef __cplusplus
    if (pug_start(
            &(struct pug_options){.size = sizeof(struct pug_options), .service_name = "shop"}))
        return -1;
#endif
    pug_start(NULL);
    pug_flush(100);
    pug_stop();
    methods_traced(m);
    int saved = m->save(o, 2);
    m->close(o);
    return saved;
}

size_t order_forward(struct order *o, char *record, size_t len, size_t size)
{
    struct pug_context context;
    len = pug_json_extract(record, len, &context);
    PUG_ATTACH(&context);
    o->id = (int)(len + size);
    return pug_json_inject(NULL, record, len, size);
}

int order_ship(struct order *o, char *line, size_t len, size_t size)
{
    struct pug_baggage bag, now;
    struct pug_baggage_member member;
    struct pug_context from;
    char id[PUG_REQUEST_ID_MAX + 1], text[16];
    struct pug_capture where = pug_capture_current();
    pug_baggage_extract(header_get, line, &bag);
    pug_baggage_set(&bag, "customer", o->customer, NULL);
    pug_baggage_header(&bag, "uberctx-a", line);
    pug_baggage_get(&bag, "customer", text, sizeof text);
    pug_baggage_remove(&bag, "customer");
    pug_baggage_init(&now);
    pug_baggage_current(&now);
    memset(&member, 0, sizeof member);
    while (pug_baggage_next(&now, &member))
        pug_baggage_decode(member.value, member.value_len, text, sizeof text);
    pug_request_id(PUG_CURRENT, header_get, o, header_set, o, id);
    pug_request_id_current(id);
    PUG_BAGGAGE(&bag);
    PUG_REQUEST_ID(id);
    PUG_RESUME(&where);
    pug_capture_context(&where, &from);
    PUG_SPAN("order.ship");
#ifndef __cplusplus
    pug_baggage_set(&bag, "id", (const char *[]){"left", "right"}[order_number(o) & 1], NULL);
#endif
    len = pug_log_json(line, len, size);
    return o->id + (int)len + (line[0] == '{') + (int)size;
}
