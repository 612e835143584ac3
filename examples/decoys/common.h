/* What the programs of the sample system share: their run directory, their way of ending, sockets
 * on loopback, a small HTTP client, and files that are followed line by line.
 *
 * Everything lives in one run directory:
 *
 *   ports/NAME           the port that NAME listens on, written when it does
 *   containers/NAME.log  what the decoy NAME printed (RFC 5424 syslog lines)
 *   logs.jsonl           what the collector made of it: one JSON record a line
 *   decoys.db            SQLite: the ingester's rows and the workers' results
 *   correlation.log      the correlation worker's lines for a SIEM
 *   admin-password       made by the API at its first start */
#ifndef DECOYS_COMMON_H
#define DECOYS_COMMON_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRINTF_LIKE(at, first) __attribute__((format(printf, at, first)))

/* ---- a program's life ---- */

/* Makes the run directory where needed, turns SIGTERM and SIGINT into `stop_fd`, and starts the
 * tracing that the environment asks for. Ends the program when the directory cannot be used. */
void service_start(const char *name, const char *dir);
/* Hands over what is still to be exported. */
void service_stop(void);

/* Readable from the moment the program was asked to end: for poll(). */
int stop_fd(void);
bool stopping(void);
/* Sleeps, or waits until `fd` (-1: none) is readable. False when the program was asked to end. */
bool wait_for(int fd, int timeout_ms);

/* One line on stderr: "collector: ...", and inside a span which one, so that the log leads to the
 * trace. */
void say(const char *format, ...) PRINTF_LIKE(1, 2);
/* The same, and exit status 1. */
__attribute__((noreturn)) void die(const char *format, ...) PRINTF_LIKE(1, 2);

/* ---- the run directory ---- */

struct path {
    char text[PATH_MAX];
};
/* A path below the run directory: run_path("containers/%s.log", name).text */
struct path run_path(const char *format, ...) PRINTF_LIKE(1, 2);

/* Written to a temporary name and renamed: readers see all of it or nothing. -1 and errno. */
int file_replace(const char *path, const char *text, int mode);
/* NUL-terminated, for free(); NULL and errno. At most `bytes_max` are read. */
char *file_read(const char *path, size_t bytes_max);

/* To append lines to. A last line that a killed writer left without its end is ended first: it will
 * be damaged, the next one will not. Dies when it cannot. */
int open_log(const char *path);

void port_publish(const char *name, uint16_t port);
/* 0 when it did not appear in time or the program was asked to end. */
uint16_t port_wait(const char *name, int timeout_ms);

/* ---- sockets ---- */

/* Listens on an address (NULL: 127.0.0.1); `*port` 0 takes a free one and says which. -1 and errno. */
int listen_address(const char *ip, uint16_t *port);
/* The same on 127.0.0.1. Dies when it cannot. */
int listen_loopback(uint16_t *port);
/* Connects to ip:port (NULL: 127.0.0.1), from `source_ip` (all of 127/8 is this machine) or NULL.
 * -1 and errno. */
int connect_address(const char *source_ip, const char *ip, uint16_t port, int timeout_ms);
int connect_loopback(const char *source_ip, uint16_t port, int timeout_ms);
/* 0, or -1 and errno. */
int write_all(int fd, const void *bytes, size_t n);
/* For dialogues: without it, two short writes in a row wait for the peer's delayed acknowledgement.
 */
void send_at_once(int fd);
void close_quietly(int *fd); /* for cleanup attributes; -1 is allowed */
#define AUTO_CLOSE __attribute__((cleanup(close_quietly)))
void free_quietly(void *pointer_to_pointer);
#define AUTO_FREE __attribute__((cleanup(free_quietly)))

/* ---- HTTP, the client's side: one request a connection ---- */

struct http_call {
    const char *method, *path; /* path with its query */
    const char *headers;       /* whole lines, each ending in CRLF; NULL: none */
    const char *body;          /* NULL: none */
    const char *source_ip;     /* NULL: any */
    int timeout_ms;            /* 0: five seconds */
};
struct http_answer {
    int status;
    char *body; /* NUL-terminated, for free() */
    size_t body_len;
};
/* 0, or -1 when there was no complete answer. */
int http_call(uint16_t port, const struct http_call *call, struct http_answer *ret);
/* Only sends the request and hands out the connection, for answers without an end. -1 and errno. */
int http_open(uint16_t port, const struct http_call *call);

/* ---- following a file that others append to ---- */

struct follower {
    int fd;
    uint64_t offset; /* in the file, of the line that comes next */
    char *bytes;
    size_t at, len, cap;
    uint64_t too_long; /* lines passed over, being longer than LINE_BYTES_MAX */
    bool passing_over; /* in the middle of such a line */
};
#define LINE_BYTES_MAX (1u << 20)

/* Starts at `offset`. -1 and errno. */
int follower_open(struct follower *f, const char *path, uint64_t offset);
void follower_close(struct follower *f);
/* The next complete line without its newline, valid until the next call; NULL when there is none
 * yet. `*ret_offset` is where it starts; `f->offset` then is where the next one does. */
char *follower_line(struct follower *f, uint64_t *ret_offset);

/* An inotify descriptor for changes of a file, or of the files in a directory; dies when there is
 * none to be had. */
int watch_path(const char *path);
/* Forgets what was reported so far. */
void watch_drain(int fd);

/* ---- small things ---- */

uint64_t now_ns(void);
/* "2026-01-02T03:04:05.123456Z": 27 characters and a NUL. */
void timestamp_format(char out[28], uint64_t epoch_ns);
/* Seconds since the epoch, or -1. */
double timestamp_parse(const char *text);
/* 2n hexadecimal digits and a NUL. */
void random_hex(char *out, size_t n_bytes);

#endif
