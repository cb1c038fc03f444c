/* ips_remap_api.h: where a packet goes while its address is remapped (SYSTEMS.md S4.4; DESIGN.md 9).
 *
 * A remap moves an address from the node that gives it to the node that takes it; flows that the giver has
 * stay there. At a node an address may have several: it took it from one and gives it to another. The
 * decision table is one pure function here, for any number of them; docs/remap.md has it in words. Read by
 * the compiler and by cffi, as ips_api.h is.
 */
#ifndef IPS_REMAP_API_H
#define IPS_REMAP_API_H
#include "ips_api.h"
#include "ips_session_api.h"

/* preparing <-> leaving at the node that gives, ready <-> taking at the one that takes. */
enum ips_remap_role {
  IPS_REMAP_PREPARING = 1, /* gives: its flows are tracked and mirrored; it still opens */
  IPS_REMAP_LEAVING = 2,   /* gives: it opens no flow any more */
  IPS_REMAP_READY = 3,     /* takes: the giver's flows are learned, and what it asks is answered */
  IPS_REMAP_TAKING = 4,    /* takes: flows of the giver go there, everything else is opened here */
};
enum ips_remap_flags {
  IPS_REMAP_QUIC = 1,         /* takes: an unknown UDP packet with QUIC's short header opens nothing */
  IPS_REMAP_REPLIES = 2,      /* both: replies of the giver's flows go back through the channel */
  IPS_REMAP_UNKNOWN_HERE = 4, /* takes: what opens nothing and is unknown stays here: this node had the
                                 address before the giver */
};
enum ips_remap_mark { IPS_REMAP_FINAL = 0, IPS_REMAP_ASK = 1 }; /* what a packet in the channel says */

enum ips_remap_const { IPS_REMAPS = 64, IPS_REMAP_DEPTH = 8, IPS_REMAP_COUNTERS = 32 };

/* ---- the decision table ------------------------------------------------------- */

enum ips_remap_from { IPS_FROM_NETWORK = 0, IPS_FROM_FINAL = 1, IPS_FROM_ASK = 2 };
/* CLOSED: it lingers; half closed counts so only where the packet is a SYN. */
enum ips_remap_known { IPS_FLOW_UNKNOWN = 0, IPS_FLOW_OPEN = 1, IPS_FLOW_CLOSED = 2 };
enum ips_remap_what {
  IPS_GO_HERE = 0,    /* deliver it */
  IPS_GO_OPEN = 1,    /* deliver it, once the flow is remembered as this node's */
  IPS_GO_FINAL = 2,   /* to the peer of relation `to`, which delivers it */
  IPS_GO_ASK = 3,     /* to the peer of relation `to`, which decides */
  IPS_GO_NOWHERE = 4, /* drop: nobody that it met knows it or opens flows; it comes again */
};
/* A remap of the packet's address, as one node sees it. */
struct ips_remap_relation {
  uint8_t role;       /* enum ips_remap_role */
  uint8_t flags;      /* enum ips_remap_flags */
  uint8_t peer;       /* number of the other node: equal numbers, equal nodes */
  uint8_t known;      /* enum ips_remap_known: of READY and TAKING: the flow among the peer's */
};
struct ips_remap_case {
  uint8_t from;       /* enum ips_remap_from */
  uint8_t asker;      /* of ASK: number of the node that asks */
  uint8_t opens;      /* 1: this packet opens a flow where none is known: a SYN, a QUIC Initial, unknown UDP */
  uint8_t own;        /* enum ips_remap_known: the flow among this node's own */
  uint8_t n, reserved[3];
  struct ips_remap_relation at[8]; /* in the order in which they began */
};
struct ips_remap_way_out { uint8_t what, to; }; /* enum ips_remap_what; index into at[] */
struct ips_remap_way_out ips_remap_decide(const struct ips_remap_case *c);

/* ---- what packet threads see --------------------------------------------------- */

/* How packets go between the two nodes, unmodified or re-addressed. Addresses: 16 bytes, IPv4 in the first
 * four; configured on no interface, routed to the engine's inner device. A packet with mark m goes from
 * local[m] to remote[m] (enum ips_remap_mark). IPIP: four different addresses, two at each node. GUE: the
 * mark is an octet, local[1] = local[0], remote[1] = remote[0]. NONE (re-addressing): first addresses of
 * prefixes as long as the remap's and of its family; the host part stays. Remaps between the same nodes may
 * share a channel of IPIP or GUE; every prefix of re-addressing is one remap's alone. */
struct ips_remap_channel {
  uint8_t encap;               /* enum ips_encap */
  uint8_t family;              /* of these addresses */
  uint16_t gue_port;           /* GUE: destination port */
  uint32_t mtu;                /* bytes of the largest packet between the nodes, outer header included; 0: no check */
  uint8_t local[2][16], remote[2][16];
};

struct ips_remap_rec {
  uint64_t id;                 /* remaps of an address are ordered by it */
  uint8_t prefix[16];
  uint8_t prefix_len, family;
  uint8_t role, peer;          /* enum ips_remap_role; number of the other node */
  uint32_t flags;              /* enum ips_remap_flags */
  struct ips_remap_channel channel;
};
/* What a remap has that outlives a set of them. */
struct ips_remap_state {
  struct ips_sessions *followed; /* takes: the giver's flows, a standby's table with the seed of the node's own */
  uint64_t *counters;          /* of each worker IPS_REMAP_COUNTERS, which it alone writes */
};
struct ips_remaps;
/* A constant set, in the order of their ids; frags: for ports of fragments. NULL: no memory, more than
 * IPS_REMAPS, more than IPS_REMAP_DEPTH of one address, or a value out of range. */
struct ips_remaps *ips_remaps_new(const struct ips_remap_rec *recs, const struct ips_remap_state *states, size_t n,
                                  struct ips_frag_table *frags);
void ips_remaps_free(struct ips_remaps *s);
/* Between frames; NULL: none. Needs ips_worker_set_flows with a session table. */
void ips_worker_set_remaps(struct ips_worker *w, const struct ips_remaps *s);

int ips_remap_counters(void);
const char *ips_remap_counter_name(int i);
const char *ips_remap_counter_text(int i);
#endif
