#include "tools.h"

#include "http.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define CACHE_MAX 32
#define MATCHES_MAX 20
#define FILE_BYTES_MAX 65536

static char workspace[PATH_MAX]; /* without symbolic links */
static char site[128];
static int audit = -1;

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

/* ---- the tools ---- */

static int run_shell(const json_t *arguments, struct text *out)
{
    return shell_run(workspace, string_at(arguments, "command"), out);
}

/* The path below the workspace, whatever links there are on the way. */
static const char *inside(const char *name, struct path *ret)
{
    char dir[PATH_MAX];
    *ret = path_join(workspace, name);
    snprintf(dir, sizeof dir, "%s", ret->text);
    *strrchr(dir, '/') = '\0';
    char real[PATH_MAX];
    size_t n = strlen(workspace);
    if (!*name || *name == '/' || !realpath(dir, real) || strncmp(real, workspace, n) != 0 ||
        (real[n] != '\0' && real[n] != '/'))
        return "not a file of the workspace";
    struct stat st;
    if (lstat(ret->text, &st) == 0 && !S_ISREG(st.st_mode))
        return "not a regular file";
    return NULL;
}

static int run_file(const json_t *arguments, struct text *out)
{
    const char *operation = string_at(arguments, "operation"), *name = string_at(arguments, "path");
    PUG_SPAN("tool.file", PUG_STR("file.operation", operation), PUG_STR("file.path", name));
    struct path path;
    const char *why = inside(name, &path);
    if (!why && strcmp(operation, "read") == 0) {
        AUTO_FREE char *content = file_read(path.text, FILE_BYTES_MAX);
        if (content)
            text_add(out, content);
        else
            why = strerror(errno);
    } else if (!why && strcmp(operation, "write") == 0) {
        const char *content = string_at(arguments, "content");
        AUTO_TEXT struct text line = {0};
        text_addf(&line, "%s\n", content);
        if (file_replace(path.text, line.bytes) == 0)
            text_addf(out, "Saved %zu bytes in %s.", line.len, name);
        else
            why = strerror(errno);
    } else if (!why) {
        why = "read and write are what it can do";
    }
    pug_set_int(PUG_CURRENT, "file.size", why ? 0 : (int64_t)out->len);
    if (!why)
        return 0;
    text_addf(out, "refused: %s", why);
    pug_set_str(PUG_CURRENT, "error.type", "refused");
    pug_error(PUG_CURRENT, why);
    return -1;
}

struct search {
    const char *pattern;
    struct text *out;
    int matches;
};

static bool search_file(void *user, const char *path, const char *content)
{
    struct search *s = user;
    int line = 1;
    for (const char *at = content; *at && s->matches < MATCHES_MAX; line++) {
        size_t n = strcspn(at, "\n");
        if (memmem(at, n, s->pattern, strlen(s->pattern)))
            text_addf(s->out, "%s%s:%d: %.*s", s->matches++ ? "\n" : "", path, line,
                      (int)(n > 200 ? 200 : n), at);
        at += n + (at[n] == '\n');
    }
    return s->matches < MATCHES_MAX;
}

static int run_search_code(const json_t *arguments, struct text *out)
{
    struct search s = {.pattern = string_at(arguments, "pattern"), .out = out};
    PUG_SPAN("tool.search_code");
    int files = *s.pattern ? tree_walk(workspace, search_file, &s) : 0;
    pug_set_int(PUG_CURRENT, "search.files", files);
    pug_set_int(PUG_CURRENT, "search.matches", s.matches);
    if (s.matches == 0)
        text_add(out, "no line matches");
    return 0;
}

