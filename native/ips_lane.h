/* ips_lane.h: the express lane: the steps of ips_forward.c for the packets that nearly all are, with everything
 * uncommon left out: whole TCP and UDP, no options or extension headers, nothing left to hardware, to be rewritten
 * and nothing else. Whatever it cannot tell at once it declines, unchanged and uncounted, and ips_outer or
 * ips_inner does what is right; tests/unit/test_express.py holds both against each other.
 *
 * Inline, for hosts that run it over a frame (the VPP plugin) as for ips_forward.c, whose groups have one packet. A
 * group takes each step together, in a short loop with hardly a branch: so the waits for memory overlap, prefetching
 * nothing, and arithmetic becomes vector instructions. What an end point allows is remembered (ips_worker.h).
 * RFC 791, RFC 8200.
 */
#ifndef IPS_LANE_H
#define IPS_LANE_H
#include "ips_csum.h"
#include "ips_remap_filter.h"
#include "ips_session_table.h"
#include "ips_worker.h"

#define IPS_HOT static inline __attribute__((__always_inline__))

enum {
  IPS_LANE_GROUP = 32,
  IPS_LANE_MIN4 = 28, IPS_LANE_MIN6 = 48, /* bytes that must be readable of each packet, whatever its length */
  IPS_LANE_FAR = 16384,                   /* bindings from which tables do not stay in the caches */
};

/* Packets on the lane, field by field. */
struct ips_lane_group {
  uint8_t *ip[IPS_LANE_GROUP];
  uint32_t len[IPS_LANE_GROUP];      /* bytes; 0: not for the lane */
  uint32_t declined[IPS_LANE_GROUP]; /* not 0: nothing was done. IPS_LANE_REMAPPED, which no other reason has, | number of a
                                      remap: that of its address */
  uint32_t ip_len[IPS_LANE_GROUP];   /* bytes behind it are padding, cut them off */
  uint32_t cell[IPS_LANE_GROUP], endpoint[IPS_LANE_GROUP];
  uint16_t via[IPS_LANE_GROUP];      /* of the end point's record; outer only */
  /* Between the steps. Addresses: old as in memory; new in host order until they are in the sums. */
  uint32_t head[4][IPS_LANE_GROUP]; /* the first 16 bytes, in words as they lie in memory */
  uint32_t ttl[IPS_LANE_GROUP];
  uint32_t ip_sum[IPS_LANE_GROUP], l4_sum[IPS_LANE_GROUP], sum_at[IPS_LANE_GROUP]; /* at: where L4's is */
  uint32_t old4[IPS_LANE_GROUP], new4[IPS_LANE_GROUP];
  uint64_t old_hi[IPS_LANE_GROUP], old_lo[IPS_LANE_GROUP], new_hi[IPS_LANE_GROUP], new_lo[IPS_LANE_GROUP];
  ips_slot slot[IPS_LANE_GROUP];
  const struct ips_hash_page *page[IPS_LANE_GROUP];
  uint32_t at[IPS_LANE_GROUP];       /* cell there */
  const struct ips_value *value[IPS_LANE_GROUP];
  const struct ips_dense_group *dense[IPS_LANE_GROUP]; /* where IPv6 addresses stand close together */
  struct ips_value read[IPS_LANE_GROUP];               /* a slot of it */
};

/* How sure the host is of what it brings: HEADER: the IPv4 header's sum is right. ROUTED: too, and a packet to one of our
 * tunnel addresses comes by the inner side. */
enum ips_lane_trust { IPS_TRUST_NOTHING, IPS_TRUST_HEADER, IPS_TRUST_ROUTED };

/* First bytes of addresses that only the whole way may judge (bad_scope). */
static inline uint32_t ips_lane_odd4(uint32_t byte) { return (byte - 1 >= 223) | (byte == 127) | (byte == 169); }
static inline uint32_t ips_lane_odd6(uint32_t byte) { return (byte == 0) | (byte >= 254); }

/* Cold: what end point `index` allows now. */
void ips_lane_learn(struct ips_worker *w, uint32_t index);

IPS_HOT const struct ips_lane_end *ips_lane_end(struct ips_worker *w, uint32_t index) {
  const struct ips_lane_end *end = &w->lane_ends[index % IPS_LANE_ENDS];
  if (ips_unlikely(end->endpoint != index)) ips_lane_learn(w, index);
  return end;
}

