/* When to send again: pure functions.
 *
 * Source: opentelemetry.io/docs/specs/otlp, "OTLP/gRPC Throttling", "OTLP/HTTP Throttling",
 * "Retryable Response Codes"; RFC 9110, 5.6.7 (dates) and 10.2.3 (Retry-After). */
#ifndef SDK_RETRY_H
#define SDK_RETRY_H

#include <stdint.h>

#include "base/str.h"

/* A collector's wish is heard up to here. */
#define RETRY_AFTER_MAX_NS UINT64_C(60000000000)

/* Retry-After as seconds or as a date in any of HTTP's three forms; `now_ns` since the epoch. False
 * when it is neither. At most RETRY_AFTER_MAX_NS; a date gone by is 0. */
bool retry_after_parse(struct str value, uint64_t now_ns, uint64_t *ret_ns);

/* google.rpc.RetryInfo out of a grpc-status-details-bin header (base64 of google.rpc.Status). */
bool retry_info_parse(struct str header, uint64_t *ret_ns);

bool retry_http(long status);
/* `has_info`: the answer had a RetryInfo, without which RESOURCE_EXHAUSTED is final. */
bool retry_grpc(long status, bool has_info);

/* The pause before attempt `attempt` (1 is the first repetition): doubles from 100 ms to 5 s, less up to
 * a half of it by `random`. */
uint64_t retry_pause_ns(unsigned attempt, uint32_t random);

#endif
