/* ips_forward.c: what happens to a packet, from arrival to verdict.
 *
 * ips_outer: a packet towards a Global IP leaves for its end point (S1.2), rewritten
 * or encapsulated (S1.7). ips_inner: a packet that reached the end point becomes what
 * the client sent (S1.3). Either side also takes packets out of tunnels, and, where the
 * replies return on the same path (S1.5), translates their source.
 *
 * Everything that could refuse the packet comes before the first changed byte:
 * scope, TTL and length are judged while the packet still bears the addresses that
 * its sender knows, because an ICMP error quoting any other would be ignored.
 *
 * An ordinary packet takes the express lane: the same steps with everything uncommon left out. Whatever it
 * cannot tell at once goes the whole way, which alone says what is right.
 */
#include "ips_dispatch.h"
#include "ips_lane.h"
#include "ips_remap.h"
#include "ips_rewrite.h"
#include "ips_worker.h"

static inline const uint8_t *source(const struct ips_pkt *p, const struct ips_view *v) {
  return ips_field_at(p->data, v->family, IPS_SRC);
}
static inline const uint8_t *destination(const struct ips_pkt *p, const struct ips_view *v) {
  return ips_field_at(p->data, v->family, IPS_DST);
}

/* Whom load sharing must agree on (DESIGN: an ICMP error follows the flow that it
 * quotes): the sender, or, of an error, the far end of the quoted packet. */
static inline const uint8_t *client_of(const struct ips_pkt *p, const struct ips_view *v) {
  if (ips_likely(!ips_is_icmp_error(p, v))) return source(p, v);
  const uint8_t *quote = p->data + v->l4 + 8;
  size_t quoted = p->len > (size_t)v->l4 + 8 ? p->len - v->l4 - 8 : 0;
  if (quoted < (v->family == 4 ? 20u : 40u) || quote[0] >> 4 != v->family) return source(p, v);
  return ips_field_at(quote, v->family, IPS_DST);
}

/* Length that a path has to carry: of a super-packet, its longest segment. */
static inline uint32_t wire_length(const struct ips_pkt *p, const struct ips_view *v) {
  if (ips_likely(p->gso_type == IPS_GSO_NONE)) return p->total_len;
  uint32_t l4_header = 8;
  if (p->gso_type == IPS_GSO_TCP) l4_header = p->len > v->l4 + 12u ? (uint32_t)(p->data[v->l4 + 12] >> 4) * 4 : 20;
  uint32_t segment = v->l4 + l4_header + p->gso_size;
  return segment < p->total_len ? segment : p->total_len;
}

static inline void clamp_mss(struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint_rec *e, uint32_t room) {
  uint32_t headers = v->family == 4 ? 40 : 60;
  if (e->flags & IPS_EP_MSS_CLAMP && v->proto == IPS_PROTO_TCP && room != UINT32_MAX && room > headers)
    ips_clamp_mss(p, v, room - headers);
}

/* The checks that both ways of sending to `e` share; then sends. `rewrite_to`: new
 * address for field f, or NULL to encapsulate. */
static inline int send_to(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint_rec *e,
                          enum ips_field f, const uint8_t *rewrite_to) {
  uint32_t limit = ips_path_mtu(&w->shared->paths, e, w->now_ns);
  uint32_t length = wire_length(p, v);
  bool tunnel = rewrite_to == NULL;
  if (!tunnel && ips_unlikely(e->flags & IPS_EP_TRACE_TUNNEL) && v->ttl < IPS_TRACE_TTL && p->gso_type == IPS_GSO_NONE &&
      length + ips_encap_overhead(e) <= limit)
    tunnel = true; /* a router on the way then tells us, and we the client, where TTL ended */
  uint32_t room = limit;
  if (tunnel && limit != UINT32_MAX) room = limit - ips_encap_overhead(e);
  if (ips_unlikely(v->ttl <= 1)) {
    ips_worker_error(w, p, v, IPS_ERR_TTL, 0);
    return IPS_TTL_EXPIRED;
  }
  if (ips_unlikely(length > room) && v->dont_fragment) {
    ips_worker_error(w, p, v, IPS_ERR_TOO_BIG, room);
    return IPS_TOO_BIG;
  }
  clamp_mss(p, v, e, room);
  return tunnel ? ips_tunnel_out(w, p, v, e) : ips_rewrite(p, v, f, rewrite_to);
}