/* ---- 1: the host brings n packets, numbered from 0; it may set len afterwards ---- */

IPS_HOT void ips_lane_bring(struct ips_lane_group *g, uint32_t i, uint8_t *ip, unsigned family) {
  g->ip[i] = ip;
  for (uint32_t k = 0; k < 4; k++) g->head[k][i] = ips_ld32(ip + 4 * k);
  if (family == 4) {
    g->old4[i] = ips_ld32(ip + 16);
  } else {
    g->old_hi[i] = ips_ld64(ip + 24);
    g->old_lo[i] = ips_ld64(ip + 32);
  }
}

/* ---- 2: is it ordinary? ---- */

IPS_HOT uint16_t ips_lane_sum4(const uint32_t *head, uint32_t to) {
  return ips_csum_fold((uint64_t)head[0] + head[1] + head[2] + head[3] + to);
}

/* `ends`: bit n: a UDP packet to an address that ends in n, modulo 64, is perhaps a tunnel's. */
IPS_HOT void ips_lane_check4(struct ips_lane_group *g, uint32_t n, bool sum_is_right, uint64_t ends) {
  for (uint32_t i = 0; i < n; i++) {
    uint32_t head[4] = {g->head[0][i], g->head[1][i], g->head[2][i], g->head[3][i]};
    uint32_t ip_len = (head[0] >> 8 & 0xff00) | head[0] >> 24, ttl = head[2] & 0xff, proto = head[2] >> 8 & 0xff;
    uint32_t udp = proto == IPS_PROTO_UDP, tcp = proto == IPS_PROTO_TCP;
    uint32_t bad = ((head[0] & 0xff) != 0x45) | ((head[1] & 0xff3f0000) != 0);
    bad |= !(udp | tcp);
    bad |= ip_len > g->len[i];
    bad |= ip_len < (udp ? 28u : 40u);
    bad |= ips_lane_odd4(head[3] & 0xff);
    if (!sum_is_right) bad |= ips_lane_sum4(head, g->old4[i]) != 0xffff;
    bad |= ttl <= 1;
    bad |= udp & (uint32_t)(ends >> (g->old4[i] >> 24 & 63));
    g->declined[i] = bad;
    g->ip_len[i] = ip_len;
    g->ttl[i] = ttl;
    g->ip_sum[i] = head[2] >> 16;
    g->sum_at[i] = (bad | udp) ? 26 : 36;
  }
}

IPS_HOT void ips_lane_check6(struct ips_lane_group *g, uint32_t n, uint64_t ends) {
  for (uint32_t i = 0; i < n; i++) {
    uint32_t head[3] = {g->head[0][i], g->head[1][i], g->head[2][i]};
    uint32_t ip_len = 40 + ((head[1] & 0xff) << 8 | (head[1] >> 8 & 0xff)), ttl = head[1] >> 24, proto = head[1] >> 16 & 0xff;
    uint32_t udp = proto == IPS_PROTO_UDP, tcp = proto == IPS_PROTO_TCP;
    uint32_t bad = (head[0] & 0xf0) != 0x60;
    bad |= !(udp | tcp);
    bad |= ip_len > g->len[i];
    bad |= ip_len < (udp ? 48u : 60u);
    bad |= ips_lane_odd6(head[2] & 0xff);
    bad |= ttl <= 1;
    bad |= udp & (uint32_t)(ends >> (g->old_lo[i] >> 56 & 63));
    g->declined[i] = bad;
    g->ip_len[i] = ip_len;
    g->ttl[i] = ttl;
    g->sum_at[i] = (bad | udp) ? 46 : 56;
  }
}

/* ---- 3: global -> local ---- */

IPS_HOT struct ips_key ips_lane_key(const struct ips_lane_group *g, uint32_t i, unsigned family) {
  if (family == 4) return (struct ips_key){ips_be64(g->old4[i]), 0}; /* the upper half; not by a shift of 32 bits that were put aside */
  return (struct ips_key){ips_be64(g->old_hi[i]), ips_be64(g->old_lo[i])};
}

/* The IPv4 network that the packets of a frame go to: most often all to one. */
struct ips_lane_net4 { uint32_t base, size, cell; ips_slot *const *pages; };
#define IPS_LANE_NO_NET4 ((struct ips_lane_net4){.size = 0})

