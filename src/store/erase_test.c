/* Deletion and redaction: what was erased is in no answer and in no file, also when the process ends in the
 * middle; and nothing else is touched. */
#include "store/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/local/erase.h"

#define REDACTED "[redacted]"

static const struct store_options plain = {.durability = STORE_DURABILITY_WRITE};

/* Bytes that no compression makes smaller, so that they can be found in any file that has them. */
enum { SECRET_SIZE = 3000 };
static char secret[SECRET_SIZE];

static void secret_draw(struct fixture *f)
{
    for (size_t i = 0; i < sizeof secret; i++)
        secret[i] = (char)fixture_random(f, 256);
}

/* In how many files of the store it is. */
static size_t files_with_secret(const char *path, const char *prefix)
{
    size_t n = 0;
    DIR *dir = opendir(path);
    for (struct dirent *e; (e = readdir(dir));) {
        char name[400];
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (e->d_name[0] == '.' || strncmp(e->d_name, prefix, strlen(prefix)) != 0)
            continue;
        FILE *file = fopen(name, "re");
        static char bytes[8 << 20];
        size_t len = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        assert_true(len < sizeof bytes);
        n += memmem(bytes, len, secret, 64) != NULL;
    }
    closedir(dir);
    return n;
}

/* `n` spans, of which each third has the secret and the key "user". */
static struct span_batch secret_batch(struct fixture *f, size_t n)
{
    static uint64_t last_id; /* each span once */
    struct span_batch batch = fixture_batch(f, n);
    for (size_t i = 0; i < batch.n; i++) {
        last_id++;
        memcpy(batch.spans[i].span_id.bytes, &last_id, SPAN_ID_SIZE);
    }
    for (size_t i = 0; i < batch.n; i += 3) {
        struct attr *attrs = arena_array(&f->arena, 2, sizeof *attrs);
        attrs[0] = (struct attr){.key = STR("user"),
                                 .value = {.type = VALUE_STRING, .string = STR("ann")}};
        attrs[1] = (struct attr){.key = STR("card"),
                                 .value = {.type = VALUE_BYTES, .bytes = {secret, sizeof secret}}};
        batch.spans[i].attrs = (struct attrs){attrs, 2, 0};
    }
    return batch;
}

static const struct predicate of_ann = {
    .op = PREDICATE_EQ,
    .field = FIELD_SPAN_ATTR,
    .key = {"user", 4},
    .value = {.type = VALUE_STRING, .string = {"ann", 3}},
};
static const struct store_erase delete_ann = {.kind = ERASE_DELETE, .where = &of_ann};

/* What the fixture expects is without them from now on. */
static size_t forget(struct fixture *f, const struct predicate *where)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++)
        if (!predicate_match(where, &f->spans[i]))
            f->spans[n++] = f->spans[i];
    size_t gone = f->n - n;
    f->n = n;
    return gone;
}

static uint64_t erase(struct fixture *f, const struct store_erase *e)
{
    struct store_erased done;
    struct error_detail detail = {0};
    int err = store_erase(f->store, e, &done, &detail);
    if (err)
        fail_msg("store_erase: %s: %s", err_name(err), detail.message);
    assert_int_equal(done.unread_segments, 0);
    return done.spans;
}

static void fill(struct fixture *f, uint64_t seed)
{
    fixture_init(f, seed, &plain);
    secret_draw(f);
    for (int i = 0; i < 3; i++) {
        struct span_batch batch = secret_batch(f, 60);
        fixture_append(f, &batch);
        if (i < 2)
            assert_int_equal(store_seal(f->store), 0);
    }
}

static void what_is_deleted_is_in_no_answer_and_in_no_file(void **state)
{
    struct fixture f;
    fill(&f, 1);
    assert_int_equal(files_with_secret(f.dir, "seg-"), 2); /* else this test finds nothing */
    assert_int_equal(files_with_secret(f.dir, "log-"), 1);
    assert_int_equal(erase(&f, &delete_ann), 60);
    assert_int_equal(forget(&f, &of_ann), 60);
    assert_int_equal(files_with_secret(f.dir, ""), 0);
    fixture_check(&f);
    fixture_check_scans(&f, 10);
    struct store_stats stats;
    store_stats(f.store, &stats);
    assert_int_equal(stats.deleted_spans, 60);
    assert_int_equal(stats.spans, f.n);
    fixture_reopen(&f);
    fixture_check(&f);
    assert_int_equal(files_with_secret(f.dir, ""), 0);
    assert_int_equal(erase(&f, &delete_ann), 0);
    /* What comes later is not meant. */
    struct span_batch later = secret_batch(&f, 9);
    fixture_append(&f, &later);
    assert_int_equal(store_seal(f.store), 0);
    assert_int_equal(store_keep(f.store, true), 0);
    fixture_check(&f);
    fixture_done(&f);
}

