/* ips_pair.c: the inputs of the pair machine (contract in ips_pair_api.h).
 *
 * Each input first asks whether this node has been away (`arrive`): a gap above late_ns, a lease that ran
 * out, or the peer's clock that went on while the own one stood still. Whoever was away has heard nothing
 * meanwhile: silence counts from now. An active node whose lease ran out meanwhile stops until it knows the
 * epoch again (decision 0038: not so where the lease runs still, or nobody was there before). Then the input
 * is noted, and `settle` draws the conclusions: state, reservation on disk, witness, message, lease,
 * announcement.
 */
#include "ips_pair.h"

#define MS 1000000ull
/* 0, 10, 100 ms, 1 s, every 30 s */
static const uint64_t announce_after[] = {10 * MS, 90 * MS, 900 * MS, 30000 * MS};

struct ips_pair_action *ips_pair_emit(struct ips_pair_actions *out, int kind) {
  if (out->n == IPS_PAIR_ACTIONS) __builtin_trap(); /* settle emits fewer, whatever comes in */
  struct ips_pair_action *a = &out->a[out->n++];
  memset(a, 0, sizeof *a);
  a->kind = (uint8_t)kind;
  return a;
}

static void emit_value(struct ips_pair_actions *out, int kind, uint64_t value) {
  ips_pair_emit(out, kind)->value = value;
}

static void start(struct ips_pair *m, const struct ips_pair_config *cfg, uint64_t boot, uint64_t now_ns) {
  memset(m, 0, sizeof *m);
  m->cfg = *cfg;
  m->boot = boot;
  m->now_ns = m->started_ns = m->entered_ns = m->next_send_ns = now_ns;
  m->state = IPS_PAIR_INITIAL;
  m->reason = IPS_PAIR_WHY_STARTED;
}

void ips_pair_start(struct ips_pair *m, const struct ips_pair_config *cfg, uint64_t boot, bool has_file,
                    uint64_t counter, uint64_t now_ns) {
  start(m, cfg, boot, now_ns);
  m->knows = has_file;
  m->durable = m->floor = has_file ? ips_pair_min(counter, IPS_PAIR_BOUND) : 0;
}

static void announce_anew(struct ips_pair *m) {
  m->announced = 0;
  m->announce_ns = m->now_ns;
}

/* Active, but not sure of it any more. */
static void doubt(struct ips_pair *m, struct ips_pair_actions *out) {
  if (m->state != IPS_PAIR_ACTIVE) return;
  ips_pair_revoke(m, out);
  m->confirm_ns = ips_pair_max(m->now_ns, m->stamp_ns + 1);
  m->send_now = 1;
  announce_anew(m);
}

static void was_away(struct ips_pair *m) {
  m->pauses++;
  m->resumed_ns = m->now_ns;
  m->claim = 0;
}

/* Its lease is over. A peer that was not there before would have said so while it waited for this node, and
 * waits for hold_ns: there is none yet. What came in meanwhile is heard first; then the tick knows. */
static void lapse(struct ips_pair *m, uint64_t gap_ns, struct ips_pair_actions *out) {
  if (!m->alone || m->cfg.witness || gap_ns >= m->cfg.hold_ns / 2) {
    doubt(m, out);
    return;
  }
  ips_pair_revoke(m, out);
  m->lapsed = 1;
}

/* A clock that goes back makes every remembered time a lie, those the peer holds too: as after a start. */
static void clock_stepped(struct ips_pair *m, uint64_t now_ns, struct ips_pair_actions *out) {
  struct ips_pair old = *m;
  ips_pair_revoke(m, out);
  start(m, &old.cfg, old.boot + 1 ? old.boot + 1 : 1, now_ns);
  m->facts = old.facts;
  m->facts.workers_ns = m->link_ns = now_ns;
  m->highest = old.highest;
  m->knows = old.knows;
  m->durable = old.durable;
  m->floor = ips_pair_max(old.durable, old.persisting);
  m->maintenance = old.maintenance;
  m->pauses = old.pauses + 1;
  m->contests = old.contests;
  m->reason = IPS_PAIR_WHY_CLOCK_STEPPED;
  if (old.state == IPS_PAIR_INITIAL) return;
  struct ips_pair_action *a = ips_pair_emit(out, IPS_PAIR_STATE);
  a->from = old.state;
  a->to = IPS_PAIR_INITIAL;
  a->reason = IPS_PAIR_WHY_CLOCK_STEPPED;
}

