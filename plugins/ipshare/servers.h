/* servers.h: packets to a cluster's server: to its adjacency, as the server's number says (decision 0069).
 *
 *   main thread (servers.c): an adjacency for each server of the set, made when its interface is there
 *   packet threads:          adjacency complete -> rewrite; incomplete -> VPP asks for the neighbour, and drops; none -> drop
 *
 * One word for each number, replaced by one store. What was there before is given back to VPP, which waits for all
 * threads to be between their frames.
 */
#ifndef __included_ipshare_servers_h__
#define __included_ipshare_servers_h__

#include <ipshare/ipshare.h>
#include <vnet/adj/adj.h>
#include "../../native/flows/flows_dispatch.h"

/* Main thread, no order under way: what was set last; and again, interfaces having come or gone. */
void ipshare_servers_set (ipshare_main_t *im, const struct ips_ctl_dispatch *set);
void ipshare_servers_align (ipshare_main_t *im);
void ipshare_servers_interface_gone (ipshare_main_t *im, u32 sw_if_index);
/* Fills in hardware addresses that are known. */
void ipshare_servers_macs (const ipshare_main_t *im, struct ips_ctl_server_state *states, u32 n);

static_always_inline adj_index_t
ipshare_server_adjacency (const ipshare_main_t *im, u32 server)
{
  const u32 *all = __atomic_load_n (&im->servers, __ATOMIC_ACQUIRE);
  return all && server <= vec_len (all) ? __atomic_load_n (all + server - 1, __ATOMIC_ACQUIRE) : ADJ_INDEX_INVALID;
}

/* server: ips_pkt.server, not 0. The arc; `dropped`: an error of the node's, for packets without any way. */
static_always_inline ipshare_to_t
ipshare_to_server (const ipshare_main_t *im, u32 thread, vlib_buffer_t *b, u32 server, vlib_error_t dropped)
{
  adj_index_t index = ipshare_server_adjacency (im, server);
  const ip_adjacency_t *adj = index != ADJ_INDEX_INVALID ? adj_get (index) : NULL;
  ip_lookup_next_t next = adj ? adj->lookup_next_index : IP_LOOKUP_NEXT_DROP;
  if (PREDICT_FALSE (next != IP_LOOKUP_NEXT_REWRITE))
    flows_dispatch_unsent (im->flows, thread, server);
  vnet_buffer (b)->ip.adj_index[VLIB_TX] = index;
  vnet_buffer (b)->ip.flow_hash = 0;
  if (PREDICT_TRUE (next == IP_LOOKUP_NEXT_REWRITE))
    return adj->ia_nh_proto == FIB_PROTOCOL_IP4 ? IPSHARE_TO_IP4_REWRITE : IPSHARE_TO_IP6_REWRITE;
  if (next == IP_LOOKUP_NEXT_ARP)
    return adj->ia_nh_proto == FIB_PROTOCOL_IP4 ? IPSHARE_TO_IP4_ARP : IPSHARE_TO_IP6_ND;
  b->error = dropped;
  return IPSHARE_TO_DROP;
}

#endif
