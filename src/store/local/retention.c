/* 1. The first rule that a span fulfils is about it; the last one takes all.
 * 2. A segment is due for a rule when its newest span is older than the rule keeps: then all spans of that
 *    rule in it go. It is also due, a quarter of that time late, when its oldest is: then the spans go that
 *    are old enough. What is due for all rules is unlinked, else what stays is written anew.
 * 3. A segment that was looked at is not looked at again before something more is due in it (ruled_ns). How
 *    many spans a rule would take is counted on the columns first; nothing is written for none, or, before
 *    the whole segment is due, for few.
 * 4. Pinned traces stay. */
#include "store/local/retention.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum {
    LATE_PART = 4, /* of the time that a rule keeps spans */
    FEW_PART = 8,  /* of the spans of a segment */
};

/* ---- the rules ---- */

static int rule_add(struct retention *r, const struct store_rule *from)
{
    struct retention_rule *rule = &r->rules[r->n];
    if (from->text.len > STORE_RULE_TEXT_MAX)
        return ERR_TOO_LARGE;
    *rule = (struct retention_rule){.keep_ns = from->keep_ns};
    if (from->text.len && !(rule->text = arena_str(&r->arena, from->text)).ptr)
        return ERR_NOMEM;
    if (!rule->text.ptr)
        rule->text = STR("");
    if (from->match && !(rule->where = predicate_copy(from->match, &r->arena)))
        return ERR_NOMEM;
    r->n++;
    return filter_new(rule->where, &rule->filter, NULL);
}

int retention_new(const struct store_retention *options, struct retention **ret)
{
    if (options->n_rules > STORE_RULES_MAX)
        return ERR_TOO_LARGE;
    struct retention *r = calloc(1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    r->id = 1;
    r->disk_bytes_max = options->disk_bytes_max;
    int err = 0;
    for (size_t i = 0; i < options->n_rules && !err; i++)
        err = rule_add(r, &options->rules[i]);
    if (!err)
        err = rule_add(r, &(struct store_rule){.keep_ns = options->keep_ns});
    if (err)
        retention_free(r);
    else
        *ret = r;
    return err;
}

void retention_free(struct retention *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        filter_free(r->rules[i].filter);
    arena_done(&r->arena);
    free(r);
}

/* ---- counters ---- */

static int count_see(void *arg, const char *text, uint64_t spans, bool is_damaged)
{
    struct retention *r = arg;
    if (is_damaged) {
        log_error("the counter of a rule in catalogue.db is damaged, and begun anew");
        return 0;
    }
    for (size_t i = 0; i < r->n; i++)
        if (str_eq(r->rules[i].text, str_from(text)))
            r->rules[i].spans = spans;
    return 0;
}

int retention_counts_read(struct store *st, struct retention *r)
{
    return catalogue_rules(st->catalogue, count_see, r);
}

size_t retention_counted(const struct retention *r, const uint64_t *taken,
                         struct catalogue_rule rules[STORE_RULES_MAX + 1])
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        size_t k = 0;
        if (!taken[i])
            continue;
        /* Two rules of one text have one counter. */
        while (k < n && strcmp(rules[k].text, r->rules[i].text.ptr) != 0)
            k++;
        if (k == n)
            rules[n++] = (struct catalogue_rule){r->rules[i].text.ptr, r->rules[i].spans};
        rules[k].spans += taken[i];
    }
    return n;
}

void retention_count(struct store *st, struct retention *r, const uint64_t *taken)
{
    pthread_mutex_lock(&st->lock);
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->n && taken[i]; k++)
            if (str_eq(r->rules[i].text, r->rules[k].text))
                r->rules[k].spans += taken[i];
    pthread_mutex_unlock(&st->lock);
}

/* ---- one segment ---- */

struct ruling {
    const struct retention *r;
    uint64_t before_ns[STORE_RULES_MAX + 1]; /* spans that started before go */
    bool is_whole[STORE_RULES_MAX + 1];      /* all spans of that rule go */
    uint64_t taken[STORE_RULES_MAX + 1];
    uint64_t n_taken;
};

static bool is_due_whole(const struct retention_rule *rule, const struct segment_info *info,
                         uint64_t now_ns)
{
    return rule->keep_ns && now_ns > rule->keep_ns &&
           segment_newest_ns(info) < now_ns - rule->keep_ns;
}

static bool is_due_part(const struct retention_rule *rule, const struct segment_info *info,
                        uint64_t now_ns)
{
    uint64_t late_ns = rule->keep_ns / LATE_PART;
    return rule->keep_ns && now_ns > rule->keep_ns && now_ns - rule->keep_ns > late_ns &&
           info->start_min_ns < now_ns - rule->keep_ns - late_ns;
}

/* Whether something more is due than when it was looked at. */
static bool is_due(const struct retention *r, const struct segment_file *file,
                   const struct pins *pins, uint64_t now_ns)
{
    const struct segment_info *info = &file->info;
    bool seen = file->ruled_by == r->id && file->ruled_pins == pins->changes;
    for (size_t i = 0; i < r->n; i++) {
        const struct retention_rule *rule = &r->rules[i];
        if (is_due_whole(rule, info, now_ns)) {
            if (!seen || !is_due_whole(rule, info, file->ruled_ns))
                return true;
        } else if (is_due_part(rule, info, now_ns) &&
                   (!seen || now_ns - file->ruled_ns >= rule->keep_ns / LATE_PART)) {
            return true;
        }
    }
    return false;
}

