/* flows_remap_turn.c: a remap's mirror, in turns of ips-mirror: its channel, its table, fence and count.
 *
 * The giver's flows go to the taker as sessions go to a standby: snapshot, changes, digests, only those of
 * the remap's addresses. What was half-open when the giver began to prepare becomes a session first. The
 * fence: the rings' heads after every packet thread has seen that the giver leaves; acknowledged is applied
 * (decision 0018), so what is acknowledged past these heads the taker has.
 */
#define _GNU_SOURCE
#include "../ips_mirror.h"
#include "../ips_seal.h"
#include "flows_remap.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { RING = 8192, WINDOW = 1024, BURST = 128, SCAN = 512, LEAST_TOMBSTONES = 8192, MOST_TOMBSTONES = 1 << 20 };
#define MS 1000000ull
#define PUBLISH_NS (20 * MS)
#define TALLY_NS (500 * MS)
#define DIGEST_NS (10000 * MS)
#define FRESH_NS (1000 * MS)

/* ---- what is behind the mirror ---- */

static bool is_of(const struct flows_remap *r, const struct ips_session_rec *rec) {
  return rec->kind == IPS_SESSION_TRACK && ips_session_is_in(&rec->flow, &r->prefix);
}

static size_t scan(void *arg, uint64_t *cursor, struct ips_session_rec *out, size_t room) {
  const struct flows_remap *r = arg;
  size_t kept = 0, n = ips_sessions_scan(r->m->flows->sessions, cursor, flows_now_ns(), out, room);
  if (n < room) *cursor = UINT64_MAX;
  for (size_t i = 0; i < n; i++)
    if (is_of(r, &out[i])) out[kept++] = out[i];
  return kept;
}

static int apply(void *arg, int op, const struct ips_session_rec *rec) {
  const struct flows_remap *r = arg;
  if (!r->core.followed || (op == IPS_SESSION_UPSERT && !is_of(r, rec))) return -1;
  int result = ips_sessions_apply(r->core.followed, flows_thread_ring(r->m->flows), op, rec, flows_now_ns(), NULL);
  return result == IPS_APPLIED || result == IPS_APPLY_STALE ? 0 : -1;
}

static void begin_snapshot(void *arg, int shard, bool is_new_origin) {
  const struct flows_remap *r = arg;
  if (r->core.followed) ips_sessions_begin_snapshot(r->core.followed, shard, is_new_origin);
}

static void end_snapshot(void *arg, int shard, bool is_complete) {
  const struct flows_remap *r = arg;
  if (r->core.followed) ips_sessions_end_snapshot(r->core.followed, shard, is_complete);
}

/* A slice for each turn; not while a sweep goes on. */
static int digest(void *arg, bool begins, uint64_t *sums) {
  const struct flows_remap *r = arg;
  struct ips_sessions *t = r->core.followed;
  if (!t) {
    memset(sums, 0, IPS_MIRROR_SHARDS * sizeof *sums);
    return 1;
  }
  if (begins && !ips_sessions_begin_sums(t)) return -1;
  r->m->is_summing = !ips_sessions_more_sums(t, FLOWS_SLICE, sums);
  return !r->m->is_summing;
}

/* ---- its channel ---- */

static void random_octets(void *arg, uint8_t *out, size_t n) {
  (void)arg;
  while (n) {
    ssize_t got = getrandom(out, n, 0);
    if (got > 0) out += got, n -= (size_t)got;
  }
}

static bool gives(const struct flows_remap *r) { return r->core.followed == NULL; }

/* Named by the remap and the side, so that no datagram of one remap opens in another. */
static struct ips_seal *seal(const struct flows_remap *r, uint64_t boot) {
  struct ips_seal_config s = {.boot = boot, .n_keys = 1, .key_numbers = {1}, .hello_ns = FLOWS_HELLO_NS,
                              .silence_ns = FLOWS_SILENCE_NS};
  snprintf((char *)s.id, sizeof s.id, "%c%llx", gives(r) ? 'g' : 't', (unsigned long long)r->set.id);
  snprintf((char *)s.peer, sizeof s.peer, "%c%llx", gives(r) ? 't' : 'g', (unsigned long long)r->set.id);
  memcpy(s.keys[0], r->set.key, sizeof s.keys[0]);
  struct ips_seal *made = ips_seal_new(&s, random_octets, NULL);
  explicit_bzero(&s, sizeof s);
  return made;
}

