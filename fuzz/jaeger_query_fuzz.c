/* Requests of Jaeger's gRPC query service: the first byte says which. Strings must lie in the bytes and be UTF-8. */
#include "wire/jaeger_query.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void check(struct str s, const uint8_t *bytes, size_t n)
{
    if (!s.len)
        return;
    MUST((const uint8_t *)s.ptr >= bytes && (const uint8_t *)s.ptr + s.len <= bytes + n);
    MUST(str_is_utf8(s));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct jaeger_query q;
    if (!n)
        return 0;
    enum jaeger_request request = (enum jaeger_request)(bytes[0] % (JAEGER_GET_SAMPLING + 1));
    int err = jaeger_query_decode(request, (struct str){(const char *)bytes + 1, n - 1}, &arena, &q,
                                  &detail);
    if (err) {
        MUST(err < 0 && detail.message[0]);
    } else {
        check(q.trace_id, bytes, n);
        check(q.service, bytes, n);
        check(q.operation, bytes, n);
        check(q.span_kind, bytes, n);
        for (size_t i = 0; i < q.n_tags; i++) {
            check(q.tags[i].key, bytes, n);
            check(q.tags[i].value, bytes, n);
        }
    }
    arena_done(&arena);
    return 0;
}
