/* For tests: the files of tests/golden/otlp. */
#ifndef WIRE_GOLDEN_H
#define WIRE_GOLDEN_H

#include "base/arena.h"
#include "base/test.h"

#include <stdio.h>

static inline struct str golden_read(struct arena *arena, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
    FILE *in = fopen(path, "rb");
    if (!in)
        fail_msg("cannot open %s", path);
    fseek(in, 0, SEEK_END);
    size_t size = (size_t)ftell(in);
    rewind(in);
    char *bytes = arena_alloc(arena, size);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, size, in), size);
    fclose(in);
    return (struct str){bytes, size};
}

#endif
