/* Traces of a segment in which spans fulfil several predicates: store_match.
 *
 * Each group becomes a byte for each row, a bit in it for each predicate. Before that, what is known without
 * finding the rows (zones, dictionaries, values) says which bits there can be at all: where the set of these is
 * not wanted, no trace that is whole in the group is, and only traces that lie in several groups or parts are
 * looked for. These cannot be judged here, and are told with whatever they have. A predicate that no trace can do
 * without is asked first where it costs least: the others then look at the traces that have it. */
#include <string.h>

#include "store/local/match.h"
#include "store/local/segment_scan.h"

struct matcher {
    struct scanner sc;
    struct matching *m;
    unsigned possible; /* in the segment */
    /* Of the group. */
    uint8_t *marks;
    uint8_t *is_open; /* by trace: it may still be wanted */
    uint32_t *parents;
};

static int possible_in_segment(struct matcher *x)
{
    int err = 0;
    x->possible = 0;
    for (size_t k = 0; !err && k < x->m->match->n_filters; k++) {
        bool nothing;
        err = scanner_segment_excludes(&x->sc, &x->m->filters[k], &nothing);
        x->possible |= nothing ? 0 : 1u << k;
    }
    return err;
}

static int possible_in_group(struct matcher *x, unsigned *ret)
{
    int err = 0;
    *ret = 0;
    for (size_t k = 0; !err && k < x->m->match->n_filters; k++) {
        bool nothing;
        if (!(x->possible >> k & 1))
            continue;
        err = scanner_group_excludes(&x->sc, &x->m->filters[k], &nothing);
        *ret |= nothing ? 0 : 1u << k;
    }
    return err;
}

/* Trace k of the group lies also elsewhere, or may. */
static bool is_split(const struct matcher *x, uint32_t k)
{
    const struct scanner *sc = &x->sc;
    return (k == 0 && sc->first_is_cut) || (k + 1 == sc->n_traces && sc->last_is_cut) ||
           (x->m->shared->n &&
            shared_has(x->m->shared, segment_trace_hash(sc->trace_ids[k].bytes)));
}

static bool any_split(const struct matcher *x)
{
    const struct scanner *sc = &x->sc;
    bool any = sc->first_is_cut || sc->last_is_cut;
    for (uint32_t k = 0; !any && x->m->shared->n && k < sc->n_traces; k++)
        any = is_split(x, k);
    return any;
}

/* Leaves the rows of traces of which `own` has one, and of those that cannot be judged here. */
static void rows_of_traces(const struct matcher *x, const uint8_t *own, uint8_t *rows)
{
    const struct scanner *sc = &x->sc;
    const uint8_t *end = own + sc->kept->g.group->n, *at = own;
    uint32_t left = 0; /* the traces before are done */
    while (left < sc->n_traces) {
        const uint8_t *next = memchr(at, 1, (size_t)(end - at));
        uint32_t row = next ? (uint32_t)(next - own) : sc->trace_rows[sc->n_traces], from = left;
        while (left < sc->n_traces && sc->trace_rows[left + 1] <= row)
            left++;
        /* Those up to `left` have no row in `own`. */
        memset(x->is_open + from, 0, left - from);
        memset(rows + sc->trace_rows[from], 0, sc->trace_rows[left] - sc->trace_rows[from]);
        if (left < sc->n_traces)
            at = own + sc->trace_rows[++left];
    }
    for (uint32_t k = 0; k < sc->n_traces; k++) {
        if (k && k + 1 < sc->n_traces && !x->m->shared->n)
            k = sc->n_traces - 1; /* only the first and the last can lie elsewhere, too */
        if (is_split(x, k)) {
            x->is_open[k] = 1;
            memset(rows + sc->trace_rows[k], 1, sc->trace_rows[k + 1] - sc->trace_rows[k]);
        }
    }
}

/* Filter by filter, what costs least first. Once one that a trace must have was asked, the others need only look at
 * traces that have it. */
static int filters_mark(struct matcher *x, unsigned possible)
{
    struct scanner *sc = &x->sc;
    uint32_t n = sc->kept->g.group->n;
    uint8_t *own = arena_alloc(&sc->scratch, n), *rows = arena_alloc(&sc->scratch, n);
    if (!own || !rows)
        return ERR_NOMEM;
    memset(rows, 1, n);
    for (unsigned cost = 0; cost < SCANNER_COSTS; cost++)
        for (size_t k = 0; k < x->m->match->n_filters; k++) {
            if (!(possible >> k & 1) || scanner_cost(&x->m->filters[k]) != cost)
                continue;
            memcpy(own, rows, n);
            int err = scanner_narrow(sc, &x->m->filters[k], own);
            if (err)
                return err;
            for (uint32_t i = 0; i < n; i++)
                x->marks[i] |= (uint8_t)-own[i] & (uint8_t)(1u << k);
            if (x->m->match->wanted[possible & ~(1u << k)])
                continue;
            rows_of_traces(x, own, rows);
            if (!rows_any(rows, n))
                return 0;
        }
    return 0;
}

