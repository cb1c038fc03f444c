/* ips_napt_error.c: ICMP errors follow the session of the packet that they quote (RFC 5508 4).
 *
 * From outside: the quoted source is a public end of ours; its mapping and the quoted destination must make
 * a session. From inside: the quoted destination is the inside end; the error leaves with the session's
 * public address, whoever inside made it (REQ-5). One that leaves to a public address of ours goes back
 * inside, both turned (REQ-7). No error opens, keeps or ends a session. The quote may be cut anywhere behind
 * its ports.
 */
#include "ips_napt.h"
#include "ips_rewrite.h"

struct quote { struct ips_ends ends; uint32_t ip, l4, end; }; /* offsets from p->data */

static bool is_echo(unsigned family, unsigned type, bool reply) {
  return type == (family == 4 ? (reply ? IPS_ICMP4_ECHO_REPLY : IPS_ICMP4_ECHO)
                              : (reply ? IPS_ICMP6_ECHO_REPLY : IPS_ICMP6_ECHO));
}

/* reply: of a quoted ICMP packet, that it must be a reply (else a request). */
static int read_quote(const struct ips_pkt *p, const struct ips_view *v, bool reply, struct quote *q) {
  uint32_t start = v->l4 + 8u, end = p->len, header = v->family == 4 ? 20 : 40;
  if (p->len < p->total_len) return IPS_SHORT_L4; /* chained: what may have to change is out of reach */
  if (v->is_fragment) return IPS_UNTRANSLATABLE;
  const uint8_t *ip = p->data + start;
  if (start + header > end || ip[0] >> 4 != v->family) return IPS_BAD_QUOTE;
  struct ips_view inner = {.proto = ip[9], .l4 = (uint16_t)((ip[0] & 15) * 4)};
  if (v->family == 4
          ? (ip[0] & 15) < 5 || (ips_be16(ips_ld16(ip + 6)) & 0x1fff)
          : ips_parse_extensions(ip, end - start, &inner) || inner.fragment_at || inner.routing_active)
    return IPS_BAD_QUOTE;
  int class = ips_port_class(inner.proto);
  uint32_t need = class == 2 ? 8 : class >= 0 || inner.proto == IPS_PROTO_SCTP ? 4 : 0;
  if (start + inner.l4 + need > end) return IPS_BAD_QUOTE;
  const uint8_t *l4 = ip + inner.l4;
  *q = (struct quote){.ip = start, .l4 = start + inner.l4, .end = end};
  q->ends.family = v->family;
  q->ends.proto = inner.proto;
  ips_copy_address(q->ends.src, v->family, ips_field_at(ip, v->family, IPS_SRC));
  ips_copy_address(q->ends.dst, v->family, ips_field_at(ip, v->family, IPS_DST));
  if (class == 2) {
    if (inner.proto != (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6) ||
        !is_echo(v->family, l4[0], reply))
      return IPS_NO_SESSION;
    q->ends.src_port = q->ends.dst_port = ips_be16(ips_ld16(l4 + 4));
  } else if (need) {
    q->ends.src_port = ips_be16(ips_ld16(l4));
    q->ends.dst_port = ips_be16(ips_ld16(l4 + 2));
  }
  return IPS_OK;
}

static bool has_session(const struct ips_napt *n, const struct ips_flow *f, struct ips_found *found) {
  struct ips_place place = ips_place_of(n->sessions, f);
  return ips_session_find(n->sessions, &place, found) && ips_word_kind(found->word) == IPS_SESSION_NAPT;
}

/* The quoted field becomes this; returns what that adds to the sum of the bytes. */
static uint16_t change_quote(uint8_t *data, const struct quote *q, enum ips_field f, const uint8_t *address,
                             uint16_t port) {
  unsigned family = q->ends.family, proto = q->ends.proto;
  uint8_t *ip = data + q->ip, *l4 = data + q->l4;
  uint16_t before = ips_ld16(ip + 10),
           delta = ips_address_delta(ips_field_at(ip, family, f), family, address);
  uint16_t total = delta, ports = 0;
  ips_replace_address(ip, family, f, address, delta);
  if (family == 4) total = ips_csum_join(total, ips_csum_delta16(before, ips_ld16(ip + 10)));
  int class = ips_port_class(proto);
  if (class >= 0) {
    uint8_t *at = l4 + (class == 2 ? 4 : f == IPS_SRC ? 0 : 2);
    ports = ips_csum_delta16(ips_ld16(at), ips_be16(port));
    ips_st16(at, ips_be16(port));
    total = ips_csum_join(total, ports);
  }
  bool zero, pseudo;
  unsigned sum_at = ips_napt_sum_at(family, proto, &zero, &pseudo);
  if (!sum_at || q->l4 + sum_at + 2 > q->end) return total;
  before = ips_ld16(l4 + sum_at);
  ips_st16(l4 + sum_at,
           ips_csum_mend_as(IPS_CSUM_FULL, zero, before, ips_csum_join(pseudo ? delta : 0, ports)));
  return ips_csum_join(total, ips_csum_delta16(before, ips_ld16(l4 + sum_at)));
}

