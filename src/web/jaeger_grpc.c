/* Jaeger's gRPC query service (jaeger.api_v3.QueryService), and its sampling manager, on one port.
 *
 * A call becomes a job for the query threads. Traces go out as a stream of OTLP messages of at most CHUNK_SPANS spans; a trace
 * that is larger than WHOLE_SPANS_MAX is read piece by piece, by the times of its spans, so that its size costs the server 72 bytes a
 * span and no more. When the client reads more slowly than we write, the job ends and comes again when there is
 * room (grpc_server.h); its view of the store stays open for that long, which the server bounds (STALL_TIMEOUT_S).
 *
 * Source: jaegertracing/jaeger-idl, proto/api_v3/query_service.proto, proto/api_v2/sampling.proto. */
#include "web/jaeger_grpc.h"

#include "base/clock.h"
#include "net/grpc_server.h"
#include "query/search.h"
#include "web/sampling.h"
#include "wire/jaeger_query.h"
#include "wire/otlp.h"
#include "wire/protobuf.h"

#include <assert.h>
#include <pugmark/pugmark.h>
#include <stdlib.h>

enum {
    CHUNK_SPANS = 1000,     /* in a message */
    CHUNK_SUMMARIES = 100,  /* the same */
    WHOLE_SPANS_MAX = 5000, /* of a trace that is read at once */
    DEPTH_DEFAULT = 100,
    CALLS_MAX = 64,
    CONNECTIONS_MAX = 256,
    MESSAGE_BYTES_MAX = 1 << 20,
    STALL_TIMEOUT_S = 10, /* a client that does not read for twice as long loses its call */
};

struct job;
typedef void run_fn(struct job *job);

static const struct method_kind {
    const char *path;
    enum jaeger_request request;
    run_fn *run;
} kinds[];

/* One call; it lives in the call's arena, with all it allocates there. */
struct job {
    struct web *web;
    struct grpc_call *call;
    const struct method_kind *kind;
    struct jaeger_query query;

    /* a stream: what is still to be sent */
    struct store_view *view;
    struct search_trace *traces;
    size_t n, at;
    struct arena scratch;   /* of the trace that is being sent */
    struct span_batch part; /* read of it, not sent from `sent` on */
    size_t sent;
    struct store_outline
        *outline; /* of a large one: its spans by start, from `outline_at` not read */
    size_t n_outline, outline_at;
};

/* ---- ends ---- */

static void job_done(struct job *job)
{
    if (job->view && store_view_is_damaged(job->view))
        grpc_trailer(job->call, "x-pugmark-partial", "true");
    store_view_free(job->view);
    free(job->outline);
    arena_done(&job->scratch);
    job->view = NULL;
    job->outline = NULL;
}

static enum grpc_code code_of(int err)
{
    return err == ERR_INVALID || err == ERR_TRUNCATED || err == ERR_UNSUPPORTED
               ? GRPC_INVALID_ARGUMENT
           : err == ERR_NOT_FOUND                 ? GRPC_NOT_FOUND
           : err == ERR_TIMEOUT                   ? GRPC_DEADLINE_EXCEEDED
           : err == ERR_BUSY || err == ERR_CLOSED ? GRPC_UNAVAILABLE
                                                  : GRPC_INTERNAL;
}

/* Before the first message of a stream, or in place of one message. */
static void job_fail(struct job *job, enum grpc_code code, const char *message)
{
    job_done(job);
    grpc_reply_error(job->call, code, str_from(message), STR_NONE);
}

static void job_fail_err(struct job *job, int err, const struct error_detail *detail)
{
    job_fail(job, code_of(err), detail && detail->message[0] ? detail->message : err_text(err));
}

/* ---- traces, part by part ---- */

static int by_origin(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->resource != y->resource)
        return (uintptr_t)x->resource < (uintptr_t)y->resource ? -1 : 1;
    if (x->scope != y->scope)
        return (uintptr_t)x->scope < (uintptr_t)y->scope ? -1 : 1;
    return x->start_ns < y->start_ns ? -1 : x->start_ns > y->start_ns;
}

