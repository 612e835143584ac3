/* pug_options and the environment, resolved: what the rest of the library works with. */
#ifndef SDK_OPTIONS_H
#define SDK_OPTIONS_H

#include "base/arena.h"
#include "model/span.h"
#include "pugmark/pugmark.h"

enum otlp_protocol { OTLP_GRPC, OTLP_HTTP_PROTOBUF, OTLP_HTTP_JSON };

/* The sampler of traces that begin here; with `parent_based` a sender's decision is kept. */
enum sampler_kind {
    SAMPLER_ALWAYS_ON,
    SAMPLER_ALWAYS_OFF,
    SAMPLER_RATIO, /* consistent probability: `rate` */
    SAMPLER_RATE,  /* `per_second` traces */
    SAMPLER_RULES, /* X-Ray's rules in `rules_file` */
};

/* What is injected and extracted. */
enum propagator {
    PROPAGATE_TRACECONTEXT = 1,
    PROPAGATE_BAGGAGE = 2,
    PROPAGATE_B3 = 4,       /* one header */
    PROPAGATE_B3_MULTI = 8, /* X-B3-* */
    PROPAGATE_JAEGER = 16,  /* uber-trace-id */
    PROPAGATE_XRAY = 32,    /* X-Amzn-Trace-Id */
    PROPAGATE_REQUEST_ID = 64,
    PROPAGATE_DEFAULT = PROPAGATE_TRACECONTEXT | PROPAGATE_BAGGAGE | PROPAGATE_REQUEST_ID,
};

struct config {
    struct arena arena; /* owns every string below */
    bool on;
    enum pug_backend backend;
    const char *service_name, *trace_dir;
    const char *otlp_url;     /* complete, with path */
    const char *otlp_headers; /* "name=value,...", percent-encoded; may be NULL */
    enum otlp_protocol otlp_protocol;
    bool otlp_gzip;
    uint64_t otlp_timeout_ns;     /* of one request */
    const char *otlp_metrics_url; /* complete; may be NULL: metrics are not sent */
    /* Files in PEM for https; NULL: the system's, none. */
    const char *otlp_certificate, *otlp_client_certificate, *otlp_client_key;
    const char *zipkin_url;
    const char *pyroscope_url; /* may be NULL */
    struct {
        enum sampler_kind kind;
        bool parent_based;
        double rate; /* 0 to 1 */
        double per_second;
        const char *rules_file;
    } sampler;
    unsigned propagators; /* enum propagator, or-ed; also when `on` is false */
    bool include_args;    /* the arguments of PUG_FN become attributes */
    bool thread_context;  /* each thread's current span is published (OTEP 4947) */
    bool process_context; /* the resource is published (OTEP 4719) */
    bool alloc_tracking;  /* where the allocator is ours, spans carry alloc.* */
    /* 0: none. At least a second. */
    uint64_t system_metrics_interval_ns;
    uint64_t metrics_interval_ns; /* how often what was measured of spans is sent; 0: never */
    /* What must not leave the process; redact.h. May be NULL. */
    struct redact *redact;
    size_t ring_bytes, queue_bytes_max;
    uint64_t drain_interval_ns, flush_interval_ns, stop_timeout_ns;
    pug_log_fn *log;
    void *log_user;
    struct resource resource;
    bool instance_is_ours; /* nobody has set service.instance.id */
    struct scope scope;
};

/* `options` may be NULL. On failure nothing is left to free; `ret_problem` (may be NULL) is a
 * sentence for the log callback. */
MUST_USE int config_init(struct config *ret, const struct pug_options *options,
                         struct error_detail *ret_problem);
void config_done(struct config *c);
/* In a forked child: what says which process it is. */
void config_resource_renew(struct config *c);
/* What the settings say, all but the secret headers. What is wrong with them together is told; the
 * code of a grave one is returned. `c` begins as zeros. */
struct settings;
MUST_USE int config_convert(struct config *c, struct settings *s, const struct pug_options *o);
/* The resource and the scope; resource.c. False: no memory. */
bool config_resource(struct config *c, const char *service_name, const char *service_version);

#endif
