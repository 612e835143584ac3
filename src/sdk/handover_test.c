/* Captures: over threads, a pool, callbacks; what they bring beside the trace; and request ids. */
#include "base/test.h"
#include "pugmark/capture.h"
#include "pugmark/request_id.h"
#include "sdk/options.h"
#include "sdk/propagate.h"
#include "sdk/w3c.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static void start(void)
{
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    assert_int_equal(pug_start(&o), 0);
}

static int group_start(void **state)
{
    start();
    return 0;
}

static int group_stop(void **state)
{
    return pug_stop();
}

struct ids {
    char trace[33], span[17];
};

static struct ids ids_of(const struct pug_context *c)
{
    struct ids ids;
    pug_trace_id_hex(c, ids.trace);
    pug_span_id_hex(c, ids.span);
    return ids;
}

static struct ids ids_now(void)
{
    struct pug_context c = pug_context_current();
    return ids_of(&c);
}

static struct pug_context remote_context(const char *state)
{
    struct pug_context c;
    assert_int_equal(
        pug_context_from_hex(&c, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"), 0);
    c.tracestate_len = (uint16_t)strlen(state);
    memcpy(c.tracestate, state, strlen(state));
    return c;
}

/* ---- threads ---- */

struct job {
    struct pug_capture where;
    struct ids current, parent, after;
    char state[PUG_TRACESTATE_MAX + 1], baggage[100], request_id[PUG_REQUEST_ID_MAX + 1];
};

/* What a worker does with a job. */
static void job_run(struct job *job)
{
    struct pug_baggage bag;
    {
        PUG_RESUME(&job->where);
        struct pug_context c = pug_context_current();
        job->parent = ids_of(&c);
        snprintf(job->state, sizeof job->state, "%.*s", (int)c.tracestate_len, c.tracestate);
        PUG_SPAN("job.run");
        job->current = ids_now();
        pug_baggage_current(&bag);
        snprintf(job->baggage, sizeof job->baggage, "%.99s", bag.text);
        pug_request_id_current(job->request_id);
    }
    job->after = ids_now();
}

static void *thread_run(void *arg)
{
    job_run(arg);
    return NULL;
}

static void on_a_thread(struct job *job)
{
    pthread_t thread;
    /* Lanes for new threads are prepared ahead, and these come faster than any program's. */
    assert_int_equal(pug_flush(10000), 0);
    assert_int_equal(pthread_create(&thread, NULL, thread_run, job), 0);
    pthread_join(thread, NULL);
}

static void a_capture_is_64_bytes(void **state)
{
    assert_int_equal(sizeof(struct pug_capture), 64);
}

static void another_thread_continues_what_was_captured(void **state)
{
    struct job job = {.state = ""};
    PUG_SPAN("outer");
    struct ids here = ids_now();
    job.where = pug_capture_current();
    on_a_thread(&job);
    assert_string_equal(job.parent.trace, here.trace);
    assert_string_equal(job.parent.span, here.span);
    assert_string_equal(job.current.trace, here.trace);
    assert_string_not_equal(job.current.span, here.span);
    assert_string_equal(job.after.trace, "");
    assert_string_equal(job.baggage, "");
    assert_string_equal(job.request_id, "");
}

static void it_is_good_after_the_span_that_captured_has_ended(void **state)
{
    struct job jobs[2] = {{.state = ""}, {.state = ""}};
    struct ids here;
    {
        PUG_SPAN("outer");
        here = ids_now();
        jobs[0].where = jobs[1].where = pug_capture_current();
    }
    { /* the slot it lived in is somebody else's now */
        PUG_SPAN("other");
        on_a_thread(&jobs[0]);
        on_a_thread(&jobs[1]);
    }
    for (int i = 0; i < 2; i++) {
        assert_string_equal(jobs[i].parent.trace, here.trace);
        assert_string_equal(jobs[i].parent.span, here.span);
    }
    assert_string_not_equal(jobs[0].current.span, jobs[1].current.span);
}

static void *capture_and_exit(void *arg)
{
    struct job *job = arg;
    PUG_SPAN("short.lived");
    job->current = ids_now();
    job->where = pug_capture_current();
    return NULL;
}

static void it_is_good_after_the_thread_that_captured_has_ended(void **state)
{
    struct job job = {.state = ""};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, capture_and_exit, &job), 0);
    pthread_join(thread, NULL);
    struct ids there = job.current;
    job_run(&job);
    assert_string_equal(job.parent.trace, there.trace);
    assert_string_equal(job.parent.span, there.span);
}

