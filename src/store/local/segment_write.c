/* Makes a segment of a frozen memtable: docs/formats/segment.md.
 *
 * Steps, each with its arrays in one arena:
 *   order       traces by start, the rows of each by start: `rows`, `traces`
 *   operations  (resource, scope, name, kind) of each row: `operation_of`
 *   columns     numbered, and their cells gathered in row order: `cells`
 *   strings     sorted; codes for names, keys, values, states and messages
 *   file        blocks are appended to `out`, which is written when it has grown; the footer last
 *
 * A failure to get memory is sticky in `err`, as a failure to write is. */
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/local/file.h"
#include "store/local/ids.h"
#include "store/local/memtable.h"
#include "store/local/segment.h"
#include "store/local/segment_format.h"
#include "store/local/stream.h"

enum { OUT_BYTES = 1 << 20 };

struct trace_out {
    uint32_t trace; /* number in the memtable */
    uint32_t first, n;
    uint64_t start_ns;
};

struct operation_out {
    uint32_t resource, scope, name;
    uint32_t resource_out, scope_out; /* numbers in the segment */
    uint8_t kind;
    uint64_t n_spans;
};

struct column_out {
    uint32_t memory; /* column in the memtable */
    uint8_t type, how;
    uint32_t first, n;   /* its cells */
    uint32_t n_distinct; /* of a string column */
    double place;        /* mean place in the lists of attributes */
    uint32_t *codes;     /* of a dictionary, ascending */
};

/* A text that needs a code, and where to put it. */
struct text {
    uint64_t prefix; /* first 8 bytes, so that most comparisons end there */
    struct str s;
    uint32_t *code;
};

struct group_out {
    uint32_t first, n;    /* rows */
    uint32_t first_trace; /* ordinal of the trace of its first row */
    uint32_t n_columns;
    struct group_column {
        uint32_t column, first, n;
    } * columns;
    struct block_ref directory;
    uint64_t offset;
    uint64_t start_min, start_max, duration_min, duration_max;
};

struct sealer {
    const struct memtable *mt;
    struct arena arena;
    int err;

    uint32_t n_rows, n_traces, n_operations, n_columns, n_groups;
    const struct mem_row **rows; /* in order */
    struct trace_out *traces;
    struct operation_out *operations;
    uint32_t *operation_of; /* by row */
    uint64_t *parent_of;    /* by row, as the column has it */
    uint32_t *resources, *scopes;
    uint32_t n_resources, n_scopes;
    struct column_out *columns; /* by number */
    uint32_t *column_of;        /* by column of the memtable */
    uint32_t *cells;            /* payloads; of a dictionary column: places in it */
    struct group_out *groups;

    struct text *texts;
    uint32_t n_texts, cap_texts;
    uint32_t *name_codes, *key_codes, *value_codes; /* by number in the memtable */
    uint32_t *state_codes, *message_codes;          /* by row, plus one; 0: empty */
    uint32_t n_codes;

    struct stream_writer w;
    struct buf out, block, footer;
    uint64_t *numbers; /* of a column of a group, and the like */
    int fd;
    uint64_t offset; /* of the end of `out` in the file */
};

static void *room(struct sealer *s, size_t n, size_t size)
{
    void *p = s->err ? NULL : arena_array(&s->arena, n, size);
    if (!p && !s->err)
        s->err = ERR_NOMEM;
    return p;
}

static void *zeros(struct sealer *s, size_t n, size_t size)
{
    void *p = room(s, n, size);
    if (p)
        memset(p, 0, n * size);
    return p;
}

/* ---- order ---- */

static bool row_before(const struct mem_row *a, const struct mem_row *b)
{
    if (a->start_ns != b->start_ns)
        return a->start_ns < b->start_ns;
    return memcmp(a->span_id.bytes, b->span_id.bytes, SPAN_ID_SIZE) < 0;
}

/* Stable, in n log n, with `spare` of n. */
static void rows_sort(const struct mem_row **rows, const struct mem_row **spare, uint32_t n)
{
    if (n <= 12) {
        for (uint32_t i = 1; i < n; i++) {
            const struct mem_row *row = rows[i];
            uint32_t k = i;
            for (; k && row_before(row, rows[k - 1]); k--)
                rows[k] = rows[k - 1];
            rows[k] = row;
        }
        return;
    }
    uint32_t half = n / 2, a = 0, b = half, to = 0;
    rows_sort(rows, spare, half);
    rows_sort(rows + half, spare, n - half);
    memcpy(spare, rows, n * sizeof *rows);
    while (a < half && b < n)
        rows[to++] = row_before(spare[b], spare[a]) ? spare[b++] : spare[a++];
    while (a < half)
        rows[to++] = spare[a++];
    while (b < n)
        rows[to++] = spare[b++];
}

static const uint8_t *trace_id_of(const struct sealer *s, uint32_t trace)
{
    return (const uint8_t *)intern_get(&s->mt->traces, trace).ptr;
}

static int trace_order(const void *a, const void *b, void *arg)
{
    const struct trace_out *x = a, *y = b;
    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    return memcmp(trace_id_of(arg, x->trace), trace_id_of(arg, y->trace), TRACE_ID_SIZE);
}

static void order_make(struct sealer *s)
{
    uint32_t n_known = intern_count(&s->mt->traces);
    const struct mem_row **by_trace = room(s, s->n_rows, sizeof *by_trace);
    const struct mem_row **spare = room(s, s->n_rows, sizeof *spare);
    uint32_t *first = zeros(s, (size_t)n_known + 1, sizeof *first);
    s->rows = room(s, s->n_rows, sizeof *s->rows);
    s->traces = room(s, n_known, sizeof *s->traces);
    if (s->err)
        return;
    for (uint32_t i = 0; i < s->n_rows; i++)
        first[memtable_row(s->mt, i)->trace + 1]++;
    for (uint32_t t = 0; t < n_known; t++)
        first[t + 1] += first[t];
    for (uint32_t i = 0; i < s->n_rows; i++) {
        const struct mem_row *row = memtable_row(s->mt, i);
        by_trace[first[row->trace]++] = row;
    }
    for (uint32_t t = 0, at = 0; t < n_known; at = first[t++]) {
        uint32_t n = first[t] - at;
        if (!n)
            continue;
        rows_sort(by_trace + at, spare, n);
        s->traces[s->n_traces++] = (struct trace_out){t, at, n, by_trace[at]->start_ns};
    }
    qsort_r(s->traces, s->n_traces, sizeof *s->traces, trace_order, s);
    for (uint32_t t = 0, at = 0; t < s->n_traces; t++) {
        memcpy(s->rows + at, by_trace + s->traces[t].first, s->traces[t].n * sizeof *s->rows);
        s->traces[t].first = at;
        at += s->traces[t].n;
    }
}

