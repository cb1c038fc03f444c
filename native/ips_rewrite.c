/* ips_rewrite.c: translation of ICMP errors with the packet they quote, MSS
 * clamping, and the door of ips_api.h to the inline packet functions.
 *
 * An error to X quotes a packet from X (RFC 792, RFC 4443 3), cut anywhere.
 * First everything is found that has to change (find_quote, which may refuse), then it is
 * changed, inside out; each change reports its delta, and the ICMP checksum, which
 * covers them all, takes the sum. That the quoted address and a quoted checksum over it
 * cancel is thereby used where it is true and not assumed where it is not: SCTP, a
 * quote cut before its checksum, a UDP checksum of 0.
 */
#include "ips_rewrite.h"

struct quote { /* offsets from p->data; 0: not quoted, or not to be changed */
  uint32_t ip, l4_csum;
  bool zero; /* rule of the quoted checksum */
};

/* End of the quoted packet. RFC 4884: a length says where the quote ends and extensions
 * begin, at 128 bytes or later; IPv4 needs fewer (60 of header and 20), so only IPv6 looks. */
static uint32_t quote_end(const struct ips_pkt *p, const struct ips_view *v) {
  uint32_t start = v->l4 + 8u, bytes = p->data[v->l4 + 4] * 8u;
  bool extended = v->family == 6 && (p->data[v->l4] == 1 || p->data[v->l4] == 3);
  return extended && bytes >= 128 && start + bytes < p->len ? start + bytes : p->len;
}

/* Where the quoted packet keeps a checksum that covers field f of its addresses. */
static void find_quoted_csum(const uint8_t *ip, uint32_t bytes, unsigned family, enum ips_field f,
                             struct quote *q) {
  struct ips_view v = {.l4 = (uint16_t)((ip[0] & 15) * 4)};
  if (family == 4) {
    v.proto = ip[9];
    v.fragment_at = ips_be16(ips_ld16(ip + 6)) & 0x1fff;
  } else if (ips_parse_extensions(ip, bytes, &v)) {
    return;
  }
  const struct ips_l4_rule *rule = ips_l4_rule(family, v.proto);
  if (!rule->csum || v.fragment_at || (v.routing_active && f == IPS_DST)) return;
  if (v.l4 + rule->csum + 2u > bytes) return;
  q->l4_csum = q->ip + v.l4 + rule->csum;
  q->zero = rule->zero;
}

/* f: the outer field that changes; in the quote it is the opposite one. */
static int find_quote(const struct ips_pkt *p, const struct ips_view *v, enum ips_field f,
                      const uint8_t *address, struct quote *q) {
  uint32_t start = v->l4 + 8u, end = quote_end(p, v), size = v->family == 4 ? 4 : 16;
  enum ips_field opposite = f == IPS_DST ? IPS_SRC : IPS_DST;
  const uint8_t *ip = p->data + start, *old = ips_field_at(p->data, v->family, f);
  if (start == end || (v->routing_active && f == IPS_DST)) return IPS_OK;
  if (ip[0] >> 4 != v->family || (v->family == 4 && (ip[0] & 15) < 5)) return IPS_BAD_QUOTE;
  uint32_t at = (uint32_t)(ips_field_at(ip, v->family, opposite) - ip);
  if (start + at + size > end) return IPS_OK;
  if (memcmp(ip + at, old, size)) {
    /* Nobody reports to another than the sender. A device that forwards may report about packets to
     * others, but one to the address it is about to get could not be told apart on the way back. */
    return f == IPS_DST || !memcmp(ip + at, address, size) ? IPS_BAD_QUOTE : IPS_OK;
  }
  q->ip = start;
  find_quoted_csum(ip, end - start, v->family, opposite, q);
  return IPS_OK;
}

static uint16_t mend_quote(uint8_t *data, unsigned family, enum ips_field f, const uint8_t *address,
                           uint16_t delta, const struct quote *q) {
  uint8_t *ip = data + q->ip;
  uint16_t before = ips_ld16(ip + 10), total = delta;
  ips_replace_address(ip, family, f, address, delta);
  if (family == 4) total = ips_csum_join(total, ips_csum_delta16(before, ips_ld16(ip + 10)));
  if (!q->l4_csum) return total;
  uint8_t *field = data + q->l4_csum;
  before = ips_ld16(field);
  ips_st16(field, ips_csum_mend_as(IPS_CSUM_FULL, q->zero, before, delta));
  return ips_csum_join(total, ips_csum_delta16(before, ips_ld16(field)));
}

