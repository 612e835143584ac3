/* The agent's SQLite file: one connection, whose statements wait for one another. Every statement is
 * a span memory.sqlite. In SQL there is cosine(a, b), the likeness of two vectors of the same length
 * (blobs of floats), NULL when they have not. */
#ifndef AGENT_DB_H
#define AGENT_DB_H

#include "common.h"

#include <jansson.h>

/* What it does to which table, for the trace, and how. Static. */
struct statement {
    const char *operation, *table, *sql;
};

/* Dies when it cannot. */
void db_open(const char *path);
void db_close(void);
/* Parameters by letter: 's' const char * (NULL is NULL), 'i' int64_t, 'd' double, 'v' a vector
 * (const float *, of EMBED_DIM). Rows as objects by column name (a blob is left out); a new reference,
 * empty when it failed, which was said then. */
json_t *db_rows(const struct statement *s, const char *types, ...);
/* Without rows: how many it changed, -1 when it failed. */
int db_run(const struct statement *s, const char *types, ...);
/* All of what the thread does in between, or nothing of it. */
void db_begin(void);
void db_commit(void);

#endif
