/* Allocates known amounts in spans, and says what it did: for measure_test.py. */
#include <pugmark/alloc.h>
#include <pugmark/channel.h>
#include <pugmark/pugmark.h>

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The compiler must not see that what is allocated is only freed. */
static void *volatile kept[64];

struct sums {
    uint64_t alloc_count, alloc_bytes, dealloc_count, dealloc_bytes;
};

static void say(const char *name, struct sums s)
{
    printf("%s %llu %llu %llu %llu\n", name, (unsigned long long)s.alloc_count,
           (unsigned long long)s.alloc_bytes, (unsigned long long)s.dealloc_count,
           (unsigned long long)s.dealloc_bytes);
}

static void *get(struct sums *s, void *p)
{
    if (!p)
        exit(3);
    s->alloc_count++;
    s->alloc_bytes += malloc_usable_size(p);
    return p;
}

static void put(struct sums *s, void *p)
{
    s->dealloc_count++;
    s->dealloc_bytes += malloc_usable_size(p);
    free(p);
}

static struct sums family(void)
{
    struct sums s = {0, 0, 0, 0};
    void *p = NULL;
    PUG_SPAN("family");
    kept[0] = get(&s, malloc(100));
    kept[1] = get(&s, calloc(10, 100));
    kept[2] = get(&s, aligned_alloc(64, 640));
    if (posix_memalign(&p, 4096, 5000) != 0)
        exit(3);
    kept[3] = get(&s, p);
    kept[4] = get(&s, memalign(256, 300));
    kept[5] = get(&s, valloc(10));
    kept[6] = get(&s, pvalloc(10));
    kept[7] = get(&s, realloc(NULL, 50));
    kept[8] = get(&s, reallocarray(NULL, 7, 9));
    kept[9] = get(&s, strdup("a string that a function of libc allocates"));
    for (int i = 0; i < 10; i++)
        put(&s, kept[i]);
    free(NULL);
    /* What fails is not counted, and leaves the errno of the allocator. */
    errno = 0;
    kept[0] = malloc(SIZE_MAX / 2);
    kept[1] = calloc(SIZE_MAX / 2, 8);
    kept[2] = reallocarray(NULL, SIZE_MAX / 2, 8);
    if (kept[0] || kept[1] || kept[2] || errno != ENOMEM || posix_memalign(&p, 3, 10) != EINVAL)
        exit(4);
    return s;
}

/* By the rule that alloc.c states. */
static void resize(struct sums *s, void **p, size_t n)
{
    size_t had = malloc_usable_size(*p);
    uintptr_t was = (uintptr_t)*p;
    *p = realloc(*p, n);
    size_t has = malloc_usable_size(*p);
    if ((uintptr_t)*p != was) {
        s->dealloc_count++;
        s->dealloc_bytes += had;
        s->alloc_count++;
        s->alloc_bytes += has;
    } else if (has > had) {
        s->alloc_count++;
        s->alloc_bytes += has - had;
    } else if (has < had) {
        s->dealloc_count++;
        s->dealloc_bytes += had - has;
    }
}

static struct sums resizing(void)
{
    struct sums s = {0, 0, 0, 0};
    PUG_SPAN("resizing");
    void *p = get(&s, malloc(10)), *q = get(&s, malloc(1000));
    for (size_t n = 20; n < 3000000; n = n * 3 + 7) {
        resize(&s, &p, n);
        resize(&s, &q, n / 2 + 1);
    }
    for (size_t n = 2000000; n > 30; n /= 5)
        resize(&s, &p, n);
    kept[0] = p;
    kept[1] = q;
    put(&s, p);
    s.dealloc_count++; /* realloc to nothing frees */
    s.dealloc_bytes += malloc_usable_size(q);
    if (realloc(q, 0) != NULL)
        exit(5);
    return s;
}

