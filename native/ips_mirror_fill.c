/* ips_mirror_fill.c: changes out of the rings, and records out of scans, into the window's batches.
 *
 * Sets (ips_mirror.h) and scans take turns, and a slice that was copied goes out before any later change:
 * so whatever a scan has seen of a session stands in the stream before each later change of it. A job
 * (snapshot, shards, sums) ends with the set that began after its last copy: then the rings are past its
 * fence.
 *
 * The first set of a stream lies between two readings of the heads. A deletion before it is not sent; a
 * late change that it made obsolete may stand in this set, so its upserts are not sent either. Deletions in
 * it are: they may stand before changes that come in the next.
 */
#include "ips_mirror.h"

enum { SETS_PER_TICK = 2 };

static uint8_t *batch(struct ips_mirror_tx *tx, uint32_t mask) {
  return tx->bytes + (tx->next & mask) * IPS_MIRROR_PLAIN;
}

static void close_batch(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns) {
  uint64_t at = tx->next & (m->c.window - 1);
  tx->slots[at] = (struct ips_mirror_slot){.len = tx->fill, .first_ns = now_ns};
  memcpy(tx->marks + at * m->c.workers, tx->cursor, m->c.workers * sizeof *tx->cursor);
  tx->next++;
  tx->fill = 0;
}

/* Where the next n octets of the stream go; NULL: the window is full. */
static uint8_t *room(struct ips_mirror *m, struct ips_mirror_tx *tx, size_t n, uint64_t now_ns) {
  if (tx->fill && tx->fill + n > IPS_MIRROR_PLAIN) close_batch(m, tx, now_ns);
  uint8_t *b = batch(tx, m->c.window - 1);
  if (!tx->fill) {
    uint32_t window = tx->peer_window < m->c.window ? tx->peer_window : m->c.window;
    if (tx->next - tx->acked > window) return NULL;
    b[0] = IPS_MSG_DATA, b[1] = 0;
    ips_put64(b + 2, m->epoch);
    ips_put32(b + 10, tx->stream);
    ips_put64(b + 14, tx->next); /* what is told of a transmission: when it is made */
    tx->fill = IPS_MIRROR_HEAD;
  }
  return b + tx->fill;
}

static bool mark(struct ips_mirror *m, struct ips_mirror_tx *tx, uint8_t what, uint8_t which,
                 uint64_t now_ns) {
  uint8_t *at = room(m, tx, 2, now_ns);
  if (!at) return false;
  at[0] = what, at[1] = which;
  tx->fill = (uint16_t)(tx->fill + 2);
  return true;
}

static bool record(struct ips_mirror *m, struct ips_mirror_tx *tx, int op, const struct ips_session_rec *r,
                   uint64_t now_ns) {
  uint8_t *at = room(m, tx, IPS_MIRROR_RECORD, now_ns);
  if (at) tx->fill = (uint16_t)(tx->fill + ips_mirror_put(at, op, r));
  return at != NULL;
}

/* ---- sets ------------------------------------------------------------------- */

/* Reads the rings' heads. False: there is nothing to be said. */
static bool begin_set(struct ips_mirror *m, struct ips_mirror_tx *tx) {
  ips_rings_heads(m, tx->target);
  bool any = tx->marks_due || (tx->scanned && !tx->fence_set);
  for (uint32_t w = 0; w < m->c.workers && !any; w++) any = tx->target[w] != tx->cursor[w];
  if (!any) return false;
  if (tx->scanned) tx->fence_set = true;
  return tx->in_set = true;
}

/* Up to the end of the set. False: the window is full. */
static bool drain(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns) {
  for (uint32_t w = 0; w < m->c.workers; w++)
    for (; tx->cursor[w] != tx->target[w]; tx->cursor[w]++) {
      const struct ips_mirror_event *e = ips_ring_at(m, w, tx->cursor[w]);
      if (tx->is_first_set && e->op == IPS_SESSION_UPSERT) continue; /* the scan sees what became of it */
      if (!record(m, tx, (int)e->op, &e->rec, now_ns)) return false;
      if (e->op == IPS_SESSION_DELETE) tx->marks_due = 2; /* the end of this set, and of the next */
      if (tx->job == IPS_JOB_SUMS) ips_set_bit(tx->dirty, ips_mirror_shard(&e->rec.flow));
      ips_mcount(m, EVENTS_SENT);
    }
  if (tx->marks_due) {
    if (!mark(m, tx, IPS_MARK_SET, 0, now_ns)) return false;
    tx->marks_due--;
  }
  tx->in_set = tx->is_first_set = false;
  return true;
}

/* ---- jobs -------------------------------------------------------------------- */

static void begin_job(struct ips_mirror_tx *tx, enum ips_mirror_job job) {
  tx->job = job;
  tx->scanned = tx->fence_set = false;
  tx->scan_cursor = 0;
  tx->slice_n = tx->slice_at = 0;
  tx->told = 0;
}

void ips_fill_begin(struct ips_mirror *m, struct ips_mirror_tx *tx) {
  ips_rings_heads(m, tx->cursor); /* before the scan: what comes later stands behind it in the rings */
  ips_rings_heads(m, tx->target);
  memcpy(tx->done, tx->cursor, m->c.workers * sizeof *tx->cursor);
  tx->in_set = tx->is_first_set = true;
  tx->marks_due = 0;
  tx->fill = 0;
  begin_job(tx, IPS_JOB_SNAPSHOT);
  mark(m, tx, IPS_MARK_BEGIN, 0, 0); /* an empty window has room */
}

