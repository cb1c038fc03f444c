/* ips_vip.h: the engine's own answers for its virtual addresses: ARP and neighbour discovery, as bytes.
 *
 * A VIP is never a kernel address: a dead process's kernel would go on answering for it. The caller asks
 * only while its lease runs, and sends what it gets on the access interface. Pure functions; a frame is an
 * Ethernet frame without FCS, untagged. A frame that is not for us is NOT_OURS; one that breaks its RFC has
 * a name.
 *
 * RFC 826 (ARP), 5227 (announcement = ARP request with both protocol addresses the same; probes have sender
 * 0), 4861 7.1.1, 7.2.4, 7.2.6 (solicitations, their answers, unsolicited advertisements), 4862 5.4.3 (DAD
 * probes), 9131: routers create entries from unsolicited advertisements only if they implement it; so they
 * are repeated.
 */
#ifndef IPS_VIP_H
#define IPS_VIP_H
#include "ips_core.h"
#include "ips_vip_api.h"

enum ips_vip_results {
#define W(name, text) IPS_VIP_##name,
#include "ips_vip.def"
#undef W
  IPS_N_VIP_RESULTS
};
#endif
