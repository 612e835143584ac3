/* What tracing costs a web server: the same program (http/server.c) four times, doing the same work.
 *
 *     out      compiled with PUG_DISABLE: no instrumentation in it
 *     off      compiled in, tracing off
 *     local    every request traced, ten spans each, into a Chrome trace file
 *     otlp     the same, sent live over OTLP/HTTP to `pugmark serve`
 *
 * The servers stay on the last core, one of them running at a time: the others are stopped
 * (SIGSTOP), with their library's threads. The generator of load and `pugmark serve` share the first
 * core. Each traced server's own library threads run on the server's core and count as its cost.
 *
 * The load is open: requests are due at times drawn beforehand (Poisson), and a latency counts from
 * when its request was due, not from when a connection was free. Blocks of it go through the arms in
 * order and back (out off local otlp, otlp local off out); the offered load is half of what `out` can
 * do, which is measured first with closed loops. A block whose requests left late (p95 of the lag
 * over LAG_NS_MAX) says nothing, and is repeated.
 *
 * Processor time is the kernel's own account of each thread, in nanoseconds. The reported difference
 * is the median over the paired blocks of an arm and of `out`, with a 95 % interval by bootstrap.
 * Spans are counted at the end: ten a request, none lost, or the run fails. */
#include "report.h"
#include "sender.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ARMS = 4,
    BLOCKS = 12,
    CONNECTIONS = 64,
    SPANS_PER_REQUEST = 10,
    LAG_NS_MAX = 300000,
    REQUESTS = 256,
    REPEATS_MAX = 32,
    ANSWER_BYTES_MAX = 64 << 10,
    RESAMPLES = 2000,
};

#define BLOCK_NS (2 * NS_PER_S)
#define LOAD 0.5

enum arm { OUT, OFF, LOCAL, OTLP };
static const char *const arm_names[ARMS] = {"compiled out", "off", "local", "otlp"};

/* A kind of request: so many lines in the order. */
struct work {
    const char *name;
    int lines;
};

struct server {
    pid_t pid;
    int said; /* its standard output */
    uint16_t port;
    uint64_t answered;
};

/* One block of one arm. */
struct block {
    double cpu_us, own_us; /* a request: of the process; of that by the library's threads */
    double p50_us, p99_us;
};

struct arms {
    struct server servers[ARMS];
    struct block blocks[ARMS][BLOCKS];
    int n;
};

static char work_dir[] = "/tmp/pugmark-bench-XXXXXX";
static uint64_t random_state = 42;
static int blocks = BLOCKS; /* fewer: a first impression */

