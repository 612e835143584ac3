/* A query on one trace, whole: what the stages mean, and the reference that every faster way has to
 * agree with.
 *
 * Structure is decided in one pass for each operator. `order` lists the spans so that each stands
 * after its parent; what is known of ancestors is passed down along it, what is known of descendants
 * up against it. So `{ } >> { }` costs as much as `{ } && { }`, also in a trace of a million spans
 * that is one long chain. */
#include "base/hash.h"
#include "query/traceql_eval.h"

#include <math.h>

/* ---- the tree ---- */

struct by_id {
    uint32_t *slots; /* place + 1 */
    size_t mask;
    const struct span *spans;
};

static uint32_t *id_slot(const struct by_id *t, const struct span_id *id)
{
    size_t i = hash_bytes_seed(id->bytes, SPAN_ID_SIZE, hash_secret()) & t->mask;
    while (t->slots[i] && memcmp(t->spans[t->slots[i] - 1].span_id.bytes, id->bytes, SPAN_ID_SIZE))
        i = (i + 1) & t->mask;
    return &t->slots[i];
}

static int parents_find(struct traceql_tree *tree, struct arena *arena)
{
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)tree->n)
        n_slots *= 2;
    struct by_id ids = {arena_zalloc(arena, n_slots * sizeof *ids.slots), n_slots - 1, tree->spans};
    if (!ids.slots)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < tree->n; i++) {
        uint32_t *slot = id_slot(&ids, &tree->spans[i].span_id);
        if (!*slot)
            *slot = i + 1;
    }
    for (uint32_t i = 0; i < tree->n; i++) {
        const struct span_id *parent = &tree->spans[i].parent_id;
        uint32_t place = span_id_is_zero(parent) ? 0 : *id_slot(&ids, parent);
        tree->parent[i] = place && place - 1 != i ? place - 1 : TRACEQL_NO_PARENT;
    }
    return 0;
}

/* Spans that are their own ancestors: the first of each circle lets go of its parent. `seen` holds
 * zeros. */
static void circles_break(struct traceql_tree *tree, uint32_t *seen)
{
    for (uint32_t i = 0; i < tree->n; i++) {
        uint32_t at = i;
        while (at != TRACEQL_NO_PARENT && !seen[at]) {
            seen[at] = i + 1;
            at = tree->parent[at];
        }
        if (at == TRACEQL_NO_PARENT || seen[at] != i + 1)
            continue;
        uint32_t first = at;
        for (uint32_t other = tree->parent[at]; other != at; other = tree->parent[other])
            first = other < first ? other : first;
        tree->parent[first] = TRACEQL_NO_PARENT;
    }
}

/* The order, and the numbers: depth first, children in the order of their places. */
static void number(struct traceql_tree *tree, uint32_t *first_child, uint32_t *sibling)
{
    uint32_t n = tree->n, first_root = TRACEQL_NO_PARENT;
    for (uint32_t i = 0; i < n; i++)
        first_child[i] = TRACEQL_NO_PARENT;
    for (uint32_t i = n; i-- > 0;) {
        uint32_t parent = tree->parent[i];
        uint32_t *list = parent == TRACEQL_NO_PARENT ? &first_root : &first_child[parent];
        sibling[i] = *list;
        *list = i;
        if (parent != TRACEQL_NO_PARENT)
            tree->children[parent]++;
    }
    uint32_t next = 1, k = 0;
    for (uint32_t at = first_root; at != TRACEQL_NO_PARENT;) {
        tree->order[k++] = at;
        tree->left[at] = next++;
        if (first_child[at] != TRACEQL_NO_PARENT) {
            at = first_child[at];
            continue;
        }
        for (;;) {
            tree->right[at] = next++;
            uint32_t parent = tree->parent[at];
            if (sibling[at] != TRACEQL_NO_PARENT) {
                at = sibling[at];
                break;
            }
            at = parent;
            if (at == TRACEQL_NO_PARENT)
                return;
        }
    }
}