/* Groups end at a trace's border where that leaves them large enough. */
static void groups_make(struct sealer *s)
{
    uint32_t cap = s->n_rows / SEGMENT_GROUP_ROWS_MIN + 2;
    s->groups = zeros(s, cap, sizeof *s->groups);
    if (s->err)
        return;
    struct group_out *g = NULL;
    for (uint32_t t = 0; t < s->n_traces; t++) {
        uint32_t left = s->traces[t].n, at = s->traces[t].first;
        if (g && g->n >= SEGMENT_GROUP_ROWS_MIN && g->n + left > SEGMENT_GROUP_ROWS)
            g = NULL;
        while (left) {
            if (!g || g->n == SEGMENT_GROUP_ROWS) {
                g = &s->groups[s->n_groups++];
                g->first = at;
                g->first_trace = t;
            }
            uint32_t n = SEGMENT_GROUP_ROWS - g->n;
            n = n < left ? n : left;
            g->n += n;
            at += n;
            left -= n;
        }
    }
}

/* ---- operations ---- */

static uint32_t number_in(uint32_t *numbers, uint32_t *list, uint32_t *n, uint32_t memory)
{
    if (!numbers[memory]) {
        list[*n] = memory;
        numbers[memory] = ++*n;
    }
    return numbers[memory] - 1;
}

static void operations_make(struct sealer *s)
{
    const struct memtable *mt = s->mt;
    uint32_t n_resources = intern_count(&mt->resources), n_scopes = intern_count(&mt->scopes);
    uint32_t *resources = zeros(s, n_resources, sizeof *resources);
    uint32_t *scopes = zeros(s, n_scopes, sizeof *scopes);
    uint32_t mask = 1023, cap = 512;
    uint32_t *slots = calloc(mask + 1, sizeof *slots);
    struct operation_out *ops = malloc(cap * sizeof *ops);
    s->resources = room(s, n_resources, sizeof *s->resources);
    s->scopes = room(s, n_scopes, sizeof *s->scopes);
    s->operation_of = room(s, s->n_rows, sizeof *s->operation_of);
    if (!slots || !ops)
        s->err = ERR_NOMEM;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_rows && !s->err; i++) {
        const struct mem_row *row = s->rows[i];
        uint64_t hash = hash_mix64(((uint64_t)row->name << 32 | row->resource) +
                                   UINT64_C(0x9e3779b97f4a7c15) * (row->scope * 8ull + row->kind));
        uint32_t at = (uint32_t)hash & mask;
        for (; slots[at]; at = (at + 1) & mask) {
            const struct operation_out *o = &ops[slots[at] - 1];
            if (o->name == row->name && o->resource == row->resource && o->scope == row->scope &&
                o->kind == row->kind)
                break;
        }
        if (!slots[at]) {
            if (n == cap) {
                uint32_t *wide = calloc((size_t)cap * 4, sizeof *wide);
                struct operation_out *more = realloc(ops, 2 * (size_t)cap * sizeof *more);
                if (more)
                    ops = more;
                if (!wide || !more) {
                    free(wide);
                    s->err = ERR_NOMEM;
                    break;
                }
                free(slots);
                slots = wide;
                cap *= 2;
                mask = cap * 2 - 1;
                for (uint32_t k = 0; k < n; k++) {
                    const struct operation_out *o = &ops[k];
                    uint64_t h =
                        hash_mix64(((uint64_t)o->name << 32 | o->resource) +
                                   UINT64_C(0x9e3779b97f4a7c15) * (o->scope * 8ull + o->kind));
                    uint32_t to = (uint32_t)h & mask;
                    while (slots[to])
                        to = (to + 1) & mask;
                    slots[to] = k + 1;
                }
                at = (uint32_t)hash & mask;
                while (slots[at])
                    at = (at + 1) & mask;
            }
            ops[n] = (struct operation_out){
                .resource = row->resource,
                .scope = row->scope,
                .name = row->name,
                .kind = row->kind,
                .resource_out = number_in(resources, s->resources, &s->n_resources, row->resource),
                .scope_out = number_in(scopes, s->scopes, &s->n_scopes, row->scope),
            };
            slots[at] = ++n;
        }
        s->operation_of[i] = slots[at] - 1;
        ops[slots[at] - 1].n_spans++;
    }
    free(slots);
    s->operations = room(s, n, sizeof *ops);
    if (!s->err)
        memcpy(s->operations, ops, n * sizeof *ops);
    s->n_operations = n;
    free(ops);
}

/* ---- parents ---- */

/* For each row the place of its parent in the trace. */
static void parents_make(struct sealer *s)
{
    uint32_t mask = 0;
    struct slot {
        struct span_id id;
        uint32_t place; /* + 1 */
    } *slots = NULL;
    s->parent_of = room(s, s->n_rows, sizeof *s->parent_of);
    for (uint32_t t = 0; t < s->n_traces && !s->err; t++) {
        const struct trace_out *trace = &s->traces[t];
        const struct mem_row **rows = s->rows + trace->first;
        if (!slots || trace->n > (mask + 1) / 2) {
            uint32_t size = 64;
            while (size / 2 < trace->n)
                size *= 2;
            free(slots);
            slots = malloc(size * sizeof *slots);
            mask = size - 1;
            if (!slots) {
                s->err = ERR_NOMEM;
                break;
            }
        }
        uint32_t own = 15;
        const uint64_t seed = hash_secret();
        while ((own + 1) / 2 < trace->n) /* as above: never more than there is */
            own = own * 2 + 1;
        memset(slots, 0, (own + 1) * sizeof *slots);
        for (uint32_t i = 0; i < trace->n; i++) {
            uint32_t at = (uint32_t)hash_bytes_seed(rows[i]->span_id.bytes, SPAN_ID_SIZE, seed) &
                          own;
            while (slots[at].place && memcmp(&slots[at].id, &rows[i]->span_id, sizeof slots[at].id))
                at = (at + 1) & own;
            if (!slots[at].place) /* the first with this id stays */
                slots[at] = (struct slot){rows[i]->span_id, i + 1};
        }
        for (uint32_t i = 0; i < trace->n; i++) {
            uint64_t *parent = &s->parent_of[trace->first + i];
            *parent = 0;
            if (span_id_is_zero(&rows[i]->parent_id))
                continue;
            uint32_t at = (uint32_t)hash_bytes_seed(rows[i]->parent_id.bytes, SPAN_ID_SIZE, seed) &
                          own;
            while (slots[at].place &&
                   memcmp(&slots[at].id, &rows[i]->parent_id, sizeof slots[at].id))
                at = (at + 1) & own;
            *parent = slots[at].place ? slots[at].place : SEGMENT_FOREIGN_PARENT;
        }
    }
    free(slots);
}

/* ---- columns ---- */

static int column_order(const void *a, const void *b)
{
    const struct column_out *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return x->memory < y->memory ? -1 : x->memory > y->memory;
}

/* More columns than these keep the order of their mean places. */
enum { ARRANGED_MAX = 512 };

/* Into an order in which all lists ascend, where there is one: what no other still has to come before goes first,
 * of several the one that comes first now. */