IPS_HOT bool ips_lane_aim(const struct ips_root *r, struct ips_lane_net4 *net, uint32_t address) {
  const struct ips_net4 *n = ips_net4_find(r, address);
  if (n) *net = (struct ips_lane_net4){n->base, ~n->mask + 1, n->cell, n->pages};
  return n;
}

/* `far`: the cell is known by the address alone, so both lines are asked for before either is waited for. */
IPS_HOT void ips_lane_slots(const struct ips_worker *w, struct ips_lane_net4 *hint, struct ips_lane_group *g, uint32_t n,
                            bool far) {
  static const ips_slot nothing;
  const ips_slot *slot[IPS_LANE_GROUP];
  struct ips_lane_net4 net = *hint;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t address = ips_be32(g->old4[i]), at = address - net.base;
    if (ips_unlikely(at >= net.size)) {
      slot[i] = &nothing;
      g->cell[i] = IPS_NONE;
      if (!ips_lane_aim(w->root, &net, address)) continue;
      at = address - net.base;
    }
    slot[i] = net.pages[at / IPS_PAGE_SLOTS] + at % IPS_PAGE_SLOTS;
    g->cell[i] = net.cell + at;
    if (!far) continue;
    __builtin_prefetch(slot[i]);
    if (g->cell[i] < w->n_cells) __builtin_prefetch(w->cells + g->cell[i], 1);
  }
  for (uint32_t i = 0; i < n; i++) g->slot[i] = *slot[i];
  *hint = net;
}

IPS_HOT void ips_lane_outer4(struct ips_worker *w, struct ips_lane_net4 *net, struct ips_lane_group *g, uint32_t n,
                             bool far) {
  ips_lane_slots(w, net, g, n, far);
  for (uint32_t i = 0; i < n; i++) {
    ips_slot slot = g->slot[i];
    uint32_t index = (uint16_t)(slot >> 16), keep = ~0u;
    if (ips_unlikely((uint16_t)slot != IPS_KIND_ENDPOINT)) { /* kind and flags: with any flag it is none of ours */
      if ((uint16_t)slot == IPS_KIND_POLICY) index = ips_policy_pick(w->root, index, 4, g->ip[i] + 12, g->ip[i] + 16);
      else if ((uint16_t)slot == IPS_KIND_ADDRESS) keep = 0;
      else index = IPS_NONE;
      if (index == IPS_NONE) {
        g->declined[i] = 1;
        g->new4[i] = 0;
        g->endpoint[i] = IPS_NONE;
        continue;
      }
    }
    const struct ips_lane_end *end = ips_lane_end(w, index);
    g->new4[i] = (uint32_t)(slot >> 32) + (end->local4 & keep);
    g->via[i] = end->via;
    g->endpoint[i] = index;
  }
}

/* Where the packets' addresses are in the table of the longest prefixes, if there. */
IPS_HOT void ips_lane_hash(const struct ips_hash *t, struct ips_lane_group *g, uint32_t n, unsigned family, bool far) {
  for (uint32_t i = 0; i < n; i++) {
    struct ips_key key = ips_lane_key(g, i, family);
    uint64_t hash = ips_hash_of(key.hi & t->mask_hi, key.lo & t->mask_lo);
    const struct ips_hash_page *page = ips_page_of(t, hash);
    uint32_t cell = ips_bucket_of(hash) * IPS_BUCKET;
    g->page[i] = page;
    g->at[i] = cell;
    if (!far) continue;
    __builtin_prefetch(page->keys + cell);
    __builtin_prefetch(page->values + cell);
    __builtin_prefetch(page->values + cell + IPS_BUCKET / 2);
  }
}

/* What it has there; `nothing` where they are not in that bucket. Which of its keys it is, nobody can guess: no branch;
 * and plain registers, since taking a vector's lanes apart takes longer. */
IPS_HOT void ips_lane_locate(const struct ips_hash *t, const struct ips_value *nothing, struct ips_lane_group *g, uint32_t n,
                             unsigned family) {
  for (uint32_t i = 0; i < n; i++) {
    struct ips_key key = ips_lane_key(g, i, family);
    const struct ips_key *k = g->page[i]->keys + g->at[i];
    uint32_t found = 0;
    key.hi &= t->mask_hi;
    key.lo &= t->mask_lo;
    for (uint32_t j = 0; j < IPS_BUCKET; j++) {
      uint64_t other = (k[j].hi ^ key.hi) | (k[j].lo ^ key.lo);
      __asm__("" : "+r"(other));
      found |= (uint32_t)(other == 0) << j;
    }
    const struct ips_value *v = g->page[i]->values + g->at[i] + __builtin_ctz(found | 1 << (IPS_BUCKET - 1));
    g->value[i] = found ? v : nothing;
  }
}

