/* pugmark load: draws the synthetic data set and sends it, or writes it to a file.
 *
 * Batches are drawn and encoded in order under one lock, so that a seed always gives the same
 * bytes; connections take them and send side by side. With --prepare everything is encoded first,
 * so that what is measured afterwards is the receiver and not the drawing. A batch that was refused
 * for now (429, 503) is sent again after Retry-After. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/load_gen.h"
#include "cli/term.h"

#include "base/clock.h"
#include "base/json.h"
#include "wire/otlp.h"
#include "wire/protobuf.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTIONS_MAX = 64, TRIES_MAX = 10, RETRY_MS_DEFAULT = 100, RETRY_MS_MAX = 30000 };
enum { REASON_COLUMNS = 200 };

struct options {
    const char *url, *out;
    uint64_t traces, rate, seed, start_ns;
    unsigned spans_per_trace, batch_traces, connections;
    bool prepare, json;
};

struct body {
    char *bytes;
    size_t len, spans;
};

struct load {
    struct options options;
    char *post_url;
    uint64_t started_ns;

    pthread_mutex_t lock; /* of what follows, up to the atomics */
    struct load_gen *gen;
    struct arena arena;
    uint64_t traces_drawn, spans_drawn, bytes_drawn;
    uint64_t spans_taken; /* of the prepared ones */
    struct body *prepared;
    size_t n_prepared, next_prepared;
    char problem[CURL_ERROR_SIZE + 64]; /* the first that ended a connection */
    bool said_refused;

    _Atomic uint64_t spans_acked, spans_rejected, spans_refused, retries, posts;
    _Atomic bool stopped;
};

static struct load *interrupted; /* for the signal handler */

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&interrupted->stopped, true);
}

/* ---- drawing ---- */

/* Under the lock. 0 spans: there are no more. */
static int body_draw(struct load *load, struct body *ret_body)
{
    uint64_t left = load->options.traces - load->traces_drawn;
    unsigned traces = left < load->options.batch_traces ? (unsigned)left
                                                        : load->options.batch_traces;
    *ret_body = (struct body){0};
    if (traces == 0)
        return ERR_OK;
    struct span_batch batch;
    arena_reset(&load->arena);
    int err = load_gen_batch(load->gen, traces, &load->arena, &batch);
    if (err)
        return err;
    struct buf out = BUF_INIT;
    otlp_encode(&batch, &out);
    if (!buf_ok(&out)) {
        buf_done(&out);
        return ERR_NOMEM;
    }
    ret_body->bytes = buf_detach(&out, &ret_body->len);
    ret_body->spans = batch.n;
    load->spans_drawn += batch.n;
    load->traces_drawn = load->spans_drawn / load->options.spans_per_trace;
    load->bytes_drawn += ret_body->len;
    return ERR_OK;
}

static int bodies_prepare(struct load *load)
{
    const struct options *o = &load->options;
    size_t parts = (o->spans_per_trace + LOAD_PART_SPANS_MAX - 1) / LOAD_PART_SPANS_MAX;
    size_t n = parts > 1 ? (size_t)o->traces * parts
                         : (size_t)((o->traces + o->batch_traces - 1) / o->batch_traces);
    load->prepared = calloc(n ? n : 1, sizeof *load->prepared);
    if (!load->prepared)
        return ERR_NOMEM;
    for (; load->n_prepared < n; load->n_prepared++) {
        int err = body_draw(load, &load->prepared[load->n_prepared]);
        if (err)
            return err;
    }
    return ERR_OK;
}

/* The next body, which becomes the caller's; `ret_nth` is the number of spans before it. */
static int body_take(struct load *load, struct body *ret_body, uint64_t *ret_spans_before)
{
    int err = ERR_OK;
    pthread_mutex_lock(&load->lock);
    if (load->options.prepare) {
        *ret_body = (struct body){0};
        *ret_spans_before = 0;
        if (load->next_prepared < load->n_prepared) {
            *ret_spans_before = load->spans_taken;
            load->spans_taken += load->prepared[load->next_prepared].spans;
            *ret_body = load->prepared[load->next_prepared];
            load->prepared[load->next_prepared++] = (struct body){0};
        }
    } else {
        *ret_spans_before = load->spans_drawn;
        err = body_draw(load, ret_body);
    }
    pthread_mutex_unlock(&load->lock);
    return err;
}

/* ---- sending ---- */

struct answer {
    struct buf body;
    uint64_t retry_after_ms;
    bool is_protobuf;
};

static size_t answer_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct answer *answer = arg;
    buf_put(&answer->body, bytes, size * n);
    return size * n;
}

