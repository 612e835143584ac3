/* Rules of redaction of `[server]`: [[server.redaction_rules]], and the one that redact_keys, redact_patterns and
 * redact_action make, which comes last. */
#ifndef CLI_SERVER_REDACTION_H
#define CLI_SERVER_REDACTION_H

#include "base/toml.h"
#include "cli/server_config.h"

/* One table of the file; what is wrong is told (server_config_wrong). */
void server_redaction_take(struct server_config *c, const struct toml_value *table);
/* Whether the rule that the settings make can be compiled; tells it. */
void server_redaction_check(struct server_config *c);
/* Whether something says what is to be redacted differently. */
bool server_redaction_differs(const struct server_config *a, const struct server_config *b);

/* All rules, which lie in `rules`, and the key of their hashes: that of redact_key_file, else of the file
 * redaction.key in `data`, which is made when it is needed first. What they point to is the configuration's. */
MUST_USE int server_redaction_options(const struct server_config *c, const char *data,
                                      struct redaction_rule rules[REDACT_RULES_MAX],
                                      struct redaction_options *ret,
                                      struct error_detail *ret_detail);

#endif
