/* OTLP over HTTP with protobuf, or over gRPC, both by libcurl.
 *
 * The drain encodes and puts bodies into a queue bounded in bytes; the sender, a thread of its own,
 * sends them. Bodies of OTLP can be joined by writing one after the other, so the sender takes as
 * many as are waiting, up to JOIN_BYTES, in one request.
 *
 * What a collector cannot take now (429, 502, 503, 504, no connection; the gRPC codes the
 * specification calls retryable) is sent again after a pause that doubles, with Retry-After obeyed,
 * for at most GIVE_UP_NS. What it refuses is lost, at once. All losses are counted in spans.
 *
 * Source: opentelemetry.io/docs/specs/otlp, 1.x: "OTLP/HTTP", "OTLP/gRPC", "Failures". */
#include "base/clock.h"
#include "sdk/curl.h"
#include "sdk/exporter.h"
#include "wire/otlp.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define JOIN_BYTES (1u << 20)
#define ANSWER_BYTES_MAX (64u << 10)
#define PAUSE_FIRST_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS (5 * NS_PER_S)
#define GIVE_UP_NS (30 * NS_PER_S)
#define GRPC_PREFIX 5

struct body {
    struct body *next;
    char *ptr;
    size_t len, n_spans;
};

struct otlp {
    struct exporter exporter;
    const struct config *config;
    const struct curl_api *curl;
    struct exporter_counts *counts;
    _Atomic bool told_queue, told_reach, told_refused, told_partial;

    /* the sender's */
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    struct buf request, answer;
    long grpc_status; /* -1: none seen */
    char grpc_message[120];
    uint64_t retry_after_ns;

    pthread_t sender;
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    /* under lock */
    struct body *first, **last;
    size_t bytes;
    bool sending;
    bool closing;
};

enum outcome { SENT, REFUSED, AGAIN };

/* ---- the answer ---- */

static size_t on_body(char *bytes, size_t size, size_t n, void *user)
{
    struct otlp *o = user;
    if (o->answer.len + size * n <= ANSWER_BYTES_MAX)
        buf_put(&o->answer, bytes, size * n);
    return size * n;
}

/* Headers and, over HTTP/2, trailers. */
static size_t on_header(char *bytes, size_t size, size_t n, void *user)
{
    struct otlp *o = user;
    uint64_t number;
    struct str value, name = str_split((struct str){bytes, size * n}, ':', &value);
    value = str_trim(value);
    if (str_eq_nocase(name, STR("grpc-status")) && str_to_u64(value, &number))
        o->grpc_status = (long)number;
    else if (str_eq_nocase(name, STR("grpc-message")))
        snprintf(o->grpc_message, sizeof o->grpc_message, "%.*s",
                 value.len < 100 ? (int)value.len : 100, value.ptr);
    else if (str_eq_nocase(name, STR("retry-after")) && str_to_u64(value, &number))
        o->retry_after_ns = (number > 60 ? 60 : number) * NS_PER_S;
    return size * n;
}

static bool http_again(long status)
{
    return status == 429 || status == 502 || status == 503 || status == 504;
}

static bool grpc_again(long status)
{
    /* CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE,
     * DATA_LOSS */
    return status == 1 || status == 4 || status == 8 || status == 10 || status == 11 ||
           status == 14 || status == 15;
}

/* An accepted request may still have had spans that were not. */
static uint64_t spans_rejected(struct otlp *o, size_t n_spans)
{
    uint64_t rejected = 0;
    struct str message = STR_NONE, body = buf_as_str(&o->answer);
    if (o->config->otlp_protocol == OTLP_GRPC)
        body = str_skip(body, GRPC_PREFIX);
    if (otlp_decode_response(body, &rejected, &message) != 0)
        return 0;
    if (rejected)
        exporter_tell(o->config, &o->told_partial, "the collector did not take all spans: %.*s",
                      message.len < 150 ? (int)message.len : 150, message.ptr ? message.ptr : "");
    return rejected < n_spans ? rejected : n_spans;
}

static void tell_refused(struct otlp *o, long status)
{
    const char *url = o->config->otlp_url;
    if (o->config->otlp_protocol == OTLP_GRPC && o->grpc_status >= 0)
        exporter_tell(o->config, &o->told_refused, "%.100s refused spans (gRPC %ld %s)", url,
                      o->grpc_status, o->grpc_message);
    else if (o->config->otlp_protocol == OTLP_GRPC)
        exporter_tell(o->config, &o->told_refused, "%.100s refused spans (HTTP %ld)", url, status);
    else
        exporter_tell(o->config, &o->told_refused, "%.100s refused spans (HTTP %ld)%s", url, status,
                      status == 400 || status == 415
                          ? "; is this a gRPC port? OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
                          : "");
}

