/* ips_mirror_ring.c: one ring per worker: pushed by it, read by the real-time thread for every peer.
 *
 * Single producer, single consumer; a place is the worker's again when every open stream has read it. A push
 * never waits: a full ring is counted and raises resync_needed, which the thread answers with new snapshots.
 */
#include "ips_mirror.h"

uint64_t ips_mirror_push(struct ips_mirror *m, uint32_t worker, int op, const struct ips_session_rec *rec) {
  struct ips_mirror_ring *r = &m->rings[worker];
  uint64_t head = r->head; /* nobody else writes it */
  if (head - r->tail_seen >= m->c.ring) {
    r->tail_seen = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE);
    if (head - r->tail_seen >= m->c.ring) {
      __atomic_store_n(&r->full, r->full + 1, __ATOMIC_RELAXED);
      __atomic_store_n(&m->resync_needed, 1, __ATOMIC_RELEASE);
      return 0;
    }
  }
  struct ips_mirror_event *e = &r->events[head & (m->c.ring - 1)];
  e->rec = *rec;
  e->op = (uint64_t)op;
  __atomic_store_n(&r->head, head + 1, __ATOMIC_RELEASE);
  return head + 1;
}

int ips_mirror_committed(const struct ips_mirror *m, uint32_t worker, uint64_t number) {
  if (__atomic_load_n(&m->alone, __ATOMIC_ACQUIRE)) return IPS_COMMIT_ALONE;
  return number && number <= __atomic_load_n(&m->rings[worker].committed, __ATOMIC_ACQUIRE) ? IPS_COMMIT_DONE
                                                                                            : IPS_COMMIT_WAIT;
}

uint64_t ips_ring_head(const struct ips_mirror *m, uint32_t worker) {
  return __atomic_load_n(&m->rings[worker].head, __ATOMIC_ACQUIRE);
}

const struct ips_mirror_event *ips_ring_at(const struct ips_mirror *m, uint32_t worker, uint64_t index) {
  return &m->rings[worker].events[index & (m->c.ring - 1)];
}

void ips_rings_heads(const struct ips_mirror *m, uint64_t *out) {
  for (uint32_t w = 0; w < m->c.workers; w++) out[w] = ips_ring_head(m, w);
}

void ips_rings_release(struct ips_mirror *m) {
  for (uint32_t w = 0; w < m->c.workers; w++) {
    uint64_t least = ips_ring_head(m, w);
    for (uint32_t p = 0; p < m->c.n_peers; p++) {
      const struct ips_mirror_tx *tx = &m->peers[p].tx;
      if (tx->phase >= IPS_MIRROR_SNAPSHOT && tx->cursor[w] < least) least = tx->cursor[w];
    }
    __atomic_store_n(&m->rings[w].tail, least, __ATOMIC_RELEASE);
  }
}

void ips_rings_publish(struct ips_mirror *m) {
  uint64_t alone = 1;
  for (uint32_t p = 0; p < m->c.n_peers; p++)
    if (m->peers[p].tx.is_ready) alone = 0;
  for (uint32_t w = 0; w < m->c.workers && !alone; w++) {
    uint64_t least = UINT64_MAX;
    for (uint32_t p = 0; p < m->c.n_peers; p++) {
      const struct ips_mirror_tx *tx = &m->peers[p].tx;
      if (tx->is_ready && tx->done[w] < least) least = tx->done[w];
    }
    __atomic_store_n(&m->rings[w].committed, least, __ATOMIC_RELEASE);
  }
  __atomic_store_n(&m->alone, alone, __ATOMIC_RELEASE);
}
