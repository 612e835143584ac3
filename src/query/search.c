/* A search keeps the best `k` traces (one more than the limit, to know whether there are more)
 * while it scans.
 *
 * The order is by the start of the whole trace, but a row tells only of one span, and of the part
 * of the trace that lies in one part of the store; the trace may have begun earlier elsewhere. So a
 * candidate has a bound: its trace starts at `bound_ns` or before. When enough candidates came
 * together, `prune` settles them in the order of their bounds, latest first: it asks the store for
 * the real start (and, when the plan is not exact, looks at the spans) until `k` are settled and
 * start no earlier than the next bound. Then nothing among the rest can be better.
 *
 * Invariants after prune:
 *   1. at most k candidates, all settled;
 *   2. with k of them, no trace seen so far and dropped is better than the worst of them, and as
 * the worst only gets better, none ever will be: it may come back and be dropped again, but is
 *      never in the result;
 *   3. a span that starts before the worst start belongs to a trace that is worse: the scan's lower
 *      bound may be raised to it. All spans of the k start at or after it, so that their counts
 *      stay complete.
 *
 * A search that goes on behind a place (`after`) settles the traces before it too, only to leave them
 * out: a later page costs a summary for each trace of the earlier ones, but never their spans. */
#include "query/search.h"

#include "base/clock.h"
#include "base/hash.h"
#include <pugmark/pugmark.h>

#include <stdlib.h>

#define UNSETTLED_MIN 1024 /* candidates that there is room for at least */
#define CLOCK_EVERY 1024   /* rows between two looks at the clock */

struct candidate {
    struct trace_id id;
    uint64_t bound_ns; /* the trace starts here or earlier */
    uint64_t start_ns; /* settled: its start */
    uint64_t matched;
    bool settled;
};

struct searcher {
    const struct search *search;
    struct store_view *view; /* scanned, and asked for traces meanwhile */
    bool exact;
    const struct traceql_columns
        *columns; /* what is settled without looking at spans; NULL: nothing */
    size_t k;
    uint64_t deadline_ns;
    uint64_t traces_read, traces_settled;
    unsigned until_clock;
    struct arena scratch; /* of one candidate */

    struct candidate *candidates;
    size_t n, capacity, n_unsettled, unsettled_max;
    size_t
        prune_at; /* so many unsettled ones: k at first, for the bound; then twice as many each time */
    uint32_t *slots; /* by hash of the id: index + 1; 0: free */
    size_t n_slots;  /* a power of two, at least twice the capacity */
};

/* ---- candidates ---- */

static bool better(const struct candidate *a, const struct candidate *b)
{
    if (a->start_ns != b->start_ns)
        return a->start_ns > b->start_ns;
    return trace_id_cmp(&a->id, &b->id) < 0;
}

/* Whether the search, which goes on behind a place, wants a trace with this start. */
static bool is_wanted(const struct searcher *s, const struct candidate *c)
{
    const struct search_place *after = s->search->after;
    if (!after)
        return true;
    const struct candidate last = {.start_ns = after->start_ns, .id = after->id};
    return better(&last, c);
}

static uint32_t *slot_of(struct searcher *s, const struct trace_id *id)
{
    size_t i = hash_bytes_seed(id->bytes, TRACE_ID_SIZE, hash_secret()) & (s->n_slots - 1);
    while (s->slots[i] && trace_id_cmp(&s->candidates[s->slots[i] - 1].id, id))
        i = (i + 1) & (s->n_slots - 1);
    return &s->slots[i];
}

static void slots_fill(struct searcher *s)
{
    memset(s->slots, 0, s->n_slots * sizeof *s->slots);
    for (size_t i = 0; i < s->n; i++)
        *slot_of(s, &s->candidates[i].id) = (uint32_t)i + 1;
}

static int searcher_init(struct searcher *s)
{
    s->unsettled_max = 4 * s->k > UNSETTLED_MIN ? 4 * s->k : UNSETTLED_MIN;
    s->capacity = s->k + s->unsettled_max;
    s->prune_at = s->k;
    s->n_slots = 1;
    while (s->n_slots < 2 * s->capacity)
        s->n_slots *= 2;
    s->candidates = calloc(s->capacity, sizeof *s->candidates);
    s->slots = calloc(s->n_slots, sizeof *s->slots);
    return s->candidates && s->slots ? 0 : ERR_NOMEM;
}

static void searcher_done(struct searcher *s)
{
    free(s->candidates);
    free(s->slots);
    arena_done(&s->scratch);
}

/* ---- looking at a whole trace ---- */

static bool in_time(const struct search *search, uint64_t start_ns)
{
    return start_ns >= search->start_min_ns &&
           (search->start_max_ns == 0 || start_ns <= search->start_max_ns);
}