static void a_view_that_was_made_before_reads_on_and_the_files_go_with_it(void **state)
{
    struct fixture f;
    fill(&f, 2);
    struct store_view *view = store_view_new(f.store);
    struct arena arena = ARENA_INIT;
    struct span_batch got;
    struct trace_id id = f.spans[0].trace_id;
    assert_int_equal(erase(&f, &delete_ann), 60);
    assert_int_equal(store_trace(view, &id, &arena, &got), 0);
    assert_true(files_with_secret(f.dir, "") > 0);
    store_view_free(view);
    assert_int_equal(files_with_secret(f.dir, ""), 0);
    arena_done(&arena);
    fixture_done(&f);
}

static void traces_and_spans_are_deleted_by_id_pinned_or_not(void **state)
{
    struct fixture f;
    fill(&f, 3);
    struct erase_span wanted[] = {
        {.trace_id = f.spans[0].trace_id},
        {.trace_id = f.spans[100].trace_id, .span_id = f.spans[100].span_id},
        {.trace_id = {{0xff}}}};
    const struct store_erase e = {.kind = ERASE_DELETE, .spans = wanted, .n_spans = 3};
    assert_int_equal(store_pin(f.store, &wanted[0].trace_id), 0);
    size_t n = 0;
    for (size_t i = 0; i < f.n; i++) {
        const struct span *s = &f.spans[i];
        bool gone = !trace_id_cmp(&s->trace_id, &wanted[0].trace_id) ||
                    (!trace_id_cmp(&s->trace_id, &wanted[1].trace_id) &&
                     !memcmp(&s->span_id, &wanted[1].span_id, sizeof s->span_id));
        if (!gone)
            f.spans[n++] = *s;
    }
    uint64_t gone = f.n - n;
    f.n = n;
    assert_true(gone > 0);
    assert_int_equal(erase(&f, &e), gone);
    fixture_check(&f);
    fixture_done(&f);
}

static void a_range_of_time_bounds_it(void **state)
{
    struct fixture f;
    fill(&f, 4);
    uint64_t middle = f.spans[90].start_ns;
    struct store_erase e = {.kind = ERASE_DELETE, .start_min_ns = middle};
    size_t n = 0;
    for (size_t i = 0; i < f.n; i++)
        if (f.spans[i].start_ns < middle)
            f.spans[n++] = f.spans[i];
    uint64_t gone = f.n - n;
    f.n = n;
    assert_int_equal(erase(&f, &e), gone);
    fixture_check(&f);
    fixture_done(&f);
}

/* ---- redaction ---- */

static struct span redact_span(struct fixture *f, uint8_t id)
{
    struct span s = {.trace_id = {{9}},
                     .span_id = {{id}},
                     .start_ns = 1000u + id,
                     .end_ns = 2000,
                     .name = STR("pay for ann@example.org"),
                     .status_message = STR("no money for ann@example.org")};
    struct value *list = arena_array(&f->arena, 2, sizeof *list);
    list[0] = (struct value){.type = VALUE_STRING, .string = STR("ann@example.org")};
    list[1] = (struct value){.type = VALUE_INT, .integer = 7};
    struct attr *attrs = arena_array(&f->arena, 4, sizeof *attrs);
    attrs[0] = (struct attr){.key = STR("user.name"),
                             .value = {.type = VALUE_STRING, .string = STR("ann")}};
    attrs[1] = (struct attr){.key = STR("user.age"), .value = {.type = VALUE_INT, .integer = 30}};
    attrs[2] = (struct attr){.key = STR("mails"),
                             .value = {.type = VALUE_ARRAY, .array = {list, 2}}};
    attrs[3] = (struct attr){.key = STR("path"),
                             .value = {.type = VALUE_STRING, .string = STR("/pay")}};
    struct event *event = arena_zalloc(&f->arena, sizeof *event);
    *event = (struct event){.time_ns = 1500, .name = STR("asked"), .attrs = {attrs, 2, 0}};
    struct link *link = arena_zalloc(&f->arena, sizeof *link);
    *link = (struct link){.trace_id = {{1}}, .span_id = {{2}}, .attrs = {attrs, 1, 0}};
    struct resource *resource = arena_zalloc(&f->arena, sizeof *resource);
    struct attr *of_resource = arena_array(&f->arena, 2, sizeof *of_resource);
    of_resource[0] = (struct attr){.key = STR("service.name"),
                                   .value = {.type = VALUE_STRING, .string = STR("shop")}};
    of_resource[1] = (struct attr){.key = STR("host.user.name"),
                                   .value = {.type = VALUE_STRING, .string = STR("root")}};
    resource->attrs = (struct attrs){of_resource, 2, 0};
    resource_set_service_name(resource);
    static const struct scope scope = {.name = {"test", 4}};
    s.attrs = (struct attrs){attrs, 4, 0};
    s.events = event;
    s.n_events = 1;
    s.links = link;
    s.n_links = 1;
    s.resource = resource;
    s.scope = &scope;
    return s;
}

