/* A datagram for the X-Ray daemon: a line {"format":"json","version":1} and a segment document.
 *
 * The trace id 1-xxxxxxxx-yyyy... is its 32 digits. A segment is a span of kind SERVER whose name is
 * also the service's; subsegments are spans below it, CLIENT when their namespace is remote or aws. A
 * subsegment that comes alone has no service to tell. Annotations are attributes under their own keys;
 * http, aws, sql and user have OpenTelemetry's names where there are any; metadata is JSON text under
 * aws.xray.metadata.NAMESPACE; what is not known here is kept as aws.xray.KEY. error, fault and
 * throttle are attributes aws.xray.*, the first two the status; the exceptions of `cause` are
 * events, precursor_ids links. A document in progress is a span without duration that says so.
 *
 * Source: AWS X-Ray Developer Guide, "Segment documents"; "Sending trace data to X-Ray". */
#ifndef WIRE_XRAY_H
#define WIRE_XRAY_H

#include "base/arena.h"
#include "model/span.h"

/* Subsegments in subsegments. */
#define XRAY_DEPTH_MAX 32

/* As otlp_decode. */
MUST_USE int xray_decode(struct str body, struct arena *arena, struct span_batch *ret_batch,
                         struct error_detail *ret_detail);

#endif
