/* The first line is an expression, the rest a text. Matches must lie behind each other in the text,
 * and the work must stay within its budget. */
#include "base/matcher.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = ARENA_INIT;
    struct error_detail detail = {0};
    struct matcher *m;
    struct str text, expression = str_split((struct str){(const char *)data, size}, '\n', &text);
    int err = matcher_new(expression, &arena, &m, &detail);
    if (err) {
        MUST(detail.code == err && detail.position <= expression.len && detail.message[0]);
    } else if (text.ptr) {
        uint64_t budget = matcher_budget(m, text.len), before = budget;
        size_t start, end;
        for (size_t from = 0; matcher_find(m, text, from, &start, &end, &budget) == MATCHER_YES;
             from = end) {
            MUST(start >= from && end > start && end <= text.len);
            MUST(budget <= before);
        }
    }
    arena_done(&arena);
    return 0;
}
