/* ips_control.h: the control socket of ipshare-engine, as both sides see it.
 *
 * Unix SOCK_SEQPACKET; one message = struct ips_ctl_request + the payload of its
 * operation; answered by one message = struct ips_ctl_reply + payload. Requests of
 * one connection are answered in order, but TAP_STOP and TAP_WAIT whenever the tap has
 * ended. Bulk data never travels in a message: an image, a dump and the counters
 * are file descriptors (SCM_RIGHTS) of sealed memfds. All integers in host order.
 *
 * Read by the C compiler and, without the lines that begin with '#', by cffi after
 * ips_api.h. No struct has hidden padding.
 */
#ifndef IPS_CONTROL_H
#define IPS_CONTROL_H
#include "ips_api.h"

enum ips_ctl_const {
  IPS_CTL_MAGIC = 0x43535049, /* "IPSC" */
  IPS_CTL_VERSION = 1,
  IPS_CTL_MAX_MESSAGE = 131072,
  IPS_CTL_MAX_TAPS = 8,
  IPS_CTL_MAX_WORKERS = 64,
  IPS_CTL_WHY_PACKETS = 64,     /* results described in one answer; further ones are counted */
};

enum ips_ctl_op {            /* payload of the request -> payload of the reply [+ fd] */
  IPS_CTL_HELLO = 1,         /* - -> ips_ctl_hello */
  IPS_CTL_INFO = 2,          /* - -> ips_ctl_info */
  IPS_CTL_PREPARE = 3,       /* - + image fd -> ips_ctl_generation */
  IPS_CTL_COMMIT = 4,        /* ips_ctl_generation -> ips_ctl_generation */
  IPS_CTL_ABORT = 5,         /* - -> - */
  IPS_CTL_ROLLBACK = 6,      /* - -> ips_ctl_generation (the new number) */
  IPS_CTL_DUMP = 7,          /* - -> ips_ctl_generation + image fd */
  IPS_CTL_COUNTERS = 8,      /* - -> - + fd of the region, see ips_ctl_region */
  IPS_CTL_CELLS = 9,         /* - + fd of ips_binding_rec[] -> - + fd of ips_ctl_cells[] */
  IPS_CTL_WHY = 10,          /* ips_ctl_packet, bytes -> ips_ctl_why, n x (ips_ctl_packet, bytes) */
  IPS_CTL_TAP_START = 11,    /* ips_ctl_tap [+ file fd] -> ips_ctl_tap_state */
  IPS_CTL_TAP_STOP = 12,     /* ips_ctl_tap_id -> ips_ctl_tap_state, once the tap has ended */
  IPS_CTL_TAP_WAIT = 13,     /* ips_ctl_tap_id -> ips_ctl_tap_state, once the tap has ended */
  IPS_CTL_TAP_LIST = 14,     /* - -> n x ips_ctl_tap_state */
  IPS_CTL_PATH_MTU = 15,     /* ips_ctl_path_mtu -> - */
  IPS_CTL_SHUTDOWN = 16,     /* - -> - */
  IPS_CTL_PAIR_SET = 17,     /* ips_ctl_pair -> -; again with the same content: nothing */
  IPS_CTL_PAIR_CLEAR = 18,   /* - -> -; the engine is no half of a pair any more */
  IPS_CTL_PAIR_STATE = 19,   /* - -> ips_ctl_pair_state */
  IPS_CTL_PAIR_WAIT = 20,    /* ips_ctl_pair_seen -> ips_ctl_pair_state, as soon as its changes differ */
  IPS_CTL_PAIR_COMMAND = 21, /* ips_ctl_pair_command -> -; taken, or REFUSED; what comes of it is in the state */
  /* ips_control_flows.h: */
  IPS_CTL_FLOWS_SET = 22,    /* ips_ctl_flows -> - */
  IPS_CTL_FLOWS_STATE = 23,  /* - -> ips_ctl_flows_state */
  IPS_CTL_SESSIONS_DUMP = 24, /* ips_ctl_session_filter -> ips_ctl_sessions + fd of ips_session_rec[] */
  IPS_CTL_SESSIONS_CLOSE = 25, /* ips_ctl_session_filter -> ips_ctl_closed */
  IPS_CTL_NAT_ADDRESSES = 26, /* - -> - + fd of ips_napt_address[] */
  IPS_CTL_MIRROR_SET = 27,   /* ips_ctl_mirror -> -; again with the same content: nothing */
  IPS_CTL_MIRROR_CLEAR = 28, /* - -> - */
  IPS_CTL_SESSIONS_FEED = 29, /* ips_ctl_feed [+ fd of ips_ctl_fed[]] -> - */
  /* ips_control_natlog.h: */
  IPS_CTL_NATLOG_SET = 40,   /* ips_ctl_natlog -> -; again with the same content: nothing */
  IPS_CTL_NATLOG_STATE = 41, /* - -> ips_ctl_natlog_state */
  /* ips_control_remap.h: */
  IPS_CTL_REMAP_SET = 50,    /* ips_ctl_remap -> - */
  IPS_CTL_REMAP_CLEAR = 51,  /* ips_ctl_remap_id -> ips_ctl_remap_state */
  IPS_CTL_REMAP_LIST = 52,   /* - -> n x ips_ctl_remap_state */
  IPS_CTL_REMAP_STATE = 53,  /* ips_ctl_remap_id -> ips_ctl_remap_state */
  IPS_CTL_REMAP_FLOWS = 54,  /* ips_ctl_remap_wanted -> ips_ctl_sessions + fd of ips_session_rec[] */
  /* ips_control_dispatch.h: */
  IPS_CTL_DISPATCH_SET = 60, /* ips_ctl_dispatch -> - */
  IPS_CTL_DISPATCH_STATE = 61, /* - -> n x ips_ctl_server_state */
};

