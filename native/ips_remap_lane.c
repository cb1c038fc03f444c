/* ips_remap_lane.c: ordinary packets of remapped addresses, with what the express lane has found out already.
 *
 * Whole TCP and UDP packets to an address that this node takes, and no other remap: a flow of this node is delivered, a
 * flow of the giver goes to it. These are two rows of the table (ips_remap.c), and nearly all packets; any other,
 * and whatever has to be judged, answered, fragmented or refused, is declined, unchanged, and goes the whole way, which
 * alone says what is right. tests/unit/test_remap_lane.py holds one against the other.
 */
#include "ips_encap.h"
#include "ips_lane.h"
#include "ips_remap.h"
#include "ips_tcp.h"
#include "ips_tunnel.h"

enum { DECLINED = -1 };

/* The only remap of the address, if this node takes it. */
static const struct ips_remap *taken(const struct ips_remaps *s, unsigned family, ips_u128 global) {
  const struct ips_remap *found = NULL;
  for (uint32_t i = 0; i < s->n; i++) {
    if (ips_likely(!ips_remap_has(&s->at[i], family, global))) continue;
    if (found || s->at[i].r.role != IPS_REMAP_TAKING) return NULL;
    found = &s->at[i];
  }
  return found;
}

static struct ips_flow flow_of(const uint8_t *ip, unsigned family, uint32_t l4, uint8_t proto, const uint8_t *global) {
  struct ips_flow f = {.family = (uint8_t)family, .proto = proto};
  memcpy(f.src, ip + (family == 4 ? 12 : 8), family == 4 ? 4 : 16);
  memcpy(f.dst, global, family == 4 ? 4 : 16);
  f.src_port = ips_be16(ips_ld16(ip + l4));
  f.dst_port = ips_be16(ips_ld16(ip + l4 + 2));
  return f;
}

/* Not of a SYN, which is declined before: half closed is open. */
static bool is_open(const struct ips_found *f, uint8_t proto) {
  return proto != IPS_PROTO_TCP || ips_word_state(f->word) < IPS_STATE_CLOSED;
}

static void write_sums(uint8_t *ip, const struct ips_ordinary *o, unsigned family) {
  ips_st16(ip + o->sum_at, o->l4_sum);
  if (family == 4) ips_st16(ip + 10, o->ip_sum);
  memcpy(ip + (family == 4 ? 16 : 24), o->to, family == 4 ? 4 : 16);
}

/* A re-addressing channel: the sums once more, for another address. */
static void readdress(uint8_t *ip, struct ips_ordinary *o, unsigned family, const struct ips_remap *m, ips_u128 global) {
  struct ips_lane_group g;
  ips_u128 to = ips_ld_address(family, m->end[IPS_REMAP_FINAL].local) | (global & ~m->mask);
  ips_lane_bring(&g, 0, ip, family);
  g.ip[0] = ip;
  g.sum_at[0] = o->sum_at;
  if (family == 4) g.ip_sum[0] = ips_ld16(ip + 10), g.new4[0] = (uint32_t)(to >> 96);
  else g.new_hi[0] = ips_hi(to), g.new_lo[0] = ips_lo(to);
  ips_lane_sums(&g, 1, family);
  ips_lane_write(&g, 0, family);
}

static int follow(struct ips_worker *w, struct ips_pkt *p, struct ips_ordinary *o, unsigned family, const struct ips_remap *m,
                  ips_u128 global) {
  const struct ips_endpoint_rec *e = &m->end[IPS_REMAP_FINAL];
  uint32_t limit = ips_path_mtu(&w->shared->paths, e, w->now_ns);
  uint32_t overhead = m->rewrites ? 0 : ips_encap_overhead(e);
  if (ips_unlikely(o->ip_len + overhead > (limit < UINT16_MAX ? limit : UINT16_MAX))) return DECLINED;
  if (ips_unlikely(p->headroom < overhead)) return DECLINED;
  uint8_t *ip = p->data;
  p->len = p->total_len = o->ip_len;
  if (m->rewrites) {
    readdress(ip, o, family, m, global);
  } else {
    struct ips_view v = {.family = (uint8_t)family, .proto = o->sum_at == 26 || o->sum_at == 46 ? IPS_PROTO_UDP : IPS_PROTO_TCP,
                         .l4 = family == 4 ? 20 : 40, .ip_len = o->ip_len, .dont_fragment = family == 6 || ip[6] & 0x40};
    v.ttl = family == 4 ? ip[8] : ip[7];
    v.tos = family == 4 ? ip[1] : (uint8_t)(ips_be16(ips_ld16(ip)) >> 4);
    write_sums(ip, o, family);
    ips_encap(p, &v, e, ips_flow_entropy(p, &v), w->ip_id++); /* cannot fail: all of it was asked */
  }
  ips_remap_count(w, m, IPS_RM_FOLLOWED);
  return IPS_FOLLOWED;
}

int ips_remap_ordinary(struct ips_worker *w, struct ips_pkt *p, struct ips_ordinary *o, unsigned family) {
  ips_u128 global = ips_ld_address(family, o->to);
  const struct ips_remap *m = taken(w->remaps, family, global);
  uint32_t l4 = family == 4 ? 20 : 40, bytes = p->total_len;
  uint8_t proto = o->sum_at == l4 + 6 ? IPS_PROTO_UDP : IPS_PROTO_TCP;
  uint8_t tcp_flags = proto == IPS_PROTO_TCP ? p->data[l4 + IPS_TCP_FLAGS] : 0;
  if (ips_unlikely(!m || w->asks || tcp_flags & IPS_TCP_SYN)) return DECLINED;
  struct ips_flow flow = flow_of(p->data, family, l4, proto, o->to);
  struct ips_place place = ips_place_of(w->sessions, &flow);
  struct ips_found f;
  int verdict = IPS_OK;
  __builtin_prefetch(ips_chain_of(m->state.followed, &place));
  if (ips_session_find(w->sessions, &place, &f)) {
    if (!is_open(&f, proto)) return DECLINED;
    ips_session_see_at(w->sessions, w->index, &place, &f, IPS_SEE_MIDSTREAM | IPS_SEE_ONE_SIDED, tcp_flags, bytes, NULL, w->now_ns);
    p->len = p->total_len = o->ip_len;
    write_sums(p->data, o, family);
    ips_remap_count(w, m, IPS_RM_HERE);
  } else {
    if (!ips_session_find(m->state.followed, &place, &f) || !is_open(&f, proto)) return DECLINED;
    verdict = follow(w, p, o, family, m, global);
    if (verdict == DECLINED) return DECLINED;
  }
  p->counter = o->cell;
  p->endpoint = o->endpoint;
  return ips_worker_count(w, IPS_INNER, verdict, o->cell, bytes);
}