static struct ips_mirror *mirror(struct flows *f, struct flows_remap *r, struct ips_seal *channel) {
  struct ips_mirror_config k = {
    .workers = f->n_workers + 2, .ring = r->set.ring ? r->set.ring : RING,
    .window = r->set.window ? r->set.window : WINDOW, .tombstones = LEAST_TOMBSTONES, .burst = BURST, .scan = SCAN,
    .n_peers = 1, .rto_ns = 20 * MS, .idle_ns = 100 * MS, .digest_ns = DIGEST_NS, .backoff_ns = 100 * MS,
    .source = {r, scan}, .sink = {r, apply, begin_snapshot, end_snapshot, digest},
  };
  while (k.tombstones < MOST_TOMBSTONES && k.tombstones < 2ull * k.workers * k.ring) k.tombstones *= 2;
  k.seals[0] = channel;
  return ips_mirror_new(&k);
}

struct flows_mirror *flows_remap_channel(struct flows *f, struct flows_remap *r) {
  struct flows_mirror *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  pthread_mutex_init(&m->lock, NULL);
  pthread_mutex_init(&m->turn, NULL);
  m->flows = f;
  m->set.n_peers = 1;
  m->set.peers[0].n_paths = r->set.n_paths;
  memcpy(m->set.peers[0].paths, r->set.paths, sizeof r->set.paths);
  m->peers[0].n_paths = r->set.n_paths;
  for (uint32_t p = 0; p < IPS_CTL_MIRROR_PEERS; p++)
    for (uint32_t i = 0; i < IPS_CTL_PAIR_PATHS; i++) m->peers[p].paths[i].fd = -1;
  m->peers[0].seal = seal(r, f->run | (uint64_t)++f->n_mirrors << 48);
  m->core = m->peers[0].seal ? mirror(f, r, m->peers[0].seal) : NULL;
  r->m = m;
  /* The calendar's seconds: a node that was restarted is not taken for its own past. */
  if (m->core && (!gives(r) || ips_mirror_set_role(m->core, true, (uint64_t)time(NULL)))) return m;
  flows_mirror_free(m);
  return NULL;
}

void flows_remap_event(struct flows *f, const struct flows_remap_set *s, uint32_t ring, int op,
                       const struct ips_session_rec *rec) {
  for (uint32_t i = 0; s && i < s->n; i++)
    if (gives(s->at[i]) && is_of(s->at[i], rec)) flows_mirror_push(f, s->at[i]->m, ring, op, rec);
}

/* ---- turns ---- */

uint64_t flows_remap_heads(const struct flows *f, const struct flows_remap *r) {
  uint64_t sum = 0;
  for (uint32_t w = 0; w < f->n_workers + 2; w++) sum += ips_ring_head(r->m->core, w);
  return sum;
}

bool flows_remap_is_busy(const struct flows_remap *r, uint64_t now_ns) { return now_ns < r->m->busy_until_ns; }

static bool is_past_fence(const struct flows *f, const struct flows_remap *r) {
  const struct ips_mirror_tx *tx = &r->m->core->peers[0].tx;
  for (uint32_t w = 0; w < f->n_workers + 2; w++)
    if (tx->done[w] < r->fence[w]) return false;
  return tx->is_ready;
}

static void look_at_fence(const struct flows *f, struct flows_remap *r) {
  if (r->set.role != IPS_REMAP_LEAVING || r->promote_at != UINT64_MAX || r->state.fence_applied) return;
  if (!r->has_fence) ips_rings_heads(r->m->core, r->fence);
  r->has_fence = true;
  if (!is_past_fence(f, r)) return;
  pthread_mutex_lock(&r->lock);
  r->state.fence_applied = 1;
  pthread_mutex_unlock(&r->lock);
}

/* A slice of a pass; true: another one is due at once. */
static bool count_flows(const struct flows *f, struct flows_remap *r, uint64_t now_ns) {
  if (!r->tally_at) {
    if (r->tally_began_ns && now_ns - r->tally_began_ns < TALLY_NS) return false;
    r->tally_began_ns = now_ns;
    r->tally = (struct ips_session_tally){0};
  }
  ips_sessions_tally(f->sessions, now_ns, &r->prefix, &r->tally_at, FLOWS_SLICE, &r->tally);
  if (r->tally_at != UINT64_MAX) return true;
  r->tally_at = 0;
  pthread_mutex_lock(&r->lock);
  r->state.flows = r->tally.sessions;
  r->state.active = r->tally.active;
  r->state.one_sided = r->tally.one_sided;
  r->state.counted_ns = now_ns;
  pthread_mutex_unlock(&r->lock);
  return false;
}

