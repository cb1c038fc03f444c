/* ips_encap.c: taking packets out of their tunnels, and the doors for those who have no inline code.
 *
 * A tunnel packet is looked at from the outside in; nothing is written before the last check.
 */
#include "ips_encap.h"
#include "ips_gro.h"
#include "ips_parse.h"

enum { UDP_SUM = 6, GUE_CONTROL = 0x20, GUE_HLEN = 0x1f };

/* What a tunnel packet turned out to hold. */
struct inside {
  uint32_t at;       /* offset of the inner packet from p->data */
  uint32_t room;     /* bytes the outer headers leave for it */
  uint8_t family;
  struct ips_gue_private said;
};

static bool udp_sum_ok(const struct ips_pkt *p, const struct ips_view *v, uint32_t udp_len) {
  const uint8_t *udp = p->data + v->l4;
  if (ips_ld16(udp + UDP_SUM) == 0) return true;
  if (p->csum != IPS_CSUM_FULL) return true; /* not on the wire yet: made on this machine */
  if (p->len < v->l4 + udp_len) return false; /* chained buffers: cannot be verified, so is not trusted */
  uint64_t pseudo = ips_csum_pseudo(p->data, v->family, IPS_PROTO_UDP, udp_len);
  return ips_csum_fold(ips_csum_bytes(udp, udp_len, pseudo)) == 0xffff;
}

bool ips_gue_read(const uint8_t *octets, unsigned words, struct ips_gue_private *said) {
  unsigned mark = octets[0], size = (words - 1) * 4;
  if (octets[1] | octets[2] | octets[3] || mark < IPS_GUE_FINAL || mark > IPS_GUE_PREVIOUS) return false;
  if (mark == IPS_GUE_PREVIOUS ? size != 4 && size != 16 : size != 0) return false;
  *said = (struct ips_gue_private){.mark = (uint8_t)mark, .family = size == 0 ? 0 : size == 4 ? 4 : 6};
  memcpy(said->address, octets + IPS_GUE_MARK, size);
  return true;
}

static int open_gue(const struct ips_pkt *p, const struct ips_view *v, struct inside *in) {
  const uint8_t *udp = p->data + v->l4, *gue = udp + IPS_UDP_HEADER;
  uint32_t room = v->ip_len - v->l4, headers = IPS_UDP_HEADER + IPS_GUE_HEADER;
  if (room < headers || p->len < v->l4 + headers) return IPS_TUNNEL_HEADER;
  uint32_t udp_len = ips_be16(ips_ld16(udp + 4));
  if (udp_len < headers || udp_len > room || !udp_sum_ok(p, v, udp_len)) return IPS_TUNNEL_HEADER;
  switch (gue[0] >> 6) {
    case 0:
      if (gue[0] & GUE_CONTROL || ips_ld16(gue + 2) != 0) return IPS_TUNNEL_HEADER;
      if (gue[1] != IPS_PROTO_IPIP && gue[1] != IPS_PROTO_IPV6) return IPS_TUNNEL_HEADER;
      if (gue[0] & GUE_HLEN) {
        headers += (gue[0] & GUE_HLEN) * 4u;
        if (udp_len < headers || p->len < v->l4 + headers) return IPS_TUNNEL_HEADER;
        if (!ips_gue_read(gue + IPS_GUE_HEADER, gue[0] & GUE_HLEN, &in->said)) return IPS_TUNNEL_HEADER;
      }
      in->family = gue[1] == IPS_PROTO_IPIP ? 4 : 6;
      in->at = v->l4 + headers;
      break;
    case 1: /* the first bits of an IP header: variant 1 is the bare packet */
      in->family = gue[0] >> 4;
      if (in->family != 4 && in->family != 6) return IPS_TUNNEL_HEADER;
      in->at = v->l4 + IPS_UDP_HEADER;
      break;
    default: return IPS_TUNNEL_HEADER;
  }
  in->room = v->l4 + udp_len - in->at;
  return IPS_OK;
}

static int open_tunnel(const struct ips_pkt *p, const struct ips_view *v, struct inside *in) {
  if (v->is_fragment || v->routing_active || v->has_ah || v->l4 > v->ip_len) return IPS_TUNNEL_HEADER;
  if (v->proto == IPS_PROTO_UDP) return open_gue(p, v, in);
  if (v->proto != IPS_PROTO_IPIP && v->proto != IPS_PROTO_IPV6) return IPS_TUNNEL_HEADER;
  *in = (struct inside){.at = v->l4, .room = v->ip_len - v->l4, .family = v->proto == IPS_PROTO_IPIP ? 4 : 6};
  return IPS_OK;
}

/* Length of the inner packet by its own header; 0: there is none, or not all of it. */
static uint32_t inner_length(const struct ips_pkt *p, const struct inside *in) {
  const uint8_t *ip = p->data + in->at;
  uint32_t header = in->family == 4 ? 20 : 40;
  if (p->len < in->at + header || ip[0] >> 4 != in->family) return 0;
  uint32_t length = in->family == 4 ? ips_be16(ips_ld16(ip + 2)) : 40u + ips_be16(ips_ld16(ip + 4));
  if (in->family == 4) header = (ip[0] & 15u) * 4;
  return header < 20 || length < header || length > in->room ? 0 : length;
}

