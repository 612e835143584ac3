#include "cli/query_series.h"

#include "base/clock.h"
#include "base/json.h"
#include "cli/grid.h"

#include <math.h>

/* ---- reading ---- */

/* `"text"`, `5`, `nil`, as the query has it. */
static void value_read(struct json_reader *r, struct buf *out)
{
    bool any = false;
    while (json_next(r) == JSON_KEY) {
        bool text = str_eq(r->text, STR("stringValue"));
        enum json_type type = json_next(r);
        any = true;
        if (text)
            buf_byte(out, '"');
        if (type == JSON_STRING || type == JSON_NUMBER)
            buf_str(out, r->text);
        else if (type == JSON_TRUE || type == JSON_FALSE)
            buf_cstr(out, type == JSON_TRUE ? "true" : "false");
        else
            json_fail(r, "a value");
        if (text)
            buf_byte(out, '"');
    }
    if (!any)
        buf_cstr(out, "nil");
}

static void labels_read(struct json_reader *r, struct buf *out)
{
    bool first = true;
    buf_byte(out, '{');
    if (json_next(r) != JSON_ARRAY)
        json_fail(r, "a list");
    while (json_next(r) == JSON_OBJECT) {
        if (!first)
            buf_cstr(out, ", ");
        first = false;
        while (json_next(r) == JSON_KEY) {
            bool value = str_eq(r->text, STR("value"));
            json_next(r);
            if (value) {
                buf_byte(out, '=');
                value_read(r, out);
            } else {
                buf_str(out, r->text);
            }
        }
    }
    buf_byte(out, '}');
}

static bool samples_read(struct json_reader *r, struct arena *arena, struct series_row *row)
{
    size_t cap = 0;
    if (json_next(r) != JSON_ARRAY)
        return false;
    for (;;) {
        double v = NAN;
        enum json_type type = json_next(r);
        if (type == JSON_ARRAY_END)
            return true;
        if (type != JSON_NULL && !json_to_double(r, &v))
            return false;
        if (row->n == cap) {
            cap = cap ? 2 * cap : 64;
            double *more = arena_array(arena, cap, sizeof *more);
            if (!more)
                return false;
            if (row->n)
                memcpy(more, row->samples, row->n * sizeof *more);
            row->samples = more;
        }
        row->samples[row->n++] = v;
    }
}

static bool row_read(struct json_reader *r, struct arena *arena, struct series_row *row)
{
    *row = (struct series_row){0};
    while (json_next(r) == JSON_KEY) {
        if (str_eq(r->text, STR("labels"))) {
            struct buf name = BUF_INIT;
            labels_read(r, &name);
            row->name = arena_str(arena, buf_as_str(&name));
            bool ok = buf_ok(&name) && row->name.ptr;
            buf_done(&name);
            if (!ok)
                return false;
        } else if (str_eq(r->text, STR("samples"))) {
            if (!samples_read(r, arena, row))
                return false;
        } else {
            json_skip(r);
        }
    }
    return r->type == JSON_OBJECT_END;
}

static bool list_read(struct json_reader *r, struct arena *arena, struct series_rows *rows)
{
    size_t cap = 0;
    if (json_next(r) != JSON_ARRAY)
        return false;
    while (json_next(r) == JSON_OBJECT) {
        if (rows->n == cap) {
            cap = cap ? 2 * cap : 32;
            struct series_row *more = arena_array(arena, cap, sizeof *more);
            if (!more)
                return false;
            if (rows->n)
                memcpy(more, rows->items, rows->n * sizeof *more);
            rows->items = more;
        }
        if (!row_read(r, arena, &rows->items[rows->n++]))
            return false;
    }
    return r->type == JSON_ARRAY_END;
}