int ips_rewrite_error(struct ips_pkt *p, const struct ips_view *v, enum ips_field f, const uint8_t *address) {
  struct quote q = {0};
  if (p->len < p->total_len) return IPS_SHORT_L4; /* chained: what may have to change is out of reach */
  int verdict = find_quote(p, v, f, address, &q);
  if (verdict) return verdict;
  uint16_t delta = ips_address_delta(ips_field_at(p->data, v->family, f), v->family, address), inside = 0;
  if (q.ip)
    inside = mend_quote(p->data, v->family, f == IPS_DST ? IPS_SRC : IPS_DST, address, delta, &q);
  ips_replace_address(p->data, v->family, f, address, delta);
  enum ips_csum mode = ips_l4_csum(p, v);
  bool covered = v->family == 6 && !(v->routing_active && f == IPS_DST);
  if (mode == IPS_CSUM_PARTIAL) inside = 0; /* whoever completes it sums what is there by then */
  uint8_t *field = p->data + v->l4 + 2;
  ips_st16(field,
           ips_csum_mend_as(mode, false, ips_ld16(field), covered ? ips_csum_join(inside, delta) : inside));
  return IPS_OK;
}

int ips_rewrite_quoted(struct ips_pkt *p, const struct ips_view *v, enum ips_field f, const uint8_t *address) {
  if (p->len < p->total_len) return IPS_SHORT_L4;
  uint32_t start = v->l4 + 8u, end = quote_end(p, v);
  uint8_t *ip = p->data + start;
  if (end < start + (v->family == 4 ? 20u : 40u) || ip[0] >> 4 != v->family) return IPS_OK;
  if (v->family == 4 && (ip[0] & 15) < 5) return IPS_BAD_QUOTE;
  struct quote q = {.ip = start};
  find_quoted_csum(ip, end - start, v->family, f, &q);
  uint16_t delta = ips_address_delta(ips_field_at(ip, v->family, f), v->family, address);
  uint16_t inside = mend_quote(p->data, v->family, f, address, delta, &q);
  enum ips_csum mode = ips_l4_csum(p, v);
  uint8_t *field = p->data + v->l4 + 2;
  if (mode != IPS_CSUM_PARTIAL) ips_st16(field, ips_csum_mend_as(mode, false, ips_ld16(field), inside));
  return IPS_OK;
}

/* RFC 9293 3.2; options end at the data offset or where the packet does. */
void ips_clamp_syn(struct ips_pkt *p, const struct ips_view *v, unsigned mss) {
  uint8_t *tcp = p->data + v->l4;
  uint32_t end = ips_tcp_header(tcp), room = p->len - v->l4;
  if (end > room) end = room;
  for (uint32_t at = 20; at < end && tcp[at];) {
    if (tcp[at] == 1) {
      at++;
      continue;
    }
    if (at + 2 > end || tcp[at + 1] < 2 || at + tcp[at + 1] > end) return;
    if (tcp[at] == 2 && tcp[at + 1] == 4) {
      uint16_t before = ips_ld16(tcp + at + 2), after = ips_be16((uint16_t)mss);
      if (mss >= ips_be16(before)) return;
      uint16_t delta = ips_csum_delta16(before, after);
      if (at % 2) delta = __builtin_bswap16(delta); /* straddles two words: RFC 1071 2 B */
      ips_st16(tcp + at + 2, after);
      if (ips_l4_csum(p, v) == IPS_CSUM_FULL)
        ips_st16(tcp + IPS_TCP_SUM, ips_csum_mend(ips_ld16(tcp + IPS_TCP_SUM), delta));
      return;
    }
    at += tcp[at + 1];
  }
}

int ips_check(struct ips_pkt *p, struct ips_view *v) { return ips_parse(p, v); }

int ips_translate(struct ips_pkt *p, int field, const uint8_t *address) {
  struct ips_view v;
  int verdict = ips_parse(p, &v);
  return verdict ? verdict : ips_rewrite(p, &v, field == IPS_SRC ? IPS_SRC : IPS_DST, address);
}

int ips_clamp(struct ips_pkt *p, uint32_t mss) {
  struct ips_view v;
  int verdict = ips_parse(p, &v);
  if (!verdict) ips_clamp_mss(p, &v, mss);
  return verdict;
}
