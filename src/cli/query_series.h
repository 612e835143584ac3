/* What a metrics query answers, for people and scripts. Inside src/cli only. */
#ifndef CLI_QUERY_SERIES_H
#define CLI_QUERY_SERIES_H

#include "base/arena.h"
#include "cli/term.h"

struct series_row {
    struct str name; /* `{resource.service.name="api"}` */
    double *samples; /* NAN: there is none */
    size_t n;
};

struct series_rows {
    struct series_row *items;
    size_t n;
    uint64_t start_ns, step_ns;
    struct str scanned; /* the JSON */
};

/* Everything read lives in `arena` or in `body`. False: it is another answer. */
bool series_read(struct str body, struct arena *arena, struct series_rows *ret);
/* One line a series: its least, greatest and last sample, and a drawing of them. */
void series_table(const struct series_rows *rows, const struct term *t, struct buf *out);
/* `time,series,value`, one line a sample. */
void series_csv(const struct series_rows *rows, struct buf *out);

#endif
