#include "model/redact.h"

#include "base/hash.h"
#include "base/matcher.h"

#include <stdatomic.h>

enum {
    VERDICTS = 1024,      /* remembered keys; a newer one takes the place of an older */
    VERDICT_KEY_MAX = 55, /* longer keys are judged each time */
    CARD_DIGITS_MIN = 13,
};

struct verdict {
    uint8_t len; /* 0: free */
    bool secret;
    char key[VERDICT_KEY_MAX];
};

struct rule {
    struct matcher *matcher;
    size_t (*confirm)(
        struct str match); /* how much of it, from its begin; 0: none. May be NULL: all */
};

struct redact {
    struct str *globs; /* lower case */
    size_t n_globs;
    struct rule rules[REDACT_PATTERNS_MAX];
    size_t n_rules;
    struct verdict *verdicts;
    uint64_t hits;
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

static bool judge(const struct redact *r, struct str key)
{
    for (size_t i = 0; i < r->n_globs; i++)
        if (glob_matches(r->globs[i], key))
            return true;
    return false;
}

static bool is_secret(struct redact *r, struct str key)
{
    if (!r->n_globs)
        return false;
    if (key.len == 0 || key.len > VERDICT_KEY_MAX)
        return judge(r, key);
    struct verdict *v = &r->verdicts[hash_str(key) % VERDICTS];
    if (v->len != key.len || memcmp(v->key, key.ptr, key.len) != 0) {
        v->len = 0; /* a fork in the middle leaves none, rather than half of one */
        atomic_signal_fence(memory_order_seq_cst);
        memcpy(v->key, key.ptr, key.len);
        v->secret = judge(r, key);
        atomic_signal_fence(memory_order_seq_cst);
        v->len = (uint8_t)key.len;
    }
    return v->secret;
}

bool redact_is_secret(struct redact *r, struct str key)
{
    return r && is_secret(r, key);
}

bool redact_has_patterns(const struct redact *r)
{
    return r && r->n_rules;
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

static size_t rule_find(const struct rule *rule, struct str text, size_t from, size_t *ret_end,
                        uint64_t *budget)
{
    size_t start, end;
    for (;;) {
        switch (matcher_find(rule->matcher, text, from, &start, &end, budget)) {
        case MATCHER_NO:
            return SIZE_MAX;
        case MATCHER_TIRED: /* the rest goes: it may hold a match */
            *ret_end = text.len;
            return from;
        case MATCHER_YES:
            break;
        }
        size_t len = end - start;
        if (rule->confirm)
            len = rule->confirm((struct str){text.ptr + start, len});
        if (len) {
            *ret_end = start + len;
            return start;
        }
        from = start + 1; /* it may begin inside of what was taken for one */
    }
}

static struct str rule_apply(const struct rule *rule, struct str text, struct arena *arena)
{
    uint64_t budget = matcher_budget(rule->matcher, text.len);
    size_t at = 0, n = 0, end, start = rule_find(rule, text, 0, &end, &budget);
    if (start == SIZE_MAX)
        return text;
    /* A match may be shorter than what replaces it, but there is one for each byte at most. */
    size_t room = text.len * sizeof REDACTED;
    if (room > (64u << 10))
        room = 64u << 10;
    char *out = arena_alloc(arena, room);
    if (!out)
        return STR(REDACTED);
    while (start != SIZE_MAX) {
        if (n + (start - at) + sizeof REDACTED + (text.len - end) > room)
            return STR(REDACTED);
        memcpy(out + n, text.ptr + at, start - at);
        n += start - at;
        memcpy(out + n, REDACTED, sizeof REDACTED - 1);
        n += sizeof REDACTED - 1;
        at = end;
        start = at < text.len ? rule_find(rule, text, at, &end, &budget) : SIZE_MAX;
    }
    memcpy(out + n, text.ptr + at, text.len - at);
    return (struct str){out, n + text.len - at};
}

struct str redact_text(struct redact *r, struct str text, struct arena *arena)
{
    const char *before = text.ptr;
    for (size_t i = 0; r && text.len && i < r->n_rules; i++)
        text = rule_apply(&r->rules[i], text, arena);
    if (r)
        r->hits += text.ptr != before;
    return text;
}

static void take_out(struct redact *r, struct value *v)
{
    r->hits += v->type != VALUE_STRING || !str_eq(v->string, STR(REDACTED));
    *v = (struct value){.type = VALUE_STRING, .string = STR(REDACTED)};
}

uint64_t redact_hits(const struct redact *r)
{
    return r ? r->hits : 0;
}

/* ---- spans ---- */

static void redact_value(struct redact *r, struct value *v, struct arena *arena, int depth)
{
    if (v->type == VALUE_STRING) {
        v->string = redact_text(r, v->string, arena);
    } else if (v->type == VALUE_ARRAY && depth < VALUE_DEPTH_MAX) {
        for (size_t i = 0; i < v->array.n; i++)
            redact_value(r, (struct value *)(uintptr_t)&v->array.items[i], arena, depth + 1);
    } else if (v->type == VALUE_MAP && depth < VALUE_DEPTH_MAX) {
        for (size_t i = 0; i < v->map.n; i++) {
            struct attr *a = (struct attr *)(uintptr_t)&v->map.items[i];
            if (is_secret(r, a->key))
                take_out(r, &a->value);
            else
                redact_value(r, &a->value, arena, depth + 1);
        }
    }
}

void redact_attrs(struct redact *r, struct attrs *attrs, struct arena *arena)
{
    for (uint32_t i = 0; r && i < attrs->n; i++) {
        /* The arrays are the batch's own, const only for those who read them. */
        struct attr *a = (struct attr *)(uintptr_t)&attrs->items[i];
        if (is_secret(r, a->key))
            take_out(r, &a->value);
        else if (r->n_rules || a->value.type == VALUE_MAP || a->value.type == VALUE_ARRAY)
            redact_value(r, &a->value, arena, 0);
    }
}

void redact_spans(struct redact *r, struct span *spans, size_t n, struct arena *arena)
{
    for (size_t i = 0; r && i < n; i++) {
        struct span *s = &spans[i];
        redact_attrs(r, &s->attrs, arena);
        if (r->n_rules) {
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

/* ---- compiling ---- */

static int add_glob(struct redact *r, struct str glob, struct arena *arena,
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
    r->globs[r->n_globs++] = kept;
    return 0;
}

static bool is_word(const char *text)
{
    return text[0] && strspn(text, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(text);
}

static int add_pattern(struct redact *r, const char *text, struct arena *arena,
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
    struct rule *rule = &r->rules[r->n_rules];
    int err = matcher_new(str_from(i < BUILT_IN ? built_in[i].expression : text), arena,
                          &rule->matcher, &why);
    if (err)
        return error_set(detail, err, 0, "redact_patterns: \"%.40s\": %.120s", text,
                         why.code ? why.message : err_text(err));
    rule->confirm = i < BUILT_IN ? built_in[i].confirm : NULL;
    r->n_rules++;
    return 0;
}

int redact_new(const char *const *keys, size_t n_keys, const char *const *patterns,
               size_t n_patterns, struct arena *arena, struct redact **ret,
               struct error_detail *ret_detail)
{
    int err = 0;
    *ret = NULL;
    if (!n_keys && !n_patterns)
        return 0;
    if (n_patterns > REDACT_PATTERNS_MAX)
        return error_set(ret_detail, ERR_TOO_LARGE, 0, "redact_patterns: more than %d",
                         REDACT_PATTERNS_MAX);
    struct redact *r = arena_zalloc(arena, sizeof *r);
    if (r) {
        r->globs = arena_array(arena, REDACT_KEYS_MAX, sizeof *r->globs);
        r->verdicts = n_keys ? arena_zalloc(arena, VERDICTS * sizeof *r->verdicts) : NULL;
    }
    if (!r || !r->globs || (n_keys && !r->verdicts))
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    for (size_t i = 0; i < n_keys && !err; i++) {
        if (strcmp(keys[i], "default") != 0) {
            err = add_glob(r, str_from(keys[i]), arena, ret_detail);
            continue;
        }
        for (size_t k = 0; redact_default_keys[k] && !err; k++)
            err = add_glob(r, str_from(redact_default_keys[k]), arena, ret_detail);
    }
    for (size_t i = 0; i < n_patterns && !err; i++)
        err = add_pattern(r, patterns[i], arena, ret_detail);
    if (!err)
        *ret = r;
    return err;
}
