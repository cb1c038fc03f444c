/* ips_tunnel_error.c: ICMP errors that come back to a tunnel's entry, and what the inner sender is told.
 *
 * A router inside the tunnel quotes our tunnel packet: outer header, GUE, inner packet, cut
 * anywhere, perhaps followed by extensions (RFC 4884). The error is taken apart here, every length
 * checked; the caller asks its tables whether the quoted tunnel is one of ours and lowers the path
 * MTU; then the inner packet's sender gets an error of its own family that quotes its own packet.
 *
 * RFC 2003 4, RFC 2473 8, RFC 4213 3.4 (relaying), RFC 4459 3.2 (MTU), RFC 1191 5 (plateaus),
 * RFC 1122 3.2.2 and RFC 4443 2.4 (when no error may be sent).
 */
#include "ips_encap.h"
#include "ips_icmp.h"
#include "ips_parse.h"

enum { MIN_MTU4 = 68, MIN_MTU6 = 1280 }; /* RFC 791, RFC 8200 5 */

/* The quoted tunnel packet while it is being read. */
struct quote { const uint8_t *at; uint32_t len; };

static bool icmp_sum_ok(const struct ips_pkt *p, const struct ips_view *v) {
  uint32_t len = v->ip_len - v->l4;
  uint64_t pseudo = v->family == 6 ? ips_csum_pseudo(p->data, 6, IPS_PROTO_ICMP6, len) : 0;
  return ips_csum_fold(ips_csum_bytes(p->data + v->l4, len, pseudo)) == 0xffff;
}

static enum ips_tunnel_error_kind kind_of(unsigned family, unsigned type, unsigned code) {
  if (family == 4) {
    if (type == IPS_ICMP4_UNREACHABLE)
      return code == IPS_ICMP4_TOO_BIG ? IPS_TUNNEL_ERROR_TOO_BIG : IPS_TUNNEL_ERROR_UNREACHABLE;
    if (type == IPS_ICMP4_PARAMETER) return IPS_TUNNEL_ERROR_UNREACHABLE;
    return type == IPS_ICMP4_TIME && code == 0 ? IPS_TUNNEL_ERROR_TIME : IPS_TUNNEL_ERROR_NONE;
  }
  if (type == IPS_ICMP6_TOO_BIG) return IPS_TUNNEL_ERROR_TOO_BIG;
  if (type == IPS_ICMP6_UNREACHABLE || type == IPS_ICMP6_PARAMETER) return IPS_TUNNEL_ERROR_UNREACHABLE;
  return type == IPS_ICMP6_TIME && code == 0 ? IPS_TUNNEL_ERROR_TIME : IPS_TUNNEL_ERROR_NONE;
}

/* Where the quote ends if the error says so (RFC 4884 3: in 32-bit words for v4, 64-bit for v6). */
static uint32_t quoted_bytes(const uint8_t *icmp, unsigned family, uint32_t available) {
  bool has_field = family == 4 || icmp[0] == IPS_ICMP6_UNREACHABLE || icmp[0] == IPS_ICMP6_TIME;
  if (!has_field) return available;
  uint32_t said = family == 4 ? icmp[5] * 4u : icmp[4] * 8u;
  return said != 0 && said < available ? said : available;
}

/* RFC 1191 5: a router that does not say its MTU; the next common one below what did not fit. */
static uint32_t plateau_below(uint32_t length) {
  static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296};
  for (unsigned i = 0; i < sizeof plateaus / sizeof *plateaus; i++)
    if (plateaus[i] < length) return plateaus[i];
  return MIN_MTU4;
}

static uint32_t reported_mtu(const uint8_t *icmp, unsigned family, const uint8_t *quoted_ip) {
  if (family == 6) return ips_be32(ips_ld32(icmp + 4));
  uint32_t mtu = ips_be16(ips_ld16(icmp + 6));
  return mtu != 0 ? mtu : plateau_below(ips_be16(ips_ld16(quoted_ip + 2)));
}

