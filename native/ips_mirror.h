/* ips_mirror.h: the inside of the mirror, for its own files.
 *
 * worker -> ring (ips_mirror_ring.c) -> batch in a window slot (ips_mirror_fill.c: changes, scans, marks) ->
 * sealed datagram, until acknowledged (ips_mirror_send.c) -> window of the receiver, in order
 * (ips_mirror_recv.c), tombstones (ips_mirror_tomb.c) -> the table. ips_mirror_wire.c: records;
 * ips_mirror.c: life, ticks, figures.
 *
 * A message is 30 octets of head and entries. The head says which transmission it is, and when it was made;
 * an acknowledgement says that of the latest one that arrived: so what was sent again is told from what was
 * late, and a round trip is known for certain. Entries of a stream are in one order: change by change, with
 * marks between them. A *set* is what the rings held when their heads were read; a change made before another
 * one (under the same lock) is in its set or an earlier one, or in the next: so a deletion has to be
 * remembered until the end of the next set, not longer.
 */
#ifndef IPS_MIRROR_H
#define IPS_MIRROR_H
#include "ips_core.h"
#include "ips_mirror_api.h"

enum ips_mirror_counter {
#define M(name, text) IPS_M_##name,
#include "ips_mirror.def"
#undef M
  IPS_M_N
};

enum {
  /* kind, 0, epoch (8), stream (4), sequence (8); transmission (4), when in microseconds (4) */
  IPS_MIRROR_HEAD = 30, IPS_MIRROR_SENT = 22,
  IPS_MIRROR_PLAIN = IPS_SEAL_DATAGRAM - IPS_SEAL_OVERHEAD,
  IPS_MIRROR_SLICE = 64, /* records per call of scan() */
  IPS_MIRROR_RANGES = 32,
  IPS_MIRROR_SUMS = 2 + 32 + 4 * IPS_MIRROR_SHARDS, /* octets of the digests' entry */
  /* octets of the messages, an ack's without its ranges: kind, flags, refusal, ranges, stream (4),
     cumulative (8), window (2), epoch (8), the latest transmission as it said of itself (8) */
  IPS_MIRROR_ACK = 34, IPS_MIRROR_LATEST = 26, IPS_MIRROR_DIVERGED = 40,
  IPS_ACK_READY = 1, IPS_ACK_REFUSED = 2,
};
enum ips_mirror_kind { IPS_MSG_DATA = 1, IPS_MSG_PROBE = 2, IPS_MSG_ACK = 3, IPS_MSG_DIVERGED = 4 };
/* Entries: 1 and 2 in the two low bits are enum ips_session_op; those of the stream itself are: */
enum ips_mirror_mark {
  IPS_MARK_BEGIN = 0xf0,   /* and one octet 0: snapshot of everything begins */
  IPS_MARK_END = 0xf1,     /* and 0: it is complete, and so is what changed meanwhile */
  IPS_MARK_SET = 0xf2,     /* and 0: end of a set */
  IPS_MARK_SHARD = 0xf3,   /* and its number: snapshot of one shard begins */
  IPS_MARK_SHARD_END = 0xf4,
  IPS_MARK_SUMS = 0xf5,    /* and 0, 256 bits (32): which are compared, low halves of 256 sums */
};

struct ips_mirror_ring {
  uint64_t head __attribute__((aligned(64))); /* pushed; written by the worker */
  uint64_t tail_seen;                         /* the worker's */
  uint64_t full;
  uint64_t tail __attribute__((aligned(64))); /* read by every peer; written by the thread */
  uint64_t committed;
  struct ips_mirror_event { struct ips_session_rec rec; uint64_t op; } *events;
};

struct ips_mirror_slot {
  uint64_t first_ns, sent_ns, order; /* order: of its last transmission among all */
  uint16_t len;
  bool is_acked, was_sent;
};

enum ips_mirror_job { IPS_JOB_NONE, IPS_JOB_SNAPSHOT, IPS_JOB_SHARDS, IPS_JOB_SUMS };

