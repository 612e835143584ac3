/* The part of libcurl we use, loaded when it is needed: libpugmark links only to libc. */
#ifndef SDK_CURL_H
#define SDK_CURL_H

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "base/err.h"

struct curl_api {
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *curl, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *curl, CURLINFO info, ...);
    void (*easy_cleanup)(CURL *curl);
    const char *(*easy_strerror)(CURLcode code);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
    CURLM *(*multi_init)(void);
    CURLMcode (*multi_add_handle)(CURLM *multi, CURL *curl);
    CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *curl);
    CURLMcode (*multi_perform)(CURLM *multi, int *running);
    /* Not multi_poll, which reads from a descriptor of libcurl's own that the host may have closed
     * and opened for something else (own_fd.h). */
    CURLMcode (*multi_wait)(CURLM *multi, struct curl_waitfd fds[], unsigned n, int timeout_ms,
                            int *ret_n);
    CURLMsg *(*multi_info_read)(CURLM *multi, int *left);
    CURLMcode (*multi_cleanup)(CURLM *multi);
};

/* Loads it once for the process; the same pointer ever after. ERR_UNSUPPORTED when it is not there
 * or too old (7.66). */
MUST_USE int curl_load(const struct curl_api **ret, struct error_detail *ret_problem);

#endif
