/* The six queues between the agent's threads (pugmark/channel.h): each has its spans
 * channel.NAME_send and channel.NAME_recv, and its counts.
 *
 *   name           from                         to
 *   status         the turn                     a thread that shows what is going on
 *   metrics        everybody who counts         a thread that adds up
 *   elicitation    the MCP client               a thread that asks the person
 *   skill_reload   the thread that watches      the loop, between two turns
 *   config_reload    files (settings.h)         the same
 *   cancel         whoever ends the program     the loop, and the consolidation: one message each */
#ifndef AGENT_QUEUES_H
#define AGENT_QUEUES_H

#include "common.h"

enum metric { METRIC_TURNS, METRIC_TOKENS, METRIC_TOOL_CALLS, METRIC_REMEMBERED, N_METRICS };
enum cancelled { CANCEL_AGENT, CANCEL_LOOP, N_CANCELLED };

/* `ask` asks the person, from a thread of its own while a turn waits for the answer. */
void queues_start(bool show_status, bool (*ask)(const char *question));
/* Everything that was sent is received first. */
void queues_stop(void);

void queues_status(const char *what);
void queues_measure(enum metric which, int64_t more);
int64_t queues_total(enum metric which); /* after queues_stop() */
/* Waits for the answer; false also when nobody can be asked. */
bool queues_elicit(const char *question);

/* "" for the settings, else the skill's file. */
void queues_changed(const char *skill);
/* True when there was a change since; waits for one. All that are there are taken. */
bool queues_skill_reload(int timeout_ms);
bool queues_config_reload(int timeout_ms);

/* To everybody, once. */
void queues_cancel(void);
/* Has it arrived at this one? */
bool queues_cancelled(enum cancelled who);

#endif
