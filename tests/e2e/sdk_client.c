/* A traced program for library.test.mjs: it records one of everything and prints, as JSON, the ids it used, what the library
 * told it and the counts after the flush. A traceparent given as argument is continued. */
#include <pugmark/pugmark.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char told[400];

static void tell(void *user, const char *message)
{
    (void)user;
    snprintf(told, sizeof told, "%s", message);
}

static const char *from_arguments(void *carrier, const char *name, size_t nth, size_t *ret_len)
{
    char **argv = carrier;
    (void)ret_len;
    if (nth)
        return NULL;
    return strcmp(name, "traceparent") == 0 ? argv[1] : argv[1] ? argv[2] : NULL;
}

static void put_context(const char *key, const struct pug_context *c)
{
    char trace[33], span[17];
    pug_trace_id_hex(c, trace);
    pug_span_id_hex(c, span);
    printf("\"%s\":{\"traceId\":\"%s\",\"spanId\":\"%s\"},", key, trace, span);
}

static void record(const struct pug_context *remote)
{
    struct pug_span handle;
    struct pug_context linked;
    pug_context_from_hex(&linked, "0123456789abcdef0123456789abcdef", "0123456789abcdef");
    PUG_SPAN_FROM(remote, "client.request", PUG_INT("int", INT64_MIN), PUG_BOOL("bool", 1),
                  PUG_DOUBLE("double", 0.1), PUG_STR("string", "gr\xc3\xbc\xc3\x9f"),
                  PUG_KIND(PUG_KIND_SERVER));
    struct pug_context request = pug_context_current();
    put_context("request", &request);
    pug_event(PUG_CURRENT, "half.way", PUG_INT("percent", 50));
    pug_link(PUG_CURRENT, &linked);
    pug_span_start(&handle, "client.handle", PUG_KIND(PUG_KIND_CLIENT));
    put_context("handle", &handle.context);
    pug_error(&handle, "it broke");
    pug_span_end(&handle);
}

int main(int argc, char **argv)
{
    struct pug_options options = {0};
    struct pug_context remote;
    struct pug_counts counts = {0};
    (void)argc;
    options.size = sizeof options;
    options.log = tell;
    counts.size = sizeof counts;
    if (pug_start(&options) != 0) {
        fprintf(stderr, "%s\n", told);
        return 1;
    }
    printf("{");
    pug_extract(from_arguments, argv, &remote);
    record(&remote);
    int flushed = pug_flush(8000);
    pug_counts_read(&counts);
    printf("\"told\":\"%s\",\"flushed\":%d,\"recorded\":%d,\"exported\":%d,\"lost\":%d}\n", told,
           flushed, (int)counts.recorded, (int)counts.exported,
           (int)(counts.lost_export + counts.lost_queue_full));
    pug_stop();
    return 0;
}
