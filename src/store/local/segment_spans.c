/* Whole spans of segments: those of one trace, and all of them. */
#include "store/local/segment_read.h"

#include <stdlib.h>
#include <string.h>

/* ---- whole spans ---- */

struct spans_arg {
    struct span_list *spans;
    const struct trace_id *id;
    const struct trace_rows *rows;
    const struct resource **resources; /* copies in the caller's arena; NULL: not yet */
    const struct scope **scopes;
};

static int coded_text(struct segment *seg, uint64_t code, struct arena *arena, struct str *ret)
{
    struct str s;
    if (code == 0)
        return 0;
    int err = segment_string(seg, code - 1, &s);
    if (!err && !text_copy(arena, s, ret))
        err = ERR_NOMEM;
    return err;
}

static int span_origin(struct segment *seg, struct spans_arg *arg, uint64_t operation,
                       struct span *s)
{
    const struct segment_operation *op = &seg->operations[operation];
    struct arena *arena = arg->spans->arena;
    struct str text;
    int err = segment_string(seg, op->name, &text);
    if (err)
        return err;
    if (!arg->resources[op->resource]) {
        struct resource *resource = arena_alloc(arena, sizeof *resource);
        struct str bytes = arena_str(arena, seg->resource_bytes[op->resource]);
        if (!resource || !bytes.ptr)
            return ERR_NOMEM;
        struct codec_reader r = codec_reader(bytes, arena);
        codec_resource(&r, resource);
        err = codec_finish(&r);
        if (err)
            return segment_fail(seg, err, seg->resources_ref.offset, "a resource");
        arg->resources[op->resource] = resource;
    }
    if (!arg->scopes[op->scope]) {
        struct scope *scope = arena_alloc(arena, sizeof *scope);
        struct str bytes = arena_str(arena, seg->scope_bytes[op->scope]);
        if (!scope || !bytes.ptr)
            return ERR_NOMEM;
        struct codec_reader r = codec_reader(bytes, arena);
        codec_scope(&r, scope);
        err = codec_finish(&r);
        if (err)
            return segment_fail(seg, err, seg->scopes_ref.offset, "a scope");
        arg->scopes[op->scope] = scope;
    }
    s->resource = arg->resources[op->resource];
    s->scope = arg->scopes[op->scope];
    s->kind = op->kind;
    return text_copy(arena, text, &s->name) ? 0 : ERR_NOMEM;
}

/* The next value of each attribute column, and the keys, copied into the caller's arena. */
struct values_walk {
    uint32_t *at;     /* by place in the group's columns */
    struct str *keys; /* the same; ptr is NULL: not yet */
    bool is_long;     /* so many values are needed that all are unpacked */
};

static int values_walk_init(struct segment *seg, struct group_kept *k, uint32_t row,
                            struct values_walk *walk)
{
    size_t n = k->g.n_columns;
    walk->at = arena_array(&seg->scratch, n, sizeof *walk->at);
    walk->keys = arena_zalloc(&seg->scratch, n * sizeof *walk->keys);
    if (!walk->at || !walk->keys)
        return ERR_NOMEM;
    return group_rank(seg, k, row, walk->at);
}

