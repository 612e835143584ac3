#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Chunks double from 4 KiB to 1 MiB; what is larger than half a chunk gets one of its own behind
 * the head, so that the room in the head is not lost. */
enum { CHUNK_BYTES_MIN = 4 << 10, CHUNK_BYTES_MAX = 1 << 20 };

struct arena_chunk {
    struct arena_chunk *older;
    size_t bytes; /* with this header */
    char room[] __attribute__((aligned(16)));
};

static struct arena_chunk *chunk_new(struct arena *a, size_t room)
{
    size_t bytes;
    if (__builtin_add_overflow(room, sizeof(struct arena_chunk), &bytes))
        return NULL;
    if (a->bytes_max && (bytes > a->bytes_max || a->bytes > a->bytes_max - bytes))
        return NULL;
    struct arena_chunk *chunk = malloc(bytes);
    if (!chunk)
        return NULL;
    chunk->bytes = bytes;
    a->bytes += bytes;
    return chunk;
}

void arena_done(struct arena *a)
{
    if (!a)
        return;
    for (struct arena_chunk *chunk = a->head; chunk;) {
        struct arena_chunk *older = chunk->older;
        free(chunk);
        chunk = older;
    }
    *a = (struct arena){.bytes_max = a->bytes_max, .first = a->first};
}

void arena_wipe(struct arena *a)
{
    for (struct arena_chunk *chunk = a->head; chunk; chunk = chunk->older)
        explicit_bzero(chunk->room, chunk->bytes - sizeof *chunk);
    arena_done(a);
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *kept = a->head;
    if (!kept)
        return;
    a->head = kept->older;
    size_t bytes = kept->bytes;
    arena_done(a);
    kept->older = NULL;
    a->head = kept;
    a->bytes = bytes;
    a->next = kept->room;
    a->end = (char *)kept + kept->bytes;
}

void *arena_alloc_slow(struct arena *a, size_t n)
{
    size_t room = (n + 7) & ~(size_t)7;
    if (room < n)
        return NULL;
    size_t least = a->first ? a->first : CHUNK_BYTES_MIN;
    size_t chunk_bytes = a->head ? a->head->bytes * 2 : least;
    if (chunk_bytes < least)
        chunk_bytes = least;
    if (chunk_bytes > CHUNK_BYTES_MAX)
        chunk_bytes = CHUNK_BYTES_MAX;
    bool own = room > chunk_bytes / 2;
    struct arena_chunk *chunk = chunk_new(a, own ? room : chunk_bytes);
    if (!chunk)
        return NULL;
    if (own && a->head) {
        chunk->older = a->head->older;
        a->head->older = chunk;
        return chunk->room;
    }
    chunk->older = a->head;
    a->head = chunk;
    a->next = chunk->room + room;
    a->end = (char *)chunk + chunk->bytes;
    return chunk->room;
}

void *arena_zalloc(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);
    if (p && n)
        memset(p, 0, n);
    return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(n, size, &bytes) ? NULL : arena_alloc(a, bytes);
}

struct str arena_str(struct arena *a, struct str s)
{
    char *copy = s.len < SIZE_MAX ? arena_alloc(a, s.len + 1) : NULL;
    if (!copy)
        return STR_NONE;
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return (struct str){copy, s.len};
}

char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}