static enum outcome judge(struct otlp *o, CURLcode code)
{
    long status = 0;
    if (code != CURLE_OK) {
        exporter_tell(o->config, &o->told_reach, "cannot send to %.120s: %s", o->config->otlp_url,
                      o->curl->easy_strerror(code));
        return AGAIN;
    }
    o->curl->easy_getinfo(o->easy, CURLINFO_RESPONSE_CODE, &status);
    bool ok = status >= 200 && status < 300;
    bool again = http_again(status);
    if (o->config->otlp_protocol == OTLP_GRPC && ok) {
        ok = o->grpc_status == 0;
        again = grpc_again(o->grpc_status);
    }
    if (ok)
        return SENT;
    if (again) {
        if (o->grpc_status >= 0)
            exporter_tell(o->config, &o->told_reach, "%.120s is busy (gRPC %ld)",
                          o->config->otlp_url, o->grpc_status);
        else
            exporter_tell(o->config, &o->told_reach, "%.120s is busy (HTTP %ld)",
                          o->config->otlp_url, status);
        return AGAIN;
    }
    tell_refused(o, status);
    return REFUSED;
}

/* ---- one request ---- */

static bool is_closing(struct otlp *o)
{
    pthread_mutex_lock(&o->lock);
    bool closing = o->closing;
    pthread_mutex_unlock(&o->lock);
    return closing;
}

static enum outcome post(struct otlp *o)
{
    const struct curl_api *curl = o->curl;
    int running = 0, left;
    CURLcode code = CURLE_ABORTED_BY_CALLBACK;
    buf_clear(&o->answer);
    o->grpc_status = -1;
    o->grpc_message[0] = '\0';
    o->retry_after_ns = 0;
    curl->easy_setopt(o->easy, CURLOPT_POSTFIELDS, o->request.ptr);
    curl->easy_setopt(o->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)o->request.len);
    curl->multi_add_handle(o->multi, o->easy);
    /* Not easy_perform: that could not be told to stop. */
    do {
        if (curl->multi_perform(o->multi, &running) != CURLM_OK)
            break;
        CURLMsg *m = curl->multi_info_read(o->multi, &left);
        if (m && m->msg == CURLMSG_DONE) {
            code = m->data.result;
            break;
        }
        curl->multi_poll(o->multi, NULL, 0, 1000, NULL);
    } while (!is_closing(o));
    enum outcome outcome = judge(o, code);
    curl->multi_remove_handle(o->multi, o->easy);
    return outcome;
}

/* Waits `ns`, or until the exporter closes: false. */
static bool pause_sender(struct otlp *o, uint64_t ns)
{
    struct timespec when;
    uint64_t end = clock_monotonic_ns() + ns;
    when = (struct timespec){(time_t)(end / NS_PER_S), (long)(end % NS_PER_S)};
    pthread_mutex_lock(&o->lock);
    while (!o->closing && clock_monotonic_ns() < end)
        pthread_cond_timedwait(&o->wake, &o->lock, &when);
    bool closing = o->closing;
    pthread_mutex_unlock(&o->lock);
    return !closing;
}

static void send_request(struct otlp *o, size_t n_spans)
{
    uint64_t started = clock_monotonic_ns(), pause = PAUSE_FIRST_NS;
    enum outcome outcome;
    if (o->config->otlp_protocol == OTLP_GRPC) {
        uint32_t len = __builtin_bswap32((uint32_t)(o->request.len - GRPC_PREFIX));
        o->request.ptr[0] = 0;
        memcpy(o->request.ptr + 1, &len, 4);
    }
    while ((outcome = post(o)) == AGAIN) {
        uint64_t wait = o->retry_after_ns ? o->retry_after_ns : pause;
        if (clock_monotonic_ns() + wait - started > GIVE_UP_NS || !pause_sender(o, wait))
            break;
        pause = pause * 2 < PAUSE_MAX_NS ? pause * 2 : PAUSE_MAX_NS;
    }
    uint64_t lost = outcome == SENT ? spans_rejected(o, n_spans) : n_spans;
    atomic_fetch_add(&o->counts->exported, n_spans - lost);
    atomic_fetch_add(&o->counts->lost_export, lost);
}

