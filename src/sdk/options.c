#include "sdk/options.h"

#include "base/clock.h"
#include "sdk/lane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

#define RESOURCE_ATTRS_MAX 64

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL; /* empty is unset, as OpenTelemetry has it */
}

static bool is_true(const char *value)
{
    return value && (strcasecmp(value, "true") == 0 || strcmp(value, "1") == 0 ||
                     strcasecmp(value, "yes") == 0 || strcasecmp(value, "on") == 0);
}

static const char *keep(struct config *c, const char *text)
{
    return text ? arena_str(&c->arena, str_from(text)).ptr : NULL;
}

static const char *first_of(const char *a, const char *b)
{
    return a ? a : b;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* "a%20b" in place of "a b", in W3C Baggage's way. */
static struct str percent_decode(struct config *c, struct str s)
{
    char *out = arena_alloc(&c->arena, s.len + 1);
    size_t n = 0;
    if (!out)
        return STR_NONE;
    for (size_t i = 0; i < s.len; i++) {
        int high, low;
        if (s.ptr[i] == '%' && i + 2 < s.len && (high = hex_digit(s.ptr[i + 1])) >= 0 &&
            (low = hex_digit(s.ptr[i + 2])) >= 0) {
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = s.ptr[i];
        }
    }
    return (struct str){out, n};
}

/* ---- the resource ---- */

struct resource_list {
    struct attr *items;
    uint32_t n;
};

static struct attr *resource_find(struct resource_list *l, struct str key)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (str_eq(l->items[i].key, key))
            return &l->items[i];
    return NULL;
}

/* What came first stays. */
static void resource_add(struct resource_list *l, struct str key, struct value value)
{
    if (key.len == 0 || l->n == RESOURCE_ATTRS_MAX || resource_find(l, key))
        return;
    l->items[l->n++] = (struct attr){key, value};
}

static void resource_add_str(struct config *c, struct resource_list *l, struct str key,
                             const char *text)
{
    struct str s = text ? arena_str(&c->arena, str_from(text)) : STR_NONE;
    if (s.ptr && str_is_utf8(s))
        resource_add(l, key, (struct value){.type = VALUE_STRING, .string = s});
}

static void resource_add_list(struct config *c, struct resource_list *l, const char *text)
{
    struct str rest = str_from(keep(c, text));
    while (rest.ptr && rest.len) {
        struct str value, key = str_trim(str_split(str_split(rest, ',', &rest), '=', &value));
        if (value.ptr) {
            value = percent_decode(c, str_trim(value));
            if (value.ptr && str_is_utf8(value) && str_is_utf8(key))
                resource_add(l, key, (struct value){.type = VALUE_STRING, .string = value});
        }
    }
}

static const char *instance_id(struct config *c)
{
    uint8_t b[16];
    char hex[32];
    if (getrandom(b, sizeof b, GRND_NONBLOCK) != (ssize_t)sizeof b)
        return NULL;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* a version 4 UUID */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    hex_put(hex, b, sizeof b);
    return arena_printf(&c->arena, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
                        hex + 20);
}

static bool resource_init(struct config *c, const char *service_name, const char *service_version)
{
    struct resource_list l = {
        .items = arena_array(&c->arena, RESOURCE_ATTRS_MAX, sizeof(struct attr))};
    char host[256] = "";
    if (!l.items)
        return false;
    resource_add_str(c, &l, STR("service.name"), service_name);
    resource_add_str(c, &l, STR("service.version"), service_version);
    resource_add_str(c, &l, STR("telemetry.sdk.name"), "pugmark");
    resource_add_str(c, &l, STR("telemetry.sdk.language"), "c");
    resource_add_str(c, &l, STR("telemetry.sdk.version"), PUGMARK_VERSION);
    resource_add_list(c, &l, environment("OTEL_RESOURCE_ATTRIBUTES"));
    resource_add_str(c, &l, STR("service.name"), program_invocation_short_name);
    resource_add_str(c, &l, STR("service.instance.id"), instance_id(c));
    resource_add(&l, STR("process.pid"),
                 (struct value){.type = VALUE_INT, .integer = (int64_t)getpid()});
    resource_add_str(c, &l, STR("process.executable.name"), program_invocation_short_name);
    if (gethostname(host, sizeof host - 1) == 0)
        resource_add_str(c, &l, STR("host.name"), host);
    c->resource.attrs = (struct attrs){.items = l.items, .n = l.n};
    resource_set_service_name(&c->resource);
    c->service_name = arena_str(&c->arena, c->resource.service_name).ptr;
    c->scope = (struct scope){.name = STR("pugmark"), .version = STR(PUGMARK_VERSION)};
    return c->service_name != NULL;
}

