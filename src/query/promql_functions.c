/* The functions of PromQL: which there are, what they take, and what those are that look at one sample or one
 * window. What a rate sees is that of Prometheus, to the letter: extrapolatedRate in its promql/functions.go. */
#include "query/promql_internal.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

/* ---- of a sample ---- */

#define MAP(name)                                                                                  \
    static double map_##name(double v, const double *args)                                         \
    {                                                                                              \
        (void)args;                                                                                \
        return name(v);                                                                            \
    }
MAP(fabs)
MAP(ceil)
MAP(floor)
MAP(exp)
MAP(sqrt)
MAP(log)
MAP(log2)
MAP(log10)
MAP(sin)
MAP(cos)
MAP(tan)
MAP(asin)
MAP(acos)
MAP(atan)
MAP(sinh)
MAP(cosh)
MAP(tanh)
MAP(asinh)
MAP(acosh)
MAP(atanh)
#undef MAP

static double map_degrees(double v, const double *args)
{
    (void)args;
    return v * 180 / M_PI;
}

static double map_radians(double v, const double *args)
{
    (void)args;
    return v * M_PI / 180;
}

static double map_sign(double v, const double *args)
{
    (void)args;
    return v < 0 ? -1 : v > 0 ? 1 : v;
}

static double least(double a, double b)
{
    return isnan(a) || isnan(b) ? NAN : a < b ? a : b;
}

static double greatest(double a, double b)
{
    return isnan(a) || isnan(b) ? NAN : a > b ? a : b;
}

static double map_clamp(double v, const double *args)
{
    if (args[1] < args[0])
        return promql_absent();
    return greatest(args[0], least(args[1], v));
}

static double map_clamp_min(double v, const double *args)
{
    return greatest(v, args[0]);
}

static double map_clamp_max(double v, const double *args)
{
    return least(v, args[0]);
}

static double map_round(double v, const double *args)
{
    /* A factor, because 1 / 0.1 can be held better than 0.1. */
    double factor = 1 / (isnan(args[0]) ? 1 : args[0]);
    return floor(v * factor + 0.5) / factor;
}

/* ---- of a time ---- */

static bool date_of(double v, struct tm *ret)
{
    time_t t = fabs(v) < 0x1p52 ? (time_t)v : 0; /* 0 of NaN too */
    return fabs(v) < 0x1p52 && gmtime_r(&t, ret);
}

static double date_minute(double v, const double *args)
{
    struct tm t;
    (void)args;
    return date_of(v, &t) ? t.tm_min : NAN;
}

static double date_hour(double v, const double *args)
{
    struct tm t;
    (void)args;
    return date_of(v, &t) ? t.tm_hour : NAN;
}

static double date_weekday(double v, const double *args)
{
    struct tm t;
    (void)args;
    return date_of(v, &t) ? t.tm_wday : NAN;
}

static double date_day(double v, const double *args)
{
    struct tm t;
    (void)args;
    return date_of(v, &t) ? t.tm_mday : NAN;
}

static double date_year_day(double v, const double *args)
{
    struct tm t;
    (void)args;
    return date_of(v, &t) ? t.tm_yday + 1 : NAN;
}

static double date_month(double v, const double *args)
{
    struct tm t;
    (void)args;
    return date_of(v, &t) ? t.tm_mon + 1 : NAN;
}

static double date_year(double v, const double *args)
{
    struct tm t;
    (void)args;
    return date_of(v, &t) ? t.tm_year + 1900.0 : NAN;
}

static double date_days(double v, const double *args)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct tm t;
    (void)args;
    if (!date_of(v, &t))
        return NAN;
    int year = t.tm_year + 1900;
    bool leap = (year % 4 == 0 && year % 100) || year % 400 == 0;
    return days[t.tm_mon] + (leap && t.tm_mon == 1);
}

/* ---- of a window ---- */

