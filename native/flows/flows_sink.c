/* flows_sink.c: the session table behind the mirror: copies for snapshots, changes of the active node.
 *
 * Changes of different packet threads come in no order: a port may be taken by a session before the one that
 * had it has ended here. What the table refuses for such a reason (the port is another's, there is no room)
 * is put aside and tried again, since the deletion is on its way, in this set or the next, or in what a
 * snapshot sweeps. In vain for PATIENCE: then the tables differ, and the stream is refused until a new
 * snapshot.
 */
#define _GNU_SOURCE
#include "flows_mirror.h"

#define PATIENCE_NS 5000000000ull

static size_t scan(void *arg, uint64_t *cursor, struct ips_session_rec *out, size_t room) {
  const struct flows_mirror *m = arg;
  size_t n = ips_sessions_scan(m->flows->sessions, cursor, flows_now_ns(), out, room);
  if (n < room) *cursor = UINT64_MAX;
  return n;
}

static int try_record(struct flows_mirror *m, int op, const struct ips_session_rec *rec, uint64_t now_ns) {
  return ips_sessions_apply(m->flows->sessions, flows_thread_ring(m->flows), op, rec, now_ns, NULL);
}

static int apply(void *arg, int op, const struct ips_session_rec *rec) {
  struct flows_mirror *m = arg;
  uint64_t now = flows_now_ns();
  if (flows_is_active(m->flows)) return -1; /* since a moment ago: the stream's sender is active no more */
  int result = try_record(m, op, rec, now);
  if (result == IPS_APPLIED || result == IPS_APPLY_STALE) return 0;
  if (result == IPS_APPLY_BAD || m->has_failed || m->n_deferred == FLOWS_DEFERRED) return -1;
  m->deferred[m->n_deferred++] = (struct flows_deferred){*rec, now};
  return 0;
}

void flows_sink_retry(struct flows_mirror *m, uint64_t now_ns) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < m->n_deferred; i++) {
    const struct flows_deferred d = m->deferred[i];
    int result = try_record(m, IPS_SESSION_UPSERT, &d.rec, now_ns);
    if (result == IPS_APPLIED || result == IPS_APPLY_STALE) continue;
    if (result == IPS_APPLY_BAD || now_ns - d.since_ns > PATIENCE_NS) m->has_failed = true;
    else m->deferred[kept++] = d;
  }
  m->n_deferred = kept;
}

static void begin_snapshot(void *arg, int shard, bool is_new_origin) {
  struct flows_mirror *m = arg;
  if (shard < 0) {
    m->n_deferred = 0;
    m->has_failed = false;
  }
  ips_sessions_begin_snapshot(m->flows->sessions, shard, is_new_origin);
}

static void end_snapshot(void *arg, int shard, bool is_complete) {
  const struct flows_mirror *m = arg;
  ips_sessions_end_snapshot(m->flows->sessions, shard, is_complete);
}

/* A slice for each turn. Not while a sweep goes on or records wait: the tables differ then. */
static int digest(void *arg, bool begins, uint64_t *sums) {
  struct flows_mirror *m = arg;
  if (begins) flows_sink_retry(m, flows_now_ns());
  if (begins && (m->n_deferred || !ips_sessions_begin_sums(m->flows->sessions))) return -1;
  m->is_summing = !ips_sessions_more_sums(m->flows->sessions, FLOWS_SLICE, sums);
  return !m->is_summing;
}

struct ips_mirror_source flows_source(struct flows_mirror *m) { return (struct ips_mirror_source){m, scan}; }
struct ips_mirror_sink flows_sink(struct flows_mirror *m) {
  return (struct ips_mirror_sink){m, apply, begin_snapshot, end_snapshot, digest};
}
