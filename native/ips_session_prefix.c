/* ips_session_prefix.c: the sessions of a prefix, for a remap: half-open ones become sessions, so that they are
 * mirrored; and how many there are. A slice of nodes for each call, while workers go on.
 */
#include "ips_session_table.h"
#include "ips_table.h"

bool ips_session_is_in(const struct ips_flow *f, const struct ips_session_prefix *in) {
  ips_u128 off = ips_ld_address(in->family, f->dst) ^ ips_ld_address(in->family, in->address);
  return f->family == in->family && (off & ips_mask(in->len)) == 0;
}

static struct ips_flow flow_at(const struct ips_sessions *t, uint32_t node) {
  uint64_t flow[IPS_FLOW_WORDS];
  for (unsigned i = 0; i < IPS_FLOW_WORDS; i++) flow[i] = ips_get(t->nodes[node].flow[i]);
  return ips_flow_of(flow);
}

static bool is_half(uint32_t word) { return ips_word_kind(word) == IPS_SESSION_TRACK && word & IPS_WORD_HALF; }

static void promote(struct ips_sessions *t, uint32_t worker, uint32_t node, const struct ips_flow *f, uint32_t tick) {
  struct ips_place p = ips_place_of(t, f);
  struct ips_session_node *n = &t->nodes[node];
  struct ips_session_rec r;
  ips_chain_lock(ips_chain_of(t, &p));
  uint32_t word = ips_peek(n->word);
  uint16_t flags = ips_peek(n->flags);
  bool done = ips_session_locate(t, &p) == node && is_half(word) && ips_budget_take(&t->used, t->capacity);
  if (done) {
    ips_put(n->word, word & ~IPS_WORD_HALF);
    ips_put(n->version, ips_session_version(t, &p));
    ips_session_record(t, n, tick, &r);
    ips_session_tell(t, worker, IPS_SESSION_UPSERT, &r);
  }
  ips_chain_unlock(ips_chain_of(t, &p));
  if (!done) return;
  ips_source_give(&t->sources, f, flags);
  ips_add(t->half, -1);
  ips_add(t->stats.promoted, 1);
}

void ips_sessions_promote_half(struct ips_sessions *t, uint32_t worker, uint64_t now_ns,
                               const struct ips_session_prefix *in, uint64_t *cursor, uint32_t nodes) {
  uint32_t tick = ips_tick(t, now_ns);
  for (; nodes && *cursor < ips_get(t->free.fresh); nodes--, ++*cursor) {
    struct ips_flow f = flow_at(t, (uint32_t)*cursor);
    if (is_half(ips_get(t->nodes[*cursor].word)) && ips_session_is_in(&f, in)) promote(t, worker, (uint32_t)*cursor, &f, tick);
  }
  if (*cursor >= ips_get(t->free.fresh)) *cursor = UINT64_MAX;
}

void ips_sessions_tally(const struct ips_sessions *t, uint64_t now_ns, const struct ips_session_prefix *in,
                        uint64_t *cursor, uint32_t nodes, struct ips_session_tally *out) {
  enum { ACTIVE_S = 60, STILL_S = 2 };
  const uint64_t ticks_s = 1000000000ull >> IPS_TICK_SHIFT;
  uint32_t tick = ips_tick(t, now_ns);
  for (; nodes && *cursor < ips_get(t->free.fresh); nodes--, ++*cursor) {
    const struct ips_session_node *n = &t->nodes[*cursor];
    uint32_t word = ips_get(n->word), last = ips_get(n->last), idle = tick > last ? tick - last : 0;
    struct ips_flow f = flow_at(t, (uint32_t)*cursor);
    if (ips_word_kind(word) != IPS_SESSION_TRACK || !ips_session_is_in(&f, in)) continue;
    bool is_closed = ips_word_state(word) >= IPS_STATE_CLOSED; /* lingers; a RST may be forged */
    if (is_closed && idle > STILL_S * ticks_s) continue;
    out->sessions++;
    out->active += idle <= ACTIVE_S * ticks_s;
    out->one_sided += (ips_get(n->flags) & IPS_SESSION_ONE_SIDED) != 0;
  }
  if (*cursor >= ips_get(t->free.fresh)) *cursor = UINT64_MAX;
}
