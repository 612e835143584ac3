/* Baggage: keys and values of the program's own that travel with a request through all processes
 * (W3C Baggage). Whoever gets the request can read them: nothing secret.
 *
 *     struct pug_baggage bag;
 *     pug_baggage_extract(get, request, &bag);             // what came along; empty when nothing did
 *     pug_baggage_set(&bag, "tenant", "blue & green", NULL);
 *     PUG_BAGGAGE(&bag);                                    // pug_inject sends it until the scope ends
 *
 * Works also when tracing is off. Nothing here allocates. Thread-safe as long as a struct pug_baggage is
 * used by one thread at a time; PUG_BAGGAGE is of the thread that wrote it. What works on a value alone
 * (init, get, set, remove, next, decode) is safe in signal handlers, the rest is not. */
#ifndef PUGMARK_BAGGAGE_H
#define PUGMARK_BAGGAGE_H

#include <pugmark/pugmark.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUG_BAGGAGE_MEMBERS_MAX 64 /* W3C Baggage, 3.3.2: what everybody has to pass on */
#define PUG_BAGGAGE_BYTES_MAX 8192

/* A value of 8 KiB: copy it freely. It holds the header as it goes out: percent-encoded, terminated.
 * pug_baggage_init before use. */
struct pug_baggage {
    uint16_t n;   /* members */
    uint16_t len; /* of `text` */
    char text[PUG_BAGGAGE_BYTES_MAX + 1];
};

/* One member, as it stands in the header; nothing is terminated. All zeros before the first. */
struct pug_baggage_member {
    const char *key;
    size_t key_len;
    const char *value; /* percent-encoded: pug_baggage_decode */
    size_t value_len;
    const char *properties; /* "k1=v1;k2", NULL when there are none */
    size_t properties_len;
    size_t pug__at;
};

#ifndef PUG_DISABLE
/* Empty. */
void pug_baggage_init(struct pug_baggage *baggage);

/* Sets `key` to the UTF-8 string `value`, which is encoded as far as need be, in place of all members
 * of that key; a new key goes to the end. `properties` go behind it as they are ("k1=v1;k2"), NULL:
 * none. PUG_ERR_INVALID: the key is no token (RFC 7230, 3.2.6), or the properties break the format;
 * PUG_ERR_FULL: it would be more than 64 members or 8192 bytes. The baggage is then as before. */
int pug_baggage_set(struct pug_baggage *baggage, const char *key, const char *value,
                    const char *properties);

/* The value of `key`, decoded, into out[0..size) with a terminator, cut if need be. Returns its
 * whole length, or PUG_ERR_NOT_FOUND. Of several members of that key the last one counts. Bytes that
 * are no UTF-8 are read as U+FFFD. */
int pug_baggage_get(const struct pug_baggage *baggage, const char *key, char *out, size_t size);

/* Takes all members of that key out. 0 or PUG_ERR_NOT_FOUND. */
int pug_baggage_remove(struct pug_baggage *baggage, const char *key);

/* The next member: 1, or 0 after the last.
 *     struct pug_baggage_member m = {0};
 *     while (pug_baggage_next(&bag, &m)) ... */
int pug_baggage_next(const struct pug_baggage *baggage, struct pug_baggage_member *member);

/* "a%20b" is "a b". Writes and returns as pug_baggage_get. */
int pug_baggage_decode(const char *text, size_t len, char *out, size_t size);

/* From the headers `baggage`, and with Jaeger's format chosen `jaeger-baggage`: returns the number of
 * members. Damaged members, and those over a limit, are left out; the others keep their order. */
int pug_baggage_extract(pug_carrier_get *get, void *carrier, struct pug_baggage *ret_baggage);

/* For headers whose names are not known before, as Jaeger's `uberctx-KEY`: adds what header `name`
 * brings, if it is one of baggage's. 1 if it was. */
int pug_baggage_header(struct pug_baggage *baggage, const char *name, const char *value);

/* What PUG_BAGGAGE has made current on this thread, or what a resumed capture brought: returns the
 * number of members. */
int pug_baggage_current(struct pug_baggage *ret_baggage);
#endif

/* PUG_BAGGAGE(&bag): pug_inject, captures and pug_baggage_current of this thread use it until the
 * enclosing scope ends. Borrowed: `bag` must live as long and may change. NULL: none. A declaration,
 * like PUG_SPAN. */

/* ---- inside ---- */