/* The next spans of a large trace: all that start from the next one's start on, up to CHUNK_SPANS and those that start at
 * the same time as the last. */
static int read_piece(struct job *job, const struct trace_id *id)
{
    const struct store_outline *o = job->outline;
    size_t first = job->outline_at, end = first + CHUNK_SPANS;
    end = end < job->n_outline ? end : job->n_outline;
    while (end < job->n_outline && o[end].start_ns == o[end - 1].start_ns)
        end++;
    job->outline_at = end;
    arena_reset(&job->scratch);
    return store_trace_between(job->view, id, o[first].start_ns, o[end - 1].start_ns, &job->scratch,
                               &job->part);
}

/* The next part of what is left; 0 with no spans in it: that was all. */
static int read_part(struct job *job)
{
    job->part = (struct span_batch){.n = 0};
    job->sent = 0;
    while (!job->part.n) {
        int err;
        if (job->outline_at < job->n_outline) {
            err = read_piece(job, &job->traces[job->at - 1].summary.id);
        } else if (job->at == job->n) {
            return 0;
        } else {
            const struct trace_summary *s = &job->traces[job->at++].summary;
            free(job->outline);
            job->outline = NULL;
            job->n_outline = job->outline_at = 0;
            arena_reset(&job->scratch);
            if (s->span_count > WHOLE_SPANS_MAX)
                err = store_trace_outline(job->view, &s->id, &job->outline, &job->n_outline);
            else
                err = store_trace(job->view, &s->id, &job->scratch, &job->part);
        }
        if (err && err != ERR_NOT_FOUND && err != ERR_CORRUPT)
            return err;
    }
    qsort(job->part.spans, job->part.n, sizeof *job->part.spans, by_origin);
    return 0;
}

static int next_spans(struct job *job, struct buf *out, bool *ret_is_over)
{
    if (job->sent == job->part.n) {
        int err = read_part(job);
        if (err)
            return err;
    }
    size_t n = job->part.n - job->sent;
    n = n < CHUNK_SPANS ? n : CHUNK_SPANS;
    const struct span_batch chunk = {.spans = job->part.spans + job->sent, .n = n};
    if (n)
        otlp_encode(&chunk, out);
    job->sent += n;
    *ret_is_over = !n;
    return 0;
}

static void put_count(struct buf *out, unsigned number, uint64_t n)
{
    if (n)
        pb_put_varint(out, PB_TAG(number, PB_VARINT), n);
}

static void put_summary(struct buf *out, const struct trace_summary *s)
{
    char hex[2 * TRACE_ID_SIZE];
    hex_put(hex, s->id.bytes, TRACE_ID_SIZE);
    struct pb_message m = pb_open(out, PB_TAG(1, PB_BYTES), 2);
    pb_put_bytes(out, PB_TAG(1, PB_BYTES), hex, sizeof hex);
    pb_put_str(out, PB_TAG(2, PB_BYTES), s->root_service);
    pb_put_str(out, PB_TAG(3, PB_BYTES), s->root_name);
    pb_put_fixed64(out, PB_TAG(4, PB_FIXED64), s->start_ns);
    pb_put_fixed64(out, PB_TAG(5, PB_FIXED64), s->end_ns);
    put_count(out, 6, s->span_count);
    put_count(out, 7, s->error_count);
    put_count(out, 8, s->orphan_count);
    for (uint32_t i = 0; i < s->n_services; i++) {
        struct pb_message one = pb_open(out, PB_TAG(9, PB_BYTES), 1);
        pb_put_str(out, PB_TAG(1, PB_BYTES), s->services[i].name);
        put_count(out, 2, s->services[i].span_count);
        put_count(out, 3, s->services[i].error_count);
        pb_close(out, one);
    }
    pb_close(out, m);
}

