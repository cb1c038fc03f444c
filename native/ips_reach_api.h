/* ips_reach_api.h: does a gateway answer? The judgement, the questions and what counts as their answers, for every host
 * of the core (SYSTEMS.md S2.6). Pure: bytes and times in, bytes and a verdict out.
 *
 * A criterion is not met before its first answer, and after `misses` questions in a row without one. Questions: ARP
 * (RFC 826, sender 0 where the interface has no address: RFC 5227 2.1.1), neighbour solicitation (RFC 4861 4.3), echo
 * (RFC 792, RFC 4443 4.1). Who sends them, and by what, is the host's affair. Read by cffi too.
 */
#ifndef IPS_REACH_API_H
#define IPS_REACH_API_H
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>

enum ips_reach_const {
  IPS_REACH_ETH = 14,   /* octets of the header that a question begins with */
  IPS_REACH_ROOM = 96,  /* the longest question */
};

struct ips_reach {      /* all zero: never asked */
  uint64_t next_ns;     /* when the next question is due */
  uint32_t missed;      /* in a row */
  uint16_t sequence;    /* of the newest question */
  uint8_t met, asked;   /* asked: it waits for its answer */
};
/* Whether a question is due, which then counts as asked: under r->sequence. */
bool ips_reach_due(struct ips_reach *r, uint64_t now_ns, uint64_t interval_ns, uint32_t misses);
void ips_reach_answered(struct ips_reach *r); /* the newest question; without one nothing */
/* A link is looked at as often as others are asked. */
void ips_reach_looked(struct ips_reach *r, uint64_t now_ns, uint64_t interval_ns, bool is_up);

struct ips_reach_question {
  uint8_t address[16];  /* whom; IPv4 in the first four, as all */
  uint8_t source[16];   /* who asks; zero: no address */
  uint8_t mac[6];       /* of the interface that asks */
  uint8_t family;       /* 4 or 6 */
  uint8_t is_echo;      /* else for the neighbour: ARP or a solicitation */
  uint16_t sequence;    /* of an echo */
};
/* The ICMP message of an echo or a solicitation, checksum 0. Returns its length. */
size_t ips_reach_icmp(const struct ips_reach_question *q, uint8_t *out);
/* All of it: Ethernet header (that of an echo is zero: whoever routes it writes one), IP or ARP, checksums. */
size_t ips_reach_frame(const struct ips_reach_question *q, uint8_t *out);
/* Is this ARP packet, or this ICMP message from `from`, its answer? `to`: the frame's destination, for ARP. */
bool ips_reach_is_arp(const struct ips_reach_question *q, const uint8_t to[6], const uint8_t *arp, size_t n);
bool ips_reach_is_icmp(const struct ips_reach_question *q, const uint8_t *from, const uint8_t *icmp, size_t n);
#endif
