/* ips_mirror_recv.c: the stream from an active node: judged, put in order, applied, acknowledged.
 *
 * A datagram is looked through as a whole before its first entry is applied. What is acknowledged has been
 * applied. A stream that cannot go on is refused, by name, until its sender begins a new one; then the
 * snapshot that was open removes nothing.
 */
#include "ips_mirror.h"
#include "ips_seal.h"

static const uint8_t *name_of(const struct ips_mirror *m, uint32_t peer) {
  return m->peers[peer].seal->c.peer;
}

/* ---- snapshots ------------------------------------------------------------------ */

static void end_snapshots(struct ips_mirror *m, struct ips_mirror_rx *rx) {
  if (rx->in_snapshot || ips_any_bit(rx->open_shards)) ips_mcount(m, SNAPSHOT_BROKEN);
  if (rx->in_snapshot) m->c.sink.end_snapshot(m->c.sink.arg, -1, false);
  for (int i = 0; i < IPS_MIRROR_SHARDS; i++)
    if (ips_bit(rx->open_shards, (unsigned)i)) m->c.sink.end_snapshot(m->c.sink.arg, i, false);
  rx->in_snapshot = false;
  memset(rx->open_shards, 0, sizeof rx->open_shards);
}

void ips_rx_stop(struct ips_mirror *m, struct ips_mirror_rx *rx) {
  end_snapshots(m, rx);
  rx->is_open = rx->is_complete = rx->is_summing = false;
}

static void refuse(struct ips_mirror *m, struct ips_mirror_rx *rx, uint8_t why) {
  ips_rx_stop(m, rx);
  rx->refusal = why;
  rx->ack_due = true;
}

static void begin(struct ips_mirror *m, struct ips_mirror_rx *rx, uint32_t stream, uint64_t boot) {
  end_snapshots(m, rx);
  ips_tombs_clear(&rx->tombs);
  memset(rx->lens, 0, m->c.window * sizeof *rx->lens);
  rx->is_open = rx->was_fed = true;
  rx->is_complete = rx->diverged_due = rx->is_summing = false;
  rx->refusal = IPS_REFUSED_NOT;
  rx->stream = stream;
  rx->boot = boot;
  rx->epoch = m->epoch;
  rx->next = 1;
  rx->highest = 0;
  rx->order = rx->sent_us = 0;
}

/* ---- entries ---------------------------------------------------------------------- */

static size_t mark_size(const uint8_t *at, size_t left) {
  size_t n = at[0] == IPS_MARK_SUMS ? IPS_MIRROR_SUMS : 2;
  bool has_number = at[0] == IPS_MARK_SHARD || at[0] == IPS_MARK_SHARD_END;
  return left < n || at[0] > IPS_MARK_SUMS || (at[1] && !has_number) ? 0 : n;
}

/* Every entry is one that may stand there; the first of a stream, and no other, is its beginning. */
static bool is_sound(const uint8_t *d, size_t len) {
  bool begins = ips_get64(d + 14) == 1;
  struct ips_session_rec rec;
  int op;
  if (d[1] || len == IPS_MIRROR_HEAD || (begins && d[IPS_MIRROR_HEAD] != IPS_MARK_BEGIN)) return false;
  for (size_t at = IPS_MIRROR_HEAD, n; at < len; at += n) {
    bool is_mark = d[at] >= IPS_MARK_BEGIN;
    if (d[at] == IPS_MARK_BEGIN && !(begins && at == IPS_MIRROR_HEAD)) return false;
    n = is_mark ? mark_size(d + at, len - at) : ips_mirror_get(d + at, len - at, &op, &rec);
    if (!n) return false;
  }
  return true;
}

