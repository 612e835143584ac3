/* libcurl in all ways: `client BASE`. Each request names itself in a header of the program's own, whose
 * list is used again and again, given up while it is in use, and freed by the program. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char url[512];

static const char *at(const char *base, const char *path)
{
    snprintf(url, sizeof url, "%s%s", base, path);
    return url;
}

static size_t drop(char *bytes, size_t size, size_t n, void *arg)
{
    (void)bytes, (void)arg;
    return size * n;
}

static void show(const char *what, CURL *curl, CURLcode code)
{
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    printf("%s: %d %ld\n", what, (int)code, status);
}

static struct curl_slist *named(const char *name, const char *more)
{
    char line[128];
    snprintf(line, sizeof line, "X-Name: %s", name);
    struct curl_slist *list = curl_slist_append(NULL, line);
    return more ? curl_slist_append(list, more) : list;
}

static void easy(const char *base)
{
    CURL *curl = curl_easy_init(), *copy;
    struct curl_slist *list = named("easy", NULL), *other = named("post", NULL),
                      *own = named(
                          "own",
                          "Traceparent: 00-11111111111111111111111111111111-2222222222222222-01");
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop);
    curl_easy_setopt(curl, CURLOPT_URL, at(base, "/easy"));
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    show("easy", curl, curl_easy_perform(curl));
    show("again", curl, curl_easy_perform(curl));
    copy = curl_easy_duphandle(curl);
    show("copy", copy, curl_easy_perform(copy));
    curl_easy_cleanup(copy);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, other);
    curl_slist_free_all(list);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)3);
    curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, "a=b");
    show("post", curl, curl_easy_perform(curl));
    curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, own);
    curl_slist_free_all(other);
    show("own", curl, curl_easy_perform(curl));
    curl_easy_reset(curl);
    curl_slist_free_all(own);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop);
    curl_easy_setopt(curl, CURLOPT_URL, at(base, "/reset"));
    show("reset", curl, curl_easy_perform(curl));
    curl_easy_setopt(curl, CURLOPT_URL, "http://127.0.0.1:1/");
    show("refused", curl, curl_easy_perform(curl));
    curl_easy_cleanup(curl);
}

static void multi(const char *base)
{
    CURLM *all = curl_multi_init();
    CURL *curls[4];
    struct curl_slist *list = named("multi", NULL); /* shared by all of them */
    int running = 0, left, done = 0;
    for (int i = 0; i < 4; i++) {
        curls[i] = curl_easy_init();
        curl_easy_setopt(curls[i], CURLOPT_WRITEFUNCTION, drop);
        curl_easy_setopt(curls[i], CURLOPT_HTTPHEADER, list);
        curl_easy_setopt(curls[i], CURLOPT_URL, at(base, i == 3 ? "/never" : "/multi"));
        curl_easy_setopt(curls[i], CURLOPT_TIMEOUT_MS, 5000L);
        curl_multi_add_handle(all, curls[i]);
    }
    printf("twice: %d\n", (int)curl_multi_add_handle(all, curls[0]));
    while (done < 3) {
        CURLMsg *message;
        curl_multi_perform(all, &running);
        while ((message = curl_multi_info_read(all, &left)) != NULL) {
            show("multi", message->easy_handle, message->data.result);
            done++;
        }
        if (done < 3)
            curl_multi_poll(all, NULL, 0, 100, NULL);
    }
    for (int i = 0; i < 4; i++) {
        curl_multi_remove_handle(all, curls[i]);
        if (i == 0) /* once more, alone */
            show("alone", curls[i], curl_easy_perform(curls[i]));
        curl_easy_cleanup(curls[i]);
    }
    curl_slist_free_all(list);
    curl_multi_cleanup(all);
}

int main(int argc, char **argv)
{
    if (argc < 2 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return 2;
    easy(argv[1]);
    multi(argv[1]);
    curl_global_cleanup();
    return 0;
}
