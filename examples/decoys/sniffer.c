/* The sniffer: looks at packets and writes down who they come from.
 *
 *   sniffer --dir DIR --name NAME (--interface IF | --read FILE) [--decky NAME]... [--filter BPF]
 *           [--write FILE]
 *
 * Packets come from an interface (which takes CAP_NET_RAW) or from a capture file, pcap or pcapng;
 * --decky looks only at that decoy's port, --filter is libpcap's language, --write keeps what was
 * seen as a capture. With --read it ends at the end of the file.
 *
 * Each SYN, hello and certificate becomes a line in containers/NAME.log, from where it goes through
 * the pipeline like what the decoys see. The address in it is always that of who began the
 * connection.
 *
 * Which trace? Packets carry no context. So each connection is a trace of its own: its first span is
 * the root, what comes later its child, and the root links to `sniffer.sniff_loop`, which looked.
 * `sniffer.worker` and the loop last as long as the capture; they are not parents of anything that
 * is finished earlier, so that no trace waits for them.
 *
 * libpcap reads, one thread works: packets wait in the kernel's ring meanwhile, and what it had to
 * drop is said at the end. */
#include "common.h"
#include "events.h"
#include "fingerprint.h"
#include "packet.h"

#include <errno.h>
#include <getopt.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define SNAP_BYTES 262144
#define RING_BYTES (4 << 20)
#define DECKIES_MAX 16
#define PORT_WAIT_MS 15000

static struct pug_span worker, loop;

/* What is known of a connection. */
struct conversation {
    struct pug_context root; /* its first span; none before that */
    bool has_client, has_server;
    struct client_hello client;
};

static struct conversation *conversation_of(struct flow *f)
{
    if (!f->user)
        f->user = calloc(1, sizeof(struct conversation));
    return f->user;
}

/* Inside the span of an event: the first of a connection is what the others belong to. */
static void belongs(struct conversation *c, const struct flow *f)
{
    char client[46], server[46];
    endpoint_text(f->version, &f->client, client);
    endpoint_text(f->version, &f->server, server);
    pug_set_str(PUG_CURRENT, "client.address", client);
    pug_set_str(PUG_CURRENT, "server.address", server);
    pug_set_int(PUG_CURRENT, "server.port", f->server.port);
    if (!pug_context_valid(&c->root)) {
        c->root = pug_context_current();
        pug_link(PUG_CURRENT, &loop.context);
    }
}

/* ---- events ---- */

static void event_of(struct event *e, const char *type, const struct flow *f)
{
    char client[46], server[46];
    endpoint_text(f->version, &f->client, client);
    endpoint_text(f->version, &f->server, server);
    event_begin(e, type, f->seen_ns);
    event_param(e, "src_ip", client);
    event_number(e, "src_port", f->client.port);
    event_param(e, "server_ip", server);
    event_number(e, "server_port", f->server.port);
}

static void write_event(struct event *e, const char *message)
{
    PUG_SPAN("sniffer.write_event", PUG_KIND(PUG_KIND_PRODUCER), PUG_INT("bytes", (int64_t)e->len));
    if (event_write(e, message) != 0)
        pug_error(PUG_CURRENT, "the log could not be written");
}

static void on_syn(struct flow *f, const struct packet *p)
{
    struct conversation *c = conversation_of(f);
    if (!c)
        return;
    PUG_SPAN_FROM(&c->root, "sniffer.tcp_syn_fingerprint");
    belongs(c, f);
    struct syn_shape shape;
    struct event e;
    syn_shape(p, &shape);
    const char *os = p0f_guess_os(&shape);
    pug_set_str(PUG_CURRENT, "tcp.signature", shape.signature);
    event_of(&e, "tcp_syn_fingerprint", f);
    event_param(&e, "signature", shape.signature);
    event_param(&e, "os", os);
    event_number(&e, "ttl", p->ttl);
    event_number(&e, "window", shape.window);
    if (shape.mss >= 0)
        event_number(&e, "mss", shape.mss);
    if (shape.scale >= 0)
        event_number(&e, "wscale", shape.scale);
    write_event(&e, "TCP SYN");
}

static void on_client_hello(struct conversation *c, struct flow *f, const uint8_t *body, size_t len)
{
    PUG_SPAN_FROM(&c->root, "sniffer.tls_client_hello");
    belongs(c, f);
    if (!parse_client_hello(body, len, &c->client)) {
        pug_error(PUG_CURRENT, "damaged ClientHello");
        return;
    }
    c->has_client = true;
    struct fingerprint old, new;
    ja3(&c->client, &old);
    ja4(&c->client, &new);
    struct resumption r = session_resumption_info(&c->client, NULL);
    struct event e;
    event_of(&e, "tls_client_hello", f);
    event_param(&e, "ja3", old.hash);
    event_param(&e, "ja4", new.hash);
    event_param(&e, "ja4_r", new.text);
    if (*c->client.server_name)
        event_param(&e, "server_name", c->client.server_name);
    if (c->client.alpn_len)
        event_param_n(&e, "alpn", c->client.alpn, c->client.alpn_len);
    event_param(&e, "resumption_offered", r.offered);
    event_param(&e, "early_data", r.early_data ? "true" : "false");
    write_event(&e, "TLS ClientHello");
}