static int attr_next(struct segment *seg, struct group_kept *k, struct values_walk *walk,
                     uint64_t column, struct arena *arena, struct attr *ret)
{
    struct segment_column *c = &seg->columns[column];
    uint32_t place = k->place_of[column];
    if (!place || walk->at[place - 1] >= k->g.columns[place - 1].n)
        return segment_fail(seg, ERR_CORRUPT, k->g.fixed[FIXED_SHAPES].offset,
                            "the shapes of a group");
    place--;
    bool alone = !walk->is_long && (c->how == HOW_DICTIONARY || c->how == HOW_NUMBERS);
    int err = alone ? 0 : group_values(seg, k, place);
    if (!err && alone && c->how == HOW_DICTIONARY)
        err = segment_dictionary(seg, c);
    if (!err && !walk->keys[place].ptr) {
        struct str key;
        err = segment_string(seg, c->key, &key);
        if (!err && !text_copy(arena, key, &walk->keys[place]))
            err = ERR_NOMEM;
    }
    if (err)
        return err;
    const struct group_values *values = &k->values[place];
    uint64_t i = walk->at[place]++;
    ret->key = walk->keys[place];
    if (c->type == VALUE_ARRAY || c->type == VALUE_MAP) {
        /* Decoded from a copy, so that its strings live in the arena. */
        struct str bytes;
        if (!text_copy(arena, values->texts[i], &bytes))
            return ERR_NOMEM;
        return segment_value(seg, c, NULL, &bytes, 0, arena, &ret->value);
    }
    uint64_t number;
    if (alone)
        err = group_number(seg, k, place, i, &number);
    if (!err)
        err = segment_value(seg, c, alone ? &number : values->numbers, values->texts, alone ? 0 : i,
                            arena, &ret->value);
    if (!err && (c->type == VALUE_STRING || c->type == VALUE_BYTES) &&
        !text_copy(arena, ret->value.string, &ret->value.string))
        err = ERR_NOMEM;
    return err;
}

static int span_blobs(struct segment *seg, const struct group_kept *k, uint32_t i,
                      struct arena *arena, struct span *s)
{
    const struct group_rest *rest = &k->rest;
    const struct group_read *g = &k->g;
    struct str bytes;
    int err = 0;
    if (rest->events[i].len) {
        if (!text_copy(arena, rest->events[i], &bytes))
            return ERR_NOMEM;
        struct codec_reader r = codec_reader(bytes, arena);
        codec_events(&r, s->start_ns, &s->events, &s->n_events);
        err = codec_finish(&r);
        if (err)
            return segment_fail(seg, err, g->fixed[FIXED_EVENTS].offset, "the events of a group");
    }
    if (rest->links[i].len) {
        if (!text_copy(arena, rest->links[i], &bytes))
            return ERR_NOMEM;
        struct codec_reader r = codec_reader(bytes, arena);
        codec_links(&r, &s->links, &s->n_links);
        err = codec_finish(&r);
        if (err)
            return segment_fail(seg, err, g->fixed[FIXED_LINKS].offset, "the links of a group");
    }
    return 0;
}

static int spans_of_group(void *arg, struct segment *seg, struct group_kept *kept, uint32_t first,
                          uint32_t n, uint32_t to)
{
    struct spans_arg *a = arg;
    struct arena *arena = a->spans->arena;
    struct values_walk walk = {.is_long = n > kept->g.group->n / 16};
    struct stream_view flags, states, messages;
    int err = group_rest(seg, kept);
    if (!err)
        err = group_some(seg, kept, FIXED_FLAGS, n, &flags);
    if (!err)
        err = group_some(seg, kept, FIXED_TRACE_STATE, n, &states);
    if (!err)
        err = group_some(seg, kept, FIXED_STATUS_MESSAGE, n, &messages);
    if (!err)
        err = values_walk_init(seg, kept, first, &walk);
    struct group_shapes sh = {0};
    if (!err)
        err = group_shapes_between(seg, kept, first, n, &sh);
    const struct group_rest *rest = &kept->rest;
    for (uint32_t i = first; !err && i < first + n; i++) {
        uint32_t k = to + i - first;
        struct span *s = span_list_add(a->spans);
        uint64_t shape = sh.of_row[i - first], n_attrs = sh.lengths[shape];
        struct attr *attrs = s ? arena_array(arena, n_attrs, sizeof *attrs) : NULL;
        if (!attrs)
            return ERR_NOMEM;
        s->trace_id = *a->id;
        memcpy(s->span_id.bytes, a->rows->ids[k], SPAN_ID_SIZE);
        s->parent_id = a->rows->parents[k];
        s->start_ns = a->rows->start[k];
        s->end_ns = a->rows->end[k];
        s->status_code = (uint8_t)a->rows->status[k];
        s->flags = (uint32_t)stream_view_at(&flags, i);
        s->dropped_events = (uint32_t)rest->dropped_events[i];
        s->dropped_links = (uint32_t)rest->dropped_links[i];
        s->attrs = (struct attrs){attrs, (uint32_t)n_attrs, (uint32_t)rest->dropped_attrs[i]};
        err = span_origin(seg, a, a->rows->operation[k], s);
        if (!err)
            err = coded_text(seg, stream_view_at(&states, i), arena, &s->trace_state);
        if (!err)
            err = coded_text(seg, stream_view_at(&messages, i), arena, &s->status_message);
        if (!err)
            err = span_blobs(seg, kept, i, arena, s);
        for (uint64_t j = 0; !err && j < n_attrs; j++)
            err = attr_next(seg, kept, &walk, sh.columns[sh.first[shape] + j], arena, &attrs[j]);
    }
    return err;
}

