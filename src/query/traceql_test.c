#include "base/test.h"

#include "query/traceql.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- what is accepted ---- */

/* Each query and the fully parenthesised form of what was understood. */
static const struct {
    const char *text, *form;
} accepted[] = {
    {"{}", "{  }"},
    {"{ }", "{  }"},
    {" {\n\t} ", "{  }"},
    {"{ true }", "{ true }"},
    {"{ false }", "{ false }"},
    {"{ name = \"GET /\" }", "{ (name = \"GET /\") }"},
    {"{ name = `C:\\dir` }", "{ (name = \"C:\\\\dir\") }"},
    {"{name=\"a\\tb\\u00e9\\x41\\101\\\"\"}", "{ (name = \"a\\x09b\xc3\xa9"
                                              "AA\\\"\") }"},
    {"{ name = \"\\U0001F43E\" }", "{ (name = \"\xf0\x9f\x90\xbe\") }"},
    {"{ \"x\" = name }", "{ (name = \"x\") }"},
    {"{ 5ms < duration }", "{ (duration > 5000000ns) }"},
    {"{ 5ms >= duration }", "{ (duration <= 5000000ns) }"},
    {"{ span:name != \"x\" }", "{ (name != \"x\") }"},
    {"{ name =~ \"GET.*\" }", "{ (name =~ \"GET.*\") }"},
    {"{ name !~ `^a|b$` }", "{ (name !~ \"^a|b$\") }"},
    {"{ name > \"a\" && name <= \"b\" }", "{ ((name > \"a\") && (name <= \"b\")) }"},
    {"{ kind = server }", "{ (kind = server) }"},
    {"{ span:kind != unspecified }", "{ (kind != unspecified) }"},
    {"{ kind = internal || kind = client || kind = producer || kind = consumer }",
     "{ ((((kind = internal) || (kind = client)) || (kind = producer)) || (kind = consumer)) }"},
    {"{ status = error }", "{ (status = error) }"},
    {"{ span:status != ok }", "{ (status != ok) }"},
    {"{ status = unset }", "{ (status = unset) }"},
    {"{ statusMessage = \"boom\" }", "{ (statusMessage = \"boom\") }"},
    {"{ span:statusMessage =~ \".*time.*\" }", "{ (statusMessage =~ \".*time.*\") }"},
    {"{ duration > 100ms }", "{ (duration > 100000000ns) }"},
    {"{ duration > 1.5s }", "{ (duration > 1500000000ns) }"},
    {"{ duration > 1h30m }", "{ (duration > 5400000000000ns) }"},
    {"{ duration > 2d }", "{ (duration > 172800000000000ns) }"},
    {"{ duration > 7us && duration < 8\xc2\xb5s }",
     "{ ((duration > 7000ns) && (duration < 8000ns)) }"},
    {"{ span:duration >= 0s }", "{ (duration >= 0ns) }"},
    {"{ duration > 1000 }", "{ (duration > 1000) }"},
    {"{ duration > 2 * 100ms }", "{ (duration > 200000000ns) }"},
    {"{ duration > -1ms }", "{ (duration > -1000000ns) }"},
    {"{ traceDuration > 1s }", "{ (traceDuration > 1000000000ns) }"},
    {"{ trace:duration > 1s }", "{ (traceDuration > 1000000000ns) }"},
    {"{ rootName = \"r\" && rootServiceName = \"s\" }",
     "{ ((rootName = \"r\") && (rootServiceName = \"s\")) }"},
    {"{ trace:rootName = \"r\" && trace:rootService = \"s\" }",
     "{ ((rootName = \"r\") && (rootServiceName = \"s\")) }"},
    {"{ trace:id = \"0102\" }", "{ (trace:id = \"0102\") }"},
    {"{ span:id = \"01\" || span:parentID = \"02\" }",
     "{ ((span:id = \"01\") || (span:parentID = \"02\")) }"},
    {"{ .foo = 1 }", "{ (.\"foo\" = 1) }"},
    {"{ span.foo = -1 }", "{ (span.\"foo\" = -1) }"},
    {"{ resource.service.name = \"api\" }", "{ (resource.\"service.name\" = \"api\") }"},
    {"{ .http-method.x/y*z = 1 }", "{ (.\"http-method.x/y*z\" = 1) }"},
    {"{ .\"with space\" = 1 }", "{ (.\"with space\" = 1) }"},
    {"{ span.\"a\\\"b\".c.\"d\\\\e\" = 1 }", "{ (span.\"a\\\"b.c.d\\\\e\" = 1) }"},
    {"{ .\"\" = 1 }", "{ (.\"\" = 1) }"},
    {"{ .\xc3\xbc = true }", "{ (.\"\xc3\xbc\" = true) }"},
    {"{ .a = 1.5 }", "{ (.\"a\" = 1.50000000000000000e+00) }"},
    {"{ .a = .5 }", "{ (.\"a\" = 5.00000000000000000e-01) }"},
    {"{ .a = 1e3 }", "{ (.\"a\" = 1.00000000000000000e+03) }"},
    {"{ .a = 1.e-2 }", "{ (.\"a\" = 1.00000000000000002e-02) }"},
    {"{ .a = 9223372036854775807 }", "{ (.\"a\" = 9223372036854775807) }"},
    {"{ .a = nil }", "{ (.\"a\" = nil) }"},
    {"{ .a != nil }", "{ (.\"a\" != nil) }"},
    {"{ nil != .a }", "{ (.\"a\" != nil) }"},
    {"{ .a }", "{ (.\"a\" = true) }"},
    {"{ !.a }", "{ (!(.\"a\" = true)) }"},
    {"{ !!.a }", "{ (!(!(.\"a\" = true))) }"},
    {"{ .a && .b = 1 }", "{ ((.\"a\" = true) && (.\"b\" = 1)) }"},
    {"{ !(.a = 1 || .b = 2) }", "{ (!((.\"a\" = 1) || (.\"b\" = 2))) }"},
    {"{ .a = 1 || .b = 2 && .c = 3 }", "{ (((.\"a\" = 1) || (.\"b\" = 2)) && (.\"c\" = 3)) }"},
    {"{ .a = 1 || (.b = 2 && .c = 3) }", "{ ((.\"a\" = 1) || ((.\"b\" = 2) && (.\"c\" = 3))) }"},
    {"{ .a = .b }", "{ (.\"a\" = .\"b\") }"},
    {"{ .a + .b > 3 }", "{ ((.\"a\" + .\"b\") > 3) }"},
    {"{ .a > 1 + 2 * 3 ^ 2 }", "{ (.\"a\" > 19) }"},
    {"{ .a = 2 ^ 3 ^ 2 }", "{ (.\"a\" = 512) }"},
    {"{ .a = 7 % 4 - 1 }", "{ (.\"a\" = 2) }"},
    {"{ .a = 7 / 2 }", "{ (.\"a\" = 3.50000000000000000e+00) }"},
    {"{ - .a < 3 }", "{ ((-.\"a\") < 3) }"},
    {"{ (duration) > (1s) }", "{ (duration > 1000000000ns) }"},
    {"{ event:name = \"exception\" }", "{ (event:name = \"exception\") }"},
    {"{ event:timeSinceStart > 1ms }", "{ (event:timeSinceStart > 1000000ns) }"},
    {"{ event.exception.type =~ \"IO.*\" }", "{ (event.\"exception.type\" =~ \"IO.*\") }"},
    {"{ event.a }", "{ (event.\"a\" = true) }"},
    {"{ link:traceID = \"ab\" || link:spanID = \"cd\" }",
     "{ ((link:traceID = \"ab\") || (link:spanID = \"cd\")) }"},
    {"{ link.a = 1 }", "{ (link.\"a\" = 1) }"},
    {"{ instrumentation:name = \"x\" && instrumentation:version = \"1\" }",
     "{ ((instrumentation:name = \"x\") && (instrumentation:version = \"1\")) }"},
    {"{ instrumentation.a = 1 }", "{ (instrumentation.\"a\" = 1) }"},
    {"{ parent = nil }", "{ (parent = nil) }"},
    {"{ parent != nil }", "{ (!(parent = nil)) }"},
    {"{ nestedSetParent < 0 }", "{ (parent = nil) }"},
    {"{ nestedSetParent = -1 }", "{ (parent = nil) }"},
    {"{ nestedSetParent >= 0 }", "{ (!(parent = nil)) }"},
    {"{ nestedSetParent > -2 }", "{ true }"},
    {"{ nil = nil }", "{ true }"},
    {"{ 1 = 2 }", "{ false }"},
    {"{ \"a\" != \"b\" }", "{ true }"},
    {"{ (.a = 1) = (.b = 1) }", "{ ((.\"a\" = 1) = (.\"b\" = 1)) }"},
    {"{ .a = 1 } && { .b = 2 }", "({ (.\"a\" = 1) } && { (.\"b\" = 2) })"},
    {"{ .a = 1 } || { .b = 2 }", "({ (.\"a\" = 1) } || { (.\"b\" = 2) })"},
    {"({ .a = 1 } || { .b = 2 }) && { }", "(({ (.\"a\" = 1) } || { (.\"b\" = 2) }) && {  })"},
    {"({ .a = 1 })", "{ (.\"a\" = 1) }"},
    {"{ .a = 1 } // the first\n && /* and */ { .b = 2 }", "({ (.\"a\" = 1) } && { (.\"b\" = 2) })"},
};

