/* ips_frag.c: the fragment table (contract in ips_frag.h).
 *
 * A hash table of buckets with sixteen entries each; an entry is *waiting* (early fragments, no ports) or
 * *known*. The tags of a bucket's entries lie beside its lock: a look-up reads two cache lines and
 * the entry. Early fragments lie in slots of one pool. Lock order: bucket, then pool; packets are
 * copied and emitted outside of both. Look-ups also clear what has expired in their
 * bucket, and a full pool sweeps some others, so that no thread is needed to keep the table alive.
 */
#include "ips_frag.h"
#include "ips_parse.h"
#include <stdlib.h>

enum { WAYS = 16, SWEEP = 64, NO_SLOT = UINT32_MAX };

struct key {
  uint8_t addresses[32]; /* source, destination; IPv4: eight bytes, the rest zero */
  uint32_t id;
  uint8_t family;
  uint8_t proto;         /* IPv4 only (RFC 8200 4.5) */
  uint8_t zero[2];
};
struct entry {
  struct key key;
  uint64_t expires_ns;
  struct ips_frag_flow flow;
  uint32_t held[IPS_FRAG_EARLY];
  uint8_t n_held;
  bool known;
};
struct bucket {
  uint64_t earliest_ns;  /* nothing here expires before */
  uint32_t tag[WAYS];    /* of the key's hash; 0: free */
  uint8_t lock;
  struct entry ways[WAYS];
} __attribute__((aligned(64)));
struct place {           /* where a key belongs */
  struct bucket *bucket;
  uint32_t tag;
};
struct slot {
  uint32_t next_free;
  uint32_t len, counter, endpoint;
  uint8_t bytes[];       /* headroom, packet */
};
struct ips_frag_table {
  struct bucket *buckets;
  uint32_t mask;
  uint32_t cursor;       /* of ips_frag_expire */
  uint64_t seed;
  uint8_t *slots;
  size_t slot_bytes;
  uint32_t held_bytes;
  uint8_t pool_lock;
  uint32_t first_free;   /* under pool_lock */
  struct ips_frag_stats stats; /* relaxed atomics */
};

#define count(counter, n) __atomic_fetch_add(&(counter), (n), __ATOMIC_RELAXED)

static void lock(uint8_t *l) {
  while (__atomic_exchange_n(l, 1, __ATOMIC_ACQUIRE))
    while (__atomic_load_n(l, __ATOMIC_RELAXED)) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
}
static void unlock(uint8_t *l) { __atomic_store_n(l, 0, __ATOMIC_RELEASE); }

/* ---- memory ------------------------------------------------------------- */

static struct slot *slot_at(const struct ips_frag_table *t, uint32_t index) {
  return (struct slot *)(t->slots + index * t->slot_bytes);
}

static void free_slot(struct ips_frag_table *t, uint32_t index) {
  lock(&t->pool_lock);
  slot_at(t, index)->next_free = t->first_free;
  t->first_free = index;
  unlock(&t->pool_lock);
  count(t->stats.held, -1);
}

static uint32_t take_slot(struct ips_frag_table *t) {
  lock(&t->pool_lock);
  uint32_t index = t->first_free;
  if (index != NO_SLOT) t->first_free = slot_at(t, index)->next_free;
  unlock(&t->pool_lock);
  if (index != NO_SLOT) count(t->stats.held, 1);
  return index;
}

