/* Members of JSON objects, a line each. */
#ifndef WEB_JSON_KEYS_H
#define WEB_JSON_KEYS_H

#include "base/json.h"

static inline void key_str(struct json_writer *w, const char *key, struct str value)
{
    json_key(w, str_from(key));
    json_str(w, value);
}

static inline void key_u64(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    json_u64(w, value);
}

/* What JavaScript could not hold. */
static inline void key_u64_str(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, str_from(key));
    json_u64_str(w, value);
}

static inline void key_hex(struct json_writer *w, const char *key, const uint8_t *bytes, size_t n)
{
    json_key(w, str_from(key));
    json_hex(w, bytes, n);
}

static inline void key_open(struct json_writer *w, const char *key, char bracket)
{
    json_key(w, str_from(key));
    json_open(w, bracket);
}

static inline void key_bool(struct json_writer *w, const char *key, bool value)
{
    json_key(w, str_from(key));
    json_bool(w, value);
}

#endif
