/* ips_remap_packet.c: a packet to a remapped address: looked up, decided about, followed, sent where it goes.
 *
 * Flows of this node are in its session table, the giver's in a table of their own for each remap (decision
 * 0044), with the same seed, so that a flow's place is computed once. What is delivered here the caller
 * delivers as ever; what goes to the other node leaves from here, TTL and length judged first.
 */
#include "ips_frag.h"
#include "ips_parse.h"
#include "ips_remap.h"
#include "ips_rewrite.h"
#include "ips_tcp.h"

/* A packet with its flow's place, and what this node knows of that. */
struct looked {
  struct ips_remap_packet packet;
  struct ips_place place;
  struct ips_found own;
  bool has_own;
};

/* Whether flows are opened elsewhere now, as ips_remap_decide sees it. */
static bool leaves(const struct ips_arrival *a) {
  bool left = false;
  for (uint8_t i = 0; i < a->n; i++) {
    uint8_t role = a->at[i]->r.role;
    if (role != IPS_REMAP_PREPARING && (role != IPS_REMAP_READY || a->from == IPS_FROM_ASK))
      left = role == IPS_REMAP_LEAVING;
  }
  return left;
}

/* What is half closed lives, but for a SYN, which opens it anew (ips_session_tcp.c) where flows are opened. */
static uint8_t known_as(const struct ips_found *f, const struct ips_remap_packet *p, bool left) {
  unsigned closed = p->opens && !left ? IPS_STATE_CLIENT_CLOSED : IPS_STATE_CLOSED;
  return p->flow.proto == IPS_PROTO_TCP && ips_word_state(f->word) >= closed ? IPS_FLOW_CLOSED : IPS_FLOW_OPEN;
}

static void look(struct ips_worker *w, const struct ips_arrival *a, struct looked *l, struct ips_remap_case *c) {
  bool has_flow = l->packet.has_flow, left = leaves(a);
  if (has_flow) {
    l->place = ips_place_of(w->sessions, &l->packet.flow);
    l->has_own = ips_session_find(w->sessions, &l->place, &l->own);
  }
  *c = (struct ips_remap_case){.from = a->from, .asker = a->asker, .opens = l->packet.opens, .n = a->n,
                               .own = l->has_own ? known_as(&l->own, &l->packet, left) : IPS_FLOW_UNKNOWN};
  if (a->way) { /* of whose flows nothing is known here: what is over here may have been opened anew there */
    c->n = 1, c->at[0].role = IPS_REMAP_TAKING;
    if (c->own == IPS_FLOW_CLOSED) c->own = IPS_FLOW_UNKNOWN;
  }
  bool needs_peers = c->own != IPS_FLOW_OPEN && has_flow;
  for (uint8_t i = 0; i < a->n; i++) {
    const struct ips_remap *m = a->at[i];
    struct ips_found f;
    c->at[i] = (struct ips_remap_relation){.role = m->r.role, .flags = (uint8_t)m->r.flags, .peer = m->r.peer};
    if (needs_peers && m->state.followed && ips_session_find(m->state.followed, &l->place, &f))
      c->at[i].known = known_as(&f, &l->packet, left);
  }
}

/* ---- delivered here ---- */

static bool gives_any(const struct ips_arrival *a) {
  for (uint8_t i = 0; i < a->n; i++)
    if (ips_remap_gives(a->at[i])) return true;
  return false;
}

/* The flow is this node's from now on. An error opens, keeps and ends nothing. */
static int follow(struct ips_worker *w, const struct ips_pkt *p, const struct ips_arrival *a, const struct looked *l) {
  if (w->asks || !l->packet.has_flow || l->packet.is_error) return IPS_OK;
  uint32_t see = IPS_SEE_MIDSTREAM | (a->binding_flags & IPS_BINDING_TRACK_BOTH ? 0 : IPS_SEE_ONE_SIDED) |
                 (gives_any(a) ? IPS_SEE_AT_ONCE : 0);
  return ips_session_see_at(w->sessions, w->index, &l->place, l->has_own ? &l->own : NULL, see, l->packet.tcp_flags,
                            p->total_len, NULL, w->now_ns);
}