static int spans_of_trace(struct segment *seg, const struct trace_found *found,
                          const struct trace_id *id, struct span_list *spans)
{
    struct trace_rows rows;
    int err = segment_trace_rows(seg, found, &rows);
    if (err)
        return err;
    struct spans_arg arg = {
        .spans = spans,
        .id = id,
        .rows = &rows,
        .resources = arena_zalloc(&seg->scratch, seg->n_resources * sizeof *arg.resources),
        .scopes = arena_zalloc(&seg->scratch, seg->n_scopes * sizeof *arg.scopes),
    };
    if (!arg.resources || !arg.scopes)
        return ERR_NOMEM;
    return segment_trace_groups(seg, found->first_row, rows.n, spans_of_group, &arg);
}

int segment_trace(struct segment *seg, const struct trace_id *id, struct span_list *spans)
{
    struct trace_found found;
    arena_reset(&seg->scratch);
    int err = segment_trace_find(seg, id, &found);
    if (err || !found.found)
        return err;
    return spans_of_trace(seg, &found, id, spans);
}

/* ---- part of a trace ---- */

/* A trace lies in start order, in groups that know the times in them: only those are decoded that have
 * something of what is wanted. The parent of a span may stand in any other group, of which the ids are read
 * then. */
struct part {
    struct spans_arg spans;
    uint64_t start_min_ns, start_max_ns, trace_start_ns;
    uint32_t first_row;
    uint64_t n_rows;
    struct arena held;   /* what outlives a group */
    const uint8_t **ids; /* of a group's rows; NULL: not read yet */
};

static int part_id(struct segment *seg, struct part *p, uint64_t place, struct span_id *ret)
{
    if (place > p->n_rows)
        return segment_fail(seg, ERR_CORRUPT, seg->groups[0].offset, "a parent");
    uint32_t row = p->first_row + (uint32_t)place - 1, at = segment_group_of(seg, row);
    const struct segment_group *sg = &seg->groups[at];
    if (!p->ids[at]) {
        struct group_read g;
        struct codec_reader r;
        int err = segment_group_read(seg, sg, &seg->scratch, &g);
        if (!err)
            err = segment_ids(seg, g.fixed[FIXED_SPAN_ID], sg->n, &p->held, &r);
        if (err)
            return err;
        p->ids[at] = codec_bytes(&r, (size_t)sg->n * SPAN_ID_SIZE);
        if (!p->ids[at])
            return segment_fail(seg, ERR_CORRUPT, g.fixed[FIXED_SPAN_ID].offset,
                                "the ids of a group");
    }
    memcpy(ret->bytes, p->ids[at] + (size_t)(row - sg->first_row) * SPAN_ID_SIZE, SPAN_ID_SIZE);
    return 0;
}