static void columns_arrange(struct sealer *s)
{
    enum { WORDS = ARRANGED_MAX / 64 };
    uint32_t n = s->n_columns, taken = 0;
    if (n > ARRANGED_MAX)
        return;
    /* Bit b of a: b stands behind a in some list. */
    uint64_t(*behind)[WORDS] = zeros(s, n, sizeof *behind);
    uint32_t *waits = zeros(s, n, sizeof *waits); /* for so many; ARRANGED_MAX: has its place */
    struct column_out *columns = room(s, n, sizeof *columns);
    if (s->err)
        return;
    for (uint32_t i = 0; i < s->n_rows; i++) {
        const struct mem_row *row = s->rows[i];
        for (uint32_t k = 1; k < row->n_cells; k++) {
            uint32_t a = s->column_of[row->cells[k - 1].column];
            uint32_t b = s->column_of[row->cells[k].column];
            behind[a][b / 64] |= UINT64_C(1) << b % 64;
        }
    }
    for (uint32_t a = 0; a < n; a++)
        for (uint32_t b = 0; b < n; b++)
            waits[b] += a != b && behind[a][b / 64] >> b % 64 & 1;
    while (taken < n) {
        uint32_t next = 0, first = n; /* first: that has no place, if each waits for another */
        for (; next < n && waits[next]; next++)
            first = first == n && waits[next] < ARRANGED_MAX ? next : first;
        next = next == n ? first : next;
        for (uint32_t b = 0; b < n; b++)
            if (b != next && waits[b] && waits[b] < ARRANGED_MAX)
                waits[b] -= behind[next][b / 64] >> b % 64 & 1;
        waits[next] = ARRANGED_MAX;
        columns[taken++] = s->columns[next];
    }
    memcpy(s->columns, columns, n * sizeof *columns);
}

static void columns_number(struct sealer *s)
{
    uint32_t n = atomic_load(&s->mt->n_columns), kept = 0;
    s->columns = zeros(s, n, sizeof *s->columns);
    s->column_of = room(s, n, sizeof *s->column_of);
    if (s->err)
        return;
    for (uint32_t i = 0; i < s->n_rows; i++) {
        const struct mem_row *row = s->rows[i];
        double step = 1.0 / (row->n_cells + 1.0), place = 0;
        for (uint32_t k = 0; k < row->n_cells; k++) {
            struct column_out *c = &s->columns[row->cells[k].column];
            c->n++;
            c->place += place += step;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        struct column_out c = s->columns[i];
        if (!c.n)
            continue;
        c.memory = i;
        c.type = memtable_column(s->mt, i)->type;
        c.place /= c.n;
        s->columns[kept++] = c;
    }
    s->n_columns = kept;
    qsort(s->columns, kept, sizeof *s->columns, column_order);
    for (uint32_t i = 0; i < kept; i++)
        s->column_of[s->columns[i].memory] = i;
    columns_arrange(s);
    uint32_t at = 0;
    for (uint32_t i = 0; i < kept; i++) {
        s->column_of[s->columns[i].memory] = i;
        s->columns[i].first = at;
        at += s->columns[i].n;
    }
    s->cells = room(s, at, sizeof *s->cells);
}

static int group_column_order(const void *a, const void *b)
{
    const struct group_column *x = a, *y = b;
    return (x->column > y->column) - (x->column < y->column);
}

/* All cells by column, in row order, and which of them belong to which group. */
static void cells_gather(struct sealer *s)
{
    uint32_t *at = room(s, s->n_columns, sizeof *at);
    uint32_t *before = room(s, s->n_columns, sizeof *before); /* `at` when the group began */
    uint32_t *touched = room(s, s->n_columns, sizeof *touched);
    if (s->err)
        return;
    for (uint32_t c = 0; c < s->n_columns; c++)
        at[c] = before[c] = s->columns[c].first;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        struct group_out *g = &s->groups[k];
        uint32_t n = 0;
        for (uint32_t i = g->first; i < g->first + g->n; i++) {
            const struct mem_row *row = s->rows[i];
            for (uint32_t j = 0; j < row->n_cells; j++) {
                uint32_t c = s->column_of[row->cells[j].column];
                if (at[c] == before[c])
                    touched[n++] = c;
                s->cells[at[c]++] = row->cells[j].payload;
            }
        }
        g->columns = room(s, n, sizeof *g->columns);
        if (s->err)
            return;
        g->n_columns = n;
        for (uint32_t j = 0; j < n; j++) {
            uint32_t c = touched[j];
            g->columns[j] = (struct group_column){c, before[c], at[c] - before[c]};
            before[c] = at[c];
        }
        qsort(g->columns, n, sizeof *g->columns, group_column_order);
    }
}

/* ---- strings ---- */

static void text_add(struct sealer *s, struct str text, uint32_t *code)
{
    if (s->n_texts == s->cap_texts) {
        uint32_t cap = s->cap_texts ? s->cap_texts * 2 : 1024;
        struct text *texts = realloc(s->texts, cap * sizeof *texts);
        if (!texts) {
            s->err = ERR_NOMEM;
            return;
        }
        s->texts = texts;
        s->cap_texts = cap;
    }
    struct text *t = &s->texts[s->n_texts++];
    *t = (struct text){.s = text, .code = code};
    if (text.len)
        memcpy(&t->prefix, text.ptr, text.len < 8 ? text.len : 8);
    t->prefix = be64toh(t->prefix);
}

static int text_order(const void *a, const void *b)
{
    const struct text *x = a, *y = b;
    if (x->prefix != y->prefix)
        return x->prefix < y->prefix ? -1 : 1;
    return str_cmp(x->s, y->s);
}

/* Decides how each column is kept, and asks for codes for the values of dictionaries. `codes` marks
 * values that were asked for. */
static void columns_decide(struct sealer *s)
{
    uint32_t n_values = intern_count(&s->mt->values);
    uint32_t *seen = zeros(s, n_values, sizeof *seen); /* column + 1 that saw the value last */
    if (s->err)
        return;
    for (uint32_t c = 0; c < s->n_columns && !s->err; c++) {
        struct column_out *col = &s->columns[c];
        switch (col->type) {
        case VALUE_STRING:
            for (uint32_t i = col->first; i < col->first + col->n; i++) {
                col->n_distinct += seen[s->cells[i]] != c + 1;
                seen[s->cells[i]] = c + 1;
            }
            col->how = col->n_distinct > 256 && col->n_distinct > col->n / 2 ? HOW_PLAIN
                                                                             : HOW_DICTIONARY;
            break;
        case VALUE_BYTES:
        case VALUE_ARRAY:
        case VALUE_MAP:
            col->how = HOW_PLAIN;
            break;
        case VALUE_NONE:
            col->how = HOW_NOTHING;
            break;
        default:
            col->how = HOW_NUMBERS;
        }
        if (col->how != HOW_DICTIONARY)
            continue;
        for (uint32_t i = col->first; i < col->first + col->n && !s->err; i++) {
            uint32_t value = s->cells[i];
            if (s->value_codes[value] == INTERN_NONE) {
                s->value_codes[value] = 0;
                text_add(s, intern_get(&s->mt->values, value), &s->value_codes[value]);
            }
        }
    }
}

static uint32_t *codes_new(struct sealer *s, uint32_t n)
{
    uint32_t *codes = room(s, n, sizeof *codes);
    if (codes)
        memset(codes, 0xff, n * sizeof *codes);
    return codes;
}

static void name_add(struct sealer *s, uint32_t name)
{
    if (s->name_codes[name] != INTERN_NONE)
        return;
    s->name_codes[name] = 0;
    text_add(s, intern_get(&s->mt->names, name), &s->name_codes[name]);
}

