/* Who we are: the attributes of the resource, and the scope.
 *
 * Source: OpenTelemetry's resource SDK (OTEL_RESOURCE_ATTRIBUTES is a list in W3C Baggage's way) and
 * its semantic conventions. */
#include "sdk/options.h"
#include "sdk/settings.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define RESOURCE_ATTRS_MAX 64

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
    struct str rest = text ? arena_str(&c->arena, str_from(text)) : STR_NONE;
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

bool config_resource(struct config *c, const char *service_name, const char *service_version)
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
    resource_add_list(c, &l, settings_variable("OTEL_RESOURCE_ATTRIBUTES"));
    resource_add_str(c, &l, STR("service.name"), program_invocation_short_name);
    c->instance_is_ours = !resource_find(&l, STR("service.instance.id"));
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

void config_resource_renew(struct config *c)
{
    struct resource_list l = {(struct attr *)(uintptr_t)c->resource.attrs.items,
                              c->resource.attrs.n};
    struct attr *pid = resource_find(&l, STR("process.pid"));
    struct attr *instance = resource_find(&l, STR("service.instance.id"));
    const char *id = c->instance_is_ours ? instance_id(c) : NULL;
    if (pid && pid->value.type == VALUE_INT)
        pid->value.integer = (int64_t)getpid();
    if (instance && id)
        instance->value.string = str_from(id);
}
