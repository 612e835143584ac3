/* What the agent keeps: messages, memories with their vectors, a graph of entities, facts about the
 * person, summaries, digests of sessions. All in SQLite (db.h). New JSON references are the
 * caller's. */
#ifndef AGENT_MEMORY_H
#define AGENT_MEMORY_H

#include "common.h"

#include <jansson.h>

/* ---- memory.c: a turn's ---- */

void memory_message_add(const char *session, const char *channel, const char *role,
                        const char *content);
/* [{"id", "role", "content"}], oldest first: those behind `after`, at most the newest `max`. */
json_t *memory_messages(const char *session, int64_t after, int max);
/* True when it was worth it and is kept now. */
bool memory_remember(const char *session, const char *text);
/* [{"content", "score"}], best first: what is like the query, and what is near in the graph to what
 * the query names. */
json_t *memory_recall(const char *query, int max);
/* ["A uses B"]: at most two relations away from an entity that the query names. */
json_t *memory_graph_facts(const char *query, int max);
/* {"name": "..."} */
json_t *memory_persona(void);

/* The vectors of a collection, by key. 0 or -1. */
int memory_vector_put(const char *collection, const char *key, const float *vector);
/* [{"key", "score"}], best first, at least `score_min` alike. */
json_t *memory_vector_search(const char *collection, const float *vector, double score_min,
                             int max);
void memory_vector_drop(const char *collection, const char *key);

/* ---- memory_work.c: what happens to it ---- */

/* The newest summary and where it ends: false when there is none yet. */
bool memory_summary(const char *session, struct text *ret_text, int64_t *ret_until);
/* Of these messages; the session's summary from then on. 0 or -1. */
int memory_summarize(const char *session, const json_t *messages);
/* May the messages be compacted, and up to which one (its place)? 0: no. */
size_t memory_compaction_probe(const json_t *messages, size_t tokens_max);
/* Digests of other sessions: ["..."] */
json_t *memory_digests(const char *session, int max);

/* A thread that consolidates every `interval_ms`, and when it is asked to. */
void memory_loop_start(int interval_ms);
/* Asks for a round and waits for its end; `session` is over and gets its digest. False when it took
 * too long. */
bool memory_loop_ask(const char *session);
/* It ends because of the cancel signal (queues.h); wakes and waits for it. */
void memory_loop_stop(void);

#endif
