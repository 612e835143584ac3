/* A segment file: every way to read it ends in an answer or in an error. When it is built for
 * fuzzing the checksums are not looked at, so that what lies behind them is reached. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "store/local/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int row(void *arg, struct scan *scan, const struct scan_row *r)
{
    struct trace_id *last = arg;
    (void)scan;
    *last = r->trace_id;
    return 0;
}

static const struct predicate leaves[] = {
    {.op = PREDICATE_EQ,
     .field = FIELD_SPAN_ATTR,
     .key = {"key.1", 5},
     .value = {.type = VALUE_STRING, .string = {"value 1", 7}}},
    {.op = PREDICATE_NE,
     .field = FIELD_ANY_ATTR,
     .key = {"key.2", 5},
     .untyped = true,
     .value = {.type = VALUE_STRING, .string = {"3", 1}}},
    {.op = PREDICATE_GT,
     .field = FIELD_SPAN_ATTR,
     .key = {"key.3", 5},
     .value = {.type = VALUE_INT, .integer = 4}},
    {.op = PREDICATE_REGEX,
     .field = FIELD_STATUS_MESSAGE,
     .value = {.type = VALUE_STRING, .string = {".*1", 3}}},
    {.op = PREDICATE_EQ,
     .field = FIELD_SERVICE,
     .value = {.type = VALUE_STRING, .string = {"service 1", 9}}},
    {.op = PREDICATE_GE, .field = FIELD_DURATION, .value = {.type = VALUE_INT, .integer = 1000}},
    {.op = PREDICATE_EQ, .field = FIELD_IS_ROOT, .value = {.type = VALUE_BOOL, .boolean = true}},
    {.op = PREDICATE_EXISTS, .field = FIELD_RESOURCE_ATTR, .key = {"key.4", 5}},
};

static void scan_all(struct segment *seg, struct trace_id *last)
{
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        const struct predicate not = {.op = PREDICATE_NOT, .children = &leaves[i], .n_children = 1};
        const struct predicate *const both[] = {&leaves[i], &not };
        for (int k = 0; k < 2; k++) {
            struct scan scan = {.where = both[k]};
            struct scan_cost cost = {0};
            struct filter *filter;
            unsigned n;
            if (filter_new(both[k], &filter, &n))
                return;
            bool damaged = false;
            (void)!segment_scan(seg, filter, n, &scan, row, last, &cost, &damaged);
            filter_free(filter);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment *seg;
    log_set_level(LOG_LEVEL_OFF);
    int fd = memfd_create("segment", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || segment_open_fd(fd, "segment", &seg))
        return 0;
    struct arena arena = ARENA_INIT;
    struct operation_set set = {.arena = &arena};
    struct trace_id last = {{0}};
    struct outline_list outline = {0};
    (void)!segment_operations(seg, &set);
    scan_all(seg, &last);
    (void)!segment_outline(seg, &last, &outline);
    (void)!segment_verify(seg);
    free(outline.items);
    operation_set_done(&set);
    arena_done(&arena);
    segment_close(seg);
    return 0;
}
