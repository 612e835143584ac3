/* Building, in passes over flat arrays without recursion, because a trace may be as deep as it has
 * spans:
 *
 * 1. the store gives the spans in start order; `places` are those
 * 2. a table finds the place of a span id; from it the parent of each, with circles cut
 * 3. children become linked lists, filled from the last start to the first
 * 4. a walk in preorder gives each place its row; what a row knows of those below it is
 *    summed from the last row to the first */
#include "query/outline.h"

#include <stdlib.h>

#include "base/hash.h"

#define NONE OUTLINE_NONE

/* ---- texts ---- */

/* Numbers for texts: equal ones mostly are the same bytes, so the last that was seen at an address
 * is looked at before the table. */
struct texts {
    struct arena *arena;
    struct str *items;
    uint32_t *slots; /* item + 1 */
    uint32_t n, capacity, mask, max;
    struct seen {
        const char *ptr;
        size_t len;
        uint32_t number;
    } seen[512];
};

static bool texts_grow(struct texts *t)
{
    uint32_t capacity = t->capacity ? t->capacity * 2 : 64, mask = capacity * 2 - 1;
    struct str *items = realloc(t->items, capacity * sizeof *items);
    if (items)
        t->items = items;
    uint32_t *slots = calloc(mask + 1, sizeof *slots);
    if (!items || !slots) {
        free(slots);
        return false;
    }
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t at = (uint32_t)hash_str(items[i]) & mask;
        while (slots[at])
            at = (at + 1) & mask;
        slots[at] = i + 1;
    }
    free(t->slots);
    t->slots = slots;
    t->mask = mask;
    t->capacity = capacity;
    return true;
}

/* NONE: no memory. */
static uint32_t texts_number(struct texts *t, struct str s)
{
    struct seen *seen = &t->seen[((uintptr_t)s.ptr >> 3) % (sizeof t->seen / sizeof *t->seen)];
    if (seen->ptr == s.ptr && seen->len == s.len && s.ptr)
        return seen->number;
    if (t->n == t->capacity && !texts_grow(t))
        return NONE;
    uint32_t at = (uint32_t)hash_str(s) & t->mask;
    while (t->slots[at] && !str_eq(t->items[t->slots[at] - 1], s))
        at = (at + 1) & t->mask;
    uint32_t number = t->slots[at] - 1;
    if (!t->slots[at]) {
        if (t->n == t->max)
            return t->max - 1;
        t->items[t->n] = arena_str(t->arena, s);
        if (!t->items[t->n].ptr)
            return NONE;
        number = t->n++;
        t->slots[at] = t->n;
    }
    *seen = (struct seen){s.ptr, s.len, number};
    return number;
}

static void texts_done(struct texts *t)
{
    free(t->items);
    free(t->slots);
}

/* ---- building ---- */

struct build {
    struct outline *o;
    struct store_outline *spans; /* by place */
    uint32_t n;
    uint32_t *parent, *first_child, *next_sibling, *row_of; /* by place */
    uint8_t *bits;
    struct texts names, services;
    uint32_t first_top;
};

static uint32_t slot_of(const struct outline *o, const struct span_id *id)
{
    uint64_t h;
    memcpy(&h, id->bytes, sizeof h);
    return (uint32_t)(hash_mix64(h ^ hash_secret())) & o->slots_mask;
}

/* The table holds places here, rows at the end. */
static uint32_t place_of(const struct build *b, const struct span_id *id)
{
    const struct outline *o = b->o;
    for (uint32_t at = slot_of(o, id); o->slots[at]; at = (at + 1) & o->slots_mask)
        if (!memcmp(&b->spans[o->slots[at] - 1].span_id, id, sizeof *id))
            return o->slots[at] - 1;
    return NONE;
}

static int find_parents(struct build *b)
{
    struct outline *o = b->o;
    uint32_t capacity = 16;
    while (capacity < 2 * (uint64_t)b->n && capacity < (UINT32_C(1) << 31))
        capacity *= 2;
    o->slots = calloc(capacity, sizeof *o->slots);
    o->slots_mask = capacity - 1;
    if (!o->slots)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < b->n; i++) {
        const struct span_id *id = &b->spans[i].span_id;
        uint32_t at = slot_of(o, id);
        while (o->slots[at] && memcmp(&b->spans[o->slots[at] - 1].span_id, id, sizeof *id))
            at = (at + 1) & o->slots_mask;
        if (!o->slots[at])
            o->slots[at] = i + 1;
    }
    for (uint32_t i = 0; i < b->n; i++) {
        const struct span_id *id = &b->spans[i].parent_id;
        b->parent[i] = NONE;
        if (span_id_is_zero(id))
            continue;
        uint32_t p = place_of(b, id);
        if (p == NONE)
            b->bits[i] |= OUTLINE_ORPHAN;
        else if (p == i)
            b->bits[i] |= OUTLINE_CIRCULAR;
        else
            b->parent[i] = p;
    }
    return 0;
}

