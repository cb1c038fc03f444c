/* ips_pair_quorum.c: votes, the witness's grants, and the lease that they support.
 *
 * Three voters: this node, its peer, and, where there is one, the witness. A reign needs two of them at every
 * instant; any two pairs of voters have one in common, and a vote is given to one node at a time, for a
 * time. The giver counts from later than the taker and longer (clock_ppm): the taker's use ends before the
 * giver's promise. Without a witness, a peer that was silent for the dead time counts as a vote: that is
 * what two nodes can promise.
 */
#include "ips_pair.h"

/* Counted from when the peer's latest message came: the vote runs from when that was sent. */
static uint64_t promise_end(const struct ips_pair *m) {
  return m->peer.heard_ns + ips_pair_slow(&m->cfg, m->cfg.lease_ns);
}

/* A better candidate votes for itself; anyone else gives its own claim up. */
static bool grants_claim(struct ips_pair *m) {
  if (m->state == IPS_PAIR_ACTIVE || m->peer.claim <= m->highest.counter) return false;
  if (m->state == IPS_PAIR_STANDBY && ips_pair_claimable(m) && ips_pair_prefers_me(m)) return false;
  m->claim = 0;
  return true;
}

uint64_t ips_pair_vote(struct ips_pair *m) {
  const struct ips_pair_peer *p = &m->peer;
  uint64_t counter = 0;
  if (m->state == IPS_PAIR_ACTIVE || !p->heard_ns) return 0;
  bool reigns = p->state == IPS_PAIR_ACTIVE && m->highest.node == m->cfg.peer &&
                p->epoch.node == m->cfg.peer &&
                p->epoch.counter == m->highest.counter;
  if (reigns) counter = m->highest.counter;
  else if (ips_pair_resigning(m)) counter = m->highest.counter;
  else if (p->claim && grants_claim(m)) counter = p->claim;
  if (!counter) return 0;
  m->promise = ips_pair_resigning(m) && !reigns ? counter + 1 : counter;
  m->promise_until_ns = ips_pair_max(m->promise_until_ns, promise_end(m));
  return counter;
}

uint64_t ips_pair_support(const struct ips_pair *m) {
  if (!m->cfg.witness || m->forced) return UINT64_MAX;
  uint64_t vote = m->vote == m->reign ? m->vote_until_ns : 0;
  uint64_t grant = m->grant == m->reign ? m->grant_until_ns : 0;
  return ips_pair_max(vote, grant);
}

void ips_pair_revoke(struct ips_pair *m, struct ips_pair_actions *out) {
  if (!m->forward_until_ns) return;
  m->forward_until_ns = 0;
  ips_pair_emit(out, IPS_PAIR_LEASE);
}

/* Counted from the last word to the peer: it takes over no sooner than dead_ns after that. */
void ips_pair_extend(struct ips_pair *m, struct ips_pair_actions *out) {
  if (m->state != IPS_PAIR_ACTIVE || m->confirm_ns || m->lapsed || ips_pair_stalled(m)) return;
  uint64_t until = ips_pair_min(m->sent_ns + m->cfg.lease_ns, ips_pair_support(m));
  if (until <= m->now_ns || until <= m->forward_until_ns) return;
  m->forward_until_ns = until;
  ips_pair_emit(out, IPS_PAIR_LEASE)->value = until;
}

static void ask(struct ips_pair *m, uint64_t counter, struct ips_pair_actions *out) {
  struct ips_pair_action *a = ips_pair_emit(out, IPS_PAIR_ASK);
  a->value = counter;
  a->at_ns = m->now_ns;
  m->ask_at_ns = m->now_ns + m->cfg.witness_ask_ns;
}

void ips_pair_witness_turn(struct ips_pair *m, struct ips_pair_actions *out) {
  if (!m->cfg.witness) return;
  bool wants = ips_pair_wants_reign(m);
  if (m->grant && m->grant != m->reign && !(wants && m->grant == m->durable)) {
    ips_pair_emit(out, IPS_PAIR_RELEASE)->value = m->grant;
    m->grant = m->grant_until_ns = 0;
  }
  if (m->now_ns < m->ask_at_ns) return;
  if (m->state == IPS_PAIR_ACTIVE) ask(m, m->reign, out);
  else if (wants) ask(m, m->durable, out);
  else if (!m->knows) ask(m, 0, out); /* grants nothing; its answer names the highest epoch */
}

void ips_pair_note_witness(struct ips_pair *m, int answer, uint64_t counter, struct ips_pair_epoch highest,
                           uint64_t asked_ns) {
  if (answer != IPS_PAIR_GRANTED && answer != IPS_PAIR_REFUSED) return;
  bool ours = highest.node == m->cfg.node || highest.node == m->cfg.peer;
  if (highest.counter && highest.counter < IPS_PAIR_BOUND && ours && ips_pair_higher(&highest, &m->highest)) {
    bool own = counter == highest.counter && highest.node == m->cfg.node; /* granted, perhaps not begun */
    if (!own) m->highest = highest;
  }
  m->knows = 1;
  m->forced = 0;
  if (answer != IPS_PAIR_GRANTED || !counter || asked_ns > m->now_ns) return;
  if (counter != m->reign && counter != m->durable) return;
  uint64_t until = asked_ns + ips_pair_fast(&m->cfg, m->cfg.witness_ttl_ns);
  if (counter == m->grant && until <= m->grant_until_ns) return;
  m->grant = counter;
  m->grant_until_ns = until;
  m->asked_ns = asked_ns;
}
