/* ips_icmp.h: ICMP (RFC 792) and ICMPv6 (RFC 4443) as far as the core reads and makes them: types, which of
 * them are errors, and how an error of our own is finished. Who may be told what is for ips_error.c and
 * ips_tunnel_error.c to judge, when for the worker (rate) and its tables (scope).
 */
#ifndef IPS_ICMP_H
#define IPS_ICMP_H
#include "ips_core.h"

enum {
  IPS_ICMP_HEADER = 8, IPS_ICMP_SUM = 2, /* bytes; offset */
  IPS_ICMP4_ECHO_REPLY = 0, IPS_ICMP4_UNREACHABLE = 3, IPS_ICMP4_ECHO = 8, IPS_ICMP4_TIME = 11,
  IPS_ICMP4_PARAMETER = 12,
  IPS_ICMP4_HOST = 1, IPS_ICMP4_TOO_BIG = 4, IPS_ICMP4_ADMIN = 13, /* codes of UNREACHABLE */
  IPS_ICMP6_UNREACHABLE = 1, IPS_ICMP6_TOO_BIG = 2, IPS_ICMP6_TIME = 3, IPS_ICMP6_PARAMETER = 4,
  IPS_ICMP6_ECHO = 128, IPS_ICMP6_ECHO_REPLY = 129, IPS_ICMP6_REDIRECT = 137,
  IPS_ICMP6_ADMIN = 1, IPS_ICMP6_ADDRESS = 3, /* codes of UNREACHABLE */
  IPS_ICMP6_FIRST_INFORMATIONAL = 128,
};
/* Bytes of an error with its IP header: RFC 1812 4.3.2.3, RFC 4443 2.4 (c). */
enum { IPS_ICMP4_LONGEST = 576, IPS_ICMP6_LONGEST = 1280 };

/* Errors that quote the packet they are about; of ICMPv6 those that are defined. */
static inline bool ips_icmp_quotes(unsigned family, unsigned type) {
  enum {
    QUENCH4 = 4, REDIRECT4 = 5,
    ERRORS4 = 1 << IPS_ICMP4_UNREACHABLE | 1 << QUENCH4 | 1 << REDIRECT4 | 1 << IPS_ICMP4_TIME |
              1 << IPS_ICMP4_PARAMETER,
    ERRORS6 = 1 << IPS_ICMP6_UNREACHABLE | 1 << IPS_ICMP6_TOO_BIG | 1 << IPS_ICMP6_TIME |
              1 << IPS_ICMP6_PARAMETER,
  };
  return type < 16 && ((family == 4 ? ERRORS4 : ERRORS6) >> type & 1);
}
/* RFC 4443 2.4 (e): no error about an error, a redirect, or a type that may be an error. */
static inline bool ips_icmp6_may_be_reported(unsigned type) {
  return type >= IPS_ICMP6_FIRST_INFORMATIONAL && type != IPS_ICMP6_REDIRECT;
}

/* ips_error.c. Finishes an error of `bytes` bytes at `out`, where the ICMP message lies ready behind the room
 * for a plain IP header, its checksum 0: writes the IP header and the checksum. */
void ips_icmp_seal(uint8_t *out, unsigned family, const uint8_t *source, const uint8_t *to, uint32_t bytes);
#endif