static int next_summaries(struct job *job, struct buf *out, bool *ret_is_over)
{
    size_t n = 0;
    for (; n < CHUNK_SUMMARIES && job->at < job->n; n++)
        put_summary(out, &job->traces[job->at++].summary);
    *ret_is_over = !n;
    return 0;
}

/* ---- the stream ---- */

static run_fn find_summaries;
static pool_fn go_on;

static void stream_end(struct job *job, int err)
{
    struct grpc_call *call = job->call;
    job_done(job);
    grpc_stream_end(call, err ? code_of(err) : GRPC_OK, err ? str_from(err_text(err)) : STR_NONE,
                    STR_NONE);
}

/* On the server's thread. */
static void there_is_room(void *arg, struct grpc_call *call)
{
    struct job *job = arg;
    (void)call;
    if (!pool_put(job->web->pool, go_on, job))
        stream_end(job, ERR_BUSY);
}

static void go_on(void *arg, bool is_ending)
{
    struct job *job = arg;
    int err = is_ending ? ERR_CLOSED : 0;
    while (!err) {
        struct buf message = BUF_INIT;
        bool is_over = false;
        err = job->kind->run == find_summaries ? next_summaries(job, &message, &is_over)
                                               : next_spans(job, &message, &is_over);
        if (err || is_over) {
            buf_done(&message);
            break;
        }
        err = grpc_stream_write(job->call, &message);
        if (err == ERR_BUSY) {
            grpc_stream_wait(job->call, there_is_room, job);
            return;
        }
    }
    stream_end(job, err);
}

/* ---- the methods: on a query thread ---- */

static struct store_view *view_of(struct job *job)
{
    if (!job->view)
        job->view = store_view_new(job->web->store);
    return job->view;
}

static void get_trace(struct job *job)
{
    struct trace_id id;
    if (!trace_id_parse(job->query.trace_id, &id)) {
        job_fail(job, GRPC_INVALID_ARGUMENT, "trace_id: expected 1 to 32 hexadecimal digits");
        return;
    }
    job->traces = arena_zalloc(grpc_arena(job->call), sizeof *job->traces);
    int err = job->traces && view_of(job) ? 0 : ERR_NOMEM;
    if (!err)
        err = store_trace_summary(job->view, &id, grpc_arena(job->call), &job->traces->summary);
    if (err == ERR_NOT_FOUND) {
        job_fail(job, GRPC_NOT_FOUND, "trace not found");
    } else if (err) {
        job_fail_err(job, err, NULL);
    } else {
        job->n = 1;
        go_on(job, false);
    }
}

/* False: answered with an error. */
static bool find(struct job *job)
{
    const struct jaeger_query *j = &job->query;
    struct conditions c = {.arena = grpc_arena(job->call)};
    struct search search = {.start_min_ns = j->start_ns,
                            .start_max_ns = j->end_ns,
                            .limit = j->depth ? (size_t)j->depth : DEPTH_DEFAULT,
                            .timeout_ns = job->web->query_timeout_ns};
    struct search_result result;
    struct error_detail detail = {0};
    const char *wrong = j->has_filter ? "query.filter: filters are not understood; use attributes"
                        : !j->start_ns || !j->end_ns
                            ? "query.start_time_min and query.start_time_max are required"
                        : j->end_ns < j->start_ns ? "query.start_time_max lies before the minimum"
                        : j->depth < 0 || j->depth > SEARCH_LIMIT_MAX
                            ? "query.search_depth: expected 1 to 10000"
                        : j->duration_min_ns > INT64_MAX || j->duration_max_ns > INT64_MAX
                            ? "query.duration: too long"
                            : NULL;
    if (wrong) {
        job_fail(job, GRPC_INVALID_ARGUMENT, wrong);
        return false;
    }
    if (j->service.len)
        conditions_string(&c, FIELD_SERVICE, j->service);
    if (j->operation.len)
        conditions_string(&c, FIELD_NAME, j->operation);
    if (j->duration_min_ns)
        conditions_integer(&c, FIELD_DURATION, PREDICATE_GE, (int64_t)j->duration_min_ns);
    if (j->duration_max_ns)
        conditions_integer(&c, FIELD_DURATION, PREDICATE_LE, (int64_t)j->duration_max_ns);
    for (size_t i = 0; i < j->n_tags; i++)
        conditions_tag(&c, j->tags[i].key, j->tags[i].value);
    search.where = conditions_all(&c);
    int err = !c.failed && view_of(job) ? search_run(job->view, &search, c.arena, &result, &detail)
                                        : ERR_NOMEM;
    if (err) {
        job_fail_err(job, err, &detail);
        return false;
    }
    job->traces = result.traces;
    job->n = result.n;
    return true;
}

