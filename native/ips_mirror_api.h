/* ips_mirror_api.h: session changes from an active node to its standbys, losslessly or with an honest resync.
 *
 * Workers push changes into a ring each; one thread ticks: it packs them into sealed datagrams
 * (ips_seal_api.h), resends what was lost, and applies what a peer's active node sends. What does not fit
 * is never lost silently: the standby is no longer ready and gets a snapshot. No socket, no clock, all
 * memory at creation. Same object at both ends: a node is active in an epoch, or standby.
 *
 * Rules for the table behind it: a change is pushed under the session's lock after the table shows it;
 * versions rise with each change, also over deletion and reopening of the same flow; scan() copies whole
 * records and misses none that is there from its first call to its last.
 */
#ifndef IPS_MIRROR_API_H
#define IPS_MIRROR_API_H
#include "ips_flow_api.h"
#include "ips_seal_api.h"

enum ips_mirror_const {
  IPS_MIRROR_PEERS = 8,
  IPS_MIRROR_WORKERS = 66, /* packet threads, the mirror's own and the control thread */
  IPS_MIRROR_SHARDS = 256,
  IPS_MIRROR_RECORD = 120,  /* octets of the longest record on the wire */
};

struct ips_mirror_source {
  void *arg;
  /* Copies up to room records from *cursor on (0: the beginning) and moves it; *cursor = ~0: that was the
   * end. Returns how many. */
  size_t (*scan)(void *arg, uint64_t *cursor, struct ips_session_rec *out, size_t room);
};
struct ips_mirror_sink {
  void *arg;
  /* By version: what is not newer than the session has changes nothing, but counts as confirmed by the
   * snapshot that is open. 0: done or known; -1: refused (no room, a realm that does not exist here). */
  int (*apply)(void *arg, int op, const struct ips_session_rec *rec);
  /* shard -1: of the whole table. is_new_origin: versions of before do not compare with those that come. */
  void (*begin_snapshot)(void *arg, int shard, bool is_new_origin);
  /* is_complete: sessions (of the shard) that nothing confirmed since begin_snapshot go; else all stay. */
  void (*end_snapshot)(void *arg, int shard, bool is_complete);
  /* Sums of ips_mirror_digest over the sessions of each shard, as they are when it begins, whatever is applied
   * after that; a part of the table for each call, one at each tick. Begins: anew. 1: done; 0: call again; -1:
   * they cannot be had now. */
  int (*digest)(void *arg, bool begins, uint64_t *sums);
};

struct ips_mirror_config {
  uint32_t workers;         /* 1 .. 64 */
  uint32_t ring;            /* changes per worker; power of two >= 4 */
  uint32_t window;          /* datagrams under way to each peer, and held out of order; 2^1 .. 2^14 */
  uint32_t tombstones;      /* deletions remembered for late changes, per peer; power of two >= 8 */
  uint32_t burst;           /* datagrams per tick and peer */
  uint32_t scan;            /* records that a tick scans at most */
  uint32_t n_peers;
  uint16_t must_match;      /* items of the seals' configuration without which no stream begins */
  uint64_t rto_ns;          /* least time before a datagram is sent again without other evidence */
  uint64_t idle_ns;         /* an open stream says at least so often how far it is */
  uint64_t digest_ns;       /* between two comparisons of digests; 0: never */
  uint64_t backoff_ns;      /* before a stream that was refused begins anew; doubles up to 64 times */
  struct ips_seal *seals[8]; /* one for each peer; the caller's, to be freed after the mirror */
  struct ips_mirror_source source;
  struct ips_mirror_sink sink;
};
/* Each datagram to be sent to a peer; `bytes` is valid during the call only. */
typedef void (*ips_mirror_emit_fn)(void *arg, uint32_t peer, const uint8_t *bytes, size_t len);
/* Opened datagrams of a type that is not the mirror's (the pair's heartbeats). */
typedef void (*ips_mirror_other_fn)(void *arg, uint32_t peer, uint8_t type, const uint8_t *plain, size_t len);

struct ips_mirror;
struct ips_mirror *ips_mirror_new(const struct ips_mirror_config *c); /* NULL: no memory or out of range */
void ips_mirror_free(struct ips_mirror *m);

/* ---- workers ---------------------------------------------------------------- */

/* A worker's own ring. Returns the change's number there, from 1; 0: full, counted, resync follows. */
uint64_t ips_mirror_push(struct ips_mirror *m, uint32_t worker, int op, const struct ips_session_rec *rec);
enum ips_mirror_commit {
  IPS_COMMIT_WAIT = 0,      /* not every ready standby has it yet */
  IPS_COMMIT_DONE = 1,      /* every ready standby has applied it */
  IPS_COMMIT_ALONE = 2,     /* no standby is ready: nothing to wait for */
};
int ips_mirror_committed(const struct ips_mirror *m, uint32_t worker, uint64_t number); /* any thread */

