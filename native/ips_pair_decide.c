/* ips_pair_decide.c: which state follows from the facts.
 *
 * A node is active from the start of a reign to its end; a reign starts under an epoch that is on disk and
 * higher than all that is known, and ends for good: nobody comes back under an old epoch. inop follows from
 * present facts, so it cannot be left behind. Invariant: no promise to the peer runs when a reign starts.
 */
#include "ips_pair.h"

static void enter(struct ips_pair *m, int state, int reason, struct ips_pair_actions *out) {
  struct ips_pair_action *a = ips_pair_emit(out, IPS_PAIR_STATE);
  a->from = m->state;
  a->to = m->state = (uint8_t)state;
  a->reason = m->reason = (uint8_t)reason;
  m->entered_ns = m->now_ns;
  m->claim = 0;
}

/* A node that reaches less than it should is worse than one that does, and better than none. */
static bool peer_is_better(const struct ips_pair *m) {
  const struct ips_pair_peer *p = &m->peer;
  if (!p->heard_ns || ips_pair_silent(m) || p->flags & IPS_PAIR_CUT_OFF) return false;
  return p->state == IPS_PAIR_ACTIVE || (p->state == IPS_PAIR_STANDBY && p->flags & IPS_PAIR_ELIGIBLE);
}

/* Time for whoever has the sessions to come back, before they are given up: longer than most pauses of a machine,
 * shorter than clients wait. */
static uint64_t patience(const struct ips_pair *m) {
  const uint64_t least = 500000000u, most = 2000000000u;
  return m->cfg.dead_ns + ips_pair_min(most, ips_pair_max(least, 9 * m->cfg.dead_ns));
}

/* Whose worker stands still may go on in a moment; a peer without the sessions would end them all. */
static bool peer_has_nothing(const struct ips_pair *m) {
  bool has_them = m->peer.heard_ns && !ips_pair_silent(m) && m->peer.flags & IPS_PAIR_MIRROR;
  return m->state == IPS_PAIR_ACTIVE && m->facts.mirror_ready && !has_them &&
         m->now_ns - m->facts.workers_ns < patience(m);
}

/* The same, of a standby that has not got the sessions of a node that was active when it was last heard. */
static bool leaves_time(const struct ips_pair *m) {
  return !m->facts.mirror_ready && m->peer.heard_ns && m->peer.state == IPS_PAIR_ACTIVE &&
         m->now_ns - m->peer.heard_ns < patience(m);
}

/* What forbids to be active: a reason, or NONE. A stalled worker counts once nobody forwards any more. */
static int obstacle(const struct ips_pair *m) {
  if (m->maintenance) return IPS_PAIR_WHY_MAINTENANCE;
  if (!m->facts.link_up) return IPS_PAIR_WHY_LINK_DOWN;
  if (!m->facts.loaded) return IPS_PAIR_WHY_NOT_LOADED;
  if (!m->facts.criteria_ok && peer_is_better(m)) return IPS_PAIR_WHY_CRITERIA;
  if (ips_pair_stalled(m) && !ips_pair_forwards(m) && !peer_has_nothing(m)) return IPS_PAIR_WHY_WORKER_STALLED;
  return IPS_PAIR_WHY_NONE;
}

static void begin_reign(struct ips_pair *m, int reason, struct ips_pair_actions *out) {
  m->reign = m->durable;
  m->highest = (struct ips_pair_epoch){.counter = m->reign, .node = m->cfg.node};
  m->resign_until_ns = m->want_until_ns = m->confirm_ns = 0;
  m->announced = m->yielded = m->contested = 0;
  m->announce_ns = m->ask_at_ns = m->now_ns;
  m->send_now = 1;
  enter(m, IPS_PAIR_ACTIVE, reason, out);
}

/* resign: the peer may have it at once. */
static void end_reign(struct ips_pair *m, int state, int reason, bool resign, struct ips_pair_actions *out) {
  ips_pair_revoke(m, out);
  if (resign) {
    m->resign_until_ns = m->now_ns + m->cfg.lease_ns;
    m->promise = m->reign + 1;
  }
  m->reign = m->confirm_ns = m->forced = 0;
  m->send_now = 1;
  enter(m, state, reason, out);
}

/* Symmetric: of two nodes with the same knowledge exactly one prefers itself. */
bool ips_pair_prefers_me(const struct ips_pair *m) {
  const struct ips_pair_peer *p = &m->peer;
  if (p->state != IPS_PAIR_STANDBY || !(p->flags & IPS_PAIR_ELIGIBLE)) return true;
  bool mirror = p->flags & IPS_PAIR_MIRROR;
  if (mirror != (m->facts.mirror_ready != 0)) return !mirror;
  if (p->priority != m->cfg.priority) return m->cfg.priority > p->priority;
  return m->cfg.node < m->cfg.peer;
}

static bool may_reign(const struct ips_pair *m) {
  return m->state == IPS_PAIR_STANDBY && ips_pair_claimable(m) && m->now_ns >= m->promise_until_ns;
}

