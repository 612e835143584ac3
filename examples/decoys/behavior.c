#include "behavior.h"

#include "common.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

struct timing {
    size_t n; /* gaps between events */
    double mean, median, deviation, shortest, longest, duration;
};

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the gaps between events, in seconds. */
static struct timing timing_stats(const struct log_rows *rows)
{
    PUG_SPAN("profiler.timing_stats");
    struct timing t = {.n = rows->n > 0 ? rows->n - 1 : 0};
    double *gaps = t.n ? calloc(t.n, sizeof *gaps) : NULL;
    if (!gaps)
        return (struct timing){0};
    double before = timestamp_parse(rows->items[0].timestamp);
    for (size_t i = 0; i < t.n; i++) {
        double now = timestamp_parse(rows->items[i + 1].timestamp);
        gaps[i] = now > before ? now - before : 0; /* lines of two containers may cross */
        t.duration += gaps[i];
        before = now;
    }
    t.mean = t.duration / (double)t.n;
    for (size_t i = 0; i < t.n; i++)
        t.deviation += (gaps[i] - t.mean) * (gaps[i] - t.mean);
    t.deviation = sqrt(t.deviation / (double)t.n);
    qsort(gaps, t.n, sizeof *gaps, compare_doubles);
    t.shortest = gaps[0];
    t.longest = gaps[t.n - 1];
    t.median = t.n % 2 ? gaps[t.n / 2] : (gaps[t.n / 2 - 1] + gaps[t.n / 2]) / 2;
    free(gaps);
    return t;
}

static size_t count_type(const struct log_rows *rows, const char *event_type)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++)
        n += strcmp(rows->items[i].event_type, event_type) == 0;
    return n;
}

static size_t count_deckies(const struct log_rows *rows)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        size_t j = 0;
        while (j < i && strcmp(rows->items[i].decky, rows->items[j].decky) != 0)
            j++;
        n += j == i;
    }
    return n;
}

static const char *classify_behavior(const struct log_rows *rows, const struct timing *t)
{
    PUG_SPAN("profiler.classify_behavior");
    const char *class = "mixed";
    double spread = t->mean > 0 ? t->deviation / t->mean : 0;
    if (count_type(rows, "login_attempt") >= 5)
        class = "brute_force";
    else if (count_type(rows, "command") > 0)
        class = "interactive";
    else if (t->n >= 5 && t->mean > 1 && spread < 0.2)
        class = "beaconing";
    else if (rows->n >= 10 && t->mean < 1)
        class = "scanning";
    else if (rows->n < 3 && count_deckies(rows) < 2)
        class = "unknown";
    pug_set_str(PUG_CURRENT, "class", class);
    return class;
}

/* Tools by the name they give themselves. */
static json_t *detect_tools_from_headers(const struct log_rows *rows)
{
    static const char *const known[] = {"sqlmap",  "nikto",          "gobuster", "Nmap",
                                        "masscan", "zgrab",          "hydra",    "python-requests",
                                        "curl",    "Go-http-client", "libssh",   "paramiko"};
    PUG_SPAN("profiler.detect_tools_from_headers");
    json_t *tools = json_array();
    bool seen[sizeof known / sizeof *known] = {false};
    for (size_t i = 0; i < rows->n; i++) {
        json_t *fields = json_loads(rows->items[i].fields, 0, NULL);
        const char *agent = json_string_value(json_object_get(fields, "user_agent"));
        const char *version = json_string_value(json_object_get(fields, "client_version"));
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            if (!seen[k] && ((agent && strcasestr(agent, known[k])) ||
                             (version && strcasestr(version, known[k])))) {
                seen[k] = true;
                json_array_append_new(tools, json_string(known[k]));
            }
        json_decref(fields);
    }
    pug_set_int(PUG_CURRENT, "tools", (int64_t)json_array_size(tools));
    return tools;
}

static const char *phase_of(const struct log_row *row)
{
    if (strcmp(row->event_type, "command") == 0)
        return strstr(row->fields, "http://") ? "delivery" : "action";
    if (strcmp(row->event_type, "login_attempt") == 0 ||
        (strcmp(row->event_type, "request") == 0 &&
         (strstr(row->fields, "\"authorization\"") || strstr(row->fields, "\"body\""))))
        return "access";
    return "reconnaissance";
}

/* When each phase was seen first, and how many events it had. */
static json_t *phase_sequence(const struct log_rows *rows)
{
    PUG_SPAN("profiler.phase_sequence");
    json_t *phases = json_object();
    for (size_t i = 0; i < rows->n; i++) {
        const char *name = phase_of(&rows->items[i]);
        json_t *phase = json_object_get(phases, name);
        if (!phase) {
            phase = json_pack("{s:s, s:i}", "first_seen", rows->items[i].timestamp, "events", 0);
            json_object_set_new(phases, name, phase);
        }
        json_t *events = json_object_get(phase, "events");
        json_integer_set(events, json_integer_value(events) + 1);
    }
    return phases;
}

