/* Bytes of a gRPC message stream. The first byte chooses the encoding and how the rest is cut into
 * pieces; however it is cut, it must be the same message or none. */
#include "net/grpc_frame.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { WIRE_MAX = 4096, INFLATED_MAX = 16384 };

static int read_in_pieces(const uint8_t *data, size_t n, size_t piece, enum coding coding,
                          struct grpc_reader *r, struct budget *budget)
{
    struct body_limits limits = {WIRE_MAX, INFLATED_MAX, budget};
    grpc_reader_init(r, coding, &limits);
    int err = 0;
    for (size_t at = 0; at < n && !err; at += piece)
        err = grpc_reader_feed(r, data + at, n - at < piece ? n - at : piece);
    return err ? err : grpc_reader_finish(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    enum coding coding = (enum coding)(data[0] & 3);
    size_t piece = 1 + (data[0] >> 2);
    struct budget budget = {.max = 64 << 10};
    struct grpc_reader whole, cut;
    int err_whole = read_in_pieces(data + 1, n - 1, n, coding, &whole, &budget);
    int err_cut = read_in_pieces(data + 1, n - 1, piece, coding, &cut, &budget);
    /* What exactly is wrong a decompressor may see sooner or later. */
    if (!err_whole != !err_cut)
        abort();
    if (whole.message.bytes.len > INFLATED_MAX || whole.message.wire_bytes > WIRE_MAX)
        abort();
    if (!err_whole &&
        (whole.message.bytes.len != cut.message.bytes.len ||
         (whole.message.bytes.len &&
          memcmp(whole.message.bytes.ptr, cut.message.bytes.ptr, whole.message.bytes.len) != 0)))
        abort();
    grpc_reader_done(&whole);
    grpc_reader_done(&cut);
    if (budget.used != 0)
        abort();
    return 0;
}
