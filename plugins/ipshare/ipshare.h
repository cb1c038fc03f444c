/* ipshare.h: the plugin's state, and what its parts ask of each other.
 *
 * The C core (native/) decides about every packet; this plugin is its host in VPP: it brings packets (fib.c puts
 * DPOs before the routes of Global and local networks, node.c runs on them), sends what the core made (emit.c),
 * keeps the tables' control side off the main thread (builder.c) and answers the binary API (api.c).
 *
 * Who may touch what: workers read one root per frame and write their own thread's counters. Everything else
 * belongs to the main thread, except while a job is with the builder's thread (builder.c), which alone then
 * calls the control functions of the core's tables.
 */
#ifndef __included_ipshare_h__
#define __included_ipshare_h__

#include <vlib/vlib.h>
#include <vnet/vnet.h>
#include <vnet/dpo/dpo.h>
#include <vnet/fib/fib_node.h>
#include <vnet/fib/fib_source.h>
#include <vnet/fib/fib_types.h>
#include <vnet/ip/format.h>
#include <vnet/buffer.h>

#include "../../native/flows/flows.h"
#include "../../native/ips_worker.h"
#include "../../native/rt/rt.h"
#include "../../native/tap/tap.h"

#define IPSHARE_VERSION	   "0.1.0"
#define IPSHARE_BUFFER_F   VNET_BUFFER_F_AVAIL8 /* translated here already: a second time would be a loop */
#define IPSHARE_LINEAR	   (IPS_HEADROOM + 65536 + 64) /* the longest IPv6 packet: 65,575 bytes */

enum
{
  IPSHARE_MAX_DIVERTED = 16384, /* prefixes */
  IPSHARE_MAX_DPOS = 4 * IPSHARE_MAX_DIVERTED, /* theirs, two generations of them, and clones in the FIB */
  IPSHARE_MAX_NEXT_HOPS = 1024,
};

/* Where nodes of ours send packets themselves; each node has its own numbers for these arcs (arcs), and further
 * arcs where DPOs are stacked. */
typedef enum
{
  IPSHARE_TO_DROP,
  IPSHARE_TO_IP4_LOOKUP,
  IPSHARE_TO_IP6_LOOKUP,
  IPSHARE_TO_IP4_REWRITE, /* to a cluster's server, */
  IPSHARE_TO_IP6_REWRITE,
  IPSHARE_TO_IP4_ARP, /* and to one whose hardware address is not known */
  IPSHARE_TO_IP6_ND,
  IPSHARE_N_TO,
} ipshare_to_t;

typedef enum
{
  IPSHARE_OUTER4,
  IPSHARE_OUTER6,
  IPSHARE_INNER4,
  IPSHARE_INNER6,
  IPSHARE_REPLY4,
  IPSHARE_REPLY6,
  IPSHARE_NAT4,
  IPSHARE_NAT6,
  IPSHARE_N_NODES,
} ipshare_node_t;

/* A packet thread. `made` are the buffers that the core made of the packet in hand. */
typedef struct
{
  CLIB_CACHE_LINE_ALIGN_MARK (cacheline0);
  struct ips_worker *core;
  struct tap_worker tap;
  struct flows_worker *flows;
  u32 *made;	   /* buffer indices */
  u32 *let_go;	   /* too: of packets that have waited for the standby */
  u8 *linear;	   /* IPSHARE_LINEAR bytes: a packet of chained buffers, in one piece */
  vlib_buffer_t *current;
  u64 no_buffers;
  struct ips_counters *counters;
} ipshare_thread_t;

/* A prefix whose packets come to us. passes: what has no binding goes on as the FIB would have had it. is_peer: a
 * member's of a group, in both tables. */
typedef struct
{
  fib_prefix_t prefix;
  u8 side; /* enum ips_side */
  u8 passes, is_peer;
} ipshare_diverted_t;

typedef struct
{
  dpo_id_t parent; /* what the FIB would have done; drop where nothing passes */
  u32 locks;
  u8 side, is_peer;
} ipshare_dpo_t;

typedef struct
{
  fib_node_t node;
  fib_node_index_t entry;
  u32 sibling;
  ip46_address_t address;
  u32 table_id;
  dpo_id_t forward[2]; /* by enum ips_side: outer, and inner for source translation */
  u8 used;
} ipshare_next_hop_t;


