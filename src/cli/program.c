#include "cli/program.h"

#include "base/str.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { INTERPRETERS_MAX = 5, HEAD_BYTES = 4096, PROGRAM_HEADERS_MAX = 64 };

/* ---- finding ---- */

static int is_program(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO;
    return S_ISREG(st.st_mode) && access(path, X_OK) == 0 ? 0 : ERR_INVALID;
}

static int judge(const char *path, struct error_detail *problem)
{
    struct stat st;
    int err = is_program(path);
    if (err == ERR_NOT_FOUND)
        return error_set(problem, err, 0, "%.120s is not there", path);
    if (err == ERR_IO)
        return error_set(problem, ERR_INVALID, 0, "%.120s: %s", path, strerror(errno));
    if (err)
        return error_set(problem, err, 0, "%.120s %s", path,
                         stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? "is a directory"
                                                                     : "may not be executed");
    return 0;
}

int program_find(const char *name, char ret_path[PATH_MAX], struct error_detail *ret_problem)
{
    const char *path = getenv("PATH");
    if (!name[0])
        return error_set(ret_problem, ERR_NOT_FOUND, 0, "the command is empty");
    if (strchr(name, '/')) {
        if (snprintf(ret_path, PATH_MAX, "%s", name) >= PATH_MAX)
            return error_set(ret_problem, ERR_INVALID, 0, "the name of the command is too long");
        return judge(ret_path, ret_problem);
    }
    struct str rest = str_from(path ? path : "/bin:/usr/bin");
    char denied[PATH_MAX] = "";
    while (rest.ptr) {
        struct str dir = str_split(rest, ':', &rest);
        if (snprintf(ret_path, PATH_MAX, "%.*s%s%s", STR_ARG(dir), dir.len ? "/" : "./", name) >=
            PATH_MAX)
            continue;
        int err = is_program(ret_path);
        if (!err)
            return 0;
        if (err == ERR_INVALID && !denied[0])
            memcpy(denied, ret_path, strlen(ret_path) + 1);
    }
    return denied[0]
               ? judge(denied, ret_problem)
               : error_set(ret_problem, ERR_NOT_FOUND, 0, "there is no \"%.100s\" in PATH", name);
}

/* ---- checking ---- */

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_NONE
#endif

/* The kernel then starts the program with AT_SECURE, and the dynamic linker forgets LD_PRELOAD. */
static bool changes_user(int fd, const struct stat *st)
{
    if ((st->st_mode & S_ISUID) && st->st_uid != getuid())
        return true;
    if ((st->st_mode & S_ISGID) && (st->st_mode & S_IXGRP) && st->st_gid != getgid())
        return true;
    return geteuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

static int check_elf(int fd, const char *path, const char *head, size_t n,
                     struct error_detail *problem)
{
    Elf64_Ehdr e;
    bool interpreted = false;
    if (n < sizeof e)
        return 0;
    memcpy(&e, head, sizeof e);
    if (e.e_ident[EI_CLASS] != ELFCLASS64 || (MACHINE != EM_NONE && e.e_machine != MACHINE))
        return error_set(problem, ERR_UNSUPPORTED, 0,
                         "%.120s is for another processor than this pugmark", path);
    for (unsigned i = 0; i < e.e_phnum && i < PROGRAM_HEADERS_MAX; i++) {
        Elf64_Phdr p;
        char interpreter[256] = "";
        if (pread(fd, &p, sizeof p, (off_t)(e.e_phoff + i * sizeof p)) != sizeof p)
            return 0;
        if (p.p_type != PT_INTERP)
            continue;
        interpreted = true;
        if (pread(fd, interpreter, sizeof interpreter - 1, (off_t)p.p_offset) > 0 &&
            strstr(interpreter, "musl"))
            return error_set(problem, ERR_UNSUPPORTED, 0,
                             "%.120s uses the C library musl, and the preloaded object glibc",
                             path);
    }
    return interpreted
               ? 0
               : error_set(problem, ERR_UNSUPPORTED, 0,
                           "%.120s is linked statically, so nothing can be preloaded into it",
                           path);
}

static int check(const char *path, unsigned depth, struct error_detail *problem);

/* "#! interpreter argument": the interpreter is what runs; behind env(1) it is the argument. */
static int check_script(const char *line, unsigned depth, struct error_detail *problem)
{
    char interpreter[PATH_MAX], program[PATH_MAX];
    struct str rest = str_trim(str_from(line + 2)), word;
    word = (struct str){rest.ptr, strcspn(rest.ptr, " \t\n")};
    if (word.len > rest.len)
        word.len = rest.len;
    if (snprintf(interpreter, sizeof interpreter, "%.*s", STR_ARG(word)) >= (int)sizeof interpreter)
        return 0;
    int err = check(interpreter, depth + 1, problem);
    const char *slash = strrchr(interpreter, '/');
    if (err || strcmp(slash ? slash + 1 : interpreter, "env") != 0)
        return err;
    do {
        rest = str_trim(str_skip(rest, word.len));
        word = (struct str){rest.ptr, 0};
        while (word.len < rest.len && !strchr(" \t", rest.ptr[word.len]))
            word.len++;
    } while (word.len && (word.ptr[0] == '-' || memchr(word.ptr, '=', word.len)));
    snprintf(interpreter, sizeof interpreter, "%.*s", STR_ARG(word));
    return word.len && program_find(interpreter, program, NULL) == 0
               ? check(program, depth + 1, problem)
               : 0;
}

static int check(const char *path, unsigned depth, struct error_detail *problem)
{
    char head[HEAD_BYTES + 1];
    struct stat st;
    int fd = depth < INTERPRETERS_MAX ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    int err = 0;
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, head, HEAD_BYTES);
    head[n > 0 ? n : 0] = '\0';
    if (n > 2 && memcmp(head, "#!", 2) == 0) { /* its set-user-id bit counts for nothing */
        head[strcspn(head, "\n")] = '\0';
        err = check_script(head, depth, problem);
    } else if (fstat(fd, &st) == 0 && changes_user(fd, &st)) {
        err =
            error_set(problem, ERR_UNSUPPORTED, 0,
                      "%.120s runs with other rights than yours (set-user-id or capabilities), so "
                      "nothing can be preloaded into it",
                      path);
    } else if (n > SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0) {
        err = check_elf(fd, path, head, (size_t)n, problem);
    }
    close(fd);
    return err;
}

int program_check(const char *path, struct error_detail *ret_problem)
{
    return check(path, 0, ret_problem);
}
