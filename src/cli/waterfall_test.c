#include "base/test.h"

#include "base/clock.h"
#include "cli/waterfall.h"

#include <stdlib.h>
#include <wchar.h>

static const struct resource api = {.service_name = STR("api")};
static const struct resource db = {.service_name = STR("db")};
static const struct scope scope = {.name = STR("")};

static struct span span(uint32_t id, uint32_t parent, const char *name, uint64_t start_ms,
                        uint64_t ms)
{
    struct span s = {
        .trace_id = {{0xab, 1}},
        .name = str_from(name),
        .start_ns = UINT64_C(1767323045000000000) + start_ms * NS_PER_MS,
        .resource = &api,
        .scope = &scope,
    };
    s.end_ns = s.start_ns + ms * NS_PER_MS;
    memcpy(s.span_id.bytes, &id, sizeof id);
    memcpy(s.parent_id.bytes, &parent, sizeof parent);
    return s;
}

static struct buf draw(struct span *spans, size_t n, struct term term, size_t rows_max)
{
    struct span_batch batch = {.spans = spans, .n = n};
    struct waterfall_options options = {.term = term, .rows_max = rows_max};
    struct arena arena = ARENA_INIT;
    struct buf out = BUF_INIT;
    assert_int_equal(waterfall_put(&batch, &options, &arena, &out), 0);
    assert_true(buf_ok(&out));
    arena_done(&arena);
    buf_byte(&out, '\0');
    return out;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        n++;
    return n;
}

static const struct term ascii = {.width = 80};

static void a_trace_is_a_tree_with_bars_and_durations(void **state)
{
    setenv("TZ", "UTC", 1);
    static const struct attr attrs[] = {
        {STR("db.system"), {.type = VALUE_STRING, .string = STR("sqlite")}},
        {STR("n"), {.type = VALUE_INT, .integer = -3}},
    };
    struct span spans[] = {
        /* In no order. */
        span(3, 2, "query", 50, 25),
        span(1, 0, "GET /", 0, 100),
        span(4, 1, "render", 75, 25),
        span(2, 1, "load", 25, 50),
    };
    spans[0].resource = &db;
    spans[0].status_code = STATUS_ERROR;
    spans[0].status_message = STR("locked");
    spans[0].attrs = (struct attrs){attrs, 2, 0};
    struct buf out = draw(spans, 4, ascii, 0);
    static const char expected[] =
        "trace ab010000000000000000000000000000\n"
        "GET /\n"
        "2026-01-02 03:04:05.000 +0000, 100 ms, 4 spans, 2 services, 1 error\n"
        "\n"
        "GET /  api        ==================================================   100 ms\n"
        "|- load                       ==========================              50.0 ms\n"
        "|  `- query  db                            =============              25.0 ms  x\n"
        "|        : ERROR      locked\n"
        "|        : db.system  sqlite\n"
        "|        : n          -3\n"
        "`- render                                              =============  25.0 ms\n";
    assert_string_equal(out.ptr, expected);
    buf_done(&out);
}

static void lines_fit_the_terminal_whatever_the_names_are(void **state)
{
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    struct attr attr = {STR("key"), {.type = VALUE_STRING, .string = {name, 299}}};
    static const unsigned widths[] = {40, 60, 80, 133, 400};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        struct span spans[60];
        for (uint32_t n = 0; n < 60; n++) {
            spans[n] = span(n + 1, n, n % 2 ? name : "short", n, 100 - n);
            spans[n].resource = n % 3 ? &api : &db;
            spans[n].status_code = n % 7 ? STATUS_UNSET : STATUS_ERROR;
            spans[n].status_message = str_from(name);
            spans[n].attrs = (struct attrs){&attr, 1, 0};
        }
        struct buf out = draw(spans, 60, (struct term){.tty = true, .width = widths[i]}, 0);
        size_t lines = 0;
        for (char *line = strtok(out.ptr, "\n"); line; line = strtok(NULL, "\n"), lines++)
            if (strlen(line) > widths[i])
                fail_msg("%zu columns of %u: %s", strlen(line), widths[i], line);
        assert_true(lines > 60);
        buf_done(&out);
    }
}

static void what_is_no_tree_is_shown_all_the_same_each_span_once(void **state)
{
    struct span spans[] = {
        span(1, 1, "own-parent", 0, 10),  span(2, 3, "circle-a", 1, 10),
        span(3, 4, "circle-b", 2, 10),    span(4, 2, "circle-c", 3, 10),
        span(5, 9, "orphan", 4, 10),      span(6, 5, "twin", 5, 10),
        span(6, 5, "twin", 6, 10),        span(7, 6, "below-twins", 7, 10),
        span(8, 4, "below-circle", 8, 0),
    };
    struct buf out = draw(spans, sizeof spans / sizeof *spans, ascii, 0);
    static const struct {
        const char *name;
        size_t n;
    } shown[] = {{"own-parent  ", 1}, {"circle-a  ", 1}, {"circle-b  ", 1},  {"circle-c  ", 1},
                 {"orphan  ", 1},     {"twin  ", 2},     {"below-twins", 1}, {"below-circle", 1}};
    /* The first name stands in the head, too, but ends there. */
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        if (count(out.ptr, shown[i].name) != shown[i].n)
            fail_msg("%s is not there %zu times:\n%s", shown[i].name, shown[i].n, out.ptr);
    assert_int_equal(count(out.ptr, "parent missing"), 3);
    buf_done(&out);
}

