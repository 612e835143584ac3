/* A plugin that traces itself, for lifecycle.c: it is unloaded while a thread is there that has recorded. */
#include <pugmark/pugmark.h>

int plugin_start(void);
int plugin_start(void)
{
    struct pug_options o = {0};
    o.size = sizeof o;
    int err = pug_start(&o);
    PUG_SPAN("plugin.start");
    return err;
}

void plugin_record(void);
void plugin_record(void)
{
    PUG_SPAN("plugin.thread");
}
