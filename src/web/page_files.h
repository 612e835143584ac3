/* The files of the page, built into the binary by ui/bundle.mjs. Without the page (-Dpage=disabled)
 * there are none.
 *
 * `/index.html` answers `/`, `/search`, `/live` and `/trace/{id}`, whatever the query string; every
 * other file answers its own path. `immutable` files carry a hash in their name and may be kept for
 * ever ("public, max-age=31536000, immutable"); the others are asked for again each time
 * ("no-cache", with the ETag). Every answer that is a document carries PAGE_CSP. */
#ifndef WEB_PAGE_FILES_H
#define WEB_PAGE_FILES_H

#include <stdbool.h>
#include <stddef.h>

struct page_file {
    const char *path;         /* "/assets/app-3F2A.js" */
    const char *content_type; /* "text/javascript; charset=utf-8" */
    const char *etag;         /* quoted, as in the header */
    const unsigned char *gzip;
    size_t gzip_bytes;
    size_t bytes; /* inflated */
    bool immutable;
};

extern const struct page_file page_files[]; /* in byte order of their paths */
extern const size_t page_files_n;

/* Everything comes from this server, nothing is inline, nothing may frame the page, and no string
 * becomes markup. */
#define PAGE_CSP                                                                                   \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "                \
    "img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; "                 \
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

#endif
