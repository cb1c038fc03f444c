/* ips_table.h: what a worker reads: one immutable root, found by one load per frame.
 *
 * global -> local: an IPv4 network is an array of 8-byte slots in pages of 4,096; IPv6 has
 * one hash per prefix length in use, longest first. local -> global: a hash per prefix
 * length for both families. Where whole IPv6 addresses stand close together, slots repeat
 * what the hash says. Pages are shared between generations, never written once
 * a root that reaches them is live. Nothing here looks at ports, protocol or anything
 * that a fragment lacks (S1.8). In memory, addresses and prefixes are 128-bit host
 * numbers, IPv4 in the top 32 bits, so that both families share the arithmetic.
 */
#ifndef IPS_TABLE_H
#define IPS_TABLE_H
#include "ips_core.h"
#include <stdatomic.h>

typedef unsigned __int128 ips_u128;

static inline ips_u128 ips_pair(uint64_t hi, uint64_t lo) { return (ips_u128)hi << 64 | lo; }
static inline uint64_t ips_hi(ips_u128 v) { return (uint64_t)(v >> 64); }
static inline uint64_t ips_lo(ips_u128 v) { return (uint64_t)v; }
/* `p`: 4 or 16 bytes, any alignment. */
static inline ips_u128 ips_ld_address(unsigned family, const uint8_t *p) {
  if (family == 4) return ips_pair((uint64_t)ips_be32(ips_ld32(p)) << 32, 0);
  return ips_pair(ips_be64(ips_ld64(p)), ips_be64(ips_ld64(p + 8)));
}
static inline void ips_st_address(uint8_t out[16], ips_u128 v) {
  uint64_t words[2] = {ips_be64(ips_hi(v)), ips_be64(ips_lo(v))};
  memcpy(out, words, 16);
}
static inline ips_u128 ips_mask(unsigned prefix_len) {
  return prefix_len ? ~(ips_u128)0 << (128 - prefix_len) : 0;
}

/* ---- hash: keys and values of 768 cells in a page, four keys to a cache line ---- */

enum { IPS_BUCKETS = 192, IPS_BUCKET = 4, IPS_HASH_CELLS = IPS_BUCKETS * IPS_BUCKET };

struct ips_key { uint64_t hi, lo; }; /* 0,0: free; a bucket fills from its first cell */
struct ips_value {
  uint64_t hi, lo;  /* global6: offset or address; local6: Global IP; local4: Global IP and its slot */
  uint8_t kind, flags;
  uint16_t target;  /* as in a slot; local: the end point */
  uint32_t cell;    /* counter cell; local4: of the prefix's first address */
};
/* In `flags` of local hashes, besides those of the binding: see ips_local.c. */
enum { IPS_VALUE_CONTESTED = 0x80, IPS_VALUE_SOFT = 0x40, IPS_VALUE_FLAGS = 0x3f };
struct ips_hash_page {
  struct ips_key keys[IPS_HASH_CELLS];
  struct ips_value values[IPS_HASH_CELLS];
  uint32_t used;
};

/* Whole IPv6 addresses that stand close together: slots by their last twelve bits (ips_dense.c).
 * kind | target << 4 | value - base << 20 | cell - base_cell << 42; 0: the hash knows. */
typedef uint64_t ips_slot;
enum { IPS_DENSE_SLOTS = 4096, IPS_DENSE_FIELD = 22 };
#define IPS_DENSE_GROUP (~(uint64_t)(IPS_DENSE_SLOTS - 1))
struct ips_dense_group {
  uint64_t hi, lo;           /* the address of slot 0 */
  uint64_t base_hi, base_lo;
  ips_slot *slots;           /* NULL: no group */
  uint32_t base_cell;
};
struct ips_dense {
  struct ips_dense_group *groups; /* open addressing, mask + 1 cells, at most half of them in use */
  uint32_t mask, n;
  uint32_t changes;               /* of the hash, since groups were chosen */
};

struct ips_hash { /* all prefixes of one length */
  uint64_t mask_hi, mask_lo;
  struct ips_hash_page **pages; /* ips_hash_pages() of them */
  uint32_t count;
  uint8_t shift, prefix_len;
  struct ips_dense dense; /* groups only where prefix_len is 128 */
};
struct ips_lpm {
  struct ips_hash *tables; /* longest prefix first, none empty */
  uint32_t n;
};

