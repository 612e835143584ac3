/* The service graph as Tempo's metrics generator draws it: a call is an edge from the service that asks to the one that
 * answers.
 *
 * 1. A span that answers and its parent that asks: store_edges. Where either is a producer's or a consumer's, the
 *    connection is a `messaging_system`.
 * 2. A span that asks and has an attribute of a database is a call to that (`database`), named by peer.service, else
 *    server.address, else network.peer.address and port, else the database.
 * 3. A span that asks, has a peer.service and no child that answers is a call to somebody who sends no spans; a root
 *    that answers is called by such a one, which is its peer.service, else "user" (both: `virtual_node`). What the
 *    silent side took is 0, as in Tempo.
 *
 * What has a peer.service is noted first (GRAPH_PEERS_MAX of them), and struck off by the edges of 1. A call counts when
 * its answering span began, else when its only one did. Unlike Tempo, which takes what comes first, a database that sends
 * spans of its own has both the edges of 1 and of 2. */
#include "query/span_series_internal.h"

#include "base/clock.h"
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

#define GRAPH_PEERS_MAX ((size_t)1 << 19)
enum { LABEL_CLIENT, LABEL_SERVER, LABEL_CONNECTION };

/* Attributes that rows bring along. */
enum {
    ATTR_DB_NAMESPACE,
    ATTR_DB_NAME,
    ATTR_DB_SYSTEM,
    ATTR_DB_SYSTEM_NAME,
    ATTR_PEER_SERVICE,
    ATTR_SERVER_ADDRESS,
    ATTR_PEER_ADDRESS,
    ATTR_PEER_PORT,
    ATTRS,
};
#define ATTR(key)                                                                                  \
    {                                                                                              \
        FIELD_SPAN_ATTR,                                                                           \
        {                                                                                          \
            key, sizeof(key) - 1                                                                   \
        }                                                                                          \
    }
static const struct scan_attr attrs[ATTRS] = {
    ATTR("db.namespace"),         ATTR("db.name"),           ATTR("db.system"),
    ATTR("db.system.name"),       ATTR("peer.service"),      ATTR("server.address"),
    ATTR("network.peer.address"), ATTR("network.peer.port"),
};

/* A span that asks somebody by name. */
struct peer {
    struct trace_id trace_id;
    struct span_id span_id;
    uint8_t status;
    bool is_answered;
    struct str client, server;
    uint64_t start_ns, duration_ns;
};

struct graph {
    struct gatherer *g;
    struct peer *peers;
    uint32_t *slots; /* peer + 1 */
    size_t n, cap;
};

struct call {
    struct str client, server, connection; /* borrowed for the call of call_add */
    uint64_t start_ns, client_ns, server_ns;
    bool failed;
};

static int nomem(struct gatherer *g)
{
    return error_set(g->detail, ERR_NOMEM, 0, "out of memory");
}

static int call_add(struct gatherer *g, const struct call *c)
{
    const struct str texts[] = {c->client, c->server, c->connection};
    struct entity *e;
    size_t before = g->n;
    int err = gatherer_entity(g, texts, &e);
    for (size_t i = 0; !err && g->n > before && i < sizeof texts / sizeof *texts; i++) {
        e->texts[i] = arena_str(g->arena, texts[i]);
        if (!e->texts[i].ptr)
            return nomem(g);
    }
    if (!err)
        err = gatherer_add(g, &e->tallies[TALLY_MAIN], c->start_ns, 1, true, c->client_ns);
    if (!err)
        err = gatherer_add(g, &e->tallies[TALLY_SERVER], c->start_ns, 1, true, c->server_ns);
    if (!err && c->failed)
        err = gatherer_add(g, &e->tallies[TALLY_FAILED], c->start_ns, 1, false, 0);
    return err;
}

/* ---- spans that ask somebody by name ---- */

static size_t peer_slot(const struct graph *graph, const struct trace_id *trace_id,
                        const struct span_id *span_id)
{
    uint64_t hash = hash_bytes_seed(trace_id->bytes, TRACE_ID_SIZE, hash_secret());
    size_t mask = 2 * graph->cap - 1;
    size_t at = hash_bytes_seed(span_id->bytes, SPAN_ID_SIZE, hash) & mask;
    for (; graph->slots[at]; at = (at + 1) & mask) {
        const struct peer *p = &graph->peers[graph->slots[at] - 1];
        if (!trace_id_cmp(&p->trace_id, trace_id) &&
            !memcmp(p->span_id.bytes, span_id->bytes, SPAN_ID_SIZE))
            break;
    }
    return at;
}

