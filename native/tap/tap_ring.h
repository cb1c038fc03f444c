/* tap_ring.h: packets on their way from a worker to the tap thread.
 *
 * One ring of bytes per worker, single producer, single consumer. Records are appended
 * privately and become visible together when the packet's verdict is known
 * (tap_ring_publish), or vanish if no tap wants them. A full ring loses the record and
 * counts it; nobody ever waits. A record does not wrap: a filler takes the rest of the ring.
 */
#ifndef TAP_RING_H
#define TAP_RING_H
#include "../ips_control.h"
#include <stdatomic.h>

enum { TAP_RING_BYTES = 1 << 22, TAP_FILLER = 0 };

struct tap_record {
  uint32_t bytes;       /* of the whole record, a multiple of 8 */
  uint32_t taps;        /* bit per slot that wants it; TAP_FILLER: skip */
  uint64_t realtime_ns;
  uint64_t generation;
  uint32_t kept, length; /* bytes that follow; bytes of the packet */
  uint32_t cell;
  uint16_t gso_size, csum_start, csum_offset;
  uint8_t gso_type, csum;
  uint8_t side, is_after, verdict, kind; /* kind: enum ips_emit */
  uint32_t reserved;
  uint8_t data[];
};

struct tap_ring {
  _Alignas(64) _Atomic uint64_t tail; /* published by the worker */
  uint64_t head_seen;                 /* worker's copy of head */
  uint64_t next;                      /* worker's private end */
  _Alignas(64) _Atomic uint64_t head; /* consumed by the tap thread */
  uint8_t *bytes;                     /* TAP_RING_BYTES */
  _Atomic uint64_t lost[IPS_CTL_MAX_TAPS];
};

static inline struct tap_record *tap_ring_at(struct tap_ring *r, uint64_t position) {
  return (struct tap_record *)(r->bytes + (position & (TAP_RING_BYTES - 1)));
}

/* Room for a record with `kept` bytes of packet, at ring->next; NULL: full. */
static inline struct tap_record *tap_ring_append(struct tap_ring *r, uint32_t kept) {
  uint32_t need = (uint32_t)(sizeof(struct tap_record) + kept + 7) & ~7u;
  uint64_t to_end = TAP_RING_BYTES - (r->next & (TAP_RING_BYTES - 1));
  uint64_t filler = need > to_end ? to_end : 0;
  if (r->next + filler + need - r->head_seen > TAP_RING_BYTES) {
    r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
    if (r->next + filler + need - r->head_seen > TAP_RING_BYTES) return NULL;
  }
  if (filler) { /* at least 8 bytes: everything is a multiple of 8 */
    struct tap_record *skip = tap_ring_at(r, r->next);
    skip->bytes = (uint32_t)filler;
    skip->taps = TAP_FILLER;
    r->next += filler;
  }
  struct tap_record *record = tap_ring_at(r, r->next);
  record->bytes = need;
  record->kept = kept;
  r->next += need;
  return record;
}

static inline void tap_ring_publish(struct tap_ring *r) {
  atomic_store_explicit(&r->tail, r->next, memory_order_release);
}
#endif