/* Of a policy's address. UDP opens each time it is unknown: it needs no memory. */
static int deliver_named(struct ips_worker *w, const struct ips_pkt *p, struct ips_arrival *a, const struct looked *l,
                         bool opened) {
  int verdict = follow(w, p, a, l);
  bool is_lost = opened && l->packet.flow.proto == IPS_PROTO_TCP && verdict != IPS_OK && verdict != IPS_NO_SESSION;
  if (is_lost) return verdict;
  a->verdict = opened ? IPS_OPENED_HERE : a->from == IPS_FROM_FINAL ? IPS_FINAL_HERE : IPS_OK;
  return IPS_REMAP_DELIVER;
}

/* What would be opened and cannot be remembered is dropped where flows are taken: its next packet would go to
 * the node that gives. */
static int deliver(struct ips_worker *w, const struct ips_pkt *p, struct ips_arrival *a, const struct looked *l,
                   bool opened) {
  if (a->way) return deliver_named(w, p, a, l, opened);
  const struct ips_remap *last = a->at[a->n - 1];
  int verdict = follow(w, p, a, l);
  if (opened && verdict != IPS_OK && verdict != IPS_NO_SESSION) {
    bool goes_on = last->r.role == IPS_REMAP_PREPARING;
    ips_remap_count(w, last, goes_on ? IPS_RM_UNTRACKED : IPS_RM_DROP_NO_ROOM);
    if (!goes_on) return verdict;
  } else if (opened) {
    ips_remap_count(w, last, a->from == IPS_FROM_ASK ? IPS_RM_OPENED_ASKED : IPS_RM_OPENED);
  } else {
    ips_remap_count(w, last, a->from == IPS_FROM_ASK ? IPS_RM_ASKED_HERE
                             : a->from == IPS_FROM_FINAL ? IPS_RM_FINAL_IN : IPS_RM_HERE);
  }
  a->verdict = opened ? IPS_OPENED_HERE : a->from == IPS_FROM_FINAL ? IPS_FINAL_HERE : IPS_OK;
  return IPS_REMAP_DELIVER;
}

/* ---- sent to the other node ---- */

static int send_marked(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_remap *m,
                       unsigned mark) {
  uint8_t to[16];
  if (m->rewrites) {
    ips_u128 host = ips_ld_address(v->family, ips_field_at(p->data, v->family, IPS_DST)) & ~m->mask;
    ips_st_address(to, ips_ld_address(v->family, m->end[mark].local) | host);
  }
  return ips_send_to(w, p, v, &m->end[mark], IPS_DST, m->rewrites ? to : NULL);
}

static int sent(struct ips_worker *w, const struct ips_remap *m, int verdict, enum ips_remap_counter as, int verdict_as) {
  if (verdict == IPS_OK || verdict == IPS_ENCAPSULATED || verdict == IPS_SPLIT) {
    ips_remap_count(w, m, as);
    return verdict == IPS_SPLIT ? verdict : verdict_as;
  }
  ips_remap_count(w, m, verdict == IPS_TTL_EXPIRED ? IPS_RM_DROP_TTL : verdict == IPS_TOO_BIG ? IPS_RM_DROP_TOO_LONG
                                                                                                : IPS_RM_DROP_OTHER);
  return verdict;
}

static int go_way(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_arrival *a) {
  int verdict = ips_send_to(w, p, v, a->way, IPS_DST, NULL);
  return verdict == IPS_ENCAPSULATED ? IPS_FOLLOWED : verdict;
}

/* Where a flow is decided about: once for a packet, again for fragments of it that came before. */
static int go(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, struct ips_arrival *a,
              struct looked *l) {
  struct ips_remap_case c;
  look(w, a, l, &c);
  struct ips_remap_way_out out = ips_remap_decide(&c);
  if (a->way) return out.what == IPS_GO_FINAL ? go_way(w, p, v, a) : deliver(w, p, a, l, out.what == IPS_GO_OPEN);
  const struct ips_remap *m = a->at[out.to];
  bool is_known = c.at[out.to].known != IPS_FLOW_UNKNOWN;
  switch (out.what) {
    case IPS_GO_FINAL:
      return sent(w, m, send_marked(w, p, v, m, IPS_REMAP_FINAL), is_known ? IPS_RM_FOLLOWED : IPS_RM_FOLLOWED_UNKNOWN,
                  IPS_FOLLOWED);
    case IPS_GO_ASK: return sent(w, m, send_marked(w, p, v, m, IPS_REMAP_ASK), IPS_RM_ASKED, IPS_ASKED);
    case IPS_GO_NOWHERE:
      ips_remap_count(w, a->at[a->n - 1], IPS_RM_DROP_NOBODY_OPENS);
      return IPS_NOBODY_OPENS;
    default: return deliver(w, p, a, l, out.what == IPS_GO_OPEN);
  }
}

