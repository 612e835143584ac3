/* What must not leave the process: attribute values by their key, and text by what it looks like.
 *
 * The library's drain applies it to each batch before any exporter sees it, and to the resource at start; the
 * server's receivers to what comes, before it is written (ingest/redaction.c); the store to what somebody wants
 * gone (store/local/erase.c). Everything is compiled once, at start; a key is judged once
 * and remembered, text costs time linear in its length, with a budget: what cannot be looked
 * through within it is taken out as a whole. No memory: likewise.
 *
 * There may be several rules: of those that name a key the first decides what becomes of its value; the patterns of all
 * look at what is left. What was replaced before, here or elsewhere, is left as it is. */
#ifndef MODEL_REDACT_H
#define MODEL_REDACT_H

#include "base/arena.h"
#include "model/log_record.h"
#include "model/span.h"

#define REDACTED "[redacted]"

enum {
    REDACT_KEYS_MAX = 128, /* globs, the built-in ones included */
    REDACT_PATTERNS_MAX = 32,
    REDACT_GLOB_MAX = 128, /* bytes */
    REDACT_RULES_MAX = 32,
};

enum redact_action {
    REDACT_MASK, /* REDACTED stands in its place */
    REDACT_HASH, /* what `hash` makes of it: equal values stay equal */
    REDACT_DROP, /* the attribute goes; a name or another text that is no attribute is masked */
};

/* `keys` and `patterns` as below. */
struct redact_rule {
    const char *const *keys, *const *patterns;
    size_t n_keys, n_patterns;
    enum redact_action action;
};

/* What stands for a value: text in `arena`, of the form of REDACT_HASHED and 32 digits; ptr NULL: it is masked. */
typedef struct str redact_hash_fn(void *arg, const struct value *v, struct arena *arena);
#define REDACT_HASHED "hmac-sha256:"
#define REDACT_HASHED_DIGITS 32

struct redact;

/* `keys`: globs of `*` and `?` over the whole key, without regard to case; "default" stands for the
 * built-in list. `patterns`: names of built-in ones, or expressions (base/matcher.h). Lives in
 * `arena`; *ret is NULL when there is nothing to keep out. ERR_INVALID, ERR_TOO_LARGE with words. */
MUST_USE int redact_new(const char *const *keys, size_t n_keys, const char *const *patterns,
                        size_t n_patterns, struct arena *arena, struct redact **ret,
                        struct error_detail *ret_detail);

/* The same of several rules, for which the limits hold together. `hash` may be NULL when no rule asks for it. */
MUST_USE int redact_new_rules(const struct redact_rule *rules, size_t n, redact_hash_fn *hash,
                              void *hash_arg, struct arena *arena, struct redact **ret,
                              struct error_detail *ret_detail);

/* In place: attribute arrays, events and links of the spans are changed where they are; new text is
 * in `arena`. Not for two threads at once. `r` may be NULL. */
void redact_spans(struct redact *r, struct span *spans, size_t n, struct arena *arena);
void redact_attrs(struct redact *r, struct attrs *attrs, struct arena *arena);
/* Bodies as values, attributes; event names by patterns alone. Resources and scopes are left to the caller. */
void redact_log(struct redact *r, struct log_record *record, struct arena *arena);
/* Whether anything but keys matters, and whether this one's values are kept out. */
bool redact_has_patterns(const struct redact *r);
bool redact_is_secret(struct redact *r, struct str key);
/* Patterns alone. */
struct str redact_text(struct redact *r, struct str text, struct arena *arena);

/* How many values and texts were changed so far. */
uint64_t redact_hits(const struct redact *r);
/* By the rule `i` that did it. */
uint64_t redact_rule_hits(const struct redact *r, size_t i);

/* The built-in lists, for documents and `pugmark config`; they end with NULL. */
extern const char *const redact_default_keys[];
const char *redact_pattern_name(size_t i);

#endif
