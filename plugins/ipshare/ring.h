/* ring.h: a few frames on their way between VPP's threads and the pair's: many may put, one takes, nobody waits.
 *
 * A bounded queue whose places carry turns: who puts claims a place by one compare-and-swap and publishes it by its turn;
 * a full ring refuses. It holds frames of neighbour discovery, so places are small.
 */
#ifndef __included_ipshare_ring_h__
#define __included_ipshare_ring_h__

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum
{
  IPSHARE_RING_PLACES = 32, /* a power of two */
  IPSHARE_RING_BYTES = 240, /* a solicitation has 86 bytes and a few options */
};

typedef struct
{
  uint32_t turn; /* = place: free for that round; = place + 1: taken */
  uint16_t n, tag;
  uint8_t bytes[IPSHARE_RING_BYTES];
} ipshare_place_t;

typedef struct
{
  uint32_t put, taken;
  ipshare_place_t places[IPSHARE_RING_PLACES];
} ipshare_ring_t;

static inline void
ipshare_ring_init (ipshare_ring_t *r)
{
  r->put = r->taken = 0;
  for (uint32_t i = 0; i < IPSHARE_RING_PLACES; i++)
    r->places[i].turn = i;
}

/* A place to fill and then to hand over; NULL: none is free. */
static inline ipshare_place_t *
ipshare_ring_claim (ipshare_ring_t *r)
{
  uint32_t at = __atomic_load_n (&r->put, __ATOMIC_RELAXED);
  for (;;)
    {
      ipshare_place_t *p = r->places + at % IPSHARE_RING_PLACES;
      int32_t ahead = (int32_t) (__atomic_load_n (&p->turn, __ATOMIC_ACQUIRE) - at);
      if (ahead < 0)
	return NULL;
      if (ahead == 0 && __atomic_compare_exchange_n (&r->put, &at, at + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
	return p;
      if (ahead > 0)
	at = __atomic_load_n (&r->put, __ATOMIC_RELAXED);
    }
}

static inline void
ipshare_ring_hand_over (ipshare_place_t *p)
{
  __atomic_store_n (&p->turn, p->turn + 1, __ATOMIC_RELEASE);
}

/* The oldest; NULL: the ring is empty. To be given back. */
static inline ipshare_place_t *
ipshare_ring_take (ipshare_ring_t *r)
{
  ipshare_place_t *p = r->places + r->taken % IPSHARE_RING_PLACES;
  return __atomic_load_n (&p->turn, __ATOMIC_ACQUIRE) == r->taken + 1 ? p : NULL;
}

static inline void
ipshare_ring_give_back (ipshare_ring_t *r, ipshare_place_t *p)
{
  __atomic_store_n (&p->turn, r->taken++ + IPSHARE_RING_PLACES, __ATOMIC_RELEASE);
}

#endif