/* Everything of `ret` but the names in `trace`. */
static int spans_find(struct store_view *view, const struct search *search,
                      const struct trace_id *id, struct arena *arena, struct search_spans *ret)
{
    struct span_batch *batch = &ret->batch;
    size_t n_input = 0;
    int err = store_trace(view, id, arena, batch);
    if (err)
        return err;
    err = traceql_tree_init(&ret->tree, batch->spans, batch->n, arena);
    uint8_t *input = err ? NULL : arena_alloc(arena, batch->n + 1);
    if (!err && !input)
        err = ERR_NOMEM;
    if (err)
        return err;
    for (size_t i = 0; i < batch->n; i++) {
        input[i] = in_time(search, batch->spans[i].start_ns) &&
                   (!search->where || predicate_match(search->where, &batch->spans[i]));
        n_input += input[i];
    }
    ret->trace.tree = &ret->tree;
    ret->sets = NULL;
    ret->n_sets = 0;
    if (search->query)
        return traceql_run(search->query->stages, &ret->trace, input, arena, &ret->sets,
                           &ret->n_sets);
    if (!n_input)
        return 0;
    ret->sets = arena_zalloc(arena, sizeof *ret->sets);
    if (!ret->sets)
        return ERR_NOMEM;
    ret->sets->marks = input;
    ret->sets->n = n_input;
    ret->n_sets = 1;
    return 0;
}

static struct traceql_trace trace_of(const struct trace_summary *summary)
{
    return (struct traceql_trace){
        .root_name = summary->root_name,
        .root_service = summary->root_service,
        .duration_ns = summary->end_ns > summary->start_ns ? summary->end_ns - summary->start_ns
                                                           : 0,
    };
}

int search_spans(struct store_view *view, const struct search *search,
                 const struct trace_summary *summary, struct arena *arena, struct search_spans *ret)
{
    *ret = (struct search_spans){.trace = trace_of(summary)};
    return spans_find(view, search, &summary->id, arena, ret);
}

/* How many spans of the trace the query finds. */
static int trace_count(struct searcher *s, const struct trace_id *id,
                       const struct traceql_trace *trace, uint64_t *ret)
{
    struct search_spans spans = {.trace = *trace};
    int err = spans_find(s->view, s->search, id, &s->scratch, &spans);
    s->traces_read += !err;
    *ret = 0;
    for (size_t i = 0; !err && i < spans.n_sets; i++)
        *ret += spans.sets[i].n;
    return err;
}

/* A trace that the store cannot read is not found; the others are. */
static int left_out(struct candidate *c, int err)
{
    if (err != ERR_CORRUPT)
        return err;
    c->settled = true;
    c->matched = 0;
    return 0;
}

/* Finds the real start and, where the scan could not tell, the count; `matched` may become 0. */
static int settle(struct searcher *s, struct candidate *c)
{
    struct trace_summary summary;
    arena_reset(&s->scratch);
    int err = store_trace_summary(s->view, &c->id, &s->scratch, &summary);
    if (err)
        return left_out(c, err);
    c->start_ns = summary.start_ns;
    c->settled = true;
    s->traces_settled++;
    if (!is_wanted(s, c)) {
        c->matched = 0;
        return 0;
    }
    if (s->exact)
        return 0;
    struct traceql_trace trace = trace_of(&summary);
    if (traceql_excludes(s->search->query->stages, &trace, &s->scratch)) {
        c->matched = 0;
        return 0;
    }
    err = trace_count(s, &c->id, &trace, &c->matched);
    return err ? left_out(c, err) : 0;
}

/* ---- keeping the best ---- */

static int later_bound_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    uint64_t at_x = x->settled ? x->start_ns : x->bound_ns;
    uint64_t at_y = y->settled ? y->start_ns : y->bound_ns;
    if (at_x != at_y)
        return at_x > at_y ? -1 : 1;
    return trace_id_cmp(&x->id, &y->id);
}

static int better_first(const void *a, const void *b)
{
    return better(a, b) ? -1 : better(b, a);
}

/* `heap` has its worst on top. */
static void heap_down(struct candidate *heap, size_t n, size_t i)
{
    for (;;) {
        size_t worst = i, left = 2 * i + 1, right = left + 1;
        if (left < n && better(&heap[worst], &heap[left]))
            worst = left;
        if (right < n && better(&heap[worst], &heap[right]))
            worst = right;
        if (worst == i)
            return;
        struct candidate swap = heap[i];
        heap[i] = heap[worst];
        heap[worst] = swap;
        i = worst;
    }
}

static bool is_late(const struct searcher *s)
{
    return s->deadline_ns && clock_monotonic_ns() > s->deadline_ns;
}

