#include "foreign.h"
#include "wire/zipkin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    foreign_check(zipkin_v1_thrift_decode, data, size);
    return 0;
}