static int part_group(struct segment *seg, struct part *p, const struct segment_group *sg)
{
    struct arena *a = &seg->scratch;
    struct group_kept *k;
    uint64_t end_row = p->first_row + p->n_rows;
    uint32_t first = p->first_row > sg->first_row ? p->first_row - sg->first_row : 0;
    uint32_t end = end_row - sg->first_row < sg->n ? (uint32_t)(end_row - sg->first_row) : sg->n;
    uint32_t n = end - first;
    arena_reset(a);
    struct trace_rows rows = {
        .n = n,
        .ids = arena_array(a, n, sizeof *rows.ids),
        .parents = arena_zalloc(a, n * sizeof *rows.parents),
        .start = arena_array(a, n, sizeof *rows.start),
        .end = arena_array(a, n, sizeof *rows.end),
        .operation = arena_array(a, n, sizeof *rows.operation),
        .status = arena_array(a, n, sizeof *rows.status),
    };
    uint64_t *places = arena_array(a, n, sizeof *places);
    if (!places || !rows.ids || !rows.parents || !rows.start || !rows.end || !rows.operation ||
        !rows.status)
        return ERR_NOMEM;
    int err = segment_group_keep(seg, sg, &k);
    if (!err)
        err = segment_group_rows(seg, k, first, n, p->trace_start_ns, 0, places, &rows);
    if (err)
        return err;
    uint32_t from = 0, to;
    while (from < n && rows.start[from] < p->start_min_ns)
        from++;
    for (to = from; to < n && rows.start[to] <= p->start_max_ns; to++) {
        if (!places[to] || places[to] == SEGMENT_FOREIGN_PARENT)
            continue;
        err = part_id(seg, p, places[to], &rows.parents[to]);
        if (err)
            return err;
    }
    p->spans.rows = &rows;
    return from < to ? spans_of_group(&p->spans, seg, k, first + from, to - from, from) : 0;
}

int segment_trace_between(struct segment *seg, const struct trace_id *id, uint64_t start_min_ns,
                          uint64_t start_max_ns, struct span_list *spans, bool *ret_has)
{
    struct trace_found found;
    arena_reset(&seg->scratch);
    int err = segment_trace_find(seg, id, &found);
    if (err || !found.found)
        return err;
    struct part p = {
        .spans = {.spans = spans, .id = id},
        .start_min_ns = start_min_ns,
        .start_max_ns = start_max_ns,
        .trace_start_ns = found.traces->start[found.place],
        .first_row = found.first_row,
        .n_rows = found.traces->n[found.place],
    };
    *ret_has = true;
    err = segment_operations_read(seg);
    if (!err) {
        p.spans.resources = arena_zalloc(&p.held, seg->n_resources * sizeof *p.spans.resources);
        p.spans.scopes = arena_zalloc(&p.held, seg->n_scopes * sizeof *p.spans.scopes);
        p.ids = arena_zalloc(&p.held, seg->n_groups * sizeof *p.ids);
        if (!p.spans.resources || !p.spans.scopes || !p.ids)
            err = ERR_NOMEM;
    }
    for (uint32_t i = segment_group_of(seg, p.first_row);
         !err && i < seg->n_groups && seg->groups[i].first_row < p.first_row + p.n_rows; i++) {
        const struct segment_group *sg = &seg->groups[i];
        if (sg->start_max >= start_min_ns && sg->start_min <= start_max_ns)
            err = part_group(seg, &p, sg);
    }
    arena_done(&p.held);
    return err;
}

/* ---- all spans ---- */

/* What the walk keeps of the whole segment: 24 bytes a trace, 8 bytes a span. */
struct walk {
    struct arena held;
    struct segment_traces_all traces;
    uint8_t *span_ids; /* by row: parents may stand in another group */
};

