/* OTLP protobuf for plain spans (plain.h), and for who encodes span after span. */
#ifndef WIRE_OTLP_PLACE_H
#define WIRE_OTLP_PLACE_H

#include "wire/otlp.h"
#include "wire/plain.h"

struct otlp_place;

/* To be freed with free(). NULL: no memory. */
struct otlp_place *otlp_place_new(const struct plain_place *place);
/* Appends the span, as otlp_encode_span would. False, and nothing is appended: its values are not plain
 * ones. */
bool otlp_place_encode(struct otlp_place *place, const struct plain_span *span, struct buf *out);

#endif
