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
#define PUG_SPAN_ONE_IN(n, ...)                                                                    \
    PUG__SEEN((n) + 0);                                                                            \
    PUG__NOTHING(__VA_ARGS__)
#define PUG_ATTACH(...) PUG__SEEN((__VA_ARGS__))
#define PUG_SPAN_FROM(context, ...)                                                                \
    PUG__SEEN(context);                                                                            \
    PUG__NOTHING(__VA_ARGS__)
#define PUG_WRAP_TABLE(fn, type, prefix, METHODS)                                                  \
    PUG__INLINE void fn(type *table)                                                               \
    {                                                                                              \
        (void)table;                                                                               \
    }

#define pug_event(span, ...)                                                                       \
    do {                                                                                           \
        PUG__SEEN(span);                                                                           \
        PUG__NOTHING(__VA_ARGS__);                                                                 \
    } while (0)
#define pug_link_with(span, to, ...)                                                               \
    do {                                                                                           \
        PUG__SEEN(to);                                                                             \
        pug_event(span, __VA_ARGS__);                                                              \
    } while (0)
#define pug_span_start(span, ...) pug_event(span, __VA_ARGS__)
#define pug_span_start_from(span, context, ...)                                                    \
    do {                                                                                           \
        PUG__SEEN(context);                                                                        \
        pug_event(span, __VA_ARGS__);                                                              \
    } while (0)

/* ---- functions ----
 *
 * Each is an empty function, for who takes its address, and, if it has arguments, a macro of the
 * same name, which checks them as the function does and evaluates none; a macro with (...), for
 * compound literals, whose commas their braces do not protect. What has a result gives "none": a
 * call, so that nobody is told that a value is unused. The optimiser removes it all. */

PUG__INLINE int pug__zero(void)
{
    return 0;
}
PUG__INLINE const char *pug__no_text(void)
{
    return "";
}
PUG__INLINE size_t pug__same(size_t len)
{
    return len;
}
PUG__INLINE void pug__no_hex(char *out)
{
    out[0] = '\0';
}
PUG__INLINE int pug__none(struct pug_context *ret_context)
{
    __builtin_memset(ret_context, 0, offsetof(struct pug_context, tracestate));
    return 0;
}
PUG__INLINE int pug__unsupported(struct pug_context *ret_context)
{
    pug__none(ret_context);
    return PUG_ERR_UNSUPPORTED;
}
PUG__INLINE size_t pug__none_len(size_t len, struct pug_context *ret_context)
{
    pug__none(ret_context);
    return len;
}

PUG__INLINE int pug_start(const struct pug_options *options)
{
    (void)options;
    return 0;
}
PUG__INLINE int pug_stop(void)
{
    return 0;
}
PUG__INLINE int pug_flush(unsigned timeout_ms)
{
    (void)timeout_ms;
    return 0;
}
PUG__INLINE int pug_on(void)
{
    return 0;
}
PUG__INLINE const char *pug_error_text(int code)
{
    (void)code;
    return "";
}
PUG__INLINE void pug_counts_read(struct pug_counts *ret_counts)
{
    size_t size = ret_counts->size;
    __builtin_memset(ret_counts, 0, sizeof *ret_counts);
    ret_counts->size = size;
}

PUG__INLINE void pug_span_end(struct pug_span *span)
{
    (void)span;
}
PUG__INLINE void pug_set_int(struct pug_span *span, const char *key, int64_t value)
{
    (void)span, (void)key, (void)value;
}
PUG__INLINE void pug_set_bool(struct pug_span *span, const char *key, int value)
{
    (void)span, (void)key, (void)value;
}
PUG__INLINE void pug_set_double(struct pug_span *span, const char *key, double value)
{
    (void)span, (void)key, (void)value;
}
PUG__INLINE void pug_set_str(struct pug_span *span, const char *key, const char *value)
{
    (void)span, (void)key, (void)value;
}
PUG__INLINE void pug_set_strn(struct pug_span *span, const char *key, const char *value, size_t len)
{
    (void)span, (void)key, (void)value, (void)len;
}
PUG__INLINE void pug_set_name(struct pug_span *span, const char *name)
{
    (void)span, (void)name;
}
PUG__INLINE void pug_status(struct pug_span *span, enum pug_status_code code, const char *message)
{
    (void)span, (void)code, (void)message;
}
PUG__INLINE void pug_error(struct pug_span *span, const char *message)
{
    (void)span, (void)message;
}
PUG__INLINE void pug_link(struct pug_span *span, const struct pug_context *to)
{
    (void)span, (void)to;
}

