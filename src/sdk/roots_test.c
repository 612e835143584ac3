/* Roots whose fate is drawn ahead: that as many are kept as the ratio says, whatever lies between them; that an id says
 * what was decided; and that one root has one id, whoever asks and whenever. The keys of the ids and the seeds of the draws
 * are fixed, so what is found is found each time. */
#include "sdk/lanes_fixture.h"

#include "sdk/ot_state.h"

#include <math.h>
#include <signal.h>

enum { BINS = 16 };

static struct lane *start(enum sampler_kind kind, double rate, unsigned reasons)
{
    struct config c = {.service_name = "shop"};
    c.sampler.kind = kind;
    c.sampler.rate = rate;
    c.sampler.parent_based = true;
    lanes_start(&c, reasons);
    lanes.memory->head->keys = (struct id_keys){.span = 1, .trace_high = 2, .trace_low = 3};
    struct lane *lane = lane_of(pug__lane_get());
    lane->random = 4;
    return lane;
}

static void stop(void)
{
    lanes_stop();
    lanes_forget();
}

/* The 99.9999 % point of chi-square with 15 degrees of freedom is 58: far from what an even distribution gives with any
 * seed, and far below what an uneven one gives. */
static void expect_even(const uint64_t bins[BINS], const char *what)
{
    double n = 0, chi = 0;
    for (int i = 0; i < BINS; i++)
        n += (double)bins[i];
    for (int i = 0; i < BINS; i++)
        chi += pow((double)bins[i] - n / BINS, 2) / (n / BINS);
    if (chi > 58)
        fail_msg("%s: chi-square %.1f of %.0f", what, chi, n);
}

static void expect_about(double kept, double n, double p)
{
    double off = (kept - n * p) / sqrt(n * p * (1 - p));
    if (fabs(off) > 5)
        fail_msg("%.0f of %.0f kept at %g: %.1f sigma off", kept, n, p, off);
}

static uint64_t randomness_of(const struct pug_context *c)
{
    return ot_randomness(c, NULL);
}

/* ---- the distribution ---- */

static void gaps_are_geometric(void **state)
{
    static const double rates[] = {0.9, 0.5, 0.1, 0.01, 1e-6};
    enum { N = 160000 };
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct lane *lane = start(SAMPLER_RATIO, rates[i], 0);
        uint64_t threshold, bins[BINS] = {0};
        assert_true(sampler_threshold(&sdk.sampler, &threshold));
        double q = (double)threshold / (double)OT_RANGE, sum = 0;
        for (int k = 0; k < N; k++) {
            uint64_t gap = sampler_gap(&sdk.sampler, threshold, &lane->random);
            sum += (double)gap;
            /* P(gap >= g) = q^g. Of a whole number, made even by a place of its own in its step. */
            lane->random += UINT64_C(0x9e3779b97f4a7c15);
            double u = (double)(hash_mix64(lane->random) >> 11) * 0x1p-53;
            double even = pow(q, (double)gap) * (q + u * (1 - q));
            bins[(int)(even * BINS) % BINS]++;
        }
        expect_even(bins, "gaps");
        double mean = q / (1 - q), sigma = sqrt(q) / (1 - q) / sqrt(N);
        if (fabs(sum / N - mean) > 5 * sigma)
            fail_msg("%g: a mean of %g, not %g", rates[i], sum / N, mean);
        stop();
    }
}

static void at_the_ends_all_are_kept_or_none(void **state)
{
    uint64_t random = 1;
    struct lane *lane = start(SAMPLER_RATIO, 1, 0);
    for (int i = 0; i < 100; i++) {
        PUG_SPAN("root");
        assert_true(pug_context_current().flags & PUG_FLAG_SAMPLED);
        assert_true(pug_context_current().tracestate_len > 0);
    }
    assert_int_equal(lane->fast.drop_below, lane->fast.seq + 1);
    stop();
    lane = start(SAMPLER_RATIO, 0, 0);
    for (int i = 0; i < 100; i++) {
        PUG_SPAN("root");
        assert_int_equal(pug_context_current().flags, PUG_FLAG_RANDOM);
    }
    assert_int_equal(lane->fast.drop_below, UINT64_MAX);
    /* The smallest that there is: thousands of years to the next one, and no overflow. */
    struct config c = {.sampler = {.kind = SAMPLER_RATIO, .rate = 0x1p-56}};
    sampler_start(&sdk.sampler, &c, lanes.memory);
    for (int i = 0; i < 1000; i++) {
        uint64_t gap = sampler_gap(&sdk.sampler, OT_RANGE - 1, &random);
        assert_true(gap > 1000000 && gap <= UINT64_C(1) << 62);
    }
    stop();
}

static void children(int n)
{
    for (int i = 0; i < n; i++) {
        PUG_SPAN("child");
    }
}

