/* A `pugmark serve` that is measured, and what else runs on a core of its own. */
#ifndef BENCH_SERVED_H
#define BENCH_SERVED_H

#include "base/arena.h"
#include "base/str.h"

#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

/* Says what went wrong, with errno when there is one, and ends the program. */
void bench_die(const char *what) __attribute__((noreturn));
/* Of this process from now on; -1: any. */
void bench_stay_on(int cpu);
double cpu_seconds(const struct rusage *usage);
/* Waits for the end, which must be a clean one; kills what does not end. */
void process_end(pid_t pid, struct rusage *ret_usage);

struct served {
    pid_t pid;
    struct str endpoints; /* the ready file */
    uint16_t page;
    double start_ms;
};

/* With `--data DIR/data`, on a core (-1: any); waits until it is ready. Texts live in `arena`. */
void served_start(const char *server, const char *dir, int cpu, struct arena *arena,
                  struct served *ret);
/* By its name in the ready file; 0. */
uint16_t served_port(const struct served *served, const char *name);
/* Processor time so far; `ret_busiest_s` is that of the thread with most of it (may be NULL). */
double served_cpu_s(const struct served *served, double *ret_busiest_s);
/* Waits until the server does nothing by itself (sealing, merging), but no longer than two minutes. */
void served_settle(const struct served *served);
double served_memory_peak_mib(const struct served *served);
/* A number of /metrics by its name; UINT64_MAX: there is none. */
uint64_t served_metric(const struct served *served, const char *name);

/* Of all files below; and the end of them. */
uint64_t tree_bytes(const char *dir);
void tree_remove(const char *dir);

/* The value of a key in an object at any depth, the first one found: enough for our own answers. */
struct str json_find(struct str json, const char *key, struct arena *arena);

#endif