static void find_traces(struct job *job)
{
    if (find(job))
        go_on(job, false);
}

static void find_summaries(struct job *job)
{
    if (find(job))
        go_on(job, false);
}

static void reply(struct job *job, int err, struct buf *message)
{
    if (err) {
        buf_done(message);
        job_fail_err(job, err, NULL);
        return;
    }
    job_done(job);
    grpc_reply(job->call, message);
}

static void get_services(struct job *job)
{
    struct str *names;
    size_t n;
    struct buf out = BUF_INIT;
    int err = view_of(job) ? store_services(job->view, grpc_arena(job->call), &names, &n)
                           : ERR_NOMEM;
    for (size_t i = 0; !err && i < n; i++)
        pb_put_str(&out, PB_TAG(1, PB_BYTES), names[i]);
    reply(job, err, &out);
}

static void get_operations(struct job *job)
{
    const struct jaeger_query *j = &job->query;
    struct store_operation *operations;
    struct buf out = BUF_INIT;
    uint8_t kind = 0;
    size_t n;
    if (!j->service.len) {
        job_fail(job, GRPC_INVALID_ARGUMENT, "service is required");
        return;
    }
    if (j->span_kind.len && !span_kind_parse(j->span_kind, &kind)) {
        job_fail(job, GRPC_INVALID_ARGUMENT, "span_kind: expected server, client, internal, ...");
        return;
    }
    int err = view_of(job)
                  ? store_operations(job->view, j->service, grpc_arena(job->call), &operations, &n)
                  : ERR_NOMEM;
    for (size_t i = 0; !err && i < n; i++) {
        if (j->span_kind.len && operations[i].kind != kind)
            continue;
        struct pb_message m = pb_open(&out, PB_TAG(1, PB_BYTES), 1);
        pb_put_str(&out, PB_TAG(1, PB_BYTES), operations[i].name);
        pb_put_str(&out, PB_TAG(2, PB_BYTES), str_from(span_kind_tag(operations[i].kind)));
        pb_close(&out, m);
    }
    reply(job, err, &out);
}

static void get_dependencies(struct job *job)
{
    const struct jaeger_query *j = &job->query;
    struct store_call *calls;
    struct buf out = BUF_INIT;
    size_t n;
    int err = view_of(job)
                  ? store_calls(job->view, j->start_ns, j->end_ns, job->web->query_timeout_ns,
                                grpc_arena(job->call), &calls, &n, NULL)
                  : ERR_NOMEM;
    for (size_t i = 0; !err && i < n; i++) {
        struct pb_message m = pb_open(&out, PB_TAG(1, PB_BYTES), 1);
        pb_put_str(&out, PB_TAG(1, PB_BYTES), calls[i].caller);
        pb_put_str(&out, PB_TAG(2, PB_BYTES), calls[i].callee);
        put_count(&out, 3, calls[i].count);
        pb_close(&out, m);
    }
    reply(job, err, &out);
}

static void get_sampling(struct job *job)
{
    struct buf out = BUF_INIT;
    sampling_answer(job->web->sampling, job->query.service, true, &out);
    reply(job, 0, &out);
}

/* ---- calls ---- */

#define QUERY "/jaeger.api_v3.QueryService/"
enum { GET_SERVICES = -1 }; /* its message has nothing to read */

