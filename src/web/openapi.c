/* The description of our own API for programs: docs/openapi.json, as it was built into the binary. */
#include "web/web_internal.h"

extern const unsigned char openapi_json[];
extern const size_t openapi_json_size;

void api_openapi(struct web_request *q)
{
    struct buf out = BUF_INIT;
    buf_put(&out, openapi_json, openapi_json_size);
    web_reply_json(q, 200, &out);
}
