#include "sdk/sdk.h"
#include "sdk/alloc.h"

#include "base/clock.h"
#include "sdk/handover.h"
#include "sdk/process_context.h"
#include "sdk/propagate.h"
#include "sdk/span.h"
#include "sdk/watch.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sdk sdk = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* This thread is in pug_start, with the lock: what it calls from the host's log callback must not wait for
 * it. */
static __thread bool is_starting __attribute__((tls_model("initial-exec")));

/* Of the whole life of the process, so that they go on counting over stop and start. */
static struct exporter_counts counts;

void exporter_tell(const struct config *c, _Atomic bool *told, const char *format, ...)
{
    char text[256];
    va_list args;
    if (!c->log || atomic_exchange(told, true))
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* Collectors have a say in it, and it goes into a log or on a terminal: it is one line without escapes. */
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = ' ';
    c->log(c->log_user, text);
}

/* ---- thread exit, fork, exit ---- */

static void thread_exits(void *lane)
{
    pug__lane_1 = NULL;
    lane_leave_thread(lane);
}

/* The child has the parent's memory mapped, and no drain. It keeps nothing of it but the names of
 * sites and the place in the trace; a child that records no span (and calls exec) pays no more. */
static void forked(void)
{
    int state = atomic_load(&sdk.state);
    if (!atomic_load(&sdk.memory) || state == SDK_REVIVING)
        return;
    span_current_context(&sdk.inherited);
    sdk.inherited_by = pthread_self();
    process_context_forked();
    if (pug__lane_1)
        pthread_setspecific(sdk.key, NULL);
    pug__lane_1 = NULL;
    own_fds_forked(); /* connections and files are the parent's */
    sdk.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    sdk.parents = atomic_load(&sdk.memory);
    sdk.drain = NULL; /* as it is in the middle of something */
    atomic_store(&sdk.memory, NULL);
    atomic_store(&counts.exported, 0);
    atomic_store(&counts.lost_queue_full, 0);
    atomic_store(&counts.lost_export, 0);
    atomic_store(&counts.metrics_exported, 0);
    atomic_store(&counts.metrics_lost, 0);
    atomic_fetch_add(&sdk.epoch, 1); /* handles of the parent are its to end */
    atomic_store(&sdk.state, state == SDK_ON ? SDK_FORKED : SDK_OFF);
}

/* A program may call exit() in a signal handler that interrupted one of our calls: the lock is then
 * waited for as long as a stop may take, and no longer. */
static void exits(void)
{
    (void)pug_stop();
}

/* A plugin that has us inside (libpugmark.a) and is unloaded would take our threads' code away. */
static void pin(void)
{
    Dl_info info;
    if (dladdr(&sdk, &info) && info.dli_fname)
        (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

/* ---- what our calls do not do to the caller ----
 *
 * errno stays. The thread is not cancelled inside, with our lock held. Files over RLIMIT_FSIZE and
 * pipes without readers are errors here: their signals are not delivered. */

struct guest {
    int errno_before, cancel_before;
    sigset_t mask_before;
    bool xfsz_pending, pipe_pending;
};

static void guest_enter(struct guest *g)
{
    sigset_t ours, pending;
    g->errno_before = errno;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &g->cancel_before);
    sigemptyset(&ours);
    sigaddset(&ours, SIGXFSZ);
    sigaddset(&ours, SIGPIPE);
    sigpending(&pending);
    g->xfsz_pending = sigismember(&pending, SIGXFSZ);
    g->pipe_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &ours, &g->mask_before);
}

static void guest_leave(const struct guest *g)
{
    sigset_t ours;
    sigemptyset(&ours);
    if (!g->xfsz_pending)
        sigaddset(&ours, SIGXFSZ);
    if (!g->pipe_pending)
        sigaddset(&ours, SIGPIPE);
    while (sigtimedwait(&ours, NULL, &(struct timespec){0}) > 0)
        ;
    pthread_sigmask(SIG_SETMASK, &g->mask_before, NULL);
    pthread_setcancelstate(g->cancel_before, &(int){0});
    errno = g->errno_before;
}

static int once_init(void)
{
    static bool done, has_key, has_atfork;
    if (done)
        return 0;
    /* What was done before one of the others failed is not done again: there are 1024 keys. */
    if (!has_key && pthread_key_create(&sdk.key, thread_exits) != 0)
        return ERR_NOMEM;
    has_key = true;
    if (!has_atfork && pthread_atfork(NULL, NULL, forked) != 0)
        return ERR_NOMEM;
    has_atfork = true;
    /* After the exporter was opened: what OpenSSL registers then must run after this. */
    if (atexit(exits) != 0 || at_quick_exit(exits) != 0)
        return ERR_NOMEM;
    pin();
    done = true;
    return 0;
}

