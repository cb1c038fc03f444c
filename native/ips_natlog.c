/* ips_natlog.c: from what happens in the session table to log records (contract in ips_natlog.h).
 *
 * A standby, which only applies what its peer says, logs nothing: its active has. After a takeover it logs
 * the ends of what the other began.
 */
#include "ips_natlog.h"

void ips_sessions_set_log(struct ips_sessions *t, struct ips_natlog *l) { ips_put(t->log, l); }

void ips_log_session(struct ips_sessions *t, uint32_t worker, unsigned event, const struct ips_session_rec *r,
                     uint64_t now_ns) {
  struct ips_natlog *l = ips_log_of(t, IPS_NATLOG_SESSIONS);
  if (!l || r->kind != IPS_SESSION_NAPT) return;
  struct ips_natlog_rec x = {.flow = r->flow, .at_ns = now_ns, .mapped_port = r->mapped_port,
                             .event = (uint8_t)event, .from_outside = r->flags & IPS_SESSION_FROM_OUTSIDE};
  memcpy(x.mapped, r->mapped, sizeof x.mapped);
  for (unsigned i = 0; i < 2 && event == IPS_NATLOG_SESSION_DELETE; i++) {
    x.packets[i] = r->packets[i];
    x.bytes[i] = r->bytes[i];
  }
  ips_natlog_put(l, worker, &x);
}

void ips_log_mapping(struct ips_sessions *t, uint32_t worker, unsigned event, const struct ips_flow *flow,
                     struct ips_outer_end end, uint64_t now_ns) {
  struct ips_natlog *l = ips_log_of(t, IPS_NATLOG_MAPPINGS);
  if (!l) return;
  struct ips_natlog_rec x = {.flow = *flow, .at_ns = now_ns, .mapped_port = end.port,
                             .event = (uint8_t)event};
  memset(x.flow.dst, 0, sizeof x.flow.dst);
  x.flow.dst_port = 0;
  if (ips_port_class(flow->proto) < 0) x.flow.src_port = 0;
  ips_address_copy(&t->addresses, end.number, x.mapped);
  ips_natlog_put(l, worker, &x);
}

void ips_log_limit(struct ips_sessions *t, uint32_t worker, unsigned quota, const struct ips_flow *flow,
                   uint32_t limit, uint64_t now_ns) {
  struct ips_natlog *l = ips_log_of(t, IPS_NATLOG_LIMITS);
  if (!l || !ips_natlog_is_due(l, worker, quota, now_ns)) return;
  struct ips_natlog_rec x = {.flow = *flow, .at_ns = now_ns, .limit = limit, .quota = (uint8_t)quota,
                             .event = quota ? IPS_NATLOG_QUOTA : IPS_NATLOG_PORTS_EXHAUSTED};
  ips_natlog_put(l, worker, &x);
}
