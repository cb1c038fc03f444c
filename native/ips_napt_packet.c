/* ips_napt_packet.c: a packet's way through port-translating NAT, in both directions.
 *
 * Fragments: the first one decides for its datagram. The fragment table tells later ones their ports; those
 * that came too early wait there, and are given the first one's new addresses when it comes.
 */
#include "ips_frag.h"
#include "ips_icmp.h"
#include "ips_napt.h"
#include "ips_rewrite.h"
#include "ips_tcp.h"

static bool is_icmp(const struct ips_view *v) {
  return v->proto == (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6);
}

/* Of ICMP only echo has an identifier to be translated: requests leave, replies come in. */
static bool is_translatable(const struct ips_pkt *p, const struct ips_view *v, bool out) {
  if (v->has_ah || v->routing_active) return false;
  if (ips_port_class(v->proto) != 2) return true;
  if (!is_icmp(v)) return false; /* ICMP in IPv6, or the other way round */
  if (v->fragment_at) return true;
  unsigned type = p->data[v->l4];
  if (v->family == 4) return type == (out ? IPS_ICMP4_ECHO : IPS_ICMP4_ECHO_REPLY);
  return type == (out ? IPS_ICMP6_ECHO : IPS_ICMP6_ECHO_REPLY);
}

static int read_ends(const struct ips_napt *n, const struct ips_pkt *p, const struct ips_view *v,
                     uint64_t now_ns, struct ips_ends *e) {
  struct ips_frag_flow f = {0};
  if (v->is_fragment) {
    int verdict = n->frags ? ips_frag_ports(n->frags, p, v, now_ns, &f) : IPS_FRAGMENTS_FULL;
    if (verdict) return verdict;
  } else if (ips_port_class(v->proto) == 2) {
    f.src_port = f.dst_port = ips_be16(ips_ld16(p->data + v->l4 + 4));
  } else if (ips_port_class(v->proto) >= 0 || v->proto == IPS_PROTO_SCTP) {
    f.src_port = ips_be16(ips_ld16(p->data + v->l4));
    f.dst_port = ips_be16(ips_ld16(p->data + v->l4 + 2));
  }
  *e = (struct ips_ends){
      .src_port = f.src_port, .dst_port = f.dst_port, .family = v->family, .proto = v->proto};
  ips_copy_address(e->src, v->family, ips_field_at(p->data, v->family, IPS_SRC));
  ips_copy_address(e->dst, v->family, ips_field_at(p->data, v->family, IPS_DST));
  return IPS_OK;
}

static struct ips_carried carried(const struct ips_pkt *p, const struct ips_view *v, uint32_t worker,
                                  uint64_t now_ns) {
  bool tcp = v->proto == IPS_PROTO_TCP && !v->fragment_at;
  return (struct ips_carried){.tcp_flags = tcp ? p->data[v->l4 + IPS_TCP_FLAGS] : 0, .opens = !v->fragment_at,
                              .bytes = p->total_len, .worker = worker, .now_ns = now_ns};
}

struct early { struct ips_napt *n; const struct ips_turn *turn; uint32_t worker; };

static void translate_early(void *arg, struct ips_pkt *p) {
  const struct early *e = arg;
  struct ips_view v;
  if (ips_parse(p, &v)) return; /* it was parsed before it was held */
  ips_napt_write(p, &v, e->turn);
  if (e->worker < IPS_NAPT_WORKERS && e->n->emit[e->worker].fn)
    e->n->emit[e->worker].fn(e->n->emit[e->worker].arg, p, IPS_EMIT_PACKET);
}

static int finish(struct ips_napt *n, struct ips_pkt *p, const struct ips_view *v, const struct ips_ends *e,
                  const struct ips_turn *turn, uint32_t worker, uint64_t now_ns) {
  if (ips_unlikely(v->is_fragment) && !v->fragment_at) {
    struct ips_frag_flow f = {.src_port = e->src_port, .dst_port = e->dst_port};
    struct early early = {n, turn, worker};
    int verdict = ips_frag_learn(n->frags, p, v, now_ns, &f, translate_early, &early);
    if (verdict) return verdict;
  }
  ips_napt_write(p, v, turn);
  return IPS_OK;
}

