/* The recipes against what their authors publish, and the parsers against what is damaged. */
#include "fingerprint.h"
#include "jarm.h"
#include "packet.h"
#include "ssh.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LIST(...)                                                                                  \
    {                                                                                              \
        .items = {__VA_ARGS__}, .n = sizeof((uint16_t[]){__VA_ARGS__}) / 2                         \
    }

/* ---- JA3: the two examples of its README ---- */

static void ja3_is_what_its_readme_says(void **state)
{
    struct client_hello h = {
        .version = 769,
        .ciphers = LIST(47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4),
        .extensions = LIST(0, 10, 11),
        .groups = LIST(23, 24, 25),
        .point_formats = LIST(0)};
    struct fingerprint f;
    ja3(&h, &f);
    assert_string_equal(f.text,
                        "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0");
    assert_string_equal(f.hash, "ada70206e40642a3e4461f35503241d5");

    struct client_hello bare = {.version = 769,
                                .ciphers = LIST(4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99)};
    ja3(&bare, &f);
    assert_string_equal(f.text, "769,4-5-10-9-100-98-3-6-19-18-99,,,");
    assert_string_equal(f.hash, "de350869b8c85de67a350c8d186f11e6");
}

static void ja3_does_not_count_grease(void **state)
{
    struct client_hello h = {
        .version = 769,
        .ciphers = LIST(0x0a0a, 47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4),
        .extensions = LIST(0xfafa, 0, 10, 11, 0x1a1a),
        .groups = LIST(0x2a2a, 23, 24, 25),
        .point_formats = LIST(0)};
    struct fingerprint f;
    ja3(&h, &f);
    assert_string_equal(f.hash, "ada70206e40642a3e4461f35503241d5");
}

static void ja3s_lists_version_cipher_and_extensions(void **state)
{
    struct server_hello h = {
        .version = 769, .cipher = 47, .extensions = LIST(65281, 0, 11, 35, 5, 16)};
    struct fingerprint f;
    ja3s(&h, &f);
    assert_string_equal(f.text, "769,47,65281-0-11-35-5-16");
    assert_string_equal(f.hash, "836ce314215654b5b1f85f97c73e506f");
}

/* ---- JA4: the example of technical_details/JA4.md, a Chrome ---- */

static const struct client_hello chrome = {
    .version = 0x0303,
    .ciphers = LIST(0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8,
                    0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035),
    .extensions = LIST(0xdada, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d,
                       0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0x5a5a),
    .signatures = LIST(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601),
    .versions = LIST(0x6a6a, 0x0304, 0x0303),
    .alpn = "h2",
    .alpn_len = 2};

static void ja4_is_what_its_specification_says(void **state)
{
    struct fingerprint f;
    ja4(&chrome, &f);
    assert_string_equal(f.hash, "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_string_equal(f.text,
                        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,"
                        "c030,cca8,cca9_0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,"
                        "0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601");
}

static void ja4_of_a_hello_without_name_protocol_or_extensions_has_zeros(void **state)
{
    struct client_hello h = {.version = 0x0302};
    struct fingerprint f;
    ja4(&h, &f);
    assert_string_equal(f.hash, "t11i000000_000000000000_000000000000");
    h.version = 0x0300;
    h.ciphers = (struct tls_list)LIST(0x0035, 0x002f);
    ja4(&h, &f);
    assert_string_equal(f.text, "ts3i020000_002f,0035_");
    assert_memory_equal(f.hash + 23, "_000000000000", 14);
}