struct ips_frag_table *ips_frag_new(uint32_t datagrams, uint32_t held, uint32_t held_bytes, uint64_t seed) {
  uint32_t n = 1;
  while (n < (1u << 24) && n * WAYS < datagrams) n *= 2;
  if (n * WAYS < datagrams || held == 0 || held >= 1u << 24 || held_bytes < 68 || held_bytes > 65535)
    return NULL;
  struct ips_frag_table *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->slot_bytes = (sizeof(struct slot) + IPS_FRAG_HEADROOM + held_bytes + 63) & ~(size_t)63;
  t->buckets = aligned_alloc(64, n * sizeof *t->buckets);
  t->slots = malloc(held * t->slot_bytes);
  if (!t->buckets || !t->slots) {
    ips_frag_free(t);
    return NULL;
  }
  memset(t->buckets, 0, n * sizeof *t->buckets); /* earliest_ns 0 is put right by the first look-up */
  t->mask = n - 1;
  t->seed = seed;
  t->held_bytes = held_bytes;
  for (uint32_t i = 0; i < held; i++) slot_at(t, i)->next_free = i + 1 < held ? i + 1 : NO_SLOT;
  return t;
}

void ips_frag_free(struct ips_frag_table *t) {
  if (!t) return;
  free(t->buckets);
  free(t->slots);
  free(t);
}

/* ---- entries; the bucket's lock is held ---------------------------------- */

static struct key key_of(const struct ips_pkt *p, const struct ips_view *v) {
  struct key k = {.id = v->frag_id, .family = v->family, .proto = v->family == 4 ? v->proto : 0};
  memcpy(k.addresses, ips_field_at(p->data, v->family, IPS_SRC), v->family == 4 ? 8 : 32);
  return k;
}

static struct place place_of(const struct ips_frag_table *t, const struct key *k) {
  uint64_t h = t->seed;
  for (unsigned i = 0; i < sizeof *k; i += 8) {
    h = (h ^ ips_ld64((const uint8_t *)k + i)) * 0x9e3779b97f4a7c15ull;
    h ^= h >> 32;
  }
  return (struct place){&t->buckets[h & t->mask], (uint32_t)(h >> 32) | 1};
}

/* Returns how many early fragments are lost with what has expired. */
static uint32_t forget_expired(struct ips_frag_table *t, struct bucket *b, uint64_t now_ns) {
  if (b->earliest_ns > now_ns) return 0;
  uint32_t lost = 0;
  b->earliest_ns = UINT64_MAX;
  for (unsigned i = 0; i < WAYS; i++) {
    struct entry *e = &b->ways[i];
    if (!b->tag[i]) continue;
    if (e->expires_ns > now_ns) {
      if (e->expires_ns < b->earliest_ns) b->earliest_ns = e->expires_ns;
      continue;
    }
    for (unsigned h = 0; h < e->n_held; h++) free_slot(t, e->held[h]);
    lost += e->n_held;
    b->tag[i] = 0;
    count(t->stats.datagrams, -1);
  }
  if (lost) count(t->stats.late, lost);
  return lost;
}

static struct entry *find(const struct place *at, const struct key *k) {
  struct bucket *b = at->bucket;
  for (unsigned i = 0; i < WAYS; i++)
    if (b->tag[i] == at->tag && memcmp(&b->ways[i].key, k, sizeof *k) == 0) return &b->ways[i];
  return NULL;
}

static struct entry *find_or_add(struct ips_frag_table *t, const struct place *at, const struct key *k,
                                 uint64_t now_ns) {
  struct bucket *b = at->bucket;
  struct entry *e = find(at, k);
  for (unsigned i = 0; !e && i < WAYS; i++) {
    if (b->tag[i]) continue;
    b->tag[i] = at->tag;
    e = &b->ways[i];
    *e = (struct entry){.key = *k, .expires_ns = now_ns + IPS_FRAG_LIFE_NS};
    if (e->expires_ns < b->earliest_ns) b->earliest_ns = e->expires_ns;
    count(t->stats.datagrams, 1);
  }
  return e;
}

/* ---- ports -------------------------------------------------------------- */

static bool is_echo(const struct ips_view *v, uint8_t type) {
  if (v->proto == IPS_PROTO_ICMP) return v->family == 4 && (type == 8 || type == 0);
  return v->proto == IPS_PROTO_ICMP6 && v->family == 6 && (type == 128 || type == 129);
}

