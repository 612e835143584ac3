/* Is this trace whole? What `pugmark demo` knows about the sample system: which spans one intrusion
 * makes, in which process, under which parent, and which links lead back. */
#ifndef CLI_DEMO_CHECK_H
#define CLI_DEMO_CHECK_H

#include "base/buf.h"

/* Takes the answer of `GET /api/pugmark/traces/{id}` (docs/api.md). Appends one line to `missing`
 * for each thing that should be there and is not; nothing when the trace is whole. ERR_INVALID and
 * the like when the answer is not what it should be. */
MUST_USE int demo_check(struct str trace_json, struct buf *missing,
                        struct error_detail *ret_detail);

#endif
