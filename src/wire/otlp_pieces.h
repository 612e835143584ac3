/* What the decoders of logs and metrics share with that of spans (otlp.c): texts, values,
 * attributes, resources, scopes. As there, `err` ends the body and `reject` one record. */
#ifndef WIRE_OTLP_PIECES_H
#define WIRE_OTLP_PIECES_H

#include "base/arena.h"
#include "model/span.h"
#include "wire/protobuf.h"

struct otlp_pieces {
    struct arena *arena;
    const uint8_t *start;        /* of the body, for positions */
    struct error_detail *detail; /* may be NULL */
    int err;                     /* the body cannot be read */
    const char *reject;          /* this record cannot be kept; set to NULL before the next one */
};

/* Each false with `err` or `reject` set. */
bool otlp_piece_fail(struct otlp_pieces *p, const uint8_t *at, int err);
bool otlp_piece_reject(struct otlp_pieces *p, const char *reason);
void *otlp_piece_array(struct otlp_pieces *p, size_t n, size_t size, const uint8_t *at);
bool otlp_piece_text(struct otlp_pieces *p, const struct pb_field *f, struct str *ret);
bool otlp_piece_value(struct otlp_pieces *p, const struct pb_field *f, struct value *ret);
/* The fields `tag` of the message, behind the attributes that `ret` has already. */
bool otlp_piece_attrs(struct otlp_pieces *p, struct pb message, uint32_t tag, struct attrs *ret);
/* Merged into `ret`, which is valid before. */
bool otlp_piece_resource(struct otlp_pieces *p, const struct pb_field *f, struct resource *ret);
bool otlp_piece_scope(struct otlp_pieces *p, const struct pb_field *f, struct scope *ret);
/* How often the field comes in the message; false when it is no message. */
bool otlp_piece_count(struct otlp_pieces *p, struct pb message, uint32_t tag, size_t *n);

/* The reverse of otlp_piece_value, as the field `tag`. */
void otlp_encode_value(const struct value *v, uint32_t tag, struct buf *out);

#endif
