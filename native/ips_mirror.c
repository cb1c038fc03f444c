/* ips_mirror.c: life, role, ticks and figures of the mirror (contract in ips_mirror_api.h, parts in
 * ips_mirror.h).
 */
#include "ips_mirror.h"
#include "ips_seal.h"
#include <stdlib.h>

_Static_assert((int)IPS_M_N <= 64, "ips_mirror_stats has room for every counter");

static const struct { const char *name, *text; } counters[] = {
#define M(name, text) {#name, text},
#include "ips_mirror.def"
#undef M
};
int ips_mirror_counters(void) { return IPS_M_N; }
const char *ips_mirror_counter_name(int i) { return i >= 0 && i < IPS_M_N ? counters[i].name : NULL; }
const char *ips_mirror_counter_text(int i) { return i >= 0 && i < IPS_M_N ? counters[i].text : NULL; }

/* ---- beginning and end ---------------------------------------------------------- */

static bool is_power(uint32_t n, uint32_t least, uint32_t most) {
  return n >= least && n <= most && (n & (n - 1)) == 0;
}

static bool is_in_range(const struct ips_mirror_config *c) {
  bool fine = c->workers >= 1 && c->workers <= IPS_MIRROR_WORKERS && is_power(c->ring, 4, 1u << 28) &&
              is_power(c->window, 2, 16384) && is_power(c->tombstones, 8, 1u << 28) && c->burst && c->scan &&
              c->n_peers >= 1 && c->n_peers <= IPS_MIRROR_PEERS && c->rto_ns && c->idle_ns && c->backoff_ns &&
              c->source.scan && c->sink.apply && c->sink.begin_snapshot && c->sink.end_snapshot &&
                c->sink.digest;
  for (uint32_t p = 0; fine && p < c->n_peers; p++) fine = c->seals[p] != NULL;
  return fine;
}

static void *take(struct ips_mirror *m, size_t n, size_t each) {
  m->memory += n * each;
  return calloc(n, each);
}

static bool make_peer(struct ips_mirror *m, struct ips_mirror_peer *peer) {
  struct ips_mirror_tx *tx = &peer->tx;
  struct ips_mirror_rx *rx = &peer->rx;
  size_t window = m->c.window, workers = m->c.workers;
  tx->slots = take(m, window, sizeof *tx->slots);
  tx->bytes = take(m, window, IPS_MIRROR_PLAIN);
  tx->marks = take(m, window * workers, sizeof *tx->marks);
  tx->cursor = take(m, workers, sizeof *tx->cursor);
  tx->target = take(m, workers, sizeof *tx->target);
  tx->done = take(m, workers, sizeof *tx->done);
  rx->lens = take(m, window, sizeof *rx->lens);
  rx->bytes = take(m, window, IPS_MIRROR_PLAIN);
  bool tombs = ips_tombs_new(&rx->tombs, m->c.tombstones, &m->memory);
  return tombs && tx->slots && tx->bytes && tx->marks && tx->cursor && tx->target && tx->done && rx->lens &&
         rx->bytes;
}

struct ips_mirror *ips_mirror_new(const struct ips_mirror_config *c) {
  if (!is_in_range(c)) return NULL;
  struct ips_mirror *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  m->c = *c;
  m->memory = sizeof *m + c->workers * sizeof *m->rings;
  m->alone = 1;
  m->epoch_peer = m->origin_peer = UINT32_MAX;
  m->rings = aligned_alloc(64, c->workers * sizeof *m->rings);
  bool fine = m->rings != NULL;
  if (fine) memset(m->rings, 0, c->workers * sizeof *m->rings);
  for (uint32_t w = 0; fine && w < c->workers; w++)
    fine = (m->rings[w].events = take(m, c->ring, sizeof *m->rings[w].events)) != NULL;
  for (uint32_t p = 0; fine && p < c->n_peers; p++) {
    m->peers[p].seal = c->seals[p];
    fine = make_peer(m, &m->peers[p]);
  }
  if (fine) return m;
  ips_mirror_free(m);
  return NULL;
}

void ips_mirror_free(struct ips_mirror *m) {
  if (!m) return;
  for (uint32_t w = 0; m->rings && w < m->c.workers; w++) free(m->rings[w].events);
  free(m->rings);
  for (uint32_t p = 0; p < m->c.n_peers; p++) {
    struct ips_mirror_tx *tx = &m->peers[p].tx;
    void *blocks[] = {tx->slots, tx->bytes, tx->marks, tx->cursor, tx->target, tx->done, m->peers[p].rx.lens,
                      m->peers[p].rx.bytes};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    ips_tombs_free(&m->peers[p].rx.tombs);
  }
  free(m);
}

size_t ips_mirror_memory(const struct ips_mirror *m) { return m->memory; }