int traceql_tree_init(struct traceql_tree *tree, const struct span *spans, size_t n,
                      struct arena *arena)
{
    if (n >= UINT32_MAX / 2)
        return ERR_TOO_LARGE;
    uint32_t *rooms[5], *work[2];
    for (int i = 0; i < 7; i++) {
        uint32_t *room = arena_array(arena, n + 1, sizeof *room);
        if (!room)
            return ERR_NOMEM;
        *(i < 5 ? &rooms[i] : &work[i - 5]) = room;
    }
    *tree = (struct traceql_tree){.spans = spans,
                                  .n = (uint32_t)n,
                                  .parent = rooms[0],
                                  .order = rooms[1],
                                  .left = rooms[2],
                                  .right = rooms[3],
                                  .children = rooms[4]};
    memset(tree->children, 0, n * sizeof *tree->children);
    memset(work[0], 0, n * sizeof *work[0]);
    int err = parents_find(tree, arena);
    if (err)
        return err;
    circles_break(tree, work[0]);
    number(tree, work[0], work[1]);
    return 0;
}

/* ---- running ---- */

/* What the groups of one by() may take: a byte for each span and group. */
#define BY_BYTES_MAX ((size_t)256 << 20)

struct runner {
    const struct traceql_trace *trace;
    const struct traceql_tree *tree;
    /* What the filters say is known already; NULL: the spans are looked at. */
    const struct traceql_columns *columns;
    const uint8_t *marks; /* by span, a bit for each of these filters */
    struct arena *arena;
    bool failed;    /* no memory */
    bool too_large; /* and why: BY_BYTES_MAX */
};

struct sets {
    struct traceql_spans *items;
    size_t n, cap;
};

static void *room(struct runner *r, size_t n, size_t size)
{
    void *made = arena_array(r->arena, n + 1, size);
    r->failed |= !made;
    return made;
}

static void sets_add(struct runner *r, struct sets *sets, const struct traceql_spans *set)
{
    if (sets->n == sets->cap) {
        size_t cap = sets->cap ? 2 * sets->cap : 4;
        struct traceql_spans *more = room(r, cap, sizeof *more);
        if (!more)
            return;
        if (sets->n)
            memcpy(more, sets->items, sets->n * sizeof *more);
        sets->items = more;
        sets->cap = cap;
    }
    sets->items[sets->n++] = *set;
}

static size_t marked(const uint8_t *marks, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += marks[i];
    return count;
}

/* ---- structure ---- */

/* has[i]: the parent, or some ancestor, of span i is in `of`. */
static void look_up(const struct traceql_tree *tree, const uint8_t *of, bool far, uint8_t *has)
{
    for (uint32_t k = 0; k < tree->n; k++) {
        uint32_t i = tree->order[k], parent = tree->parent[i];
        has[i] = parent != TRACEQL_NO_PARENT && (of[parent] || (far && has[parent]));
    }
}

/* has[i]: a child, or some descendant, of span i is in `of`. */
static void look_down(const struct traceql_tree *tree, const uint8_t *of, bool far, uint8_t *has)
{
    memset(has, 0, tree->n);
    for (uint32_t k = tree->n; k-- > 0;) {
        uint32_t i = tree->order[k], parent = tree->parent[i];
        if (parent != TRACEQL_NO_PARENT)
            has[parent] |= of[i] || (far && has[i]);
    }
}

/* has[i]: another child of the parent of span i is in `of`. `counts` is work space. */
static void look_beside(const struct traceql_tree *tree, const uint8_t *of, uint32_t *counts,
                        uint8_t *has)
{
    memset(counts, 0, tree->n * sizeof *counts);
    for (uint32_t i = 0; i < tree->n; i++)
        if (tree->parent[i] != TRACEQL_NO_PARENT)
            counts[tree->parent[i]] += of[i];
    for (uint32_t i = 0; i < tree->n; i++)
        has[i] = tree->parent[i] != TRACEQL_NO_PARENT && counts[tree->parent[i]] > of[i];
}

enum { RELATIONS = TRACEQL_NOT_CHILD - TRACEQL_CHILD };

/* `relation` is one of the first block of operators. */
static void look(struct runner *r, uint8_t relation, const uint8_t *of, uint8_t *has)
{
    const struct traceql_tree *tree = r->tree;
    uint32_t *counts;
    switch (relation) {
    case TRACEQL_CHILD:
    case TRACEQL_DESCENDANT:
        look_up(tree, of, relation == TRACEQL_DESCENDANT, has);
        break;
    case TRACEQL_PARENT:
    case TRACEQL_ANCESTOR:
        look_down(tree, of, relation == TRACEQL_ANCESTOR, has);
        break;
    default:
        counts = room(r, tree->n, sizeof *counts);
        if (counts)
            look_beside(tree, of, counts, has);
    }
}

