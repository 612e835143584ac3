/* Files of sampling strategies. What was read must be found by its name, be written as JSON that reads, and say a rate that
 * is one. */
#include "web/strategies.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void check(const struct strategy *s)
{
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    struct arena arena = ARENA_INIT;
    struct json_reader r;
    MUST(s->param >= 0 && (s->is_rate_limiting || s->param <= 1));
    strategy_json(s, &w);
    MUST(buf_ok(&out));
    json_reader_init(&r, buf_as_str(&out), &arena, NULL);
    while (json_next(&r) != JSON_END)
        MUST(r.type != JSON_ERROR);
    buf_clear(&out);
    strategy_protobuf(s, &out);
    MUST(buf_ok(&out));
    buf_done(&out);
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct strategies *s;
    struct error_detail detail = {0};
    int err = strategies_parse((struct str){(const char *)bytes, n}, &s, &detail);
    if (err) {
        MUST(err < 0 && detail.position <= n);
        return 0;
    }
    check(strategies_of(s, STR("")));
    check(strategies_of(s, STR("api")));
    strategies_free(s);
    return 0;
}
