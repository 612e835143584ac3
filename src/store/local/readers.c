#include "store/local/readers.h"

#include <stdlib.h>

void readers_init(struct readers *readers)
{
    *readers = (struct readers){.n = 0};
    pthread_mutex_init(&readers->lock, NULL);
}

void readers_done(struct readers *readers)
{
    pthread_mutex_destroy(&readers->lock);
}

/* With the lock held: out of both lists. */
static void detach(struct reader *r)
{
    struct readers *all = r->of->all;
    struct reader **at = &r->of->first;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    *(r->older ? &r->older->newer : &all->oldest) = r->newer;
    *(r->newer ? &r->newer->older : &all->newest) = r->older;
    all->n--;
    all->bytes -= r->bytes;
}

static void reader_free(struct reader *r)
{
    segment_close(r->seg);
    free(r);
}

int readers_take(struct readers_of *of, int dir, const char *name, struct segment **ret)
{
    pthread_mutex_lock(&of->all->lock);
    struct reader *r = of->first;
    if (r)
        detach(r);
    pthread_mutex_unlock(&of->all->lock);
    if (!r)
        return segment_open(dir, name, ret);
    *ret = r->seg;
    free(r);
    return 0;
}

void readers_give(struct readers_of *of, struct segment *seg)
{
    struct reader *r = seg && !segment_damage(seg)->code ? malloc(sizeof *r) : NULL;
    struct reader *gone = NULL;
    if (!r) {
        segment_close(seg);
        return;
    }
    struct readers *all = of->all;
    *r = (struct reader){.seg = seg, .bytes = segment_memory(seg), .of = of};
    pthread_mutex_lock(&all->lock);
    r->next = of->first;
    of->first = r;
    r->older = all->newest;
    *(r->older ? &r->older->newer : &all->oldest) = r;
    all->newest = r;
    all->n++;
    all->bytes += r->bytes;
    while (all->n && (all->bytes > READERS_BYTES_MAX || all->n > READERS_MAX)) {
        struct reader *oldest = all->oldest;
        detach(oldest);
        oldest->next = gone;
        gone = oldest;
    }
    pthread_mutex_unlock(&all->lock);
    while (gone) {
        struct reader *next = gone->next;
        reader_free(gone);
        gone = next;
    }
}

void readers_drop(struct readers_of *of)
{
    if (!of->all)
        return;
    for (;;) {
        pthread_mutex_lock(&of->all->lock);
        struct reader *r = of->first;
        if (r)
            detach(r);
        pthread_mutex_unlock(&of->all->lock);
        if (!r)
            return;
        reader_free(r);
    }
}
