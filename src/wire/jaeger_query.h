/* The requests of Jaeger's gRPC query service, version 3, and of its sampling manager.
 * Source: jaegertracing/jaeger-idl, proto/api_v3/query_service.proto and proto/api_v2/sampling.proto;
 * google/protobuf/timestamp.proto, duration.proto. */
#ifndef WIRE_JAEGER_QUERY_H
#define WIRE_JAEGER_QUERY_H

#include "base/arena.h"
#include "model/span.h"

struct jaeger_tag {
    struct str key, value;
};

/* What any of the requests has; strings borrow from the bytes. */
struct jaeger_query {
    struct str trace_id;           /* GetTrace: as text */
    struct str service, operation; /* of GetSamplingStrategy: the service */
    struct str span_kind;          /* GetOperations */
    struct jaeger_tag *tags;
    size_t n_tags;
    uint64_t start_ns, end_ns; /* 0: not there */
    uint64_t duration_min_ns, duration_max_ns;
    int32_t depth;
    bool has_filter;
};

enum jaeger_request {
    JAEGER_GET_TRACE,
    JAEGER_FIND, /* FindTraces, FindTraceSummaries */
    JAEGER_GET_OPERATIONS,
    JAEGER_GET_DEPENDENCIES,
    JAEGER_GET_SAMPLING,
};

/* ERR_TRUNCATED, ERR_INVALID (also a time or duration before 0, or text that is not UTF-8), ERR_NOMEM; GetServices has
 * nothing to read. */
MUST_USE int jaeger_query_decode(enum jaeger_request request, struct str bytes, struct arena *arena,
                                 struct jaeger_query *ret, struct error_detail *ret_detail);

#endif
