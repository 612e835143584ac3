#include "report.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { ROWS_MAX = 128, RATIOS_MAX = 3, FACTS_MAX = 24 };

struct row {
    const char *what, *unit;
    double value;
    struct {
        const char *to;
        double value;
    } ratios[RATIOS_MAX];
    unsigned n_ratios;
};

struct report {
    const char *name;
    struct arena arena;
    struct {
        const char *key, *value;
    } facts[FACTS_MAX];
    struct row rows[ROWS_MAX];
    unsigned n_facts, n_rows;
};

static void die(const char *why)
{
    fprintf(stderr, "bench: %s\n", why);
    exit(1);
}

/* The value of the first line "KEY : VALUE" of a file in /proc, or "unknown". */
static const char *proc_value(struct report *r, const char *path, const char *key)
{
    char line[512];
    const char *found = "unknown";
    FILE *in = fopen(path, "r");
    while (in && fgets(line, sizeof line, in)) {
        struct str value, name = str_trim(str_split(str_from(line), ':', &value));
        if (str_eq(name, str_from(key))) {
            struct str copy = arena_str(&r->arena, str_trim(value));
            found = copy.ptr ? copy.ptr : found;
            break;
        }
    }
    if (in)
        fclose(in);
    return found;
}

struct report *report_new(const char *name)
{
    struct report *r = calloc(1, sizeof *r);
    struct utsname system;
    double load[1] = {0};
    if (!r)
        die("out of memory");
    r->name = name;
    report_machine(r, "cpu", "%s", proc_value(r, "/proc/cpuinfo", "model name"));
    report_machine(r, "cores", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    report_machine(r, "memory", "%s", proc_value(r, "/proc/meminfo", "MemTotal"));
    if (uname(&system) == 0)
        report_machine(r, "kernel", "%s %s %s", system.sysname, system.release, system.machine);
#if defined __clang__
    report_machine(r, "compiler", "clang %s", __clang_version__);
#else
    report_machine(r, "compiler", "gcc %s", __VERSION__);
#endif
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    report_machine(r, "sanitizer", "yes: the figures mean nothing");
#endif
    /* Above 1 others were at work, and the figures are worth less. */
    if (getloadavg(load, 1) == 1)
        report_machine(r, "load", "%.2f", load[0]);
    char when[CLOCK_RFC3339_SIZE];
    clock_rfc3339(when, clock_realtime_ns());
    report_machine(r, "when", "%.19sZ", when);
    return r;
}

void report_machine(struct report *r, const char *key, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct str copy = arena_str(&r->arena, str_from(text));
    if (r->n_facts == FACTS_MAX || !copy.ptr)
        die("too many facts");
    r->facts[r->n_facts].key = key;
    r->facts[r->n_facts++].value = copy.ptr;
}

void report_row(struct report *r, const char *what, double value, const char *unit)
{
    struct str copy = arena_str(&r->arena, str_from(what));
    if (r->n_rows == ROWS_MAX || !copy.ptr)
        die("too many rows");
    r->rows[r->n_rows++] = (struct row){.what = copy.ptr, .unit = unit, .value = value};
}

void report_ratio(struct report *r, const char *to, double other_value)
{
    struct row *row = r->n_rows ? &r->rows[r->n_rows - 1] : NULL;
    if (!row || row->n_ratios == RATIOS_MAX)
        die("a ratio without a row");
    row->ratios[row->n_ratios].to = to;
    row->ratios[row->n_ratios++].value = row->value / other_value;
}

/* Four digits that count, and no exponent for what people read. */
static const char *number(char *text, size_t size, double value)
{
    double magnitude = fabs(value);
    int decimals = magnitude == 0 || magnitude >= 1000 || value == trunc(value) ? 0
                   : magnitude >= 100                                           ? 1
                   : magnitude >= 10                                            ? 2
                   : magnitude >= 0.01                                          ? 3
                                                                                : 6;
    snprintf(text, size, "%.*f", decimals, value);
    return text;
}

static void print_table(const struct report *r)
{
    int wide = 4;
    for (unsigned i = 0; i < r->n_rows; i++)
        if ((int)strlen(r->rows[i].what) > wide)
            wide = (int)strlen(r->rows[i].what);
    for (unsigned i = 0; i < r->n_facts; i++)
        printf("  %s: %s\n", r->facts[i].key, r->facts[i].value);
    printf("\n");
    for (unsigned i = 0; i < r->n_rows; i++) {
        const struct row *row = &r->rows[i];
        char text[64];
        printf("  %-*s %14s %-10s", wide, row->what, number(text, sizeof text, row->value),
               row->unit);
        for (unsigned k = 0; k < row->n_ratios; k++)
            printf("  %.3f x %s", row->ratios[k].value, row->ratios[k].to);
        printf("\n");
    }
    fflush(stdout);
}

static void write_json(const struct report *r, struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    json_key(&w, STR("bench"));
    json_str(&w, str_from(r->name));
    json_key(&w, STR("machine"));
    json_open(&w, '{');
    for (unsigned i = 0; i < r->n_facts; i++) {
        json_key(&w, str_from(r->facts[i].key));
        json_str(&w, str_from(r->facts[i].value));
    }
    json_close(&w, '}');
    json_key(&w, STR("rows"));
    json_open(&w, '[');
    for (unsigned i = 0; i < r->n_rows; i++) {
        const struct row *row = &r->rows[i];
        json_open(&w, '{');
        json_key(&w, STR("what"));
        json_str(&w, str_from(row->what));
        json_key(&w, STR("value"));
        json_double(&w, row->value);
        json_key(&w, STR("unit"));
        json_str(&w, str_from(row->unit));
        if (row->n_ratios) {
            json_key(&w, STR("ratio_to"));
            json_open(&w, '{');
            for (unsigned k = 0; k < row->n_ratios; k++) {
                json_key(&w, str_from(row->ratios[k].to));
                json_double(&w, row->ratios[k].value);
            }
            json_close(&w, '}');
        }
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    buf_byte(out, '\n');
}

int report_finish(struct report *r)
{
    char path[256];
    struct buf out = BUF_INIT;
    print_table(r);
    write_json(r, &out);
    snprintf(path, sizeof path, "build/bench/%s.json", r->name);
    bool ok = (mkdir("build", 0777) == 0 || errno == EEXIST) &&
              (mkdir("build/bench", 0777) == 0 || errno == EEXIST);
    FILE *file = ok ? fopen(path, "w") : NULL;
    ok = file && buf_ok(&out) && fwrite(out.ptr, 1, out.len, file) == out.len;
    if (file && fclose(file) != 0)
        ok = false;
    if (!ok)
        fprintf(stderr, "bench: cannot write %s: %s\n", path, strerror(errno));
    buf_done(&out);
    arena_done(&r->arena);
    free(r);
    return ok ? 0 : 1;
}