/* Of a boot id of the seals: the bits that name the process. A mirror set anew in the same process, which
 * still has its sessions, takes others above them, and may keep its epoch. */
#define IPS_MIRROR_RUN ((1ull << 48) - 1)

struct ips_mirror_tx {
  enum ips_mirror_phase phase;
  bool is_ready, is_resync_wanted;
  uint8_t refusal, refusals;   /* the last one; in a row */
  uint32_t stream;
  uint64_t peer_boot, refused_epoch, begin_ns;
  /* the window: built, sent, acknowledged */
  uint64_t next, sent, acked;  /* sequence being built; next to be sent; all up to here are acknowledged */
  uint16_t peer_window;
  uint16_t fill;               /* octets in the batch being built; 0: none is */
  struct ips_mirror_slot *slots;
  uint8_t *bytes;
  uint64_t *marks;             /* per slot: each ring's cursor behind it */
  uint64_t config_opened;      /* the seal's stream whose configuration differed */
  uint64_t order, order_acked, spoke_ns, check_ns, srtt_ns, rttvar_ns;
  bool check_now;
  uint8_t timeouts;            /* in a row, since a transmission was told to have arrived */
  /* the rings */
  uint64_t *cursor, *target, *done; /* read; end of the set; acknowledged */
  uint8_t marks_due;           /* ends of sets to be told */
  bool in_set, is_first_set;
  /* what is scanned */
  enum ips_mirror_job job;
  bool scanned, fence_set;     /* scan done; and a set begun since */
  uint64_t scan_cursor, end_seq, sums_ns;
  uint32_t slice_n, slice_at;
  uint16_t told;               /* shards or sums that a mark was written for */
  struct ips_session_rec slice[IPS_MIRROR_SLICE];
  uint64_t shards[4], diverged[4], dirty[4]; /* bits: of this job; for the next one; changed while scanned */
  uint64_t sums[IPS_MIRROR_SHARDS];
};

struct ips_mirror_tomb {
  struct ips_flow flow;
  uint64_t version;            /* 0: free */
};
struct ips_mirror_tombs {
  uint32_t mask, n[2];
  unsigned young;              /* which of the two */
  struct ips_mirror_tomb *at[2];
  uint32_t *used[2];
};

struct ips_mirror_rx {
  bool is_open, is_complete, in_snapshot, ack_due, was_fed, diverged_due;
  uint8_t refusal;
  uint64_t open_shards[4];     /* whose snapshots have begun */
  uint32_t stream;             /* the last one that was heard of */
  uint64_t boot, epoch, next, highest, heard_ns;
  uint32_t order, sent_us;     /* of the latest transmission that arrived, as it says of itself; 0: none */
  uint16_t *lens;              /* per slot; 0: not here */
  uint8_t *bytes;
  struct ips_mirror_tombs tombs;
  uint64_t diverged[4];        /* to be told */
  bool is_summing;             /* the own digests are being counted, to be compared with these */
  uint64_t compared[4];        /* shards */
  uint32_t sums[IPS_MIRROR_SHARDS];
};

struct ips_mirror_peer {
  struct ips_seal *seal;
  struct ips_mirror_tx tx;
  struct ips_mirror_rx rx;
};

struct ips_mirror {
  struct ips_mirror_config c;
  struct ips_mirror_ring *rings;
  struct ips_mirror_peer peers[IPS_MIRROR_PEERS];
  uint64_t alone;              /* atomic: no standby is ready */
  uint64_t resync_needed;      /* atomic: set by workers */
  bool is_active, epoch_is_own;
  uint64_t epoch;              /* the highest known, */
  uint32_t epoch_peer;         /* and whose: a peer's number; ~0: our own, or told by the host */
  uint32_t streams;            /* numbers given */
  uint64_t origin_boot, origin_epoch; /* whose versions the table's are, */
  uint32_t origin_peer;        /* ~0: our own */
  ips_mirror_other_fn other;
  void *other_arg;
  uint64_t counters[IPS_M_N];  /* RING_FULL is in the rings */
  size_t memory;
  uint8_t plain[IPS_SEAL_DATAGRAM], sealed[IPS_SEAL_DATAGRAM];
};