void ips_fill_shards(struct ips_mirror_tx *tx) {
  memcpy(tx->shards, tx->diverged, sizeof tx->shards);
  memset(tx->diverged, 0, sizeof tx->diverged);
  begin_job(tx, IPS_JOB_SHARDS);
}

void ips_fill_sums(struct ips_mirror_tx *tx) {
  memset(tx->dirty, 0, sizeof tx->dirty);
  memset(tx->sums, 0, sizeof tx->sums);
  begin_job(tx, IPS_JOB_SUMS);
}

/* A mark for each shard of the job, as far as there is room. */
static bool mark_shards(struct ips_mirror *m, struct ips_mirror_tx *tx, uint8_t what, uint64_t now_ns) {
  for (; tx->told < IPS_MIRROR_SHARDS; tx->told++)
    if (ips_bit(tx->shards, tx->told) && !mark(m, tx, what, (uint8_t)tx->told, now_ns)) return false;
  return true;
}

/* One copied record. False: the window is full. */
static bool take(struct ips_mirror *m, struct ips_mirror_tx *tx, const struct ips_session_rec *r,
                 uint64_t now_ns) {
  if (tx->job == IPS_JOB_SUMS) {
    tx->sums[ips_mirror_shard(&r->flow)] += ips_mirror_digest(r);
    return true;
  }
  if (tx->job == IPS_JOB_SHARDS && !ips_bit(tx->shards, ips_mirror_shard(&r->flow))) return true;
  if (!record(m, tx, IPS_SESSION_UPSERT, r, now_ns)) return false;
  ips_mcount(m, SNAPSHOT_SENT);
  return true;
}

/* What was copied and did not fit. False: it still does not. */
static bool flush_slice(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns) {
  for (; tx->slice_at < tx->slice_n; tx->slice_at++)
    if (!take(m, tx, &tx->slice[tx->slice_at], now_ns)) return false;
  return true;
}

/* False: the window is full. */
static bool scan(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns) {
  if (tx->job == IPS_JOB_SHARDS && !mark_shards(m, tx, IPS_MARK_SHARD, now_ns)) return false;
  for (uint32_t copied = 0; copied < m->c.scan && !tx->scanned; copied += tx->slice_n ? tx->slice_n : 1) {
    size_t n = m->c.source.scan(m->c.source.arg, &tx->scan_cursor, tx->slice, IPS_MIRROR_SLICE);
    tx->slice_n = n < IPS_MIRROR_SLICE ? (uint32_t)n : IPS_MIRROR_SLICE;
    tx->slice_at = 0;
    if (tx->scan_cursor == UINT64_MAX) {
      tx->scanned = true;
      tx->told = 0;
      if (tx->job == IPS_JOB_SNAPSHOT) tx->phase = IPS_MIRROR_FENCE;
    }
    if (!flush_slice(m, tx, now_ns)) return false;
  }
  return true;
}

static bool tell_sums(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns) {
  uint8_t *at = room(m, tx, IPS_MIRROR_SUMS, now_ns);
  if (!at) return false;
  at[0] = IPS_MARK_SUMS, at[1] = 0;
  for (unsigned i = 0; i < 4; i++) ips_put64(at + 2 + 8 * i, ~tx->dirty[i]);
  for (unsigned i = 0; i < IPS_MIRROR_SHARDS; i++) ips_put32(at + 34 + 4 * i, (uint32_t)tx->sums[i]);
  tx->fill = (uint16_t)(tx->fill + IPS_MIRROR_SUMS);
  tx->sums_ns = now_ns;
  return true;
}

/* The rings are past the job's fence. False: the window is full. */
static bool end_job(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns) {
  if (tx->job == IPS_JOB_SNAPSHOT) {
    if (!mark(m, tx, IPS_MARK_END, 0, now_ns)) return false;
    tx->end_seq = tx->next;
    tx->sums_ns = now_ns;
    tx->phase = IPS_MIRROR_LIVE;
  }
  if (tx->job == IPS_JOB_SHARDS && !mark_shards(m, tx, IPS_MARK_SHARD_END, now_ns)) return false;
  if (tx->job == IPS_JOB_SUMS && !tell_sums(m, tx, now_ns)) return false;
  tx->job = IPS_JOB_NONE;
  tx->scanned = tx->fence_set = false;
  return true;
}

void ips_fill(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns) {
  bool has_room = flush_slice(m, tx, now_ns);
  for (unsigned i = 0; has_room && i < SETS_PER_TICK; i++) {
    bool only_ends = tx->fence_set && !tx->in_set; /* a job without room for its end: nothing before it */
    if (!only_ends && (tx->in_set || begin_set(m, tx))) has_room = drain(m, tx, now_ns);
    if (has_room && tx->fence_set) has_room = end_job(m, tx, now_ns);
    else if (has_room && tx->job != IPS_JOB_NONE && !tx->scanned) has_room = scan(m, tx, now_ns);
  }
  if (tx->fill > IPS_MIRROR_HEAD) close_batch(m, tx, now_ns);
}
