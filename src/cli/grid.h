/* A table of texts: on a terminal as wide as it is, in a pipe in full, or as CSV. */
#ifndef CLI_GRID_H
#define CLI_GRID_H

#include "base/arena.h"
#include "base/buf.h"
#include "cli/term.h"

#define GRID_COLUMNS_MAX 80

enum grid_look {
    GRID_PLAIN,
    GRID_NUMBER,  /* to the right */
    GRID_SERVICE, /* in a colour of its own */
    GRID_WHOLE,   /* never cut: it is copied from there */
};

struct grid {
    struct arena arena;
    struct {
        struct str name;
        enum grid_look look;
    } columns[GRID_COLUMNS_MAX];
    size_t n_columns;
    struct str *cells; /* row after row */
    size_t n_cells, room;
    bool failed; /* out of memory, or too many columns */
};

/* Before the first row. Texts are copied. */
void grid_column(struct grid *g, struct str name, enum grid_look look);
/* The next cell, row after row. */
void grid_cell(struct grid *g, struct str text);
void grid_table(const struct grid *g, const struct term *t, struct buf *out);
void grid_csv(const struct grid *g, struct buf *out);
void grid_done(struct grid *g);

/* One field of CSV (RFC 4180), without a comma. */
void csv_field(struct buf *out, struct str s);

#endif
