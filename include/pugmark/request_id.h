/* X-Request-ID: one id for a request, from the first machine that sees it to the last line of a log.
 *
 *     char id[PUG_REQUEST_ID_MAX + 1];
 *     PUG_SPAN("http.request", PUG_KIND(PUG_KIND_SERVER));
 *     pug_request_id(PUG_CURRENT, get, request, set, response, id);
 *     PUG_REQUEST_ID(id);                              // pug_inject sends it on
 *
 * Works also when tracing is off. Thread-safe; PUG_REQUEST_ID is of the thread that wrote it. Not for
 * signal handlers. */
#ifndef PUGMARK_REQUEST_ID_H
#define PUGMARK_REQUEST_ID_H

#include <pugmark/baggage.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUG_REQUEST_ID_MAX 128

#ifndef PUG_DISABLE
/* The id of a request, into `ret_id` with a terminator: the caller's X-Request-ID when there is exactly
 * one of 1 to 128 characters, each visible ASCII but for " \ % < > (so that it can stand in logs, JSON,
 * formats and pages as it is); else a new one of 32 hexadecimal digits, 128 random bits. It is
 *   - set on `span` as the attribute `request.id` (PUG_CURRENT: the innermost scope): call it right
 *     after the request's first span has begun,
 *   - returned to the caller through `set` as X-Request-ID, if `set` is not NULL.
 * 1: the caller's, 0: a new one. Thread-safe; a new one is a system call. */
int pug_request_id(struct pug_span *span, pug_carrier_get *get, void *request, pug_carrier_set *set,
                   void *response, char ret_id[PUG_REQUEST_ID_MAX + 1]);

/* What PUG_REQUEST_ID has made current, or what a resumed capture brought, with a terminator. Its
 * length; 0 and "" when there is none. */
size_t pug_request_id_current(char ret_id[PUG_REQUEST_ID_MAX + 1]);
#endif

/* PUG_REQUEST_ID(id): until the enclosing scope ends pug_inject sends it as X-Request-ID (unless the
 * chosen propagators leave `requestid` out), captures carry it, and logs show it. Borrowed: `id`, which
 * is terminated, must live as long. NULL: none. A declaration, like PUG_SPAN. */

#ifdef PUG_DISABLE
#define PUG_REQUEST_ID(...) PUG__SEEN((__VA_ARGS__))
PUG__INLINE int pug_request_id(struct pug_span *span, pug_carrier_get *get, void *request,
                               pug_carrier_set *set, void *response,
                               char ret_id[PUG_REQUEST_ID_MAX + 1])
{
    (void)span, (void)get, (void)request, (void)set, (void)response;
    ret_id[0] = '\0';
    return 0;
}
PUG__INLINE size_t pug_request_id_current(char ret_id[PUG_REQUEST_ID_MAX + 1])
{
    ret_id[0] = '\0';
    return 0;
}
PUG__INLINE int pug__no_request_id(char *ret_id)
{
    ret_id[0] = '\0';
    return 0;
}
#define pug_request_id(...)                                                                        \
    (0 ? (pug_request_id)(__VA_ARGS__) : pug__no_request_id(PUG__LAST(__VA_ARGS__)))
#else
struct pug__ambient pug__request_id_begin(const char *id);

#define PUG_REQUEST_ID(...)                                                                        \
    struct pug__ambient PUG__CAT(pug__scope_, __COUNTER__)                                         \
        __attribute__((cleanup(pug__ambient_restore), unused)) =                                   \
            pug__request_id_begin(__VA_ARGS__)
#endif

#ifdef __cplusplus
}
#endif
#endif
