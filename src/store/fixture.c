#include "store/fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "wire/otlp.h"

static void open_store(struct fixture *f)
{
    struct error_detail detail = {0};
    f->options.dir = f->dir;
    int err = store_open(&f->options, &f->store, &detail);
    if (err)
        fail_msg("store_open: %s: %s", err_name(err), detail.message);
}

void fixture_init(struct fixture *f, uint64_t seed, const struct store_options *options)
{
    *f = (struct fixture){.seed = seed, .lists_ascend = seed % 2};
    if (options)
        f->options = *options;
    if (seed > 100000)
        print_message("# seed %llu\n", (unsigned long long)seed);
    snprintf(f->dir, sizeof f->dir, "%s/pugmark-store-XXXXXX", P_tmpdir);
    assert_non_null(mkdtemp(f->dir));
    open_store(f);
}

void fixture_reopen(struct fixture *f)
{
    store_close(f->store);
    f->store = NULL;
    open_store(f);
}

void fixture_done(struct fixture *f)
{
    store_close(f->store);
    DIR *dir = opendir(f->dir);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlinkat(dirfd(dir), e->d_name, 0);
    closedir(dir);
    assert_int_equal(rmdir(f->dir), 0);
    free(f->spans);
    free(f->traces);
    arena_done(&f->arena);
}

static void file_copy(int from, int to, const char *name)
{
    int in = openat(from, name, O_RDONLY | O_CLOEXEC);
    if (in < 0 && errno == ENOENT)
        return; /* a log file that was sealed before; the store removes it when it comes to it */
    int out = openat(to, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char bytes[65536];
    ssize_t n;
    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, bytes, sizeof bytes)) > 0)
        assert_int_equal(write(out, bytes, (size_t)n), n);
    assert_int_equal(n, 0);
    close(in);
    close(out);
}

void fixture_copy_back(const struct fixture *f, const char *dir, const char *prefix)
{
    DIR *from = opendir(dir), *to = opendir(f->dir);
    assert_true(from && to);
    for (struct dirent *e; (e = readdir(from));)
        if (!strncmp(e->d_name, prefix, strlen(prefix)))
            file_copy(dirfd(from), dirfd(to), e->d_name);
    closedir(from);
    closedir(to);
}

void fixture_check_copy(const struct fixture *f, const char *dir)
{
    struct fixture copy = *f;
    copy.arena = ARENA_INIT; /* for what is drawn here */
    snprintf(copy.dir, sizeof copy.dir, "%s", dir);
    open_store(&copy);
    fixture_check(&copy);
    fixture_check_scans(&copy, 10);
    fixture_reopen(&copy);
    fixture_check(&copy);
    /* The spans are those of `f`. */
    copy.spans = NULL;
    copy.traces = NULL;
    fixture_done(&copy);
}

