#include "sdk/sender.h"

#include "base/clock.h"
#include "sdk/gzip.h"
#include "sdk/own_thread.h"
#include "sdk/retry.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOIN_BYTES (1u << 20)
/* gRPC servers take 4 MiB unless told otherwise. */
#define BODY_BYTES_MAX (3u << 20)
#define GRPC_PREFIX 5
#define GIVE_UP_TIMEOUTS 3
#define ATTEMPTS_MAX 20
/* How often a host may close our descriptors under us before we stop sending. */
#define ABANDONED_MAX 100
/* The thread looks after its descriptors at least so often. */
#define WAIT_MAX_NS NS_PER_S
/* So often when it cannot wait for them. */
#define BLIND_WAIT_NS ((long)(50 * NS_PER_MS))

/* Memory of bodies that were sent is kept for the next ones: fresh memory of this size is the kernel's
 * to clear, page by page, which costs as much as encoding into it. */
#define SPARES_MAX 4
#define SPARE_BYTES_MAX (1u << 20)

struct body {
    struct body *next;
    struct buf buf;
    size_t n_things;
};

enum target_state { IDLE, SENDING, PAUSING };

struct target {
    struct sender_target is;
    _Atomic bool told_queue, told_reach, told_refused, told_partial;

    /* the thread's */
    struct transfer transfer;
    enum target_state state;
    struct buf request, packed; /* `packed`: as it goes out when it is compressed */
    bool is_packed;
    size_t n_things;
    unsigned attempts;
    uint64_t give_up_ns, resume_ns;

    /* under lock */
    struct body *first, **last;
    size_t bytes;
    uint64_t first_ns;                /* when the queue was empty last */
    size_t in_request;                /* bodies that left the queue and are not done */
    uint64_t n_put, n_done, flush_to; /* bodies */
};

struct sender {
    const struct config *config;
    const struct curl_api *curl;
    CURLM *multi;
    struct gzip *gzip; /* NULL: none */
    struct own_fd wake[2];
    unsigned n_abandoned;
    uint64_t random;
    _Atomic bool told_gzip, told_gone;
    struct target targets[SENDER_TARGETS_MAX];
    unsigned n_targets;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    /* under lock */
    bool closing;
    unsigned n_flushing; /* somebody waits: nothing lingers */
    struct buf spares[SPARES_MAX];
    unsigned n_spares;
};

static uint32_t next_random(struct sender *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (uint32_t)(s->random >> 32);
}

/* ---- waking the thread ---- */

static bool wake_open(struct sender *s)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    s->wake[0] = own_fd_take(fds[0]);
    s->wake[1] = own_fd_take(fds[1]);
    return s->wake[0].fd >= 0 && s->wake[1].fd >= 0;
}

/* With the lock held: the thread replaces the pipe when it is gone. */
static void wake(struct sender *s)
{
    if (own_fd_ok(&s->wake[1]))
        (void)!write(s->wake[1].fd, "", 1); /* full: it wakes anyway */
}

static void wake_clear(struct sender *s)
{
    char bytes[64];
    while (own_fd_ok(&s->wake[0]) && read(s->wake[0].fd, bytes, sizeof bytes) == sizeof bytes)
        ;
}

/* ---- the end of a request ---- */