static uint8_t inverse(uint8_t relation)
{
    switch (relation) {
    case TRACEQL_CHILD:
        return TRACEQL_PARENT;
    case TRACEQL_PARENT:
        return TRACEQL_CHILD;
    case TRACEQL_DESCENDANT:
        return TRACEQL_ANCESTOR;
    case TRACEQL_ANCESTOR:
        return TRACEQL_DESCENDANT;
    default:
        return relation;
    }
}

/* The result in `left`, which is also an operand. */
static void structure(struct runner *r, uint8_t op, uint8_t *left, const uint8_t *right)
{
    uint32_t n = r->tree->n;
    bool negated = op >= TRACEQL_NOT_CHILD && op < TRACEQL_UNION_CHILD;
    bool both = op >= TRACEQL_UNION_CHILD;
    uint8_t relation = (uint8_t)((op - TRACEQL_CHILD) % RELATIONS + TRACEQL_CHILD);
    uint8_t *has = room(r, n, 1), *back = both ? room(r, n, 1) : has;
    if (!has || !back)
        return;
    look(r, relation, left, has);
    if (both)
        look(r, inverse(relation), right, back);
    for (uint32_t i = 0; i < n && !r->failed; i++)
        left[i] = (right[i] && has[i] != negated) || (both && left[i] && back[i]);
}

static void run_stages(struct runner *r, const struct traceql_stage *s, struct sets *sets);

static void known_filter(struct runner *r, const struct traceql_spanset *s, const uint8_t *input,
                         uint8_t *marks)
{
    unsigned bit = 0;
    while (r->columns->filters[bit] != s)
        bit++;
    for (uint32_t i = 0; i < r->tree->n; i++)
        marks[i] = input[i] & (r->marks[i] >> bit & 1);
}

/* Those of `input` that the expression means; returns marks of its own. */
static uint8_t *run_spanset(struct runner *r, const struct traceql_spanset *s, const uint8_t *input)
{
    uint32_t n = r->tree->n;
    if (s->op == TRACEQL_FILTER) {
        uint8_t *marks = room(r, n, 1);
        if (marks && r->columns) {
            known_filter(r, s, input, marks);
            return marks;
        }
        for (uint32_t i = 0; marks && i < n; i++)
            marks[i] = input[i] && traceql_match(s->condition, &r->tree->spans[i], r->trace);
        return marks;
    }
    if (s->op == TRACEQL_SPANSET_PIPELINE) {
        uint8_t *marks = arena_zalloc(r->arena, n + 1);
        struct sets sets = {0};
        struct traceql_spans set = {.marks = (uint8_t *)(uintptr_t)input, .n = marked(input, n)};
        r->failed |= !marks;
        if (set.n)
            sets_add(r, &sets, &set);
        run_stages(r, s->stages, &sets);
        for (size_t k = 0; marks && k < sets.n; k++)
            for (uint32_t i = 0; i < n; i++)
                marks[i] |= sets.items[k].marks[i];
        return marks;
    }
    uint8_t *left = run_spanset(r, s->left, input);
    uint8_t *right = left ? run_spanset(r, s->right, input) : NULL;
    if (!right)
        return NULL;
    if (s->op >= TRACEQL_CHILD) {
        structure(r, s->op, left, right);
        return left;
    }
    if (s->op == TRACEQL_SPANSET_AND && (!marked(left, n) || !marked(right, n))) {
        memset(left, 0, n);
        return left;
    }
    for (uint32_t i = 0; i < n; i++)
        left[i] |= right[i];
    return left;
}

/* ---- aggregates ---- */

static bool is_less(const struct value *a, const struct value *b)
{
    return traceql_compare(TRACEQL_LT, a, b, NULL);
}

