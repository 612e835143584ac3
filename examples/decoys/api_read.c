/* What users read: events, attackers, figures. */
#include "api.h"

int get_logs(struct call *c)
{
    struct log_filter f = {.search = parameter(c, "search"), .attacker_ip = parameter(c, "ip")};
    if (!number(c, "limit", 50, 1000, &f.limit) || !number(c, "offset", 0, INT64_MAX, &f.offset))
        return bad(c, "limit is a number up to 1000, offset a number");
    return answered(repo->get_logs(repo, &f, &c->answer));
}

int get_logs_histogram(struct call *c)
{
    int64_t interval_s;
    if (!number(c, "interval", 60, 86400, &interval_s) || interval_s == 0)
        return bad(c, "interval is a number of seconds, 1 to 86400");
    return answered(repo->get_logs_histogram(repo, interval_s, &c->answer));
}

int get_bounties(struct call *c)
{
    int64_t limit;
    if (!number(c, "limit", 50, 1000, &limit))
        return bad(c, "limit is a number up to 1000");
    return answered(repo->get_bounties(repo, limit, &c->answer));
}

int get_attackers(struct call *c)
{
    int64_t limit;
    if (!number(c, "limit", 50, 1000, &limit))
        return bad(c, "limit is a number up to 1000");
    return answered(repo->get_attackers(repo, parameter(c, "ip"), limit, &c->answer));
}

int get_attacker_detail(struct call *c)
{
    json_t *rows, *probes;
    if (repo->get_attacker_detail(repo, c->part, &rows) != 0)
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    if (json_array_size(rows) > 0 && repo->get_probes(repo, c->part, &probes) == 0)
        json_object_set_new(json_array_get(rows, 0), "probes", probes);
    return answer_row(c, rows);
}

int get_attacker_commands(struct call *c)
{
    return answered(repo->get_attacker_commands(repo, c->part, &c->answer));
}

int get_stats(struct call *c)
{
    json_t *rows;
    if (repo->get_stats(repo, &rows) != 0)
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    return answer_row(c, rows);
}

int get_health(struct call *c)
{
    c->answer = json_pack("{s:s, s:I}", "status", "ok", "newest_log",
                          (json_int_t)repository_newest_log(repo));
    return MHD_HTTP_OK;
}
