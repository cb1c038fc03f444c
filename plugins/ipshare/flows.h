/* flows.h: tracked connections in VPP (native/flows): sessions, NAT by ports, the mirror, remaps, the NAT log.
 *
 *   worker: a frame of ours is a frame of flows (node.c); what waits for the standby is let go by ipshare-held-input
 *   lanes:  orders are carried out beside VPP's threads (builder.c), lists of sessions in a lane of their own
 *   main:   states and questions at once, as one more packet thread that is in a frame meanwhile; pools in the FIB
 *
 * ips-mirror and the NAT log's thread are made by a lane: they take no signal, and stay off workers' processors.
 */
#ifndef __included_ipshare_flows_h__
#define __included_ipshare_flows_h__

#include <ipshare/ipshare.h>
#include "../../native/flows/flows_orders.h"

/* An order about tracked connections: the job's `order`. path: where its bulk data is, or goes. */
typedef struct
{
  struct flows_order order;
  int status; /* enum ips_ctl_status */
  u32 bytes;
  u8 payload[];
} ipshare_flows_job_t;

/* flows.c */
bool ipshare_flows_create (ipshare_main_t *im);	 /* at configuring, after the threads */
void ipshare_flows_free (ipshare_main_t *im);	 /* before any packet */
void ipshare_job_flows (ipshare_job_t *job);	 /* in its lane */
void ipshare_job_flows_end (ipshare_job_t *job); /* main thread, afterwards */
/* Pair's lane: the pair is another one, or none any more (is_cleared). was_set: there was one. */
void ipshare_flows_other_pair (bool is_cleared, bool was_set);
/* Main thread: inside, nothing is freed that was found; the core of questions has NAT. */
void ipshare_flows_enter (ipshare_main_t *im);
void ipshare_flows_leave (ipshare_main_t *im);
/* The thread's, after a frame: packets wait. */
void ipshare_held_soon (vlib_main_t *vm);

/* nat.c: inside of a NAT (realm) is behind an interface; under the barrier. */
int ipshare_nat_interface (ipshare_main_t *im, u32 sw_if_index, u16 realm, bool enable);
void ipshare_nat_interface_gone (ipshare_main_t *im, u32 sw_if_index);
/* Packets to the pools' addresses come to us. */
void ipshare_nat_pools (ipshare_main_t *im, const struct ips_ctl_flows *set);

/* remap.c: packets to this node's ends of the remaps' channels come to us. Main thread, no order under way. */
void ipshare_remap_channels (ipshare_main_t *im);

#endif