static void say_of_mirror(const struct flows_remap *r, uint64_t now_ns, struct ips_ctl_remap_state *s) {
  struct ips_mirror_stats stats;
  struct ips_seal_info info;
  ips_mirror_stats(r->m->core, now_ns, &stats);
  ips_seal_info(r->m->peers[0].seal, now_ns, &info);
  const struct ips_mirror_peer_stats *p = &stats.peers[0];
  s->heard_ns = info.heard_ns;
  s->notes = info.alive ? IPS_CTL_MIRROR_HEARD
             : ips_seal_counter(r->m->peers[0].seal, IPS_SEAL_WRONG_KEY_) ? IPS_CTL_MIRROR_WRONG_KEY : 0;
  if (gives(r)) {
    s->phase = p->phase;
    s->refusal = p->refusal;
    s->lag_events = p->lag_events;
    s->lag_ns = p->lag_ns;
    s->round_trip_ns = p->round_trip_ns;
    s->mirror_resyncs = p->stream ? p->stream - 1 : 0;
    s->is_ready = p->is_ready && r->promote_at == UINT64_MAX;
  } else {
    s->is_ready = p->is_complete && now_ns - p->heard_ns < FRESH_NS;
  }
}

static void say_of_flows(const struct flows *f, const struct flows_remap *r, uint64_t now_ns,
                         struct ips_ctl_remap_state *s) {
  for (uint32_t c = 0; c < IPS_REMAP_COUNTERS; c++) {
    s->counters[c] = 0;
    for (uint32_t w = 0; w < f->n_workers; w++)
      s->counters[c] += __atomic_load_n(&r->core.counters[w * IPS_REMAP_COUNTERS + c], __ATOMIC_RELAXED);
  }
  if (gives(r)) return;
  struct ips_sessions_stats known;
  ips_sessions_stats(r->core.followed, &known);
  s->flows = known.sessions;
  s->counted_ns = now_ns;
}

void flows_remap_publish(struct flows *f, struct flows_remap *r) {
  uint64_t now = flows_now_ns();
  pthread_mutex_lock(&r->lock); /* held by who looks, for a copy's time */
  struct ips_ctl_remap_state *s = &r->state;
  s->id = r->set.id;
  s->now_ns = now;
  s->since_ns = r->since_ns;
  s->tracked_ns = gives(r) ? r->tracked_ns : 0;
  s->fence_ns = r->set.role == IPS_REMAP_LEAVING ? r->since_ns : 0;
  s->prefix_len = r->set.prefix_len;
  s->family = r->set.family;
  s->role = r->set.role;
  s->flags = r->set.flags;
  memcpy(s->prefix, r->set.prefix, sizeof s->prefix);
  memcpy(s->peer, r->set.peer, sizeof s->peer);
  say_of_mirror(r, now, s);
  say_of_flows(f, r, now, s);
  pthread_mutex_unlock(&r->lock);
  r->m->published_ns = now;
}

bool flows_remap_turn(struct flows *f, struct flows_remap *r) {
  bool has_more = false;
  r->m->is_summing = false;
  flows_net_receive(r->m);
  uint64_t now = flows_now_ns(), heads = flows_remap_heads(f, r);
  if (heads != r->heads) r->m->busy_until_ns = now + 5 * MS;
  r->heads = heads;
  if (gives(r) && r->promote_at != UINT64_MAX)
    ips_sessions_promote_half(f->sessions, flows_thread_ring(f), now, &r->prefix, &r->promote_at, FLOWS_SLICE);
  flows_net_tick(r->m, now);
  if (gives(r)) {
    look_at_fence(f, r);
    has_more = r->promote_at != UINT64_MAX;
    has_more |= count_flows(f, r, now);
  } else {
    has_more = ips_sessions_sweep(r->core.followed, flows_thread_ring(f), FLOWS_SLICE);
    has_more |= r->m->is_summing;
  }
  if (now - r->m->published_ns >= PUBLISH_NS) flows_remap_publish(f, r);
  return has_more;
}
