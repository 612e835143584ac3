/* Tags of Jaeger that say what the model has a place for; what its thrift and its JSON share. */
#ifndef WIRE_JAEGER_TAG_H
#define WIRE_JAEGER_TAG_H

#include "wire/collect.h"

/* What a span says in tags and references, before it is known what they mean. */
struct jaeger_told {
    struct span span;
    struct scope *scope; /* NULL: nothing was said of it */
};

/* False: it is an attribute like any other. */
bool jaeger_tag_take(struct collect *c, struct jaeger_told *t, const struct attr *a);

#endif
