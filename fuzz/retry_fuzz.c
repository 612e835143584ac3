/* What a collector says of when to come again: the first byte chooses between Retry-After and
 * grpc-status-details-bin; what is accepted is bounded. */
#include "sdk/retry.h"

#include <stdlib.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t ns = UINT64_MAX;
    if (size == 0)
        return 0;
    struct str text = {(const char *)data + 1, size - 1};
    bool ok = data[0] == 'i' ? retry_info_parse(text, &ns)
                             : retry_after_parse(text, UINT64_C(784111777000000000), &ns);
    MUST(ok ? ns <= RETRY_AFTER_MAX_NS : ns == UINT64_MAX);
    return 0;
}
