/* ips_reach.c: questions to gateways and the judgement of their answers (contract in ips_reach_api.h).
 *
 * due -> question (ARP, solicitation, echo) -> the host sends it -> something comes in -> is it the answer? -> met.
 * Nothing here keeps what came in; every length is checked before a byte is read.
 */
#include "ips_reach_api.h"
#include "ips_core.h"
#include "ips_csum.h"

enum { ARP_BYTES = 28, IP4 = 20, IP6 = 40, TTL = 64, ND_HOPS = 255 };
enum { ECHO = 8, ECHO_REPLY = 0, ECHO6 = 128, ECHO6_REPLY = 129, SOLICIT = 135, ADVERTISE = 136 };
enum { ECHO_BYTES = 16, SOLICIT_BYTES = 32, ADVERTISE_BYTES = 24 };
static const uint8_t solicited_node[13] = {0xff, 2, [11] = 1, [12] = 0xff};

/* ---- the judgement ---- */

bool ips_reach_due(struct ips_reach *r, uint64_t now_ns, uint64_t interval_ns, uint32_t misses) {
  if (now_ns < r->next_ns) return false;
  r->next_ns = now_ns + interval_ns;
  if (r->asked && ++r->missed >= misses) r->met = 0;
  r->sequence++;
  r->asked = 1;
  return true;
}

void ips_reach_answered(struct ips_reach *r) {
  if (!r->asked) return;
  r->asked = 0;
  r->missed = 0;
  r->met = 1;
}

void ips_reach_looked(struct ips_reach *r, uint64_t now_ns, uint64_t interval_ns, bool is_up) {
  r->next_ns = now_ns + interval_ns;
  r->met = is_up;
}

/* ---- questions ---- */

size_t ips_reach_icmp(const struct ips_reach_question *q, uint8_t *out) {
  if (!q->is_echo) {
    memset(out, 0, SOLICIT_BYTES);
    out[0] = SOLICIT;
    memcpy(out + 8, q->address, 16);
    out[24] = out[25] = 1; /* source link-layer address, 8 octets */
    memcpy(out + 26, q->mac, 6);
    return SOLICIT_BYTES;
  }
  memset(out, 0, ECHO_BYTES);
  out[0] = q->family == 6 ? ECHO6 : ECHO;
  out[4] = 'i', out[5] = 'p';
  ips_st16(out + 6, ips_be16(q->sequence));
  return ECHO_BYTES;
}

static size_t arp(const struct ips_reach_question *q, uint8_t *f) {
  static const uint8_t head[10] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
  memset(f, 0xff, 6);
  memcpy(f + 6, q->mac, 6);
  memcpy(f + 12, head, sizeof head);
  memcpy(f + 22, q->mac, 6);
  memcpy(f + 28, q->source, 4);
  memset(f + 32, 0, 6);
  memcpy(f + 38, q->address, 4);
  return IPS_REACH_ETH + ARP_BYTES;
}

static size_t packet4(const struct ips_reach_question *q, uint8_t *ip) {
  size_t n = ips_reach_icmp(q, ip + IP4);
  ips_st16(ip + IP4 + 2, (uint16_t)~ips_csum_fold(ips_csum_bytes(ip + IP4, n, 0)));
  memset(ip, 0, IP4);
  ip[0] = 0x45;
  ips_st16(ip + 2, ips_be16((uint16_t)(IP4 + n)));
  ip[6] = 0x40; /* do not fragment */
  ip[8] = TTL;
  ip[9] = IPS_PROTO_ICMP;
  memcpy(ip + 12, q->source, 4);
  memcpy(ip + 16, q->address, 4);
  ips_st16(ip + 10, (uint16_t)~ips_csum_fold(ips_csum_bytes(ip, IP4, 0)));
  return IP4 + n;
}

static size_t packet6(const struct ips_reach_question *q, uint8_t *ip) {
  uint8_t *icmp = ip + IP6;
  size_t n = ips_reach_icmp(q, icmp);
  memset(ip, 0, IP6);
  ip[0] = 0x60;
  ip[5] = (uint8_t)n;
  ip[6] = IPS_PROTO_ICMP6;
  ip[7] = q->is_echo ? TTL : ND_HOPS;
  memcpy(ip + 8, q->source, 16);
  memcpy(ip + 24, q->address, 16);
  if (!q->is_echo) memcpy(ip + 24, solicited_node, sizeof solicited_node);
  uint64_t sum = ips_csum_bytes(icmp, n, ips_csum_pseudo(ip, 6, IPS_PROTO_ICMP6, (uint32_t)n));
  ips_st16(icmp + 2, (uint16_t)~ips_csum_fold(sum));
  return IP6 + n;
}

size_t ips_reach_frame(const struct ips_reach_question *q, uint8_t *out) {
  if (!q->is_echo && q->family == 4) return arp(q, out);
  memset(out, 0, IPS_REACH_ETH);
  if (!q->is_echo) {
    out[0] = out[1] = 0x33; /* RFC 2464 7 */
    out[2] = 0xff;
    memcpy(out + 3, q->address + 13, 3);
    memcpy(out + 6, q->mac, 6);
    ips_st16(out + 12, ips_be16(0x86dd));
  }
  return IPS_REACH_ETH + (q->family == 6 ? packet6 : packet4)(q, out + IPS_REACH_ETH);
}

/* ---- answers ---- */

bool ips_reach_is_arp(const struct ips_reach_question *q, const uint8_t to[6], const uint8_t *arp, size_t n) {
  return !q->is_echo && q->family == 4 && n >= ARP_BYTES && arp[7] == 2 && memcmp(arp + 14, q->address, 4) == 0 &&
         memcmp(to, q->mac, 6) == 0;
}

bool ips_reach_is_icmp(const struct ips_reach_question *q, const uint8_t *from, const uint8_t *icmp, size_t n) {
  if (!q->is_echo)
    return q->family == 6 && n >= ADVERTISE_BYTES && icmp[0] == ADVERTISE && memcmp(icmp + 8, q->address, 16) == 0;
  return n >= 8 && memcmp(from, q->address, q->family == 6 ? 16 : 4) == 0 &&
         icmp[0] == (q->family == 6 ? ECHO6_REPLY : ECHO_REPLY) && icmp[4] == 'i' && icmp[5] == 'p' &&
         ips_ld16(icmp + 6) == ips_be16(q->sequence);
}
