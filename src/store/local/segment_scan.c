/* Scans of a segment: the rows that fulfil a predicate, group by group, newest first. The predicate's columns
 * are decoded first, and the others only for groups with a match. */
#include "store/local/segment_scan.h"

#include <stdlib.h>

/* ---- attributes that rows bring along ---- */

static int wanted_columns(struct scanner *sc, const struct scan_attr *attr, struct wanted *w)
{
    struct segment *seg = sc->seg;
    uint32_t key;
    int err = segment_columns(seg);
    if (!err)
        err = segment_string_find(seg, attr->key, &key);
    if (err)
        return err;
    w->column_index = arena_zalloc(&sc->arena, (size_t)seg->n_columns + 1);
    if (!w->column_index)
        return ERR_NOMEM;
    for (uint32_t i = 0; key < seg->n_strings && i < seg->n_columns; i++) {
        if (seg->columns[i].key != key)
            continue;
        if (w->n_columns == COLUMNS_MAX)
            return segment_fail(seg, ERR_CORRUPT, seg->columns_ref.offset, "the list of columns");
        w->columns[w->n_columns++] = i;
        w->column_index[i] = (uint8_t)w->n_columns;
    }
    return 0;
}

static int wanted_resources(struct scanner *sc, const struct scan_attr *attr, struct wanted *w)
{
    struct segment *seg = sc->seg;
    int err = segment_operations_read(seg);
    if (!err)
        w->of_operation = arena_zalloc(&sc->arena,
                                       (seg->n_operations + 1) * sizeof *w->of_operation);
    if (!err && !w->of_operation)
        err = ERR_NOMEM;
    for (uint32_t i = 0; !err && i < seg->n_operations; i++) {
        const struct resource *resource;
        struct resource_derived derived;
        err = segment_resource(seg, seg->operations[i].resource, &resource);
        const struct attr *a = err ? NULL : resource_attr_find(resource, attr->key, &derived);
        if (!a)
            continue;
        w->of_operation[i] = a->value;
        if (a == &derived.attr &&
            !(w->of_operation[i].string = arena_str(&sc->arena, a->value.string)).ptr)
            err = ERR_NOMEM;
        if (a->value.type == VALUE_ARRAY || a->value.type == VALUE_MAP)
            w->of_operation[i] = (struct value){.type = a->value.type};
    }
    return err;
}

static int wanted_init(struct scanner *sc, const struct scan *scan)
{
    int err = 0;
    if (!scan->n_attrs)
        return 0;
    sc->wanted = arena_zalloc(&sc->arena, scan->n_attrs * sizeof *sc->wanted);
    if (!sc->wanted)
        return ERR_NOMEM;
    for (size_t i = 0; !err && i < scan->n_attrs; i++) {
        if (scan->attrs[i].field != FIELD_RESOURCE_ATTR)
            err = wanted_columns(sc, &scan->attrs[i], &sc->wanted[i]);
        if (!err && scan->attrs[i].field != FIELD_SPAN_ATTR)
            err = wanted_resources(sc, &scan->attrs[i], &sc->wanted[i]);
    }
    return err;
}

/* Which value each row of the group has, where columns say which rows have them: the first column of a row
 * comes last. */
static int wanted_by_column(struct scanner *sc, struct wanted *w)
{
    for (uint32_t index = w->n_columns; index-- > 0;) {
        uint32_t *rows, place = sc->kept->place_of[w->columns[index]];
        if (!place)
            continue;
        int err = group_rows(sc->seg, sc->kept, place - 1, &rows);
        if (err)
            return err;
        for (uint32_t i = 0; i < sc->kept->g.columns[place - 1].n; i++) {
            w->index[rows[i]] = (uint8_t)(index + 1);
            w->place[rows[i]] = i;
        }
    }
    return 0;
}

