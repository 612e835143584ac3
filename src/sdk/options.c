#include "sdk/options.h"

#include "base/clock.h"
#include "model/redact.h"
#include "sdk/lane.h"
#include "sdk/secret.h"
#include "sdk/settings_file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *keep(struct config *c, const char *text)
{
    return text ? arena_str(&c->arena, str_from(text)).ptr : NULL;
}

/* ---- the endpoints ---- */

#define GRPC_TRACES "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
#define GRPC_METRICS "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

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

static enum otlp_protocol protocol_of(const struct setting *protocol, bool port_4317, bool path)
{
    if (!protocol->is_set)
        return port_4317 && !path ? OTLP_GRPC : OTLP_HTTP_PROTOBUF;
    return strcmp(protocol->text, "grpc") == 0        ? OTLP_GRPC
           : strcmp(protocol->text, "http/json") == 0 ? OTLP_HTTP_JSON
                                                      : OTLP_HTTP_PROTOBUF;
}

static bool ends_with(struct str s, struct str end)
{
    return s.len >= end.len && memcmp(s.ptr + s.len - end.len, end.ptr, end.len) == 0;
}

/* A URL for traces says where metrics go when it is a base, or ends as the specification has it. */
static const char *metrics_url(struct config *c, const struct setting *metrics, struct str base,
                               bool complete)
{
    const char *exporter = settings_variable("OTEL_METRICS_EXPORTER");
    if (exporter && strcmp(exporter, "otlp") != 0)
        return NULL;
    if (metrics->is_set && c->otlp_protocol != OTLP_GRPC)
        return keep(c, metrics->text);
    if (metrics->is_set) {
        struct str s = str_from(metrics->text);
        while (s.len && s.ptr[s.len - 1] == '/')
            s.len--;
        return arena_printf(&c->arena, "%.*s" GRPC_METRICS, STR_ARG(s));
    }
    if (c->otlp_protocol == OTLP_GRPC)
        return arena_printf(&c->arena, "%.*s" GRPC_METRICS, STR_ARG(base));
    if (ends_with(base, STR("/v1/traces")))
        return arena_printf(&c->arena, "%.*s/v1/metrics", (int)(base.len - 10), base.ptr);
    return complete ? NULL : arena_printf(&c->arena, "%.*s/v1/metrics", STR_ARG(base));
}

