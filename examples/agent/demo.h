/* What the agent needs around it to be shown: the stand-ins' processes, a small project to work in,
 * and a conversation. */
#ifndef AGENT_DEMO_H
#define AGENT_DEMO_H

#include "common.h"

/* Starts a stand-in (a program beside this one, `argument` may be NULL) and says where it listens, as
 * an URL. Dies when it cannot. */
void stand_in_start(struct child *c, const char *program, const char *argument, char url[64]);

/* DIR/workspace and DIR/skills, unless there are any. */
void demo_prepare(const char *dir);
/* A descriptor to read the conversation from. */
int demo_script(void);

/* For commands: makes the stand-ins do something. */
void stand_in_trouble(const char *url, const char *provider, int status, int slow_ms, int times);
void stand_in_write(const char *url, const char *service, const char *text);

#endif