static size_t rule_of(const struct retention *r, const struct span *s)
{
    size_t i = 0;
    while (i + 1 < r->n && !filter_span(r->rules[i].filter, s))
        i++;
    return i;
}

static bool ruling_drops(void *arg, const struct span *s)
{
    struct ruling *ruling = arg;
    size_t i = rule_of(ruling->r, s);
    if (!ruling->is_whole[i] && s->start_ns >= ruling->before_ns[i])
        return false;
    ruling->taken[i]++;
    return true;
}

static int row_count(void *arg, struct scan *scan, const struct scan_row *row)
{
    ++*(uint64_t *)arg;
    return 0;
}

/* How many spans rule `i` would take; told by the columns alone. */
static int rule_count(struct ruling *ruling, size_t i, struct segment *seg, bool *ret_damaged)
{
    struct predicate children[STORE_RULES_MAX + 1], all = {.op = PREDICATE_AND};
    struct scan scan = {.start_max_ns = 0};
    struct scan_cost cost = {0};
    struct filter *filter;
    unsigned leaves;
    size_t n = 0;
    for (size_t k = 0; k <= i; k++) {
        const struct predicate *where = ruling->r->rules[k].where;
        if (where && k < i)
            children[n++] =
                (struct predicate){.op = PREDICATE_NOT, .children = where, .n_children = 1};
        else if (where)
            children[n++] = *where;
        else if (k < i)
            return 0; /* a rule before it takes all */
    }
    all.children = children;
    all.n_children = n;
    if (!ruling->is_whole[i]) {
        if (!ruling->before_ns[i])
            return 0;
        scan.start_max_ns = ruling->before_ns[i] - 1;
    }
    int err = filter_new(&all, &filter, &leaves);
    if (err)
        return err;
    err = segment_scan(seg, filter, leaves, &scan, row_count, &ruling->taken[i], &cost,
                       ret_damaged);
    filter_free(filter);
    return err;
}

/* ERR_CORRUPT: some of it cannot be read. */
static int rules_count(struct ruling *ruling, struct segment_file *file)
{
    struct segment *seg;
    bool damaged = false;
    int err = segment_open(file->dir, file->info.name, &seg);
    if (err)
        return err == ERR_NOT_FOUND ? ERR_CORRUPT : err;
    for (size_t i = 0; i < ruling->r->n && !err; i++) {
        if (ruling->is_whole[i] || ruling->before_ns[i])
            err = rule_count(ruling, i, seg, &damaged);
        ruling->n_taken += ruling->taken[i];
    }
    segment_close(seg);
    return err ? err : damaged ? ERR_CORRUPT : 0;
}

static void ruling_init(struct ruling *ruling, const struct retention *r,
                        const struct segment_info *info, uint64_t now_ns, bool *ret_all)
{
    *ruling = (struct ruling){.r = r};
    *ret_all = true;
    for (size_t i = 0; i < r->n; i++) {
        const struct retention_rule *rule = &r->rules[i];
        ruling->is_whole[i] = is_due_whole(rule, info, now_ns);
        if (rule->keep_ns && now_ns > rule->keep_ns)
            ruling->before_ns[i] = now_ns - rule->keep_ns;
        *ret_all &= ruling->is_whole[i];
    }
}

/* All of it is due. What each rule took is told by the columns, what these cannot tell by the last. */
static int ruling_expire(struct store *st, struct retention *r, struct segment_file *file,
                         const struct pins *pins, struct ruling *ruling)
{
    struct catalogue_rule rules[STORE_RULES_MAX + 1];
    struct catalogue_change change = {.rules = rules};
    uint64_t freed;
    int err = r->n > 1 ? rules_count(ruling, file) : 0;
    if (err && err != ERR_CORRUPT)
        return err;
    if (ruling->n_taken < file->info.spans)
        ruling->taken[r->n - 1] += file->info.spans - ruling->n_taken;
    change.n_rules = retention_counted(r, ruling->taken, rules);
    err = segment_expire(st, file, pins, &change, COUNTER_EXPIRED_AGE_SPANS, &freed);
    if (!err && freed)
        retention_count(st, r, ruling->taken);
    return err;
}

/* Some of it goes. */
static int ruling_rewrite(struct store *st, struct retention *r, struct segment_file *file,
                          const struct pins *pins, struct ruling *ruling)
{
    struct catalogue_rule rules[STORE_RULES_MAX + 1];
    struct catalogue_change change = {.rules = rules};
    struct rewrite w = {
        .bytes_max = UINT64_MAX, .drops = ruling_drops, .arg = ruling, .pins = pins};
    memset(ruling->taken, 0, sizeof ruling->taken);
    int err = memtable_new(&w.mt);
    if (err)
        return err;
    err = rewrite_take(&w, file);
    if (!err && w.n_dropped) {
        change.counters[COUNTER_EXPIRED_AGE_SPANS] = w.n_dropped;
        change.n_rules = retention_counted(r, ruling->taken, rules);
        err = rewrite_end(st, &w, &file, 1, &change);
        if (!err) {
            retention_count(st, r, ruling->taken);
            log_info("dropped spans of a segment by rule file=%s spans=%llu of=%llu",
                     file->info.name, (unsigned long long)w.n_dropped,
                     (unsigned long long)file->info.spans);
        }
    }
    memtable_unref(w.mt);
    return err == ERR_CORRUPT || err == ERR_NOT_FOUND ? 0 : err;
}