static struct traceql *parse(const char *text)
{
    struct traceql *q;
    struct error_detail detail = {0};
    int err = traceql_parse(str_from(text), &q, &detail);
    if (err)
        fail_msg("%s: at %zu: %s", text, detail.position, detail.message);
    return q;
}

static void queries_are_understood_as_they_are_meant(void **state)
{
    struct buf form = BUF_INIT, again = BUF_INIT;
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        struct traceql *q = parse(accepted[i].text);
        buf_clear(&form);
        traceql_print(q, &form);
        assert_str_eq(buf_as_str(&form), str_from(accepted[i].form));
        traceql_free(q);

        buf_byte(&form, '\0');
        q = parse(form.ptr);
        form.len--;
        buf_clear(&again);
        traceql_print(q, &again);
        assert_str_eq(buf_as_str(&again), buf_as_str(&form));
        traceql_free(q);
    }
    buf_done(&form);
    buf_done(&again);
}

/* Every line of a block marked traceql in docs/traceql.md. */
/* Calls `fn` with each line of a file beside this one that is neither empty nor a comment. */
static unsigned each_line(const char *path, void (*fn)(char *line))
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char line[1024];
    unsigned n = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] && line[0] != '#') {
            fn(line);
            n++;
        }
    }
    fclose(file);
    return n;
}

