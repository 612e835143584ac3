/* X-Request-ID, as nginx has it in $request_id: the caller's, or 32 random hexadecimal digits. */
#include "sdk/handover.h"
#include "sdk/propagate.h"

bool request_id_is_valid(struct str id)
{
    if (id.len == 0 || id.len > PUG_REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        if (c <= ' ' || c > '~' || c == '"' || c == '\\' || c == '%' || c == '<' || c == '>')
            return false;
    }
    return true;
}

struct str request_id_accept(pug_carrier_get *get, void *carrier)
{
    struct str id, second;
    if (!get || !carrier_get(get, carrier, "X-Request-ID", 0, &id) ||
        carrier_get(get, carrier, "X-Request-ID", 1, &second))
        return STR_NONE;
    id = str_trim(id);
    return request_id_is_valid(id) ? id : STR_NONE;
}

int pug_request_id(struct pug_span *span, pug_carrier_get *get, void *request, pug_carrier_set *set,
                   void *response, char ret_id[PUG_REQUEST_ID_MAX + 1])
{
    struct str id = request_id_accept(get, request);
    uint8_t bytes[16];
    size_t len = id.len;
    if (id.ptr) {
        memmove(ret_id, id.ptr, len);
    } else {
        random_bytes(bytes, sizeof bytes);
        hex_put(ret_id, bytes, sizeof bytes);
        len = 2 * sizeof bytes;
    }
    ret_id[len] = '\0';
    pug_set_strn(span, "request.id", ret_id, len);
    if (set)
        set(response, "X-Request-ID", ret_id);
    return id.ptr != NULL;
}

size_t pug_request_id_current(char ret_id[PUG_REQUEST_ID_MAX + 1])
{
    char buffer[PUG_REQUEST_ID_MAX + 1];
    struct str id = ambient_request_id(buffer);
    if (id.len)
        memmove(ret_id, id.ptr, id.len);
    ret_id[id.len] = '\0';
    return id.len;
}