/* The outer IP header of the quote. Returns the tunnel's protocol, or -1. */
static int read_outer(struct quote *q, unsigned family, struct ips_tunnel_error *out) {
  uint32_t header = family == 4 ? 20 : 40;
  if (q->len < header || q->at[0] >> 4 != family) return -1;
  if (family == 4) {
    header = (q->at[0] & 15u) * 4;
    if (header < 20 || q->len < header || ips_be16(ips_ld16(q->at + 6)) & IPS_FRAG_OFFSET) return -1;
  }
  memcpy(out->local, ips_field_at(q->at, family, IPS_SRC), family == 4 ? 4 : 16);
  memcpy(out->remote, ips_field_at(q->at, family, IPS_DST), family == 4 ? 4 : 16);
  int proto = family == 4 ? q->at[9] : q->at[6];
  q->at += header;
  q->len -= header;
  return proto;
}

/* UDP and GUE of the quote. False: nothing that names a tunnel. *inner: its protocol, or -1 if cut. */
static bool read_gue(struct quote *q, struct ips_tunnel_error *out, int *inner, uint32_t *header) {
  if (q->len < IPS_UDP_HEADER) return false;
  out->src_port = ips_be16(ips_ld16(q->at));
  out->dst_port = ips_be16(ips_ld16(q->at + 2));
  *inner = -1;
  if (q->len < IPS_UDP_HEADER + IPS_GUE_HEADER) {
    q->len = 0;
    return true;
  }
  const uint8_t *gue = q->at + IPS_UDP_HEADER;
  unsigned most = (IPS_GUE_MARK + IPS_GUE_NAME) / 4; /* words of private data */
  if (gue[0] > most || ips_ld16(gue + 2) != 0) return false; /* we never send such a header */
  struct ips_gue_private said;
  *inner = gue[1];
  *header = IPS_UDP_HEADER + IPS_GUE_HEADER + gue[0] * 4u;
  if (q->len < *header) *inner = -1;
  else if (gue[0] && !ips_gue_read(gue + IPS_GUE_HEADER, gue[0], &said)) return false;
  uint32_t taken = q->len < *header ? q->len : *header;
  q->at += taken;
  q->len -= taken;
  return true;
}

/* The inner packet of the quote; its family, or 0 if its addresses were cut off. */
static unsigned read_inner(struct quote *q, int proto) {
  unsigned family = proto == IPS_PROTO_IPIP ? 4 : proto == IPS_PROTO_IPV6 ? 6 : 0;
  if (family == 0 || q->len < (family == 4 ? 20u : 40u) || q->at[0] >> 4 != family) return 0;
  uint32_t length = family == 4 ? ips_be16(ips_ld16(q->at + 2)) : 40u + ips_be16(ips_ld16(q->at + 4));
  if (family == 4 && ((q->at[0] & 15) < 5 || length < (q->at[0] & 15u) * 4)) return 0;
  if (q->len > length) q->len = length; /* what follows is padding or an extension */
  return family;
}

