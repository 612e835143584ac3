/* What it costs that every span says what it allocated, in a program that does little but allocate.
 *
 * The program (this one, run again) parses JSON documents into trees with jansson, changes them, writes
 * them out and frees them: one span for each document, a child for each of the steps, some hundred
 * allocations a document. It runs as it is, and with libpugmark-alloc preloaded and alloc_tracking on,
 * in turns; tracing is on both times. What is compared is the processor's time of the process for a
 * document; medians of many pairs of short runs, for where the kernel puts a process makes more of a
 * difference than what is measured. The interval beside the median is that which holds it with 95 %
 * (order statistics: the binomial distribution says which of the sorted values). `pair` is a malloc
 * and its free and nothing else. */
#include "pugmark/pugmark.h"
#include "report.h"

#include "base/clock.h"

#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 101, DOCUMENTS = 2000, ITEMS = 24, PAIRS = 400000 };

struct result {
    double document_ns, pair_ns, idle_span_ns;
    int counted;
};

static void fail(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

/* ---- the program ---- */

static char *document_text(void)
{
    json_t *root = json_object(), *items = json_array();
    for (int i = 0; i < ITEMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "item number %d", i);
        json_array_append_new(items, json_pack("{s:i, s:s, s:f, s:[s,s,s]}", "id", i, "name", name,
                                               "price", i * 1.25, "tags", "red", "round", "new"));
    }
    json_object_set_new(root, "items", items);
    json_object_set_new(root, "customer", json_string("somebody"));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

static json_t *parse(const char *text)
{
    PUG_SPAN("document.parse");
    return json_loads(text, 0, NULL);
}

static void change(json_t *root)
{
    PUG_SPAN("document.change");
    size_t i;
    json_t *item, *total = json_array();
    json_array_foreach(json_object_get(root, "items"), i, item)
    {
        double price = json_number_value(json_object_get(item, "price"));
        json_object_set_new(item, "gross", json_real(price * 1.19));
        json_array_append_new(total, json_real(price));
    }
    json_object_set_new(root, "prices", total);
}

static size_t write_out(json_t *root)
{
    PUG_SPAN("document.write");
    char *text = json_dumps(root, JSON_COMPACT);
    size_t n = strlen(text);
    free(text);
    return n;
}

static size_t document(const char *text)
{
    PUG_SPAN("document");
    json_t *root = parse(text);
    change(root);
    size_t n = write_out(root);
    json_decref(root);
    return n;
}

static double cpu_ns(uint64_t since)
{
    return (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - since);
}

static int program(void)
{
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    struct result r = {.counted = 0};
    char *text = document_text();
    size_t sum = 0;
    if (!text || pug_start(&o) != 0 || !pug_on())
        return 1;
    for (int i = 0; i < DOCUMENTS / 10; i++)
        sum += document(text);
    uint64_t begun = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < DOCUMENTS; i++)
        sum += document(text);
    if (pug_flush(20000) != 0)
        return 1;
    r.document_ns = cpu_ns(begun) / DOCUMENTS;
    begun = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < PAIRS; i++) {
        void *volatile p = malloc(48);
        free(p);
    }
    r.pair_ns = cpu_ns(begun) / PAIRS;
    begun = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < PAIRS / 20; i++) {
        PUG_SPAN("nothing");
        if (i % 4000 == 0 && pug_flush(20000) != 0)
            return 1;
    }
    r.idle_span_ns = cpu_ns(begun) / (PAIRS / 20.0);
    r.counted = getenv("LD_PRELOAD") != NULL;
    free(text);
    pug_stop();
    return sum && write(STDOUT_FILENO, &r, sizeof r) == (ssize_t)sizeof r ? 0 : 1;
}

/* ---- the comparison ---- */

static struct result run(const char *self, const char *preload)
{
    struct result r = {.counted = 0};
    int out[2], status;
    if (pipe(out) != 0)
        fail("no pipe");
    pid_t pid = fork();
    if (pid == 0) {
        if (preload) {
            setenv("LD_PRELOAD", preload, 1);
            setenv("PUG_ALLOC_TRACKING", "true", 1);
        } else {
            unsetenv("LD_PRELOAD");
        }
        dup2(out[1], STDOUT_FILENO);
        execl(self, self, "program", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    ssize_t n = read(out[0], &r, sizeof r);
    close(out[0]);
    if (waitpid(pid, &status, 0) != pid || status != 0 || n != (ssize_t)sizeof r ||
        r.counted != (preload != NULL))
        fail("the program failed");
    return r;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, by_value);
    return values[ROUNDS / 2];
}

/* Of sorted values: 1.96 sigma of the binomial distribution around the middle. */
static int rank_off(void)
{
    return (int)(0.98 * sqrt(ROUNDS) + 0.5);
}

int main(int argc, char **argv)
{
    static double plain[ROUNDS], counted[ROUNDS], more[ROUNDS];
    static double pair[2][ROUNDS], idle[2][ROUNDS];
    if (argc == 2 && strcmp(argv[1], "program") == 0)
        return program();
    if (argc != 2)
        fail("usage: alloc LIBPUGMARK-ALLOC.so");
    struct report *report = report_new("alloc");
    for (int i = 0; i < ROUNDS; i++) {
        /* The order changes, so that what drifts falls out. */
        struct result a, b;
        if (i % 2) {
            a = run(argv[0], NULL);
            b = run(argv[0], argv[1]);
        } else {
            b = run(argv[0], argv[1]);
            a = run(argv[0], NULL);
        }
        plain[i] = a.document_ns;
        counted[i] = b.document_ns;
        more[i] = b.document_ns / a.document_ns - 1;
        pair[0][i] = a.pair_ns;
        pair[1][i] = b.pair_ns;
        idle[0][i] = a.idle_span_ns;
        idle[1][i] = b.idle_span_ns;
    }
    double plain_ns = median(plain);
    report_row(report, "document, allocations not counted", plain_ns, "ns");
    report_row(report, "document, allocations counted", median(counted), "ns");
    report_ratio(report, "not counted", plain_ns);
    report_row(report, "more with allocations counted", 100 * median(more), "%");
    report_row(report, "with 95 %, at least", 100 * more[ROUNDS / 2 - rank_off()], "%");
    report_row(report, "with 95 %, at most", 100 * more[ROUNDS / 2 + rank_off()], "%");
    double pair_ns = median(pair[0]), idle_ns = median(idle[0]);
    report_row(report, "malloc and free, not counted", pair_ns, "ns");
    report_row(report, "malloc and free, counted", median(pair[1]), "ns");
    report_ratio(report, "not counted", pair_ns);
    report_row(report, "span, not counted", idle_ns, "ns");
    report_row(report, "span, counted", median(idle[1]), "ns");
    report_ratio(report, "not counted", idle_ns);
    return report_finish(report);
}