static void aggregate(struct runner *r, const struct traceql_scalar *s, const uint8_t *marks,
                      struct value *ret)
{
    size_t n = 0;
    struct value sum = {.type = VALUE_INT};
    *ret = (struct value){.type = VALUE_NONE};
    for (uint32_t i = 0; i < r->tree->n; i++) {
        struct traceql_hex hex;
        struct value v;
        if (!marks[i])
            continue;
        traceql_value(s->field, &r->tree->spans[i], r->trace, &hex, &v);
        if (v.type != VALUE_INT && v.type != VALUE_DOUBLE)
            continue;
        if (!n++ || (s->node == TRACEQL_SCALAR_MIN ? is_less(&v, ret) : is_less(ret, &v)))
            *ret = v;
        (void)traceql_arithmetic(TRACEQL_ADD, &sum, &v, &sum);
    }
    if (s->node == TRACEQL_SCALAR_MIN || s->node == TRACEQL_SCALAR_MAX || !n)
        return;
    *ret = sum;
    struct value count = {.type = VALUE_INT, .integer = (int64_t)n};
    if (s->node == TRACEQL_SCALAR_AVG)
        (void)traceql_arithmetic(TRACEQL_DIV, &sum, &count, ret);
}

/* VALUE_NONE: there is no such number. The spans that were counted in pipelines of its own are added
 * to `used`, which is NULL when there are none. */
static void run_scalar(struct runner *r, const struct traceql_scalar *s, const uint8_t *marks,
                       uint8_t *used, struct value *ret)
{
    *ret = (struct value){.type = VALUE_NONE};
    switch ((enum traceql_scalar_type)s->node) {
    case TRACEQL_SCALAR_LITERAL:
        *ret = s->literal;
        return;
    case TRACEQL_SCALAR_COUNT:
        *ret = (struct value){.type = VALUE_INT, .integer = (int64_t)marked(marks, r->tree->n)};
        return;
    case TRACEQL_SCALAR_PIPELINE: {
        struct traceql_spanset whole = {.op = TRACEQL_SPANSET_PIPELINE, .stages = s->stages};
        uint8_t *own = run_spanset(r, &whole, marks);
        if (!own)
            return;
        for (uint32_t i = 0; i < r->tree->n; i++)
            used[i] |= own[i];
        run_scalar(r, s->right, own, used, ret);
        return;
    }
    case TRACEQL_SCALAR_UNARY:
    case TRACEQL_SCALAR_BINARY: {
        struct value left = {.type = VALUE_NONE}, right, result;
        if (s->left)
            run_scalar(r, s->left, marks, used, &left);
        run_scalar(r, s->right, marks, used, &right);
        if (traceql_arithmetic(s->op, s->left ? &left : NULL, &right, &result))
            *ret = result;
        return;
    }
    default:
        aggregate(r, s, marks, ret);
    }
}

static bool has_pipeline(const struct traceql_scalar *s)
{
    if (s->node == TRACEQL_SCALAR_PIPELINE)
        return true;
    return (s->left && has_pipeline(s->left)) || (s->right && has_pipeline(s->right));
}

/* The aggregates of a comparison become labels of the spanset. */
static void label(struct runner *r, struct traceql_spans *set, const struct traceql_label *add)
{
    struct traceql_label *labels = room(r, set->n_labels + 1, sizeof *labels);
    if (!labels)
        return;
    if (set->n_labels)
        memcpy(labels, set->labels, set->n_labels * sizeof *labels);
    labels[set->n_labels++] = *add;
    set->labels = labels;
}

static void run_check(struct runner *r, const struct traceql_stage *s, const struct sets *in,
                      struct sets *out)
{
    bool pipelines = has_pipeline(s->left) || has_pipeline(s->right);
    for (size_t k = 0; k < in->n && !r->failed; k++) {
        struct traceql_spans set = in->items[k];
        uint8_t *used = pipelines ? arena_zalloc(r->arena, r->tree->n + 1) : NULL;
        const struct traceql_scalar *sides[2] = {s->left, s->right};
        struct value values[2];
        if (pipelines && !used) {
            r->failed = true;
            return;
        }
        for (int i = 0; i < 2; i++)
            run_scalar(r, sides[i], set.marks, used, &values[i]);
        if (!traceql_compare(s->op, &values[0], &values[1], NULL))
            continue;
        if (pipelines) {
            set.marks = used;
            set.n = marked(used, r->tree->n);
        }
        for (int i = 0; i < 2; i++)
            if (sides[i]->node != TRACEQL_SCALAR_LITERAL)
                label(r, &set, &(struct traceql_label){.scalar = sides[i], .value = values[i]});
        if (set.n)
            sets_add(r, out, &set);
    }
}