/* ---- start ---- */

static int exporter_open(struct exporter **ret, struct error_detail *problem)
{
    switch (sdk.config.backend) {
    case PUG_BACKEND_OTLP:
        return export_otlp_open(&sdk.config, &counts, ret, problem);
    case PUG_BACKEND_ZIPKIN:
        return export_zipkin_open(&sdk.config, &counts, ret, problem);
    case PUG_BACKEND_STDOUT:
        return export_stdout_open(&sdk.config, &counts, ret, problem);
    case PUG_BACKEND_DISCARD:
        return export_discard_open(ret);
    case PUG_BACKEND_LOCAL:
    case PUG_BACKEND_DEFAULT: /* config_init has made it one of the others */
        break;
    }
    return export_local_open(&sdk.config, ret, problem);
}

static unsigned watch_wanted(void)
{
    return (sdk.config.alloc_tracking && watch_has_allocations() ? WATCH_ALLOCATIONS : 0) |
           (sdk.config.thread_context ? WATCH_THREAD_CONTEXT : 0);
}

/* With memory and drain there or not: makes what is missing. */
static int run(struct error_detail *problem)
{
    struct exporter *exporter = NULL;
    struct memory *m = atomic_load(&sdk.memory), *parents = sdk.parents;
    int err = exporter_open(&exporter, problem);
    if (err)
        return err;
    if (!m) {
        err = memory_new(sdk.config.ring_bytes, parents ? parents->clock : ticks_source(), parents,
                         &m);
        if (!err)
            err = memory_prepare(m, parents ? 2 : LANES_SPARE);
        if (!err)
            err = drain_new(m, &sdk.config, &sdk.drain);
        if (!err)
            atomic_store(&sdk.memory, m);
        else
            memory_free(m); /* nobody has seen it */
    }
    if (!err)
        err = once_init();
    if (!err) {
        sampler_start(&sdk.sampler, &sdk.config, m);
        memory_ask(m, sampler_is_needed(&sdk.sampler));
        watch_set(m, watch_wanted());
    }
    if (!err)
        err = drain_start(sdk.drain, exporter, &counts);
    if (err) {
        error_set(problem, err, 0, "%s", err_text(err));
        exporter->close(exporter, 0);
        return err;
    }
    /* Nobody can be inside the parent's: the one thread that was is the one here, without a lane.
     */
    memory_free(parents);
    sdk.parents = NULL;
    process_context_publish(&sdk.config);
    return 0;
}

static int start_locked(const struct pug_options *options)
{
    struct error_detail problem = {.code = 0};
    struct config config;
    _Atomic bool told = false, told_alloc = false;
    if (atomic_load(&sdk.state) != SDK_OFF || (sdk.drain && drain_is_running(sdk.drain)))
        return PUG_ERR_BUSY;
    int err = config_init(&config, options, &problem);
    if (err) {
        struct config to_tell = {.log = options ? options->log : NULL,
                                 .log_user = options ? options->log_user : NULL};
        exporter_tell(&to_tell, &told, "tracing is off: %s", problem.message);
        return err;
    }
    propagators_use(config.propagators);
    if (!config.on) {
        config_done(&config);
        return 0;
    }
    config_done(&sdk.config);
    sdk.config = config;
    if (config.alloc_tracking && !alloc_find())
        exporter_tell(&sdk.config, &told_alloc,
                      "alloc_tracking is on, but nobody counts allocations: preload "
                      "libpugmark-alloc.so or link with -lpugmark-alloc");
    err = run(&problem);
    if (err) {
        exporter_tell(&sdk.config, &told, "tracing is off: %s", problem.message);
        return err;
    }
    atomic_fetch_add(&sdk.epoch, 1);
    atomic_store(&sdk.state, SDK_ON);
    __atomic_store_n(&pug__on_1, PUG__ON_SPANS | (config.include_args ? PUG__ON_ARGS : 0),
                     __ATOMIC_RELEASE);
    if (pug__lane_get())
        lane_populate(lane_of(pug__lane_1));
    return 0;
}

