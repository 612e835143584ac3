/* A client of the Model Context Protocol (JSON-RPC 2.0; revision 2025-06-18): servers that are
 * programs of ours, spoken to over pipes, and servers behind an URL. The trace goes along in
 * `_meta` of each request's parameters. All in the turn's thread. */
#ifndef AGENT_MCP_H
#define AGENT_MCP_H

#include "common.h"

#include <jansson.h>

/* 0, or -1: said why. */
int mcp_connect(const char *name, const char *program);
int mcp_connect_url(const char *name, const char *url);
/* Adds all servers' tools to [{"name", "description", "parameters"}]. */
void mcp_tools_add(json_t *tools);
bool mcp_have(const char *tool);
/* Always says something, for free(). */
char *mcp_call_tool(const char *call_id, const char *tool, const json_t *arguments,
                    bool *ret_failed);
/* Asks again for the tools of servers that said theirs changed, and of all now and then. */
void mcp_refresh(void);
void mcp_shutdown(void);

#endif