void fixture_copy_files(const struct fixture *f, char *ret_dir, size_t size)
{
    snprintf(ret_dir, size, "%s/pugmark-store-XXXXXX", P_tmpdir);
    assert_non_null(mkdtemp(ret_dir));
    DIR *from = opendir(f->dir), *to = opendir(ret_dir);
    assert_true(from && to);
    for (struct dirent *e; (e = readdir(from));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            file_copy(dirfd(from), dirfd(to), e->d_name);
    closedir(from);
    closedir(to);
}

uint64_t fixture_random(struct fixture *f, uint64_t below)
{
    f->seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t n = hash_mix64(f->seed);
    return below ? n % below : n;
}

/* ---- drawing ---- */

static struct str text(struct fixture *f, const char *prefix, uint64_t distinct)
{
    return str_from(
        arena_printf(&f->arena, "%s%llu", prefix, (unsigned long long)fixture_random(f, distinct)));
}

static struct attrs attributes(struct fixture *f, unsigned n, unsigned depth);

static struct value any_value(struct fixture *f, unsigned depth)
{
    struct value v = {.type = (uint8_t)fixture_random(f, depth ? 8 : 5)};
    if (!depth && v.type == VALUE_NONE && fixture_random(f, 4))
        v.type = VALUE_STRING;
    switch (v.type) {
    case VALUE_STRING:
        switch (fixture_random(f, 6)) {
        case 0:
            v.string = STR("");
            break;
        case 1:
            v.string = text(f, "unique-", 0);
            break;
        case 2:
            v.string = STR("gr\xc3\xbc\xc3\x9f dich, \xf0\x9f\x90\xbe");
            break;
        case 3:
            v.string = text(f, "", 30);
            break;
        default:
            v.string = text(f, "value ", 20);
        }
        break;
    case VALUE_BYTES: {
        size_t n = fixture_random(f, 20);
        char *p = arena_alloc(&f->arena, n);
        for (size_t i = 0; i < n; i++)
            p[i] = (char)fixture_random(f, 256);
        v.bytes = (struct str){p, n};
        break;
    }
    case VALUE_BOOL:
        v.boolean = fixture_random(f, 2);
        break;
    case VALUE_INT:
        switch (fixture_random(f, 5)) {
        case 0:
            v.integer = (int64_t)fixture_random(f, 0);
            break;
        case 1:
            v.integer = fixture_random(f, 2) ? INT64_MIN : INT64_MAX;
            break;
        case 2:
            v.integer = -(int64_t)fixture_random(f, 10);
            break;
        default:
            v.integer = (int64_t)fixture_random(f, 30);
        }
        break;
    case VALUE_DOUBLE: {
        static const uint64_t odd[] = {
            0x7ff8000000000000, 0x7ff0000000000001, 0xfff0000000000000, 0x8000000000000000, 1,
            0x3ff0000000000000};
        uint64_t bits = odd[fixture_random(f, 6)];
        if (fixture_random(f, 2))
            bits = fixture_random(f, 0);
        memcpy(&v.real, &bits, sizeof bits);
        if (!fixture_random(f, 3))
            v.real = (double)fixture_random(f, 30) / 2;
        break;
    }
    case VALUE_ARRAY: {
        size_t n = fixture_random(f, 4);
        struct value *items = arena_array(&f->arena, n, sizeof *items);
        for (size_t i = 0; i < n; i++)
            items[i] = any_value(f, depth - 1);
        v.array.items = items;
        v.array.n = n;
        break;
    }
    case VALUE_MAP: {
        struct attrs map = attributes(f, (unsigned)fixture_random(f, 4), depth - 1);
        v.map.items = map.items;
        v.map.n = map.n;
        break;
    }
    default:
        break;
    }
    return v;
}

static struct attrs attributes(struct fixture *f, unsigned n, unsigned depth)
{
    struct attr *items = arena_array(&f->arena, n, sizeof *items);
    for (unsigned i = 0; i < n; i++) {
        /* Now and then an empty key, or one that the span has already. */
        items[i].key = !fixture_random(f, 40)        ? STR("")
                       : i && !fixture_random(f, 20) ? items[i - 1].key
                                                     : text(f, "key.", 12);
        items[i].value = any_value(f, depth);
    }
    return (struct attrs){items, n, fixture_random(f, 10) ? 0 : (uint32_t)fixture_random(f, 9)};
}

/* As most instrumentation has them: keys in one order, each once, of one type or one of two. */
static struct attrs attributes_in_order(struct fixture *f)
{
    enum { KEYS = 12 };
    struct attr *items = arena_array(&f->arena, KEYS, sizeof *items);
    unsigned n = 0, of = 1 + (unsigned)fixture_random(f, 6);
    for (unsigned key = 0; key < KEYS; key++) {
        if (fixture_random(f, of))
            continue;
        items[n].key = str_from(arena_printf(&f->arena, "key.%u", key));
        do
            items[n].value = any_value(f, 3);
        while (items[n].value.type != key % 8 && (key % 3 || items[n].value.type != VALUE_STRING));
        n++;
    }
    return (struct attrs){items, n, 0};
}

static const struct resource *resource_draw(struct fixture *f)
{
    struct resource *r = arena_zalloc(&f->arena, sizeof *r);
    r->attrs = attributes(f, (unsigned)fixture_random(f, 4), 1);
    if (fixture_random(f, 10)) {
        struct attr *items = arena_array(&f->arena, r->attrs.n + 1, sizeof *items);
        memcpy(items, r->attrs.items, r->attrs.n * sizeof *items);
        items[r->attrs.n++] = (struct attr){
            STR("service.name"), {.type = VALUE_STRING, .string = text(f, "service ", 5)}};
        r->attrs.items = items;
    }
    r->schema_url = fixture_random(f, 4) ? STR("") : STR("https://example.org/schema");
    resource_set_service_name(r);
    return r;
}

static const struct scope *scope_draw(struct fixture *f)
{
    struct scope *s = arena_zalloc(&f->arena, sizeof *s);
    s->name = text(f, "scope ", 3);
    s->version = fixture_random(f, 2) ? STR("1.0") : STR("");
    s->attrs = attributes(f, (unsigned)fixture_random(f, 2), 1);
    s->schema_url = fixture_random(f, 4) ? STR("") : STR("https://example.org/scope");
    return s;
}

static void id_draw(struct fixture *f, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)fixture_random(f, 256);
    bytes[0] |= 1;
}