static void times_that_make_no_sense_stay_inside(void **state)
{
    struct span spans[] = {span(1, 0, "a", 0, 0), span(2, 1, "b", 0, 0)};
    struct buf out = draw(spans, 2, ascii, 0); /* no time at all */
    assert_non_null(strstr(out.ptr, "0 ns"));
    buf_done(&out);
    spans[0].end_ns = 0; /* ends before it starts */
    spans[1].start_ns = 0;
    spans[1].end_ns = UINT64_MAX;
    out = draw(spans, 2, ascii, 0);
    assert_int_equal(count(out.ptr, "\n"), 6);
    buf_done(&out);
}

static void a_chain_as_long_as_a_trace_is_drawn(void **state)
{
    enum { N = 20000 };
    struct span *spans = calloc(N, sizeof *spans);
    for (uint32_t i = 0; i < N; i++)
        spans[i] = span(i + 1, i, "deep", i, N - i);
    struct buf out = draw(spans, N, ascii, 0);
    assert_int_equal(count(out.ptr, "\n"), N + 4);
    buf_done(&out);
    out = draw(spans, N, ascii, 10);
    assert_int_equal(count(out.ptr, "\n"), 10 + 4 + 2);
    assert_non_null(strstr(out.ptr, "and 19990 more spans; --all shows them"));
    buf_done(&out);
    free(spans);
}

static void no_control_of_a_name_reaches_the_terminal(void **state)
{
    /* As the program does, with a locale that has characters. */
    setenv("LC_ALL", "C.UTF-8", 1);
    struct term t = term_of(stdout);
    assert_true(t.utf8);
    static const struct {
        const char *text, *shown;
        size_t width;
    } cases[] = {
        {"plain", "plain", 5},
        {"a\x1b[31mb\n\t\r", "a\xc2\xb7[31mb\xc2\xb7\xc2\xb7\xc2\xb7", 10},
        {"\x7f\xc2\x9b", "\xc2\xb7\xc2\xb7", 2},
        {"\xff\xfe", "\xc2\xb7\xc2\xb7", 2},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", 4},
        {"\xe6\xbc\xa2", "\xe6\xbc\xa2", 2},
        {"a\xe2\x80\xae"
         "b",
         "a\xc2\xb7"
         "b",
         3}, /* turns the direction of writing */
        {"\xe6\xbc", "\xc2\xb7\xc2\xb7", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out = BUF_INIT;
        assert_int_equal(term_text(&out, str_from(cases[i].text), SIZE_MAX), cases[i].width);
        assert_int_equal(term_width(str_from(cases[i].text)), cases[i].width);
        assert_str_eq(buf_as_str(&out), str_from(cases[i].shown));
        buf_done(&out);
    }
    /* Cutting never exceeds, also where a character is two columns wide. */
    for (size_t width = 0; width < 12; width++) {
        struct buf out = BUF_INIT;
        size_t used = term_text(&out, STR("\xe6\xbc\xa2\xe6\xbc\xa2 ab \xe6\xbc\xa2"), width);
        assert_true(used <= width);
        assert_int_equal(term_width(buf_as_str(&out)), used);
        buf_done(&out);
    }
}

static void durations_have_three_digits_that_matter(void **state)
{
    static const struct {
        uint64_t ns;
        const char *text;
    } cases[] = {
        {0, "0 ns"},
        {999, "999 ns"},
        {1000, "1.00 \xc2\xb5s"},
        {12345, "12.3 \xc2\xb5s"},
        {999949, "1000 \xc2\xb5s"},
        {1500000, "1.50 ms"},
        {123456789, "123 ms"},
        {NS_PER_S, "1.00 s"},
        {119 * NS_PER_S, "119 s"},
        {125 * NS_PER_S, "2 min 5 s"},
        {3 * 3600 * NS_PER_S, "3 h 0 min"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[TERM_DURATION_SIZE];
        assert_string_equal(term_duration(out, cases[i].ns), cases[i].text);
    }
    char out[TERM_DURATION_SIZE];
    assert_true(strlen(term_duration(out, UINT64_MAX)) < TERM_DURATION_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trace_is_a_tree_with_bars_and_durations),
        cmocka_unit_test(lines_fit_the_terminal_whatever_the_names_are),
        cmocka_unit_test(what_is_no_tree_is_shown_all_the_same_each_span_once),
        cmocka_unit_test(times_that_make_no_sense_stay_inside),
        cmocka_unit_test(a_chain_as_long_as_a_trace_is_drawn),
        cmocka_unit_test(no_control_of_a_name_reaches_the_terminal),
        cmocka_unit_test(durations_have_three_digits_that_matter),
    };
    return cmocka_run_group_tests_name("waterfall", tests, NULL, NULL);
}