typedef struct
{
  u16 msg_id_base;
  u8 boot_id[16];
  u8 configured;
  u32 service_table, delivery_table, counter_cells;
  u32 service_fib[2], delivery_fib[2]; /* by FIB_PROTOCOL_IP4, _IP6 */
  struct ips_tables *tables;
  ipshare_thread_t *threads; /* by thread index */
  struct ips_worker *why;
  struct taps *taps;
  struct rt *rt; /* this node's half of a pair: pair.c */
  struct flows *flows; /* tracked connections: flows.h */
  struct natlog *natlog;
  vlib_combined_counter_main_t cells;
  fib_source_t fib_source, channel_source, cluster_source;
  dpo_type_t dpo_types[2]; /* by enum ips_side */
  u16 arcs[IPSHARE_N_NODES][IPSHARE_N_TO];
  fib_node_type_t next_hop_type;
  ipshare_dpo_t *dpos;		 /* pool, never grows */
  ipshare_next_hop_t *next_hops; /* index = id; 0 is none */
  dpo_id_t *ways[2];		 /* by FIB_PROTOCOL_IP4, _IP6: what workers read, by id: the outer node's way there, or 0 */
  ipshare_diverted_t *diverted, *diverted_before, *diverted_prepared;
  ipshare_diverted_t *pools;   /* of NAT */
  ipshare_diverted_t *channels; /* of remaps */
  ipshare_diverted_t *clusters;
  u32 *servers; /* of clusters: adjacencies by number of an address; once there, its length stays: servers.h */
  u8 *reply_side_by_interface; /* 0: none, else side + 1 */
  u16 **realms_by_interface;   /* of NAT: inside is there */
  struct ips_tables_info info; /* as the last control operation left it */
  u32 cells_used;
  vlib_log_class_t log;
} ipshare_main_t;

extern ipshare_main_t ipshare_main;

/* By ipshare_to_t. */
#define IPSHARE_ARCS                                                                                                  \
  {                                                                                                                   \
    [IPSHARE_TO_DROP] = "error-drop", [IPSHARE_TO_IP4_LOOKUP] = "ip4-lookup",                                         \
    [IPSHARE_TO_IP6_LOOKUP] = "ip6-lookup", [IPSHARE_TO_IP4_REWRITE] = "ip4-rewrite",                                 \
    [IPSHARE_TO_IP6_REWRITE] = "ip6-rewrite", [IPSHARE_TO_IP4_ARP] = "ip4-arp",                                       \
    [IPSHARE_TO_IP6_ND] = "ip6-discover-neighbor",                                                                    \
  }

/* alive.c: turns of threads in the stats segment; once, when it is configured. */
void ipshare_alive_create (void);

/* counters.c: per-binding cells in the stats segment, before any table. 0 or an API error and *needed. */
int ipshare_counters_create (ipshare_main_t *im, u32 cells, u64 *needed);
void ipshare_stats_space (u64 *free_bytes, u64 *size);
/* Cells that the prepared generation gives to new bindings count from zero. False: out of memory. */
bool ipshare_counters_clear_fresh (ipshare_main_t *im);

/* configure.c: once, before the first tables. */
int ipshare_configure (ipshare_main_t *im, u32 service, u32 delivery, u32 cells, u32 *bad_table, u64 *needed);

/* fib.c */
void ipshare_fib_init (ipshare_main_t *im);
/* The prefixes that an image wants diverted: a vector, ascending. */
ipshare_diverted_t *ipshare_diverted_of (const struct ips_image_header *image);
/* The same of NAT pools. */
ipshare_diverted_t *ipshare_diverted_of_pools (const struct ips_ctl_flows *set);
void ipshare_diverted_add (ipshare_diverted_t **to, u32 family, u32 len, const u8 *address, u8 side, bool passes);
ipshare_diverted_t *ipshare_diverted_peers (ipshare_diverted_t *all); /* those that are members', a vector */
ipshare_diverted_t *ipshare_diverted_sorted (ipshare_diverted_t *all); /* ascending, each once */
/* Puts them into a table (fib: by protocol), in the place of those of `before`. */
void ipshare_divert (ipshare_main_t *im, fib_source_t source, const u32 *fib, ipshare_diverted_t *before,
		     ipshare_diverted_t *wanted, bool removals);
u32 ipshare_next_hop_add (ipshare_main_t *im, const ip46_address_t *address, u32 table_id, int *rv);
int ipshare_next_hop_del (ipshare_main_t *im, u32 id);
int ipshare_reply_interface (ipshare_main_t *im, u32 sw_if_index, u8 side, bool enable);

