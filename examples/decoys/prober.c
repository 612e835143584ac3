/* The prober: looks back at who looked at us.
 *
 *   prober --dir DIR [--name NAME] [--tls PORT]... [--ssh PORT]... [--tcp PORT]... [--quiet-s N]
 *          [--once] [--anywhere]
 *
 * One round (`prober.worker`): attackers that were not probed yet and have been quiet for a while
 * (--quiet-s, 5), each in a `prober.probe_cycle` that links to the row that brought him here. Three
 * phases try the ports they were given: JARM asks what TLS server it is, HASSH what SSH server, a
 * SYN what TCP. What they find becomes a line in containers/NAME.log and a row of `probes`.
 *
 * It talks to loopback addresses only, unless --anywhere says otherwise: probing machines that are
 * not yours is for you to answer for. */
#include "common.h"
#include "events.h"
#include "jarm.h"
#include "repository.h"
#include "ssh.h"
#include "syn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pugmark/pugmark.h>

#define PORTS_MAX 16
#define TARGETS_A_ROUND 20
#define TIMEOUT_MS 2000

struct ports {
    uint16_t items[PORTS_MAX];
    size_t n;
};

static struct repository *repo;
static struct ports tls_ports, ssh_ports, tcp_ports;
static bool anywhere;

/* ---- what was found ---- */

/* The row first: an attacker without it will be probed again. */
static void found(const char *ip, uint16_t port, const char *kind, const char *hash,
                  const char *text)
{
    struct event e;
    if (repo->add_probe(repo, ip, port, kind, hash, text) != 0)
        return;
    event_begin(&e, kind, 0);
    event_param(&e, "src_ip", ip);
    event_number(&e, "target_port", port);
    event_param(&e, "hash", hash);
    event_param(&e, "text", text);
    event_write(&e, "probe");
}

/* ---- JARM ---- */

static int jarm_send_probe(const char *ip, uint16_t port, unsigned number,
                           char answer[JARM_RAW_MAX])
{
    PUG_SPAN("prober.jarm_send_probe", PUG_KIND(PUG_KIND_CLIENT), PUG_INT("probe", number));
    uint8_t hello[JARM_HELLO_MAX], bytes[JARM_ANSWER_BYTES];
    size_t len = jarm_hello(number, ip, hello);
    AUTO_CLOSE int fd = connect_address(NULL, ip, port, TIMEOUT_MS);
    if (fd < 0 || write_all(fd, hello, len) != 0) {
        pug_error(PUG_CURRENT, strerror(errno));
        return -1;
    }
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n < 0 && errno == EAGAIN) { /* as the original: one that does not answer has no JARM */
        pug_error(PUG_CURRENT, "no answer in time");
        return -1;
    }
    jarm_answer(bytes, n > 0 ? (size_t)n : 0, answer);
    pug_set_str(PUG_CURRENT, "answer", answer);
    return 0;
}

static void jarm_phase(const char *ip)
{
    PUG_SPAN("prober.jarm_phase");
    for (size_t i = 0; i < tls_ports.n && !stopping(); i++) {
        char answers[JARM_PROBES][JARM_RAW_MAX], hash[JARM_HASH_SIZE];
        unsigned n = 0;
        while (n < JARM_PROBES && jarm_send_probe(ip, tls_ports.items[i], n, answers[n]) == 0)
            n++;
        if (n < JARM_PROBES)
            continue;
        jarm_hash(answers, hash);
        if (strspn(hash, "0") < strlen(hash)) /* zeros: no TLS */
            found(ip, tls_ports.items[i], "jarm_fingerprint", hash, answers[0]);
    }
}

/* ---- HASSH ---- */

/* Reads the server's first packet; its length, -1 when there is none. */
static long hassh_ssh_connect(const char *ip, uint16_t port, char version[SSH_VERSION_MAX + 1],
                              uint8_t packet[SSH_PACKET_MAX])
{
    PUG_SPAN("prober.hassh_ssh_connect", PUG_KIND(PUG_KIND_CLIENT));
    AUTO_CLOSE int fd = connect_address(NULL, ip, port, TIMEOUT_MS);
    if (fd < 0 || dprintf(fd, "%s\r\n", ssh_client_profile.version) < 0) {
        pug_error(PUG_CURRENT, strerror(errno));
        return -1;
    }
    /* RFC 4253, 4.2: other lines may come before the version. */
    bool is_version = false;
    for (int i = 0; i < 10 && !is_version && ssh_read_version(fd, version); i++)
        is_version = strncmp(version, "SSH-", 4) == 0;
    long n = is_version ? ssh_read_packet(fd, packet) : -1;
    if (n < 0)
        pug_error(PUG_CURRENT, is_version ? "no list of algorithms" : "no SSH server");
    return n;
}