static void prints_as(const char *text, const char *form)
{
    struct buf out = BUF_INIT;
    struct traceql *q = parse(text);
    traceql_print(q, &out);
    if (!str_eq(buf_as_str(&out), str_from(form)))
        fail_msg("%s: %.*s, not %s", text, (int)out.len, out.ptr, form);
    traceql_free(q);
    buf_done(&out);
}

static char accepted_before[1024];

static void accepted_line(char *line)
{
    if (line[0] != ' ') {
        snprintf(accepted_before, sizeof accepted_before, "%s", line);
        return;
    }
    prints_as(accepted_before, line + 4);
    prints_as(line + 4, line + 4);
}

static void the_listed_queries_are_understood_and_print_to_their_form(void **state)
{
    unsigned n = each_line(TRACEQL_ACCEPTED, accepted_line);
    assert_in_range(n / 2 + sizeof accepted / sizeof *accepted, 200, 10000);
}

static void the_examples_of_the_documents_are_understood(void **state)
{
    FILE *file = fopen(TRACEQL_DOCUMENT, "r");
    assert_non_null(file);
    char line[512];
    bool inside = false;
    unsigned n = 0;
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "```", 3)) {
            inside = !strcmp(line, "```traceql\n");
            continue;
        }
        if (!inside)
            continue;
        traceql_free(parse(line));
        n++;
    }
    fclose(file);
    assert_in_range(n, 10, 100);
}