int ips_send_to(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint_rec *e,
                enum ips_field f, const uint8_t *rewrite_to) {
  return send_to(w, p, v, e, f, rewrite_to);
}

/* The packet has reached this node, and would be delivered with this verdict. */
static __attribute__((noinline)) int here_remapped(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v,
                                                   const struct ips_hit *h, int verdict) {
  struct ips_arrival a = {.from = IPS_FROM_NETWORK, .binding_flags = h->flags};
  struct ips_noted noted;
  if (ips_remap_cover(w->remaps, v->family, destination(p, v), &a)) {
    int other = ips_remap_arrive(w, p, v, &a);
    return other != IPS_REMAP_DELIVER ? other : a.verdict != IPS_OK ? a.verdict : verdict;
  }
  if (!ips_is_tracked(w, h) || verdict != IPS_OK) return verdict;
  ips_track_note(p, v, h->flags, false, &noted);
  ips_track_tell(w, &noted, verdict);
  return verdict;
}

static int unmatched(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h) {
  int verdict = w->napt ? ips_unbound(w, p, v) : IPS_NO_BINDING;
  if (verdict != IPS_NO_BINDING) return verdict;
  if (h->unmatched == IPS_UNMATCHED_PASS) return IPS_PASS;
  if (h->unmatched != IPS_UNMATCHED_UNREACHABLE) return IPS_NO_BINDING;
  ips_worker_error(w, p, v, IPS_ERR_HOST_UNREACHABLE, 0);
  return IPS_UNREACHABLE;
}

static inline void copy_if_asked(struct ips_worker *w, struct ips_pkt *p, const struct ips_hit *h) {
  if (ips_unlikely(h->flags & IPS_BINDING_COPY)) w->emit(w->arg, p, IPS_EMIT_COPY);
}

/* The same, saying to whom its client went before the policy changed. */
static __attribute__((noinline)) int to_changed(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v,
                                                const struct ips_endpoint *e, const struct ips_endpoint *was) {
  struct ips_endpoint_rec marked = e->r;
  if (e->r.encap != IPS_ENCAP_GUE || !was || !was->r.tunnel_family) return send_to(w, p, v, &e->r, IPS_DST, NULL);
  marked.flags |= IPS_EP_MARK_PREVIOUS;
  marked.family = was->r.tunnel_family;
  memcpy(marked.local, was->r.tunnel_remote, sizeof marked.local);
  return send_to(w, p, v, &marked, IPS_DST, NULL);
}

/* To the end point that serves the Global IP. */
static inline int to_endpoint(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h,
                              const struct ips_endpoint *e) {
  if (e->r.encap != IPS_ENCAP_NONE)
    return ips_likely(!h->previous) ? send_to(w, p, v, &e->r, IPS_DST, NULL)
                                    : to_changed(w, p, v, e, ips_endpoint(w->root, h->previous - 1));
  if (ips_unlikely(e->r.prefix_len == 0)) return IPS_NO_TUNNEL; /* no local address to rewrite to either */
  return send_to(w, p, v, &e->r, IPS_DST, h->address);
}

static __attribute__((noinline)) int to_endpoint_tracked(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v,
                                                         const struct ips_hit *h, const struct ips_endpoint *e) {
  struct ips_noted noted;
  ips_track_note(p, v, h->flags, false, &noted);
  int verdict = to_endpoint(w, p, v, h, e);
  ips_track_tell(w, &noted, verdict);
  return verdict;
}