/* ---- a pool ---- */

#define POOL_JOBS 200

struct pool {
    pthread_mutex_t lock;
    struct job jobs[POOL_JOBS];
    int taken;
};

static void *pool_run(void *arg)
{
    struct pool *pool = arg;
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        int i = pool->taken < POOL_JOBS ? pool->taken++ : -1;
        pthread_mutex_unlock(&pool->lock);
        if (i < 0)
            return NULL;
        job_run(&pool->jobs[i]);
    }
}

static void each_job_of_a_pool_continues_its_own_request(void **state)
{
    struct pool *pool = calloc(1, sizeof *pool);
    struct ids *submitted = calloc(POOL_JOBS, sizeof *submitted);
    struct pug_baggage bag;
    pthread_t threads[4];
    pthread_mutex_init(&pool->lock, NULL);
    for (int i = 0; i < POOL_JOBS; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        pug_baggage_init(&bag);
        pug_baggage_set(&bag, "job", number, NULL);
        PUG_BAGGAGE(&bag);
        PUG_REQUEST_ID(number);
        PUG_SPAN("submit");
        submitted[i] = ids_now();
        pool->jobs[i].where = pug_capture_current();
    }
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, pool_run, pool);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < POOL_JOBS; i++) {
        char expected[32];
        assert_string_equal(pool->jobs[i].parent.trace, submitted[i].trace);
        assert_string_equal(pool->jobs[i].parent.span, submitted[i].span);
        assert_string_equal(pool->jobs[i].current.trace, submitted[i].trace);
        assert_string_equal(pool->jobs[i].after.trace, "");
        snprintf(expected, sizeof expected, "job=%d", i);
        assert_string_equal(pool->jobs[i].baggage, expected);
        snprintf(expected, sizeof expected, "%d", i);
        assert_string_equal(pool->jobs[i].request_id, expected);
    }
    free(submitted);
    free(pool);
}

/* ---- callbacks ---- */

static void a_callback_inside_another_span_continues_what_registered_it(void **state)
{
    struct job job = {.state = ""};
    struct ids registered;
    {
        PUG_SPAN("register");
        registered = ids_now();
        job.where = pug_capture_current();
    }
    PUG_SPAN("event.loop");
    struct ids loop = ids_now();
    job_run(&job);
    assert_string_equal(job.parent.span, registered.span);
    assert_string_not_equal(job.current.trace, loop.trace);
    assert_string_equal(job.after.span, loop.span);
}

static void a_handle_starts_from_a_capture(void **state)
{
    struct pug_capture where;
    struct pug_context c;
    struct pug_span span;
    struct ids here;
    {
        PUG_SPAN("outer");
        here = ids_now();
        where = pug_capture_current();
    }
    assert_int_equal(pug_capture_context(&where, &c), 1);
    pug_span_start_from(&span, &c, "later");
    assert_string_equal(ids_of(&span.context).trace, here.trace);
    assert_memory_equal(span.parent_id, c.span_id, 8);
    pug_span_end(&span);
}

/* ---- what there is to carry ---- */

static void nothing_captured_is_nothing_resumed(void **state)
{
    struct pug_capture none = pug_capture_current();
    struct pug_context c;
    assert_int_equal(pug_capture_context(&none, &c), 0);
    assert_int_equal(pug_capture_context(NULL, &c), 0);
    PUG_SPAN("here");
    struct ids here = ids_now();
    PUG_RESUME(&none);
    assert_string_equal(ids_now().span, here.span);
    PUG_RESUME(NULL);
    assert_string_equal(ids_now().span, here.span);
}

static void a_remote_parent_stays_remote_and_unsampled_stays_unsampled(void **state)
{
    struct pug_context c = remote_context(""), back;
    c.flags = 0;
    PUG_ATTACH(&c);
    struct pug_capture where = pug_capture_current();
    assert_int_equal(pug_capture_context(&where, &back), 1);
    assert_int_equal(back.remote, 1);
    assert_int_equal(back.flags, 0);
    PUG_SPAN("unsampled");
    where = pug_capture_current();
    assert_int_equal(pug_capture_context(&where, &back), 1);
    assert_int_equal(back.flags & PUG_FLAG_SAMPLED, 0);
    assert_int_equal(back.remote, 0);
}

