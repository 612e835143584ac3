#include "base/test.h"

#include "ingest/ledger.h"

#include <pthread.h>
#include <stdlib.h>

static struct ledger ledger;
static struct ingest_ledger found;

static int setup(void **state)
{
    return ledger_init(&ledger);
}

static int teardown(void **state)
{
    ledger_done(&ledger);
    return 0;
}

static struct trace_id id_of(uint32_t n)
{
    struct trace_id id = {{0x80}};
    memcpy(id.bytes + 4, &n, sizeof n);
    return id;
}

/* One span of each of these traces. */
static void put(const uint32_t *traces, size_t n, enum fate fate)
{
    struct span *spans = calloc(n, sizeof *spans);
    assert_non_null(spans);
    for (size_t i = 0; i < n; i++)
        spans[i].trace_id = id_of(traces[i]);
    ledger_put(&ledger, &(struct span_batch){.spans = spans, .n = n}, fate);
    free(spans);
}

static void find(uint32_t trace)
{
    struct trace_id id = id_of(trace);
    ledger_find(&ledger, &id, &found);
}

static void neighbours_of_a_trace_are_one_entry(void **state)
{
    put((uint32_t[]){1, 1, 1, 2, 1}, 5, FATE_REFUSED + REFUSED_BUSY);
    put((uint32_t[]){1}, 1, FATE_CUT);
    find(1);
    assert_int_equal(found.n, 3);
    assert_int_equal(found.found[0].fate, FATE_CUT);
    assert_int_equal(found.found[1].spans, 1);
    assert_int_equal(found.found[2].spans, 3);
    assert_true(found.found[0].time_ns >= found.found[2].time_ns && found.found[2].time_ns);
    assert_int_equal(found.spans[FATE_REFUSED + REFUSED_BUSY], 4);
    assert_int_equal(found.spans[FATE_CUT], 1);
    assert_int_equal(found.entries, 4);
    assert_int_equal(found.since_ns, 0);
    find(2);
    assert_int_equal(found.n, 1);
    find(3);
    assert_int_equal(found.n, 0);
}

static void only_marked_spans_are_told(void **state)
{
    struct span spans[3] = {{.trace_id = id_of(1)}, {.trace_id = id_of(2)}, {.trace_id = id_of(3)}};
    const uint8_t marks[3] = {1, 0, 3};
    struct span_batch batch = {.spans = spans, .n = 3};
    ledger_put_marked(&ledger, &batch, marks, 2, FATE_ATTRS);
    find(1);
    assert_int_equal(found.n, 0);
    find(3);
    assert_int_equal(found.spans[FATE_ATTRS], 1);
    ledger_put_marked(&ledger, &batch, marks, 1, FATE_CUT);
    find(1);
    assert_int_equal(found.spans[FATE_CUT], 1);
    find(2);
    assert_int_equal(found.n, 0);
}

static void the_oldest_are_forgotten_and_the_horizon_says_so(void **state)
{
    put((uint32_t[]){7}, 1, FATE_CUT);
    for (uint32_t i = 0; i < LEDGER_ENTRIES - 1; i++)
        put((uint32_t[]){8}, 1, FATE_CUT);
    find(7);
    assert_int_equal(found.n, 1);
    put((uint32_t[]){8}, 1, FATE_CUT);
    find(7);
    assert_int_equal(found.n, 0);
    assert_true(found.since_ns);
    assert_int_equal(found.entries, LEDGER_ENTRIES);
    find(8);
    assert_int_equal(found.n, LEDGER_FOUND_MAX);
    assert_true(found.more);
    assert_int_equal(found.spans[FATE_CUT], LEDGER_ENTRIES);
}

static void one_request_does_not_drive_out_the_others(void **state)
{
    put((uint32_t[]){UINT32_MAX}, 1, FATE_CUT);
    uint32_t *traces = calloc(LEDGER_ENTRIES, sizeof *traces);
    assert_non_null(traces);
    for (uint32_t i = 0; i < LEDGER_ENTRIES; i++)
        traces[i] = i;
    put(traces, LEDGER_ENTRIES, FATE_REFUSED + REFUSED_TOO_MANY);
    free(traces);
    find(UINT32_MAX);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.entries - 1 + found.skipped, LEDGER_ENTRIES);
    assert_true(found.skipped > 0);
}

static void *put_many(void *arg)
{
    const uint32_t *trace = arg;
    for (int i = 0; i < 1000; i++)
        put(trace, 1, FATE_CUT);
    return NULL;
}

static void redactions_drive_out_no_refusals(void **state)
{
    enum { N = LEDGER_ENTRIES / 16, ROUNDS = 20 };
    static uint32_t traces[N];
    put((uint32_t[]){7}, 1, FATE_REFUSED + REFUSED_BUSY);
    for (uint32_t i = 0; i < N; i++)
        traces[i] = 1000 + i % 2; /* an entry each */
    for (int i = 0; i < ROUNDS; i++)
        put(traces, N, FATE_REDACTED);
    put((uint32_t[]){7}, 1, FATE_REDACTED);
    find(7);
    assert_int_equal(found.n, 2);
    assert_int_equal(found.found[0].fate, FATE_REDACTED);
    assert_int_equal(found.found[1].fate, FATE_REFUSED + REFUSED_BUSY);
    assert_int_equal(found.since_ns, 0);
    assert_int_equal(found.entries, 1);
    find(1000);
    assert_int_equal(found.spans[FATE_REDACTED], LEDGER_ENTRIES / 2 - 1); /* of the others */
}

static void threads_write_while_somebody_asks(void **state)
{
    pthread_t threads[3];
    uint32_t traces[3] = {1, 2, 3};
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, &traces[i]), 0);
    for (int i = 0; i < 20; i++) {
        find(2);
        assert_true(found.spans[FATE_CUT] <= 1000);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    find(2);
    assert_int_equal(found.spans[FATE_CUT], 1000);
    assert_int_equal(found.entries, 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(neighbours_of_a_trace_are_one_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(only_marked_spans_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(the_oldest_are_forgotten_and_the_horizon_says_so, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(one_request_does_not_drive_out_the_others, setup, teardown),
        cmocka_unit_test_setup_teardown(redactions_drive_out_no_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_write_while_somebody_asks, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