PUG__INLINE struct pug_context pug_context_current(void)
{
#ifdef __cplusplus
    return pug_context(); /* g++ does not see that a memset of a part is dead */
#else
    struct pug_context none;
    pug__none(&none);
    return none;
#endif
}
PUG__INLINE int pug_context_valid(const struct pug_context *context)
{
    (void)context;
    return 0;
}
PUG__INLINE int pug_context_from_hex(struct pug_context *ret, const char *trace_id,
                                     const char *span_id)
{
    (void)trace_id, (void)span_id;
    return pug__unsupported(ret);
}
PUG__INLINE void pug_trace_id_hex(const struct pug_context *context, char out[33])
{
    (void)context;
    out[0] = '\0';
}
PUG__INLINE void pug_span_id_hex(const struct pug_context *context, char out[17])
{
    (void)context;
    out[0] = '\0';
}
PUG__INLINE pug_attachment pug_context_attach(const struct pug_context *context)
{
    (void)context;
    return 0;
}
PUG__INLINE void pug_context_detach(pug_attachment attachment)
{
    (void)attachment;
}

typedef void pug_carrier_set(void *carrier, const char *name, const char *value);
typedef const char *pug_carrier_get(void *carrier, const char *name, size_t nth, size_t *ret_len);
PUG__INLINE void pug_inject(const struct pug_context *context, pug_carrier_set *set, void *carrier)
{
    (void)context, (void)set, (void)carrier;
}
PUG__INLINE int pug_extract(pug_carrier_get *get, void *carrier, struct pug_context *ret_context)
{
    (void)get, (void)carrier;
    return pug__none(ret_context);
}
PUG__INLINE size_t pug_json_inject(const struct pug_context *context, char *record, size_t len,
                                   size_t size)
{
    (void)context, (void)record, (void)size;
    return len;
}
PUG__INLINE size_t pug_json_extract(char *record, size_t len, struct pug_context *ret_context)
{
    (void)record;
    return pug__none_len(len, ret_context);
}

/* The last argument and the one before it, however many commas came earlier. */
#define PUG__CAT(a, b) PUG__CAT_(a, b)
#define PUG__CAT_(a, b) a##b
#define PUG__COUNT(...) PUG__COUNT_(__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define PUG__COUNT_(a, b, c, d, e, f, g, h, i, j, k, l, n, ...) n
#define PUG__FIRST(a, ...) a
#define PUG__LAST(...) PUG__CAT(PUG__LAST_, PUG__COUNT(__VA_ARGS__))(__VA_ARGS__)
#define PUG__LAST_2(a, b) b
#define PUG__LAST_3(a, ...) PUG__LAST_2(__VA_ARGS__)
#define PUG__LAST_4(a, ...) PUG__LAST_3(__VA_ARGS__)
#define PUG__LAST_5(a, ...) PUG__LAST_4(__VA_ARGS__)
#define PUG__LAST_6(a, ...) PUG__LAST_5(__VA_ARGS__)
#define PUG__LAST_7(a, ...) PUG__LAST_6(__VA_ARGS__)
#define PUG__LAST_8(a, ...) PUG__LAST_7(__VA_ARGS__)
#define PUG__LAST_9(a, ...) PUG__LAST_8(__VA_ARGS__)
#define PUG__LAST_10(a, ...) PUG__LAST_9(__VA_ARGS__)
#define PUG__LAST_11(a, ...) PUG__LAST_10(__VA_ARGS__)
#define PUG__LAST_12(a, ...) PUG__LAST_11(__VA_ARGS__)
#define PUG__BEFORE(...) PUG__CAT(PUG__BEFORE_, PUG__COUNT(__VA_ARGS__))(__VA_ARGS__)
#define PUG__BEFORE_3(a, b, c) b
#define PUG__BEFORE_4(a, ...) PUG__BEFORE_3(__VA_ARGS__)
#define PUG__BEFORE_5(a, ...) PUG__BEFORE_4(__VA_ARGS__)
#define PUG__BEFORE_6(a, ...) PUG__BEFORE_5(__VA_ARGS__)
#define PUG__BEFORE_7(a, ...) PUG__BEFORE_6(__VA_ARGS__)
#define PUG__BEFORE_8(a, ...) PUG__BEFORE_7(__VA_ARGS__)
#define PUG__BEFORE_9(a, ...) PUG__BEFORE_8(__VA_ARGS__)
#define PUG__BEFORE_10(a, ...) PUG__BEFORE_9(__VA_ARGS__)
#define PUG__BEFORE_11(a, ...) PUG__BEFORE_10(__VA_ARGS__)
#define PUG__BEFORE_12(a, ...) PUG__BEFORE_11(__VA_ARGS__)

