#include "fleet.h"

#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ENGINE_TIMEOUT_S 30

static const char *const services[] = {"http", "https", "ssh", "telnet"};

bool fleet_name_valid(const char *name)
{
    return name && *name && strlen(name) <= 40 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

bool fleet_service_valid(const char *service)
{
    for (size_t i = 0; service && i < sizeof services / sizeof *services; i++)
        if (strcmp(services[i], service) == 0)
            return true;
    return false;
}

/* ---- asking the engine ---- */

static int engine_connect(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct path path = run_path("engine.sock");
    if (strlen(path.text) >= sizeof to.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(to.sun_path, path.text, strlen(path.text) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval timeout = {.tv_sec = ENGINE_TIMEOUT_S};
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close_quietly(&fd);
        return -1;
    }
    return fd;
}

int engine_ask(json_t *request, json_t **ret_answer)
{
    AUTO_FREE char *line = malloc(FLEET_MESSAGE_MAX), *answer = malloc(FLEET_MESSAGE_MAX);
    size_t len = line ? json_dumpb(request, line, FLEET_MESSAGE_MAX - 1, JSON_COMPACT) : 0;
    json_decref(request);
    if (!answer || len == 0 || len >= FLEET_MESSAGE_MAX - 1) {
        say("the engine would not take a request that large");
        return -1;
    }
    len = pug_json_inject(NULL, line, len, FLEET_MESSAGE_MAX - 1);
    line[len++] = '\n';
    AUTO_CLOSE int fd = engine_connect();
    if (fd < 0 || write_all(fd, line, len) != 0) {
        say("the engine does not listen: %s", strerror(errno));
        pug_event(PUG_CURRENT, "no engine");
        return -1;
    }
    size_t n = 0;
    ssize_t got;
    while (n < FLEET_MESSAGE_MAX && (got = read(fd, answer + n, FLEET_MESSAGE_MAX - n)) > 0)
        n += (size_t)got;
    *ret_answer = json_loadb(answer, n, 0, NULL);
    if (!json_is_object(*ret_answer)) {
        json_decref(*ret_answer);
        say("the engine did not answer");
        return -1;
    }
    return 0;
}

/* ---- what it did goes into the database ---- */

int fleet_deploy(struct repository *repo, json_t *deckies, json_t **ret_deckies)
{
    json_t *answer, *decky;
    if (engine_ask(json_pack("{s:s, s:o}", "op", "deploy", "deckies", deckies), &answer) != 0)
        return -1;
    json_t *done = json_object_get(answer, "deckies");
    size_t i;
    int result = json_is_array(done) ? 0 : -1;
    json_array_foreach(done, i, decky)
    {
        const char *state = json_string_value(json_object_get(decky, "state"));
        if (result == 0 && state && strcmp(state, "running") == 0)
            result = repo->upsert_decky(repo, json_string_value(json_object_get(decky, "name")),
                                        json_string_value(json_object_get(decky, "service")),
                                        json_string_value(json_object_get(decky, "banner")),
                                        json_integer_value(json_object_get(decky, "port")));
    }
    if (result == 0)
        *ret_deckies = json_incref(done);
    json_decref(answer);
    return result;
}

int fleet_teardown(struct repository *repo, json_t *names, json_t **ret_names)
{
    json_t *answer, *name;
    if (engine_ask(json_pack("{s:s, s:o}", "op", "teardown", "names", names), &answer) != 0)
        return -1;
    json_t *gone = json_object_get(answer, "names");
    size_t i;
    int result = json_is_array(gone) ? 0 : -1;
    json_array_foreach(gone, i, name)
    {
        if (result == 0)
            result = repo->delete_decky(repo, json_string_value(name));
    }
    if (result == 0)
        *ret_names = json_incref(gone);
    json_decref(answer);
    return result;
}

/* ---- faces ---- */

static const struct face {
    const char *service, *banner;
} faces[] = {
    {"http", "Apache/2.4.57 (Debian)"}, {"http", "nginx/1.22.1"},
    {"http", "Microsoft-IIS/10.0"},     {"http", "lighttpd/1.4.69"},
    {"https", "nginx/1.24.0"},          {"https", "Apache/2.4.58 (Unix) OpenSSL/3.0.11"},
    {"https", "GoAhead-Webs"},          {"ssh", "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3"},
    {"ssh", "SSH-2.0-OpenSSH_5.3"},     {"ssh", "SSH-2.0-dropbear_2022.83"},
    {"telnet", "BusyBox v1.36.1"},      {"telnet", "Welcome to Microsoft Telnet Service"},
    {"telnet", "Huawei Home Gateway"},
};

/* One of the service's faces, but not the one it has. */
static const char *another_face(const char *service, const char *banner)
{
    const char *candidates[sizeof faces / sizeof *faces];
    unsigned n = 0, which = 0;
    for (size_t i = 0; i < sizeof faces / sizeof *faces; i++)
        if (strcmp(faces[i].service, service) == 0 &&
            (!banner || strcmp(faces[i].banner, banner) != 0))
            candidates[n++] = faces[i].banner;
    if (getrandom(&which, sizeof which, 0) != sizeof which)
        which = (unsigned)now_ns();
    return n ? candidates[which % n] : banner;
}

int mutate_decky(struct repository *repo, const char *name, json_t **ret_decky)
{
    PUG_SPAN("mutator.mutate_decky", PUG_STR("decky", name));
    json_t *rows, *done = NULL;
    if (repo->get_decky(repo, name, &rows) != 0)
        return -1;
    json_t *decky = json_array_get(rows, 0);
    if (!decky) {
        json_decref(rows);
        pug_error(PUG_CURRENT, "no such decoy");
        return 1;
    }
    const char *service = json_string_value(json_object_get(decky, "service"));
    const char *banner = another_face(service, json_string_value(json_object_get(decky, "banner")));
    pug_set_str(PUG_CURRENT, "banner", banner);
    int result = fleet_deploy(repo,
                              json_pack("[{s:s, s:s, s:s*, s:i}]", "name", name, "service", service,
                                        "banner", banner, "port", 0),
                              &done);
    json_decref(rows);
    json_t *now = json_array_get(done, 0);
    const char *state = json_string_value(json_object_get(now, "state"));
    if (result != 0 || !state || strcmp(state, "running") != 0) {
        pug_error(PUG_CURRENT, "the decoy did not come back");
        result = -1;
    } else {
        *ret_decky = json_incref(now);
    }
    json_decref(done);
    return result;
}
