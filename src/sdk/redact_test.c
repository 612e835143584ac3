#include "base/test.h"
#include "model/redact.h"
#include "pugmark/pugmark.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct arena arena;

static int end(void **state)
{
    arena_done(&arena);
    return 0;
}

static struct redact *rules(const char *key, const char *pattern)
{
    struct redact *r;
    struct error_detail detail = {0};
    if (redact_new(&key, key != NULL, &pattern, pattern != NULL, &arena, &r, &detail) != 0)
        fail_msg("%s", detail.message);
    return r;
}

static struct attr text_attr(const char *key, const char *value)
{
    return (struct attr){str_from(key), {.type = VALUE_STRING, .string = str_from(value)}};
}

static bool is_taken_out(struct redact *r, const char *key)
{
    struct attr a = text_attr(key, "value");
    struct attrs attrs = {&a, 1, 0};
    redact_attrs(r, &attrs, &arena);
    bool out = str_eq(a.value.string, STR(REDACTED));
    if (!out)
        assert_str_eq(a.value.string, STR("value"));
    return out;
}

static void keys_that_name_secrets_lose_their_values(void **state)
{
    struct redact *r = rules("default", NULL);
    static const char *const secret[] = {
        "password",      "db.password",     "user_Password_hash",
        "PASSWD",        "client_secret",   "http.request.header.authorization",
        "Authorization", "http.cookie",     "set-cookie",
        "x-api-key",     "openai.api_key",  "apikey",
        "token",         "access_token",    "auth.token",
        "x-vault-token", "aws.credentials", "ssh.private_key"};
    static const char *const open_[] = {
        "http.route",    "tokens",       "gen_ai.usage.input_tokens",
        "tokenizer",     "user.name",    "session.id",
        "key",           "db.statement", "",
        "code.function", "passenger"};
    for (int again = 0; again < 2; again++) { /* the second time it is remembered */
        for (size_t i = 0; i < sizeof secret / sizeof secret[0]; i++)
            if (!is_taken_out(r, secret[i]))
                fail_msg("%s is open", secret[i]);
        for (size_t i = 0; i < sizeof open_ / sizeof open_[0]; i++)
            if (is_taken_out(r, open_[i]))
                fail_msg("%s is taken out", open_[i]);
    }
}

