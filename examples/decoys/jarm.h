/* JARM: which TLS server is it? Ten hellos that ask for odd things, and what it answers to each.
 *
 * After github.com/salesforce/jarm (version 1.0). The fingerprint has 62 characters: for each hello
 * two digits for the cipher that was chosen and a letter for the version ("000": no), then the first
 * half of the SHA-256 of what was said of protocols and extensions. It must be what everybody else
 * computes, so that lists of known servers apply: also where the original is odd (jarm.c). */
#ifndef DECOYS_JARM_H
#define DECOYS_JARM_H

#include <stddef.h>
#include <stdint.h>

#define JARM_PROBES 10
#define JARM_HELLO_MAX 1500
#define JARM_ANSWER_BYTES 1484 /* of an answer that are looked at */
#define JARM_RAW_MAX 512       /* of one answer in words */
#define JARM_HASH_SIZE 63

/* The hello number `probe` for a server that is called `host` (its length; at most 253 characters
 * are taken). */
size_t jarm_hello(unsigned probe, const char *host, uint8_t out[JARM_HELLO_MAX]);
/* "c02f|0303|h2|ff01-0010": cipher, version, protocol, extensions; "|||" for no hello. */
void jarm_answer(const uint8_t *bytes, size_t len, char out[JARM_RAW_MAX]);
void jarm_hash(char answers[JARM_PROBES][JARM_RAW_MAX], char out[JARM_HASH_SIZE]);

#endif
