/* Options of a verb, from a table: one place where they are read, and one way to say what is wrong.
 *
 *     struct args_option options[] = {
 *         {.name = "limit", .count = &limit, .min = 1, .max = 1000},
 *         {.name = "json", .flag = &json},
 *         ...
 *     };
 *
 * An option has one of the targets below; that also says whether it takes a value. Options may stand
 * behind other arguments, `--` ends them, an unambiguous beginning is enough (getopt_long's habits).
 * `--help` (also -h) is understood by itself. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include "base/err.h"
#include "base/str.h"

struct args_option {
    const char *name;
    char letter; /* 0: none */
    bool *flag;
    const char **text; /* not empty; may stand beside duration_ns */
    uint64_t *count;   /* a whole number from `min` to `max` */
    uint64_t *bytes;   /* the same, with K, M, G, T for powers of 1024 */
    uint64_t
        *duration_ns;    /* "1h30m", also days: "7d"; more than none, within `max` if that is set */
    const char **choice; /* one of `choices` */
    /* May come up to `max` times: their texts, and how many there are. */
    const char **list;
    size_t *n_list;
    uint64_t min, max;
    const char *const *choices; /* ends with NULL */
};

#define ARGS_OPTIONS_MAX 48

/* Moves what is no option to the front of argv + 1 and returns how many there are; or -1 with the exit
 * status when the verb is done: help was printed, or something was wrong and has been said. `verb` as
 * in "pugmark VERB". */
int args_parse(const char *verb, const char *help, const struct args_option *options, size_t n,
               int argc, char **argv, int *ret_status);
/* The same, but the first argument that is no option ends them: for a command that follows. */
int args_parse_command(const char *verb, const char *help, const struct args_option *options,
                       size_t n, int argc, char **argv, int *ret_status);

/* Says what is wrong with the arguments, and where help is; the exit status. */
PRINTF_LIKE(2, 3)
int args_wrong(const char *verb, const char *format, ...);

/* "15m", "1h30m", "7d", more than none. */
bool args_duration(const char *text, uint64_t *ret_ns);

#endif
