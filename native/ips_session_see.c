/* ips_session_see.c: packets and their sessions: a flow is opened half-open, proves itself, changes state.
 *
 * The usual packet only looks (no lock), counts, and notes the time where it is another tick. What
 * changes a state, promotes, or opens takes the chain's lock and looks again, since others may have been
 * first.
 */
#include "ips_natlog.h"
#include "ips_parse.h"
#include "ips_session_table.h"
#include "ips_tcp.h"


static int refused(uint64_t *counter, int verdict) {
  ips_add(*counter, 1);
  return verdict;
}

/* The same of a flow that cannot be opened because `limit` is reached. */
static int no_room(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                   const struct ips_opening *o, int verdict, uint64_t now_ns) {
  struct ips_flow f = ips_flow_of(p->flow);
  uint64_t *counter = verdict == IPS_SOURCE_LIMIT     ? &t->stats.source_limit
                      : verdict == IPS_HALF_OPEN_FULL ? &t->stats.half_open_full
                                                      : &t->stats.full;
  uint32_t limit = verdict == IPS_SOURCE_LIMIT     ? t->sources.limit
                   : verdict == IPS_HALF_OPEN_FULL ? t->half_capacity
                                                   : t->capacity;
  unsigned quota = verdict == IPS_SOURCE_LIMIT ? IPS_NATLOG_QUOTA_SOURCE : IPS_NATLOG_QUOTA_SESSIONS;
  if (o->kind == IPS_SESSION_NAPT) ips_log_limit(t, worker, quota, &f, limit, now_ns);
  return refused(counter, verdict);
}

/* What a node of NAPT began as; the log's part of ips_session_open. */
static void log_opening(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                        const struct ips_opening *o, uint64_t now_ns) {
  if (o->kind != IPS_SESSION_NAPT || !ips_log_of(t, IPS_NATLOG_SESSIONS)) return;
  struct ips_session_rec r = {.flow = ips_flow_of(p->flow), .mapped_port = o->port, .kind = o->kind,
                              .flags = o->flags};
  ips_address_copy(&t->addresses, o->number, r.mapped);
  ips_log_session(t, worker, IPS_NATLOG_SESSION_CREATE, &r, now_ns);
}

int ips_session_open(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                     const struct ips_opening *o, uint32_t bytes, uint64_t now_ns) {
  struct ips_flow f = ips_flow_of(p->flow);
  if (ips_peek(t->used) >= t->capacity) return no_room(t, worker, p, o, IPS_SESSIONS_FULL, now_ns);
  if (!ips_source_take(&t->sources, &f, o->flags)) return no_room(t, worker, p, o, IPS_SOURCE_LIMIT, now_ns);
  if (!ips_budget_take(&t->half, t->half_capacity)) {
    ips_source_give(&t->sources, &f, o->flags);
    return no_room(t, worker, p, o, IPS_HALF_OPEN_FULL, now_ns);
  }
  uint32_t node = ips_stacks_pop(&t->free, worker); /* there is one: both budgets together are the nodes */
  while (node == IPS_NONE) node = ips_stacks_pop(&t->free, worker);
  struct ips_session_node *n = &t->nodes[node];
  ips_session_write(n, p, o->number, o->port, o->flags, ips_tick(t, now_ns));
  unsigned side = (o->flags & IPS_SESSION_FROM_OUTSIDE) != 0;
  ips_put(n->packets[side], 1);
  ips_put(n->bytes[side], bytes);
  ips_chain_lock(ips_chain_of(t, p));
  bool late = ips_session_locate(t, p) != IPS_NONE;
  if (!late) ips_session_link(t, p, node, o->state | (uint32_t)o->kind << 4 | IPS_WORD_HALF);
  ips_chain_unlock(ips_chain_of(t, p));
  if (!late) {
    ips_add(t->stats.opened, 1);
    log_opening(t, worker, p, o, now_ns);
    return IPS_OK;
  }
  ips_stacks_push(&t->free, worker, node);
  ips_source_give(&t->sources, &f, o->flags);
  ips_add(t->half, -1);
  return IPS_OPENED_BY_ANOTHER;
}

static bool from_opener(unsigned side, unsigned flags) {
  return (side == 0) != ((flags & IPS_SESSION_FROM_OUTSIDE) != 0);
}

