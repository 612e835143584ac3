/* 1. A set of rules lives as long as somebody holds it: the redaction itself while it is in force, and each redactor
 *    that is out. A redactor is the rules compiled, with the state of one user.
 * 2. Who works takes a redactor of the set in force (or has one made) and gives it back; then its hits are added to the
 *    counts. There are never more of them than threads that work at once.
 * 3. Counts belong to names and not to sets, so that they never go back when the rules are read again. */
#include "ingest/redaction.h"

#include "base/buf.h"
#include "wire/value_json.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    NAMES_MAX = 4 * REDACT_RULES_MAX
}; /* counted; of more that come with reloads the first go */

struct redactor {
    struct redactor *next;
    struct set *set;
    struct arena arena;
    struct redact *rules;
    EVP_MAC_CTX *mac;
    uint64_t counted[REDACT_RULES_MAX]; /* of its hits */
};

struct set {
    struct arena arena;
    struct redaction_rule *rules;
    size_t n;
    uint8_t key[REDACTION_KEY_SIZE];
    size_t refs;           /* under the redaction's lock, as what follows */
    struct redactor *idle; /* only while it is in force */
};

struct redaction {
    _Atomic bool is_on;
    pthread_mutex_t lock;
    struct set *set; /* in force */
    struct redaction_count names[NAMES_MAX];
    size_t n_names;
};

const char *redact_action_name(enum redact_action action)
{
    static const char *const names[] = {
        [REDACT_MASK] = "mask", [REDACT_HASH] = "hash", [REDACT_DROP] = "drop"};
    return names[action];
}

/* ---- hashes ---- */

/* A string is its bytes; anything else what JSON would write, so that 42 and "42" are the same. */
static bool mac_value(EVP_MAC_CTX *mac, const struct value *v)
{
    if (v->type == VALUE_STRING || v->type == VALUE_BYTES)
        return EVP_MAC_update(mac, (const unsigned char *)v->string.ptr, v->string.len);
    struct buf text = BUF_INIT;
    struct json_writer w = json_writer(&text);
    value_json(v, &w);
    bool ok = buf_ok(&text) && EVP_MAC_update(mac, (const unsigned char *)text.ptr, text.len);
    buf_done(&text);
    return ok;
}

static struct str hash(void *arg, const struct value *v, struct arena *arena)
{
    static const char digits[] = "0123456789abcdef";
    struct redactor *x = arg;
    unsigned char out[EVP_MAX_MD_SIZE];
    size_t n = 0, prefix = sizeof REDACT_HASHED - 1;
    char *text = arena_alloc(arena, prefix + REDACT_HASHED_DIGITS);
    if (!text || !EVP_MAC_init(x->mac, NULL, 0, NULL) || !mac_value(x->mac, v) ||
        !EVP_MAC_final(x->mac, out, &n, sizeof out) || n < REDACT_HASHED_DIGITS / 2)
        return STR_NONE;
    memcpy(text, REDACT_HASHED, prefix);
    for (size_t i = 0; i < REDACT_HASHED_DIGITS / 2; i++) {
        text[prefix + 2 * i] = digits[out[i] >> 4];
        text[prefix + 2 * i + 1] = digits[out[i] & 15];
    }
    return (struct str){text, prefix + REDACT_HASHED_DIGITS};
}

static EVP_MAC_CTX *mac_new(uint8_t key[REDACTION_KEY_SIZE])
{
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *mac = hmac ? EVP_MAC_CTX_new(hmac) : NULL;
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                 OSSL_PARAM_construct_end()};
    EVP_MAC_free(hmac); /* the context holds it */
    if (mac && EVP_MAC_init(mac, key, REDACTION_KEY_SIZE, params))
        return mac;
    EVP_MAC_CTX_free(mac);
    return NULL;
}

/* ---- redactors and sets ---- */

static void redactor_free(struct redactor *x)
{
    if (!x)
        return;
    EVP_MAC_CTX_free(x->mac);
    arena_done(&x->arena);
    free(x);
}