static void strings_make(struct sealer *s)
{
    const struct memtable *mt = s->mt;
    s->name_codes = codes_new(s, intern_count(&mt->names));
    s->key_codes = codes_new(s, intern_count(&mt->keys));
    s->value_codes = codes_new(s, intern_count(&mt->values));
    s->state_codes = zeros(s, s->n_rows, sizeof *s->state_codes);
    s->message_codes = zeros(s, s->n_rows, sizeof *s->message_codes);
    if (s->err)
        return;
    columns_decide(s);
    for (uint32_t i = 0; i < s->n_operations && !s->err; i++) {
        name_add(s, s->operations[i].name);
        name_add(s, memtable_service(mt, s->operations[i].resource));
    }
    for (uint32_t c = 0; c < s->n_columns && !s->err; c++) {
        uint32_t key = memtable_column(mt, s->columns[c].memory)->key;
        if (s->key_codes[key] != INTERN_NONE)
            continue;
        s->key_codes[key] = 0;
        text_add(s, intern_get(&mt->keys, key), &s->key_codes[key]);
    }
    for (uint32_t i = 0; i < s->n_rows && !s->err; i++) {
        const struct mem_extra *e = s->rows[i]->extra;
        if (e && e->trace_state.len)
            text_add(s, e->trace_state, &s->state_codes[i]);
        if (e && e->status_message.len)
            text_add(s, e->status_message, &s->message_codes[i]);
    }
    if (s->err)
        return;
    qsort(s->texts, s->n_texts, sizeof *s->texts, text_order);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->n_texts; i++) {
        if (!kept || !str_eq(s->texts[kept - 1].s, s->texts[i].s))
            s->texts[kept++] = (struct text){.s = s->texts[i].s, .code = s->texts[i].code};
        *s->texts[i].code = kept - 1;
    }
    s->n_codes = kept;
    for (uint32_t i = 0; i < s->n_rows; i++) {
        const struct mem_extra *e = s->rows[i]->extra;
        s->state_codes[i] += e && e->trace_state.len;
        s->message_codes[i] += e && e->status_message.len;
    }
}

