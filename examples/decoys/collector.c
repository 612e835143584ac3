/* The collector: follows what the decoys print and turns each line into one JSON record in
 * logs.jsonl.
 *
 *   collector --dir DIR
 *
 * First bridge: what comes out of here carries its context. `collector.event` is the child of the
 * decoy's span (which the line names), and the record gets the context of `collector.event` under
 * `_trace`. `collector.stream_container` is one visit to one container's output; it may hold events
 * of many traces and so is in none of theirs: the events link to it.
 *
 * Killed and started again it neither loses nor repeats a line: each record says which container
 * and which byte it came from, so logs.jsonl itself remembers how far we were. */
#include "common.h"
#include "events.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define CONTAINERS_MAX 64

struct container {
    char name[80];
    struct follower output;
};

static struct container containers[CONTAINERS_MAX];
static size_t n_containers;
static int records; /* logs.jsonl */

/* ---- one line of RFC 5424 ---- */

struct syslog_line {
    char *timestamp, *host, *app, *event_type, *message;
    json_t *fields; /* of decoy@32473 */
    json_t *trace;  /* of trace@32473 */
};

static void syslog_line_done(struct syslog_line *l)
{
    json_decref(l->fields);
    json_decref(l->trace);
}

/* The next word, ended in place; NULL at the end. */
static char *word(char **at)
{
    char *start = *at, *space = start ? strchr(start, ' ') : NULL;
    if (!space)
        return NULL;
    *space = '\0';
    *at = space + 1;
    return start;
}

/* [id name="value" ...], unescaped in place. `*at` is behind it afterwards. False when damaged. */
static bool element(char **at, char **ret_id, json_t *params)
{
    char *p = *at;
    if (*p++ != '[')
        return false;
    *ret_id = p;
    p += strcspn(p, " ]");
    while (*p == ' ') {
        *p++ = '\0';
        char *name = p;
        p += strcspn(p, "=\" ]");
        if (p == name || p[0] != '=' || p[1] != '"')
            return false;
        *p = '\0';
        char *value = p += 2, *out = value;
        while (*p && *p != '"') {
            if (*p == '\\' && (p[1] == '"' || p[1] == '\\' || p[1] == ']'))
                p++;
            *out++ = *p++;
        }
        if (*p++ != '"')
            return false;
        json_t *text = json_stringn(value, (size_t)(out - value)); /* NULL: not UTF-8 */
        if (json_object_set_new(params, name, text) != 0)
            return false;
    }
    if (*p != ']')
        return false;
    *p = '\0';
    *at = p + 1;
    return true;
}

static bool syslog_line_parse(char *text, struct syslog_line *ret)
{
    struct syslog_line l = {.fields = json_object(), .trace = json_object()};
    char *priority = word(&text);
    bool good = priority && strcmp(priority, "<134>1") == 0 && (l.timestamp = word(&text)) &&
                (l.host = word(&text)) && (l.app = word(&text)) && word(&text) /* process */ &&
                (l.event_type = word(&text)) && timestamp_parse(l.timestamp) >= 0;
    while (good && *text == '[') {
        char *id;
        json_t *params = json_object();
        good = element(&text, &id, params);
        if (good && strcmp(id, "decoy@32473") == 0)
            json_object_update(l.fields, params);
        else if (good && strcmp(id, "trace@32473") == 0)
            json_object_update(l.trace, params);
        json_decref(params);
    }
    if (!good || *text != ' ') {
        syslog_line_done(&l);
        return false;
    }
    l.message = text + 1;
    *ret = l;
    return true;
}

/* ---- line to record ---- */

/* A carrier: extract asks for its fields here. */
static const char *carried_in_line(void *trace, const char *name, size_t nth, size_t *ret_len)
{
    json_t *value = json_object_get(trace, name);
    if (!value || nth > 0)
        return NULL;
    *ret_len = json_string_length(value);
    return json_string_value(value);
}

/* Appends the record, with the current context under `_trace`, as one line. */
static void write_record(json_t *record)
{
    char *plain = json_dumps(record, JSON_COMPACT);
    if (!plain)
        die("out of memory");
    size_t len = strlen(plain), size = len + PUG_TRACESTATE_MAX + 128;
    AUTO_FREE char *line = malloc(size);
    if (!line)
        die("out of memory");
    memcpy(line, plain, len);
    free(plain);
    len = pug_json_inject(NULL, line, len, size - 1);
    line[len++] = '\n';
    if (write_all(records, line, len) != 0)
        die("cannot write logs.jsonl: %s", strerror(errno));
}

