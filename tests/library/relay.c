/* A program around a queue, in two ways: with channels, compiled with -DPUG_DISABLE, and with the plain
 * queue. measure_test.py compares their code. */
#ifdef PUG_DISABLE
#include <pugmark/channel.h>
#define QUEUE pug_channel
#define NEW(q)                                                                                     \
    do {                                                                                           \
        struct pug_channel_options o = {sizeof o,   "jobs", sizeof(struct job), 100, "jobs.put",   \
                                        "jobs.get", 5};                                            \
        code = pug_channel_new(&o, q);                                                             \
    } while (0)
#define RECV(q, e, timeout) pug_channel_recv(q, e, timeout, NULL)
#define TRY_RECV(q, e) pug_channel_try_recv(q, e, NULL)
#define CALL(name) pug_channel_##name
#else
#include <pugmark/queue.h>
#define QUEUE pug_queue
#define NEW(q) code = pug_queue_new(sizeof(struct job), 100, q)
#define RECV(q, e, timeout) pug_queue_recv(q, e, timeout)
#define TRY_RECV(q, e) pug_queue_try_recv(q, e)
#define CALL(name) pug_queue_##name
#endif

struct job {
    int number;
    char text[60];
};

int relay_open(struct QUEUE **q);
int relay_put(struct QUEUE *q, const struct job *job);
int relay_get(struct QUEUE *q, struct job *job);
void relay_close(struct QUEUE *q);

int relay_open(struct QUEUE **q)
{
    int code;
    NEW(q);
    return code;
}

int relay_put(struct QUEUE *q, const struct job *job)
{
    return job->number ? CALL(send)(q, job, 100) : CALL(try_send)(q, job);
}

int relay_get(struct QUEUE *q, struct job *job)
{
    int code = TRY_RECV(q, job);
    return code ? RECV(q, job, PUG_FOREVER) : code;
}

void relay_close(struct QUEUE *q)
{
    CALL(close)(q);
    CALL(free)(q);
}
