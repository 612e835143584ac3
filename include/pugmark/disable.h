/* pugmark.h under PUG_DISABLE: nothing of it reaches the object file. Arguments are named in
 * unevaluated operands only, so that variables made for them are not called unused. */
#ifndef PUGMARK_DISABLE_H
#define PUGMARK_DISABLE_H

#define PUG__INLINE static inline __attribute__((always_inline, unused))

struct pug_span {
    struct pug_context context; /* never written: reads as garbage, so only pass it on */
};
typedef char pug_attachment;

#define PUG__SEEN(x) ((void)sizeof(x))

#define PUG_INT(key, value) PUG__SEEN((value) + 0) /* sizeof takes no bit-field */
#define PUG_BOOL(key, value) PUG__SEEN((value) ? 1 : 0)
#define PUG_DOUBLE(key, value) PUG__SEEN((value) + 0)
#define PUG_STR(key, value) PUG__SEEN(value)
#define PUG_STRN(key, value, len) PUG__SEEN(value), PUG__SEEN((len) + 0)
#define PUG_KIND(kind) PUG__SEEN(kind)

/* "name", then attributes as above */
#define PUG__NOTHING(...)                                                                          \
    do {                                                                                           \
        (void)__VA_ARGS__;                                                                         \
    } while (0)

#define PUG_SPAN(...) PUG__NOTHING(__VA_ARGS__)
#define PUG_FN(...)                                                                                \
    do {                                                                                           \
        __VA_ARGS__;                                                                               \
    } while (0)
#define PUG_ATTACH(...) PUG__SEEN((__VA_ARGS__))
#define PUG_SPAN_FROM(context, ...)                                                                \
    PUG__SEEN(context);                                                                            \
    PUG__NOTHING(__VA_ARGS__)
#define PUG_WRAP_TABLE(fn, type, prefix, METHODS)                                                  \
    PUG__INLINE void fn(type *table)                                                               \
    {                                                                                              \
        (void)table;                                                                               \
    }

/* Variadic where a compound literal may stand: its commas are not protected by its braces. */
#define pug_start(...) (PUG__SEEN((__VA_ARGS__)), 0)
#define pug_stop() (0)
#define pug_flush(timeout_ms) (PUG__SEEN(timeout_ms), 0)
#define pug_on() (0)
#define pug_error_text(code) (PUG__SEEN(code), "")

#define pug_event(span, ...)                                                                       \
    do {                                                                                           \
        PUG__SEEN(span);                                                                           \
        PUG__NOTHING(__VA_ARGS__);                                                                 \
    } while (0)
#define pug_span_start(span, ...) pug_event(span, __VA_ARGS__)
#define pug_span_start_from(span, context, ...)                                                    \
    do {                                                                                           \
        PUG__SEEN(context);                                                                        \
        pug_event(span, __VA_ARGS__);                                                              \
    } while (0)
#define pug_span_end(span) PUG__SEEN(span)
#define pug_set_int(span, key, value) (PUG__SEEN(span), PUG__SEEN((value) + 0))
#define pug_set_bool(span, key, value) (PUG__SEEN(span), PUG__SEEN((value) ? 1 : 0))
#define pug_set_double(span, key, value) (PUG__SEEN(span), PUG__SEEN((value) + 0))
#define pug_set_str(span, key, value) (PUG__SEEN(span), PUG__SEEN(value))
#define pug_set_strn(span, key, value, len)                                                        \
    (PUG__SEEN(span), PUG__SEEN(value), PUG__SEEN((len) + 0))
#define pug_set_name(span, name) (PUG__SEEN(span), PUG__SEEN(name))
#define pug_status(span, code, message) (PUG__SEEN(span), PUG__SEEN(code), PUG__SEEN(message))
#define pug_error(span, message) (PUG__SEEN(span), PUG__SEEN(message))
#define pug_link(span, ...) (PUG__SEEN(span), PUG__SEEN((__VA_ARGS__)))

/* What has a result gives "none"; the optimiser removes what nobody reads. */
PUG__INLINE int pug__none(struct pug_context *ret_context)
{
    __builtin_memset(ret_context, 0, offsetof(struct pug_context, tracestate));
    return 0;
}
PUG__INLINE struct pug_context pug__no_context(void)
{
#ifdef __cplusplus
    return pug_context(); /* g++ does not see that a memset of a part is dead */
#else
    struct pug_context none;
    pug__none(&none);
    return none;
#endif
}
PUG__INLINE void pug__no_counts(struct pug_counts *ret_counts)
{
    size_t size = ret_counts->size;
    __builtin_memset(ret_counts, 0, sizeof *ret_counts);
    ret_counts->size = size;
}
#define pug_counts_read(counts) pug__no_counts(counts)
#define pug_context_current() pug__no_context()
#define pug_context_valid(context) (PUG__SEEN(context), 0)
#define pug_context_from_hex(ret, trace_id, span_id)                                               \
    (PUG__SEEN(trace_id), PUG__SEEN(span_id), pug__none(ret), PUG_ERR_UNSUPPORTED)
#define pug_trace_id_hex(context, out) (PUG__SEEN(context), (void)((out)[0] = '\0'))
#define pug_span_id_hex(context, out) (PUG__SEEN(context), (void)((out)[0] = '\0'))
#define pug_context_attach(context) (PUG__SEEN(context), (pug_attachment)0)
#define pug_context_detach(attachment) PUG__SEEN(attachment)
typedef void pug_carrier_set(void *carrier, const char *name, const char *value);
typedef const char *pug_carrier_get(void *carrier, const char *name, size_t nth, size_t *ret_len);
#define pug_inject(context, set, carrier)                                                          \
    (PUG__SEEN(context), PUG__SEEN(&*(set)), PUG__SEEN(carrier))
#define pug_extract(get, carrier, ret_context)                                                     \
    (PUG__SEEN(&*(get)), PUG__SEEN(carrier), pug__none(ret_context))
#define pug_json_inject(context, record, len, size)                                                \
    (PUG__SEEN(context), PUG__SEEN(record), PUG__SEEN((size) + 0), (size_t)(len))
#define pug_json_extract(record, len, ret_context)                                                 \
    (PUG__SEEN(record), pug__none(ret_context), (size_t)(len))

#endif
