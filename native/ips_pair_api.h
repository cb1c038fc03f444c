/* ips_pair_api.h: who of two nodes is active: values in, a short list of actions out.
 *
 * The machine is one plain struct without pointers: copy it to remember it. It knows no clock, socket,
 * thread or disk. The host drains its sockets (ips_pair_message), then calls ips_pair_tick, at least every
 * tick_ns; it carries out the actions in their order. Time is CLOCK_BOOTTIME in ns, the same for all calls
 * and for the workers that compare it with IPS_PAIR_LEASE. Every call costs the same however long the
 * machine has run.
 *
 * An epoch is one reign: (counter, node). Its counter is on disk before a reign uses it (IPS_PAIR_PERSIST,
 * ips_pair_persisted). Sources: DESIGN.md 9; SYSTEMS.md S2.2, S2.6, S3.2, S3.3, S3.7. Read by cffi too.
 */
#ifndef IPS_PAIR_API_H
#define IPS_PAIR_API_H
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>

enum ips_pair_limits { IPS_PAIR_PATHS = 8, IPS_PAIR_ACTIONS = 24, IPS_PAIR_BYTES = 64,
    IPS_PAIR_WORKERS = 64 };
enum ips_pair_state {
  IPS_PAIR_INITIAL = 1, /* until the access link is up and the peer was heard, or did not speak for hold_ns */
  IPS_PAIR_ACTIVE = 2,  /* has a reign; forwards while its lease runs */
  IPS_PAIR_STANDBY = 3,
  IPS_PAIR_INOP = 4,    /* a fact forbids to be active now */
};
enum ips_pair_mode {
  IPS_PAIR_HEARTBEATS = 0, /* both speak once in an interval */
  IPS_PAIR_QUERIES = 1,    /* who is not active asks, the active answers; nobody asks: it speaks by itself */
};

/* Durations in ns. ips_pair_check says which claim about them does not hold. */
struct ips_pair_config {
  uint32_t node, peer;       /* ids, not 0; of equal counters the higher node's epoch is the higher */
  uint32_t clock_ppm;        /* bound of each clock's rate error */
  uint8_t n_paths;           /* 1 .. IPS_PAIR_PATHS ways to the peer; two are the least that makes sense */
  uint8_t mode;              /* enum ips_pair_mode */
  uint8_t witness;           /* 1: active needs the word of the peer or of the witness */
  uint8_t preempt;           /* 1: the higher priority takes over again, when its mirror is up to date */
  uint8_t priority;
  uint8_t losses;            /* n: dead time >= n intervals */
  uint8_t jitter_times;      /* k: dead time >= k times the measured jitter */
  uint8_t zero;
  uint64_t tick_ns;          /* the host ticks at least so often */
  uint64_t interval_ns;      /* 100 us .. 2 s between two heartbeats or queries */
  uint64_t dead_ns;          /* silence after which the peer is taken for dead */
  uint64_t lease_ns;         /* how long a node may forward after it last spoke */
  uint64_t floor_ns;         /* least dead time on this kind of machine */
  uint64_t jitter_ns;        /* measured: scheduling and path */
  uint64_t late_ns;          /* a longer gap between two ticks is a pause */
  uint64_t stall_ns;         /* a worker that did not advance for so long stands still */
  uint64_t hold_ns;          /* how long a started node waits for its peer */
  uint64_t preempt_hold_ns;  /* how long it has been standby before it preempts */
  uint64_t witness_ttl_ns;   /* how long a grant of the witness lasts */
  uint64_t witness_ask_ns;   /* between two questions to the witness */
};

/* Present facts; the only input that decides inop. */
struct ips_pair_facts {
  uint64_t workers_ns;  /* when the slowest worker was last seen to advance (ips_pair_slowest) */
  uint8_t link_up;      /* access link */
  /* User-defined reachability (S2.6). Not met: inop as long as the peer is heard, ready, and meets them. */
  uint8_t criteria_ok;
  uint8_t loaded;       /* the data path has a generation */
  uint8_t mirror_ready; /* sessions of the peer are here, up to date */
};

struct ips_pair_epoch { uint64_t counter; uint32_t node; uint32_t zero; }; /* counter 0: none */