static void collect_event(struct container *c, const struct pug_context *visit, char *text,
                          uint64_t offset)
{
    struct syslog_line line;
    if (!syslog_line_parse(text, &line)) {
        pug_event(PUG_CURRENT, "damaged line", PUG_INT("offset", (int64_t)offset));
        return;
    }
    struct pug_context decoy;
    pug_extract(carried_in_line, line.trace, &decoy);
    PUG_SPAN_FROM(&decoy, "collector.event", PUG_KIND(PUG_KIND_CONSUMER),
                  PUG_STR("decky", line.host), PUG_STR("event_type", line.event_type));
    if (pug_context_valid(&decoy)) /* else it is the visit's child */
        pug_link(PUG_CURRENT, visit);

    json_t *address = json_object_get(line.fields, "src_ip");
    json_t *record =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:O, s:s, s:s, s:I}", "timestamp", line.timestamp,
                  "decky", line.host, "service", line.app, "event_type", line.event_type,
                  "attacker_ip", address ? json_string_value(address) : "", "fields", line.fields,
                  "message", line.message, "container", c->name, "offset", (json_int_t)offset);
    if (record)
        write_record(record);
    else
        pug_error(PUG_CURRENT, "not UTF-8");
    json_decref(record);
    syslog_line_done(&line);
}

/* One visit to a container's output. */
static void stream_container(struct container *c)
{
    uint64_t offset;
    char *line = follower_line(&c->output, &offset);
    if (!line)
        return; /* nothing new: not worth a span */
    PUG_SPAN("collector.stream_container", PUG_STR("container", c->name));
    struct pug_context visit = pug_context_current();
    int n = 0;
    do {
        collect_event(c, &visit, line, offset);
        n++;
    } while ((line = follower_line(&c->output, &offset)));
    pug_set_int(PUG_CURRENT, "events", n);
}

/* ---- containers and where we were in them ---- */

static struct container *container_find(const char *name)
{
    for (size_t i = 0; i < n_containers; i++)
        if (strcmp(containers[i].name, name) == 0)
            return &containers[i];
    if (n_containers == CONTAINERS_MAX || strlen(name) >= sizeof containers[0].name)
        return NULL;
    struct container *c = &containers[n_containers++];
    snprintf(c->name, sizeof c->name, "%s", name);
    c->output.fd = -1;
    return c;
}

/* Takes up containers that have appeared. */
static void containers_look(void)
{
    DIR *d = opendir(run_path("containers").text);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 4, ".log") != 0)
            continue;
        e->d_name[n - 4] = '\0';
        struct container *c = container_find(e->d_name);
        if (c && c->output.fd < 0 &&
            follower_open(&c->output, run_path("containers/%s.log", c->name).text,
                          c->output.offset) != 0)
            say("cannot read the output of %s: %s", c->name, strerror(errno));
    }
    if (d)
        closedir(d);
}

/* Reads logs.jsonl to learn where we were. */
static void remember(const char *path)
{
    struct follower f;
    if (follower_open(&f, path, 0) != 0)
        die("cannot read %s: %s", path, strerror(errno));
    uint64_t start;
    for (char *line; (line = follower_line(&f, &start));) {
        const char *name;
        json_int_t offset;
        json_t *record = json_loads(line, 0, NULL);
        struct container *c;
        if (record &&
            json_unpack(record, "{s:s, s:I}", "container", &name, "offset", &offset) == 0 &&
            (c = container_find(name)) && c->output.offset <= (uint64_t)offset)
            c->output.offset = (uint64_t)offset;
        json_decref(record);
    }
    follower_close(&f);

    /* Behind the line that made the last record of each. */
    for (size_t i = 0; i < n_containers; i++) {
        struct container *c = &containers[i];
        struct follower output;
        if (follower_open(&output, run_path("containers/%s.log", c->name).text, c->output.offset) !=
            0)
            continue;
        follower_line(&output, &start);
        c->output.offset = output.offset;
        follower_close(&output);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'}, {0}};
    const char *dir = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'd')
            return 2;
        dir = optarg;
    }
    service_start("collector", dir);
    struct path path = run_path("logs.jsonl");
    records = log_file_open(path.text);
    remember(path.text);

    int watch = watch_path(run_path("containers").text);
    do {
        watch_drain(watch);
        containers_look();
        for (size_t i = 0; i < n_containers; i++)
            if (containers[i].output.fd >= 0)
                stream_container(&containers[i]);
    } while (wait_for(watch, 1000));

    for (size_t i = 0; i < n_containers; i++)
        follower_close(&containers[i].output);
    close(records);
    service_stop();
    return 0;
}
