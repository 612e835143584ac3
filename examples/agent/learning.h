/* What a turn teaches: which skills do well, and what is done so often that it should be one. */
#ifndef AGENT_LEARNING_H
#define AGENT_LEARNING_H

#include <stdbool.h>

/* `tools` are the names in their order, with blanks between; "" when there were none. `skill` was
 * followed, NULL: none. */
void learning_after_turn(const char *tools, const char *skill, bool failed);
/* The person says how the last skill did; false when there was none. */
bool learning_feedback(bool good);
/* Was a skill written since the last time this was asked? Then the folder changes. */
bool learning_wrote(void);

#endif