static void a_tracestate_of_any_length_comes_along(void **state)
{
    char text[PUG_TRACESTATE_MAX + 1];
    static const int lengths[] = {3, 31, 32, 33, 40, 100, 258};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct job job = {.state = ""};
        snprintf(text, sizeof text, "k=%0*d", lengths[i] - 2, 7);
        struct pug_context c = remote_context(text);
        {
            PUG_SPAN_FROM(&c, "outer");
            job.where = pug_capture_current();
        }
        on_a_thread(&job);
        assert_string_equal(job.state, text);
    }
}

static void baggage_and_request_id_come_along_with_and_without_a_trace(void **state)
{
    struct pug_baggage bag;
    for (int traced = 0; traced < 2; traced++) {
        struct job job = {.state = ""}, again = {.state = ""};
        {
            pug_baggage_init(&bag);
            pug_baggage_set(&bag, "tenant", "blue & green", "p=1");
            struct pug_context c = remote_context("a=1,b=2");
            PUG_BAGGAGE(&bag);
            PUG_REQUEST_ID("request-7");
            PUG_ATTACH(traced ? &c : NULL);
            job.where = pug_capture_current();
            pug_baggage_init(&bag); /* it was copied */
        }
        on_a_thread(&job);
        assert_string_equal(job.baggage, "tenant=blue%20&%20green;p=1");
        assert_string_equal(job.request_id, "request-7");
        assert_string_equal(job.state, traced ? "a=1,b=2" : "");
        { /* captured where it was resumed */
            PUG_RESUME(&job.where);
            again.where = pug_capture_current();
        }
        on_a_thread(&again);
        assert_string_equal(again.baggage, "tenant=blue%20&%20green;p=1");
        assert_string_equal(again.request_id, "request-7");
        assert_string_equal(again.state, traced ? "a=1,b=2" : "");
    }
}

static void inside_a_resumed_scope_one_of_them_may_be_replaced(void **state)
{
    struct pug_baggage bag, other;
    char id[PUG_REQUEST_ID_MAX + 1];
    struct pug_capture where;
    pug_baggage_init(&bag);
    pug_baggage_set(&bag, "a", "1", NULL);
    {
        PUG_BAGGAGE(&bag);
        PUG_REQUEST_ID("outer");
        where = pug_capture_current();
    }
    PUG_RESUME(&where);
    {
        PUG_REQUEST_ID("inner");
        assert_int_equal(pug_request_id_current(id), 5);
        assert_string_equal(id, "inner");
        assert_int_equal(pug_baggage_current(&other), 1);
    }
    {
        PUG_BAGGAGE(NULL);
        assert_int_equal(pug_baggage_current(&other), 0);
        assert_int_equal(pug_request_id_current(id), 5);
        assert_string_equal(id, "outer");
    }
    assert_int_equal(pug_baggage_current(&other), 1);
}

static void a_capture_that_waits_too_long_loses_its_baggage_and_not_its_trace(void **state)
{
    struct pug_counts before = {.size = sizeof before}, after = {.size = sizeof after};
    struct pug_baggage bag;
    struct job job = {.state = ""};
    struct ids here;
    pug_baggage_init(&bag);
    pug_baggage_set(&bag, "a", "1", NULL);
    pug_counts_read(&before);
    {
        struct pug_context c = remote_context("a=0123456789012345678901234567890123456789");
        PUG_SPAN_FROM(&c, "outer");
        PUG_BAGGAGE(&bag);
        here = ids_now();
        job.where = pug_capture_current();
        for (unsigned bytes = 0; bytes < PUG_CAPTURE_BYTES; bytes += 56)
            (void)pug_capture_current();
    }
    job_run(&job);
    assert_string_equal(job.parent.trace, here.trace);
    assert_string_equal(job.parent.span, here.span);
    assert_string_equal(job.state, "");
    assert_string_equal(job.baggage, "");
    pug_counts_read(&after);
    assert_int_equal(after.lost_captured, before.lost_captured + 2);
}

