/* Requests of Tempo's StreamingQuerier: the first byte says which. Strings must lie in the bytes and be UTF-8. */
#include "wire/tempo_query.h"

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
    struct tempo_request q;
    if (!n)
        return 0;
    enum tempo_request_type type = (enum tempo_request_type)(bytes[0] % (TEMPO_QUERY_INSTANT + 1));
    int err = tempo_request_decode(type, (struct str){(const char *)bytes + 1, n - 1}, &arena, &q,
                                   &detail);
    if (err) {
        MUST(err < 0 && detail.message[0]);
    } else {
        check(q.query, bytes, n);
        check(q.scope, bytes, n);
        check(q.tag_name, bytes, n);
        MUST(q.n_tags <= TEMPO_TAGS_MAX);
        for (size_t i = 0; i < q.n_tags; i++) {
            check(q.tags[i].key, bytes, n);
            check(q.tags[i].value, bytes, n);
        }
        MUST(q.start <= INT64_MAX && q.end <= INT64_MAX && q.step_ns <= INT64_MAX);
    }
    arena_done(&arena);
    return 0;
}