/* ---- the sender ---- */

static void body_free(struct body *b)
{
    free(b->ptr);
    free(b);
}

/* With the lock held: the bodies for one request, out of the queue and into o->request. */
static size_t join(struct otlp *o)
{
    size_t n_spans = 0;
    buf_clear(&o->request);
    if (o->config->otlp_protocol == OTLP_GRPC)
        buf_put(&o->request, "\0\0\0\0", GRPC_PREFIX);
    while (o->first && (n_spans == 0 || o->request.len + o->first->len <= JOIN_BYTES)) {
        struct body *b = o->first;
        o->first = b->next;
        if (!o->first)
            o->last = &o->first;
        o->bytes -= b->len;
        n_spans += b->n_spans;
        buf_put(&o->request, b->ptr, b->len);
        body_free(b);
    }
    return n_spans;
}

static void *sender_main(void *arg)
{
    struct otlp *o = arg;
    pthread_mutex_lock(&o->lock);
    while (!o->closing) {
        if (!o->first) {
            pthread_cond_wait(&o->wake, &o->lock);
            continue;
        }
        size_t n_spans = join(o);
        o->sending = true;
        pthread_mutex_unlock(&o->lock);
        if (buf_ok(&o->request))
            send_request(o, n_spans);
        else
            atomic_fetch_add(&o->counts->lost_export, n_spans);
        pthread_mutex_lock(&o->lock);
        o->sending = false;
        pthread_cond_broadcast(&o->idle);
    }
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

/* ---- the exporter ---- */

static void otlp_take(struct exporter *e, const struct taken_batch *batch,
                      struct exporter_counts *counts, const struct pug_counts *totals)
{
    struct otlp *o = (struct otlp *)e;
    struct buf text = BUF_INIT;
    struct body *b = malloc(sizeof *b);
    (void)totals;
    otlp_encode(&batch->spans, &text);
    if (!b || !buf_ok(&text)) {
        atomic_fetch_add(&counts->lost_export, batch->spans.n);
        buf_done(&text);
        free(b);
        return;
    }
    *b = (struct body){.n_spans = batch->spans.n};
    b->ptr = buf_detach(&text, &b->len);
    pthread_mutex_lock(&o->lock);
    bool full = o->bytes + b->len > o->config->queue_bytes_max;
    if (!full) {
        *o->last = b;
        o->last = &b->next;
        o->bytes += b->len;
        pthread_cond_signal(&o->wake);
    }
    pthread_mutex_unlock(&o->lock);
    if (full) {
        atomic_fetch_add(&counts->lost_queue_full, b->n_spans);
        exporter_tell(o->config, &o->told_queue,
                      "spans are dropped: %zu bytes are waiting for %.100s",
                      o->config->queue_bytes_max, o->config->otlp_url);
        body_free(b);
    }
}

static bool otlp_flush(struct exporter *e, uint64_t deadline_ns)
{
    struct otlp *o = (struct otlp *)e;
    struct timespec when = {(time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S)};
    pthread_mutex_lock(&o->lock);
    while ((o->first || o->sending) && clock_monotonic_ns() < deadline_ns)
        pthread_cond_timedwait(&o->idle, &o->lock, &when);
    bool empty = !o->first && !o->sending;
    pthread_mutex_unlock(&o->lock);
    return empty;
}

static void otlp_free(struct otlp *o)
{
    if (o->multi)
        o->curl->multi_cleanup(o->multi);
    if (o->easy)
        o->curl->easy_cleanup(o->easy);
    if (o->headers)
        o->curl->slist_free_all(o->headers);
    buf_done(&o->request);
    buf_done(&o->answer);
    pthread_cond_destroy(&o->idle);
    pthread_cond_destroy(&o->wake);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

static void otlp_close(struct exporter *e, uint64_t deadline_ns)
{
    struct otlp *o = (struct otlp *)e;
    (void)deadline_ns; /* flush has waited; now a transfer that runs is broken off */
    pthread_mutex_lock(&o->lock);
    o->closing = true;
    pthread_cond_broadcast(&o->wake);
    pthread_mutex_unlock(&o->lock);
    o->curl->multi_wakeup(o->multi);
    pthread_join(o->sender, NULL);
    while (o->first) {
        struct body *b = o->first;
        o->first = b->next;
        atomic_fetch_add(&o->counts->lost_export, b->n_spans);
        body_free(b);
    }
    otlp_free(o);
}

/* "a=b,c=d" with percent-encoded values, as OTEL_EXPORTER_OTLP_HEADERS has them. */
static bool headers_add(struct otlp *o, const char *list)
{
    struct str rest = str_from(list);
    while (rest.ptr && rest.len) {
        char line[1024];
        struct str value, name = str_trim(str_split(str_split(rest, ',', &rest), '=', &value));
        value = str_trim(value);
        if (!value.ptr || name.len == 0 || name.len + value.len + 3 > sizeof line)
            continue;
        size_t n = (size_t)snprintf(line, sizeof line, "%.*s: ", STR_ARG(name));
        for (size_t i = 0; i < value.len; i++) {
            uint8_t byte;
            if (value.ptr[i] == '%' && i + 2 < value.len &&
                hex_get(&byte, (struct str){value.ptr + i + 1, 2}, 1) && byte >= ' ') {
                line[n++] = (char)byte;
                i += 2;
            } else {
                line[n++] = value.ptr[i];
            }
        }
        line[n] = '\0';
        struct curl_slist *more = o->curl->slist_append(o->headers, line);
        if (!more)
            return false;
        o->headers = more;
    }
    return true;
}

static bool transfer_init(struct otlp *o)
{
    const struct curl_api *curl = o->curl;
    const struct config *c = o->config;
    const char *first = c->otlp_protocol == OTLP_GRPC ? "Content-Type: application/grpc"
                                                      : "Content-Type: application/x-protobuf";
    o->easy = curl->easy_init();
    o->multi = curl->multi_init();
    o->headers = curl->slist_append(NULL, first);
    struct curl_slist *more =
        o->headers ? curl->slist_append(o->headers,
                                        c->otlp_protocol == OTLP_GRPC ? "TE: trailers" : "Expect:")
                   : NULL;
    if (!o->easy || !o->multi || !more)
        return false;
    o->headers = more;
    if (c->otlp_headers && !headers_add(o, c->otlp_headers))
        return false;
    curl->easy_setopt(o->easy, CURLOPT_URL, c->otlp_url);
    curl->easy_setopt(o->easy, CURLOPT_HTTPHEADER, o->headers);
    curl->easy_setopt(o->easy, CURLOPT_USERAGENT, "OTel-OTLP-Exporter-C/" PUGMARK_VERSION);
    curl->easy_setopt(o->easy, CURLOPT_NOSIGNAL, 1L);
    curl->easy_setopt(o->easy, CURLOPT_POST, 1L);
    curl->easy_setopt(o->easy, CURLOPT_TIMEOUT_MS, (long)(c->otlp_timeout_ns / NS_PER_MS));
    curl->easy_setopt(o->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl->easy_setopt(o->easy, CURLOPT_WRITEDATA, o);
    curl->easy_setopt(o->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl->easy_setopt(o->easy, CURLOPT_HEADERDATA, o);
    if (c->otlp_protocol == OTLP_GRPC && strncmp(c->otlp_url, "http:", 5) == 0) {
        curl->easy_setopt(o->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
        /* libcurl 7.88 (Debian 12) fails with "Error in the HTTP2 framing layer" when it uses such
         * a connection twice. */
        curl->easy_setopt(o->easy, CURLOPT_FORBID_REUSE, 1L);
    } else if (c->otlp_protocol == OTLP_GRPC) {
        curl->easy_setopt(o->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_0);
    }
    return true;
}

int export_otlp_open(const struct config *c, struct exporter_counts *counts, struct exporter **ret,
                     struct error_detail *ret_problem)
{
    const struct curl_api *curl;
    int err = curl_load(&curl, ret_problem);
    if (err)
        return err;
    struct otlp *o = calloc(1, sizeof *o);
    if (!o)
        return ERR_NOMEM;
    o->exporter = (struct exporter){.take = otlp_take, .flush = otlp_flush, .close = otlp_close};
    o->config = c;
    o->curl = curl;
    o->counts = counts;
    o->last = &o->first;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->wake, &attr);
    pthread_cond_init(&o->idle, &attr);
    pthread_condattr_destroy(&attr);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = transfer_init(o) && pthread_create(&o->sender, NULL, sender_main, o) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!ok) {
        otlp_free(o);
        return ERR_NOMEM;
    }
    pthread_setname_np(o->sender, "pugmark-send");
    *ret = &o->exporter;
    return 0;
}