static void captures_across_a_stop_continue_their_trace(void **state)
{
    struct job off = {.state = ""}, on = {.state = ""};
    struct pug_baggage bag;
    struct ids here;
    pug_baggage_init(&bag);
    pug_baggage_set(&bag, "a", "1", NULL);
    {
        PUG_SPAN("before");
        PUG_BAGGAGE(&bag);
        here = ids_now();
        off.where = on.where = pug_capture_current();
    }
    assert_int_equal(pug_stop(), 0);
    on_a_thread(&off);
    /* When tracing is off a trace passes through: nothing is begun, what goes out continues what was captured. */
    assert_string_equal(off.parent.trace, here.trace);
    assert_string_equal(off.parent.span, here.span);
    assert_string_equal(off.current.span, here.span);
    assert_string_equal(off.after.trace, "");
    assert_string_equal(off.baggage, "a=1");
    start();
    on_a_thread(&on);
    assert_string_equal(on.parent.trace, here.trace);
    assert_string_equal(on.parent.span, here.span);
    assert_string_equal(on.current.trace, here.trace);
    assert_string_equal(on.baggage, "a=1");
}

/* Writers go around the ring while readers resume: what comes back is right or nothing. */
static void *hammer(void *arg)
{
    struct pug_baggage bag, now;
    unsigned seed = *(unsigned *)arg;
    struct pug_capture kept[8];
    char values[8][80];
    memset(kept, 0, sizeof kept);
    for (int round = 0; round < 3000; round++) {
        unsigned i = (unsigned)round % 8;
        if (kept[i].pug__baggage_len) {
            PUG_RESUME(&kept[i]);
            if (pug_baggage_current(&now) && strcmp(now.text, values[i]) != 0)
                return strdup(now.text);
        }
        pug_baggage_init(&bag);
        snprintf(values[i], sizeof values[i], "%u.%d.%0*d", seed, round, 1 + round % 50, round);
        pug_baggage_set(&bag, "v", values[i], NULL);
        snprintf(values[i], sizeof values[i], "%.79s", bag.text);
        for (int n = 0; n < 8; n++) {
            PUG_BAGGAGE(&bag);
            kept[i] = pug_capture_current();
        }
    }
    return NULL;
}

static void what_comes_back_is_what_was_captured_or_nothing(void **state)
{
    pthread_t threads[4];
    unsigned seeds[4];
    for (unsigned i = 0; i < 4; i++) {
        seeds[i] = i;
        pthread_create(&threads[i], NULL, hammer, &seeds[i]);
    }
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        if (wrong)
            fail_msg("\"%s\" is not what was captured", (const char *)wrong);
    }
}

/* ---- request ids ---- */

struct headers {
    const char *names[8], *values[8];
    char copies[8][300];
    size_t n;
};

static const char *header_get(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    struct headers *h = carrier;
    for (size_t i = 0; i < h->n; i++)
        if (strcasecmp(h->names[i], name) == 0 && nth-- == 0)
            return h->values[i];
    return NULL;
}

static void header_set(void *carrier, const char *name, const char *value)
{
    struct headers *h = carrier;
    h->names[h->n] = name;
    snprintf(h->copies[h->n], sizeof h->copies[0], "%s", value);
    h->values[h->n] = h->copies[h->n];
    h->n++;
}

static void the_callers_request_id_is_kept_and_returned(void **state)
{
    struct headers in = {{"x-request-id"}, {" 7b1f-AZ_09.~:/+=@,;|! "}, {""}, 1}, out = {.n = 0};
    char id[PUG_REQUEST_ID_MAX + 1];
    PUG_SPAN("http.request");
    assert_int_equal(pug_request_id(PUG_CURRENT, header_get, &in, header_set, &out, id), 1);
    assert_string_equal(id, "7b1f-AZ_09.~:/+=@,;|!");
    assert_int_equal(out.n, 1);
    assert_string_equal(out.names[0], "X-Request-ID");
    assert_string_equal(out.values[0], id);
}

static void a_request_without_an_id_gets_one_of_its_own(void **state)
{
    struct headers in = {.n = 0}, out = {.n = 0};
    char id[PUG_REQUEST_ID_MAX + 1], other[PUG_REQUEST_ID_MAX + 1];
    uint8_t bytes[16];
    assert_int_equal(pug_request_id(PUG_CURRENT, header_get, &in, header_set, &out, id), 0);
    assert_int_equal(strlen(id), 32);
    assert_true(hex_get_lower(bytes, id, 16));
    assert_string_equal(out.values[0], id);
    assert_int_equal(pug_request_id(PUG_CURRENT, NULL, NULL, NULL, NULL, other), 0);
    assert_string_not_equal(id, other);
}