static inline uint64_t ips_fold(uint64_t a, uint64_t b) {
  ips_u128 product = (ips_u128)a * b;
  return ips_hi(product) ^ ips_lo(product);
}
static inline uint64_t ips_hash_of(uint64_t hi, uint64_t lo) {
  return ips_fold(hi ^ 0x9e3779b97f4a7c15u, lo ^ 0xd1b54a32d192ed03u) * 0xf1357aea2e62a9c5u;
}
static inline uint32_t ips_bucket_of(uint64_t hash) {
  return (uint32_t)(((hash & UINT32_MAX) * IPS_BUCKETS) >> 32);
}
static inline uint32_t ips_hash_pages(const struct ips_hash *t) { return (uint32_t)1 << (63 - t->shift); }
static inline struct ips_hash_page *ips_page_of(const struct ips_hash *t, uint64_t hash) {
  return t->pages[(hash >> 1) >> t->shift];
}

/* The key must be masked already. A page always has a free cell, so the search ends. */
static inline const struct ips_value *ips_hash_find(const struct ips_hash *t, uint64_t hi, uint64_t lo) {
  uint64_t hash = ips_hash_of(hi, lo);
  const struct ips_hash_page *page = ips_page_of(t, hash);
  for (uint32_t b = ips_bucket_of(hash);; b = b + 1 == IPS_BUCKETS ? 0 : b + 1) {
    const struct ips_key *k = page->keys + b * IPS_BUCKET;
    for (uint32_t i = 0; i < IPS_BUCKET; i++)
      if (((k[i].hi ^ hi) | (k[i].lo ^ lo)) == 0) {
        const struct ips_value *v = page->values + b * IPS_BUCKET + i;
        return ips_likely(v->kind) ? v : NULL; /* key 0 "matches" a free cell */
      }
    if (ips_likely((k[IPS_BUCKET - 1].hi | k[IPS_BUCKET - 1].lo) == 0)) return NULL;
  }
}

static inline uint32_t ips_dense_hash(uint64_t hi, uint64_t lo) { /* of a group */
  return (uint32_t)ips_fold(hi ^ 0x9e3779b97f4a7c15u, lo ^ 0xd1b54a32d192ed03u);
}
static inline const struct ips_dense_group *ips_dense_group_of(const struct ips_dense *d, uint64_t hi,
                                                               uint64_t lo) {
  lo &= IPS_DENSE_GROUP;
  for (uint32_t i = d->n ? ips_dense_hash(hi, lo) : 0; d->n; i++) {
    const struct ips_dense_group *g = d->groups + (i & d->mask);
    if (ips_unlikely(!g->slots)) return NULL;
    if (ips_likely(((g->hi ^ hi) | (g->lo ^ lo)) == 0)) return g;
  }
  return NULL;
}
static inline const ips_slot *ips_dense_slot(const struct ips_dense_group *g, uint64_t lo) {
  return g->slots + lo % IPS_DENSE_SLOTS;
}
static inline void ips_dense_read(const struct ips_dense_group *g, ips_slot slot, struct ips_value *v) {
  ips_u128 value = ips_pair(g->base_hi, g->base_lo) + (slot >> 20 & ((1u << IPS_DENSE_FIELD) - 1));
  v->hi = ips_hi(value);
  v->lo = ips_lo(value);
  v->kind = slot & 15;
  v->flags = 0;
  v->target = (uint16_t)(slot >> 4);
  v->cell = g->base_cell + (uint32_t)(slot >> (20 + IPS_DENSE_FIELD));
}
/* ips_hash_find for packets: by slot where there is one, which is then read into *room. */
static inline const struct ips_value *ips_value_find(const struct ips_hash *t, uint64_t hi, uint64_t lo,
                                                     struct ips_value *room) {
  const struct ips_dense_group *g = ips_dense_group_of(&t->dense, hi, lo);
  ips_slot slot = g ? *ips_dense_slot(g, lo) : 0;
  if (!slot) return ips_hash_find(t, hi, lo);
  ips_dense_read(g, slot, room);
  return room;
}

/* ---- networks ---- */

