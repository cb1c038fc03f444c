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

/* Into a whole register, once and by itself: the compiler would like to make pairs of words that were written one by one, or
 * keep an octet on the stack and read four of them back; either waits until all of it is in the cache. */
#define SCALAR(word) __asm__("" : "+r"(word))

static inline uint32_t l4_of(unsigned family) { return family == 4 ? 20 : 40; }
static inline uint32_t proto_of(const struct ips_ordinary *o, unsigned family) {
  uint32_t proto = o->sum_at == l4_of(family) + 6 ? IPS_PROTO_UDP : IPS_PROTO_TCP;
  SCALAR(proto);
  return proto;
}
static inline ips_u128 global_of(const struct ips_ordinary *o, unsigned family) {
  return family == 4 ? (ips_u128)ips_be32(o->to4) << 96 : ips_pair(ips_be64(o->to_hi), ips_be64(o->to_lo));
}

/* ---- where its flow is ---- */

_Static_assert(offsetof(struct ips_flow, src_port) == 32 && offsetof(struct ips_flow, dst_port) == 34 &&
                 offsetof(struct ips_flow, family) == 36 && offsetof(struct ips_flow, proto) == 37,
               "a flow's last word is as find_place makes it");

/* The client's flow: what ips_place_of makes of it. */
IPS_HOT void find_place(const struct ips_sessions *t, const struct ips_ordinary *o, uint32_t proto, unsigned family,
                        struct ips_place *p) {
  const uint8_t *ip = o->ip;
  uint32_t ports = ips_ld32(ip + l4_of(family));
  uint64_t hi = o->to_hi, lo = o->to_lo;
  if (family == 6) {
    SCALAR(hi);
    SCALAR(lo);
  }
  p->flow[0] = family == 4 ? ips_ld32(ip + 12) : ips_ld64(ip + 8);
  p->flow[1] = family == 4 ? 0 : ips_ld64(ip + 16);
  p->flow[2] = family == 4 ? o->to4 : hi;
  p->flow[3] = family == 4 ? 0 : lo;
  ports = ips_be32(ports << 16 | ports >> 16); /* each of them swapped, in its place */
  p->flow[4] = ports | (uint64_t)(proto << 8 | family) << 32;
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

void ips_remap_places(const struct ips_worker *w, const struct ips_ordinary *o, struct ips_place *places, uint32_t n,
                      unsigned family) {
  for (uint32_t i = 0; i < n; i++) {
    if (family == 4) find_place(w->sessions, &o[i], proto_of(&o[i], 4), 4, &places[i]);
    else find_place(w->sessions, &o[i], proto_of(&o[i], 6), 6, &places[i]);
    const struct ips_sessions *followed = named(w->remaps, &o[i])->state.followed;
    __builtin_prefetch(ips_chain_of(w->sessions, &places[i]));
    if (followed) __builtin_prefetch(ips_chain_of(followed, &places[i]));
  }
  for (uint32_t i = 0; i < n; i++) {
    const struct ips_sessions *followed = named(w->remaps, &o[i])->state.followed;
    ask_for_first(w->sessions, &places[i]);
    if (followed) ask_for_first(followed, &places[i]);
  }
}

/* ---- what becomes of it ---- */

/* Several remaps have addresses in common: is it the only one of this address, and does this node take it? */
static __attribute__((noinline)) bool is_taken(const struct ips_remaps *s, const struct ips_remap *first, ips_u128 global) {
  for (const struct ips_remap *m = first + 1; m < s->at + s->n; m++)
    if (ips_remap_has(m, first->r.family, global)) return false;
  return first->r.role == IPS_REMAP_TAKING;
}

/* Not of a SYN, which is declined before: half closed is open. */
static inline bool is_open(const struct ips_found *f, uint32_t proto) {
  return proto != IPS_PROTO_TCP || ips_word_state(f->word) < IPS_STATE_CLOSED;
}

IPS_HOT void translate(const struct ips_ordinary *o, uint8_t *ip, unsigned family) {
  uint32_t at = o->sum_at, l4_sum = o->l4_sum, ip_sum = family == 4 ? o->ip_sum : 0, to4 = family == 4 ? o->to4 : 0;
  uint64_t hi = family == 6 ? o->to_hi : 0, lo = family == 6 ? o->to_lo : 0;
  ips_st16(ip + at, (uint16_t)l4_sum);
  if (family == 4) {
    ips_st16(ip + 10, (uint16_t)ip_sum);
    ips_st32(ip + 16, to4);
  } else {
    ips_st64(ip + 24, hi);
    ips_st64(ip + 32, lo);
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

/* As ips_flow_entropy, of a translated packet of flow f. */
IPS_HOT uint16_t entropy_of(const uint8_t *ip, uint32_t proto, const uint64_t *f, unsigned family) {
  uint32_t h = ips_entropy_mix(proto, proto == IPS_PROTO_TCP ? ips_ld32(ip + l4_of(family)) : 0);
  for (unsigned i = 0; i < 4; i++) {
    if (family == 4 && i % 2) continue;
    h = ips_entropy_mix(h, (uint32_t)f[i]);
    if (family == 6) h = ips_entropy_mix(h, (uint32_t)(f[i] >> 32));
  }
  return (uint16_t)(h >> 16);
}

/* A packet in hand: what is asked more than once. */
struct hand { const struct ips_ordinary *o; uint8_t *ip; uint32_t ip_len, proto; };

IPS_HOT void encapsulate(struct ips_worker *w, struct ips_pkt *p, const struct hand *h, const uint64_t *flow, unsigned family,
                         const struct ips_remap_front *front) {
  uint8_t *ip = h->ip, *out = ip - front->bytes;
  struct ips_front_of of = {.ip_len = h->ip_len, .df = IPS_FRONT_DF};
  uint32_t first = ips_ld32(ip), id = w->ip_id++;
  if (family == 4) of.ttl = ip[8], of.tos_high = first & 0xff00, of.df = ip[6] & IPS_FRONT_DF;
  else of.ttl = ip[7], of.tos_high = (ips_be32(first) >> 12) & 0xff00;
  SCALAR(of.ttl);
  SCALAR(of.df);
  SCALAR(id);
  of.ip_id = id;
  if (ips_front_has_entropy(front)) of.entropy = entropy_of(ip, h->proto, flow, family);
  p->data = out;
  p->headroom -= front->bytes;
  p->len = p->total_len = h->ip_len + front->bytes;
  translate(h->o, ip, family);
  ips_front_write(out, front, &of);
}

/* Without the channel's headers, which count as part of 65,535 bytes. */
IPS_HOT uint32_t room_of(const struct ips_worker *w, const struct ips_remap *m) {
  if (ips_likely(!atomic_load_explicit(&w->shared->paths.learned, memory_order_acquire))) return m->room;
  uint32_t limit = ips_path_mtu(&w->shared->paths, &m->end[IPS_REMAP_FINAL], w->now_ns);
  return (limit < UINT16_MAX ? limit : UINT16_MAX) - m->front.bytes;
}

IPS_HOT int follow(struct ips_worker *w, struct ips_pkt *p, const struct hand *h, const uint64_t *flow, unsigned family,
                   const struct ips_remap *m) {
  if (ips_unlikely(h->ip_len > room_of(w, m) || p->headroom < m->front.bytes)) return DECLINED;
  if (ips_likely(!m->rewrites)) {
    encapsulate(w, p, h, flow, family, &m->front);
  } else {
    p->len = p->total_len = h->ip_len;
    readdress(h->o, family, m);
  }
  return IPS_FOLLOWED;
}

static __attribute__((noinline)) bool find_behind(const struct ips_sessions *t, const struct ips_place *place, struct ips_found *f) {
  return ips_session_find(t, place, f);
}

/* Is the flow in the table? all: as ips_session_head has it. */
IPS_HOT bool is_known(const struct ips_sessions *t, const struct ips_place *place, bool all, struct ips_found *f) {
  enum ips_head head = ips_session_head(t, place, all, f);
  if (ips_unlikely(head == IPS_HEAD_ELSEWHERE)) return find_behind(t, place, f);
  return head == IPS_HEAD_FOUND;
}

IPS_HOT int counted(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, const struct ips_remap *m,
                    enum ips_remap_counter as, int verdict, uint32_t bytes) {
  uint32_t cell = o->cell, endpoint = o->endpoint;
  uint64_t *at = m->state.counters + w->index * IPS_REMAP_COUNTERS + as; /* nobody asks: as ips_remap_count */
  SCALAR(endpoint);
  p->counter = cell;
  p->endpoint = endpoint;
  __atomic_store_n(at, *at + 1, __ATOMIC_RELAXED);
  return ips_worker_count(w, IPS_INNER, verdict, cell, bytes);
}

/* A flow of this node. */
static __attribute__((noinline)) int deliver(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o,
                                             const struct ips_place *place, const struct ips_remap *m, const struct ips_found *f) {
  unsigned family = m->r.family;
  uint32_t bytes = p->total_len, proto = proto_of(o, family);
  uint8_t tcp_flags = proto == IPS_PROTO_TCP ? o->ip[l4_of(family) + IPS_TCP_FLAGS] : 0;
  if (!is_open(f, proto)) return DECLINED;
  struct ips_packet_seen seen = {.tcp_flags = tcp_flags, .bytes = bytes};
  ips_session_touch(w->sessions, w->index, place, f, &seen, w->now_ns);
  p->len = p->total_len = o->ip_len;
  translate(o, o->ip, family);
  return counted(w, p, o, m, IPS_RM_HERE, IPS_OK, bytes);
}

IPS_HOT int ordinary(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, const struct ips_place *place,
                     uint32_t proto, unsigned family) {
  const struct ips_remap *m = named(w->remaps, o);
  struct hand h = {.o = o, .ip = o->ip, .ip_len = o->ip_len, .proto = proto};
  uint32_t bytes = p->total_len;
  struct ips_found f;
  SCALAR(m);
  SCALAR(h.ip_len);
  SCALAR(bytes);
  if (ips_unlikely(!m->is_alone) && !is_taken(w->remaps, m, global_of(o, family))) return DECLINED;
  if (ips_unlikely(w->asks || (proto == IPS_PROTO_TCP && h.ip[l4_of(family) + IPS_TCP_FLAGS] & IPS_TCP_SYN))) return DECLINED;
  if (is_known(w->sessions, place, true, &f)) return deliver(w, p, o, place, m, &f);
  if (!is_known(m->state.followed, place, false, &f) || !is_open(&f, proto)) return DECLINED;
  int verdict = follow(w, p, &h, place->flow, family, m);
  return ips_unlikely(verdict == DECLINED) ? DECLINED : counted(w, p, o, m, IPS_RM_FOLLOWED, IPS_FOLLOWED, bytes);
}

int ips_remap_ordinary(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, const struct ips_place *place,
                       unsigned family) {
  return family == 4 ? ordinary(w, p, o, place, proto_of(o, 4), 4) : ordinary(w, p, o, place, proto_of(o, 6), 6);
}

IPS_HOT int single(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, unsigned family) {
  struct ips_place place;
  uint32_t proto = proto_of(o, family);
  find_place(w->sessions, o, proto, family, &place);
  return ordinary(w, p, o, &place, proto, family);
}

int ips_remap_single4(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o) { return single(w, p, o, 4); }
int ips_remap_single6(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o) { return single(w, p, o, 6); }