static void finish(struct sender *s, struct target *t, uint64_t lost)
{
    atomic_fetch_add(t->is.sent, t->n_things - lost);
    atomic_fetch_add(t->is.lost, lost);
    t->state = IDLE;
    pthread_mutex_lock(&s->lock);
    t->n_done += t->in_request;
    t->in_request = 0;
    pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

/* An accepted request may still have had things that were not. */
static uint64_t rejected(struct sender *s, struct target *t)
{
    char why[160] = "";
    uint64_t n = t->is.rejected ? t->is.rejected(transfer_answer(&t->transfer), why, sizeof why)
                                : 0;
    if (n)
        exporter_tell(s->config, &t->told_partial, "the collector did not take all %s: %s",
                      t->is.things, why);
    return n < t->n_things ? n : t->n_things;
}

static void tell_refused(struct sender *s, struct target *t, CURLcode code)
{
    const struct transfer *x = &t->transfer;
    const char *url = t->is.to.url, *things = t->is.things;
    if (code != CURLE_OK && x->http_status == 0)
        exporter_tell(s->config, &t->told_refused, "%s cannot be sent to %.100s: %s", things, url,
                      s->curl->easy_strerror(code));
    else if (x->grpc_status >= 0)
        exporter_tell(s->config, &t->told_refused, "%.100s refused %s (gRPC %ld %s)", url, things,
                      x->grpc_status, x->grpc_message);
    else if (t->is.to.grpc)
        exporter_tell(s->config, &t->told_refused,
                      "%.100s refused %s (HTTP %ld); is this a gRPC port?", url, things,
                      x->http_status);
    else
        exporter_tell(s->config, &t->told_refused, "%.100s refused %s (HTTP %ld)%s", url, things,
                      x->http_status,
                      t->is.rejected && (x->http_status == 400 || x->http_status == 415)
                          ? "; is this a gRPC port? OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
                          : "");
}

static void tell_again(struct sender *s, struct target *t, enum verdict verdict, CURLcode code)
{
    const struct transfer *x = &t->transfer;
    if (verdict == VERDICT_UNREACHED)
        exporter_tell(s->config, &t->told_reach, "cannot send to %.120s: %s", t->is.to.url,
                      s->curl->easy_strerror(code));
    else if (x->grpc_status >= 0)
        exporter_tell(s->config, &t->told_reach, "%.120s is busy (gRPC %ld)", t->is.to.url,
                      x->grpc_status);
    else
        exporter_tell(s->config, &t->told_reach, "%.120s is busy (HTTP %ld)", t->is.to.url,
                      x->http_status);
}

static void transferred(struct sender *s, struct target *t, CURLcode code)
{
    enum verdict verdict = transfer_verdict(&t->transfer, code);
    uint64_t now = clock_monotonic_ns();
    t->attempts++;
    if (verdict == VERDICT_SENT) {
        finish(s, t, rejected(s, t));
        return;
    }
    if (verdict == VERDICT_REFUSED) {
        tell_refused(s, t, code);
        finish(s, t, t->n_things);
        return;
    }
    uint64_t wait = 0;
    if (verdict != VERDICT_ANEW) {
        tell_again(s, t, verdict, code);
        wait = retry_pause_ns(t->attempts, next_random(s));
        if (t->transfer.retry_after_ns > wait)
            wait = t->transfer.retry_after_ns;
    }
    t->resume_ns = now +
                   wait; /* also of the next request: the collector's wish is not this one's */
    t->state = PAUSING;
    /* A pause that the collector names is waited for, however long: what comes meanwhile has its bound. */
    if (t->transfer.retry_after_ns && t->resume_ns > t->give_up_ns)
        t->give_up_ns = t->resume_ns + t->is.to.timeout_ns;
    if (t->resume_ns > t->give_up_ns || t->attempts >= ATTEMPTS_MAX)
        finish(s, t, t->n_things);
}

/* ---- the beginning ---- */

static void body_free(struct body *b)
{
    buf_done(&b->buf);
    free(b);
}

/* With the lock held. */
static void body_recycle(struct sender *s, struct body *b)
{
    if (s->n_spares < SPARES_MAX && b->buf.cap <= SPARE_BYTES_MAX) {
        s->spares[s->n_spares++] = b->buf;
        b->buf = BUF_INIT;
    }
    body_free(b);
}

/* With the lock held: a body that is a request by itself goes as it is. */
static bool join_alone(struct sender *s, struct target *t)
{
    struct body *b = t->first;
    if (b->next || t->is.head.len || t->is.tail.len)
        return false;
    struct buf last = t->request;
    t->request = b->buf;
    b->buf = last;
    t->first = NULL;
    t->last = &t->first;
    t->bytes -= t->request.len;
    t->in_request++;
    t->n_things = b->n_things;
    body_recycle(s, b);
    return true;
}

/* With the lock held: the bodies for one request, out of the queue. */
static void join(struct sender *s, struct target *t)
{
    if (join_alone(s, t))
        return;
    t->n_things = 0;
    buf_clear(&t->request);
    buf_str(&t->request, t->is.head);
    for (bool first = true; t->first && (first || t->request.len + t->first->buf.len <= JOIN_BYTES);
         first = false) {
        struct body *b = t->first;
        t->first = b->next;
        if (!t->first)
            t->last = &t->first;
        t->bytes -= b->buf.len;
        t->in_request++;
        t->n_things += b->n_things;
        if (!first)
            buf_str(&t->request, t->is.mark);
        buf_str(&t->request, buf_as_str(&b->buf));
        body_recycle(s, b);
    }
    buf_str(&t->request, t->is.tail);
    t->first_ns = clock_monotonic_ns(); /* what is left did not fit */
}

/* With the lock held: when what waits goes out. A request costs the program far more than the bodies
 * in it, so they are gathered. */
static uint64_t due_ns(const struct sender *s, const struct target *t)
{
    if (!t->first)
        return UINT64_MAX;
    bool enough = t->bytes >= JOIN_BYTES / 2 || t->bytes >= t->is.queue_bytes_max / 4;
    return enough || t->is.at_once || s->n_flushing || s->closing
               ? 0
               : t->first_ns + SENDER_LINGER_INTERVALS * s->config->flush_interval_ns;
}

/* Compresses, and puts gRPC's prefix in front. */
static void pack(struct sender *s, struct target *t)
{
    size_t prefix = t->is.to.grpc ? GRPC_PREFIX : 0;
    t->is_packed = false;
    if (!buf_ok(&t->request))
        return;
    if (t->is.gzip && s->gzip) {
        buf_clear(&t->packed);
        buf_put(&t->packed, "\1\0\0\0", prefix);
        struct str plain = {t->request.ptr + prefix, t->request.len - prefix};
        t->is_packed = gzip_put(s->gzip, plain, &t->packed);
    }
    struct buf *out = t->is_packed ? &t->packed : &t->request;
    uint32_t len = __builtin_bswap32((uint32_t)(out->len - prefix));
    if (prefix)
        memcpy(out->ptr + 1, &len, sizeof len);
}

static void start(struct sender *s, struct target *t)
{
    const struct buf *out = t->is_packed ? &t->packed : &t->request;
    transfer_prepare(&t->transfer, buf_as_str(out), t->is_packed);
    if (s->curl->multi_add_handle(s->multi, t->transfer.easy) == CURLM_OK)
        t->state = SENDING;
    else
        finish(s, t, t->n_things);
}

/* What is to be done for `t` now; returns when to look again. */
static uint64_t tend(struct sender *s, struct target *t, uint64_t now)
{
    if (t->state == SENDING)
        return now + WAIT_MAX_NS;
    if (t->resume_ns > now)
        return t->resume_ns;
    if (t->state == IDLE) {
        pthread_mutex_lock(&s->lock);
        uint64_t due = due_ns(s, t);
        if (due <= now)
            join(s, t);
        pthread_mutex_unlock(&s->lock);
        if (due > now)
            return due < now + WAIT_MAX_NS ? due : now + WAIT_MAX_NS;
        t->attempts = 0;
        t->give_up_ns = now + GIVE_UP_TIMEOUTS * t->is.to.timeout_ns;
        pack(s, t);
        if (!buf_ok(&t->request)) {
            finish(s, t, t->n_things);
            return now;
        }
    }
    start(s, t);
    return now + WAIT_MAX_NS;
}

/* ---- the thread ---- */

/* The host has closed what was ours (daemons do). libcurl would write to it and close it, and by now
 * it may be the host's: its handles are left as they are, for good, and we begin again. */
static bool abandon(struct sender *s)
{
    bool ok = ++s->n_abandoned <= ABANDONED_MAX;
    CURLM *multi = ok ? s->curl->multi_init() : NULL;
    pthread_mutex_lock(&s->lock);
    ok = multi && wake_open(s);
    pthread_mutex_unlock(&s->lock);
    s->multi = multi;
    for (unsigned i = 0; i < s->n_targets; i++) {
        struct target *t = &s->targets[i];
        struct transfer old = t->transfer;
        t->transfer = (struct transfer){.easy = NULL};
        transfer_abandon(&t->transfer);
        ok = ok && transfer_init(&t->transfer, s->curl, &t->is.to) == 0;
        buf_done(&old.body);
        if (t->state == SENDING)
            t->state = PAUSING; /* and its time is now */
    }
    if (!ok)
        exporter_tell(s->config, &s->told_gone,
                      "nothing is sent any more: the program keeps closing our connections");
    return ok;
}

static bool descriptors_ok(const struct sender *s)
{
    bool ok = own_fd_ok(&s->wake[0]) && own_fd_ok(&s->wake[1]);
    for (unsigned i = 0; i < s->n_targets; i++)
        ok = ok && transfer_sockets_ok(&s->targets[i].transfer);
    return ok;
}

static bool take_results(struct sender *s)
{
    bool any = false;
    int left;
    for (CURLMsg *m; (m = s->curl->multi_info_read(s->multi, &left));) {
        if (m->msg != CURLMSG_DONE)
            continue;
        CURL *easy = m->easy_handle;
        CURLcode code = m->data.result;
        s->curl->multi_remove_handle(s->multi, easy);
        for (unsigned i = 0; i < s->n_targets; i++)
            if (s->targets[i].transfer.easy == easy)
                transferred(s, &s->targets[i], code);
        any = true;
    }
    return any;
}

static bool is_closing(struct sender *s)
{
    pthread_mutex_lock(&s->lock);
    bool closing = s->closing;
    pthread_mutex_unlock(&s->lock);
    return closing;
}

/* Everything that waits is lost. */
static void drop_all(struct sender *s)
{
    for (unsigned i = 0; i < s->n_targets; i++) {
        struct target *t = &s->targets[i];
        if (t->state != IDLE)
            finish(s, t, t->n_things);
        pthread_mutex_lock(&s->lock);
        while (t->first) {
            struct body *b = t->first;
            t->first = b->next;
            t->bytes -= b->buf.len;
            t->n_done++;
            atomic_fetch_add(t->is.lost, b->n_things);
            body_free(b);
        }
        t->last = &t->first;
        pthread_cond_broadcast(&s->idle);
        pthread_mutex_unlock(&s->lock);
    }
}

/* When it can send no more, it still takes what comes, and loses it. */
static void mourn(struct sender *s)
{
    while (!is_closing(s)) {
        drop_all(s);
        nanosleep(&(struct timespec){.tv_nsec = 50 * NS_PER_MS}, NULL);
    }
}

static void *sender_main(void *arg)
{
    struct sender *s = arg;
    int running;
    while (!is_closing(s)) {
        if (!descriptors_ok(s) && !abandon(s)) {
            mourn(s);
            break;
        }
        uint64_t now = clock_monotonic_ns(), until = now + WAIT_MAX_NS;
        for (unsigned i = 0; i < s->n_targets; i++) {
            uint64_t next = tend(s, &s->targets[i], now);
            until = next < until ? next : until;
        }
        s->curl->multi_perform(s->multi, &running);
        if (take_results(s))
            continue;
        now = clock_monotonic_ns();
        /* Rounded up: not a millisecond too early, again and again. */
        int wait_ms = until > now ? (int)((until - now + NS_PER_MS - 1) / NS_PER_MS) : 0;
        struct curl_waitfd woken = {.fd = s->wake[0].fd, .events = CURL_WAIT_POLLIN};
        /* A program that has given up its right to descriptors (RLIMIT_NOFILE) cannot poll any either. */
        if (s->curl->multi_wait(s->multi, &woken, 1, wait_ms, NULL) != CURLM_OK)
            nanosleep(&(struct timespec){.tv_nsec = BLIND_WAIT_NS}, NULL);
        else if (!woken.revents)
            continue;
        wake_clear(s);
    }
    drop_all(s);
    return NULL;
}

/* ---- what the drain calls ---- */

void sender_put(struct sender *s, unsigned target, struct buf *body, size_t n_things)
{
    struct target *t = &s->targets[target];
    struct body *b = buf_ok(body) ? malloc(sizeof *b) : NULL;
    if (!b) {
        atomic_fetch_add(t->is.lost, n_things);
        buf_done(body);
        return;
    }
    *b = (struct body){.n_things = n_things, .buf = *body};
    *body = BUF_INIT;
    pthread_mutex_lock(&s->lock);
    bool full = t->bytes + b->buf.len > t->is.queue_bytes_max;
    if (!full) {
        bool was_due = due_ns(s, t) == 0;
        if (!t->first)
            t->first_ns = clock_monotonic_ns();
        bool is_first = !t->first;
        *t->last = b;
        t->last = &b->next;
        t->bytes += b->buf.len;
        t->n_put++;
        if (is_first || (!was_due && due_ns(s, t) == 0))
            wake(s);
    }
    pthread_mutex_unlock(&s->lock);
    if (full) {
        atomic_fetch_add(t->is.lost_full, n_things);
        exporter_tell(s->config, &t->told_queue, "%s are dropped: %zu bytes are waiting for %.100s",
                      t->is.things, t->is.queue_bytes_max, t->is.to.url);
        body_free(b);
    }
}

struct buf sender_body(struct sender *s)
{
    struct buf spare = BUF_INIT;
    pthread_mutex_lock(&s->lock);
    if (s->n_spares)
        spare = s->spares[--s->n_spares];
    pthread_mutex_unlock(&s->lock);
    buf_clear(&spare);
    return spare;
}

void sender_put_spans(struct sender *s, unsigned target, const struct span_batch *batch,
                      void (*encode)(const struct span_batch *batch, struct buf *out))
{
    struct buf body = sender_body(s);
    encode(batch, &body);
    if (body.len <= BODY_BYTES_MAX || batch->n < 2) {
        sender_put(s, target, &body, batch->n);
        return;
    }
    buf_done(&body);
    struct span_batch half = *batch;
    half.n = batch->n / 2;
    sender_put_spans(s, target, &half, encode);
    half.spans = batch->spans + half.n;
    half.n = batch->n - half.n;
    sender_put_spans(s, target, &half, encode);
}

static bool all_sent(const struct sender *s)
{
    for (unsigned i = 0; i < s->n_targets; i++)
        if (s->targets[i].n_done < s->targets[i].flush_to)
            return false;
    return true;
}

bool sender_flush(struct sender *s, uint64_t deadline_ns, bool again)
{
    struct timespec when = {(time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S)};
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->n_targets && !again; i++)
        s->targets[i].flush_to = s->targets[i].n_put;
    s->n_flushing++;
    wake(s);
    while (!all_sent(s) && clock_monotonic_ns() < deadline_ns)
        pthread_cond_timedwait(&s->idle, &s->lock, &when);
    bool sent = all_sent(s);
    s->n_flushing--;
    pthread_mutex_unlock(&s->lock);
    return sent;
}

