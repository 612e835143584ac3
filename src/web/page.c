/* The page itself: files built into the binary, compressed. */
#include "web/web_internal.h"

#include "web/page_files.h"

static const struct page_file *file_find(struct str path)
{
    for (size_t i = 0; i < page_files_n; i++)
        if (str_eq(path, str_from(page_files[i].path)))
            return &page_files[i];
    return NULL;
}

/* If-None-Match: a list of tags, perhaps marked weak, or a star (RFC 9110, 13.1.2). */
static bool is_known(struct str header, struct str etag)
{
    while (header.len) {
        struct str tag = str_trim(str_split(header, ',', &header));
        if (str_starts(tag, STR("W/")))
            tag = str_skip(tag, 2);
        if (str_eq(tag, etag) || str_eq(tag, STR("*")))
            return true;
    }
    return false;
}

static void file_reply(struct web_request *q, const struct page_file *file)
{
    bool known = is_known(http_header(q->http, "if-none-match"), str_from(file->etag));
    web_answered(q, known ? 304 : 200);
    http_reply_header(q->http, "ETag", file->etag);
    http_reply_header(q->http, "Cache-Control",
                      file->immutable ? "public, max-age=31536000, immutable" : "no-cache");
    http_reply_header(q->http, "Content-Security-Policy", PAGE_CSP);
    if (known)
        http_reply_text(q->http, 304, NULL, STR(""));
    else
        http_reply_static(q->http, 200, file->content_type,
                          (struct str){(const char *)file->gzip, file->gzip_bytes}, true);
}

void page_document(struct web_request *q)
{
    const struct page_file *file = file_find(STR("/index.html"));
    if (file) {
        file_reply(q, file);
        return;
    }
    web_reply_text(q, 200,
                   "This pugmark was built without its page (-Dpage=disabled). The API is under "
                   "/api/pugmark/, and `pugmark query` and `pugmark trace` show traces in a "
                   "terminal.\n");
}

void page_asset(struct web_request *q)
{
    const struct page_file *file = file_find(http_path(q->http));
    if (file)
        file_reply(q, file);
    else
        web_fail(q, 404, "There is no such page.");
}
