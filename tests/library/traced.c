/* A program as users write it: two spans, one inside the other, and its counts on stdout. */
#include <pugmark/pugmark.h>

#include <stdio.h>

static void tell(void *user, const char *message)
{
    (void)user;
    fprintf(stderr, "pugmark: %s\n", message);
}

int main(void)
{
    struct pug_options options = {0};
    struct pug_counts counts = {0};
    options.size = sizeof options;
    options.log = tell;
    counts.size = sizeof counts;
    if (pug_start(&options) != 0)
        return 1;
    {
        PUG_SPAN("outer", PUG_INT("number", 7));
        PUG_SPAN("inner", PUG_STR("text", "seven"), PUG_KIND(PUG_KIND_CLIENT));
        pug_event(PUG_CURRENT, "half", PUG_BOOL("true", 1));
    }
    if (pug_flush(5000) != 0)
        return 1;
    pug_counts_read(&counts);
    printf("recorded %d exported %d\n", (int)counts.recorded, (int)counts.exported);
    return pug_stop() == 0 ? 0 : 1;
}