bool series_read(struct str body, struct arena *arena, struct series_rows *ret)
{
    struct json_reader r;
    *ret = (struct series_rows){0};
    json_reader_init(&r, body, arena, NULL);
    if (json_next(&r) != JSON_OBJECT)
        return false;
    while (json_next(&r) == JSON_KEY) {
        bool start = str_eq(r.text, STR("startUnixNano")), step = str_eq(r.text, STR("stepNano"));
        if (str_eq(r.text, STR("series"))) {
            if (!list_read(&r, arena, ret))
                return false;
        } else if (start || step) {
            json_next(&r);
            if (!json_to_u64(&r, start ? &ret->start_ns : &ret->step_ns))
                return false;
        } else if (str_eq(r.text, STR("scanned"))) {
            ret->scanned = json_skip_text(&r);
        } else {
            json_skip(&r);
        }
    }
    return r.type == JSON_OBJECT_END && ret->step_ns;
}

/* ---- showing ---- */

enum { DRAWN_MAX = 60, NUMBER = 10 };

static void put_number(struct buf *out, double v)
{
    char text[32];
    snprintf(text, sizeof text, "%.4g", v);
    buf_printf(out, "%*s", NUMBER, isnan(v) ? "-" : text);
}

/* The greatest sample of each piece, from 0 or the least up to the greatest of all. */
static void draw(const struct series_row *row, const struct term *t, double least, double greatest,
                 struct buf *out)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const letters[] = {"_", ".", "-", "=", "+", "*", "%", "#"};
    size_t pieces = row->n < DRAWN_MAX ? row->n : DRAWN_MAX;
    double low = least > 0 ? 0 : least;
    for (size_t i = 0; i < pieces; i++) {
        double v = NAN;
        for (size_t k = i * row->n / pieces; k < (i + 1) * row->n / pieces; k++)
            if (!isnan(row->samples[k]) && !(row->samples[k] <= v))
                v = row->samples[k];
        double part = greatest > low ? (v - low) / (greatest - low) : 0;
        unsigned level = isnan(v) ? 0 : part >= 1 ? 7 : part <= 0 ? 0 : (unsigned)(part * 8);
        buf_cstr(out, isnan(v) ? " " : t->utf8 ? blocks[level] : letters[level]);
    }
}

void series_table(const struct series_rows *rows, const struct term *t, struct buf *out)
{
    size_t name = 6;
    for (size_t i = 0; i < rows->n; i++) {
        size_t width = term_width(rows->items[i].name);
        name = width > name ? width : name;
    }
    size_t most = t->width > 3 * (NUMBER + 2) + DRAWN_MAX + 20
                      ? t->width - 3 * (NUMBER + 2) - DRAWN_MAX - 2
                      : 40;
    if (t->tty && name > most)
        name = most;
    buf_cstr(out, term_style(t, TERM_DIM));
    term_cell(out, STR("SERIES"), name);
    buf_printf(out, "  %*s  %*s  %*s%s\n", NUMBER, "MIN", NUMBER, "MAX", NUMBER, "LAST",
               term_style(t, TERM_PLAIN));
    for (size_t i = 0; i < rows->n; i++) {
        const struct series_row *row = &rows->items[i];
        double least = NAN, greatest = NAN;
        for (size_t k = 0; k < row->n; k++) {
            if (isnan(row->samples[k]))
                continue;
            least = !(least <= row->samples[k]) ? row->samples[k] : least;
            greatest = !(greatest >= row->samples[k]) ? row->samples[k] : greatest;
        }
        term_cell(out, row->name, name);
        buf_cstr(out, "  ");
        put_number(out, least);
        buf_cstr(out, "  ");
        put_number(out, greatest);
        buf_cstr(out, "  ");
        put_number(out, row->n ? row->samples[row->n - 1] : NAN);
        buf_cstr(out, "  ");
        draw(row, t, least, greatest, out);
        buf_cstr(out, "\n");
    }
}

void series_csv(const struct series_rows *rows, struct buf *out)
{
    buf_cstr(out, "time,series,value\n");
    for (size_t i = 0; i < rows->n; i++)
        for (size_t k = 0; k < rows->items[i].n; k++) {
            char time[CLOCK_RFC3339_SIZE];
            if (isnan(rows->items[i].samples[k]))
                continue;
            clock_rfc3339(time, rows->start_ns + k * rows->step_ns);
            buf_printf(out, "%s,", time);
            csv_field(out, rows->items[i].name);
            buf_printf(out, ",%.17g\n", rows->items[i].samples[k]);
        }
}
