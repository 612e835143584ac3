/* TOML 1.0, read into a tree in which every key and value knows where it stands.
 *
 * For configuration, so bounded: TOML_BYTES_MAX of text, TOML_KEYS_MAX keys, TOML_DEPTH_MAX deep.
 * Strings are unescaped copies in the arena, valid UTF-8, and may contain NUL (from \u0000).
 *
 * Source: toml.io/en/v1.0.0, the specification and its ABNF. */
#ifndef BASE_TOML_H
#define BASE_TOML_H

#include "base/arena.h"

enum {
    TOML_BYTES_MAX = 1 << 20,
    TOML_KEYS_MAX = 8192,
    TOML_DEPTH_MAX = 64, /* arrays and inline tables in each other, and parts of a dotted key */
};

enum toml_type {
    TOML_STRING,
    TOML_INTEGER,
    TOML_FLOAT,
    TOML_BOOL,
    TOML_DATETIME, /* with offset, local, date or time alone: `text` is as it was written */
    TOML_ARRAY,
    TOML_TABLE,
};

/* Lines and columns count from 1, columns in characters. Offsets count bytes from 0. */
struct toml_place {
    uint32_t line, column;
    size_t start, end; /* of the text: [start, end) */
};

struct toml_table;

struct toml_value {
    enum toml_type type;
    struct toml_place at;
    union {
        struct str text;
        int64_t integer;
        double real;
        bool boolean;
        struct {
            struct toml_value *items;
            size_t n;
            bool of_tables; /* made by [[name]] */
        } array;
        struct toml_table *table;
    };
};

struct toml_entry {
    struct toml_entry *next; /* in the order of the text */
    struct str key;
    struct toml_place at; /* of the key, or of the header that made the table */
    struct toml_value value;
};

struct toml_table {
    struct toml_entry *first, *last;
    size_t n;
    /* How it came to be, which decides who may still add to it. */
    enum {
        TOML_IMPLICIT, /* [a.b] made `a` */
        TOML_HEADER,   /* [a] */
        TOML_DOTTED,   /* a.b = 1 made `a` */
        TOML_INLINE,   /* {} : closed */
    } made_by;
};

/* On failure `ret_detail` (may be NULL) says what was expected, and `ret_place` (may be NULL)
 * where. ERR_INVALID, ERR_TOO_LARGE, ERR_NOMEM. The tree lives as long as the arena. */
MUST_USE int toml_parse(struct str text, struct arena *arena, struct toml_table **ret,
                        struct error_detail *ret_detail, struct toml_place *ret_place);
/* NULL when there is none. */
const struct toml_entry *toml_find(const struct toml_table *table, struct str key);
/* "a string", "an integer", ... */
const char *toml_type_name(enum toml_type type);

#endif