/* turn: as of a packet that goes the way of the error: its source is the quote's destination. */
static void write_error(struct ips_pkt *p, const struct ips_view *v, const struct quote *q,
                        const struct ips_turn *turn) {
  uint16_t inside = 0, outside = 0;
  for (enum ips_field f = IPS_SRC; f <= IPS_DST; f++) {
    if (!(f == IPS_SRC ? turn->src : turn->dst)) continue;
    const uint8_t *address = f == IPS_SRC ? turn->src_address : turn->dst_address;
    uint16_t port = f == IPS_SRC ? turn->src_port : turn->dst_port;
    uint16_t delta = ips_address_delta(ips_field_at(p->data, v->family, f), v->family, address);
    inside = ips_csum_join(inside, change_quote(p->data, q, f == IPS_SRC ? IPS_DST : IPS_SRC, address, port));
    ips_replace_address(p->data, v->family, f, address, delta);
    if (v->family == 6) outside = ips_csum_join(outside, delta);
  }
  enum ips_csum mode = ips_l4_csum(p, v);
  uint8_t *field = p->data + v->l4 + IPS_ICMP_SUM;
  uint16_t total = mode == IPS_CSUM_PARTIAL ? outside : ips_csum_join(inside, outside);
  ips_st16(field, ips_csum_mend_as(mode, false, ips_ld16(field), total));
}

/* The error goes to a public end of ours: who is behind it? `peer`: the other end of the quoted packet. */
static int turn_in(const struct ips_napt *n, const struct quote *q, uint32_t number, const uint8_t *peer,
                   uint16_t peer_port, struct ips_turn *turn) {
  struct ips_ends back = q->ends;
  struct ips_flow f;
  struct ips_found found;
  memcpy(back.src, peer, 16);
  memcpy(back.dst, q->ends.src, 16);
  back.src_port = peer_port;
  back.dst_port = q->ends.src_port;
  if (!ips_napt_flow_in(n, &back, number, &f) || !has_session(n, &f, &found)) return IPS_NO_SESSION;
  turn->dst = true;
  memcpy(turn->dst_address, f.src, 16);
  turn->dst_port = f.src_port;
  return IPS_OK;
}

int ips_napt_error_in(struct ips_napt *n, struct ips_pkt *p, const struct ips_view *v, uint32_t number) {
  struct quote q;
  struct ips_turn turn = {0};
  int verdict = read_quote(p, v, false, &q);
  if (verdict) return verdict;
  if (ips_napt_number(n, v->family, q.ends.src) != number) return IPS_BAD_QUOTE; /* an error to X quotes X */
  verdict = turn_in(n, &q, number, q.ends.dst, q.ends.dst_port, &turn);
  if (verdict == IPS_OK) write_error(p, v, &q, &turn);
  return verdict;
}

int ips_napt_error_out(struct ips_napt *n, struct ips_pkt *p, const struct ips_view *v) {
  struct quote q;
  struct ips_turn turn = {0};
  struct ips_found found;
  int verdict = read_quote(p, v, true, &q);
  if (verdict) return verdict;
  const struct ips_napt_group *g = ips_napt_group(n, v->family, q.ends.dst);
  if (!g) return IPS_NO_BINDING;
  const uint8_t *to = ips_field_at(p->data, v->family, IPS_DST);
  if (memcmp(to, q.ends.src, v->family == 4 ? 4 : 16)) return IPS_BAD_QUOTE;
  bool echo = ips_port_class(q.ends.proto) == 2;
  struct ips_flow f = {.src_port = q.ends.dst_port,
                       .dst_port = echo ? 0 : q.ends.src_port,
                       .family = v->family,
                       .proto = q.ends.proto,
                       .realm = g->realm};
  memcpy(f.src, q.ends.dst, 16);
  memcpy(f.dst, q.ends.src, 16);
  if (!has_session(n, &f, &found)) return IPS_NO_SESSION;
  turn.src = true;
  ips_address_copy(&n->sessions->addresses, found.number, turn.src_address);
  turn.src_port = ips_port_class(q.ends.proto) < 0 ? q.ends.dst_port : found.mapped_port;
  uint32_t number = ips_napt_number(n, v->family, q.ends.src);
  if (number != IPS_NONE && (verdict = turn_in(n, &q, number, turn.src_address, turn.src_port, &turn)))
    return verdict;
  write_error(p, v, &q, &turn);
  return number == IPS_NONE ? IPS_OK : IPS_HAIRPINNED;
}