static bool apply_record(struct ips_mirror *m, struct ips_mirror_rx *rx, int op,
                         const struct ips_session_rec *r) {
  if (op == IPS_SESSION_UPSERT && ips_tombs_version(&rx->tombs, &r->flow) > r->version) {
    ips_mcount(m, OBSOLETE);
    return true;
  }
  if (op == IPS_SESSION_DELETE && !ips_tombs_add(&rx->tombs, r)) {
    ips_mcount(m, TOMBSTONES_FULL);
    refuse(m, rx, IPS_REFUSED_TOMBSTONES);
    return false;
  }
  if (m->c.sink.apply(m->c.sink.arg, op, r) != 0) {
    ips_mcount(m, APPLY_FAILED);
    refuse(m, rx, IPS_REFUSED_APPLY);
    return false;
  }
  ips_mcount(m, APPLIED);
  return true;
}

/* A part of the own table; compares where that was the last one. */
static void count_sums(struct ips_mirror *m, struct ips_mirror_rx *rx, bool begins) {
  uint64_t sums[IPS_MIRROR_SHARDS];
  int result = m->c.sink.digest(m->c.sink.arg, begins, sums);
  rx->is_summing = result == 0;
  if (result != 1) return;
  for (unsigned i = 0; i < IPS_MIRROR_SHARDS; i++) {
    if (!ips_bit(rx->compared, i)) continue;
    ips_mcount(m, DIGESTS_COMPARED);
    if ((uint32_t)sums[i] == rx->sums[i]) continue;
    ips_mcount(m, SHARDS_DIVERGED);
    if (!rx->diverged_due) memset(rx->diverged, 0, sizeof rx->diverged);
    rx->diverged_due = true;
    ips_set_bit(rx->diverged, i);
  }
}

/* Of the sender, as its table was here in the stream. One comparison at a time. */
static void take_sums(struct ips_mirror *m, struct ips_mirror_rx *rx, const uint8_t *at) {
  if (!rx->is_complete || rx->is_summing) return;
  for (unsigned i = 0; i < 4; i++) rx->compared[i] = ips_get64(at + 2 + 8 * i) & ~rx->open_shards[i];
  for (unsigned i = 0; i < IPS_MIRROR_SHARDS; i++) rx->sums[i] = ips_get32(at + 34 + 4 * i);
  count_sums(m, rx, true);
}

static void apply_mark(struct ips_mirror *m, struct ips_mirror_rx *rx, uint32_t peer, const uint8_t *at) {
  const struct ips_mirror_sink *sink = &m->c.sink;
  unsigned i = at[1];
  switch (at[0]) {
    case IPS_MARK_BEGIN:
      sink->begin_snapshot(sink->arg, -1, m->origin_peer != peer || m->origin_boot != rx->boot ||
                                            m->origin_epoch != rx->epoch);
      m->origin_peer = peer, m->origin_boot = rx->boot, m->origin_epoch = rx->epoch;
      rx->in_snapshot = true;
      break;
    case IPS_MARK_END:
      if (rx->in_snapshot) sink->end_snapshot(sink->arg, -1, true);
      rx->is_complete = rx->in_snapshot || rx->is_complete;
      rx->in_snapshot = false;
      break;
    case IPS_MARK_SET: ips_tombs_turn(&rx->tombs); break;
    case IPS_MARK_SHARD:
      sink->begin_snapshot(sink->arg, (int)i, false);
      ips_set_bit(rx->open_shards, i);
      break;
    case IPS_MARK_SHARD_END:
      if (ips_bit(rx->open_shards, i)) sink->end_snapshot(sink->arg, (int)i, true);
      rx->open_shards[i / 64] &= ~(1ull << i % 64);
      break;
    default: take_sums(m, rx, at);
  }
}

/* False: the stream is refused. */
static bool apply(struct ips_mirror *m, struct ips_mirror_rx *rx, uint32_t peer, const uint8_t *d,
                  size_t len) {
  struct ips_session_rec rec;
  int op = 0;
  for (size_t at = IPS_MIRROR_HEAD, n; at < len; at += n) {
    if (d[at] >= IPS_MARK_BEGIN) {
      n = mark_size(d + at, len - at);
      apply_mark(m, rx, peer, d + at);
    } else {
      n = ips_mirror_get(d + at, len - at, &op, &rec);
      if (!apply_record(m, rx, op, &rec)) return false;
    }
  }
  rx->next++;
  return true;
}

/* ---- datagrams --------------------------------------------------------------------- */

