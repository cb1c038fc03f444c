/* ips_mirror_send.c: the stream to one standby: begun, paced, acknowledged, resent, given up.
 *
 * A datagram is sent again when one that was sent at least REORDER transmissions later has arrived, or when
 * its time is over. Each transmission has a number of its own and is acknowledged by it (as QUIC does, RFC
 * 9002): what was sent twice does not blur the round trip, and may be lost and found lost again. A standby that refuses, restarts, falls silent or is too slow for the rings is not
 * ready, holds nothing up any more, and gets a new stream with a snapshot.
 */
#include "ips_mirror.h"

enum { REORDER = 3, MOST_DOUBLINGS = 6 };

void ips_mirror_out(struct ips_mirror *m, uint32_t peer, const uint8_t *plain, size_t n,
                    const struct ips_mirror_way *way) {
  n = ips_seal_wrap(m->peers[peer].seal, IPS_SEAL_MIRROR, plain, n, way->now_ns, m->sealed);
  if (n) way->emit(way->arg, peer, m->sealed, n);
}

void ips_tx_stop(struct ips_mirror_tx *tx) {
  tx->phase = IPS_MIRROR_OFF;
  tx->is_ready = tx->is_resync_wanted = false;
  tx->job = IPS_JOB_NONE;
}

static void begin_later(struct ips_mirror_tx *tx, uint64_t begin_ns) {
  ips_tx_stop(tx);
  tx->phase = IPS_MIRROR_WAITING;
  tx->begin_ns = begin_ns;
}

static uint64_t backoff(const struct ips_mirror *m, struct ips_mirror_tx *tx) {
  uint64_t wait = m->c.backoff_ns << tx->refusals;
  if (tx->refusals < MOST_DOUBLINGS) tx->refusals++;
  return wait;
}

static void begin(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns) {
  tx->phase = IPS_MIRROR_SNAPSHOT;
  tx->stream = ++m->streams;
  tx->next = tx->sent = 1;
  tx->acked = tx->end_seq = 0;
  tx->order = tx->order_acked = tx->timeouts = 0;
  tx->peer_window = (uint16_t)m->c.window;
  tx->spoke_ns = tx->check_ns = now_ns;
  tx->check_now = tx->is_resync_wanted = false;
  memset(tx->diverged, 0, sizeof tx->diverged);
  ips_fill_begin(m, tx);
  ips_mcount(m, STREAMS);
}

static bool lags(const struct ips_mirror *m, const struct ips_mirror_tx *tx) {
  for (uint32_t w = 0; w < m->c.workers; w++)
    if (ips_ring_head(m, w) - tx->cursor[w] > m->c.ring / 4 * 3) return true;
  return false;
}

/* May there be a stream, and which phase is it in? False: nothing to be sent. */
static bool live(struct ips_mirror *m, struct ips_mirror_peer *peer, uint64_t now_ns) {
  struct ips_mirror_tx *tx = &peer->tx;
  struct ips_seal_info info;
  ips_seal_info(peer->seal, now_ns, &info);
  bool differs = info.mismatch & m->c.must_match;
  if (info.open && differs && m->is_active && tx->config_opened != info.opened) {
    tx->config_opened = info.opened;
    ips_mcount(m, CONFIG_DIFFERS);
  }
  if (!m->is_active || !info.alive || differs) {
    if (tx->phase >= IPS_MIRROR_SNAPSHOT && !info.alive) ips_mcount(m, PEER_LOST);
    ips_tx_stop(tx);
    return false;
  }
  if (tx->phase != IPS_MIRROR_OFF && tx->peer_boot != info.peer_boot) {
    ips_mcount(m, PEER_RESTARTED);
    begin_later(tx, now_ns);
  }
  if (tx->phase == IPS_MIRROR_OFF) begin_later(tx, now_ns);
  tx->peer_boot = info.peer_boot;
  if (tx->phase >= IPS_MIRROR_SNAPSHOT && tx->is_resync_wanted) {
    ips_mcount(m, RESYNC_RING);
    begin_later(tx, now_ns);
  }
  if (tx->phase >= IPS_MIRROR_SNAPSHOT && lags(m, tx)) {
    ips_mcount(m, RESYNC_LAG);
    begin_later(tx, now_ns + backoff(m, tx));
  }
  if (tx->phase == IPS_MIRROR_WAITING && now_ns >= tx->begin_ns) begin(m, tx, now_ns);
  return tx->phase >= IPS_MIRROR_SNAPSHOT;
}

