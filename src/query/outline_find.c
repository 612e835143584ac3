/* Finding inside one trace. A search for one span at a time reads the trace in steps, so that what it needs of
 * memory does not grow with the trace; only structure and aggregates need all of it at once. */
#include "query/outline.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

/* ---- sets of rows ---- */

static int found_init(const struct outline *o, struct outline_found *found)
{
    *found = (struct outline_found){.bits = calloc(o->n / 64 + 1, sizeof *found->bits)};
    return found->bits ? 0 : ERR_NOMEM;
}

void outline_found_done(struct outline_found *found)
{
    free(found->bits);
    *found = (struct outline_found){0};
}

static void found_add(struct outline_found *found, uint32_t row)
{
    uint64_t bit = UINT64_C(1) << row % 64;
    found->n += !(found->bits[row / 64] & bit);
    found->bits[row / 64] |= bit;
}

uint32_t outline_found_next(const struct outline *o, const struct outline_found *found,
                            uint32_t row, bool back)
{
    if (!found->n)
        return OUTLINE_NONE;
    uint32_t words = o->n / 64 + 1;
    /* Where to look first, and which bits of that word count. */
    uint32_t from = row == OUTLINE_NONE ? (back ? o->n - 1 : 0) : row;
    uint64_t mask;
    if (row == OUTLINE_NONE)
        mask = UINT64_MAX;
    else if (back)
        mask = (UINT64_C(1) << from % 64) - 1;
    else
        mask = from % 64 == 63 ? 0 : UINT64_MAX << (from % 64 + 1);
    uint32_t at = from / 64;
    for (uint32_t i = 0; i <= words; i++) {
        uint64_t word = found->bits[at] & mask;
        if (word)
            return at * 64 + (uint32_t)(back ? 63 - __builtin_clzll(word) : __builtin_ctzll(word));
        mask = UINT64_MAX;
        at = back ? (at ? at - 1 : words - 1) : (at + 1) % words;
    }
    return OUTLINE_NONE;
}

uint32_t outline_found_rank(const struct outline_found *found, uint32_t row)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < row / 64; i++)
        n += (uint32_t)__builtin_popcountll(found->bits[i]);
    return n +
           (uint32_t)__builtin_popcountll(found->bits[row / 64] & ((UINT64_C(1) << row % 64) - 1));
}

int outline_find_bits(const struct outline *o, uint8_t bits, struct outline_found *ret)
{
    int err = found_init(o, ret);
    for (uint32_t i = 0; !err && i < o->n; i++)
        if (o->rows[i].bits & bits)
            found_add(ret, i);
    return err;
}

/* ---- text ---- */

