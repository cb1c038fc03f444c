/* ips_remap_lane.c: ordinary packets of remapped addresses, with what the express lane has found out already.
 *
 * Whole TCP and UDP packets to an address that this node takes, and no other remap: a flow of this node is delivered, a
 * flow of the giver goes to it. These are two rows of the table (ips_remap.c), and nearly all packets; any other,
 * and whatever has to be judged, answered, fragmented or refused, is declined, unchanged, and goes the whole way, which
 * alone says what is right. tests/unit/test_remap_lane.py holds one against the other.
 *
 * What was just written in pieces is not read back in others: the processor would wait for it. So flows and hashes are
 * made of words in registers, and channel headers of templates (ips_remap_front.h).
 */
#include "ips_lane.h"
#include "ips_remap.h"
#include "ips_tcp.h"
#include "ips_tunnel.h"
#include <stddef.h>

enum { DECLINED = -1 };

static inline uint32_t l4_of(unsigned family) { return family == 4 ? 20 : 40; }
static inline uint8_t proto_of(const struct ips_ordinary *o, unsigned family) {
  return o->sum_at == l4_of(family) + 6 ? IPS_PROTO_UDP : IPS_PROTO_TCP;
}
static inline ips_u128 global_of(const struct ips_ordinary *o, unsigned family) {
  return family == 4 ? (ips_u128)ips_be32(o->to4) << 96 : ips_pair(ips_be64(o->to_hi), ips_be64(o->to_lo));
}

/* ---- where its flow is ---- */

_Static_assert(offsetof(struct ips_flow, src_port) == 32 && offsetof(struct ips_flow, dst_port) == 34 &&
                 offsetof(struct ips_flow, family) == 36 && offsetof(struct ips_flow, proto) == 37,
               "a flow's last word is as find_place makes it");

/* The client's flow: what ips_place_of makes of it. */
IPS_HOT void find_place(const struct ips_sessions *t, const struct ips_ordinary *o, unsigned family, struct ips_place *p) {
  const uint8_t *ip = o->ip;
  uint64_t ports = ips_ld32(ip + l4_of(family)), hi = o->to_hi, lo = o->to_lo;
  if (family == 6) __asm__("" : "+r"(hi), "+r"(lo)); /* not both at once: they were not written so */
  p->flow[0] = family == 4 ? ips_ld32(ip + 12) : ips_ld64(ip + 8);
  p->flow[1] = family == 4 ? 0 : ips_ld64(ip + 16);
  p->flow[2] = family == 4 ? o->to4 : hi;
  p->flow[3] = family == 4 ? 0 : lo;
  p->flow[4] = ips_be16((uint16_t)ports) | (uint64_t)ips_be16((uint16_t)(ports >> 16)) << 16 | (uint64_t)family << 32 |
              (uint64_t)proto_of(o, family) << 40;
  p->hash = ips_place_hash(t, p->flow);
}

static inline const struct ips_remap *named(const struct ips_remaps *s, const struct ips_ordinary *o) {
  return &s->at[o->declined % IPS_REMAPS];
}

/* The first session of a chain, all of what a look-up reads. */
static inline void ask_for_first(const struct ips_sessions *t, const struct ips_place *p) {
  uint32_t i = ips_peek(ips_chain_of(t, p)->head);
  if (i == IPS_NONE) return;
  const uint8_t *node = (const uint8_t *)&t->nodes[i];
  __builtin_prefetch(node);
  __builtin_prefetch(node + sizeof t->nodes->flow - 1);
  __builtin_prefetch(node + offsetof(struct ips_session_node, word));
}

IPS_HOT void ask(const struct ips_worker *w, const struct ips_ordinary *o, const struct ips_place *p) {
  const struct ips_sessions *followed = named(w->remaps, o)->state.followed;
  __builtin_prefetch(ips_chain_of(w->sessions, p));
  if (followed) __builtin_prefetch(ips_chain_of(followed, p));
}

void ips_remap_places(const struct ips_worker *w, const struct ips_ordinary *o, struct ips_place *places, uint32_t n,
                      unsigned family) {
  for (uint32_t i = 0; i < n; i++) {
    if (family == 4) find_place(w->sessions, &o[i], 4, &places[i]);
    else find_place(w->sessions, &o[i], 6, &places[i]);
    ask(w, &o[i], &places[i]);
  }
  for (uint32_t i = 0; i < n; i++) {
    const struct ips_sessions *followed = named(w->remaps, &o[i])->state.followed;
    ask_for_first(w->sessions, &places[i]);
    if (followed) ask_for_first(followed, &places[i]);
  }
}

/* ---- what becomes of it ---- */

/* The only remap of the address, if this node takes it. */
static const struct ips_remap *taken(const struct ips_remaps *s, const struct ips_ordinary *o, unsigned family) {
  const struct ips_remap *first = named(s, o);
  if (ips_likely(first->is_alone)) return first;
  ips_u128 global = global_of(o, family);
  for (const struct ips_remap *m = first + 1; m < s->at + s->n; m++)
    if (ips_remap_has(m, family, global)) return NULL;
  return first->r.role == IPS_REMAP_TAKING ? first : NULL;
}

/* Not of a SYN, which is declined before: half closed is open. */
static inline bool is_open(const struct ips_found *f, uint8_t proto) {
  return proto != IPS_PROTO_TCP || ips_word_state(f->word) < IPS_STATE_CLOSED;
}

