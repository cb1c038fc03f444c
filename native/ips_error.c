/* ips_error.c: ICMP errors about a packet that is still as the client sent it, and
 * answers to ICMP echo. The host sends what is written to `out`; p stays unchanged.
 *
 * RFC 792, RFC 1122 3.2.2, RFC 1812 4.3.2 (at most 576 bytes), RFC 4443 2.4 and 3
 * (at most 1,280). The quote is what was, or would be, on the wire: a checksum that an
 * offload would fill in is filled in, and of a super-packet the first segment
 * is quoted, so that the sender finds the length it sent.
 * Rates, scopes of the own networks and link-layer broadcast are the caller's business.
 */
#include "ips_rewrite.h"

enum { HOPS = 64 };

static const struct { uint8_t type4, code4, type6, code6; } messages[] = {
  [IPS_ERR_TTL] = {IPS_ICMP4_TIME, 0, IPS_ICMP6_TIME, 0},
  [IPS_ERR_TOO_BIG] = {IPS_ICMP4_UNREACHABLE, IPS_ICMP4_TOO_BIG, IPS_ICMP6_TOO_BIG, 0},
  [IPS_ERR_HOST_UNREACHABLE] =
    {IPS_ICMP4_UNREACHABLE, IPS_ICMP4_HOST, IPS_ICMP6_UNREACHABLE, IPS_ICMP6_ADDRESS},
  [IPS_ERR_ADMIN] = {IPS_ICMP4_UNREACHABLE, IPS_ICMP4_ADMIN, IPS_ICMP6_UNREACHABLE, IPS_ICMP6_ADMIN},
};

/* RFC 1122 3.2.2; frag needed only where DF forbids the remedy. */
static bool may_report4(const struct ips_pkt *p, const struct ips_view *v, enum ips_error_kind kind) {
  uint8_t from = p->data[12], to = p->data[16];
  bool one_host = from != 0 && from != 127 && from < 224;
  return one_host && to < 224 && !v->fragment_at && !ips_is_icmp_error(p, v) &&
         (kind != IPS_ERR_TOO_BIG || v->dont_fragment);
}

/* RFC 4443 2.4 (e); of a later fragment of ICMPv6 nobody knows. */
static bool may_report6(const struct ips_pkt *p, const struct ips_view *v, enum ips_error_kind kind) {
  const uint8_t *from = p->data + 8, *to = p->data + 24;
  bool one_host = from[0] != 0xff && !(ips_all_zero(from, 15) && from[15] <= 1);
  if (!one_host || (to[0] == 0xff && kind != IPS_ERR_TOO_BIG)) return false;
  if (v->proto != IPS_PROTO_ICMP6) return true;
  return !v->fragment_at && ips_icmp6_may_be_reported(p->data[v->l4]);
}

/* Length of what was on the wire: the packet, or the first segment of a super-packet. */
static uint32_t wire_length(const struct ips_pkt *p, const struct ips_view *v) {
  if (p->gso_type == IPS_GSO_NONE) return v->ip_len;
  uint32_t header = p->gso_type == IPS_GSO_TCP ? ips_tcp_header(p->data + v->l4) : 8;
  uint32_t first = v->l4 + header + p->gso_size;
  return first < v->ip_len ? first : v->ip_len;
}

/* The quoted headers say `wire` bytes instead of those of the super-packet. */
static void quote_first_segment(uint8_t *quote, uint32_t bytes, const struct ips_pkt *p,
                                const struct ips_view *v, uint32_t wire) {
  uint16_t length = ips_be16((uint16_t)(v->family == 4 ? wire : wire - 40));
  uint8_t *field = quote + (v->family == 4 ? 2 : 4);
  if (v->family == 4)
    ips_st16(quote + 10, ips_csum_mend(ips_ld16(quote + 10), ips_csum_delta16(ips_ld16(field), length)));
  ips_st16(field, length);
  if (bytes < v->l4 + ips_l4_rule(v->family, v->proto)->min) return;
  if (p->gso_type == IPS_GSO_UDP)
    ips_st16(quote + v->l4 + 4, ips_be16((uint16_t)(wire - v->l4)));
  else if (wire < v->ip_len)
    quote[v->l4 + IPS_TCP_FLAGS] &= (uint8_t)~(IPS_TCP_FIN | IPS_TCP_PSH); /* only the last segment's */
}