#define PUG__NEVER(function, ...) (0 ? (void)(function)(__VA_ARGS__) : (void)0)

#define pug_start(...) (0 ? (pug_start)(__VA_ARGS__) : pug__zero())
#define pug_flush(...) (0 ? (pug_flush)(__VA_ARGS__) : pug__zero())
#define pug_error_text(...) (0 ? (pug_error_text)(__VA_ARGS__) : pug__no_text())
#define pug_span_end(...) PUG__NEVER(pug_span_end, __VA_ARGS__)
#define pug_set_int(...) PUG__NEVER(pug_set_int, __VA_ARGS__)
#define pug_set_bool(...) PUG__NEVER(pug_set_bool, __VA_ARGS__)
#define pug_set_double(...) PUG__NEVER(pug_set_double, __VA_ARGS__)
#define pug_set_str(...) PUG__NEVER(pug_set_str, __VA_ARGS__)
#define pug_set_strn(...) PUG__NEVER(pug_set_strn, __VA_ARGS__)
#define pug_set_name(...) PUG__NEVER(pug_set_name, __VA_ARGS__)
#define pug_status(...) PUG__NEVER(pug_status, __VA_ARGS__)
#define pug_error(...) PUG__NEVER(pug_error, __VA_ARGS__)
#define pug_link(...) PUG__NEVER(pug_link, __VA_ARGS__)
#define pug_context_valid(...) (0 ? (pug_context_valid)(__VA_ARGS__) : pug__zero())
#define pug_context_attach(...)                                                                    \
    (0 ? (pug_context_attach)(__VA_ARGS__) : (pug_attachment)pug__zero())
#define pug_context_detach(...) PUG__NEVER(pug_context_detach, __VA_ARGS__)
#define pug_inject(...) PUG__NEVER(pug_inject, __VA_ARGS__)

/* What is written to, and the length that comes back, are evaluated. */
#define pug_context_from_hex(...)                                                                  \
    (0 ? (pug_context_from_hex)(__VA_ARGS__) : pug__unsupported(PUG__FIRST(__VA_ARGS__, 0)))
#define pug_trace_id_hex(...)                                                                      \
    (0 ? (pug_trace_id_hex)(__VA_ARGS__) : pug__no_hex(PUG__LAST(__VA_ARGS__)))
#define pug_span_id_hex(...)                                                                       \
    (0 ? (pug_span_id_hex)(__VA_ARGS__) : pug__no_hex(PUG__LAST(__VA_ARGS__)))
#define pug_extract(...) (0 ? (pug_extract)(__VA_ARGS__) : pug__none(PUG__LAST(__VA_ARGS__)))
#define pug_json_inject(...)                                                                       \
    (0 ? (pug_json_inject)(__VA_ARGS__) : pug__same(PUG__BEFORE(__VA_ARGS__)))
#define pug_json_extract(...)                                                                      \
    (0 ? (pug_json_extract)(__VA_ARGS__)                                                           \
       : pug__none_len(PUG__BEFORE(__VA_ARGS__), PUG__LAST(__VA_ARGS__)))

#endif
