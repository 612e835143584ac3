/* The text is a rules file; what is taken in must match, give and be freed. The same text as a tracestate: what is set must
 * be read back, what is taken out must be gone, and the length stays in bounds. */
#include "sdk/ot_state.h"
#include "sdk/sampling_rules.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static void as_rules(struct str text)
{
    struct sampling_rules *rules = NULL;
    struct error_detail problem = {.code = 0};
    if (sampling_rules_parse(text, STR("shop"), &rules, &problem) != 0) {
        MUST(!rules && problem.code < 0 && problem.message[0]);
        return;
    }
    struct sampling_route route = {STR("GET"), text.len < 200 ? text : STR("/a/b"), STR("host")};
    struct sampling_rule *rule = sampling_rules_match(rules, &route);
    uint32_t taken = 0;
    for (int i = 0; i < 3; i++)
        taken += sampling_rule_take(rule, 1);
    MUST(taken == (rule->fixed_target < 3 ? rule->fixed_target : 3));
    MUST(rule->threshold <= OT_RANGE);
    sampling_rules_free(rules);
}

static void as_tracestate(struct str text)
{
    struct pug_context c = {.trace_id = {1}, .span_id = {1}, .flags = 1};
    struct ot_state before, after;
    uint64_t th = UINT64_C(0xc0000000000000);
    if (text.len > PUG_TRACESTATE_MAX)
        text.len = PUG_TRACESTATE_MAX;
    if (text.len)
        memcpy(c.tracestate, text.ptr, text.len);
    c.tracestate_len = (uint16_t)text.len;
    ot_state_read(text, &before);
    ot_state_set_th(&c, &th);
    MUST(c.tracestate_len <= PUG_TRACESTATE_MAX);
    ot_state_read((struct str){c.tracestate, c.tracestate_len}, &after);
    MUST(after.has_th && after.th == th);
    MUST(!before.has_rv || (after.has_rv && after.rv == before.rv));
    ot_state_set_th(&c, NULL);
    ot_state_read((struct str){c.tracestate, c.tracestate_len}, &after);
    MUST(!after.has_th);
    ot_state_repair(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    as_rules(text);
    as_tracestate(text);
    return 0;
}