static void arrive(struct ips_pair *m, uint64_t now_ns, struct ips_pair_actions *out) {
  out->n = out->zero = 0;
  if (now_ns < m->now_ns) {
    clock_stepped(m, now_ns, out);
    return;
  }
  uint64_t gap = now_ns - m->now_ns;
  m->now_ns = now_ns;
  bool late = gap > m->cfg.late_ns;
  if (late) was_away(m);
  else m->late_max_ns = ips_pair_max(m->late_max_ns, gap);
  bool over = now_ns >= m->sent_ns + m->cfg.lease_ns || (late && now_ns >= m->forward_until_ns);
  if (m->forward_until_ns && over) lapse(m, gap, out);
  else if (late && m->confirm_ns) doubt(m, out); /* it waits anew */
}

static void reserve(struct ips_pair *m, struct ips_pair_actions *out) {
  uint64_t want = ips_pair_used(m) + 1;
  if (!m->knows || m->durable >= want || want > IPS_PAIR_BOUND) return;
  if (m->persisting >= want && m->now_ns - m->persist_at_ns < m->cfg.dead_ns) return;
  m->persisting = want;
  m->persist_at_ns = m->now_ns;
  emit_value(out, IPS_PAIR_PERSIST, want);
}

static void announce(struct ips_pair *m, struct ips_pair_actions *out) {
  if (!ips_pair_forwards(m) || m->now_ns < m->announce_ns) return;
  emit_value(out, IPS_PAIR_ANNOUNCE, m->announced);
  m->announce_ns = m->now_ns + announce_after[m->announced];
  if (m->announced < sizeof announce_after / sizeof *announce_after - 1) m->announced++;
}

static void settle(struct ips_pair *m, struct ips_pair_actions *out) {
  ips_pair_decide(m, out);
  reserve(m, out);
  ips_pair_witness_turn(m, out);
  ips_pair_speak(m, out);
  ips_pair_extend(m, out);
  announce(m, out);
}

void ips_pair_tick(struct ips_pair *m, uint64_t now_ns, struct ips_pair_actions *out) {
  arrive(m, now_ns, out);
  if (m->lapsed && m->alone) announce_anew(m);
  else if (m->lapsed) doubt(m, out);
  m->lapsed = 0;
  if (ips_pair_silent(m)) m->alone = 1;
  settle(m, out);
}

void ips_pair_set_facts(struct ips_pair *m, const struct ips_pair_facts *facts, uint64_t now_ns,
                        struct ips_pair_actions *out) {
  arrive(m, now_ns, out);
  if (facts->link_up && !m->facts.link_up) m->link_ns = now_ns;
  m->facts = *facts;
  settle(m, out);
}

void ips_pair_persisted(struct ips_pair *m, uint64_t counter, bool ok, uint64_t now_ns,
                        struct ips_pair_actions *out) {
  arrive(m, now_ns, out);
  if (ok && counter <= m->persisting) m->durable = ips_pair_max(m->durable, counter);
  settle(m, out);
}

void ips_pair_witness(struct ips_pair *m, int answer, uint64_t counter, struct ips_pair_epoch highest,
                      uint64_t asked_ns, uint64_t now_ns, struct ips_pair_actions *out) {
  arrive(m, now_ns, out);
  ips_pair_note_witness(m, answer, counter, highest, asked_ns);
  settle(m, out);
}

/* ---- messages ------------------------------------------------------------------------------------ */

/* What was said to an earlier run of this node tells of the peer, but its echo and its vote are not ours. */
static bool is_to_me(const struct ips_pair *m, const struct ips_pair_msg *msg) {
  return msg->to_boot == m->boot;
}

