/* Skills: files DIR/skills/NAME.md that tell the model how something is done here.
 *
 *     ---
 *     name: release-check
 *     description: how to find out what is new in a release
 *     ---
 *     Look at the page /releases first ...
 *
 * Which one fits is found in two ways, by words (BM25) and by meaning (vectors), and by how well it
 * did so far. All in the turn's thread. */
#ifndef AGENT_SKILLS_H
#define AGENT_SKILLS_H

#include "common.h"

void skills_start(const char *dir);
void skills_stop(void);
/* Something changed in the folder. */
void skills_hot_reload(void);
size_t skills_count(void);
/* The one that fits: its name and text stay valid until the next reload. False when none does. */
bool skills_match(const char *query, const char **ret_name, const char **ret_text);
/* Has a model write one, and puts it into the folder; who watches that will reload. 0 or -1. */
int skills_generate(const char *name, const char *purpose);
/* How a skill did. One that does badly is written anew: true then. */
bool skills_evolve(const char *name, bool good);

#endif
