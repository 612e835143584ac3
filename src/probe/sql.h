/* Enough of SQL to say what a statement does without saying with what values: a tokenizer that knows
 * where literals and comments begin and end in PostgreSQL's and SQLite's dialects. Not a parser: what it
 * does not understand is copied, literals excepted. */
#ifndef PROBE_SQL_H
#define PROBE_SQL_H

#include "base/str.h"

#define SQL_WORD_MAX 64 /* characters of an operation or a table */

enum sql_text { SQL_TEXT_SANITIZED, SQL_TEXT_FULL, SQL_TEXT_OFF };

struct sql_summary {
    char operation[SQL_WORD_MAX];  /* "SELECT"; "" when there is no word */
    char collection[SQL_WORD_MAX]; /* the first table, as written; "" when there is none */
    bool one_collection;           /* and no other */
    bool has_comment;
};

/* Writes the statement to out[0..size) with `?` for each string and number, without comments and with
 * single spaces; returns the length. Cut at `size` between two characters. `ret` may be NULL. */
size_t sql_sanitize(struct str sql, char *out, size_t size, struct sql_summary *ret);

/* The message of an error with `?` for everything that stands in quotes. */
size_t sql_sanitize_message(struct str message, char *out, size_t size);

#endif