struct needle {
    char *text; /* lower case */
    size_t len;
    bool has_equals;
    char first[2]; /* its first character in both cases */
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool tail_matches(const struct needle *needle, const char *at)
{
    for (size_t i = 1; i < needle->len; i++)
        if (lower(at[i]) != needle->text[i])
            return false;
    return true;
}

static bool in_text(const struct needle *needle, struct str s)
{
    if (s.len < needle->len)
        return false;
    const char *last = s.ptr + s.len - needle->len;
    for (const char *at = s.ptr; at <= last; at++)
        if ((*at == needle->first[0] || *at == needle->first[1]) && tail_matches(needle, at))
            return true;
    return false;
}

/* The text of a plain value; an empty one of others. */
static struct str value_text(const struct value *v, char *room, size_t size)
{
    int n = 0;
    switch (v->type) {
    case VALUE_STRING:
        return v->string;
    case VALUE_BOOL:
        return v->boolean ? STR("true") : STR("false");
    case VALUE_INT:
        n = snprintf(room, size, "%" PRId64, v->integer);
        break;
    case VALUE_DOUBLE:
        n = snprintf(room, size, "%.15g", v->real);
        break;
    default:
        break;
    }
    return (struct str){room, (size_t)(n > 0 ? n : 0)};
}

static bool in_attrs(const struct needle *needle, const struct attr *items, size_t n);

static bool in_value(const struct needle *needle, const struct value *v)
{
    char room[40];
    if (v->type == VALUE_MAP)
        return in_attrs(needle, v->map.items, v->map.n);
    if (v->type == VALUE_ARRAY) {
        for (size_t i = 0; i < v->array.n; i++)
            if (in_value(needle, &v->array.items[i]))
                return true;
        return false;
    }
    return in_text(needle, value_text(v, room, sizeof room));
}

/* Whether "key=value" has the needle, across the sign. */
static bool in_pair(const struct needle *needle, const struct attr *a)
{
    char room[40];
    struct str value = value_text(&a->value, room, sizeof room);
    const char *equals = memchr(needle->text, '=', needle->len);
    size_t before = (size_t)(equals - needle->text), after = needle->len - before - 1;
    if (a->key.len < before || value.len < after)
        return false;
    for (size_t i = 0; i < before; i++)
        if (lower(a->key.ptr[a->key.len - before + i]) != needle->text[i])
            return false;
    for (size_t i = 0; i < after; i++)
        if (lower(value.ptr[i]) != needle->text[before + 1 + i])
            return false;
    return true;
}

static bool in_attrs(const struct needle *needle, const struct attr *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (in_text(needle, items[i].key) || in_value(needle, &items[i].value) ||
            (needle->has_equals && in_pair(needle, &items[i])))
            return true;
    return false;
}

static bool in_span(const struct needle *needle, const struct span *s)
{
    char id[2 * SPAN_ID_SIZE];
    if (in_text(needle, s->name) || in_text(needle, s->resource->service_name) ||
        in_text(needle, s->status_message) || in_attrs(needle, s->attrs.items, s->attrs.n))
        return true;
    for (uint32_t i = 0; i < s->n_events; i++)
        if (in_text(needle, s->events[i].name) ||
            in_attrs(needle, s->events[i].attrs.items, s->events[i].attrs.n))
            return true;
    hex_put(id, s->span_id.bytes, SPAN_ID_SIZE);
    return needle->len == sizeof id && !memcmp(id, needle->text, sizeof id);
}

/* ---- one span at a time ---- */

struct finder {
    const struct outline *o;
    const struct needle *needle; /* one of the two */
    const struct traceql *q;
    uint64_t deadline_ns;
    struct outline_found *found;
};

static int find_step(void *arg, const struct span_batch *batch)
{
    struct finder *f = arg;
    for (size_t i = 0; i < batch->n; i++) {
        const struct span *s = &batch->spans[i];
        if (f->needle ? !in_span(f->needle, s) : !traceql_match_span(f->q, s))
            continue;
        uint32_t row = outline_find(f->o, &s->span_id);
        if (row != OUTLINE_NONE)
            found_add(f->found, row);
    }
    return f->deadline_ns && clock_monotonic_ns() > f->deadline_ns ? ERR_TIMEOUT : 0;
}

int outline_find_text(const struct outline *o, struct store_view *view, struct str text,
                      uint64_t deadline_ns, struct outline_found *ret)
{
    struct outline_found found;
    text = str_trim(text);
    int err = found_init(o, &found);
    struct needle needle = {.text = malloc(text.len + 1), .len = text.len};
    if (!err && !needle.text)
        err = ERR_NOMEM;
    if (!err && text.len) {
        for (size_t i = 0; i < text.len; i++)
            needle.text[i] = lower(text.ptr[i]);
        needle.has_equals = memchr(needle.text, '=', needle.len) != NULL;
        needle.first[0] = needle.text[0];
        needle.first[1] = (char)toupper((unsigned char)needle.text[0]);
        struct finder f = {o, &needle, NULL, deadline_ns, &found};
        err = outline_walk(o, view, find_step, &f);
    }
    free(needle.text);
    if (err)
        outline_found_done(&found);
    else
        *ret = found;
    return err;
}

/* ---- queries ---- */

/* Structure needs all spans at once, but little of each: what the query does not name is left out. */
struct thin {
    const struct outline *o;
    struct str text;  /* of the query */
    bool keeps_all;   /* a key may be written with escapes */
    bool keeps_lists; /* it asks of events or links */
    struct arena *arena;
    struct span *spans;
    size_t n;
    struct {
        const void *from;
        const void *copy;
    } resources[64], scopes[64]; /* of this batch, by address */
};

static bool is_named(const struct thin *t, struct str key)
{
    return t->keeps_all || !key.len || memmem(t->text.ptr, t->text.len, key.ptr, key.len);
}

static int value_copy(struct arena *arena, const struct value *from, struct value *ret)
{
    *ret = *from;
    if (from->type == VALUE_STRING || from->type == VALUE_BYTES) {
        ret->string = arena_str(arena, from->string);
        return ret->string.ptr ? 0 : ERR_NOMEM;
    }
    if (from->type == VALUE_ARRAY || from->type == VALUE_MAP)
        *ret = (struct value){.type = from->type}; /* equal to nothing in a query */
    return 0;
}

static int attrs_copy(const struct thin *t, const struct attrs *from, struct attrs *ret)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < from->n; i++)
        n += is_named(t, from->items[i].key);
    *ret = (struct attrs){0};
    if (!n)
        return 0;
    struct attr *items = arena_array(t->arena, n, sizeof *items);
    if (!items)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < from->n; i++) {
        const struct attr *a = &from->items[i];
        if (!is_named(t, a->key))
            continue;
        struct attr *copy = &items[ret->n++];
        copy->key = arena_str(t->arena, a->key);
        if (!copy->key.ptr || value_copy(t->arena, &a->value, &copy->value))
            return ERR_NOMEM;
    }
    ret->items = items;
    return 0;
}

