/* What must not reach the disk: rules over the attributes and texts of everything that comes, whoever brings it.
 *
 * Rules are compiled for each thread that uses them at the same time (model/redact.h is for one), kept for the next
 * one, and can be replaced while the server runs: a request goes by those that held when it began. Without rules it
 * costs one look at a flag. What was changed is counted by rule. All functions are thread-safe. */
#ifndef INGEST_REDACTION_H
#define INGEST_REDACTION_H

#include "model/metric.h"
#include "model/redact.h"

struct redaction;
struct metric_batches;

#define REDACTION_KEY_SIZE 32
#define REDACTION_NAME_MAX 64

struct redaction_rule {
    const char *name; /* what it is counted by; 1 to REDACTION_NAME_MAX bytes */
    struct redact_rule rule;
};

struct redaction_options {
    const struct redaction_rule *rules; /* at most REDACT_RULES_MAX */
    size_t n;
    uint8_t key[REDACTION_KEY_SIZE]; /* of REDACT_HASH */
};

/* Everything is copied. ERR_INVALID, ERR_TOO_LARGE, ERR_NOMEM with words. */
MUST_USE int redaction_new(const struct redaction_options *options, struct redaction **ret,
                           struct error_detail *ret_detail);
void redaction_free(struct redaction *r); /* NULL is allowed; nobody uses it any more */
/* Other rules from now on; the counts of those of the same name go on. On an error nothing changes. */
MUST_USE int redaction_set(struct redaction *r, const struct redaction_options *options,
                           struct error_detail *ret_detail);
bool redaction_is_on(const struct redaction *r);

/* In place; what is new is in `arena`, which owns the batch's arrays. Resources and scopes are copied before they
 * are changed. `*ret_marks`: a byte for each span, 1 where something changed; NULL: nowhere. ERR_NOMEM: nothing
 * of it may be kept. */
MUST_USE int redaction_spans(struct redaction *r, struct span_batch *batch, struct arena *arena,
                             uint8_t **ret_marks);
MUST_USE int redaction_logs(struct redaction *r, struct log_record *records, size_t n,
                            struct arena *arena);
/* Attributes of points, resources and scopes. */
MUST_USE int redaction_metrics(struct redaction *r, struct metric_batch *batches, size_t n,
                               struct arena *arena);

struct redaction_count {
    char name[REDACTION_NAME_MAX + 1];
    enum redact_action action;
    uint64_t values; /* changed, masked or dropped, since the server started */
};
/* In the order of the rules; returns how many, at most REDACT_RULES_MAX. */
size_t redaction_counts(struct redaction *r, struct redaction_count ret[REDACT_RULES_MAX]);

const char *redact_action_name(enum redact_action action); /* "mask", "hash", "drop" */

#endif