/* ---- birth and death ---- */

static bool is_foreign(const struct own_fd *f)
{
    return f->fd >= 0 && !own_fd_ok(f);
}

static void sender_free(struct sender *s)
{
    /* libcurl closes what it has open: not when it is not ours any more. A pipe that was never made is no sign of that. */
    bool ours = !is_foreign(&s->wake[0]) && !is_foreign(&s->wake[1]);
    for (unsigned i = 0; i < s->n_targets; i++)
        ours = ours && transfer_sockets_ok(&s->targets[i].transfer);
    if (ours) {
        for (unsigned i = 0; i < s->n_targets; i++) {
            struct target *t = &s->targets[i];
            if (t->transfer.easy && s->multi)
                s->curl->multi_remove_handle(s->multi, t->transfer.easy);
            transfer_done(&t->transfer);
        }
        if (s->multi)
            s->curl->multi_cleanup(s->multi);
    }
    for (unsigned i = 0; i < s->n_targets; i++) {
        buf_done(&s->targets[i].request);
        buf_done(&s->targets[i].packed);
    }
    for (unsigned i = 0; i < s->n_spares; i++)
        buf_done(&s->spares[i]);
    own_fd_close(&s->wake[0]);
    own_fd_close(&s->wake[1]);
    gzip_free(s->gzip);
    pthread_cond_destroy(&s->idle);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void sender_close(struct sender *s)
{
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    wake(s);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    sender_free(s);
}

static int targets_init(struct sender *s, const struct sender_target *targets, unsigned n)
{
    bool gzip = false;
    struct error_detail problem = {.code = 0};
    for (unsigned i = 0; i < n; i++) {
        struct target *t = &s->targets[i];
        t->is = targets[i];
        t->last = &t->first;
        transfer_abandon(&t->transfer);
        int err = transfer_init(&t->transfer, s->curl, &t->is.to);
        if (err)
            return err;
        s->n_targets++;
        gzip |= t->is.gzip;
    }
    if (gzip && gzip_new(&s->gzip, &problem) != 0)
        exporter_tell(s->config, &s->told_gzip, "%s", problem.message);
    return 0;
}

int sender_new(const struct config *c, const struct sender_target *targets, unsigned n,
               struct sender **ret, struct error_detail *ret_problem)
{
    const struct curl_api *curl;
    int err = curl_load(&curl, ret_problem);
    if (err)
        return err;
    struct sender *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->config = c;
    s->curl = curl;
    s->random = (clock_monotonic_ns() ^ (uint64_t)getpid() << 32) | 1;
    s->wake[0] = s->wake[1] = OWN_FD_NONE;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->idle, &attr);
    pthread_condattr_destroy(&attr);
    s->multi = curl->multi_init();
    err = !s->multi || !wake_open(s) ? ERR_NOMEM : targets_init(s, targets, n);
    if (!err)
        err = own_thread_start(&s->thread, "pugmark-send", sender_main, s);
    if (err)
        sender_free(s);
    else
        *ret = s;
    return err;
}
