/* What the agent can do itself. (What MCP servers can do for it: mcp.h.)
 *
 *   shell        a few commands, in the workspace, with limits      {"command"}
 *   file         read, write or list in the workspace               {"operation", "path", "content"}
 *   search_code  lines of the workspace's files with a text in them {"pattern"}
 *   web_scrape   the text of a page of the one site it may look at  {"path"} */
#ifndef AGENT_TOOLS_H
#define AGENT_TOOLS_H

#include "common.h"

#include <jansson.h>

/* `site` is an URL that the paths of pages are put behind. */
void tools_start(const char *workspace, const char *site, const char *audit_path);
void tools_stop(void);
/* [{"name", "description", "parameters"}], a new reference. */
json_t *tools_list(void);
bool tools_have(const char *name);
/* Always says something, for free(): the result, or why there is none (`*ret_failed`). Thread-safe. */
char *tools_execute(const char *call_id, const char *name, const json_t *arguments,
                    bool *ret_failed);
/* A line in the audit log, with the trace in it. */
void tools_audit(const char *tool, const json_t *arguments, bool failed, bool cached);

/* ---- shell.c ---- */

/* 0 when it ran and said 0; else what is wrong is in the output. */
int shell_run(const char *workspace, const char *command, struct text *ret_output);

#endif