/* Numbers go to other spans, and the more the more are kept; the next root's chance is the same. */
static void what_lies_between_roots_changes_nothing(void **state)
{
    enum { N = 30000 };
    for (unsigned watched = 0; watched < 2; watched++) {
        start(SAMPLER_RATIO, 0.2, watched ? WATCH_THREAD_CONTEXT : 0);
        uint64_t kept[2] = {0}, n[2] = {0};
        bool before = false;
        for (int i = 0; i < N; i++) {
            bool is;
            {
                PUG_SPAN("root", PUG_INT("i", i));
                is = pug_context_current().flags & PUG_FLAG_SAMPLED;
                children(i % 7);
                if (i % 3 == 0) {
                    PUG_SPAN_ONE_IN(2, "point");
                }
            }
            struct pug_span handle;
            if (i % 5 == 0) {
                pug_span_start(&handle, "handle");
                pug_span_end(&handle);
            }
            n[before]++;
            kept[before] += is;
            before = is;
            if (i % 1000 == 0)
                lanes_drain();
        }
        expect_about((double)kept[0], (double)n[0], 0.2);
        expect_about((double)kept[1], (double)n[1], 0.2); /* one does not pull the next one along */
        stop();
    }
}

/* ---- the ids ---- */

static void ids_say_what_was_decided_and_are_even(void **state)
{
    enum { N = 40000 };
    uint64_t low[BINS] = {0}, high[BINS] = {0}, threshold;
    start(SAMPLER_RATIO, 0.3, 0);
    assert_true(sampler_threshold(&sdk.sampler, &threshold));
    for (int i = 0; i < N; i++) {
        PUG_SPAN("root");
        struct pug_context c = pug_context_current();
        struct ot_state s;
        ot_state_read((struct str){c.tracestate, c.tracestate_len}, &s);
        assert_true(pug_context_valid(&c));
        assert_true(c.flags & PUG_FLAG_RANDOM);
        if (c.flags & PUG_FLAG_SAMPLED) {
            assert_true(randomness_of(&c) >= threshold);
            assert_true(s.has_th && s.th == threshold && !s.has_rv);
        } else {
            assert_true(randomness_of(&c) < threshold);
            assert_int_equal(c.tracestate_len, 0);
        }
        low[randomness_of(&c) >> 52]++;
        high[c.trace_id[8] >> 4]++;
        if (i % 1000 == 0)
            lanes_drain();
    }
    expect_even(low, "randomness");
    expect_even(high, "the byte above it");
    stop();
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

static void no_two_roots_have_one_id(void **state)
{
    enum { N = 20000 };
    uint8_t(*ids)[16] = calloc(N, 16);
    start(SAMPLER_ALWAYS_OFF, 0, 0);
    for (int i = 0; i < N; i++) {
        PUG_SPAN("root");
        memcpy(ids[i], pug_context_current().trace_id, 16);
    }
    qsort(ids, N, 16, by_bytes);
    for (int i = 1; i < N; i++)
        assert_memory_not_equal(ids[i - 1], ids[i], 16);
    free(ids);
    stop();
}

static void expect_trace(const struct pug_context *c, const struct pug_context *of)
{
    assert_memory_equal(c->trace_id, of->trace_id, 16);
    assert_int_equal(c->flags, of->flags);
}

static void a_root_that_is_not_kept_is_one_trace_to_all_who_ask(void **state)
{
    start(SAMPLER_RATIO, 1e-9, 0);
    struct pug_context first = {.flags = 0};
    for (int i = 0; i < 3; i++) { /* the first one is asked about, the others are known */
        struct pug_span handle, below;
        PUG_SPAN("root");
        struct pug_context root = pug_context_current(), c;
        assert_memory_not_equal(root.trace_id, first.trace_id, 16);
        assert_int_equal(root.flags, PUG_FLAG_RANDOM);
        {
            PUG_SPAN("child", PUG_STR("text", "value"));
            c = pug_context_current();
            expect_trace(&c, &root);
            pug_span_start(&handle, "handle");
            expect_trace(&handle.context, &root);
            assert_memory_equal(handle.parent_id, root.span_id, 8);
            pug_span_start_from(&below, &handle.context, "below");
            expect_trace(&below.context, &root);
            PUG_ATTACH(&handle.context);
            PUG_SPAN("in the handle");
            c = pug_context_current();
            expect_trace(&c, &root);
        }
        /* Another sampler in the middle of a root leaves it what it is. */
        struct config other = lanes.config;
        other.sampler.rate = 0.5;
        sampler_start(&sdk.sampler, &other, lanes.memory);
        memory_ask(lanes.memory, true);
        c = pug_context_current();
        assert_memory_equal(&c, &root, offsetof(struct pug_context, tracestate));
        sampler_start(&sdk.sampler, &lanes.config, lanes.memory);
        memory_ask(lanes.memory, true);
        first = root;
    }
    stop();
    assert_int_equal(lanes.n, 0);
}

/* Whose every evaluation is counted. */
static int evaluated;
static int counted(int value)
{
    evaluated++;
    return value;
}

static void attributes_of_a_root_that_is_known_not_to_be_kept_are_not_evaluated(void **state)
{
    enum { N = 2000 };
    int kept = 0;
    start(SAMPLER_RATIO, 0.01, 0);
    evaluated = 0;
    for (int i = 0; i < N; i++) {
        PUG_SPAN("root", PUG_INT("number", counted(i)), PUG_STR("text", counted(1) ? "a" : "b"));
        kept += (pug_context_current().flags & PUG_FLAG_SAMPLED) != 0;
    }
    /* Of the kept ones, and of the first one, which is asked about. */
    assert_true(kept > 0);
    assert_in_range(evaluated, 2 * kept, 2 * kept + 2);
    lanes_stop();
    assert_int_equal(lanes.n, kept);
    for (size_t i = 0; i < lanes.n; i++)
        assert_true(lanes.seen[i].attrs.n >= 2);
    lanes_forget();
}

/* ---- another sampler ---- */

static void another_sampler_is_asked_at_once(void **state)
{
    struct lane *lane = start(SAMPLER_ALWAYS_OFF, 0, 0);
    struct config c = lanes.config;
    for (int i = 0; i < 300; i++) { /* more than there are numbers for them */
        {
            PUG_SPAN("dropped");
            assert_false(pug_context_current().flags & PUG_FLAG_SAMPLED);
        }
        PUG_SPAN("dropped again");
        assert_int_equal(lane->fast.drop_below, UINT64_MAX);
    }
    c.sampler.kind = SAMPLER_RATIO;
    c.sampler.rate = 1;
    sampler_start(&sdk.sampler, &c, lanes.memory);
    memory_ask(lanes.memory, true);
    {
        PUG_SPAN("kept");
        assert_true(pug_context_current().flags & PUG_FLAG_SAMPLED);
    }
    c.sampler.kind = SAMPLER_ALWAYS_ON;
    sampler_start(&sdk.sampler, &c, lanes.memory);
    memory_ask(lanes.memory, false);
    {
        PUG_SPAN("kept");
        assert_true(pug_context_current().flags & PUG_FLAG_SAMPLED);
        assert_int_equal(pug_context_current().tracestate_len, 0);
    }
    c.sampler.kind = SAMPLER_RATE;
    c.sampler.per_second = 1;
    sampler_start(&sdk.sampler, &c, lanes.memory);
    memory_ask(lanes.memory, true);
    {
        PUG_SPAN("first of its second");
        assert_true(pug_context_current().flags & PUG_FLAG_SAMPLED);
    }
    for (int i = 0; i < 100; i++) {
        PUG_SPAN("too many");
        assert_false(pug_context_current().flags & PUG_FLAG_SAMPLED);
        assert_int_equal(lane->fast.drop_state, 0);
    }
    stop();
}

/* ---- interrupted ---- */

static volatile sig_atomic_t handled, wrong;

static void handler(int signal_)
{
    struct pug_context before = pug_context_current(), in = before, after;
    {
        PUG_SPAN("handler");
        PUG_SPAN("below");
        in = pug_context_current();
    }
    after = pug_context_current();
    if (memcmp(&before, &after, 26) != 0 || in.flags & PUG_FLAG_SAMPLED)
        wrong++;
    handled++;
}

static void *storm(void *arg)
{
    for (int i = 0; i < 3000; i++)
        pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

static void a_signal_handler_does_not_mix_with_the_root_it_interrupts(void **state)
{
    struct sigaction action = {.sa_handler = handler}, before;
    pthread_t self = pthread_self(), other;
    struct lane *lane = start(SAMPLER_ALWAYS_OFF, 0, 0);
    uint8_t last[16] = {0};
    sigaction(SIGUSR1, &action, &before);
    pthread_create(&other, NULL, storm, &self);
    while (pthread_tryjoin_np(other, NULL) != 0) {
        for (int i = 0; i < 200; i++) {
            PUG_SPAN("root");
            const struct pug__slot *slot = lane->fast.top;
            /* None: the handler was inside. */
            if (slot == lane->slots)
                continue;
            assert_int_equal(slot->trace, slot->seq);
            struct pug_context a = pug_context_current(), b;
            {
                PUG_SPAN("below");
                b = pug_context_current();
            }
            assert_memory_equal(&a, &b, 26);
            assert_memory_not_equal(a.trace_id, last, 16);
            memcpy(last, a.trace_id, 16);
        }
    }
    sigaction(SIGUSR1, &before, NULL);
    assert_ptr_equal(lane->fast.top, lane->slots);
    assert_int_equal(lane->fast.limit, lane->fast.room);
    assert_int_equal(wrong, 0);
    assert_true(handled > 0);
    stop();
}

static int done(void **state)
{
    memory_free(sdk.parents);
    sdk.parents = NULL;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaps_are_geometric),
        cmocka_unit_test(at_the_ends_all_are_kept_or_none),
        cmocka_unit_test(what_lies_between_roots_changes_nothing),
        cmocka_unit_test(ids_say_what_was_decided_and_are_even),
        cmocka_unit_test(no_two_roots_have_one_id),
        cmocka_unit_test(a_root_that_is_not_kept_is_one_trace_to_all_who_ask),
        cmocka_unit_test(attributes_of_a_root_that_is_known_not_to_be_kept_are_not_evaluated),
        cmocka_unit_test(another_sampler_is_asked_at_once),
        cmocka_unit_test(a_signal_handler_does_not_mix_with_the_root_it_interrupts),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
