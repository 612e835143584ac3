/* HashiCorp Vault, key/value secrets engine, version 2:
 *
 *     GET {address}/v1/{mount}/data/{path}     X-Vault-Token, X-Vault-Namespace, X-Vault-Request
 *     {"data": {"data": {KEY: "..."}, "metadata": {...}}}
 *
 * Redirects are not followed: the token would go along.
 *
 * Source: developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2 "Read Secret Version",
 * vault/api-docs "HTTP status codes". */
#include "base/clock.h"
#include "base/json.h"
#include "sdk/curl.h"
#include "sdk/secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
    const struct curl_api *curl;
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    struct buf answer;
    bool too_large;
};

static size_t on_body(char *bytes, size_t size, size_t n, void *user)
{
    struct request *r = user;
    if (r->answer.len + size * n > SECRET_ANSWER_MAX) {
        r->too_large = true;
        return 0;
    }
    buf_put(&r->answer, bytes, size * n);
    return size * n;
}

static bool add_header(struct request *r, const char *name, const char *value)
{
    char line[SETTING_TEXT_MAX + 64];
    snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *more = r->curl->slist_append(r->headers, line);
    explicit_bzero(line, sizeof line);
    if (more)
        r->headers = more;
    return more != NULL;
}

static void request_done(struct request *r)
{
    if (r->multi && r->easy)
        r->curl->multi_remove_handle(r->multi, r->easy);
    if (r->easy)
        r->curl->easy_cleanup(r->easy);
    if (r->multi)
        r->curl->multi_cleanup(r->multi);
    for (struct curl_slist *h = r->headers; h; h = h->next)
        explicit_bzero(h->data, strlen(h->data));
    r->curl->slist_free_all(r->headers);
    secret_free(&r->answer);
}

static int set_up(struct request *r, const struct settings *s, const char *url, const char *token,
                  uint64_t left_ns)
{
    const struct curl_api *curl = r->curl;
    const struct setting *namespace = &s->values[SET_VAULT_NAMESPACE];
    const struct setting *certificate = &s->values[SET_VAULT_CERTIFICATE];
    r->easy = curl->easy_init();
    r->multi = curl->multi_init();
    if (!r->easy || !r->multi || !buf_reserve(&r->answer, SECRET_ANSWER_MAX) ||
        !add_header(r, "X-Vault-Token", token) || !add_header(r, "X-Vault-Request", "true") ||
        (namespace->is_set && !add_header(r, "X-Vault-Namespace", namespace->text)))
        return ERR_NOMEM;
    curl->easy_setopt(r->easy, CURLOPT_URL, url);
    curl->easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
    curl->easy_setopt(r->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl->easy_setopt(r->easy, CURLOPT_NOSIGNAL, 1L);
    curl->easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, (long)(left_ns / NS_PER_MS) + 1);
    curl->easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl->easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
    if (certificate->is_set)
        curl->easy_setopt(r->easy, CURLOPT_CAINFO, certificate->text);
    return curl->multi_add_handle(r->multi, r->easy) == CURLM_OK ? 0 : ERR_NOMEM;
}

static int perform(struct request *r, uint64_t deadline_ns, struct error_detail *detail)
{
    int running = 1, left, n;
    while (running && r->curl->multi_perform(r->multi, &running) == CURLM_OK && running) {
        if (clock_monotonic_ns() >= deadline_ns)
            return error_set(detail, ERR_TIMEOUT, 0, "Vault does not answer in time");
        r->curl->multi_wait(r->multi, NULL, 0, 50, &n);
    }
    CURLMsg *message = r->curl->multi_info_read(r->multi, &left);
    if (!message || message->msg != CURLMSG_DONE)
        return error_set(detail, ERR_IO, 0, "Vault cannot be asked");
    if (r->too_large)
        return error_set(detail, ERR_TOO_LARGE, 0, "Vault's answer is larger than %d KiB",
                         SECRET_ANSWER_MAX >> 10);
    if (message->data.result == CURLE_OPERATION_TIMEDOUT)
        return error_set(detail, ERR_TIMEOUT, 0, "Vault does not answer in time");
    if (message->data.result != CURLE_OK)
        return error_set(detail, ERR_IO, 0, "Vault cannot be reached: %.120s",
                         r->curl->easy_strerror(message->data.result));
    return 0;
}

static int check_status(long status, const char *path, struct error_detail *detail)
{
    if (status == 200)
        return 0;
    if (status == 403)
        return error_set(detail, ERR_INVALID, 0,
                         "Vault refuses the token, or it may not read %.80s (HTTP 403)", path);
    if (status == 404)
        return error_set(detail, ERR_NOT_FOUND, 0, "Vault has nothing at %.80s (HTTP 404)", path);
    if (status == 503)
        return error_set(detail, ERR_BUSY, 0, "Vault is sealed or down for maintenance (HTTP 503)");
    return error_set(detail, ERR_IO, 0, "Vault answers with HTTP %ld", status);
}