/* ---- role, input, ticks ----------------------------------------------------------- */

bool ips_mirror_set_role(struct ips_mirror *m, bool is_active, uint64_t epoch) {
  if (is_active && (!epoch || epoch < m->epoch)) return false;
  for (uint32_t p = 0; p < m->c.n_peers; p++) {
    struct ips_mirror_rx *rx = &m->peers[p].rx;
    if (rx->is_open && (is_active || epoch > m->epoch)) {
      ips_rx_stop(m, rx);
      rx->refusal = IPS_REFUSED_ENDED;
    }
    ips_tx_stop(&m->peers[p].tx);
  }
  if (is_active || epoch > m->epoch) {
    m->epoch_peer = UINT32_MAX;
    m->epoch_is_own = is_active;
  }
  if (epoch > m->epoch) m->epoch = epoch;
  if (is_active) m->origin_peer = UINT32_MAX; /* from here on versions are our own */
  m->is_active = is_active;
  ips_rings_publish(m);
  return true;
}

void ips_mirror_set_other(struct ips_mirror *m, ips_mirror_other_fn other, void *arg) {
  m->other = other;
  m->other_arg = arg;
}

void ips_mirror_message(struct ips_mirror *m, uint32_t peer, const uint8_t *plain, size_t len,
                        uint64_t now_ns) {
  if (peer < m->c.n_peers) ips_rx_message(m, peer, plain, len, now_ns);
  ips_rings_publish(m);
}

int ips_mirror_input(struct ips_mirror *m, uint32_t peer, const uint8_t *bytes, size_t len, uint64_t now_ns) {
  if (peer >= m->c.n_peers) return IPS_SEAL_NOT_PEER_;
  uint8_t type = 0;
  size_t n = 0;
  int result = ips_seal_open(m->peers[peer].seal, bytes, len, now_ns, &type, m->plain, &n);
  if (result != IPS_SEAL_OK_) return result;
  if (type == IPS_SEAL_MIRROR) ips_mirror_message(m, peer, m->plain, n, now_ns);
  else if (m->other) m->other(m->other_arg, peer, type, m->plain, n);
  return result;
}

void ips_mirror_tick(struct ips_mirror *m, uint64_t now_ns, ips_mirror_emit_fn emit, void *arg) {
  const struct ips_mirror_way way = {.now_ns = now_ns, .emit = emit, .arg = arg};
  bool resync = __atomic_exchange_n(&m->resync_needed, 0, __ATOMIC_ACQ_REL);
  for (uint32_t p = 0; p < m->c.n_peers; p++) {
    size_t n;
    while ((n = ips_seal_tick(m->peers[p].seal, now_ns, m->sealed)) != 0) emit(arg, p, m->sealed, n);
    if (resync) m->peers[p].tx.is_resync_wanted = true;
    ips_tx_tick(m, p, &way);
    ips_rx_tick(m, p, &way);
  }
  ips_rings_release(m);
  ips_rings_publish(m);
}

/* ---- figures ------------------------------------------------------------------------ */

static void peer_stats(const struct ips_mirror *m, uint32_t peer, uint64_t now_ns,
                       struct ips_mirror_peer_stats *out) {
  const struct ips_mirror_tx *tx = &m->peers[peer].tx;
  const struct ips_mirror_rx *rx = &m->peers[peer].rx;
  *out = (struct ips_mirror_peer_stats){
    .phase = (uint8_t)tx->phase, .is_ready = tx->is_ready, .refusal = tx->refusal, .feeds_us = rx->is_open,
    .is_complete = rx->is_complete, .stream = tx->stream, .refused_epoch = tx->refused_epoch,
    .round_trip_ns = tx->srtt_ns, .heard_ns = rx->heard_ns};
  if (tx->phase < IPS_MIRROR_SNAPSHOT) return;
  for (uint32_t w = 0; w < m->c.workers; w++) out->lag_events += ips_ring_head(m, w) - tx->done[w];
  out->under_way = tx->next - 1 - tx->acked;
  if (out->under_way) out->lag_ns = now_ns - tx->slots[(tx->acked + 1) & (m->c.window - 1)].first_ns;
}

void ips_mirror_stats(const struct ips_mirror *m, uint64_t now_ns, struct ips_mirror_stats *out) {
  *out = (struct ips_mirror_stats){.epoch = m->epoch, .is_active = m->is_active};
  memcpy(out->counters, m->counters, sizeof m->counters);
  for (uint32_t w = 0; w < m->c.workers; w++)
    out->counters[IPS_M_RING_FULL] += __atomic_load_n(&m->rings[w].full, __ATOMIC_RELAXED);
  for (uint32_t p = 0; p < m->c.n_peers; p++) peer_stats(m, p, now_ns, &out->peers[p]);
}