/* Which value each row of the group has. */
static int wanted_group(struct scanner *sc, struct wanted *w)
{
    struct segment *seg = sc->seg;
    uint32_t n = sc->kept->g.group->n;
    uint64_t counts[COLUMNS_MAX] = {0}, at[COLUMNS_MAX] = {0};
    bool any = false;
    int err = 0;
    w->index = NULL;
    for (uint32_t k = 0; !err && k < sc->kept->g.n_columns; k++) {
        unsigned index = w->column_index ? w->column_index[sc->kept->g.columns[k].column] : 0;
        if (!index)
            continue;
        any = true;
        counts[index - 1] = sc->kept->g.columns[k].n;
        err = group_values(seg, sc->kept, k);
        w->numbers[index - 1] = sc->kept->values[k].numbers;
        w->texts[index - 1] = sc->kept->values[k].texts;
    }
    if (err || !any)
        return err;
    w->index = arena_zalloc(&sc->scratch, n);
    w->place = arena_array(&sc->scratch, n, sizeof *w->place);
    if (!w->index || !w->place)
        return ERR_NOMEM;
    if (sc->kept->g.by_column)
        return wanted_by_column(sc, w);
    err = group_shapes(seg, sc->kept);
    const struct group_shapes *sh = &sc->kept->shapes;
    for (uint32_t i = 0; !err && i < n; i++) {
        const uint32_t *columns = sh->columns + sh->first[sh->of_row[i]];
        for (uint64_t k = 0; k < sh->lengths[sh->of_row[i]]; k++) {
            unsigned index = w->column_index[columns[k]];
            if (!index)
                continue;
            if (at[index - 1] >= counts[index - 1])
                return segment_fail(seg, ERR_CORRUPT, sc->kept->g.fixed[FIXED_SHAPES].offset,
                                    "the shapes of a group");
            if (!w->index[i]) { /* the first counts */
                w->index[i] = (uint8_t)index;
                w->place[i] = (uint32_t)at[index - 1];
            }
            at[index - 1]++;
        }
    }
    return err;
}

static int wanted_row(struct scanner *sc, const struct scan *scan, uint32_t i)
{
    for (size_t k = 0; k < scan->n_attrs; k++) {
        const struct wanted *w = &sc->wanted[k];
        struct value *v = &sc->values[k];
        if (w->index && w->index[i]) {
            unsigned index = w->index[i] - 1;
            const struct segment_column *c = &sc->seg->columns[w->columns[index]];
            *v = (struct value){.type = c->type};
            if (c->type == VALUE_ARRAY || c->type == VALUE_MAP)
                continue;
            int err = segment_value(sc->seg, c, w->numbers[index], w->texts[index], w->place[i],
                                    &sc->scratch, v);
            if (err)
                return err;
        } else if (w->of_operation) {
            *v = w->of_operation[sc->operation[i]];
        } else {
            *v = (struct value){.type = VALUE_NONE};
        }
    }
    return 0;
}

/* ---- rows ---- */

static bool out_of_range(const struct scan *scan, uint64_t start)
{
    return start < scan->start_min_ns || (scan->start_max_ns && start > scan->start_max_ns);
}

static int row_give(struct scanner *sc, uint32_t i, const uint8_t *ids, struct scan *scan,
                    scan_fn *fn, void *arg)
{
    struct segment *seg = sc->seg;
    const struct segment_operation *op = &seg->operations[sc->operation[i]];
    const struct resource *resource;
    uint64_t end = sc->start[i] + sc->duration[i];
    struct scan_row row = {
        .trace_id = sc->trace_ids[sc->trace_of[i]],
        .start_ns = sc->start[i],
        .duration_ns = end > sc->start[i] ? end - sc->start[i] : 0,
        .trace_start_ns = sc->trace_starts[sc->trace_of[i]],
        .count = 1,
        .kind = op->kind,
        .status_code = (uint8_t)sc->status[i],
        .attrs = sc->values,
    };
    memcpy(row.span_id.bytes, ids + (size_t)i * SPAN_ID_SIZE, SPAN_ID_SIZE);
    int err = segment_string(seg, op->name, &row.name);
    if (!err)
        err = segment_resource(seg, op->resource, &resource);
    if (err)
        return err;
    row.service = resource->service_name;
    err = wanted_row(sc, scan, i);
    if (err)
        return err;
    sc->answer = fn(arg, scan, &row);
    return sc->answer;
}

