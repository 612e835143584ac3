/* The output of a container: one line in the form of RFC 5424 for each thing that was seen, with the
 * trace it belongs to (decoy.c describes the form).
 *
 * What comes from outside is hostile: it is bounded, and it cannot end a line or an element. */
#ifndef DECOYS_EVENTS_H
#define DECOYS_EVENTS_H

#include "common.h"

#define EVENT_LINE_MAX 16384 /* bytes of a line */
#define EVENT_VALUE_MAX 1024 /* bytes of a value, before escaping */

/* Opens containers/NAME.log; `kind` is what the lines call the program. Dies when it cannot. */
void events_open(const char *name, const char *kind);
void events_close(void);

struct event {
    char text[EVENT_LINE_MAX];
    size_t len;
};
/* At `epoch_ns`, 0: now. */
void event_begin(struct event *e, const char *type, uint64_t epoch_ns);
/* NULL values are left out. */
void event_param(struct event *e, const char *name, const char *value);
void event_param_n(struct event *e, const char *name, const char *value, size_t len);
void event_number(struct event *e, const char *name, long long value);
/* With the current context, as one write: lines of several threads do not mix. 0, or -1 after
 * saying why. */
int event_write(struct event *e, const char *message);

/* ---- log targets: where else lines go ---- */

/* A file that is appended to, behind a span of its own. Dies when it cannot. */
int log_file_open(const char *path);
/* "127.0.0.1:601": is there somebody who takes syslog over TCP (RFC 6587)? 0, or -1 and errno. */
int log_target_probe(const char *address);
/* Sends lines there, each ended by a newline; connects for each call. 0, or -1 and errno. */
int log_target_send(const char *address, const char *lines, size_t len);

#endif
