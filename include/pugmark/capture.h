/* Handing a trace over to another thread, to a pool or to a callback.
 *
 *     struct job { struct pug_capture where; ... };
 *     job->where = pug_capture_current();                   // here
 *
 *     PUG_RESUME(&job->where);                              // there, later
 *     PUG_SPAN("job.run");                                  // a child of the span that captured
 *
 * A capture is a value of 64 bytes: keep it in the job, copy it, resume it any number of times, on any
 * thread, also after the span that captured has ended, or never; there is nothing to free. Beside the
 * trace it carries the thread's baggage and request id, also when tracing is off.
 *
 * A tracestate of more than 32 characters, baggage and request id do not fit in 64 bytes. They are
 * kept in one store for the process, of PUG_CAPTURE_BYTES, in which the newest replace the oldest:
 * one that waits while more than that is captured resumes its trace without them, which is counted
 * (pug_counts.lost_captured).
 *
 * Nothing here allocates, locks or makes a system call; it is safe in signal handlers. */
#ifndef PUGMARK_CAPTURE_H
#define PUGMARK_CAPTURE_H

#include <pugmark/baggage.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUG_CAPTURE_BYTES (2u << 20)

/* All zeros is "nothing". */
struct pug_capture {
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint8_t flags, remote;
    uint16_t tracestate_len;
    uint16_t pug__baggage_len;
    uint16_t pug__request_id_len;
    union {
        char tracestate[32];
        uint64_t pug__kept_at; /* when the lengths say that it does not fit here */
    } pug__u;
};

#ifndef PUG_DISABLE
/* What is current on this thread. */
struct pug_capture pug_capture_current(void);
/* The trace alone, to start a handle from or to link to: 1, or 0 and none. */
int pug_capture_context(const struct pug_capture *capture, struct pug_context *ret_context);
#endif

/* PUG_RESUME(&capture): trace, baggage and request id of the capture are current until the enclosing
 * scope ends; without a trace in it the current one stays. NULL: as if nothing had been captured. A
 * declaration, like PUG_SPAN. */

#ifdef PUG_DISABLE
#define PUG_RESUME(...) PUG__SEEN((__VA_ARGS__))
PUG__INLINE struct pug_capture pug_capture_current(void)
{
    struct pug_capture none;
    __builtin_memset(&none, 0, sizeof none);
    return none;
}
PUG__INLINE int pug_capture_context(const struct pug_capture *capture,
                                    struct pug_context *ret_context)
{
    (void)capture;
    return pug__none(ret_context);
}
#define pug_capture_context(...)                                                                   \
    (0 ? (pug_capture_context)(__VA_ARGS__) : pug__none(PUG__LAST(__VA_ARGS__)))
#else
struct pug__resumed {
    struct pug__slot *slot;
    struct pug__ambient before;
};
struct pug__resumed pug__resume(const struct pug_capture *capture);
void pug__resumed_end(struct pug__resumed *resumed);

#define PUG_RESUME(...)                                                                            \
    struct pug__resumed PUG__CAT(pug__scope_, __COUNTER__)                                         \
        __attribute__((cleanup(pug__resumed_end), unused)) = pug__resume(__VA_ARGS__)
#endif

#ifdef __cplusplus
}
#endif
#endif