static void die(const char *what)
{
    fprintf(stderr, "bench http_overhead: %s%s%s\n", what, errno ? ": " : "",
            errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t random_next(void)
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static double random_unit(void)
{
    return ((double)(random_next() >> 11) + 0.5) / 9007199254740992.0;
}

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

/* ---- processes ---- */

/* `environment`: NAME, VALUE, ..., NULL. */
static pid_t spawn(int cpu, const char *const argv[], const char *const environment[],
                   int *ret_said)
{
    int pipes[2];
    if (pipe(pipes) != 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        stay_on(cpu);
        dup2(pipes[1], STDOUT_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        for (int i = 0; environment[i]; i += 2)
            setenv(environment[i], environment[i + 1], 1);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(pipes[1]);
    *ret_said = pipes[0];
    return pid;
}

static size_t read_line(int fd, char *line, size_t size)
{
    size_t n = 0;
    while (n + 1 < size && read(fd, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = '\0';
    return n;
}

static void server_start(struct server *s, const char *program, enum arm arm, const char *otlp_url)
{
    char line[64], dir[64];
    const char *const argv[] = {program, NULL};
    snprintf(dir, sizeof dir, "%s/traces", work_dir);
    const char *const environment[] = {"PUG_TRACING",
                                       arm >= LOCAL ? "true" : "false",
                                       "PUG_BACKEND",
                                       arm == OTLP ? "otlp" : "local",
                                       "PUG_TRACE_DIR",
                                       dir,
                                       "PUG_OTLP_ENDPOINT",
                                       otlp_url,
                                       "OTEL_SERVICE_NAME",
                                       "quote",
                                       NULL};
    s->pid = spawn(last_core(), argv, environment, &s->said);
    if (read_line(s->said, line, sizeof line) == 0)
        die("a server did not start");
    s->port = (uint16_t)atoi(line);
}

/* The library's threads are named after it. */
static void cpu_now(pid_t pid, double *ret_all_ns, double *ret_own_ns)
{
    char path[320], name[32];
    struct dirent *entry;
    double all = 0, own = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        unsigned long long ns = 0;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, entry->d_name);
        FILE *in = fopen(path, "r");
        if (!in || fscanf(in, "%llu", &ns) != 1)
            die("the kernel keeps no account of threads (schedstat)");
        fclose(in);
        snprintf(path, sizeof path, "/proc/%d/task/%s/comm", (int)pid, entry->d_name);
        in = fopen(path, "r");
        name[0] = '\0';
        if (in && !fgets(name, sizeof name, in))
            name[0] = '\0';
        if (in)
            fclose(in);
        all += (double)ns;
        if (strncmp(name, "pugmark", 7) == 0)
            own += (double)ns;
    }
    if (dir)
        closedir(dir);
    *ret_all_ns = all;
    *ret_own_ns = own;
}

/* `pugmark serve` on the first core: its OTLP/HTTP URL. */
static pid_t collector_start(const char *program, char url[64], uint16_t *ret_page)
{
    char ready[64], data[64], text[4096];
    int said;
    snprintf(ready, sizeof ready, "%s/ready", work_dir);
    snprintf(data, sizeof data, "%s/data", work_dir);
    const char *const argv[] = {program, "serve",  "--ports", "auto", "--ready-file",
                                ready,   "--data", data,      NULL};
    const char *const none[] = {NULL};
    pid_t pid = spawn(0, argv, none, &said);
    for (int i = 0; i < 1000; i++) {
        FILE *in = fopen(ready, "r");
        size_t n = in ? fread(text, 1, sizeof text - 1, in) : 0;
        if (in)
            fclose(in);
        text[n] = '\0';
        const char *at = strstr(text, "\"otlp_http\":\""),
                   *page = strstr(text, "\"page\":\"http://127.0.0.1:");
        if (at && page && sscanf(at + 13, "%63[^\"]", url) == 1) {
            *ret_page = (uint16_t)atoi(page + 25);
            return pid;
        }
        usleep(10000);
    }
    die("pugmark serve did not start");
    return -1;
}

/* ---- the generator ---- */

struct connection {
    int fd;
    bool busy;
    uint64_t due_ns;
    size_t have, want; /* bytes of the answer; want 0: its head is not whole yet */
    char answer[ANSWER_BYTES_MAX];
};

static struct connection *connections;

/* Made before anything is measured; only the trace context differs each time. */
static struct {
    char *text;
    size_t len, traceparent;
} texts[REQUESTS];

static void texts_make(const struct work *w)
{
    static const char head[] = "POST /quote HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                               "application/json\r\ntraceparent: ";
    for (size_t k = 0; k < REQUESTS; k++) {
        struct buf body = BUF_INIT, all = BUF_INIT;
        buf_printf(&body, "{\"customer\":%d,\"lines\":[", (int)(random_next() % 2000));
        for (int i = 0; i < w->lines; i++)
            buf_printf(&body, "%s{\"sku\":\"sku-%06d\",\"count\":%d}", i ? "," : "",
                       (int)(random_next() % 20000), 1 + (int)(random_next() % 9));
        buf_cstr(&body, "]}");
        buf_printf(&all, "%s%055d\r\nContent-Length: %zu\r\n\r\n", head, 0, body.len);
        buf_put(&all, body.ptr, body.len);
        if (!buf_ok(&all))
            die("out of memory");
        free(texts[k].text);
        texts[k].text = buf_detach(&all, &texts[k].len);
        texts[k].traceparent = sizeof head - 1;
        buf_done(&body);
    }
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* True: the answer is whole. */
static bool receive(struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->have, sizeof c->answer - 1 - c->have, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN)
            return false;
        die("a server hung up");
    }
    c->have += (size_t)n;
    c->answer[c->have] = '\0';
    if (!c->want) {
        const char *end = strstr(c->answer, "\r\n\r\n"),
                   *length = strstr(c->answer, "Content-Length:");
        if (!end)
            return false;
        if (!length || strncmp(c->answer, "HTTP/1.1 200", 12) != 0)
            die("an answer that is none");
        c->want = (size_t)(end + 4 - c->answer) + (size_t)atol(length + 15);
    }
    return c->have >= c->want;
}

static void send_request(struct connection *c, uint64_t due_ns)
{
    char traceparent[64];
    size_t k = random_next() % REQUESTS;
    snprintf(traceparent, sizeof traceparent, "00-%016llx%016llx-%016llx-01",
             (unsigned long long)random_next() | 1, (unsigned long long)random_next(),
             (unsigned long long)random_next() | 1);
    memcpy(texts[k].text + texts[k].traceparent, traceparent, 55);
    c->busy = true;
    c->due_ns = due_ns;
    c->have = c->want = 0;
    if (send(c->fd, texts[k].text, texts[k].len, MSG_NOSIGNAL) != (ssize_t)texts[k].len)
        die("a request did not fit into the socket");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, size_t n, double q)
{
    qsort(values, n, sizeof *values, by_value);
    return n ? values[(size_t)((double)(n - 1) * q)] : 0;
}

struct outcome {
    double *latencies_us, *lags_ns;
    size_t answered, sent;
};

/* Offers `rate` requests a second for `span_ns`; rate 0: as many as are answered, on a few connections. */
static void offer(const struct server *s, double rate, uint64_t span_ns, struct outcome *o)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC), used = rate > 0 ? CONNECTIONS : 4;
    size_t max = (size_t)((rate > 0 ? rate * 1.5 : 60000) * (double)span_ns / 1e9) + 1000;
    *o = (struct outcome){calloc(max, sizeof(double)), calloc(max, sizeof(double)), 0, 0};
    if (!o->latencies_us || !o->lags_ns)
        die("out of memory");
    for (int i = 0; i < used; i++) {
        connections[i].fd = connect_to(s->port);
        connections[i].busy = false;
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].fd, &e);
    }
    uint64_t now = clock_monotonic_ns(), end = now + span_ns, due = now;
    int busy = 0;
    while (due < end || busy) {
        now = clock_monotonic_ns();
        if (rate <= 0)
            due = now;
        for (int i = 0; i < used && due <= now && due < end && o->sent < max; i++) {
            if (connections[i].busy)
                continue;
            o->lags_ns[o->sent++] = (double)(clock_monotonic_ns() - due);
            send_request(&connections[i], due);
            busy++;
            if (rate > 0)
                due += (uint64_t)(-log(random_unit()) / rate * 1e9);
        }
        now = clock_monotonic_ns();
        uint64_t wait = due < end && busy < used && due > now ? due - now : 10 * NS_PER_MS;
        if (due <= now && due < end && busy < used)
            wait = 0;
        struct timespec timeout = {(time_t)(wait / NS_PER_S), (long)(wait % NS_PER_S)};
        struct epoll_event ready[CONNECTIONS];
        int n = epoll_pwait2(epoll, ready, CONNECTIONS, &timeout, NULL);
        for (int i = 0; i < n; i++) {
            struct connection *c = &connections[ready[i].data.u32];
            if (!c->busy || !receive(c))
                continue;
            o->latencies_us[o->answered++] = (double)(clock_monotonic_ns() - c->due_ns) / 1e3;
            c->busy = false;
            busy--;
        }
    }
    for (int i = 0; i < used; i++)
        close(connections[i].fd);
    close(epoll);
}