static int endpoint_init(struct config *c, const struct settings *s)
{
    const struct setting *v = &s->values[SET_OTLP_ENDPOINT];
    struct str url = str_from(v->text);
    const char *variable = v->variable ? v->variable : "";
    /* The specification's variables: one is taken as it is, to the other the path is added. */
    bool as_it_is = strcmp(variable, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == 0;
    bool is_base = strcmp(variable, "OTEL_EXPORTER_OTLP_ENDPOINT") == 0;
    bool port_4317 = false;
    while (url.len && url.ptr[url.len - 1] == '/' && !as_it_is)
        url.len--;
    bool path = url_has_path(url, &port_4317);
    bool complete = as_it_is || (path && !is_base);
    c->otlp_protocol = protocol_of(&s->values[SET_OTLP_PROTOCOL], port_4317, path);
    const char *suffix = c->otlp_protocol == OTLP_GRPC ? GRPC_TRACES : complete ? "" : "/v1/traces";
    c->otlp_url = arena_printf(&c->arena, "%.*s%s", STR_ARG(url), suffix);
    c->otlp_metrics_url = metrics_url(c, &s->values[SET_OTLP_METRICS_ENDPOINT], url, complete);
    return c->otlp_url ? 0 : ERR_NOMEM;
}

/* ---- the headers, which are secret ---- */

/* That a secret is not there is worth a word only when somebody has asked for it. */
static bool is_asked_for(const struct settings *s)
{
    return s->values[SET_SECRETS_PROVIDER].origin != ORIGIN_DEFAULT ||
           s->values[SET_OTLP_HEADERS_VAULT_KEY].origin != ORIGIN_DEFAULT ||
           !s->values[SET_OTLP_HEADERS_OPTIONAL].boolean;
}

static int headers_from_provider(struct config *c, struct settings *s)
{
    const struct setting *key = &s->values[SET_OTLP_HEADERS_VAULT_KEY];
    const char *provider = s->values[SET_SECRETS_PROVIDER].text;
    struct setting_source source = setting_source_of(key);
    struct error_detail detail = {0};
    struct buf secret = {.bytes_max = 2 * SECRET_BYTES_MAX};
    struct buf list = {.bytes_max = 4 * SECRET_BYTES_MAX};
    int err = secret_get(s, key->text, &secret, &detail);
    if (!err)
        err = secret_to_headers(buf_as_str(&secret), &list, &detail);
    if (!err) {
        c->otlp_headers = arena_str(&c->arena, buf_as_str(&list)).ptr;
        err = c->otlp_headers ? 0 : ERR_NOMEM;
    }
    secret_free(&secret);
    secret_free(&list);
    if (!err || (err == ERR_NOT_FOUND && !is_asked_for(s)))
        return 0;
    const char *what = detail.message[0] ? detail.message : err_text(err);
    if (s->values[SET_OTLP_HEADERS_OPTIONAL].boolean)
        settings_warn(
            s, &source,
            "no OTLP headers from the provider \"%s\" under \"%.60s\": %s; spans are sent "
            "without authentication",
            provider, key->text, what);
    else
        settings_problem(s, &source, ERR_NOT_FOUND, true,
                         "no OTLP headers from the provider \"%s\" under \"%.60s\": %s", provider,
                         key->text, what);
    return s->problem.code;
}

/* Those of pug_options, of the provider, of the standard variable: the first there are. */
static int headers_init(struct config *c, struct settings *s, const char *from_options)
{
    const char *standard = settings_variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS");
    if (!standard)
        standard = settings_variable("OTEL_EXPORTER_OTLP_HEADERS");
    if (from_options) {
        c->otlp_headers = keep(c, from_options);
        return c->otlp_headers ? 0 : ERR_NOMEM;
    }
    if (!standard || is_asked_for(s)) {
        int err = headers_from_provider(c, s);
        if (err)
            return err;
    }
    if (!c->otlp_headers)
        c->otlp_headers = keep(c, standard);
    return 0;
}

/* ---- sampler and propagators ---- */

static bool number_in(struct str text, double max, double *ret)
{
    double d;
    if (!str_to_double(text, &d) || d < 0 || d > max)
        return false;
    *ret = d;
    return true;
}

/* "ratio", without an argument, takes it from sample_rate, and so do the others from theirs. */
static bool sampler_parse(struct config *c, const struct settings *s, struct str text)
{
    struct str argument = STR_NONE, kind;
    c->sampler.parent_based = str_starts(text, STR("parentbased_"));
    if (c->sampler.parent_based)
        text = str_skip(text, 12);
    kind = str_split(text, ':', &argument);
    bool bare = argument.ptr == NULL;
    if (str_eq(kind, STR("always_on")) || str_eq(kind, STR("always_off"))) {
        c->sampler.kind = kind.len == 9 ? SAMPLER_ALWAYS_ON : SAMPLER_ALWAYS_OFF;
        return bare;
    }
    if (str_eq(kind, STR("ratio")) || str_eq(kind, STR("traceidratio"))) {
        c->sampler.kind = SAMPLER_RATIO;
        if (bare && s->values[SET_SAMPLE_RATE].is_set)
            c->sampler.rate = s->values[SET_SAMPLE_RATE].number;
        return bare || number_in(argument, 1, &c->sampler.rate);
    }
    if (str_eq(kind, STR("rate"))) {
        c->sampler.kind = SAMPLER_RATE;
        c->sampler.per_second = s->values[SET_SAMPLE_PER_SECOND].number;
        return bare ? s->values[SET_SAMPLE_PER_SECOND].is_set
                    : number_in(argument, 1e9, &c->sampler.per_second);
    }
    if (str_eq(kind, STR("rules"))) {
        c->sampler.kind = SAMPLER_RULES;
        const char *file = bare ? s->values[SET_SAMPLING_RULES].text : argument.ptr;
        c->sampler.rules_file = keep(c, file);
        return file && file[0];
    }
    return false;
}

/* The strongest source decides; of one source, the setting that says most. */
static void sampler_init(struct config *c, struct settings *s)
{
    static const struct {
        enum setting_id id;
        const char *sampler;
    } by[] = {{SET_SAMPLER, NULL},
              {SET_SAMPLING_RULES, "parentbased_rules"},
              {SET_SAMPLE_PER_SECOND, "parentbased_rate"},
              {SET_SAMPLE_RATE, "parentbased_ratio"}};
    const struct setting *v = NULL;
    const char *text = "parentbased_always_on";
    c->sampler.rate = 1;
    for (size_t i = 0; i < sizeof by / sizeof by[0]; i++) {
        const struct setting *other = &s->values[by[i].id];
        if (other->is_set && (!v || other->origin > v->origin)) {
            v = other;
            text = by[i].sampler ? by[i].sampler : other->text;
        }
    }
    if (sampler_parse(c, s, str_from(text)))
        return;
    struct setting_source source = setting_source_of(v);
    settings_problem(
        s, &source, ERR_INVALID, true,
        "the sampler \"%.60s\" is not known here: expected always_on, always_off, "
        "ratio:0.25, rate:100 or rules:FILE, or one of these with parentbased_ in front",
        text);
}

static unsigned propagators_of(const struct setting *v)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {{"tracecontext", PROPAGATE_TRACECONTEXT},
                 {"baggage", PROPAGATE_BAGGAGE},
                 {"b3", PROPAGATE_B3},
                 {"b3multi", PROPAGATE_B3_MULTI},
                 {"jaeger", PROPAGATE_JAEGER},
                 {"xray", PROPAGATE_XRAY},
                 {"requestid", PROPAGATE_REQUEST_ID}};
    unsigned bits = 0;
    for (size_t i = 0; i < v->n_items; i++)
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
            if (strcmp(v->items[i], known[k].name) == 0)
                bits |= known[k].bit;
    return bits;
}