enum ips_ctl_status {
  IPS_CTL_OK = 0,
  IPS_CTL_MALFORMED = 1,       /* shorter than a request, foreign magic, or longer than MAX_MESSAGE */
  IPS_CTL_FOREIGN_VERSION = 2, /* the reply's version is the engine's */
  IPS_CTL_UNKNOWN_OP = 3,
  IPS_CTL_BAD_LENGTH = 4,      /* payload is not what the operation takes */
  IPS_CTL_BAD_FD = 5,          /* missing, unwanted, no memfd, not sealed, not writable */
  IPS_CTL_IMAGE_REFUSED = 6,   /* load in ips_ctl_error says why and where */
  IPS_CTL_NO_GENERATION = 7,   /* nothing prepared under this number, nothing to roll back to or to dump */
  IPS_CTL_BAD_ARGUMENT = 8,
  IPS_CTL_NO_SUCH_TAP = 9,
  IPS_CTL_TOO_MANY = 10,       /* taps or clients */
  IPS_CTL_SYSTEM = 11,         /* a system call failed: system_errno */
  IPS_CTL_NO_PAIR = 12,        /* no pair is set */
  IPS_CTL_REFUSED = 13,        /* the pair is in no state for this order; the text says why */
};

struct ips_ctl_request {
  uint32_t magic;
  uint16_t version, op;
  uint32_t seq;      /* copied into the reply */
  uint32_t bytes;    /* of the payload */
};
struct ips_ctl_reply {
  uint32_t magic;
  uint16_t version, op;
  uint32_t seq;
  uint32_t bytes;
  uint32_t status;   /* not OK: the payload is ips_ctl_error */
  uint32_t reserved;
};
struct ips_ctl_error {
  int32_t system_errno;
  int32_t load_error;      /* enum ips_load_error */
  uint32_t section, index; /* of the first bad record */
  char text[240];          /* a sentence, UTF-8, zero-terminated */
};

enum ips_ctl_feature {
  IPS_CTL_FEATURE_TSO = 1,      /* TCP super-packets pass whole */
  IPS_CTL_FEATURE_USO = 2,      /* UDP super-packets too (Linux 6.2) */
  IPS_CTL_FEATURE_URING = 4,    /* workers move small packets in batches, by io_uring */
};
struct ips_ctl_hello {
  uint8_t boot_id[16];      /* of this run of the process */
  uint64_t started_ns;      /* CLOCK_BOOTTIME */
  uint64_t netns;           /* inode of the network namespace of the devices */
  uint32_t pid, workers;
  uint32_t protocol;        /* IPS_CTL_VERSION */
  uint32_t features;        /* IPS_CTL_FEATURE_* */
  uint32_t outer_ifindex, inner_ifindex;
  char outer[16], inner[16];
  char engine_version[32], node[64];
};

struct ips_ctl_generation { uint64_t generation; };

struct ips_ctl_info {
  struct ips_tables_info tables;
  uint64_t now_ns;                    /* CLOCK_BOOTTIME */
  uint64_t reclaimed_bytes;           /* since start */
  uint32_t counter_cells, cells_used; /* capacity of the region; used by the live generation */
  uint32_t clients, taps;
  uint32_t workers_hung, reserved;    /* workers that have a frame in hand since more than 1 s */
};

