/* For the store's tests: random spans of every shape, and a plain list that says what a store that
 * was given them must answer. */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include "base/test.h"

#include "base/buf.h"
#include "store/store.h"

struct fixture {
    uint64_t seed;     /* of the next draw */
    bool lists_ascend; /* the attributes of spans come in one order: of every other fixture */
    struct arena arena;
    struct span *spans; /* all that were acknowledged */
    size_t n, cap;
    struct trace_id *traces; /* drawn so far */
    size_t n_traces, cap_traces;
    char dir[64];
    struct store *store;
    struct store_options options;
};

/* Makes a directory and opens a store in it; the seed is printed. */
void fixture_init(struct fixture *f, uint64_t seed, const struct store_options *options);
void fixture_done(struct fixture *f); /* removes the directory */
void fixture_reopen(struct fixture *f);
/* The files as they are now, in a new directory: what a kill leaves behind. */
void fixture_copy_files(const struct fixture *f, char *ret_dir, size_t size);
/* Opens such a copy, compares it with what was acknowledged, and removes it. */
void fixture_check_copy(const struct fixture *f, const char *dir);
/* Files of a copy whose names begin so, back into the fixture's own directory. */
void fixture_copy_back(const struct fixture *f, const char *dir, const char *prefix);

uint64_t fixture_random(struct fixture *f, uint64_t below);
/* Some spans of some traces, new and old. Lives as long as the fixture. */
struct span_batch fixture_batch(struct fixture *f, size_t n);
struct str fixture_body(struct fixture *f, const struct span_batch *batch);
/* Appends and, when that is acknowledged, remembers. */
int fixture_try_append(struct fixture *f, const struct span_batch *batch);
void fixture_append(struct fixture *f, const struct span_batch *batch);
void fixture_remember(struct fixture *f, const struct span_batch *batch);

/* Reads everything back in every way there is and compares. */
void fixture_check(struct fixture *f);
void fixture_check_scans(struct fixture *f, int n);

void span_assert_equal(const struct span *actual, const struct span *expected);

#endif