static int read_ports(const struct ips_pkt *p, const struct ips_view *v, struct ips_frag_flow *flow) {
  const uint8_t *l4 = p->data + v->l4;
  bool ports = v->proto == IPS_PROTO_TCP || v->proto == IPS_PROTO_UDP || v->proto == IPS_PROTO_UDPLITE ||
               v->proto == IPS_PROTO_DCCP || v->proto == IPS_PROTO_SCTP;
  bool icmp = v->proto == (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6);
  if (p->len < v->l4 + (icmp ? 8u : ports ? 4u : 0u))
    return v->is_fragment ? IPS_SHORT_FIRST_FRAGMENT : IPS_SHORT_L4;
  if (ports) {
    flow->src_port = ips_be16(ips_ld16(l4));
    flow->dst_port = ips_be16(ips_ld16(l4 + 2));
  } else if (icmp && is_echo(v, l4[0])) {
    flow->src_port = flow->dst_port = ips_be16(ips_ld16(l4 + 4));
  }
  return IPS_OK;
}

/* Copies p into a slot; NO_SLOT: no room. */
static uint32_t keep_copy(struct ips_frag_table *t, const struct ips_pkt *p, uint64_t now_ns) {
  if (p->len > t->held_bytes || p->total_len != p->len) return NO_SLOT;
  uint32_t index = take_slot(t);
  if (index == NO_SLOT && ips_frag_expire(t, now_ns, SWEEP)) index = take_slot(t);
  if (index == NO_SLOT) return NO_SLOT;
  struct slot *s = slot_at(t, index);
  s->len = p->len;
  s->counter = p->counter;
  s->endpoint = p->endpoint;
  memcpy(s->bytes + IPS_FRAG_HEADROOM, p->data, p->len);
  return index;
}

/* OK with *flow, if the ports are known. Else holds the copy in `slot`, if there is one. */
static int look_up(struct ips_frag_table *t, const struct key *k, uint32_t slot, uint64_t now_ns,
                   struct ips_frag_flow *flow) {
  struct place at = place_of(t, k);
  int verdict = IPS_FRAGMENTS_FULL;
  lock(&at.bucket->lock);
  forget_expired(t, at.bucket, now_ns);
  struct entry *e = slot == NO_SLOT ? find(&at, k) : find_or_add(t, &at, k, now_ns);
  if (e && e->known) {
    *flow = e->flow;
    verdict = IPS_OK;
  } else if (e && slot != NO_SLOT && e->n_held < IPS_FRAG_EARLY) {
    e->held[e->n_held++] = slot;
    verdict = IPS_HELD;
  }
  unlock(&at.bucket->lock);
  return verdict;
}

int ips_frag_ports(struct ips_frag_table *t, const struct ips_pkt *p, const struct ips_view *v,
                   uint64_t now_ns, struct ips_frag_flow *flow) {
  *flow = (struct ips_frag_flow){0};
  if (v->fragment_at == 0) return read_ports(p, v, flow);
  struct key k = key_of(p, v);
  if (look_up(t, &k, NO_SLOT, now_ns, flow) == IPS_OK) return IPS_OK;
  uint32_t slot = keep_copy(t, p, now_ns); /* outside of the lock; the first fragment may come meanwhile */
  int verdict = look_up(t, &k, slot, now_ns, flow);
  if (verdict == IPS_HELD) count(t->stats.held_total, 1);
  if (verdict == IPS_FRAGMENTS_FULL) count(t->stats.full, 1);
  if (slot != NO_SLOT && verdict != IPS_HELD) free_slot(t, slot);
  return verdict;
}