static const struct event *events_draw(struct fixture *f, uint64_t start, uint32_t n)
{
    struct event *events = arena_array(&f->arena, n, sizeof *events);
    for (uint32_t i = 0; i < n; i++)
        events[i] = (struct event){.time_ns = fixture_random(f, 8) ? start + fixture_random(f, 1000)
                                                                   : fixture_random(f, 0),
                                   .name = text(f, "event ", 3),
                                   .attrs = attributes(f, (unsigned)fixture_random(f, 3), 1)};
    return events;
}

static const struct link *links_draw(struct fixture *f, uint32_t n)
{
    struct link *links = arena_zalloc(&f->arena, n * sizeof *links);
    for (uint32_t i = 0; i < n; i++) {
        id_draw(f, links[i].trace_id.bytes, TRACE_ID_SIZE);
        id_draw(f, links[i].span_id.bytes, SPAN_ID_SIZE);
        links[i].flags = (uint32_t)fixture_random(f, 1024);
        links[i].trace_state = fixture_random(f, 2) ? STR("") : STR("a=b");
        links[i].attrs = attributes(f, (unsigned)fixture_random(f, 3), 1);
    }
    return links;
}

static const struct trace_id *trace_draw(struct fixture *f)
{
    if (f->n_traces && fixture_random(f, 4))
        return &f->traces[f->n_traces - 1 - fixture_random(f, f->n_traces < 9 ? f->n_traces : 9)];
    if (f->n_traces == f->cap_traces) {
        f->cap_traces = f->cap_traces ? f->cap_traces * 2 : 64;
        f->traces = realloc(f->traces, f->cap_traces * sizeof *f->traces);
    }
    id_draw(f, f->traces[f->n_traces].bytes, TRACE_ID_SIZE);
    return &f->traces[f->n_traces++];
}

static void span_draw(struct fixture *f, struct span *s, const struct span *before)
{
    s->trace_id = *trace_draw(f);
    id_draw(f, s->span_id.bytes, SPAN_ID_SIZE);
    switch (before ? fixture_random(f, 4) : 0) {
    case 0:
        break;
    case 1:
        id_draw(f, s->parent_id.bytes, SPAN_ID_SIZE);
        break;
    default:
        s->parent_id = before->span_id;
        s->trace_id = before->trace_id;
    }
    s->start_ns = UINT64_C(1700000000000000000) + fixture_random(f, 1000000000);
    if (!fixture_random(f, 50))
        s->start_ns = fixture_random(f, 2) ? fixture_random(f, 0) : 0;
    s->end_ns = fixture_random(f, 20) ? s->start_ns + fixture_random(f, 1u << fixture_random(f, 30))
                                      : fixture_random(f, 0);
    s->name = fixture_random(f, 20) ? text(f, "operation ", 8) : STR("");
    if (!fixture_random(f, 8))
        s->trace_state = text(f, "vendor=", 3);
    if (!fixture_random(f, 8))
        s->status_message = text(f, "because ", 3);
    s->flags = fixture_random(f, 3) ? 0x101 : (uint32_t)fixture_random(f, 0);
    s->kind = (uint8_t)fixture_random(f, 6);
    s->status_code = (uint8_t)fixture_random(f, 3);
    s->attrs = f->lists_ascend ? attributes_in_order(f)
                               : attributes(f, (unsigned)fixture_random(f, 8), 3);
    if (!fixture_random(f, 5)) {
        s->n_events = (uint32_t)fixture_random(f, 4);
        s->events = events_draw(f, s->start_ns, s->n_events);
        s->dropped_events = (uint32_t)fixture_random(f, 3);
    }
    if (!fixture_random(f, 5)) {
        s->n_links = (uint32_t)fixture_random(f, 3);
        s->links = links_draw(f, s->n_links);
        s->dropped_links = (uint32_t)fixture_random(f, 3);
    }
}

