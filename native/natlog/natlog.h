/* natlog.h: NAT logs in a host of the core: one thread that takes records out of the workers' rings and sends
 * them, as IPFIX or syslog, to UDP collectors (ips_control_natlog.h).
 *
 * natlog_set and natlog_state are the control side's, any one thread's at a time; natlog_attach once, when the
 * session table is made. Rings and thread exist from the first natlog_set with a target on. Nothing here is
 * called by a worker: the session table writes the rings by itself.
 */
#ifndef NATLOG_H
#define NATLOG_H
#include "../ips_control_natlog.h"

struct natlog;
struct natlog *natlog_create(uint32_t workers); /* NULL: no memory */
/* No worker runs any more; sends what is left. The table may be freed before. */
void natlog_destroy(struct natlog *n);
void natlog_attach(struct natlog *n, struct ips_sessions *table);
/* A status of the control socket; *sentence says what is wrong. */
int natlog_set(struct natlog *n, const struct ips_ctl_natlog *c, const char **sentence);
void natlog_state(struct natlog *n, struct ips_ctl_natlog_state *out);
#endif