static int marks_make(struct matcher *x, unsigned possible)
{
    struct scanner *sc = &x->sc;
    const struct segment_group *g = sc->kept->g.group;
    const struct trace_match *match = x->m->match;
    x->marks = arena_zalloc(&sc->scratch, g->n);
    x->is_open = arena_alloc(&sc->scratch, sc->n_traces);
    if (!x->marks || !x->is_open)
        return ERR_NOMEM;
    memset(x->is_open, 1, sc->n_traces);
    int err = filters_mark(x, possible);
    bool is_inside = g->start_min >= match->start_min_ns &&
                     (!match->start_max_ns || g->start_max <= match->start_max_ns);
    if (err || is_inside)
        return err;
    err = scanner_starts(sc);
    for (uint32_t i = 0; !err && i < g->n; i++)
        if (sc->start[i] < match->start_min_ns ||
            (match->start_max_ns && sc->start[i] > match->start_max_ns))
            x->marks[i] = 0;
    return err;
}

static int parents_make(struct matcher *x, uint32_t first, uint32_t n)
{
    struct scanner *sc = &x->sc;
    const struct stream_view *parents;
    int err = group_view(sc->seg, sc->kept, FIXED_PARENT, &parents);
    for (uint32_t i = 0; !err && i < n; i++) {
        uint64_t place = stream_view_at(parents, first + i);
        bool none = place == 0 || place == SEGMENT_FOREIGN_PARENT || place == i + UINT64_C(1);
        if (!none && place > n)
            return segment_fail(sc->seg, ERR_CORRUPT, sc->kept->g.fixed[FIXED_PARENT].offset,
                                "a parent");
        x->parents[i] = none ? MATCH_NO_PARENT : (uint32_t)place - 1;
    }
    return err;
}

static int trace_give(struct matcher *x, uint32_t k, unsigned seen)
{
    struct scanner *sc = &x->sc;
    struct matching *m = x->m;
    uint32_t first = sc->trace_rows[k], n = sc->trace_rows[k + 1] - first;
    struct match_trace trace = {
        .id = sc->trace_ids[k],
        .start_ns = sc->trace_starts[k],
        .is_whole = !is_split(x, k),
        .n = n,
        .marks = x->marks + first,
        .parents = x->parents,
    };
    if (trace.is_whole && !m->match->wanted[seen])
        return 0;
    int err = trace.is_whole ? parents_make(x, first, n) : 0;
    if (err)
        return err;
    m->cost->rows_matched++;
    return m->answer = m->fn(m->arg, m->match, &trace);
}

static int group_match(struct matcher *x)
{
    struct scanner *sc = &x->sc;
    uint32_t n = sc->kept->g.group->n;
    unsigned possible;
    x->m->cost->rows_read += n;
    int err = possible_in_group(x, &possible);
    if (err || !possible)
        return err;
    err = scanner_traces(sc);
    if (err || (!x->m->match->wanted[possible] && !any_split(x)))
        return err;
    err = marks_make(x, possible);
    x->parents = arena_array(&sc->scratch, n, sizeof *x->parents);
    if (!err && !x->parents)
        err = ERR_NOMEM;
    for (uint32_t k = sc->n_traces; !err && k-- > 0;) {
        unsigned seen = 0;
        for (uint32_t i = sc->trace_rows[k]; x->is_open[k] && i < sc->trace_rows[k + 1]; i++)
            seen |= x->marks[i];
        if (seen)
            err = trace_give(x, k, seen);
    }
    return err;
}

int segment_match(struct segment *seg, struct matching *m, bool *ret_damaged)
{
    struct matcher x = {.m = m};
    uint64_t read_before = seg->bytes_read;
    int err = scanner_init(&x.sc, seg, m->leaves);
    if (err)
        return err;
    m->cost->parts++;
    m->cost->groups += seg->n_groups;
    err = possible_in_segment(&x);
    for (uint32_t i = seg->n_groups; !err && i-- > 0;) {
        const struct segment_group *g = &seg->groups[i];
        if (!x.possible || group_misses(g, m->match->start_min_ns, m->match->start_max_ns)) {
            m->cost->groups_pruned++;
            continue;
        }
        err = scanner_enter(&x.sc, g);
        if (!err)
            err = group_match(&x);
        if (err == ERR_CORRUPT && !m->answer) {
            *ret_damaged = true;
            err = 0; /* the other groups can be read */
        }
    }
    if (err == ERR_CORRUPT && !m->answer) {
        *ret_damaged = true;
        err = 0;
    }
    m->cost->bytes_read += seg->bytes_read - read_before;
    scanner_done(&x.sc);
    return err;
}
