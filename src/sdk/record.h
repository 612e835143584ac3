/* The ring, to the byte. What the fast path writes is declared in pugmark/inline.h, the rest here.
 *
 * A record is a multiple of 8 bytes. Numbers are in the machine's order (the reader is on the same
 * machine). The first word:
 *
 *     bits 0-6    kind            bit 7     the target is a handle's span id, not a seq of the lane
 *     bits 8-31   length in words (RECORD_END: the site instead, its length is 4 words)
 *     bits 32-63  site, or what the kind says (RECORD_END: the duration)
 *
 * then, word by word:
 *
 *     RECORD_END          see struct pug__end_record
 *     RECORD_END_LONG     start, end, seq, seq of the parent, trace
 *     RECORD_ATTRS        target, the values of the site's keys
 *     RECORD_EVENT        target, ticks, the values of the site's keys
 *     RECORD_SET          target, value, key as text        [32-63: type of the value]
 *     RECORD_STATUS       target, text                      [code]
 *     RECORD_NAME         target, text
 *     RECORD_LINK         target, context, site (0: none), the values of its keys       [flags]
 *     RECORD_CONTEXT      seq, context                      [flags, remote << 8]
 *     RECORD_ROOT         the same; the seq is that of a span with a context of its own, whose
 *                         parent the context is (a span id of zeros: it has none)
 *     RECORD_CONTEXT_END  seq
 *     RECORD_START        span id, start, parent id, flags | remote << 8, trace id (2),
 *                         tracestate as text, the values of the site's keys  [site]
 *     RECORD_STOP         span id, start, end, parent id, flags, trace id (2)  [site]
 *
 * value: 8 bytes, or text. text: length, bytes padded to 8.
 * context: trace id (2), span id, tracestate as text.
 * Ids are 8 bytes as they go over the wire. */
#ifndef SDK_RECORD_H
#define SDK_RECORD_H

#include "pugmark/pugmark.h"

enum record_kind {
    RECORD_END = PUG__RECORD_END,
    RECORD_END_LONG = 2,
    RECORD_ATTRS = PUG__RECORD_ATTRS,
    RECORD_EVENT = 4,
    RECORD_SET = 5,
    RECORD_STATUS = 6,
    RECORD_NAME = 7,
    RECORD_LINK = 8,
    RECORD_CONTEXT = 9,
    RECORD_CONTEXT_END = 10,
    RECORD_START = 11,
    RECORD_STOP = 12,
    RECORD_ROOT = 13,
    RECORD_KIND_MASK = 0x7f,
    RECORD_OF_HANDLE = 0x80,
};

#define RECORD_END_BYTES sizeof(struct pug__end_record)
#define RECORD_END_LONG_BYTES 48
#define RECORD_STOP_BYTES 64

_Static_assert(sizeof(struct pug__end_record) == 32, "the budget is made of this");
_Static_assert(RECORD_END_LONG_BYTES <= 48, "PUG__SLACK counts 48 for every open slot");

/* Bytes of a text in a record. */
static inline size_t record_text_bytes(size_t len)
{
    return 8 + ((len + 7) & ~(size_t)7);
}

#endif