static int group_scan(struct scanner *sc, const struct filter *f, struct scan *scan, scan_fn *fn,
                      void *arg, struct scan_cost *cost)
{
    struct segment *seg = sc->seg;
    uint32_t n = sc->kept->g.group->n;
    bool nothing;
    cost->rows_read += n;
    int err = scanner_group_excludes(sc, f, &nothing);
    if (err || nothing)
        return err;
    uint8_t *rows = arena_alloc(&sc->scratch, n);
    err = rows ? scanner_eval(sc, f, rows) : ERR_NOMEM;
    if (err || !rows_any(rows, n))
        return err;
    err = scanner_starts(sc);
    if (!err)
        err = scanner_operation(sc);
    if (!err)
        err = scanner_fixed(sc, FIXED_STATUS, &sc->status);
    if (!err)
        err = scanner_fixed(sc, FIXED_DURATION, &sc->duration);
    if (!err)
        err = group_ids(seg, sc->kept);
    for (size_t k = 0; !err && k < scan->n_attrs; k++)
        err = wanted_group(sc, &sc->wanted[k]);
    for (uint32_t i = n; !err && i-- > 0;) {
        if (!rows[i] || out_of_range(scan, sc->start[i]))
            continue;
        cost->rows_matched++;
        err = row_give(sc, i, sc->kept->ids, scan, fn, arg);
    }
    return err;
}

/* ---- rows that are counted ---- */

/* Spans of a segment by operation and step. */
struct counts {
    uint32_t *items;   /* by operation, then by step */
    uint64_t first, n; /* steps */
};

/* So much memory is taken for it; a segment that needs more is told row by row. */
enum { COUNTS_MAX = 2 << 20 };

static int counts_init(struct scanner *sc, const struct scan *scan, struct counts *ret)
{
    const struct segment *seg = sc->seg;
    uint64_t from = seg->start_min > scan->start_min_ns ? seg->start_min : scan->start_min_ns;
    uint64_t to = scan->start_max_ns && seg->start_max > scan->start_max_ns ? scan->start_max_ns
                                                                            : seg->start_max;
    *ret = (struct counts){.items = NULL};
    if (!scan->step_ns || to < from)
        return 0;
    int err = segment_operations_read(sc->seg);
    if (err)
        return err;
    ret->first = (from - scan->start_min_ns) / scan->step_ns;
    ret->n = (to - scan->start_min_ns) / scan->step_ns - ret->first + 1;
    if (ret->n > COUNTS_MAX || ret->n * seg->n_operations > COUNTS_MAX)
        return 0;
    ret->items = arena_zalloc(&sc->arena, ret->n * seg->n_operations * sizeof *ret->items);
    return ret->items ? 0 : ERR_NOMEM;
}

/* All rows of a group that starts and ends in the same step. */
static void count_whole(const struct scanner *sc, const struct counts *c, uint64_t step)
{
    uint32_t n = sc->kept->g.group->n, *items = c->items + (step - c->first);
    for (uint32_t i = 0; i < n; i++)
        items[sc->operation[i] * c->n]++;
}

static uint64_t count_some(const struct scanner *sc, const struct scan *scan, const uint8_t *rows,
                           const struct counts *c)
{
    uint32_t n = sc->kept->g.group->n;
    uint64_t from = 1, to = 0, step = 0, counted = 0; /* of the step that was met last */
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = sc->start[i];
        if ((rows && !rows[i]) || out_of_range(scan, start))
            continue;
        if (start < from || start > to) {
            step = (start - scan->start_min_ns) / scan->step_ns;
            from = scan->start_min_ns + step * scan->step_ns;
            to = from + scan->step_ns - 1;
        }
        c->items[sc->operation[i] * c->n + step - c->first]++;
        counted++;
    }
    return counted;
}