/* As if it were new; the chain is locked. */
static void begin_anew(struct ips_session_node *n, unsigned side, uint32_t bytes, uint32_t tick) {
  uint16_t flags = ips_peek(n->flags);
  if (ips_word_kind(ips_peek(n->word)) == IPS_SESSION_NAPT)
    flags = (uint16_t)(side ? flags | IPS_SESSION_FROM_OUTSIDE : flags & ~IPS_SESSION_FROM_OUTSIDE);
  for (unsigned i = 0; i < 2; i++) {
    ips_put(n->packets[i], i == side);
    ips_put(n->bytes[i], i == side ? bytes : 0);
  }
  ips_put(n->flags, flags);
  ips_put(n->opened, tick);
}

/* The packet changes more than counters and time. */
static int change(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                  const struct ips_packet_seen *s, uint64_t now_ns) {
  uint32_t tick = ips_tick(t, now_ns);
  struct ips_chain *c = ips_chain_of(t, p);
  struct ips_flow f = ips_flow_of(p->flow);
  struct ips_session_rec r, before = {.kind = IPS_SESSION_TRACK};
  ips_chain_lock(c);
  uint32_t i = ips_session_locate(t, p);
  if (i == IPS_NONE) {
    ips_chain_unlock(c);
    return IPS_NO_SESSION;
  }
  struct ips_session_node *n = &t->nodes[i];
  uint32_t word = ips_peek(n->word), flags = ips_peek(n->flags);
  struct ips_step step = ips_session_step(f.proto, ips_word_state(word), flags & IPS_SESSION_ONE_SIDED,
                                          from_opener(s->side, flags), s->tcp_flags);
  bool half = word & IPS_WORD_HALF, promoted = half && (step.promote || s->at_once);
  if (promoted && !ips_budget_take(&t->used, t->capacity)) {
    ips_chain_unlock(c);
    return refused(&t->stats.full, IPS_SESSIONS_FULL);
  }
  bool anew = step.reopen && !half;
  if (anew) {
    ips_session_record(t, n, tick, &before);
    begin_anew(n, s->side, s->bytes, tick);
  }
  ips_session_reckon(t, ips_peek(n->number), word, (word & ~15u) | step.state);
  word = (word & ~15u) | step.state;
  if (promoted) word &= ~IPS_WORD_HALF;
  ips_put(n->word, word);
  ips_put(n->last, tick);
  bool tell = !(word & IPS_WORD_HALF);
  if (tell) {
    ips_put(n->version, ips_session_version(t, p));
    ips_session_record(t, n, tick, &r);
    ips_session_tell(t, worker, IPS_SESSION_UPSERT | (promoted ? IPS_SESSION_BORN : 0), &r);
  }
  ips_chain_unlock(c);
  if (promoted) {
    ips_source_give(&t->sources, &f, flags);
    ips_add(t->half, -1);
    ips_add(t->stats.promoted, 1);
  }
  if (anew) {
    ips_log_session(t, worker, IPS_NATLOG_SESSION_DELETE, &before, now_ns);
    ips_log_session(t, worker, IPS_NATLOG_SESSION_CREATE, &r, now_ns);
  }
  return IPS_OK;
}

/* Reports that the session is alive. */
static void refresh(struct ips_sessions *t, uint32_t worker, const struct ips_place *p, uint32_t tick) {
  struct ips_session_rec r;
  ips_chain_lock(ips_chain_of(t, p));
  uint32_t i = ips_session_locate(t, p);
  bool tell = i != IPS_NONE && !(ips_peek(t->nodes[i].word) & IPS_WORD_HALF);
  if (tell) {
    ips_put(t->nodes[i].version, ips_session_version(t, p));
    ips_session_record(t, &t->nodes[i], tick, &r);
    ips_session_tell(t, worker, IPS_SESSION_UPSERT, &r);
  }
  ips_chain_unlock(ips_chain_of(t, p));
}