/* Start of the memfd that COUNTERS returns; the engine writes, everyone else maps it
 * read-only. Array i of worker w lies at offset + w x stride. Each 8-byte number has one writer
 * and is torn by no reader; numbers of different workers are to be added up. */
struct ips_ctl_region {
  uint32_t magic, version;      /* IPS_CTL_MAGIC, IPS_CTL_VERSION */
  uint8_t boot_id[16];
  uint64_t total_bytes;
  uint32_t n_workers, n_cells;
  uint64_t worker_offset, worker_stride;     /* struct ips_ctl_worker */
  uint64_t counters_offset, counters_stride; /* struct ips_counters */
  uint64_t cells_offset, cells_stride;       /* struct ips_cell[n_cells] */
};
struct ips_ctl_worker {
  uint64_t loops;                /* turns of the worker: stands still when asleep = 1; else it hangs */
  uint64_t asleep;               /* 1 while it waits for packets */
  uint64_t sleeps;
  uint64_t tid;                  /* thread id, for CPU accounting */
  uint64_t rx_packets[2], rx_bytes[2]; /* read from the outer, inner device */
  uint64_t tx_packets[2], tx_bytes[2]; /* written back */
  uint64_t tx_refused[2];        /* the kernel refused the write (device down, no memory) */
  uint64_t tx_errno;             /* of the last refusal */
  uint64_t reserved[2];
};

struct ips_ctl_cells { uint32_t index, span; }; /* counter cells of one binding; index ~0: none */

enum ips_ctl_side { IPS_CTL_OUTER = 0, IPS_CTL_INNER = 1 };
/* A packet in a message: bytes follow it. kind, in answers: enum ips_emit. */
struct ips_ctl_packet {
  uint32_t bytes;
  uint8_t side;         /* enum ips_ctl_side */
  uint8_t kind;
  uint8_t gso_type, csum;  /* as in struct ips_pkt */
  uint16_t gso_size, csum_start, csum_offset;
  uint16_t reserved;
};
struct ips_ctl_why {
  uint64_t generation;
  uint32_t verdict, disposition;
  uint32_t counter, endpoint; /* or ~0 */
  uint32_t n_packets;         /* described after this struct */
  uint32_t omitted;           /* further ones; a flow's first packet through NAT */
};

/* What a probe learned about the path to an end point record of the live generation: the
 * smaller of this and the configured MTU holds, for so many seconds. mtu 0 forgets. */
struct ips_ctl_path_mtu { uint32_t endpoint, mtu, seconds, reserved; };

/* ---- a redundant pair: native/rt/ runs it (SYSTEMS.md S2.2, S2.3, S2.6, S3.2) ---- */

enum ips_ctl_pair_const { IPS_CTL_PAIR_PATHS = 4, IPS_CTL_PAIR_VIPS = 16, IPS_CTL_PAIR_CRITERIA = 16, IPS_CTL_PAIR_PUBLICS = 32, IPS_CTL_PAIR_PORTS = 64,
  IPS_CTL_PAIR_ITEMS = 12 };