/* Destination is in a Global Network (h: what the tables say). */
static inline int outer_hit(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h) {
  if (ips_unlikely(ips_bad_scope(source(p, v), v->family))) return IPS_SOURCE_SCOPE;
  if (ips_unlikely(w->header->flags & IPS_IMAGE_ANTISPOOF) && ips_in_network(w->root, v->family, source(p, v)))
    return IPS_SPOOFED;
  p->counter = h->counter;
  p->endpoint = h->endpoint;
  copy_if_asked(w, p, h);
  switch (h->kind) {
    case IPS_KIND_NONE: return unmatched(w, p, v, h);
    case IPS_KIND_HERE: return w->remaps ? here_remapped(w, p, v, h, IPS_HERE) : IPS_HERE;
    case IPS_KIND_DOWN:
      ips_worker_error(w, p, v, IPS_ERR_HOST_UNREACHABLE, 0);
      return IPS_HOST_DOWN;
    default: break;
  }
  const struct ips_endpoint *e = ips_endpoint(w->root, h->endpoint);
  if (ips_unlikely(!e)) return IPS_NO_ENDPOINT;
  if (e->r.flags & IPS_EP_SELF) return w->remaps ? here_remapped(w, p, v, h, IPS_HERE) : IPS_HERE;
  return ips_is_tracked(w, h) ? to_endpoint_tracked(w, p, v, h, e) : to_endpoint(w, p, v, h, e);
}

/* Once a packet has got the addresses that the client knows. */
static void track_after(struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h,
                        bool back, int verdict) {
  struct ips_noted noted;
  if (verdict != IPS_OK || !ips_is_tracked(w, h)) return;
  ips_track_note(p, v, h->flags, back, &noted);
  ips_track_tell(w, &noted, verdict);
}

int ips_outer_translate(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  struct ips_hit h;
  if (ips_likely(ips_find_global(w->root, v->family, destination(p, v), client_of(p, v), &h))) {
    if (ips_unlikely(!(w->header->roles & IPS_ROLE_OUTER))) return IPS_ROLE_OFF;
    return outer_hit(w, p, v, &h);
  }
  if (w->header->roles & IPS_ROLE_REPLY_GLOBAL && ips_find_local(w->root, v->family, source(p, v), &h) &&
      h.kind != IPS_KIND_NONE) {
    const struct ips_endpoint *e = ips_endpoint(w->root, h.endpoint);
    p->counter = h.counter;
    p->endpoint = h.endpoint;
    copy_if_asked(w, p, &h);
    if (v->ttl <= 1) {
      ips_worker_error(w, p, v, IPS_ERR_TTL, 0);
      return IPS_TTL_EXPIRED;
    }
    if (e) clamp_mss(p, v, &e->r, ips_path_mtu(&w->shared->paths, &e->r, w->now_ns));
    int verdict = ips_rewrite(p, v, IPS_SRC, h.address);
    track_after(w, p, v, &h, true, verdict);
    return verdict;
  }
  return IPS_NO_BINDING;
}

/* The device's packets on their way to a client (S1.5): h is what the tables say of their source. */
static int reply_untracked(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h) {
  p->counter = h->counter;
  copy_if_asked(w, p, h);
  if (w->header->roles & IPS_ROLE_REPLY_TUNNEL) {
    p->endpoint = ips_policy_pick(w->root, w->header->reply_policy, v->family, destination(p, v), source(p, v));
    const struct ips_endpoint *e = ips_endpoint(w->root, p->endpoint);
    if (!e) return IPS_NO_ENDPOINT;
    return e->r.tunnel_family ? send_to(w, p, v, &e->r, IPS_SRC, NULL) : IPS_NO_TUNNEL;
  }
  p->endpoint = h->endpoint;
  const struct ips_endpoint *e = ips_endpoint(w->root, h->endpoint);
  if (!e || !(e->r.flags & IPS_EP_SELF)) return IPS_NO_ENDPOINT;
  return send_to(w, p, v, &e->r, IPS_SRC, h->address);
}

