/* What it costs that every span says what it allocated, in programs that do little but allocate.
 *
 * The twin (this program, run again) parses JSON documents into trees with jansson, changes them, writes
 * them out and frees them: one span for each document, a child for each of the steps, some 700
 * allocations a document. It runs as it is, and with libpugmark-alloc preloaded and alloc_tracking on;
 * tracing is on both times. Both are alive at the same time, on one core, and are asked for batches of
 * some milliseconds in turns, the order drawn anew each time, so that what the machine does besides is the
 * same for both. Where the kernel puts a process's pages makes a difference of the size of what is measured:
 * so there are many pairs of processes, and of each pair the median over its batches counts once. What is
 * compared is the processor's time of the whole process, the library's thread included. The interval beside
 * the median over the pairs is that which holds it with 95 % (order statistics: the binomial distribution says
 * which of the sorted values). `pair` is a malloc and its free and nothing else.
 *
 * The others are real programs, as Debian has them, whole runs in turns with the object preloaded and
 * without: jq over a large document, and SQLite's shell building a table and asking it. They know nothing
 * of spans: what is added is the counting. */
#include "pugmark/pugmark.h"
#include "report.h"

#include "base/clock.h"
#include "base/hash.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ROUNDS = 61, /* pairs of processes */
    BATCHES = 25,
    BATCH = 50, /* documents */
    ITEMS = 24,
    PAIRS = 20000,
    RUNS = 61, /* of a real program */
};

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

/* A line from the other side is a request for a batch; its end is the end. */
static int program(void)
{
    struct pug_options o = {
        .size = sizeof o, .tracing = PUG_TRACING_ON, .backend = PUG_BACKEND_DISCARD};
    struct result r = {.counted = getenv("LD_PRELOAD") != NULL};
    char *text = document_text(), request;
    size_t sum = 0;
    if (!text || pug_start(&o) != 0 || !pug_on())
        return 1;
    while (read(STDIN_FILENO, &request, 1) == 1) {
        uint64_t begun = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < BATCH; i++)
            sum += document(text);
        if (pug_flush(20000) != 0)
            return 1;
        r.document_ns = cpu_ns(begun) / BATCH;
        begun = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < PAIRS; i++) {
            void *volatile p = malloc(48);
            free(p);
        }
        r.pair_ns = cpu_ns(begun) / PAIRS;
        begun = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < PAIRS / 10; i++) {
            PUG_SPAN("nothing");
        }
        r.idle_span_ns = cpu_ns(begun) / (PAIRS / 10.0);
        if (pug_flush(20000) != 0 || write(STDOUT_FILENO, &r, sizeof r) != (ssize_t)sizeof r)
            return 1;
    }
    free(text);
    pug_stop();
    return sum ? 0 : 1;
}

/* ---- the comparison ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return values[n / 2];
}

static uint64_t random_next(void)
{
    static uint64_t state = 42;
    return hash_mix64(state += UINT64_C(0x9e3779b97f4a7c15));
}

/* In the child: as it is, or counted. */
static void become(const char *const argv[], const char *preload)
{
    cpu_set_t last;
    CPU_ZERO(&last);
    CPU_SET((int)sysconf(_SC_NPROCESSORS_ONLN) - 1, &last);
    sched_setaffinity(0, sizeof last, &last);
    if (preload) {
        setenv("LD_PRELOAD", preload, 1);
        setenv("PUG_ALLOC_TRACKING", "true", 1);
    } else {
        unsetenv("LD_PRELOAD");
    }
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

struct twin {
    pid_t pid;
    int to, from;
};

static struct twin twin_start(const char *self, const char *preload)
{
    int to[2], from[2];
    const char *const argv[] = {self, "program", NULL};
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        fail("no pipe");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        become(argv, preload);
    }
    close(to[0]);
    close(from[1]);
    return (struct twin){pid, to[1], from[0]};
}

static struct result twin_batch(const struct twin *t, bool counted)
{
    struct result r = {.counted = -1};
    if (write(t->to, "\n", 1) != 1 || read(t->from, &r, sizeof r) != (ssize_t)sizeof r ||
        r.counted != counted)
        fail("the program failed");
    return r;
}

static void twin_end(struct twin *t)
{
    int status;
    close(t->to);
    close(t->from);
    if (waitpid(t->pid, &status, 0) != t->pid || status != 0)
        fail("the program failed");
}

/* A pair of processes: medians over its batches. */
struct pair {
    struct result plain, counted;
    double more; /* of a document, in parts */
};

static struct pair pair_run(const char *self, const char *preload)
{
    struct twin twins[2] = {twin_start(self, NULL), twin_start(self, preload)};
    double values[2][3][BATCHES], more[BATCHES];
    struct pair p;
    for (int k = -1; k < BATCHES; k++) { /* the first one warms up */
        struct result r[2];
        int first = (int)(random_next() & 1);
        r[first] = twin_batch(&twins[first], first);
        r[!first] = twin_batch(&twins[!first], !first);
        for (int i = 0; i < 2 && k >= 0; i++) {
            values[i][0][k] = r[i].document_ns;
            values[i][1][k] = r[i].pair_ns;
            values[i][2][k] = r[i].idle_span_ns;
        }
        if (k >= 0)
            more[k] = r[1].document_ns / r[0].document_ns - 1;
    }
    for (int i = 0; i < 2; i++) {
        twin_end(&twins[i]);
        *(i ? &p.counted
            : &p.plain) = (struct result){.document_ns = median(values[i][0], BATCHES),
                                          .pair_ns = median(values[i][1], BATCHES),
                                          .idle_span_ns = median(values[i][2], BATCHES)};
    }
    p.more = median(more, BATCHES);
    return p;
}

