/* Reading records. A question is asked of the rows in memory first, with the lock held, and of the
 * files after it, newest first: files that the lock showed stay as long as a reference is held, so a
 * row is in exactly one of both.
 *
 * Lists of logs are cut by a heap that holds the best of what was seen: memory is bounded by the
 * limit, and blocks that cannot improve it are not read. */
#include <stdlib.h>

#include "base/hash.h"
#include "store/local/records_engine.h"

/* The files of one moment. */
struct snapshot {
    struct records_file **files;
    size_t n;
};

/* With the lock held. */
static int snapshot_take(struct records *r, struct snapshot *ret)
{
    *ret = (struct snapshot){malloc((r->n_files + 1) * sizeof(struct records_file *)), r->n_files};
    if (!ret->files)
        return ERR_NOMEM;
    for (size_t i = 0; i < r->n_files; i++)
        ret->files[i] = records_file_ref(r->files[i]);
    return 0;
}

static void snapshot_done(struct snapshot *s)
{
    for (size_t i = 0; s->files && i < s->n; i++)
        records_file_unref(s->files[i]);
    free(s->files);
}

/* Whether damage in it may have taken something of an answer; of a file that is lost nobody knows what it had. */
static bool may_lack(const struct records_file *f, bool is_asked)
{
    return (is_asked || !f->map) && atomic_load(&f->is_damaged);
}

static struct str row_payload(const struct row *row)
{
    return (struct str){row->payload, row->len};
}

/* ---- logs ---- */

/* What is known of a shared thing of the part at hand. */
struct asked {
    bool is_known, is_wanted;
    struct str kept; /* in the caller's arena, once a hit has it */
};

struct hit {
    struct row row; /* its payload was made by malloc */
    struct str shared;
};

struct gather {
    const struct records_logs *query;
    uint64_t time_min_ns, time_max_ns;
    struct arena *arena; /* the caller's */
    struct hit *heap;    /* the worst on top */
    size_t n, room, limit;
    bool more;
    struct records_cost cost;
    /* of the part at hand */
    const struct str *shared;
    struct asked *asked;
};

/* Which comes first in the answer. */
static int answer_order(const struct records_logs *q, const struct row *a, const struct row *b)
{
    int order = a->time_ns != b->time_ns ? (a->time_ns < b->time_ns ? -1 : 1)
                                         : (a->ordinal > b->ordinal) - (a->ordinal < b->ordinal);
    return q->has_trace ? order : -order;
}

static void heap_down(struct gather *g, size_t at)
{
    for (;;) {
        size_t worst = at, left = 2 * at + 1;
        for (size_t child = left; child < left + 2 && child < g->n; child++)
            if (answer_order(g->query, &g->heap[child].row, &g->heap[worst].row) > 0)
                worst = child;
        if (worst == at)
            return;
        struct hit moved = g->heap[at];
        g->heap[at] = g->heap[worst];
        g->heap[worst] = moved;
        at = worst;
    }
}

static void heap_up(struct gather *g, size_t at)
{
    while (at) {
        size_t parent = (at - 1) / 2;
        if (answer_order(g->query, &g->heap[at].row, &g->heap[parent].row) <= 0)
            return;
        struct hit moved = g->heap[at];
        g->heap[at] = g->heap[parent];
        g->heap[parent] = moved;
        at = parent;
    }
}

static int heap_room(struct gather *g)
{
    if (g->n < g->room)
        return 0;
    size_t room = g->room ? 2 * g->room : 64;
    struct hit *heap = realloc(g->heap, room * sizeof *heap);
    if (!heap)
        return ERR_NOMEM;
    g->heap = heap;
    g->room = room;
    return 0;
}