static int reply(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h) {
  struct ips_noted noted;
  if (!ips_is_tracked(w, h)) return reply_untracked(w, p, v, h);
  ips_track_note(p, v, h->flags, true, &noted);
  int verdict = reply_untracked(w, p, v, h);
  ips_track_tell(w, &noted, verdict);
  return verdict;
}

static inline int inner_hit(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h) {
  p->counter = h->counter;
  p->endpoint = h->endpoint;
  if (ips_unlikely(ips_bad_scope(source(p, v), v->family))) return IPS_SOURCE_SCOPE;
  if (ips_unlikely(h->kind == IPS_KIND_NONE)) return IPS_NO_BINDING;
  copy_if_asked(w, p, h);
  int verdict = ips_rewrite(p, v, IPS_DST, h->address);
  if (ips_unlikely(v->ttl <= 1) && verdict == IPS_OK) { /* quote what the client sent, not what we got */
    ips_worker_error(w, p, v, IPS_ERR_TTL, 0);
    return IPS_TTL_EXPIRED;
  }
  if (ips_unlikely(w->remaps != NULL) && verdict == IPS_OK) return here_remapped(w, p, v, h, verdict);
  track_after(w, p, v, h, false, verdict);
  return verdict;
}

/* To one of the addresses of a re-addressing channel. False: not so. */
static __attribute__((noinline)) bool readdressed(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v,
                                                  int *verdict) {
  uint8_t address[16];
  unsigned mark;
  struct ips_hit h;
  const struct ips_remap *m = ips_remap_readdressed(w->remaps, v->family, destination(p, v), &mark, address);
  if (!m) return false;
  struct ips_arrival a = {.from = mark == IPS_REMAP_ASK ? IPS_FROM_ASK : IPS_FROM_FINAL, .asker = m->r.peer};
  if (ips_bad_scope(source(p, v), v->family)) {
    *verdict = IPS_SOURCE_SCOPE;
  } else if (v->ttl <= 1) {
    *verdict = IPS_TTL_EXPIRED;
  } else if ((*verdict = ips_rewrite(p, v, IPS_DST, address)) == IPS_OK) {
    if (ips_find_global_self(w->root, v->family, address, &h)) {
      p->counter = h.counter;
      p->endpoint = h.endpoint;
      a.binding_flags = h.flags;
    }
    ips_remap_cover(w->remaps, v->family, address, &a);
    int other = ips_remap_arrive(w, p, v, &a);
    *verdict = other != IPS_REMAP_DELIVER ? other : a.verdict;
  }
  return true;
}

static int bound(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  uint32_t roles = w->header->roles;
  struct ips_hit h;
  if (ips_likely(ips_find_local(w->root, v->family, destination(p, v), &h)))
    return roles & IPS_ROLE_INNER ? inner_hit(w, p, v, &h) : IPS_ROLE_OFF;
  int verdict;
  if (ips_unlikely(w->remaps != NULL) && ips_remap_reply(w, p, v, &verdict)) return verdict;
  if (roles & (IPS_ROLE_REPLY_TUNNEL | IPS_ROLE_REPLY_LOCAL) &&
      ips_find_global_self(w->root, v->family, source(p, v), &h) && h.kind != IPS_KIND_NONE)
    return reply(w, p, v, &h);
  return IPS_NO_BINDING;
}

static int inner_translate(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  int verdict = ips_unlikely(w->root->peers.at) ? ips_peers(w, p, v) : IPS_NO_BINDING;
  return verdict == IPS_NO_BINDING ? bound(w, p, v) : verdict;
}

/* Nobody translates it. It may have come here because of a group whose traffic it is not: as it was, then. */
static inline int nobodys(const struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v,
                          enum ips_side side) {
  if (ips_likely(!w->root->peers.at) || side != IPS_INNER) return IPS_NO_BINDING;
  return ips_peers_concern(w->root, p, v) ? IPS_PASS : IPS_NO_BINDING;
}