static size_t answer_header(char *bytes, size_t size, size_t n, void *arg)
{
    struct answer *answer = arg;
    struct str value, line = {bytes, size * n};
    uint64_t seconds;
    if (str_eq_nocase(str_split(line, ':', &value), STR("retry-after")) &&
        str_to_u64(str_trim(value), &seconds))
        answer->retry_after_ms = seconds < RETRY_MS_MAX / 1000 ? seconds * 1000 : RETRY_MS_MAX;
    return size * n;
}

static void sleep_ms(uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static void connection_failed(struct load *load, const char *what)
{
    pthread_mutex_lock(&load->lock);
    if (!load->problem[0])
        snprintf(load->problem, sizeof load->problem, "%s", what);
    pthread_mutex_unlock(&load->lock);
    atomic_store(&load->stopped, true);
}

/* The message of a google.rpc.Status, else the text. */
static struct str answer_reason(const struct answer *answer)
{
    struct str body = buf_as_str(&answer->body);
    if (!answer->is_protobuf)
        return str_trim(body);
    struct str message = STR_NONE;
    struct pb r = pb_from_str(body);
    struct pb_field f;
    while (pb_next(&r, &f) > 0)
        if (f.tag == PB_TAG(2, PB_BYTES))
            message = pb_as_str(&f);
    return message;
}

/* Once: the others were most likely refused for the same reason. */
static void say_refused(struct load *load, long status, const struct answer *answer)
{
    pthread_mutex_lock(&load->lock);
    bool said = load->said_refused;
    load->said_refused = true;
    pthread_mutex_unlock(&load->lock);
    if (said)
        return;
    struct buf reason = BUF_INIT;
    term_text(&reason, answer_reason(answer), REASON_COLUMNS);
    fprintf(stderr, "pugmark load: %s answered with HTTP status %ld%s%.*s\n", load->post_url,
            status, reason.len ? ": " : "", STR_ARG(buf_as_str(&reason)));
    buf_done(&reason);
}

/* What the receiver said of one body: counted; true when it is worth sending again. */
static bool answer_count(struct load *load, const struct body *body, long status,
                         struct answer *answer)
{
    uint64_t rejected = 0;
    struct str message;
    if (status == 200) {
        if (otlp_decode_response(buf_as_str(&answer->body), &rejected, &message))
            rejected = 0;
        atomic_fetch_add(&load->spans_acked,
                         body->spans - (rejected < body->spans ? rejected : body->spans));
        atomic_fetch_add(&load->spans_rejected, rejected);
        return false;
    }
    if (status == 429 || status == 502 || status == 503 || status == 504)
        return true;
    atomic_fetch_add(&load->spans_refused, body->spans);
    say_refused(load, status, answer);
    return false;
}

static void body_send(struct load *load, CURL *curl, const struct body *body, char *error)
{
    struct answer answer = {.body = {.bytes_max = 1 << 20}};
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body->bytes);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &answer);
    for (int try = 0;; try++) {
        long status = 0;
        buf_clear(&answer.body);
        answer.retry_after_ms = RETRY_MS_DEFAULT << (try < 6 ? try : 6);
        CURLcode code = curl_easy_perform(curl);
        if (code != CURLE_OK) {
            connection_failed(load, error[0] ? error : curl_easy_strerror(code));
            break;
        }
        atomic_fetch_add(&load->posts, 1);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        const char *type = NULL;
        curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
        answer.is_protobuf = type && !strncmp(type, "application/x-protobuf", 22);
        if (!answer_count(load, body, status, &answer))
            break;
        if (try + 1 == TRIES_MAX || atomic_load(&load->stopped)) {
            atomic_fetch_add(&load->spans_refused, body->spans);
            say_refused(load, status, &answer);
            break;
        }
        atomic_fetch_add(&load->retries, 1);
        sleep_ms(answer.retry_after_ms);
    }
    buf_done(&answer.body);
}

/* Open loop: each body has its moment, however long the ones before it took. */
static void wait_for_turn(const struct load *load, uint64_t spans_before)
{
    if (!load->options.rate)
        return;
    uint64_t due = load->started_ns +
                   (uint64_t)((double)spans_before / (double)load->options.rate * 1e9);
    uint64_t now = clock_monotonic_ns();
    if (due > now)
        sleep_ms((due - now) / NS_PER_MS);
}

