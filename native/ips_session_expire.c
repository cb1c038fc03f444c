/* ips_session_expire.c: sessions end: by time, a few chains per call, or by order; roles change.
 *
 * Chains are looked through without their lock; only where something is due it is taken, and everything
 * looked at again. After a promotion no session counts as idle since before it (DESIGN.md 8).
 */
#include "ips_session_table.h"

static bool is_due(const struct ips_sessions *t, const struct ips_session_node *n, uint32_t tick) {
  uint32_t word = ips_get(n->word), last = ips_get(n->last), floor = ips_peek(t->floor);
  if (last < floor) last = floor;
  unsigned proto = ips_get(n->flow[IPS_FLOW_WORDS - 1]) >> 40 & 255;
  return ips_word_kind(word) && tick > last &&
         tick - last > ips_session_patience(t, proto, ips_word_state(word), ips_get(n->flags));
}

/* The first node that is due. With the lock: certain; without: worth a look. */
static uint32_t due_in(const struct ips_sessions *t, const struct ips_chain *c, uint32_t tick) {
  uint32_t steps = 0, i = ips_get(c->head);
  for (; i != IPS_NONE && !is_due(t, &t->nodes[i], tick); i = ips_get(t->nodes[i].next))
    if (++steps > 4 * IPS_CHAIN_STEPS)
      return i; /* led astray by a writer, or very long: look with the lock */
  return i;
}

static uint32_t due_locked(const struct ips_sessions *t, const struct ips_chain *c, uint32_t tick) {
  uint32_t i = ips_peek(c->head);
  while (i != IPS_NONE && !is_due(t, &t->nodes[i], tick)) i = ips_peek(t->nodes[i].next);
  return i;
}

static struct ips_place place_at(const struct ips_sessions *t, uint32_t node) {
  uint64_t flow[IPS_FLOW_WORDS];
  for (unsigned i = 0; i < IPS_FLOW_WORDS; i++) flow[i] = ips_get(t->nodes[node].flow[i]);
  struct ips_flow f = ips_flow_of(flow);
  return ips_place_of(t, &f);
}

uint32_t ips_sessions_expire(struct ips_sessions *t, uint32_t worker, uint64_t now_ns, uint32_t buckets) {
  uint32_t ended = 0, tick = ips_tick(t, now_ns);
  if (ips_get(t->standby)) return 0;
  for (uint32_t k = 0; k < buckets && k <= t->mask; k++) {
    struct ips_chain *c = &t->chains[ips_add(t->cursor, 1) & t->mask];
    while (due_in(t, c, tick) != IPS_NONE) {
      ips_chain_lock(c);
      uint32_t i = due_locked(t, c, tick);
      if (i == IPS_NONE) {
        ips_chain_unlock(c);
        break;
      }
      struct ips_place p = place_at(t, i);
      ips_session_end(t, worker, &p, i, now_ns);
      ended++;
    }
  }
  if (ended) ips_add(t->stats.expired, ended);
  return ended;
}

int ips_sessions_close(struct ips_sessions *t, uint32_t worker, const struct ips_flow *flow,
                       uint64_t now_ns) {
  struct ips_place p = ips_place_of(t, flow);
  ips_chain_lock(ips_chain_of(t, &p));
  uint32_t i = ips_session_locate(t, &p);
  if (i == IPS_NONE) {
    ips_chain_unlock(ips_chain_of(t, &p));
    return 0;
  }
  ips_session_end(t, worker, &p, i, now_ns);
  return 1;
}

uint32_t ips_sessions_buckets(const struct ips_sessions *t) { return t->mask + 1; }

void ips_sessions_promote(struct ips_sessions *t, uint64_t now_ns) {
  ips_put(t->floor, ips_tick(t, now_ns)); /* first, or a worker would expire by the old times */
  ips_put(t->standby, 0);
}

void ips_sessions_stand_by(struct ips_sessions *t) { ips_put(t->standby, 1); }
