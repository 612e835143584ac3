/* pugmark store verify|stats|compact|pin|unpin|pins|delete|redact DIR: a store that no server has open. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/store_files.h"
#include "cli/term.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "query/erasure.h"
#include "store/records.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: pugmark store verify DIR [--json]\n"
    "       pugmark store stats DIR [--json]\n"
    "       pugmark store compact DIR [--retention AGE] [--disk-max BYTES]\n"
    "       pugmark store pin|unpin DIR TRACE_ID...\n"
    "       pugmark store pins DIR\n"
    "       pugmark store export DIR FILE [QUERY] [--since AGE] [--until AGE] [--force]\n"
    "       pugmark store import DIR FILE...\n"
    "       pugmark store delete DIR QUERY [--since AGE] [--until AGE] [--confirm]\n"
    "       pugmark store redact DIR [QUERY] --keys GLOB,... [--pattern P] [--confirm]\n"
    "\n"
    "For a store that no server has open; DIR is what `pugmark serve --data` was given.\n"
    "\n"
    "verify   reads every byte, changes none, and names what is damaged; exits with 1 then\n"
    "stats    spans, services, times, and what takes the room\n"
    "compact  merges small segments; with the options, first drops what is too old or too much\n"
    "pin      keeps a trace, whatever retention says; unpin ends that; pins lists them\n"
    "export   writes spans as length-delimited OTLP protobuf, - to standard output;\n"
    "         import takes any kind of file that `pugmark import` does\n"
    "delete   takes spans out that a TraceQL query finds; redact replaces values in them by\n"
    "         \"[redacted]\". Without --confirm they only say how many it would be\n"
    "\n"
    "  --keys GLOB,...   redact: values of these keys go, of spans, events, links, resources\n"
    "  --pattern P       redact: what looks like this goes from all texts: email, credit_card,\n"
    "                    bearer_token, jwt, aws_key, ipv4, private_key, or an expression\n"
    "  --since AGE       only spans that started since: 2h, 7d\n"
    "  --until AGE       only spans that started before that\n"
    "  --confirm         do it\n"
    "  --force           replace a file that is there\n"
    "  --retention AGE   drop segments whose spans all started longer ago: 7d, 12h\n"
    "  --disk-max BYTES  drop the oldest segments while the store takes more: 10G\n"
    "  --json            for programs\n";

struct options {
    const char *what, *dir;
    char **ids; /* also the query */
    int n_ids;
    bool json, confirm, force;
    const char *keys, *pattern, *since, *until;
    uint64_t since_ns, until_ns;
    uint64_t retention_ns, disk_bytes_max;
};

static bool is(const struct options *o, const char *what)
{
    return !strcmp(o->what, what);
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    int status;
    *o = (struct options){0};
    const struct args_option options[] = {
        {.name = "json", .flag = &o->json},
        {.name = "confirm", .flag = &o->confirm},
        {.name = "force", .flag = &o->force},
        {.name = "keys", .text = &o->keys},
        {.name = "pattern", .text = &o->pattern},
        {.name = "since", .text = &o->since, .duration_ns = &o->since_ns},
        {.name = "until", .text = &o->until, .duration_ns = &o->until_ns},
        {.name = "retention", .duration_ns = &o->retention_ns},
        {.name = "disk-max", .bytes = &o->disk_bytes_max, .min = 1, .max = INT64_MAX},
    };
    int n = args_parse("store", help, options, sizeof options / sizeof *options, argc, argv,
                       &status);
    if (n < 0)
        return status;
    if (n < 2)
        return args_wrong("store", n ? "which directory" : "what to do with it");
    o->what = argv[1];
    o->dir = argv[2];
    o->ids = argv + 3;
    o->n_ids = n - 2;
    bool takes_ids = is(o, "pin") || is(o, "unpin"), deletes = is(o, "delete");
    bool redacts = is(o, "redact"), erases = deletes || redacts;
    bool exports = is(o, "export"), imports = is(o, "import");
    bool known = takes_ids || is(o, "verify") || is(o, "stats") || is(o, "compact") ||
                 is(o, "pins") || erases || exports || imports;
    if (!known)
        return args_wrong("store", "\"%s\" is not known", o->what);
    if (erases && (o->n_ids > 1 || (deletes && !o->n_ids)))
        return args_wrong("store",
                          o->n_ids ? "one query, not also \"%s\"" : "which spans: '{ ... }'",
                          o->ids[o->n_ids ? 1 : 0]);
    if (redacts && !o->keys && !o->pattern)
        return args_wrong("store", "what to take out: --keys, --pattern");
    if ((exports || imports) && !o->n_ids)
        return args_wrong("store", "which file");
    if (exports && o->n_ids > 2)
        return args_wrong("store", "one file and one query, not also \"%s\"", o->ids[2]);
    if (o->force && !exports)
        return args_wrong("store", "--force is for export");
    if (!erases && (o->confirm || (!exports && (o->since || o->until))))
        return args_wrong("store", "--confirm, --since and --until are for delete and redact%s",
                          o->confirm ? "" : ", and export");
    if (!redacts && (o->keys || o->pattern))
        return args_wrong("store", "--keys and --pattern are for redact");
    if (!erases && !exports && !imports && (takes_ids ? !o->n_ids : o->n_ids))
        return args_wrong("store", takes_ids ? "which trace" : "what is \"%s\"", o->ids[0]);
    if (o->json && !is(o, "verify") && !is(o, "stats") && !erases)
        return args_wrong("store", "--json is for verify, stats, delete and redact");
    if ((o->retention_ns || o->disk_bytes_max) && !is(o, "compact"))
        return args_wrong("store", "--retention and --disk-max are for compact");
    return -1;
}

