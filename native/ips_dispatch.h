/* ips_dispatch.h: clusters inside the core: the constant set that packet threads see, and where packets meet it.
 *
 * ips_dispatch_set.c: making a set, finding a cluster and its servers. ips_dispatch_packet.c: a packet's way. A server
 * is known by the number of its address (ips_addresses.h), which sessions hold too, so that finding a session finds
 * its server by one comparison.
 */
#ifndef IPS_DISPATCH_H
#define IPS_DISPATCH_H
#include "ips_dispatch_api.h"
#include "ips_maglev.h"
#include "ips_session_table.h"
#include "ips_worker.h"

struct ips_server { struct ips_server_rec r; uint32_t number; };
struct ips_cluster {
  uint8_t address[16];
  uint32_t first, n;
  uint8_t family;
  struct ips_maglev *table;      /* NULL: no server takes new connections */
};
enum { IPS_CLUSTER_CELLS = 256 };
struct ips_clusters {
  struct ips_mem mem;
  struct ips_sessions *sessions;
  struct ips_frag_table *frags;
  struct ips_server_count *counts; /* of worker w: from w * addresses on; NULL: nobody counts */
  uint32_t addresses, n, n_servers;
  uint8_t cells[IPS_CLUSTER_CELLS]; /* by address, open addressing: 1 + place; 0: free */
  struct ips_cluster at[IPS_CLUSTERS];
  struct ips_server servers[IPS_SERVERS];
};

static inline bool ips_server_takes(const struct ips_server *s) {
  return s->r.state == IPS_SERVER_UP && s->r.weight;
}

/* ips_dispatch_set.c. NULL: none. */
const struct ips_cluster *ips_cluster_find(const struct ips_clusters *s, unsigned family, const uint8_t *address);
const struct ips_server *ips_cluster_server(const struct ips_clusters *s, const struct ips_cluster *c, uint32_t number);
/* For a flow that nobody has; the same at every node whose servers have the same weights. */
const struct ips_server *ips_cluster_choose(const struct ips_clusters *s, const struct ips_cluster *c,
                                            const struct ips_flow *f);

/* ips_dispatch_packet.c: NO_BINDING: it is to no cluster's address, and nothing was done. */
__attribute__((cold)) int ips_dispatch(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v);
#endif