/* ---- pug_options: the strongest source ---- */

static void put_text(struct settings *s, enum setting_id id, const char *text)
{
    struct setting_source source = {.origin = ORIGIN_OPTIONS};
    if (text)
        settings_put(s, id, &source, str_from(text));
}

static void put_count(struct settings *s, enum setting_id id, uint64_t n)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)n);
    if (n)
        put_text(s, id, text);
}

static void put_options(struct settings *s, const struct pug_options *o)
{
    struct setting_source source = {.origin = ORIGIN_OPTIONS};
    static const char *const backends[] = {[PUG_BACKEND_LOCAL] = "local",
                                           [PUG_BACKEND_OTLP] = "otlp",
                                           [PUG_BACKEND_DISCARD] = "discard",
                                           [PUG_BACKEND_ZIPKIN] = "zipkin",
                                           [PUG_BACKEND_STDOUT] = "stdout"};
    if ((unsigned)o->backend > PUG_BACKEND_STDOUT)
        settings_problem(s, &source, ERR_UNSUPPORTED, true, "no backend has the number %d",
                         o->backend);
    else
        put_text(s, SET_BACKEND, backends[o->backend]);
    put_text(s, SET_SERVICE_NAME, o->service_name);
    put_text(s, SET_SERVICE_VERSION, o->service_version);
    put_text(s, SET_TRACE_DIR, o->trace_dir);
    put_text(s, SET_OTLP_ENDPOINT, o->otlp_endpoint);
    put_text(s, SET_SAMPLER, o->sampler);
    put_count(s, SET_QUEUE_BYTES_MAX, o->queue_bytes_max);
    put_count(s, SET_DRAIN_INTERVAL_US, o->drain_interval_us);
    put_count(s, SET_FLUSH_INTERVAL_MS, o->flush_interval_ms);
    put_count(s, SET_STOP_TIMEOUT_MS, o->stop_timeout_ms);
}

/* ---- all of it ---- */

static enum pug_backend backend_of(const char *name)
{
    return strcmp(name, "otlp") == 0      ? PUG_BACKEND_OTLP
           : strcmp(name, "zipkin") == 0  ? PUG_BACKEND_ZIPKIN
           : strcmp(name, "stdout") == 0  ? PUG_BACKEND_STDOUT
           : strcmp(name, "discard") == 0 ? PUG_BACKEND_DISCARD
                                          : PUG_BACKEND_LOCAL;
}

