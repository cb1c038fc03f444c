/* ips_remap_flow.c: which flow a packet to a remapped address is of, and whether it may open one.
 *
 * The flow is the client's: its address and port, the Global IP and its port. An ICMP error is of the flow
 * that it quotes and opens none; a later fragment has its first one's ports (ips_frag.h). TCP is opened by a
 * SYN alone; UDP by anything, QUIC (RFC 9000 17) by packets with a long header; ICMP by all but replies.
 */
#include "ips_frag.h"
#include "ips_icmp.h"
#include "ips_napt.h"
#include "ips_parse.h"
#include "ips_remap.h"
#include "ips_rewrite.h"
#include "ips_tcp.h"

enum { UDP_HEADER = 8, QUIC_LONG = 0x80 };

static bool is_icmp(const struct ips_view *v) {
  return v->proto == (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6);
}
static bool is_echo(unsigned family, unsigned type, bool reply) {
  return type == (family == 4 ? (reply ? IPS_ICMP4_ECHO_REPLY : IPS_ICMP4_ECHO)
                              : (reply ? IPS_ICMP6_ECHO_REPLY : IPS_ICMP6_ECHO));
}
static bool has_ports(unsigned proto) {
  return ips_port_class(proto) == 0 || ips_port_class(proto) == 1 || proto == IPS_PROTO_SCTP;
}

static void take_addresses(struct ips_flow *f, const uint8_t *ip, unsigned family, bool back) {
  size_t size = family == 4 ? 4 : 16;
  f->family = (uint8_t)family;
  memcpy(f->src, ips_field_at(ip, family, back ? IPS_DST : IPS_SRC), size);
  memcpy(f->dst, ips_field_at(ip, family, back ? IPS_SRC : IPS_DST), size);
}

/* The flow of the packet that the error is about, which this node's device had sent. */
static bool quoted_flow(const struct ips_pkt *p, const struct ips_view *v, struct ips_flow *f) {
  uint32_t start = v->l4 + 8u, header = v->family == 4 ? 20 : 40;
  if (v->is_fragment || start + header > p->len) return false;
  const uint8_t *ip = p->data + start;
  struct ips_view inner = {.family = v->family, .proto = ip[9], .l4 = (uint16_t)((ip[0] & 15) * 4)};
  if (ip[0] >> 4 != v->family) return false;
  if (v->family == 4 ? inner.l4 < 20 || ips_be16(ips_ld16(ip + 6)) & 0x1fff
                     : ips_parse_extensions(ip, p->len - start, &inner) || inner.fragment_at)
    return false;
  uint32_t l4 = start + inner.l4;
  take_addresses(f, ip, v->family, true);
  f->proto = inner.proto;
  if (has_ports(inner.proto)) {
    if (l4 + 4 > p->len) return false;
    f->src_port = ips_be16(ips_ld16(p->data + l4 + 2));
    f->dst_port = ips_be16(ips_ld16(p->data + l4));
  } else if (is_icmp(&inner)) {
    if (l4 + 8 > p->len || !(is_echo(v->family, p->data[l4], true) || is_echo(v->family, p->data[l4], false)))
      return false;
    f->src_port = ips_be16(ips_ld16(p->data + l4 + 4));
  }
  return true;
}

static bool opens_udp(const struct ips_pkt *p, const struct ips_view *v) {
  uint32_t at = v->l4 + (uint32_t)UDP_HEADER;
  return at >= p->len || p->data[at] & QUIC_LONG;
}

static bool opens(const struct ips_pkt *p, const struct ips_view *v, bool quic, uint8_t tcp_flags) {
  if (v->proto == IPS_PROTO_TCP)
    return (tcp_flags & (IPS_TCP_SYN | IPS_TCP_ACK | IPS_TCP_RST | IPS_TCP_FIN)) == IPS_TCP_SYN;
  if (v->fragment_at) return true; /* its first one has opened, or was sent where this one will be */
  if (v->proto == IPS_PROTO_UDP) return !quic || opens_udp(p, v);
  return !is_icmp(v) || !is_echo(v->family, p->data[v->l4], true);
}

struct ips_frag_table *ips_remap_frags(const struct ips_worker *w) {
  return w->remaps ? w->remaps->frags : w->napt ? w->napt->frags : NULL;
}

static int fragment(struct ips_worker *w, struct ips_frag_table *frags, const struct ips_pkt *p,
                    const struct ips_view *v, struct ips_remap_packet *out) {
  struct ips_frag_flow ports;
  if (w->asks && v->fragment_at) return IPS_HELD;
  int verdict = frags ? ips_frag_ports(frags, p, v, w->now_ns, &ports) : IPS_FRAGMENTS_FULL;
  if (verdict != IPS_OK) return verdict;
  take_addresses(&out->flow, p->data, v->family, false);
  out->flow.proto = v->proto;
  out->flow.src_port = ports.src_port;
  out->flow.dst_port = is_icmp(v) ? 0 : ports.dst_port;
  out->has_flow = !is_icmp(v) || v->fragment_at || is_echo(v->family, p->data[v->l4], true) ||
                  is_echo(v->family, p->data[v->l4], false);
  out->tcp_flags = v->proto == IPS_PROTO_TCP && !v->fragment_at ? p->data[v->l4 + IPS_TCP_FLAGS] : 0;
  return IPS_OK;
}

int ips_remap_flow_of(struct ips_worker *w, struct ips_frag_table *frags, const struct ips_pkt *p,
                      const struct ips_view *v, bool quic, struct ips_remap_packet *out) {
  *out = (struct ips_remap_packet){0};
  int verdict = IPS_OK;
  if (ips_unlikely(ips_is_icmp_error(p, v))) {
    out->is_error = true;
    out->has_flow = quoted_flow(p, v, &out->flow);
    return IPS_OK;
  }
  if (ips_unlikely(v->is_fragment)) verdict = fragment(w, frags, p, v, out);
  else out->has_flow = ips_session_flow_of(p, v, 0, false, &out->flow, &out->tcp_flags);
  out->opens = verdict == IPS_OK && opens(p, v, quic, out->tcp_flags);
  return verdict;
}
