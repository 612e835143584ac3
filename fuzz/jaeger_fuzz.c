#include "foreign.h"
#include "wire/jaeger.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    foreign_check(jaeger_thrift_decode, data, size);
    foreign_check(jaeger_compact_decode, data, size);
    foreign_check(jaeger_binary_decode, data, size);
    return 0;
}