enum ips_pair_kind {
  IPS_PAIR_HEARTBEAT = 1,
  IPS_PAIR_QUERY = 2,   /* to be answered at once */
  IPS_PAIR_ANSWER = 3,
  IPS_PAIR_RESIGN = 4,  /* the sender's reign `epoch` has ended: take over */
};
enum ips_pair_flags {
  IPS_PAIR_FORWARDS = 1, /* the sender's lease runs */
  IPS_PAIR_MIRROR = 2,   /* its mirror is up to date */
  IPS_PAIR_ELIGIBLE = 4, /* standby, and an epoch is reserved on disk */
  IPS_PAIR_CLAIM = 8,    /* asks for the receiver's vote for reign `claim` */
  IPS_PAIR_VOTE = 16,    /* the sender's vote is the receiver's, for reign `claim`, until echo + lease_ns */
  IPS_PAIR_WANT = 32,    /* the standby asks the active to resign */
  IPS_PAIR_CUT_OFF = 64, /* its reachability criteria are not met */
};
struct ips_pair_msg {
  uint8_t kind, state, flags, priority;
  uint32_t node;
  uint64_t boot;      /* of the sender, not 0 */
  uint64_t to_boot;   /* of the receiver, as the sender knows it; 0: never heard */
  uint64_t sent_ns;   /* sender's clock; no two messages of one boot have the same */
  uint64_t echo_ns;   /* highest sent_ns that the sender got of to_boot; 0: none */
  uint64_t claim;     /* counter of a claim or vote */
  struct ips_pair_epoch epoch; /* highest reign that the sender knows of */
};
/* Writes IPS_PAIR_BYTES. */
void ips_pair_encode(const struct ips_pair_msg *m, uint8_t *out);
/* 0, or the number of a refusal (ips_pair_refusal); *m is written only where it is 0. */
int ips_pair_decode(const uint8_t *bytes, size_t n, struct ips_pair_msg *m);
int ips_pair_refusals(void);               /* how many there are */
const char *ips_pair_refusal(int number);  /* a sentence; NULL out of range */

enum ips_pair_action_kind {
  IPS_PAIR_SEND = 1,      /* msg, on each path */
  /* value: forward_until; a worker that reads a later clock drops (PAIR_NOT_ACTIVE) */
  IPS_PAIR_LEASE = 2,
  IPS_PAIR_PERSIST = 3,   /* value: a counter to be on disk, then ips_pair_persisted */
  IPS_PAIR_STATE = 4,     /* from, to, reason (ips_pair_reason) */
  IPS_PAIR_ANNOUNCE = 5,  /* gratuitous ARP and unsolicited neighbour advertisements, for each VIP */
  IPS_PAIR_ASK = 6,       /* ask the witness for reign `value`; hand ips_pair_witness this action's at_ns */
  IPS_PAIR_RELEASE = 7,   /* give the witness's grant for reign `value` back */
};
struct ips_pair_action {
  uint8_t kind, from, to, reason;
  uint32_t zero;
  uint64_t value, at_ns;
  struct ips_pair_msg msg;
};
struct ips_pair_actions { uint32_t n, zero; struct ips_pair_action a[IPS_PAIR_ACTIONS]; };

enum ips_pair_command {
  IPS_PAIR_SWITCHOVER = 1,  /* active: hand over; standby: ask the active to */
  /* the operator vouches that the peer forwards nothing: do without epoch file, peer, witness */
  IPS_PAIR_FORCE = 2,
  IPS_PAIR_MAINTENANCE = 3, /* inop until IPS_PAIR_SERVICE */
  IPS_PAIR_SERVICE = 4,
};
enum ips_pair_answer { IPS_PAIR_GRANTED = 1, IPS_PAIR_REFUSED = 2, IPS_PAIR_UNKNOWN = 3 };

