/* Writes one batch of metrics of every kind, "protobuf" or "json", for a decoder that is not ours. */
#include "wire/otlp_metrics.h"

#include <stdio.h>

#define TIME UINT64_C(1700000000000000001)

static struct attr channel_a = {{"channel", 7}, {.type = VALUE_STRING, .string = {"a", 1}}};
static struct attr channel_b = {{"channel", 7}, {.type = VALUE_STRING, .string = {"b", 1}}};
static struct attr service = {{"service.name", 12},
                              {.type = VALUE_STRING, .string = {"metrics", 7}}};

int main(int argc, char **argv)
{
    const struct resource resource = {.attrs = {&service, 1, 0}};
    const struct scope scope = {.name = STR("pugmark"), .version = STR("1.2")};
    static const uint64_t counts[] = {0, 5, 300};
    const struct metric_point memory = {.time_ns = TIME, .integer = -9007199254740993};
    const struct metric_point cpu = {.time_ns = TIME, .is_real = true, .real = 0.25};
    const struct metric_point sent[] = {
        {.attrs = {&channel_a, 1, 0}, .start_ns = 5, .time_ns = TIME, .integer = 0},
        {.attrs = {&channel_b, 1, 0}, .start_ns = 5, .time_ns = TIME, .integer = 7}};
    const struct metric_point spans[] = {{.start_ns = 5,
                                          .time_ns = TIME,
                                          .histogram = {.count = 7,
                                                        .zero_count = 1,
                                                        .sum = 12.5,
                                                        .min = 0,
                                                        .max = 9.5,
                                                        .scale = -3,
                                                        .positive = {-2, counts, 3}}},
                                         {.start_ns = 5, .time_ns = TIME}};
    const struct metric metrics[] = {
        {.name = STR("process.memory"),
         .description = STR("resident"),
         .unit = STR("By"),
         .type = METRIC_GAUGE,
         .points = &memory,
         .n_points = 1},
        {.name = STR("cpu"), .unit = STR("1"), .type = METRIC_GAUGE, .points = &cpu, .n_points = 1},
        {.name = STR("sent"),
         .unit = STR("{message}"),
         .type = METRIC_SUM,
         .temporality = METRIC_CUMULATIVE,
         .monotonic = true,
         .points = sent,
         .n_points = 2},
        {.name = STR("spans"),
         .unit = STR("ns"),
         .type = METRIC_EXP_HISTOGRAM,
         .temporality = METRIC_DELTA,
         .points = spans,
         .n_points = 2}};
    const struct metric_batch batch = {metrics, 4, &resource, &scope};
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    if (argc > 1 && strcmp(argv[1], "json") == 0)
        otlp_metrics_json_encode(&batch, &w);
    else
        otlp_metrics_encode(&batch, &out);
    bool ok = buf_ok(&out) && fwrite(out.ptr, 1, out.len, stdout) == out.len;
    buf_done(&out);
    return ok ? 0 : 1;
}
