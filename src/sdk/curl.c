#include "sdk/curl.h"

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

/* A function pointer from dlsym's object pointer, without a cast that ISO C does not know. */
static int find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol ? 0 : ERR_UNSUPPORTED;
}

int curl_load(const struct curl_api **ret, struct error_detail *ret_problem)
{
    static struct curl_api api;
    static int loaded;
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4", "libcurl.so"};
    CURLcode (*global_init)(long flags);
    void *library = NULL;
    if (loaded) {
        *ret = &api;
        return 0;
    }
    for (size_t i = 0; !library && i < sizeof names / sizeof names[0]; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return error_set(
            ret_problem, ERR_UNSUPPORTED, 0,
            "libcurl is not installed (Debian: libcurl4); what sends over HTTP needs it");
    int err = 0;
#define FIND(member) err |= find(library, "curl_" #member, &api.member)
    FIND(easy_init);
    FIND(easy_setopt);
    FIND(easy_getinfo);
    FIND(easy_cleanup);
    FIND(easy_strerror);
    FIND(slist_append);
    FIND(slist_free_all);
    FIND(multi_init);
    FIND(multi_add_handle);
    FIND(multi_remove_handle);
    FIND(multi_perform);
    FIND(multi_wait);
    FIND(multi_info_read);
    FIND(multi_cleanup);
#undef FIND
    err |= find(library, "curl_global_init", &global_init);
    if (err || global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        dlclose(library);
        return error_set(ret_problem, ERR_UNSUPPORTED, 0,
                         "the libcurl of this machine is too old; 7.66 is needed");
    }
    loaded = 1;
    *ret = &api;
    return 0;
}