int pug_start(const struct pug_options *options)
{
    ALLOC_OURS;
    struct guest g;
    if (is_starting)
        return PUG_ERR_BUSY;
    guest_enter(&g);
    pthread_mutex_lock(&sdk.lock);
    is_starting = true;
    int err = start_locked(options);
    is_starting = false;
    pthread_mutex_unlock(&sdk.lock);
    guest_leave(&g);
    return err;
}

void sdk_revive(void)
{
    int expected = SDK_FORKED;
    struct error_detail problem = {.code = 0};
    ALLOC_OURS;
    struct guest g;
    if (!atomic_compare_exchange_strong(&sdk.state, &expected, SDK_REVIVING))
        return;
    guest_enter(&g);
    config_resource_renew(&sdk.config);
    if (run(&problem) == 0) {
        atomic_store(&sdk.state, SDK_ON);
    } else {
        __atomic_store_n(&pug__on_1, 0, __ATOMIC_RELEASE);
        atomic_store(&sdk.state, SDK_OFF);
    }
    guest_leave(&g);
}

/* ---- stop ---- */

static int stop_locked(uint64_t deadline_ns)
{
    int state = atomic_load(&sdk.state);
    if (state == SDK_OFF || state == SDK_REVIVING)
        return 0;
    __atomic_store_n(&pug__on_1, 0, __ATOMIC_RELEASE);
    if (state == SDK_FORKED) { /* nothing was recorded here */
        atomic_store(&sdk.state, SDK_OFF);
        return 0;
    }
    process_context_remove();
    bool clean = drain_stop(sdk.drain, deadline_ns);
    atomic_store(&sdk.state, SDK_OFF);
    return clean ? 0 : PUG_ERR_TIMEOUT;
}

/* ThreadSanitizer (clang 14) does not see that pthread_mutex_clocklock locks, and then complains of the
 * unlock. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LOCK_BY_WALL_CLOCK
#endif
#endif

static int lock_until(pthread_mutex_t *lock, uint64_t deadline_ns)
{
#ifdef LOCK_BY_WALL_CLOCK
    uint64_t when_ns = clock_realtime_ns() + deadline_ns - clock_monotonic_ns();
    struct timespec when = {(time_t)(when_ns / NS_PER_S), (long)(when_ns % NS_PER_S)};
    return pthread_mutex_timedlock(lock, &when);
#else
    struct timespec when = {(time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S)};
    return pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, &when);
#endif
}

int pug_stop(void)
{
    ALLOC_OURS;
    struct guest g;
    if (is_starting)
        return PUG_ERR_BUSY;
    guest_enter(&g);
    uint64_t deadline = clock_monotonic_ns() + sdk.config.stop_timeout_ns;
    int err = PUG_ERR_TIMEOUT;
    if (lock_until(&sdk.lock, deadline) == 0) {
        err = stop_locked(deadline);
        pthread_mutex_unlock(&sdk.lock);
    }
    guest_leave(&g);
    return err;
}

int pug_flush(unsigned timeout_ms)
{
    struct guest g;
    int err = 0;
    if (is_starting)
        return 0; /* nothing is recorded yet */
    guest_enter(&g);
    pthread_mutex_lock(&sdk.lock);
    /* Not waited for with the lock held: somebody may want to stop meanwhile. The drain is there
     * for good. */
    struct drain *drain = atomic_load(&sdk.state) == SDK_ON ? sdk.drain : NULL;
    pthread_mutex_unlock(&sdk.lock);
    if (drain) {
        uint64_t lost = atomic_load(&counts.lost_export) + atomic_load(&counts.lost_queue_full);
        if (!drain_flush(drain, clock_monotonic_ns() + timeout_ms * NS_PER_MS))
            err = PUG_ERR_TIMEOUT;
        else if (lost != atomic_load(&counts.lost_export) + atomic_load(&counts.lost_queue_full))
            err = PUG_ERR_IO;
    }
    guest_leave(&g);
    return err;
}

int pug_on(void)
{
    return PUG__ON != 0;
}

void pug_counts_read(struct pug_counts *ret_counts)
{
    struct pug_counts c = {.size = sizeof c};
    size_t size = ret_counts->size;
    if (size < sizeof c.size || size > 4096)
        size = sizeof c.size;
    if (sdk.drain && atomic_load(&sdk.state) != SDK_REVIVING)
        drain_counts(sdk.drain, &c);
    c.damaged_contexts = propagate_damaged();
    c.lost_captured = captures_lost();
    memset(ret_counts, 0, size);
    memcpy(ret_counts, &c, size < sizeof c ? size : sizeof c);
    ret_counts->size = size;
}
