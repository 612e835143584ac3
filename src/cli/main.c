#include "cli/cli.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* In alphabetical order. */
static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} verbs[] = {
    {"config", cli_config, "check, show or bring up to date pugmark.toml"},
    {"demo", cli_demo, "the sample system against a server of its own"},
    {"export", cli_export, "spans of a server into a file"},
    {"import", cli_import, "spans of files (OTLP, Zipkin, Jaeger, Chrome) into a server"},
    {"load", cli_load, "synthetic traces, sent or written to a file"},
    {"query", cli_query, "the newest traces that match a TraceQL query"},
    {"run", cli_run, "a program with spans for its HTTP, SQL and Redis calls, no source needed"},
    {"serve", cli_serve, "receive spans, keep them, serve the page and the APIs"},
    {"store", cli_store, "check, describe, compact, erase, export or import the spans on disk"},
    {"tail", cli_tail, "spans as they are stored"},
    {"trace", cli_trace, "one trace as a waterfall in the terminal"},
    {NULL, NULL, NULL},
};

static void usage(FILE *out)
{
    fputs("usage: pugmark VERB [ARGUMENTS]\n\n", out);
    for (const struct verb *v = verbs; v->name; v++)
        fprintf(out, "  %-8s %s\n", v->name, v->summary);
    fputs("\n`pugmark VERB --help` tells more; `man pugmark` tells all.\n", out);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return CLI_USAGE;
    }
    bool help = !strcmp(argv[1], "help");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || (help && argc == 2)) {
        usage(stdout);
        return CLI_DONE;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
        puts("pugmark " PUGMARK_VERSION);
        return CLI_DONE;
    }
    const char *name = argv[help ? 2 : 1];
    char *only_help[] = {argv[1], (char[]){"--help"}, NULL};
    for (const struct verb *v = verbs; v->name; v++)
        if (!strcmp(name, v->name))
            return help ? v->run(2, only_help) : v->run(argc - 1, argv + 1);
    fprintf(stderr, "pugmark: there is no verb \"%s\"; `pugmark --help` lists them\n", name);
    return CLI_USAGE;
}
