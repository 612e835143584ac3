#include "ssh.h"

#include "fingerprint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* What the programs of that name and version offer. */
const struct ssh_profile ssh_server_profiles[] = {
    {"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3",
     "sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,"
     "ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
     "diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,"
     "diffie-hellman-group18-sha512,diffie-hellman-group14-sha256,kex-strict-s-v00@openssh.com",
     "rsa-sha2-512,rsa-sha2-256,ecdsa-sha2-nistp256,ssh-ed25519",
     "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,"
     "aes256-gcm@openssh.com",
     "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,"
     "hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-64@openssh.com,"
     "umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1",
     "none,zlib@openssh.com"},
    {"SSH-2.0-OpenSSH_5.3",
     "diffie-hellman-group-exchange-sha256,diffie-hellman-group-exchange-sha1,"
     "diffie-hellman-group14-sha1,diffie-hellman-group1-sha1",
     "ssh-rsa,ssh-dss",
     "aes128-ctr,aes192-ctr,aes256-ctr,arcfour256,arcfour128,aes128-cbc,3des-cbc,blowfish-cbc,"
     "cast128-cbc,aes192-cbc,aes256-cbc,arcfour,rijndael-cbc@lysator.liu.se",
     "hmac-md5,hmac-sha1,umac-64@openssh.com,hmac-ripemd160,hmac-ripemd160@openssh.com,"
     "hmac-sha1-96,hmac-md5-96",
     "none,zlib@openssh.com"},
    {"SSH-2.0-dropbear_2022.83",
     "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp521,ecdh-sha2-nistp384,"
     "ecdh-sha2-nistp256,diffie-hellman-group14-sha256,kexguess2@matt.ucc.asn.au",
     "ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-256",
     "chacha20-poly1305@openssh.com,aes128-ctr,aes256-ctr", "hmac-sha1,hmac-sha2-256",
     "zlib@openssh.com,none"},
};
const size_t ssh_n_server_profiles = sizeof ssh_server_profiles / sizeof *ssh_server_profiles;

const struct ssh_profile ssh_client_profile = {
    "SSH-2.0-libssh_0.9.8",
    "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"
    "ecdh-sha2-nistp521,diffie-hellman-group18-sha512,diffie-hellman-group16-sha512,"
    "diffie-hellman-group-exchange-sha256,diffie-hellman-group14-sha256",
    "ssh-ed25519,ecdsa-sha2-nistp521,ecdsa-sha2-nistp384,ecdsa-sha2-nistp256,rsa-sha2-512,"
    "rsa-sha2-256",
    "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,"
    "aes192-ctr,aes128-ctr",
    "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512",
    "none"};

/* ---- packets ---- */

/* Finishes a packet whose payload stands at out + 5: length and padding in front and behind. */
static size_t packet_finish(uint8_t *out, size_t size, size_t payload)
{
    size_t padding = 8 - (5 + payload) % 8;
    if (padding < 4)
        padding += 8;
    size_t total = 5 + payload + padding, length = total - 4;
    if (total > size || getrandom(out + 5 + payload, padding, 0) != (ssize_t)padding)
        return 0;
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(length >> (24 - 8 * i));
    out[4] = (uint8_t)padding;
    return total;
}

static size_t string_put(uint8_t *out, size_t size, size_t at, const char *text)
{
    size_t n = strlen(text);
    if (at + 4 + n > size)
        return size + 1;
    for (int i = 0; i < 4; i++)
        out[at++] = (uint8_t)(n >> (24 - 8 * i));
    memcpy(out + at, text, n);
    return at + n;
}

size_t ssh_kexinit_build(const struct ssh_profile *p, uint8_t *out, size_t size)
{
    const char *lists[] = {p->kex, p->host_key, p->encryption,  p->encryption,
                           p->mac, p->mac,      p->compression, p->compression,
                           "",     ""};
    size_t at = 5;
    if (size < 64)
        return 0;
    out[at++] = SSH_KEXINIT;
    if (getrandom(out + at, 16, 0) != 16) /* cookie */
        return 0;
    at += 16;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if ((at = string_put(out, size, at, lists[i])) > size)
            return 0;
    if (at + 5 > size)
        return 0;
    memset(out + at, 0, 5); /* no guess follows; reserved */
    return packet_finish(out, size, at);
}

size_t ssh_disconnect_build(uint32_t reason, const char *why, uint8_t *out, size_t size)
{
    size_t at = 5;
    if (size < 32)
        return 0;
    out[at++] = SSH_DISCONNECT;
    for (int i = 0; i < 4; i++)
        out[at++] = (uint8_t)(reason >> (24 - 8 * i));
    at = string_put(out, size, at, why);
    at = at > size ? at : string_put(out, size, at, "");
    return at > size ? 0 : packet_finish(out, size, at - 5);
}

/* The next name-list; false when it does not fit, or is not text. */
static bool names_take(const uint8_t **at, size_t *left, char out[SSH_NAMES_MAX])
{
    const uint8_t *p = *at;
    if (*left < 4)
        return false;
    size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    if (n > *left - 4 || n >= SSH_NAMES_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (p[4 + i] <= ' ' || p[4 + i] > '~') /* RFC 4251, 6 */
            return false;
    memcpy(out, p + 4, n);
    out[n] = '\0';
    *at += 4 + n;
    *left -= 4 + n;
    return true;
}

bool ssh_kexinit_parse(const uint8_t *payload, size_t len, struct ssh_algorithms *ret)
{
    if (len < 17 || payload[0] != SSH_KEXINIT)
        return false;
    const uint8_t *at = payload + 17;
    size_t left = len - 17;
    char *lists[] = {ret->kex,    ret->host_key, ret->encryption_in,  ret->encryption_out,
                     ret->mac_in, ret->mac_out,  ret->compression_in, ret->compression_out};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (!names_take(&at, &left, lists[i]))
            return false;
    return true;
}

/* ---- from a socket ---- */

static bool read_all(int fd, void *out, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = read(fd, (char *)out + at, n - at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

bool ssh_read_version(int fd, char out[SSH_VERSION_MAX + 1])
{
    size_t len = 0;
    bool ended = false;
    /* A byte at a time: what comes behind belongs to the packets. */
    while (len < SSH_VERSION_MAX && !ended && read_all(fd, out + len, 1))
        ended = out[len] == '\n' || (len++, false);
    if (len > 0 && out[len - 1] == '\r')
        len--;
    out[len] = '\0';
    return ended;
}

long ssh_read_packet(int fd, uint8_t out[SSH_PACKET_MAX])
{
    uint8_t head[5];
    if (!read_all(fd, head, 5))
        return -1;
    size_t length = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
    if (length < 2 || length > SSH_PACKET_MAX || head[4] >= length - 1)
        return -1;
    size_t payload = length - 1 - head[4];
    uint8_t padding[256];
    return read_all(fd, out, payload) && read_all(fd, padding, head[4]) ? (long)payload : -1;
}

/* ---- the fingerprint ---- */

void hassh(const struct ssh_algorithms *a, bool server, char text[4 * SSH_NAMES_MAX + 4],
           char hash[65])
{
    int n = snprintf(text, 4 * SSH_NAMES_MAX + 4, "%s;%s;%s;%s", a->kex,
                     server ? a->encryption_out : a->encryption_in, server ? a->mac_out : a->mac_in,
                     server ? a->compression_out : a->compression_in);
    digest_hex("md5", text, (size_t)n, hash);
}
