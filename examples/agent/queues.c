#include "queues.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/channel.h>

#define SEND_MS 1000

struct status {
    char what[64];
};
struct measurement {
    enum metric which;
    int64_t more;
};
struct change {
    char what[64];
};
struct question {
    const char *text;
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done, yes;
};

static struct pug_channel *status_tx, *metrics_rx, *elicitation_tx, *skill_reload_rx,
    *config_reload_rx, *cancel_signal;
static pthread_t status_thread, metrics_thread, elicitation_thread;
static bool show;
static bool (*ask_person)(const char *question);
static int64_t totals[N_METRICS]; /* of metrics_thread, until it has ended */
static atomic_bool cancelling, got_cancel[N_CANCELLED];

static struct pug_channel *channel_new(const char *name, size_t element_bytes, size_t capacity)
{
    struct pug_channel_options options = {
        .size = sizeof options, .name = name, .element_bytes = element_bytes, .capacity = capacity};
    struct pug_channel *channel;
    int err = pug_channel_new(&options, &channel);
    if (err)
        die("no queue: %s", pug_error_text(err));
    return channel;
}

/* ---- who receives ---- */

static void *show_status(void *arg)
{
    struct status s;
    (void)arg;
    while (pug_channel_recv(status_tx, &s, PUG_FOREVER, NULL) == 0)
        if (show)
            fprintf(stderr, "  (%s)\n", s.what);
    return NULL;
}

static void *add_up(void *arg)
{
    struct measurement m;
    (void)arg;
    while (pug_channel_recv(metrics_rx, &m, PUG_FOREVER, NULL) == 0)
        totals[m.which] += m.more;
    return NULL;
}

static void *ask_questions(void *arg)
{
    struct question *q;
    struct pug_context from;
    (void)arg;
    while (pug_channel_recv(elicitation_tx, &q, PUG_FOREVER, &from) == 0) {
        bool yes;
        {
            PUG_ATTACH(&from); /* what is done to ask is part of the turn that asked */
            yes = ask_person(q->text);
        }
        pthread_mutex_lock(&q->lock);
        q->yes = yes;
        q->done = true;
        pthread_cond_signal(&q->answered);
        pthread_mutex_unlock(&q->lock);
    }
    return NULL;
}

/* ---- start and stop ---- */

void queues_start(bool show_them, bool (*ask)(const char *question))
{
    show = show_them;
    ask_person = ask;
    status_tx = channel_new("status", sizeof(struct status), 64);
    metrics_rx = channel_new("metrics", sizeof(struct measurement), 256);
    elicitation_tx = channel_new("elicitation", sizeof(struct question *), 4);
    skill_reload_rx = channel_new("skill_reload", sizeof(struct change), 64);
    config_reload_rx = channel_new("config_reload", sizeof(struct change), 16);
    cancel_signal = channel_new("cancel", sizeof(char), N_CANCELLED);
    if (pthread_create(&status_thread, NULL, show_status, NULL) != 0 ||
        pthread_create(&metrics_thread, NULL, add_up, NULL) != 0 ||
        pthread_create(&elicitation_thread, NULL, ask_questions, NULL) != 0)
        die("no threads");
}

void queues_stop(void)
{
    struct pug_channel *all[] = {status_tx,       metrics_rx,       elicitation_tx,
                                 skill_reload_rx, config_reload_rx, cancel_signal};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        pug_channel_close(all[i]);
    pthread_join(status_thread, NULL);
    pthread_join(metrics_thread, NULL);
    pthread_join(elicitation_thread, NULL);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        pug_channel_free(all[i]);
}

int64_t queues_total(enum metric which)
{
    return totals[which];
}

/* ---- who sends ---- */

void queues_status(const char *what)
{
    struct status s = {""};
    snprintf(s.what, sizeof s.what, "%s", what);
    pug_channel_try_send(status_tx, &s); /* who shows it may miss one */
}

void queues_measure(enum metric which, int64_t more)
{
    struct measurement m = {.which = which, .more = more};
    pug_channel_send(metrics_rx, &m, SEND_MS); /* who adds up may not */
}

bool queues_elicit(const char *question)
{
    struct question q = {
        .text = question, .lock = PTHREAD_MUTEX_INITIALIZER, .answered = PTHREAD_COND_INITIALIZER};
    struct question *message = &q;
    if (pug_channel_send(elicitation_tx, &message, SEND_MS) != 0)
        return false;
    pthread_mutex_lock(&q.lock);
    while (!q.done)
        pthread_cond_wait(&q.answered, &q.lock);
    pthread_mutex_unlock(&q.lock);
    return q.yes;
}

void queues_changed(const char *skill)
{
    struct change c = {""};
    snprintf(c.what, sizeof c.what, "%s", skill);
    /* When it is full, a change is waiting there already. */
    pug_channel_try_send(*skill ? skill_reload_rx : config_reload_rx, &c);
}

static bool take_changes(struct pug_channel *channel, int timeout_ms)
{
    struct change c;
    bool any = timeout_ms > 0 ? pug_channel_recv(channel, &c, (unsigned)timeout_ms, NULL) == 0
                              : pug_channel_try_recv(channel, &c, NULL) == 0;
    while (any && pug_channel_try_recv(channel, &c, NULL) == 0)
        ;
    return any;
}

bool queues_skill_reload(int timeout_ms)
{
    return take_changes(skill_reload_rx, timeout_ms);
}

bool queues_config_reload(int timeout_ms)
{
    return take_changes(config_reload_rx, timeout_ms);
}

void queues_cancel(void)
{
    char message = 0;
    if (atomic_exchange(&cancelling, true))
        return;
    for (int i = 0; i < N_CANCELLED; i++)
        pug_channel_try_send(cancel_signal, &message);
}

bool queues_cancelled(enum cancelled who)
{
    char message;
    if (!atomic_load(&got_cancel[who]) && pug_channel_try_recv(cancel_signal, &message, NULL) == 0)
        atomic_store(&got_cancel[who], true);
    return atomic_load(&got_cancel[who]);
}