static double extrapolated(const struct promql_window *w, bool is_counter, bool is_rate)
{
    size_t last = w->n - 1;
    if (w->n_samples < 2)
        return promql_absent();
    double result = w->values[last] - w->values[0];
    for (size_t i = 1; is_counter && i < w->n; i++)
        if (w->values[i] < w->values[i - 1])
            result += w->values[i - 1];
    double to_start = (double)(w->times[0] - w->start_ms) / 1000;
    double to_end = (double)(w->end_ms - w->times[last]) / 1000;
    double sampled = (double)(w->times[last] - w->times[0]) / 1000;
    double average = sampled / (double)(w->n_samples - 1), threshold = average * 1.1;
    if (to_start >= threshold)
        to_start = average / 2;
    if (is_counter && result > 0 && w->values[0] >= 0) {
        /* No counter was below 0. */
        double to_zero = sampled * (w->values[0] / result);
        if (to_zero < to_start)
            to_start = to_zero;
    }
    if (to_end >= threshold)
        to_end = average / 2;
    double factor = (sampled + to_start + to_end) / sampled;
    if (is_rate)
        factor /= (double)(w->end_ms - w->start_ms) / 1000;
    return result * factor;
}

static double window_rate(const struct promql_window *w)
{
    return extrapolated(w, true, true);
}

static double window_increase(const struct promql_window *w)
{
    return extrapolated(w, true, false);
}

static double window_delta(const struct promql_window *w)
{
    return extrapolated(w, false, false);
}

static double window_irate(const struct promql_window *w)
{
    if (w->n < 2)
        return promql_absent();
    double last = w->values[w->n - 1], before = w->values[w->n - 2];
    double seconds = (double)(w->times[w->n - 1] - w->times[w->n - 2]) / 1000;
    return (last < before ? last : last - before) / seconds;
}

static double window_idelta(const struct promql_window *w)
{
    return w->n < 2 ? promql_absent() : w->values[w->n - 1] - w->values[w->n - 2];
}

static double window_count(const struct promql_window *w)
{
    return (double)w->n;
}

static double window_present(const struct promql_window *w)
{
    (void)w;
    return 1;
}

static double window_last(const struct promql_window *w)
{
    return w->values[w->n - 1];
}

/* Kahan's and Neumaier's. */
static void sum_add(double *sum, double *error, double v)
{
    double t = *sum + v;
    if (isinf(t))
        *error = 0;
    else if (fabs(*sum) >= fabs(v))
        *error += (*sum - t) + v;
    else
        *error += (v - t) + *sum;
    *sum = t;
}

static double window_sum(const struct promql_window *w)
{
    double sum = 0, error = 0;
    for (size_t i = 0; i < w->n; i++)
        sum_add(&sum, &error, w->values[i]);
    return isinf(sum) ? sum : sum + error;
}

static double window_avg(const struct promql_window *w)
{
    return window_sum(w) / (double)w->n;
}

static double window_min(const struct promql_window *w)
{
    double v = w->values[0];
    for (size_t i = 1; i < w->n; i++)
        if (w->values[i] < v || isnan(v))
            v = w->values[i];
    return v;
}

static double window_max(const struct promql_window *w)
{
    double v = w->values[0];
    for (size_t i = 1; i < w->n; i++)
        if (w->values[i] > v || isnan(v))
            v = w->values[i];
    return v;
}

static double window_variance(const struct promql_window *w)
{
    double mean = 0, squares = 0;
    for (size_t i = 0; i < w->n; i++) {
        double delta = w->values[i] - mean;
        mean += delta / (double)(i + 1);
        squares += delta * (w->values[i] - mean);
    }
    return squares / (double)w->n;
}

static double window_deviation(const struct promql_window *w)
{
    return sqrt(window_variance(w));
}

static double window_changes(const struct promql_window *w)
{
    size_t n = 0;
    for (size_t i = 1; i < w->n; i++)
        n += w->values[i] != w->values[i - 1] && !(isnan(w->values[i]) && isnan(w->values[i - 1]));
    return (double)n;
}

static double window_resets(const struct promql_window *w)
{
    size_t n = 0;
    for (size_t i = 1; i < w->n; i++)
        n += w->values[i] < w->values[i - 1];
    return (double)n;
}