/* ---- the window --------------------------------------------------------------- */

static uint64_t timeout_of(const struct ips_mirror *m, const struct ips_mirror_tx *tx) {
  uint64_t t = tx->srtt_ns + 4 * tx->rttvar_ns;
  return t > m->c.rto_ns ? t : m->c.rto_ns;
}

static uint32_t microseconds(uint64_t ns) {
  return (uint32_t)(ns / 1000);
}

static void transmit(struct ips_mirror *m, uint32_t peer, uint64_t seq, const struct ips_mirror_way *way) {
  struct ips_mirror_tx *tx = &m->peers[peer].tx;
  uint64_t at = seq & (m->c.window - 1);
  struct ips_mirror_slot *s = &tx->slots[at];
  if (s->was_sent) ips_mcount(m, DATAGRAMS_RESENT);
  else ips_mcount(m, DATAGRAMS_SENT);
  s->was_sent = true;
  s->sent_ns = tx->spoke_ns = way->now_ns;
  s->order = ++tx->order;
  uint8_t *plain = tx->bytes + at * IPS_MIRROR_PLAIN;
  ips_put32(plain + IPS_MIRROR_SENT, (uint32_t)tx->order);
  ips_put32(plain + IPS_MIRROR_SENT + 4, microseconds(way->now_ns));
  ips_mirror_out(m, peer, plain, s->len, way);
}

/* Returns how many of `most` are left. */
static uint32_t resend(struct ips_mirror *m, uint32_t peer, uint32_t most, const struct ips_mirror_way *way) {
  struct ips_mirror_tx *tx = &m->peers[peer].tx;
  uint64_t timeout = timeout_of(m, tx) << tx->timeouts;
  bool is_over = false;
  if (!tx->check_now && way->now_ns < tx->check_ns) return most;
  tx->check_now = false;
  tx->check_ns = way->now_ns + timeout / 4;
  for (uint64_t seq = tx->acked + 1; seq < tx->sent && most; seq++) {
    const struct ips_mirror_slot *s = &tx->slots[seq & (m->c.window - 1)];
    if (s->is_acked) continue;
    bool is_lost = s->order + REORDER < tx->order_acked;
    if (!is_lost && way->now_ns - s->sent_ns < timeout) continue;
    is_over |= !is_lost;
    transmit(m, peer, seq, way);
    most--;
  }
  if (is_over && tx->timeouts < MOST_DOUBLINGS) tx->timeouts++;
  if (!most) tx->check_now = true;
  return most;
}

static void probe(struct ips_mirror *m, uint32_t peer, const struct ips_mirror_way *way) {
  struct ips_mirror_tx *tx = &m->peers[peer].tx;
  uint8_t d[IPS_MIRROR_HEAD] = {IPS_MSG_PROBE};
  ips_put64(d + 2, m->epoch);
  ips_put32(d + 10, tx->stream);
  ips_put64(d + 14, tx->next);
  tx->spoke_ns = way->now_ns;
  ips_mirror_out(m, peer, d, sizeof d, way);
}

void ips_tx_tick(struct ips_mirror *m, uint32_t peer, const struct ips_mirror_way *way) {
  struct ips_mirror_tx *tx = &m->peers[peer].tx;
  if (!live(m, &m->peers[peer], way->now_ns)) return;
  if (tx->is_ready && tx->job == IPS_JOB_NONE) {
    if (ips_any_bit(tx->diverged)) ips_fill_shards(tx);
    else if (m->c.digest_ns && way->now_ns - tx->sums_ns >= m->c.digest_ns) ips_fill_sums(tx);
  }
  ips_fill(m, tx, way->now_ns);
  uint32_t left = resend(m, peer, m->c.burst, way);
  for (; tx->sent < tx->next && left; left--) transmit(m, peer, tx->sent++, way);
  if (way->now_ns - tx->spoke_ns >= m->c.idle_ns) probe(m, peer, way);
}

/* ---- what the standby says ------------------------------------------------------- */