/* ---- the endpoint ---- */

/* http://host:port[/path], taken to pieces as far as we must. */
static bool url_has_path(struct str url, bool *ret_port_4317)
{
    const char *host = memmem(url.ptr, url.len, "://", 3);
    if (!host)
        return false;
    host += 3;
    struct str rest = {host, (size_t)(url.ptr + url.len - host)};
    const char *slash = memchr(rest.ptr, '/', rest.len);
    struct str authority = {rest.ptr, slash ? (size_t)(slash - rest.ptr) : rest.len};
    *ret_port_4317 = authority.len > 5 &&
                     memcmp(authority.ptr + authority.len - 5, ":4317", 5) == 0;
    return slash && (size_t)(slash - rest.ptr) + 1 < rest.len;
}

static int endpoint_init(struct config *c, const char *from_options, struct error_detail *problem)
{
    const char *traces = environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    const char *base = environment("OTEL_EXPORTER_OTLP_ENDPOINT");
    const char *url = first_of(from_options, environment("PUG_OTLP_ENDPOINT"));
    const char *protocol = first_of(environment("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
                                    environment("OTEL_EXPORTER_OTLP_PROTOCOL"));
    bool complete = !url && traces, port_4317 = false;
    url = first_of(url, first_of(traces, first_of(base, "http://localhost:4317")));
    struct str s = str_from(url);
    while (s.len && s.ptr[s.len - 1] == '/' && !complete)
        s.len--;
    if (!str_starts(s, STR("http://")) && !str_starts(s, STR("https://")))
        return error_set(problem, ERR_INVALID, 0,
                         "the OTLP endpoint \"%.100s\" does not begin with http:// or https://",
                         url);
    bool path = url_has_path(s, &port_4317);
    if (protocol && strcmp(protocol, "grpc") == 0)
        c->otlp_protocol = OTLP_GRPC;
    else if (!protocol)
        c->otlp_protocol = port_4317 && !path ? OTLP_GRPC : OTLP_HTTP_PROTOBUF;
    else if (strcmp(protocol, "http/protobuf") == 0)
        c->otlp_protocol = OTLP_HTTP_PROTOBUF;
    else
        return error_set(problem, ERR_UNSUPPORTED, 0,
                         "OTEL_EXPORTER_OTLP_PROTOCOL is \"%.40s\"; grpc and http/protobuf are "
                         "what can be sent",
                         protocol);
    const char *suffix = c->otlp_protocol == OTLP_GRPC
                             ? "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
                         : complete || (path && url != base) ? ""
                                                             : "/v1/traces";
    c->otlp_url = arena_printf(&c->arena, "%.*s%s", STR_ARG(s), suffix);
    c->otlp_headers = keep(c, first_of(environment("OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
                                       environment("OTEL_EXPORTER_OTLP_HEADERS")));
    return c->otlp_url ? 0 : ERR_NOMEM;
}

/* ---- all of it ---- */

static int backend_from_name(const char *name, enum pug_backend *ret, struct error_detail *problem)
{
    static const struct {
        const char *name;
        enum pug_backend backend;
    } known[] = {
        {"local", PUG_BACKEND_LOCAL}, {"otlp", PUG_BACKEND_OTLP}, {"discard", PUG_BACKEND_DISCARD}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            *ret = known[i].backend;
            return 0;
        }
    return error_set(problem, ERR_UNSUPPORTED, 0,
                     "PUG_BACKEND is \"%.40s\"; local, otlp and discard are what there is", name);
}

static uint64_t number_or(uint64_t from_options, const char *name, uint64_t otherwise)
{
    uint64_t n;
    const char *text = environment(name);
    if (from_options)
        return from_options;
    return text && str_to_u64(str_from(text), &n) && n ? n : otherwise;
}

static int fill(struct config *c, const struct pug_options *o, struct error_detail *problem)
{
    const char *backend = environment("PUG_BACKEND");
    c->on = o->tracing == PUG_TRACING_ENVIRONMENT
                ? is_true(environment("PUG_TRACING")) && !is_true(environment("OTEL_SDK_DISABLED"))
                : o->tracing == PUG_TRACING_ON;
    c->log = o->log;
    c->log_user = o->log_user;
    if (!c->on)
        return 0;
    c->backend = o->backend;
    if (c->backend == PUG_BACKEND_DEFAULT) {
        c->backend = PUG_BACKEND_LOCAL;
        int err = backend ? backend_from_name(backend, &c->backend, problem) : 0;
        if (err)
            return err;
    } else if ((unsigned)c->backend > PUG_BACKEND_STDOUT) {
        return error_set(problem, ERR_UNSUPPORTED, 0, "no backend has the number %d", c->backend);
    }
    uint64_t ring = number_or(o->ring_bytes, "PUG_RING_KIB", 0);
    if (!o->ring_bytes)
        ring = ring ? ring << 10 : 1u << 20;
    if (ring < LANE_RING_BYTES_MIN || ring > LANE_RING_BYTES_MAX || (ring & (ring - 1)))
        return error_set(problem, ERR_INVALID, 0,
                         "the ring of a thread is to be a power of two between %u KiB and %u KiB",
                         LANE_RING_BYTES_MIN >> 10, LANE_RING_BYTES_MAX >> 10);
    c->ring_bytes = (size_t)ring;
    c->queue_bytes_max = o->queue_bytes_max ? o->queue_bytes_max : 16u << 20;
    c->drain_interval_ns = (o->drain_interval_us ? o->drain_interval_us : 5000) * NS_PER_US;
    c->flush_interval_ns = (o->flush_interval_ms ? o->flush_interval_ms : 200) * NS_PER_MS;
    c->stop_timeout_ns = (o->stop_timeout_ms ? o->stop_timeout_ms : 2000) * NS_PER_MS;
    c->otlp_timeout_ns = number_or(0, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
                                   number_or(0, "OTEL_EXPORTER_OTLP_TIMEOUT", 10000)) *
                         NS_PER_MS;
    c->sampler.parent_based = true;
    c->sampler.rate = 1;
    c->propagators = PROPAGATE_TRACECONTEXT | PROPAGATE_BAGGAGE;
    c->trace_dir =
        keep(c, first_of(first_of(o->trace_dir, environment("PUG_TRACE_DIR")), ".local/traces"));
    if (!c->trace_dir ||
        !resource_init(c,
                       first_of(o->service_name, first_of(environment("OTEL_SERVICE_NAME"),
                                                          environment("PUG_SERVICE_NAME"))),
                       first_of(o->service_version, environment("PUG_SERVICE_VERSION"))))
        return ERR_NOMEM;
    if (c->backend == PUG_BACKEND_OTLP) {
        int err = endpoint_init(c, o->otlp_endpoint, problem);
        if (err)
            return err;
        if (o->otlp_headers)
            c->otlp_headers = keep(c, o->otlp_headers);
    }
    return 0;
}

int config_init(struct config *ret, const struct pug_options *options,
                struct error_detail *ret_problem)
{
    struct pug_options o = {.size = sizeof o};
    if (options) {
        /* A program built against an older header has fewer fields. */
        if (options->size < offsetof(struct pug_options, service_name) || options->size > 4096)
            return error_set(ret_problem, ERR_INVALID, 0, "pug_options.size is not set");
        memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    }
    *ret = (struct config){.on = false};
    int err = fill(ret, &o, ret_problem);
    if (err) {
        if (ret_problem && !ret_problem->code)
            error_set(ret_problem, err, 0, "%s", err_text(err));
        arena_done(&ret->arena);
    }
    return err;
}

void config_done(struct config *c)
{
    arena_done(&c->arena);
    *c = (struct config){.on = false};
}