/* ---- what is refused ---- */

static const struct {
    const char *text;
    int code;
    size_t position;
    const char *says; /* part of the message */
} refused[] = {
    {"", ERR_INVALID, 0, "expected \"{\""},
    {"   ", ERR_INVALID, 3, "found the end"},
    {"name = \"x\"", ERR_INVALID, 0, "expected \"{\""},
    {".a = 1", ERR_INVALID, 0, "expected \"{\""},
    {"{", ERR_INVALID, 1, "expected an attribute"},
    {"}", ERR_INVALID, 0, "expected \"{\""},
    {"{ name = }", ERR_INVALID, 9, "found \"}\""},
    {"{ name }", ERR_INVALID, 2, "expected a condition between"},
    {"{ 5 }", ERR_INVALID, 2, "found a number"},
    {"{ \"x\" }", ERR_INVALID, 2, "found a string"},
    {"{ nil }", ERR_INVALID, 2, "found nil"},
    {"{ name = \"x\" ", ERR_INVALID, 13, "expected an operator or \"}\""},
    {"{ name = \"x\" } }", ERR_INVALID, 15, "or the end"},
    {"{ name = \"x\" name = \"y\" }", ERR_INVALID, 13, "expected an operator"},
    {"{ name = \"x }", ERR_INVALID, 9, "closing quote"},
    {"{ name = `x }", ERR_INVALID, 9, "closing quote"},
    {"{ name = \"\\q\" }", ERR_INVALID, 10, "unknown escape"},
    {"{ name = \"\\ud800\" }", ERR_INVALID, 10, "unknown escape"},
    {"{ name = 'x' }", ERR_INVALID, 9, "double quotes"},
    {"{ name = x }", ERR_INVALID, 9, "not known here"},
    {"{ name == \"x\" }", ERR_INVALID, 8, "found \"=\""},
    {"{ name = 5 }", ERR_INVALID, 7, "a string cannot be compared with a number"},
    {"{ duration = \"x\" }", ERR_INVALID, 11, "cannot be compared"},
    {"{ status = server }", ERR_INVALID, 9, "cannot be compared"},
    {"{ status > error }", ERR_INVALID, 9, "does not go with"},
    {"{ kind =~ \"s.*\" }", ERR_INVALID, 7, "cannot be compared"},
    {"{ .status = error }", ERR_INVALID, 10, "never a status"},
    {"{ .kind = server }", ERR_INVALID, 8, "never a kind"},
    {"{ .a > true }", ERR_INVALID, 5, "does not go with"},
    {"{ .a > nil }", ERR_INVALID, 5, "nil"},
    {"{ .a =~ .b }", ERR_INVALID, 8, "in quotes"},
    {"{ .a =~ 5 }", ERR_INVALID, 5, "does not go with"},
    {"{ .a =~ \"(\" }", ERR_INVALID, 9, "without its \")\""},
    {"{ .a =~ \"x)\" }", ERR_INVALID, 10, "without its \"(\""},
    {"{ .a =~ \"[a\" }", ERR_INVALID, 9, "without its \"]\""},
    {"{ .a =~ \"*\" }", ERR_INVALID, 9, "nothing to repeat"},
    {"{ .a =~ `(?m)x` }", ERR_INVALID, 9, "flags"},
    {"{ .a =~ `(a)\\1` }", ERR_INVALID, 12, "back references"},
    {"{ .a =~ `\\pL` }", ERR_INVALID, 9, "not supported"},
    {"{ .a =~ `((a{99}){99}){99}` }", ERR_TOO_LARGE, 26, "comes to more"},
    {"{ . = 1 }", ERR_INVALID, 3, "attribute name"},
    {"{ span. = 1 }", ERR_INVALID, 7, "attribute name"},
    {"{ foo.bar = 1 }", ERR_INVALID, 2, "scope"},
    {"{ .\"a = 1 }", ERR_INVALID, 3, "closing quote"},
    {"{ .\"a\\n\" = 1 }", ERR_INVALID, 5, "escapes"},
    {"{ span:foo = 1 }", ERR_INVALID, 2, "no intrinsic"},
    {"{ foo = 1 }", ERR_INVALID, 2, "not known here"},
    {"{ .a = 1 &&}", ERR_INVALID, 11, "expected an attribute"},
    {"{ .a = 1 & .b = 1 }", ERR_INVALID, 9, "expected \"&&\""},
    {"{ && .a }", ERR_INVALID, 2, "expected an attribute"},
    {"{ .a = 1 && 5 }", ERR_INVALID, 12, "after \"&&\""},
    {"{ 5 || .a = 1 }", ERR_INVALID, 2, "before \"||\""},
    {"{ !5 }", ERR_INVALID, 3, "after \"!\""},
    {"{ -\"x\" = .a }", ERR_INVALID, 3, "no sign"},
    {"{ name + 1 = 2 }", ERR_INVALID, 2, "a string does not go with \"+\""},
    {"{ (.a = 1 }", ERR_INVALID, 10, "or \")\""},
    {"({ .a = 1 }", ERR_INVALID, 11, "or \")\""},
    {"{ .a = 1 } { .b = 2 }", ERR_INVALID, 11, "expected an operator, \"|\""},
    {"{ .a = 1 } &&", ERR_INVALID, 13, "expected \"{\""},
    {"{ .a = 12x }", ERR_INVALID, 7, "a duration such as"},
    {"{ .a = 1.2.3 }", ERR_INVALID, 7, "a duration such as"},
    {"{ .a = 9223372036854775808 }", ERR_INVALID, 7, "64 bits"},
    {"{ .a = 1e999 }", ERR_INVALID, 7, "finite"},
    {"{ .a = 10e307 * 100.0 }", ERR_INVALID, 14, "finite"},
    {"{ .a = 1 /* }", ERR_INVALID, 9, "comment"},
    {"{ .a = 1 # }", ERR_INVALID, 9, "means nothing"},
    {"{ parent = 1 }", ERR_INVALID, 2, "nil only"},
    {"{ parent }", ERR_INVALID, 2, "nil only"},
    {"\xff", ERR_INVALID, 0, "UTF-8"},
};

