/* What the terminal can show, and text made fit for it. Names and attributes come from outside: no
 * byte of theirs may reach the terminal as a control character. */
#ifndef CLI_TERM_H
#define CLI_TERM_H

#include <stdio.h>

#include "base/buf.h"

struct term {
    bool tty;       /* of the stream: someone looks at it */
    bool colour;    /* a terminal, and no NO_COLOR */
    bool utf8;      /* the locale's characters */
    unsigned width; /* columns; 100 when nobody knows */
};

/* Of `stream`. Sets the process's character type from the environment. */
struct term term_of(FILE *stream);

/* Columns that `text` takes as term_text writes it. */
size_t term_width(struct str text);
/* Appends at most `width` columns of `text`, with an ellipsis for what is cut; controls and what is
 * not UTF-8 become "?" or a middle dot. Returns the columns. */
size_t term_text(struct buf *out, struct str text, size_t width);
/* The same, filled up with blanks. */
void term_cell(struct buf *out, struct str text, size_t width);
void term_blanks(struct buf *out, size_t n);

/* "12.3 ms", "1.25 s", "2 min 5 s": three digits that matter. Returns out. */
#define TERM_DURATION_SIZE 24
const char *term_duration(char out[TERM_DURATION_SIZE], uint64_t ns);

/* Local time; the date only when it is not today's, unless `whole`. */
#define TERM_TIME_SIZE 40
const char *term_time(char out[TERM_TIME_SIZE], uint64_t epoch_ns, bool whole);

/* Escape sequences, or "" without colour. */
enum term_style { TERM_PLAIN, TERM_DIM, TERM_BOLD, TERM_RED };
const char *term_style(const struct term *t, enum term_style style);
/* A colour of its own for a service, the same each time. */
const char *term_service_style(const struct term *t, struct str service, char out[16]);

#endif
