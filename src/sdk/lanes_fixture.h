/* For tests: lanes and an assembler, with the drain's steps made by hand, and a list of what came out. */
#ifndef SDK_LANES_FIXTURE_H
#define SDK_LANES_FIXTURE_H

#include "base/test.h"
#include "sdk/sdk.h"
#include "sdk/span.h"
#include "sdk/watch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LANES_SEEN_MAX 65536

static struct lanes {
    struct memory *memory;
    struct config config;
    struct ticks ticks;
    struct assembler *assembler;
    struct arena arena; /* of the strings in `seen` */
    struct span *seen;
    size_t n;
} lanes;

static void lanes_collect(void *user, const struct taken_batch *batch)
{
    for (size_t i = 0; i < batch->spans.n && lanes.n < LANES_SEEN_MAX; i++) {
        struct span *s = &lanes.seen[lanes.n++];
        *s = batch->spans.spans[i];
        s->name = arena_str(&lanes.arena, s->name);
        s->trace_state = arena_str(&lanes.arena, s->trace_state);
        struct attr *attrs = arena_array(&lanes.arena, s->attrs.n, sizeof *attrs);
        for (uint32_t k = 0; k < s->attrs.n; k++) {
            attrs[k] = s->attrs.items[k];
            attrs[k].key = arena_str(&lanes.arena, attrs[k].key);
            if (attrs[k].value.type == VALUE_STRING)
                attrs[k].value.string = arena_str(&lanes.arena, attrs[k].value.string);
        }
        s->attrs.items = attrs;
    }
}

static void lanes_left(void *lane)
{
    pug__lane_1 = NULL;
    lane_leave_thread(lane);
}

/* `reasons`: of watch.h. `sampler`: as in struct config, NULL for always on. */
static void lanes_start(const struct config *config, unsigned reasons)
{
    static bool have_key;
    memset(&lanes, 0, sizeof lanes);
    if (config)
        lanes.config = *config;
    else
        lanes.config.sampler.parent_based = true;
    lanes.config.backend = PUG_BACKEND_LOCAL;
    lanes.seen = calloc(LANES_SEEN_MAX, sizeof *lanes.seen);
    if (!have_key)
        assert_int_equal(pthread_key_create(&sdk.key, lanes_left), 0);
    have_key = true;
    assert_int_equal(memory_new(1u << 20, ticks_source(), sdk.parents, &lanes.memory), 0);
    assert_int_equal(memory_prepare(lanes.memory, 4), 0);
    assert_true(ticks_init(&lanes.ticks, lanes.memory->clock));
    assert_int_equal(assembler_new(lanes.memory, &lanes.config, &lanes.ticks, lanes_collect, NULL,
                                   &lanes.assembler),
                     0);
    nanosleep(&(struct timespec){.tv_nsec = 1500000}, NULL); /* the clocks need a distance */
    sampler_start(&sdk.sampler, &lanes.config, lanes.memory);
    memory_ask(lanes.memory, sampler_is_needed(&sdk.sampler));
    watch_set(lanes.memory, reasons);
    atomic_store(&sdk.memory, lanes.memory);
    atomic_fetch_add(&sdk.epoch, 1);
    atomic_store(&sdk.state, SDK_ON);
    pug__on_1 = PUG__ON_SPANS;
}

/* A round of the drain. */
static void lanes_drain(void)
{
    uint32_t n = atomic_load(&lanes.memory->n_lanes);
    ticks_update(&lanes.ticks, &lanes.memory->head->clock);
    for (uint32_t i = 0; i < n; i++) {
        struct lane_reader *r = assembler_reader(lanes.assembler, i);
        r->head = __atomic_load_n(&r->lane->fast.head, __ATOMIC_ACQUIRE);
        assembler_lane(lanes.assembler, r);
    }
    assembler_round(lanes.assembler);
    assembler_flush(lanes.assembler);
}

/* Recording is over; `lanes.seen` has all of it. */
static void lanes_stop(void)
{
    pug__on_1 = 0;
    lanes_drain();
    lanes_drain(); /* handles are held back for a round */
    watch_set(lanes.memory, 0);
    assembler_free(lanes.assembler);
    pug__lane_1 = NULL;
    pthread_setspecific(sdk.key, NULL);
    atomic_store(&sdk.state, SDK_OFF);
    atomic_store(&sdk.memory, NULL);
    /* The numbers of the sites stay in this program's statics: the next memory takes them over. */
    if (sdk.parents)
        memory_free(sdk.parents);
    sdk.parents = lanes.memory;
    atomic_store(&sdk.sampler.kind, SAMPLER_ALWAYS_ON);
    atomic_store(&sdk.sampler.ignores_sender, false);
}

static void lanes_forget(void)
{
    ticks_done(&lanes.ticks);
    free(lanes.seen);
    arena_done(&lanes.arena);
    memset(&lanes, 0, sizeof lanes);
}

__attribute__((unused)) static const struct span *lanes_find(const char *name)
{
    for (size_t i = 0; i < lanes.n; i++)
        if (str_eq(lanes.seen[i].name, str_from(name)))
            return &lanes.seen[i];
    fail_msg("no span %s among %zu", name, lanes.n);
    return NULL;
}

__attribute__((unused)) static const struct value *lanes_attr(const struct span *s, const char *key)
{
    for (uint32_t i = 0; i < s->attrs.n; i++)
        if (str_eq(s->attrs.items[i].key, str_from(key)))
            return &s->attrs.items[i].value;
    return NULL;
}

#endif