/* What a person would read: no tags, no scripts, one blank for many. */
static void html_text(const char *html, struct text *out)
{
    static const struct {
        const char *entity, *text;
    } entities[] = {{"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#39;", "'"}};
    bool blank = true;
    for (const char *at = html; *at;) {
        const char *text = NULL, *skip = NULL;
        if (*at == '<') {
            const char *silent = strncasecmp(at, "<script", 7) == 0  ? "</script"
                                 : strncasecmp(at, "<style", 6) == 0 ? "</style"
                                                                     : NULL;
            const char *tag = silent ? strcasestr(at, silent) : at;
            skip = tag ? strchr(tag, '>') : NULL;
            at = skip ? skip + 1 : at + strlen(at);
            text = " ";
        }
        for (size_t i = 0; !text && i < sizeof entities / sizeof *entities; i++)
            if (strncmp(at, entities[i].entity, strlen(entities[i].entity)) == 0) {
                text = entities[i].text;
                at += strlen(entities[i].entity);
            }
        char one[2] = {*at, '\0'};
        if (!text) {
            text = one;
            at++;
        }
        bool is_blank = strchr(" \t\r\n", *text) != NULL;
        if (blank && out->len > 0 && strchr(".,;:!?", *text))
            out->bytes[--out->len] = '\0'; /* a tag ended before it */
        if (!is_blank)
            text_add(out, text);
        else if (!blank)
            text_add(out, " ");
        blank = is_blank;
    }
    while (out->len > 0 && out->bytes[out->len - 1] == ' ')
        out->bytes[--out->len] = '\0';
}

static int run_web_scrape(const json_t *arguments, struct text *out)
{
    char url[512], path[128];
    int port;
    const char *page = string_at(arguments, "path");
    snprintf(url, sizeof url, "%s%s%s", site, *page == '/' ? "" : "/", page);
    http_url_parts(url, path, sizeof path, &port);
    PUG_SPAN("tool.web_scrape", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("http.request.method", "GET"),
             PUG_STR("server.address", "127.0.0.1"), PUG_INT("server.port", port),
             PUG_STR("url.path", path));
    struct http_call call = {.url = url};
    struct http_answer answer;
    const char *why = strpbrk(page, " \t?#@") || strstr(page, "..") ? "not a path of the site"
                                                                    : NULL;
    if (!why && http_call(&call, &answer) != 0)
        why = answer.error;
    if (!why) {
        pug_set_int(PUG_CURRENT, "http.response.status_code", answer.status);
        if (answer.status == 200)
            html_text(text_of(&answer.body), out);
        else
            why = "the page is not there";
        http_done(&answer);
    }
    if (!why)
        return 0;
    text_addf(out, "no page: %s", why);
    pug_set_str(PUG_CURRENT, "error.type", "no_page");
    pug_error(PUG_CURRENT, why);
    return -1;
}

static const struct tool {
    const char *name, *description, *parameters; /* JSON schema of the properties */
    int (*run)(const json_t *arguments, struct text *out);
    bool cacheable;
} tools[] = {
    {"shell", "Runs a command that reads, in the workspace", "{\"command\":{\"type\":\"string\"}}",
     run_shell, true},
    {"file", "Reads or writes a file of the workspace",
     "{\"operation\":{\"enum\":[\"read\",\"write\"]},\"path\":{\"type\":\"string\"},"
     "\"content\":{\"type\":\"string\"}}",
     run_file, false},
    {"search_code", "Finds a text in the files of the workspace",
     "{\"pattern\":{\"type\":\"string\"}}", run_search_code, true},
    {"web_scrape", "Reads a page of the site", "{\"path\":{\"type\":\"string\"}}", run_web_scrape,
     true},
};
enum { N_TOOLS = sizeof tools / sizeof *tools };

static const struct tool *tool_named(const char *name)
{
    for (size_t i = 0; i < N_TOOLS; i++)
        if (strcmp(tools[i].name, name) == 0)
            return &tools[i];
    return NULL;
}

bool tools_have(const char *name)
{
    return tool_named(name) != NULL;
}

json_t *tools_list(void)
{
    json_t *list = json_array();
    for (size_t i = 0; i < N_TOOLS; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:{s:s, s:o}}", "name", tools[i].name,
                                              "description", tools[i].description, "parameters",
                                              "type", "object", "properties",
                                              json_loads(tools[i].parameters, 0, NULL)));
    return list;
}

/* ---- results that are known already ---- */