IPS_HOT void translate(const struct ips_ordinary *o, unsigned family) {
  ips_st16(o->ip + o->sum_at, o->l4_sum);
  if (family == 4) {
    ips_st16(o->ip + 10, o->ip_sum);
    ips_st32(o->ip + 16, o->to4);
  } else {
    ips_st64(o->ip + 24, o->to_hi);
    ips_st64(o->ip + 32, o->to_lo);
  }
}

/* A re-addressing channel: the sums once more, for another address. */
IPS_HOT void readdress(const struct ips_ordinary *o, unsigned family, const struct ips_remap *m) {
  struct ips_lane_group g;
  ips_u128 to = ips_ld_address(family, m->end[IPS_REMAP_FINAL].local) | (global_of(o, family) & ~m->mask);
  ips_lane_bring(&g, 0, o->ip, family);
  g.sum_at[0] = o->sum_at;
  if (family == 4) g.ip_sum[0] = ips_ld16(o->ip + 10), g.new4[0] = (uint32_t)(to >> 96);
  else g.new_hi[0] = ips_hi(to), g.new_lo[0] = ips_lo(to);
  ips_lane_sums(&g, 1, family);
  ips_lane_write(&g, 0, family);
}

/* As ips_flow_entropy, of a packet that has been translated, of flow f. */
IPS_HOT uint16_t entropy_of(const struct ips_ordinary *o, const uint64_t *f, unsigned family) {
  uint8_t proto = proto_of(o, family);
  uint32_t h = ips_entropy_mix(proto, proto == IPS_PROTO_TCP ? ips_ld32(o->ip + l4_of(family)) : 0);
  for (unsigned i = 0; i < 4; i++) {
    if (family == 4 && i % 2) continue;
    h = ips_entropy_mix(h, (uint32_t)f[i]);
    if (family == 6) h = ips_entropy_mix(h, (uint32_t)(f[i] >> 32));
  }
  return (uint16_t)(h >> 16);
}

IPS_HOT void encapsulate(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, const uint64_t *flow,
                         unsigned family, const struct ips_remap_front *front) {
  const uint8_t *ip = o->ip;
  struct ips_front_of of = {.ip_len = o->ip_len, .ip_id = w->ip_id++};
  of.ttl = family == 4 ? ip[8] : ip[7];
  of.tos = family == 4 ? ip[1] : (uint8_t)(ips_be16(ips_ld16(ip)) >> 4);
  of.df = family == 6 || ip[6] & 0x40;
  if (ips_front_has_entropy(front)) of.entropy = entropy_of(o, flow, family);
  translate(o, family);
  ips_front_write(o->ip - front->bytes, front, &of);
  p->data -= front->bytes;
  p->headroom -= front->bytes;
  p->len = p->total_len = o->ip_len + front->bytes;
}

IPS_HOT int follow(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, const uint64_t *flow, unsigned family,
                   const struct ips_remap *m) {
  const struct ips_remap_front *front = &m->front; /* re-addressing: 0 bytes */
  uint32_t limit = ips_path_mtu(&w->shared->paths, &m->end[IPS_REMAP_FINAL], w->now_ns);
  if (ips_unlikely(o->ip_len + front->bytes > (limit < UINT16_MAX ? limit : UINT16_MAX))) return DECLINED;
  if (ips_unlikely(p->headroom < front->bytes)) return DECLINED;
  if (ips_likely(!m->rewrites)) {
    encapsulate(w, p, o, flow, family, front);
  } else {
    p->len = p->total_len = o->ip_len;
    readdress(o, family, m);
  }
  ips_remap_count(w, m, IPS_RM_FOLLOWED);
  return IPS_FOLLOWED;
}

IPS_HOT int ordinary(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, const struct ips_place *place,
                     unsigned family) {
  const struct ips_remap *m = taken(w->remaps, o, family);
  uint32_t bytes = p->total_len;
  uint8_t proto = proto_of(o, family);
  uint8_t tcp_flags = proto == IPS_PROTO_TCP ? o->ip[l4_of(family) + IPS_TCP_FLAGS] : 0;
  if (ips_unlikely(!m || w->asks || tcp_flags & IPS_TCP_SYN)) return DECLINED;
  struct ips_found f;
  int verdict = IPS_OK;
  if (ips_session_search(w->sessions, place, &f)) {
    if (!is_open(&f, proto)) return DECLINED;
    ips_session_see_at(w->sessions, w->index, place, &f, IPS_SEE_MIDSTREAM | IPS_SEE_ONE_SIDED, tcp_flags, bytes, NULL,
                       w->now_ns);
    p->len = p->total_len = o->ip_len;
    translate(o, family);
    ips_remap_count(w, m, IPS_RM_HERE);
  } else {
    if (!ips_session_search(m->state.followed, place, &f) || !is_open(&f, proto)) return DECLINED;
    verdict = follow(w, p, o, place->flow, family, m);
    if (ips_unlikely(verdict == DECLINED)) return DECLINED;
  }
  p->counter = o->cell;
  p->endpoint = o->endpoint;
  return ips_worker_count(w, IPS_INNER, verdict, o->cell, bytes);
}

int ips_remap_ordinary(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, const struct ips_place *place,
                       unsigned family) {
  return family == 4 ? ordinary(w, p, o, place, 4) : ordinary(w, p, o, place, 6);
}

IPS_HOT int single(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, unsigned family) {
  struct ips_place place;
  find_place(w->sessions, o, family, &place);
  ask(w, o, &place);
  return ordinary(w, p, o, &place, family);
}

int ips_remap_single(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, unsigned family) {
  return family == 4 ? single(w, p, o, 4) : single(w, p, o, 6);
}
