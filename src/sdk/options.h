/* pug_options and the environment, resolved: what the rest of the library works with. */
#ifndef SDK_OPTIONS_H
#define SDK_OPTIONS_H

#include "base/arena.h"
#include "model/span.h"
#include "pugmark/pugmark.h"

struct config {
    struct arena arena; /* owns every string below */
    bool on;
    enum pug_backend backend;
    const char *service_name, *trace_dir;
    const char *otlp_url;     /* complete, with path */
    const char *otlp_headers; /* "name=value,...", percent-encoded; may be NULL */
    bool otlp_grpc;
    uint64_t otlp_timeout_ns; /* of one request */
    size_t ring_bytes, queue_bytes_max;
    uint64_t drain_interval_ns, flush_interval_ns, stop_timeout_ns;
    pug_log_fn *log;
    void *log_user;
    struct resource resource;
    struct scope scope;
};

/* `options` may be NULL. On failure nothing is left to free; `ret_problem` (may be NULL) is a
 * sentence for the log callback. */
MUST_USE int config_init(struct config *ret, const struct pug_options *options,
                         struct error_detail *ret_problem);
void config_done(struct config *c);

#endif