static const struct resource *resource_copy(struct thin *t, const struct resource *from)
{
    size_t at = ((uintptr_t)from >> 4) % 64;
    if (t->resources[at].from == from)
        return t->resources[at].copy;
    struct resource *r = arena_zalloc(t->arena, sizeof *r);
    if (!r || attrs_copy(t, &from->attrs, &r->attrs))
        return NULL;
    r->service_name = arena_str(t->arena, from->service_name);
    t->resources[at].from = from;
    t->resources[at].copy = r;
    return r->service_name.ptr ? r : NULL;
}

static const struct scope *scope_copy(struct thin *t, const struct scope *from)
{
    size_t at = ((uintptr_t)from >> 4) % 64;
    if (t->scopes[at].from == from)
        return t->scopes[at].copy;
    struct scope *s = arena_zalloc(t->arena, sizeof *s);
    if (!s || attrs_copy(t, &from->attrs, &s->attrs))
        return NULL;
    s->name = arena_str(t->arena, from->name);
    s->version = arena_str(t->arena, from->version);
    t->scopes[at].from = from;
    t->scopes[at].copy = s;
    return s->name.ptr && s->version.ptr ? s : NULL;
}

static int lists_copy(const struct thin *t, const struct span *from, struct span *s)
{
    struct event *events = arena_array(t->arena, from->n_events, sizeof *events);
    struct link *links = arena_array(t->arena, from->n_links, sizeof *links);
    if (!events || !links)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < from->n_events; i++) {
        events[i] = from->events[i];
        events[i].name = arena_str(t->arena, from->events[i].name);
        if (!events[i].name.ptr || attrs_copy(t, &from->events[i].attrs, &events[i].attrs))
            return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < from->n_links; i++) {
        links[i] = from->links[i];
        links[i].trace_state = STR_NONE;
        if (attrs_copy(t, &from->links[i].attrs, &links[i].attrs))
            return ERR_NOMEM;
    }
    s->events = events;
    s->n_events = from->n_events;
    s->links = links;
    s->n_links = from->n_links;
    return 0;
}