/* An ips_slot here: kind | flags << 8 | target << 16 | offset or address << 32; 0: nothing here. */
enum { IPS_PAGE_SLOTS = 4096, IPS_MIN_NETWORK_BITS = 8 };
#define IPS_SLOT_STEP ((ips_slot)1 << 32) /* from one address of a prefix binding to the next */

struct ips_net4 {
  uint32_t base, mask;
  uint32_t cell;       /* counter cell of the first address */
  uint8_t unmatched, prefix_len;
  uint16_t reserved;
  ips_slot **pages;
};
struct ips_prefix { /* of either family */
  uint64_t hi, lo, mask_hi, mask_lo;
  uint8_t prefix_len, unmatched;
};
struct ips_prefixes { struct ips_prefix *at; uint32_t n; }; /* ascending, disjoint */

struct ips_policy {
  const uint16_t *table;  /* end point by slot (ips_maglev.h) */
  const uint16_t *previous; /* the same as it was before, while that drains; NULL: none */
  uint32_t size, previous_size;
  uint32_t own;           /* its first member, now or before, that is this node, or IPS_NONE */
  uint64_t seed;
  uint64_t mask4, mask6_hi, mask6_lo;
};
/* A name of a member of a group (S5): its address, or, apart from it, what that is now (or was, or will be). */
struct ips_peer {
  uint64_t hi, lo, to_hi, to_lo; /* the key; its other name, or the same again */
  uint32_t group;
  uint8_t family;                /* 0: free */
  bool is_here, is_address, is_now; /* an address that never changed is both */
};
struct ips_peers { const struct ips_peer *at; uint32_t mask; }; /* open addressing, mask + 1 cells; NULL: none */

struct ips_tunnel { struct ips_key remote, local; uint32_t endpoint; uint32_t family; }; /* family 0: free */

struct ips_root {
  uint64_t generation;
  struct ips_image_header header;
  const struct ips_endpoint *endpoints;
  struct ips_net4 *net4;       /* ascending, disjoint */
  struct ips_prefixes net6;
  struct ips_lpm global6, local4, local6;
  struct ips_prefixes home4, home6; /* local prefixes of the end points that this node maps back */
  const struct ips_policy *policies;
  const struct ips_tunnel *tunnels; /* open addressing, tunnel_mask + 1 cells; remote 0: an own address */
  uint32_t tunnel_mask;
  struct ips_peers peers;
  uint64_t tunnel_ends;        /* bit n: one of our own tunnel addresses ends in n, modulo 64 */
  uint8_t longest4;            /* longest IPv4 binding */
  uint16_t first4[257];        /* first network that begins with byte b; first4[b + 1]: behind the last */
};

static inline const struct ips_image_header *ips_root_header(const struct ips_root *r) { return &r->header; }

static inline const struct ips_endpoint *ips_endpoint(const struct ips_root *r, uint32_t index) {
  return ips_likely(index < r->header.n_endpoints) ? r->endpoints + index : NULL;
}

static inline const struct ips_net4 *ips_net4_find(const struct ips_root *r, uint32_t address) {
  uint32_t i = r->first4[address >> 24], end = r->first4[(address >> 24) + 1];
  if (i == end) return NULL;
  if (ips_likely((address & r->net4[i].mask) == r->net4[i].base)) return r->net4 + i; /* most often */
  while (ips_unlikely(end - i > 4)) {
    uint32_t mid = (i + end) / 2;
    if (r->net4[mid].base > address) end = mid; else i = mid;
  }
  for (; i < end; i++)
    if (ips_likely((address & r->net4[i].mask) == r->net4[i].base)) return r->net4 + i;
  return NULL;
}

static inline const struct ips_prefix *ips_prefixes_find(const struct ips_prefixes *s, uint64_t hi,
                                                         uint64_t lo) {
  uint32_t i = 0, end = s->n;
  while (ips_unlikely(end - i > 4)) {
    uint32_t mid = (i + end) / 2;
    if (ips_pair(s->at[mid].hi, s->at[mid].lo) > ips_pair(hi, lo)) end = mid; else i = mid;
  }
  for (; i < end; i++)
    if (((hi & s->at[i].mask_hi) ^ s->at[i].hi) == 0 && ((lo & s->at[i].mask_lo) ^ s->at[i].lo) == 0)
      return s->at + i;
  return NULL;
}

