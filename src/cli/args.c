#include "cli/args.h"

#include "cli/cli.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { VALUE_BASE = 1000 };

int args_wrong(const char *verb, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "pugmark %s: ", verb);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; `pugmark %s --help` tells more\n", verb);
    return CLI_USAGE;
}

bool args_duration(const char *text, uint64_t *ret_ns)
{
    return str_to_age_ns(str_from(text), ret_ns) && *ret_ns > 0;
}

static int wrong_choice(const char *verb, const struct args_option *o, const char *text)
{
    char list[256] = "";
    size_t n = 0;
    for (const char *const *c = o->choices; *c && n < sizeof list; c++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s",
                              c == o->choices ? ""
                              : c[1]          ? ", "
                                              : " or ",
                              *c);
    return args_wrong(verb, "--%s \"%s\": expected %s", o->name, text, list);
}

static int take_number(const char *verb, const struct args_option *o, const char *text)
{
    uint64_t n;
    bool ok = o->bytes ? str_to_bytes(str_from(text), &n) : str_to_u64(str_from(text), &n);
    if (!ok || n < o->min || n > o->max)
        return args_wrong(verb, "--%s \"%s\": expected %llu to %llu%s", o->name, text,
                          (unsigned long long)o->min, (unsigned long long)o->max,
                          o->bytes ? " bytes (K, M, G and T are understood)" : "");
    *(o->bytes ? o->bytes : o->count) = n;
    return 0;
}

/* 0, or the exit status. */
static int take(const char *verb, const struct args_option *o, const char *text)
{
    if (o->flag) {
        *o->flag = true;
        return 0;
    }
    if (o->list) {
        if (!*text)
            return args_wrong(verb, "--%s is empty", o->name);
        if (*o->n_list == o->max)
            return args_wrong(verb, "--%s more than %llu times", o->name,
                              (unsigned long long)o->max);
        o->list[(*o->n_list)++] = text;
        return 0;
    }
    if (o->duration_ns) {
        uint64_t ns;
        if (!args_duration(text, &ns) || (o->max && ns > o->max))
            return args_wrong(verb, "--%s \"%s\": expected a duration such as 15m, 1h, 7d", o->name,
                              text);
        *o->duration_ns = ns;
    }
    if (o->text) {
        if (!*text)
            return args_wrong(verb, "--%s is empty", o->name);
        *o->text = text;
    }
    if (o->duration_ns || o->text)
        return 0;
    if (o->choice) {
        for (const char *const *c = o->choices; *c; c++)
            if (!strcmp(*c, text)) {
                *o->choice = *c;
                return 0;
            }
        return wrong_choice(verb, o, text);
    }
    return take_number(verb, o, text);
}

/* What getopt_long refused, in our words: an option it does not know, cannot tell apart, or that lacks
 * its value. */
static int refused(const char *verb, int c, char **argv, const struct args_option *options,
                   size_t n)
{
    const char *as_written = argv[optind - 1];
    if (c == ':')
        return args_wrong(verb, "%s wants a value", as_written);
    if (optopt >= VALUE_BASE && (size_t)(optopt - VALUE_BASE) < n)
        return args_wrong(verb, "--%s takes no value", options[optopt - VALUE_BASE].name);
    if (optopt && as_written[1] != '-')
        return args_wrong(verb, "there is no option -%c", optopt);
    return args_wrong(verb, "there is no option %.*s", (int)strcspn(as_written, "="), as_written);
}

static int parse(const char *verb, const char *help, const char *manner,
                 const struct args_option *options, size_t n, int argc, char **argv,
                 int *ret_status)
{
    struct option longs[ARGS_OPTIONS_MAX + 2] = {{"help", no_argument, NULL, 'h'}};
    char letters[2 * ARGS_OPTIONS_MAX + 4];
    size_t at = (size_t)snprintf(letters, sizeof letters, "%s:h", manner);
    for (size_t i = 0; i < n && i < ARGS_OPTIONS_MAX; i++) {
        longs[i + 1] = (struct option){options[i].name,
                                       options[i].flag ? no_argument : required_argument, NULL,
                                       VALUE_BASE + (int)i};
        if (options[i].letter)
            at += (size_t)snprintf(letters + at, sizeof letters - at, "%c%s", options[i].letter,
                                   options[i].flag ? "" : ":");
    }
    opterr = 0;
    optind = 0; /* also what getopt remembers of another run */
    for (int c; (c = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        const struct args_option *o = NULL;
        if (c == 'h') {
            fputs(help, stdout);
            *ret_status = CLI_DONE;
            return -1;
        }
        for (size_t i = 0; i < n; i++)
            if (c == VALUE_BASE + (int)i || (options[i].letter && c == options[i].letter))
                o = &options[i];
        *ret_status = o ? take(verb, o, optarg) : refused(verb, c, argv, options, n);
        if (*ret_status)
            return -1;
    }
    memmove(argv + 1, argv + optind, (size_t)(argc - optind + 1) * sizeof *argv);
    return argc - optind;
}

int args_parse(const char *verb, const char *help, const struct args_option *options, size_t n,
               int argc, char **argv, int *ret_status)
{
    return parse(verb, help, "", options, n, argc, argv, ret_status);
}

int args_parse_command(const char *verb, const char *help, const struct args_option *options,
                       size_t n, int argc, char **argv, int *ret_status)
{
    return parse(verb, help, "+", options, n, argc, argv, ret_status);
}
