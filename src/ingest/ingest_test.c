/* The receivers over real sockets, before a store that fails when told to: this program has a
 * store_append of its own. */
#include "base/test.h"

#include "ingest/cut.h"
#include "ingest/ingest.h"
#include "net/grpc_frame.h"
#include "store/records.h"
#include "wire/otlp.h"
#include "wire/otlp_json.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- a store that does as it is told ---- */

enum how { NOW, LATER, REFUSE, LOSE };

struct store {
    enum how how;
    int err; /* of REFUSE and LOSE */
    sem_t appended;
    pthread_t thread;
    bool has_thread;
    /* of the last append */
    enum body_format format;
    struct buf body;
    store_durable_fn *done;
    void *arg;
    size_t n_spans;
};

static void *answer_durable(void *arg)
{
    struct store *store = arg;
    store->done(store->arg, store->how == LOSE ? store->err : 0);
    return NULL;
}

static void answer_from_a_thread(struct store *store)
{
    if (store->has_thread)
        pthread_join(store->thread, NULL);
    assert_int_equal(pthread_create(&store->thread, NULL, answer_durable, store), 0);
    store->has_thread = true;
}

int store_append(struct store *store, enum body_format format, struct str body,
                 const struct span_batch *batch, store_durable_fn *done, void *arg)
{
    if (store->how == REFUSE)
        return store->err;
    store->format = format;
    buf_clear(&store->body);
    buf_str(&store->body, body);
    store->n_spans = batch->n;
    store->done = done;
    store->arg = arg;
    if (store->how != LATER)
        answer_from_a_thread(store);
    sem_post(&store->appended);
    return 0;
}

/* This server keeps none: signals_test.c has those that do. */
int records_append(struct records *records, const struct records_batch *batch,
                   records_durable_fn *done, void *arg)
{
    (void)records;
    (void)batch;
    (void)done;
    (void)arg;
    return ERR_UNSUPPORTED;
}

/* ---- fixture ---- */

struct fixture {
    struct store store;
    struct ingest *ingest;
    uint64_t received; /* spans that the tests sent and a decoder saw */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    sem_init(&f->store.appended, 0, 0);
    struct ingest_options options = {
        .address = "127.0.0.1",
        .store = &f->store,
        .body_bytes_max = 1 << 20,
        .in_flight_bytes_max = 8 << 20,
        .value_bytes_max = 1000,
        .spans_max = 50,
    };
    struct error_detail detail;
    assert_int_equal(ingest_start(&options, &f->ingest, &detail), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ingest_stop(f->ingest, 5000);
    struct ingest_stats stats;
    ingest_stats(f->ingest, &stats);
    uint64_t fates = stats.spans_stored;
    for (int i = 0; i < REFUSED_N; i++)
        fates += stats.spans_refused[i];
    assert_int_equal(stats.spans_received, fates);
    assert_int_equal(stats.spans_received, f->received);
    uint64_t turned = 0;
    for (int i = 0; i < TURNED_N; i++)
        turned += stats.requests_turned[i];
    assert_int_equal(turned, stats.requests_refused);
    assert_int_equal(stats.bytes_in_flight, 0);
    if (f->store.has_thread)
        pthread_join(f->store.thread, NULL);
    ingest_free(f->ingest);
    buf_done(&f->store.body);
    sem_destroy(&f->store.appended);
    free(f);
    return 0;
}

/* ---- requests ---- */

static struct buf protobuf(size_t n_spans, size_t n_bad, struct str value)
{
    struct span *spans = calloc(n_spans + n_bad, sizeof *spans);
    struct resource resource = {.service_name = STR("unknown_service")};
    struct scope scope = {0};
    struct attr attr = {STR("value"), {.type = VALUE_STRING, .string = value}};
    for (size_t i = 0; i < n_spans + n_bad; i++) {
        struct span *s = &spans[i];
        *s = (struct span){.name = STR("span"),
                           .start_ns = 1,
                           .end_ns = 2,
                           .resource = &resource,
                           .scope = &scope};
        s->trace_id.bytes[0] = 1;
        s->span_id.bytes[0] = i < n_spans ? 1 : 0;
        if (value.len)
            s->attrs = (struct attrs){.items = &attr, .n = 1};
    }
    struct span_batch batch = {.spans = spans, .n = n_spans + n_bad};
    struct buf out = BUF_INIT;
    otlp_encode(&batch, &out);
    free(spans);
    assert_true(buf_ok(&out) && out.len > 0);
    return out;
}

struct answer {
    long status;
    struct buf body, headers;
};

static size_t keep(char *bytes, size_t size, size_t n, void *arg)
{
    buf_put(arg, bytes, size * n);
    return size * n;
}

static void answer_done(struct answer *a)
{
    buf_done(&a->body);
    buf_done(&a->headers);
}

static struct answer send_to(uint16_t port, const char *path, const char *method,
                             const char *const *headers, struct str body, bool is_http2)
{
    struct answer a = {0};
    char url[200];
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", port, path);
    CURL *curl = curl_easy_init();
    struct curl_slist *list = NULL;
    for (; *headers; headers++)
        list = curl_slist_append(list, *headers);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.ptr ? body.ptr : "");
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)body.len);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &a.body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &a.headers);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 20000L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    if (is_http2)
        curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    CURLcode code = curl_easy_perform(curl);
    if (code != CURLE_OK)
        fail_msg("%s", curl_easy_strerror(code));
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &a.status);
    curl_slist_free_all(list);
    curl_easy_cleanup(curl);
    buf_byte(&a.headers, '\0');
    return a;
}