/* ---- fragments that came before their first one ---- */

struct early { struct ips_worker *w; const struct ips_arrival *a; const struct ips_remap_packet *first; };

static void send_early(void *arg, struct ips_pkt *p) {
  struct early *e = arg;
  struct ips_arrival a = *e->a;
  struct looked l = {.packet = *e->first};
  struct ips_view v;
  l.packet.tcp_flags = 0;
  l.packet.opens = l.packet.flow.proto != IPS_PROTO_TCP;
  if (ips_parse(p, &v) != IPS_OK) return;
  int verdict = go(e->w, p, &v, &a, &l);
  if (verdict == IPS_REMAP_DELIVER || ips_dispositions[verdict] == IPS_SEND) e->w->emit(e->w->arg, p, IPS_EMIT_PACKET);
}

enum { QUIC_PORT = 443 };

/* Of a policy's address: by its well-known port (RFC 9114 3.1), whole packets and first fragments. */
static bool any_quic(const struct ips_arrival *a, const struct ips_pkt *p, const struct ips_view *v) {
  if (a->way && v->proto == IPS_PROTO_UDP && !v->fragment_at) return ips_be16(ips_ld16(p->data + v->l4 + 2)) == QUIC_PORT;
  for (uint8_t i = 0; i < a->n; i++)
    if (a->at[i]->r.flags & IPS_REMAP_QUIC) return true;
  return false;
}

int ips_remap_arrive(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, struct ips_arrival *a) {
  struct looked l = {.has_own = false};
  a->verdict = IPS_OK;
  if (a->from == IPS_FROM_FINAL && v->fragment_at) return deliver(w, p, a, &l, false);
  int verdict = ips_remap_flow_of(w, ips_remap_frags(w), p, v, any_quic(a, p, v), &l.packet);
  if (verdict != IPS_OK) return verdict;
  if (ips_likely(!v->is_fragment) || v->fragment_at || w->asks) return go(w, p, v, a, &l);
  struct ips_frag_flow ports = {.src_port = l.packet.flow.src_port, .dst_port = l.packet.flow.dst_port};
  if (v->proto == (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6)) ports.dst_port = ports.src_port;
  struct ips_view before = *v;
  struct ips_pkt first = *p; /* as it came: its key for those that follow */
  struct early early = {w, a, &l.packet};
  struct ips_frag_flow learned = ports;
  verdict = ips_frag_learn(ips_remap_frags(w), &first, &before, w->now_ns, &learned, send_early, &early);
  return verdict == IPS_BAD_FRAGMENT ? verdict : go(w, p, v, a, &l);
}

/* ---- replies ---- */

static const struct ips_remap *channel_back(const struct ips_arrival *a) {
  for (uint8_t i = a->n; i-- > 0;)
    if (a->at[i]->r.role == IPS_REMAP_LEAVING && a->at[i]->r.flags & IPS_REMAP_REPLIES) return a->at[i];
  return NULL;
}

bool ips_remap_reply(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, int *verdict) {
  struct ips_arrival a = {.n = 0};
  struct looked l = {.has_own = false};
  if (!ips_remap_cover(w->remaps, v->family, ips_field_at(p->data, v->family, IPS_SRC), &a)) return false;
  l.packet.has_flow = ips_session_flow_of(p, v, 0, true, &l.packet.flow, &l.packet.tcp_flags);
  if (l.packet.has_flow) {
    l.place = ips_place_of(w->sessions, &l.packet.flow);
    l.has_own = ips_session_find(w->sessions, &l.place, &l.own);
    uint32_t see = IPS_SEE_OTHER_SIDE | IPS_SEE_EITHER | (gives_any(&a) ? IPS_SEE_AT_ONCE : 0);
    if (!w->asks)
      ips_session_see_at(w->sessions, w->index, &l.place, l.has_own ? &l.own : NULL, see, l.packet.tcp_flags,
                         p->total_len, NULL, w->now_ns);
  }
  const struct ips_remap *back = channel_back(&a);
  if (!back) return false;
  *verdict = sent(w, back, ips_send_to(w, p, v, &back->end[IPS_REMAP_ASK], IPS_SRC, NULL), IPS_RM_REPLY_OUT,
                  IPS_REPLY_BACK);
  return true;
}
