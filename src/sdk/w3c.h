/* W3C Trace Context: header text <-> struct pug_context. Level 1 (Recommendation, 2021-11-23) with
 * the random flag of Level 2. */
#ifndef SDK_W3C_H
#define SDK_W3C_H

#include "base/str.h"
#include "pugmark/pugmark.h"

#define W3C_TRACEPARENT_LEN 55
#define W3C_MEMBERS_MAX 32  /* 3.3.1.1: "a maximum of 32 list-members" */
#define W3C_MEMBER_LONG 128 /* 3.3.1.5: entries longer than this go first when there is no room */

/* 3.2: fills the ids and the flags, and clears the tracestate; false when the text is not valid. */
bool w3c_traceparent_parse(struct str text, struct pug_context *ret_context);
/* With a terminator. */
void w3c_traceparent_put(const struct pug_context *context, char out[W3C_TRACEPARENT_LEN + 1]);

/* 3.3: the members of several headers in order become the one of `context`, shortened to
 * PUG_TRACESTATE_MAX if need be. A list that breaks the grammar, has a key twice or more than 32
 * members leaves it empty, and the result is false. */
struct w3c_tracestate {
    struct str members[W3C_MEMBERS_MAX];
    size_t n;
    bool failed;
};
void w3c_tracestate_init(struct w3c_tracestate *s);
void w3c_tracestate_add(struct w3c_tracestate *s, struct str header);
bool w3c_tracestate_put(const struct w3c_tracestate *s, struct pug_context *context);

/* The value of one member; STR_NONE when there is none. Borrows from the context. */
struct str w3c_tracestate_get(const struct pug_context *context, struct str key);
/* Puts a member in front, in place of the one with that key, or with an empty value takes it out;
 * what finds no room goes as above. False: no key or no value by the grammar, nothing was changed.
 */
bool w3c_tracestate_set(struct pug_context *context, struct str key, struct str value);

#endif