/* Walks up from each place; meeting the walk's own mark again closes a circle, which is cut at its
 * earliest span. */
static void cut_circles(struct build *b, uint32_t *mark)
{
    for (uint32_t i = 0; i < b->n; i++)
        mark[i] = NONE;
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t at = i;
        while (at != NONE && mark[at] == NONE) {
            mark[at] = i;
            at = b->parent[at];
        }
        if (at == NONE || mark[at] != i)
            continue;
        uint32_t cut = at;
        for (uint32_t c = b->parent[at]; c != at; c = b->parent[c])
            cut = c < cut ? c : cut; /* places are in start order */
        b->parent[cut] = NONE;
        b->bits[cut] |= OUTLINE_CIRCULAR;
    }
}

static void link_children(struct build *b)
{
    b->first_top = NONE;
    for (uint32_t i = 0; i < b->n; i++)
        b->first_child[i] = NONE;
    for (uint32_t i = b->n; i-- > 0;) {
        uint32_t p = b->parent[i];
        uint32_t *list = p == NONE ? &b->first_top : &b->first_child[p];
        b->next_sibling[i] = *list;
        *list = i;
    }
}

static int row_fill(struct build *b, uint32_t place, uint32_t row, uint32_t depth)
{
    struct outline *o = b->o;
    const struct store_outline *s = &b->spans[place];
    uint32_t service = texts_number(&b->services, s->service);
    uint32_t name = texts_number(&b->names, s->name);
    if (service == NONE || name == NONE)
        return ERR_NOMEM;
    uint32_t parent = b->parent[place];
    o->rows[row] = (struct outline_row){
        .start_ns = s->start_ns - o->start_ns,
        .duration_ns = s->end_ns > s->start_ns ? s->end_ns - s->start_ns : 0,
        .id = s->span_id,
        .parent = parent == NONE ? NONE : b->row_of[parent],
        .depth = depth,
        .name = name,
        .service = (uint16_t)service,
        .kind = s->kind,
        .bits = b->bits[place] | (s->status_code == STATUS_ERROR ? OUTLINE_ERROR : 0),
    };
    b->row_of[place] = row;
    if (parent != NONE)
        o->rows[b->row_of[parent]].children++;
    return 0;
}

static int walk_tree(struct build *b)
{
    uint32_t at = b->first_top, row = 0, depth = 0;
    while (at != NONE) {
        int err = row_fill(b, at, row++, depth);
        if (err)
            return err;
        b->o->depth = depth + 1 > b->o->depth ? depth + 1 : b->o->depth;
        b->o->n_roots += b->parent[at] == NONE;
        if (b->first_child[at] != NONE) {
            at = b->first_child[at];
            depth++;
            continue;
        }
        while (at != NONE && b->next_sibling[at] == NONE) {
            at = b->parent[at];
            depth -= depth > 0;
        }
        if (at != NONE)
            at = b->next_sibling[at];
    }
    return 0;
}

/* What each row knows of those below; `ends` is scratch. */
static void sum_up(struct outline *o, uint64_t *ends)
{
    for (uint32_t i = 0; i < o->n; i++)
        ends[i] = o->rows[i].start_ns + o->rows[i].duration_ns;
    for (uint32_t i = o->n; i-- > 0;) {
        struct outline_row *r = &o->rows[i];
        uint64_t end = r->start_ns + r->duration_ns;
        r->bits |= ends[i] > end ? OUTLINE_TAIL : 0;
        o->duration_ns = ends[i] > o->duration_ns ? ends[i] : o->duration_ns;
        if (r->parent == NONE)
            continue;
        struct outline_row *p = &o->rows[r->parent];
        p->size += r->size + 1;
        p->bits |= r->bits & (OUTLINE_ERROR | OUTLINE_ERROR_BELOW) ? OUTLINE_ERROR_BELOW : 0;
        ends[r->parent] = ends[i] > ends[r->parent] ? ends[i] : ends[r->parent];
    }
}

static int id_order(const void *a, const void *b)
{
    return memcmp(a, b, SPAN_ID_SIZE);
}

