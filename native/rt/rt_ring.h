/* rt_ring.h: a few frames on their way between a host's packet threads and the real-time thread: many may put, one
 * takes, nobody waits. For hosts that keep their interfaces to themselves (VPP's plugin).
 *
 * A bounded queue whose places carry turns: who puts claims a place by one compare-and-swap and publishes it by its
 * turn; a full ring refuses. It holds frames of neighbour discovery, so places are small.
 */
#ifndef RT_RING_H
#define RT_RING_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RT_RING_PLACES = 128 /* a power of two: two batches of announcements (rt_public.c) */, RT_RING_BYTES = 240 /* a solicitation has 86, and a few options */ };

struct rt_place {
  uint32_t turn; /* = number of the putting: free for it; one more: filled */
  uint16_t n, tag;
  uint8_t bytes[RT_RING_BYTES];
};
struct rt_ring {
  uint32_t put, taken;
  struct rt_place places[RT_RING_PLACES];
};

static inline void rt_ring_init(struct rt_ring *r) {
  r->put = r->taken = 0;
  for (uint32_t i = 0; i < RT_RING_PLACES; i++) r->places[i].turn = i;
}

/* A place to fill and then to hand over; NULL: none is free. */
static inline struct rt_place *rt_ring_claim(struct rt_ring *r) {
  uint32_t at = __atomic_load_n(&r->put, __ATOMIC_RELAXED);
  for (;;) {
    struct rt_place *p = &r->places[at % RT_RING_PLACES];
    int32_t ahead = (int32_t)(__atomic_load_n(&p->turn, __ATOMIC_ACQUIRE) - at);
    if (ahead < 0) return NULL;
    if (ahead == 0 && __atomic_compare_exchange_n(&r->put, &at, at + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return p;
    if (ahead > 0) at = __atomic_load_n(&r->put, __ATOMIC_RELAXED);
  }
}

static inline void rt_ring_hand_over(struct rt_place *p) { __atomic_store_n(&p->turn, p->turn + 1, __ATOMIC_RELEASE); }

/* The oldest; NULL: the ring is empty. To be given back. */
static inline struct rt_place *rt_ring_take(struct rt_ring *r) {
  struct rt_place *p = &r->places[r->taken % RT_RING_PLACES];
  return __atomic_load_n(&p->turn, __ATOMIC_ACQUIRE) == r->taken + 1 ? p : NULL;
}

static inline void rt_ring_give_back(struct rt_ring *r, struct rt_place *p) {
  __atomic_store_n(&p->turn, r->taken++ + RT_RING_PLACES, __ATOMIC_RELEASE);
}
#endif