/* Into the object under `name`; the reader stands before its first key. */
static bool enter(struct json_reader *r, struct str name)
{
    while (json_next(r) == JSON_KEY) {
        bool wanted = str_eq(r->text, name);
        if (wanted)
            return json_next(r) == JSON_OBJECT;
        if (json_skip(r) == JSON_ERROR)
            return false;
    }
    return false;
}

/* The value of data.data.KEY: a string, or an object as it stands. */
static int value_in(struct str answer, const char *name, struct arena *arena, struct buf *ret,
                    struct error_detail *detail)
{
    struct json_reader r;
    json_reader_init(&r, answer, arena, NULL);
    if (json_next(&r) != JSON_OBJECT || !enter(&r, STR("data")) || !enter(&r, STR("data")))
        return error_set(detail, ERR_INVALID, 0,
                         "Vault's answer is not that of a key/value engine of version 2");
    while (json_next(&r) == JSON_KEY) {
        bool wanted = str_eq(r.text, str_from(name));
        if (!wanted) {
            if (json_skip(&r) == JSON_ERROR)
                break;
            continue;
        }
        enum json_type type = json_next(&r);
        struct str value = r.text;
        if (type == JSON_OBJECT) {
            const char *from = r.token;
            if (json_skip(&r) == JSON_ERROR)
                break;
            value = (struct str){from, (size_t)(r.at - from)};
        } else if (type != JSON_STRING) {
            return error_set(detail, ERR_INVALID, 0,
                             "Vault has neither a string nor an object under it");
        }
        buf_str(ret, value);
        return buf_ok(ret) ? 0 : error_set(detail, ERR_NOMEM, 0, "out of memory");
    }
    return error_set(detail, ERR_NOT_FOUND, 0, "Vault has no such key at the path");
}

static int ask(const struct settings *s, const char *name, const char *token, uint64_t deadline_ns,
               struct buf *ret, struct error_detail *detail)
{
    char url[2 * SETTING_TEXT_MAX + 16];
    struct request r = {.answer = {.bytes_max = 2 * SECRET_ANSWER_MAX}};
    struct arena arena = {.bytes_max = 4 * SECRET_ANSWER_MAX};
    struct str address = str_from(s->values[SET_VAULT_ADDRESS].text);
    const char *path = s->values[SET_VAULT_PATH].text;
    long status = 0;
    uint64_t now = clock_monotonic_ns();
    int err = curl_load(&r.curl, detail);
    if (err)
        return err;
    while (address.len && address.ptr[address.len - 1] == '/')
        address.len--;
    path += path[0] == '/';
    snprintf(url, sizeof url, "%.*s/v1/%s", STR_ARG(address), path);
    err = set_up(&r, s, url, token, deadline_ns > now ? deadline_ns - now : 0);
    if (err)
        error_set(detail, err, 0, "out of memory");
    else
        err = perform(&r, deadline_ns, detail);
    if (!err) {
        r.curl->easy_getinfo(r.easy, CURLINFO_RESPONSE_CODE, &status);
        err = check_status(status, path, detail);
    }
    if (!err)
        err = value_in(buf_as_str(&r.answer), name, &arena, ret, detail);
    arena_wipe(&arena);
    request_done(&r);
    return err;
}

/* What may stand in a header line. */
static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= 0x20 || (unsigned char)s.ptr[i] >= 0x7f)
            return false;
    return s.len && s.len < SETTING_TEXT_MAX;
}

int secret_from_vault(const struct settings *s, const char *name, uint64_t deadline_ns,
                      struct buf *ret, struct error_detail *ret_detail)
{
    const struct setting *file = &s->values[SET_VAULT_TOKEN_FILE];
    const char *variable = settings_variable("VAULT_TOKEN");
    struct buf token = BUF_INIT;
    int err = 0;
    if (file->is_set)
        err = secret_read_file(file->text, &token, ret_detail);
    else if (variable)
        buf_cstr(&token, variable);
    else
        err = error_set(ret_detail, ERR_INVALID, 0,
                        "the provider \"vault\" needs a token: vault_token_file in "
                        "[telemetry.secrets], or VAULT_TOKEN");
    if (!err && !is_token(buf_as_str(&token)))
        err = error_set(ret_detail, ERR_INVALID, 0, "Vault's token is empty or not of one line");
    buf_byte(&token, 0);
    if (!err && (!buf_ok(&token) || !buf_reserve(ret, SECRET_BYTES_MAX)))
        err = error_set(ret_detail, ERR_NOMEM, 0, "out of memory");
    if (!err)
        err = ask(s, name, token.ptr, deadline_ns, ret, ret_detail);
    secret_free(&token);
    return err;
}
