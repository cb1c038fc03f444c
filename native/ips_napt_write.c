/* ips_napt_write.c: new addresses and ports into a packet, all sums over them mended (RFC 1624, RFC 3022
 * 4.2).
 *
 * A port is in the transport checksum as an address is, but not in a partial one: that is the sum of the
 * pseudo header, and whoever completes it sums the port that is there by then. A first fragment bears the
 * checksum of the whole datagram, which changes by the same amount; later ones bear only addresses.
 */
#include "ips_napt.h"
#include "ips_rewrite.h"

unsigned ips_napt_sum_at(unsigned family, unsigned proto, bool *zero, bool *pseudo) {
  const struct ips_l4_rule *rule = ips_l4_rule(family, proto);
  *zero = rule->zero;
  *pseudo = rule->csum != 0;
  return proto == IPS_PROTO_ICMP && family == 4 ? IPS_ICMP_SUM : rule->csum;
}

static void write_end(struct ips_pkt *p, const struct ips_view *v, enum ips_field f, const uint8_t *address,
                      uint16_t port) {
  uint8_t *ip = p->data, *l4 = ip + v->l4;
  uint16_t delta = ips_address_delta(ips_field_at(ip, v->family, f), v->family, address), ports = 0;
  ips_replace_address(ip, v->family, f, address, delta);
  if (v->fragment_at) return;
  bool zero, pseudo;
  unsigned sum_at = ips_napt_sum_at(v->family, v->proto, &zero, &pseudo);
  int class = ips_port_class(v->proto);
  if (class >= 0) {
    uint8_t *at = l4 + (class == 2 ? 4 : f == IPS_SRC ? 0 : 2);
    ports = ips_csum_delta16(ips_ld16(at), ips_be16(port));
    ips_st16(at, ips_be16(port));
  }
  if (!sum_at) return;
  enum ips_csum mode = ips_l4_csum(p, v);
  uint16_t total = pseudo ? delta : 0;
  if (mode != IPS_CSUM_PARTIAL) total = ips_csum_join(total, ports);
  ips_st16(l4 + sum_at, ips_csum_mend_as(mode, zero, ips_ld16(l4 + sum_at), total));
}

void ips_napt_write(struct ips_pkt *p, const struct ips_view *v, const struct ips_turn *turn) {
  if (turn->src) write_end(p, v, IPS_SRC, turn->src_address, turn->src_port);
  if (turn->dst) write_end(p, v, IPS_DST, turn->dst_address, turn->dst_port);
}