#define PROTOBUF "Content-Type: application/x-protobuf"
#define JSON "Content-Type: application/json"
#define GRPC_PATH "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

static struct answer post(struct fixture *f, const char *type, struct str body)
{
    const char *const headers[] = {type, "Expect:", NULL};
    return send_to(ingest_port(f->ingest, RECEIVER_OTLP_HTTP), "/v1/traces", "POST", headers, body,
                   false);
}

static struct answer call(struct fixture *f, const char *path, struct str message)
{
    const char *const headers[] = {"Content-Type: application/grpc", "TE: trailers",
                                   "Expect:", NULL};
    struct buf body = BUF_INIT;
    uint8_t head[GRPC_FRAME_HEAD_BYTES];
    grpc_frame_head(head, (uint32_t)message.len);
    buf_put(&body, head, sizeof head);
    buf_str(&body, message);
    struct answer a = send_to(ingest_port(f->ingest, RECEIVER_OTLP_GRPC), path, "POST", headers,
                              buf_as_str(&body), true);
    buf_done(&body);
    assert_int_equal(a.status, 200);
    return a;
}

static void assert_header(const struct answer *a, const char *line)
{
    if (!strcasestr(a->headers.ptr, line))
        fail_msg("\"%s\" is not in \"%s\"", line, a->headers.ptr);
}

static void assert_no_header(const struct answer *a, const char *line)
{
    if (strcasestr(a->headers.ptr, line))
        fail_msg("\"%s\" is in \"%s\"", line, a->headers.ptr);
}

static void assert_in(struct str whole, const char *part)
{
    if (!whole.ptr || !memmem(whole.ptr, whole.len, part, strlen(part)))
        fail_msg("\"%s\" is not in \"%.*s\"", part, STR_ARG(whole));
}

/* ---- the tests ---- */

static void protobuf_is_answered_with_protobuf_once_it_is_durable(void **state)
{
    struct fixture *f = *state;
    struct buf body = protobuf(3, 0, STR_NONE);
    struct answer a = post(f, PROTOBUF, buf_as_str(&body));
    f->received += 3;
    assert_int_equal(a.status, 200);
    assert_header(&a, "content-type: application/x-protobuf\r\n");
    assert_int_equal(a.body.len, 0);
    assert_int_equal(f->store.format, BODY_OTLP_PROTOBUF);
    assert_int_equal(f->store.n_spans, 3);
    assert_str_eq(buf_as_str(&f->store.body), buf_as_str(&body)); /* as it came */
    answer_done(&a);
    buf_done(&body);
}

static void json_is_answered_with_json(void **state)
{
    struct fixture *f = *state;
    struct answer a =
        post(f, "Content-Type: Application/JSON; charset=utf-8",
             STR("{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"traceId\":"
                 "\"0102030405060708090a0b0c0d0e0f10\",\"spanId\":\"0102030405060708\","
                 "\"name\":\"x\"}]}]}]}"));
    f->received += 1;
    assert_int_equal(a.status, 200);
    assert_header(&a, "content-type: application/json\r\n");
    assert_int_equal(a.body.ptr[0], '{');
    assert_int_equal(f->store.format, BODY_OTLP_JSON);
    assert_int_equal(f->store.n_spans, 1);
    answer_done(&a);
}