static int redactor_new(struct set *set, struct redactor **ret, struct error_detail *detail)
{
    struct redact_rule rules[REDACT_RULES_MAX] = {0};
    struct redactor *x = calloc(1, sizeof *x);
    bool hashes = false;
    if (!x)
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    for (size_t i = 0; i < set->n; i++) {
        rules[i] = set->rules[i].rule;
        hashes |= rules[i].action == REDACT_HASH;
    }
    x->set = set;
    int err = redact_new_rules(rules, set->n, hash, x, &x->arena, &x->rules, detail);
    if (!err && hashes && !(x->mac = mac_new(set->key)))
        err = error_set(detail, ERR_NOMEM, 0, "the keyed hash cannot be set up");
    if (err)
        redactor_free(x);
    else
        *ret = x;
    return err;
}

static void set_free(struct set *set)
{
    if (!set)
        return;
    while (set->idle) {
        struct redactor *x = set->idle;
        set->idle = x->next;
        redactor_free(x);
    }
    volatile uint8_t *key = set->key; /* volatile: to be written although it is freed next */
    for (size_t i = 0; i < REDACTION_KEY_SIZE; i++)
        key[i] = 0;
    arena_done(&set->arena);
    free(set);
}

static const char *const *texts_copy(struct arena *arena, const char *const *from, size_t n)
{
    const char **to = arena_array(arena, n, sizeof *to);
    for (size_t i = 0; to && i < n; i++)
        if (!(to[i] = arena_str(arena, str_from(from[i])).ptr))
            return NULL;
    return to;
}

static bool set_copy(struct set *set, const struct redaction_options *o)
{
    set->rules = arena_array(&set->arena, o->n, sizeof *set->rules);
    if (!set->rules)
        return false;
    for (size_t i = 0; i < o->n; i++) {
        const struct redaction_rule *from = &o->rules[i];
        struct redaction_rule *to = &set->rules[i];
        *to = *from;
        to->name = arena_str(&set->arena, str_from(from->name)).ptr;
        to->rule.keys = texts_copy(&set->arena, from->rule.keys, from->rule.n_keys);
        to->rule.patterns = texts_copy(&set->arena, from->rule.patterns, from->rule.n_patterns);
        if (!to->name || !to->rule.keys || !to->rule.patterns)
            return false;
    }
    set->n = o->n;
    memcpy(set->key, o->key, sizeof set->key);
    return true;
}

static int set_new(const struct redaction_options *o, struct set **ret, struct error_detail *detail)
{
    for (size_t i = 0; i < o->n; i++) {
        size_t n = strlen(o->rules[i].name);
        if (i == REDACT_RULES_MAX)
            return error_set(detail, ERR_TOO_LARGE, 0, "more than %d rules", REDACT_RULES_MAX);
        if (!n || n > REDACTION_NAME_MAX)
            return error_set(detail, ERR_INVALID, 0, "a rule's name has 1 to %d bytes",
                             REDACTION_NAME_MAX);
    }
    struct set *set = calloc(1, sizeof *set);
    if (!set || !set_copy(set, o)) {
        set_free(set);
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    }
    set->refs = 1;
    /* The first user's, made here to hear now what is wrong. */
    int err = redactor_new(set, &set->idle, detail);
    if (!err && !set->idle->rules) { /* nothing to look for */
        redactor_free(set->idle);
        set->idle = NULL;
        set->n = 0;
    }
    if (err)
        set_free(set);
    else
        *ret = set;
    return err;
}

/* ---- counts ---- */

static struct redaction_count *name_find(struct redaction *r, const char *name)
{
    for (size_t i = 0; i < r->n_names; i++)
        if (!strcmp(r->names[i].name, name))
            return &r->names[i];
    return NULL;
}

static void names_add(struct redaction *r, const struct set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        if (name_find(r, set->rules[i].name))
            continue;
        if (r->n_names == NAMES_MAX)
            memmove(r->names, r->names + 1, --r->n_names * sizeof *r->names);
        struct redaction_count *c = &r->names[r->n_names++];
        *c = (struct redaction_count){.values = 0};
        snprintf(c->name, sizeof c->name, "%s", set->rules[i].name);
    }
}