static int out(struct ips_napt *n, struct ips_pkt *p, uint32_t worker, uint64_t now_ns, bool asks) {
  struct ips_view v;
  struct ips_ends e;
  struct ips_turn turn = {0};
  int verdict = ips_parse(p, &v);
  if (verdict) return verdict;
  if (ips_unlikely(ips_is_icmp_error(p, &v))) return ips_napt_error_out(n, p, &v);
  const struct ips_napt_group *g = ips_napt_group(n, v.family, ips_field_at(p->data, v.family, IPS_SRC));
  if (!g) return IPS_NO_BINDING;
  if (!is_translatable(p, &v, true)) return IPS_UNTRANSLATABLE;
  if (asks && v.fragment_at) return IPS_HELD; /* whether its first fragment is known, only itself can ask */
  if ((verdict = read_ends(n, p, &v, now_ns, &e))) return verdict;
  struct ips_carried c = carried(p, &v, worker, now_ns);
  c.asks = asks;
  if ((verdict = ips_napt_decide_out(n, &e, g, &c, &turn))) return verdict;
  uint32_t number = ips_napt_number(n, v.family, e.dst);
  if (ips_unlikely(number !=
                   IPS_NONE)) { /* RFC 4787 REQ-9: to an inside end, by its public one, from a public one */
    struct ips_ends seen = e;
    memcpy(seen.src, turn.src_address, 16);
    seen.src_port = turn.src_port;
    if ((verdict = ips_napt_decide_in(n, &seen, number, &c, &turn))) return verdict;
  }
  if (asks) ips_napt_write(p, &v, &turn);
  else if ((verdict = finish(n, p, &v, &e, &turn, worker, now_ns))) return verdict;
  return number == IPS_NONE ? IPS_OK : IPS_HAIRPINNED;
}

static int in(struct ips_napt *n, struct ips_pkt *p, uint32_t worker, uint64_t now_ns, bool asks) {
  struct ips_view v;
  struct ips_ends e;
  struct ips_turn turn = {0};
  int verdict = ips_parse(p, &v);
  if (verdict) return verdict;
  uint32_t number = ips_napt_number(n, v.family, ips_field_at(p->data, v.family, IPS_DST));
  if (number == IPS_NONE) return IPS_NO_BINDING;
  if (ips_unlikely(ips_is_icmp_error(p, &v))) return ips_napt_error_in(n, p, &v, number);
  if (!is_translatable(p, &v, false)) return IPS_UNTRANSLATABLE;
  if (asks && v.fragment_at) return IPS_HELD; /* whether its first fragment is known, only itself can ask */
  if ((verdict = read_ends(n, p, &v, now_ns, &e))) return verdict;
  struct ips_carried c = carried(p, &v, worker, now_ns);
  c.asks = asks;
  if ((verdict = ips_napt_decide_in(n, &e, number, &c, &turn))) return verdict;
  if (!asks) return finish(n, p, &v, &e, &turn, worker, now_ns);
  ips_napt_write(p, &v, &turn);
  return IPS_OK;
}

int ips_napt_out(struct ips_napt *n, struct ips_pkt *p, uint32_t worker, uint64_t now_ns) {
  return out(n, p, worker, now_ns, false);
}
int ips_napt_in(struct ips_napt *n, struct ips_pkt *p, uint32_t worker, uint64_t now_ns) {
  return in(n, p, worker, now_ns, false);
}
int ips_napt_ask(struct ips_napt *n, struct ips_pkt *p, bool is_outer, uint64_t now_ns) {
  return is_outer ? in(n, p, 0, now_ns, true) : out(n, p, 0, now_ns, true);
}
