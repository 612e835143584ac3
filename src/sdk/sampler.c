#include "sdk/sampler.h"

#include "base/clock.h"
#include "sdk/exporter.h"
#include "sdk/ot_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_INTERVAL_NS NS_PER_S
#define RULES_RETIRED_MAX 64

/* The clock of the kernel's ticks: some milliseconds coarse, which is fine for seconds, and a fifth
 * of the price. */
static uint64_t coarse_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC_COARSE);
}

/* ---- how many are not kept in a row ---- */

/* 2 * atanh(z) = ln((1 + z) / (1 - z)), |z| <= 0.34: the rest of the series is below 1e-15 of it. */
static double ln_of(double z)
{
    double square = z * z, sum = 0;
    for (int n = 29; n > 0; n -= 2)
        sum = sum * square + 1.0 / n;
    return 2 * z * sum;
}

/* -ln(1 - v / 2^64), exact to the last bits for small v too. */
static double minus_ln_1_minus(uint64_t v)
{
    static const double ln_2 = 0.693147180559945309417;
    if (v < UINT64_C(1) << 63) {
        double x = (double)v * 0x1p-64;
        return ln_of(x / (2 - x));
    }
    uint64_t rest = -v; /* 2^64 - v, at most 2^63 */
    if (!rest)
        return 64 * ln_2;
    int zeros = __builtin_clzll(rest);
    double m = (double)(rest << zeros) * 0x1p-63; /* 1 to 2 */
    return (zeros + 1) * ln_2 - ln_of((m - 1) / (m + 1));
}

/* Inversion: the number of failures before a success of probability p is floor(ln(u) / ln(1 - p)), u even in 0 to 1
 * (Devroye, Non-Uniform Random Variate Generation, 1986, chapter X.2). */
uint64_t sampler_gap(const struct sampler *s, uint64_t threshold, uint64_t *random)
{
    if (threshold == 0)
        return 0;
    if (threshold >= OT_RANGE)
        return UINT64_MAX;
    *random += UINT64_C(0x9e3779b97f4a7c15); /* SplitMix64 */
    double gap = minus_ln_1_minus(hash_mix64(*random)) *
                 atomic_load_explicit(&s->gap_scale, memory_order_relaxed);
    return gap < 0x1p62 ? (uint64_t)gap : UINT64_C(1) << 62;
}

/* ---- asking ---- */