/* Keeps the best k; raises the scan's lower bound when there are as many. */
static int prune(struct searcher *s, struct scan *scan)
{
    if (s->n)
        qsort(s->candidates, s->n, sizeof *s->candidates, later_bound_first);
    /* The heap grows in place: it never holds more than what was looked at. */
    struct candidate *heap = s->candidates;
    size_t n_heap = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct candidate c = s->candidates[i];
        uint64_t bound_ns = c.settled ? c.start_ns : c.bound_ns;
        if (n_heap == s->k && bound_ns < heap[0].start_ns)
            break;
        if (!c.settled) {
            if (is_late(s))
                return ERR_TIMEOUT;
            int err = settle(s, &c);
            if (err)
                return err;
        }
        if (c.matched == 0 || !is_wanted(s, &c))
            continue;
        if (n_heap < s->k) {
            heap[n_heap++] = c;
            if (n_heap == s->k)
                for (size_t j = s->k / 2 + 1; j-- > 0;)
                    heap_down(heap, n_heap, j);
        } else if (better(&c, &heap[0])) {
            heap[0] = c;
            heap_down(heap, n_heap, 0);
        }
    }
    s->n = n_heap;
    s->n_unsettled = 0;
    s->prune_at = 2 * s->prune_at < s->unsettled_max ? 2 * s->prune_at : s->unsettled_max;
    slots_fill(s);
    if (n_heap == s->k && heap[0].start_ns > scan->start_min_ns)
        scan->start_min_ns = heap[0].start_ns;
    return 0;
}

static int take_row(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct searcher *s = arg;
    if (s->until_clock-- == 0) {
        s->until_clock = CLOCK_EVERY;
        if (is_late(s))
            return ERR_TIMEOUT;
    }
    uint64_t bound_ns = row->trace_start_ns < row->start_ns ? row->trace_start_ns : row->start_ns;
    uint32_t *slot = slot_of(s, &row->trace_id);
    if (*slot) {
        struct candidate *c = &s->candidates[*slot - 1];
        if (bound_ns < c->bound_ns)
            c->bound_ns = bound_ns;
        if (s->exact || !c->settled)
            c->matched++;
        return 0;
    }
    s->candidates[s->n] =
        (struct candidate){.id = row->trace_id, .bound_ns = bound_ns, .matched = 1};
    *slot = (uint32_t)++s->n;
    return ++s->n_unsettled == s->prune_at ? prune(s, scan) : 0;
}

/* Of a trace that is whole where it was found, the columns tell all. */
static int take_match(void *arg, struct trace_match *match, const struct match_trace *trace)
{
    struct searcher *s = arg;
    struct candidate c = {.id = trace->id, .bound_ns = trace->start_ns, .matched = 1};
    if (s->until_clock-- == 0) {
        s->until_clock = CLOCK_EVERY;
        if (is_late(s))
            return ERR_TIMEOUT;
    }
    if (trace->is_whole) {
        c.start_ns = trace->start_ns;
        if (!is_wanted(s, &c))
            return 0;
        arena_reset(&s->scratch);
        int err = traceql_columns_run(s->columns, trace->n, trace->marks, trace->parents,
                                      &s->scratch, &c.matched);
        if (err || !c.matched)
            return err;
        c.settled = true;
    }
    uint32_t *slot = slot_of(s, &trace->id);
    if (*slot) {
        struct candidate *known = &s->candidates[*slot - 1];
        if (!known->settled && c.bound_ns < known->bound_ns)
            known->bound_ns = c.bound_ns;
        return 0;
    }
    s->candidates[s->n] = c;
    *slot = (uint32_t)++s->n;
    if (++s->n_unsettled < s->prune_at)
        return 0;
    struct scan scan = {.start_min_ns = match->start_min_ns};
    int err = prune(s, &scan);
    match->start_min_ns = scan.start_min_ns;
    return err;
}

static int search_columns(struct searcher *s, struct search_result *result)
{
    struct scan scan = {.start_min_ns = s->search->start_min_ns};
    struct trace_match match = {
        .filters = s->columns->predicates,
        .n_filters = s->columns->n,
        .wanted = s->columns->wanted,
        .start_min_ns = s->search->start_min_ns,
        .start_max_ns = s->search->start_max_ns,
    };
    int err = store_match(s->view, &match, take_match, s, &result->cost);
    return err ? err : prune(s, &scan);
}

/* ---- the whole ---- */

/* The predicates live no longer than the search. */
static int plan_keep(struct search_plan *plan, const struct predicate *const *columns, size_t n,
                     struct arena *arena)
{
    const struct predicate **kept = arena_array(arena, n, sizeof *kept);
    if (!kept)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        kept[i] = predicate_copy(columns[i], arena);
        if (!kept[i])
            return ERR_NOMEM;
    }
    plan->columns = kept;
    plan->n_columns = n;
    return 0;
}