/* What is current on a thread beside the trace. */
struct pug__ambient {
    const struct pug_baggage *baggage; /* the program's */
    const char *request_id;            /* the program's */
    uint64_t kept_at;                  /* of a capture: where both stand, if not the program's */
    uint16_t kept_baggage_len;
    uint16_t kept_request_id_len;
    uint16_t kept_baggage_skip, kept_request_id_skip; /* words in front of each */
};

#ifdef PUG_DISABLE
#define PUG_BAGGAGE(...) PUG__SEEN((__VA_ARGS__))

PUG__INLINE int pug__no_baggage(struct pug_baggage *ret_baggage)
{
    ret_baggage->n = ret_baggage->len = 0;
    ret_baggage->text[0] = '\0';
    return 0;
}
PUG__INLINE int pug__not_found(char *out, size_t size)
{
    if (size)
        out[0] = '\0';
    return PUG_ERR_NOT_FOUND;
}
PUG__INLINE void pug_baggage_init(struct pug_baggage *baggage)
{
    pug__no_baggage(baggage);
}
PUG__INLINE int pug_baggage_set(struct pug_baggage *baggage, const char *key, const char *value,
                                const char *properties)
{
    (void)baggage, (void)key, (void)value, (void)properties;
    return 0;
}
PUG__INLINE int pug_baggage_get(const struct pug_baggage *baggage, const char *key, char *out,
                                size_t size)
{
    (void)baggage, (void)key;
    return pug__not_found(out, size);
}
PUG__INLINE int pug_baggage_remove(struct pug_baggage *baggage, const char *key)
{
    (void)baggage, (void)key;
    return PUG_ERR_NOT_FOUND;
}
PUG__INLINE int pug_baggage_next(const struct pug_baggage *baggage,
                                 struct pug_baggage_member *member)
{
    (void)baggage, (void)member;
    return 0;
}
PUG__INLINE int pug_baggage_decode(const char *text, size_t len, char *out, size_t size)
{
    (void)text, (void)len;
    return pug__not_found(out, size);
}
PUG__INLINE int pug_baggage_extract(pug_carrier_get *get, void *carrier,
                                    struct pug_baggage *ret_baggage)
{
    (void)get, (void)carrier;
    return pug__no_baggage(ret_baggage);
}
PUG__INLINE int pug_baggage_header(struct pug_baggage *baggage, const char *name, const char *value)
{
    (void)baggage, (void)name, (void)value;
    return 0;
}
PUG__INLINE int pug_baggage_current(struct pug_baggage *ret_baggage)
{
    return pug__no_baggage(ret_baggage);
}
PUG__INLINE int pug__not_there(void)
{
    return PUG_ERR_NOT_FOUND;
}

/* As in disable.h: checked as the function does, and not evaluated but for what is written to. */
#define pug_baggage_set(...) (0 ? (pug_baggage_set)(__VA_ARGS__) : pug__zero())
#define pug_baggage_get(...)                                                                       \
    (0 ? (pug_baggage_get)(__VA_ARGS__)                                                            \
       : pug__not_found(PUG__BEFORE(__VA_ARGS__), PUG__LAST(__VA_ARGS__)))
#define pug_baggage_remove(...) (0 ? (pug_baggage_remove)(__VA_ARGS__) : pug__not_there())
#define pug_baggage_next(...) (0 ? (pug_baggage_next)(__VA_ARGS__) : pug__zero())
#define pug_baggage_decode(...)                                                                    \
    (0 ? (pug_baggage_decode)(__VA_ARGS__)                                                         \
       : pug__not_found(PUG__BEFORE(__VA_ARGS__), PUG__LAST(__VA_ARGS__)))
#define pug_baggage_extract(...)                                                                   \
    (0 ? (pug_baggage_extract)(__VA_ARGS__) : pug__no_baggage(PUG__LAST(__VA_ARGS__)))
#define pug_baggage_header(...) (0 ? (pug_baggage_header)(__VA_ARGS__) : pug__zero())
#else
/* Makes `baggage` current and returns what was. */
struct pug__ambient pug__baggage_begin(const struct pug_baggage *baggage);
void pug__ambient_restore(struct pug__ambient *before);

#define PUG_BAGGAGE(...)                                                                           \
    struct pug__ambient PUG__CAT(pug__scope_, __COUNTER__)                                         \
        __attribute__((cleanup(pug__ambient_restore), unused)) = pug__baggage_begin(__VA_ARGS__)
#endif

#ifdef __cplusplus
}
#endif
#endif
