#include "model/redact.h"

#include "base/hash.h"
#include "base/matcher.h"

#include <assert.h>
#include <stdatomic.h>

enum {
    VERDICTS = 1024,      /* remembered keys; a newer one takes the place of an older */
    VERDICT_KEY_MAX = 54, /* longer keys are judged each time */
    CARD_DIGITS_MIN = 13,
    NOT_SECRET = 0xff, /* instead of the place of a rule */
};
static_assert((int)REDACT_RULES_MAX < (int)NOT_SECRET, "the place of a rule fits a verdict");

struct verdict {
    uint8_t len; /* 0: free */
    uint8_t rule;
    char key[VERDICT_KEY_MAX];
};

struct glob {
    struct str text; /* lower case */
    uint8_t rule;
};

struct pattern {
    struct matcher *matcher;
    size_t (*confirm)(
        struct str match); /* how much of it, from its begin; 0: none. May be NULL: all */
    uint8_t rule;
};

struct redact {
    struct glob *globs; /* rule by rule */
    size_t n_globs;
    struct pattern patterns[REDACT_PATTERNS_MAX];
    size_t n_patterns;
    struct verdict *verdicts;
    uint8_t actions[REDACT_RULES_MAX]; /* enum redact_action */
    redact_hash_fn *hash;
    void *hash_arg;
    uint64_t hits, rule_hits[REDACT_RULES_MAX];
    bool drops; /* a pattern of a rule that drops was found in the text at hand */
};

/* ---- keys ---- */

/* "token", but not "tokens": those are counted. */
const char *const redact_default_keys[] = {
    "*password*", "*passwd*", "*passphrase*",    "pwd",           "*.pwd",
    "*_pwd",      "*secret*", "*authorization*", "*cookie*",      "*api_key*",
    "*api-key*",  "*apikey*", "*credential*",    "*private_key*", "*private-key*",
    "token",      "*.token",  "*_token",         "*-token",       "*accesstoken*",
    NULL};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* Back to the last star only: linear in the text for each star, no recursion. */
static bool glob_matches(struct str glob, struct str key)
{
    size_t g = 0, k = 0, star = SIZE_MAX, resume = 0;
    while (k < key.len) {
        if (g < glob.len && glob.ptr[g] == '*') {
            star = g++;
            resume = k;
        } else if (g < glob.len && (glob.ptr[g] == '?' || glob.ptr[g] == lower(key.ptr[k]))) {
            g++;
            k++;
        } else if (star != SIZE_MAX) {
            g = star + 1;
            k = ++resume;
        } else {
            return false;
        }
    }
    while (g < glob.len && glob.ptr[g] == '*')
        g++;
    return g == glob.len;
}

static uint8_t judge(const struct redact *r, struct str key)
{
    for (size_t i = 0; i < r->n_globs; i++)
        if (glob_matches(r->globs[i].text, key))
            return r->globs[i].rule;
    return NOT_SECRET;
}

/* The rule that names the key. */
static uint8_t rule_of(struct redact *r, struct str key)
{
    if (!r->n_globs)
        return NOT_SECRET;
    if (key.len == 0 || key.len > VERDICT_KEY_MAX)
        return judge(r, key);
    struct verdict *v = &r->verdicts[hash_str(key) % VERDICTS];
    if (v->len != key.len || memcmp(v->key, key.ptr, key.len) != 0) {
        v->len = 0; /* a fork in the middle leaves none, rather than half of one */
        atomic_signal_fence(memory_order_seq_cst);
        memcpy(v->key, key.ptr, key.len);
        v->rule = judge(r, key);
        atomic_signal_fence(memory_order_seq_cst);
        v->len = (uint8_t)key.len;
    }
    return v->rule;
}

bool redact_is_secret(struct redact *r, struct str key)
{
    return r && rule_of(r, key) != NOT_SECRET;
}

bool redact_has_patterns(const struct redact *r)
{
    return r && r->n_patterns;
}

/* ---- patterns ---- */

/* Luhn's check digit over the first `len` bytes: what looks like a card number mostly is none. */
static bool luhn_fits(struct str match, size_t len)
{
    unsigned sum = 0, n = 0;
    for (size_t i = len; i-- > 0;) {
        char c = match.ptr[i];
        if (c < '0' || c > '9')
            continue;
        unsigned digit = (unsigned)(c - '0');
        if (n++ % 2)
            digit = digit > 4 ? 2 * digit - 9 : 2 * digit;
        sum += digit;
    }
    return n >= CARD_DIGITS_MIN && sum % 10 == 0;
}

/* Another number may stand behind the card's, and the expression takes both: the longest part that ends
 * where a group of digits does. What stands in front is the next look's business (rule_find). */
