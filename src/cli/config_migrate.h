/* Old sections of pugmark.toml into [telemetry], in the text itself: comments, order and everything
 * else stay. */
#ifndef CLI_CONFIG_MIGRATE_H
#define CLI_CONFIG_MIGRATE_H

#include "base/buf.h"
#include "base/toml.h"

/* A word to the user, with the line it is about. */
typedef void config_migrate_tell(void *user, uint32_t line, const char *message);

/* `root` is the tree of `text`. `out` gets the new text, the same as `text` when there is nothing
 * old in it. What cannot be rewritten by itself (an old section as an inline table, say) is told,
 * and ERR_UNSUPPORTED returned. */
MUST_USE int config_migrate(struct str text, const struct toml_table *root, struct buf *out,
                            config_migrate_tell *tell, void *user);

#endif