static uint64_t interval_ns(const struct setting *seconds)
{
    return (uint64_t)(seconds->number * (double)NS_PER_S);
}

static void intervals(struct config *c, struct settings *s)
{
    const struct setting *v = s->values, *system = &v[SET_SYSTEM_METRICS_INTERVAL_SECS];
    c->queue_bytes_max = (size_t)v[SET_QUEUE_BYTES_MAX].count;
    c->drain_interval_ns = v[SET_DRAIN_INTERVAL_US].count * NS_PER_US;
    c->flush_interval_ns = v[SET_FLUSH_INTERVAL_MS].count * NS_PER_MS;
    c->stop_timeout_ns = v[SET_STOP_TIMEOUT_MS].count * NS_PER_MS;
    c->otlp_timeout_ns = v[SET_OTLP_TIMEOUT_MS].count * NS_PER_MS;
    c->metrics_interval_ns = v[SET_METRICS].boolean ? interval_ns(&v[SET_METRICS_INTERVAL_SECS])
                                                    : 0;
    c->system_metrics_interval_ns = interval_ns(system);
    if (system->number > 0 && system->number < 1) {
        struct setting_source source = setting_source_of(system);
        settings_warn(s, &source,
                      "system_metrics_interval_secs is below 1 second; once a second is used");
        c->system_metrics_interval_ns = NS_PER_S;
    }
}

static int ring_init(struct config *c, struct settings *s, size_t from_options)
{
    const struct setting *v = &s->values[SET_RING_KIB];
    struct setting_source source = setting_source_of(v);
    uint64_t ring = from_options ? from_options : v->count << 10;
    if (from_options)
        source = (struct setting_source){.origin = ORIGIN_OPTIONS};
    if (ring < LANE_RING_BYTES_MIN || ring > LANE_RING_BYTES_MAX || (ring & (ring - 1)))
        settings_problem(s, &source, ERR_INVALID, true,
                         "the ring of a thread is to be a power of two between %u KiB and %u KiB",
                         LANE_RING_BYTES_MIN >> 10, LANE_RING_BYTES_MAX >> 10);
    c->ring_bytes = (size_t)ring;
    return s->problem.code;
}

/* The resource goes through it here, spans in the drain. */
static int redact_init(struct config *c, struct settings *s)
{
    const struct setting *keys = &s->values[SET_REDACT_KEYS];
    const struct setting *patterns = &s->values[SET_REDACT_PATTERNS];
    struct error_detail detail = {0};
    int err = redact_new(keys->items, keys->n_items, patterns->items, patterns->n_items, &c->arena,
                         &c->redact, &detail);
    if (err) {
        struct setting_source source =
            setting_source_of(strstr(detail.message, "redact_keys") ? keys : patterns);
        settings_problem(s, &source, err, true, "%s", detail.message);
        return err;
    }
    redact_attrs(c->redact, &c->resource.attrs, &c->arena);
    resource_set_service_name(&c->resource);
    return 0;
}

/* A daemon changes its directory after pug_start, and its child begins a file of its own. */
static const char *absolute(struct config *c, const char *dir)
{
    char here[4096];
    if (!dir[0]) /* not the root */
        dir = ".";
    if (dir[0] == '/' || !getcwd(here, sizeof here) || here[0] != '/')
        return keep(c, dir);
    return arena_printf(&c->arena, "%s/%s", here, dir);
}

