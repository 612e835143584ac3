/* A traced program for export.test.mjs that does what its arguments say, one after the other:
 *
 *   span:N     records N spans, the last one as an error
 *   flush:MS   pug_flush
 *   read       says "waiting" on stderr and waits for a line on standard input
 *   stop       pug_stop
 *
 * and in the end says on stderr, as a line of JSON, what came of it. */
#include <pugmark/pugmark.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char told[8][300];
static int n_told;

static void tell(void *user, const char *message)
{
    (void)user;
    if (n_told < 8)
        snprintf(told[n_told++], sizeof told[0], "%s", message);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void spans(int n)
{
    for (int i = 0; i < n; i++) {
        PUG_SPAN("client.call", PUG_INT("n", i), PUG_STR("peer.service", "database"),
                 PUG_BOOL("error", 0), PUG_KIND(PUG_KIND_CLIENT));
        pug_event(PUG_CURRENT, "answered", PUG_INT("rows", 2));
        pug_event(PUG_CURRENT, "plain");
        if (i == n - 1)
            pug_error(PUG_CURRENT, "it broke");
        {
            PUG_SPAN("client.inner", PUG_DOUBLE("ratio", 0.5));
        }
    }
}

static void put_json_string(const char *text)
{
    fputc('"', stderr);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', stderr);
        fputc(*text, stderr);
    }
    fputc('"', stderr);
}

int main(int argc, char **argv)
{
    struct pug_options options = {0};
    struct pug_counts c = {0};
    char line[64];
    options.size = sizeof options;
    options.log = tell;
    const char *timeout = getenv("STOP_TIMEOUT_MS"), *queue = getenv("QUEUE_BYTES");
    if (timeout)
        options.stop_timeout_ms = (unsigned)atoi(timeout);
    if (queue)
        options.queue_bytes_max = (size_t)atoi(queue);
    int started = pug_start(&options);
    int results[100] = {0};
    double ms[100];
    for (int i = 1; i < argc && i < 100; i++) {
        int n = strchr(argv[i], ':') ? atoi(strchr(argv[i], ':') + 1) : 0, result = 0;
        double begin = now_ms();
        if (strncmp(argv[i], "span:", 5) == 0)
            spans(n);
        else if (strncmp(argv[i], "flush:", 6) == 0)
            result = pug_flush((unsigned)n);
        else if (strcmp(argv[i], "read") == 0) {
            fputs("waiting\n", stderr);
            result = fgets(line, sizeof line, stdin) == NULL;
        } else if (strcmp(argv[i], "stop") == 0)
            result = pug_stop();
        results[i] = result;
        ms[i] = now_ms() - begin;
    }
    c.size = sizeof c;
    pug_counts_read(&c);
    fprintf(stderr, "{\"started\":%d,\"done\":[", started);
    for (int i = 1; i < argc && i < 100; i++)
        fprintf(stderr, "%s{\"result\":%d,\"ms\":%.1f}", i > 1 ? "," : "", results[i], ms[i]);
    fprintf(stderr, "],\"told\":[");
    for (int i = 0; i < n_told; i++) {
        fputs(i ? "," : "", stderr);
        put_json_string(told[i]);
    }
    fprintf(stderr,
            "],\"recorded\":%llu,\"exported\":%llu,\"lostQueueFull\":%llu,\"lostExport\":%llu,"
            "\"lostRing\":%llu}\n",
            (unsigned long long)c.recorded, (unsigned long long)c.exported,
            (unsigned long long)c.lost_queue_full, (unsigned long long)c.lost_export,
            (unsigned long long)c.lost_ring_full);
    return 0;
}
