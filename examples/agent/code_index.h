/* Where what is defined in the workspace, by a scan for lines that look like definitions. */
#ifndef AGENT_CODE_INDEX_H
#define AGENT_CODE_INDEX_H

#include "common.h"

#include <jansson.h>

void code_index_build(const char *workspace);
/* ["kettle.c:12: int boil(...)"]: definitions whose name the query mentions, a new reference. */
json_t *code_index_search(const char *query, int max);

#endif