static int peers_grow(struct graph *graph)
{
    size_t cap = graph->cap ? 2 * graph->cap : 1024;
    if (cap > GRAPH_PEERS_MAX)
        return error_set(graph->g->detail, ERR_TOO_LARGE, 0,
                         "more than %zu calls name a peer.service", GRAPH_PEERS_MAX);
    struct peer *peers = realloc(graph->peers, cap * sizeof *peers);
    if (peers)
        graph->peers = peers;
    uint32_t *slots = peers ? calloc(2 * cap, sizeof *slots) : NULL;
    if (!slots)
        return nomem(graph->g);
    free(graph->slots);
    graph->slots = slots;
    graph->cap = cap;
    for (size_t i = 0; i < graph->n; i++)
        slots[peer_slot(graph, &peers[i].trace_id, &peers[i].span_id)] = (uint32_t)i + 1;
    return 0;
}

/* The text of an attribute, in `room` where it is a number; empty when there is none. */
static struct str attr_text(const struct value *v, char room[32])
{
    int n = 0;
    if (v->type == VALUE_STRING)
        return v->string;
    if (v->type == VALUE_INT)
        n = snprintf(room, 32, "%lld", (long long)v->integer);
    else if (v->type == VALUE_BOOL)
        n = snprintf(room, 32, "%s", v->boolean ? "true" : "false");
    else if (v->type == VALUE_DOUBLE)
        n = snprintf(room, 32, "%g", v->real);
    return (struct str){room, (size_t)n};
}

static int peer_add(struct graph *graph, const struct scan_row *row, struct str server)
{
    int err = graph->n == graph->cap ? peers_grow(graph) : 0;
    if (err)
        return err;
    size_t at = peer_slot(graph, &row->trace_id, &row->span_id);
    if (graph->slots[at])
        return 0; /* sent twice */
    struct str copy = arena_str(graph->g->arena, server);
    if (!copy.ptr)
        return nomem(graph->g);
    graph->peers[graph->n++] = (struct peer){
        .trace_id = row->trace_id,
        .span_id = row->span_id,
        .status = row->status_code,
        .client = row->service,
        .server = copy,
        .start_ns = row->start_ns,
        .duration_ns = row->duration_ns,
    };
    graph->slots[at] = (uint32_t)graph->n;
    return 0;
}

/* Of the texts of its attributes; empty when the span is about no database. */
static struct str database_of(const struct str *texts, char room[512])
{
    struct str name = STR("");
    for (int i = ATTR_DB_NAMESPACE; !name.len && i <= ATTR_DB_SYSTEM_NAME; i++)
        name = texts[i];
    if (!name.len)
        return name;
    if (texts[ATTR_PEER_SERVICE].len)
        return texts[ATTR_PEER_SERVICE];
    if (texts[ATTR_SERVER_ADDRESS].len)
        return texts[ATTR_SERVER_ADDRESS];
    struct str address = texts[ATTR_PEER_ADDRESS], port = texts[ATTR_PEER_PORT];
    if (!address.len || !port.len)
        return address.len ? address : name;
    int n = snprintf(room, 512, "%.*s:%.*s", (int)(address.len > 400 ? 400 : address.len),
                     address.ptr, (int)(port.len > 100 ? 100 : port.len), port.ptr);
    return (struct str){room, (size_t)n};
}

static int take_asking(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct graph *graph = arg;
    struct str texts[ATTRS];
    char rooms[ATTRS][32], room[512];
    int err = gatherer_clock(graph->g);
    if (err)
        return err;
    for (size_t i = 0; i < ATTRS; i++)
        texts[i] = attr_text(&row->attrs[i], rooms[i]);
    struct str database = database_of(texts, room);
    if (!database.len)
        return texts[ATTR_PEER_SERVICE].len ? peer_add(graph, row, texts[ATTR_PEER_SERVICE]) : 0;
    return call_add(graph->g, &(struct call){.client = row->service,
                                             .server = database,
                                             .connection = STR("database"),
                                             .start_ns = row->start_ns,
                                             .client_ns = row->duration_ns,
                                             .server_ns = row->duration_ns,
                                             .failed = row->status_code == STATUS_ERROR});
}

/* ---- roots that answer, and pairs ---- */

static int take_root(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct graph *graph = arg;
    char room[32];
    struct str client = STR("");
    int err = gatherer_clock(graph->g);
    if (err)
        return err;
    static const int named_by[] = {ATTR_PEER_SERVICE, ATTR_DB_NAME, ATTR_DB_SYSTEM,
                                   ATTR_DB_SYSTEM_NAME};
    for (size_t i = 0; !client.len && i < sizeof named_by / sizeof *named_by; i++)
        client = attr_text(&row->attrs[named_by[i]], room);
    return call_add(graph->g, &(struct call){.client = client.len ? client : STR("user"),
                                             .server = row->service,
                                             .connection = STR("virtual_node"),
                                             .start_ns = row->start_ns,
                                             .server_ns = row->duration_ns,
                                             .failed = row->status_code == STATUS_ERROR});
}

