/* The first line is an expression, the rest a text. As a search that is anchored at both ends finds
 * it, so must the comparison of the whole, where both know the expression and the text is ASCII. */
#include "base/matcher.h"
#include "base/pattern.h"

#include <stdlib.h>
#include <string.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static bool is_ascii(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return false;
    return true;
}

/* Of an expression that the search does not refuse: it has an own idea of what to take. */
static void compare(struct str expression, struct str text, bool matches)
{
    struct arena arena = ARENA_INIT;
    struct matcher *m;
    const char *anchored = arena_printf(&arena, "^(?:%.*s)$", STR_ARG(expression));
    MUST(anchored);
    if (!memchr(expression.ptr, 0, expression.len) && is_ascii(expression) && is_ascii(text) &&
        text.len && matcher_new(str_from(anchored), &arena, &m, NULL) == 0) {
        uint64_t budget = 2 * matcher_budget(m, text.len);
        size_t start, end;
        enum matcher_answer answer = matcher_find(m, text, 0, &start, &end, &budget);
        MUST(answer == MATCHER_TIRED || (answer == MATCHER_YES) == matches);
    }
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error_detail detail = {0};
    struct pattern *p;
    struct str text, expression = str_split((struct str){(const char *)data, size}, '\n', &text);
    int err = pattern_new(expression, &p, &detail);
    if (err) {
        MUST(detail.code == err && detail.position <= expression.len && detail.message[0]);
        return 0;
    }
    if (text.ptr) {
        bool matches = pattern_match(p, text);
        MUST(pattern_match(p, text) == matches);
        compare(expression, text, matches);
    }
    pattern_free(p);
    return 0;
}