/* The same by slots, where there are some. A packet that has none waits for the hash alone. */
IPS_HOT void ips_lane_dense(const struct ips_hash *t, const struct ips_value *nothing, struct ips_lane_group *g, uint32_t n,
                            bool far) {
  for (uint32_t i = 0; i < n; i++) {
    uint64_t lo = ips_be64(g->old_lo[i]);
    g->dense[i] = ips_dense_group_of(&t->dense, ips_be64(g->old_hi[i]), lo);
    if (far && g->dense[i]) __builtin_prefetch(ips_dense_slot(g->dense[i], lo));
  }
  for (uint32_t i = 0; i < n; i++) {
    uint64_t hi = ips_be64(g->old_hi[i]), lo = ips_be64(g->old_lo[i]);
    ips_slot slot = g->dense[i] ? *ips_dense_slot(g->dense[i], lo) : 0;
    const struct ips_value *v = g->read + i;
    if (ips_likely(slot)) ips_dense_read(g->dense[i], slot, g->read + i);
    else if (!(v = ips_hash_find(t, hi, lo))) v = nothing;
    g->value[i] = v;
  }
}

IPS_HOT void ips_lane_values(const struct ips_hash *t, bool look, struct ips_lane_group *g, uint32_t n, unsigned family, bool far) {
  static const struct ips_value nothing;
  for (uint32_t i = 0; i < n && !look; i++) g->value[i] = &nothing;
  if (!look) return;
  if (family == 6 && t->dense.n) {
    ips_lane_dense(t, &nothing, g, n, far);
    return;
  }
  if (n == 1) { /* alone it is faster with guesses */
    struct ips_key key = ips_lane_key(g, 0, family);
    const struct ips_value *v = ips_hash_find(t, key.hi & t->mask_hi, key.lo & t->mask_lo);
    g->value[0] = v ? v : &nothing;
    return;
  }
  ips_lane_hash(t, g, n, family, far);
  ips_lane_locate(t, &nothing, g, n, family);
}

IPS_HOT bool ips_lane_kind(uint32_t kind_and_flags) {
  return kind_and_flags == IPS_KIND_ENDPOINT || kind_and_flags == IPS_KIND_POLICY || kind_and_flags == IPS_KIND_ADDRESS;
}

IPS_HOT void ips_lane_found(struct ips_lane_group *g, uint32_t i, ips_u128 to, uint32_t cell, uint32_t endpoint, unsigned family) {
  if (family == 4) g->new4[i] = (uint32_t)(to >> 96);
  else g->new_hi[i] = ips_hi(to), g->new_lo[i] = ips_lo(to);
  g->cell[i] = cell;
  g->endpoint[i] = endpoint;
}

/* Any binding: of a shorter prefix, to several end points, to one address. */
static __attribute__((noinline)) bool ips_lane_any6(const struct ips_root *r, const uint8_t *ip, struct ips_hit *h) {
  return ips_find_global(r, 6, ip + 24, ip + 8, h) && !h->flags && ips_lane_kind(h->kind) && h->endpoint != IPS_NONE;
}

IPS_HOT void ips_lane_outer6(struct ips_worker *w, struct ips_lane_group *g, uint32_t n, bool far) {
  const struct ips_hash *t = w->root->global6.tables;
  ips_lane_values(t, w->root->global6.n, g, n, 6, far);
  for (uint32_t i = 0; i < n; i++) {
    struct ips_key key = ips_lane_key(g, i, 6);
    const struct ips_value *v = g->value[i];
    if (ips_unlikely((v->kind | v->flags << 8) != IPS_KIND_ENDPOINT)) {
      struct ips_hit h;
      bool found = ips_lane_any6(w->root, g->ip[i], &h);
      ips_lane_found(g, i, found ? ips_ld_address(6, h.address) : 0, h.counter, h.endpoint, 6);
      if (found) g->via[i] = ips_lane_end(w, h.endpoint)->via;
      else g->declined[i] = 1;
      continue;
    }
    const struct ips_lane_end *end = ips_lane_end(w, v->target);
    g->via[i] = end->via;
    ips_u128 host = ips_pair(key.hi & ~t->mask_hi, key.lo & ~t->mask_lo);
    ips_lane_found(g, i, ips_pair(v->hi, v->lo) + host + ips_pair(end->local6_hi, end->local6_lo), v->cell, v->target, 6);
  }
}