/* ---- the real-time thread ---------------------------------------------------- */

/* Active in this epoch (> 0), or standby, knowing of it. A node begins as standby in epoch 0. Streams are
 * ended, what was applied stays. false: a higher epoch is known here, the node stays what it is. */
bool ips_mirror_set_role(struct ips_mirror *m, bool is_active, uint64_t epoch);
/* A datagram from a peer. Returns what the seal said (ips_seal.def). */
int ips_mirror_input(struct ips_mirror *m, uint32_t peer, const uint8_t *bytes, size_t len, uint64_t now_ns);
/* The same after the seal, for hosts that open datagrams themselves. */
void ips_mirror_message(struct ips_mirror *m, uint32_t peer, const uint8_t *plain, size_t len,
                        uint64_t now_ns);
void ips_mirror_set_other(struct ips_mirror *m, ips_mirror_other_fn other, void *arg);
/* Takes changes out of the rings, sends, acknowledges, resends. To be called every millisecond or oftener,
 * and after a batch of input. */
void ips_mirror_tick(struct ips_mirror *m, uint64_t now_ns, ips_mirror_emit_fn emit, void *arg);

enum ips_mirror_phase {
  IPS_MIRROR_OFF = 0,       /* no stream: standby, no channel, or configuration differs */
  IPS_MIRROR_WAITING = 1,   /* refused: begins anew later */
  IPS_MIRROR_SNAPSHOT = 2,
  IPS_MIRROR_FENCE = 3,     /* snapshot sent; the rings are not yet past it */
  IPS_MIRROR_LIVE = 4,
};
enum ips_mirror_refusal {   /* what a standby says */
  IPS_REFUSED_NOT = 0, IPS_REFUSED_EPOCH = 1, IPS_REFUSED_BOOT = 2, IPS_REFUSED_ACTIVE = 3,
  IPS_REFUSED_APPLY = 4, IPS_REFUSED_MALFORMED = 5, IPS_REFUSED_TOMBSTONES = 6,
  IPS_REFUSED_ENDED = 7, /* by a change of roles */
};
struct ips_mirror_peer_stats {
  uint8_t phase;            /* of the stream to this peer */
  bool is_ready;            /* it has applied the snapshot and everything up to the fence behind it */
  uint8_t refusal;          /* enum ips_mirror_refusal: the last one of the peer */
  bool feeds_us;            /* a stream from this peer is open here, */
  bool is_complete;         /* and we are ready */
  uint32_t stream;          /* number of the stream to it */
  uint64_t refused_epoch;   /* the epoch that the peer named when it refused ours */
  uint64_t lag_events, lag_ns, under_way, round_trip_ns; /* to it; under_way: datagrams */
  uint64_t heard_ns;        /* last datagram of its stream */
};
struct ips_mirror_stats {
  uint64_t counters[64];    /* ips_mirror.def */
  uint64_t epoch;           /* the highest known */
  bool is_active;
  struct ips_mirror_peer_stats peers[8];
};
void ips_mirror_stats(const struct ips_mirror *m, uint64_t now_ns, struct ips_mirror_stats *out);
int ips_mirror_counters(void);
const char *ips_mirror_counter_name(int i);
const char *ips_mirror_counter_text(int i);
size_t ips_mirror_memory(const struct ips_mirror *m); /* octets taken by ips_mirror_new */

/* ---- for tables ---------------------------------------------------------------- */

uint8_t ips_mirror_shard(const struct ips_flow *f); /* the same on every node */
uint64_t ips_mirror_digest(const struct ips_session_rec *r); /* not of ages and counters */
/* One record as it is on the wire, and back. Octets written, read; 0: not a record. */
size_t ips_mirror_put(uint8_t *out, int op, const struct ips_session_rec *r);
size_t ips_mirror_get(const uint8_t *in, size_t len, int *op, struct ips_session_rec *r);

/* ---- benchmarks (ips_bench_mirror.c) --------------------------------------------- */

struct ips_mirror_bench {
  uint64_t sender_ns, receiver_ns; /* processor time of either node's thread */
  uint64_t network_ns;             /* time of the simulated network, in rounds of a millisecond */
  uint64_t datagrams, resent, lost, streams, memory; /* of the sender; lost: both ways; memory: octets */
};
/* `events` changes, at most `rate` of them a millisecond, over a network that loses so many in a million
 * and has this round trip; or, with sessions > 0 (and events 0), a snapshot of so many. -1: no memory, or
 * the standby was not told each of them exactly once. */
int ips_bench_mirror(struct ips_mirror_bench *out, uint64_t events, uint64_t sessions, uint64_t rate,
                     uint32_t loss_ppm, uint64_t round_trip_ns);

#endif
