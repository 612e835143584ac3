#include "settings.h"

#include "common.h"
#include "queues.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

struct settings settings = {
    .context_tokens = 400, .result_tokens = 160, .tool_rounds = 6, .recall = 5, .request_ms = 5000};

static const struct {
    const char *name;
    int *value, max;
} known[] = {{"context_tokens", &settings.context_tokens, 1000000},
             {"result_tokens", &settings.result_tokens, 1000000},
             {"tool_rounds", &settings.tool_rounds, 100},
             {"recall", &settings.recall, 100},
             {"request_ms", &settings.request_ms, 600000}};

void settings_load(const char *dir)
{
    AUTO_FREE char *text = file_read(path_join(dir, "settings.json").text, 65536);
    json_error_t error;
    json_t *all = text ? json_loads(text, 0, &error) : NULL, *value;
    const char *name;
    if (text && !json_is_object(all))
        say("settings.json: line %d: %s", error.line, error.text);
    json_object_foreach(all, name, value)
    {
        bool taken = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (strcmp(known[i].name, name) == 0 && json_integer_value(value) > 0 &&
                json_integer_value(value) <= known[i].max) {
                *known[i].value = (int)json_integer_value(value);
                taken = true;
            }
        if (!taken)
            say("settings.json: \"%s\" is not known, or not a number it can be", name);
    }
    json_decref(all);
}

int settings_write(const char *dir, const char *name, int value)
{
    struct path path = path_join(dir, "settings.json");
    AUTO_FREE char *text = file_read(path.text, 65536);
    json_t *all = text ? json_loads(text, 0, NULL) : NULL;
    if (!json_is_object(all)) {
        json_decref(all);
        all = json_object();
    }
    json_object_set_new(all, name, json_integer(value));
    AUTO_FREE char *changed = need(json_dumps(all, JSON_INDENT(2) | JSON_SORT_KEYS));
    json_decref(all);
    return file_replace(path.text, changed);
}

/* ---- watching ---- */

static pthread_t thread;
static int notify = -1, stop = -1, settings_watch, skills_watch;

static void tell(const struct inotify_event *e)
{
    size_t n = e->len ? strlen(e->name) : 0;
    if (n == 0 || e->name[0] == '.' || e->name[n - 1] == '~')
        return; /* not finished yet */
    if (e->wd == skills_watch)
        queues_changed(e->name);
    else if (strcmp(e->name, "settings.json") == 0)
        queues_changed("");
}

static void *watch(void *arg)
{
    (void)arg;
    for (;;) {
        struct pollfd p[] = {{.fd = stop, .events = POLLIN}, {.fd = notify, .events = POLLIN}};
        if ((poll(p, 2, -1) < 0 && errno != EINTR) || p[0].revents)
            return NULL;
        _Alignas(struct inotify_event) char events[4096];
        ssize_t n = p[1].revents ? read(notify, events, sizeof events) : 0;
        for (char *at = events; at < events + n;) {
            const struct inotify_event *e = (const void *)at;
            tell(e);
            at += sizeof *e + e->len;
        }
    }
}

void watch_start(const char *dir)
{
    const uint32_t finished = IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE;
    notify = inotify_init1(IN_CLOEXEC);
    stop = eventfd(0, EFD_CLOEXEC);
    settings_watch = inotify_add_watch(notify, dir, finished);
    skills_watch = inotify_add_watch(notify, path_join(dir, "skills").text, finished);
    if (stop < 0 || settings_watch < 0 || skills_watch < 0 ||
        pthread_create(&thread, NULL, watch, NULL) != 0)
        die("cannot watch %s: %s", dir, strerror(errno));
}

void watch_stop(void)
{
    uint64_t one = 1;
    if (write(stop, &one, sizeof one) == sizeof one)
        pthread_join(thread, NULL);
    close(stop);
    close(notify);
}
