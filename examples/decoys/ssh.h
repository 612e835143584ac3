/* The beginning of SSH: the version strings and the first packet, which lists what each side can do
 * (RFC 4253, sections 4.2, 6 and 7.1), and the fingerprint of that list.
 *
 * HASSH (Salesforce, github.com/salesforce/hassh): MD5 of the lists of key exchange, encryption, MAC
 * and compression with ';' between them; of the client's for what it sends, of the server's for what
 * it sends. */
#ifndef DECOYS_SSH_H
#define DECOYS_SSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SSH_VERSION_MAX 255  /* characters of a version string (RFC 4253, 4.2) */
#define SSH_PACKET_MAX 35000 /* bytes of a packet (6.1) */
#define SSH_NAMES_MAX 4096   /* of one list that is looked at */

enum { SSH_DISCONNECT = 1, SSH_KEXINIT = 20 };

struct ssh_algorithms {
    char kex[SSH_NAMES_MAX], host_key[SSH_NAMES_MAX];
    char encryption_in[SSH_NAMES_MAX], encryption_out[SSH_NAMES_MAX]; /* client to server, back */
    char mac_in[SSH_NAMES_MAX], mac_out[SSH_NAMES_MAX];
    char compression_in[SSH_NAMES_MAX], compression_out[SSH_NAMES_MAX];
};

/* The lists of a program that is known: for decoys and those who try them. */
struct ssh_profile {
    const char *version; /* "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3" */
    const char *kex, *host_key, *encryption, *mac, *compression;
};
extern const struct ssh_profile ssh_server_profiles[], ssh_client_profile;
extern const size_t ssh_n_server_profiles;

/* A whole packet with SSH_MSG_KEXINIT: its length, 0 when it has no room in `size`. */
size_t ssh_kexinit_build(const struct ssh_profile *profile, uint8_t *out, size_t size);
/* The payload of such a packet, with its message number in front. */
bool ssh_kexinit_parse(const uint8_t *payload, size_t len, struct ssh_algorithms *ret);
/* A whole SSH_MSG_DISCONNECT; the same way. */
size_t ssh_disconnect_build(uint32_t reason, const char *why, uint8_t *out, size_t size);

/* From a socket: a line without its end. False when there is none within the limit. */
bool ssh_read_version(int fd, char out[SSH_VERSION_MAX + 1]);
/* A packet's payload; its length, -1 when the peer is gone or speaks something else. */
long ssh_read_packet(int fd, uint8_t out[SSH_PACKET_MAX]);

void hassh(const struct ssh_algorithms *a, bool server, char text[4 * SSH_NAMES_MAX + 4],
           char hash[65]);

#endif