static void grpc_is_answered_with_a_message_and_trailers(void **state)
{
    struct fixture *f = *state;
    struct buf body = protobuf(4, 0, STR_NONE);
    struct answer a = call(f, GRPC_PATH, buf_as_str(&body));
    f->received += 4;
    assert_header(&a, "grpc-status: 0");
    assert_int_equal(a.body.len, GRPC_FRAME_HEAD_BYTES);
    assert_int_equal(f->store.n_spans, 4);
    answer_done(&a);
    buf_done(&body);
}

static void no_answer_comes_before_the_spans_are_durable(void **state)
{
    struct fixture *f = *state;
    f->store.how = LATER;
    struct buf body = protobuf(1, 0, STR_NONE);
    CURLM *multi = curl_multi_init();
    CURL *curl = curl_easy_init();
    struct curl_slist *list = curl_slist_append(NULL, PROTOBUF);
    struct buf out = BUF_INIT;
    char url[100];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/v1/traces",
             ingest_port(f->ingest, RECEIVER_OTLP_HTTP));
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.ptr);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)body.len);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &out);
    curl_multi_add_handle(multi, curl);
    int running = 1, n_ready;
    while (sem_trywait(&f->store.appended) != 0) {
        assert_int_equal(curl_multi_perform(multi, &running), CURLM_OK);
        curl_multi_poll(multi, NULL, 0, 5, &n_ready);
    }
    for (int i = 0; i < 5; i++) {
        curl_multi_poll(multi, NULL, 0, 10, &n_ready);
        curl_multi_perform(multi, &running);
    }
    assert_int_equal(running, 1);
    struct ingest_stats stats;
    ingest_stats(f->ingest, &stats);
    assert_int_equal(stats.spans_received, 1);
    assert_int_equal(stats.spans_stored, 0);
    answer_from_a_thread(&f->store);
    while (running) {
        curl_multi_poll(multi, NULL, 0, 1000, &n_ready);
        curl_multi_perform(multi, &running);
    }
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    assert_int_equal(status, 200);
    f->received += 1;
    curl_multi_remove_handle(multi, curl);
    curl_easy_cleanup(curl);
    curl_multi_cleanup(multi);
    curl_slist_free_all(list);
    buf_done(&out);
    buf_done(&body);
}

static void spans_that_cannot_be_kept_are_a_partial_success(void **state)
{
    struct fixture *f = *state;
    struct buf body = protobuf(2, 3, STR_NONE);
    struct answer a = post(f, PROTOBUF, buf_as_str(&body));
    uint64_t rejected;
    struct str message;
    assert_int_equal(a.status, 200);
    assert_int_equal(otlp_decode_response(buf_as_str(&a.body), &rejected, &message), 0);
    assert_int_equal(rejected, 3);
    assert_in(message, "3 of 5 spans cannot be kept");
    answer_done(&a);
    a = call(f, GRPC_PATH, buf_as_str(&body));
    assert_header(&a, "grpc-status: 0");
    assert_int_equal(otlp_decode_response(str_skip(buf_as_str(&a.body), GRPC_FRAME_HEAD_BYTES),
                                          &rejected, &message),
                     0);
    assert_int_equal(rejected, 3);
    answer_done(&a);
    buf_done(&body);
    f->received += 10;
    struct ingest_stats stats;
    ingest_stats(f->ingest, &stats);
    assert_int_equal(stats.spans_refused[REFUSED_INVALID], 6);
    assert_int_equal(stats.spans_stored, 4);
}

static void an_empty_request_is_taken_without_the_store(void **state)
{
    struct fixture *f = *state;
    f->store.how = REFUSE;
    f->store.err = ERR_IO;
    struct answer a = post(f, PROTOBUF, STR(""));
    assert_int_equal(a.status, 200);
    answer_done(&a);
    a = call(f, GRPC_PATH, STR(""));
    assert_header(&a, "grpc-status: 0");
    answer_done(&a);
}