static int refuse(const struct ips_pair *m, const struct ips_pair_msg *msg) {
  if (msg->node != m->cfg.peer) return IPS_PAIR_BAD_NODE;
  if (msg->epoch.counter && msg->epoch.node != m->cfg.node && msg->epoch.node != m->cfg.peer)
    return IPS_PAIR_BAD_NODE;
  if (msg->boot == m->peer.old_boot) return IPS_PAIR_BAD_OLD_BOOT;
  if (is_to_me(m, msg) && msg->echo_ns > m->stamp_ns) return IPS_PAIR_BAD_ECHO;
  return IPS_PAIR_BAD_TAKEN;
}

/* The least (own clock - peer's clock) only falls by what the own clock did not count. Delay makes it
 * rise. */
static void compare_clocks(struct ips_pair *m, const struct ips_pair_msg *msg, struct ips_pair_actions *out) {
  struct ips_pair_peer *p = &m->peer;
  int64_t offset = (int64_t)(m->now_ns - msg->sent_ns);
  uint64_t drift = ips_pair_slow(&m->cfg, m->now_ns - p->heard_ns) - (m->now_ns - p->heard_ns);
  bool first = !p->heard_ns;
  if (!first && offset < p->offset_ns - (int64_t)(m->cfg.late_ns + drift)) {
    was_away(m);
    doubt(m, out);
  }
  p->offset_ns += (int64_t)drift;
  if (first || offset < p->offset_ns) p->offset_ns = offset;
}

static void note_vote(struct ips_pair *m, const struct ips_pair_msg *msg) {
  if (!(msg->flags & IPS_PAIR_VOTE) || !msg->echo_ns || !is_to_me(m, msg)) return;
  uint64_t until = msg->echo_ns + m->cfg.lease_ns, counter = msg->claim;
  if (msg->kind == IPS_PAIR_RESIGN) {
    bool newest = msg->epoch.node == m->cfg.peer && counter == m->highest.counter &&
        m->highest.node == m->cfg.peer;
    if (!newest || m->state != IPS_PAIR_STANDBY || !ips_pair_claimable(m)) return;
    if (m->promise <= counter) m->promise_until_ns = 0; /* it was for that reign, which has ended */
    counter = m->claim = m->durable;
    m->claim_ns = m->now_ns;
  }
  if (counter != m->reign && counter != m->claim) return;
  m->vote_until_ns = counter == m->vote ? ips_pair_max(m->vote_until_ns, until) : until;
  m->vote = counter;
}

static void note_peer(struct ips_pair *m, const struct ips_pair_msg *msg) {
  struct ips_pair_peer *p = &m->peer;
  p->heard_ns = m->now_ns;
  p->sent_ns = msg->sent_ns;
  p->kind = msg->kind;
  p->state = msg->state;
  p->flags = is_to_me(m, msg) ? msg->flags : msg->flags & (uint8_t)~IPS_PAIR_WANT;
  p->priority = msg->priority;
  p->epoch = msg->epoch;
  p->claim = msg->flags & IPS_PAIR_CLAIM ? msg->claim : 0;
  if (is_to_me(m, msg)) {
    p->echo_ns = ips_pair_max(p->echo_ns, msg->echo_ns);
    m->knows = 1;
    m->forced = 0;
  }
  bool contested = msg->state == IPS_PAIR_ACTIVE;
  if (m->state == IPS_PAIR_ACTIVE && contested != m->contested) { /* a contest begins or ends */
    m->contested = contested;
    m->contests += contested;
    m->send_now = 1;
    announce_anew(m);
  }
}

/* A late message of an earlier run must not displace the present one: another run counts when it has
 * answered. */
static int meet(struct ips_pair *m, const struct ips_pair_msg *msg) {
  if (msg->boot == m->peer.boot) {
    m->other_boot = 0;
    return IPS_PAIR_BAD_TAKEN;
  }
  bool known = m->other_boot == msg->boot;
  bool proven = known && m->greeted_ns && is_to_me(m, msg) && msg->echo_ns >= m->greeted_ns;
  if (m->peer.boot && !proven) {
    if (!known) m->other_sent_ns = m->greeted_ns = 0;
    m->other_boot = msg->boot;
    m->other_sent_ns = ips_pair_max(m->other_sent_ns, msg->sent_ns);
    m->greet_now = 1;
    return IPS_PAIR_BAD_NEW_BOOT;
  }
  m->peer = (struct ips_pair_peer){.boot = msg->boot, .old_boot = m->peer.boot};
  m->vote = m->vote_until_ns = m->other_boot = 0;
  return IPS_PAIR_BAD_TAKEN;
}

