#include "cli/grid.h"

#include <stdlib.h>

enum { GAP = 2, NARROW = 8 }; /* no column is cut to less */

void grid_column(struct grid *g, struct str name, enum grid_look look)
{
    struct str copy = arena_str(&g->arena, name);
    if (!copy.ptr || g->n_columns == GRID_COLUMNS_MAX) {
        g->failed = true;
        return;
    }
    g->columns[g->n_columns].name = copy;
    g->columns[g->n_columns++].look = look;
}

void grid_cell(struct grid *g, struct str text)
{
    if (g->n_cells == g->room) {
        size_t room = g->room ? 2 * g->room : 256;
        struct str *cells = realloc(g->cells, room * sizeof *cells);
        if (!cells) {
            g->failed = true;
            return;
        }
        g->cells = cells;
        g->room = room;
    }
    struct str copy = arena_str(&g->arena, text);
    g->failed |= !copy.ptr;
    g->cells[g->n_cells++] = copy.ptr ? copy : STR("");
}

/* What is too wide takes from the widest column, again and again. */
static void widths_fit(const struct grid *g, const struct term *t, size_t *widths)
{
    size_t all = GAP * (g->n_columns - 1);
    for (size_t c = 0; c < g->n_columns; c++)
        all += widths[c];
    while (t->tty && all > t->width) {
        size_t widest = g->n_columns;
        for (size_t c = 0; c < g->n_columns; c++)
            if (g->columns[c].look != GRID_WHOLE && g->columns[c].look != GRID_NUMBER &&
                widths[c] > NARROW && (widest == g->n_columns || widths[c] > widths[widest]))
                widest = c;
        if (widest == g->n_columns)
            return;
        widths[widest]--;
        all--;
    }
}

static void put_cell(const struct grid *g, size_t c, struct str text, size_t width, bool is_last,
                     const struct term *t, struct buf *out)
{
    char colour[16];
    size_t n = term_width(text);
    if (g->columns[c].look == GRID_NUMBER && n < width)
        term_blanks(out, width - n);
    if (g->columns[c].look == GRID_SERVICE)
        buf_cstr(out, term_service_style(t, text, colour));
    if (is_last || g->columns[c].look == GRID_NUMBER)
        term_text(out, text, width);
    else
        term_cell(out, text, width);
    if (g->columns[c].look == GRID_SERVICE)
        buf_cstr(out, term_style(t, TERM_PLAIN));
    if (!is_last)
        term_blanks(out, GAP);
}

void grid_table(const struct grid *g, const struct term *t, struct buf *out)
{
    size_t widths[GRID_COLUMNS_MAX], columns = g->n_columns;
    if (!columns)
        return;
    for (size_t c = 0; c < columns; c++)
        widths[c] = term_width(g->columns[c].name);
    for (size_t i = 0; i < g->n_cells; i++) {
        size_t width = term_width(g->cells[i]);
        if (width > widths[i % columns])
            widths[i % columns] = width;
    }
    widths_fit(g, t, widths);
    buf_cstr(out, term_style(t, TERM_DIM));
    for (size_t c = 0; c < columns; c++) {
        size_t n = term_width(g->columns[c].name);
        if (g->columns[c].look == GRID_NUMBER && n < widths[c])
            term_blanks(out, widths[c] - n);
        if (c + 1 == columns || g->columns[c].look == GRID_NUMBER)
            term_text(out, g->columns[c].name, widths[c]);
        else
            term_cell(out, g->columns[c].name, widths[c]);
        if (c + 1 < columns)
            term_blanks(out, GAP);
    }
    buf_printf(out, "%s\n", term_style(t, TERM_PLAIN));
    for (size_t i = 0; i < g->n_cells; i++) {
        size_t c = i % columns;
        put_cell(g, c, g->cells[i], widths[c], c + 1 == columns, t, out);
        if (c + 1 == columns)
            buf_byte(out, '\n');
    }
}

void csv_field(struct buf *out, struct str s)
{
    bool quote = false;
    for (size_t i = 0; i < s.len; i++)
        quote |= s.ptr[i] == '"' || s.ptr[i] == ',' || s.ptr[i] == '\n' || s.ptr[i] == '\r';
    if (!quote) {
        buf_str(out, s);
        return;
    }
    buf_byte(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"')
            buf_byte(out, '"');
        buf_byte(out, s.ptr[i]);
    }
    buf_byte(out, '"');
}

void grid_csv(const struct grid *g, struct buf *out)
{
    for (size_t c = 0; c < g->n_columns; c++) {
        csv_field(out, g->columns[c].name);
        buf_byte(out, c + 1 < g->n_columns ? ',' : '\n');
    }
    for (size_t i = 0; i < g->n_cells; i++) {
        csv_field(out, g->cells[i]);
        buf_byte(out, (i + 1) % g->n_columns ? ',' : '\n');
    }
}

void grid_done(struct grid *g)
{
    free(g->cells);
    arena_done(&g->arena);
}