static size_t luhn(struct str match)
{
    for (size_t len = match.len; len >= CARD_DIGITS_MIN; len--)
        if (match.ptr[len - 1] >= '0' && match.ptr[len - 1] <= '9' &&
            (len == match.len || match.ptr[len] == ' ' || match.ptr[len] == '-') &&
            luhn_fits(match, len))
            return len;
    return 0;
}

#define OCTET "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define PEM_LABEL "[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"

static const struct {
    const char *name, *expression;
    size_t (*confirm)(struct str match);
} built_in[] = {
    {"email", "[A-Za-z0-9._%+'-]+@[A-Za-z0-9-]+(?:\\.[A-Za-z0-9-]+)+", NULL},
    {"credit_card", "\\b\\d(?:[ -]?\\d){12,18}\\b", luhn},
    {"bearer_token", "(?i)\\bbearer[ \\t]+[a-z0-9._~+/-]+=*", NULL},
    {"jwt", "\\beyJ[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]*", NULL},
    {"aws_key", "\\b(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AIPA|ANPA|ANVA|APKA|AROA)[A-Z0-9]{16}\\b",
     NULL},
    {"ipv4", "\\b" OCTET "(?:\\." OCTET "){3}\\b", NULL},
    /* To the end of the text: a value may have been cut before its END line. */
    {"private_key", "-----BEGIN " PEM_LABEL "[\\s\\S]*", NULL},
};

enum { BUILT_IN = sizeof built_in / sizeof built_in[0] };

const char *redact_pattern_name(size_t i)
{
    return i < BUILT_IN ? built_in[i].name : NULL;
}

static size_t pattern_find(const struct pattern *p, struct str text, size_t from, size_t *ret_end,
                           uint64_t *budget)
{
    size_t start, end;
    for (;;) {
        switch (matcher_find(p->matcher, text, from, &start, &end, budget)) {
        case MATCHER_NO:
            return SIZE_MAX;
        case MATCHER_TIRED: /* the rest goes: it may hold a match */
            *ret_end = text.len;
            return from;
        case MATCHER_YES:
            break;
        }
        size_t len = end - start;
        if (p->confirm)
            len = p->confirm((struct str){text.ptr + start, len});
        if (len) {
            *ret_end = start + len;
            return start;
        }
        from = start + 1; /* it may begin inside of what was taken for one */
    }
}

static struct str hashed(struct redact *r, const struct value *v, struct arena *arena)
{
    struct str text = r->hash ? r->hash(r->hash_arg, v, arena) : STR_NONE;
    return text.ptr ? text : STR(REDACTED);
}

/* What stands in the place of a match. */
static struct str pattern_put(struct redact *r, const struct pattern *p, struct str match,
                              struct arena *arena)
{
    if (r->actions[p->rule] != REDACT_HASH)
        return STR(REDACTED);
    return hashed(r, &(struct value){.type = VALUE_STRING, .string = match}, arena);
}

static struct str pattern_apply(struct redact *r, const struct pattern *p, struct str text,
                                struct arena *arena)
{
    uint64_t budget = matcher_budget(p->matcher, text.len);
    size_t at = 0, n = 0, end, start = pattern_find(p, text, 0, &end, &budget);
    if (start == SIZE_MAX)
        return text;
    r->drops |= r->actions[p->rule] == REDACT_DROP;
    /* A match may be shorter than what replaces it, but there is one for each byte at most. */
    bool hashes = r->actions[p->rule] == REDACT_HASH;
    size_t room = text.len *
                  (hashes ? sizeof REDACT_HASHED + REDACT_HASHED_DIGITS : sizeof REDACTED);
    if (room > (64u << 10))
        room = 64u << 10;
    char *out = arena_alloc(arena, room);
    if (!out)
        return STR(REDACTED);
    while (start != SIZE_MAX) {
        struct str put = pattern_put(r, p, (struct str){text.ptr + start, end - start}, arena);
        if (n + (start - at) + put.len + (text.len - end) > room)
            return STR(REDACTED);
        memcpy(out + n, text.ptr + at, start - at);
        n += start - at;
        memcpy(out + n, put.ptr, put.len);
        n += put.len;
        at = end;
        start = at < text.len ? pattern_find(p, text, at, &end, &budget) : SIZE_MAX;
    }
    memcpy(out + n, text.ptr + at, text.len - at);
    return (struct str){out, n + text.len - at};
}

struct str redact_text(struct redact *r, struct str text, struct arena *arena)
{
    const char *before = text.ptr;
    unsigned counted = NOT_SECRET;
    for (size_t i = 0; r && text.len && i < r->n_patterns; i++) {
        const struct pattern *p = &r->patterns[i];
        const char *was = text.ptr;
        text = pattern_apply(r, p, text, arena);
        if (text.ptr != was && p->rule != counted) /* those of one rule follow each other */
            r->rule_hits[counted = p->rule]++;
    }
    if (r)
        r->hits += text.ptr != before;
    return text;
}