/* May the packets go to their end points by rewriting alone? Nearly always none is longer than any of these allows; else
 * each is held against its own. A TCP packet's flags lie 3 bytes before its sum. */
IPS_HOT void ips_lane_permit(struct ips_worker *w, struct ips_lane_group *g, uint32_t n, unsigned family) {
  uint32_t room = w->lane_least.room, min_ttl = w->lane_least.min_ttl, bad = w->lane_least.syn;
  for (uint32_t i = 0; i < n; i++) bad |= (g->ip_len[i] > room) | (g->ttl[i] < min_ttl);
  if (ips_likely(!bad)) return;
  for (uint32_t i = 0; i < n; i++) {
    if (g->declined[i]) continue;
    const struct ips_lane_end *end = ips_lane_end(w, g->endpoint[i]);
    bad = (g->ip_len[i] > end->room) | (g->ttl[i] < end->min_ttl);
    if (end->syn && g->sum_at[i] == (family == 4 ? 36 : 56)) bad |= g->ip[i][g->sum_at[i] - 3] & end->syn;
    g->declined[i] |= bad;
  }
}

/* ---- 3: local -> global ---- */

static __attribute__((noinline)) bool ips_lane_any_local(const struct ips_root *r, const uint8_t *address, unsigned family,
                                                         struct ips_hit *h) {
  return ips_find_local(r, family, address, h) && !h->flags && ips_lane_kind(h->kind);
}

/* May a longer binding than those of table t, its longest, decide about a Global IP (ips_still_bound)? */
IPS_HOT bool ips_lane_local_is_plain(const struct ips_root *r, const struct ips_hash *t, unsigned family) {
  return family == 4 ? t->prefix_len == r->longest4 : r->global6.n && r->global6.tables->prefix_len <= t->prefix_len;
}

IPS_HOT void ips_lane_inner(const struct ips_root *r, struct ips_lane_group *g, uint32_t n, unsigned family, bool far) {
  const struct ips_lpm *lpm = family == 4 ? &r->local4 : &r->local6;
  const struct ips_hash *t = lpm->tables;
  ips_lane_values(t, lpm->n && ips_lane_local_is_plain(r, t, family), g, n, family, far);
  for (uint32_t i = 0; i < n; i++) {
    struct ips_key key = ips_lane_key(g, i, family);
    const struct ips_value *v = g->value[i];
    if (ips_unlikely(!ips_lane_kind(v->kind | (v->flags & IPS_VALUE_FLAGS) << 8))) {
      struct ips_hit h;
      bool found = ips_lane_any_local(r, g->ip[i] + (family == 4 ? 16 : 24), family, &h);
      ips_lane_found(g, i, found ? ips_ld_address(family, h.address) : 0, h.counter, h.endpoint, family);
      if (!found) g->declined[i] = 1;
      continue;
    }
    ips_u128 host = ips_pair(key.hi & ~t->mask_hi, key.lo & ~t->mask_lo);
    ips_u128 to = ips_pair(v->hi, family == 4 ? 0 : v->lo) + host;
    ips_lane_found(g, i, to, v->cell + (family == 4 ? (uint32_t)(host >> 96) : 0), v->target, family);
  }
}

/* Of an address as the client knows it: what ips_remap_first says. */
IPS_HOT uint32_t ips_lane_remap_of(const struct ips_worker *w, unsigned family, uint32_t to4, uint64_t hi, uint64_t lo) {
  const struct ips_remap_filter *f = w->remap_filter;
  if (family == 4) {
    if (ips_likely(f->one4)) return (to4 & f->global.mask4) == f->key4 ? f->one4 : 0;
    return ips_filter_has4(&f->global, to4) ? ips_remap_first(w->remaps, 4, (ips_u128)to4 << 96) : 0;
  }
  if (ips_likely(f->one6))
    return ((hi & f->global.mask6_hi) ^ f->key6_hi) | ((lo & f->global.mask6_lo) ^ f->key6_lo) ? 0 : f->one6;
  return ips_filter_has6(&f->global, hi, lo) ? ips_remap_first(w->remaps, 6, ips_pair(hi, lo)) : 0;
}

