/* The preload object of `pugmark run`: start, report, and what the libraries share. */
#include "probe/run.h"

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

/* ---- the report ----
 *
 * `pugmark run` names a file in PUG_RUN_REPORT; each process that records a span appends lines to it,
 * which the command reads when its child has ended:
 *
 *     start PID NAME
 *     log PID MESSAGE
 *     end PID RECORDED EXPORTED LOST
 */

static const char *report_path; /* kept from the start: programs change their environment */

__attribute__((format(printf, 1, 2))) static void report(const char *format, ...)
{
    char line[512];
    va_list args;
    if (!report_path)
        return;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    int fd = n > 0 ? open(report_path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0)
        return;
    size_t len = (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    for (size_t i = 0; i + 1 < len; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    line[len - 1] = '\n';
    if (write(fd, line, len) < 0) {
        /* Nobody is left to be told. */
    }
    close(fd);
}

static void told(void *user, const char *message)
{
    (void)user;
    report("log %d %s\n", (int)getpid(), message);
}

static void ends(void)
{
    struct pug_counts c = {.size = sizeof c};
    KEEP_ERRNO({
        pug_counts_read(&c);
        uint64_t lost = c.lost_ring_full + c.lost_depth + c.lost_no_lane + c.lost_interrupt +
                        c.lost_queue_full + c.lost_export + c.lost_memory;
        if (c.recorded || lost)
            report("end %d %llu %llu %llu\n", (int)getpid(), (unsigned long long)c.recorded,
                   (unsigned long long)c.exported, (unsigned long long)lost);
    });
}

/* ---- start ---- */

enum { NOT_STARTED, STARTING, STARTED };

static _Atomic int started;
static enum sql_text query_text;
static bool sql_comment;

static bool is_true(const char *value)
{
    return value && (strcasecmp(value, "true") == 0 || strcmp(value, "1") == 0 ||
                     strcasecmp(value, "yes") == 0 || strcasecmp(value, "on") == 0);
}

static void settings_read(void)
{
    const char *text = secure_getenv("PUG_QUERY_TEXT"), *path = secure_getenv("PUG_RUN_REPORT");
    query_text = !text                           ? SQL_TEXT_SANITIZED
                 : strcasecmp(text, "full") == 0 ? SQL_TEXT_FULL
                 : strcasecmp(text, "off") == 0  ? SQL_TEXT_OFF
                                                 : SQL_TEXT_SANITIZED;
    sql_comment = is_true(secure_getenv("PUG_SQL_COMMENT"));
    report_path = path && path[0] ? strdup(path) : NULL;
}

static void handles_at_fork(void);

static bool start(void)
{
    int expected = NOT_STARTED;
    /* Whoever comes while another thread starts, or out of the start itself, goes without a span. */
    if (!atomic_compare_exchange_strong(&started, &expected, STARTING))
        return false;
    KEEP_ERRNO({
        struct pug_options options = {.size = sizeof options, .log = told};
        settings_read();
        handles_at_fork();
        bool was_on = pug_on();
        if (report_path && atexit(ends) != 0)
            report_path = NULL;
        /* A program that traces itself has started already, or its own pug_start finds it done. */
        if (pug_start(&options) == 0 && pug_on() && !was_on)
            report("start %d %s\n", (int)getpid(), program_invocation_short_name);
    });
    atomic_store_explicit(&started, STARTED, memory_order_release);
    return pug_on();
}

bool run_on(void)
{
    return atomic_load_explicit(&started, memory_order_acquire) == STARTED ? pug_on() : start();
}

enum sql_text run_query_text(void)
{
    return query_text;
}

bool run_sql_comment(void)
{
    return sql_comment;
}

/* ---- handles ---- */

static pthread_mutex_t tables_lock = PTHREAD_MUTEX_INITIALIZER;
static struct handles *tables;

static void fork_prepare(void)
{
    pthread_mutex_lock(&tables_lock);
    for (struct handles *t = tables; t; t = t->next)
        pthread_mutex_lock(&t->lock);
}

static void fork_done(void)
{
    for (struct handles *t = tables; t; t = t->next)
        pthread_mutex_unlock(&t->lock);
    pthread_mutex_unlock(&tables_lock);
}

static void handles_at_fork(void)
{
    if (pthread_atfork(fork_prepare, fork_done, fork_done) != 0)
        return; /* out of memory: a child of several threads may find a lock held */
}

static void table_lock(struct handles *t)
{
    if (!__atomic_load_n(&t->known, __ATOMIC_ACQUIRE)) {
        pthread_mutex_lock(&tables_lock);
        if (!t->known) {
            t->next = tables;
            tables = t;
            __atomic_store_n(&t->known, true, __ATOMIC_RELEASE);
        }
        pthread_mutex_unlock(&tables_lock);
    }
    pthread_mutex_lock(&t->lock);
}

static struct handle **place_of(struct handles *t, const void *key)
{
    struct handle **h = &t->buckets[hash_mix64((uint64_t)(uintptr_t)key) % HANDLE_BUCKETS];
    while (*h && (*h)->key != key)
        h = &(*h)->next;
    return h;
}

void *handles_find(struct handles *t, const void *key)
{
    table_lock(t);
    struct handle *h = *place_of(t, key);
    pthread_mutex_unlock(&t->lock);
    return h;
}

void *handles_get(struct handles *t, const void *key, size_t bytes)
{
    table_lock(t);
    struct handle **place = place_of(t, key), *h = *place;
    if (!h && t->n < RUN_HANDLES_MAX && (h = calloc(1, bytes)) != NULL) {
        h->key = key;
        *place = h;
        t->n++;
    }
    pthread_mutex_unlock(&t->lock);
    return h;
}

void *handles_take(struct handles *t, const void *key)
{
    table_lock(t);
    struct handle **place = place_of(t, key), *h = *place;
    if (h) {
        *place = h->next;
        t->n--;
    }
    pthread_mutex_unlock(&t->lock);
    return h;
}

/* ---- commands ---- */

struct pug_span *commands_add(struct commands *c)
{
    struct command *new = c->n < RUN_QUEUE_MAX ? calloc(1, sizeof *new) : NULL;
    if (!new)
        return NULL;
    if (c->last)
        c->last->next = new;
    else
        c->first = new;
    c->last = new;
    c->n++;
    return &new->span;
}

struct pug_span *commands_first(const struct commands *c)
{
    return c->first ? &c->first->span : NULL;
}

void commands_end_first(struct commands *c)
{
    struct command *gone = c->first;
    if (!gone)
        return;
    c->first = gone->next;
    if (!c->first)
        c->last = NULL;
    c->n--;
    pug_span_end(&gone->span);
    free(gone);
}

void commands_end_last(struct commands *c)
{
    struct command *before = c->first;
    if (!before || before == c->last) {
        commands_end_first(c);
        return;
    }
    while (before->next != c->last)
        before = before->next;
    pug_span_end(&c->last->span);
    free(c->last);
    before->next = NULL;
    c->last = before;
    c->n--;
}

void commands_end_all(struct commands *c, const char *error)
{
    while (c->first) {
        if (error) {
            pug_set_str(&c->first->span, "error.type", "cancelled");
            pug_error(&c->first->span, error);
        }
        commands_end_first(c);
    }
}

/* ---- attributes ---- */

void run_set_server(struct pug_span *span, const char *host, long port)
{
    if (!host || !host[0])
        return;
    pug_set_str(span, "server.address", host);
    if (port > 0 && host[0] != '/') /* a Unix socket has none */
        pug_set_int(span, "server.port", port);
}

void run_set_sql(struct pug_span *span, const char *sql, size_t len)
{
    char text[PUG_STR_MAX], summary[2 * SQL_WORD_MAX];
    struct sql_summary s;
    if (!sql)
        return;
    size_t n = sql_sanitize((struct str){sql, len}, text, sizeof text, &s);
    snprintf(summary, sizeof summary, "%s%s%s", s.operation, s.collection[0] ? " " : "",
             s.collection);
    if (s.operation[0]) {
        pug_set_name(span, summary);
        pug_set_str(span, "db.operation.name", s.operation);
        pug_set_str(span, "db.query.summary", summary);
    }
    if (s.one_collection)
        pug_set_str(span, "db.collection.name", s.collection);
    if (query_text == SQL_TEXT_SANITIZED)
        pug_set_strn(span, "db.query.text", text, n);
    else if (query_text == SQL_TEXT_FULL)
        pug_set_strn(span, "db.query.text", sql, len);
}

void run_set_error(struct pug_span *span, const char *type, bool is_status, const char *message)
{
    char text[512];
    size_t n;
    struct str m = str_trim(str_from(message));
    pug_set_str(span, "error.type", type);
    if (is_status)
        pug_set_str(span, "db.response.status_code", type);
    if (query_text == SQL_TEXT_FULL) {
        n = m.len < sizeof text - 1 ? m.len : sizeof text - 1;
        if (n)
            memcpy(text, m.ptr, n);
    } else {
        n = sql_sanitize_message(m, text, sizeof text - 1);
    }
    text[n] = '\0';
    pug_error(span, text);
}

/* ---- sqlcommenter ---- */

struct comment {
    char text[1024];
    size_t n;
    bool full;
};

/* key='value' with everything but letters, digits and -_.~ as %XX; sorted by key, as traceparent comes
 * before tracestate. The format is sqlcommenter's (google.github.io/sqlcommenter/spec). */
static void comment_add(void *carrier, const char *name, const char *value)
{
    static const char hex[] = "0123456789ABCDEF";
    struct comment *c = carrier;
    char item[768];
    size_t n = 0;
    if (strcmp(name, "traceparent") != 0 && strcmp(name, "tracestate") != 0)
        return;
    for (; *value && n + 4 < sizeof item; value++) {
        unsigned char b = (unsigned char)*value;
        if ((b >= '0' && b <= '9') || (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') ||
            strchr("-_.~", b)) {
            item[n++] = (char)b;
        } else {
            item[n++] = '%';
            item[n++] = hex[b >> 4];
            item[n++] = hex[b & 15];
        }
    }
    item[n] = '\0';
    if (*value || n == 0 || c->n + strlen(name) + n + 8 > sizeof c->text)
        return;
    c->n += (size_t)snprintf(c->text + c->n, sizeof c->text - c->n, "%s%s='%s'", c->n ? "," : "",
                             name, item);
}

char *run_sql_with_comment(const char *sql, const struct pug_context *context)
{
    struct comment c = {.n = 0};
    struct sql_summary s;
    char *text = NULL;
    if (!sql)
        return NULL;
    sql_sanitize(str_from(sql), NULL, 0, &s);
    if (s.has_comment)
        return NULL;
    pug_inject(context, comment_add, &c);
    if (c.n && asprintf(&text, "%s /*%s*/", sql, c.text) < 0)
        return NULL;
    return text;
}
