/* ips_encap.h: IP-in-IP and GUE, all four combinations of families.
 *
 * Out: the checked packet gets its outer headers written into the headroom. In: every length of
 * outer, UDP, GUE and inner header is checked, then the data pointer moves up and at most the
 * inner packet's TTL and ECN (and IPv4 sum) change. Neither looks up addresses: whether a tunnel is
 * ours is for the caller to ask of the tables, before and after.
 *
 * RFC 2003, 2473, 4213 (IP in IP); draft-ietf-intarea-gue-09 (variant 0 out; 0 and 1 in);
 * RFC 6040 normal mode (ECN); RFC 6935, 6936 (UDP sum 0 over IPv6); RFC 6438 (flow label).
 * TTL is handled as RFC 3443's uniform model: copied out, the lower one kept in, so that
 * a traceroute shows every hop inside and behind the tunnel.
 */
#ifndef IPS_ENCAP_H
#define IPS_ENCAP_H
#include "ips_core.h"
#include "ips_csum.h"

enum {
  IPS_UDP_HEADER = 8,
  IPS_GUE_HEADER = 4,              /* without private data */
  IPS_GUE_MARK = 4,                /* private data: FINAL 1, ASK 2 (channels) or PREVIOUS 3, and three octets 0; */
  IPS_GUE_NAME = 16,               /* of PREVIOUS, the tunnel address of an end point, too: 4 or 16 octets */
  IPS_GUE_FINAL = 1, IPS_GUE_ASK = 2, IPS_GUE_PREVIOUS = 3,
  IPS_ENCAP_MAX_OVERHEAD = 40 + IPS_UDP_HEADER + IPS_GUE_HEADER + IPS_GUE_MARK + IPS_GUE_NAME,
  IPS_GUE_ENTROPY_PORT = 49152,    /* source ports 49152..65535 (RFC 6335 dynamic range) */
  IPS_ECN_MASK = 3, IPS_ECN_ECT1 = 1, IPS_ECN_ECT0 = 2, IPS_ECN_CE = 3,
  IPS_DF = 0x4000, IPS_MF = 0x2000, IPS_FRAG_OFFSET = 0x1fff, /* of the IPv4 fragment field, host order */
};

/* What the private data of a GUE header say. mark 0: there are none; PREVIOUS: family 4 or 6, and the address. */
struct ips_gue_private { uint8_t mark, family, address[16]; };

/* Writes the checksum of the IPv4 header at ip. */
static inline void ips_write_header_sum(uint8_t *ip, uint32_t header) {
  ips_st16(ip + 10, 0);
  ips_st16(ip + 10, (uint16_t)~ips_csum_fold(ips_csum_bytes(ip, header, 0)));
}

static inline uint8_t ips_proto_of_family(unsigned family) {
  return family == 4 ? IPS_PROTO_IPIP : IPS_PROTO_IPV6;
}

static inline void ips_outer_v4(uint8_t *ip, const struct ips_view *v, const struct ips_endpoint_rec *e,
                                uint32_t len, uint8_t proto, uint16_t ip_id) {
  bool df = v->family == 6 || v->dont_fragment;
  ip[0] = 0x45;
  ip[1] = v->tos;
  ips_st16(ip + 2, ips_be16((uint16_t)len));
  ips_st16(ip + 4, ips_be16(ip_id));
  ips_st16(ip + 6, ips_be16(df ? IPS_DF : 0));
  ip[8] = v->ttl;
  ip[9] = proto;
  memcpy(ip + 12, e->tunnel_local, 4);
  memcpy(ip + 16, e->tunnel_remote, 4);
  ips_write_header_sum(ip, 20);
}

static inline void ips_outer_v6(uint8_t *ip, const struct ips_view *v, const struct ips_endpoint_rec *e,
                                uint32_t payload, uint8_t proto, uint16_t entropy) {
  ips_st32(ip, ips_be32(0x60000000u | (uint32_t)v->tos << 20 | entropy));
  ips_st16(ip + 4, ips_be16((uint16_t)payload));
  ip[6] = proto;
  ip[7] = v->ttl;
  memcpy(ip + 8, e->tunnel_local, 16);
  memcpy(ip + 24, e->tunnel_remote, 16);
}