static void outcome_done(struct outcome *o)
{
    free(o->latencies_us);
    free(o->lags_ns);
}

/* ---- blocks ---- */

static bool block_run(struct server *s, double rate, struct block *ret)
{
    struct outcome o;
    double all[2], own[2];
    kill(s->pid, SIGCONT);
    usleep(20000);
    cpu_now(s->pid, &all[0], &own[0]);
    offer(s, rate, BLOCK_NS, &o);
    /* What the library still has to write or send of this block belongs to it. */
    usleep(900000);
    cpu_now(s->pid, &all[1], &own[1]);
    kill(s->pid, SIGSTOP);
    s->answered += o.answered;
    double n = (double)o.answered;
    *ret = (struct block){.cpu_us = (all[1] - all[0]) / n / 1e3,
                          .own_us = (own[1] - own[0]) / n / 1e3,
                          .p50_us = quantile(o.latencies_us, o.answered, 0.5),
                          .p99_us = quantile(o.latencies_us, o.answered, 0.99)};
    bool punctual = rate <= 0 || quantile(o.lags_ns, o.sent, 0.95) <= LAG_NS_MAX;
    outcome_done(&o);
    return punctual;
}

static double capacity(struct server *s)
{
    struct outcome o;
    double rates[3];
    kill(s->pid, SIGCONT);
    for (int i = 0; i < 3; i++) {
        uint64_t start = clock_monotonic_ns();
        offer(s, 0, NS_PER_S, &o);
        rates[i] = (double)o.answered * 1e9 / (double)(clock_monotonic_ns() - start);
        s->answered += o.answered;
        outcome_done(&o);
    }
    kill(s->pid, SIGSTOP);
    return quantile(rates, 3, 0.5);
}

