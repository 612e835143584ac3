/* Logs and metrics before records that do as they are told: this program has a records_append of its
 * own. */
#include "base/test.h"

#include "ingest/signals.h"
#include "store/records.h"
#include "wire/otlp_logs.h"
#include "wire/otlp_metrics.h"

#include <stdio.h>
#include <stdlib.h>

struct records {
    int refuse, lose; /* errors, at once and later */
    struct records_refused refused;
    size_t n_logs, n_points;
    uint64_t first_time_ns;
};

int records_append(struct records *r, const struct records_batch *batch, records_durable_fn *done,
                   void *arg)
{
    if (r->refuse)
        return r->refuse;
    r->n_logs += batch->n_logs;
    r->first_time_ns = batch->n_logs ? log_record_time_ns(&batch->logs[0]) : 0;
    for (size_t i = 0; i < batch->n_metrics; i++)
        for (size_t j = 0; j < batch->metrics[i].n; j++)
            r->n_points += batch->metrics[i].metrics[j].n_points;
    done(arg, r->lose, &r->refused);
    return 0;
}

struct fixture {
    struct records records;
    struct ingest ingest;
    struct arena arena;
    int n_answers;
    enum outcome outcome;
    uint64_t n_rejected;
    char message[400];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->ingest.records = &f->records;
    f->ingest.budget.max = 64 << 20;
    f->ingest.spans_max = 10;
    *state = f;
    return 0;
}