static int run(struct searcher *s, struct arena *arena, struct search_result *result)
{
    const struct search *search = s->search;
    struct scan scan = {.start_min_ns = search->start_min_ns, .start_max_ns = search->start_max_ns};
    s->exact = true;
    struct trace_id id;
    struct traceql_columns columns;
    struct predicate both[2], joined = {.op = PREDICATE_AND, .children = both, .n_children = 2};
    scan.where = search->where;
    if (search->query) {
        const struct predicate *plan = traceql_predicate(search->query->stages, arena, &s->exact);
        if (!plan)
            return ERR_NOMEM;
        scan.where = plan;
        if (search->where) {
            both[0] = *search->where;
            both[1] = *plan;
            scan.where = &joined;
        }
    }
    int err = searcher_init(s);
    if (err)
        return err;
    result->plan.way = s->exact ? SEARCH_BY_SPANS : SEARCH_BY_TRACES;
    if (search->query && traceql_names_trace(search->query, &id)) {
        /* Nothing to look for: it says which. */
        s->exact = false;
        result->plan.way = SEARCH_BY_ID;
        s->candidates[s->n++] = (struct candidate){.id = id, .bound_ns = UINT64_MAX, .matched = 1};
        err = prune(s, &scan);
        if (err == ERR_NOT_FOUND) {
            s->n = 0;
            err = 0;
        }
    } else if (!s->exact && !search->by_traces &&
               traceql_columns(search->query->stages, search->where, arena, &columns)) {
        s->columns = &columns;
        result->plan.way = SEARCH_BY_COLUMNS;
        err = plan_keep(&result->plan, columns.predicates, columns.n, arena);
        if (!err)
            err = search_columns(s, result);
    } else {
        if (scan.where)
            err = plan_keep(&result->plan, &scan.where, 1, arena);
        if (err)
            return err;
        err = store_scan(s->view, &scan, take_row, s, &result->cost);
        if (!err)
            err = prune(s, &scan);
    }
    if (err)
        return err;
    if (s->n)
        qsort(s->candidates, s->n, sizeof *s->candidates, better_first);
    result->more = s->n > search->limit;
    result->n = result->more ? search->limit : s->n;
    result->traces = arena_array(arena, result->n, sizeof *result->traces);
    if (!result->traces)
        return ERR_NOMEM;
    size_t n = 0;
    for (size_t i = 0; i < result->n; i++) {
        result->traces[n].matched = s->candidates[i].matched;
        err = store_trace_summary(s->view, &s->candidates[i].id, arena, &result->traces[n].summary);
        if (err && err != ERR_CORRUPT)
            return err;
        n += !err;
    }
    result->n = n;
    result->traces_read = s->traces_read;
    result->plan.traces_settled = s->traces_settled;
    return 0;
}

int search_run(struct store_view *view, const struct search *search, struct arena *arena,
               struct search_result *ret_result, struct error_detail *ret_detail)
{
    if (search->limit < 1 || search->limit > SEARCH_LIMIT_MAX)
        return error_set(ret_detail, ERR_INVALID, 0, "expected a limit from 1 to %d",
                         SEARCH_LIMIT_MAX);
    if (search->query && search->query->metric)
        return error_set(ret_detail, ERR_INVALID, 0,
                         "this query gives series; a search needs one that gives traces");
    uint64_t start_ns = clock_monotonic_ns();
    struct searcher s = {
        .search = search,
        .view = view,
        .k = search->limit + 1,
        .deadline_ns = search->timeout_ns ? start_ns + search->timeout_ns : 0,
        .until_clock = CLOCK_EVERY,
    };
    struct search_result result = {0};
    struct pug_span span;
    pug_span_start(&span, "query.search", PUG_INT("limit", (int64_t)search->limit));
    int err = run(&s, arena, &result);
    searcher_done(&s);
    pug_set_int(&span, "rows", (int64_t)result.cost.rows_read);
    pug_set_int(&span, "traces.read", (int64_t)s.traces_read);
    pug_set_int(&span, "traces", (int64_t)result.n);
    if (err)
        pug_error(&span, err_name(err));
    pug_span_end(&span);
    if (err == ERR_TIMEOUT)
        return error_set(ret_detail, err, 0,
                         "the search took longer than %llu ms; ask for a shorter time range, or "
                         "name a service",
                         (unsigned long long)(search->timeout_ns / NS_PER_MS));
    if (err)
        return error_set(ret_detail, err, 0, "the search failed: %s", err_text(err));
    result.elapsed_ns = clock_monotonic_ns() - start_ns;
    *ret_result = result;
    return 0;
}