/* The first fragment decides; what was held so far is handed over to the caller. */
static int decide(struct ips_frag_table *t, const struct key *k, uint64_t now_ns, struct ips_frag_flow *flow,
                  uint32_t held[IPS_FRAG_EARLY], unsigned *n_held) {
  struct place at = place_of(t, k);
  int verdict = IPS_OK;
  lock(&at.bucket->lock);
  forget_expired(t, at.bucket, now_ns);
  struct entry *e = find_or_add(t, &at, k, now_ns);
  if (!e) {
    verdict = IPS_FRAGMENTS_FULL;
  } else if (!e->known) {
    e->known = true;
    e->flow = *flow;
    e->expires_ns = now_ns + IPS_FRAG_LIFE_NS;
    *n_held = e->n_held;
    memcpy(held, e->held, sizeof e->held);
    e->n_held = 0;
  } else if (e->flow.src_port == flow->src_port && e->flow.dst_port == flow->dst_port) {
    *flow = e->flow;
  } else {
    verdict = IPS_BAD_FRAGMENT;
  }
  unlock(&at.bucket->lock);
  return verdict;
}

int ips_frag_learn(struct ips_frag_table *t, const struct ips_pkt *p, const struct ips_view *v,
                   uint64_t now_ns, struct ips_frag_flow *flow, ips_packet_fn emit, void *arg) {
  if (!v->is_fragment || v->fragment_at) return IPS_OK;
  struct key k = key_of(p, v);
  uint32_t held[IPS_FRAG_EARLY];
  unsigned n_held = 0;
  int verdict = decide(t, &k, now_ns, flow, held, &n_held);
  if (verdict == IPS_FRAGMENTS_FULL) count(t->stats.full, 1);
  if (verdict == IPS_BAD_FRAGMENT) count(t->stats.conflicts, 1);
  for (unsigned i = 0; i < n_held; i++) {
    struct slot *s = slot_at(t, held[i]);
    struct ips_pkt early = {.data = s->bytes + IPS_FRAG_HEADROOM, .len = s->len, .total_len = s->len,
                            .headroom = IPS_FRAG_HEADROOM, .counter = s->counter, .endpoint = s->endpoint};
    count(t->stats.released, 1);
    emit(arg, &early);
    free_slot(t, held[i]);
  }
  return verdict;
}

uint32_t ips_frag_expire(struct ips_frag_table *t, uint64_t now_ns, uint32_t buckets) {
  uint32_t lost = 0;
  for (uint32_t i = 0; i < buckets && i <= t->mask; i++) {
    struct bucket *b = &t->buckets[count(t->cursor, 1) & t->mask];
    lock(&b->lock);
    lost += forget_expired(t, b, now_ns);
    unlock(&b->lock);
  }
  return lost;
}

void ips_frag_stats(const struct ips_frag_table *t, struct ips_frag_stats *out) {
  const struct ips_frag_stats *s = &t->stats;
  out->datagrams = __atomic_load_n(&s->datagrams, __ATOMIC_RELAXED);
  out->held = __atomic_load_n(&s->held, __ATOMIC_RELAXED);
  out->held_total = __atomic_load_n(&s->held_total, __ATOMIC_RELAXED);
  out->released = __atomic_load_n(&s->released, __ATOMIC_RELAXED);
  out->late = __atomic_load_n(&s->late, __ATOMIC_RELAXED);
  out->full = __atomic_load_n(&s->full, __ATOMIC_RELAXED);
  out->conflicts = __atomic_load_n(&s->conflicts, __ATOMIC_RELAXED);
}

int ips_frag_ports_packet(struct ips_frag_table *t, struct ips_pkt *p, uint64_t now_ns,
                          struct ips_frag_flow *flow) {
  struct ips_view v;
  int verdict = ips_parse(p, &v);
  return verdict != IPS_OK ? verdict : ips_frag_ports(t, p, &v, now_ns, flow);
}

int ips_frag_learn_packet(struct ips_frag_table *t, struct ips_pkt *p, uint64_t now_ns,
                          struct ips_frag_flow *flow, ips_packet_fn emit, void *arg) {
  struct ips_view v;
  int verdict = ips_parse(p, &v);
  return verdict != IPS_OK ? verdict : ips_frag_learn(t, p, &v, now_ns, flow, emit, arg);
}
