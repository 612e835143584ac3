/* Members of a JSON object taken out and put in, in place, in text that somebody else wrote.
 *
 * All of it is read first, and it is changed only when it is one valid JSON value, an object. Then it is
 * pieced together anew: the pieces between the members that go, and the new ones before the closing
 * brace. */
#ifndef SDK_JSON_EDIT_H
#define SDK_JSON_EDIT_H

#include "base/json.h"

#define JSON_EDIT_CUTS_MAX 8 /* in one object; a record with more is left alone */

struct json_edit {
    struct {
        size_t from, to;
    } cuts[JSON_EDIT_CUTS_MAX]; /* members that go, without the commas around them */
    size_t n_cuts;
    bool bare;  /* no other members */
    size_t end; /* of the closing brace */
};

/* Finds the members with one of the keys. `member` (may be NULL) is called behind the key and reads the
 * whole value; false from it is damage. False: nothing can be edited. */
bool json_edit_scan(struct str record, struct arena *arena, const struct str *keys, size_t n_keys,
                    bool (*member)(struct json_reader *r, void *user), void *user,
                    struct json_edit *ret);

/* Takes those members out and puts `text` in, which is one member or several with commas between them
 * and none around. Returns the new length; when that is not less than `size` nothing was changed. A
 * terminator is written. `text` empty: only takes out, and `size` is not looked at. */
size_t json_edit_apply(char *record, size_t len, size_t size, struct json_edit *e, struct str text);

#endif
