/* An agent in a terminal.
 *
 *   agent --demo                      a conversation that goes everywhere, in a directory that goes away
 *   agent [--dir DIR] [--session S]   talk to it; or < FILE
 *
 *   --model URL --services URL --mcp-url URL --mcp PROGRAM      instead of the stand-ins, which are
 *                                     started from the folder this program is in
 *   --status                          shows on stderr what it is doing
 *
 * A line is a turn. Commands: /new and /session NAME (the session is over, and digested), /good and
 * /bad (how the last skill did), /set NAME NUMBER (settings.json), /quit; and for the stand-ins
 * /telegram TEXT, /discord TEXT, /slack TEXT (a visitor writes), /fault PROVIDER STATUS TIMES, /slow
 * PROVIDER MS TIMES. */
#include "agent.h"
#include "code_index.h"
#include "common.h"
#include "db.h"
#include "demo.h"
#include "http.h"
#include "learning.h"
#include "llm.h"
#include "mcp.h"
#include "memory.h"
#include "queues.h"
#include "settings.h"
#include "skills.h"
#include "tools.h"

#include <curl/curl.h>
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define CONSOLIDATE_MS 60000
#define RELOAD_MS 3000 /* what we changed ourselves, the watcher sees soon */

static struct {
    const char *dir, *session, *model, *services, *mcp_url, *mcp_program;
    bool demo, status;
} options = {.session = "default"};

static char model_url[64], services_url[64], mcp_url[64];
static struct child children[3];
static int wake = -1, end_signals = -1;
static pthread_t signal_thread;
static int sessions = 1;

/* ---- the person ---- */

static bool ask_person(const char *question)
{
    AUTO_FREE char *line = channel_ask(question);
    return line && strcasecmp(trim(line), "yes") == 0;
}

/* The only one that takes SIGINT and SIGTERM: the turn under way hears of it at its next step. */
static void *wait_for_signals(void *arg)
{
    (void)arg;
    struct pollfd p[] = {{.fd = end_signals, .events = POLLIN}, {.fd = wake, .events = POLLIN}};
    while (poll(p, 2, -1) < 0 && errno == EINTR)
        ;
    if (p[0].revents) {
        uint64_t one = 1;
        queues_cancel();
        if (write(wake, &one, sizeof one) < 0)
            say("cannot wake the loop: %s", strerror(errno));
    }
    return NULL;
}

/* ---- between turns ---- */

/* What changed since the last turn; waits for what we changed ourselves. */
static void take_changes(bool settings_written)
{
    if (queues_skill_reload(learning_wrote() ? RELOAD_MS : 0))
        skills_hot_reload();
    if (queues_config_reload(settings_written ? RELOAD_MS : 0))
        settings_load(options.dir);
    mcp_refresh();
}

static void new_session(const char *name)
{
    PUG_SPAN("session.end");
    if (!memory_loop_ask(agent_session_name()))
        say("the memories are not consolidated yet");
    agent_session(name);
}

static void visitor(enum channel channel, const char *text)
{
    struct pug_context received;
    stand_in_write(services_url, channel_name(channel), text);
    AUTO_FREE char *said = channel_receive(channel, &received);
    if (said)
        agent_turn(channel, said, &received);
}

/* False when it was the last. */
static bool command(char *line)
{
    char word[32] = "", name[64] = "";
    int number = 0, times = 1, at = 0;
    sscanf(line, "/%31s %n", word, &at);
    const char *rest = at ? line + at : "";
    sscanf(rest, "%63s %d %d", name, &number, &times);
    if (strcmp(word, "quit") == 0)
        return false;
    if (strcmp(word, "new") == 0) {
        AUTO_TEXT struct text next = {0};
        text_addf(&next, "%s-%d", options.session, ++sessions);
        new_session(next.bytes);
    } else if (strcmp(word, "session") == 0 && *name) {
        new_session(name);
    } else if (strcmp(word, "good") == 0 || strcmp(word, "bad") == 0) {
        if (!learning_feedback(*word == 'g'))
            printf("No skill was used.\n");
    } else if (strcmp(word, "set") == 0 && number > 0) {
        bool written = settings_write(options.dir, name, number) == 0;
        take_changes(written);
    } else if (strcmp(word, "fault") == 0 && number > 0) {
        stand_in_trouble(model_url, name, number, 0, times);
    } else if (strcmp(word, "slow") == 0 && number > 0) {
        stand_in_trouble(model_url, name, 0, number, times);
    } else {
        for (enum channel c = TELEGRAM; c < N_CHANNELS; c++)
            if (strcmp(word, channel_name(c)) == 0) {
                visitor(c, rest);
                return true;
            }
        printf("There is no such command.\n");
    }
    return true;
}