static void *connection_main(void *arg)
{
    struct load *load = arg;
    char error[CURL_ERROR_SIZE] = "";
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/x-protobuf");
    headers = curl_slist_append(headers, "Expect:");
    if (!curl || !headers) {
        connection_failed(load, "out of memory");
        goto out;
    }
    curl_easy_setopt(curl, CURLOPT_URL, load->post_url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, answer_body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, answer_header);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
    while (!atomic_load(&load->stopped)) {
        struct body body;
        uint64_t spans_before;
        int err = body_take(load, &body, &spans_before);
        if (err) {
            connection_failed(load, err_text(err));
            break;
        }
        if (body.spans == 0)
            break;
        wait_for_turn(load, spans_before);
        body_send(load, curl, &body, error);
        free(body.bytes);
    }
out:
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return NULL;
}

static void send_all(struct load *load)
{
    pthread_t threads[CONNECTIONS_MAX];
    unsigned n = 0;
    load->started_ns = clock_monotonic_ns();
    for (; n < load->options.connections; n++)
        if (pthread_create(&threads[n], NULL, connection_main, load))
            break;
    if (n == 0)
        connection_failed(load, "no thread could be made");
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

/* ---- writing ---- */

static bool write_varint_body(FILE *file, const struct body *body)
{
    uint8_t prefix[10];
    size_t n = 0;
    for (size_t rest = body->len;; rest >>= 7) {
        prefix[n++] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
        if (rest <= 0x7f)
            break;
    }
    return fwrite(prefix, 1, n, file) == n && fwrite(body->bytes, 1, body->len, file) == body->len;
}

/* Length-delimited: before each ExportTraceServiceRequest its length as a varint. */
static void write_all(struct load *load)
{
    FILE *file = fopen(load->options.out, "wb");
    bool ok = file != NULL;
    load->started_ns = clock_monotonic_ns();
    while (ok && !atomic_load(&load->stopped)) {
        struct body body;
        uint64_t spans_before;
        int err = body_take(load, &body, &spans_before);
        if (err)
            errno = ENOMEM;
        if (err || body.spans == 0) {
            ok = !err;
            break;
        }
        ok = write_varint_body(file, &body);
        free(body.bytes);
    }
    if (file)
        ok = fclose(file) == 0 && ok;
    if (!ok) {
        char what[256];
        snprintf(what, sizeof what, "cannot write \"%s\": %s", load->options.out, strerror(errno));
        connection_failed(load, what);
    }
}

/* ---- the verb ---- */

static void print_results(const struct load *load, double seconds)
{
    const struct options *o = &load->options;
    double spans = load->spans_drawn ? (double)load->spans_drawn : 1;
    double bits = load_gen_bits(load->gen) / spans;
    uint64_t acked = atomic_load(&load->spans_acked);
    uint64_t done = o->out ? load->spans_drawn : acked;
    if (o->json) {
        struct buf out = BUF_INIT;
        struct json_writer w = json_writer(&out);
        json_open(&w, '{');
        const struct {
            const char *key;
            double value;
        } rows[] = {
            {"seconds", seconds},
            {"spansDrawn", (double)load->spans_drawn},
            {"spansAcked", (double)acked},
            {"spansRejected", (double)atomic_load(&load->spans_rejected)},
            {"spansRefused", (double)atomic_load(&load->spans_refused)},
            {"retries", (double)atomic_load(&load->retries)},
            {"posts", (double)atomic_load(&load->posts)},
            {"bytesDrawn", (double)load->bytes_drawn},
            {"spansPerSecond", (double)done / seconds},
            {"entropyBytesPerSpan", bits / 8},
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            json_key(&w, str_from(rows[i].key));
            json_double(&w, rows[i].value);
        }
        json_close(&w, '}');
        printf("%.*s\n", STR_ARG(buf_as_str(&out)));
        buf_done(&out);
        return;
    }
    printf("drawn     %llu spans in %llu traces, %.1f bytes a span as OTLP, entropy %.1f bytes a "
           "span\n",
           (unsigned long long)load->spans_drawn, (unsigned long long)load->traces_drawn,
           (double)load->bytes_drawn / spans, bits / 8);
    if (o->out)
        printf("written   %s\n", o->out);
    else
        printf("acked     %llu spans in %llu requests\nrejected  %llu\nrefused   %llu\nretries   "
               "%llu\n",
               (unsigned long long)acked, (unsigned long long)atomic_load(&load->posts),
               (unsigned long long)atomic_load(&load->spans_rejected),
               (unsigned long long)atomic_load(&load->spans_refused),
               (unsigned long long)atomic_load(&load->retries));
    printf("rate      %.0f spans/s, %.1f MB/s over %.2f s\n", (double)done / seconds,
           (double)load->bytes_drawn * (double)done / spans / 1e6 / seconds, seconds);
}

static const char help[] =
    "usage: pugmark load [OPTIONS]\n"
    "\n"
    "Draws synthetic traces and sends them to an OTLP/HTTP receiver, or writes them to a file.\n"
    "\n"
    "  --otlp URL            the receiver (default http://127.0.0.1:4318)\n"
    "  --out FILE            write length-delimited OTLP protobuf instead of sending\n"
    "  --traces N            how many traces (default 1000)\n"
    "  --spans-per-trace N   spans in each (default 10); one of more than 10,000 takes several "
    "requests\n"
    "  --rate N              spans per second (default: as fast as they are taken)\n"
    "  --seed N              the same seed and --start give the same bytes (default 1)\n"
    "  --start NS            when the first trace starts, ns since the epoch (default: so that the "
    "last is now)\n"
    "  --batch N             traces in a request (default 100)\n"
    "  --connections N       requests under way at once (default 4)\n"
    "  --prepare             encode everything before the first request\n"
    "  --json                results for machines\n";

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    uint64_t spans = 10, batch = 100, connections = 4;
    int status;
    *o = (struct options){.url = "http://127.0.0.1:4318", .traces = 1000, .seed = 1};
    const struct args_option options[] = {
        {.name = "otlp", .text = &o->url},
        {.name = "out", .text = &o->out},
        {.name = "traces", .count = &o->traces, .min = 1, .max = UINT64_C(1000000000000)},
        {.name = "spans-per-trace", .count = &spans, .min = 1, .max = LOAD_SPANS_PER_TRACE_MAX},
        {.name = "rate", .count = &o->rate, .min = 1, .max = UINT64_C(1000000000)},
        {.name = "seed", .count = &o->seed, .max = UINT64_MAX},
        {.name = "start", .count = &o->start_ns, .min = 1, .max = UINT64_MAX / 2},
        {.name = "batch", .count = &batch, .min = 1, .max = 100000},
        {.name = "connections", .count = &connections, .min = 1, .max = CONNECTIONS_MAX},
        {.name = "prepare", .flag = &o->prepare},
        {.name = "json", .flag = &o->json},
    };
    int n = args_parse("load", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n > 0)
        return args_wrong("load", "what is \"%s\"", argv[1]);
    o->spans_per_trace = (unsigned)spans;
    o->batch_traces = (unsigned)batch;
    o->connections = (unsigned)connections;
    if (!o->start_ns) /* the mean gap between traces is 1 ms */
        o->start_ns = clock_realtime_ns() -
                      (o->traces < 86400000 ? o->traces : 86400000) * NS_PER_MS;
    return -1;
}

