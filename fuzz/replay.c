/* Runs a fuzz target over its corpus without a fuzzer, under whatever compiler and sanitizer the
 * build has: each file as it is, cut off at many places, and with single bits turned. What it does
 * is the same every time. Output is TAP, a test per file; a crash names the file and the change. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Set by whichever sanitizer is linked in. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

enum { CUTS_MAX = 64, TURNS_MAX = 64, FILE_BYTES_MAX = 1 << 20 };

static const char *now_file = "none";
static const char *now_change = "as it is";
static size_t now_at;

static void say_where(void)
{
    fprintf(stderr, "\nthe input was %s, %s %zu\n", now_file, now_change, now_at);
}

/* From memory of the exact size, so that the address sanitizer sees one byte too far. */
static void run(const uint8_t *data, size_t size, const char *change, size_t at)
{
    now_change = change;
    now_at = at;
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact)
        abort();
    if (size)
        memcpy(exact, data, size);
    if (LLVMFuzzerTestOneInput(exact, size) != 0)
        abort();
    free(exact);
}

static void run_with_changes(uint8_t *data, size_t size)
{
    run(data, size, "as it is", 0);
    size_t step = size / CUTS_MAX + 1;
    for (size_t at = 0; at < size; at += step)
        run(data, at, "cut off at", at);
    uint64_t random = 0x9e3779b97f4a7c15u ^ size;
    for (int i = 0; size && i < TURNS_MAX; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size_t at = (size_t)(random >> 33) % size;
        uint8_t bit = (uint8_t)(1u << (random >> 30 & 7));
        data[at] ^= bit;
        run(data, size, "with a bit turned in byte", at);
        data[at] ^= bit;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv)
{
    char **paths = NULL;
    size_t n = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (!dir) {
            printf("Bail out! cannot read %s\n", argv[i]);
            exit(1);
        }
        for (struct dirent *entry; (entry = readdir(dir));) {
            if (entry->d_name[0] == '.')
                continue;
            char **more = reallocarray(paths, n + 1, sizeof *paths);
            if (!more)
                abort();
            paths = more;
            if (asprintf(&paths[n], "%s/%s", argv[i], entry->d_name) < 0)
                abort();
            n++;
        }
        closedir(dir);
    }
    if (n == 0) {
        printf("Bail out! there is no corpus\n");
        return 1;
    }
    qsort(paths, n, sizeof *paths, by_name);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(say_where);

    uint8_t *data = malloc(FILE_BYTES_MAX);
    printf("1..%zu\n", n);
    for (size_t i = 0; i < n; i++) {
        FILE *in = fopen(paths[i], "rb");
        size_t size = in && data ? fread(data, 1, FILE_BYTES_MAX, in) : 0;
        if (!in || ferror(in)) {
            printf("not ok %zu - cannot read %s\n", i + 1, paths[i]);
        } else {
            now_file = paths[i];
            run_with_changes(data, size);
            const char *slash = strrchr(paths[i], '/');
            printf("ok %zu - %s\n", i + 1, slash ? slash + 1 : paths[i]);
        }
        if (in)
            fclose(in);
        fflush(stdout);
        free(paths[i]);
    }
    free(paths);
    free(data);
    return 0;
}
