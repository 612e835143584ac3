/* Outlines of the traces that were asked for last, so that who looks at a part of a large one waits for the
 * building once.
 *
 * An outline is a picture of one moment. Each has a number, `asOf` in the API: who names it goes on with the
 * same rows while it is kept. Who names none gets the trace as it is now.
 *
 * One lock guards the list, the counts of references and what is remembered beside an outline; outlines
 * themselves do not change. What is in use is never freed. The least recently used go beyond
 * TRACES_BYTES_MAX; one alone may be larger. */
#ifndef WEB_TRACES_H
#define WEB_TRACES_H

#include "query/outline.h"
#include "web/web_internal.h"

#define TRACES_BYTES_MAX ((size_t)128 << 20)
#define TRACES_MAX 64
#define TRACE_LINES_MAX 3   /* ways to fold, remembered of each */
#define TRACE_FOUND_MAX 4   /* searches inside, of each */
#define TRACE_STREAMS_MAX 4 /* whole traces on their way to slow clients */

struct trace_lines {
    struct str key; /* as asked for; malloc'ed */
    struct outline_lines lines;
    unsigned refs;
    uint64_t used;
};

struct trace_found {
    struct str key;
    struct outline_found found;
    unsigned refs;
    uint64_t used;
};

struct trace_entry {
    struct trace_entry *next;
    struct outline *outline;
    uint64_t as_of;
    uint64_t changes; /* of the store, when it was built */
    unsigned refs;
    uint64_t used;
    size_t bytes;
    atomic_bool is_partial; /* a reader of it met damage */
    struct trace_lines *lines[TRACE_LINES_MAX];
    struct trace_found *found[TRACE_FOUND_MAX];
};

MUST_USE int traces_new(struct traces **ret);
void traces_free(struct traces *t); /* waits for streams; NULL is allowed */

/* The trace that the first star of the path names, as of `as_of` where that is still kept (0: now), and a view
 * of the store, which is the request's (web_view). False: answered with an error. The first is the caller's: trace_unref. */
bool trace_get(struct web_request *q, uint64_t as_of, struct trace_entry **ret,
               struct store_view **ret_view);
void trace_unref(struct traces *t, struct trace_entry *entry);

/* The lines of an outline folded so; `key` tells this way from others. NULL: no memory. */
struct trace_lines *trace_lines_get(struct traces *t, struct trace_entry *entry, struct str key,
                                    const struct outline_fold *fold);
void trace_lines_unref(struct traces *t, struct trace_lines *lines); /* NULL is allowed */

/* What was found before with this key, or NULL. */
struct trace_found *trace_found_get(struct traces *t, struct trace_entry *entry, struct str key);
/* Takes `found`; NULL: no memory, and it is freed. */
struct trace_found *trace_found_put(struct traces *t, struct trace_entry *entry, struct str key,
                                    struct outline_found *found);
void trace_found_unref(struct traces *t, struct trace_found *found); /* NULL is allowed */

/* Whole traces that are being sent: false when there are too many. */
bool traces_stream_begin(struct traces *t);
void traces_stream_ended(struct traces *t);

#endif