static void what_is_no_query_is_refused_with_its_place(void **state)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct traceql *q = NULL;
        struct error_detail detail = {0};
        int err = traceql_parse(str_from(refused[i].text), &q, &detail);
        if (err != refused[i].code || detail.code != err ||
            detail.position != refused[i].position || !strstr(detail.message, refused[i].says))
            fail_msg("%s: code %d, at %zu (not %zu): \"%s\" (not \"%s\")", refused[i].text, err,
                     detail.position, refused[i].position, detail.message, refused[i].says);
        assert_null(q);
    }
}

static void rejected_line(char *line)
{
    char *says = strchr(line, '\t'), *text = says ? strchr(says + 1, '\t') : NULL;
    assert_non_null(text);
    *says++ = *text++ = '\0';
    struct traceql *q = NULL;
    struct error_detail detail = {0};
    int err = traceql_parse(str_from(text), &q, &detail);
    if (!err || detail.code != err || detail.position != strtoul(line, NULL, 10) ||
        strcmp(detail.message, says))
        fail_msg("%s: code %d, at %zu (not %s): \"%s\" (not \"%s\")", text, err, detail.position,
                 line, detail.message, says);
}

static void the_listed_mistakes_are_named_with_their_place(void **state)
{
    unsigned n = each_line(TRACEQL_REJECTED, rejected_line);
    assert_in_range(n + sizeof refused / sizeof *refused, 100, 10000);
}