struct ips_pair_peer {       /* what is known of the other node */
  uint64_t boot, old_boot;
  uint64_t heard_ns;         /* own clock, of its newest message; 0: never */
  uint64_t sent_ns;          /* its clock, of that message */
  uint64_t echo_ns;          /* own clock, of the newest own message that it got */
  int64_t offset_ns;         /* least (own clock - its clock) seen, for finding own frozen clock */
  uint64_t claim;            /* it asks for a vote for this reign; 0: it does not */
  struct ips_pair_epoch epoch;
  uint8_t kind, state, flags, priority, zero[4];
};
struct ips_pair {
  struct ips_pair_config cfg;
  struct ips_pair_facts facts;
  struct ips_pair_peer peer;
  uint64_t boot;
  /* another run of the peer, asked to prove that it is the present one */
  uint64_t other_boot, other_sent_ns, greeted_ns;
  uint64_t now_ns;           /* of the latest call */
  uint64_t started_ns, link_ns, resumed_ns, entered_ns; /* start; link came up; pause ended; state entered */
  struct ips_pair_epoch highest;  /* highest reign known */
  uint64_t reign;            /* own counter while active, else 0 */
  uint64_t floor;            /* counters up to this may have been used before the start */
  uint64_t durable, persisting, persist_at_ns; /* on disk; asked for, and when */
  uint64_t stamp_ns, next_send_ns, sent_ns;    /* last sent_ns given out; when due; when last spoken */
  uint64_t forward_until_ns; /* the lease; 0: none */
  uint64_t confirm_ns;       /* active, but must hear the epoch asked for at this time; 0: no */
  uint64_t claim, claim_ns;  /* the vote is asked for this reign, since; 0: no */
  uint64_t vote, vote_until_ns;       /* the peer's vote is ours for this reign */
  uint64_t promise, promise_until_ns; /* our vote is the peer's for this reign */
  uint64_t grant, grant_until_ns, asked_ns, ask_at_ns; /* the witness's */
  uint64_t resign_until_ns;  /* repeat RESIGN until then */
  uint64_t want_until_ns;    /* the operator wants this node active */
  uint64_t announce_ns;      /* next announcement */
  uint64_t late_max_ns;      /* longest gap between ticks that was no pause: feeds jitter_ns */
  uint32_t pauses, contests;
  uint8_t state, reason, announced, maintenance;
  uint8_t knows;             /* has the right to claim an epoch: file, peer, witness or operator */
  uint8_t forced, yielded, send_now, answer_now, contested, greet_now;
  uint8_t alone;             /* nothing was heard for a dead time in which this node was there, nor since */
  uint8_t lapsed;            /* its lease ran out while it was alone and away: the next tick says what follows */
  uint8_t zero[3];
};

/* boot: random, not 0, another one at each start. has_file: `counter` was read from the epoch file. */
void ips_pair_start(struct ips_pair *m, const struct ips_pair_config *cfg, uint64_t boot, bool has_file,
                    uint64_t counter, uint64_t now_ns);
/* Each replaces what is in *out. */
void ips_pair_tick(struct ips_pair *m, uint64_t now_ns, struct ips_pair_actions *out);
/* A decoded message, whichever path it came by. Returns 0 or a refusal. */
int ips_pair_message(struct ips_pair *m, const struct ips_pair_msg *msg, uint64_t now_ns,
                     struct ips_pair_actions *out);
void ips_pair_set_facts(struct ips_pair *m, const struct ips_pair_facts *facts, uint64_t now_ns,
                        struct ips_pair_actions *out);
/* Why a switchover is refused now; NULL: it is not. */
const char *ips_pair_unready(const struct ips_pair *m);
/* NULL, or why nothing was done. */
const char *ips_pair_order(struct ips_pair *m, int command, uint64_t now_ns, struct ips_pair_actions *out);
/* ok: `counter` is on disk and the directory is synchronised. */
void ips_pair_persisted(struct ips_pair *m, uint64_t counter, bool ok, uint64_t now_ns,
                        struct ips_pair_actions *out);
/* answer: enum ips_pair_answer to the question asked at asked_ns for reign `counter`; highest: what the
 * witness last granted to anyone, counter 0 where it says nothing. */
void ips_pair_witness(struct ips_pair *m, int answer, uint64_t counter, struct ips_pair_epoch highest,
                      uint64_t asked_ns, uint64_t now_ns, struct ips_pair_actions *out);

/* what a worker does: OK or PAIR_NOT_ACTIVE (ips_pair_gate) */
int ips_pair_gate_at(uint64_t lease, uint64_t now_ns);
const char *ips_pair_state_name(int state); /* "active"; NULL out of range */
int ips_pair_reasons(void);
const char *ips_pair_reason(int reason);    /* a sentence */
const char *ips_pair_reason_name(int reason); /* "PEER_SILENT" */

/* The claims about a configuration: bit i of the result is set where rule i does not hold. Pure. */
uint64_t ips_pair_check(const struct ips_pair_config *cfg);
int ips_pair_rules(void);
const char *ips_pair_rule_name(int rule);
const char *ips_pair_rule(int rule);        /* the claim as a sentence */

/* When did the slowest worker advance? Keeps each one's last counter. */
struct ips_pair_workers { uint64_t seen[IPS_PAIR_WORKERS], at_ns[IPS_PAIR_WORKERS]; };
uint64_t ips_pair_slowest(struct ips_pair_workers *w, const uint64_t *progress, uint32_t n, uint64_t now_ns);

#endif