static int take_edge(void *arg, const struct store_edge *edge)
{
    struct graph *graph = arg;
    int err = gatherer_clock(graph->g);
    if (err)
        return err;
    if (graph->n) {
        uint32_t peer = graph->slots[peer_slot(graph, &edge->trace_id, &edge->client_id)];
        if (peer)
            graph->peers[peer - 1].is_answered = true;
    }
    bool is_message = edge->client.kind == SPAN_KIND_PRODUCER ||
                      edge->server.kind == SPAN_KIND_CONSUMER;
    return call_add(graph->g,
                    &(struct call){.client = edge->client.service,
                                   .server = edge->server.service,
                                   .connection = is_message ? STR("messaging_system") : STR(""),
                                   .start_ns = edge->start_ns,
                                   .client_ns = edge->client.duration_ns,
                                   .server_ns = edge->server.duration_ns,
                                   .failed = edge->client.status_code == STATUS_ERROR ||
                                             edge->server.status_code == STATUS_ERROR});
}

static int silent_peers(struct graph *graph)
{
    int err = 0;
    for (size_t i = 0; !err && i < graph->n; i++) {
        const struct peer *p = &graph->peers[i];
        if (!p->is_answered)
            err = call_add(graph->g, &(struct call){.client = p->client,
                                                    .server = p->server,
                                                    .connection = STR("virtual_node"),
                                                    .start_ns = p->start_ns,
                                                    .client_ns = p->duration_ns,
                                                    .failed = p->status == STATUS_ERROR});
    }
    return err;
}

/* ---- the passes ---- */

static struct predicate kind_is(enum span_kind kind)
{
    return (struct predicate){
        .op = PREDICATE_EQ,
        .field = FIELD_KIND,
        .value = {.type = VALUE_INT, .integer = kind},
    };
}

static int scan_with(struct graph *graph, const struct predicate *where, scan_fn *fn)
{
    struct scan_cost cost = {0};
    struct scan scan = {
        .where = where,
        .start_max_ns = gatherer_end_ns(graph->g),
        .attrs = attrs,
        .n_attrs = ATTRS,
    };
    int err = store_scan(graph->g->source->view, &scan, fn, graph, &cost);
    graph->g->source->cost.rows_read += cost.rows_read;
    graph->g->source->cost.bytes_read += cost.bytes_read;
    return err;
}

static int scan_asking(struct graph *graph)
{
    struct predicate kinds[] = {kind_is(SPAN_KIND_CLIENT), kind_is(SPAN_KIND_PRODUCER)};
    struct predicate named[ATTR_PEER_SERVICE + 1];
    for (int i = 0; i <= ATTR_PEER_SERVICE; i++)
        named[i] = (struct predicate){
            .op = PREDICATE_EXISTS, .field = FIELD_SPAN_ATTR, .key = attrs[i].key};
    const struct predicate both[] = {
        {.op = PREDICATE_OR, .children = kinds, .n_children = 2},
        {.op = PREDICATE_OR, .children = named, .n_children = ATTR_PEER_SERVICE + 1},
    };
    const struct predicate where = {.op = PREDICATE_AND, .children = both, .n_children = 2};
    return scan_with(graph, &where, take_asking);
}

static int scan_roots(struct graph *graph)
{
    struct predicate kinds[] = {kind_is(SPAN_KIND_SERVER), kind_is(SPAN_KIND_CONSUMER)};
    const struct predicate both[] = {
        {.op = PREDICATE_EQ,
         .field = FIELD_IS_ROOT,
         .value = {.type = VALUE_BOOL, .boolean = true}},
        {.op = PREDICATE_OR, .children = kinds, .n_children = 2},
    };
    const struct predicate where = {.op = PREDICATE_AND, .children = both, .n_children = 2};
    return scan_with(graph, &where, take_root);
}

int span_graph_gather(struct gatherer *g)
{
    struct graph graph = {.g = g};
    uint64_t now_ns = clock_monotonic_ns(), deadline_ns = g->source->deadline_ns;
    uint64_t left_ns = !deadline_ns ? 0 : deadline_ns > now_ns ? deadline_ns - now_ns : 1;
    g->detail->code = 0;
    int err = scan_asking(&graph);
    if (!err)
        err = scan_roots(&graph);
    if (!err)
        err = store_edges(g->source->view, 0, gatherer_end_ns(g), left_ns, take_edge, &graph, NULL);
    if (!err)
        err = silent_peers(&graph);
    free(graph.peers);
    free(graph.slots);
    if (err == ERR_TIMEOUT)
        return error_set(g->detail, err, 0, "query timed out in expression evaluation");
    if (err && g->detail->code != err)
        return error_set(g->detail, err, 0, "the query failed: %s", err_text(err));
    return err;
}