static void a_full_queue_asks_to_try_again(void **state)
{
    struct fixture *f = *state;
    f->store.how = REFUSE;
    f->store.err = ERR_BUSY;
    struct buf body = protobuf(2, 0, STR_NONE);
    struct answer a = post(f, PROTOBUF, buf_as_str(&body));
    assert_int_equal(a.status, 429);
    assert_header(&a, "Retry-After: 1\r\n");
    assert_in(buf_as_str(&a.body), "\x08\x08"); /* RESOURCE_EXHAUSTED */
    answer_done(&a);
    a = call(f, GRPC_PATH, buf_as_str(&body));
    assert_header(&a, "grpc-status: 8");
    /* base64 of ...google.rpc.RetryInfo, whatever its alignment */
    assert_header(&a, "grpc-status-details-bin: ");
    answer_done(&a);
    buf_done(&body);
    f->received += 4;
    struct ingest_stats stats;
    ingest_stats(f->ingest, &stats);
    assert_int_equal(stats.spans_refused[REFUSED_BUSY], 4);
}

static void a_store_that_cannot_write_is_unavailable(void **state)
{
    struct fixture *f = *state;
    f->store.how = LOSE;
    f->store.err = ERR_FULL;
    struct buf body = protobuf(2, 0, STR_NONE);
    struct answer a = post(f, PROTOBUF, buf_as_str(&body));
    assert_int_equal(a.status, 503);
    assert_header(&a, "Retry-After: 1\r\n");
    assert_in(buf_as_str(&a.body), "no space is left");
    answer_done(&a);
    a = call(f, GRPC_PATH, buf_as_str(&body));
    assert_header(&a, "grpc-status: 14");
    answer_done(&a);
    f->store.how = REFUSE;
    f->store.err = ERR_CLOSED;
    a = post(f, PROTOBUF, buf_as_str(&body));
    assert_int_equal(a.status, 503);
    assert_in(buf_as_str(&a.body), "stopping");
    answer_done(&a);
    buf_done(&body);
    f->received += 6;
    struct ingest_stats stats;
    ingest_stats(f->ingest, &stats);
    assert_int_equal(stats.spans_refused[REFUSED_STORE], 6);
}

static void bytes_that_are_not_otlp_are_refused_for_good(void **state)
{
    struct fixture *f = *state;
    struct answer a = post(f, PROTOBUF, STR("\x0a\x7f garbage"));
    assert_int_equal(a.status, 400);
    assert_header(&a, "content-type: application/x-protobuf\r\n");
    assert_no_header(&a, "Retry-After");
    assert_in(buf_as_str(&a.body), "byte ");
    answer_done(&a);
    a = post(f, JSON, STR("{\"resourceSpans\":[nonsense]}"));
    assert_int_equal(a.status, 400);
    assert_header(&a, "content-type: application/json\r\n");
    assert_in(buf_as_str(&a.body), "\"code\":3");
    answer_done(&a);
    a = call(f, GRPC_PATH, STR("\x0a\x7f garbage"));
    assert_header(&a, "grpc-status: 3");
    assert_no_header(&a, "grpc-status-details-bin");
    answer_done(&a);
}

static void too_many_spans_in_one_request_are_too_large(void **state)
{
    struct fixture *f = *state;
    struct buf body = protobuf(51, 0, STR_NONE);
    struct answer a = post(f, PROTOBUF, buf_as_str(&body));
    assert_int_equal(a.status, 413);
    answer_done(&a);
    a = call(f, GRPC_PATH, buf_as_str(&body));
    assert_header(&a, "grpc-status: 8");
    assert_no_header(&a, "grpc-status-details-bin"); /* no RetryInfo: it will not shrink */
    answer_done(&a);
    buf_done(&body);
    f->received += 102;
}

static void a_body_over_the_limit_has_its_status_in_the_requests_encoding(void **state)
{
    struct fixture *f = *state;
    char *big = calloc(1, (1 << 20) + 1);
    struct answer a = post(f, PROTOBUF, (struct str){big, (1 << 20) + 1});
    assert_int_equal(a.status, 413);
    assert_header(&a, "content-type: application/x-protobuf\r\n");
    assert_in(buf_as_str(&a.body), "\x08\x08");
    answer_done(&a);
    a = post(f, JSON, (struct str){big, (1 << 20) + 1});
    assert_int_equal(a.status, 413);
    assert_in(buf_as_str(&a.body), "\"code\":8");
    answer_done(&a);
    free(big);
}