/* What ips_tunnel_in has something to say about; anything else to a tunnel address has no binding. */
static inline bool may_be_tunnel(uint8_t proto) {
  return proto == IPS_PROTO_UDP || proto == IPS_PROTO_IPIP || proto == IPS_PROTO_IPV6 || proto == IPS_PROTO_ICMP ||
         proto == IPS_PROTO_ICMP6;
}

static inline bool is_tunnel(const struct ips_worker *w, unsigned family, const uint8_t *address) {
  return ips_is_tunnel_local(w->root, family, address) ||
         (ips_unlikely(w->remaps != NULL) && ips_remap_is_local(w->remaps, family, address));
}

static __attribute__((noinline)) int whole_way(struct ips_worker *w, struct ips_pkt *p, enum ips_side side) {
  struct ips_view v;
  uint32_t bytes = p->total_len;
  p->counter = p->endpoint = IPS_NONE;
  w->side = side;
  int verdict = ips_parse(p, &v);
  if (ips_unlikely(verdict != IPS_OK)) return ips_worker_count(w, side, verdict, IPS_NONE, bytes);
  if (ips_unlikely(!w->root)) return ips_worker_count(w, side, IPS_NO_TABLES, IPS_NONE, bytes);
  if (ips_unlikely(!w->has_lease)) return ips_worker_count(w, side, IPS_PAIR_NOT_ACTIVE, IPS_NONE, bytes);
  if (ips_unlikely(ips_bad_scope(destination(p, &v), v.family)))
    verdict = IPS_DESTINATION_SCOPE;
  else if (ips_unlikely(w->clusters != NULL) && side == IPS_OUTER && (verdict = ips_dispatch(w, p, &v)) != IPS_NO_BINDING)
    ; /* done */
  else if (may_be_tunnel(v.proto) && is_tunnel(w, v.family, destination(p, &v)))
    verdict = ips_tunnel_in(w, p, &v);
  else if (ips_unlikely(w->remaps != NULL) && readdressed(w, p, &v, &verdict))
    ; /* done */
  else
    verdict = side == IPS_OUTER ? ips_outer_translate(w, p, &v) : inner_translate(w, p, &v);
  if (ips_unlikely(verdict == IPS_NO_BINDING) && w->napt) verdict = ips_unbound(w, p, &v);
  if (ips_unlikely(verdict == IPS_NO_BINDING)) verdict = nobodys(w, p, &v, side);
  return ips_worker_count(w, side, verdict, p->counter, bytes);
}

/* ---- the express lane (ips_lane.h) --------------------------------------- */

static struct ips_lane_end lane_end_of(const struct ips_worker *w, uint32_t index) {
  const struct ips_endpoint *e = ips_endpoint(w->root, index);
  struct ips_lane_end end = {.endpoint = index, .min_ttl = 2, .via = e ? e->r.via : 0};
  if (!e || e->r.encap != IPS_ENCAP_NONE || e->r.prefix_len == 0 || e->r.flags & IPS_EP_SELF) return end;
  end.room = ips_path_mtu(&w->shared->paths, &e->r, w->now_ns);
  end.local4 = ips_be32(ips_ld32(e->r.local));
  end.local6_hi = ips_be64(ips_ld64(e->r.local));
  end.local6_lo = ips_be64(ips_ld64(e->r.local + 8));
  if (e->r.flags & IPS_EP_MSS_CLAMP) end.syn = 2;
  if (e->r.flags & IPS_EP_TRACE_TUNNEL) end.min_ttl = IPS_TRACE_TTL;
  return end;
}

__attribute__((cold)) void ips_lane_learn(struct ips_worker *w, uint32_t index) {
  struct ips_lane_end end = lane_end_of(w, index), *least = &w->lane_least;
  if (end.room < least->room) least->room = end.room;
  if (end.min_ttl > least->min_ttl) least->min_ttl = end.min_ttl;
  least->syn |= end.syn;
  w->lane_ends[index % IPS_LANE_ENDS] = end;
}