static inline bool ips_in_network(const struct ips_root *r, unsigned family, const uint8_t *key) {
  if (family == 4) return ips_net4_find(r, ips_be32(ips_ld32(key))) != NULL;
  return ips_prefixes_find(&r->net6, ips_be64(ips_ld64(key)), ips_be64(ips_ld64(key + 8))) != NULL;
}

/* ---- load sharing (S1.8) ---- */

/* Same answer on every machine for the same members: plain arithmetic on numbers that the
 * addresses spell, no index, no pointer. The Global IP enters: each has a permutation of its own. */
static inline uint64_t ips_flow_hash(uint64_t seed, unsigned family, uint64_t c_hi, uint64_t c_lo,
                                     uint64_t g_hi, uint64_t g_lo) {
  uint64_t c = ips_fold(c_hi ^ seed ^ 0x2d358dccaa6c78a5u, c_lo ^ 0x8bb84b93962eacc9u);
  uint64_t g = ips_fold(g_hi ^ family ^ 0x4b33a62ed433d4a3u, g_lo ^ 0x4d5a2da51de1aa47u);
  return ips_fold(c ^ 0xa0761d6478bd642fu, g ^ (seed << 32 | seed >> 32) ^ 0xe7037ed1a0b428dbu);
}

static inline uint64_t ips_policy_hash(const struct ips_policy *p, unsigned family, const uint8_t *client,
                                       const uint8_t *global) {
  if (family == 4)
    return ips_flow_hash(p->seed, 4, ips_be32(ips_ld32(client)) & p->mask4, 0, ips_be32(ips_ld32(global)), 0);
  return ips_flow_hash(p->seed, 6, ips_be64(ips_ld64(client)) & p->mask6_hi,
                       ips_be64(ips_ld64(client + 8)) & p->mask6_lo, ips_be64(ips_ld64(global)),
                       ips_be64(ips_ld64(global + 8)));
}

static inline uint32_t ips_policy_pick(const struct ips_root *r, uint32_t policy, unsigned family,
                                       const uint8_t *client, const uint8_t *global) {
  if (ips_unlikely(policy >= r->header.n_policies)) return IPS_NONE;
  const struct ips_policy *p = r->policies + policy;
  return p->table[ips_hi((ips_u128)ips_policy_hash(p, family, client, global) * p->size)];
}

/* The end point that had this client before; IPS_NONE: nothing is kept of what was before. */
static inline uint32_t ips_policy_previous(const struct ips_root *r, uint32_t policy, unsigned family,
                                           const uint8_t *client, const uint8_t *global) {
  const struct ips_policy *p = r->policies + policy;
  if (ips_likely(!p->previous)) return IPS_NONE;
  return p->previous[ips_hi((ips_u128)ips_policy_hash(p, family, client, global) * p->previous_size)];
}

/* ---- global -> local ---- */

enum ips_whose { IPS_ANYONES, IPS_OWN };

/* End point of a hit whose binding names `target`; false where `whose` asks for our own and it is not. */
static inline bool ips_choose(const struct ips_root *r, unsigned family, const uint8_t *key,
                              const uint8_t *client, enum ips_whose whose, uint32_t target,
                              struct ips_hit *h) {
  if (ips_unlikely(h->kind == IPS_KIND_POLICY)) {
    uint32_t previous = whose == IPS_OWN || !client ? IPS_NONE : ips_policy_previous(r, target, family, client, key);
    target = whose == IPS_OWN ? r->policies[target].own
             : client         ? ips_policy_pick(r, target, family, client, key)
                              : IPS_NONE;
    if (previous != target) h->previous = previous + 1; /* IPS_NONE + 1 is 0 */
  }
  h->endpoint = target;
  return whose == IPS_ANYONES || (target != IPS_NONE && r->endpoints[target].r.flags & IPS_EP_SELF);
}

