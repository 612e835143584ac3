/* Files of JSON lines that grow, followed over rotation: docs/followed-files.md. */
#ifndef INGEST_FOLLOW_H
#define INGEST_FOLLOW_H

#include "base/err.h"
#include "store/records.h"
#include "store/store.h"

struct follow;
struct redaction;

struct follow_options {
    struct store *store;         /* both outlive follow */
    struct records *records;     /* of logs, and of where each file was read to */
    struct redaction *redaction; /* NULL: there are no rules */
    const char *const *patterns; /* as of glob(7); copied */
    size_t n_patterns;
    unsigned
        poll_ms; /* how often files are looked at where the kernel tells nothing; 0: the default */
};

MUST_USE int follow_start(const struct follow_options *options, struct follow **ret,
                          struct error_detail *ret_detail);
/* What is not read yet is read at the next start. NULL is allowed. */
void follow_stop(struct follow *follow);

struct follow_stats {
    uint64_t files, bytes;                 /* open now; read since the start */
    uint64_t spans, logs, passed, invalid; /* lines by their fate */
    uint64_t repeated; /* that were durable before the server ended, or are in a copy of a file */
    uint64_t lost;     /* files whose rest could not be found */
};
void follow_stats(const struct follow *follow, struct follow_stats *ret);

#endif
