/* A shop's quotation service: the program that bench/http_overhead measures, with its instrumentation
 * compiled in and compiled out.
 *
 *     POST /quote   {"customer": 17, "lines": [{"sku": "sku-000041", "count": 3}, ...]}
 *
 * parses the order, looks up the customer and the article of each line in SQLite, adds up, and
 * answers with the priced order as JSON. One thread does it all, as one worker of a server does.
 * Ten spans a request: quote.request, quote.parse, db.customer, three times db.articles (a third of
 * the lines each), quote.discount, quote.total, quote.serialize, quote.reply.
 *
 * Prints its port when it listens; on SIGTERM it ends and prints "REQUESTS RECORDED EXPORTED LOST". */
#include <pugmark/pugmark.h>

#include <jansson.h>
#include <microhttpd.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CUSTOMERS = 2000, ARTICLES = 20000, BODY_BYTES_MAX = 1 << 20, ARTICLE_SPANS = 3 };

struct shop {
    sqlite3 *db;
    sqlite3_stmt *customer, *article;
    uint64_t requests;
};

struct request {
    char *body;
    size_t len;
};

static void die(const char *what)
{
    fprintf(stderr, "http server: %s\n", what);
    exit(1);
}

/* ---- the data ---- */

static void run_sql(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        die(sqlite3_errmsg(db));
}

static void shop_open(struct shop *shop)
{
    char sql[256];
    if (sqlite3_open(":memory:", &shop->db) != SQLITE_OK)
        die("cannot open the database");
    run_sql(
        shop->db,
        "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, country TEXT, rebate INTEGER);"
        "CREATE TABLE articles (sku TEXT PRIMARY KEY, title TEXT, cents INTEGER, stock INTEGER) "
        "WITHOUT ROWID;"
        "BEGIN");
    for (int i = 0; i < CUSTOMERS; i++) {
        snprintf(sql, sizeof sql,
                 "INSERT INTO customers VALUES (%d, 'customer number %d', '%s', %d)", i, i,
                 i % 3 ? "NL" : "PT", i % 7);
        run_sql(shop->db, sql);
    }
    for (int i = 0; i < ARTICLES; i++) {
        snprintf(sql, sizeof sql,
                 "INSERT INTO articles VALUES ('sku-%06d', 'a thing of kind %d', %d, %d)", i,
                 i % 97, 100 + i * 37 % 9000, i % 11 * 5);
        run_sql(shop->db, sql);
    }
    run_sql(shop->db, "COMMIT");
    if (sqlite3_prepare_v2(shop->db, "SELECT name, country, rebate FROM customers WHERE id = ?", -1,
                           &shop->customer, NULL) ||
        sqlite3_prepare_v2(shop->db, "SELECT title, cents, stock FROM articles WHERE sku = ?", -1,
                           &shop->article, NULL))
        die(sqlite3_errmsg(shop->db));
}

/* ---- a request ---- */

static json_t *parse(const struct request *r)
{
    PUG_SPAN("quote.parse", PUG_INT("bytes", (int64_t)r->len));
    return json_loadb(r->body, r->len, 0, NULL);
}

static int64_t look_up_customer(struct shop *shop, int64_t id, json_t *answer)
{
    PUG_SPAN("db.customer", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("db.system.name", "sqlite"),
             PUG_INT("customer", id));
    int64_t rebate = -1;
    sqlite3_bind_int64(shop->customer, 1, id);
    if (sqlite3_step(shop->customer) == SQLITE_ROW) {
        json_object_set_new(answer, "customer",
                            json_string((const char *)sqlite3_column_text(shop->customer, 0)));
        json_object_set_new(answer, "country",
                            json_string((const char *)sqlite3_column_text(shop->customer, 1)));
        rebate = sqlite3_column_int64(shop->customer, 2);
    }
    sqlite3_reset(shop->customer);
    return rebate;
}

static int64_t look_up_articles(struct shop *shop, const json_t *lines, size_t from, size_t to,
                                json_t *priced)
{
    PUG_SPAN("db.articles", PUG_KIND(PUG_KIND_CLIENT), PUG_STR("db.system.name", "sqlite"),
             PUG_INT("lines", (int64_t)(to - from)));
    int64_t sum = 0;
    for (size_t i = from; i < to; i++) {
        const json_t *line = json_array_get(lines, i);
        const char *sku = json_string_value(json_object_get(line, "sku"));
        int64_t count = json_integer_value(json_object_get(line, "count"));
        sqlite3_bind_text(shop->article, 1, sku ? sku : "", -1, SQLITE_STATIC);
        if (sqlite3_step(shop->article) == SQLITE_ROW) {
            int64_t cents = sqlite3_column_int64(shop->article, 1);
            sum += cents * count;
            json_array_append_new(
                priced, json_pack("{s:s, s:s, s:I, s:I, s:b}", "sku", sku, "title",
                                  (const char *)sqlite3_column_text(shop->article, 0), "count",
                                  (json_int_t)count, "cents", (json_int_t)(cents * count),
                                  "in_stock", sqlite3_column_int64(shop->article, 2) >= count));
        }
        sqlite3_reset(shop->article);
    }
    return sum;
}

