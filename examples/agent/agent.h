/* A turn: somebody said something, and gets an answer. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "channels.h"

/* The session that turns belong to from now on. Its messages come back with the next turn. */
void agent_session(const char *name);
const char *agent_session_name(void);
void agent_stop(void);
void agent_turn(enum channel channel, const char *said, const struct pug_context *received);

#endif
