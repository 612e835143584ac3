#include "cli/server_redaction.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define SETTINGS_RULE "server" /* what the rule of the settings is called */
#define KEY_FILE "redaction.key"
enum { KEY_BYTES_MIN = 16, KEY_BYTES_MAX = 4096, KEY_BYTES_MADE = 32 };

static bool action_parse(struct str text, enum redact_action *ret)
{
    for (int i = REDACT_MASK; i <= REDACT_DROP; i++) {
        if (!str_eq(text, str_from(redact_action_name((enum redact_action)i))))
            continue;
        *ret = (enum redact_action)i;
        return true;
    }
    return false;
}

/* ---- [[server.redaction_rules]] ---- */

static bool texts_take(struct server_config *c, const struct toml_entry *e, const char *const **ret,
                       size_t *ret_n)
{
    const struct toml_value *v = &e->value;
    const char **items = NULL;
    if (v->type == TOML_ARRAY)
        items = arena_array(&c->arena, v->array.n, sizeof *items);
    for (size_t i = 0; items && i < v->array.n; i++) {
        const struct toml_value *item = &v->array.items[i];
        items[i] = item->type == TOML_STRING ? arena_str(&c->arena, item->text).ptr : NULL;
        if (!items[i])
            items = NULL;
    }
    if (!items) {
        server_config_wrong(c, &v->at, "%.*s: expected a list of strings", STR_ARG(e->key));
        return false;
    }
    *ret = items;
    *ret_n = v->array.n;
    return true;
}

static bool entry_take(struct server_config *c, const struct toml_entry *e,
                       struct redaction_rule *rule)
{
    const struct toml_value *v = &e->value;
    if (str_eq(e->key, STR("keys")))
        return texts_take(c, e, &rule->rule.keys, &rule->rule.n_keys);
    if (str_eq(e->key, STR("patterns")))
        return texts_take(c, e, &rule->rule.patterns, &rule->rule.n_patterns);
    if (str_eq(e->key, STR("action"))) {
        if (v->type == TOML_STRING && action_parse(v->text, &rule->rule.action))
            return true;
        server_config_wrong(c, &v->at, "action: expected \"mask\", \"hash\" or \"drop\"");
    } else if (str_eq(e->key, STR("name"))) {
        if (v->type == TOML_STRING && v->text.len && v->text.len <= REDACTION_NAME_MAX &&
            (rule->name = arena_str(&c->arena, v->text).ptr))
            return true;
        server_config_wrong(c, &v->at, "name: expected a text of 1 to %d bytes",
                            REDACTION_NAME_MAX);
    } else {
        server_config_wrong(c, &e->at,
                            "\"%.*s\" is not known in [[server.redaction_rules]]: expected name, "
                            "keys, patterns, action",
                            e->key.len < 40 ? (int)e->key.len : 40, e->key.ptr);
    }
    return false;
}

/* Compiled once to hear what is wrong with it. */
static int try(const struct redact_rule *rules, size_t n, struct error_detail *detail)
{
    struct arena arena = ARENA_INIT;
    struct redact *compiled;
    int err = redact_new_rules(rules, n, NULL, NULL, &arena, &compiled, detail);
    arena_done(&arena);
    return err;
}

void server_redaction_take(struct server_config *c, const struct toml_value *table)
{
    struct redaction_rule rule = {.rule.action = REDACT_MASK};
    struct error_detail detail = {0};
    bool ok = true;
    for (const struct toml_entry *e = table->table->first; e; e = e->next)
        ok &= entry_take(c, e, &rule);
    if (!ok)
        return;
    if (!rule.name)
        rule.name = arena_printf(&c->arena, "rule %zu", c->n_redaction + 1);
    for (size_t i = 0; i < c->n_redaction && rule.name; i++)
        if (!strcmp(c->redaction[i].rule.name, rule.name)) {
            server_config_wrong(c, &table->at, "two rules of redaction are named \"%s\"",
                                rule.name);
            return;
        }
    if (!rule.rule.n_keys && !rule.rule.n_patterns)
        server_config_wrong(c, &table->at,
                            "[[server.redaction_rules]]: expected keys = [\"...\"] or patterns = "
                            "[\"...\"]");
    else if (c->n_redaction == SERVER_REDACTION_MAX)
        server_config_wrong(c, &table->at, "more than %d rules", SERVER_REDACTION_MAX);
    else if (!rule.name || try(&rule.rule, 1, &detail))
        server_config_wrong(c, &table->at, "%s", detail.message);
    else
        c->redaction[c->n_redaction++] = (struct server_redaction_rule){.rule = rule,
                                                                        .line = table->at.line};
}

/* ---- all of them ---- */

/* False: the settings make none. */
static bool settings_rule(const struct server_config *c, struct redaction_rule *ret)
{
    const struct setting *keys = server_value(c, SERVER_REDACT_KEYS),
                         *patterns = server_value(c, SERVER_REDACT_PATTERNS);
    *ret = (struct redaction_rule){.name = SETTINGS_RULE};
    if (keys->is_set) {
        ret->rule.keys = keys->items;
        ret->rule.n_keys = keys->n_items;
    }
    if (patterns->is_set) {
        ret->rule.patterns = patterns->items;
        ret->rule.n_patterns = patterns->n_items;
    }
    (void)action_parse(str_from(server_value(c, SERVER_REDACT_ACTION)->text), &ret->rule.action);
    return ret->rule.n_keys || ret->rule.n_patterns;
}

