#include "base/test.h"
#include "cli/config_migrate.h"

#include <stdio.h>

static char told[1000];

static void tell(void *user, uint32_t line, const char *message)
{
    size_t n = strlen(told);
    snprintf(told + n, sizeof told - n, "%u: %s\n", line, message);
}

static int migrate(const char *text, struct buf *out)
{
    struct arena arena = ARENA_INIT;
    struct toml_table *root;
    struct error_detail detail = {0};
    told[0] = 0;
    if (toml_parse(str_from(text), &arena, &root, &detail, NULL) != 0)
        fail_msg("%s: %s", text, detail.message);
    int err = config_migrate(str_from(text), root, out, tell, NULL);
    arena_done(&arena);
    return err;
}

/* And again: then nothing changes any more. */
static void check(const char *text, const char *expected, const char *words)
{
    struct buf once = BUF_INIT, twice = BUF_INIT;
    assert_int_equal(migrate(text, &once), 0);
    assert_str_eq(buf_as_str(&once), str_from(expected));
    assert_string_equal(told, words);
    assert_int_equal(migrate(expected, &twice), 0);
    assert_str_eq(buf_as_str(&twice), str_from(expected));
    assert_string_equal(told, "");
    buf_done(&once);
    buf_done(&twice);
}

static void what_is_up_to_date_stays_as_it_is(void **state)
{
    check("", "", "");
    check("# mine\n[telemetry]\nenabled = true # yes\n\n[server]\nx = 1",
          "# mine\n[telemetry]\nenabled = true # yes\n\n[server]\nx = 1", "");
    check("[debug]\nlevel = 3\n", "[debug]\nlevel = 3\n", "");
}

static void an_old_section_becomes_telemetry_where_it_stands(void **state)
{
    check("# top\n[server]\nport = 1\n\n# about us\n[observability] # here\n  enabled = true # on\n"
          "exporter = 'chrome'\n# a word\nsampling_rate = 0.5\n\n# next\n[profile]\ny = 2\n",
          "# top\n[server]\nport = 1\n\n# about us\n[telemetry] # here\n  enabled = true # on\n"
          "backend = \"local\"\n# a word\nsample_rate = 0.5\n\n# next\n[profile]\ny = 2\n",
          "");
    check("[debug.traces]\ndir = \"x\"", "[telemetry]\ntrace_dir = \"x\"\n", "");
}

static void two_old_sections_become_one(void **state)
{
    check("[observability]\nservice_name = \"a\"\nenabled = false\n\n[server]\nx = 1\n"
          "[debug.traces]\n# where\npath = \"p\"\nenabled = true\n# end\n",
          "[telemetry]\nservice_name = \"a\"\n# enabled = false\n# where\ntrace_dir = \"p\"\n"
          "enabled = true\n\n[server]\nx = 1\n# end\n",
          "3: [observability] enabled: [telemetry] has enabled already; it becomes a comment\n");
    check("[debug.traces]\npath = \"p\"\n[observability]\nservice_name = \"a\"\n",
          "[telemetry]\ntrace_dir = \"p\"\nservice_name = \"a\"\n", "");
}

static void what_telemetry_has_already_stands(void **state)
{
    check("[observability]\nendpoint = \"http://old\"\nservice_name = \"old\"\nother = [\n 1]\n"
          "[telemetry]\nservice_name = \"new\"\n[telemetry.secrets]\nprovider = \"file\"\n",
          "[telemetry]\nservice_name = \"new\"\notlp_endpoint = \"http://old\"\n"
          "# service_name = \"old\"\n# other = [\n#  1]\n"
          "[telemetry.secrets]\nprovider = \"file\"\n",
          "3: [observability] service_name: [telemetry] has service_name already; it becomes a "
          "comment\n4: [observability] other is not known; it becomes a comment\n");
    check("[telemetry]\nenabled = true\n[debug.traces]\ndir = \"d\"\n[server]\n",
          "[telemetry]\nenabled = true\ntrace_dir = \"d\"\n[server]\n", "");
    check("[telemetry]\n[observability]\n", "[telemetry]\n", "");
    check("[observability]\n[debug.traces]\n", "[telemetry]\n", "");
}

static void what_cannot_be_rewritten_is_told(void **state)
{
    struct buf out = BUF_INIT;
    assert_int_equal(migrate("observability = {enabled = true}\n", &out), ERR_UNSUPPORTED);
    assert_non_null(strstr(told, "1: observability cannot be rewritten by itself"));
    assert_int_equal(migrate("[observability]\na.b = 1\n", &out), ERR_UNSUPPORTED);
    assert_int_equal(migrate("[debug]\ntraces.dir = \"x\"\n", &out), ERR_UNSUPPORTED);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_up_to_date_stays_as_it_is),
        cmocka_unit_test(an_old_section_becomes_telemetry_where_it_stands),
        cmocka_unit_test(two_old_sections_become_one),
        cmocka_unit_test(what_telemetry_has_already_stands),
        cmocka_unit_test(what_cannot_be_rewritten_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