struct span_batch fixture_batch(struct fixture *f, size_t n)
{
    struct span *spans = arena_zalloc(&f->arena, n * sizeof *spans);
    const struct resource *resource = resource_draw(f);
    const struct scope *scope = scope_draw(f);
    for (size_t i = 0; i < n; i++) {
        if (!fixture_random(f, 6))
            resource = resource_draw(f);
        if (!fixture_random(f, 6))
            scope = scope_draw(f);
        if (i && !fixture_random(f, 30)) {
            spans[i] = spans[i - 1]; /* sent twice */
            continue;
        }
        span_draw(f, &spans[i], i ? &spans[fixture_random(f, i)] : NULL);
        spans[i].resource = resource;
        spans[i].scope = scope;
    }
    return (struct span_batch){.spans = spans, .n = n};
}

struct str fixture_body(struct fixture *f, const struct span_batch *batch)
{
    struct buf out = BUF_INIT;
    otlp_encode(batch, &out);
    assert_true(buf_ok(&out));
    struct str body = arena_str(&f->arena, buf_as_str(&out));
    buf_done(&out);
    return body;
}

void fixture_remember(struct fixture *f, const struct span_batch *batch)
{
    while (f->n + batch->n > f->cap) {
        f->cap = f->cap ? f->cap * 2 : 256;
        f->spans = realloc(f->spans, f->cap * sizeof *f->spans);
    }
    if (batch->n)
        memcpy(f->spans + f->n, batch->spans, batch->n * sizeof *batch->spans);
    f->n += batch->n;
}

int fixture_try_append(struct fixture *f, const struct span_batch *batch)
{
    int err = store_append_wait(f->store, BODY_OTLP_PROTOBUF, fixture_body(f, batch), batch);
    if (!err)
        fixture_remember(f, batch);
    return err;
}

void fixture_append(struct fixture *f, const struct span_batch *batch)
{
    assert_int_equal(fixture_try_append(f, batch), 0);
}

/* ---- comparing ---- */

static void attrs_assert_equal(const struct attrs *a, const struct attrs *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->dropped, b->dropped);
    for (uint32_t i = 0; i < a->n; i++) {
        assert_str_eq(a->items[i].key, b->items[i].key);
        if (!value_eq(&a->items[i].value, &b->items[i].value))
            fail_msg("attribute %u \"%.*s\" of type %u is not what was sent (type %u)", i,
                     STR_ARG(b->items[i].key), a->items[i].value.type, b->items[i].value.type);
    }
}

void span_assert_equal(const struct span *a, const struct span *b)
{
    assert_memory_equal(a->trace_id.bytes, b->trace_id.bytes, TRACE_ID_SIZE);
    assert_memory_equal(a->span_id.bytes, b->span_id.bytes, SPAN_ID_SIZE);
    assert_memory_equal(a->parent_id.bytes, b->parent_id.bytes, SPAN_ID_SIZE);
    assert_int_equal(a->start_ns, b->start_ns);
    assert_int_equal(a->end_ns, b->end_ns);
    assert_str_eq(a->name, b->name);
    assert_str_eq(a->trace_state, b->trace_state);
    assert_str_eq(a->status_message, b->status_message);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->status_code, b->status_code);
    attrs_assert_equal(&a->attrs, &b->attrs);
    assert_int_equal(a->n_events, b->n_events);
    assert_int_equal(a->dropped_events, b->dropped_events);
    for (uint32_t i = 0; i < a->n_events; i++) {
        assert_int_equal(a->events[i].time_ns, b->events[i].time_ns);
        assert_str_eq(a->events[i].name, b->events[i].name);
        attrs_assert_equal(&a->events[i].attrs, &b->events[i].attrs);
    }
    assert_int_equal(a->n_links, b->n_links);
    assert_int_equal(a->dropped_links, b->dropped_links);
    for (uint32_t i = 0; i < a->n_links; i++) {
        assert_memory_equal(&a->links[i].trace_id, &b->links[i].trace_id, TRACE_ID_SIZE);
        assert_memory_equal(&a->links[i].span_id, &b->links[i].span_id, SPAN_ID_SIZE);
        assert_int_equal(a->links[i].flags, b->links[i].flags);
        assert_str_eq(a->links[i].trace_state, b->links[i].trace_state);
        attrs_assert_equal(&a->links[i].attrs, &b->links[i].attrs);
    }
    attrs_assert_equal(&a->resource->attrs, &b->resource->attrs);
    assert_str_eq(a->resource->schema_url, b->resource->schema_url);
    assert_str_eq(a->resource->service_name, b->resource->service_name);
    assert_str_eq(a->scope->name, b->scope->name);
    assert_str_eq(a->scope->version, b->scope->version);
    assert_str_eq(a->scope->schema_url, b->scope->schema_url);
    attrs_assert_equal(&a->scope->attrs, &b->scope->attrs);
}

