#include "base/clock.h"
#include "base/test.h"
#include "cli/args.h"
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char help[] = "usage: pugmark verb\n";
static const char *const colours[] = {"red", "green", "blue", NULL};

struct values {
    bool flag, other;
    const char *text, *colour, *since;
    uint64_t count, bytes, duration_ns;
};

struct outcome {
    int n, status;
    char first[64], err[512], out[128];
};

/* Runs it with what it prints caught. */
static struct outcome run(struct values *v, bool command, const char *const *words)
{
    const struct args_option options[] = {
        {.name = "flag", .letter = 'f', .flag = &v->flag},
        {.name = "flagrant", .flag = &v->other},
        {.name = "text", .letter = 't', .text = &v->text},
        {.name = "count", .count = &v->count, .min = 1, .max = 1000},
        {.name = "bytes", .bytes = &v->bytes, .min = 1, .max = UINT64_C(1) << 40},
        {.name = "since", .duration_ns = &v->duration_ns, .text = &v->since},
        {.name = "colour", .choice = &v->colour, .choices = colours},
    };
    static char storage[16][64]; /* the values point into it */
    char *argv[17];
    int argc = 0, kept[2] = {dup(1), dup(2)};
    struct outcome o = {.status = -7};
    FILE *caught[2] = {tmpfile(), tmpfile()};
    snprintf(storage[argc], sizeof storage[0], "verb");
    argv[argc] = storage[argc];
    for (argc = 1; words[argc - 1]; argc++) {
        snprintf(storage[argc], sizeof storage[0], "%s", words[argc - 1]);
        argv[argc] = storage[argc];
    }
    argv[argc] = NULL;
    fflush(NULL);
    for (int i = 0; i < 2; i++)
        dup2(fileno(caught[i]), 1 + i);
    size_t n = sizeof options / sizeof *options;
    o.n = command ? args_parse_command("verb", help, options, n, argc, argv, &o.status)
                  : args_parse("verb", help, options, n, argc, argv, &o.status);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        char *into = i ? o.err : o.out;
        size_t size = i ? sizeof o.err : sizeof o.out;
        dup2(kept[i], 1 + i);
        close(kept[i]);
        rewind(caught[i]);
        into[fread(into, 1, size - 1, caught[i])] = '\0';
        fclose(caught[i]);
    }
    if (o.n > 0)
        snprintf(o.first, sizeof o.first, "%s", argv[1]);
    return o;
}

#define RUN(v, ...) run(v, false, (const char *const[]){__VA_ARGS__, NULL})

static void options_and_arguments_may_be_mixed(void **state)
{
    struct values v = {0};
    struct outcome o = RUN(&v, "one", "--count", "12", "-f", "two", "--text=a=b", "--",
                           "--flagrant");
    assert_int_equal(o.n, 3);
    assert_string_equal(o.first, "one");
    assert_int_equal(v.count, 12);
    assert_true(v.flag);
    assert_false(v.other);
    assert_string_equal(v.text, "a=b");
    assert_string_equal(o.err, "");
}

static void a_command_keeps_its_own_options(void **state)
{
    struct values v = {0};
    struct outcome o = run(&v, true, (const char *const[]){"-f", "ls", "--count", "x", NULL});
    assert_int_equal(o.n, 3);
    assert_string_equal(o.first, "ls");
    assert_true(v.flag);
    assert_int_equal(v.count, 0);
}

static void units_are_understood(void **state)
{
    struct values v = {0};
    assert_int_equal(RUN(&v, "--bytes", "64M", "--since", "7d").n, 0);
    assert_int_equal(v.bytes, UINT64_C(64) << 20);
    assert_int_equal(v.duration_ns, 7 * NS_PER_DAY);
    assert_string_equal(v.since, "7d");
    assert_int_equal(RUN(&v, "--bytes", "1t", "--since=1h30m", "--colour", "green").n, 0);
    assert_int_equal(v.bytes, UINT64_C(1) << 40);
    assert_int_equal(v.duration_ns, 90 * 60 * NS_PER_S);
    assert_string_equal(v.colour, "green");
}

static void what_is_wrong_is_said_in_one_line(void **state)
{
    static const struct {
        const char *words[3], *said;
    } cases[] = {
        {{"--count", "0"}, "--count \"0\": expected 1 to 1000"},
        {{"--count", "1001"}, "--count \"1001\": expected 1 to 1000"},
        {{"--count", "many"}, "--count \"many\": expected 1 to 1000"},
        {{"--count", "-1"}, "--count \"-1\": expected 1 to 1000"},
        {{"--count", ""}, "--count \"\": expected 1 to 1000"},
        {{"--count"}, "--count wants a value"},
        {{"-t"}, "-t wants a value"},
        {{"--bytes", "2T"},
         "--bytes \"2T\": expected 1 to 1099511627776 bytes (K, M, G and T are understood)"},
        {{"--bytes", "99999999999999999999T"}, "--bytes \"99999999999999999999T\": expected 1 to"},
        {{"--bytes", "M"}, "--bytes \"M\": expected 1 to"},
        {{"--since", "0s"}, "--since \"0s\": expected a duration such as 15m, 1h, 7d"},
        {{"--since", "yesterday"}, "--since \"yesterday\": expected a duration"},
        {{"--colour", "pink"}, "--colour \"pink\": expected red, green or blue"},
        {{"--text", ""}, "--text is empty"},
        {{"--flag=1"}, "--flag takes no value"},
        {{"--nothing"}, "there is no option --nothing"},
        {{"--nothing=1"}, "there is no option --nothing;"},
        {{"-x"}, "there is no option -x"},
        {{"-fx"}, "there is no option -x"},
        {{"--fl"}, "there is no option --fl"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct values v = {0};
        struct outcome o = run(&v, false, cases[i].words);
        assert_int_equal(o.n, -1);
        assert_int_equal(o.status, CLI_USAGE);
        if (!strstr(o.err, cases[i].said))
            fail_msg("case %zu says: %s", i, o.err);
        assert_int_equal(strncmp(o.err, "pugmark verb: ", 14), 0);
        assert_non_null(strstr(o.err, "`pugmark verb --help` tells more\n"));
        assert_ptr_equal(strchr(o.err, '\n'), o.err + strlen(o.err) - 1);
        assert_string_equal(o.out, "");
    }
}

static void help_goes_to_stdout(void **state)
{
    struct values v = {0};
    struct outcome o = RUN(&v, "--help", "--count", "nonsense");
    assert_int_equal(o.n, -1);
    assert_int_equal(o.status, CLI_DONE);
    assert_string_equal(o.out, help);
    assert_string_equal(RUN(&v, "x", "-h").out, help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_arguments_may_be_mixed),
        cmocka_unit_test(a_command_keeps_its_own_options),
        cmocka_unit_test(units_are_understood),
        cmocka_unit_test(what_is_wrong_is_said_in_one_line),
        cmocka_unit_test(help_goes_to_stdout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