static void a_body_that_asks_for_too_much_memory_is_too_large(void **state)
{
    struct fixture *f = *state;
    /* ResourceSpans, ScopeSpans, Span with two ids and as many empty attributes as fit: two bytes
     * each, forty-eight decoded. */
    size_t n = (1 << 20) - 200;
    struct buf body = BUF_INIT, ids = BUF_INIT;
    buf_put(&ids, "\x0a\x10\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x12\x08\x01\0\0\0\0\0\0\0", 28);
    size_t span = n - n % 2 + ids.len;
#define VARINT(x)                                                                                  \
    (char)(((x)&127) | 128), (char)(((x) >> 7 & 127) | 128), (char)(((x) >> 14 & 127) | 128),      \
        (char)((x) >> 21)
    size_t scope_spans = span + 5, resource_spans = scope_spans + 5;
    const char head[] = {0x0a,        VARINT(resource_spans), 0x12, VARINT(scope_spans), 0x12,
                         VARINT(span)};
    buf_put(&body, head, sizeof head);
    buf_str(&body, buf_as_str(&ids));
    for (size_t i = 0; i < n / 2; i++)
        buf_put(&body, "\x4a\x00", 2);
    buf_done(&ids);
    struct answer a = post(f, PROTOBUF, buf_as_str(&body));
    assert_int_equal(a.status, 413);
    assert_in(buf_as_str(&a.body), "asks for too much memory");
    answer_done(&a);
    buf_done(&body);
}

static void long_values_are_cut_in_the_log_as_in_the_batch_and_the_sender_is_told(void **state)
{
    struct fixture *f = *state;
    char *value = malloc(5000);
    memset(value, 'x', 5000);
    struct buf body = protobuf(2, 0, (struct str){value, 5000});
    struct answer a = post(f, PROTOBUF, buf_as_str(&body));
    assert_int_equal(a.status, 200);
    uint64_t rejected;
    struct str message;
    assert_int_equal(otlp_decode_response(buf_as_str(&a.body), &rejected, &message), 0);
    assert_int_equal(rejected, 0);
    assert_in(message, "2 values were longer than 1000 bytes and cut");
    struct arena arena = ARENA_INIT;
    struct span_batch logged;
    assert_int_equal(otlp_decode(buf_as_str(&f->store.body), &arena, &logged, NULL), 0);
    assert_int_equal(logged.n, 2);
    const struct attr *kept = attrs_find(&logged.spans[1].attrs, STR("value"));
    assert_non_null(kept);
    assert_int_equal(kept->value.string.len, 1000);
    assert_non_null(attrs_find(&logged.spans[1].attrs, STR(CUT_KEY)));
    arena_done(&arena);
    answer_done(&a);
    buf_done(&body);
    free(value);
    f->received += 2;
    struct ingest_stats stats;
    ingest_stats(f->ingest, &stats);
    assert_int_equal(stats.values_cut, 2);
}

static void other_signals_methods_and_types_have_clear_answers(void **state)
{
    struct fixture *f = *state;
    uint16_t port = ingest_port(f->ingest, RECEIVER_OTLP_HTTP);
    const char *const headers[] = {PROTOBUF, NULL};
    struct answer a = send_to(port, "/v1/logs", "POST", headers, STR("x"), false);
    assert_int_equal(a.status, 404);
    assert_header(&a, "content-type: application/x-protobuf\r\n");
    assert_in(buf_as_str(&a.body), "OTEL_LOGS_EXPORTER=none");
    answer_done(&a);
    a = send_to(port, "/", "POST", headers, STR("x"), false);
    assert_int_equal(a.status, 404);
    answer_done(&a);
    a = send_to(port, "/v1/traces", "PUT", headers, STR("x"), false);
    assert_int_equal(a.status, 405);
    assert_header(&a, "Allow: POST\r\n");
    answer_done(&a);
    a = post(f, "Content-Type: text/plain", STR("x"));
    assert_int_equal(a.status, 415);
    assert_header(&a, "content-type: application/json\r\n");
    answer_done(&a);
    a = post(f, "Content-Type:", STR("x"));
    assert_int_equal(a.status, 415);
    answer_done(&a);
    a = call(f, "/opentelemetry.proto.collector.logs.v1.LogsService/Export", STR(""));
    assert_header(&a, "grpc-status: 12");
    assert_header(&a, "OTEL_LOGS_EXPORTER=none");
    answer_done(&a);
    a = call(f, "/opentelemetry.proto.collector.trace.v1.TraceService/Nothing", STR(""));
    assert_header(&a, "grpc-status: 12");
    answer_done(&a);
}