static bool is_done(const struct value *v)
{
    size_t n = sizeof REDACT_HASHED - 1;
    if (v->type != VALUE_STRING)
        return false;
    if (v->string.len != n + REDACT_HASHED_DIGITS)
        return str_eq(v->string, STR(REDACTED));
    for (; n < v->string.len; n++)
        if (!memchr("0123456789abcdef", v->string.ptr[n], 16))
            return false;
    return str_starts(v->string, STR(REDACT_HASHED));
}

static void hit(struct redact *r, size_t rule)
{
    r->hits++;
    r->rule_hits[rule]++;
}

/* In the place of the whole value. */
static void take_out(struct redact *r, size_t rule, struct value *v, struct arena *arena)
{
    if (is_done(v))
        return;
    hit(r, rule);
    struct str text = r->actions[rule] == REDACT_HASH ? hashed(r, v, arena) : STR(REDACTED);
    *v = (struct value){.type = VALUE_STRING, .string = text};
}

uint64_t redact_hits(const struct redact *r)
{
    return r ? r->hits : 0;
}

uint64_t redact_rule_hits(const struct redact *r, size_t i)
{
    return r ? r->rule_hits[i] : 0;
}

/* ---- values ---- */

static size_t redact_items(struct redact *r, struct attr *items, size_t n, struct arena *arena,
                           int depth);

static void redact_value(struct redact *r, struct value *v, struct arena *arena, int depth)
{
    if (v->type == VALUE_STRING) {
        v->string = redact_text(r, v->string, arena);
    } else if (v->type == VALUE_ARRAY && depth < VALUE_DEPTH_MAX) {
        for (size_t i = 0; i < v->array.n; i++)
            redact_value(r, (struct value *)(uintptr_t)&v->array.items[i], arena, depth + 1);
    } else if (v->type == VALUE_MAP && depth < VALUE_DEPTH_MAX) {
        v->map.n = redact_items(r, (struct attr *)(uintptr_t)v->map.items, v->map.n, arena,
                                depth + 1);
    }
}

/* False: it goes. */
static bool redact_attr(struct redact *r, struct attr *a, struct arena *arena, int depth)
{
    uint8_t rule = rule_of(r, a->key);
    if (rule != NOT_SECRET) {
        if (r->actions[rule] != REDACT_DROP) {
            take_out(r, rule, &a->value, arena);
            return true;
        }
        hit(r, rule);
        return false;
    }
    if (!r->n_patterns && a->value.type != VALUE_MAP && a->value.type != VALUE_ARRAY)
        return true;
    /* In an array: with all of it. What is in a map takes out itself. */
    bool drops_around = r->drops;
    r->drops = false;
    redact_value(r, &a->value, arena, depth);
    bool drops = r->drops;
    r->drops = drops_around;
    return !drops;
}

/* Returns how many stay. */
static size_t redact_items(struct redact *r, struct attr *items, size_t n, struct arena *arena,
                           int depth)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!redact_attr(r, &items[i], arena, depth))
            continue;
        if (kept != i)
            items[kept] = items[i];
        kept++;
    }
    return kept;
}

void redact_attrs(struct redact *r, struct attrs *attrs, struct arena *arena)
{
    if (!r || !attrs->n)
        return;
    /* The arrays are the batch's own, const only for those who read them. */
    size_t kept = redact_items(r, (struct attr *)(uintptr_t)attrs->items, attrs->n, arena, 0);
    attrs->dropped += attrs->n - (uint32_t)kept;
    attrs->n = (uint32_t)kept;
}

/* ---- spans and logs ---- */

void redact_spans(struct redact *r, struct span *spans, size_t n, struct arena *arena)
{
    for (size_t i = 0; r && i < n; i++) {
        struct span *s = &spans[i];
        redact_attrs(r, &s->attrs, arena);
        if (r->n_patterns) {
            s->name = redact_text(r, s->name, arena);
            s->status_message = redact_text(r, s->status_message, arena);
        }
        for (uint32_t k = 0; k < s->n_events; k++) {
            struct event *e = (struct event *)(uintptr_t)&s->events[k];
            redact_attrs(r, &e->attrs, arena);
            e->name = redact_text(r, e->name, arena);
        }
        for (uint32_t k = 0; k < s->n_links; k++)
            redact_attrs(r, &((struct link *)(uintptr_t)&s->links[k])->attrs, arena);
    }
}

void redact_log(struct redact *r, struct log_record *record, struct arena *arena)
{
    if (!r)
        return;
    redact_attrs(r, &record->attrs, arena);
    redact_value(r, &record->body, arena, 0);
    record->event_name = redact_text(r, record->event_name, arena);
}

