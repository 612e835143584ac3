/* Channels as a program uses them, and what it must find in the trace: for measure_test.py. */
#include <pugmark/channel.h>
#include <pugmark/pugmark.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct job {
    int number;
};

static struct pug_channel *channel(const char *name, size_t capacity, unsigned spans)
{
    struct pug_channel_options o = {sizeof o, name, sizeof(struct job), capacity, NULL,
                                    NULL,     spans};
    struct pug_channel *c = NULL;
    if (pug_channel_new(&o, &c) != 0)
        exit(3);
    return c;
}

static void *works(void *arg)
{
    struct pug_channel *c = (struct pug_channel *)arg;
    struct job job;
    struct pug_context from;
    while (pug_channel_recv(c, &job, PUG_FOREVER, &from) == 0) {
        PUG_SPAN_FROM(&from, "work", PUG_INT("number", job.number));
    }
    return NULL;
}

static void send(struct pug_channel *c, int number)
{
    struct job job = {number};
    PUG_SPAN("request", PUG_INT("number", number));
    if (pug_channel_send(c, &job, PUG_FOREVER) != 0)
        exit(4);
}

static void recv_inside(struct pug_channel *c)
{
    struct job job;
    PUG_SPAN("loop");
    if (pug_channel_recv(c, &job, 10000, NULL) != 0)
        exit(5);
}

static void nap(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

int main(int argc, char **argv)
{
    struct job job = {0};
    pthread_t worker;
    struct pug_context from;
    if (pug_start(NULL) != 0)
        return 2;
    if (argc > 1) { /* for that many milliseconds nothing happens */
        nap(atoi(argv[1]));
        return pug_stop() != 0;
    }
    struct pug_channel *status = channel("status", 4, 0);
    if (pthread_create(&worker, NULL, works, status) != 0)
        return 3;
    for (int i = 0; i < 3; i++)
        send(status, i);
    pug_channel_close(status);
    pthread_join(worker, NULL);

    struct pug_channel *inside = channel("inside", 4, PUG_CHANNEL_ALL_SPANS);
    send(inside, 7);
    recv_inside(inside);

    struct pug_channel *full = channel("full", 1, PUG_CHANNEL_ALL_SPANS);
    for (int i = 0; i < 3; i++)
        (void)!pug_channel_try_send(full, &job);

    /* No spans of its own: the sender's span is what the message comes from. */
    struct pug_channel *quiet = channel("quiet", 4, PUG_CHANNEL_NO_SPANS);
    send(quiet, 9);
    if (pug_channel_try_recv(quiet, &job, &from) != 0)
        return 5;
    {
        PUG_SPAN_FROM(&from, "quiet.work");
    }
    /* A tracestate travels along. */
    struct pug_context remote;
    pug_context_from_hex(&remote, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    remote.flags = PUG_FLAG_SAMPLED;
    memcpy(remote.tracestate, "vendor=value", 12);
    remote.tracestate_len = 12;
    {
        PUG_ATTACH(&remote);
        (void)!pug_channel_try_send(quiet, &job);
    }
    if (pug_channel_try_recv(quiet, &job, &from) != 0 || from.tracestate_len != 12)
        return 6;
    {
        PUG_SPAN_FROM(&from, "remote.work");
    }
    /* Ten a second, and a burst of ten: of many messages, few have spans, and all are counted. */
    struct pug_channel *busy = channel("busy", 1, 10);
    for (int i = 0; i < 2000; i++)
        if (pug_channel_send(busy, &job, 1000) != 0 || pug_channel_try_recv(busy, &job, NULL) != 0)
            return 7;
    struct pug_channel_counts counts = {sizeof counts, 0, 0, 0};
    pug_channel_counts_read(busy, &counts);
    printf("busy %llu %llu %llu\n", (unsigned long long)counts.sent,
           (unsigned long long)counts.received, (unsigned long long)counts.dropped);
    /* Four times what a channel may spend at once when nothing is said. */
    struct pug_channel *usual = channel("usual", 1, 0);
    for (int i = 0; i < 4 * PUG_CHANNEL_SPANS_DEFAULT; i++)
        if (pug_channel_try_send(usual, &job) != 0 || pug_channel_try_recv(usual, &job, NULL) != 0)
            return 8;
    printf("default %d\n", PUG_CHANNEL_SPANS_DEFAULT);
    pug_channel_free(usual);
    pug_channel_free(status);
    pug_channel_free(inside);
    pug_channel_free(full);
    pug_channel_free(quiet);
    pug_channel_free(busy);
    return pug_stop() != 0;
}