static void hits_count(struct redaction *r, struct redactor *x)
{
    for (size_t i = 0; i < x->set->n; i++) {
        uint64_t hits = redact_rule_hits(x->rules, i);
        if (hits == x->counted[i])
            continue;
        struct redaction_count *c = name_find(r, x->set->rules[i].name);
        if (c)
            c->values += hits - x->counted[i];
        x->counted[i] = hits;
    }
}

size_t redaction_counts(struct redaction *r, struct redaction_count ret[REDACT_RULES_MAX])
{
    pthread_mutex_lock(&r->lock);
    size_t n = r->set->n;
    for (size_t i = 0; i < n; i++) {
        const struct redaction_count *c = name_find(r, r->set->rules[i].name);
        ret[i] = c ? *c : (struct redaction_count){.values = 0};
        ret[i].action = r->set->rules[i].rule.action;
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}

/* ---- life ---- */

int redaction_new(const struct redaction_options *options, struct redaction **ret,
                  struct error_detail *ret_detail)
{
    struct redaction *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    int err = set_new(options, &r->set, ret_detail);
    if (err) {
        free(r);
        return err;
    }
    pthread_mutex_init(&r->lock, NULL);
    names_add(r, r->set);
    atomic_init(&r->is_on, r->set->n != 0);
    *ret = r;
    return 0;
}

void redaction_free(struct redaction *r)
{
    if (!r)
        return;
    pthread_mutex_destroy(&r->lock);
    set_free(r->set);
    free(r);
}

int redaction_set(struct redaction *r, const struct redaction_options *options,
                  struct error_detail *ret_detail)
{
    struct set *fresh;
    int err = set_new(options, &fresh, ret_detail);
    if (err)
        return err;
    pthread_mutex_lock(&r->lock);
    struct set *old = r->set;
    r->set = fresh;
    names_add(r, fresh);
    /* release pairs with the acquire in redaction_is_on */
    atomic_store_explicit(&r->is_on, fresh->n != 0, memory_order_release);
    bool is_last = --old->refs == 0;
    pthread_mutex_unlock(&r->lock);
    if (is_last)
        set_free(old);
    return 0;
}

bool redaction_is_on(const struct redaction *r)
{
    return r && atomic_load_explicit(&r->is_on, memory_order_acquire);
}

/* `*ret` is NULL when there are no rules any more. */
static int take(struct redaction *r, struct redactor **ret)
{
    struct redactor *x = NULL;
    int err = 0;
    pthread_mutex_lock(&r->lock);
    struct set *set = r->set;
    bool is_on = set->n != 0; /* else it may go at once: nobody holds it */
    if (is_on) {
        set->refs++;
        x = set->idle;
        if (x)
            set->idle = x->next;
    }
    pthread_mutex_unlock(&r->lock);
    if (is_on && !x)
        err = redactor_new(set, &x, NULL);
    if (err) {
        pthread_mutex_lock(&r->lock);
        bool is_last = --set->refs == 0;
        pthread_mutex_unlock(&r->lock);
        if (is_last)
            set_free(set);
        return err;
    }
    *ret = x;
    return 0;
}

static void give(struct redaction *r, struct redactor *x)
{
    struct set *set = x->set;
    pthread_mutex_lock(&r->lock);
    hits_count(r, x);
    bool is_last = --set->refs == 0, is_kept = set == r->set;
    if (is_kept) {
        x->next = set->idle;
        set->idle = x;
    }
    pthread_mutex_unlock(&r->lock);
    if (!is_kept)
        redactor_free(x);
    if (is_last)
        set_free(set);
}

/* ---- what comes ---- */

/* Neighbours share resource and scope, before and after. The copies are redacted: the same one may come again. */
struct shared {
    struct redactor *x;
    struct arena *arena;
    const struct resource *resource, *resource_now;
    const struct scope *scope, *scope_now;
    bool resource_hit, scope_hit;
    int err;
};

static bool attrs_redact(struct shared *s, struct attrs *attrs)
{
    uint64_t before = redact_hits(s->x->rules);
    struct attr *items = arena_array(s->arena, attrs->n, sizeof *items);
    if (!items) {
        s->err = ERR_NOMEM;
        return false;
    }
    if (attrs->n)
        memcpy(items, attrs->items, attrs->n * sizeof *items);
    attrs->items = items;
    redact_attrs(s->x->rules, attrs, s->arena);
    return redact_hits(s->x->rules) != before;
}

static const struct resource *resource_redact(struct shared *s, const struct resource *from)
{
    if (from == s->resource)
        return s->resource_now;
    struct resource own = *from, *kept;
    s->resource = s->resource_now = from;
    s->resource_hit = attrs_redact(s, &own.attrs);
    if (!s->resource_hit)
        return from;
    resource_set_service_name(&own);
    kept = arena_alloc(s->arena, sizeof *kept);
    if (!kept) {
        s->err = ERR_NOMEM;
        return from;
    }
    *kept = own;
    return s->resource_now = kept;
}

static const struct scope *scope_redact(struct shared *s, const struct scope *from)
{
    if (from == s->scope)
        return s->scope_now;
    struct scope own = *from, *kept;
    s->scope = s->scope_now = from;
    s->scope_hit = from->attrs.n && attrs_redact(s, &own.attrs);
    if (!s->scope_hit)
        return from;
    kept = arena_alloc(s->arena, sizeof *kept);
    if (!kept) {
        s->err = ERR_NOMEM;
        return from;
    }
    *kept = own;
    return s->scope_now = kept;
}

static void mark(struct shared *s, uint8_t **marks, size_t n, size_t i)
{
    if (!*marks) {
        *marks = arena_alloc(s->arena, n);
        if (!*marks) {
            s->err = ERR_NOMEM;
            return;
        }
        memset(*marks, 0, n);
    }
    (*marks)[i] = 1;
}

int redaction_spans(struct redaction *r, struct span_batch *batch, struct arena *arena,
                    uint8_t **ret_marks)
{
    struct redactor *x;
    uint8_t *marks = NULL;
    int err = take(r, &x);
    if (err)
        return err;
    struct shared s = {.x = x, .arena = arena};
    for (size_t i = 0; x && i < batch->n && !s.err; i++) {
        struct span *span = &batch->spans[i];
        uint64_t before = redact_hits(x->rules);
        redact_spans(x->rules, span, 1, arena);
        bool is_hit = redact_hits(x->rules) != before;
        span->resource = resource_redact(&s, span->resource);
        span->scope = scope_redact(&s, span->scope);
        if (is_hit || s.resource_hit || s.scope_hit)
            mark(&s, &marks, batch->n, i);
    }
    if (x)
        give(r, x);
    if (!s.err)
        *ret_marks = marks;
    return s.err;
}

int redaction_logs(struct redaction *r, struct log_record *records, size_t n, struct arena *arena)
{
    struct redactor *x;
    int err = take(r, &x);
    if (err)
        return err;
    struct shared s = {.x = x, .arena = arena};
    for (size_t i = 0; x && i < n && !s.err; i++) {
        redact_log(x->rules, &records[i], arena);
        records[i].resource = resource_redact(&s, records[i].resource);
        records[i].scope = scope_redact(&s, records[i].scope);
    }
    if (x)
        give(r, x);
    return s.err;
}

int redaction_metrics(struct redaction *r, struct metric_batch *batches, size_t n,
                      struct arena *arena)
{
    struct redactor *x;
    int err = take(r, &x);
    if (err)
        return err;
    struct shared s = {.x = x, .arena = arena};
    for (size_t i = 0; x && i < n && !s.err; i++) {
        batches[i].resource = resource_redact(&s, batches[i].resource);
        batches[i].scope = scope_redact(&s, batches[i].scope);
        for (size_t k = 0; k < batches[i].n; k++) {
            const struct metric *m = &batches[i].metrics[k];
            for (size_t p = 0; p < m->n_points; p++) /* the decoder's arrays are the arena's */
                redact_attrs(x->rules, &((struct metric_point *)(uintptr_t)&m->points[p])->attrs,
                             arena);
        }
    }
    if (x)
        give(r, x);
    return s.err;
}
