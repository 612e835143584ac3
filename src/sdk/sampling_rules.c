#include "sdk/sampling_rules.h"

#include "base/json.h"
#include "sdk/ot_state.h"

#include <stdlib.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* Only the last star is ever gone back to: what an earlier one took is settled once what follows it was found. */
bool sampling_pattern_fits(struct str pattern, struct str text)
{
    size_t p = 0, t = 0, star = SIZE_MAX, from = 0;
    while (t < text.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            from = t;
        } else if (p < pattern.len &&
                   (pattern.ptr[p] == '?' || lower(pattern.ptr[p]) == lower(text.ptr[t]))) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++from;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

static bool fits(struct str pattern, struct str text)
{
    return !pattern.ptr || sampling_pattern_fits(pattern, text);
}

struct sampling_rule *sampling_rules_match(const struct sampling_rules *rules,
                                           const struct sampling_route *route)
{
    for (size_t i = 0; i + 1 < rules->n; i++) {
        struct sampling_rule *r = &rules->rules[i];
        if (fits(r->method, route->method) && fits(r->path, route->path) &&
            fits(r->host, route->host))
            return r;
    }
    return &rules->rules[rules->n - 1];
}

bool sampling_rule_take(struct sampling_rule *rule, uint32_t second)
{
    uint64_t now = atomic_load_explicit(&rule->reservoir, memory_order_relaxed), next;
    do {
        uint32_t kept = (uint32_t)(now >> 32) == second ? (uint32_t)now : 0;
        if (kept >= rule->fixed_target)
            return false;
        next = (uint64_t)second << 32 | (kept + 1);
    } while (!atomic_compare_exchange_weak_explicit(&rule->reservoir, &now, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* ---- the file ---- */

struct draft {
    struct json_reader r;
    struct arena arena;
    struct sampling_rule *rules;
    size_t n;
    struct str service;
};

static enum json_type pattern_get(struct json_reader *r, struct str *ret)
{
    if (json_next(r) != JSON_STRING)
        return json_fail(r, "a pattern in quotes");
    if (r->text.len > RULE_PATTERN_MAX)
        return json_fail(r, "a pattern of at most 256 characters");
    *ret = r->text;
    return r->type;
}

struct rule_draft {
    struct str service, method, path, host;
    bool has_target, has_rate;
    uint64_t target;
    double rate;
};

static enum json_type rule_member(struct json_reader *r, struct rule_draft *d)
{
    struct str key = r->text;
    if (str_eq(key, STR("service_name")))
        return pattern_get(r, &d->service);
    if (str_eq(key, STR("http_method")))
        return pattern_get(r, &d->method);
    if (str_eq(key, STR("url_path")))
        return pattern_get(r, &d->path);
    if (str_eq(key, STR("host")))
        return pattern_get(r, &d->host);
    if (str_eq(key, STR("fixed_target"))) {
        d->has_target = json_next(r) == JSON_NUMBER && json_to_u64(r, &d->target) &&
                        d->target <= UINT32_MAX - 1;
        return d->has_target ? r->type : json_fail(r, "a whole number of traces a second");
    }
    if (str_eq(key, STR("rate"))) {
        d->has_rate = json_next(r) == JSON_NUMBER && json_to_double(r, &d->rate) && d->rate >= 0 &&
                      d->rate <= 1;
        return d->has_rate ? r->type : json_fail(r, "a rate from 0 to 1");
    }
    return json_skip(r); /* a description, or what later versions bring */
}

/* One rule, from after its brace; `is_default`: it has no patterns. */
static bool rule_get(struct draft *draft, bool is_default, struct sampling_rule *ret,
                     bool *ret_ours)
{
    struct json_reader *r = &draft->r;
    struct rule_draft d = {.has_rate = false};
    while (json_next(r) == JSON_KEY)
        if (rule_member(r, &d) == JSON_ERROR)
            return false;
    if (r->type != JSON_OBJECT_END)
        return false;
    if (!d.has_target || !d.has_rate) {
        json_fail(r, "a rule with fixed_target and rate");
        return false;
    }
    if (is_default && (d.service.ptr || d.method.ptr || d.path.ptr || d.host.ptr)) {
        json_fail(r, "a default without patterns: it is for all that no rule fits");
        return false;
    }
    *ret_ours = fits(d.service, draft->service);
    *ret = (struct sampling_rule){.method = d.method,
                                  .path = d.path,
                                  .host = d.host,
                                  .fixed_target = (uint32_t)d.target,
                                  .threshold = ot_threshold(d.rate, OT_PRECISION)};
    return true;
}

static bool rules_get(struct draft *d)
{
    struct json_reader *r = &d->r;
    if (json_next(r) != JSON_ARRAY)
        return json_fail(r, "a list of rules") != JSON_ERROR;
    while (json_next(r) == JSON_OBJECT) {
        bool ours;
        struct sampling_rule rule;
        if (d->n == RULES_MAX)
            return json_fail(r, "at most 256 rules") != JSON_ERROR;
        if (!rule_get(d, false, &rule, &ours))
            return false;
        if (ours)
            d->rules[d->n++] = rule;
    }
    if (r->type == JSON_ERROR)
        return false;
    return r->type == JSON_ARRAY_END || json_fail(r, "a rule in braces") != JSON_ERROR;
}

static bool document_get(struct draft *d, struct sampling_rule *ret_default)
{
    struct json_reader *r = &d->r;
    bool has_default = false, ours;
    uint64_t version = 0;
    if (json_next(r) != JSON_OBJECT)
        return json_fail(r, "an object with version, rules and default") != JSON_ERROR;
    while (json_next(r) == JSON_KEY) {
        if (str_eq(r->text, STR("version"))) {
            if (json_next(r) != JSON_NUMBER || !json_to_u64(r, &version) || version < 1 ||
                version > 2)
                return json_fail(r, "version 1 or 2") != JSON_ERROR;
        } else if (str_eq(r->text, STR("rules"))) {
            if (!rules_get(d))
                return false;
        } else if (str_eq(r->text, STR("default"))) {
            if (json_next(r) != JSON_OBJECT)
                return json_fail(r, "the default rule in braces") != JSON_ERROR;
            if (!rule_get(d, true, ret_default, &ours))
                return false;
            has_default = true;
        } else if (json_skip(r) == JSON_ERROR) {
            return false;
        }
    }
    if (r->type != JSON_OBJECT_END)
        return false;
    if (!version)
        return json_fail(r, "a version") != JSON_ERROR;
    if (!has_default)
        return json_fail(r, "a default rule") != JSON_ERROR;
    return json_next(r) == JSON_END;
}

static void move_text(char *text, size_t *at, struct str *s)
{
    if (!s->ptr)
        return;
    memcpy(text + *at, s->ptr, s->len);
    s->ptr = text + *at;
    *at += s->len;
}

/* The patterns still point into the file: into memory of their own. */
static struct sampling_rules *rules_from(struct draft *d)
{
    size_t bytes = 1, at = 0;
    for (size_t i = 0; i < d->n; i++)
        bytes += d->rules[i].method.len + d->rules[i].path.len + d->rules[i].host.len;
    struct sampling_rules *rules = calloc(1, sizeof *rules);
    if (!rules)
        return NULL;
    rules->rules = aligned_alloc(64, d->n * sizeof *rules->rules);
    rules->text = malloc(bytes);
    rules->n = d->n;
    if (!rules->rules || !rules->text) {
        sampling_rules_free(rules);
        return NULL;
    }
    memcpy(rules->rules, d->rules, d->n * sizeof *rules->rules);
    for (size_t i = 0; i < d->n; i++) {
        move_text(rules->text, &at, &rules->rules[i].method);
        move_text(rules->text, &at, &rules->rules[i].path);
        move_text(rules->text, &at, &rules->rules[i].host);
    }
    return rules;
}

int sampling_rules_parse(struct str json, struct str service, struct sampling_rules **ret,
                         struct error_detail *ret_problem)
{
    struct draft d = {.service = service};
    struct error_detail detail = {.code = 0};
    struct sampling_rule otherwise;
    struct sampling_rules *rules = NULL;
    int err = ERR_NOMEM;
    d.rules = aligned_alloc(64, (RULES_MAX + 1) * sizeof *d.rules);
    if (d.rules) {
        json_reader_init(&d.r, json, &d.arena, &detail);
        if (document_get(&d, &otherwise)) {
            d.rules[d.n++] = otherwise;
            rules = rules_from(&d);
        } else {
            err = d.r.err ? d.r.err : ERR_INVALID;
        }
    }
    if (!rules && !detail.code)
        error_set(&detail, err, 0, "%s", err_text(err));
    if (!rules && ret_problem)
        *ret_problem = detail;
    arena_done(&d.arena);
    free(d.rules);
    if (!rules)
        return err;
    *ret = rules;
    return 0;
}

void sampling_rules_free(struct sampling_rules *rules)
{
    if (!rules)
        return;
    free(rules->rules);
    free(rules->text);
    free(rules);
}
