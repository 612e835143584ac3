/* A segment file: every way to read it ends in an answer or in an error. When it is built for
 * fuzzing the checksums are not looked at, so that what lies behind them is reached.
 *
 * What a run costs beside the reader is kept small: the file is one memory file for all runs, the questions are
 * compiled once, and the bytes choose which two of them are asked. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "store/local/segment.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

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

enum { LEAVES = sizeof leaves / sizeof *leaves };

static struct {
    const struct predicate *where;
    struct filter *filter;
    unsigned n;
} questions[2 * LEAVES]; /* each leaf, and what is not it */

static void questions_make(void)
{
    static struct predicate nots[LEAVES];
    if (questions[0].filter)
        return;
    for (size_t i = 0; i < LEAVES; i++) {
        nots[i] = (struct predicate){.op = PREDICATE_NOT, .children = &leaves[i], .n_children = 1};
        questions[2 * i].where = &leaves[i];
        questions[2 * i + 1].where = &nots[i];
    }
    for (size_t i = 0; i < 2 * LEAVES; i++)
        MUST(!filter_new(questions[i].where, &questions[i].filter, &questions[i].n));
}

static void ask(struct segment *seg, size_t which, struct trace_id *last)
{
    struct scan scan = {.where = questions[which].where};
    struct scan_cost cost = {0};
    bool damaged = false;
    (void)!segment_scan(seg, questions[which].filter, questions[which].n, &scan, row, last, &cost,
                        &damaged);
}

/* A descriptor of its own, which whoever opens the segment closes; -1: not to be had. */
static int file_with(const uint8_t *data, size_t size)
{
    static int file = -1;
    static size_t filled;
    if (file < 0)
        file = memfd_create("segment", MFD_CLOEXEC);
    if (file < 0 || pwrite(file, data, size, 0) != (ssize_t)size)
        return -1;
    if (filled > size && ftruncate(file, (off_t)size))
        return -1;
    filled = size;
    return fcntl(file, F_DUPFD_CLOEXEC, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment *seg;
    log_set_level(LOG_LEVEL_OFF);
    questions_make();
    int fd = file_with(data, size);
    if (fd < 0 || segment_open_fd(fd, "segment", &seg))
        return 0;
    struct arena arena = ARENA_INIT;
    struct operation_set set = {.arena = &arena};
    struct trace_id last = {{0}};
    struct outline_list outline = {0};
    size_t chosen = hash_bytes(data, size) % LEAVES;
    (void)!segment_operations(seg, &set);
    ask(seg, 2 * chosen, &last);
    ask(seg, 2 * chosen + 1, &last);
    (void)!segment_outline(seg, &last, &outline);
    (void)!segment_verify(seg);
    free(outline.items);
    operation_set_done(&set);
    arena_done(&arena);
    segment_close(seg);
    return 0;
}