int cli_load(int argc, char **argv)
{
    struct load load = {.lock = PTHREAD_MUTEX_INITIALIZER};
    int status = parse(argc, argv, &load.options);
    if (status >= 0)
        return status;
    size_t base_bytes = strlen(load.options.url);
    while (base_bytes && load.options.url[base_bytes - 1] == '/')
        base_bytes--;
    size_t url_bytes = base_bytes + sizeof "/v1/traces";
    load.post_url = malloc(url_bytes);
    load.gen = load_gen_new(load.options.seed, load.options.spans_per_trace, load.options.start_ns);
    if (!load.post_url || !load.gen) {
        fputs("pugmark load: out of memory\n", stderr);
        free(load.post_url);
        load_gen_free(load.gen);
        return CLI_COULD_NOT;
    }
    snprintf(load.post_url, url_bytes, "%.*s/v1/traces", (int)base_bytes, load.options.url);
    interrupted = &load;
    signal(SIGINT, on_interrupt);
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (load.options.prepare && bodies_prepare(&load))
        connection_failed(&load, "out of memory while preparing");
    else if (load.options.out)
        write_all(&load);
    else
        send_all(&load);
    double seconds = (double)(clock_monotonic_ns() - load.started_ns) / 1e9;
    bool has_sent = !load.options.out && atomic_load(&load.posts);
    if (load.problem[0])
        fprintf(stderr, "pugmark load: %s%s%s\n", load.options.out ? "" : load.post_url,
                load.options.out ? "" : ": ", load.problem);
    if (!load.problem[0] || has_sent)
        print_results(&load, seconds > 0 ? seconds : 1e-9);
    bool whole = !load.problem[0] && !atomic_load(&load.spans_refused) &&
                 !atomic_load(&load.spans_rejected);
    while (load.next_prepared < load.n_prepared)
        free(load.prepared[load.next_prepared++].bytes);
    free(load.prepared);
    arena_done(&load.arena);
    load_gen_free(load.gen);
    free(load.post_url);
    curl_global_cleanup();
    return whole ? CLI_DONE : CLI_COULD_NOT;
}