static void globs_match_whole_keys(void **state)
{
    static const struct {
        const char *glob, *key;
        bool matches;
    } cases[] = {{"customer.*", "customer.name", true},
                 {"customer.*", "my.customer.name", false},
                 {"*.iban", "account.IBAN", true},
                 {"a?c", "abc", true},
                 {"a?c", "ac", false},
                 {"*a*b*c", "xaxbxbc", true},
                 {"*a*b*c", "xaxbxb", false},
                 {"*", "anything", true},
                 {"Name", "name", true},
                 {"name", "names", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (is_taken_out(rules(cases[i].glob, NULL), cases[i].key) != cases[i].matches)
            fail_msg("%s, %s", cases[i].glob, cases[i].key);
    char key[300];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = 0;
    assert_true(is_taken_out(rules("*kk", NULL), key));
}

static void every_type_of_value_is_taken_out(void **state)
{
    struct redact *r = rules("secret", NULL);
    struct attr inner[] = {text_attr("secret", "x"), text_attr("open", "y")};
    struct attr attrs[] = {
        {STR("secret"), {.type = VALUE_INT, .integer = 42}},
        {STR("map"), {.type = VALUE_MAP, .map = {inner, 2}}},
        {STR("other"), {.type = VALUE_INT, .integer = 43}},
    };
    struct attrs all = {attrs, 3, 0};
    redact_attrs(r, &all, &arena);
    assert_int_equal(attrs[0].value.type, VALUE_STRING);
    assert_str_eq(attrs[0].value.string, STR(REDACTED));
    assert_str_eq(inner[0].value.string, STR(REDACTED));
    assert_str_eq(inner[1].value.string, STR("y"));
    assert_int_equal(attrs[2].value.integer, 43);
}

static void patterns_find_what_they_are_named_for(void **state)
{
    static const struct {
        const char *pattern, *text, *expected;
    } cases[] = {
        {"email", "from a.b+c@mail.example.org to x@y, z@q.io.",
         "from [redacted] to x@y, [redacted]."},
        {"credit_card", "paid 4111 1111 1111 1111, order 4111111111111112",
         "paid [redacted], order 4111111111111112"},
        {"credit_card", "5500-0000-0000-0004", "[redacted]"},
        {"credit_card", "order 7 4111 1111 1111 1111", "order 7 [redacted]"},
        {"credit_card", "4111 1111 1111 1111 12 left", "[redacted] 12 left"},
        {"credit_card", "1234567890 4111111111111111 2", "1234567890 [redacted] 2"},
        {"bearer_token", "Authorization: Bearer abc.DEF-123== ok", "Authorization: [redacted] ok"},
        {"jwt", "t=eyJhbGciOi.eyJzdWIi.c2ln;", "t=[redacted];"},
        {"aws_key", "id AKIAIOSFODNN7EXAMPLE here", "id [redacted] here"},
        {"aws_key", "AKIAIOSFODNN7EXAMPLES", "AKIAIOSFODNN7EXAMPLES"},
        {"ipv4", "from 192.168.0.255:80 to 256.1.1.1, v1.2.3",
         "from [redacted]:80 to 256.1.1.1, v1.2.3"},
        {"private_key", "k -----BEGIN RSA PRIVATE KEY-----\nMII\n", "k [redacted]"},
        {"private_key", "-----BEGIN CERTIFICATE-----\nMII\n", "-----BEGIN CERTIFICATE-----\nMII\n"},
        {"user-\\d+", "user-1 user-x user-22", "[redacted] user-x [redacted]"},
        {"(word)", "a word in words", "a [redacted] in [redacted]s"},
        {"\xc3\xa9.", "caf\xc3\xa9\xe2\x82\xac!", "caf[redacted]!"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_str_eq(redact_text(rules(NULL, cases[i].pattern), str_from(cases[i].text), &arena),
                      str_from(cases[i].expected));
}

static void spans_are_looked_through_everywhere(void **state)
{
    struct redact *r = rules("secret", "email");
    struct attr attrs[] = {text_attr("to", "x@y.org"), text_attr("secret", "s")};
    struct attr event_attrs[] = {text_attr("to", "x@y.org")},
                link_attrs[] = {text_attr("secret", "s")};
    struct event event = {.name = STR("sent to x@y.org"), .attrs = {event_attrs, 1, 0}};
    struct link link = {.attrs = {link_attrs, 1, 0}};
    struct span s = {.name = STR("mail x@y.org"),
                     .status_message = STR("x@y.org bounced"),
                     .attrs = {attrs, 2, 0},
                     .events = &event,
                     .n_events = 1,
                     .links = &link,
                     .n_links = 1};
    redact_spans(r, &s, 1, &arena);
    assert_str_eq(s.name, STR("mail [redacted]"));
    assert_str_eq(s.status_message, STR("[redacted] bounced"));
    assert_str_eq(attrs[0].value.string, STR(REDACTED));
    assert_str_eq(attrs[1].value.string, STR(REDACTED));
    assert_str_eq(event.name, STR("sent to [redacted]"));
    assert_str_eq(event_attrs[0].value.string, STR(REDACTED));
    assert_str_eq(link_attrs[0].value.string, STR(REDACTED));
}

static void what_cannot_be_looked_through_is_taken_out(void **state)
{
    char text[2048];
    memset(text, 'a', sizeof text);
    struct str s = {text, sizeof text};
    struct str out = redact_text(rules(NULL, "a(.*b)?"), s, &arena);
    assert_true(out.len < sizeof text);
    assert_null(memchr(out.ptr, 'b', out.len));
    struct arena none = {.bytes_max = 1};
    assert_str_eq(redact_text(rules(NULL, "(aa)"), s, &none), STR(REDACTED));
}

static void bad_rules_are_refused_with_words(void **state)
{
    static const struct {
        const char *pattern, *words;
    } cases[] = {{"emial", "\"emial\" is not known: expected email"},
                 {"(a", "\"(\" without its \")\""},
                 {"a*", "matches the empty text"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct redact *r;
        struct error_detail detail = {0};
        assert_int_equal(redact_new(NULL, 0, &cases[i].pattern, 1, &arena, &r, &detail),
                         ERR_INVALID);
        if (!strstr(detail.message, cases[i].words))
            fail_msg("\"%s\" does not say \"%s\"", detail.message, cases[i].words);
    }
}

static void without_rules_there_is_nothing(void **state)
{
    struct redact *r = (struct redact *)1;
    assert_int_equal(redact_new(NULL, 0, NULL, 0, &arena, &r, NULL), 0);
    assert_null(r);
    redact_spans(NULL, NULL, 0, &arena);
}

/* ---- through the whole library ---- */

static void traced(const char *dir)
{
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_LOCAL,
                            .trace_dir = dir,
                            .config_file = ""};
    setenv("PUG_REDACT_PATTERNS", "email,bearer_token", 1);
    setenv("OTEL_RESOURCE_ATTRIBUTES", "owner=hunter2@example.org,team.api_key=hunter2", 1);
    if (pug_start(&o) != 0)
        _exit(1);
    {
        PUG_SPAN("login", PUG_STR("user.password", "hunter2"), PUG_STR("colour", "red"));
        pug_set_str(PUG_CURRENT, "mail", "hunter2@example.org");
        pug_event(PUG_CURRENT, "tried", PUG_STR("auth_token", "hunter2"));
        pug_error(PUG_CURRENT, "Bearer hunter2 was refused");
    }
    _exit(pug_stop() == 0 ? 0 : 1);
}

static void nothing_secret_reaches_the_file(void **state)
{
    char dir[] = "/tmp/pugmark-redact-XXXXXX", command[128], text[1 << 14];
    assert_non_null(mkdtemp(dir));
    pid_t pid = fork();
    if (pid == 0)
        traced(dir);
    int status = 1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    snprintf(command, sizeof command, "cat %s/*.json; rm -rf %s", dir, dir);
    FILE *f = popen(command, "r");
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    assert_int_equal(pclose(f), 0);
    assert_non_null(strstr(text, "\"colour\":\"red\""));
    assert_non_null(strstr(text, "\"user.password\":\"[redacted]\""));
    assert_non_null(strstr(text, "\"mail\":\"[redacted]\""));
    assert_non_null(strstr(text, "[redacted] was refused"));
    assert_null(strstr(text, "hunter2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_that_name_secrets_lose_their_values),
        cmocka_unit_test(globs_match_whole_keys),
        cmocka_unit_test(every_type_of_value_is_taken_out),
        cmocka_unit_test(patterns_find_what_they_are_named_for),
        cmocka_unit_test(spans_are_looked_through_everywhere),
        cmocka_unit_test(what_cannot_be_looked_through_is_taken_out),
        cmocka_unit_test(bad_rules_are_refused_with_words),
        cmocka_unit_test(without_rules_there_is_nothing),
        cmocka_unit_test(nothing_secret_reaches_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