static int heap_put(struct gather *g, const struct row *row, struct str shared)
{
    if (g->n == g->limit) {
        g->more = true;
        if (answer_order(g->query, row, &g->heap[0].row) >= 0)
            return 0;
    } else if (heap_room(g)) {
        return ERR_NOMEM;
    }
    char *payload = malloc((size_t)row->len + 1);
    if (!payload)
        return ERR_NOMEM;
    memcpy(payload, row->payload, row->len);
    struct hit hit = {*row, shared};
    hit.row.payload = payload;
    if (g->n == g->limit) {
        free((char *)(uintptr_t)g->heap[0].row.payload);
        g->heap[0] = hit;
        heap_down(g, 0);
    } else {
        g->heap[g->n++] = hit;
        heap_up(g, g->n - 1);
    }
    return 0;
}

static bool service_is(struct str shared, struct str service)
{
    struct arena scratch = ARENA_INIT;
    struct shared_log log;
    bool is = !shared_log_decode(shared, &scratch, &log) &&
              str_eq(log.resource.service_name, service);
    arena_done(&scratch);
    return is;
}

static int gather_row(void *arg, const struct row *row)
{
    struct gather *g = arg;
    const struct records_logs *q = g->query;
    g->cost.rows_read++;
    if (row->kind != ROW_LOG || row->time_ns < g->time_min_ns || row->time_ns > g->time_max_ns ||
        (q->has_trace && memcmp(row->key, q->trace_id.bytes, ROW_KEY_SIZE) != 0) ||
        (q->severity_min && row_log_severity(row) < q->severity_min))
        return 0;
    if (q->after_time_ns) {
        const struct row after = {.time_ns = q->after_time_ns, .ordinal = q->after_ordinal};
        if (answer_order(q, row, &after) <= 0)
            return 0;
    }
    struct asked *asked = &g->asked[row->shared];
    if (!asked->is_known) {
        asked->is_known = true;
        asked->is_wanted = !q->service.len || service_is(g->shared[row->shared], q->service);
    }
    if (!asked->is_wanted)
        return 0;
    if (!asked->kept.ptr) {
        asked->kept = arena_str(g->arena, g->shared[row->shared]);
        if (!asked->kept.ptr)
            return ERR_NOMEM;
    }
    return heap_put(g, row, asked->kept);
}

/* Whether nothing of a stretch of time can be in the answer any more. */
static bool is_past(const struct gather *g, uint64_t min_ns, uint64_t max_ns)
{
    if (max_ns < g->time_min_ns || min_ns > g->time_max_ns)
        return true;
    return !g->query->has_trace && g->n == g->limit && max_ns < g->heap[0].row.time_ns;
}

/* With a trace: only the blocks that may hold its key. */
static bool block_may_have(const struct records_file *file, uint32_t i,
                           const struct records_block *b, const uint8_t key[ROW_KEY_SIZE])
{
    struct records_block next;
    if (memcmp(b->key, key, ROW_KEY_SIZE) > 0)
        return false;
    if (i + 1 == file->n_blocks)
        return true;
    records_file_block(file, i + 1, &next);
    return next.kind != b->kind || memcmp(next.key, key, ROW_KEY_SIZE) >= 0;
}

