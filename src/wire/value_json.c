#include "wire/value_json.h"

static void value_put(struct json_writer *w, const struct value *v, int depth)
{
    switch (v->type) {
    case VALUE_STRING:
        json_str(w, v->string);
        return;
    case VALUE_BOOL:
        json_bool(w, v->boolean);
        return;
    case VALUE_INT:
        json_i64(w, v->integer);
        return;
    case VALUE_DOUBLE:
        json_double(w, v->real);
        return;
    case VALUE_BYTES:
        json_base64(w, (const uint8_t *)v->bytes.ptr, v->bytes.len);
        return;
    case VALUE_ARRAY:
    case VALUE_MAP:
        break;
    default:
        json_null(w);
        return;
    }
    if (depth == VALUE_DEPTH_MAX) {
        json_null(w);
        return;
    }
    if (v->type == VALUE_ARRAY) {
        json_open(w, '[');
        for (size_t i = 0; i < v->array.n; i++)
            value_put(w, &v->array.items[i], depth + 1);
        json_close(w, ']');
        return;
    }
    json_open(w, '{');
    for (size_t i = 0; i < v->map.n; i++) {
        json_key(w, v->map.items[i].key);
        value_put(w, &v->map.items[i].value, depth + 1);
    }
    json_close(w, '}');
}

void value_json(const struct value *v, struct json_writer *w)
{
    value_put(w, v, 0);
}

void attrs_json(const struct attrs *attrs, struct json_writer *w)
{
    json_open(w, '{');
    for (uint32_t i = 0; i < attrs->n; i++) {
        json_key(w, attrs->items[i].key);
        value_json(&attrs->items[i].value, w);
    }
    json_close(w, '}');
}
