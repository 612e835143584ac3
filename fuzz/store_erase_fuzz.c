/* The note of a deletion or redaction: whatever the bytes, what is read of them is written as the same bytes, or
 * as fewer, and reads the same. */
#include <stdlib.h>

#include "store/local/erase.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {.bytes_max = 16 << 20};
    struct buf once = BUF_INIT, twice = BUF_INIT;
    struct store_erase e, again;
    if (!erase_decode((struct str){(const char *)data, size}, &arena, &e)) {
        MUST(!erase_encode(&e, &once));
        MUST(!erase_decode(buf_as_str(&once), &arena, &again));
        MUST(!erase_encode(&again, &twice));
        MUST(str_eq(buf_as_str(&once), buf_as_str(&twice)));
    }
    buf_done(&once);
    buf_done(&twice);
    arena_done(&arena);
    return 0;
}