/* ---- by() ---- */

static bool same_value(const struct value *a, const struct value *b)
{
    if (a->type == VALUE_NONE || b->type == VALUE_NONE)
        return a->type == b->type;
    return traceql_compare(TRACEQL_EQ, a, b, NULL);
}

/* What groups can be told apart by; anything else is in the group without a value. */
static void group_value(struct runner *r, const struct traceql_expr *e, uint32_t i,
                        struct value *ret)
{
    struct traceql_hex hex;
    traceql_value(e, &r->tree->spans[i], r->trace, &hex, ret);
    if (ret->type == VALUE_DOUBLE && isnan(ret->real))
        ret->type = VALUE_NONE;
    if (ret->type > VALUE_DOUBLE)
        *ret = (struct value){.type = VALUE_NONE};
    if (ret->type == VALUE_STRING && ret->string.ptr == hex.text) {
        ret->string = arena_str(r->arena, ret->string);
        r->failed |= !ret->string.ptr;
    }
}

static uint64_t value_hash(const struct value *v)
{
    switch (v->type) {
    case VALUE_STRING:
        return hash_str(v->string);
    case VALUE_BOOL:
        return hash_mix64(v->boolean + 2);
    case VALUE_INT:
    case VALUE_DOUBLE: { /* equal ones alike */
        double d = v->type == VALUE_INT ? (double)v->integer : v->real;
        return d > -0x1p62 && d < 0x1p62 ? hash_mix64((uint64_t)(int64_t)d) : 7;
    }
    default:
        return 1;
    }
}

static void run_by(struct runner *r, const struct traceql_expr *by, const struct sets *in,
                   struct sets *out)
{
    uint32_t n = r->tree->n;
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)n)
        n_slots *= 2;
    for (size_t k = 0; k < in->n && !r->failed; k++) {
        const struct traceql_spans *set = &in->items[k];
        size_t *slots = arena_zalloc(r->arena, n_slots * sizeof *slots);
        r->failed |= !slots;
        for (uint32_t i = 0; i < n && !r->failed; i++) {
            struct value v;
            if (!set->marks[i])
                continue;
            group_value(r, by, i, &v);
            size_t at = value_hash(&v) & (n_slots - 1);
            while (slots[at] &&
                   !same_value(&out->items[slots[at] - 1].labels[set->n_labels].value, &v))
                at = (at + 1) & (n_slots - 1);
            if (!slots[at]) {
                struct traceql_spans group = {.marks = arena_zalloc(r->arena, n + 1),
                                              .labels = set->labels,
                                              .n_labels = set->n_labels};
                r->failed |= !group.marks;
                r->too_large |= (out->n + 1) * n > BY_BYTES_MAX;
                r->failed |= r->too_large;
                label(r, &group, &(struct traceql_label){.by = by, .value = v});
                if (r->failed)
                    return;
                sets_add(r, out, &group);
                slots[at] = out->n;
            }
            if (r->failed)
                return;
            out->items[slots[at] - 1].marks[i] = 1;
            out->items[slots[at] - 1].n++;
        }
    }
}

/* ---- stages ---- */

static void run_coalesce(struct runner *r, const struct sets *in, struct sets *out)
{
    struct traceql_spans all = {.marks = arena_zalloc(r->arena, r->tree->n + 1)};
    if (!all.marks) {
        r->failed = true;
        return;
    }
    for (size_t k = 0; k < in->n; k++)
        for (uint32_t i = 0; i < r->tree->n; i++)
            all.marks[i] |= in->items[k].marks[i];
    all.n = marked(all.marks, r->tree->n);
    if (all.n)
        sets_add(r, out, &all);
}

