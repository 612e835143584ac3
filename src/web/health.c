/* Is it alive, is it ready, how is it doing. */
#include "web/web_internal.h"

#include "base/clock.h"
#include "store/records.h"

#include <stdio.h>

void health_healthz(struct web_request *q)
{
    web_reply_text(q, 200, "ok\n");
}

void health_readyz(struct web_request *q)
{
    bool ready = !q->web->is_ready || q->web->is_ready(q->web->arg);
    web_reply_text(q, ready ? 200 : 503, ready ? "ok\n" : "not ready\n");
}

/* ---- Prometheus's text format, version 0.0.4 ---- */

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(struct buf *out, const char *name, const char *type, const char *help,
                   uint64_t value)
{
    head(out, name, type, help);
    buf_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

/* Label values escape backslash, quote and newline. */
static void label(struct buf *out, struct str value)
{
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] == '\\' || value.ptr[i] == '"')
            buf_byte(out, '\\');
        if (value.ptr[i] == '\n')
            buf_cstr(out, "\\n");
        else
            buf_byte(out, value.ptr[i]);
    }
}

static void receiver_rows(struct buf *out, const struct web_ingest_stats *stats, const char *name,
                          const char *help, size_t offset, bool udp_only)
{
    head(out, name, "counter", help);
    for (size_t i = 0; i < stats->n_receivers; i++) {
        const struct web_receiver_stats *r = &stats->receivers[i];
        uint64_t n;
        memcpy(&n, (const char *)r + offset, sizeof n);
        if (r->is_udp || !udp_only)
            buf_printf(out, "%s{receiver=\"%s\"} %llu\n", name, r->name, (unsigned long long)n);
    }
}

static void receivers(struct buf *out, const struct web_ingest_stats *stats)
{
#define OFFSET(field) offsetof(struct web_receiver_stats, field)
    receiver_rows(out, stats, "pugmark_receiver_requests_total",
                  "Requests with spans, or datagrams, by receiver.", OFFSET(requests), false);
    receiver_rows(out, stats, "pugmark_receiver_requests_refused_total",
                  "Of them, refused as a whole.", OFFSET(requests_refused), false);
    receiver_rows(out, stats, "pugmark_receiver_spans_received_total", "Spans, by receiver.",
                  OFFSET(spans_received), false);
    receiver_rows(out, stats, "pugmark_receiver_spans_stored_total", "Of them, durable.",
                  OFFSET(spans_stored), false);
    receiver_rows(out, stats, "pugmark_receiver_datagrams_dropped_total",
                  "Datagrams the kernel dropped because its buffer was full.",
                  OFFSET(datagrams_dropped), true);
#undef OFFSET
}

static void follow(struct buf *out, const struct web_ingest_stats *stats)
{
    static const char *const fates[] = {"span", "log", "passed", "invalid", "repeated"};
    number(out, "pugmark_follow_files", "gauge", "Followed files that are open.",
           stats->follow_files);
    number(out, "pugmark_follow_bytes_total", "counter", "Bytes read of followed files.",
           stats->follow_bytes);
    number(out, "pugmark_follow_lost_total", "counter",
           "Followed files that were cut or replaced without a copy.", stats->follow_lost);
    head(out, "pugmark_follow_lines_total", "counter", "Lines of followed files, by fate.");
    for (size_t i = 0; i < sizeof fates / sizeof *fates; i++)
        buf_printf(out, "pugmark_follow_lines_total{fate=\"%s\"} %llu\n", fates[i],
                   (unsigned long long)stats->follow_lines[i]);
}