/* The first block that may hold a log of the trace: they are in order. */
static uint32_t block_lower(const struct records_file *file, const uint8_t key[ROW_KEY_SIZE])
{
    uint32_t low = 0, high = file->n_blocks;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct records_block b;
        records_file_block(file, middle, &b);
        if (b.kind == ROW_LOG && memcmp(b.key, key, ROW_KEY_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? low - 1 : 0;
}

static int gather_blocks(struct gather *g, struct records_reader *reader, struct arena *scratch)
{
    const struct records_file *file = reader->file;
    const struct records_logs *q = g->query;
    uint32_t first = q->has_trace ? block_lower(file, q->trace_id.bytes) : 0;
    for (uint32_t i = first; i < file->n_blocks; i++) {
        struct records_block b;
        records_file_block(file, i, &b);
        if (b.kind != ROW_LOG ||
            (q->has_trace && memcmp(b.key, q->trace_id.bytes, ROW_KEY_SIZE) > 0))
            break;
        if (is_past(g, b.time_min_ns, b.time_max_ns) ||
            (q->has_trace && !block_may_have(file, i, &b, q->trace_id.bytes)))
            continue;
        if (!reader->shared) {
            int err = records_reader_shared(reader, scratch);
            if (err)
                return err;
            g->shared = reader->shared;
            g->asked = arena_zalloc(scratch, (file->n_shared + 1) * sizeof *g->asked);
            if (!g->asked)
                return ERR_NOMEM;
        }
        g->cost.blocks_read++;
        int err = records_reader_block(reader, i, gather_row, g);
        if (err && err != ERR_CORRUPT)
            return err;
    }
    return 0;
}

static int gather_file(struct gather *g, struct records_file *file)
{
    struct records_reader reader = {.file = file};
    struct arena scratch = ARENA_INIT;
    g->cost.files++;
    int err = 0;
    bool is_pruned = file->map &&
                     (!file->n_kind[ROW_LOG] ||
                      is_past(g, file->time_min_ns[ROW_LOG], file->time_max_ns[ROW_LOG]) ||
                      (g->query->has_trace && !records_file_may_have(file, &g->query->trace_id)));
    if (is_pruned)
        g->cost.files_pruned++;
    else if (file->map)
        err = gather_blocks(g, &reader, &scratch);
    g->cost.files_damaged += may_lack(file, !is_pruned);
    records_reader_done(&reader);
    arena_done(&scratch);
    return err == ERR_CORRUPT ? 0 : err;
}

static int gather_memory(struct gather *g, struct records *r)
{
    struct arena scratch = ARENA_INIT;
    struct str *shared = arena_array(&scratch, r->rows.n_shared + 1, sizeof *shared);
    g->asked = arena_zalloc(&scratch, (r->rows.n_shared + 1) * sizeof *g->asked);
    int err = shared && g->asked ? 0 : ERR_NOMEM;
    for (uint32_t i = 0; i < r->rows.n_shared && !err; i++)
        shared[i] = r->rows.shared[i].bytes;
    g->shared = shared;
    for (size_t i = 0; i < r->rows.n && !err; i++)
        err = gather_row(g, &r->rows.items[i]);
    arena_done(&scratch);
    return err;
}

/* Hits of one resource and scope share what was decoded, mostly. */
struct shared_memo {
    const char *bytes;
    struct shared_log *log;
};
enum { MEMO_SLOTS = 256 };

static struct shared_log *memo_get(struct shared_memo memo[MEMO_SLOTS], struct str shared,
                                   struct arena *arena, int *err)
{
    struct shared_memo *m = &memo[hash_mix64((uintptr_t)shared.ptr) % MEMO_SLOTS];
    if (m->bytes == shared.ptr)
        return m->log;
    struct shared_log *log = arena_alloc(arena, sizeof *log);
    *err = log ? shared_log_decode(shared, arena, log) : ERR_NOMEM;
    if (*err)
        return NULL;
    *m = (struct shared_memo){shared.ptr, log};
    return log;
}

static int hit_decode(struct gather *g, const struct hit *hit, struct shared_memo *memo,
                      struct records_log *ret)
{
    struct row row = hit->row;
    struct str payload = arena_str(g->arena, row_payload(&row));
    if (!payload.ptr)
        return ERR_NOMEM;
    row.payload = payload.ptr;
    int err = row_log_decode(&row, g->arena, &ret->record);
    struct shared_log *log = err ? NULL : memo_get(memo, hit->shared, g->arena, &err);
    if (!log)
        return err;
    ret->record.resource = &log->resource;
    ret->record.scope = &log->scope;
    ret->ordinal = row.ordinal;
    return 0;
}

/* From worst to best, off the heap. */
static int answer_make(struct gather *g, struct records_log **ret, size_t *ret_n)
{
    struct shared_memo memo[MEMO_SLOTS] = {{NULL, NULL}};
    struct records_log *logs = arena_array(g->arena, g->n + 1, sizeof *logs);
    size_t n = g->n;
    int err = logs ? 0 : ERR_NOMEM;
    while (g->n) {
        struct hit worst = g->heap[0];
        g->heap[0] = g->heap[--g->n];
        heap_down(g, 0);
        if (!err)
            err = hit_decode(g, &worst, memo, &logs[g->n]);
        free((char *)(uintptr_t)worst.row.payload);
    }
    *ret = logs;
    *ret_n = n;
    return err;
}

int records_logs(struct records *r, const struct records_logs *q, struct arena *arena,
                 struct records_log **ret, size_t *ret_n, bool *ret_more,
                 struct records_cost *ret_cost)
{
    uint64_t cutoff = records_cutoff_ns(r);
    struct snapshot files = {0};
    struct gather g = {
        .query = q,
        .time_min_ns = q->time_min_ns > cutoff ? q->time_min_ns : cutoff,
        .time_max_ns = q->time_max_ns ? q->time_max_ns : UINT64_MAX,
        .arena = arena,
        .limit = q->limit && q->limit < RECORDS_LOGS_MAX ? q->limit : RECORDS_LOGS_MAX,
    };
    pthread_mutex_lock(&r->lock);
    int err = snapshot_take(r, &files);
    if (!err)
        err = gather_memory(&g, r);
    pthread_mutex_unlock(&r->lock);
    for (size_t i = files.n; i-- > 0 && !err;)
        err = gather_file(&g, files.files[i]);
    struct records_log *logs;
    size_t n;
    int failed = answer_make(&g, &logs, &n);
    err = err ? err : failed;
    if (!err) {
        *ret = logs;
        *ret_n = n;
        *ret_more = g.more;
        if (ret_cost)
            *ret_cost = g.cost;
    }
    free(g.heap);
    snapshot_done(&files);
    return err;
}

/* ---- a table of numbers by hash ---- */

struct table {
    struct slot {
        uint64_t hash;
        uint32_t number; /* + 1 */
    } * slots;
    size_t n, n_slots;
};

/* The next number + 1 with this hash, 0 when there is none more; `at` begins as the hash. */
static uint32_t table_next(const struct table *t, uint64_t hash, size_t *at)
{
    for (; t->n_slots; ++*at) {
        const struct slot *s = &t->slots[*at & (t->n_slots - 1)];
        if (!s->number)
            return 0;
        if (s->hash == hash) {
            ++*at;
            return s->number;
        }
    }
    return 0;
}

static void slot_put(struct slot *slots, size_t n_slots, struct slot item)
{
    size_t at = item.hash;
    while (slots[at & (n_slots - 1)].number)
        at++;
    slots[at & (n_slots - 1)] = item;
}

static int table_add(struct table *t, uint64_t hash, uint32_t number)
{
    if (2 * (t->n + 1) > t->n_slots) {
        size_t n_slots = t->n_slots ? 2 * t->n_slots : 128;
        struct slot *slots = calloc(n_slots, sizeof *slots);
        if (!slots)
            return ERR_NOMEM;
        for (size_t i = 0; i < t->n_slots; i++)
            if (t->slots[i].number)
                slot_put(slots, n_slots, t->slots[i]);
        free(t->slots);
        t->slots = slots;
        t->n_slots = n_slots;
    }
    slot_put(t->slots, t->n_slots, (struct slot){hash, number + 1});
    t->n++;
    return 0;
}

/* ---- metrics: names ---- */

struct names {
    struct arena *arena;
    struct table table;
    struct records_metric *items;
    size_t n, room;
};

static int names_order(const void *a, const void *b)
{
    const struct records_metric *x = a, *y = b;
    int order = str_cmp(x->name, y->name);
    return order ? order : (int)x->type - (int)y->type;
}

static int names_add(struct names *names, struct str shared)
{
    struct arena scratch = ARENA_INIT;
    struct shared_series s;
    int err = shared_series_decode(shared, &scratch, &s);
    size_t i = names->n, at = 0;
    uint64_t hash = 0;
    if (!err) {
        at = hash = hash_bytes_seed(s.metric.name.ptr, s.metric.name.len, hash_secret());
        for (uint32_t number; (number = table_next(&names->table, hash, &at));)
            if (str_eq(names->items[number - 1].name, s.metric.name) &&
                names->items[number - 1].type == s.metric.type)
                i = number - 1;
    }
    if (!err && i == names->room) {
        size_t room = names->room ? 2 * names->room : 64;
        struct records_metric *items = realloc(names->items, room * sizeof *items);
        if (items) {
            names->items = items;
            names->room = room;
        } else {
            err = ERR_NOMEM;
        }
    }
    if (!err && i == names->n) {
        struct records_metric *m = &names->items[i];
        *m = (struct records_metric){
            .name = arena_str(names->arena, s.metric.name),
            .description = arena_str(names->arena, s.metric.description),
            .unit = arena_str(names->arena, s.metric.unit),
            .type = s.metric.type,
            .temporality = s.metric.temporality,
            .monotonic = s.metric.monotonic,
        };
        err = m->name.ptr && m->description.ptr && m->unit.ptr
                  ? table_add(&names->table, hash, (uint32_t)i)
                  : ERR_NOMEM;
        names->n += !err;
    }
    if (!err)
        names->items[i].series++;
    arena_done(&scratch);
    return err;
}

static int names_file(struct names *names, struct records_file *file)
{
    struct records_reader reader = {.file = file};
    struct arena scratch = ARENA_INIT;
    int err = records_reader_shared(&reader, &scratch);
    for (uint64_t i = 0; i < file->n_shared && !err; i++)
        if (shared_kind(reader.shared[i]) == ROW_POINT)
            err = names_add(names, reader.shared[i]);
    records_reader_done(&reader);
    arena_done(&scratch);
    return err == ERR_CORRUPT ? 0 : err;
}

static bool has_points(const uint64_t n[ROW_KINDS], const uint64_t min_ns[ROW_KINDS],
                       const uint64_t max_ns[ROW_KINDS], uint64_t from_ns, uint64_t to_ns)
{
    return n[ROW_POINT] && max_ns[ROW_POINT] >= from_ns && min_ns[ROW_POINT] <= to_ns;
}

int records_metrics(struct records *r, uint64_t time_min_ns, uint64_t time_max_ns,
                    struct arena *arena, struct records_metric **ret, size_t *ret_n,
                    bool *ret_is_partial)
{
    uint64_t cutoff = records_cutoff_ns(r);
    uint64_t from = time_min_ns > cutoff ? time_min_ns : cutoff;
    uint64_t to = time_max_ns ? time_max_ns : UINT64_MAX;
    struct snapshot files = {0};
    struct names names = {.arena = arena};
    bool is_partial = false;
    pthread_mutex_lock(&r->lock);
    int err = snapshot_take(r, &files);
    const struct rows *rows = &r->rows;
    bool is_in = has_points(rows->n_kind, rows->time_min_ns, rows->time_max_ns, from, to);
    for (uint32_t i = 0; i < rows->n_shared && !err && is_in; i++)
        if (shared_kind(rows->shared[i].bytes) == ROW_POINT)
            err = names_add(&names, rows->shared[i].bytes);
    pthread_mutex_unlock(&r->lock);
    for (size_t i = 0; i < files.n && !err; i++) {
        struct records_file *f = files.files[i];
        bool is_asked = f->map && has_points(f->n_kind, f->time_min_ns, f->time_max_ns, from, to);
        if (is_asked)
            err = names_file(&names, f);
        is_partial |= may_lack(f, is_asked);
    }
    struct records_metric *items = err ? NULL : arena_array(arena, names.n + 1, sizeof *items);
    if (!err && !items)
        err = ERR_NOMEM;
    if (!err && names.n) {
        qsort(names.items, names.n, sizeof *names.items, names_order);
        memcpy(items, names.items, names.n * sizeof *items);
    }
    if (!err) {
        *ret = items;
        *ret_n = names.n;
        if (ret_is_partial)
            *ret_is_partial = is_partial;
    }
    free(names.items);
    free(names.table.slots);
    snapshot_done(&files);
    return err;
}

/* ---- metrics: series ---- */

struct one_series {
    uint8_t key[ROW_KEY_SIZE];
    struct str bytes; /* in the caller's arena */
    struct shared_series *decoded;
};

struct one_point {
    uint32_t series;
    struct row row; /* its payload in the caller's arena */
};

struct collect {
    const struct records_series_query *query;
    uint64_t time_min_ns, time_max_ns;
    struct arena *arena;
    struct table table; /* of the series */
    struct one_series *series;
    size_t n_series, series_room, series_max;
    struct one_point *points;
    size_t n_points, points_room, points_max;
    bool more;
    /* of the part at hand: by number of the shared thing, its series + 1 */
    const uint32_t *wanted;
};

/* The number of a series + 1, when it is asked for; 0 when not. */
static int series_number(struct collect *c, struct str bytes, uint32_t *ret)
{
    struct str name;
    uint8_t key[ROW_KEY_SIZE];
    *ret = 0;
    if (shared_kind(bytes) != ROW_POINT || shared_series_name(bytes, &name) ||
        !str_eq(name, c->query->name))
        return 0;
    shared_series_key(bytes, key);
    uint64_t hash = hash_bytes_seed(key, sizeof key, hash_secret());
    size_t at = hash;
    for (uint32_t number; (number = table_next(&c->table, hash, &at));) {
        if (!memcmp(c->series[number - 1].key, key, sizeof key)) {
            *ret = number;
            return 0;
        }
    }
    if (c->n_series == c->series_room) {
        size_t room = c->series_room ? 2 * c->series_room : 64;
        struct one_series *series = realloc(c->series, room * sizeof *series);
        if (!series)
            return ERR_NOMEM;
        c->series = series;
        c->series_room = room;
    }
    struct shared_series *decoded = arena_alloc(c->arena, sizeof *decoded);
    struct str copy = arena_str(c->arena, bytes);
    if (!decoded || !copy.ptr)
        return ERR_NOMEM;
    int err = shared_series_decode(copy, c->arena, decoded);
    const struct str service = c->query->service;
    if (err || (service.len && !str_eq(decoded->resource.service_name, service)))
        return err;
    if (c->n_series == c->series_max) {
        c->more = true;
        return 0;
    }
    struct one_series *s = &c->series[c->n_series++];
    *s = (struct one_series){.bytes = copy, .decoded = decoded};
    memcpy(s->key, key, sizeof key);
    *ret = (uint32_t)c->n_series;
    return table_add(&c->table, hash, *ret - 1);
}

static int collect_row(void *arg, const struct row *row)
{
    struct collect *c = arg;
    if (row->kind != ROW_POINT || !c->wanted[row->shared] || row->time_ns < c->time_min_ns ||
        row->time_ns > c->time_max_ns)
        return 0;
    if (c->n_points == c->points_max) {
        c->more = true;
        return 0;
    }
    if (c->n_points == c->points_room) {
        size_t room = c->points_room ? 2 * c->points_room : 1024;
        struct one_point *points = realloc(c->points, room * sizeof *points);
        if (!points)
            return ERR_NOMEM;
        c->points = points;
        c->points_room = room;
    }
    struct str payload = arena_str(c->arena, row_payload(row));
    if (!payload.ptr)
        return ERR_NOMEM;
    struct one_point *p = &c->points[c->n_points++];
    *p = (struct one_point){c->wanted[row->shared] - 1, *row};
    p->row.payload = payload.ptr;
    return 0;
}

static bool block_is_wanted(const struct collect *c, const struct records_file *file, uint32_t i,
                            const struct records_block *b)
{
    if (b->kind != ROW_POINT || b->time_max_ns < c->time_min_ns || b->time_min_ns > c->time_max_ns)
        return false;
    for (size_t s = 0; s < c->n_series; s++)
        if (block_may_have(file, i, b, c->series[s].key))
            return true;
    return false;
}

static int collect_file(struct collect *c, struct records_file *file)
{
    struct records_reader reader = {.file = file};
    struct arena scratch = ARENA_INIT;
    int err = records_reader_shared(&reader, &scratch);
    uint32_t *wanted = err ? NULL : arena_array(&scratch, file->n_shared + 1, sizeof *wanted);
    bool any = false;
    if (!err && !wanted)
        err = ERR_NOMEM;
    for (uint64_t i = 0; i < file->n_shared && !err; i++) {
        err = series_number(c, reader.shared[i], &wanted[i]);
        any |= !err && wanted[i];
    }
    c->wanted = wanted;
    for (uint32_t i = 0; i < file->n_blocks && !err && any; i++) {
        struct records_block b;
        records_file_block(file, i, &b);
        if (!block_is_wanted(c, file, i, &b))
            continue;
        err = records_reader_block(&reader, i, collect_row, c);
        if (err == ERR_CORRUPT)
            err = 0; /* the next block may be whole */
    }
    records_reader_done(&reader);
    arena_done(&scratch);
    return err == ERR_CORRUPT ? 0 : err;
}

static int collect_memory(struct collect *c, struct records *r)
{
    const struct rows *rows = &r->rows;
    uint32_t *wanted = malloc((rows->n_shared + 1) * sizeof *wanted);
    int err = wanted ? 0 : ERR_NOMEM;
    for (uint32_t i = 0; i < rows->n_shared && !err; i++)
        err = series_number(c, rows->shared[i].bytes, &wanted[i]);
    c->wanted = wanted;
    for (size_t i = 0; i < rows->n && !err; i++)
        err = collect_row(c, &rows->items[i]);
    free(wanted);
    return err;
}

struct series_rank {
    const struct one_series *series;
    uint32_t number;
};

static int rank_order(const void *a, const void *b)
{
    const struct series_rank *x = a, *y = b;
    return str_cmp(x->series->bytes, y->series->bytes);
}

static int point_order(const void *a, const void *b)
{
    const struct one_point *x = a, *y = b;
    if (x->series != y->series)
        return x->series < y->series ? -1 : 1;
    if (x->row.time_ns != y->row.time_ns)
        return x->row.time_ns < y->row.time_ns ? -1 : 1;
    return x->row.ordinal < y->row.ordinal ? -1 : x->row.ordinal > y->row.ordinal;
}

/* Numbers the series in the order of what they are. */
static int series_rank(struct collect *c, struct series_rank *ranks)
{
    uint32_t *to = malloc((c->n_series + 1) * sizeof *to);
    if (!to)
        return ERR_NOMEM;
    for (size_t i = 0; i < c->n_series; i++)
        ranks[i] = (struct series_rank){&c->series[i], (uint32_t)i};
    if (c->n_series)
        qsort(ranks, c->n_series, sizeof *ranks, rank_order);
    for (size_t i = 0; i < c->n_series; i++)
        to[ranks[i].number] = (uint32_t)i;
    for (size_t i = 0; i < c->n_points; i++)
        c->points[i].series = to[c->points[i].series];
    free(to);
    return 0;
}

/* The points of one series, decoded; those of one time once. */
static int points_decode(struct collect *c, const struct one_point *from, size_t n,
                         struct metric *m)
{
    struct metric_point *points = arena_array(c->arena, n, sizeof *points);
    size_t kept = 0;
    if (!points)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && from[i + 1].row.time_ns == from[i].row.time_ns)
            continue;
        int err = row_point_decode(&from[i].row, m->type, c->arena, &points[kept]);
        if (err == ERR_NOMEM)
            return err;
        kept += !err;
    }
    m->points = points;
    m->n_points = kept;
    return 0;
}

