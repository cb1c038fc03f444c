/* ips_natlog_ring.c: bounded rings of log records (contract in ips_natlog_api.h).
 *
 * Each slot has a number that says whose turn it is: `position` when it may be written for that position,
 * position + 1 when it was. A producer takes a position by one CAS, which another thread with the same
 * worker number may win; it never waits. The taking thread frees a slot for the next time round.
 */
#include "ips_natlog.h"
#include <stdlib.h>

enum { KINDS = 4 };
#define SECOND 1000000000ull

struct slot { uint64_t turn; struct ips_natlog_rec record; };
struct ring {
  struct slot *slots;
  uint64_t quiet_until[KINDS];
  uint64_t put, lost;
  uint8_t pad[64];
  uint64_t tail; /* producers */
  uint8_t pad2[64];
  uint64_t head; /* the taking thread */
};
struct ips_natlog {
  uint32_t workers, records, what, next; /* next: ring that is looked at first */
  struct ring *rings;
};

struct ips_natlog *ips_natlog_new(uint32_t workers, uint32_t records) {
  if (!workers || workers > 1024 || records < 2 || records > 1u << 20 || records & (records - 1)) return NULL;
  struct ips_natlog *l = calloc(1, sizeof *l);
  if (l) l->rings = calloc(workers, sizeof *l->rings);
  if (!l || !l->rings) {
    free(l);
    return NULL;
  }
  l->workers = workers;
  l->records = records;
  for (uint32_t w = 0; w < workers; w++) {
    struct slot *slots = l->rings[w].slots = ips_memory_new(records * sizeof *slots);
    if (!slots) {
      ips_natlog_free(l);
      return NULL;
    }
    for (uint32_t i = 0; i < records; i++) slots[i].turn = i;
  }
  return l;
}

void ips_natlog_free(struct ips_natlog *l) {
  if (!l) return;
  for (uint32_t w = 0; w < l->workers; w++)
    ips_memory_free(l->rings[w].slots, l->records * sizeof *l->rings[w].slots);
  free(l->rings);
  free(l);
}

void ips_natlog_want(struct ips_natlog *l, uint32_t what) { ips_put(l->what, what); }
bool ips_natlog_wants(const struct ips_natlog *l, uint32_t what) { return ips_peek(l->what) & what; }

bool ips_natlog_is_due(struct ips_natlog *l, uint32_t worker, unsigned kind, uint64_t now_ns) {
  uint64_t *until = &l->rings[worker % l->workers].quiet_until[kind % KINDS], was = ips_peek(*until);
  return now_ns >= was && __atomic_compare_exchange_n(until, &was, now_ns + SECOND, false, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED);
}

bool ips_natlog_put(struct ips_natlog *l, uint32_t worker, const struct ips_natlog_rec *r) {
  struct ring *ring = &l->rings[worker % l->workers];
  uint64_t at = ips_peek(ring->tail);
  for (;;) {
    struct slot *s = &ring->slots[at & (l->records - 1)];
    int64_t ahead = (int64_t)(ips_get(s->turn) - at);
    if (ahead < 0) { /* written a round ago, not taken yet */
      ips_add(ring->lost, 1);
      return false;
    }
    if (ahead > 0) {
      at = ips_peek(ring->tail);
    } else if (__atomic_compare_exchange_n(&ring->tail, &at, at + 1, true, __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED)) {
      s->record = *r;
      ips_put(s->turn, at + 1);
      ips_add(ring->put, 1);
      return true;
    }
  }
}

static bool take_one(struct ips_natlog *l, struct ring *ring, struct ips_natlog_rec *out) {
  uint64_t head = ips_peek(ring->head);
  struct slot *s = &ring->slots[head & (l->records - 1)];
  if (ips_get(s->turn) != head + 1) return false;
  *out = s->record;
  ips_put(s->turn, head + l->records);
  ips_put(ring->head, head + 1);
  return true;
}

size_t ips_natlog_take(struct ips_natlog *l, struct ips_natlog_rec *out, size_t room) {
  size_t n = 0;
  for (uint32_t k = 0; k < l->workers && n < room; k++) {
    struct ring *ring = &l->rings[(l->next + k) % l->workers];
    while (n < room && take_one(l, ring, &out[n])) n++;
  }
  l->next = (l->next + 1) % l->workers; /* so that a busy ring is not always the first */
  return n;
}

void ips_natlog_stats(const struct ips_natlog *l, struct ips_natlog_stats *out) {
  *out = (struct ips_natlog_stats){0};
  for (uint32_t w = 0; w < l->workers; w++) {
    out->put += ips_peek(l->rings[w].put);
    out->lost += ips_peek(l->rings[w].lost);
    out->taken += ips_peek(l->rings[w].head);
  }
}