#define ips_mcount(m, name) ((m)->counters[IPS_M_##name]++)

static inline void ips_put64(uint8_t *p, uint64_t v) { v = ips_be64(v); memcpy(p, &v, 8); }
static inline void ips_put32(uint8_t *p, uint32_t v) { ips_st32(p, ips_be32(v)); }
static inline void ips_put16(uint8_t *p, uint16_t v) { ips_st16(p, ips_be16(v)); }
static inline uint64_t ips_get64(const uint8_t *p) { return ips_be64(ips_ld64(p)); }
static inline uint32_t ips_get32(const uint8_t *p) { return ips_be32(ips_ld32(p)); }
static inline uint16_t ips_get16(const uint8_t *p) { return ips_be16(ips_ld16(p)); }
static inline bool ips_bit(const uint64_t bits[4], unsigned i) { return bits[i / 64] >> i % 64 & 1; }
static inline void ips_set_bit(uint64_t bits[4], unsigned i) { bits[i / 64] |= 1ull << i % 64; }
static inline bool ips_any_bit(const uint64_t bits[4]) { return bits[0] | bits[1] | bits[2] | bits[3]; }

/* ips_mirror_ring.c */
uint64_t ips_ring_head(const struct ips_mirror *m, uint32_t worker);
const struct ips_mirror_event *ips_ring_at(const struct ips_mirror *m, uint32_t worker, uint64_t index);
void ips_rings_release(struct ips_mirror *m);  /* what every stream has read is the workers' again */
void ips_rings_publish(struct ips_mirror *m);  /* what is committed */
void ips_rings_heads(const struct ips_mirror *m, uint64_t *out);

/* ips_mirror_fill.c: changes and scans into the window, as far as it has room. */
void ips_fill(struct ips_mirror *m, struct ips_mirror_tx *tx, uint64_t now_ns);
void ips_fill_begin(struct ips_mirror *m, struct ips_mirror_tx *tx); /* of a stream: fence, snapshot */
void ips_fill_shards(struct ips_mirror_tx *tx); /* those that diverged, anew */
void ips_fill_sums(struct ips_mirror_tx *tx);   /* digests, to be compared */

/* ips_mirror_send.c */
struct ips_mirror_way { uint64_t now_ns; ips_mirror_emit_fn emit; void *arg; }; /* out, in one tick */
void ips_tx_tick(struct ips_mirror *m, uint32_t peer, const struct ips_mirror_way *way);
void ips_tx_stop(struct ips_mirror_tx *tx);
void ips_tx_ack(struct ips_mirror *m, uint32_t peer, const uint8_t *d, size_t len, uint64_t now_ns);
void ips_tx_diverged(struct ips_mirror *m, uint32_t peer, const uint8_t *d, size_t len);
void ips_mirror_out(struct ips_mirror *m, uint32_t peer, const uint8_t *plain, size_t n,
                    const struct ips_mirror_way *way);

/* ips_mirror_recv.c */
void ips_rx_message(struct ips_mirror *m, uint32_t peer, const uint8_t *d, size_t len, uint64_t now_ns);
void ips_rx_tick(struct ips_mirror *m, uint32_t peer, const struct ips_mirror_way *way);
void ips_rx_stop(struct ips_mirror *m, struct ips_mirror_rx *rx);

/* ips_mirror_tomb.c */
bool ips_tombs_new(struct ips_mirror_tombs *t, uint32_t n, size_t *memory);
void ips_tombs_free(struct ips_mirror_tombs *t);
bool ips_tombs_add(struct ips_mirror_tombs *t, const struct ips_session_rec *r); /* false: full */
uint64_t ips_tombs_version(const struct ips_mirror_tombs *t, const struct ips_flow *f); /* 0: none */
void ips_tombs_turn(struct ips_mirror_tombs *t);  /* end of a set: the older ones go */
void ips_tombs_clear(struct ips_mirror_tombs *t);
uint64_t ips_flow_hash(const struct ips_flow *f); /* the same on every node */
#endif
