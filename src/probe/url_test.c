#include "base/test.h"

#include "probe/url.h"

static void becomes(const char *url, const char *expected)
{
    char out[512];
    size_t n = url_without_secrets(str_from(url), out, sizeof out);
    assert_str_eq(((struct str){out, n}), str_from(expected));
}

static void user_and_password_are_redacted(void **state)
{
    becomes("https://u:p@example.com/a?b=c#d", "https://REDACTED:REDACTED@example.com/a?b=c#d");
    becomes("http://u@h:80", "http://REDACTED@h:80");
    becomes("http://u:p@q@h/", "http://REDACTED:REDACTED@h/");
    becomes("http://h/@x:y@z", "http://h/@x:y@z");
    becomes("http://h?x=a@b", "http://h?x=a@b");
    becomes("u:p@example.com/path", "REDACTED@example.com/path");
}

static void signatures_and_keys_are_redacted(void **state)
{
    becomes("http://h/?a=1&sig=abc&Signature=x&b",
            "http://h/?a=1&sig=REDACTED&Signature=REDACTED&b");
    becomes("http://h/?x-amz-signature=a;z=1#sig=2",
            "http://h/?x-amz-signature=REDACTED;z=1#sig=2");
    becomes("http://h/?sig", "http://h/?sig");
    becomes("http://h/?sig=", "http://h/?sig=REDACTED");
    becomes("h/?AWSAccessKeyId=abc", "h/?AWSAccessKeyId=REDACTED");
}

static void others_stay_as_they_are(void **state)
{
    becomes("http://[::1]:8080/x", "http://[::1]:8080/x");
    becomes("", "");
    becomes("http://", "http://");
    becomes("://x", "://x");
}

static void parts(const char *text, const char *scheme, const char *host, unsigned port)
{
    struct url u;
    assert_true(url_parse(str_from(text), &u));
    assert_str_eq(u.scheme, str_from(scheme));
    assert_str_eq(u.host, str_from(host));
    assert_int_equal(u.port, port);
}

static void host_and_port_are_found(void **state)
{
    struct url u;
    parts("http://a.b/", "http", "a.b", 80);
    parts("HTTPS://u:p@a.b?x", "HTTPS", "a.b", 443);
    parts("http://[fe80::1%25eth0]:81/", "http", "fe80::1%25eth0", 81);
    parts("gopher://h", "gopher", "h", 0);
    parts("http://h:99999/", "http", "h", 80);
    assert_false(url_parse(STR("http://"), &u));
    assert_false(url_parse(STR("a.b/c"), &u));
    assert_false(url_parse(STR("http://[::1"), &u));
    assert_false(url_parse(STR(""), &u));
}

static void it_is_cut_at_the_size(void **state)
{
    char out[8];
    assert_int_equal(url_without_secrets(STR("http://example.com/"), out, sizeof out), 8);
    assert_memory_equal(out, "http://e", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(user_and_password_are_redacted),
        cmocka_unit_test(signatures_and_keys_are_redacted),
        cmocka_unit_test(others_stay_as_they_are),
        cmocka_unit_test(host_and_port_are_found),
        cmocka_unit_test(it_is_cut_at_the_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