static inline bool ips_find4(const struct ips_root *r, const uint8_t *key, const uint8_t *client,
                             enum ips_whose whose, struct ips_hit *h) {
  uint32_t address = ips_be32(ips_ld32(key));
  const struct ips_net4 *n = ips_net4_find(r, address);
  if (ips_unlikely(!n)) return false;
  uint32_t at = address - n->base;
  ips_slot slot = n->pages[at / IPS_PAGE_SLOTS][at % IPS_PAGE_SLOTS];
  *h = (struct ips_hit){.kind = (uint8_t)slot, .flags = (uint8_t)(slot >> 8), .unmatched = n->unmatched,
                        .endpoint = IPS_NONE, .counter = n->cell + at};
  uint32_t to = (uint32_t)(slot >> 32);
  if (ips_likely(h->kind == IPS_KIND_ENDPOINT || h->kind == IPS_KIND_POLICY || h->kind == IPS_KIND_ADDRESS)) {
    if (!ips_choose(r, 4, key, client, whose, (uint16_t)(slot >> 16), h)) {
      h->kind = IPS_KIND_NONE;
    } else if (ips_likely(h->endpoint != IPS_NONE)) {
      if (h->kind != IPS_KIND_ADDRESS) to += ips_be32(ips_ld32(r->endpoints[h->endpoint].r.local));
      to = ips_be32(to);
      memcpy(h->address, &to, 4);
    }
  }
  return true;
}

static inline bool ips_find6(const struct ips_root *r, const uint8_t *key, const uint8_t *client,
                             enum ips_whose whose, struct ips_hit *h) {
  uint64_t hi = ips_be64(ips_ld64(key)), lo = ips_be64(ips_ld64(key + 8));
  struct ips_value room;
  *h = (struct ips_hit){.endpoint = IPS_NONE, .counter = IPS_NONE};
  for (const struct ips_hash *t = r->global6.tables, *end = t + r->global6.n; t < end; t++) {
    const struct ips_value *v = ips_value_find(t, hi & t->mask_hi, lo & t->mask_lo, &room);
    if (!v) continue;
    h->kind = v->kind, h->flags = v->flags, h->counter = v->cell;
    if (ips_unlikely(h->kind != IPS_KIND_ENDPOINT && h->kind != IPS_KIND_POLICY &&
                     h->kind != IPS_KIND_ADDRESS))
      return true;
    if (!ips_choose(r, 6, key, client, whose, v->target, h)) {
      h->kind = IPS_KIND_NONE;
    } else if (ips_likely(h->endpoint != IPS_NONE)) {
      ips_u128 to = ips_pair(v->hi, v->lo) + ips_pair(hi & ~t->mask_hi, lo & ~t->mask_lo);
      if (h->kind != IPS_KIND_ADDRESS) to += ips_ld_address(6, r->endpoints[h->endpoint].r.local);
      ips_st_address(h->address, to);
    }
    return true;
  }
  const struct ips_prefix *n = ips_prefixes_find(&r->net6, hi, lo);
  if (!n) return false;
  h->unmatched = n->unmatched;
  return true;
}

/* Contract: ips_core.h. client NULL: a policy's end point stays IPS_NONE. */
static inline bool ips_find_global(const struct ips_root *r, unsigned family, const uint8_t *key,
                                   const uint8_t *client, struct ips_hit *h) {
  return family == 4 ? ips_find4(r, key, client, IPS_ANYONES, h) : ips_find6(r, key, client, IPS_ANYONES, h);
}
static inline bool ips_find_global_self(const struct ips_root *r, unsigned family, const uint8_t *key,
                                        struct ips_hit *h) {
  return family == 4 ? ips_find4(r, key, NULL, IPS_OWN, h) : ips_find6(r, key, NULL, IPS_OWN, h);
}

/* Functions that only prefetch: GCC 12 takes them for ones that do nothing, unless it must inline them. */
#define IPS_PREFETCHES static inline __attribute__((__always_inline__))