enum { NOT_ORDINARY = -1 };

/* One packet, a group of its own: its verdict, counted; NOT_ORDINARY: nothing was done. */
IPS_HOT int express(struct ips_worker *w, struct ips_pkt *p, enum ips_side side, unsigned family) {
  struct ips_lane_group g;
  uint32_t bytes = p->total_len;
  if (ips_unlikely(!w->lane_open[side] || p->csum | p->gso_type || p->len != bytes)) return NOT_ORDINARY;
  if (ips_unlikely(bytes < (family == 4 ? IPS_LANE_MIN4 : IPS_LANE_MIN6))) return NOT_ORDINARY;
  struct ips_lane_net4 net = IPS_LANE_NO_NET4;
  ips_lane_bring(&g, 0, p->data, family);
  g.len[0] = bytes;
  uint32_t declined = ips_lane(w, side, IPS_TRUST_NOTHING, &net, &g, 1, family);
  if (ips_unlikely(declined)) {
    if (side != IPS_INNER || !(declined & IPS_LANE_REMAPPED)) return NOT_ORDINARY;
    struct ips_ordinary o = ips_lane_ordinary(&g, 0, family);
    return family == 4 ? ips_remap_single4(w, p, &o) : ips_remap_single6(w, p, &o);
  }
  ips_lane_write(&g, 0, family);
  p->len = p->total_len = g.ip_len[0];
  p->counter = g.cell[0];
  p->endpoint = g.endpoint[0];
  return ips_worker_count(w, side, IPS_OK, g.cell[0], bytes);
}

void ips_prefetch(const struct ips_worker *w, int side, const uint8_t *ip, uint32_t len, int step) {
  unsigned family = len >= 20 ? ip[0] >> 4 : 0;
  if (!w->root || (family != 4 && (family != 6 || len < 40))) return;
  const uint8_t *to = ips_field_at(ip, family, IPS_DST);
  ips_u128 key = ips_ld_address(family, to);
  const struct ips_lpm *lpm = side == IPS_OUTER ? &w->root->global6 : family == 4 ? &w->root->local4 : &w->root->local6;
  bool is_direct = side == IPS_OUTER && family == 4; /* no hash: all is known at once */
  uint32_t cell = IPS_NONE;
  if (step == IPS_PREFETCH_SECOND)
    cell = is_direct ? IPS_NONE : ips_hash_cell(lpm, ips_hi(key), ips_lo(key), family);
  else if (side == IPS_OUTER)
    cell = ips_prefetch_global(w->root, family, to);
  else
    ips_prefetch_hash(lpm, ips_hi(key), ips_lo(key));
  if (cell < w->n_cells) __builtin_prefetch(w->cells + cell, 1);
}

/* Apart for each family: one function for both would spill registers for the other's sake. */
#define LANE(name, side, family)                                                                 \
  static __attribute__((noinline)) int name(struct ips_worker *w, struct ips_pkt *p) {            \
    int verdict = express(w, p, side, family);                                                   \
    return ips_likely(verdict != NOT_ORDINARY) ? verdict : whole_way(w, p, side);                \
  }
LANE(outer4, IPS_OUTER, 4)
LANE(outer6, IPS_OUTER, 6)
LANE(inner4, IPS_INNER, 4)
LANE(inner6, IPS_INNER, 6)

static inline bool is_6(const struct ips_pkt *p) { return p->len && p->data[0] >> 4 == 6; }

int ips_outer(struct ips_worker *w, struct ips_pkt *p) {
  w->counters->packets++;
  return is_6(p) ? outer6(w, p) : outer4(w, p);
}
int ips_inner(struct ips_worker *w, struct ips_pkt *p) {
  w->counters->packets++;
  return is_6(p) ? inner6(w, p) : inner4(w, p);
}
