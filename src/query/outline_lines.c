/* Which rows of an outline are shown, and a small picture of them. */
#include "query/outline.h"

#include <stdlib.h>

bool outline_is_folded(const struct outline_row *r, uint32_t row, const struct outline_fold *fold)
{
    size_t low = 0, high = fold->n_flipped;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (fold->flipped[middle] < row)
            low = middle + 1;
        else
            high = middle;
    }
    bool flipped = low < fold->n_flipped && fold->flipped[low] == row;
    return r->children && (r->depth >= fold->depth) != flipped;
}

static bool is_short(const struct outline_row *r, uint64_t merge_ns)
{
    return r->duration_ns < merge_ns &&
           !(r->bits & (OUTLINE_ERROR | OUTLINE_ERROR_BELOW | OUTLINE_TAIL | OUTLINE_ORPHAN));
}

int outline_lines_init(const struct outline *o, const struct outline_fold *fold,
                       struct outline_lines *ret)
{
    *ret = (struct outline_lines){.n = o->n};
    if (fold->depth == OUTLINE_NONE && !fold->n_flipped && !fold->merge_ns)
        return 0;
    uint32_t *rows = malloc((o->n ? o->n : 1) * sizeof *rows), n = 0;
    if (!rows)
        return ERR_NOMEM;
    for (uint32_t row = 0; row < o->n; n++) {
        const struct outline_row *r = &o->rows[row];
        uint32_t end = row, several = 0;
        while (end < o->n && o->rows[end].parent == r->parent &&
               is_short(&o->rows[end], fold->merge_ns)) {
            end += 1 + o->rows[end].size;
            several++;
        }
        if (several > 1) {
            rows[n] = row | OUTLINE_MERGED;
            row = end;
        } else {
            rows[n] = row;
            row += outline_is_folded(r, row, fold) ? 1 + r->size : 1;
        }
    }
    uint32_t *fitting = realloc(rows, (n ? n : 1) * sizeof *rows);
    *ret = (struct outline_lines){.rows = fitting ? fitting : rows, .n = n};
    return 0;
}

void outline_lines_done(struct outline_lines *lines)
{
    free(lines->rows);
    *lines = (struct outline_lines){0};
}

uint32_t outline_line_end(const struct outline *o, const struct outline_lines *lines, uint32_t line)
{
    return line + 1 < lines->n ? outline_line_row(lines, line + 1) : o->n;
}

uint32_t outline_line_of(const struct outline_lines *lines, uint32_t row)
{
    if (!lines->rows)
        return row;
    uint32_t low = 0, high = lines->n;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (outline_line_row(lines, middle) <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* ---- the picture ---- */

/* Cells are painted from the last line to the first, each once: a cell that has been painted leads on to the
 * next in its lane that has not. */
static uint32_t next_free(uint32_t *next, uint32_t x)
{
    uint32_t at = x;
    while (next[at] != at)
        at = next[at];
    while (next[x] != at) {
        uint32_t step = next[x];
        next[x] = at;
        x = step;
    }
    return at;
}

static uint32_t cell_of(double at, double scale, uint32_t width)
{
    double x = at * scale;
    return x <= 0 ? 0 : x >= width - 1 ? width - 1 : (uint32_t)x;
}

int outline_overview(const struct outline *o, const struct outline_lines *lines,
                     const struct outline_shift *shift, uint32_t width, uint32_t lanes,
                     uint32_t *cells)
{
    uint32_t *next = malloc((size_t)lanes * (width + 1) * sizeof *next);
    if (!next)
        return ERR_NOMEM;
    memset(cells, 0, (size_t)lanes * width * sizeof *cells);
    for (uint32_t lane = 0; lane < lanes; lane++)
        for (uint32_t x = 0; x <= width; x++)
            next[lane * (width + 1) + x] = x;
    double scale = (double)width / (double)(o->duration_ns ? o->duration_ns : 1);
    for (uint32_t line = lines->n; line-- > 0;) {
        uint32_t lane = (uint32_t)((uint64_t)line * lanes / lines->n);
        uint32_t row = outline_line_row(lines, line);
        const struct outline_row *r = &o->rows[row];
        double moved = shift && shift->by_service ? (double)shift->by_service[r->service] : 0;
        double start = (double)r->start_ns + moved, end = start + (double)r->duration_ns;
        if (outline_line_is_merged(lines, line)) {
            const struct outline_row *last = &o->rows[outline_line_end(o, lines, line) - 1];
            end = (double)(last->start_ns + last->duration_ns) + moved;
        }
        uint32_t from = cell_of(start, scale, width), to = cell_of(end, scale, width);
        uint32_t *free_cells = next + (size_t)lane * (width + 1);
        uint32_t *in_lane = cells + (size_t)lane * width;
        for (uint32_t x = next_free(free_cells, from); x <= to; x = next_free(free_cells, x)) {
            in_lane[x] |= r->service + 1u;
            free_cells[x] = x + 1;
        }
        if (r->bits & OUTLINE_ERROR)
            for (uint32_t x = from; x <= to && x <= from + 2; x++)
                in_lane[x] |= OUTLINE_CELL_ERROR;
    }
    free(next);
    return 0;
}