static int could_not(const struct options *o, int err, const struct error_detail *detail)
{
    const char *message = detail->message[0] ? detail->message : err_text(err);
    bool named = !strncmp(message, o->dir, strlen(o->dir));
    fprintf(stderr, "pugmark store: %s%s%s%s\n", named ? "" : o->dir, named ? "" : ": ", message,
            err == ERR_BUSY ? "; a server has it open" : "");
    return CLI_COULD_NOT;
}

static int put_out(struct buf *out)
{
    bool written = buf_ok(out) &&
                   fwrite(out->ptr ? out->ptr : "", 1, out->len, stdout) == out->len &&
                   fflush(stdout) == 0;
    if (!written)
        fputs("pugmark store: the answer could not be written\n", stderr);
    return written ? CLI_DONE : CLI_COULD_NOT;
}

static void key_u64(struct json_writer *w, const char *key, uint64_t n)
{
    json_key(w, str_from(key));
    json_u64(w, n);
}

static void key_str(struct json_writer *w, const char *key, struct str s)
{
    json_key(w, str_from(key));
    json_str(w, s);
}

/* ---- verify ---- */

struct findings {
    bool json;
    struct buf *out;
    struct json_writer *w;
};

static void finding(void *arg, const struct store_finding *f)
{
    struct findings *to = arg;
    if (!to->json) {
        buf_printf(to->out, "%s: %s: %s\n", f->is_note ? "note" : "damage", f->file, f->text);
        return;
    }
    json_open(to->w, '{');
    key_str(to->w, "file", str_from(f->file));
    key_u64(to->w, "offset", f->offset);
    json_key(to->w, STR("damage"));
    json_bool(to->w, !f->is_note);
    key_str(to->w, "text", str_from(f->text));
    json_close(to->w, '}');
}

/* Logs and metrics lie in a directory of their own, which an older server did not make. */
static void records_finding(void *arg, const struct store_finding *f)
{
    struct store_finding named = *f;
    char file[300];
    snprintf(file, sizeof file, RECORDS_DIR "/%s", f->file);
    named.file = file;
    finding(arg, &named);
}

static int records_check(const struct options *o, struct findings *to, struct store_verified *ret,
                         struct error_detail *detail)
{
    char *dir = NULL;
    *ret = (struct store_verified){.segments = 0};
    if (asprintf(&dir, "%s/" RECORDS_DIR, o->dir) < 0)
        return ERR_NOMEM;
    int err = access(dir, F_OK) == 0 ? records_verify(dir, records_finding, to, ret, detail) : 0;
    free(dir);
    return err;
}