static const struct method_kind kinds[] = {
    {QUERY "GetTrace", JAEGER_GET_TRACE, get_trace},
    {QUERY "FindTraces", JAEGER_FIND, find_traces},
    {QUERY "FindTraceSummaries", JAEGER_FIND, find_summaries},
    {QUERY "GetServices", (enum jaeger_request)GET_SERVICES, get_services},
    {QUERY "GetOperations", JAEGER_GET_OPERATIONS, get_operations},
    {QUERY "GetDependencies", JAEGER_GET_DEPENDENCIES, get_dependencies},
    {"/jaeger.api_v2.SamplingManager/GetSamplingStrategy", JAEGER_GET_SAMPLING, get_sampling},
};

static void run_job(void *arg, bool is_ending)
{
    struct job *job = arg;
    struct error_detail detail = {0};
    if (is_ending) {
        job_fail(job, GRPC_UNAVAILABLE, "the server is stopping");
        return;
    }
    PUG_SPAN("web.grpc", PUG_KIND(PUG_KIND_SERVER), PUG_STR("rpc.method", job->kind->path));
    int err = job->kind->run == get_services
                  ? 0
                  : jaeger_query_decode(job->kind->request, grpc_message(job->call),
                                        grpc_arena(job->call), &job->query, &detail);
    if (err)
        job_fail_err(job, err, &detail);
    else
        job->kind->run(job); /* which is gone then, or waits for its client */
}

static void take(struct web *web, struct grpc_call *call, const struct method_kind *kind)
{
    struct job *job = arena_zalloc(grpc_arena(call), sizeof *job);
    if (!job) {
        grpc_reply_error(call, GRPC_UNAVAILABLE, STR("out of memory"), STR_NONE);
        return;
    }
    job->web = web;
    job->call = call;
    job->kind = kind;
    /* acquire pairs with the release in web_start */
    if (!atomic_load_explicit(&web->started, memory_order_acquire))
        job_fail(job, GRPC_UNAVAILABLE, "the server is starting");
    else if (!pool_put(web->pool, run_job, job))
        job_fail(job, GRPC_UNAVAILABLE, "too many requests are waiting");
}

#define METHOD(i, name)                                                                            \
    static void name(void *arg, struct grpc_call *call)                                            \
    {                                                                                              \
        take(arg, call, &kinds[i]);                                                                \
    }
METHOD(0, take_trace)
METHOD(1, take_find)
METHOD(2, take_summaries)
METHOD(3, take_services)
METHOD(4, take_operations)
METHOD(5, take_dependencies)
METHOD(6, take_sampling)

int jaeger_grpc_new(struct web *web, const char *address, uint16_t port, struct grpc_server **ret,
                    struct error_detail *ret_detail)
{
    static grpc_handler_fn *const handlers[] = {take_trace,    take_find,       take_summaries,
                                                take_services, take_operations, take_dependencies,
                                                take_sampling};
    enum { METHODS = sizeof kinds / sizeof *kinds };
    static_assert(METHODS == sizeof handlers / sizeof *handlers, "a handler for each method");
    struct grpc_method *methods = arena_array(&web->arena, METHODS, sizeof *methods);
    if (!methods)
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    for (int i = 0; i < METHODS; i++)
        methods[i] = (struct grpc_method){kinds[i].path, handlers[i]};
    struct grpc_server_options options = {
        .address = address ? address : "127.0.0.1",
        .port = port,
        .methods = methods,
        .n_methods = METHODS,
        .arg = web,
        .connections_max = CONNECTIONS_MAX,
        .calls_max = CALLS_MAX,
        .message_bytes_max = MESSAGE_BYTES_MAX,
        .inflated_bytes_max = MESSAGE_BYTES_MAX,
        .message_timeout_s = STALL_TIMEOUT_S,
        .budget = &web->bodies,
    };
    return grpc_server_new(&options, ret, ret_detail);
}
