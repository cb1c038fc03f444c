/* ips_session_sweep.c: what is not there any more: sessions that a peer's snapshot does not know, and those
 * of an address that has left its pool.
 *
 * A snapshot is mark and sweep: a shard has a mark, another one with each snapshot; whatever is applied, or
 * is found to be known already, bears it. What does not when the snapshot is complete goes, a slice of nodes
 * at a time, so that ten million sessions stop nobody. Of 255 snapshots in a row that broke, a mark may come
 * again: a session that none of them confirmed stays then until the digests differ.
 */
#include "ips_mirror_api.h"
#include "ips_session_table.h"

unsigned ips_session_mark(const struct ips_sessions *t, const struct ips_flow *f) {
  return t->marks[ips_mirror_shard(f)];
}

static void begin(struct ips_sessions *t, unsigned shard) {
  t->marks[shard] = t->marks[shard] == 255 ? 1 : (uint8_t)(t->marks[shard] + 1);
  t->swept[shard / 64] &= ~(1ull << shard % 64);
}

void ips_sessions_begin_snapshot(struct ips_sessions *t, int shard, bool is_new_origin) {
  if (shard >= 0) {
    begin(t, (unsigned)shard % IPS_MIRROR_SHARDS);
    return;
  }
  for (unsigned i = 0; i < IPS_MIRROR_SHARDS; i++) begin(t, i);
  if (!is_new_origin) return;
  t->is_new_origin = true;
  ips_tombstones_forget(t);
}

void ips_sessions_end_snapshot(struct ips_sessions *t, int shard, bool is_complete) {
  if (!is_complete) return;
  if (shard >= 0) t->swept[(unsigned)shard / 64 % 4] |= 1ull << (unsigned)shard % 64;
  else memset(t->swept, 0xff, sizeof t->swept);
  t->sweep_left = ips_get(t->free.fresh); /* once round, from wherever it is */
}

static bool is_swept(const struct ips_sessions *t, const struct ips_flow *f, uint32_t word) {
  unsigned shard = ips_mirror_shard(f);
  return ips_get(t->standby) && ips_word_kind(word) && t->swept[shard / 64] >> shard % 64 & 1 &&
         ips_word_mark(word) != t->marks[shard];
}

static struct ips_flow flow_at(const struct ips_sessions *t, uint32_t node) {
  uint64_t flow[IPS_FLOW_WORDS];
  for (unsigned i = 0; i < IPS_FLOW_WORDS; i++) flow[i] = ips_get(t->nodes[node].flow[i]);
  return ips_flow_of(flow);
}

static void sweep_node(struct ips_sessions *t, uint32_t worker, uint32_t node) {
  struct ips_flow f = flow_at(t, node);
  if (!is_swept(t, &f, ips_get(t->nodes[node].word))) return;
  struct ips_place p = ips_place_of(t, &f);
  ips_chain_lock(ips_chain_of(t, &p));
  uint32_t word = ips_peek(t->nodes[node].word);
  uint16_t flags = ips_peek(t->nodes[node].flags);
  bool is_there = ips_session_locate(t, &p) == node && is_swept(t, &f, word);
  if (is_there) {
    ips_sums_before(t, node);
    ips_session_unlink(t, &p, node);
  }
  ips_chain_unlock(ips_chain_of(t, &p));
  if (is_there) ips_session_release(t, worker, &p, node, word, flags);
}

bool ips_sessions_sweep(struct ips_sessions *t, uint32_t worker, uint32_t nodes) {
  if (!ips_get(t->standby)) { /* what is here now is ours, confirmed or not */
    t->sweep_left = 0;
    memset(t->swept, 0, sizeof t->swept);
    return false;
  }
  for (; nodes && t->sweep_left; nodes--, t->sweep_left--) {
    if (t->sweep_at >= ips_get(t->free.fresh)) t->sweep_at = 0;
    sweep_node(t, worker, t->sweep_at++);
  }
  if (t->sweep_left) return true;
  bool is_whole = true;
  for (unsigned i = 0; i < 4; i++) is_whole &= t->swept[i] == UINT64_MAX;
  if (is_whole) t->is_new_origin = false;
  memset(t->swept, 0, sizeof t->swept);
  return false;
}

/* ---- pools ---- */

static bool is_homeless(const struct ips_sessions *t, uint32_t node, const struct ips_flow *f) {
  const struct ips_session_node *n = &t->nodes[node];
  uint32_t number = ips_get(n->number);
  if (ips_word_kind(ips_get(n->word)) != IPS_SESSION_NAPT || number >= t->addresses.capacity) return false;
  const struct ips_port_set *s = ips_get(t->mappings.ports[number]);
  return !s || !ips_get(s->is_live) || ips_peek(s->realm) != f->realm;
}

uint32_t ips_sessions_prune(struct ips_sessions *t, uint32_t worker, uint64_t now_ns, uint64_t *cursor,
                            uint32_t nodes) {
  uint32_t ended = 0;
  for (; nodes && *cursor < ips_get(t->free.fresh); nodes--, ++*cursor) {
    uint32_t node = (uint32_t)*cursor;
    struct ips_flow f = flow_at(t, node);
    if (!is_homeless(t, node, &f)) continue;
    struct ips_place p = ips_place_of(t, &f);
    ips_chain_lock(ips_chain_of(t, &p));
    if (ips_session_locate(t, &p) == node && is_homeless(t, node, &f)) {
      ips_sums_before(t, node);
      ips_session_end(t, worker, &p, node, now_ns); /* gives the lock back */
      ended++;
    } else {
      ips_chain_unlock(ips_chain_of(t, &p));
    }
  }
  if (*cursor >= ips_get(t->free.fresh)) *cursor = UINT64_MAX;
  return ended;
}
