/* What is kept: thresholds and tracestate against the specification's own figures, each sampler against its statistics, and
 * how a decision travels: into the spans, to children, handles and the next process. */
#include "sdk/lanes_fixture.h"

#include "base/clock.h"
#include "sdk/ot_state.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- thresholds ---- */

static void thresholds_are_those_of_the_specification(void **state)
{
    /* OpenTelemetry specification, "Converting floating-point probability to threshold value": 1 in N with 3, 4 and 5
     * digits. */
    static const struct {
        double n;
        const char *th[3];
    } rows[] = {
        {1, {"0", "0", "0"}},
        {2, {"8", "8", "8"}},
        {3, {"aab", "aaab", "aaaab"}},
        {4, {"c", "c", "c"}},
        {5, {"ccd", "cccd", "ccccd"}},
        {8, {"e", "e", "e"}},
        {10, {"e66", "e666", "e6666"}},
        {16, {"f", "f", "f"}},
        {100, {"fd71", "fd70a", "fd70a4"}},
        {1000, {"ffbe7", "ffbe77", "ffbe76d"}},
        {10000, {"fff972", "fff9724", "fff97247"}},
        {100000, {"ffff584", "ffff583a", "ffff583a5"}},
        {1000000, {"ffffef4", "ffffef39", "ffffef391"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int p = 0; p < 3; p++) {
            char th[15];
            th[ot_th_put(th, ot_threshold(1 / rows[i].n, p + 3))] = '\0';
            assert_string_equal(th, rows[i].th[p]);
        }
}

static void thresholds_at_the_ends(void **state)
{
    assert_int_equal(ot_threshold(0, 4), OT_RANGE);
    assert_int_equal(ot_threshold(-1, 4), OT_RANGE);
    assert_int_equal(ot_threshold((double)NAN, 4), OT_RANGE);
    assert_int_equal(ot_threshold(0x1p-57, 4), OT_RANGE);
    assert_int_equal(ot_threshold(2, 4), 0);
    assert_true(ot_threshold(0x1p-56, 4) < OT_RANGE);
    assert_true(ot_threshold(0.9999999, 4) < OT_RANGE / 1000);
    double before = 2;
    for (double p = 1; p > 1e-11; p *= 0.97) {
        double is = (double)(OT_RANGE - ot_threshold(p, 4)) / (double)OT_RANGE;
        if (is > before || fabs(is - p) / p > 0.002)
            fail_msg("%g became %g", p, is);
        before = is;
    }
}

/* ---- the entry in tracestate ---- */

static struct pug_context with_state(const char *tracestate, int flags)
{
    struct pug_context c;
    assert_int_equal(
        pug_context_from_hex(&c, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"), 0);
    c.flags = (uint8_t)flags;
    c.tracestate_len = (uint16_t)strlen(tracestate);
    memcpy(c.tracestate, tracestate, strlen(tracestate));
    return c;
}

static struct str state_of(const struct pug_context *c)
{
    return (struct str){c->tracestate, c->tracestate_len};
}

static struct ot_state read_of(const char *tracestate)
{
    struct ot_state s;
    ot_state_read(str_from(tracestate), &s);
    return s;
}

static void th_and_rv_are_read(void **state)
{
    struct ot_state s = read_of("other=1,ot=p:8;th:c;rv:6e6d1a75832a2f,x=ot");
    assert_true(s.has_th && s.has_rv);
    assert_int_equal(s.th, UINT64_C(0xc0000000000000));
    assert_int_equal(s.rv, UINT64_C(0x6e6d1a75832a2f));
    assert_int_equal(read_of("ot=th:0").th, 0);
    assert_true(read_of("ot=th:0").has_th);
    assert_int_equal(read_of("ot=th:fd70a4").th, UINT64_C(0xfd70a400000000));
    static const char *const bad[] = {
        "",
        "ot=",
        "ot=th",
        "ot=th:",
        "ot=th:C",
        "ot=th:0123456789abcde",
        "ot=th:g",
        "ot=rv:6e6d1a75832a2",
        "ot=rv:6e6d1a75832a2f0",
        "to=th:c",
        "xot=th:c",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (read_of(bad[i]).has_th || read_of(bad[i]).has_rv)
            fail_msg("taken: %s", bad[i]);
}

static void randomness_is_rv_or_the_end_of_the_trace_id(void **state)
{
    struct pug_context c = with_state("", 1);
    struct ot_state s = read_of("ot=rv:6e6d1a75832a2f");
    assert_int_equal(ot_randomness(&c, NULL), UINT64_C(0x48eb211c80319c));
    assert_int_equal(ot_randomness(&c, &s), UINT64_C(0x6e6d1a75832a2f));
    /* 1 - 0x6e6d1a75832a2f / 2^56 is 0.5686: the smallest probability that keeps it. */
    assert_true(s.rv >= ot_threshold(0.569, 13));
    assert_false(s.rv >= ot_threshold(0.568, 13));
}

static void set_th(const char *before, const uint64_t *th, const char *after)
{
    struct pug_context c = with_state(before, 1);
    ot_state_set_th(&c, th);
    assert_str_eq(state_of(&c), str_from(after));
}

static void th_is_set_replaced_and_taken_out(void **state)
{
    const uint64_t c = UINT64_C(0xc0000000000000), zero = 0;
    set_th("", &c, "ot=th:c");
    set_th("", &zero, "ot=th:0");
    set_th("", NULL, "");
    set_th("a=1,b=2", &c, "ot=th:c,a=1,b=2");
    set_th("a=1,ot=th:8,b=2", &c, "ot=th:c,a=1,b=2");
    set_th("a=1,ot=rv:6e6d1a75832a2f;th:8;x:y,b=2", &c, "ot=th:c;rv:6e6d1a75832a2f;x:y,a=1,b=2");
    set_th("a=1,ot=th:8,b=2", NULL, "a=1,b=2");
    set_th("ot=th:8;x:y", NULL, "ot=x:y");
}

static void a_full_tracestate_loses_its_end_and_not_the_threshold(void **state)
{
    char text[PUG_TRACESTATE_MAX + 1] = "";
    const uint64_t th = UINT64_C(0xfd70a400000000);
    size_t n = 0;
    for (int i = 0; n + 17 < PUG_TRACESTATE_MAX; i++)
        n += (size_t)sprintf(text + n, "%sk%02d=0123456789ab", i ? "," : "", i);
    struct pug_context c = with_state(text, 1);
    ot_state_set_th(&c, &th);
    assert_true(c.tracestate_len <= PUG_TRACESTATE_MAX);
    assert_true(str_starts(state_of(&c), STR("ot=th:fd70a4,k00=")));
    /* 32 entries are the most there may be. */
    n = 0;
    for (int i = 0; i < 32; i++)
        n += (size_t)sprintf(text + n, "%sk%02d=1", i ? "," : "", i);
    c = with_state(text, 1);
    ot_state_set_th(&c, &th);
    size_t commas = 0;
    for (size_t i = 0; i < c.tracestate_len; i++)
        commas += c.tracestate[i] == ',';
    assert_int_equal(commas, 31);
}

static void a_threshold_that_contradicts_the_flag_is_taken_out(void **state)
{
    static const struct {
        const char *before;
        int flags;
        const char *after;
    } rows[] = {
        /* R is 0x48eb...: kept from th:48eb211c80319c down. */
        {"ot=th:4", 1, "ot=th:4"},
        {"ot=th:48eb211c80319c", 1, "ot=th:48eb211c80319c"},
        {"ot=th:48eb211c80319d,a=1", 1, "a=1"},
        {"ot=th:c", 1, ""},
        {"ot=th:c", 0, "ot=th:c"},
        {"ot=th:4", 0, ""},
        {"ot=rv:ffffffffffffff;th:c", 1, "ot=rv:ffffffffffffff;th:c"},
        {"ot=rv:00000000000000;th:4", 1, "ot=rv:00000000000000"},
        {"a=1", 1, "a=1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pug_context c = with_state(rows[i].before, rows[i].flags);
        ot_state_repair(&c);
        assert_str_eq(state_of(&c), str_from(rows[i].after));
    }
}

/* ---- statistics ---- */

static struct config sampling(enum sampler_kind kind, double rate, bool parent_based)
{
    struct config c = {.service_name = "shop"};
    c.sampler.kind = kind;
    c.sampler.rate = c.sampler.per_second = rate;
    c.sampler.parent_based = parent_based;
    return c;
}

/* Six sigma: one run in 500 million fails though all is well. */
static void expect_about(uint64_t kept, uint64_t n, double p)
{
    double sigma = sqrt((double)n * p * (1 - p)), off = (double)kept - (double)n * p;
    if (fabs(off) > 6 * sigma + 1)
        fail_msg("%llu of %llu kept at %g: %.1f sigma off", (unsigned long long)kept,
                 (unsigned long long)n, p, off / sigma);
}

static bool root_is_kept(void)
{
    PUG_SPAN("root");
    return pug_context_current().flags & PUG_FLAG_SAMPLED;
}

static void a_ratio_is_kept_within_binomial_bounds(void **state)
{
    static const double rates[] = {0.5, 0.25, 0.1, 0.01, 0.001};
    enum { N = 60000 };
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct config c = sampling(SAMPLER_RATIO, rates[i], true);
        uint64_t kept = 0, seen = 0;
        lanes_start(&c, 0);
        for (int k = 0; k < N; k++) {
            kept += root_is_kept();
            if (k % 2000 == 0) { /* the ring holds so many */
                lanes_drain();
                seen += lanes.n;
                lanes.n = 0;
            }
        }
        lanes_stop();
        assert_int_equal(seen + lanes.n, kept); /* what is kept is recorded, and nothing else */
        expect_about(kept, N, rates[i]);
        lanes_forget();
    }
}

static void what_a_low_rate_keeps_a_higher_one_keeps(void **state)
{
    static const double rates[] = {0.001, 0.01, 0.1, 0.3, 0.9, 1};
    struct lane *lane = calloc(1, sizeof *lane);
    uint64_t kept[6] = {0};
    for (uint64_t i = 0; i < 100000; i++) {
        uint64_t randomness = hash_mix64(i) & (OT_RANGE - 1);
        bool before = false;
        for (size_t k = 0; k < 6; k++) {
            struct sampler s = {.kind = SAMPLER_RATIO};
            struct sampling_answer a;
            atomic_store(&s.threshold, ot_threshold(rates[k], OT_PRECISION));
            sampler_ask(&s, lane, randomness, NULL, NULL, &a);
            assert_true(a.keep || !before);
            assert_true(a.has_threshold);
            before = a.keep;
            kept[k] += a.keep;
        }
    }
    for (size_t k = 0; k < 6; k++)
        expect_about(kept[k], 100000, rates[k]);
    free(lane);
}

static void the_adjusted_counts_add_up_to_what_there_was(void **state)
{
    /* A third of the requests at 1 in 2, the others at 1 in 10. */
    enum { N = 100000 };
    double sum = 0;
    for (int half = 0; half < 2; half++) {
        struct config c = sampling(SAMPLER_RATIO, half ? 0.5 : 0.1, true);
        int n = half ? N / 3 : N - N / 3;
        lanes_start(&c, 0);
        for (int k = 0; k <= n; k++) {
            if (k < n)
                root_is_kept();
            if (k % 2000 && k < n)
                continue;
            lanes_drain();
            for (size_t i = 0; i < lanes.n; i++) {
                struct ot_state s;
                ot_state_read(lanes.seen[i].trace_state, &s);
                assert_true(s.has_th);
                sum += (double)OT_RANGE / (double)(OT_RANGE - s.th);
            }
            lanes.n = 0;
        }
        lanes_stop();
        lanes_forget();
    }
    /* Variance: n * (1/p - 1). */
    double sigma = sqrt(N / 3.0 * 1 + N * 2 / 3.0 * 9);
    if (fabs(sum - N) > 6 * sigma)
        fail_msg("estimated %.0f of %d", sum, N);
}

static void a_rate_lets_through_so_many_a_second(void **state)
{
    struct config c = sampling(SAMPLER_RATE, 200, true);
    lanes_start(&c, 0);
    uint64_t begin = clock_monotonic_ns(), kept = 0, burst = 0, now;
    /* A second's worth at once, ... */
    for (int i = 0; i < 1000; i++)
        burst += root_is_kept();
    /* ... then as they come. */
    do {
        kept += root_is_kept();
        now = clock_monotonic_ns();
    } while (now - begin < 300 * NS_PER_MS);
    double seconds = (double)(now - begin) / (double)NS_PER_S;
    lanes_stop();
    /* A tenth of a second: the clock is coarse, and coarser on a machine that is busy. */
    assert_true(burst >= 200);
    if ((double)(kept + burst) > 200 + 200 * (seconds + 0.1) + 1 ||
        (double)(kept + burst) < 200 + 200 * (seconds - 0.1) - 1)
        fail_msg("%d kept in %.3f s", (int)(kept + burst), seconds);
    for (size_t i = 0; i < lanes.n; i++) /* nobody knows what one stands for */
        assert_int_equal(lanes.seen[i].trace_state.len, 0);
    lanes_forget();
    c = sampling(SAMPLER_RATE, 0, true);
    lanes_start(&c, 0);
    for (int i = 0; i < 1000; i++)
        assert_false(root_is_kept());
    lanes_stop();
    lanes_forget();
    c = sampling(SAMPLER_RATE, 0.001, true);
    lanes_start(&c, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(root_is_kept(), i == 0);
    lanes_stop();
    lanes_forget();
}

/* ---- how a decision travels ---- */

static int evaluated;

static int evaluate(void)
{
    return ++evaluated;
}

static void on_and_off(void **state)
{
    struct config off = sampling(SAMPLER_ALWAYS_OFF, 0, true);
    evaluated = 0;
    lanes_start(&off, 0);
    {
        PUG_SPAN("root", PUG_INT("n", evaluate()));
        struct pug_context c = pug_context_current(), below;
        assert_true(pug_context_valid(&c));
        assert_int_equal(c.flags, PUG_FLAG_RANDOM);
        assert_int_equal(evaluated, 1); /* a sampler may ask for it */
        {
            PUG_SPAN("child", PUG_INT("n", evaluate()));
            pug_set_int(PUG_CURRENT, "k", 1);
            pug_event(PUG_CURRENT, "e");
            below = pug_context_current();
            assert_int_equal(evaluated, 1);
            assert_memory_equal(below.trace_id, c.trace_id, 16);
            assert_int_equal(below.flags, PUG_FLAG_RANDOM);
        }
        below = pug_context_current();
        assert_memory_equal(below.span_id, c.span_id, 8);
    }
    {
        PUG_SPAN("another");
        struct pug_span handle;
        pug_span_start(&handle, "handle");
        assert_int_equal(handle.context.flags, PUG_FLAG_RANDOM);
        pug_span_end(&handle);
    }
    struct pug_span alone;
    pug_span_start(&alone, "handle");
    assert_true(pug_context_valid(&alone.context));
    assert_int_equal(alone.context.flags, PUG_FLAG_RANDOM);
    pug_span_end(&alone);
    lanes_stop();
    assert_int_equal(lanes.n, 0);
    lanes_forget();
}

static void the_threshold_goes_with_every_span_and_out_of_the_process(void **state)
{
    struct config c = sampling(SAMPLER_RATIO, 1, true);
    struct pug_context current;
    struct pug_span handle, alone;
    lanes_start(&c, 0);
    {
        PUG_SPAN("root", PUG_STR("text", "value"));
        PUG_SPAN("child");
        PUG_SPAN("grandchild", PUG_INT("n", 1));
        current = pug_context_current();
        pug_span_start(&handle, "handle");
    }
    pug_span_end(&handle);
    pug_span_start(&alone, "alone");
    pug_span_end(&alone);
    {
        PUG_SPAN("second root");
    }
    lanes_stop();
    assert_str_eq(state_of(&current), STR("ot=th:0"));
    assert_int_equal(current.flags, PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM);
    assert_int_equal(lanes.n, 6);
    const struct span *root = lanes_find("root"), *child = lanes_find("child");
    const struct span *grandchild = lanes_find("grandchild"), *second = lanes_find("second root");
    for (size_t i = 0; i < lanes.n; i++) {
        assert_str_eq(lanes.seen[i].trace_state, STR("ot=th:0"));
        assert_int_equal(lanes.seen[i].flags & 0xff, PUG_FLAG_SAMPLED | PUG_FLAG_RANDOM);
    }
    assert_true(span_id_is_zero(&root->parent_id));
    assert_memory_equal(child->parent_id.bytes, root->span_id.bytes, 8);
    assert_memory_equal(grandchild->parent_id.bytes, child->span_id.bytes, 8);
    assert_memory_equal(grandchild->trace_id.bytes, root->trace_id.bytes, 16);
    assert_memory_equal(grandchild->trace_id.bytes, current.trace_id, 16);
    assert_memory_equal(grandchild->span_id.bytes, current.span_id, 8);
    assert_memory_equal(lanes_find("handle")->parent_id.bytes, grandchild->span_id.bytes, 8);
    assert_memory_not_equal(second->trace_id.bytes, root->trace_id.bytes, 16);
    assert_true(span_id_is_zero(&second->parent_id));
    assert_str_eq(lanes_attr(root, "text")->string, STR("value"));
    assert_non_null(lanes_attr(grandchild, "n"));
    lanes_forget();
}

static void a_sender_is_followed_when_parent_based(void **state)
{
    struct config c = sampling(SAMPLER_ALWAYS_OFF, 0, true);
    struct pug_context sampled = with_state("a=1,ot=th:4", 3), not = with_state("ot=th:c", 2), seen;
    struct pug_context liar = with_state("ot=th:c", 1);
    lanes_start(&c, 0);
    {
        PUG_SPAN_FROM(&sampled, "kept");
        PUG_SPAN("below");
        seen = pug_context_current();
        assert_str_eq(state_of(&seen), STR("a=1,ot=th:4"));
    }
    {
        PUG_SPAN_FROM(&not, "dropped");
        seen = pug_context_current();
        assert_int_equal(seen.flags, 2);
        assert_memory_not_equal(seen.span_id, not .span_id, 8);
        assert_memory_equal(seen.trace_id, not .trace_id, 16);
    }
    {
        PUG_SPAN_FROM(&liar, "inconsistent");
    }
    lanes_stop();
    assert_int_equal(lanes.n, 3);
    assert_str_eq(lanes_find("below")->trace_state, STR("a=1,ot=th:4"));
    assert_memory_equal(lanes_find("kept")->parent_id.bytes, sampled.span_id, 8);
    assert_int_equal(lanes_find("inconsistent")->trace_state.len, 0);
    lanes_forget();
}

static void a_sender_is_overruled_when_not(void **state)
{
    struct config on = sampling(SAMPLER_RATIO, 1, false), off = sampling(SAMPLER_RATIO, 0, false);
    struct pug_context not = with_state("a=1,ot=rv:6e6d1a75832a2f", 2), seen;
    struct pug_context sampled = with_state("a=1,ot=th:4", 3);
    struct pug_span handle;
    lanes_start(&on, 0);
    {
        PUG_SPAN_FROM(&not, "kept", PUG_INT("n", 1));
        seen = pug_context_current();
        PUG_SPAN("below");
    }
    pug_span_start_from(&handle, &not, "handle");
    pug_span_end(&handle);
    lanes_stop();
    assert_int_equal(seen.flags, 3);
    assert_int_equal(lanes.n, 3);
    const struct span *kept = lanes_find("kept"), *below = lanes_find("below");
    assert_memory_equal(kept->parent_id.bytes, not .span_id, 8);
    assert_memory_equal(kept->trace_id.bytes, not .trace_id, 16);
    assert_memory_equal(below->trace_id.bytes, not .trace_id, 16);
    assert_memory_equal(below->parent_id.bytes, kept->span_id.bytes, 8);
    assert_str_eq(below->trace_state, STR("ot=th:0;rv:6e6d1a75832a2f,a=1"));
    assert_int_equal(kept->flags & 0x200, 0x200); /* its parent is remote, */
    assert_int_equal(below->flags & 0x200, 0);    /* that one's is not */
    assert_memory_equal(lanes_find("handle")->parent_id.bytes, not .span_id, 8);
    assert_str_eq(lanes_find("handle")->trace_state, STR("ot=th:0;rv:6e6d1a75832a2f,a=1"));
    lanes_forget();

    lanes_start(&off, 0);
    {
        PUG_SPAN_FROM(&sampled, "dropped");
        PUG_SPAN("below");
        seen = pug_context_current();
    }
    pug_span_start_from(&handle, &sampled, "handle");
    pug_span_end(&handle);
    lanes_stop();
    assert_int_equal(lanes.n, 0);
    assert_int_equal(seen.flags, 2);
    assert_str_eq(state_of(&seen), STR("a=1"));
    assert_int_equal(handle.context.flags, 2);
    lanes_forget();
}

static void attached_contexts_and_their_roots_come_and_go(void **state)
{
    struct config c = sampling(SAMPLER_RATIO, 1, false);
    struct pug_context remote = with_state("", 3);
    lanes_start(&c, 0);
    for (int i = 0; i < 200; i++) {
        pug_attachment at[LANE_CONTEXTS_MAX];
        for (int k = 0; k < LANE_CONTEXTS_MAX; k++)
            assert_non_null(at[k] = pug_context_attach(&remote));
        assert_null(pug_context_attach(&remote));
        {
            PUG_SPAN("deep");
            PUG_SPAN("deeper");
        }
        for (int k = LANE_CONTEXTS_MAX; k-- > 0;)
            pug_context_detach(at[k]);
        assert_int_equal(lane_of(pug__lane_1)->n_contexts, 0);
        assert_int_equal(lane_of(pug__lane_1)->n_attached, 0);
        lanes_drain();
    }
    lanes_stop();
    assert_int_equal(lanes.n, 400);
    for (size_t i = 0; i < lanes.n; i++)
        assert_memory_equal(lanes.seen[i].trace_id.bytes, remote.trace_id, 16);
    lanes_forget();
}

static void a_root_that_finds_no_room_is_counted_with_what_is_below(void **state)
{
    struct config c = sampling(SAMPLER_RATIO, 1, false);
    struct pug_context remote = with_state("", 3);
    uint64_t begun = 0;
    lanes_start(&c, 0);
    for (int i = 0; i < 20000; i++, begun += 2) {
        PUG_SPAN_FROM(&remote, "root");
        PUG_SPAN("child", PUG_INT("n", i));
    }
    uint64_t lost = atomic_load(&lane_of(pug__lane_1)->lost_ring_full);
    assert_true(lost > 0);
    lanes_stop();
    assert_int_equal(lanes.n + lost, begun);
    for (size_t i = 0; i < lanes.n; i++)
        assert_memory_equal(lanes.seen[i].trace_id.bytes, remote.trace_id, 16);
    lanes_forget();
}

/* ---- one in n ---- */

static void one_in_n_is_kept_whatever_the_trace_does(void **state)
{
    enum { N = 16000, ONE_IN = 8 };
    for (int rate = 0; rate < 2; rate++) {
        struct config c = sampling(SAMPLER_RATIO, rate, true);
        uint64_t alone = 0, below = 0;
        lanes_start(&c, 0);
        for (int i = 0; i <= N; i++) {
            if (i < N) {
                PUG_SPAN("request");
                PUG_SPAN_ONE_IN(ONE_IN, "cache.get", PUG_INT("i", i));
                pug_set_int(PUG_CURRENT, "late", i);
                PUG_SPAN("below");
            }
            if (i % 1000 && i < N)
                continue;
            lanes_drain();
            for (size_t k = 0; k < lanes.n; k++) {
                const struct span *s = &lanes.seen[k];
                if (str_eq(s->name, STR("cache.get"))) {
                    alone++;
                    assert_int_equal(lanes_attr(s, "pugmark.one_in")->integer, ONE_IN);
                    assert_int_equal(lanes_attr(s, "late")->integer, lanes_attr(s, "i")->integer);
                    assert_int_equal(s->flags & PUG_FLAG_SAMPLED, rate ? PUG_FLAG_SAMPLED : 0);
                    assert_false(span_id_is_zero(&s->parent_id));
                } else {
                    assert_int_equal(rate, 1);
                    assert_null(lanes_attr(s, "late"));
                    below += str_eq(s->name, STR("below"));
                }
            }
            lanes.n = 0;
        }
        assert_int_equal(atomic_load(&lane_of(pug__lane_1)->lost_ring_full), 0);
        assert_int_equal(lane_of(pug__lane_1)->n_contexts, 0);
        lanes_stop();
        expect_about(alone, N, 1.0 / ONE_IN);
        assert_int_equal(below, rate ? N : 0);
        lanes_forget();
    }
}

static void what_is_in_a_point_left_out_belongs_to_the_span_around(void **state)
{
    lanes_start(NULL, 0);
    {
        PUG_SPAN("around");
        PUG_SPAN_ONE_IN(UINT64_MAX, "left out");
        struct pug_context c = pug_context_current();
        {
            PUG_SPAN("inside");
        }
        PUG_SPAN_ONE_IN(1, "always");
        assert_true(pug_context_valid(&c));
    }
    {
        PUG_SPAN_ONE_IN(1, "root");
    }
    lanes_stop();
    assert_int_equal(lanes.n, 4);
    const struct span *around = lanes_find("around");
    assert_memory_equal(lanes_find("inside")->parent_id.bytes, around->span_id.bytes, 8);
    assert_memory_equal(lanes_find("always")->parent_id.bytes, around->span_id.bytes, 8);
    assert_true(span_id_is_zero(&lanes_find("root")->parent_id));
    lanes_forget();
}

static void a_point_alone_has_a_trace_that_is_not_kept(void **state)
{
    struct config c = sampling(SAMPLER_ALWAYS_OFF, 0, true);
    struct pug_context trace, point;
    lanes_start(&c, 0);
    {
        PUG_SPAN("request");
        trace = pug_context_current();
        PUG_SPAN_ONE_IN(1, "point");
        point = pug_context_current();
        PUG_SPAN("below");
        PUG_SPAN("further below");
        PUG_SPAN_ONE_IN(1, "point below");
    }
    {
        PUG_SPAN_ONE_IN(1, "root point", PUG_STR("k", "v"));
    }
    lanes_stop();
    assert_int_equal(lanes.n, 3);
    const struct span *s = lanes_find("point");
    assert_memory_equal(s->trace_id.bytes, trace.trace_id, 16);
    assert_memory_equal(s->parent_id.bytes, trace.span_id, 8);
    assert_memory_equal(s->span_id.bytes, point.span_id, 8);
    assert_int_equal(point.flags, PUG_FLAG_RANDOM);
    assert_memory_equal(lanes_find("point below")->trace_id.bytes, trace.trace_id, 16);
    assert_true(span_id_is_zero(&lanes_find("root point")->parent_id));
    assert_str_eq(lanes_attr(lanes_find("root point"), "k")->string, STR("v"));
    lanes_forget();
}

/* ---- rules ---- */

static void patterns(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool fits;
    } rows[] = {
        {"*", "", true},
        {"*", "anything", true},
        {"", "", true},
        {"", "a", false},
        {"a", "", false},
        {"?", "", false},
        {"?", "x", true},
        {"abc", "ABC", true},
        {"/api/*", "/api/move/1", true},
        {"/api/*", "/apo/", false},
        {"*.example.org", "a.b.example.org", true},
        {"*.example.org", "example.org", false},
        {"a*b*c", "aXbYbZc", true},
        {"a*b*c", "aXcYb", false},
        {"a?c*", "abcdef", true},
        {"**a**", "xxaxx", true},
        {"*a?c", "aaabc", true},
        {"x*y", "xy", true},
        {"*ab", "aab", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (sampling_pattern_fits(str_from(rows[i].pattern), str_from(rows[i].text)) !=
            rows[i].fits)
            fail_msg("%s and %s", rows[i].pattern, rows[i].text);
}

static const char shop_rules[] =
    "{\"version\": 2, \"rules\": [\n"
    "  {\"description\": \"moves\", \"host\": \"*\", \"http_method\": \"POST\",\n"
    "   \"url_path\": \"/api/move/*\", \"fixed_target\": 0, \"rate\": 1},\n"
    "  {\"service_name\": \"other\", \"http_method\": \"*\", \"url_path\": \"*\",\n"
    "   \"fixed_target\": 9, \"rate\": 1},\n"
    "  {\"service_name\": \"sh?p\", \"host\": \"*.example.org\", \"http_method\": \"*\",\n"
    "   \"url_path\": \"*\", \"fixed_target\": 2, \"rate\": 0.5}\n"
    "], \"default\": {\"fixed_target\": 0, \"rate\": 0}, \"later\": [1, {}]}";

static void rules_are_read(void **state)
{
    struct sampling_rules *r;
    assert_int_equal(sampling_rules_parse(str_from(shop_rules), STR("shop"), &r, NULL), 0);
    assert_int_equal(r->n, 3); /* one is for another service */
    assert_int_equal(r->rules[1].fixed_target, 2);
    assert_int_equal(r->rules[1].threshold, UINT64_C(0x80000000000000));
    assert_int_equal(r->rules[2].threshold, OT_RANGE);
    struct sampling_route move = {STR("post"), STR("/api/move/7"), STR("h")};
    struct sampling_route get = {STR("GET"), STR("/api/move/7"), STR("a.example.org")};
    struct sampling_route none = {STR_NONE, STR_NONE, STR_NONE};
    assert_ptr_equal(sampling_rules_match(r, &move), &r->rules[0]);
    assert_ptr_equal(sampling_rules_match(r, &get), &r->rules[1]);
    assert_ptr_equal(sampling_rules_match(r, &none), &r->rules[2]);
    sampling_rules_free(r);
    sampling_rules_free(NULL);
}

static void bad_rules_are_refused_with_a_reason(void **state)
{
    static const struct {
        const char *json, *says;
    } rows[] = {
        {"", "empty"},
        {"[]", "version, rules and default"},
        {"{\"version\":3,\"default\":{\"fixed_target\":1,\"rate\":1}}", "version 1 or 2"},
        {"{\"default\":{\"fixed_target\":1,\"rate\":1}}", "a version"},
        {"{\"version\":2}", "a default rule"},
        {"{\"version\":2,\"default\":{\"rate\":1}}", "fixed_target and rate"},
        {"{\"version\":2,\"default\":{\"fixed_target\":-1,\"rate\":1}}", "whole number"},
        {"{\"version\":2,\"default\":{\"fixed_target\":1,\"rate\":1.5}}", "0 to 1"},
        {"{\"version\":2,\"default\":{\"fixed_target\":1,\"rate\":1,\"host\":\"*\"}}",
         "without patterns"},
        {"{\"version\":2,\"rules\":{},\"default\":{\"fixed_target\":1,\"rate\":1}}", "a list"},
        {"{\"version\":2,\"rules\":[1],\"default\":{\"fixed_target\":1,\"rate\":1}}", "in braces"},
        {"{\"version\":2,\"rules\":[{\"host\":1}]}", "in quotes"},
        {"{\"version\":2,\"default\":{\"fixed_target\":1,\"rate\":1}} x", ""},
        {"{\"version\":2,\"default\":{\"fixed_target\":1,\"rate\":1}", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sampling_rules *r = NULL;
        struct error_detail problem = {.code = 0};
        if (sampling_rules_parse(str_from(rows[i].json), STR("s"), &r, &problem) == 0)
            fail_msg("taken: %s", rows[i].json);
        assert_null(r);
        assert_true(problem.code < 0);
        if (!strstr(problem.message, rows[i].says))
            fail_msg("%s: %s", rows[i].json, problem.message);
    }
}

struct taker {
    pthread_t thread;
    struct sampling_rule *rule;
    uint64_t taken;
};

static void *take_all(void *arg)
{
    struct taker *t = arg;
    for (uint32_t second = 1; second <= 50; second++)
        for (int i = 0; i < 1000; i++)
            t->taken += sampling_rule_take(t->rule, second);
    return NULL;
}

static void a_reservoir_gives_exactly_its_target_each_second(void **state)
{
    struct sampling_rule rule = {.fixed_target = 7};
    for (uint32_t second = 1; second < 100; second++) {
        int taken = 0;
        for (int i = 0; i < 50; i++)
            taken += sampling_rule_take(&rule, second);
        assert_int_equal(taken, 7);
    }
    struct taker takers[4] = {{0}};
    struct sampling_rule shared = {.fixed_target = 100000000};
    for (int i = 0; i < 4; i++) {
        takers[i].rule = &shared;
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_all, &takers[i]), 0);
    }
    uint64_t sum = 0;
    for (int i = 0; i < 4; i++) {
        pthread_join(takers[i].thread, NULL);
        sum += takers[i].taken;
    }
    assert_int_equal(sum, 4 * 50 * 1000);
}

static void *take_one_second(void *arg)
{
    struct taker *t = arg;
    for (int i = 0; i < 20000; i++)
        t->taken += sampling_rule_take(t->rule, 5);
    return NULL;
}

static void a_reservoir_is_shared_by_threads(void **state)
{
    struct taker takers[4] = {{0}};
    struct sampling_rule shared = {.fixed_target = 12345};
    uint64_t sum = 0;
    for (int i = 0; i < 4; i++) {
        takers[i].rule = &shared;
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_one_second, &takers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(takers[i].thread, NULL);
        sum += takers[i].taken;
    }
    assert_int_equal(sum, 12345);
}

static char rules_path[64];
static char told[512];
static int n_told;

static void tell(void *user, const char *message)
{
    n_told++;
    snprintf(told, sizeof told, "%s", message);
}

static void write_rules(const char *text)
{
    char other[80];
    snprintf(other, sizeof other, "%s.new", rules_path);
    FILE *file = fopen(other, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(rename(other, rules_path), 0);
}

static struct config with_rules(const char *text)
{
    struct config c = sampling(SAMPLER_RULES, 1, true);
    snprintf(rules_path, sizeof rules_path, "/tmp/pugmark-rules-%d.json", (int)getpid());
    unlink(rules_path);
    if (text)
        write_rules(text);
    c.sampler.rules_file = rules_path;
    c.log = tell;
    n_told = 0;
    told[0] = '\0';
    return c;
}

static void look(void)
{
    sdk.sampler.looked_ns = 0;
    sampler_look(&sdk.sampler, &lanes.config, lanes.memory);
}

static bool request(const char *method, const char *path, const char *host)
{
    PUG_SPAN("request", PUG_STR("http.request.method", method), PUG_STR("url.path", path),
             PUG_STR("server.address", host), PUG_INT("n", 1));
    return pug_context_current().flags & PUG_FLAG_SAMPLED;
}

static bool old_request(const char *method, const char *target, const char *host)
{
    PUG_SPAN("old", PUG_STR("http.method", method), PUG_STR("http.target", target),
             PUG_STRN("http.host", host, strlen(host)));
    return pug_context_current().flags & PUG_FLAG_SAMPLED;
}

static void rules_decide_by_what_the_root_says(void **state)
{
    struct config c = with_rules(shop_rules);
    lanes_start(&c, 0);
    for (int i = 0; i < 100; i++) {
        assert_true(request("POST", "/api/move/1", "x"));
        assert_true(old_request("post", "/api/move/1?query=/", "x"));
        assert_false(request("GET", "/api/move/1", "x"));
        assert_false(request("POST", "/api/other", NULL));
        assert_false(root_is_kept()); /* says nothing */
    }
    struct pug_span handle;
    pug_span_start(&handle, "handle", PUG_STR("http.method", "POST"),
                   PUG_STR("url.path", "/api/move/2"));
    assert_int_equal(handle.context.flags & PUG_FLAG_SAMPLED, PUG_FLAG_SAMPLED);
    pug_span_end(&handle);
    uint64_t kept = 0;
    enum { N = 2000 };
    for (int i = 0; i < N; i++)
        kept += request("GET", "/", "a.example.org");
    expect_about(kept, N, 0.5); /* and two a second */
    lanes_stop();
    assert_int_equal(n_told, 0);
    assert_str_eq(lanes_find("handle")->trace_state, STR("ot=th:0"));
    size_t reservoir = 0, half = 0;
    for (size_t i = 0; i < lanes.n; i++) {
        const struct value *host = lanes_attr(&lanes.seen[i], "server.address");
        if (!host || !str_eq(host->string, STR("a.example.org")))
            continue;
        reservoir += str_eq(lanes.seen[i].trace_state, STR("ot=th:0"));
        half += str_eq(lanes.seen[i].trace_state, STR("ot=th:8"));
    }
    assert_int_equal(reservoir + half, kept);
    assert_true(reservoir >= 2 && reservoir <= 60);
    lanes_forget();
    unlink(rules_path);
}

static void a_changed_file_is_taken_in(void **state)
{
    static const char all[] = "{\"version\":1,\"default\":{\"fixed_target\":0,\"rate\":1}}";
    static const char none[] = "{\"version\":1,\"default\":{\"fixed_target\":0,\"rate\":0}}";
    struct config c = with_rules(all);
    lanes_start(&c, 0);
    assert_true(root_is_kept());
    write_rules(none);
    look();
    assert_false(root_is_kept());
    for (int i = 0; i < 10; i++) {
        write_rules(i & 1 ? none : all);
        look();
        assert_int_equal(root_is_kept(), !(i & 1));
        assert_true(!sdk.sampler.retired || !sdk.sampler.retired->next); /* freed at each look */
    }
    look();
    assert_null(sdk.sampler.retired);
    assert_int_equal(n_told, 0);
    lanes_stop();
    lanes_forget();
    unlink(rules_path);
}

static void a_bad_file_is_told_and_the_old_rules_stay(void **state)
{
    struct config c = with_rules("{\"version\":2,\"default\":{\"fixed_target\":0,\"rate\":1}}");
    lanes_start(&c, 0);
    write_rules("{\"version\":2,\n\"default\":\n{\"fixed_target\":0,\"rate\":7}}");
    look();
    look();
    assert_int_equal(n_told, 1);
    assert_non_null(strstr(told, ".json:3: "));
    assert_non_null(strstr(told, "the sampling rules from before stay"));
    assert_true(root_is_kept());
    unlink(rules_path);
    look();
    assert_int_equal(n_told, 2);
    assert_true(root_is_kept());
    assert_int_equal(mkdir(rules_path, 0700), 0);
    look();
    assert_int_equal(n_told, 3);
    assert_int_equal(rmdir(rules_path), 0);
    write_rules("{\"version\":2,\"default\":{\"fixed_target\":0,\"rate\":0}}");
    look();
    assert_int_equal(n_told, 3);
    assert_false(root_is_kept());
    lanes_stop();
    lanes_forget();
    unlink(rules_path);
}

static void without_a_file_one_a_second_and_5_percent_are_kept(void **state)
{
    struct config c = with_rules(NULL);
    uint64_t kept = 0;
    lanes_start(&c, 0);
    assert_int_equal(n_told, 1);
    for (int i = 0; i < 20000; i++)
        kept += root_is_kept();
    expect_about(kept, 20000, 0.05);
    lanes_stop();
    lanes_forget();
}

struct asker {
    pthread_t thread;
    _Atomic bool *over;
    uint64_t asked;
};

static void *ask_on(void *arg)
{
    struct asker *a = arg;
    while (!atomic_load(a->over)) {
        request("POST", "/api/move/1", "x");
        a->asked++;
    }
    return NULL;
}

static void rules_change_while_threads_read_them(void **state)
{
    struct config c = with_rules(shop_rules);
    _Atomic bool over = false;
    struct asker askers[3] = {{0}};
    lanes_start(&c, 0);
    for (int i = 0; i < 3; i++) {
        askers[i].over = &over;
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_on, &askers[i]), 0);
    }
    for (int i = 0; i < 300; i++) {
        write_rules(shop_rules);
        look();
        /* Seldom: the rings are full again at once, and a full one has room for asking. */
        if (i % 100 == 0)
            lanes_drain();
        lanes.n = 0;
    }
    atomic_store(&over, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_true(askers[i].asked > 0);
    }
    look();
    assert_null(sdk.sampler.retired);
    lanes_stop();
    lanes_forget();
    unlink(rules_path);
}

/* As often as old rules are kept, and more. */
static void many_starts_do_not_wear_the_rules_out(void **state)
{
    struct config c = with_rules("{\"version\":2,\"default\":{\"fixed_target\":0,\"rate\":0}}");
    for (int i = 0; i < 80; i++) {
        lanes_start(&c, 0);
        for (int k = 0; k < 3; k++) /* the rules that stand in for a file would keep one a second */
            assert_false(root_is_kept());
        lanes_stop();
        lanes_forget();
    }
    assert_int_equal(n_told, 0);
    unlink(rules_path);
}

static int done(void **state)
{
    sampling_rules_free(atomic_exchange(&sdk.sampler.rules, NULL));
    while (sdk.sampler.retired) {
        struct sampling_rules *next = sdk.sampler.retired->next;
        sampling_rules_free(sdk.sampler.retired);
        sdk.sampler.retired = next;
    }
    memory_free(sdk.parents);
    sdk.parents = NULL;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_are_those_of_the_specification),
        cmocka_unit_test(thresholds_at_the_ends),
        cmocka_unit_test(th_and_rv_are_read),
        cmocka_unit_test(randomness_is_rv_or_the_end_of_the_trace_id),
        cmocka_unit_test(th_is_set_replaced_and_taken_out),
        cmocka_unit_test(a_full_tracestate_loses_its_end_and_not_the_threshold),
        cmocka_unit_test(a_threshold_that_contradicts_the_flag_is_taken_out),
        cmocka_unit_test(a_ratio_is_kept_within_binomial_bounds),
        cmocka_unit_test(what_a_low_rate_keeps_a_higher_one_keeps),
        cmocka_unit_test(the_adjusted_counts_add_up_to_what_there_was),
        cmocka_unit_test(a_rate_lets_through_so_many_a_second),
        cmocka_unit_test(on_and_off),
        cmocka_unit_test(the_threshold_goes_with_every_span_and_out_of_the_process),
        cmocka_unit_test(a_sender_is_followed_when_parent_based),
        cmocka_unit_test(a_sender_is_overruled_when_not),
        cmocka_unit_test(attached_contexts_and_their_roots_come_and_go),
        cmocka_unit_test(a_root_that_finds_no_room_is_counted_with_what_is_below),
        cmocka_unit_test(one_in_n_is_kept_whatever_the_trace_does),
        cmocka_unit_test(what_is_in_a_point_left_out_belongs_to_the_span_around),
        cmocka_unit_test(a_point_alone_has_a_trace_that_is_not_kept),
        cmocka_unit_test(patterns),
        cmocka_unit_test(rules_are_read),
        cmocka_unit_test(bad_rules_are_refused_with_a_reason),
        cmocka_unit_test(a_reservoir_gives_exactly_its_target_each_second),
        cmocka_unit_test(a_reservoir_is_shared_by_threads),
        cmocka_unit_test(rules_decide_by_what_the_root_says),
        cmocka_unit_test(a_changed_file_is_taken_in),
        cmocka_unit_test(a_bad_file_is_told_and_the_old_rules_stay),
        cmocka_unit_test(without_a_file_one_a_second_and_5_percent_are_kept),
        cmocka_unit_test(rules_change_while_threads_read_them),
        cmocka_unit_test(many_starts_do_not_wear_the_rules_out),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