static struct sums inner(struct sums *outer)
{
    struct sums s = {0, 0, 0, 0};
    PUG_SPAN("inner");
    kept[20] = get(&s, malloc(500));
    kept[21] = get(&s, malloc(70));
    put(&s, kept[21]);
    outer->alloc_count += s.alloc_count;
    outer->alloc_bytes += s.alloc_bytes;
    outer->dealloc_count += s.dealloc_count;
    outer->dealloc_bytes += s.dealloc_bytes;
    return s;
}

static void nested(void)
{
    struct sums s = {0, 0, 0, 0}, in;
    {
        PUG_SPAN("outer");
        kept[22] = get(&s, malloc(33));
        in = inner(&s);
        put(&s, kept[22]);
    }
    say("inner", in);
    say("outer", s);
    free(kept[20]); /* after its span: nobody's */
}

static void *of_another_thread(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++) {
        void *p = malloc(1000);
        kept[30] = p;
        free(p);
    }
    return NULL;
}

/* Only what the thread itself does, and what pthread_create does on it. */
static void threads(void)
{
    pthread_t t;
    struct pug_alloc_counts before, after;
    PUG_SPAN("threads");
    pug_alloc_counts_read(&before);
    if (pthread_create(&t, NULL, of_another_thread, NULL) != 0)
        exit(6);
    pthread_join(t, NULL);
    pug_alloc_counts_read(&after);
    say("threads", (struct sums){after.alloc_count - before.alloc_count,
                                 after.alloc_bytes - before.alloc_bytes,
                                 after.dealloc_count - before.dealloc_count,
                                 after.dealloc_bytes - before.dealloc_bytes});
}

/* The library's own allocations are not the program's. */
static void of_the_library(void)
{
    struct pug_channel_options o = {.size = sizeof o, .element_bytes = 8, .capacity = 100};
    struct pug_channel *c;
    uint64_t v = 0;
    PUG_SPAN("library");
    if (pug_channel_new(&o, &c) != 0 || pug_channel_send(c, &v, 0) != 0 || pug_flush(10000) != 0)
        exit(7);
    pug_channel_free(c);
    pug_event(PUG_CURRENT, "nothing is allocated");
}

static jmp_buf out;

static void jumps(void)
{
    PUG_SPAN("jumped.over"); /* its end never runs */
    kept[40] = malloc(10);
    longjmp(out, 1);
}

/* Ends that do not match their begins. */
static void mismatched(void)
{
    struct sums s = {0, 0, 0, 0};
    struct pug_span handle;
    PUG_SPAN("mismatched");
    pug_span_start(&handle, "handle");
    kept[41] = get(&s, malloc(77));
    if (setjmp(out) == 0)
        jumps();
    get(&s, kept[40]);
    pug_span_end(&handle);
    pug_span_end(&handle); /* once more than it began */
    put(&s, kept[41]);
    put(&s, kept[40]);
    {
        pug_attachment none = pug_context_attach(NULL);
        pug_context_detach(none); /* nothing was attached */
    }
    say("mismatched", s);
}

static void forked(void)
{
    struct sums s = {0, 0, 0, 0};
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        {
            PUG_SPAN("child");
            kept[50] = get(&s, malloc(123));
            put(&s, kept[50]);
        }
        say("child", s);
        exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void deep(int depth)
{
    PUG_SPAN("deep");
    kept[51] = malloc(16);
    free(kept[51]);
    if (depth)
        deep(depth - 1);
}

int main(void)
{
    struct pug_alloc_counts counts;
    struct pug_counts recorded = {.size = sizeof recorded};
    if (pug_start(NULL) != 0)
        return 2;
    printf("counted %d\n", pug_alloc_counts_read(&counts) == 0);
    say("family", family());
    say("resizing", resizing());
    nested();
    threads();
    of_the_library();
    mismatched();
    forked();
    deep(600); /* deeper than slots go */
    if (pug_stop() != 0)
        return 2;
    pug_counts_read(&recorded);
    printf("lost %llu\n", (unsigned long long)recorded.lost_depth);
    return 0;
}
