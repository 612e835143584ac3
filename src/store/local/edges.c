/* Calls one by one: for each span that answers (server or consumer) and whose parent asks (client or producer), both.
 *
 * As in calls.c no traces are put together. A segment knows the parent of a row by its place in the trace, so what an
 * edge says of a parent (operation, duration, status, span id: 21 bytes a row, for as long as the segment is looked at)
 * is put into arrays first. Spans whose parents lie in another part are noted (at most FOREIGN_CALLS_MAX), and these
 * looked for in the outlines of their traces at the end. */
#include "base/clock.h"
#include "store/local/calls.h"
#include "store/local/memtable.h"
#include "store/local/segment_read.h"
#include "store/local/view.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_BETWEEN_LOOKS = 1 << 16 }; /* at the clock */

/* Of which only the client's side is not known yet; client_id is. */
struct edge_pass {
    uint64_t start_min_ns, start_max_ns;
    uint64_t until_ns; /* monotonic; 0: no bound */
    store_edge_fn *fn;
    void *arg;
    struct store_edge *foreign;
    size_t n_foreign, cap_foreign;
    bool is_cut;
};

static bool asks(uint8_t kind)
{
    return kind == SPAN_KIND_CLIENT || kind == SPAN_KIND_PRODUCER;
}

static bool answers(uint8_t kind)
{
    return kind == SPAN_KIND_SERVER || kind == SPAN_KIND_CONSUMER;
}

static int check_clock(const struct edge_pass *p)
{
    return p->until_ns && clock_monotonic_ns() > p->until_ns ? ERR_TIMEOUT : 0;
}

static bool is_in_range(const struct edge_pass *p, uint64_t start_ns)
{
    return start_ns >= p->start_min_ns && start_ns <= p->start_max_ns;
}

static int foreign_add(struct edge_pass *p, const struct store_edge *edge)
{
    if (p->n_foreign == FOREIGN_CALLS_MAX) {
        p->is_cut = true;
        return 0;
    }
    if (p->n_foreign == p->cap_foreign) {
        size_t cap = p->cap_foreign ? 2 * p->cap_foreign : 256;
        struct store_edge *items = realloc(p->foreign, cap * sizeof *items);
        if (!items)
            return ERR_NOMEM;
        p->foreign = items;
        p->cap_foreign = cap;
    }
    p->foreign[p->n_foreign++] = *edge;
    return 0;
}

/* ---- a memtable ---- */

static struct store_edge_side mem_side(const struct memtable *mt, const struct mem_row *row)
{
    return (struct store_edge_side){
        .service = intern_get(&mt->names, memtable_service(mt, row->resource)),
        .duration_ns = row->end_ns > row->start_ns ? row->end_ns - row->start_ns : 0,
        .kind = row->kind,
        .status_code = row->status_code,
    };
}

static int mem_row_edge(const struct row_table *t, uint32_t i, struct edge_pass *p)
{
    const struct mem_row *row = memtable_row(t->mt, i);
    if (!answers(row->kind) || span_id_is_zero(&row->parent_id) || !is_in_range(p, row->start_ns))
        return 0;
    struct store_edge edge = {
        .client_id = row->parent_id,
        .server = mem_side(t->mt, row),
        .start_ns = row->start_ns,
    };
    memcpy(edge.trace_id.bytes, intern_get(&t->mt->traces, row->trace).ptr, TRACE_ID_SIZE);
    uint32_t parent = row_table_find(t, row->trace, &row->parent_id);
    if (!parent)
        return foreign_add(p, &edge);
    edge.client = mem_side(t->mt, memtable_row(t->mt, parent - 1));
    return asks(edge.client.kind) ? p->fn(p->arg, &edge) : 0;
}

static int memtable_edges(const struct memtable *mt, uint32_t rows, struct edge_pass *p)
{
    struct row_table t;
    int err = row_table_init(&t, mt, rows);
    for (uint32_t i = 0; i < rows && !err; i++) {
        err = mem_row_edge(&t, i, p);
        if (!err && i % ROWS_BETWEEN_LOOKS == 0)
            err = check_clock(p);
    }
    row_table_done(&t);
    return err;
}

/* ---- a segment ---- */

struct seg_edges {
    struct segment *seg;
    struct edge_pass *pass;
    struct arena held;
    /* By row. */
    uint32_t *operations;
    uint64_t *durations;
    uint8_t *status;
    struct span_id *ids;
    struct segment_traces_all traces;
    uint32_t trace; /* of the row that is looked at */
};

static int seg_room(struct seg_edges *e)
{
    size_t n = (size_t)e->seg->n_rows;
    e->operations = arena_array(&e->held, n + 1, sizeof *e->operations);
    e->durations = arena_array(&e->held, n + 1, sizeof *e->durations);
    e->status = arena_alloc(&e->held, n + 1);
    e->ids = arena_array(&e->held, n + 1, sizeof *e->ids);
    if (!e->operations || !e->durations || !e->status || !e->ids)
        return ERR_NOMEM;
    int err = segment_operations_read(e->seg);
    return err ? err : segment_traces_all(e->seg, &e->held, &e->traces);
}

