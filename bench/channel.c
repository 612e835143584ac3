/* What it costs that a channel tells how it is doing: pug_channel against pug_queue, the same queue
 * without, in a program where each message is worked on.
 *
 * One thread sends as fast as it can, one receives and works on each message for some microseconds
 * (it hashes a block, which stays in its core's cache). Sender and receiver have a core each. Between
 * them is, in turns,
 *
 *     queue      pug_queue: the uninstrumented twin
 *     off        pug_channel, before tracing was started
 *     counts     tracing on, no spans: sums, depth, waits, context
 *     default    tracing on, 1000 spans a second
 *     all        tracing on, spans around each send and each receive
 *
 * Rounds of all kinds take turns; what is compared is the processor's time of both threads for a
 * message, round by round, because that is not changed by who waited for whom; medians of the
 * pairs. The drain's time is in it while tracing is on. `bare` is the same with no work and one
 * thread, ns for a send and its receive: what is added to a message, whatever the work. */
#include "pugmark/channel.h"
#include "report.h"

#include "base/clock.h"
#include "base/hash.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    MESSAGES = 20000, /* a tenth of a second: the flush at its end is no part of what is compared */
    ROUNDS = 21,
    BARE = 20000,
    WORK_BYTES = 8000,
    WORK_TIMES = 5,
    CAPACITY = 256
};

enum way { WAY_QUEUE, WAY_OFF, WAY_COUNTS, WAY_DEFAULT, WAY_ALL, WAYS };

static const char *const names[WAYS] = {"queue", "channel, tracing off", "channel, counts only",
                                        "channel, 1000 spans a second",
                                        "channel, spans of every message"};

struct message {
    uint64_t number, text[3];
};

struct pipe {
    enum way way;
    struct pug_queue *queue;
    struct pug_channel *channel;
    const char *block;
    uint64_t sum;
};

static void fail(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static void pipe_open(struct pipe *p, enum way way)
{
    struct pug_channel_options o = {.size = sizeof o,
                                    .element_bytes = sizeof(struct message),
                                    .capacity = CAPACITY,
                                    .name = names[way]};
    o.spans_per_second = way == WAY_COUNTS ? PUG_CHANNEL_NO_SPANS
                         : way == WAY_ALL  ? PUG_CHANNEL_ALL_SPANS
                                           : 0;
    *p = (struct pipe){.way = way};
    if (way == WAY_QUEUE ? pug_queue_new(o.element_bytes, CAPACITY, &p->queue) != 0
                         : pug_channel_new(&o, &p->channel) != 0)
        fail("no queue");
}

static void pipe_free(struct pipe *p)
{
    pug_queue_free(p->queue);
    pug_channel_free(p->channel);
}

static void pipe_send(struct pipe *p, const struct message *m)
{
    if (p->queue ? pug_queue_send(p->queue, m, PUG_FOREVER) != 0
                 : pug_channel_send(p->channel, m, PUG_FOREVER) != 0)
        fail("not sent");
}

static bool pipe_recv(struct pipe *p, struct message *ret)
{
    struct pug_context from;
    return (p->queue ? pug_queue_recv(p->queue, ret, PUG_FOREVER)
                     : pug_channel_recv(p->channel, ret, PUG_FOREVER, &from)) == 0;
}

/* ---- with work ---- */

static int last_core(void)
{
    return (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
}

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void *works(void *arg)
{
    struct pipe *p = arg;
    struct message m;
    stay_on(last_core());
    for (int i = 0; i < MESSAGES && pipe_recv(p, &m); i++)
        for (int k = 0; k < WORK_TIMES; k++)
            p->sum += hash_bytes_seed(p->block, WORK_BYTES, m.number + p->sum);
    return NULL;
}

/* The processor's time of the process for a message, in ns. */
static double round_of(enum way way, const char *block)
{
    struct pipe p;
    pthread_t worker;
    pipe_open(&p, way);
    p.block = block;
    uint64_t begun = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    if (pthread_create(&worker, NULL, works, &p) != 0)
        fail("no thread");
    for (uint64_t i = 0; i < MESSAGES; i++)
        pipe_send(&p, &(struct message){.number = i});
    pthread_join(worker, NULL);
    if (way >= WAY_DEFAULT && pug_flush(20000) != 0) /* what its spans cost the drain is its own */
        fail("not flushed");
    double ns = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begun) / MESSAGES;
    pipe_free(&p);
    return ns;
}

static double bare_of(enum way way)
{
    struct pipe p;
    struct message m = {.number = 1};
    pipe_open(&p, way);
    uint64_t begun = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < BARE; i++) {
        pipe_send(&p, &m);
        if (!pipe_recv(&p, &m))
            fail("not received");
    }
    double ns = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun) / BARE;
    pipe_free(&p);
    return ns;
}

/* ---- rounds ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values)
{
    double sorted[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        sorted[i] = values[i];
    qsort(sorted, ROUNDS, sizeof sorted[0], by_value);
    return sorted[ROUNDS / 2];
}

/* Of the pairs: what `values` is more than its neighbour in `base`. */
static double median_more(const double *values, const double *base)
{
    double more[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        more[i] = values[i] / base[i] - 1;
    return median(more);
}

static void start(void)
{
    struct pug_options o = {.size = sizeof o,
                            .tracing = PUG_TRACING_ON,
                            .backend = PUG_BACKEND_DISCARD,
                            .ring_bytes = 8u << 20};
    if (pug_start(&o) != 0 || !pug_on())
        fail("tracing did not start");
}

static double values[WAYS][ROUNDS], base[WAYS][ROUNDS], bare[WAYS][ROUNDS];

static void measure(const char *block, enum way from, enum way to)
{
    for (int round = -1; round < ROUNDS; round++) { /* the first one only warms up */
        for (enum way way = from; way <= to; way++) {
            double twin[2];
            /* Twin, way, twin: what drifts meanwhile falls out. */
            twin[0] = round_of(WAY_QUEUE, block);
            double mine = round_of(way, block);
            twin[1] = round_of(WAY_QUEUE, block);
            double bare_ns = bare_of(way);
            if (round < 0)
                continue;
            values[way][round] = mine;
            base[way][round] = (twin[0] + twin[1]) / 2;
            bare[way][round] = bare_ns;
        }
    }
}

int main(void)
{
    struct report *report = report_new("channel");
    char *block = malloc(WORK_BYTES);
    if (!block)
        return 1;
    for (size_t i = 0; i < WORK_BYTES; i++)
        block[i] = (char)i;
    stay_on(0);
    report_machine(report, "cores", "sender and the library's threads on 0, receiver on %d",
                   last_core());
    measure(block, WAY_QUEUE, WAY_OFF);
    start();
    measure(block, WAY_COUNTS, WAY_ALL);
    for (enum way way = WAY_QUEUE; way < WAYS; way++) {
        char what[80];
        snprintf(what, sizeof what, "message, %s", names[way]);
        report_row(report, what, median(values[way]), "ns");
        if (way != WAY_QUEUE)
            report_ratio(report, "queue",
                         median(values[way]) / (1 + median_more(values[way], base[way])));
        if (way != WAY_QUEUE) {
            snprintf(what, sizeof what, "more than queue, %s", names[way]);
            report_row(report, what, 100 * median_more(values[way], base[way]), "%");
        }
        snprintf(what, sizeof what, "bare send and receive, %s", names[way]);
        report_row(report, what, median(bare[way]), "ns");
        if (way != WAY_QUEUE)
            report_ratio(report, "queue", median(bare[WAY_QUEUE]));
    }
    pug_stop();
    free(block);
    return report_finish(report);
}