static int code_order(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The dictionary of each column; its cells become places in it. */
static void dictionaries_make(struct sealer *s)
{
    uint32_t *place = codes_new(s, s->n_codes); /* by code */
    if (s->err)
        return;
    for (uint32_t c = 0; c < s->n_columns; c++) {
        struct column_out *col = &s->columns[c];
        if (col->how != HOW_DICTIONARY)
            continue;
        col->codes = room(s, col->n_distinct, sizeof *col->codes);
        if (s->err)
            return;
        uint32_t n = 0;
        for (uint32_t i = col->first; i < col->first + col->n; i++) {
            uint32_t code = s->value_codes[s->cells[i]];
            s->cells[i] = code;
            if (place[code] == INTERN_NONE) {
                place[code] = 0;
                col->codes[n++] = code;
            }
        }
        qsort(col->codes, n, sizeof *col->codes, code_order);
        for (uint32_t i = 0; i < n; i++)
            place[col->codes[i]] = i;
        for (uint32_t i = col->first; i < col->first + col->n; i++)
            s->cells[i] = place[s->cells[i]];
        for (uint32_t i = 0; i < n; i++)
            place[col->codes[i]] = INTERN_NONE;
    }
}

/* ---- the file ---- */

static void out_flush(struct sealer *s)
{
    if (!s->err && !buf_ok(&s->out))
        s->err = ERR_NOMEM;
    if (!s->err && s->out.len)
        s->err = file_write(s->fd, s->out.ptr, s->out.len);
    buf_clear(&s->out);
}

/* Appends what `block` holds and empties it. */
static struct block_ref block_end(struct sealer *s)
{
    struct block_ref ref = {s->offset, s->block.len, 0};
    if (!buf_ok(&s->block) && !s->err)
        s->err = ERR_NOMEM;
    if (!s->err && s->block.len) {
        ref.checksum = segment_checksum(s->block.ptr, s->block.len);
        buf_str(&s->out, buf_as_str(&s->block));
        s->offset += s->block.len;
        if (s->out.len >= OUT_BYTES)
            out_flush(s);
    }
    buf_clear(&s->block);
    return ref;
}

static void put_u32(struct buf *b, uint32_t n)
{
    n = htole32(n);
    buf_put(b, &n, sizeof n);
}

static void put_u64(struct buf *b, uint64_t n)
{
    n = htole64(n);
    buf_put(b, &n, sizeof n);
}

static void put_ref(struct buf *b, struct block_ref ref)
{
    codec_put_varint(b, ref.offset);
    codec_put_varint(b, ref.length);
    put_u32(b, ref.checksum);
}

static void header_put(struct sealer *s, const struct segment_info *info)
{
    uint8_t header[SEGMENT_HEADER_SIZE] = {0};
    uint32_t version = htole32(SEGMENT_VERSION), features = htole32(SEGMENT_HAS_RECORDS),
             required = htole32(SEGMENT_DERIVED_IDS | SEGMENT_LISTS_BY_COLUMN);
    uint64_t records[2] = {htole64(info->first_sequence), htole64(info->last_sequence)};
    memcpy(header, SEGMENT_MAGIC, 8);
    memcpy(header + 8, &version, 4);
    memcpy(header + 12, &required, 4);
    memcpy(header + 16, &features, 4);
    memcpy(header + 24, records, sizeof records);
    uint64_t checksum = htole64(hash_bytes(header, SEGMENT_HEADER_SIZE - 8));
    memcpy(header + SEGMENT_HEADER_SIZE - 8, &checksum, 8);
    buf_put(&s->out, header, sizeof header);
    s->offset = sizeof header;
}

static struct block_ref strings_put(struct sealer *s)
{
    struct str items[SEGMENT_STRINGS];
    struct buf index = BUF_INIT;
    uint32_t blocks = (s->n_codes + SEGMENT_STRINGS - 1) / SEGMENT_STRINGS;
    codec_put_varint(&index, s->n_codes);
    codec_put_varint(&index, blocks);
    for (uint32_t at = 0; at < s->n_codes; at += SEGMENT_STRINGS) {
        uint32_t n = s->n_codes - at < SEGMENT_STRINGS ? s->n_codes - at : SEGMENT_STRINGS;
        for (uint32_t i = 0; i < n; i++)
            items[i] = s->texts[at + i].s;
        stream_put_list(&s->w, &s->block, items, n);
        put_ref(&index, block_end(s));
        codec_put_str(&index, items[0]);
    }
    buf_put(&s->block, index.ptr, index.len);
    s->block.failed |= index.failed;
    buf_done(&index);
    return block_end(s);
}

static struct block_ref columns_put(struct sealer *s)
{
    struct buf list = BUF_INIT;
    codec_put_varint(&list, s->n_columns);
    for (uint32_t c = 0; c < s->n_columns && !s->err; c++) {
        const struct column_out *col = &s->columns[c];
        codec_put_varint(&list, s->key_codes[memtable_column(s->mt, col->memory)->key]);
        buf_byte(&list, (char)col->type);
        buf_byte(&list, (char)col->how);
        codec_put_varint(&list, col->n);
        if (col->how != HOW_DICTIONARY)
            continue;
        uint64_t *codes = malloc(col->n_distinct * sizeof *codes);
        if (!codes) {
            s->err = ERR_NOMEM;
            break;
        }
        for (uint32_t i = 0; i < col->n_distinct; i++)
            codes[i] = col->codes[i];
        stream_put_numbers(&s->w, &s->block, codes, col->n_distinct);
        free(codes);
        codec_put_varint(&list, col->n_distinct);
        put_ref(&list, block_end(s));
    }
    buf_put(&s->block, list.ptr, list.len);
    s->block.failed |= list.failed;
    buf_done(&list);
    return block_end(s);
}

static struct block_ref blobs_put(struct sealer *s, const struct intern *from,
                                  const uint32_t *numbers, uint32_t n)
{
    struct str *items = malloc((n + 1) * sizeof *items);
    if (!items) {
        s->err = ERR_NOMEM;
        return (struct block_ref){0};
    }
    for (uint32_t i = 0; i < n; i++)
        items[i] = intern_get(from, numbers[i]);
    codec_put_varint(&s->block, n);
    stream_put_list(&s->w, &s->block, items, n);
    free(items);
    return block_end(s);
}

static struct block_ref operations_put(struct sealer *s)
{
    uint32_t n = s->n_operations;
    uint64_t *v = room(s, n, sizeof *v);
    if (s->err)
        return (struct block_ref){0};
    const struct operation_out *ops = s->operations;
    codec_put_varint(&s->block, n);
    for (uint32_t i = 0; i < n; i++)
        v[i] = ops[i].resource_out;
    stream_put_sized(&s->w, &s->block, v, n);
    for (uint32_t i = 0; i < n; i++)
        v[i] = ops[i].scope_out;
    stream_put_sized(&s->w, &s->block, v, n);
    for (uint32_t i = 0; i < n; i++)
        v[i] = s->name_codes[ops[i].name];
    stream_put_sized(&s->w, &s->block, v, n);
    for (uint32_t i = 0; i < n; i++)
        v[i] = ops[i].kind;
    stream_put_sized(&s->w, &s->block, v, n);
    for (uint32_t i = 0; i < n; i++)
        v[i] = ops[i].n_spans;
    stream_put_sized(&s->w, &s->block, v, n);
    return block_end(s);
}

/* ---- traces ---- */

struct service_count {
    uint32_t code, spans, errors;
};

struct trace_columns {
    uint8_t ids[SEGMENT_TRACES][TRACE_ID_SIZE];
    uint64_t n[SEGMENT_TRACES], start[SEGMENT_TRACES], length[SEGMENT_TRACES], root[SEGMENT_TRACES],
        operation[SEGMENT_TRACES], errors[SEGMENT_TRACES], orphans[SEGMENT_TRACES],
        services[SEGMENT_TRACES];
    struct service_count *of_service;
    uint32_t n_of_service, cap_of_service;
    uint32_t *service_seen, *service_at; /* by name: trace ordinal + 1; place in of_service */
};

static int service_count_order(const void *a, const void *b)
{
    const struct service_count *x = a, *y = b;
    return (x->code > y->code) - (x->code < y->code);
}

static void service_count_add(struct sealer *s, struct trace_columns *c, uint32_t ordinal,
                              uint32_t name, bool error)
{
    if (c->service_seen[name] != ordinal + 1) {
        if (c->n_of_service == c->cap_of_service) {
            uint32_t cap = c->cap_of_service ? c->cap_of_service * 2 : 4096;
            struct service_count *more = realloc(c->of_service, cap * sizeof *more);
            if (!more) {
                s->err = ERR_NOMEM;
                return;
            }
            c->of_service = more;
            c->cap_of_service = cap;
        }
        c->service_seen[name] = ordinal + 1;
        c->service_at[name] = c->n_of_service;
        c->of_service[c->n_of_service++] = (struct service_count){s->name_codes[name], 0, 0};
    }
    struct service_count *count = &c->of_service[c->service_at[name]];
    count->spans++;
    count->errors += error;
}

static void trace_summarise(struct sealer *s, struct trace_columns *c, uint32_t ordinal, uint32_t k)
{
    const struct trace_out *t = &s->traces[ordinal];
    uint64_t end = t->start_ns;
    uint32_t first_service = c->n_of_service, root = t->first;
    c->errors[k] = c->orphans[k] = c->root[k] = 0;
    for (uint32_t i = t->first; i < t->first + t->n && !s->err; i++) {
        const struct mem_row *row = s->rows[i];
        bool error = row->status_code == STATUS_ERROR;
        uint64_t last = row->end_ns > row->start_ns ? row->end_ns : row->start_ns;
        end = last > end ? last : end;
        c->errors[k] += error;
        c->orphans[k] += s->parent_of[i] == SEGMENT_FOREIGN_PARENT;
        if (!s->parent_of[i] && !c->root[k]) {
            c->root[k] = 1;
            root = i;
        }
        service_count_add(s, c, ordinal, memtable_service(s->mt, row->resource), error);
    }
    c->n[k] = t->n;
    c->start[k] = t->start_ns;
    c->length[k] = end - t->start_ns;
    c->operation[k] = s->operation_of[root];
    c->services[k] = c->n_of_service - first_service;
    if (c->services[k])
        qsort(c->of_service + first_service, c->services[k], sizeof *c->of_service,
              service_count_order);
}

static void trace_block_put(struct sealer *s, struct trace_columns *c, uint32_t first, uint32_t n)
{
    c->n_of_service = 0;
    for (uint32_t k = 0; k < n && !s->err; k++) {
        memcpy(c->ids[k], trace_id_of(s, s->traces[first + k].trace), TRACE_ID_SIZE);
        trace_summarise(s, c, first + k, k);
    }
    ids_put_traces(&s->w, &s->block, c->ids[0], n);
    uint64_t *v = malloc((c->n_of_service + 1) * sizeof *v);
    if (!v)
        s->err = ERR_NOMEM;
    if (s->err) {
        free(v);
        return;
    }
    const uint64_t *const columns[] = {c->n,         c->start,  c->length,  c->root,
                                       c->operation, c->errors, c->orphans, c->services};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        stream_put_sized(&s->w, &s->block, columns[i], n);
    for (uint32_t i = 0; i < c->n_of_service; i++)
        v[i] = c->of_service[i].code;
    stream_put_sized(&s->w, &s->block, v, c->n_of_service);
    for (uint32_t i = 0; i < c->n_of_service; i++)
        v[i] = c->of_service[i].spans;
    stream_put_sized(&s->w, &s->block, v, c->n_of_service);
    for (uint32_t i = 0; i < c->n_of_service; i++)
        v[i] = c->of_service[i].errors;
    stream_put_sized(&s->w, &s->block, v, c->n_of_service);
    free(v);
}

static void traces_put(struct sealer *s, struct buf *list)
{
    uint32_t n_names = intern_count(&s->mt->names);
    struct trace_columns *c = zeros(s, 1, sizeof *c);
    if (c) {
        c->service_seen = zeros(s, n_names, sizeof *c->service_seen);
        c->service_at = room(s, n_names, sizeof *c->service_at);
    }
    codec_put_varint(list, (s->n_traces + SEGMENT_TRACES - 1) / SEGMENT_TRACES);
    for (uint32_t at = 0; at < s->n_traces && !s->err; at += SEGMENT_TRACES) {
        uint32_t n = s->n_traces - at < SEGMENT_TRACES ? s->n_traces - at : SEGMENT_TRACES;
        trace_block_put(s, c, at, n);
        put_ref(list, block_end(s));
        codec_put_varint(list, n);
        const struct trace_out *last = &s->traces[at + n - 1];
        codec_put_varint(list, last->first + last->n - s->traces[at].first);
    }
    if (c)
        free(c->of_service);
}

static int hash_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static struct block_ref hashes_put(struct sealer *s)
{
    uint64_t *entries = room(s, s->n_traces, sizeof *entries);
    struct buf index = BUF_INIT;
    if (s->err)
        return (struct block_ref){0};
    for (uint32_t t = 0; t < s->n_traces; t++)
        entries[t] = (uint64_t)segment_trace_hash(trace_id_of(s, s->traces[t].trace)) << 32 | t;
    qsort(entries, s->n_traces, sizeof *entries, hash_order);
    codec_put_varint(&index, (s->n_traces + SEGMENT_HASHES - 1) / SEGMENT_HASHES);
    for (uint32_t at = 0; at < s->n_traces; at += SEGMENT_HASHES) {
        uint64_t v[SEGMENT_HASHES];
        uint32_t n = s->n_traces - at < SEGMENT_HASHES ? s->n_traces - at : SEGMENT_HASHES;
        for (uint32_t i = 0; i < n; i++)
            v[i] = entries[at + i] >> 32;
        stream_put_sized(&s->w, &s->block, v, n);
        for (uint32_t i = 0; i < n; i++)
            v[i] = entries[at + i] & UINT32_MAX;
        stream_put_numbers(&s->w, &s->block, v, n);
        put_ref(&index, block_end(s));
        codec_put_varint(&index, n);
        codec_put_varint(&index, entries[at] >> 32);
    }
    buf_put(&s->block, index.ptr, index.len);
    s->block.failed |= index.failed;
    buf_done(&index);
    return block_end(s);
}

/* ---- groups ---- */

static void span_ids_put(struct sealer *s, const struct group_out *g)
{
    uint8_t *ids = (uint8_t *)s->numbers; /* has 8 bytes for each */
    for (uint32_t i = 0; i < g->n; i++)
        memcpy(ids + (size_t)i * SPAN_ID_SIZE, s->rows[g->first + i]->span_id.bytes, SPAN_ID_SIZE);
    ids_put(&s->w, &s->block, ids, g->n);
}

static void foreign_put(struct sealer *s, const struct group_out *g)
{
    for (uint32_t i = g->first; i < g->first + g->n; i++)
        if (s->parent_of[i] == SEGMENT_FOREIGN_PARENT)
            buf_put(&s->block, s->rows[i]->parent_id.bytes, SPAN_ID_SIZE);
}

static void times_make(struct sealer *s, struct group_out *g, uint64_t *starts)
{
    uint32_t t = g->first_trace;
    g->start_min = g->duration_min = UINT64_MAX;
    for (uint32_t k = 0; k < g->n; k++) {
        uint32_t i = g->first + k;
        while (i >= s->traces[t].first + s->traces[t].n)
            t++;
        bool follows = k && i > s->traces[t].first;
        uint64_t start = s->rows[i]->start_ns;
        uint64_t length = s->rows[i]->end_ns > start ? s->rows[i]->end_ns - start : 0;
        starts[k] = start - (follows ? s->rows[i - 1]->start_ns : s->traces[t].start_ns);
        g->start_min = start < g->start_min ? start : g->start_min;
        g->start_max = start > g->start_max ? start : g->start_max;
        g->duration_min = length < g->duration_min ? length : g->duration_min;
        g->duration_max = length > g->duration_max ? length : g->duration_max;
    }
}

static bool shape_same(const struct mem_row *a, const struct mem_row *b)
{
    if (a->n_cells != b->n_cells)
        return false;
    for (uint32_t i = 0; i < a->n_cells; i++)
        if (a->cells[i].column != b->cells[i].column)
            return false;
    return true;
}

struct shapes {
    const struct mem_row *rows[SEGMENT_GROUP_ROWS]; /* one with each shape */
    uint16_t slots[2 * SEGMENT_GROUP_ROWS];         /* shape + 1 */
    uint64_t of_row[SEGMENT_GROUP_ROWS];
    uint32_t n;
    uint64_t total;
    bool by_column; /* not kept as shapes */
};

static void shapes_make(struct sealer *s, const struct group_out *g, struct shapes *sh)
{
    memset(sh->slots, 0, sizeof sh->slots);
    sh->n = 0;
    sh->total = 0;
    for (uint32_t k = 0; k < g->n; k++) {
        const struct mem_row *row = s->rows[g->first + k];
        uint64_t hash = row->n_cells;
        for (uint32_t i = 0; i < row->n_cells; i++)
            hash = (hash ^ row->cells[i].column) * UINT64_C(0x9e3779b97f4a7c15);
        uint32_t at = (uint32_t)(hash_mix64(hash) % (2 * SEGMENT_GROUP_ROWS));
        while (sh->slots[at] && !shape_same(sh->rows[sh->slots[at] - 1], row))
            at = (at + 1) % (2 * SEGMENT_GROUP_ROWS);
        if (!sh->slots[at]) {
            sh->rows[sh->n] = row;
            sh->slots[at] = (uint16_t)++sh->n;
            sh->total += row->n_cells;
        }
        sh->of_row[k] = sh->slots[at] - 1u;
    }
}

/* Whether each list of attributes has its columns in ascending order, each once. */
static bool lists_ascend(const struct sealer *s, const struct group_out *g)
{
    for (uint32_t i = g->first; i < g->first + g->n; i++) {
        const struct mem_row *row = s->rows[i];
        for (uint32_t k = 1; k < row->n_cells; k++)
            if (s->column_of[row->cells[k].column] <= s->column_of[row->cells[k - 1].column])
                return false;
    }
    return true;
}

/* Most rows have a shape of their own: what reads a column should not have to decode all lists. */
static bool shapes_are_many(const struct shapes *sh, const struct group_out *g)
{
    return g->n_columns && sh->n > g->n / 2;
}

/* For each value of the group, column by column: how many rows without the column come before. */
static uint32_t *row_gaps_make(struct sealer *s, const struct group_out *g)
{
    size_t total = 0;
    uint32_t *at = malloc(2 * ((size_t)s->n_columns + 1) * sizeof *at), *next = at;
    for (uint32_t c = 0; at && c < g->n_columns; c++) {
        at[g->columns[c].column] = (uint32_t)total;
        total += g->columns[c].n;
    }
    uint32_t *gaps = at ? malloc((total + 1) * sizeof *gaps) : NULL;
    if (!gaps) {
        free(at);
        s->err = ERR_NOMEM;
        return NULL;
    }
    next = memset(at + s->n_columns, 0, ((size_t)s->n_columns + 1) * sizeof *at);
    for (uint32_t i = 0; i < g->n; i++) {
        const struct mem_row *row = s->rows[g->first + i];
        for (uint32_t k = 0; k < row->n_cells; k++) {
            uint32_t c = s->column_of[row->cells[k].column];
            gaps[at[c]++] = i - next[c];
            next[c] = i + 1;
        }
    }
    free(at);
    return gaps;
}

static void shapes_put(struct sealer *s, const struct shapes *sh)
{
    uint64_t *v = malloc(((sh->total > sh->n ? sh->total : sh->n) + 1) * sizeof *v);
    if (!v) {
        s->err = ERR_NOMEM;
        return;
    }
    for (uint32_t i = 0; i < sh->n; i++)
        v[i] = sh->rows[i]->n_cells;
    stream_put_sized(&s->w, &s->block, v, sh->n);
    size_t n = 0;
    for (uint32_t i = 0; i < sh->n; i++) {
        int64_t before = -1;
        for (uint32_t k = 0; k < sh->rows[i]->n_cells; k++) {
            int64_t column = s->column_of[sh->rows[i]->cells[k].column];
            int64_t gap = column - before - 1;
            v[n++] = (uint64_t)(gap < 0 ? gap + s->n_columns : gap);
            before = column;
        }
    }
    stream_put_numbers(&s->w, &s->block, v, n);
    free(v);
}

static void dropped_put(struct sealer *s, const struct group_out *g)
{
    uint64_t *v = s->numbers;
    for (uint32_t k = 0; k < g->n; k++) {
        const struct mem_extra *e = s->rows[g->first + k]->extra;
        v[k] = e ? e->dropped_attrs : 0;
    }
    stream_put_sized(&s->w, &s->block, v, g->n);
    for (uint32_t k = 0; k < g->n; k++) {
        const struct mem_extra *e = s->rows[g->first + k]->extra;
        v[k] = e ? e->dropped_events : 0;
    }
    stream_put_sized(&s->w, &s->block, v, g->n);
    for (uint32_t k = 0; k < g->n; k++) {
        const struct mem_extra *e = s->rows[g->first + k]->extra;
        v[k] = e ? e->dropped_links : 0;
    }
    stream_put_numbers(&s->w, &s->block, v, g->n);
}

static void blob_column_put(struct sealer *s, const struct group_out *g, bool links)
{
    struct str *items = malloc(g->n * sizeof *items);
    if (!items) {
        s->err = ERR_NOMEM;
        return;
    }
    for (uint32_t k = 0; k < g->n; k++) {
        const struct mem_extra *e = s->rows[g->first + k]->extra;
        items[k] = !e ? STR_NONE : links ? e->links : e->events;
    }
    stream_put_list(&s->w, &s->block, items, g->n);
    free(items);
}

static void fixed_put(struct sealer *s, struct group_out *g, const struct shapes *sh,
                      enum fixed_column column)
{
    uint64_t *v = s->numbers;
    uint32_t first = g->first;
    switch (column) {
    case FIXED_SPAN_ID:
        span_ids_put(s, g);
        return;
    case FIXED_FOREIGN_PARENTS:
        foreign_put(s, g);
        return;
    case FIXED_SHAPES:
        if (!sh->by_column)
            shapes_put(s, sh);
        return;
    case FIXED_DROPPED:
        dropped_put(s, g);
        return;
    case FIXED_EVENTS:
    case FIXED_LINKS:
        blob_column_put(s, g, column == FIXED_LINKS);
        return;
    case FIXED_START:
        times_make(s, g, v);
        break;
    case FIXED_SHAPE:
        if (sh->by_column)
            return;
        memcpy(v, sh->of_row, g->n * sizeof *v);
        break;
    case FIXED_PARENT:
        memcpy(v, s->parent_of + first, g->n * sizeof *v);
        break;
    case FIXED_DURATION:
        for (uint32_t k = 0; k < g->n; k++)
            v[k] = s->rows[first + k]->end_ns - s->rows[first + k]->start_ns;
        break;
    case FIXED_OPERATION:
        for (uint32_t k = 0; k < g->n; k++)
            v[k] = s->operation_of[first + k];
        break;
    case FIXED_STATUS:
        for (uint32_t k = 0; k < g->n; k++)
            v[k] = s->rows[first + k]->status_code;
        break;
    case FIXED_FLAGS:
        for (uint32_t k = 0; k < g->n; k++)
            v[k] = s->rows[first + k]->flags;
        break;
    case FIXED_TRACE_STATE:
        for (uint32_t k = 0; k < g->n; k++)
            v[k] = s->state_codes[first + k];
        break;
    case FIXED_STATUS_MESSAGE:
        for (uint32_t k = 0; k < g->n; k++)
            v[k] = s->message_codes[first + k];
        break;
    case FIXED_COLUMNS:
        return;
    }
    stream_put_numbers(&s->w, &s->block, v, g->n);
}

static uint64_t cell_bits(const struct sealer *s, uint8_t type, uint32_t payload)
{
    if (type == VALUE_INT)
        return segment_zigzag(memtable_integer(s->mt, payload));
    if (type == VALUE_DOUBLE)
        return memtable_wide(s->mt, payload & ~CELL_WIDE);
    return payload;
}

static void filter_put(struct sealer *s, const uint32_t *cells, uint32_t n)
{
    size_t m = ((size_t)n * SEGMENT_FILTER_BITS + 7) / 8;
    if (!buf_reserve(&s->block, m + 1))
        return;
    buf_byte(&s->block, SEGMENT_FILTER_PROBES);
    uint8_t *bits = (uint8_t *)s->block.ptr + s->block.len;
    memset(bits, 0, m);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t hash = hash_str(intern_get(&s->mt->values, cells[i]));
        for (unsigned k = 0; k < SEGMENT_FILTER_PROBES; k++) {
            uint64_t bit = segment_probe(hash, k, m);
            bits[bit / 8] |= (uint8_t)(1 << bit % 8);
        }
    }
    s->block.len += m;
}