/* The oldest goes first. What was read from the workspace is worth nothing once it was written to. */
static struct {
    pthread_mutex_t lock;
    struct {
        char *key, *result;
    } entries[CACHE_MAX];
    size_t next;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

static char *cache_get(const char *cache_key)
{
    PUG_SPAN("tool.cache", PUG_STR("cache.operation", "get"));
    char *found = NULL;
    pthread_mutex_lock(&cache.lock);
    for (size_t i = 0; i < CACHE_MAX && !found; i++)
        if (cache.entries[i].key && strcmp(cache.entries[i].key, cache_key) == 0)
            found = copy(cache.entries[i].result);
    pthread_mutex_unlock(&cache.lock);
    pug_set_bool(PUG_CURRENT, "cache.hit", found != NULL);
    return found;
}

static void cache_put(const char *cache_key, const char *result)
{
    PUG_SPAN("tool.cache", PUG_STR("cache.operation", "put"));
    pthread_mutex_lock(&cache.lock);
    free(cache.entries[cache.next].key);
    free(cache.entries[cache.next].result);
    cache.entries[cache.next].key = copy(cache_key);
    cache.entries[cache.next].result = copy(result);
    cache.next = (cache.next + 1) % CACHE_MAX;
    pthread_mutex_unlock(&cache.lock);
}

static void cache_clear(void)
{
    pthread_mutex_lock(&cache.lock);
    for (size_t i = 0; i < CACHE_MAX; i++) {
        free(cache.entries[i].key);
        free(cache.entries[i].result);
        cache.entries[i].key = cache.entries[i].result = NULL;
    }
    pthread_mutex_unlock(&cache.lock);
}

/* ---- running one ---- */

void tools_audit(const char *tool, const json_t *arguments, bool failed, bool cached)
{
    PUG_SPAN("tool.audit_log");
    char line[1024], digest[24];
    AUTO_FREE char *text = need(json_dumps(arguments, JSON_COMPACT | JSON_SORT_KEYS));
    /* Which arguments, not what they say. */
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)hash_text(text, strlen(text)));
    json_t *record = json_pack("{s:I, s:s, s:s, s:b, s:b}", "at", (json_int_t)epoch_s(), "tool",
                               tool, "arguments", digest, "failed", failed, "cached", cached);
    size_t len = json_dumpb(record, line, sizeof line, JSON_COMPACT);
    json_decref(record);
    if (len == 0 || len >= sizeof line)
        return;
    len = pug_json_inject(NULL, line, len, sizeof line - 1);
    line[len++] = '\n';
    if (write_all(audit, line, len) != 0) {
        pug_error(PUG_CURRENT, "the audit log cannot be written");
        say("the audit log cannot be written: %s", strerror(errno));
    }
}

static int execute_call(const struct tool *t, const json_t *arguments, struct text *out)
{
    PUG_SPAN("tool.execute_call", PUG_STR("gen_ai.tool.name", t->name));
    int result = t->run(arguments, out);
    text_add(out, "");
    text_clean(out);
    while (out->len > 0 && out->bytes[out->len - 1] == '\n')
        out->bytes[--out->len] = '\0';
    if (result != 0)
        pug_error(PUG_CURRENT, "the tool failed");
    return result;
}

char *tools_execute(const char *call_id, const char *name, const json_t *arguments,
                    bool *ret_failed)
{
    PUG_SPAN("tool.execute", PUG_STR("gen_ai.operation.name", "execute_tool"),
             PUG_STR("gen_ai.tool.name", name), PUG_STR("gen_ai.tool.type", "function"),
             PUG_STR("gen_ai.tool.call.id", call_id));
    const struct tool *t = tool_named(name);
    *ret_failed = !t;
    if (!t) {
        pug_error(PUG_CURRENT, "no such tool");
        return copy("there is no such tool");
    }
    AUTO_FREE char *text = need(json_dumps(arguments, JSON_COMPACT | JSON_SORT_KEYS));
    AUTO_TEXT struct text cache_key = {0};
    text_addf(&cache_key, "%s %s", name, text);
    char *result = t->cacheable ? cache_get(cache_key.bytes) : NULL;
    bool cached = result != NULL;
    if (!cached) {
        struct text out = {0};
        *ret_failed = execute_call(t, arguments, &out) != 0;
        result = out.bytes;
        if (!t->cacheable && strcmp(string_at(arguments, "operation"), "read") != 0)
            cache_clear();
        else if (t->cacheable && !*ret_failed)
            cache_put(cache_key.bytes, result);
    }
    tools_audit(name, arguments, *ret_failed, cached);
    if (*ret_failed)
        pug_error(PUG_CURRENT, "the tool failed");
    return result;
}

void tools_start(const char *dir, const char *site_url, const char *audit_path)
{
    if (!realpath(dir, workspace))
        die("no workspace %s: %s", dir, strerror(errno));
    snprintf(site, sizeof site, "%s", site_url);
    audit = open(audit_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (audit < 0)
        die("cannot write %s: %s", audit_path, strerror(errno));
}

void tools_stop(void)
{
    cache_clear();
    close(audit);
}
