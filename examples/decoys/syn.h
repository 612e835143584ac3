/* What a machine's TCP looks like from outside: it is sent one SYN, and what it answers is looked at.
 * With CAP_NET_RAW the SYN is ours and the answer is read as it came; without, the kernel connects
 * and tells what it learned (TCP_INFO), which is less. IPv4. */
#ifndef DECOYS_SYN_H
#define DECOYS_SYN_H

#include "packet.h"

struct tcp_fingerprint {
    bool open;      /* somebody listens */
    bool raw;       /* from the packet itself */
    char text[320]; /* "raw 4:64:0:65495:mss*1,7:mss,sok,ts,nop,ws:df:0" */
    char hash[33];  /* the first half of its SHA-256 */
};
/* 0, or -1 and errno: nobody answered in time, or it cannot be tried. */
int tcp_fingerprint(const char *ip, uint16_t port, int timeout_ms, struct tcp_fingerprint *ret);

#endif