/* The peer is silent, or says that it is not active and gives no vote either: it does not hear us. */
static bool is_left_alone(const struct ips_pair *m) {
  if (ips_pair_silent(m)) return !leaves_time(m);
  bool unheard = m->claim && m->peer.echo_ns < m->claim_ns && m->now_ns - m->claim_ns >= m->cfg.dead_ns;
  return unheard && m->peer.state != IPS_PAIR_ACTIVE;
}

bool ips_pair_wants_reign(const struct ips_pair *m) { return may_reign(m) && is_left_alone(m); }

static bool try_reign(struct ips_pair *m, struct ips_pair_actions *out) {
  if (!may_reign(m)) return false;
  if (m->claim == m->durable && m->vote == m->claim && m->now_ns < m->vote_until_ns) {
    bool resigned = m->peer.kind == IPS_PAIR_RESIGN;
    return begin_reign(m, resigned ? IPS_PAIR_WHY_PEER_RESIGNED : IPS_PAIR_WHY_PEER_VOTED, out), true;
  }
  if (m->forced) return begin_reign(m, IPS_PAIR_WHY_ORDERED, out), true;
  if (is_left_alone(m)) {
    bool granted = m->grant == m->durable && m->now_ns < m->grant_until_ns;
    if (m->cfg.witness && !granted) return false;
    return begin_reign(m, IPS_PAIR_WHY_PEER_SILENT, out), true;
  }
  if (m->peer.state == IPS_PAIR_ACTIVE || !ips_pair_prefers_me(m)) {
    m->claim = 0;
  } else if (m->claim != m->durable) {
    m->claim = m->durable;
    m->claim_ns = m->now_ns;
    m->send_now = 1;
  }
  return false;
}

static bool from_initial(struct ips_pair *m, struct ips_pair_actions *out) {
  if (!m->facts.link_up || !m->knows) return false;
  uint64_t since = ips_pair_max(ips_pair_max(m->started_ns, m->link_ns), m->resumed_ns);
  int why = m->peer.echo_ns ? IPS_PAIR_WHY_PEER_HEARD 
          : m->forced ? IPS_PAIR_WHY_ORDERED : IPS_PAIR_WHY_PEER_ABSENT;
  if (why == IPS_PAIR_WHY_PEER_ABSENT && m->now_ns - since < m->cfg.hold_ns) return false;
  int no = obstacle(m);
  return enter(m, no ? IPS_PAIR_INOP : IPS_PAIR_STANDBY, no ? no : why, out), true;
}

static bool from_standby(struct ips_pair *m, struct ips_pair_actions *out) {
  int no = obstacle(m);
  if (no) return enter(m, IPS_PAIR_INOP, no, out), true;
  if (ips_pair_silent(m)) m->yielded = 0;
  return try_reign(m, out);
}

/* Has the node that was away been told the epoch, or waited for the dead time? */
static bool is_confirmed(const struct ips_pair *m) {
  if (m->peer.echo_ns >= m->confirm_ns) return true;
  if (m->cfg.witness)
    return m->grant == m->reign && m->asked_ns >= m->confirm_ns && m->now_ns < m->grant_until_ns;
  return m->now_ns >= m->confirm_ns && m->now_ns - m->confirm_ns >= m->cfg.dead_ns;
}

static bool from_active(struct ips_pair *m, struct ips_pair_actions *out) {
  const uint8_t wants = IPS_PAIR_WANT | IPS_PAIR_ELIGIBLE;
  int no = obstacle(m);
  if (no) return end_reign(m, IPS_PAIR_INOP, no, true, out), true;
  if (m->highest.counter != m->reign || m->highest.node != m->cfg.node)
    return end_reign(m, IPS_PAIR_STANDBY, IPS_PAIR_WHY_HIGHER_EPOCH, false, out), true;
  if ((m->peer.flags & wants) == wants && m->peer.epoch.counter == m->reign && !ips_pair_silent(m)) {
    m->yielded = 1;
    return end_reign(m, IPS_PAIR_STANDBY, IPS_PAIR_WHY_HANDED_OVER, true, out), true;
  }
  if (m->confirm_ns && is_confirmed(m)) {
    m->confirm_ns = 0;
    m->send_now = 1;
  }
  bool waits = m->confirm_ns && m->now_ns < m->confirm_ns + m->cfg.dead_ns;
  if (ips_pair_support(m) <= m->now_ns && !ips_pair_forwards(m) && !waits)
    return end_reign(m, IPS_PAIR_STANDBY, IPS_PAIR_WHY_NO_QUORUM, true, out), true;
  return false;
}

void ips_pair_decide(struct ips_pair *m, struct ips_pair_actions *out) {
  for (int i = 0; i < 4; i++) {
    bool moved = false;
    switch (m->state) {
      case IPS_PAIR_INITIAL: moved = from_initial(m, out); break;
      case IPS_PAIR_STANDBY: moved = from_standby(m, out); break;
      case IPS_PAIR_ACTIVE: moved = from_active(m, out); break;
      case IPS_PAIR_INOP:
        moved = !obstacle(m);
        if (moved) enter(m, IPS_PAIR_STANDBY, IPS_PAIR_WHY_FACTS_GOOD, out);
    }
    if (!moved) return;
  }
}