/* options.c: takes packets with IPv4 options back from the punt path. */
void ipshare_options_enable (void);

/* builder.c: jobs for the threads beside VPP's own. One at a time in each lane; done() runs on the main thread. */
enum
{
  IPSHARE_LANE_TABLES,
  IPSHARE_LANE_PAIR,
  IPSHARE_LANE_FLOWS,
  IPSHARE_LANE_SESSIONS, /* lists them, which takes long */
  IPSHARE_N_LANES,
};
typedef struct ipshare_job
{
  void (*work) (struct ipshare_job *job); /* builder's thread: the core and libc only, nothing of VPP */
  void (*done) (struct ipshare_job *job); /* main thread */
  u32 client_index, context;
  u8 lane;
  char path[256], out[256];
  int error; /* errno, or 0 */
  u64 generation, bytes, took_ns;
  u32 n;
  struct ips_load_status status;
  struct ips_image_header *image; /* what was in `path`; freed after done() */
  size_t image_bytes;
  void *order;		 /* of the pair (pair.h), of tracked connections (flows.h) */
} ipshare_job_t;

bool ipshare_builder_busy (void); /* with tables */
bool ipshare_lane_busy (u32 lane);
void ipshare_builder_client_gone (u32 client_index); /* nobody is answered */
void ipshare_process_wake (void); /* there is something for the process that looks after jobs and taps */
/* False if another job is under way (reclaiming aside) or the thread cannot start: the job is not taken. */
bool ipshare_builder_submit (ipshare_job_t *job);
void ipshare_job_nothing (ipshare_job_t *job); /* for what done() does, in its turn */
void ipshare_job_prepare (ipshare_job_t *job);
void ipshare_job_dump (ipshare_job_t *job);
void ipshare_job_counter_index (ipshare_job_t *job);

/* emit.c: what the core hands over during a frame; what has waited for the standby. */
void ipshare_emit (void *thread, struct ips_pkt *p, int kind);
void ipshare_let_go (void *thread, struct ips_pkt *p, u32 tag);

/* taps.c: captures and copies, the main thread's part. */
bool ipshare_taps_create (ipshare_main_t *im);
void ipshare_taps_free (ipshare_main_t *im); /* before any was started */
/* Ends what has to end; true: something is about to. */
bool ipshare_taps_tick (ipshare_main_t *im);

/* why.c: the packet as the live generation would treat it, without sending. Returns a vector: the answer's data. */
u8 *ipshare_why (ipshare_main_t *im, int side, struct ips_pkt *p, u32 *verdict, u64 *generation, u32 *n, u32 *omitted);
void ipshare_why_emit (void *arg, struct ips_pkt *p, int kind);

void ipshare_nodes_init (vlib_main_t *vm, ipshare_main_t *im); /* node.c */
void ipshare_info_refresh (ipshare_main_t *im);
clib_error_t *ipshare_api_init (vlib_main_t *vm);

/* Where a packet came from that waits for the standby. */
static_always_inline u32
ipshare_tag (const vlib_buffer_t *b, enum ips_side side)
{
  return vnet_buffer (b)->sw_if_index[VLIB_RX] << 1 | side;
}

/* The core, and whoever wants to see what goes in and comes out. *taken: a copy of the packet is kept, and sent later. */
static_always_inline int
ipshare_core (ipshare_thread_t *t, struct ips_pkt *p, enum ips_side side, bool *taken)
{
  int verdict;
  if (PREDICT_TRUE (t->tap.set == NULL))
    verdict = side == IPS_OUTER ? ips_outer (t->core, p) : ips_inner (t->core, p);
  else
    {
      t->tap.side = side;
      tap_before (&t->tap, p);
      verdict = side == IPS_OUTER ? ips_outer (t->core, p) : ips_inner (t->core, p);
      tap_verdict (&t->tap, p, verdict);
    }
  if (PREDICT_FALSE (ips_dispositions[verdict] != IPS_SEND))
    flows_pass (t->flows);
  else
    *taken = flows_hold (t->flows, p, ipshare_tag (t->current, side));
  return verdict;
}

/* The core's time, a pair's lease above all, is CLOCK_BOOTTIME (decision 0035). */
static_always_inline u64
ipshare_now_ns (void)
{
  return rt_now_ns ();
}

#endif
