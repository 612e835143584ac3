#include "base/test.h"

#include "ingest/redaction.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

static struct arena arena;
static struct redaction *redaction;

static int end(void **state)
{
    redaction_free(redaction);
    redaction = NULL;
    arena_done(&arena);
    return 0;
}

static struct redaction_rule rule(const char *name, const char *const *key,
                                  const char *const *pattern, enum redact_action action)
{
    return (struct redaction_rule){name, {key, pattern, key != NULL, pattern != NULL, action}};
}

static void start(const struct redaction_rule *rules, size_t n)
{
    struct redaction_options options = {.rules = rules, .n = n, .key = {1, 2, 3}};
    struct error_detail detail = {0};
    if (redaction ? redaction_set(redaction, &options, &detail)
                  : redaction_new(&options, &redaction, &detail))
        fail_msg("%s", detail.message);
}

static const char *const secret = "*secret*", *const user = "user.id", *const drop = "drop.*",
                         *const card = "credit_card";

static void three_rules(void)
{
    const struct redaction_rule rules[] = {rule("cards", NULL, &card, REDACT_MASK),
                                           rule("users", &user, NULL, REDACT_HASH),
                                           rule("gone", &drop, NULL, REDACT_DROP)};
    start(rules, 3);
}

static uint64_t values_of(const char *name)
{
    struct redaction_count counts[REDACT_RULES_MAX];
    size_t n = redaction_counts(redaction, counts);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(counts[i].name, name))
            return counts[i].values;
    fail_msg("no rule %s", name);
    return 0;
}

static struct attr text(const char *key, const char *value)
{
    return (struct attr){str_from(key), {.type = VALUE_STRING, .string = str_from(value)}};
}

/* What one attribute becomes; type VALUE_NONE: it went. */
static struct value redacted(struct attr a)
{
    static const struct resource resource;
    static const struct scope scope;
    struct span span = {.attrs = {&a, 1, 0}, .resource = &resource, .scope = &scope};
    struct span_batch batch = {.spans = &span, .n = 1};
    uint8_t *marks;
    assert_int_equal(redaction_spans(redaction, &batch, &arena, &marks), 0);
    return span.attrs.n ? a.value : (struct value){.type = VALUE_NONE};
}

static void each_rule_does_what_it_says_and_is_counted(void **state)
{
    three_rules();
    assert_str_eq(redacted(text("note", "card 4111 1111 1111 1111.")).string,
                  STR("card [redacted]."));
    assert_int_equal(redacted(text("drop.this", "x")).type, VALUE_NONE);
    struct value hash = redacted(text("user.id", "ann"));
    assert_true(str_starts(hash.string, STR(REDACT_HASHED)));
    assert_int_equal(hash.string.len, sizeof REDACT_HASHED - 1 + REDACT_HASHED_DIGITS);
    assert_str_eq(redacted(text("user.name", "ann")).string, STR("ann"));
    assert_int_equal(values_of("cards"), 1);
    assert_int_equal(values_of("users"), 1);
    assert_int_equal(values_of("gone"), 1);
}

/* HMAC-SHA-256 with the key 01 02 03 and zeros, as openssl(1) and Python's hmac compute it. */
static void a_hash_is_that_of_the_key_and_of_the_text_and_stays(void **state)
{
    three_rules();
    struct value ann = redacted(text("user.id", "ann"));
    assert_str_eq(ann.string, STR("hmac-sha256:ba33341b4a4dacb8e9471ac5d352e725"));
    assert_str_eq(redacted((struct attr){str_from("user.id"), ann}).string, ann.string);
    struct attr number = {str_from("user.id"), {.type = VALUE_INT, .integer = 42}};
    struct value n = redacted(number);
    assert_str_eq(redacted(text("user.id", "42")).string, n.string);
    assert_false(str_eq(n.string, ann.string));
    assert_int_equal(values_of("users"), 3); /* the second ann was done already */
}

static void what_is_shared_is_changed_once_for_all_and_the_original_stays(void **state)
{
    three_rules();
    struct attr attrs[] = {text("user.id", "ann"), text("drop.a", "x"), text("service.name", "s")};
    struct resource resource = {.attrs = {attrs, 3, 0}, .service_name = str_from("s")}, other = {0};
    struct attr scope_attr = text("drop.b", "x");
    struct scope scope = {.attrs = {&scope_attr, 1, 0}}, plain = {0};
    struct span spans[] = {{.resource = &resource, .scope = &plain},
                           {.resource = &resource, .scope = &scope},
                           {.resource = &other, .scope = &plain},
                           {.resource = &resource, .scope = &plain}};
    struct span_batch batch = {.spans = spans, .n = 4};
    uint8_t *marks;
    assert_int_equal(redaction_spans(redaction, &batch, &arena, &marks), 0);
    assert_non_null(marks);
    assert_true(marks[0] && marks[1] && !marks[2] && marks[3]);
    assert_ptr_equal(spans[0].resource, spans[1].resource);
    assert_ptr_equal(spans[2].resource, &other);
    const struct attrs *got = &spans[0].resource->attrs, *again = &spans[3].resource->attrs;
    assert_int_equal(got->n, 2);
    assert_int_equal(got->dropped, 1);
    assert_str_eq(got->items[0].value.string, again->items[0].value.string);
    assert_str_eq(got->items[1].value.string, STR("s"));
    assert_str_eq(spans[0].resource->service_name, STR("s"));
    assert_int_equal(spans[1].scope->attrs.n, 0);
    assert_str_eq(attrs[0].value.string, STR("ann"));
    assert_int_equal(scope.attrs.n, 1);
}