static int blocks_run(struct arms *a, double rate)
{
    int repeated = 0;
    struct block warm;
    for (int arm = 0; arm < ARMS; arm++)
        (void)block_run(&a->servers[arm], rate, &warm);
    for (a->n = 0; a->n < blocks; a->n++)
        for (int i = 0; i < ARMS; i++) {
            int arm = a->n & 1 ? ARMS - 1 - i : i;
            while (!block_run(&a->servers[arm], rate, &a->blocks[arm][a->n]))
                if (errno = 0, ++repeated > REPEATS_MAX)
                    die("the generator cannot keep its times: the machine is too busy");
        }
    return repeated;
}

/* ---- what it means ---- */

static double of(const struct block *b, int what)
{
    return what == 0 ? b->cpu_us : what == 1 ? b->own_us : what == 2 ? b->p50_us : b->p99_us;
}

static double median_of(const struct arms *a, int arm, int what)
{
    double values[BLOCKS];
    for (int i = 0; i < a->n; i++)
        values[i] = of(&a->blocks[arm][i], what);
    return quantile(values, (size_t)a->n, 0.5);
}

/* Percent more than `out`, paired block by block: the median and its 95 % interval. */
static void difference(const struct arms *a, int arm, int what, double *ret, double *ret_low,
                       double *ret_high)
{
    double pairs[BLOCKS], drawn[BLOCKS], *medians = calloc(RESAMPLES, sizeof(double));
    if (!medians)
        die("out of memory");
    for (int i = 0; i < a->n; i++)
        pairs[i] = 100 * (of(&a->blocks[arm][i], what) / of(&a->blocks[OUT][i], what) - 1);
    for (int k = 0; k < RESAMPLES; k++) {
        for (int i = 0; i < a->n; i++)
            drawn[i] = pairs[random_next() % (uint64_t)a->n];
        medians[k] = quantile(drawn, (size_t)a->n, 0.5);
    }
    *ret_low = quantile(medians, RESAMPLES, 0.025);
    *ret_high = medians[(size_t)(RESAMPLES * 0.975)];
    *ret = quantile(pairs, (size_t)a->n, 0.5);
    free(medians);
}

static char *label(const char *work, const char *arm, const char *what)
{
    char *text;
    if (asprintf(&text, "%s, %s: %s", work, arm, what) < 0)
        die("out of memory");
    return text;
}

static void report_arms(struct report *r, const struct arms *a, const struct work *w, double rate)
{
    static const char *const what[] = {"CPU a request", "of that by the library's threads", "p50",
                                       "p99"};
    double low, high, d;
    report_row(r, label(w->name, "compiled out", "offered load"), rate, "requests/s");
    for (int arm = 0; arm < ARMS; arm++)
        for (int k = 0; k < 4; k++) {
            if (k == 1 && arm < LOCAL)
                continue;
            report_row(r, label(w->name, arm_names[arm], what[k]), median_of(a, arm, k), "us");
            if (arm != OUT && k != 1)
                report_ratio(r, "compiled out", median_of(a, OUT, k));
            if (arm == OUT || k == 1)
                continue;
            difference(a, arm, k, &d, &low, &high);
            char *of_what = label(w->name, arm_names[arm], what[k]), *text;
            if (asprintf(&text, "%s, difference (95 %%: %+.2f to %+.2f)", of_what, low, high) < 0)
                die("out of memory");
            report_row(r, text, d, "%");
        }
}

/* ---- the end: is every span there? ---- */