static void every_beginning_of_a_query_is_refused_or_understood_but_safe(void **state)
{
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        struct str text = str_from(accepted[i].text);
        for (size_t n = 0; n < text.len; n++) {
            struct traceql *q = NULL;
            struct error_detail detail = {0};
            int err = traceql_parse((struct str){text.ptr, n}, &q, &detail);
            assert_true(err ? detail.message[0] != 0 && detail.position <= n : q != NULL);
            traceql_free(q);
        }
    }
}

static void depth_and_size_have_limits(void **state)
{
    struct {
        const char *open, *middle, *close;
    } shapes[] = {
        {"(", "{}", ")"},
        {"", "{ true", " && true"},
        {"", "{}", " || {}"},
        {"", "{ .a = 1", " ^ 1"},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct buf b = BUF_INIT;
        for (int n = 0; n < 3000; n++)
            buf_cstr(&b, shapes[i].open);
        buf_cstr(&b, shapes[i].middle);
        for (int n = 0; n < 3000; n++)
            buf_cstr(&b, shapes[i].close);
        struct traceql *q;
        struct error_detail detail = {0};
        assert_int_equal(traceql_parse(buf_as_str(&b), &q, &detail), ERR_TOO_LARGE);
        buf_done(&b);
    }
    struct buf nots = BUF_INIT;
    buf_cstr(&nots, "{ ");
    for (int n = 0; n < 3000; n++)
        buf_byte(&nots, n % 2 ? '-' : '!');
    struct traceql *q;
    assert_int_equal(traceql_parse(buf_as_str(&nots), &q, NULL), ERR_TOO_LARGE);
    buf_done(&nots);
    struct buf longest = BUF_INIT;
    for (int n = 0; n <= TRACEQL_BYTES_MAX; n++)
        buf_byte(&longest, ' ');
    assert_int_equal(traceql_parse(buf_as_str(&longest), &q, NULL), ERR_TOO_LARGE);
    buf_done(&longest);
}

/* ---- what it means ---- */

static const struct value tags[] = {
    {.type = VALUE_STRING, .string = STR("canary")},
    {.type = VALUE_STRING, .string = STR("eu")},
    {.type = VALUE_INT, .integer = 7},
};
static const struct attr span_attrs[] = {
    {STR("tags"), {.type = VALUE_ARRAY, .array = {tags, 3}}},
    {STR("none"), {.type = VALUE_ARRAY, .array = {NULL, 0}}},
    {STR("http.status"), {.type = VALUE_INT, .integer = 500}},
    {STR("method"), {.type = VALUE_STRING, .string = STR("GET")}},
    {STR("ratio"), {.type = VALUE_DOUBLE, .real = 0.5}},
    {STR("cached"), {.type = VALUE_BOOL, .boolean = true}},
    {STR("twice"), {.type = VALUE_STRING, .string = STR("span")}},
    {STR("lines"), {.type = VALUE_STRING, .string = STR("one\ntwo")}},
    {STR("big"), {.type = VALUE_INT, .integer = (INT64_C(1) << 53) + 1}},
};
static const struct attr resource_attrs[] = {
    {STR("service.name"), {.type = VALUE_STRING, .string = STR("api")}},
    {STR("twice"), {.type = VALUE_STRING, .string = STR("resource")}},
};
static const struct attr event_attrs[] = {
    {STR("type"), {.type = VALUE_STRING, .string = STR("IOError")}},
};
static const struct attr link_attrs[] = {
    {STR("why"), {.type = VALUE_STRING, .string = STR("batch")}},
};
static const struct event events[] = {
    {.time_ns = 1100, .name = STR("start")},
    {.time_ns = 1600, .name = STR("exception"), .attrs = {event_attrs, 1, 0}},
};
static const struct link links[] = {
    {.trace_id = {{0xab}}, .span_id = {{0xcd}}, .attrs = {link_attrs, 1, 0}},
};
static const struct resource resource = {.attrs = {resource_attrs, 2, 0},
                                         .service_name = STR("api")};