static void maps_and_arrays_and_events_and_links_are_looked_into(void **state)
{
    three_rules();
    struct attr inner[] = {text("drop.x", "1"), text("user.id", "ann"), text("k", "v")};
    struct value items[] = {{.type = VALUE_MAP, .map = {inner, 3}},
                            {.type = VALUE_STRING, .string = STR("4111111111111111")}};
    struct attr a = {str_from("list"), {.type = VALUE_ARRAY, .array = {items, 2}}};
    struct attr on_event = text("drop.e", "x"), on_link = text("user.id", "ann");
    struct event event = {.name = STR("4111111111111111"), .attrs = {&on_event, 1, 0}};
    struct link link = {.attrs = {&on_link, 1, 0}};
    struct resource resource = {0};
    struct scope scope = {0};
    struct span span = {.attrs = {&a, 1, 0},
                        .events = &event,
                        .n_events = 1,
                        .links = &link,
                        .n_links = 1,
                        .resource = &resource,
                        .scope = &scope,
                        .name = STR("pay 4111111111111111")};
    struct span_batch batch = {.spans = &span, .n = 1};
    uint8_t *marks;
    assert_int_equal(redaction_spans(redaction, &batch, &arena, &marks), 0);
    assert_int_equal(items[0].map.n, 2);
    assert_true(str_starts(inner[0].value.string, STR(REDACT_HASHED)));
    assert_str_eq(inner[1].value.string, STR("v"));
    assert_str_eq(items[1].string, STR(REDACTED));
    assert_str_eq(event.name, STR(REDACTED));
    assert_int_equal(event.attrs.n, 0);
    assert_true(str_starts(on_link.value.string, STR(REDACT_HASHED)));
    assert_str_eq(span.name, STR("pay [redacted]"));
}

static void a_pattern_may_hash_its_matches_or_drop_the_attribute_around_them(void **state)
{
    const char *const mail = "email", *const ip = "ipv4";
    const struct redaction_rule rules[] = {rule("mail", NULL, &mail, REDACT_HASH),
                                           rule("ip", NULL, &ip, REDACT_DROP)};
    start(rules, 2);
    struct str one = redacted(text("a", "from ann@example.org")).string,
               two = redacted(text("b", "from ann@example.org")).string;
    assert_true(str_starts(one, STR("from " REDACT_HASHED)));
    assert_str_eq(one, two);
    assert_int_equal(redacted(text("c", "peer 10.1.2.3")).type, VALUE_NONE);
    struct resource resource = {0};
    struct scope scope = {0};
    struct span span = {.name = STR("to 10.1.2.3"), .resource = &resource, .scope = &scope};
    struct span_batch batch = {.spans = &span, .n = 1};
    uint8_t *marks;
    assert_int_equal(redaction_spans(redaction, &batch, &arena, &marks), 0);
    assert_str_eq(span.name, STR("to [redacted]")); /* a name cannot go */
    assert_int_equal(values_of("mail"), 2);
    assert_int_equal(values_of("ip"), 2);
}

static void logs_and_points_go_by_the_same_rules(void **state)
{
    three_rules();
    struct attr on_log = text("drop.l", "x"), on_point = text("user.id", "ann"),
                on_resource = text("drop.r", "x");
    struct resource resource = {.attrs = {&on_resource, 1, 0}};
    struct scope scope = {0};
    struct log_record log = {.body = {.type = VALUE_STRING, .string = STR("n 4111111111111111")},
                             .attrs = {&on_log, 1, 0},
                             .resource = &resource,
                             .scope = &scope};
    assert_int_equal(redaction_logs(redaction, &log, 1, &arena), 0);
    assert_str_eq(log.body.string, STR("n [redacted]"));
    assert_int_equal(log.attrs.n, 0);
    assert_int_equal(log.resource->attrs.n, 0);
    struct metric_point point = {.attrs = {&on_point, 1, 0}};
    struct metric metric = {.name = STR("m"), .points = &point, .n_points = 1};
    struct metric_batch batch = {&metric, 1, &resource, &scope};
    assert_int_equal(redaction_metrics(redaction, &batch, 1, &arena), 0);
    assert_true(str_starts(on_point.value.string, STR(REDACT_HASHED)));
    assert_int_equal(batch.resource->attrs.n, 0);
}

