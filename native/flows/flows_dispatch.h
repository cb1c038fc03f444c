/* flows_dispatch.h: the clusters of a node (SYSTEMS.md S2.4, S2.5), the same in every host.
 *
 *   packet threads: see a constant set (flows_enter); each counts for itself
 *   control:        sets, looks (flows_dispatch.c); what was there before is freed when no thread can see it
 *
 * Where a server's hardware address comes from, and how a packet is sent there, is the host's affair.
 */
#ifndef FLOWS_DISPATCH_H
#define FLOWS_DISPATCH_H
#include "../ips_control_dispatch.h"
#include "flows.h"

/* Whatever a host may do with it: counts are in range, names end. The sentence: what is wrong; NULL: nothing. */
const char *flows_dispatch_fault(const struct ips_ctl_dispatch *c);
/* Control: a status of ips_control.h; *sentence says what is wrong. */
int flows_dispatch_set(struct flows *f, const struct ips_ctl_dispatch *c, const char **sentence);
/* What was set last; NULL: nothing ever. */
const struct ips_ctl_dispatch *flows_dispatch_wanted(const struct flows *f);
/* Fills all but the hardware addresses; out has room for IPS_SERVERS. Returns how many. */
uint32_t flows_dispatch_state(const struct flows *f, struct ips_ctl_server_state *out);
/* Of packet thread `worker`, which counts what it could not send. server: ips_pkt.server. */
void flows_dispatch_unsent(struct flows *f, uint32_t worker, uint32_t server);
void flows_dispatch_close(struct flows *f); /* no thread is inside */
#endif