int ips_tunnel_error(const struct ips_pkt *p, const struct ips_view *v, struct ips_tunnel_error *out) {
  *out = (struct ips_tunnel_error){.family = v->family};
  if (v->proto != (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6) || v->is_fragment ||
      v->ip_len > p->len || v->ip_len < (uint32_t)v->l4 + IPS_ICMP_HEADER)
    return IPS_TUNNEL_ERROR_BAD;
  const uint8_t *icmp = p->data + v->l4;
  enum ips_tunnel_error_kind kind = kind_of(v->family, icmp[0], icmp[1]);
  if (kind == IPS_TUNNEL_ERROR_NONE || (p->csum == IPS_CSUM_FULL && !icmp_sum_ok(p, v)))
    return IPS_TUNNEL_ERROR_BAD;
  struct quote q = {.at = icmp + IPS_ICMP_HEADER,
                    .len = quoted_bytes(icmp, v->family, v->ip_len - v->l4 - IPS_ICMP_HEADER)};
  const uint8_t *quoted_ip = q.at;
  uint32_t gue = IPS_UDP_HEADER + IPS_GUE_HEADER; /* of GUE: bytes of UDP and GUE header */
  int proto = read_outer(&q, v->family, out);
  out->encap = proto == IPS_PROTO_UDP ? IPS_ENCAP_GUE : IPS_ENCAP_IPIP;
  if (proto == IPS_PROTO_UDP) {
    if (!read_gue(&q, out, &proto, &gue)) return IPS_TUNNEL_ERROR_BAD;
  } else if (proto != IPS_PROTO_IPIP && proto != IPS_PROTO_IPV6) {
    return IPS_TUNNEL_ERROR_BAD;
  }
  out->kind = (uint8_t)kind;
  out->type = icmp[0];
  out->code = icmp[1];
  memcpy(out->reporter, ips_field_at(p->data, v->family, IPS_SRC), v->family == 4 ? 4 : 16);
  if (kind == IPS_TUNNEL_ERROR_TOO_BIG) {
    uint32_t mtu = reported_mtu(icmp, v->family, quoted_ip);
    uint32_t overhead = (v->family == 4 ? 20 : 40) +
                        (out->encap == IPS_ENCAP_GUE ? gue : 0);
    out->mtu = mtu > overhead ? mtu - overhead : 0;
  }
  out->inner_family = (uint8_t)read_inner(&q, proto);
  if (out->inner_family == 0) return IPS_TUNNEL_ERROR_BAD;
  out->inner_at = (uint16_t)(q.at - p->data);
  out->inner_len = (uint16_t)q.len;
  return IPS_OK;
}

int ips_tunnel_error_packet(const struct ips_pkt *p, struct ips_tunnel_error *out) {
  struct ips_view v;
  struct ips_pkt copy = *p;
  int verdict = ips_parse(&copy, &v);
  *out = (struct ips_tunnel_error){0};
  return verdict != IPS_OK ? verdict : ips_tunnel_error(&copy, &v, out);
}

/* ---- the error for the inner packet's sender ---------------------------- */

static bool may_answer4(const uint8_t *ip, uint32_t len, enum ips_tunnel_error_kind kind) {
  uint32_t header = (ip[0] & 15u) * 4;
  uint16_t fragment = ips_be16(ips_ld16(ip + 6));
  const uint8_t *src = ip + 12, *dst = ip + 16;
  if (src[0] == 0 || src[0] == 127 || src[0] >= 224 || dst[0] >= 224 || fragment & IPS_FRAG_OFFSET)
    return false;
  if (kind == IPS_TUNNEL_ERROR_TOO_BIG && !(fragment & IPS_DF)) return false; /* RFC 4459 3.2: not asked */
  if (ip[9] != IPS_PROTO_ICMP) return true;
  return len > header && !ips_icmp_quotes(4, ip[header]);
}

/* Upper-layer protocol of a quoted v6 packet as far as it is there; -1: cut or a later fragment. */
static int upper6(const uint8_t *ip, uint32_t len, uint32_t *at) {
  int proto = ip[6];
  *at = 40;
  while (proto == IPS_PROTO_HOPOPTS || proto == IPS_PROTO_ROUTING || proto == IPS_PROTO_DSTOPTS ||
         proto == IPS_PROTO_FRAGMENT || proto == IPS_PROTO_AH || proto == IPS_PROTO_MOBILITY) {
    if (len < *at + 8) return -1;
    const uint8_t *header = ip + *at;
    if (proto == IPS_PROTO_FRAGMENT && ips_be16(ips_ld16(header + 2)) & 0xfff8) return -1;
    *at += proto == IPS_PROTO_FRAGMENT ? 8
         : proto == IPS_PROTO_AH       ? (header[1] + 2u) * 4
                                       : (header[1] + 1u) * 8;
    proto = header[0];
  }
  return proto;
}

