/* Where people talk to the agent: the terminal, and bots on three services. Receiving and sending are
 * spans channel.cli, channel.telegram, channel.discord, channel.slack. */
#ifndef AGENT_CHANNELS_H
#define AGENT_CHANNELS_H

#include "common.h"

#include <pugmark/pugmark.h>

enum channel { CLI, TELEGRAM, DISCORD, SLACK, N_CHANNELS };

/* The terminal's input; `echo` what is read, for who only sees the output. Nothing is waited for once
 * `wake` is readable. `url` is of the services. */
void channels_start(int input, bool echo, int wake, const char *url);
void channels_stop(void);
const char *channel_name(enum channel which);

/* A message, for free(), and the span in which it was received, for the turn to link to. NULL when
 * there is none: of the terminal at the end of the input, or when woken. */
char *channel_receive(enum channel which, struct pug_context *ret_received);
/* A line of the terminal, in the middle of a turn. NULL as above. */
char *channel_ask(const char *question);
/* A piece of an answer that is not complete yet; the terminal alone shows such. */
void channel_piece(const char *text);
/* The answer. The terminal shows it unless all of it was shown in pieces. */
void channel_send(enum channel which, const char *text);

#endif
