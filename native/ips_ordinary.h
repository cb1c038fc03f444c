/* ips_ordinary.h: recognises the packets that nearly all are: whole, TCP or UDP, without options or extension
 * headers, with nothing left to hardware.
 *
 * What is found is what ips_parse finds, with most of it as constants: where these functions are inlined, every
 * question about fragments, options and offloads is answered at compile time. Changes nothing. False: not
 * ordinary, ips_parse has to look. RFC 791, RFC 8200.
 */
#ifndef IPS_ORDINARY_H
#define IPS_ORDINARY_H
#include "ips_parse.h"

static inline bool ips_ordinary_l4(const struct ips_pkt *p, const struct ips_view *v, uint32_t l4_bytes) {
  if (p->csum | p->gso_type || p->total_len != p->len || v->ip_len > p->len) return false;
  if (v->proto == IPS_PROTO_TCP) return l4_bytes >= 20;
  return v->proto == IPS_PROTO_UDP && l4_bytes >= 8;
}

static inline bool ips_ordinary4(const struct ips_pkt *p, struct ips_view *v) {
  const uint8_t *ip = p->data;
  if (p->len < 20 || ip[0] != 0x45 || ips_ld16(ip + 6) & ips_be16(0x3fff)) return false;
  uint64_t sum = ips_csum_add(ips_csum_add(ips_ld64(ip), ips_ld64(ip + 8)), ips_ld32(ip + 16));
  uint32_t ip_len = ips_be16(ips_ld16(ip + 2));
  if (ips_csum_fold(sum) != 0xffff || ip_len < 20) return false;
  *v = (struct ips_view){.family = 4, .proto = ip[9], .ttl = ip[8], .tos = ip[1], .l4 = 20, .ip_len = ip_len,
                         .dont_fragment = (ip[6] & 0x40) != 0};
  return ips_ordinary_l4(p, v, ip_len - 20);
}

static inline bool ips_ordinary6(const struct ips_pkt *p, struct ips_view *v) {
  const uint8_t *ip = p->data;
  if (p->len < 40 || ip[0] >> 4 != 6) return false;
  uint32_t payload = ips_be16(ips_ld16(ip + 4));
  *v = (struct ips_view){.family = 6, .proto = ip[6], .ttl = ip[7], .tos = (uint8_t)(ip[0] << 4 | ip[1] >> 4), .l4 = 40,
                         .ip_len = 40 + payload, .dont_fragment = true};
  return ips_ordinary_l4(p, v, payload);
}
#endif