static int count_facts(struct build *b)
{
    struct outline *o = b->o;
    o->names = b->names.items;
    o->n_names = b->names.n;
    b->names.items = NULL;
    o->n_services = b->services.n;
    o->services = calloc(o->n_services, sizeof *o->services);
    if (!o->services)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < o->n_services; i++)
        o->services[i].name = b->services.items[i];
    for (uint32_t i = 0; i < o->n; i++) {
        const struct outline_row *r = &o->rows[i];
        bool failed = r->bits & OUTLINE_ERROR;
        o->services[r->service].span_count++;
        o->services[r->service].error_count += failed;
        o->n_errors += failed;
        o->n_orphans += (r->bits & OUTLINE_ORPHAN) != 0;
    }
    if (!o->n_orphans)
        return 0;
    struct span_id *missing = malloc(o->n_orphans * sizeof *missing);
    uint32_t n = 0;
    if (!missing)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < b->n; i++)
        if (b->bits[i] & OUTLINE_ORPHAN)
            missing[n++] = b->spans[i].parent_id;
    qsort(missing, n, sizeof *missing, id_order);
    for (uint32_t i = 0; i < n; i++)
        o->n_missing_parents += i == 0 ||
                                memcmp(&missing[i], &missing[i - 1], sizeof *missing) != 0;
    free(missing);
    return 0;
}

static int build(struct build *b)
{
    struct outline *o = b->o;
    size_t n = b->n;
    uint64_t *ends = malloc(n * sizeof *ends); /* first the marks of cut_circles */
    b->parent = malloc(n * sizeof *b->parent);
    b->first_child = malloc(n * sizeof *b->first_child);
    b->next_sibling = malloc(n * sizeof *b->next_sibling);
    b->row_of = malloc(n * sizeof *b->row_of);
    b->bits = calloc(n, 1);
    o->rows = malloc(n * sizeof *o->rows);
    o->n_marks = (uint32_t)((n + OUTLINE_STEP - 1) / OUTLINE_STEP);
    o->marks = malloc(o->n_marks * sizeof *o->marks);
    int err = ends && b->parent && b->first_child && b->next_sibling && b->row_of && b->bits &&
                      o->rows && o->marks
                  ? find_parents(b)
                  : ERR_NOMEM;
    if (!err) {
        for (uint32_t i = 0; i < o->n_marks; i++)
            o->marks[i] = b->spans[i * OUTLINE_STEP].start_ns;
        o->n = b->n;
        o->start_ns = b->spans[0].start_ns;
        cut_circles(b, (uint32_t *)ends);
        link_children(b);
        err = walk_tree(b);
    }
    if (!err) {
        sum_up(o, ends);
        for (uint64_t at = 0; at <= o->slots_mask; at++)
            if (o->slots[at])
                o->slots[at] = b->row_of[o->slots[at] - 1] + 1;
        err = count_facts(b);
    }
    free(ends);
    free(b->parent);
    free(b->first_child);
    free(b->next_sibling);
    free(b->row_of);
    free(b->bits);
    texts_done(&b->names);
    texts_done(&b->services);
    return err;
}

int outline_new(struct store_view *view, const struct trace_id *id, struct outline **ret)
{
    struct store_outline *spans;
    size_t n;
    int err = store_trace_outline(view, id, &spans, &n);
    if (err)
        return err;
    struct outline *o = calloc(1, sizeof *o);
    struct build *b = calloc(1, sizeof *b);
    err = !o || !b ? ERR_NOMEM : n > OUTLINE_ROWS_MAX ? ERR_TOO_LARGE : 0;
    if (!err) {
        o->id = *id;
        *b = (struct build){.o = o, .spans = spans, .n = (uint32_t)n};
        b->names = (struct texts){.arena = &o->arena, .max = NONE};
        b->services = (struct texts){.arena = &o->arena, .max = OUTLINE_SERVICES_MAX};
        err = build(b);
    }
    free(b);
    free(spans);
    if (err) {
        outline_free(o);
        return err;
    }
    o->bytes = sizeof *o + n * sizeof *o->rows + ((size_t)o->slots_mask + 1) * sizeof *o->slots +
               o->n_names * sizeof *o->names + o->n_services * sizeof *o->services +
               o->n_marks * sizeof *o->marks + o->arena.bytes;
    *ret = o;
    return 0;
}

void outline_free(struct outline *o)
{
    if (!o)
        return;
    free(o->rows);
    free(o->slots);
    free(o->names);
    free(o->services);
    free(o->marks);
    arena_done(&o->arena);
    free(o);
}

/* ---- asking ---- */

uint32_t outline_find(const struct outline *o, const struct span_id *id)
{
    for (uint32_t at = slot_of(o, id); o->slots[at]; at = (at + 1) & o->slots_mask)
        if (!memcmp(&o->rows[o->slots[at] - 1].id, id, sizeof *id))
            return o->slots[at] - 1;
    return NONE;
}

const struct outline_row *outline_root(const struct outline *o)
{
    /* Those on top are in start order. */
    for (uint32_t i = 0; i < o->n; i += 1 + o->rows[i].size)
        if (!(o->rows[i].bits & (OUTLINE_ORPHAN | OUTLINE_CIRCULAR)))
            return &o->rows[i];
    uint32_t first = 0;
    for (uint32_t i = 0; i < o->n; i++)
        first = o->rows[i].start_ns < o->rows[first].start_ns ? i : first;
    return &o->rows[first];
}