/* The trace of the first row of a group, and its start; groups come in their order. */
static uint64_t trace_enter(struct seg_edges *e, const struct segment_group *sg)
{
    while (e->traces.first_rows[e->trace + 1] <= sg->first_row)
        e->trace++;
    return e->traces.starts[e->trace];
}

/* What the start of a row is counted from: that of the one before it, or of its trace. */
static uint64_t row_start(struct seg_edges *e, uint32_t row, uint64_t before_ns)
{
    while (row == e->traces.first_rows[e->trace + 1])
        before_ns = e->traces.starts[++e->trace];
    return before_ns;
}

static int group_sides(struct seg_edges *e, const struct segment_group *sg)
{
    struct segment *seg = e->seg;
    struct group_read g;
    struct codec_reader ids;
    uint64_t *operations, *durations, *status, *starts;
    arena_reset(&seg->scratch);
    int err = segment_group_read(seg, sg, &seg->scratch, &g);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_START], sg->n, &seg->scratch, &starts);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_OPERATION], sg->n, &seg->scratch, &operations);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_DURATION], sg->n, &seg->scratch, &durations);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_STATUS], sg->n, &seg->scratch, &status);
    if (!err)
        err = segment_ids(seg, g.fixed[FIXED_SPAN_ID], sg->n, &seg->scratch, &ids);
    const uint8_t *bytes = err ? NULL : codec_bytes(&ids, (size_t)sg->n * SPAN_ID_SIZE);
    if (!err && !bytes)
        return segment_fail(seg, ERR_CORRUPT, g.fixed[FIXED_SPAN_ID].offset, "the ids of a group");
    uint64_t start = trace_enter(e, sg);
    for (uint32_t i = 0; !err && i < sg->n; i++) {
        uint32_t row = sg->first_row + i;
        start = row_start(e, row, start) + starts[i];
        uint64_t end = start + durations[i];
        if (operations[i] >= seg->n_operations)
            return segment_fail(seg, ERR_CORRUPT, g.fixed[FIXED_OPERATION].offset,
                                "the operations of a group");
        e->operations[row] = (uint32_t)operations[i];
        e->durations[row] = end > start ? end - start : 0;
        e->status[row] = (uint8_t)status[i];
        memcpy(e->ids[row].bytes, bytes + (size_t)i * SPAN_ID_SIZE, SPAN_ID_SIZE);
    }
    return err;
}

static int seg_side(const struct seg_edges *e, uint32_t row, struct store_edge_side *ret)
{
    const struct segment_operation *op = &e->seg->operations[e->operations[row]];
    const struct resource *resource;
    int err = segment_resource(e->seg, op->resource, &resource);
    if (err)
        return err;
    *ret = (struct store_edge_side){
        .service = resource->service_name,
        .duration_ns = e->durations[row],
        .kind = op->kind,
        .status_code = e->status[row],
    };
    return 0;
}

/* Of a row that answers: its parent is at `parent` of its trace (from 1), or foreign and has that id. */
static int seg_row_edge(struct seg_edges *e, uint32_t row, uint64_t start_ns, uint64_t place,
                        const uint8_t *parent)
{
    struct store_edge edge = {.trace_id = e->traces.ids[e->trace], .start_ns = start_ns};
    uint32_t client = parent ? 0 : e->traces.first_rows[e->trace] + (uint32_t)place - 1;
    if (!parent && !asks(e->seg->operations[e->operations[client]].kind))
        return 0;
    int err = seg_side(e, row, &edge.server);
    if (err)
        return err;
    if (parent) {
        memcpy(edge.client_id.bytes, parent, SPAN_ID_SIZE);
        return foreign_add(e->pass, &edge);
    }
    edge.client_id = e->ids[client];
    err = seg_side(e, client, &edge.client);
    return err ? err : e->pass->fn(e->pass->arg, &edge);
}

