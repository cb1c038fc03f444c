/* ips_napt_flow.c: which session a packet belongs to, and what its ends become.
 *
 * From inside: the flow is the key; a new one takes a mapping, which gives it its public end. From outside:
 * the public end finds the mapping, mapping and sender make the flow. A session begun from outside
 * (endpoint-independent filtering) is kept under the same key, so that there is never a second one of it.
 */
#include "ips_napt.h"
#include "ips_natlog.h"
#include "ips_tcp.h"

enum { TRIES = 4 };

static struct ips_flow flow_out(const struct ips_ends *e, uint16_t realm) {
  struct ips_flow f = {.src_port = e->src_port, .dst_port = ips_port_class(e->proto) == 2 ? 0 : e->dst_port,
                       .family = e->family, .proto = e->proto, .realm = realm};
  memcpy(f.src, e->src, 16);
  memcpy(f.dst, e->dst, 16);
  return f;
}

static bool may_open(const struct ips_ends *e, const struct ips_carried *c) {
  if (e->proto == IPS_PROTO_TCP &&
      (c->tcp_flags & (IPS_TCP_FIN | IPS_TCP_SYN | IPS_TCP_RST | IPS_TCP_ACK)) != IPS_TCP_SYN)
    return false;
  return c->opens;
}

static void public_source(const struct ips_napt *n, uint32_t number, uint16_t port, const struct ips_ends *e,
                          struct ips_turn *turn) {
  turn->src = true;
  ips_address_copy(&n->sessions->addresses, number, turn->src_address);
  turn->src_port = ips_port_class(e->proto) < 0 ? e->src_port : port;
}

/* A new flow of the inside; its mapping has been taken where the verdict is OK. */
static int open_session(struct ips_napt *n, const struct ips_place *p, struct ips_outer_end end,
                        uint16_t flags, const struct ips_carried *c) {
  struct ips_opening o = {.kind = IPS_SESSION_NAPT,
                          .state = IPS_STATE_OPENING,
                          .flags = flags,
                          .port = end.port,
                          .number = end.number};
  return ips_session_open(n->sessions, c->worker, p, &o, c->bytes, c->now_ns);
}

/* The mapping of a session that could not be opened; whoever else uses it meanwhile keeps it. */
static void give_back(struct ips_sessions *t, const struct ips_flow *f, struct ips_outer_end end,
                      const struct ips_carried *c) {
  struct ips_inner inner = ips_inner_of(f);
  bool gone = ips_mapping_give(&t->mappings, c->worker, &inner);
  if (gone == end.is_new) return; /* nobody was told of it, or it lives on and its maker told of it */
  unsigned event = gone ? IPS_NATLOG_MAPPING_DELETE : IPS_NATLOG_MAPPING_CREATE;
  ips_log_mapping(t, c->worker, event, f, end, c->now_ns);
}

/* No mapping for a new flow. */
static int unmapped(struct ips_sessions *t, const struct ips_flow *f, int verdict,
                    const struct ips_carried *c) {
  bool ports = verdict == IPS_PORTS_EXHAUSTED;
  ips_add(*(ports ? &t->stats.ports_exhausted : &t->stats.full), 1);
  ips_log_limit(t, c->worker, ports ? 0 : IPS_NATLOG_QUOTA_MAPPINGS, f, ports ? 0 : t->mappings.capacity,
                c->now_ns);
  return verdict;
}