/* Least squares, of the time from `zero_ms` on. */
static void regression(const struct promql_window *w, int64_t zero_ms, double *ret_slope,
                       double *ret_at_zero)
{
    double x = 0, y = 0, xy = 0, xx = 0, ex = 0, ey = 0, exy = 0, exx = 0, n = (double)w->n;
    bool constant = true;
    for (size_t i = 0; i < w->n; i++) {
        double t = (double)(w->times[i] - zero_ms) / 1000, v = w->values[i];
        constant &= v == w->values[0];
        sum_add(&x, &ex, t);
        sum_add(&y, &ey, v);
        sum_add(&xy, &exy, t * v);
        sum_add(&xx, &exx, t * t);
    }
    if (constant) {
        *ret_slope = isinf(w->values[0]) ? NAN : 0;
        *ret_at_zero = isinf(w->values[0]) ? NAN : w->values[0];
        return;
    }
    x += ex;
    y += ey;
    xy += exy;
    xx += exx;
    *ret_slope = (xy - x * y / n) / (xx - x * x / n);
    *ret_at_zero = y / n - *ret_slope * x / n;
}

static double window_deriv(const struct promql_window *w)
{
    double slope, at_zero;
    if (w->n < 2)
        return promql_absent();
    regression(w, w->times[0], &slope, &at_zero);
    return slope;
}

static double window_predict(const struct promql_window *w)
{
    double slope, at_zero;
    if (w->n < 2)
        return promql_absent();
    regression(w, w->now_ms, &slope, &at_zero);
    return slope * w->args[0] + at_zero;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    if (isnan(x) || isnan(y))
        return isnan(y) - isnan(x); /* NaN is the least */
    return (x > y) - (x < y);
}

double promql_quantile(double q, double *values, size_t n)
{
    if (!n || isnan(q))
        return NAN;
    if (q < 0 || q > 1)
        return q < 0 ? -INFINITY : INFINITY;
    qsort(values, n, sizeof *values, ascending);
    double rank = q * (double)(n - 1);
    size_t lower = (size_t)floor(rank), upper = lower + 1 < n ? lower + 1 : n - 1;
    double weight = rank - floor(rank);
    return values[lower] * (1 - weight) + values[upper] * weight;
}

/* The window is the caller's copy. */
static double window_quantile(const struct promql_window *w)
{
    double *copy = malloc(w->n * sizeof *copy);
    if (!copy)
        return NAN;
    memcpy(copy, w->values, w->n * sizeof *copy);
    double v = promql_quantile(w->args[0], copy, w->n);
    free(copy);
    return v;
}

/* ---- the table ---- */

#define S PROMQL_SCALAR
#define V PROMQL_VECTOR
#define M PROMQL_MATRIX
#define T PROMQL_STRING
#define OF_SAMPLE(name, fn)                                                                        \
    {                                                                                              \
        name, FUNCTION_MAP, V, {V}, 1, 0, false, false, false, fn, NULL                            \
    }
#define OF_DATE(name, fn)                                                                          \
    {                                                                                              \
        name, FUNCTION_DATE, V, {V}, 1, 1, false, false, false, fn, NULL                           \
    }
#define OF_WINDOW(name, fn, edges)                                                                 \
    {                                                                                              \
        name, FUNCTION_WINDOW, V, {M}, 1, 0, false, false, edges, NULL, fn                         \
    }

