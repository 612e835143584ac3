/* See clickhouse.h. The schema follows opentelemetry-collector-contrib, exporter/clickhouseexporter
 * (otel_traces and otel_traces_trace_id_ts), in what 18.16 can say; RowBinary as ClickHouse's documentation
 * describes it. */
#include "clickhouse.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_MS_MAX = 30000, END_MS_MAX = 60000, ASK_S_MAX = 600, PATH_BYTES = 512 };

static const char program[] = "/usr/sbin/clickhouse-server"; /* where the package has it */

struct clickhouse {
    pid_t pid;
    char url[64];
    CURL *curl;
    struct buf rows; /* of an insertion, kept for the next */
};

bool clickhouse_is_installed(void)
{
    return access(program, X_OK) == 0;
}

pid_t clickhouse_pid(const struct clickhouse *ch)
{
    return ch->pid;
}

/* ---- the server ---- */

/* A port that was free a moment ago: the server cannot be told to take any. */
static uint16_t port_free(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        address.sin_port = 0;
    if (fd >= 0)
        close(fd);
    return ntohs(address.sin_port);
}

static bool file_write(const char *dir, const char *name, const char *text)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *out = fopen(path, "w");
    if (!out)
        return false;
    bool ok = fputs(text, out) >= 0;
    return fclose(out) == 0 && ok;
}

/* `dir` is absolute. */
static bool config_write(const char *dir, const char *compression, uint16_t http, uint16_t tcp)
{
    char text[4 * PATH_BYTES], path[PATH_BYTES];
    snprintf(
        text, sizeof text,
        "<?xml version=\"1.0\"?>\n<yandex>\n"
        "<logger><level>warning</level><console>1</console></logger>\n"
        "<listen_host>127.0.0.1</listen_host>\n"
        "<http_port>%u</http_port><tcp_port>%u</tcp_port>\n"
        "<path>%s/data/</path><tmp_path>%s/tmp/</tmp_path>\n"
        "<mark_cache_size>1073741824</mark_cache_size>\n"
        "<users_config>users.xml</users_config>\n"
        "<default_profile>default</default_profile>"
        "<default_database>default</default_database>\n"
        "<compression><case><min_part_size>0</min_part_size>"
        "<min_part_size_ratio>0</min_part_size_ratio><method>%s</method></case></compression>\n"
        "</yandex>\n",
        http, tcp, dir, dir, compression);
    if (!file_write(dir, "config.xml", text) ||
        !file_write(dir, "users.xml",
                    "<?xml version=\"1.0\"?>\n<yandex>\n"
                    "<profiles><default><max_threads>1</max_threads>"
                    "<allow_experimental_low_cardinality_type>1"
                    "</allow_experimental_low_cardinality_type></default></profiles>\n"
                    "<users><default><password></password><networks><ip>127.0.0.1</ip></networks>"
                    "<profile>default</profile><quota>default</quota></default></users>\n"
                    "<quotas><default></default></quotas>\n</yandex>\n"))
        return false;
    snprintf(path, sizeof path, "%s/data", dir);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/tmp", dir);
    mkdir(path, 0777);
    return true;
}

static void server_main(const char *dir, int cpu)
{
    char path[PATH_BYTES], config[PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/log", dir);
    int log = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0666), null = open("/dev/null", O_RDONLY);
    if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        _exit(1);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        sched_setaffinity(0, sizeof set, &set);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whatever becomes of the benchmark */
    snprintf(config, sizeof config, "--config-file=%s/config.xml", dir);
    execl(program, "clickhouse-server", config, (char *)NULL);
    _exit(1);
}

static size_t answer_add(char *bytes, size_t size, size_t n, void *arg)
{
    struct buf *answer = arg;
    buf_put(answer, bytes, size * n);
    return buf_ok(answer) ? size * n : 0;
}

