/* pair.h: what the parts of the pair's half share: the interfaces that VIPs, public addresses and criteria are on
 * (ports.c), those that follow the role (subports.c), the graph's nodes that take neighbours' questions from them
 * (vips.c) and answers of gateways (reach.c), the pair itself (pair.c) and its messages (api_pair.c).
 *
 *   worker:  arp, ip6-unicast, ip6-multicast -> frame about a VIP -> the port's ring -> real-time thread (native/rt)
 *   thread:  answers and announcements -> ring `out` -> main thread -> the interface's output, while the lease runs
 *   main:    looks at interfaces, tells their state by one word for each port; sends; answers who waits
 *   criteria: thread -> `asked` -> main thread -> question; answer -> worker -> `answered` -> thread
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
  bool has_addresses;	     /* VIPs or public ones: neighbours' questions are taken from here */
  bool has_criteria;	     /* answers of gateways come in here */
  u32 n_vips;
  struct
  {
    u8 address[16], family;
  } vips[IPS_CTL_PAIR_VIPS];
  struct rt_ring in;
} ipshare_port_t;

typedef struct
{
  u32 port;
  u8 address[16], family, prefix_len;
} ipshare_public_t;

/* Words: 0 never, else IPSHARE_ASKED | sequence. */
typedef struct
{
  u32 port;
  struct ips_ctl_pair_criterion rec;
  u32 asked;	/* atomic, the thread's: the newest question */
  u32 sent;	/* the main thread's: the last that left */
  u32 answered; /* atomic, the workers': the last that was answered */
} ipshare_criterion_t;
#define IPSHARE_ASKED (1u << 16)

enum
{
  IPSHARE_PORTS = IPS_CTL_PAIR_VIPS + IPS_CTL_PAIR_PUBLICS + IPS_CTL_PAIR_CRITERIA + IPS_CTL_PAIR_PORTS,
};

#define IPSHARE_PORT_UP 1

typedef struct
{
  u32 n;
  bool adopted;		  /* by a real-time thread */
  int changed;		  /* eventfd to it: look at the interfaces */
  struct rt_ring out;	  /* tag: number of the port */
  u32 n_publics, n_criteria, n_subports;
  ipshare_public_t publics[IPS_CTL_PAIR_PUBLICS];
  ipshare_criterion_t criteria[IPS_CTL_PAIR_CRITERIA];
  u32 subports[IPS_CTL_PAIR_PORTS]; /* numbers of ports that are up while this node is active, else down */
  bool want_up;		  /* atomic, the thread's: as these are to be */
  u64 wrong;		  /* atomic, the main thread's: bit i: subport i is not so */
  bool set_up;		  /* the main thread's: as they were set last, */
  f64 set_s;		  /* and when; 0: never */
  f64 unlearn_until_s;	  /* the main thread's: workers may have told it of neighbours before */
  ipshare_port_t at[IPSHARE_PORTS];
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

/* ports.c; main thread. NULL: no memory, no descriptors. */
ipshare_ports_t *ipshare_ports_new (const struct ips_ctl_pair *p);
void ipshare_ports_free (ipshare_ports_t *ports);
/* Finds interfaces, notes their state, tells the thread what is new. */
void ipshare_ports_look (ipshare_ports_t *ports);
void ipshare_ports_glance (ipshare_ports_t *ports); /* only their state, for those that are known */
/* Takes the barrier. NULL: no port any more. */
void ipshare_ports_show (ipshare_ports_t *ports);
bool ipshare_ports_send (vlib_main_t *vm, ipshare_ports_t *ports); /* a turn's worth; true: there may be more */
void ipshare_ports_gone (u32 sw_if_index); /* its number may be another interface's tomorrow */
extern const struct rt_links ipshare_links; /* the real-time thread's door to `live` */

/* vips.c, reach.c; under the barrier. */
void ipshare_vips_enable (u32 sw_if_index, bool enable);
void ipshare_reach_enable (u32 sw_if_index, bool enable);

/* vips.c; main thread: neighbours that VPP learned of public addresses go; what an operator wrote stays. */
void ipshare_vips_unlearn (const ipshare_ports_t *ports);

/* ports.c, main thread: the frame behind the header that this interface wants, tags included. False: no buffer, no
 * such header. */
bool ipshare_ports_send_one (vlib_main_t *vm, u32 sw_if_index, const u8 *frame, u32 n);

/* reach.c; main thread: questions that wait to be sent. */
void ipshare_reach_send (vlib_main_t *vm, ipshare_ports_t *ports);
extern const struct rt_askers ipshare_askers;

/* subports.c; main thread: brings them up or down as they are to be; `up` false: down whatever is wanted. */
void ipshare_subports_set (ipshare_ports_t *ports, bool up);
extern const struct rt_port_setter ipshare_port_setter;

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
