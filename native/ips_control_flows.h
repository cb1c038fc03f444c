/* ips_control_flows.h: tracked connections on the control socket: sessions, NAT pools, the mirror, NAT logs.
 *
 * native/flows/ is behind it, in both hosts of the core. Messages as ips_control.h says. Read by cffi too.
 */
#ifndef IPS_CONTROL_FLOWS_H
#define IPS_CONTROL_FLOWS_H
#include "ips_control.h"
#include "ips_mirror_api.h"
#include "ips_napt_api.h"

enum ips_ctl_flows_const {
  IPS_CTL_POOLS = 64, IPS_CTL_INSIDES = 256, IPS_CTL_MIRROR_PEERS = 8, IPS_CTL_MIRROR_ITEMS = 12,
  IPS_CTL_MIRROR_COMMIT_US = 1000000, /* the longest that a first packet may wait */
};

/* FLOWS_SET: the session table and what translates with it. Sizes (up to `timeouts`) are those of the first
 * FLOWS_SET of a process: others are REFUSED. Everything else may change while traffic flows; sessions of an
 * address that is in no pool any more end. The same again: nothing. */
struct ips_ctl_flows {
  uint32_t sessions, half_open, half_open_per_source, mappings; /* as in struct ips_sessions_config */
  uint32_t tombstones, addresses, tombstone_s;
  struct ips_session_timeouts timeouts;
  uint8_t source_bits4, source_bits6, udp_inbound_refreshes;
  uint8_t filtering;                       /* enum ips_napt_filtering */
  uint32_t n_pools, n_insides, reserved;
  struct ips_napt_pool_rec pools[64];
  struct ips_napt_inside_rec insides[256];
};

enum ips_ctl_mirror_role {
  IPS_CTL_MIRROR_PAIR = 0,     /* active or standby as this node's pair says */
  IPS_CTL_MIRROR_OBSERVER = 1, /* a further standby, which never becomes active */
};
struct ips_ctl_mirror_peer {
  char name[64];
  uint8_t id, n_paths, reserved[6];
  struct ips_ctl_pair_path paths[4]; /* the first one that the peer was heard on lately is used */
};
/* MIRROR_SET: who gets the changes of this node's sessions, or sends its own. */
struct ips_ctl_mirror {
  uint8_t key[32];             /* of the pair */
  char node[64];
  uint8_t id, role, n_peers;   /* role: enum ips_ctl_mirror_role */
  uint8_t commit_acked;        /* 1: a session's first packet waits until each ready standby has it */
  uint32_t commit_us;          /* but no longer than this, 1 us to 1 s; then it goes, counted as uncommitted */
  uint32_t ring, window;       /* changes per worker, datagrams per peer; 0: defaults */
  uint64_t digest_ns;          /* between two comparisons of all sessions; 0: never */
  uint64_t config_digest;      /* of what has to be equal at all nodes: pools, realms, split of ports */
  struct ips_ctl_mirror_peer peers[8];
  uint32_t n_items, reserved;
  struct ips_ctl_mirror_item { char name[16]; uint64_t digest; } items[12]; /* parts: which one differs */
};

enum ips_ctl_mirror_note {
  IPS_CTL_MIRROR_WRONG_KEY = 1, /* datagrams come from the peer's address that another key sealed */
  IPS_CTL_MIRROR_MISMATCH = 2,  /* the peer's config_digest differs: nothing is mirrored */
  IPS_CTL_MIRROR_HEARD = 4,     /* the peer is heard */
  IPS_CTL_MIRROR_OTHER_VERSION = 8, /* the peer speaks no version of the protocol that is spoken here */
};
/* FLOWS_STATE */
struct ips_ctl_flows_state {
  uint64_t now_ns;
  struct ips_sessions_stats sessions;
  struct ips_mirror_stats mirror;
  uint64_t committed, uncommitted, held; /* first packets that waited with success, in vain; waiting now */
  uint64_t hold_full;                    /* uncommitted because too many waited */
  uint64_t hold_dropped;                 /* waited until this node was active no more: not sent */
  uint32_t has_flows, has_mirror, is_ready, n_addresses;
  uint8_t peer_notes[8];                 /* enum ips_ctl_mirror_note, in the order of ips_ctl_mirror.peers */
  uint16_t peer_differs[8];              /* bit i: items[i] differs at that peer, or is missing there */
  uint64_t peer_refused[8];              /* datagrams from its address that were dropped unread */
};

/* SESSIONS_DUMP: what is wanted; zero: anything. Answered by a sealed memfd of struct ips_session_rec[]. */
struct ips_ctl_session_filter {
  uint8_t src[16], dst[16], mapped[16];     /* prefixes, IPv4 in the first four bytes */
  uint8_t src_len, dst_len, mapped_len, family;
  uint16_t src_port, dst_port, mapped_port, realm; /* realm + 1 */
  uint8_t proto, kind, state, reserved;
  uint32_t limit;                           /* 0: no limit */
};
struct ips_ctl_sessions { uint64_t now_ns, matched, scanned; }; /* matched: also beyond the limit */
struct ips_ctl_closed { uint64_t closed; };

/* SESSIONS_FEED: what an active node's sessions became, told by somebody else than the mirror (a database).
 * With an fd of struct ips_ctl_fed[count], or none and count 0. REFUSED while this node is active, or of an
 * epoch below one that is known. Flags happen in this order: LOST, BEGIN, the records, END. */
enum ips_ctl_feed_flags {
  IPS_CTL_FEED_BEGIN = 1,      /* a snapshot of everything begins */
  IPS_CTL_FEED_END = 2,        /* it is whole: sessions that it did not bring end; this standby is ready */
  IPS_CTL_FEED_NEW_ORIGIN = 4, /* with BEGIN: versions of before do not compare with those that come */
  IPS_CTL_FEED_LOST = 8,       /* nobody feeds this node any more: it keeps what it has and is not ready */
};
struct ips_ctl_feed { uint64_t epoch; uint32_t flags, count; };
struct ips_ctl_fed { struct ips_session_rec rec; uint64_t what; }; /* enum ips_session_op */
#endif