enum ips_ctl_pair_flags {
  IPS_CTL_PAIR_QUERY = 1,    /* the standby asks; else the active sends heartbeats by itself */
  IPS_CTL_PAIR_PREEMPT = 2,  /* the preferred node becomes active again when it can */
  IPS_CTL_PAIR_PREFERRED = 4, /* this node is it */
  IPS_CTL_PAIR_MIRRORED = 8, /* a MIRROR_SET follows: until then this node has not got the sessions */
};
/* One way between the two nodes, UDP. Addresses: 16 bytes, IPv4 in the first four; ports: host order. */
struct ips_ctl_pair_path {
  uint8_t local[16], remote[16];
  uint16_t local_port, remote_port;
  uint8_t family, reserved[3];
};
/* An address that the active node answers for on an interface, of Linux or of VPP; it is configured nowhere. */
struct ips_ctl_pair_vip {
  uint8_t address[16];
  char interface[64];
  uint8_t family, reserved[7];
};
/* A third voter (ips_witness_api.h), asked over UDP in a sealed channel of its own. */
struct ips_ctl_pair_witness {
  uint8_t key[32];                /* shared by both nodes and the witness, secret */
  uint64_t ttl_ns;                /* how long a grant lasts */
  uint8_t address[16];
  uint16_t port;
  uint8_t family, reserved[5];    /* 0: there is none */
};
enum ips_ctl_pair_criterion_kind {
  IPS_CTL_PAIR_LINK = 1,      /* the interface is up, with carrier */
  IPS_CTL_PAIR_NEIGHBOUR = 2, /* the address answers ARP or neighbour solicitations there */
  IPS_CTL_PAIR_ECHO = 3,      /* the address answers ICMP echo by that interface */
};
/* What an active node should reach (S2.6). Interfaces: as those of VIPs. */
struct ips_ctl_pair_criterion {
  uint64_t interval_ns;           /* between two questions, or looks: 10 ms .. 60 s */
  uint32_t misses;                /* questions without an answer in a row: not met */
  uint8_t address[16];
  char interface[64];
  uint8_t family, kind, reserved[2];
};
/* On-link addresses that the active node answers for and announces, all of a prefix: 65,536 at most. */
struct ips_ctl_pair_public {
  uint8_t address[16];
  char interface[64];
  uint8_t family, prefix_len, reserved[6];
};
/* A part of the configuration by name, so that both nodes can say which one differs. */
struct ips_ctl_pair_item { char name[16]; uint64_t digest; };
struct ips_ctl_pair {
  uint8_t key[32];                /* shared by both nodes, secret */
  uint64_t interval_ns;           /* between two heartbeats: 100 us .. 2 s */
  uint32_t misses;                /* heartbeats missed in a row: the peer is gone */
  uint32_t flags;                 /* enum ips_ctl_pair_flags */
  uint8_t node_id, peer_id;       /* 1 and 2, in the order of the configuration: the same at both nodes */
  uint8_t n_paths, n_vips;
  uint32_t reserved;
  uint64_t config_digest;         /* of what has to be equal at both nodes */
  char node[64], peer[64];        /* names */
  char epoch_file[256];           /* absolute path, on a disk that outlives a reboot */
  struct ips_ctl_pair_path paths[4];
  struct ips_ctl_pair_vip vips[16];
  struct ips_ctl_pair_witness witness;
  uint32_t n_criteria, criteria_needed; /* of them have to be met */
  struct ips_ctl_pair_criterion criteria[16];
  uint32_t n_publics, n_ports;
  struct ips_ctl_pair_public publics[32];
  char ports[64][64];             /* interfaces that are up while this node is active, else down */
  uint32_t n_items, zero;
  struct ips_ctl_pair_item items[12];
};
struct ips_ctl_pair_seen { uint64_t changes; };
enum ips_ctl_pair_order {
  IPS_CTL_PAIR_SWITCHOVER = 1,  /* the active hands over to the standby, if that is ready */
  IPS_CTL_PAIR_FORCE = 2,       /* this node becomes active without having heard its peer; the operator vouches */
  IPS_CTL_PAIR_MAINTENANCE = 3, /* argument 1: this node is inop until argument 0 */
};
struct ips_ctl_pair_command { uint32_t order, argument; };
struct ips_ctl_pair_state {
  uint64_t changes;               /* how often the state changed since PAIR_SET; PAIR_WAIT compares it */
  uint64_t since_ns;              /* CLOCK_BOOTTIME of the last change */
  uint64_t now_ns;
  uint64_t epoch;                 /* counter of the highest epoch known; 0: none */
  uint64_t forward_until_ns;      /* the lease: translating stops then unless it is extended; 0: none */
  uint64_t peer_heard_ns;         /* last authenticated datagram of the peer; 0: never */
  uint64_t sent, received;        /* datagrams */
  uint64_t refused;               /* not authenticated, replayed, malformed, of another version */
  uint64_t jitter_ns;             /* lateness of the real-time thread, 99th percentile or worse */
  uint64_t vip_answers, vip_refused, announcements;
  uint64_t granted_until_ns;      /* the witness supports this node's reign until then; 0: it never did */
  uint32_t state, old_state;      /* enum ips_pair_state: initial, active, standby, inop */
  uint32_t reason;                /* enum ips_pair_reason of the last change */
  uint32_t epoch_node;            /* node id of that epoch */
  uint32_t peer_state;            /* as it said last */
  uint32_t paths_up;              /* bit i: the peer was heard on path i within the dead time */
  uint32_t links_down;            /* bit i: the interface of VIP i is down or gone */
  uint32_t flags;                 /* enum ips_ctl_pair_note */
  uint32_t criteria_failed;       /* bit i: criterion i is not met */
  uint32_t publics_down;          /* bit i: the interface of public prefix i is down or gone */
  uint64_t ports_wrong;           /* bit i: sub-interface i is gone, or not up or down as it is to be */
  /* How late the real-time thread was, by more than a quarter of a lease; late[i] counts why i + 1. */
  uint64_t pauses;                /* how often it was away for so long that silence counts anew after it */
  uint64_t last_late_at_ns;       /* CLOCK_BOOTTIME; 0: it never was */
  uint64_t last_late_ns;          /* by how much */
  uint64_t late[5], longest_late_ns[5];
  uint32_t last_late;             /* enum ips_ctl_pair_late */
  uint32_t differs;               /* bit i: items[i] differs at the peer, or is missing there */
};
enum ips_ctl_pair_late {
  IPS_CTL_PAIR_LATE_MACHINE = 1,   /* the machine stood still (a hypervisor), an interrupt took long, SIGSTOP */
  IPS_CTL_PAIR_LATE_PROCESSOR = 2, /* it was ready and got no processor */
  IPS_CTL_PAIR_LATE_WORK = 3,      /* what it did in one turn took long */
  IPS_CTL_PAIR_LATE_LOCK = 4,      /* in a turn it waited: for a lock, a page, a device */
  IPS_CTL_PAIR_LATE_WORKER = 5,    /* not the thread: a packet thread did not advance for the lease's time */
};
enum ips_ctl_pair_note {
  IPS_CTL_PAIR_REALTIME = 1,      /* the thread has real-time priority */
  IPS_CTL_PAIR_WRONG_KEY = 2,     /* datagrams come from the peer's address that another key sealed */
  IPS_CTL_PAIR_MISMATCH = 4,      /* the peer's config_digest differs */
  IPS_CTL_PAIR_SAME_NODE = 32,    /* who speaks there says that it is this node, not its peer */
  IPS_CTL_PAIR_NO_WITNESS = 16,   /* it is not heard: not reached, not there, or with another key */
  IPS_CTL_PAIR_OTHER_VERSION = 64, /* the peer speaks no version of the protocol that is spoken here */
  IPS_CTL_PAIR_READY = 128,       /* a switchover would be taken now, asked here */
  IPS_CTL_PAIR_NO_EPOCH_FILE = 8, /* it could not be read or written: this node does not become active */
};