static int thin_step(void *arg, const struct span_batch *batch)
{
    struct thin *t = arg;
    memset(t->resources, 0, sizeof t->resources);
    memset(t->scopes, 0, sizeof t->scopes);
    for (size_t i = 0; i < batch->n && t->n < t->o->n; i++) {
        const struct span *from = &batch->spans[i];
        struct span *s = &t->spans[t->n];
        uint32_t row = outline_find(t->o, &from->span_id);
        if (row == OUTLINE_NONE)
            continue;
        *s = (struct span){
            .trace_id = from->trace_id,
            .span_id = from->span_id,
            .parent_id = from->parent_id,
            .start_ns = from->start_ns,
            .end_ns = from->end_ns,
            .name = t->o->names[t->o->rows[row].name],
            .kind = from->kind,
            .status_code = from->status_code,
            .resource = resource_copy(t, from->resource),
            .scope = scope_copy(t, from->scope),
        };
        if (!s->resource || !s->scope || attrs_copy(t, &from->attrs, &s->attrs))
            return ERR_NOMEM;
        if (from->status_message.len) {
            s->status_message = arena_str(t->arena, from->status_message);
            if (!s->status_message.ptr)
                return ERR_NOMEM;
        }
        int err = t->keeps_lists ? lists_copy(t, from, s) : 0;
        if (err)
            return err;
        t->n++;
    }
    return 0;
}

static int find_whole(const struct outline *o, struct store_view *view, const struct traceql *q,
                      size_t bytes_max, struct outline_found *found)
{
    struct arena arena = {.bytes_max = bytes_max};
    struct traceql_tree tree;
    struct traceql_spans *sets = NULL;
    size_t n_sets = 0;
    const struct outline_row *root = outline_root(o);
    struct traceql_trace trace = {
        .root_name = o->names[root->name],
        .root_service = o->services[root->service].name,
        .duration_ns = o->duration_ns,
        .tree = &tree,
    };
    struct thin thin = {
        .o = o,
        .text = q->text,
        .keeps_all = memchr(q->text.ptr, '\\', q->text.len) != NULL,
        .keeps_lists = memmem(q->text.ptr, q->text.len, "event", 5) ||
                       memmem(q->text.ptr, q->text.len, "link", 4),
        .arena = &arena,
        .spans = arena_array(&arena, o->n, sizeof *thin.spans),
    };
    int err = thin.spans ? outline_walk(o, view, thin_step, &thin) : ERR_NOMEM;
    if (!err)
        err = traceql_tree_init(&tree, thin.spans, thin.n, &arena);
    if (!err)
        err = traceql_run(q->stages, &trace, NULL, &arena, &sets, &n_sets);
    for (size_t k = 0; !err && k < n_sets; k++)
        for (size_t i = 0; i < thin.n; i++) {
            uint32_t row = sets[k].marks[i] ? outline_find(o, &thin.spans[i].span_id)
                                            : OUTLINE_NONE;
            if (row != OUTLINE_NONE)
                found_add(found, row);
        }
    arena_done(&arena);
    return err == ERR_NOMEM ? ERR_TOO_LARGE
                            : err; /* the arena's limit comes long before the machine's */
}

/* Whether the query is one filter, which each span answers by itself. */
static bool is_one_filter(const struct traceql *q)
{
    const struct traceql_stage *s = q->stages;
    return !q->needs_trace && s && !s->next && s->type == TRACEQL_STAGE_SPANSET &&
           s->spanset->op == TRACEQL_FILTER;
}

int outline_find_query(const struct outline *o, struct store_view *view, const struct traceql *q,
                       uint64_t deadline_ns, size_t bytes_max, struct outline_found *ret)
{
    struct outline_found found;
    int err = q->stages ? found_init(o, &found) : ERR_INVALID;
    if (err)
        return err;
    struct finder f = {o, NULL, q, deadline_ns, &found};
    err = is_one_filter(q) ? outline_walk(o, view, find_step, &f)
                           : find_whole(o, view, q, bytes_max, &found);
    if (err)
        outline_found_done(&found);
    else
        *ret = found;
    return err;
}