static void run_stage(struct runner *r, const struct traceql_stage *s, const struct sets *in,
                      struct sets *out)
{
    switch ((enum traceql_stage_type)s->type) {
    case TRACEQL_STAGE_SPANSET:
        for (size_t k = 0; k < in->n && !r->failed; k++) {
            struct traceql_spans set = in->items[k];
            set.marks = run_spanset(r, s->spanset, set.marks);
            set.n = set.marks ? marked(set.marks, r->tree->n) : 0;
            if (set.n)
                sets_add(r, out, &set);
        }
        return;
    case TRACEQL_STAGE_SCALAR:
        run_check(r, s, in, out);
        return;
    case TRACEQL_STAGE_BY:
        run_by(r, s->fields[0], in, out);
        return;
    case TRACEQL_STAGE_COALESCE:
        run_coalesce(r, in, out);
        return;
    case TRACEQL_STAGE_SELECT:
        *out = *in;
        return;
    }
}

static void run_stages(struct runner *r, const struct traceql_stage *s, struct sets *sets)
{
    for (; s && sets->n && !r->failed; s = s->next) {
        struct sets out = {0};
        run_stage(r, s, sets, &out);
        *sets = out;
    }
}

int traceql_run(const struct traceql_stage *stages, const struct traceql_trace *trace,
                const uint8_t *input, struct arena *arena, struct traceql_spans **ret_sets,
                size_t *ret_n)
{
    struct runner r = {.trace = trace, .tree = trace->tree, .arena = arena};
    struct sets sets = {0};
    struct traceql_spans all = {.marks = room(&r, r.tree->n, 1)};
    if (!all.marks)
        return ERR_NOMEM;
    if (input)
        memcpy(all.marks, input, r.tree->n);
    else
        memset(all.marks, 1, r.tree->n);
    all.n = marked(all.marks, r.tree->n);
    if (all.n)
        sets_add(&r, &sets, &all);
    run_stages(&r, stages, &sets);
    if (r.failed)
        return r.too_large ? ERR_TOO_LARGE : ERR_NOMEM;
    *ret_sets = sets.items;
    *ret_n = sets.n;
    return 0;
}

/* ---- from columns ---- */

/* An order in which each span stands after its parent. Spans come by start: mostly that is one. */
static int columns_tree(struct traceql_tree *tree, uint32_t n, const uint32_t *parents,
                        struct arena *arena)
{
    uint32_t *rooms[6];
    bool in_order = true;
    for (uint32_t i = 0; i < n; i++)
        in_order &= parents[i] < i || parents[i] == TRACEQL_NO_PARENT;
    for (int i = 0; i < (in_order ? 2 : 6); i++)
        if (!(rooms[i] = arena_array(arena, n + 1, sizeof *rooms[i])))
            return ERR_NOMEM;
    *tree = (struct traceql_tree){.n = n, .parent = rooms[0], .order = rooms[1]};
    memcpy(tree->parent, parents, n * sizeof *parents);
    if (in_order) {
        for (uint32_t i = 0; i < n; i++)
            tree->order[i] = i;
        return 0;
    }
    uint32_t *work[2];
    for (int i = 0; i < 2; i++)
        if (!(work[i] = arena_array(arena, n + 1, sizeof *work[i])))
            return ERR_NOMEM;
    tree->left = rooms[2];
    tree->right = rooms[3];
    tree->children = rooms[4];
    memset(tree->children, 0, n * sizeof *tree->children);
    memset(work[0], 0, n * sizeof *work[0]);
    circles_break(tree, work[0]);
    number(tree, work[0], work[1]);
    return 0;
}

int traceql_columns_run(const struct traceql_columns *columns, uint32_t n, const uint8_t *marks,
                        const uint32_t *parents, struct arena *arena, uint64_t *ret)
{
    struct traceql_tree tree;
    struct traceql_trace trace = {.tree = &tree};
    int err = columns_tree(&tree, n, parents, arena);
    if (err)
        return err;
    struct runner r = {
        .trace = &trace, .tree = &tree, .columns = columns, .marks = marks, .arena = arena};
    struct sets sets = {0};
    struct traceql_spans all = {.marks = room(&r, n, 1), .n = n};
    if (!all.marks)
        return ERR_NOMEM;
    memset(all.marks, 1, n);
    sets_add(&r, &sets, &all);
    run_stages(&r, columns->stages, &sets);
    if (r.failed)
        return ERR_NOMEM;
    *ret = 0;
    for (size_t i = 0; i < sets.n; i++)
        *ret += sets.items[i].n;
    return 0;
}