static const struct scope scope = {.name = STR("lib"), .version = STR("1.2")};
static const struct span example = {
    .trace_id = {{1}},
    .span_id = {{2}},
    .parent_id = {{3}},
    .start_ns = 1000,
    .end_ns = 3000,
    .name = STR("GET /x"),
    .status_message = STR("boom"),
    .kind = SPAN_KIND_SERVER,
    .status_code = STATUS_ERROR,
    .attrs = {span_attrs, sizeof span_attrs / sizeof *span_attrs, 0},
    .events = events,
    .n_events = 2,
    .links = links,
    .n_links = 1,
    .resource = &resource,
    .scope = &scope,
};

static const struct {
    const char *text;
    bool holds;
} meanings[] = {
    {"{}", true},
    {"{ false }", false},
    {"{ name = \"GET /x\" }", true},
    {"{ name != \"GET /x\" }", false},
    {"{ name =~ \"GET\" }", false}, /* anchored at both ends */
    {"{ name =~ \"GET.*\" }", true},
    {"{ name =~ `GET\\s/\\w` }", true},
    {"{ name !~ \"POST.*\" }", true},
    {"{ name < \"H\" && name > \"GET\" }", true},
    {"{ kind = server && status = error && statusMessage = \"boom\" }", true},
    {"{ duration = 2us }", true},
    {"{ duration > 1999.5 }", true},
    {"{ duration = 2000.5 }", false},
    {"{ duration != 2000.5 }", true},
    {"{ duration <= 1999.5 }", false},
    {"{ .http.status = 500 }", true},
    {"{ .http.status = 500.0 }", true},
    {"{ .http.status = \"500\" }", false},
    {"{ .http.status != \"500\" }", false}, /* different types do not compare */
    {"{ .http.status != 404 }", true},
    {"{ .http.status >= 500 && .http.status < 600 }", true},
    {"{ .http.status =~ \".*\" }", false},
    {"{ .http.status !~ \"x\" }", false},
    {"{ .big = 9007199254740993 }", true},
    {"{ .big = 9007199254740992.0 }", false},
    {"{ .big > 9007199254740992.0 }", true},
    {"{ .ratio > 0 && .ratio < 1 }", true},
    {"{ .ratio = 0.5 }", true},
    {"{ .cached }", true},
    {"{ !.cached }", false},
    {"{ .cached != false }", true},
    {"{ .method }", false},
    {"{ .absent = 1 }", false},
    {"{ .absent != 1 }", false},
    {"{ !(.absent = 1) }", true},
    {"{ .absent = nil }", true},
    {"{ .method != nil }", true},
    {"{ name = nil }", false},
    {"{ name != nil }", true},
    {"{ .absent !~ \"x\" }", false},
    {"{ .twice = \"span\" }", true},
    {"{ resource.twice = \"resource\" }", true},
    {"{ span.service.name = \"api\" }", false},
    {"{ .service.name = \"api\" }", true},
    {"{ resource.service.name = \"api\" }", true},
    {"{ resource.service.name = \"unknown_service\" }", false},
    {"{ .lines =~ \"one.two\" }", false}, /* a dot is not a newline */
    {"{ .lines =~ `one\\ntwo` }", true},
    {"{ parent = nil }", false},
    {"{ nestedSetParent >= 0 }", true},
    {"{ span:id = \"0200000000000000\" }", true},
    {"{ span:parentID = \"0300000000000000\" }", true},
    {"{ trace:id = \"01000000000000000000000000000000\" }", true},
    {"{ event:name = \"exception\" }", true},
    {"{ event:name != \"exception\" }", true}, /* some event is another */
    {"{ event:name = \"x\" }", false},
    {"{ event:timeSinceStart >= 600ns }", true},
    {"{ event:timeSinceStart > 600ns }", false},
    {"{ event.type =~ \"IO.*\" }", true},
    {"{ event.absent = nil }", true},
    {"{ event.type = nil }", false},
    {"{ event.type != nil }", true},
    {"{ link:traceID = \"ab000000000000000000000000000000\" && link.why = \"batch\" }", true},
    {"{ link:spanID = \"cd00000000000000\" }", true},
    {"{ instrumentation:name = \"lib\" && instrumentation:version = \"1.2\" }", true},
    {"{ instrumentation.x = nil }", true},
    {"{ .http.status - 1 = 499 }", true},
    {"{ .http.status / 0 = 1 }", false},
    {"{ .http.status % 7 = 3 }", true},
    {"{ .twice = resource.twice }", false},
    {"{ .method = span.method }", true},
    {"{ duration > .http.status }", true},
    {"{ -.ratio < 0 }", true},
    {"{ (.cached) = (.method = \"GET\") }", true},
    {"{ .tags = \"canary\" }", true},
    {"{ .tags = \"eu\" && .tags = 7 }", true},
    {"{ .tags = \"us\" }", false},
    {"{ .tags =~ \"can.*\" }", true},
    {"{ .tags > 6 }", true},
    {"{ .tags < 6 }", false},
    {"{ .tags != \"canary\" }", false},
    {"{ .tags != \"us\" }", true},
    {"{ .tags !~ \"e.\" }", false},
    {"{ .tags !~ \"u.\" }", true},
    {"{ .tags != true }", false},
    {"{ .tags != nil }", true},
    {"{ 7 = .tags }", true},
    {"{ .none = \"\" || .none != \"\" }", false},
    {"{ .none != nil }", true},
    {"{ .absent = 1 || .method = \"GET\" }", true},
    {"{ .absent = 1 && .method = \"GET\" }", false},
};

