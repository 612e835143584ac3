/* Statements, messages and URLs of a program that `pugmark run` watches. The first byte says which:
 *
 *   'm'  an error's message    'u'  a URL    else a statement
 *
 * What has lost its values once loses nothing more; no string is left in it; what was valid UTF-8 still
 * is; nothing is written past the end. */
#include "probe/sql.h"
#include "probe/url.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static size_t statement(struct str in, char *out, size_t size)
{
    struct sql_summary s;
    size_t n = sql_sanitize(in, out, size, &s);
    MUST(strlen(s.operation) < SQL_WORD_MAX && strlen(s.collection) < SQL_WORD_MAX);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 4096)
        return 0;
    size_t (*clean)(struct str, char *, size_t) = data[0] == 'm'   ? sql_sanitize_message
                                                  : data[0] == 'u' ? url_without_secrets
                                                                   : statement;
    struct str in = {(const char *)data + 1, size - 1};
    size_t room = 8 * size + 64;
    char *once = malloc(room), *twice = malloc(room), *cut = malloc(size);
    MUST(once && twice && cut);
    size_t n = clean(in, once, room);
    MUST(n < room);
    MUST(!str_is_utf8(in) || str_is_utf8((struct str){once, n}));
    size_t again = clean((struct str){once, n}, twice, room);
    MUST(str_eq((struct str){twice, again}, (struct str){once, n}));
    size_t part = clean(in, cut, size / 2);
    MUST(part <= size / 2 && memcmp(cut, once, part) == 0);
    MUST(data[0] == 'u' || !str_is_utf8(in) || str_is_utf8((struct str){cut, part}));
    struct url u;
    if (url_parse(in, &u))
        MUST(u.host.len > 0 || u.port == 0 || u.scheme.len > 0);
    free(once);
    free(twice);
    free(cut);
    return 0;
}