/* While this node has remaps: a remapped address, or one of a re-addressing channel, is not the lane's. By values: a group
 * whose address is given away is kept in memory, and every step waits for it. */
IPS_HOT void ips_lane_remaps(const struct ips_worker *w, struct ips_lane_group *g, uint32_t n, unsigned family, bool is_inner) {
  const struct ips_remap_filter *f = w->remap_filter;
  for (uint32_t i = 0; i < n; i++) {
    struct ips_key old = ips_lane_key(g, i, family);
    bool is_channel = f->has_channels && (family == 4 ? ips_filter_has4(&f->channel, (uint32_t)(old.hi >> 32))
                                                      : ips_filter_has6(&f->channel, old.hi, old.lo));
    uint32_t remap = 0;
    if (is_inner && family == 4) remap = ips_lane_remap_of(w, 4, g->new4[i], 0, 0);
    if (is_inner && family == 6) remap = ips_lane_remap_of(w, 6, 0, g->new_hi[i], g->new_lo[i]);
    if (ips_likely(!(is_channel | remap)) || g->declined[i]) continue;
    g->declined[i] = is_channel ? 1 : remap;
  }
}

/* ---- 4: the sums. In 32 bits, as vectors want it; what ips_csum.h does in 16 ---- */

IPS_HOT uint32_t ips_lane_fold(uint32_t sum) { /* as ips_csum_fold32 and ips_csum_class */
  sum = (sum + (sum << 16 | sum >> 16)) >> 16;
  return sum == 0xffff ? 0 : sum;
}
IPS_HOT uint32_t ips_lane_mend(uint32_t field, uint32_t delta) { /* as ips_csum_mend */
  uint32_t sum = (field ^ 0xffff) + delta;
  return ~(sum + (sum >> 16)) & 0xffff;
}
/* UDP's 0 says "no checksum", and a sum of 0 is written 0xffff there. */
IPS_HOT uint32_t ips_lane_mend_l4(uint32_t field, uint32_t delta, uint32_t udp) {
  uint32_t mended = ips_lane_mend(field, delta), only_udp = udp ? 0xffff : 0;
  mended = mended ? mended : only_udp;
  return field ? mended : mended & ~only_udp;
}

IPS_HOT void ips_lane_sums(struct ips_lane_group *g, uint32_t n, unsigned family) {
  for (uint32_t i = 0; i < n; i++) g->l4_sum[i] = ips_ld16(g->ip[i] + g->sum_at[i]);
  if (family == 4) {
    for (uint32_t i = 0; i < n; i++) {
      uint32_t to = ips_be32(g->new4[i]), sum = to + ~g->old4[i];
      uint32_t delta = ips_lane_fold(sum + (sum < to ? 1 : 0));
      g->new4[i] = to;
      g->ip_sum[i] = ips_lane_mend(g->ip_sum[i], delta);
      g->l4_sum[i] = ips_lane_mend_l4(g->l4_sum[i], delta, g->sum_at[i] == 26);
    }
    return;
  }
  for (uint32_t i = 0; i < n; i++) { /* no carry: sums of halves */
    uint64_t hi = ips_be64(g->new_hi[i]), lo = ips_be64(g->new_lo[i]), was_hi = ~g->old_hi[i], was_lo = ~g->old_lo[i];
    uint64_t sum = (hi >> 32) + (lo >> 32) + (was_hi >> 32) + (was_lo >> 32);
    sum += (hi & UINT32_MAX) + (lo & UINT32_MAX) + (was_hi & UINT32_MAX) + (was_lo & UINT32_MAX);
    sum = (sum & UINT32_MAX) + (sum >> 32);
    g->new_hi[i] = hi;
    g->new_lo[i] = lo;
    g->ip_sum[i] = ips_lane_fold((uint32_t)(sum + (sum >> 32)));
  }
  for (uint32_t i = 0; i < n; i++) g->l4_sum[i] = ips_lane_mend_l4(g->l4_sum[i], g->ip_sum[i], g->sum_at[i] == 46);
}

/* ---- steps 2 to 4 ---- */

/* What is to become of the n packets that were brought; ips_lane_write then does it to those that are not declined.
 * Returns 0 where none is. Side w->lane_open. */