static bool rate_take(struct sampler *s)
{
    uint64_t interval = atomic_load_explicit(&s->interval_ns, memory_order_relaxed);
    uint64_t burst = atomic_load_explicit(&s->burst_ns, memory_order_relaxed);
    uint64_t now = coarse_ns(), next;
    uint64_t empty_at = atomic_load_explicit(&s->empty_at, memory_order_relaxed);
    if (!interval)
        return false;
    do {
        uint64_t from = empty_at > now ? empty_at : now;
        if (from - now + interval > burst)
            return false;
        next = from + interval;
    } while (!atomic_compare_exchange_weak_explicit(&s->empty_at, &empty_at, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static struct str value_text(const union pug__value *v)
{
    if (!v->s.ptr)
        return STR_NONE;
    return (struct str){v->s.ptr,
                        strnlen(v->s.ptr, v->s.len < PUG_STR_MAX ? v->s.len : PUG_STR_MAX)};
}

/* The names that HTTP spans use: those of OpenTelemetry's conventions, and their older forms. */
static void route_of(const struct pug__site *site, const union pug__value *values,
                     struct sampling_route *ret)
{
    *ret = (struct sampling_route){.method = STR_NONE};
    for (int i = 0; values && i < site->n_keys; i++) {
        struct str key = str_from(site->keys[i].name);
        if (site->keys[i].type != PUG__TYPE_STR)
            continue;
        if (str_eq(key, STR("http.request.method")) || str_eq(key, STR("http.method")))
            ret->method = value_text(&values[i]);
        else if (str_eq(key, STR("url.path")) || str_eq(key, STR("http.target")))
            ret->path = value_text(&values[i]);
        else if (str_eq(key, STR("server.address")) || str_eq(key, STR("http.host")))
            ret->host = value_text(&values[i]);
    }
    const char *query = ret->path.len ? memchr(ret->path.ptr, '?', ret->path.len) : NULL;
    if (query)
        ret->path.len = (size_t)(query - ret->path.ptr);
}

static void by_threshold(uint64_t threshold, uint64_t randomness, struct sampling_answer *ret)
{
    *ret = (struct sampling_answer){
        .keep = randomness >= threshold, .has_threshold = true, .threshold = threshold};
}

static void ask_rules(struct sampler *s, struct lane *lane, uint64_t randomness,
                      const struct pug__site *site, const union pug__value *values,
                      struct sampling_answer *ret)
{
    struct sampling_route route;
    route_of(site, values, &route);
    atomic_store(&lane->reading, 1); /* pairs with is_read */
    struct sampling_rules *rules = atomic_load(&s->rules);
    if (rules) {
        struct sampling_rule *rule = sampling_rules_match(rules, &route);
        if (sampling_rule_take(rule, (uint32_t)(coarse_ns() / NS_PER_S) + 1))
            /* Chosen by its place in the second, whatever its randomness: it stands for itself. Where nothing is kept
             * beyond the reservoir there is no saying. */
            *ret = (struct sampling_answer){.keep = true,
                                            .has_threshold = rule->threshold < OT_RANGE};
        else
            by_threshold(rule->threshold, randomness, ret);
    }
    atomic_store_explicit(&lane->reading, 0, memory_order_release);
}

void sampler_ask(struct sampler *s, struct lane *lane, uint64_t randomness,
                 const struct pug__site *site, const union pug__value *values,
                 struct sampling_answer *ret)
{
    *ret = (struct sampling_answer){.keep = false};
    switch (atomic_load_explicit(&s->kind, memory_order_relaxed)) {
    case SAMPLER_ALWAYS_ON:
        by_threshold(0, randomness, ret);
        break;
    case SAMPLER_RATIO:
        by_threshold(atomic_load_explicit(&s->threshold, memory_order_relaxed), randomness, ret);
        break;
    case SAMPLER_RATE:
        ret->keep = rate_take(s);
        break;
    case SAMPLER_RULES:
        ask_rules(s, lane, randomness, site, values, ret);
        break;
    default:
        break;
    }
}

bool sampler_is_needed(const struct sampler *s)
{
    return atomic_load(&s->kind) != SAMPLER_ALWAYS_ON;
}

bool sampler_keeps_senders(const struct sampler *s)
{
    return !atomic_load_explicit(&s->ignores_sender, memory_order_relaxed);
}

/* ---- the rules file ---- */

/* What X-Ray's SDKs do without rules: one trace a second and 5 % of the others. */
static const char rules_default[] =
    "{\"version\":2,\"default\":{\"fixed_target\":1,\"rate\":0.05}}";

static int file_read(const char *path, char **ret_text, size_t *ret_len)
{
    struct stat st;
    char *text = NULL;
    size_t len = 0;
    int err = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_from_errno(errno);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        err = ERR_INVALID;
    else if (st.st_size > RULES_FILE_BYTES_MAX)
        err = ERR_TOO_LARGE;
    else if (!(text = malloc(RULES_FILE_BYTES_MAX + 1)))
        err = ERR_NOMEM;
    while (!err && len <= RULES_FILE_BYTES_MAX) {
        ssize_t n = read(fd, text + len, RULES_FILE_BYTES_MAX + 1 - len);
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            err = err_from_errno(errno);
        if (n > 0)
            len += (size_t)n;
    }
    if (!err && len > RULES_FILE_BYTES_MAX)
        err = ERR_TOO_LARGE;
    close(fd);
    if (err) {
        free(text);
        return err;
    }
    *ret_text = text;
    *ret_len = len;
    return 0;
}

static unsigned line_of(const char *text, size_t len, size_t position)
{
    unsigned line = 1;
    for (size_t i = 0; i < position && i < len; i++)
        line += text[i] == '\n';
    return line;
}

static int rules_load(const struct config *c, struct sampling_rules **ret,
                      struct error_detail *problem)
{
    char *text = NULL;
    size_t len = 0;
    struct error_detail in_text = {.code = 0};
    int err = file_read(c->sampler.rules_file, &text, &len);
    if (err)
        return error_set(problem, err, 0, "%.100s: %s", c->sampler.rules_file, err_text(err));
    err = sampling_rules_parse((struct str){text, len}, str_from(c->service_name), ret, &in_text);
    if (err)
        error_set(problem, err, in_text.position, "%.80s:%u: %.90s", c->sampler.rules_file,
                  line_of(text, len, in_text.position), in_text.message);
    free(text);
    return err;
}

static bool file_has_changed(struct sampler *s, const char *path)
{
    struct stat st = {.st_size = 0};
    bool there = stat(path, &st) == 0;
    uint64_t mtime = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
    if (!s->file.again && there == s->file.there && s->file.inode == (uint64_t)st.st_ino &&
        s->file.size == (uint64_t)st.st_size && s->file.mtime_ns == mtime)
        return false;
    s->file.there = there;
    s->file.inode = (uint64_t)st.st_ino;
    s->file.size = (uint64_t)st.st_size;
    s->file.mtime_ns = mtime;
    return true;
}

static void rules_replace(struct sampler *s, struct sampling_rules *rules)
{
    struct sampling_rules *old = atomic_exchange(&s->rules, rules);
    if (old) {
        old->next = s->retired;
        s->retired = old;
    }
}

static size_t n_retired(const struct sampler *s)
{
    size_t n = 0;
    for (const struct sampling_rules *r = s->retired; r; r = r->next)
        n++;
    return n;
}

/* A thread that comes in after the exchange gets the new ones: to be seen outside once is enough. */
static bool is_read(struct memory *m)
{
    for (uint32_t i = 0; i < atomic_load(&m->n_lanes); i++)
        if (atomic_load(&atomic_load(&m->lanes[i])->reading)) /* pairs with ask_rules */
            return true;
    return false;
}

static void retired_free(struct sampler *s)
{
    while (s->retired) {
        struct sampling_rules *r = s->retired;
        s->retired = r->next;
        sampling_rules_free(r);
    }
}

static void rules_look(struct sampler *s, const struct config *c)
{
    struct sampling_rules *rules;
    struct error_detail problem = {.code = 0};
    /* In this order: a change that finds no room is seen again. */
    if (n_retired(s) >= RULES_RETIRED_MAX || !file_has_changed(s, c->sampler.rules_file))
        return;
    if (!s->file.again)
        atomic_store(&s->told, false); /* another file, another trouble */
    int err = rules_load(c, &rules, &problem);
    s->file.again = err == ERR_NOMEM; /* which is no fault of the file's */
    if (!err) {
        rules_replace(s, rules);
        return;
    }
    exporter_tell(c, &s->told, "%s; %s", problem.message,
                  atomic_load(&s->rules) ? "the sampling rules from before stay"
                                         : "sampled are a trace a second and 5 % of the others");
}

void sampler_look(struct sampler *s, const struct config *config, struct memory *m)
{
    uint64_t now = coarse_ns();
    if (config->sampler.kind != SAMPLER_RULES || now - s->looked_ns < LOOK_INTERVAL_NS)
        return;
    s->looked_ns = now;
    if (s->retired && !is_read(m))
        retired_free(s);
    rules_look(s, config);
}

void sampler_start(struct sampler *s, const struct config *config, struct memory *m)
{
    double per_second = config->sampler.per_second;
    uint64_t interval = per_second > 0 ? (uint64_t)((double)NS_PER_S / per_second) : 0;
    if (per_second > 0 && !interval)
        interval = 1;
    uint64_t threshold = ot_threshold(config->sampler.rate, OT_PRECISION);
    atomic_store(&s->threshold, threshold);
    if (threshold > 0 && threshold < OT_RANGE)
        atomic_store(&s->gap_scale, 1 / minus_ln_1_minus((OT_RANGE - threshold) << 8));
    atomic_store(&s->interval_ns, interval);
    atomic_store(&s->burst_ns, interval > NS_PER_S ? interval : NS_PER_S);
    atomic_store(&s->empty_at, 0);
    atomic_store(&s->ignores_sender, !config->sampler.parent_based);
    if (config->sampler.kind == SAMPLER_RULES) {
        struct sampling_rules *rules;
        s->file.there = s->file.again = false;
        s->file.mtime_ns = 1; /* look at it in any case */
        s->looked_ns = coarse_ns();
        rules_replace(s, NULL);
        if (!is_read(m)) /* those of the starts before */
            retired_free(s);
        rules_look(s, config);
        if (!atomic_load(&s->rules) &&
            sampling_rules_parse(str_from(rules_default), STR_NONE, &rules, NULL) == 0)
            rules_replace(s, rules);
    }
    atomic_store(&s->kind, config->sampler.kind);
}