static void row_gaps_put(struct sealer *s, const uint32_t *gaps, uint32_t n)
{
    struct buf own = BUF_INIT;
    for (uint32_t i = 0; i < n; i++)
        s->numbers[i] = gaps[i];
    stream_put_gaps(&s->w, &own, s->numbers, n);
    codec_put_varint(&s->block, own.len);
    buf_str(&s->block, buf_as_str(&own));
    s->block.failed |= own.failed;
    buf_done(&own);
}

/* The values of one attribute column in one group, and what the directory says of them. `gaps` (may be NULL)
 * say which rows have them. */
static void column_put(struct sealer *s, const struct group_column *gc, const uint32_t *gaps,
                       struct buf *directory)
{
    const struct column_out *col = &s->columns[gc->column];
    const uint32_t *cells = s->cells + gc->first;
    uint64_t *v = gc->n <= SEGMENT_GROUP_ROWS ? s->numbers : malloc(gc->n * sizeof *v);
    struct str *items = col->how == HOW_PLAIN ? malloc(gc->n * sizeof *items) : NULL;
    int64_t low = INT64_MAX, high = INT64_MIN;
    if (gaps)
        row_gaps_put(s, gaps, gc->n);
    if (!v || (col->how == HOW_PLAIN && !items)) {
        s->err = ERR_NOMEM;
    } else if (col->how == HOW_PLAIN) {
        for (uint32_t i = 0; i < gc->n; i++)
            items[i] = intern_get(&s->mt->values, cells[i]);
        stream_put_list(&s->w, &s->block, items, gc->n);
    } else if (col->how != HOW_NOTHING) {
        for (uint32_t i = 0; i < gc->n; i++)
            v[i] = cell_bits(s, col->type, cells[i]);
        for (uint32_t i = 0; col->type == VALUE_INT && i < gc->n; i++) {
            int64_t n = segment_unzigzag(v[i]);
            low = n < low ? n : low;
            high = n > high ? n : high;
        }
        stream_put_numbers(&s->w, &s->block, v, gc->n);
    }
    struct block_ref ref = block_end(s);
    codec_put_varint(directory, ref.length);
    put_u32(directory, ref.checksum);
    if (col->how == HOW_PLAIN && col->type == VALUE_STRING) {
        filter_put(s, cells, gc->n);
        ref = block_end(s);
        codec_put_varint(directory, ref.length);
        put_u32(directory, ref.checksum);
    }
    if (col->type == VALUE_INT) {
        codec_put_zigzag(directory, low);
        codec_put_zigzag(directory, high);
    }
    if (v != s->numbers)
        free(v);
    free(items);
}

