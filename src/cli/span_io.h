/* Files of spans, for the verbs that read or write them. What goes wrong is said on standard error. */
#ifndef CLI_SPAN_IO_H
#define CLI_SPAN_IO_H

#include "wire/span_file.h"

#include <stdio.h>

/* Reads any kind of file there is (wire/span_file.h). `ret_kind` as there; may be NULL. */
MUST_USE int span_io_read(const char *verb, const char *path, span_file_fn *fn, void *arg,
                          const char **ret_kind);

/* A file that is there as a whole or not at all. */
struct span_writer {
    const char *verb, *path; /* "-": standard output */
    char *part;              /* what it is called until then */
    FILE *file;
    uint64_t spans, bytes;
    bool failed;
};
/* One that is there already is replaced with `force` only. */
MUST_USE int span_writer_open(struct span_writer *w, const char *verb, const char *path,
                              bool force);
void span_writer_put(struct span_writer *w, const struct span_batch *batch);
/* Parts that are such already. */
void span_writer_put_bytes(struct span_writer *w, struct str bytes);
/* Ends it, with `keep` as a file, else without a trace. */
MUST_USE int span_writer_close(struct span_writer *w, bool keep);

#endif