static int span_cmp(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    int order = trace_id_cmp(&x->trace_id, &y->trace_id);
    if (order)
        return order;
    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    return memcmp(x->span_id.bytes, y->span_id.bytes, SPAN_ID_SIZE);
}

static int str_ptr_cmp(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static size_t distinct(struct str *names, size_t n)
{
    size_t kept = 0;
    qsort(names, n, sizeof *names, str_ptr_cmp);
    for (size_t i = 0; i < n; i++)
        if (!kept || !str_eq(names[kept - 1], names[i]))
            names[kept++] = names[i];
    return kept;
}

/* Of the n spans of one trace, in start order. */
static void summary_check(struct store_view *view, const struct span *spans, size_t n)
{
    struct arena arena = ARENA_INIT;
    struct trace_summary s;
    assert_int_equal(store_trace_summary(view, &spans[0].trace_id, &arena, &s), 0);
    const struct span *root = NULL;
    uint64_t end = 0;
    uint32_t errors = 0, orphans = 0;
    struct str *services = arena_array(&arena, n, sizeof *services);
    for (size_t i = 0; i < n; i++) {
        bool is_root = span_id_is_zero(&spans[i].parent_id), found = false;
        if (!root && is_root)
            root = &spans[i];
        uint64_t last = spans[i].start_ns + span_duration_ns(&spans[i]);
        end = last > end ? last : end;
        errors += spans[i].status_code == STATUS_ERROR;
        for (size_t k = 0; k < n; k++)
            found |= !memcmp(&spans[k].span_id, &spans[i].parent_id, SPAN_ID_SIZE);
        orphans += !is_root && !found;
        services[i] = spans[i].resource->service_name;
    }
    assert_int_equal(s.start_ns, spans[0].start_ns);
    assert_int_equal(s.end_ns, end);
    assert_int_equal(s.span_count, n);
    assert_int_equal(s.error_count, errors);
    assert_int_equal(s.orphan_count, orphans);
    assert_int_equal(s.has_root, root != NULL);
    /* Two roots that tie are the same span sent twice, or not to be told apart by the order. */
    root = root ? root : &spans[0];
    assert_str_eq(s.root_name, root->name);
    assert_str_eq(s.root_service, root->resource->service_name);
    assert_int_equal(s.n_services, distinct(services, n));
    for (uint32_t i = 0; i < s.n_services; i++) {
        uint32_t count = 0, wrong = 0;
        assert_str_eq(s.services[i].name, services[i]);
        for (size_t k = 0; k < n; k++) {
            bool own = str_eq(spans[k].resource->service_name, services[i]);
            count += own;
            wrong += own && spans[k].status_code == STATUS_ERROR;
        }
        assert_int_equal(s.services[i].span_count, count);
        assert_int_equal(s.services[i].error_count, wrong);
    }
    arena_done(&arena);
}

/* Those of spans or of resources. */
static void keys_check(const struct fixture *f, struct arena *arena, bool of_resources,
                       const struct store_key *keys, size_t n)
{
    size_t n_all = 0, n_expected = 0;
    for (size_t i = 0; i < f->n; i++)
        n_all += of_resources ? f->spans[i].resource->attrs.n : f->spans[i].attrs.n;
    struct str *expected = arena_array(arena, n_all + 1, sizeof *expected);
    for (size_t i = 0; i < f->n; i++) {
        const struct attrs *attrs = of_resources ? &f->spans[i].resource->attrs
                                                 : &f->spans[i].attrs;
        for (uint32_t k = 0; k < attrs->n; k++)
            expected[n_expected++] = attrs->items[k].key;
    }
    n_expected = distinct(expected, n_expected);
    assert_int_equal(n, n_expected);
    for (size_t i = 0; i < n; i++)
        assert_str_eq(keys[i].name, expected[i]);
}

static void all_keys_check(const struct fixture *f, struct store_view *view)
{
    struct arena arena = ARENA_INIT;
    struct store_key *keys;
    size_t n, n_resources = 0, n_few;
    assert_int_equal(store_keys(view, 0, 0, SIZE_MAX, &arena, &keys, &n), 0);
    while (n_resources < n && keys[n_resources].field == FIELD_RESOURCE_ATTR)
        n_resources++;
    for (size_t i = n_resources; i < n; i++)
        assert_int_equal(keys[i].field, FIELD_SPAN_ATTR);
    keys_check(f, &arena, true, keys, n_resources);
    keys_check(f, &arena, false, keys + n_resources, n - n_resources);
    assert_int_equal(store_keys(view, 0, 0, 3, &arena, &keys, &n_few), 0);
    assert_int_equal(n_few, n < 3 ? n : 3);
    assert_int_equal(store_keys(view, UINT64_MAX, 0, SIZE_MAX, &arena, &keys, &n_few), 0);
    assert_int_equal(n_few, 0);
    arena_done(&arena);
}

static void names_check(struct fixture *f, struct store_view *view)
{
    struct arena arena = ARENA_INIT;
    struct str *names, *expected = arena_array(&arena, f->n, sizeof *expected);
    size_t n;
    for (size_t i = 0; i < f->n; i++)
        expected[i] = f->spans[i].resource->service_name;
    size_t n_expected = distinct(expected, f->n);
    assert_int_equal(store_services(view, &arena, &names, &n), 0);
    assert_int_equal(n, n_expected);
    for (size_t i = 0; i < n; i++)
        assert_str_eq(names[i], expected[i]);

    struct store_operation *operations;
    uint64_t total = 0;
    assert_int_equal(store_operations(view, STR_NONE, &arena, &operations, &n), 0);
    for (size_t i = 0; i < n; i++) {
        uint64_t count = 0;
        for (size_t k = 0; k < f->n; k++)
            count += f->spans[k].kind == operations[i].kind &&
                     str_eq(f->spans[k].name, operations[i].name) &&
                     str_eq(f->spans[k].resource->service_name, operations[i].service);
        assert_int_equal(operations[i].span_count, count);
        total += count;
    }
    assert_int_equal(total, f->n);
    for (size_t i = 0; i < n_expected; i++) {
        size_t of_one;
        assert_int_equal(store_operations(view, expected[i], &arena, &operations, &of_one), 0);
        assert_true(of_one > 0);
        for (size_t k = 0; k < of_one; k++)
            assert_str_eq(operations[k].service, expected[i]);
    }
    arena_done(&arena);
}

/* A part of the trace by time, and the outline of all of it. */
static void part_check(struct fixture *f, struct store_view *view, const struct span *spans,
                       size_t n)
{
    struct arena arena = ARENA_INIT;
    struct span_batch got;
    size_t from = fixture_random(f, n), to = from + fixture_random(f, n - from);
    uint64_t min = spans[from].start_ns, max = spans[to].start_ns;
    while (from && spans[from - 1].start_ns == min)
        from--;
    while (to + 1 < n && spans[to + 1].start_ns == max)
        to++;
    const struct trace_id *id = &spans[0].trace_id;
    assert_int_equal(store_trace_between(view, id, min, max, &arena, &got), 0);
    assert_int_equal(got.n, to - from + 1);
    for (size_t i = 0; i < got.n; i++)
        span_assert_equal(&got.spans[i], &spans[from + i]);
    if (spans[n - 1].start_ns < UINT64_MAX) {
        assert_int_equal(
            store_trace_between(view, id, spans[n - 1].start_ns + 1, UINT64_MAX, &arena, &got), 0);
        assert_int_equal(got.n, 0);
    }
    struct store_outline *outline;
    size_t n_outline;
    assert_int_equal(store_trace_outline(view, id, &outline, &n_outline), 0);
    assert_int_equal(n_outline, n);
    for (size_t i = 0; i < n; i++) {
        const struct store_outline *o = &outline[i];
        assert_memory_equal(o->span_id.bytes, spans[i].span_id.bytes, SPAN_ID_SIZE);
        assert_memory_equal(o->parent_id.bytes, spans[i].parent_id.bytes, SPAN_ID_SIZE);
        assert_int_equal(o->start_ns, spans[i].start_ns);
        assert_int_equal(o->end_ns > o->start_ns ? o->end_ns - o->start_ns : 0,
                         span_duration_ns(&spans[i]));
        assert_str_eq(o->name, spans[i].name);
        assert_str_eq(o->service, spans[i].resource->service_name);
        assert_int_equal(o->kind, spans[i].kind);
        assert_int_equal(o->status_code, spans[i].status_code);
    }
    free(outline);
    arena_done(&arena);
}

void fixture_check(struct fixture *f)
{
    struct store_view *view = store_view_new(f->store);
    assert_non_null(view);
    struct arena arena = ARENA_INIT;
    struct span_batch got;
    if (f->n)
        qsort(f->spans, f->n, sizeof *f->spans, span_cmp);
    for (size_t i = 0, n; i < f->n; i += n) {
        for (n = 1; i + n < f->n; n++)
            if (trace_id_cmp(&f->spans[i].trace_id, &f->spans[i + n].trace_id))
                break;
        assert_int_equal(store_trace(view, &f->spans[i].trace_id, &arena, &got), 0);
        assert_int_equal(got.n, n);
        for (size_t k = 0; k < n; k++)
            span_assert_equal(&got.spans[k], &f->spans[i + k]);
        summary_check(view, &f->spans[i], n);
        part_check(f, view, &f->spans[i], n);
        arena_reset(&arena);
    }
    struct trace_id unknown = {{0, 1, 2, 3}};
    assert_int_equal(store_trace(view, &unknown, &arena, &got), ERR_NOT_FOUND);
    assert_int_equal(store_trace_between(view, &unknown, 0, UINT64_MAX, &arena, &got),
                     ERR_NOT_FOUND);
    names_check(f, view);
    all_keys_check(f, view);
    store_view_free(view);
    arena_done(&arena);

    struct store_stats stats;
    store_stats(f->store, &stats);
    assert_int_equal(stats.spans, f->n);
}

/* ---- scans ---- */

static struct predicate predicate_draw(struct fixture *f, unsigned depth)
{
    struct predicate p = {.op = (enum predicate_op)fixture_random(f, PREDICATE_EXISTS + 1)};
    if (!depth && p.op <= PREDICATE_NOT)
        p.op = PREDICATE_EQ;
    if (p.op <= PREDICATE_NOT) {
        p.n_children = p.op == PREDICATE_TRUE  ? 0
                       : p.op == PREDICATE_NOT ? 1
                                               : fixture_random(f, 4);
        struct predicate *children = arena_array(&f->arena, p.n_children, sizeof *children);
        for (size_t i = 0; i < p.n_children; i++)
            children[i] = predicate_draw(f, depth - 1);
        p.children = children;
        return p;
    }
    const struct span *s = &f->spans[fixture_random(f, f->n)];
    p.field = (enum predicate_field)fixture_random(f, FIELD_ANY_ATTR + 1);
    p.untyped = fixture_random(f, 2);
    switch (p.field) {
    case FIELD_NAME:
        p.value = (struct value){.type = VALUE_STRING, .string = s->name};
        break;
    case FIELD_SERVICE:
        p.value = (struct value){.type = VALUE_STRING, .string = s->resource->service_name};
        break;
    case FIELD_STATUS_MESSAGE:
        p.value = (struct value){.type = VALUE_STRING, .string = s->status_message};
        break;
    case FIELD_KIND:
    case FIELD_STATUS:
        p.value = (struct value){.type = VALUE_INT, .integer = (int64_t)fixture_random(f, 6)};
        break;
    case FIELD_DURATION:
        p.value = (struct value){.type = VALUE_INT, .integer = (int64_t)span_duration_ns(s)};
        break;
    case FIELD_START:
        p.value = (struct value){.type = VALUE_INT, .integer = (int64_t)s->start_ns};
        break;
    case FIELD_IS_ROOT:
        p.value = (struct value){.type = VALUE_BOOL, .boolean = fixture_random(f, 2)};
        break;
    default: {
        const struct attrs *attrs = p.field == FIELD_RESOURCE_ATTR ? &s->resource->attrs
                                                                   : &s->attrs;
        p.key = text(f, "key.", 13);
        if (attrs->n && fixture_random(f, 8)) {
            const struct attr *a = &attrs->items[fixture_random(f, attrs->n)];
            p.key = a->key;
            p.value = a->value;
        }
        if (!fixture_random(f, 4))
            p.value = any_value(f, 1);
        if (!fixture_random(f, 6))
            p.value = (struct value){.type = VALUE_STRING, .string = text(f, "", 30)};
        struct resource_derived derived;
        p.key = fixture_random(f, 12) ? p.key : STR(RESOURCE_FINGERPRINT);
        const struct attr *own = resource_attr_find(s->resource, p.key, &derived);
        if (own == &derived.attr)
            p.value = (struct value){.type = VALUE_STRING,
                                     .string = arena_str(&f->arena, own->value.string)};
    }
    }
    if (p.op == PREDICATE_REGEX) {
        static const char *const patterns[] = {".*1.*", "value [0-9]", "operation (1|2)", "(",
                                               "",      "service .*"};
        p.value = (struct value){.type = VALUE_STRING,
                                 .string = str_from(patterns[fixture_random(f, 6)])};
    }
    return p;
}

struct found {
    struct fixture *f;
    struct store_view *view;
    uint8_t *seen; /* by span of the fixture */
    size_t n;
};

static int found_row(void *arg, struct scan *scan, const struct scan_row *row)
{
    struct found *found = arg;
    for (size_t i = 0; i < found->f->n; i++) {
        const struct span *s = &found->f->spans[i];
        if (found->seen[i] || memcmp(&s->span_id, &row->span_id, SPAN_ID_SIZE) ||
            trace_id_cmp(&s->trace_id, &row->trace_id))
            continue;
        found->seen[i] = 1;
        found->n++;
        assert_int_equal(row->start_ns, s->start_ns);
        assert_int_equal(row->duration_ns, span_duration_ns(s));
        assert_true(row->trace_start_ns <= s->start_ns);
        assert_str_eq(row->service, s->resource->service_name);
        assert_str_eq(row->name, s->name);
        assert_int_equal(row->kind, s->kind);
        assert_int_equal(row->status_code, s->status_code);
        if (found->n % 16 == 1) { /* reading while the scan runs */
            struct arena arena = ARENA_INIT;
            struct trace_summary summary;
            assert_int_equal(store_trace_summary(found->view, &row->trace_id, &arena, &summary), 0);
            assert_true(summary.start_ns <= row->trace_start_ns);
            arena_done(&arena);
        }
        return 0;
    }
    fail_msg("a scan gave a span that was never sent, or gave it once too often");
    return -1;
}

void fixture_check_scans(struct fixture *f, int n)
{
    struct store_view *view = store_view_new(f->store);
    struct found found = {.f = f, .view = view, .seen = calloc(f->n + 1, 1)};
    for (int round = 0; round < n && f->n; round++) {
        uint64_t seed = f->seed;
        struct predicate where = predicate_draw(f, 2);
        struct scan scan = {.where = &where};
        if (!fixture_random(f, 3))
            scan.start_min_ns = f->spans[fixture_random(f, f->n)].start_ns;
        if (!fixture_random(f, 3))
            scan.start_max_ns = f->spans[fixture_random(f, f->n)].start_ns;
        struct scan_cost cost;
        memset(found.seen, 0, f->n);
        found.n = 0;
        assert_int_equal(store_scan(view, &scan, found_row, &found, &cost), 0);
        for (size_t i = 0; i < f->n; i++) {
            const struct span *s = &f->spans[i];
            bool expected = s->start_ns >= scan.start_min_ns &&
                            (!scan.start_max_ns || s->start_ns <= scan.start_max_ns) &&
                            predicate_match(&where, s);
            if (expected != found.seen[i])
                fail_msg("predicate drawn from seed %llu (op %d field %d key \"%.*s\" type %d): "
                         "span %zu should %smatch",
                         (unsigned long long)seed, where.op, where.field, STR_ARG(where.key),
                         where.value.type, i, expected ? "" : "not ");
        }
        assert_int_equal(cost.rows_matched, found.n);
    }
    free(found.seen);
    store_view_free(view);
}
