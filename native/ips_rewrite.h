/* ips_rewrite.h: one address of a parsed packet is replaced and every checksum that
 * covers it is mended (RFC 1624); all else stays byte for byte, so that the same
 * with the old address undoes it (S1.3; ips_csum.h names the one corner).
 *
 * Inline: whole packets and fragments. In ips_rewrite.c: ICMP errors, whose quoted
 * packet names the address once more, and TCP SYNs whose MSS is too high.
 * A fragment without the transport header has no checksum to mend; parse lets
 * none pass that could hold one. ESP, AH, SCTP and unknown protocols: address only.
 */
#ifndef IPS_REWRITE_H
#define IPS_REWRITE_H
#include "ips_icmp.h"
#include "ips_parse.h"
#include "ips_tcp.h"

/* Cold, in ips_rewrite.c. */
int ips_rewrite_error(struct ips_pkt *p, const struct ips_view *v, enum ips_field f, const uint8_t *address);
/* The quoted packet's address only: an error by a router about a packet to `f`. */
int ips_rewrite_quoted(struct ips_pkt *p, const struct ips_view *v, enum ips_field f, const uint8_t *address);
void ips_clamp_syn(struct ips_pkt *p, const struct ips_view *v, unsigned mss);

/* An ICMP error that quotes the packet it is about; parse has seen its 8 bytes. */
static inline bool ips_is_icmp_error(const struct ips_pkt *p, const struct ips_view *v) {
  if (ips_likely(v->proto != (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6)) || v->fragment_at)
    return false;
  return ips_icmp_quotes(v->family, p->data[v->l4]);
}

/* What the replacement of the address at `at` adds to a sum that covers it. */
static inline uint16_t ips_address_delta(const uint8_t *at, unsigned family, const uint8_t *address) {
  return family == 4 ? ips_csum_delta32(ips_ld32(at), ips_ld32(address)) : ips_csum_delta128(at, address);
}

/* The address itself and, in IPv4, the header's sum. */
static inline void ips_replace_address(uint8_t *ip, unsigned family, enum ips_field f, const uint8_t *address,
                                       uint16_t delta) {
  if (family == 4) {
    ips_st16(ip + 10, ips_csum_mend(ips_ld16(ip + 10), delta));
    memcpy(ip + 12 + 4 * f, address, 4);
  } else {
    memcpy(ip + 8 + 16 * f, address, 16);
  }
}

static inline uint16_t ips_csum_mend_as(enum ips_csum mode, bool zero, uint16_t field, uint16_t delta) {
  if (ips_unlikely(mode == IPS_CSUM_EGRESS)) return field;
  if (mode == IPS_CSUM_PARTIAL) return ips_csum_mend_partial(field, delta);
  return zero ? ips_csum_mend_zero(field, delta) : ips_csum_mend(field, delta);
}

/* family = v->family, a constant where this is inlined. */
static inline int ips_rewrite_as(unsigned family, struct ips_pkt *p, const struct ips_view *v,
                                 enum ips_field f, const uint8_t *address) {
  uint8_t *ip = p->data;
  uint16_t delta = ips_address_delta(ips_field_at(ip, family, f), family, address);
  ips_replace_address(ip, family, f, address, delta);
  const struct ips_l4_rule *rule = ips_l4_rule(family, v->proto);
  if (!rule->csum || v->fragment_at || (v->routing_active && f == IPS_DST)) return IPS_OK;
  uint8_t *field = ip + v->l4 + rule->csum;
  ips_st16(field, ips_csum_mend_as(ips_l4_csum(p, v), rule->zero, ips_ld16(field), delta));
  return IPS_OK;
}

static inline int ips_rewrite(struct ips_pkt *p, const struct ips_view *v, enum ips_field f,
                              const uint8_t *address) {
  if (ips_unlikely(ips_is_icmp_error(p, v))) return ips_rewrite_error(p, v, f, address);
  return v->family == 4 ? ips_rewrite_as(4, p, v, f, address) : ips_rewrite_as(6, p, v, f, address);
}

/* Lowers the MSS option of a SYN to at most `mss` (bytes of payload); adds none. */
static inline void ips_clamp_mss(struct ips_pkt *p, const struct ips_view *v, unsigned mss) {
  if (v->proto != IPS_PROTO_TCP || v->fragment_at) return;
  if (ips_unlikely(p->data[v->l4 + IPS_TCP_FLAGS] & IPS_TCP_SYN)) ips_clamp_syn(p, v, mss);
}

#endif
