#include "memory.h"

#include "db.h"
#include "llm.h"
#include "queues.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define MEMORY_BYTES_MIN 12
#define MEMORY_BYTES_MAX 2000
#define SAME_SCORE 0.95 /* as alike as that is the same */
#define RECALL_SCORE 0.2
#define GRAPH_DEPTH 2
#define GRAPH_NODES_MAX 64

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

/* ---- messages ---- */

void memory_message_add(const char *session, const char *channel, const char *role,
                        const char *content)
{
    static const struct statement insert = {
        "INSERT", "messages",
        "INSERT INTO messages(session, channel, role, content, at) VALUES(?1,?2,?3,?4,?5)"};
    db_run(&insert, "ssssi", session, channel, role, content, epoch_s());
}

json_t *memory_messages(const char *session, int64_t after, int max)
{
    static const struct statement select = {
        "SELECT", "messages",
        "SELECT * FROM (SELECT id, role, content FROM messages WHERE session=?1 AND id>?2"
        " ORDER BY id DESC LIMIT ?3) ORDER BY id"};
    return db_rows(&select, "sii", session, after, (int64_t)max);
}

/* ---- vectors ---- */

int memory_vector_put(const char *collection, const char *key, const float *vector)
{
    static const struct statement upsert = {
        "INSERT", "vectors",
        "INSERT INTO vectors(collection, key, vector) VALUES(?1,?2,?3)"
        " ON CONFLICT DO UPDATE SET vector=excluded.vector"};
    PUG_SPAN("memory.vector_store", PUG_STR("db.operation.name", "upsert"),
             PUG_STR("db.collection.name", collection));
    return db_run(&upsert, "ssv", collection, key, vector) < 0 ? -1 : 0;
}

json_t *memory_vector_search(const char *collection, const float *vector, double score_min, int max)
{
    static const struct statement select = {
        "SELECT", "vectors",
        "SELECT key, score FROM (SELECT key, cosine(vector, ?2) AS score FROM vectors"
        " WHERE collection=?1) WHERE score>=?3 ORDER BY score DESC, key LIMIT ?4"};
    PUG_SPAN("memory.vector_store", PUG_STR("db.operation.name", "search"),
             PUG_STR("db.collection.name", collection));
    json_t *found = db_rows(&select, "svdi", collection, vector, score_min, (int64_t)max);
    pug_set_int(PUG_CURRENT, "db.response.returned_rows", (int64_t)json_array_size(found));
    return found;
}

void memory_vector_drop(const char *collection, const char *key)
{
    static const struct statement delete = {"DELETE", "vectors",
                                            "DELETE FROM vectors WHERE collection=?1 AND key=?2"};
    PUG_SPAN("memory.vector_store", PUG_STR("db.operation.name", "delete"),
             PUG_STR("db.collection.name", collection));
    db_run(&delete, "ss", collection, key);
}

/* ---- remember ---- */

/* Is it worth keeping? Questions, small talk and what is known already are not. */
static bool admit(const char *text, const float *vector)
{
    PUG_SPAN("memory.admission");
    size_t n = strlen(text);
    const char *why = NULL;
    if (n < MEMORY_BYTES_MIN || n > MEMORY_BYTES_MAX) {
        why = "length";
    } else if (strchr(text, '?')) {
        why = "question";
    } else {
        json_t *same = memory_vector_search("memories", vector, SAME_SCORE, 1);
        if (json_array_size(same) > 0)
            why = "known";
        json_decref(same);
    }
    pug_set_bool(PUG_CURRENT, "memory.admitted", !why);
    if (why)
        pug_set_str(PUG_CURRENT, "memory.refused_because", why);
    return !why;
}

static void extract_graph(const char *text)
{
    static const struct statement upsert = {
        "INSERT", "relations",
        "INSERT INTO relations(source, kind, target, weight) VALUES(?1,?2,?3,1)"
        " ON CONFLICT DO UPDATE SET weight=weight+1"};
    PUG_SPAN("memory.graph_extract");
    json_t *schema = json_pack("{s:s, s:s, s:{s:{s:s}, s:{s:s}}}", "title", "graph", "type",
                               "object", "properties", "entities", "type", "array", "relations",
                               "type", "array");
    json_t *found = llm_extract(text, schema), *relation;
    size_t i;
    json_array_foreach(json_object_get(found, "relations"), i, relation)
    {
        if (*string_at(relation, "source") && *string_at(relation, "target"))
            db_run(&upsert, "sss", string_at(relation, "source"), string_at(relation, "kind"),
                   string_at(relation, "target"));
    }
    pug_set_int(PUG_CURRENT, "graph.relations",
                (int64_t)json_array_size(json_object_get(found, "relations")));
    json_decref(found);
}

static void extract_persona(const char *text)
{
    static const struct statement upsert = {"INSERT", "persona",
                                            "INSERT INTO persona(fact, value) VALUES(?1,?2)"
                                            " ON CONFLICT DO UPDATE SET value=excluded.value"};
    PUG_SPAN("memory.persona_extract");
    json_t *schema = json_pack("{s:s, s:s, s:{s:{s:s}}}", "title", "persona", "type", "object",
                               "properties", "facts", "type", "object");
    json_t *found = llm_extract(text, schema), *value;
    const char *fact;
    json_object_foreach(json_object_get(found, "facts"), fact, value)
    {
        if (json_is_string(value))
            db_run(&upsert, "ss", fact, json_string_value(value));
    }
    pug_set_int(PUG_CURRENT, "persona.facts",
                (int64_t)json_object_size(json_object_get(found, "facts")));
    json_decref(found);
}