static void group_put(struct sealer *s, struct group_out *g, struct shapes *sh)
{
    struct buf directory = BUF_INIT;
    shapes_make(s, g, sh);
    sh->by_column = shapes_are_many(sh, g) && lists_ascend(s, g);
    uint32_t *all_gaps = sh->by_column ? row_gaps_make(s, g) : NULL, *gaps = all_gaps;
    g->offset = s->offset;
    for (int column = 0; column < FIXED_COLUMNS && !s->err; column++) {
        fixed_put(s, g, sh, (enum fixed_column)column);
        struct block_ref ref = block_end(s);
        codec_put_varint(&directory, ref.length);
        put_u32(&directory, ref.checksum);
    }
    codec_put_varint(&directory, sh->by_column ? 0 : sh->n);
    codec_put_varint(&directory, sh->by_column ? 0 : sh->total);
    codec_put_varint(&directory, g->n_columns);
    for (uint32_t i = 0; i < g->n_columns && !s->err; i++) {
        uint32_t column = g->columns[i].column;
        codec_put_varint(&directory, i ? column - g->columns[i - 1].column - 1 : column);
        codec_put_varint(&directory, g->columns[i].n);
        column_put(s, &g->columns[i], gaps, &directory);
        gaps = gaps ? gaps + g->columns[i].n : NULL;
    }
    free(all_gaps);
    buf_put(&s->block, directory.ptr, directory.len);
    s->block.failed |= directory.failed;
    buf_done(&directory);
    g->directory = block_end(s);
}

