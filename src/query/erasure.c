#include "query/erasure.h"

#include "base/hash.h"

#include <stdlib.h>

/* ---- counting traces ---- */

/* A set of ids, by 64 bits of them: two traces in four thousand million may be taken for one. */
struct id_set {
    uint64_t *slots; /* 0: free */
    size_t n, mask;
};

static int id_set_grow(struct id_set *set)
{
    struct id_set more = {.mask = set->slots ? set->mask * 2 + 1 : 1023};
    more.slots = calloc(more.mask + 1, sizeof *more.slots);
    if (!more.slots)
        return ERR_NOMEM;
    for (size_t i = 0; set->slots && i <= set->mask; i++) {
        size_t at = set->slots[i] & more.mask;
        while (set->slots[i] && more.slots[at])
            at = (at + 1) & more.mask;
        if (set->slots[i])
            more.slots[at] = set->slots[i];
    }
    more.n = set->n;
    free(set->slots);
    *set = more;
    return 0;
}

static int id_set_add(struct id_set *set, const struct trace_id *id)
{
    uint64_t hash = hash_bytes(id->bytes, TRACE_ID_SIZE) | 1;
    if (!set->slots || set->n * 2 > set->mask) {
        int err = id_set_grow(set);
        if (err)
            return err;
    }
    size_t at = hash & set->mask;
    while (set->slots[at] && set->slots[at] != hash)
        at = (at + 1) & set->mask;
    set->n += !set->slots[at];
    set->slots[at] = hash;
    return 0;
}

/* ---- single spans: the columns tell ---- */

struct counting {
    struct erasure *to;
    struct id_set ids;
};

static int row_count(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct counting *c = arg;
    c->to->spans++;
    return id_set_add(&c->ids, &row->trace_id);
}

static int count_rows(struct store_view *view, struct erasure *e)
{
    struct counting c = {.to = e};
    struct scan scan = {.where = e->erase.where,
                        .start_min_ns = e->erase.start_min_ns,
                        .start_max_ns = e->erase.start_max_ns};
    struct scan_cost cost = {0};
    int err = store_scan(view, &scan, row_count, &c, &cost);
    e->traces = c.ids.n;
    e->is_damaged = cost.parts_damaged != 0;
    free(c.ids.slots);
    return err;
}

/* ---- whole traces: which spans of them ---- */

struct listing {
    struct store_view *view;
    struct search search;
    struct erase_span *spans;
    size_t n, cap;
};

static int list_add(struct listing *l, const struct span *s)
{
    if (l->n == STORE_ERASE_SPANS_MAX)
        return ERR_TOO_LARGE;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 1024;
        struct erase_span *more = realloc(l->spans, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        l->spans = more;
        l->cap = cap;
    }
    l->spans[l->n++] = (struct erase_span){s->trace_id, s->span_id};
    return 0;
}

static int list_trace(struct listing *l, const struct trace_summary *summary)
{
    struct arena arena = ARENA_INIT;
    struct search_spans found;
    int err = search_spans(l->view, &l->search, summary, &arena, &found);
    for (size_t i = 0; !err && i < found.batch.n; i++) {
        bool marked = false;
        for (size_t k = 0; k < found.n_sets; k++)
            marked |= found.sets[k].marks[i];
        if (marked)
            err = list_add(l, &found.batch.spans[i]);
    }
    arena_done(&arena);
    return err;
}

static int list_spans(struct store_view *view, const struct traceql *query, struct arena *arena,
                      struct erasure *e, struct error_detail *detail)
{
    struct listing l = {.view = view,
                        .search = {.query = query,
                                   .start_min_ns = e->erase.start_min_ns,
                                   .start_max_ns = e->erase.start_max_ns,
                                   .limit = ERASURE_TRACES_MAX}};
    struct search_result result;
    int err = search_run(view, &l.search, arena, &result, detail);
    if (!err && result.more)
        err = error_set(detail, ERR_TOO_LARGE, 0,
                        "the query needs whole traces and finds more than %d: ask for a shorter "
                        "range of time, or for single spans",
                        ERASURE_TRACES_MAX);
    for (size_t i = 0; !err && i < result.n; i++)
        err = list_trace(&l, &result.traces[i].summary);
    struct erase_span *spans = err ? NULL : arena_array(arena, l.n, sizeof *spans);
    if (!err && !spans)
        err = ERR_NOMEM;
    if (!err) {
        if (l.n)
            memcpy(spans, l.spans, l.n * sizeof *spans);
        e->erase.spans = spans;
        e->erase.n_spans = e->spans = l.n;
        e->traces = result.n;
        e->is_damaged = result.cost.parts_damaged || store_view_is_damaged(view);
    }
    free(l.spans);
    return err;
}

/* ---- both ---- */

int erasure_find(struct store_view *view, struct str text, uint64_t start_min_ns,
                 uint64_t start_max_ns, struct arena *arena, struct erasure *ret,
                 struct error_detail *ret_detail)
{
    struct erasure e = {.erase = {.start_min_ns = start_min_ns, .start_max_ns = start_max_ns}};
    struct traceql *query = NULL;
    bool exact = true;
    *ret_detail = (struct error_detail){0};
    int err = text.len ? traceql_parse(text, &query, ret_detail) : 0;
    if (!err && query && query->metric)
        err = error_set(ret_detail, ERR_INVALID, 0,
                        "this query gives series; expected one that gives spans");
    if (!err && query) {
        const struct predicate *where = traceql_predicate(query->stages, arena, &exact);
        e.erase.where = where ? predicate_copy(where, arena) : NULL; /* outlives the query */
        err = e.erase.where ? 0 : ERR_NOMEM;
    }
    if (!err && exact)
        err = count_rows(view, &e);
    else if (!err)
        err = list_spans(view, query, arena, &e, ret_detail);
    traceql_free(query);
    if (err && !ret_detail->code)
        error_set(ret_detail, err, 0, "%s", err_text(err));
    if (!err)
        *ret = e;
    return err;
}