static inline void ips_gue_write(uint8_t *udp, const struct ips_endpoint_rec *e, uint32_t len,
                                 uint8_t inner_proto, uint16_t entropy) {
  ips_st16(udp, ips_be16(IPS_GUE_ENTROPY_PORT | (entropy & 0x3fff)));
  ips_st16(udp + 2, ips_be16(e->gue_port));
  ips_st16(udp + 4, ips_be16((uint16_t)len));
  ips_st16(udp + 6, 0);
  unsigned marks = e->flags & IPS_EP_MARKS;
  udp[8] = marks != 0; /* variant 0, data; private data in words of four octets where there is a mark, else none */
  udp[9] = inner_proto;
  ips_st16(udp + 10, 0);
  if (ips_likely(!marks)) return;
  uint8_t mark[IPS_GUE_MARK] = {marks & IPS_EP_MARK_PREVIOUS ? IPS_GUE_PREVIOUS
                                : marks & IPS_EP_MARK_ASK    ? IPS_GUE_ASK : IPS_GUE_FINAL};
  memcpy(udp + 12, mark, sizeof mark);
  if (!(marks & IPS_EP_MARK_PREVIOUS)) return;
  size_t size = e->family == 4 ? 4 : 16;
  udp[8] = (uint8_t)(1 + size / 4);
  memcpy(udp + 12 + sizeof mark, e->local, size);
}

/* Puts the outer headers of end point e before p. entropy: a hash of the inner flow; ip_id: of an IPv4
 * outer header. Verdicts: NO_TUNNEL; BAD_OFFLOAD (segment first, complete the checksum first); NO_ROOM
 * (headroom, or more than 65,535 bytes). On OK p is the tunnel packet. */
static inline int ips_encap(struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint_rec *e,
                            uint16_t entropy, uint16_t ip_id) {
  bool gue = e->encap == IPS_ENCAP_GUE;
  if (ips_unlikely(e->tunnel_family != 4 && e->tunnel_family != 6)) return IPS_NO_TUNNEL;
  if (ips_unlikely(p->gso_type != IPS_GSO_NONE || p->csum != IPS_CSUM_FULL)) return IPS_BAD_OFFLOAD;
  unsigned overhead = ips_encap_overhead(e);
  uint32_t counted = v->ip_len + overhead - (e->tunnel_family == 6 ? 40 : 0); /* by the length field */
  if (ips_unlikely(p->headroom < overhead || counted > UINT16_MAX)) return IPS_NO_ROOM;

  uint8_t inner_proto = ips_proto_of_family(v->family);
  uint8_t *ip = p->data - overhead;
  uint32_t gue_bytes = overhead - (e->tunnel_family == 6 ? 40 : 20);
  if (gue) ips_gue_write(p->data - gue_bytes, e, v->ip_len + gue_bytes, inner_proto, entropy);
  uint8_t proto = gue ? IPS_PROTO_UDP : inner_proto;
  if (e->tunnel_family == 4)
    ips_outer_v4(ip, v, e, counted, proto, ip_id);
  else
    ips_outer_v6(ip, v, e, counted, proto, entropy);
  p->data = ip;
  p->len += overhead;
  p->total_len += overhead;
  p->headroom -= (uint16_t)overhead;
  return IPS_OK;
}

/* RFC 6040 4.2: ECN field of the forwarded inner packet; -1: drop. */
static inline int ips_ecn_decap(unsigned inner, unsigned outer) {
  if (outer == IPS_ECN_CE) return inner == 0 ? -1 : IPS_ECN_CE;
  if (outer == IPS_ECN_ECT1 && inner == IPS_ECN_ECT0) return IPS_ECN_ECT1;
  return (int)inner;
}

/* Takes p out of its encapsulation; v is the outer packet's view. Whether addresses and GUE port
 * belong to a tunnel of ours is the caller's question. On OK p is the inner packet (parse it; bytes
 * behind its own length are cut off) and *info says what it came in; else nothing changed.
 * Verdicts: TUNNEL_HEADER (also fragments of tunnel packets, GUE control messages, unknown flags or private
 * data, a wrong UDP sum, protocols that are no encapsulation), TUNNEL_INNER (no IP packet inside,
 * cut, or RFC 6040's CE on Not-ECT), BAD_OFFLOAD. */
int ips_decap(struct ips_pkt *p, const struct ips_view *v, struct ips_tunnel_info *info);
/* The same where a GUE header may have private data; on OK *said is what they say. */
int ips_decap_marked(struct ips_pkt *p, const struct ips_view *v, struct ips_tunnel_info *info,
                     struct ips_gue_private *said);

/* Private data of a GUE header: `words` of four octets, at least one, all of which are there. False: none of ours. */
bool ips_gue_read(const uint8_t *octets, unsigned words, struct ips_gue_private *said);

/* ips_tunnel_error.c. The ICMP error p about a tunnel packet of ours, taken apart. OK: it can be relayed.
 * TUNNEL_ERROR_BAD: it cannot; if out->kind is not 0 it is nevertheless about a packet
 * between out->local and out->remote (to be checked by the caller) and out->mtu counts. */
int ips_tunnel_error(const struct ips_pkt *p, const struct ips_view *v, struct ips_tunnel_error *out);
#endif