/* Fills in a checksum that an offload was to fill in, from `wire` bytes: the first `bytes` from
 * the quote (its headers may differ from p's), the others from p. Left alone where p lacks some. */
static void quote_checksum(uint8_t *quote, uint32_t bytes, const struct ips_pkt *p, const struct ips_view *v,
                           uint32_t wire) {
  const struct ips_l4_rule *rule = ips_l4_rule(v->family, v->proto);
  bool partial = p->csum == IPS_CSUM_PARTIAL && !p->gso_type;
  uint32_t start = partial ? p->csum_start : v->l4, at = start + (partial ? p->csum_offset : rule->csum);
  if (p->csum == IPS_CSUM_FULL || at == start || at + 2 > bytes || wire > p->len) return;
  if (!partial && (v->routing_active || v->is_fragment || bytes < v->l4 + rule->min)) return;
  uint64_t sum = 0;
  if (!partial) { /* the field may hold anything, or a sum for the super-packet's length */
    ips_st16(quote + at, 0);
    sum = ips_csum_pseudo(quote, v->family, v->proto, wire - v->l4);
  }
  uint32_t even = bytes - (bytes - start) % 2; /* the sum goes on at p's byte `even`, at a word's edge */
  sum = ips_csum_bytes(quote + start, even - start, sum);
  sum = ips_csum_bytes(p->data + even, wire - even, sum);
  uint16_t field = (uint16_t)~ips_csum_fold(sum);
  bool zero = start == v->l4 ? rule->zero : p->csum_offset == 6;
  ips_st16(quote + at, !field && zero ? 0xffff : field);
}

static uint32_t put_quote(uint8_t *quote, uint32_t room, const struct ips_pkt *p, const struct ips_view *v) {
  uint32_t wire = wire_length(p, v), bytes = wire < p->len ? wire : p->len;
  if (bytes > room) bytes = room;
  memcpy(quote, p->data, bytes);
  if (p->gso_type) quote_first_segment(quote, bytes, p, v, wire);
  quote_checksum(quote, bytes, p, v, wire);
  return bytes;
}

static void put_header4(uint8_t *out, const uint8_t *source, const uint8_t *destination, uint32_t bytes) {
  enum { INTERNETWORK_CONTROL = 0xc0 }; /* precedence, RFC 1812 4.3.2.5 */
  memset(out, 0, 20);
  out[0] = 0x45;
  out[1] = INTERNETWORK_CONTROL;
  ips_st16(out + 2, ips_be16((uint16_t)bytes));
  out[6] = 0x40; /* DF: identification 0 is never needed, RFC 6864 4.1 */
  out[8] = HOPS;
  out[9] = IPS_PROTO_ICMP;
  memcpy(out + 12, source, 4);
  memcpy(out + 16, destination, 4);
  ips_st16(out + 10, (uint16_t)~ips_csum_fold(ips_csum_bytes(out, 20, 0)));
}

static void put_header6(uint8_t *out, const uint8_t *source, const uint8_t *destination, uint32_t bytes) {
  memset(out, 0, 8);
  out[0] = 0x60;
  ips_st16(out + 4, ips_be16((uint16_t)(bytes - 40)));
  out[6] = IPS_PROTO_ICMP6;
  out[7] = HOPS;
  memcpy(out + 8, source, 16);
  memcpy(out + 24, destination, 16);
}

void ips_icmp_seal(uint8_t *out, unsigned family, const uint8_t *source, const uint8_t *to, uint32_t bytes) {
  uint32_t header = family == 4 ? 20 : 40;
  (family == 4 ? put_header4 : put_header6)(out, source, to, bytes);
  uint64_t pseudo = family == 4 ? 0 : ips_csum_pseudo(out, 6, IPS_PROTO_ICMP6, bytes - header);
  uint64_t sum = ips_csum_bytes(out + header, bytes - header, pseudo);
  ips_st16(out + header + IPS_ICMP_SUM, (uint16_t)~ips_csum_fold(sum));
}

