/* ips_natlog.h: what the session table calls when something happens that may have to be logged.
 *
 * Nothing here runs for a packet of a session that exists. Without a log, or where the kind of event is not
 * wanted, one look at a pointer.
 */
#ifndef IPS_NATLOG_H
#define IPS_NATLOG_H
#include "ips_natlog_api.h"
#include "ips_session_table.h"

bool ips_natlog_wants(const struct ips_natlog *l, uint32_t what);
/* Of LIMITS: true at most once a second for each worker and kind (0 .. 3). */
bool ips_natlog_is_due(struct ips_natlog *l, uint32_t worker, unsigned kind, uint64_t now_ns);

/* A session of NAPT began or ended; r: as it is now, or was. */
void ips_log_session(struct ips_sessions *t, uint32_t worker, unsigned event, const struct ips_session_rec *r,
                     uint64_t now_ns);
/* A mapping of flow's source to the public end (number, port). */
void ips_log_mapping(struct ips_sessions *t, uint32_t worker, unsigned event, const struct ips_flow *flow,
                     struct ips_outer_end end, uint64_t now_ns);
/* flow could not be opened. quota 0: no port is free. */
void ips_log_limit(struct ips_sessions *t, uint32_t worker, unsigned quota, const struct ips_flow *flow,
                   uint32_t limit, uint64_t now_ns);
static inline struct ips_natlog *ips_log_of(const struct ips_sessions *t, uint32_t what) {
  struct ips_natlog *l = ips_get(t->log);
  return l && ips_natlog_wants(l, what) ? l : NULL;
}
#endif
