/* The two places where rows and traces meet: every method gets its span, and every row gives back
 * its context. */
#include "repository.h"

#include <stdlib.h>
#include <string.h>

#define LINKS_MAX 64 /* of one span */

PUG_WRAP_TABLE(methods_trace, struct repository, "db.", REPOSITORY_METHODS)

void repository_trace(struct repository *repo)
{
    methods_trace(repo);
}

bool row_is_visit(const struct log_row *row)
{
    return strcmp(row->service, "sniffer") != 0 && strcmp(row->service, "prober") != 0;
}

struct pug_context rows_context(const struct log_row *const *rows, size_t n)
{
    struct pug_context none = {0}, parent = {0};
    const char *trace_id = NULL;
    for (size_t i = n; i-- > 0;) {
        if (!*rows[i]->trace_id)
            continue;
        if (!trace_id && pug_context_from_hex(&parent, rows[i]->trace_id, rows[i]->span_id) == 0)
            trace_id = rows[i]->trace_id;
        else if (trace_id && strcmp(rows[i]->trace_id, trace_id) != 0)
            return none;
    }
    return parent;
}

void rows_link(const struct log_row *const *rows, size_t n, const struct pug_context *parent,
               const struct pug_context *round)
{
    if (!pug_on())
        return;
    size_t links = 0;
    for (size_t i = n; i-- > 0 && links < LINKS_MAX;) {
        struct pug_context to;
        if (pug_context_from_hex(&to, rows[i]->trace_id, rows[i]->span_id) != 0 ||
            (parent && memcmp(to.span_id, parent->span_id, sizeof to.span_id) == 0))
            continue;
        pug_link(PUG_CURRENT, &to);
        links++;
    }
    if (round && parent && pug_context_valid(parent))
        pug_link(PUG_CURRENT, round);
}

int rows_by_attacker(const struct log_rows *rows,
                     int (*work)(const struct log_row *const *rows, size_t n))
{
    const struct log_row **his = calloc(rows->n + 1, sizeof(const struct log_row *));
    bool *done = calloc(rows->n + 1, sizeof *done);
    int result = his && done ? 0 : -1;
    for (size_t i = 0; i < rows->n && result == 0; i++) {
        if (done[i])
            continue;
        size_t n = 0;
        for (size_t j = i; j < rows->n; j++)
            if (strcmp(rows->items[j].attacker_ip, rows->items[i].attacker_ip) == 0) {
                his[n++] = &rows->items[j];
                done[j] = true;
            }
        result = work(his, n);
    }
    free(his);
    free(done);
    return result;
}