static uint8_t *held(const struct ips_mirror *m, const struct ips_mirror_rx *rx, uint64_t seq) {
  return rx->bytes + (seq & (m->c.window - 1)) * IPS_MIRROR_PLAIN;
}

static void take(struct ips_mirror *m, struct ips_mirror_rx *rx, uint32_t peer, const uint8_t *d,
                 size_t len) {
  uint64_t seq = ips_get64(d + 14), mask = m->c.window - 1;
  uint32_t order = ips_get32(d + IPS_MIRROR_SENT);
  if ((int32_t)(order - rx->order) > 0) rx->order = order, rx->sent_us = ips_get32(d + IPS_MIRROR_SENT + 4);
  rx->ack_due = true;
  if (seq < rx->next || (seq < rx->next + m->c.window && rx->lens[seq & mask])) {
    ips_mcount(m, DUPLICATE);
  } else if (seq >= rx->next + m->c.window) {
    ips_mcount(m, BEYOND);
  } else if (len > IPS_MIRROR_PLAIN || !is_sound(d, len)) {
    ips_mcount(m, MALFORMED);
    refuse(m, rx, IPS_REFUSED_MALFORMED);
  } else if (seq > rx->next) {
    ips_mcount(m, GAPS);
    memcpy(held(m, rx, seq), d, len);
    rx->lens[seq & mask] = (uint16_t)len;
    if (seq > rx->highest) rx->highest = seq;
  } else if (apply(m, rx, peer, d, len)) {
    for (uint16_t n; (n = rx->lens[rx->next & mask]) != 0;) {
      rx->lens[rx->next & mask] = 0;
      if (!apply(m, rx, peer, held(m, rx, rx->next), n)) return;
    }
  }
}

/* The higher (epoch, id) wins. What is refused gets its reason. */
static uint8_t judge_epoch(struct ips_mirror *m, uint32_t peer, uint64_t epoch) {
  if (epoch < m->epoch) {
    ips_mcount(m, LOWER_EPOCH);
    return IPS_REFUSED_EPOCH;
  }
  if (m->is_active && epoch > m->epoch) {
    ips_mcount(m, ACTIVE_HERE);
    return IPS_REFUSED_ACTIVE;
  }
  bool is_ours = m->epoch_is_own && m->epoch_peer == UINT32_MAX;
  if (epoch == m->epoch && (is_ours || (m->epoch_peer != UINT32_MAX && m->epoch_peer != peer))) {
    ips_mcount(m, SAME_EPOCH);
    const uint8_t *holder = is_ours ? m->peers[peer].seal->c.id : name_of(m, m->epoch_peer);
    bool wins = memcmp(name_of(m, peer), holder, IPS_SEAL_ID) > 0;
    if (!wins || m->is_active) return wins ? IPS_REFUSED_ACTIVE : IPS_REFUSED_EPOCH;
  }
  return IPS_REFUSED_NOT;
}

static void take_epoch(struct ips_mirror *m, uint32_t peer, uint64_t epoch) {
  for (uint32_t p = 0; p < m->c.n_peers; p++)
    if (p != peer && m->peers[p].rx.is_open) {
      ips_mcount(m, STREAM_REPLACED);
      refuse(m, &m->peers[p].rx, IPS_REFUSED_EPOCH);
    }
  m->epoch = epoch;
  m->epoch_peer = peer;
}

static void refuse_stream(struct ips_mirror_rx *rx, uint32_t stream, uint8_t why) {
  rx->stream = stream;
  rx->refusal = why;
  rx->ack_due = true;
}

