/* Three columns: the tree of names with the service behind each where it changes, the bars on the
 * time of the trace, the durations. Below an error stand its message and its attributes.
 *
 *   api.get_logs  api            ━━━━━━━━━━━━━━━━━━━━━━━━━   12.3 ms
 *   ├─ auth.verify               ━━╸                         1.02 ms
 *   └─ db.query_logs  db            ╺━━━━━━━━━━━━━━━╸        7.90 ms  ✗
 *      │ ERROR timeout
 *      │ db.system  sqlite
 *
 * The input is not trusted to be a tree: a span whose parent is not there is shown at the top with
 * a mark; in a circle of parents one span is taken for the first. */
#include "cli/waterfall.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdlib.h>

#define NONE SIZE_MAX

enum {
    DEPTH_SHOWN_MAX = 24,
    NAME_WIDTH_MIN = 12,
    ATTRIBUTES_MAX = 32,
    VALUE_CHARS_MAX = 2000,
    KEY_WIDTH_MAX = 32
};

struct node {
    const struct span *span;
    size_t parent;         /* index, NONE: at the top */
    size_t child, sibling; /* in start order */
    bool orphan;           /* has a parent that is not here */
    bool visited;
};

struct waterfall {
    const struct waterfall_options *options;
    struct buf *out;
    struct node *nodes;
    size_t n, first; /* of the top */
    uint64_t start_ns, end_ns;
    size_t tree_width, bar_width, duration_width;
    size_t shown, depth_shown;
    size_t key_width; /* of the details of one span */
    char *lines;      /* by depth: whether a line goes on below */
};

/* ---- the tree ---- */

static int by_span_id(const void *a, const void *b)
{
    const struct node *x = a, *y = b;
    int order = memcmp(x->span->span_id.bytes, y->span->span_id.bytes, SPAN_ID_SIZE);
    return order ? order : (x->span > y->span) - (x->span < y->span);
}