static int group_edges(struct seg_edges *e, const struct segment_group *sg)
{
    struct segment *seg = e->seg;
    struct group_read g;
    struct codec_reader foreign;
    uint64_t *parents, *starts;
    arena_reset(&seg->scratch);
    int err = segment_group_read(seg, sg, &seg->scratch, &g);
    if (!err)
        err = segment_block(seg, g.fixed[FIXED_FOREIGN_PARENTS], &seg->scratch, &foreign);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_PARENT], sg->n, &seg->scratch, &parents);
    if (!err)
        err = segment_numbers(seg, g.fixed[FIXED_START], sg->n, &seg->scratch, &starts);
    if (err)
        return err;
    uint64_t start = trace_enter(e, sg);
    for (uint32_t i = 0; i < sg->n && !err; i++) {
        uint32_t row = sg->first_row + i;
        start = row_start(e, row, start) + starts[i];
        uint32_t n = e->traces.first_rows[e->trace + 1] - e->traces.first_rows[e->trace];
        const uint8_t *parent = NULL;
        if (parents[i] == SEGMENT_FOREIGN_PARENT)
            parent = codec_bytes(&foreign, SPAN_ID_SIZE);
        if (parents[i] == SEGMENT_FOREIGN_PARENT ? !parent : parents[i] > n)
            return segment_fail(seg, ERR_CORRUPT, g.fixed[FIXED_PARENT].offset, "a parent");
        if (parents[i] && answers(seg->operations[e->operations[row]].kind) &&
            is_in_range(e->pass, start))
            err = seg_row_edge(e, row, start, parents[i], parent);
    }
    return err;
}

static int segment_edges(struct segment *seg, struct edge_pass *p)
{
    struct seg_edges e = {.seg = seg, .pass = p, .held = ARENA_INIT};
    int err = seg_room(&e);
    for (uint32_t i = 0; i < seg->n_groups && !err; i++) {
        err = check_clock(p);
        if (!err)
            err = group_sides(&e, &seg->groups[i]);
    }
    e.trace = 0;
    for (uint32_t i = 0; i < seg->n_groups && !err; i++) {
        const struct segment_group *sg = &seg->groups[i];
        if (sg->start_max < p->start_min_ns || sg->start_min > p->start_max_ns)
            continue;
        err = check_clock(p);
        if (!err)
            err = group_edges(&e, sg);
    }
    arena_done(&e.held);
    return err;
}

/* ---- parents in other parts ---- */

static int by_trace(const void *a, const void *b)
{
    const struct store_edge *x = a, *y = b;
    return trace_id_cmp(&x->trace_id, &y->trace_id);
}

static int foreign_trace(struct store_view *view, struct edge_pass *p, struct store_edge *edges,
                         size_t n)
{
    struct store_outline *spans;
    size_t n_spans;
    int err = store_trace_outline(view, &edges->trace_id, &spans, &n_spans);
    if (err)
        return err == ERR_NOT_FOUND || err == ERR_CORRUPT ? 0 : err;
    for (size_t i = 0; i < n && !err; i++)
        for (size_t k = 0; k < n_spans && !err; k++) {
            const struct store_outline *s = &spans[k];
            if (memcmp(s->span_id.bytes, edges[i].client_id.bytes, SPAN_ID_SIZE))
                continue;
            edges[i].client = (struct store_edge_side){
                .service = s->service,
                .duration_ns = s->end_ns > s->start_ns ? s->end_ns - s->start_ns : 0,
                .kind = s->kind,
                .status_code = s->status_code,
            };
            if (asks(s->kind))
                err = p->fn(p->arg, &edges[i]);
            break;
        }
    free(spans);
    return err;
}

static int foreign_edges(struct store_view *view, struct edge_pass *p)
{
    int err = 0;
    if (p->n_foreign)
        qsort(p->foreign, p->n_foreign, sizeof *p->foreign, by_trace);
    for (size_t i = 0, n; i < p->n_foreign && !err; i += n) {
        for (n = 1; i + n < p->n_foreign && !by_trace(&p->foreign[i], &p->foreign[i + n]);)
            n++;
        err = check_clock(p);
        if (!err)
            err = foreign_trace(view, p, &p->foreign[i], n);
    }
    return err;
}

int store_edges(struct store_view *view, uint64_t start_min_ns, uint64_t start_max_ns,
                uint64_t timeout_ns, store_edge_fn *fn, void *arg, bool *ret_is_cut)
{
    struct edge_pass p = {
        .start_min_ns = start_min_ns,
        .start_max_ns = start_max_ns ? start_max_ns : UINT64_MAX,
        .until_ns = timeout_ns ? clock_monotonic_ns() + timeout_ns : 0,
        .fn = fn,
        .arg = arg,
    };
    int err = 0;
    for (int i = 0; i < 2 && !err; i++)
        if (view->memtables[i])
            err = memtable_edges(view->memtables[i], view->rows[i], &p);
    for (uint32_t i = 0; i < view->segments->n && !err; i++) {
        const struct segment_info *info = &view->segments->items[i]->info;
        struct segment *seg;
        if (range_misses(p.start_min_ns, p.start_max_ns, info->start_min_ns, info->start_max_ns))
            continue;
        err = view_reader(view, i, &seg);
        if (!err)
            err = segment_edges(seg, &p);
        err = view_pass_damage(view, i, err);
    }
    if (!err)
        err = foreign_edges(view, &p);
    free(p.foreign);
    if (!err && ret_is_cut)
        *ret_is_cut = p.is_cut;
    return err;
}
