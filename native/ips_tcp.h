/* ips_tcp.h: the TCP header (RFC 9293 3.1) as far as the core looks at it: flags, two offsets, its length. */
#ifndef IPS_TCP_H
#define IPS_TCP_H
#include <stdint.h>

enum {
  IPS_TCP_FIN = 1, IPS_TCP_SYN = 2, IPS_TCP_RST = 4, IPS_TCP_PSH = 8, IPS_TCP_ACK = 16, IPS_TCP_URG = 32,
  IPS_TCP_CWR = 0x80,                   /* RFC 3168 6.1.2 */
  IPS_TCP_FLAGS = 13, IPS_TCP_SUM = 16, /* bytes from the header's begin */
};

/* Bytes of header with options, as it says: 0 .. 60, and below 20 it lies. */
static inline uint32_t ips_tcp_header(const uint8_t *tcp) { return (uint32_t)(tcp[12] >> 4) * 4; }
#endif
