/* What every unit test includes: cmocka and the headers it forgets. Tests are sentences:
 * `static void append_rejects_a_torn_footer(void **state)`. */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"

#include <stdlib.h>
#include <unistd.h>

/* Nothing is left but what cmocka itself looks at: without that its output would not be counted. */
static inline void test_environment_clear(void)
{
    const char *output = getenv("CMOCKA_MESSAGE_OUTPUT");
    char *kept = output ? strdup(output) : NULL;
    environ = NULL;
    if (kept)
        setenv("CMOCKA_MESSAGE_OUTPUT", kept, 1);
    free(kept);
}

/* Shows both slices. */
#define assert_str_eq(actual, expected)                                                            \
    do {                                                                                           \
        struct str actual_ = (actual), expected_ = (expected);                                     \
        if (!str_eq(actual_, expected_))                                                           \
            fail_msg("\"%.*s\" is not \"%.*s\"", STR_ARG(actual_), STR_ARG(expected_));            \
    } while (0)

#endif
