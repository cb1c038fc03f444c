/* ips_control_dispatch.h: clusters and their servers, on the control socket (SYSTEMS.md S2.4, S2.5; docs/clusters.md).
 *
 * A set is replaced as a whole, while packets pass; connections stay with their servers. Messages as ips_control.h says.
 * Read by cffi too.
 */
#ifndef IPS_CONTROL_DISPATCH_H
#define IPS_CONTROL_DISPATCH_H
#include "ips_control_flows.h"
#include "ips_dispatch_api.h"

struct ips_ctl_cluster {
  struct ips_cluster_rec rec;
  char interface[64];          /* where its servers are on-link, of Linux or of VPP */
};
/* DISPATCH_SET. Again with the same content: nothing. No cluster: there are none any more. The answer comes when every
 * packet thread has seen it. REFUSED: no connections are tracked (FLOWS_SET first). BAD_ARGUMENT: a value out of
 * range, an address twice, an interface that is not there, no room for a server's address in the session table. */
struct ips_ctl_dispatch {
  uint32_t n_clusters, n_servers;
  struct ips_ctl_cluster clusters[64];
  struct ips_server_rec servers[512];
};

/* DISPATCH_STATE: one for each server of each cluster, in the order of DISPATCH_SET. A server's counts and sessions are
 * those of all its clusters. */
struct ips_ctl_server_state {
  uint8_t cluster[16], address[16];
  uint64_t opened, packets, bytes, untracked, unsent; /* struct ips_server_count, of all packet threads */
  uint32_t weight;
  uint32_t left, open;         /* struct ips_server_use */
  uint8_t family, state;       /* enum ips_server_state */
  uint8_t has_mac;             /* its hardware address is known */
  uint8_t mac[6];
  uint8_t reserved[3];
};
#endif