/* Asks for the lines of a key in the longest of the prefixes in use, where most addresses are. */
IPS_PREFETCHES void ips_prefetch_hash(const struct ips_lpm *lpm, uint64_t hi, uint64_t lo) {
  if (!lpm->n) return;
  const struct ips_hash *t = lpm->tables;
  const struct ips_dense_group *g = ips_dense_group_of(&t->dense, hi, lo);
  if (g) { /* what its slot cannot say is left to wait for */
    __builtin_prefetch(ips_dense_slot(g, lo));
    return;
  }
  uint64_t hash = ips_hash_of(hi & t->mask_hi, lo & t->mask_lo);
  const struct ips_hash_page *page = ips_page_of(t, hash);
  const struct ips_value *values = page->values + ips_bucket_of(hash) * IPS_BUCKET;
  __builtin_prefetch(page->keys + ips_bucket_of(hash) * IPS_BUCKET);
  __builtin_prefetch(values);
  __builtin_prefetch(values + IPS_BUCKET / 2);
}
/* When these have arrived: the key's counter cell, or IPS_NONE. */
static inline uint32_t ips_hash_cell(const struct ips_lpm *lpm, uint64_t hi, uint64_t lo, unsigned family) {
  if (!lpm->n) return IPS_NONE;
  const struct ips_hash *t = lpm->tables;
  struct ips_value room;
  const struct ips_value *v = ips_value_find(t, hi & t->mask_hi, lo & t->mask_lo, &room);
  return v ? v->cell + (family == 4 ? (uint32_t)((hi & ~t->mask_hi) >> 32) : 0) : IPS_NONE;
}
/* Asks for the lines that ips_find_global will need; a host that holds a batch calls it a few packets ahead.
 * Returns the counter cell where the address alone tells it (IPv4), else IPS_NONE. */
IPS_PREFETCHES uint32_t ips_prefetch_global(const struct ips_root *r, unsigned family, const uint8_t *key) {
  if (family == 6) {
    ips_prefetch_hash(&r->global6, ips_be64(ips_ld64(key)), ips_be64(ips_ld64(key + 8)));
    return IPS_NONE;
  }
  uint32_t address = ips_be32(ips_ld32(key));
  const struct ips_net4 *n = ips_net4_find(r, address);
  if (!n) return IPS_NONE;
  __builtin_prefetch(n->pages[(address - n->base) / IPS_PAGE_SLOTS] + (address - n->base) % IPS_PAGE_SLOTS);
  return n->cell + (address - n->base);
}

/* ---- local -> global ---- */

/* Is the prefix that local table `t` names for this address the one that decides there? A longer
 * binding may have taken the Global IP elsewhere; then the covering one does not claim its local address. */
static inline bool ips_still_bound(const struct ips_root *r, unsigned family, const struct ips_hash *t,
                                   const struct ips_value *v, ips_u128 global, ips_u128 host) {
  if (family == 4) {
    if (ips_likely(t->prefix_len == r->longest4)) return true;
    const struct ips_net4 *n = ips_net4_find(r, (uint32_t)(global >> 96));
    uint32_t at = n ? (uint32_t)(global >> 96) - n->base : 0;
    return n && n->pages[at / IPS_PAGE_SLOTS][at % IPS_PAGE_SLOTS] ==
                  v->lo + (uint32_t)(host >> 96) * IPS_SLOT_STEP;
  }
  for (const struct ips_hash *g = r->global6.tables, *end = g + r->global6.n;
       g < end && g->prefix_len > t->prefix_len; g++)
    if (ips_hash_find(g, ips_hi(global) & g->mask_hi, ips_lo(global) & g->mask_lo)) return false;
  return true;
}

/* Contract: ips_core.h. True with kind NONE: a local prefix of ours, but no binding. */
static inline bool ips_find_local(const struct ips_root *r, unsigned family, const uint8_t *key,
                                  struct ips_hit *h) {
  const struct ips_lpm *lpm = family == 4 ? &r->local4 : &r->local6;
  ips_u128 address = ips_ld_address(family, key);
  struct ips_value room;
  *h = (struct ips_hit){.endpoint = IPS_NONE, .counter = IPS_NONE};
  for (const struct ips_hash *t = lpm->tables, *end = t + lpm->n; t < end; t++) {
    const struct ips_value *v =
      ips_value_find(t, ips_hi(address) & t->mask_hi, ips_lo(address) & t->mask_lo, &room);
    if (!v) continue;
    ips_u128 host = address & ~ips_pair(t->mask_hi, t->mask_lo);
    ips_u128 global = ips_pair(v->hi, family == 4 ? 0 : v->lo) + host;
    if (ips_unlikely(!ips_still_bound(r, family, t, v, global, host))) continue;
    h->kind = v->kind, h->flags = v->flags & IPS_VALUE_FLAGS, h->endpoint = v->target;
    h->counter = v->cell + (family == 4 ? (uint32_t)(host >> 96) : 0);
    ips_st_address(h->address, global);
    return true;
  }
  return ips_prefixes_find(family == 4 ? &r->home4 : &r->home6, ips_hi(address), ips_lo(address)) != NULL;
}