size_t ips_make_error(const struct ips_pkt *p, const struct ips_view *v, enum ips_error_kind kind,
                      uint32_t mtu, const uint8_t *source, uint8_t *out, size_t room) {
  bool is4 = v->family == 4;
  uint32_t header = is4 ? 20 : 40, limit = is4 ? IPS_ICMP4_LONGEST : IPS_ICMP6_LONGEST;
  if (room < limit || ips_all_zero(source, is4 ? 4 : 16)) return 0;
  if (!(is4 ? may_report4(p, v, kind) : may_report6(p, v, kind))) return 0;
  uint8_t *icmp = out + header;
  memset(icmp, 0, IPS_ICMP_HEADER);
  icmp[0] = is4 ? messages[kind].type4 : messages[kind].type6;
  icmp[1] = is4 ? messages[kind].code4 : messages[kind].code6;
  if (kind == IPS_ERR_TOO_BIG && is4) ips_st16(icmp + 6, ips_be16((uint16_t)(mtu < 65535 ? mtu : 65535)));
  if (kind == IPS_ERR_TOO_BIG && !is4) ips_st32(icmp + 4, ips_be32(mtu));
  header += IPS_ICMP_HEADER;
  uint32_t bytes = header + put_quote(out + header, limit - header, p, v);
  ips_icmp_seal(out, v->family, source, ips_field_at(p->data, v->family, IPS_SRC), bytes);
  return bytes;
}

static void swap_addresses(uint8_t *ip, unsigned family) {
  uint8_t *from = ip + (family == 4 ? 12 : 8), keep[16];
  size_t size = family == 4 ? 4 : 16;
  memcpy(keep, from, size);
  memcpy(from, from + size, size);
  memcpy(from + size, keep, size);
}

/* RFC 792, RFC 4443 4.2. Incremental, so that a damaged request makes a damaged reply. */
void ips_make_echo_reply(struct ips_pkt *p, const struct ips_view *v) {
  uint8_t *ip = p->data, *icmp = ip + v->l4, *hops = ip + (v->family == 4 ? 8 : 7);
  swap_addresses(ip, v->family);
  uint16_t before = ips_ld16(hops), type = ips_ld16(icmp);
  *hops = HOPS;
  if (v->family == 4)
    ips_st16(ip + 10, ips_csum_mend(ips_ld16(ip + 10), ips_csum_delta16(before, ips_ld16(hops))));
  icmp[0] = v->family == 4 ? IPS_ICMP4_ECHO_REPLY : IPS_ICMP6_ECHO_REPLY;
  if (ips_l4_csum(p, v) != IPS_CSUM_FULL) return;
  uint16_t field = ips_csum_mend(ips_ld16(icmp + 2), ips_csum_delta16(type, ips_ld16(icmp)));
  /* The one sum in ICMP over nothing but zeros, and the only one whose complement is 0xffff (RFC 1624 3). */
  if (v->family == 4 && !field && ips_all_zero(icmp + 4, p->len - v->l4 - 4u) && !icmp[1]) field = 0xffff;
  ips_st16(icmp + 2, field);
}

size_t ips_error_about(struct ips_pkt *p, int kind, uint32_t mtu, const uint8_t *source, uint8_t *out,
                       size_t room) {
  struct ips_view v;
  if (kind < IPS_ERR_TTL || kind > IPS_ERR_ADMIN || ips_parse(p, &v)) return 0;
  return ips_make_error(p, &v, (enum ips_error_kind)kind, mtu, source, out, room);
}

int ips_answer_echo(struct ips_pkt *p) {
  struct ips_view v;
  if (ips_parse(p, &v) || v.is_fragment || v.proto != (v.family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6))
    return 0;
  if (p->data[v.l4] != (v.family == 4 ? IPS_ICMP4_ECHO : IPS_ICMP6_ECHO) || p->data[v.l4 + 1]) return 0;
  ips_make_echo_reply(p, &v);
  return 1;
}