static void on_server_hello(struct conversation *c, struct flow *f, const uint8_t *body, size_t len)
{
    PUG_SPAN_FROM(&c->root, "sniffer.tls_server_hello");
    belongs(c, f);
    struct server_hello h;
    if (!parse_server_hello(body, len, &h)) {
        pug_error(PUG_CURRENT, "damaged ServerHello");
        return;
    }
    if (h.retry) { /* the real one will come */
        pug_event(PUG_CURRENT, "hello retry request");
        flow_expect_second_hello(f);
        return;
    }
    c->has_server = true;
    struct fingerprint old, new;
    struct event e;
    char number[8];
    ja3s(&h, &old);
    ja4s(&h, &new);
    event_of(&e, "tls_server_hello", f);
    event_param(&e, "ja3s", old.hash);
    event_param(&e, "ja4s", new.hash);
    event_param(&e, "ja4s_r", new.text);
    snprintf(number, sizeof number, "%04x", h.selected_version ? h.selected_version : h.version);
    event_param(&e, "version", number);
    snprintf(number, sizeof number, "%04x", h.cipher);
    event_param(&e, "cipher", number);
    if (h.alpn_len)
        event_param_n(&e, "alpn", h.alpn, h.alpn_len);
    if (c->has_client)
        event_param(&e, "resumed",
                    session_resumption_info(&c->client, &h).resumed ? "true" : "false");
    write_event(&e, "TLS ServerHello");
}

static void on_certificate(struct conversation *c, struct flow *f, const uint8_t *body, size_t len)
{
    PUG_SPAN_FROM(&c->root, "sniffer.tls_certificate");
    belongs(c, f);
    struct certificate x;
    if (!parse_certificate(body, len, &x)) {
        pug_error(PUG_CURRENT, "damaged Certificate");
        return;
    }
    struct event e;
    event_of(&e, "tls_certificate", f);
    event_param(&e, "subject", x.subject);
    event_param(&e, "issuer", x.issuer);
    event_param(&e, "serial", x.serial);
    event_param(&e, "not_before", x.not_before);
    event_param(&e, "not_after", x.not_after);
    event_param(&e, "sha256", x.sha256);
    event_param(&e, "key", x.key);
    event_param(&e, "self_signed", x.self_signed ? "true" : "false");
    event_number(&e, "chain", x.chain);
    write_event(&e, "TLS Certificate");
}

static void on_message(struct flow *f, bool from_client, uint8_t type, const uint8_t *body,
                       size_t len)
{
    struct conversation *c = conversation_of(f);
    if (!c)
        return;
    if (type == TLS_CLIENT_HELLO && from_client && !c->has_client)
        on_client_hello(c, f, body, len);
    else if (type == TLS_SERVER_HELLO && !from_client && !c->has_server)
        on_server_hello(c, f, body, len);
    else if (type == TLS_CERTIFICATE && !from_client)
        on_certificate(c, f, body, len);
}

static void on_end(struct flow *f)
{
    free(f->user);
}

/* ---- the capture ---- */

struct capture {
    pcap_t *pcap;
    pcap_dumper_t *dump; /* NULL: none */
    struct flows *flows;
    int link_type;
    uint64_t packets;
};

/* nanoseconds: the capture was opened so that tv_usec holds them. */
static void on_packet(u_char *arg, const struct pcap_pkthdr *head, const u_char *bytes)
{
    struct capture *c = (struct capture *)arg;
    struct packet p;
    c->packets++;
    if (c->dump)
        pcap_dump((u_char *)c->dump, head, bytes);
    if (packet_decode(c->link_type, bytes, head->caplen, &p))
        flows_take(c->flows, &p,
                   (uint64_t)head->ts.tv_sec * 1000000000u + (uint64_t)head->ts.tv_usec);
}

static pcap_t *open_interface(const char *name)
{
    char problem[PCAP_ERRBUF_SIZE] = "";
    pcap_t *pcap = pcap_create(name, problem);
    if (!pcap)
        die("cannot look at %s: %s", name, problem);
    pcap_set_snaplen(pcap, SNAP_BYTES);
    pcap_set_buffer_size(pcap, RING_BYTES);
    pcap_set_immediate_mode(pcap, 1);
    pcap_set_tstamp_precision(pcap, PCAP_TSTAMP_PRECISION_NANO);
    int rc = pcap_activate(pcap);
    if (rc == PCAP_ERROR_PERM_DENIED)
        die("cannot look at %s: that takes root or CAP_NET_RAW (a capture file does not: --read)",
            name);
    if (rc < 0)
        die("cannot look at %s: %s", name, pcap_geterr(pcap));
    if (pcap_setnonblock(pcap, 1, problem) != 0)
        die("cannot look at %s: %s", name, problem);
    return pcap;
}