static void queries_mean_of_a_span_what_they_say(void **state)
{
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        struct traceql *q = parse(meanings[i].text);
        if (traceql_match_span(q, &example) != meanings[i].holds)
            fail_msg("%s: should %shold", meanings[i].text, meanings[i].holds ? "" : "not ");
        traceql_free(q);
    }
}

static void intrinsics_of_the_trace_are_those_given(void **state)
{
    struct traceql_trace trace = {STR("root"), STR("front"), 5 * 1000 * 1000};
    struct traceql *q =
        parse("{ rootName = \"root\" && rootServiceName = \"front\" && traceDuration = 5ms }");
    assert_true(q->needs_trace);
    const struct traceql_expr *condition = q->stages->spanset->condition;
    assert_true(traceql_match(condition, &example, &trace));
    assert_false(traceql_match(condition, &example, NULL));
    traceql_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries_are_understood_as_they_are_meant),
        cmocka_unit_test(the_listed_queries_are_understood_and_print_to_their_form),
        cmocka_unit_test(the_listed_mistakes_are_named_with_their_place),
        cmocka_unit_test(the_examples_of_the_documents_are_understood),
        cmocka_unit_test(what_is_no_query_is_refused_with_its_place),
        cmocka_unit_test(every_beginning_of_a_query_is_refused_or_understood_but_safe),
        cmocka_unit_test(depth_and_size_have_limits),
        cmocka_unit_test(queries_mean_of_a_span_what_they_say),
        cmocka_unit_test(intrinsics_of_the_trace_are_those_given),
    };
    return cmocka_run_group_tests_name("traceql", tests, NULL, NULL);
}