static void count_shape(json_t *shapes, const char *shape)
{
    json_t *n = shape ? json_object_get(shapes, shape) : NULL;
    if (shape)
        json_object_set_new(shapes, shape, json_integer(json_integer_value(n) + 1));
}

/* What the sniffer saw of him, and his TCP as the decoys' kernels saw it: window scale and segment
 * size tell systems apart, the shortest round trip how far away he sits. */
static json_t *sniffer_rollup(const struct log_rows *rows)
{
    /* Of which fields it is worth counting what they say, and under which name. */
    static const char *const counted[][2] = {{"os", "systems"},  {"signature", "signatures"},
                                             {"ja3", "ja3"},     {"ja4", "ja4"},
                                             {"hassh", "hassh"}, {"server_name", "server_names"}};
    enum { N = sizeof counted / sizeof *counted };
    PUG_SPAN("profiler.sniffer_rollup");
    json_t *shapes = json_object(), *seen[N];
    for (size_t k = 0; k < N; k++)
        seen[k] = json_object();
    double rtt_min = INFINITY;
    for (size_t i = 0; i < rows->n; i++) {
        json_t *fields = json_loads(rows->items[i].fields, 0, NULL);
        const char *mss = json_string_value(json_object_get(fields, "tcp_mss"));
        const char *scale = json_string_value(json_object_get(fields, "tcp_wscale"));
        const char *rtt = json_string_value(json_object_get(fields, "tcp_rtt_us"));
        char shape[64];
        if (mss && scale) {
            snprintf(shape, sizeof shape, "mss=%s,wscale=%s", mss, scale);
            count_shape(shapes, shape);
        }
        if (rtt)
            rtt_min = fmin(rtt_min, atof(rtt));
        for (size_t k = 0; k < N; k++)
            count_shape(seen[k], json_string_value(json_object_get(fields, counted[k][0])));
        json_decref(fields);
    }
    json_t *rollup = json_pack("{s:o}", "shapes", shapes);
    if (isfinite(rtt_min))
        json_object_set_new(rollup, "rtt_min_us", json_real(rtt_min));
    for (size_t k = 0; k < N; k++)
        if (json_object_size(seen[k]) > 0)
            json_object_set_new(rollup, counted[k][1], seen[k]);
        else
            json_decref(seen[k]);
    return rollup;
}

/* The rows of visits: the items are lent, only the array is the caller's. */
static struct log_rows visits_of(const struct log_rows *rows)
{
    struct log_rows visits = {.items = calloc(rows->n + 1, sizeof *visits.items)};
    for (size_t i = 0; visits.items && i < rows->n; i++)
        if (row_is_visit(&rows->items[i]))
            visits.items[visits.n++] = rows->items[i];
    return visits;
}

json_t *build_behavior_record(const struct log_rows *rows)
{
    PUG_SPAN("profiler.build_behavior_record");
    struct log_rows visits = visits_of(rows);
    struct timing t = timing_stats(&visits);
    const char *class = classify_behavior(&visits, &t);
    json_t *tools = detect_tools_from_headers(&visits);
    json_t *phases = phase_sequence(&visits);
    json_t *tcp = sniffer_rollup(rows);
    free(visits.items);
    return json_pack("{s:{s:I, s:f, s:f, s:f, s:f, s:f, s:f}, s:s, s:o, s:o, s:o}", "timing",
                     "gaps", (json_int_t)t.n, "mean_s", t.mean, "median_s", t.median, "deviation_s",
                     t.deviation, "shortest_s", t.shortest, "longest_s", t.longest, "duration_s",
                     t.duration, "class", class, "tools", tools, "phases", phases, "tcp", tcp);
}

json_t *behavior_summary(const json_t *record, const struct log_rows *rows)
{
    PUG_SPAN("profiler.behavior_summary");
    static const char *const order[] = {"delivery", "action", "access", "reconnaissance"};
    const char *furthest = "none";
    const json_t *phases = json_object_get(record, "phases");
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (json_object_get(phases, order[i])) {
            furthest = order[i];
            break;
        }
    double duration =
        json_real_value(json_object_get(json_object_get(record, "timing"), "duration_s"));
    return json_pack("{s:O, s:I, s:s, s:I, s:f}", "class", json_object_get(record, "class"),
                     "tools", (json_int_t)json_array_size(json_object_get(record, "tools")),
                     "furthest_phase", furthest, "events", (json_int_t)rows->n, "events_per_minute",
                     duration >= 1 ? (double)rows->n * 60 / duration : 0.0);
}
