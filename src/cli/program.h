/* The program behind a command: where it is, and whether an object can be preloaded into it. */
#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include "base/err.h"

#include <limits.h>

/* Finds `name` as execvp would (in PATH when it has no slash). 0, ERR_NOT_FOUND, or ERR_INVALID when
 * it is there and cannot be executed; then `ret_problem` says why in a sentence. */
MUST_USE int program_find(const char *name, char ret_path[PATH_MAX],
                          struct error_detail *ret_problem);

/* 0, or ERR_UNSUPPORTED and in a sentence why LD_PRELOAD has no effect there: linked statically, set-user-
 * id, for another processor, another C library. Follows the interpreters of scripts. What cannot be read
 * is taken for good: the kernel decides. */
MUST_USE int program_check(const char *path, struct error_detail *ret_problem);

#endif