static int verify(const struct options *o)
{
    struct store_verified v, records;
    struct error_detail detail = {0};
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    struct findings to = {o->json, &out, &w};
    if (o->json) {
        json_open(&w, '{');
        json_key(&w, STR("findings"));
        json_open(&w, '[');
    }
    int err = store_verify(o->dir, finding, &to, &v, &detail);
    if (!err)
        err = records_check(o, &to, &records, &detail);
    if (err) {
        buf_done(&out);
        return could_not(o, err, &detail);
    }
    if (o->json) {
        json_close(&w, ']');
        key_u64(&w, "segments", v.segments);
        key_u64(&w, "segmentSpans", v.segment_spans);
        key_u64(&w, "logRecords", v.log_records);
        key_u64(&w, "logSpans", v.log_spans);
        key_u64(&w, "records", records.segment_spans + records.log_spans);
        key_u64(&w, "recordFiles", records.segments);
        key_u64(&w, "bytes", v.bytes + records.bytes);
        key_u64(&w, "damaged", v.damaged + records.damaged);
        json_close(&w, '}');
        buf_byte(&out, '\n');
    } else {
        buf_printf(&out,
                   "%llu spans in %llu segments, %llu in %llu records of the log; %llu logs and "
                   "points of metrics; %llu bytes: %s\n",
                   (unsigned long long)v.segment_spans, (unsigned long long)v.segments,
                   (unsigned long long)v.log_spans, (unsigned long long)v.log_records,
                   (unsigned long long)(records.segment_spans + records.log_spans),
                   (unsigned long long)(v.bytes + records.bytes),
                   v.damaged || records.damaged ? "damaged" : "good");
    }
    int status = put_out(&out);
    buf_done(&out);
    return v.damaged || records.damaged ? CLI_COULD_NOT : status;
}

/* ---- stats ---- */