enum ips_tap_target {
  IPS_TAP_FILE = 1,      /* pcapng to the fd that came with the request: a file or a pipe */
  IPS_TAP_INTERFACE = 2, /* out of a network interface */
  IPS_TAP_COLLECTOR = 3, /* VXLAN (RFC 7348) to a collector */
};
enum ips_tap_flags {
  IPS_TAP_BEFORE = 1, /* packets as they came */
  IPS_TAP_AFTER = 2,  /* packets as they went */
  IPS_TAP_MARKED = 4, /* only packets whose binding asks for a copy (IPS_BINDING_COPY) */
  IPS_TAP_OWNED = 8,  /* ends when the client that started it is gone */
};
/* One capture or one copy rule (S1.16). Filters are joined by "and". */
struct ips_ctl_tap {
  uint32_t target, flags;
  uint32_t sides;                    /* bit 0 outer, bit 1 inner */
  uint32_t sample;                   /* 1 of so many, at random; >= 1 */
  uint32_t snaplen;                  /* bytes kept of each packet; 0: all */
  uint32_t cell_first, cell_count;   /* counter cells of the bindings wanted; count 0: any */
  uint32_t max_ms;                   /* ends by itself after this; 0: never */
  uint64_t max_packets;              /* 0: no limit */
  uint64_t verdicts;                 /* bit per verdict; 0: all */
  char interface[16];                /* INTERFACE */
  uint8_t mac[6];                    /* INTERFACE: destination address; zero: broadcast */
  uint16_t collector_port;           /* COLLECTOR; 0: 4789 */
  uint8_t collector[16];
  uint32_t vni;                      /* 24 bits */
  uint32_t collector_family;         /* 4 or 6 */
};
struct ips_ctl_tap_id { uint64_t id; };
enum ips_tap_status { IPS_TAP_ACTIVE = 1, IPS_TAP_STOPPING = 2, IPS_TAP_ENDED = 3, IPS_TAP_LEAVING = 4 };
struct ips_ctl_tap_state {
  uint64_t id;                 /* never used again by this process */
  uint64_t started_ns;         /* CLOCK_BOOTTIME */
  uint64_t packets, bytes;     /* delivered; bytes as kept */
  uint64_t lost_ring;          /* at most: the worker's ring was full, filters were not asked yet */
  uint64_t lost_target;        /* the target refused or was too slow */
  uint32_t status;             /* enum ips_tap_status */
  uint32_t target_errno;       /* of the target's last refusal */
  struct ips_ctl_tap tap;
};
#endif