IPS_HOT uint32_t ips_lane(struct ips_worker *w, enum ips_side side, enum ips_lane_trust trust, struct ips_lane_net4 *net,
                          struct ips_lane_group *g, uint32_t n, unsigned family) {
  uint64_t ends = side == IPS_OUTER && trust == IPS_TRUST_ROUTED ? 0 : w->root->tunnel_ends | w->remap_ends;
  uint32_t any = 0;
  bool far = w->root->header.n_bindings >= IPS_LANE_FAR;
  if (family == 4) ips_lane_check4(g, n, trust >= IPS_TRUST_HEADER, ends);
  else ips_lane_check6(g, n, ends);
  if (side == IPS_INNER) ips_lane_inner(w->root, g, n, family, far);
  else if (family == 4) ips_lane_outer4(w, net, g, n, far);
  else ips_lane_outer6(w, g, n, far);
  if (side == IPS_OUTER) ips_lane_permit(w, g, n, family);
  if (ips_unlikely(w->remap_filter != NULL)) ips_lane_remaps(w, g, n, family, side == IPS_INNER);
  for (uint32_t i = 0; i < n && far && !(side == IPS_OUTER && family == 4); i++)
    if (g->cell[i] < w->n_cells) __builtin_prefetch(w->cells + g->cell[i], 1);
  ips_lane_sums(g, n, family);
  for (uint32_t i = 0; i < n; i++) any |= g->declined[i];
  return any;
}

/* ---- 5: what becomes of packet i, which is not declined ---- */

IPS_HOT void ips_lane_write(const struct ips_lane_group *g, uint32_t i, unsigned family) {
  uint8_t *ip = g->ip[i];
  ips_st16(ip + g->sum_at[i], (uint16_t)g->l4_sum[i]);
  if (family == 4) {
    ips_st16(ip + 10, (uint16_t)g->ip_sum[i]);
    ips_st32(ip + 16, g->new4[i]);
  } else {
    memcpy(ip + 24, g->new_hi + i, 8);
    memcpy(ip + 32, g->new_lo + i, 8);
  }
}

/* What the lane found out about a packet of a remapped address, unchanged so far: which remap (declined), its translation,
 * as ips_lane_write would write it, its binding's cell and end point. */
struct ips_ordinary {
  uint8_t *ip;
  uint32_t ip_len, sum_at, cell, endpoint, declined, to4;
  uint64_t to_hi, to_lo;
  uint16_t ip_sum, l4_sum;
};

IPS_HOT struct ips_ordinary ips_lane_ordinary(const struct ips_lane_group *g, uint32_t i, unsigned family) {
  struct ips_ordinary o;
  o.ip = g->ip[i];
  o.ip_len = g->ip_len[i];
  o.sum_at = g->sum_at[i];
  o.cell = g->cell[i];
  o.endpoint = g->endpoint[i];
  o.declined = g->declined[i];
  o.l4_sum = (uint16_t)g->l4_sum[i];
  if (family == 4) o.ip_sum = (uint16_t)g->ip_sum[i], o.to4 = g->new4[i];
  else o.to_hi = g->new_hi[i], o.to_lo = g->new_lo[i];
  return o;
}

/* ips_remap_lane.c. A frame's: where their flows are is asked for, for all of them before any is waited for. */
void ips_remap_places(const struct ips_worker *w, const struct ips_ordinary *o, struct ips_place *places, uint32_t n,
                      unsigned family);
/* Then: the packet's verdict, counted; or -1: declined, unchanged. p: as it came. */
int ips_remap_ordinary(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o, const struct ips_place *place,
                       unsigned family);
/* Both for one packet alone. */
int ips_remap_single4(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o);
int ips_remap_single6(struct ips_worker *w, struct ips_pkt *p, const struct ips_ordinary *o);

/* Counting, for who runs the lane over a frame: each packet's cell, and all of them at its end. */
IPS_HOT void ips_lane_count(struct ips_cell *cells, uint32_t n_cells, uint32_t cell, uint32_t bytes) {
  if (ips_unlikely(cell >= n_cells)) return;
  cells[cell].packets++;
  cells[cell].bytes += bytes;
}
static inline void ips_lane_counted(struct ips_worker *w, enum ips_side side, uint32_t packets) {
  w->counters->verdicts[side][IPS_OK] += packets;
  w->counters->packets += packets;
}
#endif