static void from_active(struct ips_mirror *m, uint32_t peer, const uint8_t *d, size_t len, uint64_t now_ns) {
  struct ips_mirror_rx *rx = &m->peers[peer].rx;
  uint64_t epoch = ips_get64(d + 2), boot = m->peers[peer].seal->peer_boot;
  uint32_t stream = ips_get32(d + 10);
  bool is_later = !rx->was_fed || boot != rx->boot || epoch > rx->epoch || (int32_t)(stream - rx->stream) > 0;
  if (!is_later && stream != rx->stream) {
    ips_mcount(m, STALE_STREAM);
    return;
  }
  uint8_t why = judge_epoch(m, peer, epoch);
  if (why == IPS_REFUSED_NOT && rx->was_fed && (boot ^ rx->boot) & IPS_MIRROR_RUN && epoch == rx->epoch) {
    ips_mcount(m, BOOT_CHANGED);
    why = IPS_REFUSED_BOOT;
  }
  if (why != IPS_REFUSED_NOT) {
    ips_rx_stop(m, rx);
    refuse_stream(rx, stream, why);
    return;
  }
  rx->heard_ns = now_ns;
  if (epoch != m->epoch || m->epoch_peer != peer) take_epoch(m, peer, epoch);
  if (is_later) begin(m, rx, stream, boot);
  rx->ack_due = true;
  if (!rx->is_open) ips_mcount(m, STALE_STREAM); /* refused before; its sender will hear so again */
  else if (d[0] == IPS_MSG_DATA) take(m, rx, peer, d, len);
}

void ips_rx_message(struct ips_mirror *m, uint32_t peer, const uint8_t *d, size_t len, uint64_t now_ns) {
  uint8_t kind = len ? d[0] : 0;
  if (kind == IPS_MSG_ACK) ips_tx_ack(m, peer, d, len, now_ns);
  else if (kind == IPS_MSG_DIVERGED) ips_tx_diverged(m, peer, d, len);
  else if (len >= IPS_MIRROR_HEAD && (kind == IPS_MSG_DATA || kind == IPS_MSG_PROBE))
    from_active(m, peer, d, len, now_ns);
  else ips_mcount(m, MALFORMED);
}

/* ---- acknowledgements ----------------------------------------------------------------- */

static unsigned put_ranges(const struct ips_mirror *m, const struct ips_mirror_rx *rx, uint8_t *out) {
  unsigned n = 0;
  for (uint64_t seq = rx->next + 1; seq <= rx->highest && n < IPS_MIRROR_RANGES; seq++) {
    uint64_t first = seq;
    while (seq <= rx->highest && rx->lens[seq & (m->c.window - 1)]) seq++;
    if (seq == first) continue;
    ips_put16(out + 4 * n, (uint16_t)(first - (rx->next - 1)));
    ips_put16(out + 4 * n++ + 2, (uint16_t)(seq - first));
  }
  return n;
}

void ips_rx_tick(struct ips_mirror *m, uint32_t peer, const struct ips_mirror_way *way) {
  struct ips_mirror_rx *rx = &m->peers[peer].rx;
  uint8_t d[IPS_MIRROR_ACK + 4 * IPS_MIRROR_RANGES] = {IPS_MSG_ACK};
  if (rx->is_summing) count_sums(m, rx, false);
  if (rx->ack_due) {
    rx->ack_due = false;
    d[1] = (uint8_t)((rx->is_complete ? IPS_ACK_READY : 0) | (rx->refusal ? IPS_ACK_REFUSED : 0));
    d[2] = rx->refusal;
    ips_put32(d + 4, rx->stream);
    ips_put64(d + 8, rx->is_open ? rx->next - 1 : 0);
    ips_put16(d + 16, (uint16_t)m->c.window);
    ips_put64(d + 18, m->epoch);
    ips_put32(d + IPS_MIRROR_LATEST, rx->order);
    ips_put32(d + IPS_MIRROR_LATEST + 4, rx->sent_us);
    d[3] = (uint8_t)(rx->is_open ? put_ranges(m, rx, d + IPS_MIRROR_ACK) : 0);
    ips_mirror_out(m, peer, d, IPS_MIRROR_ACK + 4u * d[3], way);
  }
  if (!rx->diverged_due) return;
  rx->diverged_due = false;
  uint8_t told[IPS_MIRROR_DIVERGED] = {IPS_MSG_DIVERGED};
  ips_put32(told + 4, rx->stream);
  for (unsigned i = 0; i < 4; i++) ips_put64(told + 8 + 8 * i, rx->diverged[i]);
  ips_mirror_out(m, peer, told, sizeof told, way);
}