static void stats_json(const struct store_description *d, struct buf *out)
{
    struct json_writer w = json_writer(out);
    json_open(&w, '{');
    key_u64(&w, "spans", d->spans);
    key_u64(&w, "tracesUpperBound", d->traces_upper_bound);
    key_u64(&w, "segments", d->segments);
    key_u64(&w, "unreadSegments", d->unread_segments);
    key_u64(&w, "segmentBytes", d->segment_bytes);
    key_u64(&w, "logBytes", d->log_bytes);
    key_u64(&w, "startMin", d->start_min_ns);
    key_u64(&w, "startMax", d->start_max_ns);
    key_u64(&w, "sealedBytes", d->sealed_bytes);
    key_u64(&w, "rewrittenBytes", d->rewritten_bytes);
    key_u64(&w, "expiredByAge", d->expired_age_spans);
    key_u64(&w, "expiredByDisk", d->expired_disk_spans);
    key_u64(&w, "deleted", d->deleted_spans);
    key_u64(&w, "pins", d->pins);
    json_key(&w, STR("columns"));
    json_open(&w, '[');
    for (size_t i = 0; i < d->n_columns; i++) {
        json_open(&w, '{');
        key_str(&w, "name", d->columns[i].name);
        key_str(&w, "type", d->columns[i].type);
        key_u64(&w, "values", d->columns[i].values);
        key_u64(&w, "bytes", d->columns[i].bytes);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_key(&w, STR("services"));
    json_open(&w, '[');
    for (size_t i = 0; i < d->n_services; i++) {
        json_open(&w, '{');
        key_str(&w, "name", d->services[i].service);
        key_u64(&w, "spans", d->services[i].span_count);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    buf_byte(out, '\n');
}

static void stats_text(const struct store_description *d, struct buf *out)
{
    char from[TERM_TIME_SIZE], to[TERM_TIME_SIZE];
    double spans = d->spans ? (double)d->spans : 1;
    buf_printf(out, "spans       %llu in %llu segments\n", (unsigned long long)d->spans,
               (unsigned long long)d->segments);
    if (d->spans)
        buf_printf(out, "started     %s to %s\n", term_time(from, d->start_min_ns, true),
                   term_time(to, d->start_max_ns, true));
    buf_printf(out, "bytes       %llu in segments (%.1f a span), %llu in the log\n",
               (unsigned long long)d->segment_bytes, (double)d->segment_bytes / spans,
               (unsigned long long)d->log_bytes);
    if (d->sealed_bytes)
        buf_printf(out, "written     %llu sealed, %llu rewritten: %.2f times what was sealed\n",
                   (unsigned long long)d->sealed_bytes, (unsigned long long)d->rewritten_bytes,
                   (double)(d->sealed_bytes + d->rewritten_bytes) / (double)d->sealed_bytes);
    buf_printf(out, "gone        %llu spans by age, %llu by disk budget, %llu deleted\n",
               (unsigned long long)d->expired_age_spans, (unsigned long long)d->expired_disk_spans,
               (unsigned long long)d->deleted_spans);
    buf_printf(out, "pinned      %llu traces\n", (unsigned long long)d->pins);
    if (d->unread_segments)
        buf_printf(out, "unread      %llu segments; `pugmark store verify` says why\n",
                   (unsigned long long)d->unread_segments);
    if (d->n_columns)
        buf_cstr(out, "\n     bytes  a span  type    column\n");
    for (size_t i = 0; i < d->n_columns; i++) {
        const struct store_column *c = &d->columns[i];
        buf_printf(out, "%10llu  %6.2f  %-6.*s  ", (unsigned long long)c->bytes,
                   (double)c->bytes / spans, STR_ARG(c->type));
        term_text(out, c->name, 60);
        buf_byte(out, '\n');
    }
    if (d->n_services)
        buf_cstr(out, "\n     spans  service\n");
    for (size_t i = 0; i < d->n_services; i++) {
        buf_printf(out, "%10llu  ", (unsigned long long)d->services[i].span_count);
        term_text(out, d->services[i].service, 60);
        buf_byte(out, '\n');
    }
}

static int stats(const struct options *o)
{
    struct store_description d;
    struct error_detail detail = {0};
    struct arena arena = ARENA_INIT;
    struct buf out = BUF_INIT;
    int status, err = store_describe(o->dir, &arena, &d, &detail);
    if (err) {
        status = could_not(o, err, &detail);
    } else {
        (void)term_of(stdout);
        if (o->json)
            stats_json(&d, &out);
        else
            stats_text(&d, &out);
        status = put_out(&out);
    }
    buf_done(&out);
    arena_done(&arena);
    return status;
}

/* ---- what changes it ---- */

/* Nothing is made where there was nothing. */
static int open_existing(const struct options *o, struct store **ret)
{
    struct error_detail detail = {0};
    struct store_options options = {
        .dir = o->dir,
        .clock_is_trusted = true, /* whoever asks for it sees what the time is */
        .retention = {.keep_ns = o->retention_ns, .disk_bytes_max = o->disk_bytes_max}};
    char *path = NULL;
    int err = asprintf(&path, "%s/catalogue.db", o->dir) < 0 ? ERR_NOMEM : 0;
    FILE *there = err ? NULL : fopen(path, "re");
    free(path);
    if (!err && !there)
        err = error_set(&detail, ERR_NOT_FOUND, 0, "%s: there is no store in it", o->dir);
    if (there)
        fclose(there);
    if (!err)
        err = store_open(&options, ret, &detail);
    return err ? could_not(o, err, &detail) : 0;
}

static int compact(const struct options *o)
{
    struct store *store;
    struct store_stats before, after;
    int status = open_existing(o, &store);
    if (status)
        return status;
    int err = store_seal(store);
    store_stats(store, &before);
    if (!err)
        err = store_keep(store, true);
    store_stats(store, &after);
    store_close(store);
    if (err)
        return could_not(o, err, &(struct error_detail){0});
    printf("segments %llu -> %llu, bytes %llu -> %llu, spans %llu -> %llu\n",
           (unsigned long long)before.segments, (unsigned long long)after.segments,
           (unsigned long long)before.segment_bytes, (unsigned long long)after.segment_bytes,
           (unsigned long long)before.spans, (unsigned long long)after.spans);
    return CLI_DONE;
}

static int pin(const struct options *o)
{
    struct store *store;
    int err = 0, status = open_existing(o, &store);
    if (status)
        return status;
    for (int i = 0; i < o->n_ids && status == CLI_DONE; i++) {
        struct trace_id id;
        if (!trace_id_parse(str_from(o->ids[i]), &id)) {
            fprintf(
                stderr,
                "pugmark store: \"%s\" is not a trace id: expected 1 to 32 hexadecimal digits\n",
                o->ids[i]);
            status = CLI_USAGE;
            break;
        }
        err = is(o, "pin") ? store_pin(store, &id) : store_unpin(store, &id);
        if (err == ERR_NOT_FOUND)
            fprintf(stderr, "pugmark store: %s is not pinned\n", o->ids[i]);
        else if (err)
            fprintf(stderr, "pugmark store: %s: %s\n", o->ids[i], err_text(err));
        status = err ? CLI_COULD_NOT : CLI_DONE;
    }
    store_close(store);
    return status;
}

static int pins(const struct options *o)
{
    struct store *store;
    struct arena arena = ARENA_INIT;
    struct trace_id *ids;
    size_t n;
    int status = open_existing(o, &store);
    if (status)
        return status;
    int err = store_pins(store, &arena, &ids, &n);
    for (size_t i = 0; !err && i < n; i++) {
        char text[2 * TRACE_ID_SIZE + 1] = "";
        hex_put(text, ids[i].bytes, TRACE_ID_SIZE);
        puts(text);
    }
    store_close(store);
    arena_done(&arena);
    return err ? could_not(o, err, &(struct error_detail){0}) : CLI_DONE;
}

/* ---- erasing ---- */

static void keys_split(struct arena *arena, const char *text, const char *const **ret,
                       size_t *ret_n)
{
    const char **keys = arena_array(arena, STORE_ERASE_TEXTS_MAX, sizeof *keys);
    size_t n = 0;
    for (struct str rest = str_from(text); keys && rest.ptr && n < STORE_ERASE_TEXTS_MAX;) {
        struct str key = str_trim(str_split(rest, ',', &rest));
        if (key.len && (keys[n] = arena_str(arena, key).ptr))
            n++;
    }
    *ret = keys;
    *ret_n = n;
}

static int erased_say(const struct options *o, const struct erasure *e,
                      const struct store_erased *done)
{
    struct buf out = BUF_INIT;
    struct json_writer w = json_writer(&out);
    bool partial = e->is_damaged || (done && done->unread_segments);
    unsigned long long spans = done ? done->spans : e->spans;
    if (o->json) {
        json_open(&w, '{');
        json_key(&w, STR("dryRun"));
        json_bool(&w, !done);
        key_u64(&w, "spans", spans);
        key_u64(&w, "traces", e->traces);
        json_key(&w, STR("partial"));
        json_bool(&w, partial);
        json_close(&w, '}');
        buf_byte(&out, '\n');
    } else if (done) {
        buf_printf(&out, "%s %llu spans; %llu segments were written anew\n",
                   is(o, "delete") ? "deleted" : "redacted", spans,
                   (unsigned long long)done->segments);
    } else {
        buf_printf(&out, "%llu spans of %llu traces; --confirm %s\n", spans,
                   (unsigned long long)e->traces,
                   is(o, "delete") ? "deletes them" : "takes what is named out of them");
    }
    int status = put_out(&out);
    buf_done(&out);
    if (partial)
        fputs("pugmark store: a damaged segment could not be read: what is in it is as it was; "
              "`pugmark store verify` names it\n",
              stderr);
    return partial ? CLI_COULD_NOT : status;
}

static int erase(const struct options *o)
{
    struct arena arena = ARENA_INIT;
    struct store *store;
    struct erasure e;
    struct store_erased done;
    struct error_detail detail = {0};
    uint64_t now = clock_realtime_ns();
    int status = open_existing(o, &store);
    if (status)
        return status;
    struct store_view *view = store_view_new(store);
    int err = view ? erasure_find(view, str_from(o->n_ids ? o->ids[0] : ""),
                                  o->since && o->since_ns < now ? now - o->since_ns : 0,
                                  o->until && o->until_ns < now ? now - o->until_ns : 0, &arena, &e,
                                  &detail)
                   : ERR_NOMEM;
    store_view_free(view);
    if (!err) {
        e.erase.kind = is(o, "delete") ? ERASE_DELETE : ERASE_REDACT;
        keys_split(&arena, o->keys, &e.erase.keys, &e.erase.n_keys);
        e.erase.patterns = &o->pattern;
        e.erase.n_patterns = o->pattern != NULL;
        err = o->confirm ? store_erase(store, &e.erase, &done, &detail) : 0;
    }
    store_close(store);
    status = err ? could_not(o, err, &detail) : erased_say(o, &e, o->confirm ? &done : NULL);
    arena_done(&arena);
    return status;
}

static int files(const struct options *o)
{
    struct store *store;
    uint64_t now = clock_realtime_ns();
    int status = open_existing(o, &store);
    if (status)
        return status;
    if (is(o, "import"))
        status = store_files_import(store, o->ids, o->n_ids);
    else
        status = store_files_export(store, o->ids[0], o->n_ids > 1 ? o->ids[1] : NULL,
                                    o->since && o->since_ns < now ? now - o->since_ns : 0,
                                    o->until && o->until_ns < now ? now - o->until_ns : 0,
                                    o->force);
    store_close(store);
    return status;
}

int cli_store(int argc, char **argv)
{
    struct options o;
    int status = parse(argc, argv, &o);
    if (status >= 0)
        return status;
    if (is(&o, "verify") || is(&o, "stats"))
        log_set_level(LOG_LEVEL_OFF); /* what is damaged is the answer */
    else
        log_set_level(LOG_LEVEL_WARN); /* what was done is said once, by the verb */
    return is(&o, "verify")                       ? verify(&o)
           : is(&o, "stats")                      ? stats(&o)
           : is(&o, "compact")                    ? compact(&o)
           : is(&o, "pins")                       ? pins(&o)
           : is(&o, "delete") || is(&o, "redact") ? erase(&o)
           : is(&o, "export") || is(&o, "import") ? files(&o)
                                                  : pin(&o);
}