/* What is added, in per cent, and the interval; sorts. */
static void report_more(struct report *report, const char *what, double *more, int n)
{
    /* Of sorted values: 1.96 sigma of the binomial distribution around the middle. */
    int off = (int)(0.98 * sqrt(n) + 0.5);
    double middle = median(more, n);
    char *text;
    if (asprintf(&text, "%s, more with allocations counted (95 %%: %.2f to %.2f)", what,
                 100 * more[n / 2 - off], 100 * more[n / 2 + off]) < 0)
        fail("out of memory");
    report_row(report, text, 100 * middle, "%");
}

static void report_pairs(struct report *report, const char *self, const char *preload)
{
    static const char *const names[] = {"document", "malloc and free", "span"};
    static double values[2][3][ROUNDS], more[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        struct pair p = pair_run(self, preload);
        more[i] = p.more;
        for (int k = 0; k < 2; k++) {
            const struct result *r = k ? &p.counted : &p.plain;
            values[k][0][i] = r->document_ns;
            values[k][1][i] = r->pair_ns;
            values[k][2][i] = r->idle_span_ns;
        }
    }
    report_more(report, "document", more, ROUNDS);
    for (int what = 0; what < 3; what++) {
        char *text[2];
        double plain_ns = median(values[0][what], ROUNDS);
        if (asprintf(&text[0], "%s, allocations not counted", names[what]) < 0 ||
            asprintf(&text[1], "%s, allocations counted", names[what]) < 0)
            fail("out of memory");
        report_row(report, text[0], plain_ns, "ns");
        report_row(report, text[1], median(values[1][what], ROUNDS), "ns");
        report_ratio(report, "not counted", plain_ns);
    }
}

/* ---- real programs ---- */

static char input_path[] = "/tmp/pugmark-bench-alloc-XXXXXX";

static void input_make(void)
{
    int fd = mkstemp(input_path);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (!out)
        fail("no place for the input");
    for (int i = 0; i < 6000; i++)
        fprintf(out,
                "{\"id\":%d,\"name\":\"item number %d\",\"price\":%d.25,\"count\":%d,"
                "\"tags\":[\"tag-%d\",\"round\",\"new\"],\"size\":{\"width\":%d,\"height\":%d}}\n",
                i, i, (int)(random_next() % 1000), (int)(random_next() % 9), i % 17,
                (int)(random_next() % 100), (int)(random_next() % 100));
    if (fclose(out) != 0)
        fail("no room for the input");
}

/* Microseconds of the processor, or 0 where the program is not there or fails. */
static double real_run(const char *const argv[], const char *preload)
{
    int status;
    struct rusage used;
    pid_t pid = fork();
    if (pid == 0) {
        int nothing = open("/dev/null", O_RDWR);
        dup2(nothing, STDIN_FILENO);
        dup2(nothing, STDOUT_FILENO);
        dup2(nothing, STDERR_FILENO);
        become(argv, preload);
    }
    if (pid < 0 || wait4(pid, &status, 0, &used) != pid || status != 0)
        return 0;
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static void report_real(struct report *report, const char *name, const char *const argv[],
                        const char *preload)
{
    double us[2][RUNS], more[RUNS];
    char *text;
    for (int i = 0; i < RUNS; i++) {
        int first = (int)(random_next() & 1);
        for (int k = 0; k < 2; k++) {
            int counted = k ? !first : first;
            us[counted][i] = real_run(argv, counted ? preload : NULL);
            if (us[counted][i] <= 0) {
                report_machine(report, name, "not measured: it is not there, or fails");
                return;
            }
        }
        more[i] = us[1][i] / us[0][i] - 1;
    }
    report_more(report, name, more, RUNS);
    if (asprintf(&text, "%s, a run, allocations not counted", name) < 0)
        fail("out of memory");
    report_row(report, text, median(us[0], RUNS) / 1e3, "ms");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "program") == 0)
        return program();
    if (argc != 2)
        fail("usage: alloc LIBPUGMARK-ALLOC.so");
    struct report *report = report_new("alloc");
    report_pairs(report, argv[0], argv[1]);
    input_make();
    const char *const jq[] = {"jq", "-n",
                              "[inputs | .total = .price * .count | .size.area = .size.width * "
                              ".size.height] | group_by(.tags[0]) | map({tag: .[0].tags[0], sum: "
                              "(map(.total) | add), names: (map(.name) | join(\",\") | length)})",
                              input_path, NULL};
    report_real(report, "jq", jq, argv[1]);
    const char *const sqlite[] = {
        "sqlite3", ":memory:",
        "create table t as with recursive n(i) as (select 1 union all select i + 1 from n where i "
        "< 60000) select i, 'name ' || i as name, i % 97 as g from n;"
        "select g, count(*), max(name), group_concat(substr(name, 1, 8)) from t group by g;"
        "select json_group_array(json_object('i', i, 'name', name)) from t;",
        NULL};
    report_real(report, "sqlite3", sqlite, argv[1]);
    unlink(input_path);
    return report_finish(report);
}
