#include "base/test.h"

#include "cli/program.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static int make_dir(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/pugmark-program-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static const char *file(const char *name, const void *bytes, size_t n, mode_t mode)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static const char *script(const char *name, const char *text)
{
    return file(name, text, strlen(text), 0755);
}

static const char *elf(const char *name, int machine, const char *interpreter)
{
    struct {
        Elf64_Ehdr e;
        Elf64_Phdr p;
        char interpreter[64];
    } f = {.e = {.e_machine = (Elf64_Half)machine, .e_phoff = sizeof(Elf64_Ehdr), .e_phnum = 1},
           .p = {.p_type = interpreter ? PT_INTERP : PT_LOAD,
                 .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr)}};
    memcpy(f.e.e_ident, ELFMAG, SELFMAG);
    f.e.e_ident[EI_CLASS] = ELFCLASS64;
    if (interpreter)
        snprintf(f.interpreter, sizeof f.interpreter, "%s", interpreter);
    return file(name, &f, sizeof f, 0755);
}

#if defined(__aarch64__)
#define HERE EM_AARCH64
#define ELSEWHERE EM_X86_64
#else
#define HERE EM_X86_64
#define ELSEWHERE EM_AARCH64
#endif

static void refused(const char *path, const char *because)
{
    struct error_detail problem = {.code = 0};
    assert_int_equal(program_check(path, &problem), ERR_UNSUPPORTED);
    if (!strstr(problem.message, because))
        fail_msg("\"%s\" does not say \"%s\"", problem.message, because);
}

static void taken(const char *path)
{
    struct error_detail problem = {.code = 0};
    if (program_check(path, &problem))
        fail_msg("%s", problem.message);
}

static void a_command_is_found_as_execvp_finds_it(void **state)
{
    char path[PATH_MAX], expected[128];
    struct error_detail problem;
    char *before = strdup(getenv("PATH"));
    assert_non_null(before);
    snprintf(expected, sizeof expected, "%s", script("tool", "#!/bin/sh\n"));
    setenv("PATH", "/nonexistent:/dev/null", 1);
    assert_int_equal(program_find("tool", path, &problem), ERR_NOT_FOUND);
    assert_string_equal(problem.message, "there is no \"tool\" in PATH");
    char with[256];
    snprintf(with, sizeof with, "/nonexistent:%s", dir);
    setenv("PATH", with, 1);
    assert_int_equal(program_find("tool", path, &problem), 0);
    assert_string_equal(path, expected);
    file("plain", "x", 1, 0600);
    assert_int_equal(program_find("plain", path, &problem), ERR_INVALID);
    assert_non_null(strstr(problem.message, "may not be executed"));
    setenv("PATH", before, 1);
    free(before);
    assert_int_equal(program_find(expected, path, &problem), 0);
    assert_int_equal(program_find("/nonexistent/x", path, &problem), ERR_NOT_FOUND);
    assert_int_equal(program_find(dir, path, &problem), ERR_INVALID);
    assert_non_null(strstr(problem.message, "is a directory"));
    assert_int_equal(program_find("", path, &problem), ERR_NOT_FOUND);
}

static void static_and_foreign_programs_are_refused(void **state)
{
    refused(elf("static", HERE, NULL), "linked statically");
    refused(elf("foreign", ELSEWHERE, "/lib/ld-linux.so"), "another processor");
    refused(elf("musl", HERE, "/lib/ld-musl-x86_64.so.1"), "musl");
    taken(elf("good", HERE, "/lib64/ld-linux-x86-64.so.2"));
    taken("/bin/sh");
    taken("/nonexistent");
    taken(file("short", ELFMAG, SELFMAG, 0755));
}

static void a_program_with_other_rights_is_refused(void **state)
{
    if (getuid() != 0) {
        print_message("only root can give a file away\n");
        skip();
    }
    const char *path = elf("setuid", HERE, "/lib64/ld-linux-x86-64.so.2");
    assert_int_equal(chown(path, 12345, 0), 0);
    assert_int_equal(chmod(path, 04755), 0);
    refused(path, "other rights");
    assert_int_equal(chown(path, 0, 0), 0); /* takes the bit away as well */
    assert_int_equal(chmod(path, 04755), 0);
    taken(path); /* root's own: nothing changes */
}

static void scripts_are_as_good_as_their_interpreters(void **state)
{
    char text[256], name[128];
    taken(script("sh", "#!/bin/sh\nexit\n"));
    taken(script("env", "#!/usr/bin/env sh\n"));
    taken(script("none", "#!\n"));
    taken(script("missing", "#!/nonexistent/interpreter -x\n"));
    taken(script("text", "echo no interpreter\n"));
    snprintf(name, sizeof name, "%s", elf("static", HERE, NULL));
    snprintf(text, sizeof text, "#! %s -x\n", name);
    refused(script("of-static", text), "linked statically");
    snprintf(text, sizeof text, "#!/usr/bin/env -S A=b %s -x\n", name);
    refused(script("env-static", text), "linked statically");
    snprintf(text, sizeof text, "#!%s/loop\n", dir);
    taken(script("loop", text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_is_found_as_execvp_finds_it),
        cmocka_unit_test(static_and_foreign_programs_are_refused),
        cmocka_unit_test(a_program_with_other_rights_is_refused),
        cmocka_unit_test(scripts_are_as_good_as_their_interpreters),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
