/* pair.h: what the parts of the pair's half share: the interfaces that VIPs are on (ports.c), the graph's nodes that
 * take neighbours' questions from them (vips.c), the pair itself (pair.c) and its messages (api_pair.c).
 *
 *   worker:  arp, ip6-unicast, ip6-multicast -> frame about a VIP -> the port's ring -> real-time thread (native/rt)
 *   thread:  answers and announcements -> ring `out` -> main thread -> the interface's output, while the lease runs
 *   main:    looks at interfaces, tells their state by one word for each port; sends; answers who waits
 *
 * A set of ports belongs to one pair as set. Workers see it between two barriers, the real-time thread while it runs.
 */
#ifndef __included_ipshare_pair_h__
#define __included_ipshare_pair_h__

#include <ipshare/ipshare.h>
#include "../../native/rt/rt_ring.h"

typedef struct
{
  char name[64];
  u32 sw_if_index; /* ~0: there is none of that name */
  u64 state;	   /* atomic: MAC address << 16 | UP: what the thread reads */
  int frames;	   /* eventfd: the ring has some */
  u32 n_vips;
  struct
  {
    u8 address[16], family;
  } vips[IPS_CTL_PAIR_VIPS];
  struct rt_ring in;
} ipshare_port_t;

#define IPSHARE_PORT_UP 1

typedef struct
{
  u32 n;
  bool adopted;		  /* by a real-time thread */
  int changed;		  /* eventfd to it: look at the interfaces */
  struct rt_ring out;	  /* tag: number of the port */
  ipshare_port_t at[IPS_CTL_PAIR_VIPS];
} ipshare_ports_t;

typedef struct
{
  ipshare_ports_t *next;  /* of the job under way */
  ipshare_ports_t *live;  /* the thread's */
  ipshare_ports_t *shown; /* the workers', and the main thread's */
  int woken;		  /* eventfd to the main thread */
  u64 slept[IPS_CTL_MAX_WORKERS];
  u64 loops[IPS_CTL_MAX_WORKERS];    /* as they were when they last moved on */
  u64 moved_ns[IPS_CTL_MAX_WORKERS]; /* and when that was */
} ipshare_pair_t;

extern ipshare_pair_t ipshare_pair;

/* ports.c; main thread. NULL: no memory, no descriptors, or more VIPs than there can be. */
ipshare_ports_t *ipshare_ports_new (const struct ips_ctl_pair *p);
void ipshare_ports_free (ipshare_ports_t *ports);
/* Finds interfaces, notes their state, tells the thread what is new. */
void ipshare_ports_look (ipshare_ports_t *ports);
void ipshare_ports_glance (ipshare_ports_t *ports); /* only their state, for those that are known */
/* Takes the barrier. NULL: no port any more. */
void ipshare_ports_show (ipshare_ports_t *ports);
void ipshare_ports_send (vlib_main_t *vm, ipshare_ports_t *ports);
void ipshare_ports_gone (u32 sw_if_index); /* its number may be another interface's tomorrow */
extern const struct rt_links ipshare_links; /* the real-time thread's door to `live` */

/* vips.c; under the barrier. */
void ipshare_vips_enable (u32 sw_if_index, bool enable);

/* pair.c */
bool ipshare_pair_create (ipshare_main_t *im); /* at configuring, last: nothing of it is undone */
void ipshare_pair_wake (void); /* the process: something changed */
void ipshare_leave_processors (void); /* the calling thread, no one of VPP's, goes where no worker is */
void ipshare_job_pair (ipshare_job_t *job); /* pair lane: sets, clears or commands, as job->order says */
void ipshare_job_pair_end (ipshare_job_t *job); /* main thread, afterwards */

/* What a job of the pair does. */
typedef struct
{
  int op; /* IPS_CTL_PAIR_SET, _CLEAR, _COMMAND */
  int status; /* enum ips_ctl_status */
  const char *sentence;
  struct ips_ctl_pair_command command;
  struct ips_ctl_pair set;
} ipshare_pair_job_t;

/* api_pair.c: answers those whose wait is over. */
void ipshare_pair_answer_waiters (void);
void ipshare_pair_client_gone (u32 client_index);

#endif