int ips_session_touch(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                      const struct ips_found *f, const struct ips_packet_seen *s, uint64_t now_ns) {
  struct ips_session_node *n = &t->nodes[f->node];
  uint32_t tick = ips_tick(t, now_ns), last = ips_peek(n->last);
  unsigned proto = p->flow[IPS_FLOW_WORDS - 1] >> 40 & 255, state = ips_word_state(f->word);
  struct ips_step step = ips_session_step(proto, state, f->flags & IPS_SESSION_ONE_SIDED,
                                          from_opener(s->side, f->flags), s->tcp_flags);
  ips_add(n->packets[s->side], 1);
  ips_add(n->bytes[s->side], s->bytes);
  if (ips_unlikely(step.state != state || step.reopen || ((step.promote || s->at_once) && (f->word & IPS_WORD_HALF))))
    return change(t, worker, p, s, now_ns);
  bool kept = s->side == 0 || proto != IPS_PROTO_UDP || ips_peek(t->udp_inbound_refreshes) ||
              ips_word_kind(f->word) != IPS_SESSION_NAPT; /* RFC 4787 REQ-6 */
  if (tick <= last || !kept) return IPS_OK;
  bool first = __atomic_compare_exchange_n(&n->last, &last, tick, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
  uint32_t period = ips_peek(t->ticks.refresh);
  uint32_t phase = f->node * 2654435761u % period; /* so that not all report at once */
  if (first && (tick + phase) / period != (last + phase) / period)
    refresh(t, worker, p, tick);
  return IPS_OK;
}

static bool may_open(uint8_t proto, uint32_t see, uint8_t tcp_flags) {
  if (see & IPS_SEE_ONLY || (see & (IPS_SEE_OTHER_SIDE | IPS_SEE_EITHER)) == IPS_SEE_OTHER_SIDE) return false;
  if (proto != IPS_PROTO_TCP) return true;
  if ((tcp_flags & (IPS_TCP_SYN | IPS_TCP_ACK | IPS_TCP_RST | IPS_TCP_FIN)) == IPS_TCP_SYN) return true;
  return see & IPS_SEE_MIDSTREAM && !(tcp_flags & (IPS_TCP_SYN | IPS_TCP_RST | IPS_TCP_FIN));
}

int ips_session_see_at(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                       const struct ips_found *found, uint32_t see, uint8_t tcp_flags, uint32_t bytes,
                       const uint8_t *mapped, uint64_t now_ns) {
  struct ips_flow flow = ips_flow_of(p->flow);
  struct ips_packet_seen s = {.side = (see & IPS_SEE_OTHER_SIDE) != 0, .tcp_flags = tcp_flags, .bytes = bytes,
                              .at_once = (see & IPS_SEE_AT_ONCE) != 0};
  struct ips_found f;
  if (found) return ips_session_touch(t, worker, p, found, &s, now_ns);
  if (!may_open(flow.proto, see, tcp_flags)) return IPS_NO_SESSION;
  struct ips_opening o = {.kind = mapped ? IPS_SESSION_DISPATCH : IPS_SESSION_TRACK,
                          .state = IPS_STATE_OPENING,
                          .flags = (see & IPS_SEE_ONE_SIDED ? IPS_SESSION_ONE_SIDED : 0) |
                                   (s.side ? IPS_SESSION_FROM_OUTSIDE : 0),
                          .number = IPS_NONE};
  if (mapped && (o.number = ips_addresses_add(&t->addresses, flow.family, mapped)) == IPS_NONE)
    return refused(&t->stats.full, IPS_SESSIONS_FULL);
  int verdict = ips_session_open(t, worker, p, &o, bytes, now_ns);
  if (verdict == IPS_OK && s.at_once) return change(t, worker, p, &s, now_ns);
  if (verdict != IPS_OPENED_BY_ANOTHER) return verdict;
  return ips_session_find(t, p, &f) ? ips_session_touch(t, worker, p, &f, &s, now_ns) : IPS_NO_SESSION;
}

int ips_session_see(struct ips_sessions *t, uint32_t worker, const struct ips_flow *flow, uint32_t see,
                    uint8_t tcp_flags, uint32_t bytes, const uint8_t *mapped, uint64_t now_ns) {
  struct ips_place p = ips_place_of(t, flow);
  struct ips_found f;
  bool is_known = ips_session_find(t, &p, &f);
  return ips_session_see_at(t, worker, &p, is_known ? &f : NULL, see, tcp_flags, bytes, mapped, now_ns);
}
