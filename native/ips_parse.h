/* ips_parse.h: validates a packet and finds its parts; nothing behind the first
 * transport header is looked at. Changes nothing but p->len and p->total_len
 * (Ethernet padding is cut off), and these only when all is well.
 *
 * RFC 791, 8200 (extension headers), 1858 and 7112 (first fragments), 6946
 * (atomic fragments are whole packets), 5722. All bytes that ips_rewrite needs lie
 * in p->data[0 .. len) afterwards, but for the packet quoted by an ICMP error.
 * Lengths inside of transport headers (TCP data offset, UDP length) are left to
 * the end point, as is a wrong L4 checksum: what a client sent arrives.
 */
#ifndef IPS_PARSE_H
#define IPS_PARSE_H
#include "ips_csum.h"

enum { IPS_MAX_EXTENSIONS = 8 };

/* What is to be known of an upper-layer protocol. */
struct ips_l4_rule {
  uint8_t min;  /* bytes that its header has at least; 0: unknown, never looked at */
  uint8_t csum; /* offset of a checksum that covers the addresses, or 0 */
  uint8_t zero; /* 1: field 0 = no checksum, a computed 0 is written 0xffff */
  uint8_t walk; /* 1: an IPv6 extension header that is passed over */
};
extern const struct ips_l4_rule ips_l4_rules[2][256]; /* [family == 6][protocol] */

static inline const struct ips_l4_rule *ips_l4_rule(unsigned family, unsigned proto) {
  return &ips_l4_rules[family == 6][proto];
}

/* Cold, in ips_parse.c. */
int ips_parse_options4(const uint8_t *ip, uint32_t header);
int ips_parse_extensions(const uint8_t *ip, uint32_t end, struct ips_view *v);
int ips_parse_fragment(const struct ips_view *v);
int ips_parse_offload(const struct ips_pkt *p, const struct ips_view *v);

/* Who mends the transport checksum: a partial one further in belongs to a tunnelled
 * packet, and the sum at l4, if any, is complete. */
static inline enum ips_csum ips_l4_csum(const struct ips_pkt *p, const struct ips_view *v) {
  return p->csum == IPS_CSUM_PARTIAL && p->csum_start != v->l4 ? IPS_CSUM_FULL : (enum ips_csum)p->csum;
}

static inline int ips_parse_l4(struct ips_pkt *p, struct ips_view *v, uint32_t end) {
  if (ips_unlikely(v->is_fragment)) {
    int verdict = ips_parse_fragment(v);
    if (verdict) return verdict;
  }
  if (ips_unlikely(v->l4 + ips_l4_rule(v->family, v->proto)->min > end) && !v->fragment_at)
    return v->is_fragment ? IPS_SHORT_FIRST_FRAGMENT : IPS_SHORT_L4;
  if (p->csum | p->gso_type) {
    int verdict = ips_parse_offload(p, v);
    if (verdict) return verdict;
  }
  p->len = end;
  p->total_len = v->ip_len;
  return IPS_OK;
}

static inline int ips_parse4(struct ips_pkt *p, struct ips_view *v) {
  const uint8_t *ip = p->data;
  if (ips_unlikely(p->len < 20)) return IPS_SHORT;
  uint32_t header = (ip[0] & 15u) * 4, ip_len = ips_be16(ips_ld16(ip + 2));
  if (ips_unlikely(header < 20 || header > p->len)) return IPS_BAD_HEADER_LENGTH;
  if (ips_unlikely(ip_len < header || ip_len > p->total_len)) return IPS_BAD_TOTAL_LENGTH;
  uint64_t sum = ips_csum_add(ips_ld64(ip), ips_ld64(ip + 8));
  sum = ips_csum_add(sum, ips_ld32(ip + 16));
  if (ips_unlikely(header > 20)) sum = ips_csum_bytes(ip + 20, header - 20, sum);
  if (ips_unlikely(ips_csum_fold(sum) != 0xffff)) return IPS_BAD_HEADER_CHECKSUM;
  if (ips_unlikely(header > 20)) {
    int verdict = ips_parse_options4(ip, header);
    if (verdict) return verdict;
  }
  unsigned fragment = ips_be16(ips_ld16(ip + 6));
  *v = (struct ips_view){
    .family = 4, .proto = ip[9], .ttl = ip[8], .tos = ip[1], .l4 = (uint16_t)header, .ip_len = ip_len,
    .dont_fragment = (fragment & 0x4000) != 0, .has_ah = ip[9] == IPS_PROTO_AH,
  };
  if (ips_unlikely(fragment & 0x3fff)) {
    v->fragment_at = (uint16_t)((fragment & 0x1fff) * 8);
    v->is_fragment = true;
    v->more_fragments = (fragment & 0x2000) != 0;
    v->frag_id = ips_be16(ips_ld16(ip + 4));
  }
  return ips_parse_l4(p, v, ip_len < p->len ? ip_len : p->len);
}

static inline int ips_parse6(struct ips_pkt *p, struct ips_view *v) {
  const uint8_t *ip = p->data;
  if (ips_unlikely(p->len < 40)) return IPS_SHORT;
  uint32_t payload = ips_be16(ips_ld16(ip + 4)), ip_len = 40 + payload;
  if (ips_unlikely(ip_len > p->total_len)) return IPS_BAD_TOTAL_LENGTH;
  /* A jumbogram (RFC 2675), which no link here carries; Linux makes them of super-packets above 64 kB. */
  if (ips_unlikely(!payload && (ip[6] == IPS_PROTO_HOPOPTS || p->gso_type))) return IPS_BAD_TOTAL_LENGTH;
  uint32_t end = ip_len < p->len ? ip_len : p->len;
  *v = (struct ips_view){
    .family = 6, .proto = ip[6], .ttl = ip[7], .tos = (uint8_t)(ip[0] << 4 | ip[1] >> 4), .l4 = 40,
    .ip_len = ip_len, .dont_fragment = true,
  };
  if (ips_unlikely(ips_l4_rule(6, ip[6])->walk)) {
    int verdict = ips_parse_extensions(ip, end, v);
    if (verdict) return verdict;
  }
  v->has_ah = v->proto == IPS_PROTO_AH;
  return ips_parse_l4(p, v, end);
}

static inline int ips_parse(struct ips_pkt *p, struct ips_view *v) {
  if (ips_unlikely(!p->len)) return IPS_SHORT;
  unsigned version = p->data[0] >> 4;
  if (ips_likely(version == 4)) return ips_parse4(p, v);
  return ips_likely(version == 6) ? ips_parse6(p, v) : IPS_BAD_VERSION;
}

#endif
