#include "events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define TARGET_TIMEOUT_MS 2000

static const char *container, *container_kind;
static int container_log = -1;

/* ---- log targets ---- */

int log_file_open(const char *path)
{
    PUG_SPAN("logging.init_file_handler", PUG_STR("file.path", path));
    return open_log(path);
}

/* The port of a loopback address; this example talks to nobody else. */
static int target_connect(const char *address)
{
    const char *colon = strrchr(address, ':');
    char ip[16];
    int port = colon ? atoi(colon + 1) : 0;
    if (port < 1 || port > 65535 || colon - address >= (int)sizeof ip) {
        errno = EINVAL;
        return -1;
    }
    snprintf(ip, sizeof ip, "%.*s", (int)(colon - address), address);
    return connect_address(NULL, ip, (uint16_t)port, TARGET_TIMEOUT_MS);
}

int log_target_probe(const char *address)
{
    PUG_SPAN("logging.probe_log_target", PUG_KIND(PUG_KIND_CLIENT),
             PUG_STR("server.address", address));
    AUTO_CLOSE int fd = target_connect(address);
    if (fd >= 0)
        return 0;
    pug_error(PUG_CURRENT, strerror(errno));
    return -1;
}

int log_target_send(const char *address, const char *lines, size_t len)
{
    AUTO_CLOSE int fd = target_connect(address);
    return fd < 0 ? -1 : write_all(fd, lines, len);
}

/* ---- lines ---- */

void events_open(const char *name, const char *kind)
{
    container = name;
    container_kind = kind;
    container_log = log_file_open(run_path("containers/%s.log", name).text);
}

void events_close(void)
{
    close_quietly(&container_log);
    container_log = -1;
}

static void put(struct event *e, const char *text)
{
    size_t room = sizeof e->text - e->len, n = strlen(text);
    if (n < room) {
        memcpy(e->text + e->len, text, n);
        e->len += n;
    }
}

void event_begin(struct event *e, const char *type, uint64_t epoch_ns)
{
    char head[192], when[28];
    e->len = 0;
    timestamp_format(when, epoch_ns ? epoch_ns : now_ns());
    snprintf(head, sizeof head, "<134>1 %s %s %s - %s [decoy@32473", when, container,
             container_kind, type);
    put(e, head);
}

/* name="value", escaped as section 6.3.3 wants it; what is not printable ASCII is written \xNN. */
void event_param_n(struct event *e, const char *name, const char *value, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    if (!value || sizeof e->text - e->len < 4 * EVENT_VALUE_MAX + 64)
        return;
    put(e, " ");
    put(e, name);
    put(e, "=\"");
    for (size_t i = 0; i < n && i < EVENT_VALUE_MAX; i++) {
        unsigned char c = (unsigned char)value[i];
        char *out = e->text + e->len;
        if (c == '"' || c == '\\' || c == ']') {
            *out++ = '\\';
            *out++ = (char)c;
        } else if (c < ' ' || c > '~') {
            *out++ = '\\';
            *out++ = 'x';
            *out++ = hex[c >> 4];
            *out++ = hex[c & 15];
        } else {
            *out++ = (char)c;
        }
        e->len = (size_t)(out - e->text);
    }
    put(e, "\"");
}

void event_param(struct event *e, const char *name, const char *value)
{
    if (value)
        event_param_n(e, name, value, strlen(value));
}

void event_number(struct event *e, const char *name, long long value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", value);
    event_param(e, name, text);
}

/* A carrier: inject puts its fields here. */
static void carry_in_line(void *event, const char *name, const char *value)
{
    event_param(event, name, value);
}

int event_write(struct event *e, const char *message)
{
    put(e, "]");
    struct event trace = {.len = 0};
    pug_inject(NULL, carry_in_line, &trace);
    if (trace.len > 0) {
        trace.text[trace.len] = '\0';
        put(e, "[trace@32473");
        put(e, trace.text);
        put(e, "]");
    }
    put(e, " ");
    put(e, message);
    e->text[e->len++] = '\n'; /* put() leaves room for one byte */
    if (write_all(container_log, e->text, e->len) == 0)
        return 0;
    say("cannot write the log: %s", strerror(errno));
    return -1;
}
