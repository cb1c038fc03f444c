/* ips_unbound.c: packets that no binding is for, where this node has port-translating NAT.
 *
 * From outside: to an address of a pool. From inside: of a source that has a pool, or an error that may be
 * about a packet of such a one. Scope and TTL are judged here, before any byte changes, as for stateless
 * packets; what the way behind this node carries, the host's routing knows: its "too big" comes back as an
 * error to be translated. Anything else is not ours: NO_BINDING stands, and nothing was changed or sent.
 */
#include "ips_napt.h"
#include "ips_rewrite.h"
#include "ips_worker.h"

void ips_worker_set_flows(struct ips_worker *w, struct ips_sessions *s, struct ips_napt *n) {
  w->sessions = s;
  w->napt = n;
}

/* An error's own source may be any router's. */
static bool is_ours(const struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v) {
  if (w->side == IPS_OUTER)
    return ips_napt_number(w->napt, v->family, ips_field_at(p->data, v->family, IPS_DST)) != IPS_NONE;
  return ips_is_icmp_error(p, v) ||
         ips_napt_group(w->napt, v->family, ips_field_at(p->data, v->family, IPS_SRC)) != NULL;
}

/* For who asks: nothing is left behind. A packet that would open a flow is not translated: nobody knows its
 * public end yet. */
static int ask(struct ips_worker *w, struct ips_pkt *p) {
  int verdict = ips_napt_ask(w->napt, p, w->side == IPS_OUTER, w->now_ns);
  w->would_open = verdict == IPS_NAPT_WOULD_OPEN;
  return w->would_open ? IPS_OK : verdict;
}

int ips_unbound(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  if (!is_ours(w, p, v)) return IPS_NO_BINDING;
  if (ips_get(w->napt->sessions->standby)) return IPS_PAIR_NOT_ACTIVE; /* a further standby has no lease */
  if (ips_bad_scope(ips_field_at(p->data, v->family, IPS_SRC), v->family)) return IPS_SOURCE_SCOPE;
  if (v->ttl <= 1) {
    ips_worker_error(w, p, v, IPS_ERR_TTL, 0);
    return IPS_TTL_EXPIRED;
  }
  if (w->asks) return ask(w, p);
  return w->side == IPS_OUTER ? ips_napt_in(w->napt, p, w->index, w->now_ns)
                              : ips_napt_out(w->napt, p, w->index, w->now_ns);
}