/* Changes one 16-bit word of an IPv4 header. */
static void set_word(uint8_t *ip, unsigned at, uint16_t word) {
  ips_st16(ip + 10, ips_csum_mend(ips_ld16(ip + 10), ips_csum_delta16(ips_ld16(ip + at), word)));
  ips_st16(ip + at, word);
}

static void set_ecn_and_ttl(uint8_t *ip, unsigned family, unsigned ecn, uint8_t ttl) {
  if (family == 4) {
    uint8_t tos[2] = {ip[0], (uint8_t)((ip[1] & ~IPS_ECN_MASK) | ecn)}, life[2] = {ttl, ip[9]};
    if (tos[1] != ip[1]) set_word(ip, 0, ips_ld16(tos));
    if (ttl != ip[8]) set_word(ip, 8, ips_ld16(life));
    return;
  }
  ip[1] = (uint8_t)((ip[1] & ~(IPS_ECN_MASK << 4)) | ecn << 4);
  ip[7] = ttl;
}

/* Whose is a partial checksum once `strip` bytes are gone: the inner packet's, or of the UDP that goes? */
static int strip_offload(struct ips_pkt *after, const struct ips_view *v, uint32_t strip) {
  if (after->gso_type != IPS_GSO_NONE) return IPS_BAD_OFFLOAD;
  if (after->csum == IPS_CSUM_EGRESS && v->proto == IPS_PROTO_UDP) after->csum = IPS_CSUM_FULL;
  if (after->csum != IPS_CSUM_PARTIAL) return IPS_OK;
  if (after->csum_start >= strip + 20) {
    after->csum_start -= (uint16_t)strip;
    return IPS_OK;
  }
  after->csum = IPS_CSUM_FULL;
  return v->proto == IPS_PROTO_UDP && after->csum_start == v->l4 ? IPS_OK : IPS_BAD_OFFLOAD;
}

int ips_decap(struct ips_pkt *p, const struct ips_view *v, struct ips_tunnel_info *info) {
  return ips_decap_marked(p, v, info, NULL);
}

int ips_decap_marked(struct ips_pkt *p, const struct ips_view *v, struct ips_tunnel_info *info,
                     struct ips_gue_private *said) {
  struct inside in = {0};
  struct ips_pkt after = *p;
  int verdict = open_tunnel(p, v, &in);
  if (verdict != IPS_OK) return verdict;
  if (in.said.mark && !said) return IPS_TUNNEL_HEADER;
  uint32_t length = inner_length(p, &in);
  if (length == 0) return IPS_TUNNEL_INNER;
  verdict = strip_offload(&after, v, in.at);
  if (verdict != IPS_OK) return verdict;
  uint8_t *ip = p->data + in.at;
  uint8_t tos = in.family == 4 ? ip[1] : (uint8_t)(ips_be16(ips_ld16(ip)) >> 4);
  uint8_t ttl = in.family == 4 ? ip[8] : ip[7];
  int ecn = ips_ecn_decap(tos & IPS_ECN_MASK, v->tos & IPS_ECN_MASK);
  if (ecn < 0) return IPS_TUNNEL_INNER;

  if (said) *said = in.said;
  *info = (struct ips_tunnel_info){.encap = v->proto == IPS_PROTO_UDP ? IPS_ENCAP_GUE : IPS_ENCAP_IPIP,
                                   .family = v->family};
  set_ecn_and_ttl(ip, in.family, (unsigned)ecn, ttl < v->ttl ? ttl : v->ttl);
  after.data = ip;
  after.total_len = length;
  after.len = p->len - in.at < length ? p->len - in.at : length;
  after.headroom = in.at + p->headroom > UINT16_MAX ? UINT16_MAX : (uint16_t)(p->headroom + in.at);
  *p = after;
  return IPS_OK;
}

int ips_encap_packet(struct ips_pkt *p, const struct ips_endpoint_rec *e, uint16_t entropy, uint16_t ip_id) {
  struct ips_view v;
  int verdict = ips_parse(p, &v);
  return verdict != IPS_OK ? verdict : ips_encap(p, &v, e, entropy, ip_id);
}

int ips_decap_packet(struct ips_pkt *p, struct ips_tunnel_info *info) {
  struct ips_view v;
  int verdict = ips_parse(p, &v);
  return verdict != IPS_OK ? verdict : ips_decap(p, &v, info);
}

int ips_segment_packet(const struct ips_pkt *p, uint8_t *scratch, size_t scratch_bytes, uint16_t headroom,
                       ips_packet_fn emit, void *arg) {
  struct ips_view v;
  struct ips_pkt copy = *p;
  int verdict = ips_parse(&copy, &v);
  return verdict != IPS_OK ? verdict : ips_segment(&copy, &v, scratch, scratch_bytes, headroom, emit, arg);
}

int ips_fragment4_packet(const struct ips_pkt *p, uint32_t mtu, uint8_t *scratch, size_t scratch_bytes,
                         uint16_t headroom, ips_packet_fn emit, void *arg) {
  struct ips_view v;
  struct ips_pkt copy = *p;
  int verdict = ips_parse(&copy, &v);
  if (verdict != IPS_OK) return verdict;
  return ips_fragment4(&copy, &v, mtu, scratch, scratch_bytes, headroom, emit, arg);
}