/* A request with the statement in the address and the rows, or with the statement as body. */
static int request(struct clickhouse *ch, const char *url, struct str body, struct buf *answer,
                   double *ret_ms)
{
    long status = 0;
    buf_clear(answer);
    curl_easy_reset(ch->curl);
    curl_easy_setopt(ch->curl, CURLOPT_URL, url);
    curl_easy_setopt(ch->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(ch->curl, CURLOPT_TIMEOUT, (long)ASK_S_MAX);
    curl_easy_setopt(ch->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
    curl_easy_setopt(ch->curl, CURLOPT_POSTFIELDS, body.ptr ? body.ptr : "");
    curl_easy_setopt(ch->curl, CURLOPT_WRITEFUNCTION, answer_add);
    curl_easy_setopt(ch->curl, CURLOPT_WRITEDATA, answer);
    /* A large body is not announced first, which would cost a round trip. */
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
    curl_easy_setopt(ch->curl, CURLOPT_HTTPHEADER, headers);
    uint64_t begun_ns = clock_monotonic_ns();
    CURLcode code = curl_easy_perform(ch->curl);
    if (ret_ms)
        *ret_ms = (double)(clock_monotonic_ns() - begun_ns) / 1e6;
    curl_slist_free_all(headers);
    curl_easy_getinfo(ch->curl, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK)
        return ERR_IO;
    return status == 200 ? 0 : ERR_INVALID;
}

int clickhouse_ask(struct clickhouse *ch, const char *sql, struct buf *ret_answer, double *ret_ms)
{
    struct buf own = BUF_INIT, *answer = ret_answer ? ret_answer : &own;
    int err = request(ch, ch->url, str_from(sql), answer, ret_ms);
    if (err)
        fprintf(stderr, "bench: ClickHouse: %.*s\nof: %s\n", STR_ARG(buf_as_str(answer)), sql);
    buf_done(&own);
    return err;
}

int clickhouse_number(struct clickhouse *ch, const char *sql, double *ret)
{
    struct buf answer = BUF_INIT;
    int err = clickhouse_ask(ch, sql, &answer, NULL);
    buf_byte(&answer, '\0');
    char *end = NULL;
    double value = !err && buf_ok(&answer) ? strtod(answer.ptr, &end) : 0;
    if (!err && (!end || end == answer.ptr))
        err = ERR_INVALID;
    if (!err)
        *ret = value;
    buf_done(&answer);
    return err;
}

static int wait_for_answer(struct clickhouse *ch)
{
    struct buf answer = BUF_INIT;
    uint64_t until = clock_monotonic_ns() + START_MS_MAX * NS_PER_MS;
    int err;
    while ((err = request(ch, ch->url, STR("SELECT 1"), &answer, NULL)) != 0) {
        if (waitpid(ch->pid, NULL, WNOHANG) == ch->pid) {
            ch->pid = -1;
            break;
        }
        if (clock_monotonic_ns() > until) {
            err = ERR_TIMEOUT;
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    buf_done(&answer);
    return err;
}

int clickhouse_start(const struct clickhouse_options *options, struct clickhouse **ret)
{
    char dir[PATH_BYTES / 2];
    if (!clickhouse_is_installed())
        return ERR_NOT_FOUND;
    mkdir(options->dir, 0777);
    char *whole = realpath(options->dir, NULL);
    bool fits = whole && strlen(whole) < sizeof dir;
    if (fits)
        strcpy(dir, whole);
    free(whole);
    uint16_t http = port_free(), tcp = port_free();
    if (!fits || !http || !tcp || !config_write(dir, options->compression, http, tcp))
        return ERR_IO;
    struct clickhouse *ch = calloc(1, sizeof *ch);
    if (!ch)
        return ERR_NOMEM;
    snprintf(ch->url, sizeof ch->url, "http://127.0.0.1:%u/", http);
    ch->curl = curl_easy_init();
    fflush(NULL);
    ch->pid = ch->curl ? fork() : -1;
    if (ch->pid == 0)
        server_main(dir, options->cpu);
    int err = ch->pid > 0 ? wait_for_answer(ch) : ERR_IO;
    if (err) {
        fprintf(stderr, "bench: ClickHouse does not answer; its log is %s/log\n", dir);
        clickhouse_end(ch);
        return err;
    }
    *ret = ch;
    return 0;
}

void clickhouse_end(struct clickhouse *ch)
{
    if (!ch)
        return;
    uint64_t until = clock_monotonic_ns() + END_MS_MAX * NS_PER_MS;
    if (ch->pid > 0)
        kill(ch->pid, SIGTERM);
    while (ch->pid > 0 && waitpid(ch->pid, NULL, WNOHANG) == 0) {
        if (clock_monotonic_ns() > until) {
            kill(ch->pid, SIGKILL);
            until = UINT64_MAX;
        }
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    if (ch->curl)
        curl_easy_cleanup(ch->curl);
    buf_done(&ch->rows);
    free(ch);
}

/* ---- spans ---- */

int clickhouse_spans_create(struct clickhouse *ch)
{
    static const char *const statements[] = {
        "CREATE TABLE spans ("
        " Timestamp UInt64, TraceId FixedString(16), SpanId FixedString(8),"
        " ParentSpanId FixedString(8), TraceState String, SpanName LowCardinality(String),"
        " SpanKind UInt8, ServiceName LowCardinality(String),"
        " ResourceAttributes Nested(Key LowCardinality(String), Value String),"
        " ScopeName LowCardinality(String), ScopeVersion LowCardinality(String),"
        " SpanAttributes Nested(Key LowCardinality(String), Value String),"
        " Duration UInt64, StatusCode UInt8, StatusMessage String"
        ") ENGINE = MergeTree PARTITION BY toDate(intDiv(Timestamp, 1000000000))"
        " ORDER BY (ServiceName, SpanName, intDiv(Timestamp, 1000000000))",
        "CREATE MATERIALIZED VIEW trace_times ENGINE = MergeTree ORDER BY (TraceId, Start) AS"
        " SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End FROM spans"
        " GROUP BY TraceId",
    };
    int err = 0;
    for (size_t i = 0; !err && i < sizeof statements / sizeof *statements; i++)
        err = clickhouse_ask(ch, statements[i], NULL, NULL);
    return err;
}

static void put_length(struct buf *out, size_t n)
{
    for (; n >= 0x80; n >>= 7)
        buf_byte(out, (char)(n | 0x80));
    buf_byte(out, (char)n);
}

static void put_text(struct buf *out, struct str s)
{
    put_length(out, s.len);
    buf_str(out, s);
}

/* Attributes are texts in the exporter's table. */
static void put_value(struct buf *out, const struct value *v)
{
    char text[64] = "";
    switch (v->type) {
    case VALUE_STRING:
    case VALUE_BYTES:
        put_text(out, v->string);
        return;
    case VALUE_BOOL:
        put_text(out, v->boolean ? STR("true") : STR("false"));
        return;
    case VALUE_INT:
        snprintf(text, sizeof text, "%lld", (long long)v->integer);
        break;
    case VALUE_DOUBLE:
        snprintf(text, sizeof text, "%.17g", v->real);
        break;
    default:
        break;
    }
    put_text(out, str_from(text));
}

static void put_attrs(struct buf *out, const struct attrs *attrs)
{
    put_length(out, attrs->n);
    for (uint32_t i = 0; i < attrs->n; i++)
        put_text(out, attrs->items[i].key);
    put_length(out, attrs->n);
    for (uint32_t i = 0; i < attrs->n; i++)
        put_value(out, &attrs->items[i].value);
}

/* RowBinary is little endian, as this machine. */
static void put_span(struct buf *out, const struct span *s)
{
    uint64_t duration_ns = span_duration_ns(s);
    buf_put(out, &s->start_ns, sizeof s->start_ns);
    buf_put(out, s->trace_id.bytes, TRACE_ID_SIZE);
    buf_put(out, s->span_id.bytes, SPAN_ID_SIZE);
    buf_put(out, s->parent_id.bytes, SPAN_ID_SIZE);
    put_text(out, s->trace_state);
    put_text(out, s->name);
    buf_byte(out, (char)s->kind);
    put_text(out, s->resource->service_name);
    put_attrs(out, &s->resource->attrs);
    put_text(out, s->scope->name);
    put_text(out, s->scope->version);
    put_attrs(out, &s->attrs);
    buf_put(out, &duration_ns, sizeof duration_ns);
    buf_byte(out, (char)s->status_code);
    put_text(out, s->status_message);
}

int clickhouse_spans_insert(struct clickhouse *ch, const struct span_batch *batch)
{
    char url[128];
    struct buf answer = BUF_INIT;
    buf_clear(&ch->rows);
    for (size_t i = 0; i < batch->n; i++)
        put_span(&ch->rows, &batch->spans[i]);
    snprintf(url, sizeof url, "%s?query=INSERT%%20INTO%%20spans%%20FORMAT%%20RowBinary", ch->url);
    int err = buf_ok(&ch->rows) ? request(ch, url, buf_as_str(&ch->rows), &answer, NULL)
                                : ERR_NOMEM;
    if (err)
        fprintf(stderr, "bench: ClickHouse takes no spans: %.*s\n", STR_ARG(buf_as_str(&answer)));
    buf_done(&answer);
    return err;
}

int clickhouse_spans_merge(struct clickhouse *ch)
{
    int err = clickhouse_ask(ch, "OPTIMIZE TABLE spans FINAL", NULL, NULL);
    return err ? err : clickhouse_ask(ch, "OPTIMIZE TABLE trace_times FINAL", NULL, NULL);
}

int clickhouse_spans_bytes(struct clickhouse *ch, double *ret_bytes)
{
    return clickhouse_number(ch,
                             "SELECT sum(bytes_on_disk) FROM system.parts"
                             " WHERE active AND table = 'spans'",
                             ret_bytes);
}
