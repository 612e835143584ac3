/* pugmark.toml: which one, and what it says. */
#ifndef SDK_SETTINGS_FILE_H
#define SDK_SETTINGS_FILE_H

#include "base/toml.h"
#include "sdk/settings.h"

/* The file to read: `named` (of pug_options; "" is none), PUG_CONFIG, then the first there is of
 * ./pugmark.toml, $XDG_CONFIG_HOME/pugmark/pugmark.toml (~/.config/...) and
 * /etc/pugmark/pugmark.toml. NULL: none. What is found in the working directory must belong to the
 * user or to root and not be writable for everybody, for it can name a command to run. A program
 * that runs with more rights than its caller (setuid) reads `named` and /etc alone. */
const char *settings_file_find(struct settings *s, const char *named);

/* Reads it into memory of `arena`; s->file is set. A file that cannot be read, or is not TOML, is a
 * grave problem, for what it keeps out of the data is not known then. */
MUST_USE int settings_file_read(struct settings *s, const char *path, struct str *ret_text);
MUST_USE int settings_file_parse(struct settings *s, struct str text, struct toml_table **ret);
/* Puts in what the tree says; all problems are told, not only the first. */
void settings_file_apply(struct settings *s, const struct toml_table *root);

/* One section and those below it, of the table that `s` has. */
void settings_file_section(struct settings *s, const char *section, const struct toml_table *t);

/* Find, read, parse, apply. */
MUST_USE int settings_file(struct settings *s, const char *named);

/* ---- the old sections, [observability] and [debug.traces] ---- */

struct settings_old {
    const char *section, *name; /* as they were */
    enum setting_id id;
};
/* NULL: that key was not known there. */
const struct settings_old *settings_old_find(const char *section, struct str name);
/* What an old value is called now: "chrome" is "local". Others are as they were. */
struct str settings_old_word(enum setting_id id, struct str word);

#endif
