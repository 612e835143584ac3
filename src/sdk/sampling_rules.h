/* Sampling rules as AWS X-Ray's SDKs read them from a local file (its versions 1 and 2):
 *
 *     {
 *       "version": 2,
 *       "rules": [
 *         {"description": "moves", "host": "*.example.org", "http_method": "POST", "url_path": "/api/move-?",
 *          "fixed_target": 2, "rate": 0.05}
 *       ],
 *       "default": {"fixed_target": 1, "rate": 0.1}
 *     }
 *
 * The first rule that fits decides, else the default: `fixed_target` traces of each second are kept
 * (the reservoir), and of those beyond, the fraction `rate`. A rule may also name a `service_name`.
 * In patterns `*` stands for anything and `?` for one character; letters fit in either case. What a
 * rule does not name fits everything; what it names and the span does not say fits only "*".
 *
 * Rules never change once they are in use but for their counters; a new file makes new ones. */
#ifndef SDK_SAMPLING_RULES_H
#define SDK_SAMPLING_RULES_H

#include <stdatomic.h>

#include "base/err.h"
#include "base/str.h"

#define RULES_MAX 256
#define RULE_PATTERN_MAX 256
#define RULES_FILE_BYTES_MAX (1u << 20)

struct sampling_rule {
    struct str method, path, host; /* patterns; ptr NULL: not named */
    uint32_t fixed_target;
    uint64_t threshold; /* of those beyond, see ot_state.h */
    /* seconds << 32 | kept in that second; all threads, by compare-and-swap */
    _Alignas(64) _Atomic uint64_t reservoir;
};

struct sampling_rules {
    struct sampling_rules *next; /* retired after this one */
    struct sampling_rule *rules; /* the last is the default */
    size_t n;
    char *text; /* of the patterns */
};

/* What a span says of itself when it begins; ptr NULL: nothing. */
struct sampling_route {
    struct str method, path, host;
};

/* Rules for another service than `service` are left out. The detail's position is in `json`. */
MUST_USE int sampling_rules_parse(struct str json, struct str service, struct sampling_rules **ret,
                                  struct error_detail *ret_problem);
void sampling_rules_free(struct sampling_rules *rules);

/* No lock, no allocation. */
struct sampling_rule *sampling_rules_match(const struct sampling_rules *rules,
                                           const struct sampling_route *route);
/* One of the `fixed_target` of this second, if there is one left. `second`: of a monotonic clock, not 0. */
bool sampling_rule_take(struct sampling_rule *rule, uint32_t second);
bool sampling_pattern_fits(struct str pattern, struct str text);

#endif
