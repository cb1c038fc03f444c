/* ips_control_remap.h: addresses that are remapped, on the control socket (SYSTEMS.md S4; docs/remap.md).
 *
 * Each of the two nodes is told its half: REMAP_SET with the same id, key and channel, and the role of its
 * side. The order of a remap: READY at the taker, PREPARING at the giver; state.is_ready -> LEAVING at the
 * giver; its state.fence_applied -> TAKING at the taker; distribution points flip; the giver's flows go to 0,
 * or the deadline passes; REMAP_CLEAR at both. Messages as ips_control.h says. Read by cffi too.
 */
#ifndef IPS_CONTROL_REMAP_H
#define IPS_CONTROL_REMAP_H
#include "ips_control_flows.h"
#include "ips_remap_api.h"

/* REMAP_SET. Again with the same content: nothing. Again with another role of the same side (PREPARING <->
 * LEAVING, READY <-> TAKING) and all else equal: the role changes, in one step for all packet threads, and
 * the answer comes when each of them has seen it. BAD_ARGUMENT: a value out of range. REFUSED: no connections
 * are tracked (FLOWS_SET first), or everything but the role may not change (REMAP_CLEAR first), or more than
 * 8 remaps would cover an address. TOO_MANY: there are 64. */
struct ips_ctl_remap {
  uint8_t key[32];             /* of this remap, the same at both nodes, secret */
  uint64_t id;                 /* 1 .. 2^56 - 1, the same at both nodes; a later remap of an address has a higher one */
  char node[64], peer[64];     /* names: equal names, equal nodes */
  uint8_t prefix[16];          /* of the Global Network */
  uint8_t prefix_len, family;
  uint8_t role;                /* enum ips_remap_role */
  uint8_t n_paths;
  uint32_t flags;              /* enum ips_remap_flags */
  uint32_t flows;              /* takes: room for so many of the giver's flows; 0: as this node's session table */
  uint32_t ring, window;       /* of the mirror: changes per worker, datagrams under way; 0: defaults */
  struct ips_remap_channel channel;
  struct ips_ctl_pair_path paths[4]; /* of the mirror, UDP; the first one that the peer was heard on is used */
};
/* REMAP_CLEAR: ends it at this node; what the giver's flows are is no matter here any more. Answers the last
 * state. REMAP_STATE: BAD_ARGUMENT: there is none of that id. REMAP_LIST: all of them, lowest id first. */
struct ips_ctl_remap_id { uint64_t id; };

struct ips_ctl_remap_state {
  uint64_t id;
  uint64_t now_ns;             /* CLOCK_BOOTTIME, as all times here */
  uint64_t since_ns;           /* of this role */
  uint64_t tracked_ns;         /* since then every packet of the address was seen by who counts (gives) */
  uint64_t fence_ns;           /* LEAVING: no flow was opened after; else 0 */
  /* Flows of the giver: at the giver its own, counted in passes; at the taker those that it was told of. */
  uint64_t flows;
  uint64_t active;             /* of them, with a packet in the last 60 s (gives) */
  uint64_t one_sided;          /* of them, seen in one direction only: 0: the number is exact (gives) */
  uint64_t counted_ns;         /* end of the last pass, 0: none yet; at the taker: now */
  uint64_t counters[32];       /* ips_remap.def */
  uint64_t heard_ns;           /* last datagram of the peer; 0: never */
  uint64_t lag_events, lag_ns, round_trip_ns; /* of the mirror (gives) */
  uint64_t mirror_resyncs;     /* streams that were begun, but the first (gives) */
  uint8_t prefix[16];
  uint8_t prefix_len, family;
  uint8_t role;                /* enum ips_remap_role */
  uint8_t phase;               /* enum ips_mirror_phase of the stream to the taker (gives) */
  uint8_t refusal;             /* enum ips_mirror_refusal: the taker's last one (gives) */
  uint8_t is_ready;            /* the taker has every flow of the giver, but for what is under way */
  uint8_t fence_applied;       /* gives: the taker has applied everything up to fence_ns */
  uint8_t notes;               /* enum ips_ctl_mirror_note: HEARD, WRONG_KEY */
  uint32_t flags;              /* enum ips_remap_flags */
  uint8_t reserved[12];
  char peer[64];
};

/* REMAP_FLOWS: the giver's flows, as this node knows them: an array of struct ips_session_rec. */
struct ips_ctl_remap_wanted {
  uint64_t id;
  uint32_t limit;              /* 0: no limit */
  uint32_t reserved;
};
#endif