static pcap_t *open_file(const char *path)
{
    char problem[PCAP_ERRBUF_SIZE] = "";
    pcap_t *pcap = pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO,
                                                           problem);
    if (!pcap)
        die("cannot read the capture: %s", problem);
    return pcap;
}

static void set_filter(pcap_t *pcap, const char *text)
{
    struct bpf_program program;
    if (pcap_compile(pcap, &program, text, 1, PCAP_NETMASK_UNKNOWN) != 0 ||
        pcap_setfilter(pcap, &program) != 0)
        die("the filter \"%s\" is not understood: %s", text, pcap_geterr(pcap));
    pcap_freecode(&program);
}

/* Until the end of the file, or until the program is asked to end. 0, or -1 when it was cut off. */
static int sniff_loop(struct capture *c, bool live)
{
    pug_span_start_from(&loop, &worker.context, "sniffer.sniff_loop");
    int n = 0;
    if (live) {
        int fd = pcap_get_selectable_fd(c->pcap);
        while (n >= 0 && wait_for(fd, 1000))
            n = pcap_dispatch(c->pcap, -1, on_packet, (u_char *)c);
    } else {
        while (!stopping() && (n = pcap_dispatch(c->pcap, 1000, on_packet, (u_char *)c)) > 0)
            ;
    }
    if (n < 0) {
        say("the capture ended early: %s", pcap_geterr(c->pcap));
        pug_error(&loop, pcap_geterr(c->pcap));
    }
    pug_set_int(&loop, "packets", (int64_t)c->packets);
    pug_span_end(&loop);
    return n < 0 ? -1 : 0;
}

struct arguments {
    const char *dir, *name, *interface, *read, *write, *filter;
    const char *deckies[DECKIES_MAX];
    size_t n_deckies;
};

/* --filter, or the ports of the decoys; "tcp" without either. */
static void filter_text(const struct arguments *a, char *out, size_t size)
{
    snprintf(out, size, "%s", a->filter ? a->filter : "tcp");
    for (size_t i = 0, len = 0; i < a->n_deckies; i++) {
        uint16_t port = port_wait(a->deckies[i], PORT_WAIT_MS);
        if (!port)
            die("the decoy %s does not run in this directory", a->deckies[i]);
        len += (size_t)snprintf(out + len, size - len, "%stcp port %u", i ? " or " : "", port);
    }
}

static int run(const struct arguments *a)
{
    static const struct flow_watcher watcher = {on_message, on_syn, on_end};
    char filter[1024];
    filter_text(a, filter, sizeof filter);
    pug_span_start(&worker, "sniffer.worker", PUG_STR("source", a->read ? a->read : a->interface),
                   PUG_STR("filter", filter));
    struct capture c = {.pcap = a->read ? open_file(a->read) : open_interface(a->interface),
                        .flows = flows_new(&watcher)};
    if (!c.flows)
        die("out of memory");
    c.link_type = pcap_datalink(c.pcap);
    set_filter(c.pcap, filter);
    if (a->write && !(c.dump = pcap_dump_open(c.pcap, a->write)))
        die("cannot write the capture: %s", pcap_geterr(c.pcap));
    if (!a->read)
        port_publish(a->name, 1); /* it looks: who waits for that may begin */

    int result = sniff_loop(&c, !a->read);
    struct pcap_stat stat;
    if (!a->read && pcap_stats(c.pcap, &stat) == 0 && stat.ps_drop > 0) {
        say("%u packets came too fast and were not seen", stat.ps_drop);
        pug_set_int(&worker, "packets.dropped", stat.ps_drop);
    }
    if (c.dump)
        pcap_dump_close(c.dump);
    flows_free(c.flows);
    pcap_close(c.pcap);
    pug_span_end(&worker);
    return result;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, NULL, 'd'},       {"name", 1, NULL, 'n'},
                                            {"interface", 1, NULL, 'i'}, {"read", 1, NULL, 'r'},
                                            {"write", 1, NULL, 'w'},     {"filter", 1, NULL, 'f'},
                                            {"decky", 1, NULL, 'D'},     {0}};
    struct arguments a = {.name = "sniffer-01"};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        const char **to = c == 'd'   ? &a.dir
                          : c == 'n' ? &a.name
                          : c == 'i' ? &a.interface
                          : c == 'r' ? &a.read
                          : c == 'w' ? &a.write
                          : c == 'f' ? &a.filter
                          : c == 'D' && a.n_deckies < DECKIES_MAX ? &a.deckies[a.n_deckies++]
                                                                  : NULL;
        if (!to)
            return 2;
        *to = optarg;
    }
    if (!a.dir || !a.interface == !a.read || strcspn(a.name, " /\"") != strlen(a.name)) {
        fprintf(stderr, "usage: sniffer --dir DIR [--name NAME] (--interface IF | --read FILE)\n"
                        "               [--decky NAME]... [--filter BPF] [--write FILE]\n");
        return 2;
    }
    service_start("sniffer", a.dir);
    events_open(a.name, "sniffer");
    int result = run(&a);
    events_close();
    service_stop();
    return result ? 1 : 0;
}
