#include "cli/store_files.h"

#include "cli/cli.h"
#include "cli/span_io.h"
#include "query/erasure.h"
#include "wire/otlp.h"

/* ---- out ---- */

static int batch_put(void *arg, struct span_batch *batch)
{
    struct span_writer *w = arg;
    span_writer_put(w, batch);
    return w->failed ? ERR_IO : 0;
}

int store_files_export(struct store *store, const char *path, const char *query, uint64_t start_ns,
                       uint64_t end_ns, bool force)
{
    struct arena arena = ARENA_INIT;
    struct span_writer w;
    struct erasure which;
    struct error_detail detail = {0};
    bool damaged = false, failed = false;
    struct store_view *view = store_view_new(store);
    int err = view ? erasure_find(view, str_from(query), start_ns, end_ns, &arena, &which, &detail)
                   : ERR_NOMEM;
    if (err)
        fprintf(stderr, "pugmark store: %s\n", detail.code ? detail.message : err_text(err));
    if (!err && !(err = span_writer_open(&w, "store", path, force))) {
        err = store_spans(view, &which.erase, batch_put, &w);
        failed = w.failed;
        int closed = span_writer_close(&w, !err || failed);
        if (err && !failed)
            fprintf(stderr, "pugmark store: %s\n", err_text(err));
        err = err ? err : closed;
        damaged = which.is_damaged || store_view_is_damaged(view);
    }
    if (!err)
        fprintf(stderr, "%s: %llu spans, %llu bytes\n", path, (unsigned long long)w.spans,
                (unsigned long long)w.bytes);
    if (!err && damaged)
        fputs("pugmark store: a damaged segment could not be read: what is in it is missing\n",
              stderr);
    store_view_free(view);
    arena_done(&arena);
    return err || damaged ? CLI_COULD_NOT : CLI_DONE;
}

/* ---- in ---- */

struct import {
    struct store *store;
    uint64_t spans, rejected;
};

/* What is appended is what the body decodes to, whatever the file was. */
static int batch_append(void *arg, const struct span_batch *batch)
{
    struct import *im = arg;
    struct arena arena = ARENA_INIT;
    struct buf body = BUF_INIT;
    struct span_batch again = {0};
    otlp_encode(batch, &body);
    int err = buf_ok(&body) ? otlp_decode(buf_as_str(&body), &arena, &again, NULL) : ERR_NOMEM;
    if (!err && again.n)
        err = store_append_wait(im->store, BODY_OTLP_PROTOBUF, buf_as_str(&body), &again);
    if (err)
        fprintf(stderr, "pugmark store: %s\n", err_text(err));
    im->spans += err ? 0 : again.n;
    im->rejected += batch->n_rejected + again.n_rejected;
    buf_done(&body);
    arena_done(&arena);
    return err;
}

int store_files_import(struct store *store, char *const *paths, int n)
{
    int status = CLI_DONE;
    for (int i = 0; i < n; i++) {
        struct import im = {.store = store};
        const char *kind = NULL;
        int err = span_io_read("store", paths[i], batch_append, &im, &kind);
        fprintf(stderr, "%s: %llu spans%s%s", paths[i], (unsigned long long)im.spans,
                kind ? " from " : "", kind ? kind : "");
        if (im.rejected)
            fprintf(stderr, ", %llu could not be kept", (unsigned long long)im.rejected);
        fputs(err ? ", then it failed\n" : "\n", stderr);
        if (err || im.rejected)
            status = CLI_COULD_NOT;
    }
    return status;
}