static void assert_text(const struct attrs *attrs, const char *key, const char *text)
{
    const struct attr *a = attrs_find(attrs, str_from(key));
    assert_non_null(a);
    assert_int_equal(a->value.type, VALUE_STRING);
    if (!str_eq(a->value.string, str_from(text)))
        fail_msg("%s is %.*s, not %s", key, STR_ARG(a->value.string), text);
}

static void redaction_takes_values_by_key_and_texts_by_pattern(void **state)
{
    static const char *const keys[] = {"user.*", "*.user.name"}, *const patterns[] = {"email"};
    struct fixture f;
    fixture_init(&f, 5, &plain);
    struct span spans[] = {redact_span(&f, 1), redact_span(&f, 2)};
    spans[1].kind = SPAN_KIND_SERVER;
    struct span_batch batch = {.spans = spans, .n = 2};
    fixture_append(&f, &batch);
    const struct predicate is_server = {.op = PREDICATE_EQ,
                                        .field = FIELD_KIND,
                                        .value = {.type = VALUE_INT, .integer = SPAN_KIND_SERVER}};
    const struct store_erase e = {.kind = ERASE_REDACT,
                                  .where = &is_server,
                                  .keys = keys,
                                  .n_keys = 2,
                                  .patterns = patterns,
                                  .n_patterns = 1};
    assert_int_equal(erase(&f, &e), 1);
    assert_int_equal(erase(&f, &e), 0); /* nothing is left to be taken */
    for (int again = 0; again < 2; again++) {
        struct store_view *view = store_view_new(f.store);
        struct arena arena = ARENA_INIT;
        struct span_batch got;
        assert_int_equal(store_trace(view, &spans[0].trace_id, &arena, &got), 0);
        assert_int_equal(got.n, 2);
        span_assert_equal(&got.spans[0], &spans[0]); /* was not meant */
        const struct span *s = &got.spans[1];
        assert_text(&s->attrs, "user.name", REDACTED);
        assert_text(&s->attrs, "user.age", REDACTED);
        assert_text(&s->attrs, "path", "/pay");
        assert_text(&s->events[0].attrs, "user.name", REDACTED);
        assert_text(&s->links[0].attrs, "user.name", REDACTED);
        assert_text(&s->resource->attrs, "host.user.name", REDACTED);
        assert_true(str_eq(s->resource->service_name, STR("shop")));
        assert_true(str_eq(s->name, STR("pay for " REDACTED)));
        assert_true(str_eq(s->status_message, STR("no money for " REDACTED)));
        const struct attr *mails = attrs_find(&s->attrs, STR("mails"));
        assert_true(str_eq(mails->value.array.items[0].string, STR(REDACTED)));
        assert_int_equal(mails->value.array.items[1].integer, 7);
        store_view_free(view);
        arena_done(&arena);
        fixture_reopen(&f);
    }
    struct store_stats stats;
    store_stats(f.store, &stats);
    assert_int_equal(stats.redacted_spans, 1);
    fixture_done(&f);
}

static void redacted_bytes_are_in_no_file(void **state)
{
    static const char *const keys[] = {"card"};
    struct fixture f;
    fill(&f, 6);
    const struct store_erase e = {.kind = ERASE_REDACT, .keys = keys, .n_keys = 1};
    assert_int_equal(erase(&f, &e), 60);
    assert_int_equal(files_with_secret(f.dir, ""), 0);
    struct store_stats stats;
    store_stats(f.store, &stats);
    assert_int_equal(stats.spans, f.n);
    assert_int_equal(stats.deleted_spans, 0);
    fixture_done(&f);
}

static void what_makes_no_sense_is_refused_and_nothing_happens(void **state)
{
    static const char *const patterns[] = {"(a"};
    struct fixture f;
    struct store_erased done;
    struct error_detail detail = {0};
    fill(&f, 70);
    struct store_erase e = {.kind = ERASE_REDACT};
    assert_int_equal(store_erase(f.store, &e, &done, &detail), ERR_INVALID);
    assert_non_null(strstr(detail.message, "keys or patterns"));
    e.patterns = patterns;
    e.n_patterns = 1;
    assert_int_equal(store_erase(f.store, &e, &done, &detail), ERR_INVALID);
    assert_non_null(strstr(detail.message, "(a"));
    fixture_check(&f);
    fixture_done(&f);
}

/* ---- the process ends in the middle ---- */

static void note_count(void *arg, const struct store_finding *finding)
{
    *(unsigned *)arg += finding->is_note && strstr(finding->text, "erasure");
}