static size_t node_find(const struct waterfall *w, const struct span_id *id)
{
    size_t low = 0, high = w->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(w->nodes[middle].span->span_id.bytes, id->bytes, SPAN_ID_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < w->n && !memcmp(w->nodes[low].span->span_id.bytes, id->bytes, SPAN_ID_SIZE);
    return found ? low : NONE;
}

/* qsort has no argument of its own. */
static _Thread_local const struct node *sorted_nodes;

static int by_start(const void *a, const void *b)
{
    const struct span *x = sorted_nodes[*(const size_t *)a].span;
    const struct span *y = sorted_nodes[*(const size_t *)b].span;
    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    if (x->end_ns != y->end_ns) /* what contains the other comes first */
        return x->end_ns > y->end_ns ? -1 : 1;
    return memcmp(x->span_id.bytes, y->span_id.bytes, SPAN_ID_SIZE);
}

/* Follows parents from each node; the one that closes a circle goes to the top. */
static void cut_circles(struct waterfall *w, uint32_t *colour)
{
    for (size_t i = 0; i < w->n; i++) {
        uint32_t mine = (uint32_t)i + 1;
        size_t at = i;
        while (at != NONE && !colour[at]) {
            colour[at] = mine;
            size_t up = w->nodes[at].parent;
            if (up != NONE && colour[up] == mine) {
                w->nodes[at].parent = NONE;
                w->nodes[at].orphan = true;
                break;
            }
            at = up;
        }
    }
}

static int tree_build(struct waterfall *w, const struct span_batch *batch, struct arena *arena)
{
    w->n = batch->n;
    w->nodes = arena_array(arena, w->n, sizeof *w->nodes);
    size_t *order = arena_array(arena, w->n, sizeof *order);
    uint32_t *colour = arena_zalloc(arena, w->n * sizeof *colour);
    if (!w->nodes || !order || !colour)
        return ERR_NOMEM;
    w->start_ns = UINT64_MAX;
    for (size_t i = 0; i < w->n; i++) {
        const struct span *s = &batch->spans[i];
        w->nodes[i] = (struct node){.span = s, .parent = NONE, .child = NONE, .sibling = NONE};
        w->start_ns = s->start_ns < w->start_ns ? s->start_ns : w->start_ns;
        w->end_ns = s->end_ns > w->end_ns ? s->end_ns : w->end_ns;
        w->end_ns = s->start_ns > w->end_ns ? s->start_ns : w->end_ns;
    }
    qsort(w->nodes, w->n, sizeof *w->nodes, by_span_id);
    for (size_t i = 0; i < w->n; i++) {
        struct node *n = &w->nodes[i];
        order[i] = i;
        if (span_id_is_zero(&n->span->parent_id))
            continue;
        n->parent = node_find(w, &n->span->parent_id);
        n->orphan = n->parent == NONE;
        if (n->parent == i) { /* its own parent */
            n->parent = NONE;
            n->orphan = true;
        }
    }
    cut_circles(w, colour);
    sorted_nodes = w->nodes;
    qsort(order, w->n, sizeof *order, by_start);
    /* Backwards, so that putting each in front leaves them in order. */
    w->first = NONE;
    for (size_t i = w->n; i-- > 0;) {
        struct node *n = &w->nodes[order[i]];
        size_t *head = n->parent == NONE ? &w->first : &w->nodes[n->parent].child;
        n->sibling = *head;
        *head = order[i];
    }
    return 0;
}

/* ---- values ---- */

static void put_value(struct buf *out, const struct value *v, unsigned depth)
{
    switch (v->type) {
    case VALUE_STRING:
        term_text(out, v->string, VALUE_CHARS_MAX);
        break;
    case VALUE_BOOL:
        buf_cstr(out, v->boolean ? "true" : "false");
        break;
    case VALUE_INT:
        buf_printf(out, "%lld", (long long)v->integer);
        break;
    case VALUE_DOUBLE:
        buf_printf(out, "%.15g", v->real);
        break;
    case VALUE_BYTES:
        buf_printf(out, "%zu bytes", v->bytes.len);
        break;
    case VALUE_ARRAY:
    case VALUE_MAP: {
        bool map = v->type == VALUE_MAP;
        size_t n = map ? v->map.n : v->array.n;
        buf_byte(out, map ? '{' : '[');
        for (size_t i = 0; i < n; i++) {
            if (i)
                buf_cstr(out, ", ");
            if (i == 16 || depth == 4) {
                buf_cstr(out, "...");
                break;
            }
            if (map) {
                term_text(out, v->map.items[i].key, VALUE_CHARS_MAX);
                buf_cstr(out, ": ");
            }
            put_value(out, map ? &v->map.items[i].value : &v->array.items[i], depth + 1);
        }
        buf_byte(out, map ? '}' : ']');
        break;
    }
    default:
        break;
    }
}

/* ---- lines ---- */

struct glyphs {
    const char *branch, *last, *down, *none, *more;
    const char *full, *left, *right, *tiny; /* a cell, its left half, its right half */
    const char *error, *detail;
};

static const struct glyphs glyphs_utf8 = {
    "\xe2\x94\x9c\xe2\x94\x80 ", /* ├─ */
    "\xe2\x94\x94\xe2\x94\x80 ", /* └─ */
    "\xe2\x94\x82  ",            /* │ */
    "   ",
    "\xe2\x80\xa6",  /* … */
    "\xe2\x94\x81",  /* ━ */
    "\xe2\x95\xb8",  /* ╸ */
    "\xe2\x95\xba",  /* ╺ */
    "\xe2\x95\xb8",  /* ╸ */
    "\xe2\x9c\x97",  /* ✗ */
    "\xe2\x94\x8a ", /* ┊ */
};
static const struct glyphs glyphs_ascii = {"|- ", "`- ", "|  ", "   ", "~", "=",
                                           "=",   "=",   "|",   "x",   ": "};

static const struct glyphs *glyphs_of(const struct waterfall *w)
{
    return w->options->term.utf8 ? &glyphs_utf8 : &glyphs_ascii;
}

/* The lines of the tree before a name at this depth; returns their columns. */
static size_t put_indent(struct waterfall *w, size_t depth, bool own)
{
    const struct glyphs *g = glyphs_of(w);
    size_t from = depth > w->depth_shown ? depth - w->depth_shown : 0, width = 0;
    if (from) {
        buf_cstr(w->out, g->more);
        width++;
    }
    for (size_t d = from + 1; d <= depth; d++) {
        bool last_column = d == depth && own;
        buf_cstr(w->out, last_column   ? (w->lines[d] ? g->branch : g->last)
                         : w->lines[d] ? g->down
                                       : g->none);
        width += 3;
    }
    return width;
}

/* Cells from and to in half cells. */
static void put_bar(struct waterfall *w, const struct span *s)
{
    const struct glyphs *g = glyphs_of(w);
    uint64_t length_ns = w->end_ns - w->start_ns;
    size_t halves = 2 * w->bar_width;
    double scale = length_ns ? (double)halves / (double)length_ns : 0;
    size_t from = (size_t)((double)(s->start_ns - w->start_ns) * scale);
    uint64_t end_ns = s->end_ns > s->start_ns ? s->end_ns : s->start_ns;
    size_t to = (size_t)((double)(end_ns - w->start_ns) * scale + 0.5);
    if (!length_ns)
        to = halves;
    from = from < halves ? from : halves - 1;
    to = to > halves ? halves : to;
    bool tiny = to <= from;
    to = tiny ? from + 1 : to;
    for (size_t cell = 0; cell < w->bar_width; cell++) {
        bool left = from <= 2 * cell && 2 * cell < to;
        bool right = from <= 2 * cell + 1 && 2 * cell + 1 < to;
        buf_cstr(w->out, left && right ? g->full
                         : left        ? (tiny ? g->tiny : g->left)
                         : right       ? (tiny && !w->options->term.utf8 ? g->tiny : g->right)
                                       : " ");
    }
}

static void put_detail_start(struct waterfall *w, size_t depth, bool has_children)
{
    const struct term *t = &w->options->term;
    buf_cstr(w->out, term_style(t, TERM_DIM));
    put_indent(w, depth, false);
    buf_cstr(w->out, has_children ? glyphs_of(w)->down : glyphs_of(w)->none);
    buf_cstr(w->out, glyphs_of(w)->detail);
    buf_cstr(w->out, term_style(t, TERM_PLAIN));
}

/* One line, cut at the terminal's width where there is one. */
static void put_detail(struct waterfall *w, size_t depth, bool has_children, struct str key,
                       struct str text, enum term_style style)
{
    const struct term *t = &w->options->term;
    put_detail_start(w, depth, has_children);
    size_t shown_depth = depth > w->depth_shown ? w->depth_shown : depth;
    size_t used = 3 * shown_depth + (depth > w->depth_shown) + 3 + 2;
    size_t room = !t->tty ? SIZE_MAX : t->width > used + 10 ? t->width - used : 10;
    buf_cstr(w->out, term_style(t, style));
    size_t n = term_text(w->out, key, room);
    buf_cstr(w->out, term_style(t, TERM_PLAIN));
    if (text.len && n < w->key_width) {
        term_blanks(w->out, w->key_width - n);
        n = w->key_width;
    }
    if (text.len && (room == SIZE_MAX || n + 3 < room)) {
        buf_cstr(w->out, "  ");
        /* `text` is fit for the terminal already; it is only cut here. */
        term_text(w->out, text, room == SIZE_MAX ? SIZE_MAX : room - n - 2);
    }
    buf_byte(w->out, '\n');
}

static void put_attributes(struct waterfall *w, const struct attrs *attrs, size_t depth,
                           bool has_children)
{
    struct buf text = BUF_INIT;
    for (uint32_t i = 0; i < attrs->n; i++) {
        if (i == ATTRIBUTES_MAX) {
            buf_clear(&text);
            buf_printf(&text, "and %u more attributes", attrs->n - i);
            put_detail(w, depth, has_children, buf_as_str(&text), STR_NONE, TERM_DIM);
            break;
        }
        buf_clear(&text);
        put_value(&text, &attrs->items[i].value, 0);
        put_detail(w, depth, has_children, attrs->items[i].key, buf_as_str(&text), TERM_DIM);
    }
    buf_done(&text);
}

static void widen_by_keys(struct waterfall *w, const struct attrs *attrs)
{
    for (uint32_t i = 0; i < attrs->n && i < ATTRIBUTES_MAX; i++) {
        size_t n = term_width(attrs->items[i].key);
        if (n > w->key_width && n <= KEY_WIDTH_MAX)
            w->key_width = n;
    }
}

static void put_details(struct waterfall *w, const struct node *n, size_t depth)
{
    const struct span *s = n->span;
    bool has_children = n->child != NONE, error = s->status_code == STATUS_ERROR;
    if (!error && !w->options->attributes)
        return;
    w->key_width = 5;
    widen_by_keys(w, &s->attrs);
    for (uint32_t i = 0; i < s->n_events; i++)
        widen_by_keys(w, &s->events[i].attrs);
    if (error)
        put_detail(w, depth, has_children, STR("ERROR"), s->status_message, TERM_RED);
    put_attributes(w, &s->attrs, depth, has_children);
    for (uint32_t i = 0; i < s->n_events; i++) {
        const struct event *e = &s->events[i];
        struct buf text = BUF_INIT;
        char after[TERM_DURATION_SIZE];
        term_text(&text, e->name, VALUE_CHARS_MAX);
        buf_printf(&text, " after %s",
                   term_duration(after, e->time_ns > s->start_ns ? e->time_ns - s->start_ns : 0));
        put_detail(w, depth, has_children, STR("event"), buf_as_str(&text), TERM_BOLD);
        buf_done(&text);
        put_attributes(w, &e->attrs, depth, has_children);
    }
}

static void put_row(struct waterfall *w, const struct node *n, size_t depth, bool service_known)
{
    const struct term *t = &w->options->term;
    const struct span *s = n->span;
    const char *plain = term_style(t, TERM_PLAIN);
    char colour[16], duration[TERM_DURATION_SIZE];
    struct str service = s->resource->service_name;
    const char *service_style = term_service_style(t, service, colour);
    bool error = s->status_code == STATUS_ERROR;

    buf_cstr(w->out, term_style(t, TERM_DIM));
    size_t used = put_indent(w, depth, true);
    buf_cstr(w->out, plain);
    size_t room = w->tree_width > used + 4 ? w->tree_width - used : 4;
    if (error)
        buf_cstr(w->out, term_style(t, TERM_RED));
    used += term_text(w->out, s->name.len ? s->name : STR("(no name)"), room);
    buf_cstr(w->out, plain);
    if (!service_known &&
        (used + 2 + term_width(service) <= w->tree_width || used + 6 < w->tree_width)) {
        buf_printf(w->out, "  %s", service_style);
        used += 2 + term_text(w->out, service, w->tree_width - used - 2);
        buf_cstr(w->out, plain);
    }
    if (n->orphan && used + 12 < w->tree_width) {
        buf_printf(w->out, "  %s", term_style(t, TERM_DIM));
        used += 2 + term_text(w->out, STR("(parent missing)"), w->tree_width - used - 2);
        buf_cstr(w->out, plain);
    }
    term_blanks(w->out, used < w->tree_width ? w->tree_width - used : 0);
    buf_cstr(w->out, "  ");
    buf_cstr(w->out, error ? term_style(t, TERM_RED) : service_style);
    put_bar(w, s);
    struct str took = str_from(term_duration(duration, span_duration_ns(s)));
    buf_printf(w->out, "%s  ", plain);
    term_blanks(w->out, w->duration_width - term_width(took));
    buf_str(w->out, took);
    if (error)
        buf_printf(w->out, "  %s%s%s", term_style(t, TERM_RED), glyphs_of(w)->error, plain);
    buf_byte(w->out, '\n');
}

/* Depth first without recursion: traces may be as deep as they are long. */
static int put_rows(struct waterfall *w, struct arena *arena)
{
    w->lines = arena_zalloc(arena, w->n + 2);
    struct str *services = arena_array(arena, w->n + 1, sizeof *services); /* by depth */
    if (!w->lines || !services)
        return ERR_NOMEM;
    size_t at = w->first, depth = 0;
    size_t rows_max = w->options->rows_max ? w->options->rows_max : SIZE_MAX;
    while (at != NONE && w->shown < rows_max && buf_ok(w->out)) {
        struct node *n = &w->nodes[at];
        w->lines[depth] = n->sibling != NONE;
        services[depth] = n->span->resource->service_name;
        put_row(w, n, depth, depth && str_eq(services[depth], services[depth - 1]));
        put_details(w, n, depth);
        w->shown++;
        if (n->child != NONE) {
            at = n->child;
            depth++;
            continue;
        }
        while (at != NONE && w->nodes[at].sibling == NONE) {
            at = w->nodes[at].parent;
            depth -= depth > 0;
        }
        if (at != NONE)
            at = w->nodes[at].sibling;
    }
    return 0;
}

/* ---- head and measures ---- */

static size_t depth_of(const struct waterfall *w, size_t i)
{
    size_t depth = 0;
    while ((i = w->nodes[i].parent) != NONE && depth < DEPTH_SHOWN_MAX)
        depth++;
    return depth;
}

static void measure(struct waterfall *w)
{
    size_t widest = 16;
    w->duration_width = 7;
    for (size_t i = 0; i < w->n; i++) {
        const struct span *s = w->nodes[i].span;
        char duration[TERM_DURATION_SIZE];
        size_t n = term_width(str_from(term_duration(duration, span_duration_ns(s))));
        w->duration_width = n > w->duration_width ? n : w->duration_width;
        size_t parent = w->nodes[i].parent;
        bool known = parent != NONE && str_eq(s->resource->service_name,
                                              w->nodes[parent].span->resource->service_name);
        n = 3 * depth_of(w, i) + term_width(s->name) +
            (known ? 0 : 2 + term_width(s->resource->service_name)) + (w->nodes[i].orphan ? 18 : 0);
        widest = n > widest ? n : widest;
    }
    size_t total = w->options->term.width, gaps = 2 + 2 + 3;
    size_t left = total > w->duration_width + gaps + 20 ? total - w->duration_width - gaps : 20;
    size_t tree_max = left * 11 / 20;
    w->tree_width = widest < tree_max ? widest : tree_max;
    w->bar_width = left - w->tree_width;
    /* Where not all fits, of a deep tree the lower levels are shown, and as many as leave room for
     * a name. */
    size_t room = w->tree_width > NAME_WIDTH_MIN ? (w->tree_width - NAME_WIDTH_MIN) / 3 : 0;
    w->depth_shown = widest > tree_max && room < DEPTH_SHOWN_MAX ? room : DEPTH_SHOWN_MAX;
}

static size_t count_services(const struct waterfall *w)
{
    /* A handful in nearly every trace. */
    size_t n = 0;
    for (size_t i = 0; i < w->n && n < 100; i++) {
        size_t j = 0;
        while (j < i && !str_eq(w->nodes[i].span->resource->service_name,
                                w->nodes[j].span->resource->service_name))
            j++;
        n += j == i;
    }
    return n;
}

/* One of a row of short facts, which is broken where the terminal ends. */
static void put_fact(struct waterfall *w, size_t *used, const char *style, const char *format, ...)
    PRINTF_LIKE(4, 5);

static void put_fact(struct waterfall *w, size_t *used, const char *style, const char *format, ...)
{
    char text[96];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t n = term_width(str_from(text));
    const char *dot = w->options->term.utf8 ? " \xc2\xb7 " : ", ";
    if (*used && *used + 3 + n > w->options->term.width) {
        buf_byte(w->out, '\n');
        *used = 0;
    } else if (*used) {
        buf_cstr(w->out, dot);
        *used += 3;
    }
    buf_printf(w->out, "%s%s%s", style, text, term_style(&w->options->term, TERM_PLAIN));
    *used += n;
}

static void put_head(struct waterfall *w)
{
    const struct term *t = &w->options->term;
    const struct span *first = w->nodes[w->first].span;
    size_t errors = 0, orphans = 0;
    for (size_t i = 0; i < w->n; i++) {
        errors += w->nodes[i].span->status_code == STATUS_ERROR;
        orphans += w->nodes[i].orphan;
    }
    char id[2 * TRACE_ID_SIZE], time[TERM_TIME_SIZE], duration[TERM_DURATION_SIZE];
    hex_put(id, first->trace_id.bytes, TRACE_ID_SIZE);
    size_t services = count_services(w), n = w->n;
    if (w->options->whole) {
        n = (size_t)w->options->whole->spans;
        services = (size_t)w->options->whole->services;
        errors = (size_t)w->options->whole->errors;
        orphans = (size_t)w->options->whole->orphans;
    }
    const char *plain = term_style(t, TERM_PLAIN);
    buf_printf(w->out, "%strace %.*s%s\n%s", term_style(t, TERM_DIM), (int)sizeof id, id, plain,
               term_style(t, TERM_BOLD));
    term_text(w->out, first->name, t->width - 10);
    buf_printf(w->out, "%s\n", plain);
    size_t used = 0;
    put_fact(w, &used, plain, "%s", term_time(time, w->start_ns, true));
    put_fact(w, &used, plain, "%s", term_duration(duration, w->end_ns - w->start_ns));
    put_fact(w, &used, plain, "%zu %s", n, n == 1 ? "span" : "spans");
    put_fact(w, &used, plain, "%zu %s", services, services == 1 ? "service" : "services");
    if (errors)
        put_fact(w, &used, term_style(t, TERM_RED), "%zu %s", errors,
                 errors == 1 ? "error" : "errors");
    if (orphans)
        put_fact(w, &used, plain, "%zu %s", orphans,
                 orphans == 1 ? "span without its parent" : "spans without their parents");
    buf_cstr(w->out, "\n\n");
}

int waterfall_put(const struct span_batch *batch, const struct waterfall_options *options,
                  struct arena *arena, struct buf *out)
{
    struct waterfall w = {.options = options, .out = out};
    int err = tree_build(&w, batch, arena);
    if (err)
        return err;
    if (options->whole) {
        w.start_ns = options->whole->start_ns;
        w.end_ns = options->whole->end_ns;
    }
    measure(&w);
    put_head(&w);
    err = put_rows(&w, arena);
    if (!err && options->whole) {
        if (w.shown < options->whole->lines)
            buf_printf(out,
                       "\nand %llu more lines; --depth N folds, --max-rows N and --all show more\n",
                       (unsigned long long)(options->whole->lines - w.shown));
    } else if (!err && w.shown < w.n)
        buf_printf(out, "\nand %zu more spans; --all shows them\n", w.n - w.shown);
    return err;
}