static size_t rules_get(const struct server_config *c,
                        struct redaction_rule rules[REDACT_RULES_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_redaction; i++)
        rules[n++] = c->redaction[i].rule;
    return n + settings_rule(c, &rules[n]);
}

void server_redaction_check(struct server_config *c)
{
    struct redaction_rule all[REDACT_RULES_MAX];
    struct redact_rule rules[REDACT_RULES_MAX] = {0};
    struct error_detail detail = {0};
    size_t n = rules_get(c, all);
    for (size_t i = 0; i < n; i++)
        rules[i] = all[i].rule;
    if (!try(rules, n, &detail))
        return;
    const struct setting *v = server_value(
        c, strstr(detail.message, "redact_keys") ? SERVER_REDACT_KEYS : SERVER_REDACT_PATTERNS);
    struct setting_source source = setting_source_of(v);
    settings_problem(&c->settings, &source, ERR_INVALID, true, "%s", detail.message);
}

static bool texts_differ(const char *const *a, size_t n_a, const char *const *b, size_t n_b)
{
    for (size_t i = 0; i < n_a && n_a == n_b; i++)
        if (strcmp(a[i], b[i]) != 0)
            return true;
    return n_a != n_b;
}

bool server_redaction_differs(const struct server_config *a, const struct server_config *b)
{
    struct redaction_rule x[REDACT_RULES_MAX], y[REDACT_RULES_MAX];
    size_t n = rules_get(a, x);
    if (n != rules_get(b, y))
        return true;
    for (size_t i = 0; i < n; i++)
        if (strcmp(x[i].name, y[i].name) != 0 || x[i].rule.action != y[i].rule.action ||
            texts_differ(x[i].rule.keys, x[i].rule.n_keys, y[i].rule.keys, y[i].rule.n_keys) ||
            texts_differ(x[i].rule.patterns, x[i].rule.n_patterns, y[i].rule.patterns,
                         y[i].rule.n_patterns))
            return true;
    return false;
}

/* ---- the key ---- */

static int key_fail(struct error_detail *detail, const char *path, const char *why)
{
    return error_set(detail, ERR_INVALID, 0, "the key of redaction, %.80s: %.80s", path, why);
}

/* The text of the file, whatever it is, makes the key. */
static int key_read(const char *path, uint8_t ret[REDACTION_KEY_SIZE], struct error_detail *detail)
{
    unsigned char text[KEY_BYTES_MAX + 1];
    size_t n = 0, made = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : 1;
    while (got > 0 && n < sizeof text) {
        got = read(fd, text + n, sizeof text - n);
        n += got > 0 ? (size_t)got : 0;
    }
    int err = got < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (err)
        err = key_fail(detail, path, strerror(err));
    else if (n < KEY_BYTES_MIN || n > KEY_BYTES_MAX)
        err = key_fail(detail, path, "expected 16 to 4096 bytes");
    else if (!EVP_Q_digest(NULL, "SHA256", NULL, text, n, ret, &made) || made != REDACTION_KEY_SIZE)
        err = key_fail(detail, path, "it cannot be hashed");
    explicit_bzero(text, sizeof text);
    return err;
}

/* Whole or not at all; whoever comes second takes the first one's. */
static int key_make(const char *path, struct error_detail *detail)
{
    unsigned char bytes[KEY_BYTES_MADE];
    char *part = NULL;
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return key_fail(detail, path, "no random numbers");
    if (asprintf(&part, "%s.%d", path, getpid()) < 0)
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes && !fsync(fd);
    if (fd >= 0 && close(fd) != 0)
        ok = false;
    if (!ok || (link(part, path) != 0 && errno != EEXIST)) {
        int err = key_fail(detail, path, strerror(errno));
        unlink(part);
        free(part);
        return err;
    }
    unlink(part);
    free(part);
    explicit_bzero(bytes, sizeof bytes);
    return 0;
}

static int key_get(const struct server_config *c, const char *data, uint8_t ret[REDACTION_KEY_SIZE],
                   struct error_detail *detail)
{
    const struct setting *named = server_value(c, SERVER_REDACT_KEY_FILE);
    char *path = NULL;
    if (named->is_set)
        return key_read(named->text, ret, detail);
    if (asprintf(&path, "%s/" KEY_FILE, data) < 0)
        return error_set(detail, ERR_NOMEM, 0, "out of memory");
    int err = access(path, F_OK) ? key_make(path, detail) : 0;
    if (!err)
        err = key_read(path, ret, detail);
    free(path);
    return err;
}

int server_redaction_options(const struct server_config *c, const char *data,
                             struct redaction_rule rules[REDACT_RULES_MAX],
                             struct redaction_options *ret, struct error_detail *ret_detail)
{
    bool hashes = false;
    *ret = (struct redaction_options){.rules = rules, .n = rules_get(c, rules)};
    for (size_t i = 0; i < ret->n; i++)
        hashes |= rules[i].rule.action == REDACT_HASH;
    return hashes ? key_get(c, data, ret->key, ret_detail) : 0;
}
