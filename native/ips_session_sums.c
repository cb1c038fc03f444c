/* ips_session_sums.c: digests of all sessions by shard, to be compared with a peer's: in one pass, or in parts
 * while changes go on.
 *
 * A peer's sums are those of one point in its stream, so a standby's have to be, too, though ten million
 * sessions take a second. What is changed before the count has come to it is added as it was, and taken off as
 * it became: the count adds that again. What is changed behind it does not matter. So the sums are those of the
 * beginning. The mirror's thread alone, which applies, sweeps and prunes.
 */
#include "ips_mirror_api.h"
#include "ips_session_table.h"

void ips_sessions_sums(const struct ips_sessions *t, uint64_t *sums) {
  struct ips_session_rec some[64];
  uint64_t cursor = 0;
  memset(sums, 0, IPS_MIRROR_SHARDS * sizeof *sums);
  for (size_t n; (n = ips_sessions_scan(t, &cursor, 0, some, 64)) != 0;)
    for (size_t i = 0; i < n; i++) sums[ips_mirror_shard(&some[i].flow)] += ips_mirror_digest(&some[i]);
}

/* Of a free node, and of a half-open flow: nothing. */
static void add(struct ips_sessions *t, uint32_t node, bool takes_off) {
  struct ips_session_rec r;
  uint32_t word = ips_get(t->nodes[node].word);
  if (!ips_word_kind(word) || word & IPS_WORD_HALF) return;
  ips_session_record(t, &t->nodes[node], 0, &r);
  uint64_t digest = ips_mirror_digest(&r);
  t->sums[ips_mirror_shard(&r.flow)] += takes_off ? -digest : digest;
}

void ips_sums_before(struct ips_sessions *t, uint32_t node) {
  if (t->is_summing && node != IPS_NONE && node >= t->sum_at) add(t, node, false);
}

void ips_sums_after(struct ips_sessions *t, uint32_t node) {
  if (t->is_summing && node != IPS_NONE && node >= t->sum_at) add(t, node, true);
}

bool ips_sessions_begin_sums(struct ips_sessions *t) {
  t->is_summing = !t->sweep_left;
  t->sum_at = 0;
  memset(t->sums, 0, sizeof t->sums);
  return t->is_summing;
}

bool ips_sessions_more_sums(struct ips_sessions *t, uint32_t nodes, uint64_t *sums) {
  for (; nodes && t->sum_at < ips_get(t->free.fresh); nodes--) add(t, t->sum_at++, false);
  if (t->sum_at < ips_get(t->free.fresh)) return false;
  memcpy(sums, t->sums, sizeof t->sums);
  t->is_summing = false;
  return true;
}