/* ---- all of it ---- */

static void footer_put(struct sealer *s, const struct segment_info *info,
                       const struct block_ref *refs, size_t n_refs, struct str traces)
{
    struct buf *f = &s->footer;
    put_u64(f, info->spans);
    put_u64(f, info->traces);
    put_u64(f, info->start_min_ns);
    put_u64(f, info->start_max_ns);
    for (size_t i = 0; i < n_refs; i++)
        put_ref(f, refs[i]);
    buf_str(f, traces);
    codec_put_varint(f, s->n_groups);
    for (uint32_t i = 0; i < s->n_groups; i++) {
        const struct group_out *g = &s->groups[i];
        put_ref(f, g->directory);
        codec_put_varint(f, g->n);
        codec_put_varint(f, g->first_trace);
        codec_put_varint(f, g->offset);
        codec_put_varint(f, g->start_min - info->start_min_ns);
        codec_put_varint(f, g->start_max - g->start_min);
        codec_put_varint(f, g->duration_min);
        codec_put_varint(f, g->duration_max - g->duration_min);
    }
    if (!buf_ok(f) && !s->err)
        s->err = ERR_NOMEM;
    if (s->err)
        return;
    uint64_t trailer[3] = {htole64(s->offset), htole64(f->len), 0};
    trailer[2] = htole64(hash_bytes_seed(f->ptr, f->len, hash_bytes(trailer, 16)));
    buf_str(&s->out, buf_as_str(f));
    buf_put(&s->out, trailer, sizeof trailer);
    buf_put(&s->out, SEGMENT_END_MAGIC, 8);
    s->offset += f->len + SEGMENT_TRAILER_SIZE;
    out_flush(s);
}

static void file_fill(struct sealer *s, struct segment_info *info)
{
    struct buf traces = BUF_INIT;
    struct shapes *sh = room(s, 1, sizeof *sh);
    s->numbers = room(s, SEGMENT_GROUP_ROWS, sizeof *s->numbers);
    header_put(s, info);
    struct block_ref refs[6] = {0};
    if (!s->err)
        refs[0] = strings_put(s);
    if (!s->err)
        refs[1] = columns_put(s);
    if (!s->err)
        refs[2] = blobs_put(s, &s->mt->resources, s->resources, s->n_resources);
    if (!s->err)
        refs[3] = blobs_put(s, &s->mt->scopes, s->scopes, s->n_scopes);
    if (!s->err)
        refs[4] = operations_put(s);
    if (!s->err)
        refs[5] = hashes_put(s);
    if (!s->err)
        traces_put(s, &traces);
    info->start_min_ns = UINT64_MAX;
    info->start_max_ns = 0;
    for (uint32_t i = 0; i < s->n_groups && !s->err; i++) {
        struct group_out *g = &s->groups[i];
        group_put(s, g, sh);
        info->start_min_ns = g->start_min < info->start_min_ns ? g->start_min : info->start_min_ns;
        info->start_max_ns = g->start_max > info->start_max_ns ? g->start_max : info->start_max_ns;
    }
    info->spans = s->n_rows;
    info->traces = s->n_traces;
    if (!buf_ok(&traces) && !s->err)
        s->err = ERR_NOMEM;
    if (!s->err)
        footer_put(s, info, refs, sizeof refs / sizeof *refs, buf_as_str(&traces));
    info->bytes = s->offset;
    buf_done(&traces);
}

static void sealer_done(struct sealer *s)
{
    stream_writer_done(&s->w);
    buf_done(&s->out);
    buf_done(&s->block);
    buf_done(&s->footer);
    free(s->texts);
    arena_done(&s->arena);
}

int segment_write(const struct memtable *mt, int dir, bool sync, struct segment_info *info)
{
    struct sealer s = {.mt = mt, .n_rows = memtable_rows(mt)};
    char temporary[sizeof info->name + 4];
    snprintf(temporary, sizeof temporary, "%.*s.tmp", (int)strcspn(info->name, "."), info->name);
    s.err = stream_writer_init(&s.w);
    if (!s.err)
        order_make(&s);
    if (!s.err)
        groups_make(&s);
    if (!s.err)
        operations_make(&s);
    if (!s.err)
        parents_make(&s);
    if (!s.err)
        columns_number(&s);
    if (!s.err)
        cells_gather(&s);
    if (!s.err)
        strings_make(&s);
    if (!s.err)
        dictionaries_make(&s);
    if (!s.err)
        s.err = file_open(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC, &s.fd);
    if (!s.err) {
        file_fill(&s, info);
        if (!s.err && sync)
            s.err = file_sync(s.fd);
        close(s.fd);
        if (!s.err)
            s.err = file_rename(dir, temporary, info->name);
        if (!s.err && sync)
            s.err = file_sync(dir);
        if (s.err)
            (void)!file_remove(dir, temporary);
    }
    sealer_done(&s);
    return s.err;
}