static int walk_span_ids(struct segment *seg, struct walk *w)
{
    w->span_ids = arena_array(&w->held, seg->n_rows, SPAN_ID_SIZE);
    if (!w->span_ids)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < seg->n_groups; i++) {
        const struct segment_group *sg = &seg->groups[i];
        struct group_read g;
        struct codec_reader r;
        size_t n = (size_t)sg->n * SPAN_ID_SIZE;
        arena_reset(&seg->scratch);
        int err = segment_group_read(seg, sg, &seg->scratch, &g);
        if (!err)
            err = segment_ids(seg, g.fixed[FIXED_SPAN_ID], sg->n, &seg->scratch, &r);
        if (err)
            return err;
        if ((size_t)(r.end - r.at) != n)
            return segment_fail(seg, ERR_CORRUPT, g.fixed[FIXED_SPAN_ID].offset,
                                "the ids of a group");
        memcpy(w->span_ids + (size_t)sg->first_row * SPAN_ID_SIZE, r.at, n);
    }
    return 0;
}

/* The ordinal of the trace that has the row. */
static uint32_t walk_trace_of(const struct segment *seg, const struct walk *w, uint32_t row)
{
    uint32_t low = 0, high = (uint32_t)seg->n_traces;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (w->traces.first_rows[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int walk_group_rows(struct segment *seg, const struct walk *w, struct group_kept *k,
                           struct trace_rows *rows)
{
    struct arena *a = &seg->scratch;
    uint32_t n = k->g.group->n, first_row = k->g.group->first_row;
    uint64_t *parents, *starts, *durations;
    int err = group_ids(seg, k);
    if (!err)
        err = group_fixed(seg, k, FIXED_PARENT, &parents);
    if (!err)
        err = group_fixed(seg, k, FIXED_START, &starts);
    if (!err)
        err = group_fixed(seg, k, FIXED_DURATION, &durations);
    if (!err)
        err = group_fixed(seg, k, FIXED_OPERATION, &rows->operation);
    if (!err)
        err = group_fixed(seg, k, FIXED_STATUS, &rows->status);
    if (err)
        return err;
    const uint8_t *foreign = k->foreign;
    rows->n = n;
    rows->ids = arena_array(a, n, sizeof *rows->ids);
    rows->parents = arena_zalloc(a, n * sizeof *rows->parents);
    rows->start = arena_array(a, n, sizeof *rows->start);
    rows->end = arena_array(a, n, sizeof *rows->end);
    if (!rows->ids || !rows->parents || !rows->start || !rows->end)
        return ERR_NOMEM;
    uint32_t trace = walk_trace_of(seg, w, first_row);
    uint64_t start = w->traces.starts[trace];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row = first_row + i;
        if (row == w->traces.first_rows[trace + 1])
            start = w->traces.starts[++trace];
        start += starts[i];
        rows->start[i] = start;
        rows->end[i] = start + durations[i];
        rows->ids[i] = w->span_ids + (size_t)row * SPAN_ID_SIZE;
        uint64_t place = parents[i];
        uint32_t spans = w->traces.first_rows[trace + 1] - w->traces.first_rows[trace];
        const uint8_t *parent = NULL;
        if (place == SEGMENT_FOREIGN_PARENT) {
            parent = foreign;
            foreign += SPAN_ID_SIZE;
        } else if (place && place <= spans) {
            parent = w->span_ids + (w->traces.first_rows[trace] + place - 1) * SPAN_ID_SIZE;
        }
        if (place && !parent)
            return segment_fail(seg, ERR_CORRUPT, k->g.fixed[FIXED_PARENT].offset, "a parent");
        if (parent)
            memcpy(rows->parents[i].bytes, parent, SPAN_ID_SIZE);
    }
    return 0;
}

static int walk_group(struct segment *seg, const struct walk *w, const struct segment_group *sg,
                      struct span_list *spans)
{
    struct group_kept *k;
    struct trace_rows rows;
    static const struct trace_id none;
    arena_reset(&seg->scratch);
    int err = segment_operations_read(seg);
    if (!err)
        err = segment_group_keep(seg, sg, &k);
    if (!err)
        err = walk_group_rows(seg, w, k, &rows);
    if (err)
        return err;
    struct spans_arg arg = {
        .spans = spans,
        .id = &none,
        .rows = &rows,
        .resources = arena_zalloc(&seg->scratch, seg->n_resources * sizeof *arg.resources),
        .scopes = arena_zalloc(&seg->scratch, seg->n_scopes * sizeof *arg.scopes),
    };
    if (!arg.resources || !arg.scopes)
        return ERR_NOMEM;
    err = spans_of_group(&arg, seg, k, 0, sg->n, 0);
    uint32_t trace = walk_trace_of(seg, w, sg->first_row);
    for (uint32_t i = 0; !err && i < sg->n; i++) {
        trace += sg->first_row + i == w->traces.first_rows[trace + 1];
        spans->spans[i].trace_id = w->traces.ids[trace];
    }
    return err;
}

int segment_spans(struct segment *seg, segment_spans_fn *fn, void *arg)
{
    struct walk w = {.held = ARENA_INIT};
    struct arena arena = ARENA_INIT;
    int err = segment_traces_all(seg, &w.held, &w.traces);
    if (!err)
        err = walk_span_ids(seg, &w);
    for (uint32_t i = 0; i < seg->n_groups && !err; i++) {
        struct span_list spans = {.arena = &arena};
        err = walk_group(seg, &w, &seg->groups[i], &spans);
        const struct span_batch batch = {.spans = spans.spans, .n = spans.n};
        if (!err)
            err = fn(arg, &batch);
        arena_reset(&arena);
    }
    arena_done(&arena);
    arena_done(&w.held);
    return err;
}

/* ---- what takes the room ---- */

static const char *const fixed_names[FIXED_COLUMNS] = {
    [FIXED_SPAN_ID] = "span id",
    [FIXED_PARENT] = "parent",
    [FIXED_FOREIGN_PARENTS] = "parents elsewhere",
    [FIXED_START] = "start",
    [FIXED_DURATION] = "duration",
    [FIXED_OPERATION] = "operation",
    [FIXED_STATUS] = "status",
    [FIXED_FLAGS] = "flags",
    [FIXED_SHAPE] = "shape",
    [FIXED_SHAPES] = "shapes",
    [FIXED_TRACE_STATE] = "trace state",
    [FIXED_STATUS_MESSAGE] = "status message",
    [FIXED_DROPPED] = "dropped counts",
    [FIXED_EVENTS] = "events",
    [FIXED_LINKS] = "links",
};

struct part_sums {
    uint64_t fixed[FIXED_COLUMNS], directories;
    uint64_t *values, *bytes; /* by attribute column */
};

static int parts_sum(struct segment *seg, struct part_sums *sums)
{
    for (uint32_t i = 0; i < seg->n_groups; i++) {
        struct group_read g;
        arena_reset(&seg->scratch);
        int err = segment_group_read(seg, &seg->groups[i], &seg->scratch, &g);
        if (err)
            return err;
        sums->directories += seg->groups[i].directory.length;
        for (int k = 0; k < FIXED_COLUMNS; k++)
            sums->fixed[k] += g.fixed[k].length;
        for (uint32_t k = 0; k < g.n_columns; k++) {
            sums->values[g.columns[k].column] += g.columns[k].n;
            sums->bytes[g.columns[k].column] += g.columns[k].values.length +
                                                g.columns[k].filter.length;
        }
    }
    return 0;
}

static int parts_give(struct segment *seg, const struct part_sums *sums, segment_part_fn *fn,
                      void *arg)
{
    int err = 0;
    uint64_t given = 0;
    for (int k = 0; k < FIXED_COLUMNS && !err; k++) {
        given += sums->fixed[k];
        err = fn(arg,
                 &(struct segment_part){str_from(fixed_names[k]), -1, seg->n_rows, sums->fixed[k]});
    }
    for (uint32_t c = 0; c < seg->n_columns && !err; c++) {
        struct segment_part part = {
            .type = seg->columns[c].type,
            .values = sums->values[c],
            .bytes = sums->bytes[c] + seg->columns[c].dictionary.length,
        };
        given += part.bytes;
        err = segment_string(seg, seg->columns[c].key, &part.name);
        if (!err)
            err = fn(arg, &part);
    }
    uint64_t strings = 0, traces = 0;
    for (uint32_t i = 0; i < seg->n_string_blocks; i++)
        strings += seg->string_blocks[i].ref.length;
    for (uint32_t i = 0; i < seg->n_trace_blocks; i++)
        traces += seg->trace_blocks[i].ref.length;
    const struct segment_part others[] = {
        {STR("strings"), -2, seg->n_strings, strings},
        {STR("traces"), -2, seg->n_traces, traces},
        {STR("resources and scopes"), -2, seg->n_resources + (uint64_t)seg->n_scopes,
         seg->resources_ref.length + seg->scopes_ref.length},
        {STR("the rest"), -2, 0,
         seg->bytes - given - strings - traces - seg->resources_ref.length -
             seg->scopes_ref.length},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others && !err; i++)
        err = fn(arg, &others[i]);
    return err;
}

int segment_parts(struct segment *seg, segment_part_fn *fn, void *arg)
{
    int err = segment_columns(seg);
    if (!err)
        err = segment_operations_read(seg);
    if (err)
        return err;
    struct part_sums sums = {
        .values = arena_zalloc(&seg->arena, (seg->n_columns + 1) * sizeof *sums.values),
        .bytes = arena_zalloc(&seg->arena, (seg->n_columns + 1) * sizeof *sums.bytes),
    };
    if (!sums.values || !sums.bytes)
        return ERR_NOMEM;
    err = parts_sum(seg, &sums);
    return err ? err : parts_give(seg, &sums, fn, arg);
}

/* ---- checking ---- */

static int seen(void *arg, const struct span_batch *batch)
{
    uint64_t *n = arg;
    *n += batch->n;
    return 0;
}

/* By its id too, which reads the index, and the summary. */
static int traces_verify(struct segment *seg, const struct segment_trace_block *b)
{
    struct arena arena = ARENA_INIT;
    struct traces_read *traces;
    struct trace_id *ids = arena_array(&arena, b->n, sizeof *ids);
    int err = segment_traces(seg, b, &traces);
    if (!err && !ids)
        err = ERR_NOMEM;
    if (!err)
        memcpy(ids, traces->ids, (size_t)b->n * TRACE_ID_SIZE);
    struct arena one = ARENA_INIT;
    for (uint32_t i = 0; !err && i < b->n; i++) {
        struct trace_summary summary;
        err = segment_summary(seg, &ids[i], &one, &summary);
        if (err == ERR_NOT_FOUND)
            err = segment_fail(seg, ERR_CORRUPT, seg->hashes_ref.offset, "the index of traces");
        arena_reset(&one);
    }
    arena_done(&one);
    arena_done(&arena);
    return err;
}

/* What no trace reads: filters. */
static int filters_verify(struct segment *seg, const struct segment_group *sg)
{
    struct group_read g;
    struct codec_reader r;
    arena_reset(&seg->scratch);
    int err = segment_group_read(seg, sg, &seg->scratch, &g);
    for (uint32_t i = 0; !err && i < g.n_columns; i++)
        if (g.columns[i].filter.length)
            err = segment_block(seg, g.columns[i].filter, &seg->scratch, &r);
    return err;
}

int segment_verify(struct segment *seg)
{
    int err = segment_string_index(seg);
    for (uint32_t i = 0; !err && i < seg->n_string_blocks; i++)
        err = segment_string_block(seg, i);
    for (uint32_t i = 0; !err && i < seg->n_groups; i++)
        err = filters_verify(seg, &seg->groups[i]);
    for (uint32_t i = 0; !err && i < seg->n_trace_blocks; i++)
        err = traces_verify(seg, &seg->trace_blocks[i]);
    uint64_t n = 0;
    if (!err)
        err = segment_spans(seg, seen, &n);
    return err;
}