static void without_memory_nothing_passes(void **state)
{
    three_rules();
    struct attr attr = text("user.id", "ann");
    struct resource resource = {.attrs = {&attr, 1, 0}};
    struct scope scope = {0};
    struct span span = {.resource = &resource, .scope = &scope};
    struct span_batch batch = {.spans = &span, .n = 1};
    struct arena none = {.bytes_max = 1};
    uint8_t *marks;
    assert_int_equal(redaction_spans(redaction, &batch, &none, &marks), ERR_NOMEM);
    struct attr own = text("user.id", "ann");
    resource.attrs.n = 0;
    span.attrs = (struct attrs){&own, 1, 0};
    assert_int_equal(redaction_spans(redaction, &batch, &none, &marks), ERR_NOMEM);
    assert_str_eq(own.value.string, STR(REDACTED)); /* no room for a hash */
    arena_done(&none);
}

static void rules_are_replaced_and_their_counts_go_on(void **state)
{
    three_rules();
    assert_int_equal(redacted(text("drop.x", "1")).type, VALUE_NONE);
    const struct redaction_rule rules[] = {rule("new", &secret, NULL, REDACT_MASK),
                                           rule("gone", &drop, NULL, REDACT_DROP)};
    start(rules, 2);
    assert_str_eq(redacted(text("a.secret", "x")).string, STR(REDACTED));
    assert_str_eq(redacted(text("user.id", "ann")).string, STR("ann"));
    assert_int_equal(redacted(text("drop.y", "1")).type, VALUE_NONE);
    assert_int_equal(values_of("gone"), 2);
    assert_int_equal(values_of("new"), 1);
    const char *const bad = "(";
    const struct redaction_rule wrong = rule("wrong", NULL, &bad, REDACT_MASK);
    struct redaction_options options = {.rules = &wrong, .n = 1};
    struct error_detail detail = {0};
    assert_int_equal(redaction_set(redaction, &options, &detail), ERR_INVALID);
    assert_non_null(strstr(detail.message, "("));
    assert_str_eq(redacted(text("a.secret", "x")).string, STR(REDACTED));
    assert_true(redaction_is_on(redaction));
    start(NULL, 0);
    assert_false(redaction_is_on(redaction));
    assert_str_eq(redacted(text("a.secret", "x")).string, STR("x"));
}

enum { THREADS = 4, ROUNDS = 400 };

/* Each value is masked by whichever rules held, and counted once. */
static void *sender(void *arg)
{
    static char wrong[] = "a value was not redacted";
    struct arena own = ARENA_INIT;
    struct resource resource = {0};
    struct scope scope = {0};
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct attr a = text("a.secret", "x");
        struct span span = {.attrs = {&a, 1, 0}, .resource = &resource, .scope = &scope};
        struct span_batch batch = {.spans = &span, .n = 1};
        uint8_t *marks;
        if (redaction_spans(redaction, &batch, &own, &marks) ||
            !str_eq(a.value.string, STR(REDACTED)))
            return wrong;
        arena_reset(&own);
    }
    arena_done(&own);
    return NULL;
}

static void threads_redact_while_the_rules_are_read_again(void **state)
{
    const struct redaction_rule rules[] = {rule("secrets", &secret, NULL, REDACT_MASK),
                                           rule("users", &user, NULL, REDACT_HASH)};
    pthread_t threads[THREADS];
    start(rules, 2);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, sender, NULL), 0);
    for (int i = 0; i < 20; i++)
        start(rules, 1 + i % 2);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        if (wrong)
            fail_msg("%s", (const char *)wrong);
    }
    assert_int_equal(values_of("secrets"), THREADS * ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(each_rule_does_what_it_says_and_is_counted, end),
        cmocka_unit_test_teardown(a_hash_is_that_of_the_key_and_of_the_text_and_stays, end),
        cmocka_unit_test_teardown(what_is_shared_is_changed_once_for_all_and_the_original_stays,
                                  end),
        cmocka_unit_test_teardown(maps_and_arrays_and_events_and_links_are_looked_into, end),
        cmocka_unit_test_teardown(a_pattern_may_hash_its_matches_or_drop_the_attribute_around_them,
                                  end),
        cmocka_unit_test_teardown(logs_and_points_go_by_the_same_rules, end),
        cmocka_unit_test_teardown(without_memory_nothing_passes, end),
        cmocka_unit_test_teardown(rules_are_replaced_and_their_counts_go_on, end),
        cmocka_unit_test_teardown(threads_redact_while_the_rules_are_read_again, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