static int group_count(struct scanner *sc, const struct filter *f, const struct scan *scan,
                       const struct counts *c, struct scan_cost *cost)
{
    const struct segment_group *g = sc->kept->g.group;
    uint8_t *rows = NULL;
    bool nothing;
    cost->rows_read += g->n;
    int err = scanner_group_excludes(sc, f, &nothing);
    if (err || nothing)
        return err;
    if (f->op != PREDICATE_TRUE) {
        rows = arena_alloc(&sc->scratch, g->n);
        err = rows ? scanner_eval(sc, f, rows) : ERR_NOMEM;
        if (err || !rows_any(rows, g->n))
            return err;
    }
    err = scanner_operation(sc);
    if (err)
        return err;
    bool inside = g->start_min >= scan->start_min_ns &&
                  (!scan->start_max_ns || g->start_max <= scan->start_max_ns);
    uint64_t step = inside ? (g->start_min - scan->start_min_ns) / scan->step_ns : 0;
    if (!rows && inside && step == (g->start_max - scan->start_min_ns) / scan->step_ns) {
        count_whole(sc, c, step);
        cost->rows_matched += g->n;
        return 0;
    }
    err = scanner_starts(sc);
    if (!err)
        cost->rows_matched += count_some(sc, scan, rows, c);
    return err;
}

static int counts_give(struct scanner *sc, const struct counts *c, struct scan *scan, scan_fn *fn,
                       void *arg)
{
    struct segment *seg = sc->seg;
    uint64_t start_min = scan->start_min_ns;
    int err = 0;
    for (uint32_t k = 0; !err && k < seg->n_operations; k++) {
        const struct segment_operation *op = &seg->operations[k];
        const struct resource *resource;
        struct scan_row row = {.kind = op->kind, .attrs = sc->values};
        err = segment_string(seg, op->name, &row.name);
        if (!err)
            err = segment_resource(seg, op->resource, &resource);
        if (err)
            return err;
        row.service = resource->service_name;
        for (size_t i = 0; i < scan->n_attrs; i++)
            sc->values[i] = sc->wanted[i].of_operation[k];
        for (uint64_t step = 0; !err && step < c->n; step++) {
            row.count = c->items[k * c->n + step];
            row.start_ns = start_min + (c->first + step) * scan->step_ns;
            if (row.count)
                err = sc->answer = fn(arg, scan, &row);
        }
    }
    return err;
}

/* ---- the whole ---- */

int segment_scan(struct segment *seg, const struct filter *filter, unsigned leaves,
                 struct scan *scan, scan_fn *fn, void *arg, struct scan_cost *cost,
                 bool *ret_damaged)
{
    struct scanner sc;
    uint64_t read_before = seg->bytes_read;
    bool nothing = false;
    int err = scanner_init(&sc, seg, leaves);
    if (err)
        return err;
    cost->parts++;
    cost->groups += seg->n_groups;
    err = scanner_segment_excludes(&sc, filter, &nothing);
    if (!err && !nothing)
        err = wanted_init(&sc, scan);
    struct counts counts = {.items = NULL};
    if (!err && !nothing)
        err = counts_init(&sc, scan, &counts);
    if (!err && nothing) {
        cost->parts_pruned++;
        cost->groups_pruned += seg->n_groups;
    }
    for (uint32_t i = seg->n_groups; !err && !nothing && i-- > 0;) {
        const struct segment_group *g = &seg->groups[i];
        if (group_misses(g, scan->start_min_ns, scan->start_max_ns)) {
            cost->groups_pruned++;
            continue;
        }
        err = scanner_enter(&sc, g);
        if (!err && counts.items)
            err = group_count(&sc, filter, scan, &counts, cost);
        else if (!err)
            err = group_scan(&sc, filter, scan, fn, arg, cost);
        if (err == ERR_CORRUPT && !sc.answer) {
            *ret_damaged = true;
            err = 0; /* the other groups can be read */
        }
    }
    if (!err && counts.items)
        err = counts_give(&sc, &counts, scan, fn, arg);
    if (err == ERR_CORRUPT && !sc.answer) {
        *ret_damaged = true;
        err = 0;
    }
    cost->bytes_read += seg->bytes_read - read_before;
    scanner_done(&sc);
    return err;
}