static void hassh_server(const char *ip, uint16_t port)
{
    PUG_SPAN("prober.hassh_server", PUG_STR("server.address", ip), PUG_INT("server.port", port));
    char version[SSH_VERSION_MAX + 1];
    uint8_t packet[SSH_PACKET_MAX];
    struct ssh_algorithms algorithms;
    long n = hassh_ssh_connect(ip, port, version, packet);
    if (n < 0 || !ssh_kexinit_parse(packet, (size_t)n, &algorithms)) {
        pug_error(PUG_CURRENT, "no fingerprint");
        return;
    }
    char lists[4 * SSH_NAMES_MAX + 4], hash[65];
    hassh(&algorithms, true, lists, hash);
    pug_set_str(PUG_CURRENT, "hassh.server", hash);
    pug_set_str(PUG_CURRENT, "ssh.server_version", version);
    found(ip, port, "hassh_fingerprint", hash, version);
}

static void hassh_phase(const char *ip)
{
    PUG_SPAN("prober.hassh_phase");
    for (size_t i = 0; i < ssh_ports.n && !stopping(); i++)
        hassh_server(ip, ssh_ports.items[i]);
}

/* ---- TCP ---- */

static void tcpfp_phase(const char *ip)
{
    PUG_SPAN("prober.tcpfp_phase");
    for (size_t i = 0; i < tcp_ports.n && !stopping(); i++) {
        struct tcp_fingerprint f;
        if (tcp_fingerprint(ip, tcp_ports.items[i], TIMEOUT_MS, &f) == 0 && f.open)
            found(ip, tcp_ports.items[i], "tcpfp_fingerprint", f.hash, f.text);
    }
}

/* ---- rounds ---- */

static bool allowed(const char *ip)
{
    struct in_addr a;
    if (inet_pton(AF_INET, ip, &a) != 1)
        return false;
    return anywhere || ntohl(a.s_addr) >> 24 == 127;
}

static void probe_cycle(const char *ip)
{
    PUG_SPAN("prober.probe_cycle", PUG_STR("attacker.ip", ip));
    struct log_rows rows;
    if (repo->get_logs_of_attacker(repo, ip, 1, &rows) == 0) {
        const struct log_row *newest = rows.n ? &rows.items[0] : NULL;
        if (newest)
            rows_link(&newest, 1, NULL, NULL);
        log_rows_free(&rows);
    }
    jarm_phase(ip);
    hassh_phase(ip);
    tcpfp_phase(ip);
    if (!stopping())
        repo->add_probe(repo, ip, 0, "cycle", "", "");
}

static json_t *discover_attackers(int64_t quiet_s)
{
    PUG_SPAN("prober.discover_attackers");
    json_t *targets = NULL;
    if (repo->get_probe_targets(repo, quiet_s, TARGETS_A_ROUND, &targets) != 0)
        return NULL;
    pug_set_int(PUG_CURRENT, "attackers", (int64_t)json_array_size(targets));
    return targets;
}

/* Attackers come slowly: an empty round is not worth a span, and there would be many. */
static void worker(int64_t quiet_s)
{
    if (!repository_has_targets(repo, quiet_s))
        return;
    PUG_SPAN("prober.worker");
    json_t *targets = discover_attackers(quiet_s), *target;
    size_t i;
    json_array_foreach(targets, i, target)
    {
        const char *ip = json_string_value(json_object_get(target, "ip"));
        if (stopping())
            break;
        if (ip && allowed(ip)) {
            probe_cycle(ip);
        } else if (ip) {
            say("%s is not this machine: not probed (--anywhere)", ip);
            repo->add_probe(repo, ip, 0, "refused", "", "");
        }
    }
    json_decref(targets);
}

static bool port_add(struct ports *ports, const char *text)
{
    char *end;
    long port = strtol(text, &end, 10);
    if (*end || port < 1 || port > 65535 || ports->n == PORTS_MAX)
        return false;
    ports->items[ports->n++] = (uint16_t)port;
    return true;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: prober --dir DIR [--name NAME] [--tls PORT]... [--ssh PORT]...\n"
            "              [--tcp PORT]... [--quiet-s N] [--once] [--anywhere]\n"
            "at most %d ports of each kind\n",
            PORTS_MAX);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"dir", 1, NULL, 'd'},  {"name", 1, NULL, 'n'},     {"tls", 1, NULL, 't'},
        {"ssh", 1, NULL, 's'},  {"tcp", 1, NULL, 'c'},      {"quiet-s", 1, NULL, 'q'},
        {"once", 0, NULL, 'o'}, {"anywhere", 0, NULL, 'a'}, {0}};
    const char *dir = NULL, *name = "prober-01";
    int64_t quiet_s = 5;
    bool once = false, good = true;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'd':
            dir = optarg;
            break;
        case 'n':
            name = optarg;
            break;
        case 't':
        case 's':
        case 'c':
            good &= port_add(c == 't' ? &tls_ports : c == 's' ? &ssh_ports : &tcp_ports, optarg);
            break;
        case 'q':
            quiet_s = atoi(optarg);
            break;
        case 'o':
            once = true;
            break;
        case 'a':
            anywhere = true;
            break;
        default:
            return usage();
        }
    }
    if (!dir || !good || optind < argc || strcspn(name, " /\"") != strlen(name))
        return usage();
    service_start("prober", dir);
    events_open(name, "prober");
    repo = repository_open(run_path("decoys.db").text);
    do
        worker(quiet_s);
    while (!once && wait_for(-1, 250));
    repository_close(repo);
    events_close();
    service_stop();
    return 0;
}
