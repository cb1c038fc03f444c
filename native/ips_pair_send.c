/* ips_pair_send.c: what a node says, and when.
 *
 * One message per call, on every path (two where a new run of the peer is greeted): who is not due but was
 * asked answers. All kinds bear the same facts; a kind only says whether an answer is wanted (QUERY) or that
 * a reign has ended (RESIGN). An active node whose worker stands still says nothing: its peer shall hear the
 * silence.
 */
#include "ips_pair.h"

bool ips_pair_resigning(const struct ips_pair *m) {
  return m->state != IPS_PAIR_ACTIVE && m->now_ns < m->resign_until_ns && m->highest.node == m->cfg.node;
}

static bool wants_the_role(const struct ips_pair *m) {
  const struct ips_pair_peer *p = &m->peer;
  if (m->state != IPS_PAIR_STANDBY || p->state != IPS_PAIR_ACTIVE || !ips_pair_claimable(m)) return false;
  if (m->now_ns < m->want_until_ns) return true;
  bool rested = m->now_ns - m->entered_ns >= m->cfg.preempt_hold_ns;
  return m->cfg.preempt && !m->yielded && rested && m->facts.mirror_ready && m->cfg.priority > p->priority;
}

static int kind_due(const struct ips_pair *m) {
  if (ips_pair_resigning(m)) return IPS_PAIR_RESIGN;
  bool asks = m->confirm_ns || m->claim || m->state == IPS_PAIR_INITIAL;
  bool queries = m->cfg.mode == IPS_PAIR_QUERIES && m->state != IPS_PAIR_ACTIVE;
  return asks || queries ? IPS_PAIR_QUERY : IPS_PAIR_HEARTBEAT;
}

static void compose(struct ips_pair *m, int kind, struct ips_pair_msg *msg) {
  m->stamp_ns = ips_pair_max(m->now_ns, m->stamp_ns + 1);
  *msg = (struct ips_pair_msg){
    .kind = (uint8_t)kind, .state = m->state, .priority = m->cfg.priority, .node = m->cfg.node,
    .boot = m->boot, .to_boot = m->peer.boot, .sent_ns = m->stamp_ns, .echo_ns = m->peer.sent_ns,
    .claim = ips_pair_vote(m), .epoch = m->highest,
  };
  unsigned flags = msg->claim ? IPS_PAIR_VOTE : 0;
  if (ips_pair_forwards(m)) flags |= IPS_PAIR_FORWARDS;
  if (m->facts.mirror_ready) flags |= IPS_PAIR_MIRROR;
  if (!m->facts.criteria_ok) flags |= IPS_PAIR_CUT_OFF;
  if (m->state == IPS_PAIR_STANDBY && ips_pair_claimable(m)) flags |= IPS_PAIR_ELIGIBLE;
  if (wants_the_role(m)) flags |= IPS_PAIR_WANT;
  if (m->claim && !msg->claim) {
    flags |= IPS_PAIR_CLAIM;
    msg->claim = m->claim;
  }
  msg->flags = (uint8_t)flags;
}

/* To a run of the peer that is not known yet: no vote, and no word on which a lease could rest. */
static void greet(struct ips_pair *m, struct ips_pair_msg *msg) {
  m->stamp_ns = ips_pair_max(m->now_ns, m->stamp_ns + 1);
  if (!m->greeted_ns) m->greeted_ns = m->stamp_ns;
  *msg = (struct ips_pair_msg){
    .kind = IPS_PAIR_QUERY, .state = m->state, .priority = m->cfg.priority, .node = m->cfg.node,
        .boot = m->boot,
    .to_boot = m->other_boot, .sent_ns = m->stamp_ns, .echo_ns = m->other_sent_ns, .epoch = m->highest,
  };
}

void ips_pair_speak(struct ips_pair *m, struct ips_pair_actions *out) {
  bool due = m->send_now || m->now_ns >= m->next_send_ns, active = m->state == IPS_PAIR_ACTIVE;
  bool speaks = (due || m->answer_now) && !(active && ips_pair_stalled(m));
  m->send_now = 0;
  if (m->greet_now && !(active && ips_pair_stalled(m))) greet(m, &ips_pair_emit(out, IPS_PAIR_SEND)->msg);
  m->greet_now = 0;
  if (speaks) {
    compose(m, due ? kind_due(m) : IPS_PAIR_ANSWER, &ips_pair_emit(out, IPS_PAIR_SEND)->msg);
    if (active) m->sent_ns = m->now_ns;
    bool answers_count = active && m->cfg.mode == IPS_PAIR_QUERIES;
    if (due || answers_count) {
      uint64_t latest = m->now_ns + m->cfg.interval_ns, next = m->next_send_ns + m->cfg.interval_ns;
      m->next_send_ns = next > m->now_ns && !answers_count ? ips_pair_min(next, latest) : latest;
    }
  }
  m->answer_now = 0;
}
