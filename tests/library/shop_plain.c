/* A program nobody instrumented. shop_pugmark.c is the same with spans in it. */
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

int order_sum(struct order *o)
{
    for (int i = 0; i < o->n_items; i++)
        o->total += i * 1.5;
    return (int)o->total;
}

int order_check(struct order *o, const char *header)
{
    if (!o->customer)
        return -1;
    int sum = order_sum(o);
    if (sum > 100)
        o->urgent = 1;
    return sum + (int)strlen(header);
}

int order_wrap(struct methods *m, struct order *o)
{
    int saved = m->save(o, 2);
    m->close(o);
    return saved;
}

size_t order_forward(struct order *o, char *record, size_t len, size_t size)
{
    o->id = (int)(len + size);
    return len;
}

int order_ship(struct order *o, char *line, size_t len, size_t size)
{
    return o->id + (int)len + (line[0] == '{') + (int)size;
}
