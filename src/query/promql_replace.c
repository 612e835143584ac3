/* label_replace: a regular expression over a label's value, whose groups make another label.
 *
 * What is understood is what base/pattern.h understands, RE2's language. PCRE2 then says what the groups are: it
 * prefers the first of alternatives and knows lazy repetitions, as RE2 does. It goes back where RE2 need not, so each
 * match has a limit of steps. */
#include "query/promql_internal.h"

#include "base/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { REPLACE_STEPS_MAX = 1000000, REPLACE_DEPTH_MAX = 10000 };

struct replacer {
    pcre2_code *code;
    pcre2_match_context *limits;
    pcre2_match_data *match;
};

static int refuse(struct promql_run *run, const char *message)
{
    return error_set(run->detail, ERR_INVALID, 0, "label_replace(): %s", message);
}

static void replacer_done(struct replacer *r)
{
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->limits);
    pcre2_code_free(r->code);
}

static int replacer_init(struct promql_run *run, struct str expression, struct replacer *r)
{
    struct error_detail detail = {0};
    struct pattern *known = NULL;
    int code;
    PCRE2_SIZE at;
    *r = (struct replacer){0};
    int err = pattern_new(expression, &known, &detail);
    pattern_free(known);
    if (err)
        return err == ERR_NOMEM ? promql_nomem(run) : refuse(run, detail.message);
    r->code = pcre2_compile((PCRE2_SPTR)expression.ptr, expression.len,
                            PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOTALL |
                                PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C,
                            &code, &at, NULL);
    if (!r->code)
        return refuse(run, "the regular expression cannot be compiled");
    r->limits = pcre2_match_context_create(NULL);
    r->match = pcre2_match_data_create_from_pattern(r->code, NULL);
    if (!r->limits || !r->match)
        return promql_nomem(run);
    pcre2_set_match_limit(r->limits, REPLACE_STEPS_MAX);
    pcre2_set_depth_limit(r->limits, REPLACE_DEPTH_MAX);
    return 0;
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* What the group with this number or name is of the value; empty when there is none. */
static struct str group_of(const struct replacer *r, struct str value, struct str name)
{
    char terminated[64];
    uint64_t number;
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(r->match);
    if (!str_to_u64(name, &number)) {
        if (name.len >= sizeof terminated)
            return STR_NONE;
        memcpy(terminated, name.ptr, name.len);
        terminated[name.len] = '\0';
        int found = pcre2_substring_number_from_name(r->code, (PCRE2_SPTR)terminated);
        if (found < 0)
            return STR_NONE;
        number = (uint64_t)found;
    }
    if (number >= pcre2_get_ovector_count(r->match) || places[2 * number] == PCRE2_UNSET)
        return STR_NONE;
    return (struct str){value.ptr + places[2 * number],
                        places[2 * number + 1] - places[2 * number]};
}

/* $1, ${1}, $name, ${name}, $$. */
static void expand(const struct replacer *r, struct str template, struct str value, struct buf *out)
{
    for (size_t i = 0; i < template.len; i++) {
        struct str rest = str_skip(template, i + 1);
        bool braces = str_starts(rest, STR("{"));
        size_t from = braces, past = from;
        if (template.ptr[i] != '$') {
            buf_byte(out, template.ptr[i]);
            continue;
        }
        while (past < rest.len && is_name(rest.ptr[past]))
            past++;
        if (str_starts(rest, STR("$"))) {
            buf_byte(out, '$');
            i++;
        } else if (past == from || (braces && !(past < rest.len && rest.ptr[past] == '}'))) {
            buf_byte(out, '$');
        } else {
            buf_str(out, group_of(r, value, (struct str){rest.ptr + from, past - from}));
            i += past + braces;
        }
    }
}

static int replace_one(struct promql_run *run, const struct replacer *r, struct str to,
                       struct str template, struct str from, struct promql_labels *labels)
{
    struct str value = promql_label_get(labels, from);
    struct buf out = {.bytes_max = PROMQL_LABEL_MAX};
    int found = str_is_utf8(value) ? pcre2_match(r->code, (PCRE2_SPTR)value.ptr, value.len, 0, 0,
                                                 r->match, r->limits)
                                   : PCRE2_ERROR_NOMATCH;
    if (found == PCRE2_ERROR_NOMATCH)
        return 0;
    if (found < 0)
        return refuse(run, "the regular expression takes too many steps");
    expand(r, template, value, &out);
    return promql_labels_set_made(run, labels, to, &out);
}

int promql_label_replace(struct promql_run *run, const struct promql_expr *e,
                         const struct promql_steps *steps, struct promql_set *ret)
{
    struct promql_value texts[5], v;
    struct replacer r = {0};
    int err = 0;
    for (size_t i = 1; !err && i < 5; i++)
        err = promql_eval(run, e->args[i], steps, &texts[i]);
    if (!err)
        err = promql_eval(run, e->args[0], steps, &v);
    if (!err && !promql_label_is_valid(texts[1].text))
        err = refuse(run, "the name of the new label is not valid");
    if (!err)
        err = replacer_init(run, texts[4].text, &r);
    for (size_t i = 0; !err && i < v.set.n; i++)
        err = replace_one(run, &r, texts[1].text, texts[2].text, texts[3].text,
                          &v.set.items[i].labels);
    replacer_done(&r);
    if (err)
        return err;
    *ret = v.set;
    return promql_set_unite(run, steps, ret);
}