/* ---- compiling ---- */

static int add_glob(struct redact *r, size_t rule, struct str glob, struct arena *arena,
                    struct error_detail *detail)
{
    if (r->n_globs == REDACT_KEYS_MAX)
        return error_set(detail, ERR_TOO_LARGE, 0, "redact_keys: more than %d globs",
                         REDACT_KEYS_MAX);
    if (glob.len > REDACT_GLOB_MAX)
        return error_set(detail, ERR_TOO_LARGE, 0,
                         "redact_keys: \"%.40s...\" is longer than %d bytes", glob.ptr,
                         REDACT_GLOB_MAX);
    struct str kept = arena_str(arena, glob);
    if (!kept.ptr)
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    for (size_t i = 0; i < kept.len; i++)
        ((char *)(uintptr_t)kept.ptr)[i] = lower(kept.ptr[i]);
    r->globs[r->n_globs++] = (struct glob){kept, (uint8_t)rule};
    return 0;
}

static bool is_word(const char *text)
{
    return text[0] && strspn(text, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(text);
}

static int add_pattern(struct redact *r, size_t rule, const char *text, struct arena *arena,
                       struct error_detail *detail)
{
    struct error_detail why = {0};
    size_t i = 0;
    while (i < BUILT_IN && strcmp(built_in[i].name, text) != 0)
        i++;
    if (i == BUILT_IN && is_word(text))
        return error_set(detail, ERR_INVALID, 0,
                         "redact_patterns: \"%.40s\" is not known: expected email, credit_card, "
                         "bearer_token, jwt, aws_key, ipv4, private_key or an expression (a plain "
                         "word as \"(word)\")",
                         text);
    struct pattern *p = &r->patterns[r->n_patterns];
    int err = matcher_new(str_from(i < BUILT_IN ? built_in[i].expression : text), arena,
                          &p->matcher, &why);
    if (err)
        return error_set(detail, err, 0, "redact_patterns: \"%.40s\": %.120s", text,
                         why.code ? why.message : err_text(err));
    p->confirm = i < BUILT_IN ? built_in[i].confirm : NULL;
    p->rule = (uint8_t)rule;
    r->n_patterns++;
    return 0;
}

static int add_rule(struct redact *r, size_t at, const struct redact_rule *rule,
                    struct arena *arena, struct error_detail *detail)
{
    int err = 0;
    r->actions[at] = (uint8_t)rule->action;
    for (size_t i = 0; i < rule->n_keys && !err; i++) {
        if (strcmp(rule->keys[i], "default") != 0) {
            err = add_glob(r, at, str_from(rule->keys[i]), arena, detail);
            continue;
        }
        for (size_t k = 0; redact_default_keys[k] && !err; k++)
            err = add_glob(r, at, str_from(redact_default_keys[k]), arena, detail);
    }
    for (size_t i = 0; i < rule->n_patterns && !err; i++)
        err = add_pattern(r, at, rule->patterns[i], arena, detail);
    return err;
}

int redact_new_rules(const struct redact_rule *rules, size_t n, redact_hash_fn *hash,
                     void *hash_arg, struct arena *arena, struct redact **ret,
                     struct error_detail *ret_detail)
{
    size_t n_keys = 0, n_patterns = 0;
    int err = 0;
    *ret = NULL;
    for (size_t i = 0; i < n; i++) {
        n_keys += rules[i].n_keys;
        n_patterns += rules[i].n_patterns;
    }
    if (!n_keys && !n_patterns)
        return 0;
    if (n > REDACT_RULES_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "more than %d rules", REDACT_RULES_MAX);
    if (n_patterns > REDACT_PATTERNS_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "redact_patterns: more than %d",
                         REDACT_PATTERNS_MAX);
    struct redact *r = arena_zalloc(arena, sizeof *r);
    if (r) {
        r->globs = arena_array(arena, REDACT_KEYS_MAX, sizeof *r->globs);
        r->verdicts = n_keys ? arena_zalloc(arena, VERDICTS * sizeof *r->verdicts) : NULL;
        r->hash = hash;
        r->hash_arg = hash_arg;
    }
    if (!r || !r->globs || (n_keys && !r->verdicts))
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    for (size_t i = 0; i < n && !err; i++)
        err = add_rule(r, i, &rules[i], arena, ret_detail);
    if (!err)
        *ret = r;
    return err;
}

int redact_new(const char *const *keys, size_t n_keys, const char *const *patterns,
               size_t n_patterns, struct arena *arena, struct redact **ret,
               struct error_detail *ret_detail)
{
    const struct redact_rule rule = {keys, patterns, n_keys, n_patterns, REDACT_MASK};
    return redact_new_rules(&rule, 1, NULL, NULL, arena, ret, ret_detail);
}