int config_convert(struct config *c, struct settings *s, const struct pug_options *o)
{
    const struct setting *v = s->values;
    c->backend = backend_of(v[SET_BACKEND].text);
    c->trace_dir = absolute(c, v[SET_TRACE_DIR].text);
    c->include_args = v[SET_INCLUDE_ARGS].boolean;
    c->thread_context = v[SET_THREAD_CONTEXT].boolean;
    c->process_context = v[SET_PROCESS_CONTEXT].boolean;
    c->alloc_tracking = v[SET_ALLOC_TRACKING].boolean;
    c->otlp_gzip = strcmp(v[SET_OTLP_COMPRESSION].text, "gzip") == 0;
    c->otlp_certificate = v[SET_OTLP_CERTIFICATE].text;
    c->otlp_client_certificate = v[SET_OTLP_CLIENT_CERTIFICATE].text;
    c->otlp_client_key = v[SET_OTLP_CLIENT_KEY].text;
    c->zipkin_url = v[SET_ZIPKIN_ENDPOINT].text;
    c->pyroscope_url = v[SET_PYROSCOPE_ENDPOINT].text;
    if (c->pyroscope_url) {
        struct setting_source source = setting_source_of(&v[SET_PYROSCOPE_ENDPOINT]);
        settings_warn(s, &source, "this version pushes no profiles; spans are not affected");
    }
    intervals(c, s);
    sampler_init(c, s);
    int err = ring_init(c, s, o->ring_bytes);
    if (!err && (!c->trace_dir ||
                 !config_resource(c, v[SET_SERVICE_NAME].text, v[SET_SERVICE_VERSION].text)))
        err = ERR_NOMEM;
    if (!err)
        err = redact_init(c, s);
    if (!err && c->backend == PUG_BACKEND_OTLP)
        err = endpoint_init(c, s);
    return err;
}

static void tell(void *user, enum setting_trouble trouble, const char *message)
{
    const struct config *c = user;
    if (c->log && trouble != TROUBLE_GRAVE) /* which pug_start() tells, once */
        c->log(c->log_user, message);
}

/* Whether it is decided without the file that tracing is off: then nothing is read, nor told. */
static bool is_off(const struct pug_options *o)
{
    const char *disabled = settings_variable("OTEL_SDK_DISABLED");
    const char *tracing = settings_variable("PUG_TRACING");
    struct arena none = {.bytes_max = 1};
    struct setting values[SETTINGS] = {0};
    struct settings s = {
        .defs = setting_defs, .n_defs = SETTINGS, .values = values, .arena = &none};
    struct setting_source source = {.origin = ORIGIN_ENVIRONMENT};
    if (o->tracing != PUG_TRACING_ENVIRONMENT)
        return o->tracing != PUG_TRACING_ON;
    if (disabled && str_eq_nocase(str_from(disabled), STR("true")))
        return true;
    return tracing && settings_put(&s, SET_ENABLED, &source, str_from(tracing)) &&
           !values[SET_ENABLED].boolean;
}

/* Headers are passed on also where nothing is recorded: as the environment says, without a word. */
static unsigned propagators_when_off(struct config *c)
{
    static const char *const names[] = {"PUG_PROPAGATORS", "OTEL_PROPAGATORS"};
    struct setting values[SETTINGS] = {0};
    struct settings s = {
        .defs = setting_defs, .n_defs = SETTINGS, .values = values, .arena = &c->arena};
    struct setting_source source = {.origin = ORIGIN_ENVIRONMENT};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = settings_variable(names[i]);
        if (text && settings_put(&s, SET_PROPAGATORS, &source, str_from(text)))
            return propagators_of(&values[SET_PROPAGATORS]);
    }
    return PROPAGATE_DEFAULT;
}

static int fill(struct config *c, const struct pug_options *o, struct error_detail *problem)
{
    struct settings s;
    c->log = o->log;
    c->log_user = o->log_user;
    c->propagators = propagators_when_off(c);
    if (is_off(o))
        return 0;
    int err = settings_init(&s, &c->arena, tell, c);
    if (!err)
        err = settings_file(&s, o->config_file);
    if (!err) {
        settings_environment(&s);
        c->propagators = propagators_of(&s.values[SET_PROPAGATORS]);
        if (o->tracing == PUG_TRACING_ENVIRONMENT && !s.values[SET_ENABLED].boolean)
            return 0;
        c->on = true;
        put_options(&s, o);
        err = config_convert(c, &s, o);
        if (!err && c->backend == PUG_BACKEND_OTLP)
            err = headers_init(c, &s, o->otlp_headers);
    }
    if (s.problem.code && problem)
        *problem = s.problem;
    return s.problem.code ? s.problem.code : err;
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
    arena_wipe(&c->arena); /* the headers are in it */
    *c = (struct config){.on = false};
}
