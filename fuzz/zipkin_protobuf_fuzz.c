#include "foreign.h"
#include "wire/zipkin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    foreign_check(zipkin_protobuf_decode, data, size);
    return 0;
}
