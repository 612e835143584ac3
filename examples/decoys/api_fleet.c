/* The fleet, as users see it; the engine does the work (fleet.h). */
#include "api.h"
#include "fleet.h"

#include <stdio.h>
#include <string.h>

#define DEPLOYMENT_LIMIT 10 /* unless somebody sets another */
#define INTERVAL_S_MAX 604800

int64_t deployment_limit(void)
{
    int64_t limit;
    return repo->get_setting(repo, "deployment_limit", DEPLOYMENT_LIMIT, &limit) == 0 ? limit : -1;
}

int64_t global_mutation_interval(void)
{
    int64_t interval_s;
    return repo->get_setting(repo, "global_mutation_interval_s", 0, &interval_s) == 0 ? interval_s
                                                                                      : -1;
}

int get_deckies(struct call *c)
{
    return answered(repo->get_deckies(repo, &c->answer));
}

/* How many names are asked for that are not there yet; -1 when it is no list of names. */
static int new_names(const json_t *wanted, const json_t *there)
{
    int n = 0;
    size_t i, j;
    json_t *decky, *known;
    if (json_array_size(wanted) == 0)
        return -1;
    json_array_foreach(wanted, i, decky)
    {
        const char *name = json_string_value(json_object_get(decky, "name"));
        bool is_known = false;
        if (!fleet_name_valid(name) ||
            !fleet_service_valid(json_string_value(json_object_get(decky, "service"))))
            return -1;
        json_array_foreach(there, j, known)
        {
            is_known |= strcmp(json_string_value(json_object_get(known, "name")), name) == 0;
        }
        n += !is_known;
    }
    return n;
}

int deploy_deckies(struct call *c)
{
    json_t *body = body_object(c), *wanted = json_object_get(body, "deckies"), *there = NULL;
    int64_t limit = deployment_limit();
    int status = limit < 0 ? MHD_HTTP_INTERNAL_SERVER_ERROR
                           : answered(repo->get_deckies(repo, &there));
    int n = status == MHD_HTTP_OK ? new_names(wanted, there) : 0;
    if (status == MHD_HTTP_OK && n < 0)
        status = bad(c, "deckies is a list of {name, service}: a-z, 0-9 and '-'; http, https, ssh "
                        "or telnet");
    else if (status == MHD_HTTP_OK && (int64_t)json_array_size(there) + n > limit)
        status = refused(c, MHD_HTTP_CONFLICT, "that is more than the deployment limit");
    else if (status == MHD_HTTP_OK && fleet_deploy(repo, json_incref(wanted), &c->answer) != 0)
        status = refused(c, MHD_HTTP_BAD_GATEWAY, "the engine did not do it");
    json_decref(there);
    json_decref(body);
    return status;
}

int mutate(struct call *c)
{
    int result = mutate_decky(repo, c->part, &c->answer);
    return result == 0  ? MHD_HTTP_OK
           : result > 0 ? MHD_HTTP_NOT_FOUND
                        : refused(c, MHD_HTTP_BAD_GATEWAY, "the engine did not do it");
}

int update_mutate_interval(struct call *c)
{
    json_t *body = body_object(c), *value = json_object_get(body, "interval_s");
    bool none = json_is_null(value);
    int64_t interval_s = none ? -1 : json_integer_value(value), n = 0;
    int status;
    if (!none && (!json_is_integer(value) || interval_s < 0 || interval_s > INTERVAL_S_MAX))
        status = bad(c, "interval_s is a number up to 604800, or null");
    else
        status = answered(repo->set_mutate_interval(repo, c->part, interval_s, &n));
    if (status == MHD_HTTP_OK && n == 0)
        status = MHD_HTTP_NOT_FOUND;
    json_decref(body);
    return status;
}