static const struct promql_function functions[] = {
    OF_SAMPLE("abs", map_fabs),
    {"absent", FUNCTION_ABSENT, V, {V}, 1, 0, false, false, false, NULL, NULL},
    {"absent_over_time",
     FUNCTION_ABSENT_OVER_TIME,
     V,
     {M},
     1,
     0,
     false,
     false,
     false,
     NULL,
     window_present},
    OF_SAMPLE("acos", map_acos),
    OF_SAMPLE("acosh", map_acosh),
    OF_SAMPLE("asin", map_asin),
    OF_SAMPLE("asinh", map_asinh),
    OF_SAMPLE("atan", map_atan),
    OF_SAMPLE("atanh", map_atanh),
    OF_WINDOW("avg_over_time", window_avg, false),
    OF_SAMPLE("ceil", map_ceil),
    OF_WINDOW("changes", window_changes, false),
    {"clamp", FUNCTION_MAP, V, {V, S, S}, 3, 0, false, false, false, map_clamp, NULL},
    {"clamp_max", FUNCTION_MAP, V, {V, S}, 2, 0, false, false, false, map_clamp_max, NULL},
    {"clamp_min", FUNCTION_MAP, V, {V, S}, 2, 0, false, false, false, map_clamp_min, NULL},
    OF_SAMPLE("cos", map_cos),
    OF_SAMPLE("cosh", map_cosh),
    OF_WINDOW("count_over_time", window_count, false),
    OF_DATE("day_of_month", date_day),
    OF_DATE("day_of_week", date_weekday),
    OF_DATE("day_of_year", date_year_day),
    OF_DATE("days_in_month", date_days),
    OF_SAMPLE("deg", map_degrees),
    OF_WINDOW("delta", window_delta, true),
    OF_WINDOW("deriv", window_deriv, false),
    OF_SAMPLE("exp", map_exp),
    OF_SAMPLE("floor", map_floor),
    {"histogram_quantile",
     FUNCTION_HISTOGRAM_QUANTILE,
     V,
     {S, V},
     2,
     0,
     false,
     false,
     false,
     NULL,
     NULL},
    OF_DATE("hour", date_hour),
    OF_WINDOW("idelta", window_idelta, false),
    OF_WINDOW("increase", window_increase, true),
    OF_WINDOW("irate", window_irate, false),
    {"label_join", FUNCTION_LABEL_JOIN, V, {V, T, T, T}, 4, 1, true, true, false, NULL, NULL},
    {"label_replace",
     FUNCTION_LABEL_REPLACE,
     V,
     {V, T, T, T, T},
     5,
     0,
     false,
     true,
     false,
     NULL,
     NULL},
    {"last_over_time", FUNCTION_WINDOW, V, {M}, 1, 0, false, true, false, NULL, window_last},
    OF_SAMPLE("ln", map_log),
    OF_SAMPLE("log10", map_log10),
    OF_SAMPLE("log2", map_log2),
    OF_WINDOW("max_over_time", window_max, false),
    OF_WINDOW("min_over_time", window_min, false),
    OF_DATE("minute", date_minute),
    OF_DATE("month", date_month),
    {"pi", FUNCTION_PI, S, {0}, 0, 0, false, false, false, NULL, NULL},
    {"predict_linear", FUNCTION_WINDOW, V, {M, S}, 2, 0, false, false, false, NULL, window_predict},
    OF_WINDOW("present_over_time", window_present, false),
    {"quantile_over_time",
     FUNCTION_WINDOW,
     V,
     {S, M},
     2,
     0,
     false,
     false,
     false,
     NULL,
     window_quantile},
    OF_SAMPLE("rad", map_radians),
    OF_WINDOW("rate", window_rate, true),
    OF_WINDOW("resets", window_resets, false),
    {"round", FUNCTION_MAP, V, {V, S}, 2, 1, false, false, false, map_round, NULL},
    {"scalar", FUNCTION_SCALAR, S, {V}, 1, 0, false, false, false, NULL, NULL},
    OF_SAMPLE("sgn", map_sign),
    OF_SAMPLE("sin", map_sin),
    OF_SAMPLE("sinh", map_sinh),
    {"sort", FUNCTION_SORT, V, {V}, 1, 0, false, true, false, NULL, NULL},
    {"sort_desc", FUNCTION_SORT_DESC, V, {V}, 1, 0, false, true, false, NULL, NULL},
    OF_SAMPLE("sqrt", map_sqrt),
    OF_WINDOW("stddev_over_time", window_deviation, false),
    OF_WINDOW("stdvar_over_time", window_variance, false),
    OF_WINDOW("sum_over_time", window_sum, false),
    OF_SAMPLE("tan", map_tan),
    OF_SAMPLE("tanh", map_tanh),
    {"time", FUNCTION_TIME, S, {0}, 0, 0, false, false, false, NULL, NULL},
    {"timestamp", FUNCTION_TIMESTAMP, V, {V}, 1, 0, false, false, false, NULL, NULL},
    {"vector", FUNCTION_VECTOR, V, {S}, 1, 0, false, false, false, NULL, NULL},
    OF_DATE("year", date_year),
};

const struct promql_function *promql_function_find(struct str name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (str_eq(name, str_from(functions[i].name)))
            return &functions[i];
    return NULL;
}