static void talk(void)
{
    bool more = true;
    while (more && !queues_cancelled(CANCEL_AGENT)) {
        struct pug_context received;
        take_changes(false);
        AUTO_FREE char *line = channel_receive(CLI, &received);
        if (!line)
            break;
        char *said = trim(line);
        if (*said == '/')
            more = command(said);
        else if (*said)
            agent_turn(CLI, said, &received);
    }
}

/* ---- start and end ---- */

static void start(void)
{
    PUG_SPAN("startup");
    db_open(path_join(options.dir, "agent.db").text);
    settings_load(options.dir);
    llm_start(model_url);
    char site[80];
    snprintf(site, sizeof site, "%s/site", services_url);
    tools_start(path_join(options.dir, "workspace").text, site,
                path_join(options.dir, "audit.jsonl").text);
    watch_start(options.dir);
    code_index_build(path_join(options.dir, "workspace").text);
    skills_start(path_join(options.dir, "skills").text);
    mcp_connect("notes",
                options.mcp_program ? options.mcp_program : program_path("mcp_server").text);
    mcp_connect_url("convert", mcp_url);
    memory_loop_start(CONSOLIDATE_MS);
    agent_session(options.session);
}

static void stop(void)
{
    PUG_SPAN("shutdown");
    uint64_t one = 1;
    queues_cancel();
    if (write(wake, &one, sizeof one) < 0)
        say("cannot wake the signals' thread: %s", strerror(errno));
    pthread_join(signal_thread, NULL);
    memory_loop_stop();
    watch_stop();
    mcp_shutdown();
    skills_stop();
    agent_stop();
    tools_stop();
    queues_stop();
    db_close();
    channels_stop();
}

static void start_stand_ins(void)
{
    if (options.model)
        snprintf(model_url, sizeof model_url, "%s", options.model);
    else
        stand_in_start(&children[0], "model", NULL, model_url);
    if (options.services)
        snprintf(services_url, sizeof services_url, "%s", options.services);
    else
        stand_in_start(&children[1], "services", NULL, services_url);
    if (options.mcp_url) {
        snprintf(mcp_url, sizeof mcp_url, "%s", options.mcp_url);
    } else {
        char base[64];
        stand_in_start(&children[2], "mcp_server", "--http", base);
        snprintf(mcp_url, sizeof mcp_url, "%.50s/mcp", base);
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"demo", 0, NULL, 'D'},  {"dir", 1, NULL, 'd'},      {"session", 1, NULL, 's'},
        {"model", 1, NULL, 'm'}, {"services", 1, NULL, 'v'}, {"mcp-url", 1, NULL, 'u'},
        {"mcp", 1, NULL, 'p'},   {"status", 0, NULL, 'S'},   {0}};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'D':
            options.demo = true;
            break;
        case 'd':
            options.dir = optarg;
            break;
        case 's':
            options.session = optarg;
            break;
        case 'm':
            options.model = optarg;
            break;
        case 'v':
            options.services = optarg;
            break;
        case 'u':
            options.mcp_url = optarg;
            break;
        case 'p':
            options.mcp_program = optarg;
            break;
        case 'S':
            options.status = true;
            break;
        default:
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    char scratch[] = "/tmp/pugmark-agent-XXXXXX";
    read_options(argc, argv);
    bool temporary = !options.dir;
    if (temporary && !mkdtemp(scratch))
        die("cannot make a directory: %s", strerror(errno));
    if (temporary)
        options.dir = scratch;
    if (options.demo)
        options.session = "demo";

    /* Blocked before the first thread is made, so that every thread inherits it. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    end_signals = signalfd(-1, &set, SFD_CLOEXEC);
    wake = eventfd(0, EFD_CLOEXEC);
    service_start("agent");
    curl_global_init(CURL_GLOBAL_DEFAULT);
    demo_prepare(options.dir);
    start_stand_ins();
    channels_start(options.demo ? demo_script() : 0, options.demo || !isatty(0), wake,
                   services_url);
    queues_start(options.status, ask_person);
    if (end_signals < 0 || wake < 0 || pthread_create(&signal_thread, NULL, wait_for_signals, NULL))
        die("cannot wait for signals");
    start();
    talk();
    stop();
    printf("%lld turns, %lld tool calls, %lld things remembered\n",
           (long long)queues_total(METRIC_TURNS), (long long)queues_total(METRIC_TOOL_CALLS),
           (long long)queues_total(METRIC_REMEMBERED));
    service_stop();
    http_stop();
    for (size_t i = 0; i < sizeof children / sizeof *children; i++)
        child_stop(&children[i]);
    curl_global_cleanup();
    if (temporary)
        nftw(options.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