int ips_pair_message(struct ips_pair *m, const struct ips_pair_msg *msg, uint64_t now_ns,
                     struct ips_pair_actions *out) {
  arrive(m, now_ns, out);
  int refused = refuse(m, msg);
  if (!refused) m->alone = 0;
  if (!refused && ips_pair_higher(&msg->epoch, &m->highest)) m->highest = msg->epoch;
  if (!refused) refused = meet(m, msg);
  if (!refused && msg->sent_ns <= m->peer.sent_ns) refused = IPS_PAIR_BAD_STALE;
  if (!refused) {
    compare_clocks(m, msg, out);
    note_peer(m, msg);
    note_vote(m, msg);
    m->answer_now = msg->kind == IPS_PAIR_QUERY;
  }
  settle(m, out);
  return refused;
}

/* ---- the operator ---------------------------------------------------------------------------------- */

const char *ips_pair_unready(const struct ips_pair *m) {
  if (m->state == IPS_PAIR_ACTIVE) {
    if (ips_pair_silent(m)) return "the peer is not heard";
    bool knows_reign = m->peer.epoch.counter == m->reign;
    if (!knows_reign || !(m->peer.flags & IPS_PAIR_ELIGIBLE)) return "the peer is not ready to be active";
    return m->peer.flags & IPS_PAIR_MIRROR ? NULL : "the peer's mirror is not up to date";
  }
  if (m->state != IPS_PAIR_STANDBY) return "this node is neither active nor standby";
  if (ips_pair_silent(m) || m->peer.state != IPS_PAIR_ACTIVE) return "the peer is not active";
  return m->facts.mirror_ready ? NULL : "this node's mirror is not up to date";
}

static const char *switchover(struct ips_pair *m) {
  const char *why = ips_pair_unready(m);
  if (why) return why;
  if (m->state == IPS_PAIR_ACTIVE) {
    m->peer.flags |= IPS_PAIR_WANT;
  } else {
    m->want_until_ns = m->now_ns + m->cfg.hold_ns;
    m->send_now = 1;
  }
  return NULL;
}

static const char *force(struct ips_pair *m) {
  if (m->state != IPS_PAIR_INITIAL && m->state != IPS_PAIR_STANDBY)
    return "only a starting or standby node can be forced";
  if (m->peer.state == IPS_PAIR_ACTIVE && !ips_pair_silent(m))
    return "the peer is active: switch over instead";
  m->forced = m->knows = 1;
  return NULL;
}

const char *ips_pair_order(struct ips_pair *m, int command, uint64_t now_ns, struct ips_pair_actions *out) {
  arrive(m, now_ns, out);
  const char *why = NULL;
  if (command == IPS_PAIR_SWITCHOVER) why = switchover(m);
  else if (command == IPS_PAIR_FORCE) why = force(m);
  else if (command == IPS_PAIR_MAINTENANCE || command == IPS_PAIR_SERVICE)
    m->maintenance = command == IPS_PAIR_MAINTENANCE;
  else why = "unknown command";
  settle(m, out);
  return why;
}

/* ---- the workers ------------------------------------------------------------------------------------- */

int ips_pair_gate_at(uint64_t lease, uint64_t now_ns) { return ips_pair_gate(&lease, now_ns); }

uint64_t ips_pair_slowest(struct ips_pair_workers *w, const uint64_t *progress, uint32_t n, uint64_t now_ns) {
  uint64_t slowest = now_ns;
  for (uint32_t i = 0; i < n && i < IPS_PAIR_WORKERS; i++) {
    if (progress[i] != w->seen[i] || !w->at_ns[i]) w->at_ns[i] = now_ns;
    w->seen[i] = progress[i];
    slowest = ips_pair_min(slowest, w->at_ns[i]);
  }
  return slowest;
}