static bool may_answer6(const uint8_t *ip, uint32_t len, enum ips_tunnel_error_kind kind) {
  const uint8_t *src = ip + 8, *dst = ip + 24;
  bool unspecified_or_loopback = ips_ld64(src) == 0 && ips_be64(ips_ld64(src + 8)) <= 1;
  if (src[0] == 0xff || unspecified_or_loopback) return false;
  if (dst[0] == 0xff && kind != IPS_TUNNEL_ERROR_TOO_BIG) return false;
  uint32_t at;
  int proto = upper6(ip, len, &at);
  if (proto != IPS_PROTO_ICMP6) return proto != -1;
  return len > at && ips_icmp6_may_be_reported(ip[at]);
}

static void write_icmp(uint8_t *icmp, unsigned family, const struct ips_tunnel_error *e) {
  static const uint8_t types[2][4][2] = { /* by family and enum ips_tunnel_error_kind: type and code */
    {{0, 0}, {IPS_ICMP4_UNREACHABLE, IPS_ICMP4_TOO_BIG}, {IPS_ICMP4_TIME, 0},
     {IPS_ICMP4_UNREACHABLE, IPS_ICMP4_HOST}},
    {{0, 0}, {IPS_ICMP6_TOO_BIG, 0}, {IPS_ICMP6_TIME, 0}, {IPS_ICMP6_UNREACHABLE, IPS_ICMP6_ADDRESS}},
  };
  memset(icmp, 0, IPS_ICMP_HEADER);
  memcpy(icmp, types[family == 6][e->kind], 2);
  if (e->kind != IPS_TUNNEL_ERROR_TOO_BIG) return;
  uint32_t least = family == 4 ? MIN_MTU4 : MIN_MTU6, mtu = e->mtu > least ? e->mtu : least;
  if (family == 4)
    ips_st16(icmp + 6, ips_be16(mtu > UINT16_MAX ? UINT16_MAX : (uint16_t)mtu));
  else
    ips_st32(icmp + 4, ips_be32(mtu));
}

size_t ips_relay_error(const struct ips_pkt *p, const struct ips_tunnel_error *e, const uint8_t *source4,
                       const uint8_t *source6, uint8_t *out, size_t room) {
  unsigned family = e->inner_family;
  if ((family != 4 && family != 6) || e->kind == IPS_TUNNEL_ERROR_NONE ||
      e->kind > IPS_TUNNEL_ERROR_UNREACHABLE || (uint32_t)e->inner_at + e->inner_len > p->len ||
      e->inner_len < (family == 4 ? 20 : 40))
    return 0;
  const uint8_t *inner = p->data + e->inner_at;
  if (!(family == 4 ? may_answer4 : may_answer6)(inner, e->inner_len, (enum ips_tunnel_error_kind)e->kind))
    return 0;
  const uint8_t *source = family == 4 ? source4 : source6;
  /* The router that counted the TTL down speaks for itself, so that traceroute shows it. */
  if (e->kind == IPS_TUNNEL_ERROR_TIME && e->family == family) source = e->reporter;
  size_t header = family == 4 ? 20 : 40, most = family == 4 ? IPS_ICMP4_LONGEST : IPS_ICMP6_LONGEST;
  size_t len = header + IPS_ICMP_HEADER + e->inner_len;
  if (len > most) len = most;
  if (len > room || ips_all_zero(source, family == 4 ? 4 : 16)) return 0;
  write_icmp(out + header, family, e);
  memcpy(out + header + IPS_ICMP_HEADER, inner, len - header - IPS_ICMP_HEADER);
  ips_icmp_seal(out, family, source, ips_field_at(inner, family, IPS_SRC), (uint32_t)len);
  return len;
}