static int series_answer(struct collect *c, struct records_series **ret, size_t *ret_n)
{
    struct series_rank *ranks = malloc((c->n_series + 1) * sizeof *ranks);
    struct records_series *out = arena_array(c->arena, c->n_series + 1, sizeof *out);
    int err = ranks && out ? series_rank(c, ranks) : ERR_NOMEM;
    size_t n = 0;
    if (!err && c->n_points)
        qsort(c->points, c->n_points, sizeof *c->points, point_order);
    for (size_t i = 0; i < c->n_points && !err;) {
        size_t end = i;
        while (end < c->n_points && c->points[end].series == c->points[i].series)
            end++;
        const struct shared_series *s = ranks[c->points[i].series].series->decoded;
        out[n] = (struct records_series){s->metric, s->attrs, &s->resource, &s->scope};
        err = points_decode(c, &c->points[i], end - i, &out[n].metric);
        n += !err && out[n].metric.n_points > 0;
        i = end;
    }
    free(ranks);
    *ret = out;
    *ret_n = n;
    return err;
}

int records_series(struct records *r, const struct records_series_query *q, struct arena *arena,
                   struct records_series **ret, size_t *ret_n, bool *ret_more, bool *ret_is_partial)
{
    bool is_partial = false;
    uint64_t cutoff = records_cutoff_ns(r);
    struct snapshot files = {0};
    struct collect c = {
        .query = q,
        .time_min_ns = q->time_min_ns > cutoff ? q->time_min_ns : cutoff,
        .time_max_ns = q->time_max_ns ? q->time_max_ns : UINT64_MAX,
        .arena = arena,
        .series_max = q->series_max && q->series_max < RECORDS_SERIES_MAX ? q->series_max
                                                                          : RECORDS_SERIES_MAX,
        .points_max = q->points_max && q->points_max < RECORDS_POINTS_MAX ? q->points_max
                                                                          : RECORDS_POINTS_MAX,
    };
    pthread_mutex_lock(&r->lock);
    int err = snapshot_take(r, &files);
    if (!err)
        err = collect_memory(&c, r);
    pthread_mutex_unlock(&r->lock);
    for (size_t i = files.n; i-- > 0 && !err;) {
        struct records_file *f = files.files[i];
        bool is_asked = f->map && has_points(f->n_kind, f->time_min_ns, f->time_max_ns,
                                             c.time_min_ns, c.time_max_ns);
        if (is_asked)
            err = collect_file(&c, f);
        is_partial |= may_lack(f, is_asked);
    }
    struct records_series *series;
    size_t n;
    if (!err)
        err = series_answer(&c, &series, &n);
    if (!err) {
        *ret = series;
        *ret_n = n;
        *ret_more = c.more;
        if (ret_is_partial)
            *ret_is_partial = is_partial;
    }
    free(c.series);
    free(c.table.slots);
    free(c.points);
    snapshot_done(&files);
    return err;
}

