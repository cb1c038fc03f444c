/* ips_tunnel.h: the flow's share in an outer header, alike for all who encapsulate (RFC 6438, RFC 6335). */
#ifndef IPS_TUNNEL_H
#define IPS_TUNNEL_H
#include "ips_core.h"

static inline uint32_t ips_entropy_mix(uint32_t h, uint32_t x) {
  h = (h ^ x) * 0x9e3779b1u;
  return h ^ h >> 15;
}

/* One value for all packets of a flow, so that equal-cost paths do not reorder it. Ports count for
 * whole TCP packets only: what is often fragmented must hash alike with and without them, and a
 * fragment's siblings may pass another distribution point. */
static inline uint16_t ips_flow_entropy(const struct ips_pkt *p, const struct ips_view *v) {
  bool has_ports = v->proto == IPS_PROTO_TCP && !v->is_fragment;
  uint32_t h = ips_entropy_mix(v->proto, has_ports ? ips_ld32(p->data + v->l4) : 0);
  const uint8_t *a = ips_field_at(p->data, v->family, IPS_SRC);
  for (unsigned i = 0; i < (v->family == 4 ? 8u : 32u); i += 4) h = ips_entropy_mix(h, ips_ld32(a + i));
  return (uint16_t)(h >> 16);
}
#endif
