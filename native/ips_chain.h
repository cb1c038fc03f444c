/* ips_chain.h: chains of a hash table that are read without a lock, and stacks of free nodes.
 *
 * A chain's word `seq` is sequence counter and writer lock in one: odd while a writer is inside. Readers
 * walk the chain and believe what they read only if `seq` is even and the same before and after. Nodes
 * live in arrays and are named by index; they are never given back to the system, so a reader that was
 * overtaken reads something, and throws it away. Everything a reader may see is written by
 * atomic release stores and read by acquire loads: no fence, no data race. Writers hold one chain at a time
 * but where a caller says in which order.
 */
#ifndef IPS_CHAIN_H
#define IPS_CHAIN_H
#include "ips_core.h"

struct ips_chain { uint32_t head, seq; };
enum { IPS_CHAIN_STEPS = 32, IPS_SHARDS = 16 };

#define ips_get(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)
#define ips_put(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELEASE)
#define ips_add(place, n) __atomic_fetch_add(&(place), (n), __ATOMIC_RELAXED)
#define ips_peek(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)

static inline void ips_relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static inline void ips_chain_lock(struct ips_chain *c) {
  for (;;) {
    uint32_t seq = ips_peek(c->seq);
    if (!(seq & 1) && __atomic_compare_exchange_n(&c->seq, &seq, seq + 1, true, __ATOMIC_ACQ_REL,
                                                  __ATOMIC_RELAXED))
      return;
    ips_relax();
  }
}
static inline void ips_chain_unlock(struct ips_chain *c) { ips_put(c->seq, ips_peek(c->seq) + 1); }

/* For a reader: the number to be compared afterwards. */
static inline uint32_t ips_chain_begin(const struct ips_chain *c) {
  uint32_t seq;
  while ((seq = ips_get(c->seq)) & 1) ips_relax();
  return seq;
}
static inline bool ips_chain_is_still(const struct ips_chain *c, uint32_t seq) {
  return ips_get(c->seq) == seq;
}

/* Free nodes: a stack for each of 16 workers, and the nodes that were never used. A node's index lies, while
 * it is free, in the 32-bit word at `link` of the node below it in the stack. */
struct ips_stacks {
  struct { uint64_t top; uint8_t pad[56]; } shard[IPS_SHARDS]; /* tag << 32 | index */
  uint32_t fresh, capacity;
  uint8_t *nodes;
  size_t stride, link;
};

static inline void ips_stacks_init(struct ips_stacks *s, void *nodes, uint32_t n, size_t stride,
                                   size_t link) {
  *s = (struct ips_stacks){.capacity = n, .nodes = nodes, .stride = stride, .link = link};
  for (unsigned i = 0; i < IPS_SHARDS; i++) s->shard[i].top = IPS_NONE;
}
static inline uint32_t *ips_stacks_link(struct ips_stacks *s, uint32_t node) {
  return (uint32_t *)(void *)(s->nodes + node * s->stride + s->link);
}

static inline void ips_stacks_push(struct ips_stacks *s, uint32_t worker, uint32_t node) {
  uint64_t *at = &s->shard[worker % IPS_SHARDS].top, top = ips_get(*at);
  do {
    ips_put(*ips_stacks_link(s, node), (uint32_t)top);
  } while (!__atomic_compare_exchange_n(at, &top, ((top >> 32) + 1) << 32 | node, true, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE));
}

static inline uint32_t ips_stacks_pop_shard(struct ips_stacks *s, uint32_t shard) {
  uint64_t *at = &s->shard[shard].top, top = ips_get(*at), next;
  do {
    if ((uint32_t)top == IPS_NONE) return IPS_NONE;
    next = ((top >> 32) + 1) << 32 | ips_get(*ips_stacks_link(s, (uint32_t)top));
  } while (!__atomic_compare_exchange_n(at, &top, next, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  return (uint32_t)top;
}

/* NONE: all are in use. */
static inline uint32_t ips_stacks_pop(struct ips_stacks *s, uint32_t worker) {
  uint32_t node = ips_stacks_pop_shard(s, worker % IPS_SHARDS), fresh = ips_peek(s->fresh);
  if (node != IPS_NONE) return node;
  while (fresh < s->capacity)
    if (__atomic_compare_exchange_n(&s->fresh, &fresh, fresh + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return fresh;
  for (uint32_t i = 1; i < IPS_SHARDS && node == IPS_NONE; i++)
    node = ips_stacks_pop_shard(s, (worker + i) % IPS_SHARDS);
  return node;
}

/* A budget: at most `limit` at once. */
static inline bool ips_budget_take(uint32_t *used, uint32_t limit) {
  uint32_t n = ips_peek(*used);
  while (n < limit)
    if (__atomic_compare_exchange_n(used, &n, n + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return true;
  return false;
}

static inline uint64_t ips_mix(uint64_t h, uint64_t word) {
  h = (h ^ word) * 0x9e3779b97f4a7c15ull;
  return h ^ h >> 32;
}

/* ips_session_memory.c: zeroed and touched, in huge pages where there are some; NULL: none. */
void *ips_memory_new(size_t bytes);
void ips_memory_free(void *p, size_t bytes);
#endif
