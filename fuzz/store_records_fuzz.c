/* A batch of records as the log has it: whatever the bytes, reading ends, and what was read can be
 * decoded or is said to be damaged. */
#include <stdlib.h>

#include "store/local/records_rows.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static int position(void *arg, struct str name, struct str value)
{
    *(size_t *)arg += name.len + value.len;
    return 0;
}

static void decode(const struct rows *rows, const struct row *row, struct arena *arena)
{
    MUST(row->shared < rows->n_shared);
    struct str shared = rows->shared[row->shared].bytes;
    struct log_record log;
    struct shared_log with;
    struct shared_series series;
    struct metric_point point;
    if (row->kind == ROW_LOG) {
        (void)!shared_log_decode(shared, arena, &with);
        if (!row_log_decode(row, arena, &log))
            MUST(log.severity == row_log_severity(row));
    } else if (!shared_series_decode(shared, arena, &series)) {
        MUST(series.metric.type < METRIC_TYPES);
        (void)!row_point_decode(row, series.metric.type, arena, &point);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {.bytes_max = 64 << 20};
    struct rows rows;
    size_t bytes = 0;
    rows_init(&rows);
    int err = rows_add_batch(&rows, (struct str){(const char *)data, size}, 1, position, &bytes);
    MUST(bytes <= size && (!err || rows.n == 0));
    for (size_t i = 0; i < rows.n; i++)
        decode(&rows, &rows.items[i], &arena);
    rows_done(&rows);
    arena_done(&arena);
    return 0;
}
