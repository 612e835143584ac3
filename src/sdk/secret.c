#include "sdk/secret.h"

#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void secret_free(struct buf *secret)
{
    if (secret->ptr)
        explicit_bzero(secret->ptr, secret->cap);
    buf_done(secret);
}

static void cut_line_end(struct buf *b)
{
    while (b->len && (b->ptr[b->len - 1] == '\n' || b->ptr[b->len - 1] == '\r'))
        b->len--;
}

/* ---- file ---- */

static int read_secret(int fd, const char *path, struct buf *ret, struct error_detail *detail)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return error_set(detail, ERR_INVALID, 0, "%.120s is not a regular file", path);
    /* All the room at once: growing would leave copies behind. */
    if (!buf_reserve(ret, SECRET_BYTES_MAX + 1))
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    while (ret->len <= SECRET_BYTES_MAX) {
        ssize_t n = read(fd, ret->ptr + ret->len, SECRET_BYTES_MAX + 1 - ret->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(detail, err_from_errno(errno), 0, "%.120s: %s", path, strerror(errno));
        if (n == 0)
            break;
        ret->len += (size_t)n;
    }
    if (ret->len > SECRET_BYTES_MAX)
        return error_set(detail, ERR_TOO_LARGE, 0, "%.120s is larger than %d KiB", path,
                         SECRET_BYTES_MAX >> 10);
    cut_line_end(ret);
    return 0;
}

int secret_read_file(const char *path, struct buf *ret, struct error_detail *ret_detail)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(ret_detail, err_from_errno(errno), 0, "%.120s: %s", path, strerror(errno));
    int err = read_secret(fd, path, ret, ret_detail);
    close(fd);
    return err;
}

static int from_file(const struct settings *s, const char *name, struct buf *ret,
                     struct error_detail *detail)
{
    char path[SETTING_TEXT_MAX + 300];
    const struct setting *directory = &s->values[SET_SECRETS_DIRECTORY];
    if (!directory->is_set)
        return error_set(detail, ERR_INVALID, 0,
                         "the provider \"file\" needs `directory` in [telemetry.secrets], or "
                         "CREDENTIALS_DIRECTORY");
    if (strchr(name, '/') || name[0] == '.' || strlen(name) > 255)
        return error_set(detail, ERR_INVALID, 0, "\"%.60s\" is not the name of a file", name);
    snprintf(path, sizeof path, "%s/%s", directory->text, name);
    return secret_read_file(path, ret, detail);
}

/* ---- environment ---- */

static int from_environment(const char *name, struct buf *ret, struct error_detail *detail)
{
    const char *value = settings_variable(name);
    if (!value)
        return error_set(detail, ERR_NOT_FOUND, 0, "the variable %.100s is not set", name);
    size_t len = strlen(value);
    if (len > SECRET_BYTES_MAX)
        return error_set(detail, ERR_TOO_LARGE, 0, "%.100s is larger than %d KiB", name,
                         SECRET_BYTES_MAX >> 10);
    buf_put(ret, value, len);
    return buf_ok(ret) ? 0 : error_set(detail, ERR_NOMEM, 0, "out of memory");
}

int secret_get(const struct settings *s, const char *name, struct buf *ret,
               struct error_detail *ret_detail)
{
    const char *provider = s->values[SET_SECRETS_PROVIDER].text;
    uint64_t deadline = clock_monotonic_ns() + s->values[SET_SECRETS_TIMEOUT_MS].count * NS_PER_MS;
    int err;
    if (strcmp(provider, "file") == 0)
        err = from_file(s, name, ret, ret_detail);
    else if (strcmp(provider, "command") == 0)
        err = secret_from_command(s, name, deadline, ret, ret_detail);
    else if (strcmp(provider, "vault") == 0)
        err = secret_from_vault(s, name, deadline, ret, ret_detail);
    else
        err = from_environment(name, ret, ret_detail);
    if (!err) {
        cut_line_end(ret);
        if (!ret->len)
            err = error_set(ret_detail, ERR_NOT_FOUND, 0, "it is empty");
    }
    if (err)
        secret_free(ret);
    return err;
}

/* ---- headers ---- */

/* RFC 9110's token. */
static bool is_header_name(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
              (c && strchr("!#$%&'*+-.^_`|~", c))))
            return false;
    }
    return s.len > 0;
}

static bool is_header_value(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (((unsigned char)s.ptr[i] < 0x20 && s.ptr[i] != '\t') || s.ptr[i] == 0x7f)
            return false;
    return true;
}

static void put_percent(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
            (c && strchr("-._~", c)))
            buf_byte(out, c);
        else
            buf_printf(out, "%%%02X", (unsigned char)c);
    }
}

static int headers(struct json_reader *r, struct buf *out, struct error_detail *detail)
{
    static const char expected[] =
        "expected a JSON object of strings, such as {\"authorization\": \"Bearer ...\"}";
    size_t n = 0;
    if (json_next(r) != JSON_OBJECT)
        return error_set(detail, ERR_INVALID, 0, "%s", expected);
    while (json_next(r) == JSON_KEY) {
        struct str name = r->text;
        if (!is_header_name(name) || ++n > SECRET_HEADERS_MAX)
            return error_set(detail, ERR_INVALID, 0,
                             n > SECRET_HEADERS_MAX ? "more headers than can be sent"
                                                    : "a key is not the name of a header");
        buf_cstr(out, n > 1 ? "," : "");
        buf_str(out, name);
        buf_byte(out, '=');
        if (json_next(r) != JSON_STRING)
            return error_set(detail, ERR_INVALID, 0, "%s", expected);
        if (!is_header_value(r->text))
            return error_set(detail, ERR_INVALID, 0, "a value has characters no header can have");
        put_percent(out, r->text);
    }
    if (r->type != JSON_OBJECT_END || json_next(r) != JSON_END)
        return error_set(detail, ERR_INVALID, 0, "%s", expected);
    return buf_ok(out) ? 0 : error_set(detail, ERR_NOMEM, 0, "out of memory");
}

int secret_to_headers(struct str json, struct buf *out, struct error_detail *ret_detail)
{
    struct arena arena = {.bytes_max = 4 * SECRET_BYTES_MAX};
    struct json_reader r;
    if (!buf_reserve(out, 3 * json.len + 1)) /* grows no more, leaves no copies */
        return error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    /* The reader's own words may quote the text. */
    json_reader_init(&r, json, &arena, NULL);
    int err = headers(&r, out, ret_detail);
    arena_wipe(&arena);
    return err;
}