static int64_t discount(int64_t sum, int64_t rebate)
{
    PUG_SPAN("quote.discount", PUG_INT("rebate", rebate));
    return sum > 100000 ? sum * (100 - rebate) / 100 : sum;
}

static void total(json_t *answer, json_t *priced, int64_t sum, int64_t after)
{
    PUG_SPAN("quote.total", PUG_INT("cents", after));
    json_object_set_new(answer, "lines", priced);
    json_object_set_new(answer, "sum", json_integer(sum));
    json_object_set_new(answer, "total", json_integer(after));
}

static char *serialize(const json_t *answer)
{
    PUG_SPAN("quote.serialize");
    return json_dumps(answer, JSON_COMPACT);
}

static enum MHD_Result reply(struct MHD_Connection *c, unsigned status, char *text)
{
    PUG_SPAN("quote.reply", PUG_INT("bytes", text ? (int64_t)strlen(text) : 0));
    struct MHD_Response *response = MHD_create_response_from_buffer(text ? strlen(text) : 0, text,
                                                                    MHD_RESPMEM_MUST_FREE);
    MHD_add_response_header(response, "Content-Type", "application/json");
    enum MHD_Result result = MHD_queue_response(c, status, response);
    MHD_destroy_response(response);
    return result;
}

#ifndef PUG_DISABLE
static const char *header(void *connection, const char *name, size_t nth, size_t *ret_len)
{
    (void)ret_len;
    return nth ? NULL : MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}
#endif

static enum MHD_Result quote(struct shop *shop, struct MHD_Connection *c, const struct request *r)
{
#ifndef PUG_DISABLE
    struct pug_context caller;
    pug_extract(header, c, &caller);
    PUG_SPAN_FROM(&caller, "quote.request", PUG_KIND(PUG_KIND_SERVER),
                  PUG_STR("http.request.method", "POST"), PUG_STR("http.route", "/quote"));
#endif
    json_t *order = parse(r), *answer = json_object(), *priced = json_array();
    const json_t *lines = json_object_get(order, "lines");
    int64_t sum = 0, rebate = look_up_customer(
                         shop, json_integer_value(json_object_get(order, "customer")), answer);
    if (!order || rebate < 0 || !json_is_array(lines)) {
        json_decref(order);
        json_decref(answer);
        json_decref(priced);
        return reply(c, 400, strdup("{\"error\":\"no such order\"}"));
    }
    size_t n = json_array_size(lines);
    for (size_t i = 0; i < ARTICLE_SPANS; i++)
        sum += look_up_articles(shop, lines, n * i / ARTICLE_SPANS, n * (i + 1) / ARTICLE_SPANS,
                                priced);
    total(answer, priced, sum, discount(sum, rebate));
    char *text = serialize(answer);
    json_decref(answer);
    json_decref(order);
    shop->requests++;
    return reply(c, 200, text);
}

/* ---- HTTP ---- */

static enum MHD_Result on_request(void *user, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *bytes,
                                  size_t *n, void **state)
{
    struct request *r = *state;
    (void)url, (void)method, (void)version;
    if (!r) {
        *state = calloc(1, sizeof(struct request));
        return *state ? MHD_YES : MHD_NO;
    }
    if (*n) {
        char *more = r->len + *n <= BODY_BYTES_MAX ? realloc(r->body, r->len + *n) : NULL;
        if (!more)
            return MHD_NO;
        memcpy(more + r->len, bytes, *n);
        r->body = more;
        r->len += *n;
        *n = 0;
        return MHD_YES;
    }
    return quote(user, c, r);
}

static void on_end(void *user, struct MHD_Connection *c, void **state,
                   enum MHD_RequestTerminationCode why)
{
    struct request *r = *state;
    (void)user, (void)c, (void)why;
    if (r)
        free(r->body);
    free(r);
    *state = NULL;
}

int main(void)
{
    static struct shop shop;
    sigset_t term;
    int caught;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    shop_open(&shop);
    if (pug_start(NULL) != 0)
        die("tracing did not start");
    struct MHD_Daemon *daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL,
                                                 on_request, &shop, MHD_OPTION_NOTIFY_COMPLETED,
                                                 on_end, NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *info = daemon
                                           ? MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)
                                           : NULL;
    if (!info)
        die("cannot listen");
    printf("%u\n", info->port);
    fflush(stdout);
    sigwait(&term, &caught);
    MHD_stop_daemon(daemon);
    (void)pug_stop();
    struct pug_counts counts = {.size = sizeof counts};
    pug_counts_read(&counts);
    printf("%llu %llu %llu %llu\n", (unsigned long long)shop.requests,
           (unsigned long long)counts.recorded, (unsigned long long)counts.exported,
           (unsigned long long)(counts.lost_ring_full + counts.lost_depth + counts.lost_no_lane +
                                counts.lost_interrupt + counts.lost_queue_full +
                                counts.lost_export + counts.lost_memory));
    sqlite3_finalize(shop.customer);
    sqlite3_finalize(shop.article);
    sqlite3_close(shop.db);
    return 0;
}