/* The note is there and nothing is done yet: what a kill leaves right after it was made. */
static void what_was_noted_is_done_by_whoever_opens_the_store_next(void **state)
{
    struct fixture f;
    struct buf body = BUF_INIT;
    struct catalogue *c;
    struct store_verified v;
    struct error_detail detail;
    fill(&f, 8);
    assert_int_equal(store_seal(f.store), 0);
    store_close(f.store);
    assert_int_equal(erase_encode(&delete_ann, &body), 0);
    assert_int_equal(catalogue_open(f.dir, CATALOGUE_WRITE, &c, NULL), 0);
    const struct catalogue_erasure note = {
        .id = 5, .made_ns = 1, .last_sequence = 1000, .body = buf_as_str(&body)};
    assert_int_equal(catalogue_erasure_add(c, &note), 0);
    catalogue_close(c);
    unsigned notes = 0;
    assert_int_equal(store_verify(f.dir, note_count, &notes, &v, &detail), 0);
    assert_int_equal(notes, 1);
    assert_int_equal(v.damaged, 0);
    assert_int_equal(store_open(&f.options, &f.store, &detail), 0);
    assert_int_equal(store_keep(f.store, false), 0);
    assert_int_equal(forget(&f, &of_ann), 60);
    fixture_check(&f);
    assert_int_equal(files_with_secret(f.dir, ""), 0);
    fixture_reopen(&f);
    fixture_check(&f);
    buf_done(&body);
    fixture_done(&f);
}

static void a_damaged_segment_is_told_and_the_others_are_done(void **state)
{
    struct fixture f;
    struct store_erased done;
    struct error_detail detail;
    fill(&f, 9);
    char name[200], byte = 0;
    snprintf(name, sizeof name, "%s/seg-0000000000000001.seg", f.dir);
    int fd = open(name, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, 2000), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, 2000), 1);
    close(fd);
    log_set_level(LOG_LEVEL_OFF);
    assert_int_equal(store_erase(f.store, &delete_ann, &done, &detail), 0);
    log_set_level(LOG_LEVEL_INFO);
    assert_int_equal(done.unread_segments, 1);
    assert_int_equal(done.spans, 40);
    fixture_done(&f);
}

/* ---- the note ---- */

static void a_note_says_what_was_asked(void **state)
{
    static const char *const keys[] = {"a", "b*"}, *const patterns[] = {"email"};
    const struct predicate both[] = {of_ann,
                                     {.op = PREDICATE_NOT, .children = &of_ann, .n_children = 1}};
    const struct predicate all = {.op = PREDICATE_OR, .children = both, .n_children = 2};
    const struct erase_span spans[] = {{{{1}}, {{2}}}, {{{3}}, {{0}}}};
    struct buf once = BUF_INIT, twice = BUF_INIT;
    struct arena arena = ARENA_INIT;
    struct store_erase e = {.kind = ERASE_REDACT,
                            .where = &all,
                            .spans = spans,
                            .n_spans = 2,
                            .start_min_ns = 5,
                            .start_max_ns = UINT64_MAX,
                            .keys = keys,
                            .n_keys = 2,
                            .patterns = patterns,
                            .n_patterns = 1},
                       got;
    assert_int_equal(erase_encode(&e, &once), 0);
    assert_int_equal(erase_decode(buf_as_str(&once), &arena, &got), 0);
    assert_int_equal(erase_encode(&got, &twice), 0);
    assert_true(str_eq(buf_as_str(&once), buf_as_str(&twice)));
    assert_int_equal(got.n_spans, 2);
    assert_string_equal(got.keys[1], "b*");
    assert_int_equal(got.where->n_children, 2);
    for (size_t n = 0; n < once.len; n++) /* any part of it is none */
        assert_int_not_equal(erase_decode((struct str){once.ptr, n}, &arena, &got), 0);
    buf_done(&once);
    buf_done(&twice);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_deleted_is_in_no_answer_and_in_no_file),
        cmocka_unit_test(a_view_that_was_made_before_reads_on_and_the_files_go_with_it),
        cmocka_unit_test(traces_and_spans_are_deleted_by_id_pinned_or_not),
        cmocka_unit_test(a_range_of_time_bounds_it),
        cmocka_unit_test(redaction_takes_values_by_key_and_texts_by_pattern),
        cmocka_unit_test(redacted_bytes_are_in_no_file),
        cmocka_unit_test(what_makes_no_sense_is_refused_and_nothing_happens),
        cmocka_unit_test(what_was_noted_is_done_by_whoever_opens_the_store_next),
        cmocka_unit_test(a_damaged_segment_is_told_and_the_others_are_done),
        cmocka_unit_test(a_note_says_what_was_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
