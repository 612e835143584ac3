#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const char *err_text(int err)
{
    switch (err) {
    case ERR_OK:
        return "done";
#define X(name, code, text)                                                                        \
    case code:                                                                                     \
        return text;
        ERR_MAP(X)
#undef X
    default:
        return "unknown error";
    }
}

const char *err_name(int err)
{
    switch (err) {
    case ERR_OK:
        return "ERR_OK";
#define X(name, code, text)                                                                        \
    case code:                                                                                     \
        return #name;
        ERR_MAP(X)
#undef X
    default:
        return "ERR_UNKNOWN";
    }
}

int err_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0:
        return ERR_OK;
    case ENOMEM:
        return ERR_NOMEM;
    case ENOSPC:
    case EDQUOT:
        return ERR_FULL;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EINVAL:
        return ERR_INVALID;
    case EBUSY:
    case EAGAIN:
        return ERR_BUSY;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

#undef error_set
int error_set(struct error_detail *detail, int code, size_t position, const char *format, ...)
{
    if (!detail)
        return code;
    detail->code = code;
    detail->position = position;
    va_list args;
    va_start(args, format);
    vsnprintf(detail->message, sizeof detail->message, format, args);
    va_end(args);
    return code;
}
