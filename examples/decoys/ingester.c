/* The ingester: follows logs.jsonl and makes rows of it.
 *
 *   ingester --dir DIR
 *
 * Second bridge: the context under `_trace` is taken out of each record, and
 * `ingester.process_record` is its child, so that the trace goes on in this process. Third bridge:
 * the ids of that span become two columns of the row, for whoever reads it later.
 *
 * The row and the place in the file behind it are written in one transaction: killed at any moment,
 * it goes on with the first record that is not yet a row. */
#include "common.h"
#include "repository.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define WORKER "ingester"

static struct repository *repo;

/* ---- bounties: what is worth keeping for its own sake ---- */

static const char *field(json_t *fields, const char *name)
{
    const char *text = json_string_value(json_object_get(fields, name));
    return text ? text : "";
}

/* The value of a key in "a=1&b=2", for free(); NULL when it is not there. */
static char *form_value(const char *form, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = form; *p; p += strcspn(p, "&"), p += *p == '&')
        if (strncmp(p, key, n) == 0 && p[n] == '=')
            return strndup(p + n + 1, strcspn(p + n + 1, "&"));
    return NULL;
}

/* The text of "Basic ...", for free(); NULL when it is no base64. */
static char *basic_credentials(const char *authorization)
{
    if (!authorization || strncasecmp(authorization, "Basic ", 6) != 0)
        return NULL;
    const char *in = authorization + 6;
    char *out = malloc(strlen(in) + 1), *p = out;
    unsigned bits = 0, n_bits = 0;
    for (; out && *in && *in != '='; in++) {
        static const char digits[] =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *digit = strchr(digits, *in);
        if (!digit) {
            free(out);
            return NULL;
        }
        bits = bits << 6 | (unsigned)(digit - digits);
        if ((n_bits += 6) >= 8)
            *p++ = (char)(bits >> (n_bits -= 8));
    }
    if (out)
        *p = '\0';
    return out;
}

static void add_bounty(const struct log_row *row, const char *type, json_t *payload)
{
    if (!payload) /* not UTF-8 */
        return;
    char *text = json_dumps(payload, JSON_COMPACT | JSON_SORT_KEYS);
    struct bounty b = {.timestamp = row->timestamp,
                       .decky = row->decky,
                       .service = row->service,
                       .attacker_ip = row->attacker_ip,
                       .type = type,
                       .payload = text};
    repo->add_bounty(repo, &b);
    pug_event(PUG_CURRENT, "bounty", PUG_STR("type", type));
    free(text);
    json_decref(payload);
}

/* Credentials from forms, headers and prompts; addresses of payloads from commands. */
static void extract_bounty(const struct log_row *row, json_t *fields)
{
    PUG_SPAN("ingester.extract_bounty");
    const char *body = field(fields, "body");
    char *user = form_value(body, "username"), *password = form_value(body, "password");
    if (user && password)
        add_bounty(row, "credential",
                   json_pack("{s:s, s:s}", "username", user, "password", password));
    if (*field(fields, "password"))
        add_bounty(row, "credential",
                   json_pack("{s:s, s:s}", "username", field(fields, "username"), "password",
                             field(fields, "password")));
    char *basic = basic_credentials(json_string_value(json_object_get(fields, "authorization")));
    char *colon = basic ? strchr(basic, ':') : NULL;
    if (colon)
        add_bounty(row, "credential",
                   json_pack("{s:s%, s:s}", "username", basic, (size_t)(colon - basic), "password",
                             colon + 1));
    const char *url = strstr(field(fields, "command"), "http://");
    if (url)
        add_bounty(row, "payload", json_pack("{s:s%}", "url", url, strcspn(url, " ;|&<>")));
    free(user);
    free(password);
    free(basic);
}

/* ---- records ---- */

static const char *text_of(json_t *record, const char *key)
{
    return json_string_value(json_object_get(record, key));
}

/* What could not be written is tried again until it is, or until the program is asked to end: the
 * database may be busy, or the disk full. */
#define UNTIL_WRITTEN(write)                                                                       \
    while ((write) != 0 && wait_for(-1, 500))                                                      \
    pug_event(PUG_CURRENT, "not written, tried again")

static void process_record(char *line, const char *source, uint64_t offset, uint64_t next)
{
    /* Takes `_trace` out of the line, so that what is stored is what the collector meant. */
    struct pug_context collector;
    size_t len = pug_json_extract(line, strlen(line), &collector);
    PUG_SPAN_FROM(&collector, "ingester.process_record", PUG_KIND(PUG_KIND_CONSUMER),
                  PUG_INT("record.offset", (int64_t)offset));

    json_t *record = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    json_t *fields = json_object_get(record, "fields");
    char *fields_text = json_is_object(fields) ? json_dumps(fields, JSON_COMPACT) : NULL;
    struct log_row row = {
        .timestamp = (char *)text_of(record, "timestamp"),
        .decky = (char *)text_of(record, "decky"),
        .service = (char *)text_of(record, "service"),
        .event_type = (char *)text_of(record, "event_type"),
        .attacker_ip = (char *)text_of(record, "attacker_ip"),
        .message = (char *)text_of(record, "message"),
        .fields = fields_text,
        .source = (char *)source,
        .source_offset = (int64_t)offset,
    };
    if (row.timestamp && row.decky && row.service && row.event_type && row.attacker_ip &&
        row.message && row.fields) {
        struct pug_context here = pug_context_current();
        if (here.flags & PUG_FLAG_SAMPLED) { /* else nobody will ever see the span */
            pug_trace_id_hex(&here, row.trace_id);
            pug_span_id_hex(&here, row.span_id);
        }
        extract_bounty(&row, fields);
        UNTIL_WRITTEN(repo->add_log(repo, &row, WORKER, (int64_t)next));
    } else {
        say("passed over a damaged record at byte %" PRIu64, offset);
        pug_error(PUG_CURRENT, "damaged record");
        UNTIL_WRITTEN(repo->set_cursor(repo, WORKER, source, (int64_t)next));
    }
    free(fields_text);
    json_decref(record);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'}, {0}};
    const char *dir = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'd')
            return 2;
        dir = optarg;
    }
    service_start(WORKER, dir);
    repo = repository_open(run_path("decoys.db").text);

    static const char source[] = "logs.jsonl";
    struct path path = run_path("%s", source);
    close(open(path.text, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)); /* the collector may come later */
    int64_t position = 0;
    struct follower f;
    if (repo->get_cursor(repo, WORKER, source, &position) != 0 ||
        follower_open(&f, path.text, (uint64_t)position) != 0)
        die("cannot read %s: %s", path.text, strerror(errno));

    int watch = watch_path(path.text);
    do {
        watch_drain(watch);
        uint64_t offset;
        for (char *line; !stopping() && (line = follower_line(&f, &offset));)
            process_record(line, source, offset, f.offset);
    } while (wait_for(watch, 1000));

    follower_close(&f);
    repository_close(repo);
    service_stop();
    return 0;
}