static uint64_t servers_end(struct arms *a, uint64_t *ret_lost)
{
    uint64_t exported_otlp = 0;
    *ret_lost = 0;
    for (int arm = 0; arm < ARMS; arm++) {
        char line[128];
        struct server *s = &a->servers[arm];
        unsigned long long requests = 0, recorded = 0, exported = 0, lost = 0;
        kill(s->pid, SIGCONT);
        kill(s->pid, SIGTERM);
        read_line(s->said, line, sizeof line);
        if (sscanf(line, "%llu %llu %llu %llu", &requests, &recorded, &exported, &lost) != 4)
            die("a server ended without its sums");
        waitpid(s->pid, NULL, 0);
        uint64_t due = arm >= LOCAL ? SPANS_PER_REQUEST * s->answered : 0;
        errno = 0;
        if (requests != s->answered)
            die("requests were answered that nobody made");
        if (recorded + lost < due || (lost == 0 && recorded != due) || recorded != exported + lost)
            die("spans are missing that nobody counted");
        *ret_lost += lost;
        exported_otlp = arm == OTLP ? exported : exported_otlp;
    }
    return exported_otlp;
}

static uint64_t collector_received(uint16_t page)
{
    char *text = NULL;
    size_t n;
    double total = 0, one;
    if (sender_get(page, "/metrics", &text, &n) != 0)
        die("no metrics from pugmark serve");
    for (const char *at = text; at && (at = strstr(at, "\npugmark_ingest_spans_stored_total"));
         at++) {
        const char *value = strpbrk(at + 1, " ");
        if (value && sscanf(value, "%lf", &one) == 1)
            total += one;
    }
    free(text);
    return (uint64_t)total;
}

static int remove_one(const char *path, const struct stat *s, int what, struct FTW *ftw)
{
    (void)s, (void)what, (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    static const struct work works[] = {{"60 lines", 60}, {"240 lines", 240}};
    if (argc != 4 && argc != 5)
        die("usage: http_overhead PUGMARK SERVER SERVER_WITHOUT [BLOCKS]");
    if (argc == 5 && ((blocks = atoi(argv[4])) < 1 || blocks > BLOCKS))
        die("blocks: 1 to 12");
    struct report *r = report_new("http_overhead");
    char otlp_url[64];
    uint16_t page;
    uint64_t lost, exported = 0, before;
    connections = calloc(CONNECTIONS, sizeof *connections);
    if (!connections || !mkdtemp(work_dir))
        die("no room to work in");
    stay_on(0);
    prctl(PR_SET_TIMERSLACK, 1UL);
    pid_t collector = collector_start(argv[1], otlp_url, &page);
    before = collector_received(page);
    report_machine(r, "cores", "servers on %d, generator and pugmark serve on 0", last_core());
    for (size_t i = 0; i < sizeof works / sizeof works[0]; i++) {
        static struct arms a;
        memset(&a, 0, sizeof a);
        texts_make(&works[i]);
        for (int arm = 0; arm < ARMS; arm++) {
            server_start(&a.servers[arm], argv[arm == OUT ? 3 : 2], (enum arm)arm, otlp_url);
            kill(a.servers[arm].pid, SIGSTOP);
        }
        double rate = LOAD * capacity(&a.servers[OUT]);
        int repeated = blocks_run(&a, rate);
        report_arms(r, &a, &works[i], rate);
        exported += servers_end(&a, &lost);
        report_row(r, label(works[i].name, "traced", "spans lost"), (double)lost, "spans");
        report_row(r, label(works[i].name, "all", "blocks repeated, the generator was late"),
                   repeated, "blocks");
        if (lost)
            die("spans were lost: the figures do not count");
    }
    if (collector_received(page) - before != exported)
        die("pugmark serve has not stored what it accepted");
    /* What others have published of tracing every request, each on its own machine and program. */
    report_row(r, "published: Python web server, OpenTelemetry SDK, closed loop: requests/s",
               100.0 * (880.0 / 993 - 1), "%");
    report_row(r, "published: the same: p50", 100.0 * (690.0 / 340 - 1), "%");
    report_row(r, "published: Dapper on web search, every request: throughput", -1.5, "%");
    report_row(r, "published: the same: response time", 16, "%");
    kill(collector, SIGTERM);
    waitpid(collector, NULL, 0);
    nftw(work_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return report_finish(r);
}