static void a_port_that_is_taken_is_named_and_nothing_is_left(void **state)
{
    struct fixture *f = *state;
    struct ingest_options options = {
        .address = "127.0.0.1",
        .store = &f->store,
        .ports = {[RECEIVER_OTLP_GRPC] = ingest_port(f->ingest, RECEIVER_OTLP_GRPC)},
    };
    struct ingest *second = NULL;
    struct error_detail detail = {0};
    assert_int_equal(ingest_start(&options, &second, &detail), ERR_BUSY);
    assert_non_null(strstr(detail.message, "in use"));
    assert_null(second);
}

/* ---- Zipkin and datagrams ---- */

#define ZIPKIN_SPAN "{\"traceId\":\"1\",\"id\":\"2\",\"timestamp\":3,\"name\":\"z\"}"

static struct answer post_zipkin(struct fixture *f, struct str body)
{
    const char *const headers[] = {JSON, "Expect:", NULL};
    return send_to(ingest_port(f->ingest, RECEIVER_ZIPKIN), "/api/v2/spans", "POST", headers, body,
                   false);
}

static void zipkin_is_answered_202_and_logged_as_otlp(void **state)
{
    struct fixture *f = *state;
    struct answer a = post_zipkin(f, STR("[" ZIPKIN_SPAN ",{\"traceId\":\"1\"}]"));
    f->received += 2;
    assert_int_equal(a.status, 202);
    assert_int_equal(a.body.len, 0);
    answer_done(&a);
    assert_int_equal(f->store.format, BODY_OTLP_PROTOBUF);
    struct arena arena = ARENA_INIT;
    struct span_batch batch;
    struct error_detail detail;
    assert_int_equal(otlp_decode(buf_as_str(&f->store.body), &arena, &batch, &detail), 0);
    assert_int_equal(batch.n, 1);
    assert_str_eq(batch.spans[0].name, STR("z"));
    arena_done(&arena);
}

static void a_busy_store_is_503_to_zipkin(void **state)
{
    struct fixture *f = *state;
    f->store.how = REFUSE;
    f->store.err = ERR_BUSY;
    struct answer a = post_zipkin(f, STR("[" ZIPKIN_SPAN "]"));
    f->received += 1;
    assert_int_equal(a.status, 503);
    assert_header(&a, "Retry-After: 1\r\n");
    answer_done(&a);
    f->store.how = NOW;
    struct buf large = BUF_INIT;
    buf_byte(&large, '[');
    for (int i = 0; i < 51; i++)
        buf_cstr(&large, i ? "," ZIPKIN_SPAN : ZIPKIN_SPAN);
    buf_byte(&large, ']');
    a = post_zipkin(f, buf_as_str(&large));
    f->received += 51;
    assert_int_equal(a.status, 413);
    answer_done(&a);
    buf_done(&large);
}

static void a_value_too_long_is_cut_in_zipkins_spans_too(void **state)
{
    struct fixture *f = *state;
    struct buf body = BUF_INIT;
    buf_cstr(&body, "[{\"traceId\":\"1\",\"id\":\"2\",\"timestamp\":3,\"tags\":{\"long\":\"");
    for (int i = 0; i < 2000; i++)
        buf_byte(&body, 'x');
    buf_cstr(&body, "\"}}]");
    struct answer a = post_zipkin(f, buf_as_str(&body));
    f->received += 1;
    assert_int_equal(a.status, 202);
    answer_done(&a);
    buf_done(&body);
    assert_in(buf_as_str(&f->store.body), CUT_KEY);
    assert_true(f->store.body.len < 1200);
}

