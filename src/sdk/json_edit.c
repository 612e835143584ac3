#include "sdk/json_edit.h"

static bool is_wanted(struct str key, const struct str *keys, size_t n_keys)
{
    for (size_t i = 0; i < n_keys; i++)
        if (str_eq(key, keys[i]))
            return true;
    return false;
}

/* Passes over the value after a key. */
static bool value_skip(struct json_reader *r)
{
    return json_skip(r) != JSON_ERROR;
}

bool json_edit_scan(struct str record, struct arena *arena, const struct str *keys, size_t n_keys,
                    bool (*member)(struct json_reader *r, void *user), void *user,
                    struct json_edit *ret)
{
    struct json_reader r;
    *ret = (struct json_edit){.bare = true};
    json_reader_init(&r, record, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return false;
    while (json_next(&r) == JSON_KEY) {
        size_t from = (size_t)(r.token - record.ptr);
        if (!is_wanted(r.text, keys, n_keys)) {
            ret->bare = false;
            if (!value_skip(&r))
                return false;
            continue;
        }
        if (ret->n_cuts == JSON_EDIT_CUTS_MAX || !(member ? member(&r, user) : value_skip(&r)))
            return false;
        ret->cuts[ret->n_cuts].from = from;
        ret->cuts[ret->n_cuts++].to = (size_t)(r.at - record.ptr);
    }
    if (r.type != JSON_OBJECT_END)
        return false;
    ret->end = (size_t)(r.at - record.ptr) - 1;
    return json_next(&r) == JSON_END;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Makes each cut take one comma with it: the one after it, or, for the last member, the one before
 * it. Cuts that touch then are one. */
static void cuts_take_commas(const char *record, struct json_edit *e)
{
    size_t n = 0;
    for (size_t i = 0; i < e->n_cuts; i++) {
        size_t from = e->cuts[i].from, to = e->cuts[i].to, after = to;
        while (is_space(record[after]))
            after++;
        bool last = record[after] != ',';
        if (!last) {
            for (after++; is_space(record[after]);)
                after++;
            to = after;
        }
        if (n && e->cuts[n - 1].to == from)
            from = e->cuts[--n].from;
        if (last) {
            size_t before = from;
            while (is_space(record[before - 1]))
                before--;
            if (record[before - 1] == ',')
                from = before - 1;
        }
        e->cuts[n].from = from;
        e->cuts[n++].to = to;
    }
    e->n_cuts = n;
}

/* Closes the gaps; returns the new length and moves `e->end` along. */
static size_t cuts_apply(char *record, size_t len, struct json_edit *e)
{
    size_t out = 0, in = 0, end = e->end;
    for (size_t i = 0; i < e->n_cuts; i++) {
        size_t from = e->cuts[i].from, to = e->cuts[i].to;
        memmove(record + out, record + in, from - in);
        out += from - in;
        in = to;
        end -= to - from;
    }
    memmove(record + out, record + in, len - in);
    e->end = end;
    return out + (len - in);
}

size_t json_edit_apply(char *record, size_t len, size_t size, struct json_edit *e, struct str text)
{
    size_t result = len, comma = text.len && !e->bare;
    cuts_take_commas(record, e);
    for (size_t i = 0; i < e->n_cuts; i++)
        result -= e->cuts[i].to - e->cuts[i].from;
    result += comma + text.len;
    if (text.len && result >= size)
        return result;
    len = cuts_apply(record, len, e);
    memmove(record + e->end + comma + text.len, record + e->end, len - e->end);
    if (comma)
        record[e->end++] = ',';
    if (text.len)
        memcpy(record + e->end, text.ptr, text.len);
    if (text.len || e->n_cuts) /* without either there may be no room for it */
        record[result] = '\0';
    return result;
}