static void a_request_id_that_could_do_harm_is_replaced(void **state)
{
    static const char *const bad[] = {"",     " ",    "a b",     "a\"b",
                                      "a\\b", "%n",   "<b>",     "a\r\nSet-Cookie: x",
                                      "\x01", "\x7f", "\xc3\xa9"};
    char id[PUG_REQUEST_ID_MAX + 1], longest[200];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct headers in = {{"X-Request-ID"}, {bad[i]}, {""}, 1};
        if (pug_request_id(PUG_CURRENT, header_get, &in, NULL, NULL, id) != 0)
            fail_msg("\"%s\" was accepted", bad[i]);
        assert_int_equal(strlen(id), 32);
    }
    memset(longest, 'x', sizeof longest);
    longest[128] = '\0';
    struct headers in = {{"X-Request-ID"}, {longest}, {""}, 1};
    assert_int_equal(pug_request_id(PUG_CURRENT, header_get, &in, NULL, NULL, id), 1);
    assert_string_equal(id, longest);
    longest[128] = 'x';
    longest[129] = '\0';
    assert_int_equal(pug_request_id(PUG_CURRENT, header_get, &in, NULL, NULL, id), 0);
    struct headers two = {{"X-Request-ID", "X-Request-ID"}, {"one", "two"}, {""}, 2};
    assert_int_equal(pug_request_id(PUG_CURRENT, header_get, &two, NULL, NULL, id), 0);
}

static void the_current_request_id_is_sent_on(void **state)
{
    struct headers out = {.n = 0};
    {
        PUG_REQUEST_ID("abc");
        pug_inject(NULL, header_set, &out);
        assert_int_equal(out.n, 1);
        assert_string_equal(out.names[0], "X-Request-ID");
        assert_string_equal(out.values[0], "abc");
        PUG_REQUEST_ID("not printable\n");
        pug_inject(NULL, header_set, &out);
        assert_int_equal(out.n, 1);
        PUG_REQUEST_ID(NULL);
        pug_inject(NULL, header_set, &out);
        assert_int_equal(out.n, 1);
    }
    propagators_use(PROPAGATE_TRACECONTEXT);
    PUG_REQUEST_ID("abc");
    pug_inject(NULL, header_set, &out);
    assert_int_equal(out.n, 1);
    propagators_use(PROPAGATE_DEFAULT);
}

static void errno_is_kept(void **state)
{
    char id[PUG_REQUEST_ID_MAX + 1];
    errno = 4711;
    pug_request_id(PUG_CURRENT, NULL, NULL, NULL, NULL, id);
    struct pug_capture c = pug_capture_current();
    PUG_RESUME(&c);
    assert_int_equal(errno, 4711);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_capture_is_64_bytes),
        cmocka_unit_test(another_thread_continues_what_was_captured),
        cmocka_unit_test(it_is_good_after_the_span_that_captured_has_ended),
        cmocka_unit_test(it_is_good_after_the_thread_that_captured_has_ended),
        cmocka_unit_test(each_job_of_a_pool_continues_its_own_request),
        cmocka_unit_test(a_callback_inside_another_span_continues_what_registered_it),
        cmocka_unit_test(a_handle_starts_from_a_capture),
        cmocka_unit_test(nothing_captured_is_nothing_resumed),
        cmocka_unit_test(a_remote_parent_stays_remote_and_unsampled_stays_unsampled),
        cmocka_unit_test(a_tracestate_of_any_length_comes_along),
        cmocka_unit_test(baggage_and_request_id_come_along_with_and_without_a_trace),
        cmocka_unit_test(inside_a_resumed_scope_one_of_them_may_be_replaced),
        cmocka_unit_test(a_capture_that_waits_too_long_loses_its_baggage_and_not_its_trace),
        cmocka_unit_test(captures_across_a_stop_continue_their_trace),
        cmocka_unit_test(what_comes_back_is_what_was_captured_or_nothing),
        cmocka_unit_test(the_callers_request_id_is_kept_and_returned),
        cmocka_unit_test(a_request_without_an_id_gets_one_of_its_own),
        cmocka_unit_test(a_request_id_that_could_do_harm_is_replaced),
        cmocka_unit_test(the_current_request_id_is_sent_on),
        cmocka_unit_test(errno_is_kept),
    };
    return cmocka_run_group_tests(tests, group_start, group_stop);
}