/* Waits until `n` datagrams have their fate, `refused` of them a bad one. */
static void wait_for_datagrams(struct fixture *f, enum receiver receiver, uint64_t n,
                               uint64_t refused)
{
    struct ingest_stats stats;
    const struct receiver_stats *r = &stats.receivers[receiver];
    for (int i = 0; i < 2000; i++) {
        ingest_stats(f->ingest, &stats);
        if (r->requests == n && r->requests_refused == refused && r->spans_stored == n - refused)
            return;
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    fail_msg("%llu datagrams, %llu refused, %llu spans stored", (unsigned long long)r->requests,
             (unsigned long long)r->requests_refused, (unsigned long long)r->spans_stored);
}

static void send_datagram(struct fixture *f, enum receiver receiver, struct str bytes)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(ingest_port(f->ingest, receiver)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(sendto(fd, bytes.ptr, bytes.len, 0, (const struct sockaddr *)&to, sizeof to),
                     (ssize_t)bytes.len);
    close(fd);
}

#define SEGMENT                                                                                    \
    "{\"format\":\"json\",\"version\":1}\n{\"name\":\"s\",\"id\":\"70de5b6f19ff9a0a\","            \
    "\"trace_id\":\"1-581cf771-a006649127e371903a2de979\",\"start_time\":1,\"end_time\":2}"

static void datagrams_are_stored_or_counted(void **state)
{
    struct fixture *f = *state;
    send_datagram(f, RECEIVER_XRAY, STR(SEGMENT));
    send_datagram(f, RECEIVER_XRAY, STR("noise"));
    send_datagram(f, RECEIVER_XRAY, STR(""));
    wait_for_datagrams(f, RECEIVER_XRAY, 3, 2);
    assert_int_equal(f->store.format, BODY_OTLP_PROTOBUF);
    f->received += 1;
}

static void a_datagram_that_the_store_cannot_take_is_counted(void **state)
{
    struct fixture *f = *state;
    f->store.how = REFUSE;
    f->store.err = ERR_BUSY;
    send_datagram(f, RECEIVER_XRAY, STR(SEGMENT));
    f->received += 1;
    wait_for_datagrams(f, RECEIVER_XRAY, 1, 1);
}

static void a_port_of_zipkin_that_is_taken_leaves_zipkin_out(void **state)
{
    struct fixture *f = *state;
    struct ingest_options options = {
        .address = "127.0.0.1",
        .store = &f->store,
        .ports = {[RECEIVER_ZIPKIN] = ingest_port(f->ingest, RECEIVER_ZIPKIN),
                  [RECEIVER_XRAY] = ingest_port(f->ingest, RECEIVER_XRAY)},
    };
    struct ingest *second = NULL;
    struct error_detail detail = {0};
    assert_int_equal(ingest_start(&options, &second, &detail), 0);
    assert_int_equal(ingest_port(second, RECEIVER_ZIPKIN), 0);
    assert_int_equal(ingest_port(second, RECEIVER_XRAY), 0);
    assert_true(ingest_port(second, RECEIVER_OTLP_HTTP) != 0);
    struct ingest_stats stats;
    ingest_stats(second, &stats);
    assert_int_equal(stats.requests, 0);
    ingest_stop(second, 1000);
    ingest_free(second);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(protobuf_is_answered_with_protobuf_once_it_is_durable),
        T(json_is_answered_with_json),
        T(grpc_is_answered_with_a_message_and_trailers),
        T(no_answer_comes_before_the_spans_are_durable),
        T(spans_that_cannot_be_kept_are_a_partial_success),
        T(an_empty_request_is_taken_without_the_store),
        T(a_full_queue_asks_to_try_again),
        T(a_store_that_cannot_write_is_unavailable),
        T(bytes_that_are_not_otlp_are_refused_for_good),
        T(too_many_spans_in_one_request_are_too_large),
        T(a_body_over_the_limit_has_its_status_in_the_requests_encoding),
        T(a_body_that_asks_for_too_much_memory_is_too_large),
        T(long_values_are_cut_in_the_log_as_in_the_batch_and_the_sender_is_told),
        T(other_signals_methods_and_types_have_clear_answers),
        T(a_port_that_is_taken_is_named_and_nothing_is_left),
        T(zipkin_is_answered_202_and_logged_as_otlp),
        T(a_busy_store_is_503_to_zipkin),
        T(a_value_too_long_is_cut_in_zipkins_spans_too),
        T(datagrams_are_stored_or_counted),
        T(a_datagram_that_the_store_cannot_take_is_counted),
        T(a_port_of_zipkin_that_is_taken_leaves_zipkin_out),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    curl_global_cleanup();
    return failed;
}