int ips_napt_decide_out(struct ips_napt *n, const struct ips_ends *e, const struct ips_napt_group *g,
                        const struct ips_carried *c, struct ips_turn *turn) {
  struct ips_sessions *t = n->sessions;
  struct ips_flow f = flow_out(e, g->realm);
  struct ips_place p = ips_place_of(t, &f);
  struct ips_packet_seen s = {.side = 0, .tcp_flags = c->tcp_flags, .bytes = c->bytes};
  struct ips_found found;
  struct ips_outer_end end;
  struct ips_pool_range own;
  uint32_t n_ranges;
  for (unsigned i = 0; i < TRIES; i++) { /* others open and end it meanwhile */
    if (ips_session_find(t, &p, &found)) {
      if (ips_word_kind(found.word) != IPS_SESSION_NAPT)
        return IPS_NO_SESSION; /* a peer's word: followed only */
      int verdict = c->asks ? IPS_OK : ips_session_touch(t, c->worker, &p, &found, &s, c->now_ns);
      if (verdict == IPS_OK) public_source(n, found.number, found.mapped_port, e, turn);
      if (verdict != IPS_NO_SESSION) return verdict;
      continue;
    }
    if (!may_open(e, c)) return IPS_NO_SESSION;
    if (c->asks) return IPS_NAPT_WOULD_OPEN;
    struct ips_inner inner = ips_inner_of(&f);
    const struct ips_pool_range *ranges = ips_napt_ranges(n, g, &f, &own, &n_ranges);
    int verdict = ips_mapping_take(&t->mappings, c->worker, &inner, ranges, n_ranges,
                                   ips_mix(n->seed ^ c->now_ns, p.hash), &end);
    if (verdict) return unmapped(t, &f, verdict, c);
    verdict = open_session(n, &p, end, 0, c);
    if (verdict == IPS_OK) public_source(n, end.number, end.port, e, turn);
    else give_back(t, &f, end, c);
    if (verdict == IPS_OK && end.is_new)
      ips_log_mapping(t, c->worker, IPS_NATLOG_MAPPING_CREATE, &f, end, c->now_ns);
    if (verdict != IPS_OPENED_BY_ANOTHER) return verdict;
  }
  return IPS_NO_SESSION;
}

bool ips_napt_flow_in(const struct ips_napt *n, const struct ips_ends *e, uint32_t number,
                      struct ips_flow *flow) {
  struct ips_inner inner;
  struct ips_outer_end end = {.number = number, .port = e->dst_port};
  int class = ips_port_class(e->proto);
  if (!ips_mapping_from_outside(&n->sessions->mappings, end, e->proto, &inner)) return false;
  *flow = (struct ips_flow){.src_port = class < 0 ? e->dst_port : (uint16_t)inner.rest,
                            .dst_port = class == 2 ? 0 : e->src_port, .family = e->family, .proto = e->proto,
                            .realm = (uint16_t)(inner.rest >> 16)};
  memcpy(flow->src, inner.address, 16);
  memcpy(flow->dst, e->src, 16);
  return true;
}

int ips_napt_decide_in(struct ips_napt *n, const struct ips_ends *e, uint32_t number,
                       const struct ips_carried *c, struct ips_turn *turn) {
  struct ips_sessions *t = n->sessions;
  struct ips_packet_seen s = {.side = 1, .tcp_flags = c->tcp_flags, .bytes = c->bytes};
  struct ips_found found;
  struct ips_flow f;
  struct ips_outer_end end;
  int verdict = IPS_NO_SESSION;
  for (unsigned i = 0; i < TRIES && verdict == IPS_NO_SESSION; i++) {
    if (!ips_napt_flow_in(n, e, number, &f)) return IPS_NO_SESSION;
    struct ips_place p = ips_place_of(t, &f);
    if (ips_session_find(t, &p, &found)) {
      if (ips_word_kind(found.word) != IPS_SESSION_NAPT)
        return IPS_NO_SESSION; /* a peer's word: followed only */
      verdict = c->asks ? IPS_OK : ips_session_touch(t, c->worker, &p, &found, &s, c->now_ns);
      continue;
    }
    if (n->filtering == IPS_FILTER_ADDRESS_AND_PORT) return IPS_FILTERED;
    if (ips_port_class(e->proto) == 2 || !may_open(e, c)) return IPS_NO_SESSION;
    if (c->asks) {
      verdict = IPS_OK;
      break;
    }
    struct ips_inner inner = ips_inner_of(&f);
    if (ips_mapping_take(&t->mappings, c->worker, &inner, NULL, 0, 0, &end)) continue; /* has just ended */
    verdict = end.number == number ? open_session(n, &p, end, IPS_SESSION_FROM_OUTSIDE, c) : IPS_NO_SESSION;
    if (verdict != IPS_OK) give_back(t, &f, end, c);
    if (verdict == IPS_OPENED_BY_ANOTHER) verdict = IPS_NO_SESSION;
  }
  if (verdict) return verdict;
  turn->dst = true;
  memcpy(turn->dst_address, f.src, 16);
  turn->dst_port = f.src_port;
  return IPS_OK;
}