/* ---- tunnels ---- */

static inline uint32_t ips_tunnel_hash(uint32_t family, struct ips_key remote, struct ips_key local) {
  uint64_t there = ips_hash_of(remote.hi, remote.lo) ^ family;
  uint64_t here = ips_hash_of(local.hi, local.lo) ^ 0x8bb84b93962eacc9u;
  return (uint32_t)(ips_fold(there, here) >> 20);
}
static inline const struct ips_tunnel *ips_tunnel_find(const struct ips_root *r, unsigned family,
                                                       ips_u128 remote, ips_u128 local) {
  struct ips_key a = {ips_hi(remote), ips_lo(remote)}, b = {ips_hi(local), ips_lo(local)};
  for (uint32_t i = ips_tunnel_hash(family, a, b);; i++) {
    const struct ips_tunnel *t = r->tunnels + (i & r->tunnel_mask);
    if (!t->family) return NULL;
    if (t->family == family && t->local.hi == b.hi && t->local.lo == b.lo && t->remote.hi == a.hi &&
        t->remote.lo == a.lo)
      return t;
  }
}
static inline uint32_t ips_find_tunnel(const struct ips_root *r, unsigned family, const uint8_t *remote,
                                       const uint8_t *local) {
  const struct ips_tunnel *t =
    ips_tunnel_find(r, family, ips_ld_address(family, remote), ips_ld_address(family, local));
  return t ? t->endpoint : IPS_NONE; /* remote 0 is no address: its cells name IPS_NONE */
}
/* Ways are among the tunnels, by a local address that no packet has. */
#define IPS_WAY_LOCAL ((ips_u128)-1)
static inline const struct ips_endpoint *ips_way_to(const struct ips_root *r, unsigned family, const uint8_t *address) {
  const struct ips_tunnel *t = ips_tunnel_find(r, family, ips_ld_address(family, address), IPS_WAY_LOCAL);
  return t ? ips_endpoint(r, t->endpoint) : NULL;
}
static inline bool ips_is_tunnel_local(const struct ips_root *r, unsigned family, const uint8_t *address) {
  if (ips_likely(!(r->tunnel_ends >> (address[family == 4 ? 3 : 15] & 63) & 1))) return false;
  return ips_tunnel_find(r, family, 0, ips_ld_address(family, address)) != NULL;
}

/* ---- readers ---- */

struct ips_reader { /* odd: inside a frame */
  _Alignas(64) _Atomic uint64_t loops;
};
struct ips_tables {
  _Atomic(const struct ips_root *) live;
  struct ips_reader *readers;
  uint32_t workers;
  struct ips_control *control; /* ips_gen.h: the control thread's business */
  struct ips_shared *shared;   /* ips_worker.h: what outlives generations */
};

static inline const struct ips_root *ips_tables_live(const struct ips_tables *t) {
  return atomic_load_explicit(&((struct ips_tables *)(uintptr_t)t)->live, memory_order_acquire);
}
/* From here to ips_reader_end the root stays. NULL: no generation yet. The order "I am inside" before "which
 * root" must be seen by the control thread (ips_reclaim.c), hence seq_cst: one locked store a frame. */
static inline const struct ips_root *ips_reader_begin(struct ips_tables *t, uint32_t index) {
  _Atomic uint64_t *loops = &t->readers[index].loops;
  atomic_store_explicit(loops, atomic_load_explicit(loops, memory_order_relaxed) + 1, memory_order_seq_cst);
  return atomic_load_explicit(&t->live, memory_order_seq_cst);
}
static inline void ips_reader_end(struct ips_tables *t, uint32_t index) {
  _Atomic uint64_t *loops = &t->readers[index].loops;
  atomic_store_explicit(loops, atomic_load_explicit(loops, memory_order_relaxed) + 1, memory_order_release);
}
#endif