static void ingest(struct buf *out, const struct web *web)
{
    struct web_ingest_stats stats = {0};
    if (!web->ingest_stats)
        return;
    web->ingest_stats(web->arg, &stats);
    number(out, "pugmark_ingest_requests_total", "counter", "Requests with spans.", stats.requests);
    number(out, "pugmark_ingest_spans_received_total", "counter", "Spans in requests.",
           stats.spans_received);
    number(out, "pugmark_ingest_spans_stored_total", "counter", "Spans acknowledged as durable.",
           stats.spans_stored);
    number(out, "pugmark_ingest_values_cut_total", "counter",
           "Attribute values that were too long.", stats.values_cut);
    number(out, "pugmark_ingest_bytes_in_flight", "gauge", "Bodies held until they are durable.",
           stats.bytes_in_flight);
    number(out, "pugmark_ingest_connections", "gauge", "Connections to the receivers.",
           stats.connections_now);
    number(out, "pugmark_ingest_connections_full_total", "counter",
           "Times a receiver had as many connections as it may, and newcomers waited.",
           stats.connections_full);
    head(out, "pugmark_ingest_requests_refused_total", "counter",
         "Requests refused as a whole, by reason.");
    for (size_t i = 0; i < stats.n_turned; i++) {
        buf_cstr(out, "pugmark_ingest_requests_refused_total{reason=\"");
        label(out, str_from(stats.turned[i].reason));
        buf_printf(out, "\"} %llu\n", (unsigned long long)stats.turned[i].count);
    }
    head(out, "pugmark_ingest_spans_refused_total", "counter", "Spans refused, by reason.");
    for (size_t i = 0; i < stats.n_refused; i++) {
        buf_cstr(out, "pugmark_ingest_spans_refused_total{reason=\"");
        label(out, str_from(stats.refused[i].reason));
        buf_printf(out, "\"} %llu\n", (unsigned long long)stats.refused[i].count);
    }
    head(out, "pugmark_ingest_redacted_values_total", "counter",
         "Values that a rule of redaction masked, hashed or dropped, by rule.");
    for (size_t i = 0; i < stats.n_redactions; i++) {
        buf_cstr(out, "pugmark_ingest_redacted_values_total{rule=\"");
        label(out, str_from(stats.redactions[i].rule));
        buf_printf(out, "\",action=\"%s\"} %llu\n", stats.redactions[i].action,
                   (unsigned long long)stats.redactions[i].values);
    }
    receivers(out, &stats);
    if (stats.has_follow)
        follow(out, &stats);
    for (size_t i = 0; i < stats.n_signals; i++) {
        char name[64], help[96];
        const char *const what[] = {"received", "stored", "refused"};
        const uint64_t counts[] = {stats.signals[i].received, stats.signals[i].stored,
                                   stats.signals[i].refused};
        for (size_t j = 0; j < sizeof counts / sizeof *counts; j++) {
            snprintf(name, sizeof name, "pugmark_ingest_%s_%s_total", stats.signals[i].name,
                     what[j]);
            snprintf(help, sizeof help, "%s of OTLP %s.",
                     strcmp(stats.signals[i].name, "points") ? "Records" : "Points", what[j]);
            number(out, name, "counter", help, counts[j]);
        }
    }
}

static void records(struct buf *out, const struct web *web)
{
    struct records_stats s;
    if (!web->records)
        return;
    records_stats(web->records, &s);
    number(out, "pugmark_records_logs", "gauge", "Log records in the store.", s.logs);
    number(out, "pugmark_records_points", "gauge", "Points of metrics in the store.", s.points);
    number(out, "pugmark_records_files", "gauge", "Files of records.", s.files);
    number(out, "pugmark_records_file_bytes", "gauge", "Bytes of those files.", s.file_bytes);
    number(out, "pugmark_records_log_bytes", "gauge", "Bytes of the records' write-ahead log.",
           s.log_bytes);
    number(out, "pugmark_records_memory_bytes", "gauge", "Memory of records not yet in a file.",
           s.memory_bytes);
    head(out, "pugmark_records_dropped_total", "counter",
         "Records that were stored and are gone, by reason, since the start.");
    buf_printf(out, "pugmark_records_dropped_total{reason=\"age\"} %llu\n",
               (unsigned long long)s.expired_age);
    buf_printf(out, "pugmark_records_dropped_total{reason=\"disk\"} %llu\n",
               (unsigned long long)s.expired_disk);
    number(out, "pugmark_records_damaged_files", "gauge",
           "Files of records in which damage was met.", s.damaged_files);
}

static void rules(struct buf *out, struct web *web)
{
    struct arena arena = ARENA_INIT;
    struct store_rule_state *states;
    uint64_t disk_bytes_max, next_ns;
    size_t n;
    head(out, "pugmark_store_rule_dropped_spans_total", "counter",
         "Spans that a rule of retention took, since the store was made; without a rule: by the "
         "age of all others.");
    if (!store_retention_state(web->store, &arena, &states, &n, &disk_bytes_max, &next_ns))
        for (size_t i = 0; i < n; i++) {
            buf_cstr(out, "pugmark_store_rule_dropped_spans_total{rule=\"");
            label(out, states[i].text);
            buf_printf(out, "\"} %llu\n", (unsigned long long)states[i].spans);
        }
    arena_done(&arena);
}

