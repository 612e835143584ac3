#include "foreign.h"
#include "wire/xray.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    foreign_check(xray_decode, data, size);
    return 0;
}