static void ja4_takes_the_ends_of_the_protocol_in_hexadecimal_when_they_are_no_letters(void **state)
{
    static const struct {
        const char *alpn, *ends;
        size_t len;
    } cases[] = {{"h2", "h2", 2},
                 {"http/1.1", "h1", 8},
                 {"\xab", "ab", 1},
                 {"\xab\xcd", "ad", 2},
                 {"0\xab", "3b", 2},
                 {"01\xab\xcd", "3d", 4},
                 {"0\xab\xcd"
                  "1",
                  "01", 4},
                 {"", "00", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client_hello h = chrome;
        struct fingerprint f;
        memcpy(h.alpn, cases[i].alpn, cases[i].len);
        h.alpn_len = cases[i].len;
        ja4(&h, &f);
        assert_memory_equal(f.hash + 8, cases[i].ends, 2);
    }
}

static void ja4s_is_what_its_specification_says(void **state)
{
    struct server_hello h = {
        .version = 0x0303, .cipher = 0xc030, .extensions = LIST(0x0005, 0x0017, 0xff01, 0x0000)};
    struct fingerprint f;
    ja4s(&h, &f);
    assert_string_equal(f.hash, "t120400_c030_4e8089b08790");
    assert_string_equal(f.text, "t120400_c030_0005,0017,ff01,0000");
    struct server_hello modern = {.version = 0x0303,
                                  .selected_version = 0x0304,
                                  .cipher = 0x1301,
                                  .extensions = LIST(0x0033, 0x002b)};
    ja4s(&modern, &f);
    assert_string_equal(f.hash, "t130200_1301_234ea6891581");
}

/* ---- sessions ---- */

static void a_session_is_resumed_when_the_server_says_so(void **state)
{
    struct client_hello c = {.session_id = {1, 2, 3}, .session_id_len = 3};
    struct server_hello s = {.version = 0x0303, .session_id = {1, 2, 3}, .session_id_len = 3};
    assert_string_equal(session_resumption_info(&c, NULL).offered, "session_id");
    assert_true(session_resumption_info(&c, &s).resumed);
    s.session_id[0] = 9;
    assert_false(session_resumption_info(&c, &s).resumed);

    struct client_hello modern = {.session_id = {1}, .session_id_len = 1, .versions = LIST(0x0304)};
    struct server_hello echo = {.selected_version = 0x0304, .session_id = {1}, .session_id_len = 1};
    assert_string_equal(session_resumption_info(&modern, &echo).offered, "none");
    assert_false(session_resumption_info(&modern, &echo).resumed);
    modern.psk_count = 1;
    echo.psk = true;
    assert_string_equal(session_resumption_info(&modern, &echo).offered, "psk");
    assert_true(session_resumption_info(&modern, &echo).resumed);
}

/* ---- JARM ---- */

/* What OpenSSL 3.0's s_server (ALL:@SECLEVEL=0, http/1.0) answered, and what the authors' own
 * program made of the same server. */
static void jarm_is_what_its_authors_program_says(void **state)
{
    char answers[JARM_PROBES][JARM_RAW_MAX] = {"0033|0303|http/1.0|ff01-0001-0023-0010-0017",
                                               "00c0|0303|http/1.0|ff01-0001-0023-0010-0017",
                                               "00c4|0303|http/1.0|ff01-0001-0023-0010-0017",
                                               "c013|0303|http/1.0|ff01-0001-000b-0023-0010-0017",
                                               "c013|0303|http/1.0|ff01-0001-000b-0023-0010-0017",
                                               "0033|0302|http/1.0|ff01-0001-0023-0010-0017",
                                               "1302|0303||002b-0033",
                                               "1303|0303||002b-0033",
                                               "|||",
                                               "|||"};
    char hash[JARM_HASH_SIZE];
    jarm_hash(answers, hash);
    assert_string_equal(hash, "07d19d1ad21d21d07c42d43d000000e9f1d17cd2c047f9ec9630f8d99b37e1");
}

static void jarm_of_a_server_that_refuses_everything_is_zeros(void **state)
{
    char answers[JARM_PROBES][JARM_RAW_MAX], hash[JARM_HASH_SIZE], zeros[JARM_HASH_SIZE] = "";
    for (size_t i = 0; i < JARM_PROBES; i++)
        snprintf(answers[i], JARM_RAW_MAX, "|||");
    memset(zeros, '0', JARM_HASH_SIZE - 1);
    jarm_hash(answers, hash);
    assert_string_equal(hash, zeros);
}

static void the_hellos_of_jarm_are_ten_different_ones_that_our_own_parser_takes(void **state)
{
    char seen[JARM_PROBES][80];
    for (unsigned i = 0; i < JARM_PROBES; i++) {
        uint8_t bytes[JARM_HELLO_MAX];
        struct client_hello h;
        struct fingerprint f;
        size_t len = jarm_hello(i, "server.example", bytes);
        assert_int_equal(len, 5 + bytes[3] * 256 + bytes[4]);
        assert_true(parse_client_hello(bytes + 9, len - 9, &h));
        assert_string_equal(h.server_name, "server.example");
        ja3(&h, &f);
        snprintf(seen[i], sizeof seen[i], "%.40s %zu versions", f.hash, h.versions.n);
        for (unsigned j = 0; j < i; j++)
            if (strcmp(seen[j], seen[i]) == 0)
                fail_msg("hello %u is hello %u", i, j);
    }
}

static void a_jarm_answer_cut_off_anywhere_does_no_harm(void **state)
{
    /* A ServerHello with a session id of one byte and two extensions. */
    uint8_t answer[] = {22, 3,  3, 0,    60, 2, 0, 0, 56, 3,   3,   [43] = 1, 7,    0xc0, 0x2f, 0,
                        0,  12, 0, 0x10, 0,  5, 0, 3, 2,  'h', '2', 0,        0x17, 0,    0};
    /* In front of the extensions: 43 bytes, the session id with its length, cipher, compression. */
    char text[JARM_RAW_MAX];
    answer[48] = 0;
    for (size_t len = 0; len <= sizeof answer; len++) {
        uint8_t *copy = malloc(len ? len : 1); /* so that a sanitizer sees a read behind it */
        memcpy(copy, answer, len);
        jarm_answer(copy, len, text);
        free(copy);
    }
    assert_string_equal(text, "c02f|0303|h2|0010-0017");
}

/* ---- HASSH ---- */

static void hassh_survives_the_way_through_a_packet(void **state)
{
    for (size_t i = 0; i < ssh_n_server_profiles; i++) {
        const struct ssh_profile *p = &ssh_server_profiles[i];
        uint8_t packet[SSH_PACKET_MAX];
        static struct ssh_algorithms a;
        static char text[4 * SSH_NAMES_MAX + 4], expected[4 * SSH_NAMES_MAX + 4];
        char hash[65], expected_hash[65];
        size_t len = ssh_kexinit_build(p, packet, sizeof packet);
        assert_int_equal(len % 8, 0);
        assert_true(ssh_kexinit_parse(packet + 5, len - 5 - packet[4], &a));
        hassh(&a, true, text, hash);
        int n = snprintf(expected, sizeof expected, "%s;%s;%s;%s", p->kex, p->encryption, p->mac,
                         p->compression);
        digest_hex("md5", expected, (size_t)n, expected_hash);
        assert_string_equal(text, expected);
        assert_string_equal(hash, expected_hash);
        for (size_t cut = 0; cut < len - 5 - packet[4] - 13; cut++)
            if (ssh_kexinit_parse(packet + 5, cut, &a))
                fail_msg("taken at %zu bytes", cut);
    }
}

/* The lists that HASSH's README prints for Cyberduck, and the fingerprint beside them. */
static void hassh_is_what_its_readme_says(void **state)
{
    static struct ssh_algorithms a = {
        .kex = "curve25519-sha256@libssh.org,diffie-hellman-group-exchange-sha256,"
               "ecdh-sha2-nistp521,ecdh-sha2-nistp384,ecdh-sha2-nistp256,"
               "diffie-hellman-group-exchange-sha1,diffie-hellman-group1-sha1,"
               "diffie-hellman-group14-sha1,diffie-hellman-group14-sha256,"
               "diffie-hellman-group15-sha512,diffie-hellman-group16-sha512,"
               "diffie-hellman-group17-sha512,diffie-hellman-group18-sha512,"
               "diffie-hellman-group14-sha256@ssh.com,diffie-hellman-group15-sha256,"
               "diffie-hellman-group15-sha256@ssh.com,diffie-hellman-group15-sha384@ssh.com,"
               "diffie-hellman-group16-sha256,diffie-hellman-group16-sha384@ssh.com,"
               "diffie-hellman-group16-sha512@ssh.com,diffie-hellman-group18-sha512@ssh.com",
        .encryption_in = "aes128-cbc,aes128-ctr,aes192-cbc,aes192-ctr,aes256-cbc,aes256-ctr,"
                         "blowfish-cbc,blowfish-ctr,cast128-cbc,cast128-ctr,idea-cbc,idea-ctr,"
                         "serpent128-cbc,serpent128-ctr,serpent192-cbc,serpent192-ctr,"
                         "serpent256-cbc,serpent256-ctr,3des-cbc,3des-ctr,twofish128-cbc,"
                         "twofish128-ctr,twofish192-cbc,twofish192-ctr,twofish256-cbc,"
                         "twofish256-ctr,twofish-cbc,arcfour,arcfour128,arcfour256",
        .mac_in = "hmac-sha1,hmac-sha1-96,hmac-md5,hmac-md5-96,hmac-sha2-256,hmac-sha2-512",
        .compression_in = "zlib@openssh.com,zlib,none"};
    static char text[4 * SSH_NAMES_MAX + 4];
    char hash[65];
    hassh(&a, false, text, hash);
    assert_string_equal(hash, "8a8ae540028bf433cd68356c1b9e8d5b");
}

/* ---- packets ---- */

enum { LINK_RAW = 12 };

/* IPv4 and TCP without options in front of a payload. */
static size_t tcp_packet(uint8_t *out, bool from_client, uint8_t flags, uint32_t seq,
                         const void *payload, size_t len)
{
    uint8_t head[40] = {0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2};
    uint16_t total = (uint16_t)(40 + len);
    head[2] = (uint8_t)(total >> 8);
    head[3] = (uint8_t)total;
    head[15] = from_client ? 1 : 2;
    head[19] = from_client ? 2 : 1;
    head[from_client ? 20 : 22] = 0x9c; /* port 40000 */
    head[from_client ? 21 : 23] = 0x40;
    head[from_client ? 22 : 20] = 0x01; /* port 443 */
    head[from_client ? 23 : 21] = 0xbb;
    for (int i = 0; i < 4; i++)
        head[24 + i] = (uint8_t)(seq >> (24 - 8 * i));
    head[32] = 0x50;
    head[33] = flags;
    memcpy(out, head, 40);
    memcpy(out + 40, payload, len);
    return 40 + len;
}

static struct {
    int syns, ends, hellos;
    size_t bytes;
    struct client_hello hello;
} seen;

static void on_message(struct flow *f, bool from_client, uint8_t type, const uint8_t *body,
                       size_t len)
{
    assert_true(from_client);
    assert_int_equal(f->server.port, 443);
    assert_int_equal(type, TLS_CLIENT_HELLO);
    assert_true(parse_client_hello(body, len, &seen.hello));
    seen.hellos++;
    seen.bytes = len;
}

static void on_syn(struct flow *f, const struct packet *p)
{
    assert_int_equal(f->client.port, 40000);
    assert_int_equal(p->flags, TCP_SYN);
    seen.syns++;
}

static void on_end(struct flow *f)
{
    (void)f;
    seen.ends++;
}

static const struct flow_watcher watcher = {on_message, on_syn, on_end};

static void feed(struct flows *flows, bool from_client, uint8_t flags, uint32_t seq,
                 const void *payload, size_t len)
{
    uint8_t bytes[70000];
    struct packet p;
    size_t n = tcp_packet(bytes, from_client, flags, seq, payload, len);
    assert_true(packet_decode(LINK_RAW, bytes, n, &p));
    flows_take(flows, &p, 1);
}

/* A hello in pieces of `piece` bytes: `order` says which comes when; every piece comes twice. */
static void hello_in_pieces(size_t piece, bool backward)
{
    uint8_t hello[JARM_HELLO_MAX];
    size_t len = jarm_hello(6, "server.example", hello), n = (len + piece - 1) / piece;
    uint32_t start = 0xfffffff0u; /* so that the numbers wrap */
    struct flows *flows = flows_new(&watcher);
    memset(&seen, 0, sizeof seen);
    feed(flows, true, TCP_SYN, start, "", 0);
    for (size_t i = 0; i < n; i++) {
        size_t k = backward ? n - 1 - i : i, at = k * piece;
        for (int twice = 0; twice < 2; twice++)
            feed(flows, true, TCP_ACK, start + 1 + (uint32_t)at, hello + at,
                 len - at < piece ? len - at : piece);
    }
    flows_free(flows);
    assert_int_equal(seen.syns, 1);
    assert_int_equal(seen.hellos, 1);
    assert_int_equal(seen.bytes, len - 9);
    assert_int_equal(seen.ends, 1);
    assert_string_equal(seen.hello.server_name, "server.example");
}

static void a_hello_is_put_together_from_segments_of_any_size(void **state)
{
    for (size_t piece = 1; piece < 600; piece += piece < 20 ? 1 : 97)
        hello_in_pieces(piece, false);
}

static void a_hello_is_put_together_from_segments_in_the_wrong_order(void **state)
{
    hello_in_pieces(60, true); /* every piece twice: not more than are kept */
    hello_in_pieces(300, true);
}

static void a_hello_over_several_records_is_one(void **state)
{
    uint8_t hello[JARM_HELLO_MAX], records[JARM_HELLO_MAX + 100];
    size_t len = jarm_hello(0, "server.example", hello) - 5, out = 0;
    for (size_t at = 0; at < len; at += 100) {
        size_t n = len - at < 100 ? len - at : 100;
        memcpy(records + out, (uint8_t[]){22, 3, 1, 0, (uint8_t)n}, 5);
        memcpy(records + out + 5, hello + 5 + at, n);
        out += 5 + n;
    }
    struct flows *flows = flows_new(&watcher);
    memset(&seen, 0, sizeof seen);
    feed(flows, true, TCP_SYN, 100, "", 0);
    feed(flows, true, TCP_ACK, 101, records, out);
    feed(flows, true, TCP_RST, 101 + (uint32_t)out, "", 0);
    assert_int_equal(seen.ends, 1);
    flows_free(flows);
    assert_int_equal(seen.hellos, 1);
}

static void connections_beyond_the_limit_push_out_the_oldest(void **state)
{
    struct flows *flows = flows_new(&watcher);
    memset(&seen, 0, sizeof seen);
    uint8_t bytes[40];
    for (unsigned i = 0; i < FLOWS_MAX + 10; i++) {
        struct packet p;
        tcp_packet(bytes, true, TCP_SYN, 1, "", 0);
        assert_true(packet_decode(LINK_RAW, bytes, 40, &p));
        p.from.ip[2] = (uint8_t)(i >> 8);
        p.from.ip[3] = (uint8_t)i;
        flows_take(flows, &p, i);
    }
    assert_int_equal(seen.ends, 10);
    flows_free(flows);
    assert_int_equal(seen.ends, FLOWS_MAX + 10);
}

static void a_syn_is_told_by_its_shape(void **state)
{
    static const struct {
        const char *os, *signature;
        uint8_t ttl, window[2], options_len, options[24];
    } cases[] = {
        {"Linux 4.19 or newer",
         "4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0",
         57,
         {0xfa, 0xf0},
         20,
         {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}},
        {"Windows 10 or 11",
         "4:128:0:1460:mss*44,8:mss,nop,ws,nop,nop,sok:df,id+:0",
         116,
         {0xfa, 0xf0},
         12,
         {2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2}},
        {"macOS or iOS",
         "4:64:0:1460:65535,6:mss,nop,ws,nop,nop,ts,sok,eol+1:df,id+:0",
         64,
         {0xff, 0xff},
         24,
         {2, 4, 5, 180, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 4, 2, 0, 0}},
        {"nmap SYN scan", "4:64:0:1460:1024,0:mss:df,id+:0", 45, {0x04, 0x00}, 4, {2, 4, 5, 180}},
        {"unknown",
         "4:64:0:*:1000,0:?254:df,id+,bad:0",
         64,
         {0x03, 0xe8},
         8,
         {254, 4, 1, 2, 3, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[80];
        struct packet p;
        struct syn_shape shape;
        tcp_packet(bytes, true, TCP_SYN, 1, cases[i].options, cases[i].options_len);
        bytes[8] = cases[i].ttl;
        bytes[32] = (uint8_t)((20 + cases[i].options_len) / 4 << 4);
        memcpy(bytes + 34, cases[i].window, 2);
        assert_true(packet_decode(LINK_RAW, bytes, 40u + cases[i].options_len, &p));
        syn_shape(&p, &shape);
        assert_string_equal(shape.signature, cases[i].signature);
        assert_string_equal(p0f_guess_os(&shape), cases[i].os);
    }
}

/* ---- what is damaged ---- */

static void a_hello_cut_off_anywhere_is_refused(void **state)
{
    uint8_t hello[JARM_HELLO_MAX];
    struct client_hello h;
    size_t len = jarm_hello(9, "server.example", hello) - 9;
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);
        memcpy(copy, hello + 9, cut);
        bool taken = parse_client_hello(copy, cut, &h);
        free(copy);
        /* Before TLS 1.2 a hello may end behind the compression methods. */
        if (taken && h.extensions.n > 0)
            fail_msg("taken at %zu of %zu bytes", cut, len);
    }
}

static void a_hello_with_too_many_ciphers_is_refused(void **state)
{
    static uint8_t hello[2 + 32 + 1 + 2 + 2 * (TLS_LIST_MAX + 1) + 2];
    struct client_hello h;
    hello[35] = (TLS_LIST_MAX + 1) * 2 >> 8;
    hello[36] = (TLS_LIST_MAX + 1) * 2 & 255;
    hello[sizeof hello - 2] = 1;
    assert_false(parse_client_hello(hello, sizeof hello, &h));
    hello[36] -= 2;
    hello[sizeof hello - 4] = 1;
    assert_true(parse_client_hello(hello, sizeof hello - 2, &h));
    assert_int_equal(h.ciphers.n, TLS_LIST_MAX);
}

static void bytes_by_chance_are_no_certificate_and_no_packet(void **state)
{
    uint8_t bytes[128];
    struct certificate c;
    struct packet p;
    srand(20261120);
    for (int i = 0; i < 20000; i++) {
        size_t len = (size_t)rand() % sizeof bytes;
        for (size_t j = 0; j < len; j++)
            bytes[j] = (uint8_t)rand();
        assert_false(parse_certificate(bytes, len, &c));
        for (int link = 0; link < 4; link++)
            packet_decode((int[]){0, 1, 12, 113}[link], bytes, len, &p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ja3_is_what_its_readme_says),
        cmocka_unit_test(ja3_does_not_count_grease),
        cmocka_unit_test(ja3s_lists_version_cipher_and_extensions),
        cmocka_unit_test(ja4_is_what_its_specification_says),
        cmocka_unit_test(ja4_of_a_hello_without_name_protocol_or_extensions_has_zeros),
        cmocka_unit_test(
            ja4_takes_the_ends_of_the_protocol_in_hexadecimal_when_they_are_no_letters),
        cmocka_unit_test(ja4s_is_what_its_specification_says),
        cmocka_unit_test(a_session_is_resumed_when_the_server_says_so),
        cmocka_unit_test(jarm_is_what_its_authors_program_says),
        cmocka_unit_test(jarm_of_a_server_that_refuses_everything_is_zeros),
        cmocka_unit_test(the_hellos_of_jarm_are_ten_different_ones_that_our_own_parser_takes),
        cmocka_unit_test(a_jarm_answer_cut_off_anywhere_does_no_harm),
        cmocka_unit_test(hassh_survives_the_way_through_a_packet),
        cmocka_unit_test(hassh_is_what_its_readme_says),
        cmocka_unit_test(a_hello_is_put_together_from_segments_of_any_size),
        cmocka_unit_test(a_hello_is_put_together_from_segments_in_the_wrong_order),
        cmocka_unit_test(a_hello_over_several_records_is_one),
        cmocka_unit_test(connections_beyond_the_limit_push_out_the_oldest),
        cmocka_unit_test(a_syn_is_told_by_its_shape),
        cmocka_unit_test(a_hello_cut_off_anywhere_is_refused),
        cmocka_unit_test(a_hello_with_too_many_ciphers_is_refused),
        cmocka_unit_test(bytes_by_chance_are_no_certificate_and_no_packet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
