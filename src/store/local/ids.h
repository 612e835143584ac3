/* Columns of ids: docs/formats/segment.md, "Ids". Most libraries draw span and trace ids at random, and
 * eight bytes they stay. libpugmark takes numbers of a counter for each thread and sends them through a
 * permutation (sdk/id.h); whoever undoes that sees the counters run, and keeps a byte or two of each. Nobody
 * says which ids are of which kind: numbers that lie close together after the permutation was undone are
 * none that were drawn. */
#ifndef STORE_LOCAL_IDS_H
#define STORE_LOCAL_IDS_H

#include "store/local/stream.h"

enum { IDS_MAX = 8192 }; /* of a column */

/* A column of n ids, 8 bytes each. Failure is in `out`. */
void ids_put(struct stream_writer *w, struct buf *out, const uint8_t *ids, size_t n);
/* All that `r` has, which must be one column of n, as 8 bytes each; they borrow where they stand as they are.
 * NULL on failure. */
const uint8_t *ids_get(struct codec_reader *r, size_t n);

/* Ids of traces, 16 bytes each: the length of a column, the column of their first halves, and the same for
 * what their second halves are ahead of these, which is the same number for all traces of a process. */
void ids_put_traces(struct stream_writer *w, struct buf *out, const uint8_t *ids, size_t n);
const uint8_t *ids_get_traces(struct codec_reader *r, size_t n);

#endif