/* ---- positions ---- */

int records_positions(struct records *r, struct arena *arena, struct records_position **ret,
                      size_t *ret_n)
{
    pthread_mutex_lock(&r->lock);
    struct records_position *items = arena_array(arena, r->n_positions + 1, sizeof *items);
    int err = items ? 0 : ERR_NOMEM;
    size_t n = 0;
    for (const struct rows_position *p = r->positions; p && !err; p = p->next) {
        struct records_position *to = &items[n++];
        to->name = arena_str(arena, (struct str){p->bytes, p->name_len});
        to->value = arena_str(arena, (struct str){p->bytes + p->name_len, p->value_len});
        err = to->name.ptr && to->value.ptr ? 0 : ERR_NOMEM;
    }
    pthread_mutex_unlock(&r->lock);
    if (!err) {
        *ret = items;
        *ret_n = n;
    }
    return err;
}

int records_position(struct records *r, struct str name, struct arena *arena, struct str *ret_value)
{
    struct str value = STR("");
    pthread_mutex_lock(&r->lock);
    for (const struct rows_position *p = r->positions; p; p = p->next)
        if (str_eq((struct str){p->bytes, p->name_len}, name))
            value = arena_str(arena, (struct str){p->bytes + p->name_len, p->value_len});
    pthread_mutex_unlock(&r->lock);
    if (!value.ptr)
        return ERR_NOMEM;
    *ret_value = value;
    return 0;
}