/* The latest transmission that arrived, as an acknowledgement tells it. False: it was never made. */
static bool arrived(struct ips_mirror_tx *tx, const uint8_t *sent, uint64_t now_ns) {
  uint32_t behind = (uint32_t)tx->order - ips_get32(sent);
  if (behind > tx->order) return false;
  uint64_t order = tx->order - behind;
  if (order <= tx->order_acked) return true;
  tx->order_acked = order;
  tx->timeouts = 0;
  uint64_t took = 1000ull * (uint32_t)(microseconds(now_ns) - ips_get32(sent + 4));
  uint64_t off = took > tx->srtt_ns ? took - tx->srtt_ns : tx->srtt_ns - took;
  tx->rttvar_ns = tx->srtt_ns ? (3 * tx->rttvar_ns + off) / 4 : took / 2;
  tx->srtt_ns = tx->srtt_ns ? (7 * tx->srtt_ns + took) / 8 : took;
  return true;
}

static void refused(struct ips_mirror *m, struct ips_mirror_tx *tx, const uint8_t *d, uint64_t now_ns) {
  tx->refusal = d[2];
  tx->refused_epoch = ips_get64(d + 18);
  ips_mcount(m, RESYNC_REFUSED);
  begin_later(tx, now_ns + backoff(m, tx));
}

/* Every range lies in what was sent. */
static bool is_sound(const struct ips_mirror_tx *tx, const uint8_t *d, size_t len) {
  uint64_t cumulative = ips_get64(d + 8);
  if (d[3] > IPS_MIRROR_RANGES || len != IPS_MIRROR_ACK + 4u * d[3] || cumulative >= tx->sent) return false;
  for (unsigned i = 0; i < d[3]; i++) {
    const uint8_t *range = d + IPS_MIRROR_ACK + 4 * i;
    if (cumulative + ips_get16(range) + ips_get16(range + 2) > tx->sent) return false;
  }
  return true;
}

void ips_tx_ack(struct ips_mirror *m, uint32_t peer, const uint8_t *d, size_t len, uint64_t now_ns) {
  struct ips_mirror_tx *tx = &m->peers[peer].tx;
  if (len < IPS_MIRROR_ACK) {
    ips_mcount(m, ACKS_BAD);
    return;
  }
  if (tx->phase < IPS_MIRROR_SNAPSHOT || ips_get32(d + 4) != tx->stream) {
    ips_mcount(m, ACKS_STALE);
    return;
  }
  if (d[1] & IPS_ACK_REFUSED) {
    refused(m, tx, d, now_ns);
    return;
  }
  if (!is_sound(tx, d, len) || !arrived(tx, d + IPS_MIRROR_LATEST, now_ns)) {
    ips_mcount(m, ACKS_BAD);
    return;
  }
  uint64_t cumulative = ips_get64(d + 8), mask = m->c.window - 1;
  if (cumulative > tx->acked) {
    tx->acked = cumulative;
    memcpy(tx->done, tx->marks + (cumulative & mask) * m->c.workers, m->c.workers * sizeof *tx->done);
  }
  for (unsigned i = 0; i < d[3]; i++) {
    const uint8_t *range = d + IPS_MIRROR_ACK + 4 * i;
    uint64_t first = cumulative + ips_get16(range);
    for (uint64_t seq = first; seq < first + ips_get16(range + 2); seq++)
      if (seq > tx->acked) tx->slots[seq & mask].is_acked = true;
  }
  tx->peer_window = ips_get16(d + 16) ? ips_get16(d + 16) : 1;
  tx->check_now = true;
  if (d[1] & IPS_ACK_READY && tx->end_seq && tx->acked >= tx->end_seq) {
    tx->is_ready = true;
    tx->refusals = 0;
  }
}

void ips_tx_diverged(struct ips_mirror *m, uint32_t peer, const uint8_t *d, size_t len) {
  struct ips_mirror_tx *tx = &m->peers[peer].tx;
  if (len != IPS_MIRROR_DIVERGED || tx->phase != IPS_MIRROR_LIVE || ips_get32(d + 4) != tx->stream) {
    ips_mcount(m, ACKS_STALE);
    return;
  }
  for (unsigned i = 0; i < IPS_MIRROR_SHARDS; i++) {
    bool is_under_way = tx->job == IPS_JOB_SHARDS && ips_bit(tx->shards, i);
    if (!(ips_get64(d + 8 + i / 64 * 8) >> i % 64 & 1) || ips_bit(tx->diverged, i) || is_under_way) continue;
    ips_set_bit(tx->diverged, i);
    ips_mcount(m, SHARDS_RESYNCED);
  }
}
