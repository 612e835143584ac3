/* What every program under bench/ prints: a table for people on stdout, and the same as JSON in
 * build/bench/NAME.json below the working directory. Not thread-safe. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "base/buf.h"

struct report;

/* Dies when there is no memory: a benchmark has nothing better to do. */
struct report *report_new(const char *name);

/* A fact about this machine or run, beside those that are taken by themselves (processor, cores,
 * memory, kernel, compiler, load). */
void report_machine(struct report *r, const char *key, const char *format, ...) PRINTF_LIKE(3, 4);

/* A measured figure. */
void report_row(struct report *r, const char *what, double value, const char *unit);
/* The row added last stands against another figure of this run: `value` divided by it. */
void report_ratio(struct report *r, const char *to, double other_value);

/* Prints, writes the file, and frees. 0, or the exit status of a program that could not. */
int report_finish(struct report *r);

#endif
