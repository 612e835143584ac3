#include "web/web_internal.h"

#include <stdlib.h>

enum { STACK_BYTES = 1 << 20 };

struct job {
    pool_fn *fn;
    void *arg;
};

struct pool {
    pthread_mutex_t lock; /* of all below but the threads */
    pthread_cond_t more;
    struct job *ring;
    unsigned ring_size, first, n;
    bool ending;
    unsigned n_threads;
    pthread_t threads[];
};

static void *work(void *arg)
{
    struct pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->n && !pool->ending)
            pthread_cond_wait(&pool->more, &pool->lock);
        if (!pool->n)
            break;
        struct job job = pool->ring[pool->first];
        pool->first = (pool->first + 1) % pool->ring_size;
        pool->n--;
        bool ending = pool->ending;
        pthread_mutex_unlock(&pool->lock);
        job.fn(job.arg, ending);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

int pool_new(unsigned threads, unsigned queue_max, struct pool **ret)
{
    struct pool *pool = calloc(1, sizeof *pool + threads * sizeof(pthread_t));
    if (!pool)
        return ERR_NOMEM;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    pool->ring_size = queue_max;
    pool->ring = calloc(queue_max, sizeof *pool->ring);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    while (pool->ring && pool->n_threads < threads &&
           !pthread_create(&pool->threads[pool->n_threads], &attr, work, pool))
        pool->n_threads++;
    pthread_attr_destroy(&attr);
    if (pool->n_threads < threads) {
        pool_free(pool);
        return ERR_NOMEM;
    }
    *ret = pool;
    return 0;
}

bool pool_put(struct pool *pool, pool_fn *fn, void *arg)
{
    pthread_mutex_lock(&pool->lock);
    bool fits = pool->n < pool->ring_size && !pool->ending;
    if (fits) {
        pool->ring[(pool->first + pool->n++) % pool->ring_size] = (struct job){fn, arg};
        pthread_cond_signal(&pool->more);
    }
    pthread_mutex_unlock(&pool->lock);
    return fits;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_threads; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
    free(pool->ring);
    free(pool);
}
