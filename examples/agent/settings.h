/* What can be set while it runs: DIR/settings.json, read again when it changes. */
#ifndef AGENT_SETTINGS_H
#define AGENT_SETTINGS_H

struct settings {
    int context_tokens; /* messages of more than that are compacted */
    int result_tokens;  /* tool results of a turn that are longer together are shortened */
    int tool_rounds;    /* of one turn */
    int recall;         /* memories in a context */
    int request_ms;     /* how long a model may take */
};
extern struct settings settings;

/* What is not in the file, or makes no sense there, stays as it is. */
void settings_load(const char *dir);
/* Writes one into the file; who watches it will read it. 0 or -1. */
int settings_write(const char *dir, const char *name, int value);

/* A thread that tells queues_changed() of changes to the settings and to the files of DIR/skills. */
void watch_start(const char *dir);
void watch_stop(void);

#endif