bool memory_remember(const char *session, const char *text)
{
    static const struct statement insert = {
        "INSERT", "memories",
        "INSERT OR IGNORE INTO memories(session, content, weight, uses, at) VALUES(?1,?2,1,0,?3)"};
    PUG_SPAN("memory.remember");
    float vector[EMBED_DIM];
    if (llm_embed(text, vector) != 0 || !admit(text, vector))
        return false;
    if (db_run(&insert, "ssi", session, text, epoch_s()) < 1 ||
        memory_vector_put("memories", text, vector) != 0)
        return false;
    extract_graph(text);
    extract_persona(text);
    queues_measure(METRIC_REMEMBERED, 1);
    return true;
}

/* ---- recall ---- */

/* Breadth first from the entities that the query names, along relations in both directions. `each`
 * is called once for every relation that is reached. */
static void walk_graph(const char *query, int max,
                       void (*each)(json_t *list, const json_t *relation), json_t *list)
{
    static const struct statement start = {
        "SELECT", "relations",
        "SELECT DISTINCT name FROM (SELECT source AS name FROM relations UNION"
        " SELECT target FROM relations) WHERE instr(lower(?1), lower(name))>0 ORDER BY name LIMIT "
        "16"};
    static const struct statement step = {
        "SELECT", "relations",
        "SELECT source, kind, target FROM relations WHERE source IN (SELECT value FROM "
        "json_each(?1))"
        " OR target IN (SELECT value FROM json_each(?1)) ORDER BY weight DESC, source, kind, target"
        " LIMIT 64"};
    json_t *rows = db_rows(&start, "s", query), *row;
    json_t *seen = json_object(), *frontier = json_array(), *told = json_object();
    size_t i;
    json_array_foreach(rows, i, row)
    {
        json_array_append(frontier, json_object_get(row, "name"));
        json_object_set_new(seen, string_at(row, "name"), json_true());
    }
    json_decref(rows);
    for (int depth = 0; depth < GRAPH_DEPTH && json_array_size(frontier) > 0; depth++) {
        AUTO_FREE char *names = need(json_dumps(frontier, JSON_COMPACT));
        rows = db_rows(&step, "s", names);
        json_array_clear(frontier);
        json_array_foreach(rows, i, row)
        {
            AUTO_FREE char *fact = need(json_dumps(row, JSON_COMPACT | JSON_SORT_KEYS));
            if (json_object_get(told, fact) || (int)json_object_size(told) >= max)
                continue;
            json_object_set_new(told, fact, json_true());
            each(list, row);
            for (int end = 0; end < 2; end++) {
                json_t *name = json_object_get(row, end ? "target" : "source");
                if (json_object_get(seen, json_string_value(name)) ||
                    json_object_size(seen) >= GRAPH_NODES_MAX)
                    continue;
                json_object_set_new(seen, json_string_value(name), json_true());
                json_array_append(frontier, name);
            }
        }
        json_decref(rows);
    }
    json_decref(frontier);
    json_decref(seen);
    json_decref(told);
}

static void tell_fact(json_t *list, const json_t *relation)
{
    struct text fact = {0};
    text_addf(&fact, "%s %s %s", string_at(relation, "source"), string_at(relation, "kind"),
              string_at(relation, "target"));
    json_array_append_new(list, json_string(fact.bytes));
    text_done(&fact);
}

json_t *memory_graph_facts(const char *query, int max)
{
    json_t *facts = json_array();
    walk_graph(query, max, tell_fact, facts);
    return facts;
}

static bool has_content(const json_t *list, const char *content)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        if (strcmp(string_at(one, "content"), content) == 0)
            return true;
    }
    return false;
}

/* Memories that mention both ends of a relation that was reached. */
static void recall_relation(json_t *list, const json_t *relation)
{
    static const struct statement select = {
        "SELECT", "memories",
        "SELECT content FROM memories WHERE instr(content,?1)>0 AND instr(content,?2)>0"
        " ORDER BY id LIMIT 2"};
    json_t *rows = db_rows(&select, "ss", string_at(relation, "source"),
                           string_at(relation, "target"));
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (!has_content(list, string_at(row, "content"))) {
            json_object_set_new(row, "score", json_real(RECALL_SCORE));
            json_array_append(list, row);
        }
    }
    json_decref(rows);
}

json_t *memory_recall(const char *query, int max)
{
    static const struct statement used = {
        "UPDATE", "memories",
        "UPDATE memories SET uses=uses+1, weight=min(weight+0.1, 5) WHERE content=?1"};
    PUG_SPAN("memory.recall");
    json_t *found = json_array(), *row;
    float vector[EMBED_DIM];
    size_t i;
    if (llm_embed(query, vector) == 0) {
        json_t *alike = memory_vector_search("memories", vector, RECALL_SCORE, max);
        json_array_foreach(alike, i, row)
        {
            json_array_append_new(found,
                                  json_pack("{s:O, s:O}", "content", json_object_get(row, "key"),
                                            "score", json_object_get(row, "score")));
        }
        json_decref(alike);
    }
    walk_graph(query, max, recall_relation, found);
    while ((int)json_array_size(found) > max)
        json_array_remove(found, json_array_size(found) - 1);
    json_array_foreach(found, i, row)
    {
        db_run(&used, "s", string_at(row, "content"));
    }
    pug_set_int(PUG_CURRENT, "memory.recalled", (int64_t)json_array_size(found));
    return found;
}

json_t *memory_persona(void)
{
    static const struct statement select = {"SELECT", "persona",
                                            "SELECT fact, value FROM persona ORDER BY fact"};
    json_t *rows = db_rows(&select, ""), *facts = json_object(), *row;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        json_object_set(facts, string_at(row, "fact"), json_object_get(row, "value"));
    }
    json_decref(rows);
    return facts;
}
