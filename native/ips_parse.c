/* ips_parse.c: what few packets need: IPv4 options, IPv6 extension headers,
 * fragments, offload fields; and the table of upper-layer protocols.
 *
 * Called by ips_parse.h; the same walk finds the checksum inside of a quoted
 * IPv6 packet (ips_rewrite.c). Reads only below the given end. RFC 791 3.1,
 * RFC 8200 4, RFC 1858, RFC 5722, RFC 7112. Home address options (RFC 6275) are
 * not looked for: with one, the pseudo header's source is not the header's.
 */
#include "ips_parse.h"

#define EITHER_FAMILY                                                            \
  [IPS_PROTO_TCP] = {.min = 20, .csum = 16},                                     \
  [IPS_PROTO_UDP] = {.min = 8, .csum = 6, .zero = 1},                            \
  [IPS_PROTO_UDPLITE] = {.min = 8, .csum = 6, .zero = 1}, /* RFC 3828 3.1 */     \
  [IPS_PROTO_DCCP] = {.min = 12, .csum = 6},              /* RFC 4340 5.1 */     \
  [IPS_PROTO_SCTP] = {.min = 12}                          /* CRC32c, no pseudo header */

const struct ips_l4_rule ips_l4_rules[2][256] = {
  {EITHER_FAMILY, [IPS_PROTO_ICMP] = {.min = 8}},
  {EITHER_FAMILY, [IPS_PROTO_ICMP6] = {.min = 8, .csum = 2}, [IPS_PROTO_MOBILITY] = {.min = 8, .csum = 4},
   [IPS_PROTO_HOPOPTS] = {.walk = 1}, [IPS_PROTO_ROUTING] = {.walk = 1}, [IPS_PROTO_FRAGMENT] = {.walk = 1},
   [IPS_PROTO_DSTOPTS] = {.walk = 1}},
};

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_LSRR = 131, OPTION_SSRR = 137 };

int ips_parse_options4(const uint8_t *ip, uint32_t header) {
  bool routed = false;
  for (uint32_t at = 20; at < header && ip[at] != OPTION_END;) {
    if (ip[at] == OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 2 > header || ip[at + 1] < 2 || at + ip[at + 1] > header) return IPS_BAD_OPTION;
    routed |= ip[at] == OPTION_LSRR || ip[at] == OPTION_SSRR;
    at += ip[at + 1];
  }
  return routed ? IPS_SOURCE_ROUTE : IPS_OK;
}

static void note_fragment(const uint8_t *header, uint32_t at, struct ips_view *v) {
  unsigned offset = ips_be16(ips_ld16(header + 2));
  v->frag_header = (uint16_t)at;
  v->fragment_at = offset & 0xfff8;
  v->more_fragments = offset & 1;
  v->is_fragment = v->fragment_at || v->more_fragments; /* else atomic, RFC 6946 */
  v->frag_id = ips_be32(ips_ld32(header + 4));
}

/* Walks the extension headers of the IPv6 packet at ip, of which `end` > 6 bytes may
 * be read; sets proto, l4, routing_active and what is known of a fragment. */
int ips_parse_extensions(const uint8_t *ip, uint32_t end, struct ips_view *v) {
  uint32_t at = 40;
  v->proto = ip[6];
  for (unsigned n = 0; ips_l4_rule(6, v->proto)->walk; n++) {
    if (n == IPS_MAX_EXTENSIONS || (v->proto == IPS_PROTO_HOPOPTS && at != 40) ||
        (v->proto == IPS_PROTO_FRAGMENT && v->frag_header))
      return IPS_BAD_EXTENSION;
    uint32_t bytes = at + 8 > end ? 8 : v->proto == IPS_PROTO_FRAGMENT ? 8 : (ip[at + 1] + 1u) * 8;
    if (at + bytes > end) return v->is_fragment ? IPS_SHORT_FIRST_FRAGMENT : IPS_BAD_EXTENSION;
    if (v->proto == IPS_PROTO_ROUTING && ip[at + 3]) v->routing_active = true;
    if (v->proto == IPS_PROTO_FRAGMENT) note_fragment(ip + at, at, v);
    v->proto = ip[at];
    at += bytes;
    if (v->fragment_at) break; /* payload follows, no header */
  }
  v->l4 = (uint16_t)at; /* at most 40 + 8 * 2048 */
  return IPS_OK;
}

/* A later fragment that begins inside of the transport header could replace the checksum
 * that the first one was let in with (RFC 1858 3). Reassembled, a packet has at most
 * 65,535 bytes, an IPv6 packet as many after its header (RFC 8200 4.5). */
int ips_parse_fragment(const struct ips_view *v) {
  uint32_t payload = v->family == 4 ? v->l4 : v->frag_header + 8u, bytes = v->ip_len - payload;
  if (v->more_fragments && (bytes % 8 || !bytes)) return IPS_BAD_FRAGMENT;
  if (v->fragment_at + v->ip_len - (v->family == 4 ? 0 : 48) > 65535) return IPS_BAD_FRAGMENT;
  if (v->fragment_at && v->fragment_at < ips_l4_rule(v->family, v->proto)->min) return IPS_BAD_FRAGMENT;
  return IPS_OK;
}

int ips_parse_offload(const struct ips_pkt *p, const struct ips_view *v) {
  unsigned gso = p->gso_type, proto = gso == IPS_GSO_TCP ? IPS_PROTO_TCP : IPS_PROTO_UDP;
  if (gso > IPS_GSO_UDP || p->csum > IPS_CSUM_EGRESS) return IPS_BAD_OFFLOAD;
  if (gso && (v->proto != proto || v->is_fragment || !p->gso_size)) return IPS_BAD_OFFLOAD;
  if (p->csum != IPS_CSUM_PARTIAL) return IPS_OK;
  uint32_t end = v->ip_len < p->len ? v->ip_len : p->len;
  if (v->is_fragment || p->csum_start < v->l4) return IPS_BAD_OFFLOAD;
  if ((uint32_t)p->csum_start + p->csum_offset + 2 > end) return IPS_BAD_OFFLOAD;
  unsigned field = ips_l4_rule(v->family, v->proto)->csum;
  return field && p->csum_start == v->l4 && p->csum_offset != field ? IPS_BAD_OFFLOAD : IPS_OK;
}