static void store(struct buf *out, struct web *web)
{
    struct store_stats s = {0};
    store_stats(web->store, &s);
    number(out, "pugmark_store_spans", "gauge", "Spans in the store.", s.spans);
    number(out, "pugmark_store_segments", "gauge", "Sealed segments.", s.segments);
    number(out, "pugmark_store_segment_bytes", "gauge", "Bytes of sealed segments.",
           s.segment_bytes);
    number(out, "pugmark_store_segment_spans", "gauge", "Spans in sealed segments.",
           s.segment_spans);
    number(out, "pugmark_store_log_bytes", "gauge", "Bytes of the write-ahead log.", s.log_bytes);
    number(out, "pugmark_store_memtable_bytes", "gauge", "Memory of spans not yet sealed.",
           s.memtable_bytes);
    number(out, "pugmark_store_memtable_spans", "gauge", "Spans not yet sealed.", s.memtable_spans);
    number(out, "pugmark_store_appended_batches_total", "counter", "Batches made durable.",
           s.appended_batches);
    number(out, "pugmark_store_appended_spans_total", "counter", "Spans made durable.",
           s.appended_spans);
    number(out, "pugmark_store_sealed_bytes_total", "counter",
           "Bytes of segments made of new spans, since the store was made.", s.sealed_bytes);
    number(out, "pugmark_store_rewritten_bytes_total", "counter",
           "Bytes of segments made of segments, since the store was made.", s.rewritten_bytes);
    head(out, "pugmark_store_dropped_spans_total", "counter",
         "Spans that were stored and are gone, by reason, since the store was made.");
    buf_printf(out, "pugmark_store_dropped_spans_total{reason=\"age\"} %llu\n",
               (unsigned long long)s.expired_age_spans);
    buf_printf(out, "pugmark_store_dropped_spans_total{reason=\"disk\"} %llu\n",
               (unsigned long long)s.expired_disk_spans);
    buf_printf(out, "pugmark_store_dropped_spans_total{reason=\"deleted\"} %llu\n",
               (unsigned long long)s.deleted_spans);
    rules(out, web);
    number(out, "pugmark_store_redacted_spans_total", "counter",
           "Spans of which somebody had values taken out, since the store was made.",
           s.redacted_spans);
    number(out, "pugmark_store_pinned_traces", "gauge", "Traces that retention passes over.",
           s.pins);
    number(out, "pugmark_store_damaged_segments", "gauge",
           "Segments that are missing, or in which damage was met.", s.damaged_segments);
}

static void requests(struct buf *out, const struct web *web)
{
    static const struct {
        const char *name, *help;
    } families[] = {
        {"pugmark_http_requests_total", "Requests on the page address and on Tempo's, by route."},
        {"pugmark_http_failures_total", "Those answered with 5xx."},
        {"pugmark_http_seconds_total", "Time from arrival to answer, summed."},
    };
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        head(out, families[f].name, "counter", families[f].help);
        const char *route;
        for (size_t i = 0; (route = web_route_name(i)); i++) {
            const struct route_stats *s = &web->stats[i];
            if (!atomic_load_explicit(&s->requests, memory_order_relaxed))
                continue;
            buf_printf(out, "%s{route=\"%s\"} ", families[f].name, route);
            if (f == 2)
                buf_printf(out, "%.9f\n",
                           (double)atomic_load_explicit(&s->busy_ns, memory_order_relaxed) / 1e9);
            else
                buf_printf(out, "%llu\n",
                           (unsigned long long)atomic_load_explicit(f ? &s->failures : &s->requests,
                                                                    memory_order_relaxed));
        }
    }
}

void health_metrics(struct web_request *q)
{
    struct web *web = q->web;
    struct buf out = BUF_INIT;
    head(&out, "pugmark_info", "gauge", "The version that runs.");
    buf_cstr(&out, "pugmark_info{version=\"" PUGMARK_VERSION "\"} 1\n");
    number(&out, "pugmark_uptime_seconds", "gauge", "Seconds since the start.",
           (clock_monotonic_ns() - web->started_ns) / NS_PER_S);
    ingest(&out, web);
    store(&out, web);
    records(&out, web);
    requests(&out, web);
    number(&out, "pugmark_live_clients", "gauge", "Live streams that are open.",
           live_clients(web->live));
    struct http_server_stats http;
    http_server_stats(web->listeners[ADDRESS_PAGE].http, &http);
    number(&out, "pugmark_http_connections", "gauge", "Connections to the page address.",
           http.connections_now);
    web_reply(q, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}