static int segment_rule(struct store *st, struct retention *r, struct segment_file *file,
                        const struct pins *pins, uint64_t now_ns)
{
    struct ruling ruling;
    bool all, any_whole = false;
    ruling_init(&ruling, r, &file->info, now_ns, &all);
    int err = 0;
    if (all && !pins->n) {
        err = ruling_expire(st, r, file, pins, &ruling);
    } else {
        for (size_t i = 0; i < r->n; i++)
            any_whole |= ruling.is_whole[i];
        err = rules_count(&ruling, file);
        if (!err && ruling.n_taken && (any_whole || ruling.n_taken >= file->info.spans / FEW_PART))
            err = ruling_rewrite(st, r, file, pins, &ruling);
        if (err == ERR_CORRUPT) {
            atomic_store(&file->is_damaged, true); /* what cannot be read is not judged */
            err = 0;
        }
    }
    return err;
}

/* The file, or what took its place. */
static void mark_ruled(struct store *st, const struct retention *r, struct segment_file *file,
                       const struct pins *pins, uint64_t now_ns)
{
    struct segment_list *list = segment_list_now(st);
    for (uint32_t i = 0; i < list->n; i++) {
        struct segment_file *now = list->items[i];
        if (now->info.last_sequence != file->info.last_sequence)
            continue;
        now->ruled_ns = now_ns;
        now->ruled_by = r->id;
        now->ruled_pins = pins->changes;
    }
    segment_list_unref(list);
}

int retention_apply(struct store *st, struct retention *r, const struct pins *pins, uint64_t now_ns)
{
    struct segment_list *list = segment_list_now(st);
    int err = 0;
    for (uint32_t i = list->n; i-- > 0 && !err;) {
        struct segment_file *file = list->items[i];
        if (!is_due(r, file, pins, now_ns))
            continue;
        err = segment_rule(st, r, file, pins, now_ns);
        if (!err)
            mark_ruled(st, r, file, pins, now_ns);
    }
    segment_list_unref(list);
    return err;
}

/* ---- other rules ---- */

int store_retention_set(struct store *st, const struct store_retention *options)
{
    struct retention *fresh;
    int err = retention_new(options, &fresh);
    if (err)
        return err;
    pthread_mutex_lock(&st->change_lock);
    err = retention_counts_read(st, fresh);
    pthread_mutex_unlock(&st->change_lock);
    if (err) {
        retention_free(fresh);
        return err;
    }
    pthread_mutex_lock(&st->lock);
    while (st->retention_in_use)
        pthread_cond_wait(&st->changed, &st->lock);
    struct retention *old = st->retention;
    fresh->id = old->id + 1;
    st->retention = fresh;
    st->keep_wanted++;
    pthread_cond_signal(&st->keep_wake);
    pthread_mutex_unlock(&st->lock);
    retention_free(old);
    return 0;
}

/* When the next segment is due as a whole for some rule. With the lock held. */
static uint64_t next_ns(const struct store *st)
{
    const struct retention *r = st->retention;
    uint64_t next = 0;
    for (uint32_t k = 0; k < st->segments->n; k++)
        for (size_t i = 0; i < r->n; i++) {
            uint64_t at = segment_newest_ns(&st->segments->items[k]->info) + r->rules[i].keep_ns;
            if (r->rules[i].keep_ns && at >= r->rules[i].keep_ns && (!next || at < next))
                next = at;
        }
    return next;
}

int store_retention_state(struct store *st, struct arena *arena,
                          struct store_rule_state **ret_rules, size_t *ret_n,
                          uint64_t *ret_disk_bytes_max, uint64_t *ret_next_ns)
{
    struct store_rule_state *rules = arena_array(arena, STORE_RULES_MAX + 1, sizeof *rules);
    if (!rules)
        return ERR_NOMEM;
    int err = 0;
    pthread_mutex_lock(&st->lock);
    const struct retention *r = st->retention;
    for (size_t i = 0; i < r->n && !err; i++) {
        const struct retention_rule *rule = &r->rules[i];
        rules[i] = (struct store_rule_state){
            .text = arena_str(arena, rule->text), .keep_ns = rule->keep_ns, .spans = rule->spans};
        err = rules[i].text.ptr ? 0 : ERR_NOMEM;
    }
    *ret_n = r->n;
    *ret_disk_bytes_max = r->disk_bytes_max;
    *ret_next_ns = next_ns(st);
    pthread_mutex_unlock(&st->lock);
    if (!err)
        *ret_rules = rules;
    return err;
}