uint64_t outline_self_ns(const struct outline *o, uint32_t row)
{
    const struct outline_row *r = &o->rows[row];
    uint64_t covered = 0, until = r->start_ns, end = r->start_ns + r->duration_ns;
    for (uint32_t i = row + 1; i <= row + r->size; i += 1 + o->rows[i].size) {
        const struct outline_row *c = &o->rows[i]; /* in start order */
        uint64_t from = c->start_ns > until ? c->start_ns : until;
        uint64_t to = c->start_ns + c->duration_ns < end ? c->start_ns + c->duration_ns : end;
        if (to > from) {
            covered += to - from;
            until = to;
        }
    }
    return r->duration_ns - covered;
}

int outline_walk(const struct outline *o, struct store_view *view, outline_walk_fn *fn, void *arg)
{
    struct arena arena = ARENA_INIT;
    int err = 0;
    for (uint32_t i = 0, next; i < o->n_marks && !err; i = next) {
        struct span_batch batch;
        /* Steps that begin at one moment are one. */
        for (next = i + 1; next < o->n_marks && o->marks[next] == o->marks[i];)
            next++;
        uint64_t last = next < o->n_marks ? o->marks[next] - 1 : o->start_ns + o->duration_ns;
        arena_reset(&arena);
        err = store_trace_between(view, &o->id, o->marks[i], last, &arena, &batch);
        if (!err && batch.n)
            err = fn(arg, &batch);
    }
    arena_done(&arena);
    return err;
}

int outline_span(const struct outline *o, struct store_view *view, uint32_t row,
                 struct arena *arena, const struct span **ret)
{
    uint64_t start_ns = o->start_ns + o->rows[row].start_ns;
    struct span_batch batch;
    int err = store_trace_between(view, &o->id, start_ns, start_ns, arena, &batch);
    if (err)
        return err;
    for (size_t i = 0; i < batch.n; i++)
        if (!memcmp(&batch.spans[i].span_id, &o->rows[row].id, SPAN_ID_SIZE)) {
            *ret = &batch.spans[i];
            return 0;
        }
    return ERR_NOT_FOUND;
}

/* ---- the critical path ---- */

static int end_order(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? 1 : *x > *y ? -1 : 0;
}

/* Source: CRISP (Zhang et al., USENIX ATC 2022): children that ended before the moment looked at, the last
 * of them first; after it, those that ended before its start. */
int outline_critical(struct outline *o)
{
    struct {
        uint64_t end;
        uint32_t row;
    } *children = NULL;
    struct {
        uint32_t row;
        uint64_t until;
    } *todo = malloc((o->depth + 1) * sizeof *todo);
    size_t n_todo = 0, capacity = 0, todo_capacity = o->depth + 1;
    uint32_t top = NONE;
    uint64_t top_end = 0;
    if (!todo)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < o->n; i += 1 + o->rows[i].size) {
        uint64_t end = o->rows[i].start_ns + o->rows[i].duration_ns;
        if (top == NONE || end > top_end) {
            top = i;
            top_end = end;
        }
    }
    todo[n_todo].row = top;
    todo[n_todo++].until = top_end;
    while (n_todo) {
        uint32_t row = todo[--n_todo].row;
        uint64_t until = todo[n_todo].until;
        const struct outline_row *r = &o->rows[row];
        o->rows[row].bits |= OUTLINE_CRITICAL;
        if (r->children > capacity) {
            free(children);
            children = malloc(r->children * sizeof *children);
            capacity = children ? r->children : 0;
            if (!children) {
                free(todo);
                return ERR_NOMEM;
            }
        }
        size_t n = 0;
        for (uint32_t i = row + 1; i <= row + r->size; i += 1 + o->rows[i].size) {
            children[n].end = o->rows[i].start_ns + o->rows[i].duration_ns;
            children[n++].row = i;
        }
        if (n)
            qsort(children, n, sizeof *children, end_order);
        for (size_t k = 0; k < n; k++) {
            const struct outline_row *c = &o->rows[children[k].row];
            if (children[k].end > until || !c->duration_ns)
                continue;
            if (n_todo == todo_capacity) {
                void *more = realloc(todo, 2 * todo_capacity * sizeof *todo);
                if (!more) {
                    free(children);
                    free(todo);
                    return ERR_NOMEM;
                }
                todo = more;
                todo_capacity *= 2;
            }
            todo[n_todo].row = children[k].row;
            todo[n_todo++].until = children[k].end;
            until = c->start_ns;
        }
    }
    free(children);
    free(todo);
    return 0;
}
