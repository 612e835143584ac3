/* A web server: `server MODE`, threads | pool | external. Prints its port, ends when its standard input
 * does, and prints what its own completion callback saw.
 *
 *     /hello    200       /fail   500        /rows   asks SQLite        /late   suspended, answered by
 *     /upload   echoes how many bytes came                                      another thread
 *     /refuse   the handler gives up */
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

static atomic_int completed_ok, completed_else, accepted;
static char cls_of_handler, cls_of_completed;

struct request {
    size_t bytes;
    int resumed;
};

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static int count_rows(void)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    int rows = 0;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK ||
        sqlite3_prepare_v2(db, "SELECT 42 UNION SELECT 43", -1, &stmt, NULL) != SQLITE_OK)
        return -1;
    while (sqlite3_step(stmt) == SQLITE_ROW)
        rows++;
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return rows;
}

static void *answers_late(void *connection)
{
    usleep(2000);
    MHD_resume_connection(connection);
    return NULL;
}

static enum MHD_Result answer(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **request_cls)
{
    struct request *r = *request_cls;
    char text[64];
    (void)method, (void)version, (void)upload;
    if (cls != &cls_of_handler)
        abort();
    if (!r) {
        *request_cls = calloc(1, sizeof *r);
        return MHD_YES;
    }
    if (*upload_size) {
        r->bytes += *upload_size;
        *upload_size = 0;
        return MHD_YES;
    }
    if (strcmp(url, "/rows") == 0) {
        snprintf(text, sizeof text, "%d rows\n", count_rows());
        return reply(connection, 200, text);
    }
    if (strcmp(url, "/upload") == 0) {
        snprintf(text, sizeof text, "%zu bytes\n", r->bytes);
        return reply(connection, 201, text);
    }
    if (strcmp(url, "/late") == 0 && !r->resumed) {
        pthread_t thread;
        r->resumed = 1;
        MHD_suspend_connection(connection);
        pthread_create(&thread, NULL, answers_late, connection);
        pthread_detach(thread);
        return MHD_YES;
    }
    if (strcmp(url, "/refuse") == 0)
        return MHD_NO;
    return reply(connection, strcmp(url, "/fail") == 0 ? 500 : 200, "hello\n");
}

static void completed(void *cls, struct MHD_Connection *connection, void **request_cls,
                      enum MHD_RequestTerminationCode code)
{
    (void)connection;
    if (cls != &cls_of_completed)
        abort();
    free(*request_cls);
    *request_cls = NULL;
    atomic_fetch_add(code == MHD_REQUEST_TERMINATED_COMPLETED_OK ? &completed_ok : &completed_else,
                     1);
}

static enum MHD_Result accepts(void *cls, const struct sockaddr *address, socklen_t len)
{
    (void)cls, (void)address, (void)len;
    atomic_fetch_add(&accepted, 1);
    return MHD_YES;
}

/* Until standard input ends. */
static void poll_daemon(struct MHD_Daemon *daemon)
{
    for (;;) {
        fd_set read_set, write_set, except_set;
        MHD_socket max = 0;
        struct timeval wait = {0, 20000};
        FD_ZERO(&read_set);
        FD_ZERO(&write_set);
        FD_ZERO(&except_set);
        MHD_get_fdset(daemon, &read_set, &write_set, &except_set, &max);
        FD_SET(STDIN_FILENO, &read_set);
        if (select(max + 1, &read_set, &write_set, &except_set, &wait) > 0 &&
            FD_ISSET(STDIN_FILENO, &read_set))
            return;
        MHD_run(daemon);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "threads";
    int external = strcmp(mode, "external") == 0, pool = strcmp(mode, "pool") == 0;
    struct MHD_OptionItem items[] = {
        {MHD_OPTION_CONNECTION_TIMEOUT, 5, NULL},
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)completed, &cls_of_completed},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_Daemon *daemon;
    unsigned flags = MHD_ALLOW_SUSPEND_RESUME | (external ? 0 : MHD_USE_INTERNAL_POLLING_THREAD);
    if (pool) /* all in one array, with a size that is more than 32 bits wide */
        daemon = MHD_start_daemon(flags, 0, accepts, NULL, answer, &cls_of_handler,
                                  MHD_OPTION_THREAD_POOL_SIZE, 2u,
                                  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)65536,
                                  MHD_OPTION_ARRAY, items, MHD_OPTION_END);
    else
        daemon = MHD_start_daemon(flags, 0, accepts, NULL, answer, &cls_of_handler,
                                  MHD_OPTION_NOTIFY_COMPLETED, completed, &cls_of_completed,
                                  MHD_OPTION_CONNECTION_TIMEOUT, 5u, MHD_OPTION_END);
    if (!daemon)
        return 1;
    printf("%d\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    if (external) {
        poll_daemon(daemon);
    } else {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        poll(&input, 1, 60000);
    }
    MHD_stop_daemon(daemon);
    printf("%d ok, %d else, %s\n", completed_ok, completed_else,
           accepted > 0 ? "accepted" : "nobody came");
    return 0;
}
