#include "code_index.h"

#include "db.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

/* The name that this line defines, "" when it does not. C, and what begins with a word for it. */
static void defined_name(const char *line, size_t n, char *name, size_t size)
{
    static const char *const words[] = {"#define ", "struct ", "def ", "class ", "function "};
    const char *at = line, *paren = memchr(line, '(', n);
    size_t len = 0;
    *name = '\0';
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strncmp(line, words[i], strlen(words[i])) == 0)
            at = line + strlen(words[i]);
    if (at == line) {
        /* "type name(arguments)", and no ';' behind it */
        if (!isalpha((unsigned char)*line) || !paren || line[n - 1] == ';')
            return;
        at = paren;
        while (at > line && (isalnum((unsigned char)at[-1]) || at[-1] == '_'))
            at--;
        if (at == line)
            return;
    }
    while (at + len < line + n && (isalnum((unsigned char)at[len]) || at[len] == '_'))
        len++;
    snprintf(name, size, "%.*s", (int)len, at);
}

static bool index_file(void *user, const char *path, const char *content)
{
    static const struct statement insert = {
        "INSERT", "symbols",
        "INSERT INTO symbols(path, line, name, text) SELECT ?1, value->>0, value->>1, value->>2"
        " FROM json_each(?2)"};
    int64_t *symbols = user;
    json_t *found = json_array();
    char name[64];
    int number = 1;
    AUTO_TEXT struct text clean = {0};
    text_add(&clean, content);
    text_clean(&clean);
    for (const char *line = clean.bytes; *line; number++) {
        size_t n = strcspn(line, "\n");
        if (n > 0)
            defined_name(line, n, name, sizeof name);
        if (n > 0 && *name) {
            AUTO_TEXT struct text first = {0};
            text_addn(&first, line, n > 120 ? 120 : n);
            text_clean(&first); /* a character may have been cut */
            json_array_append_new(found, json_pack("[i, s, s]", number, name, first.bytes));
        }
        line += n + (line[n] == '\n');
    }
    if (json_array_size(found) > 0) {
        AUTO_FREE char *rows = need(json_dumps(found, JSON_COMPACT));
        db_run(&insert, "ss", path, rows);
    }
    *symbols += (int64_t)json_array_size(found);
    json_decref(found);
    return true;
}

void code_index_build(const char *workspace)
{
    static const struct statement clear = {"DELETE", "symbols", "DELETE FROM symbols"};
    PUG_SPAN("agent.code_index");
    int64_t symbols = 0;
    db_begin();
    db_run(&clear, "");
    int files = tree_walk(workspace, index_file, &symbols);
    db_commit();
    pug_set_int(PUG_CURRENT, "code.files", files);
    pug_set_int(PUG_CURRENT, "code.symbols", symbols);
}

json_t *code_index_search(const char *query, int max)
{
    static const struct statement select = {"SELECT", "symbols",
                                            "SELECT path, line, text FROM symbols WHERE "
                                            "lower(name) IN (SELECT value FROM json_each(?1))"
                                            " ORDER BY path, line LIMIT ?2"};
    json_t *words = json_array(), *list = json_array(), *row;
    char word[64];
    size_t i;
    for (const char *at = query; next_word(&at, word, sizeof word);)
        json_array_append_new(words, json_string(word));
    AUTO_FREE char *text = need(json_dumps(words, JSON_COMPACT));
    json_t *rows = db_rows(&select, "si", text, (int64_t)max);
    json_array_foreach(rows, i, row)
    {
        AUTO_TEXT struct text line = {0};
        text_addf(&line, "%s:%d: %s", json_string_value(json_object_get(row, "path")),
                  (int)json_integer_value(json_object_get(row, "line")),
                  json_string_value(json_object_get(row, "text")));
        json_array_append_new(list, json_string(line.bytes));
    }
    json_decref(words);
    json_decref(rows);
    return list;
}
