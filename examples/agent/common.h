/* What the programs of the example share: their life, text that grows, files, and child processes.
 * Memory that cannot be had ends the program: this is a program of its own, nobody's guest. */
#ifndef AGENT_COMMON_H
#define AGENT_COMMON_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PRINTF_LIKE(at, first) __attribute__((format(printf, at, first)))

/* ---- a program's life ---- */

/* Starts the tracing that the environment asks for, and lets writing to who went away be an error. */
void service_start(const char *name);
/* Hands over what is still to be exported. */
void service_stop(void);
/* A line on stderr; inside a span with its ids, so that the log leads to the trace. */
void say(const char *format, ...) PRINTF_LIKE(1, 2);
__attribute__((noreturn)) void die(const char *format, ...) PRINTF_LIKE(1, 2);
/* For servers: tells who started us where we listen, then waits until SIGTERM, SIGINT or the end of
 * stdin (the parent is gone). Call service_wait_begin before the first thread is made. */
void service_wait_begin(void);
void service_wait(uint16_t port);

/* ---- text ---- */

/* Grows; always terminated once something was added. {0} is empty. */
struct text {
    char *bytes;
    size_t len, cap;
};
void text_add(struct text *t, const char *more);
void text_addn(struct text *t, const char *more, size_t n);
void text_addf(struct text *t, const char *format, ...) PRINTF_LIKE(2, 3);
/* What is not UTF-8 becomes '?', and the text ends before its first NUL: JSON takes nothing else. */
void text_clean(struct text *t);
void text_done(struct text *t);
#define AUTO_TEXT __attribute__((cleanup(text_done)))
/* "" instead of NULL. */
const char *text_of(const struct text *t);

void free_quietly(void *pointer_to_pointer);
#define AUTO_FREE __attribute__((cleanup(free_quietly)))
void *need(void *memory); /* dies when it is NULL */
char *copy(const char *s);
char *copyn(const char *s, size_t n);
/* In place; returns its beginning. */
char *trim(char *s);
/* FNV-1a, for keys. */
uint64_t hash_text(const char *s, size_t n);
/* A word after the other, lower case, letters and digits and '_'; false at the end. */
bool next_word(const char **at, char *word, size_t size);
/* What a model would be charged for: four bytes a token, as an estimate. */
size_t tokens_of(const char *s);

/* ---- files and processes ---- */

struct path {
    char text[PATH_MAX];
};
struct path path_join(const char *dir, const char *name);
/* For free(); NULL and errno. At most `bytes_max` are read. */
char *file_read(const char *path, size_t bytes_max);
/* Calls `each` with every regular file below `root`, in the order of their names, its path relative
 * to it and its content (at most 1 MiB), until it returns false. Hidden ones are passed over; bounded
 * in depth and number. Returns how many files it saw. */
int tree_walk(const char *root, bool (*each)(void *user, const char *path, const char *content),
              void *user);
/* To a temporary name, then renamed: readers see all or nothing. -1 and errno. */
int file_replace(const char *path, const char *content);
int write_all(int fd, const void *bytes, size_t n);

struct child {
    pid_t pid;
    int to, from; /* its stdin and stdout; -1 when closed */
};
/* Starts a program; it ends with us. Its stderr is ours. -1 and errno. */
int child_start(struct child *c, const char *const argv[]);
/* Closes its stdin, which asks it to end; SIGTERM after a while, then SIGKILL. Returns what waitpid()
 * said. */
int child_stop(struct child *c);
/* One line without its end, at most `timeout_ms` for it; false at the end or when it took too long. */
bool line_read(int fd, struct text *pending, struct text *ret_line, int timeout_ms);
/* The program NAME in the folder that this one was started from. */
struct path program_path(const char *name);

uint64_t now_ms(void); /* monotonic */
int64_t epoch_s(void);

#endif