/* What came is what was stored and what was refused, and no memory is held. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < SIGNAL_N; i++) {
        const struct signal_counters *c = &f->ingest.signals[i];
        assert_int_equal(c->received, c->stored + c->refused);
    }
    assert_int_equal(f->ingest.budget.used, 0);
    arena_done(&f->arena);
    free(f);
    return 0;
}

static void answer(struct signal_intake *e, enum outcome outcome, uint64_t n_rejected,
                   struct str message)
{
    struct fixture *f = e->request;
    f->n_answers++;
    f->outcome = outcome;
    f->n_rejected = n_rejected;
    snprintf(f->message, sizeof f->message, "%.*s", STR_ARG(message));
}

static void run(struct fixture *f, enum ingest_signal signal, bool is_json, struct str body)
{
    struct signal_intake *e = calloc(1, sizeof *e);
    arena_done(&f->arena);
    f->arena = ARENA_INIT;
    f->n_answers = 0;
    e->ingest = &f->ingest;
    e->signal = signal;
    e->arena = &f->arena;
    e->answer = answer;
    e->request = f;
    signal_run(e, is_json, body);
    assert_int_equal(f->n_answers, 1);
    free(e);
}

#define LOGS(records) STR("{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[" records "]}]}]}")
#define GAUGE(points)                                                                              \
    STR("{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":\"m\",\"gauge\":"        \
        "{\"dataPoints\":[" points "]}}]}]}]}")

static void assert_in(const char *whole, const char *part)
{
    if (!strstr(whole, part))
        fail_msg("\"%s\" is not in \"%s\"", part, whole);
}

static void logs_are_taken_and_those_without_a_time_get_one(void **state)
{
    struct fixture *f = *state;
    run(f, SIGNAL_LOGS, true, LOGS("{\"body\":{\"stringValue\":\"x\"}},{\"timeUnixNano\":\"5\"}"));
    assert_int_equal(f->outcome, OUTCOME_TAKEN);
    assert_int_equal(f->n_rejected, 0);
    assert_string_equal(f->message, "");
    assert_int_equal(f->records.n_logs, 2);
    assert_true(f->records.first_time_ns > UINT64_C(1600000000) * 1000000000);
    assert_int_equal(f->ingest.signals[SIGNAL_LOGS].stored, 2);
}

static void what_cannot_be_kept_is_a_partial_success(void **state)
{
    struct fixture *f = *state;
    run(f, SIGNAL_METRICS, true,
        GAUGE("{\"asInt\":\"1\",\"timeUnixNano\":\"5\"},{\"timeUnixNano\":\"5\"}"));
    assert_int_equal(f->outcome, OUTCOME_TAKEN);
    assert_int_equal(f->n_rejected, 1);
    assert_in(f->message, "1 of 2 points cannot be kept");
    assert_in(f->message, "without a value");
    assert_int_equal(f->records.n_points, 1);
    f->records.refused.too_many_series = 1;
    run(f, SIGNAL_METRICS, true, GAUGE("{\"asDouble\":0.5},{\"asInt\":7}"));
    assert_int_equal(f->n_rejected, 1);
    assert_in(f->message, "too many series");
    run(f, SIGNAL_METRICS, true,
        STR("{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":\"s\",\"summary\":"
            "{\"dataPoints\":[{\"count\":1},{\"count\":2}]}}]}]}]}"));
    assert_int_equal(f->outcome, OUTCOME_TAKEN);
    assert_int_equal(f->n_rejected, 2);
    assert_in(f->message, "summaries are not kept");
    assert_int_equal(f->ingest.signals[SIGNAL_METRICS].received, 6);
    assert_int_equal(f->ingest.signals[SIGNAL_METRICS].stored, 2);
}

static void what_the_records_cannot_take_is_refused_whole(void **state)
{
    struct fixture *f = *state;
    f->records.refuse = ERR_BUSY;
    run(f, SIGNAL_LOGS, true, LOGS("{},{}"));
    assert_int_equal(f->outcome, OUTCOME_BUSY);
    f->records.refuse = ERR_CLOSED;
    run(f, SIGNAL_LOGS, true, LOGS("{}"));
    assert_int_equal(f->outcome, OUTCOME_UNAVAILABLE);
    f->records.refuse = 0;
    f->records.lose = ERR_FULL;
    run(f, SIGNAL_LOGS, true, LOGS("{}"));
    assert_int_equal(f->outcome, OUTCOME_UNAVAILABLE);
    assert_in(f->message, "no space");
    assert_int_equal(f->ingest.signals[SIGNAL_LOGS].refused, 4);
    assert_int_equal(f->ingest.counters[RECEIVER_OTLP_GRPC].requests_refused, 3);
}

static void limits_and_bad_bytes_have_their_answers(void **state)
{
    struct fixture *f = *state;
    run(f, SIGNAL_LOGS, true, LOGS("{},{},{},{},{},{},{},{},{},{},{}"));
    assert_int_equal(f->outcome, OUTCOME_TOO_LARGE);
    run(f, SIGNAL_LOGS, false, STR("\x0a\x7f garbage"));
    assert_int_equal(f->outcome, OUTCOME_INVALID);
    assert_in(f->message, "byte ");
    run(f, SIGNAL_METRICS, true, STR("{\"resourceMetrics\":[nonsense]}"));
    assert_int_equal(f->outcome, OUTCOME_INVALID);
    run(f, SIGNAL_METRICS, true, STR("{} {}"));
    assert_int_equal(f->outcome, OUTCOME_INVALID);
    f->ingest.budget.max = 1000;
    run(f, SIGNAL_LOGS, false, STR("\x0a\x04\x12\x02\x12\x00"));
    assert_int_equal(f->outcome, OUTCOME_TOO_LARGE);
    f->ingest.budget.max = 64 << 20;
    f->ingest.budget.used = (64 << 20) - 10;
    run(f, SIGNAL_LOGS, false, STR("\x0a\x04\x12\x02\x12\x00"));
    assert_int_equal(f->outcome, OUTCOME_BUSY);
    f->ingest.budget.used = 0;
    run(f, SIGNAL_LOGS, false, STR(""));
    assert_int_equal(f->outcome, OUTCOME_TAKEN);
    assert_int_equal(f->records.n_logs, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(logs_are_taken_and_those_without_a_time_get_one),
        T(what_cannot_be_kept_is_a_partial_success),
        T(what_the_records_cannot_take_is_refused_whole),
        T(limits_and_bad_bytes_have_their_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
