/* ips_session_api.h: the session table, as hosts, the mirror and Python see it (DESIGN.md 7).
 *
 * One table for both families and all workers. A worker calls ips_session_see for each packet of a tracked
 * flow (ips_napt_api.h does that for translated ones). Looking up takes no lock; opening, changing state and
 * ending a session locks one bucket. Time is a parameter, nanoseconds that never go back. All memory is
 * taken, and touched, by ips_sessions_new. Full means a counted refusal of the new flow. Read by cffi too.
 *
 * RFC 4787, RFC 5382, RFC 5508, RFC 7857 (time-outs, states).
 */
#ifndef IPS_SESSION_API_H
#define IPS_SESSION_API_H
#include "ips_api.h"
#include "ips_flow_api.h"

struct ips_session_timeouts { /* seconds without a packet; 0: the default that is named */
  uint32_t tcp_opening;       /* 240: RFC 5382 REQ-5, transitory */
  uint32_t tcp_open;          /* 7,440: the same, established; one FIN does not end that (RFC 6146 3.5.2) */
  uint32_t tcp_closing;       /* 240: both FINs, or a RST; of one-sided sessions the client's FIN */
  uint32_t udp;               /* 300: RFC 4787 REQ-5 */
  uint32_t icmp;              /* 60: RFC 5508 REQ-2 */
  uint32_t other;             /* 600 */
  uint32_t refresh;           /* 30: an active session reports itself so often, as an upsert */
};

struct ips_sessions_config {
  uint32_t sessions;          /* that can be open at once */
  uint32_t half_open;         /* flows beside them that have not proved themselves yet */
  uint32_t half_open_per_source;
  uint32_t mappings;          /* internal endpoints with a public port; 0: as many as sessions */
  uint32_t tombstones;        /* deletions that ips_sessions_apply remembers; 0: sessions / 32 */
  uint32_t addresses;         /* different mapped addresses (pools, servers); 0: 1,024 */
  uint8_t source_bits4, source_bits6; /* leading bits that make a source; 0: 32 and 64 */
  uint8_t standby;            /* begin as one: nothing expires */
  uint8_t udp_inbound_refreshes; /* RFC 4787 REQ-6: packets from outside keep a UDP mapping too */
  uint32_t tombstone_s;       /* 0: 120 */
  uint64_t seed;              /* secret random number */
  uint64_t now_ns;
  struct ips_session_timeouts timeouts;
};

struct ips_sessions;
/* NULL: out of memory, or a number out of range (sessions: 1 .. 2^28). */
struct ips_sessions *ips_sessions_new(const struct ips_sessions_config *c);
void ips_sessions_free(struct ips_sessions *t);

enum { IPS_SESSION_BORN = 4 }; /* with UPSERT, where a session has just opened */
/* What the mirror hears: a session that opened (past half-open), changed state, was active for another
 * `refresh`, or ended. Called by the worker that did it, under the lock of the session's chain, after the
 * table shows it: so changes of one session are told in the order of their versions. It must neither call the
 * table nor wait. Before the workers start. */
typedef void (*ips_session_event_fn)(void *arg, uint32_t worker, int op, const struct ips_session_rec *rec);
void ips_sessions_on_event(struct ips_sessions *t, ips_session_event_fn fn, void *arg);

/* ---- packets of tracked flows (kinds TRACK and DISPATCH) -------------------- */

enum ips_session_see {
  IPS_SEE_OTHER_SIDE = 1,   /* the packet goes towards the opener; `flow` is the opener's all the same */
  IPS_SEE_ONE_SIDED = 2,    /* no packet of the other side ever comes this way */
  IPS_SEE_MIDSTREAM = 4,    /* a TCP segment without SYN may open a session (tracking began later) */
  IPS_SEE_ONLY = 8,         /* open nothing: NO_SESSION */
  IPS_SEE_AT_ONCE = 16,     /* a session from its first packet on, never half-open: it is mirrored (remaps) */
  IPS_SEE_EITHER = 32,      /* with OTHER_SIDE: flow.dst may open, too */
};
/* One packet of `bytes` bytes. tcp_flags: the header's 14th byte; ignored for other protocols. mapped: 16
 * bytes, the server of a DISPATCH session, else NULL. OK, or NO_SESSION, SESSIONS_FULL, HALF_OPEN_FULL,
 * SOURCE_LIMIT: then nothing is followed, and whoever translates without state sends the packet all the
 * same. */
int ips_session_see(struct ips_sessions *t, uint32_t worker, const struct ips_flow *flow, uint32_t see,
                    uint8_t tcp_flags, uint32_t bytes, const uint8_t *mapped, uint64_t now_ns);
/* The same out of a packet, whose source opens (OTHER_SIDE: whose destination opened). Later fragments
 * and ICMP errors: NO_SESSION. */
int ips_session_see_packet(struct ips_sessions *t, uint32_t worker, struct ips_pkt *p, uint16_t realm,
                           uint32_t see, const uint8_t *mapped, uint64_t now_ns);

/* ---- control, mirror --------------------------------------------------------- */

enum ips_apply {
  IPS_APPLIED = 0,
  IPS_APPLY_STALE = 1, /* this version, or a later one, or the deletion is known already */
  IPS_APPLY_CONFLICT =
      2, /* the mapped port is another's, or the flow is mapped otherwise: *owner says who has it */
  IPS_APPLY_FULL = 3,
  IPS_APPLY_BAD = 4, /* a value out of range, or a mapped address that is in no pool of this realm */
};
/* A record of the peer: idempotent, in any order. The session takes the record's state, counters, age and
 * idle time; no event is made of it. One thread at a time (the mirror's). owner: room for the record that is
 * in the way, or NULL. */
int ips_sessions_apply(struct ips_sessions *t, uint32_t worker, int op, const struct ips_session_rec *rec,
                       uint64_t now_ns, struct ips_session_rec *owner);
/* Consistent copies of up to `room` sessions (no half-open ones) from *cursor on, which begins at 0; 0: that
 * was all. Whatever is open from the first call to the last is among them exactly once. */
size_t ips_sessions_scan(const struct ips_sessions *t, uint64_t *cursor, uint64_t now_ns,
                         struct ips_session_rec *out, size_t room);
/* The session of this flow, half-open ones too. 1: *out is it; 0: none. */
int ips_sessions_get(const struct ips_sessions *t, const struct ips_flow *flow, uint64_t now_ns,
                     struct ips_session_rec *out);
/* Ends it, as if its time were over. 1: done; 0: none. */
int ips_sessions_close(struct ips_sessions *t, uint32_t worker, const struct ips_flow *flow, uint64_t now_ns);
/* Ends what has been idle too long in the next `buckets` buckets; returns how many. A standby: 0. */
uint32_t ips_sessions_expire(struct ips_sessions *t, uint32_t worker, uint64_t now_ns, uint32_t buckets);
uint32_t ips_sessions_buckets(const struct ips_sessions *t);
/* Other times and RFC 4787 REQ-6, while workers go on; the last packet of each session counts as it did. */
void ips_sessions_set_times(struct ips_sessions *t, const struct ips_session_timeouts *s,
                            bool inbound_refreshes);
/* Ends sessions, half-open flows too, whose public address is in no pool of their realm any more, among the
 * next `nodes` from *cursor on, which begins at 0. Returns how many; *cursor = ~0: that was the end. */
uint32_t ips_sessions_prune(struct ips_sessions *t, uint32_t worker, uint64_t now_ns, uint64_t *cursor,
                            uint32_t nodes);

/* Flows to addresses of a prefix (kind TRACK), for a remap. Slices of `nodes` from *cursor on, which begins at 0;
 * *cursor = ~0: that was all. */
struct ips_session_prefix { uint8_t address[16], len, family; };
bool ips_session_is_in(const struct ips_flow *f, const struct ips_session_prefix *in);
/* Half-open flows become sessions, and the mirror hears of them. */
void ips_sessions_promote_half(struct ips_sessions *t, uint32_t worker, uint64_t now_ns,
                               const struct ips_session_prefix *in, uint64_t *cursor, uint32_t nodes);
/* How many there are; not those that are over on both sides and have been still for two seconds. active: with
 * a packet in the last minute. one_sided: seen in one direction only. Adds to *out. */
struct ips_session_tally { uint64_t sessions, active, one_sided; };
void ips_sessions_tally(const struct ips_sessions *t, uint64_t now_ns, const struct ips_session_prefix *in,
                        uint64_t *cursor, uint32_t nodes, struct ips_session_tally *out);

/* ---- snapshots of a peer: one thread, that which applies --------------------- */

/* Of a shard (ips_mirror_shard), or, -1, of the whole table. is_new_origin: versions from before do not
 * compare with those that come, and count as 0. */
void ips_sessions_begin_snapshot(struct ips_sessions *t, int shard, bool is_new_origin);
/* is_complete: sessions that nothing confirmed since then end, by ips_sessions_sweep, without an event; none
 * any more once the table is no standby's. */
void ips_sessions_end_snapshot(struct ips_sessions *t, int shard, bool is_complete);
/* Looks at the next `nodes` nodes. false: nothing is left to be swept. */
bool ips_sessions_sweep(struct ips_sessions *t, uint32_t worker, uint32_t nodes);
/* Sums of ips_mirror_digest by shard (IPS_MIRROR_SHARDS of them). */
void ips_sessions_sums(const struct ips_sessions *t, uint64_t *sums);
/* The same of a standby, as it is at the beginning, whatever is applied, swept or pruned after that. false: not
 * while sessions are being swept. */
bool ips_sessions_begin_sums(struct ips_sessions *t);
/* Looks at the next `nodes` nodes. true: that was all, and the sums are written. */
bool ips_sessions_more_sums(struct ips_sessions *t, uint32_t nodes, uint64_t *sums);
/* Standby no more: every time-out begins anew now. */
void ips_sessions_promote(struct ips_sessions *t, uint64_t now_ns);
void ips_sessions_stand_by(struct ips_sessions *t);

struct ips_sessions_stats {
  uint32_t sessions, half_open, mappings, tombstones; /* now */
  uint32_t capacity, half_open_capacity, mapping_capacity, standby;
  uint64_t bytes;             /* memory of all of it */
  uint64_t opened, promoted, ended, expired; /* flows, half-open first; half-open became sessions;
                                                ended: sessions and half-open flows, expired ones included */
  uint64_t full, half_open_full, source_limit, ports_exhausted; /* refusals */
  uint64_t applied, stale, conflicts, apply_full, apply_bad;
  uint64_t tombstones_lost;   /* forgotten before their time: too few places */
};
void ips_sessions_stats(const struct ips_sessions *t, struct ips_sessions_stats *out);

/* Processor nanoseconds (of this thread) for n new UDP flows, each seen twice, and then `rounds` packets for
 * each: out[0] opening and promoting, out[1] the packets, out[2] ending all. 0: done; -1: the table is too
 * small. */
int ips_bench_sessions(struct ips_sessions *t, uint32_t n, uint32_t rounds, uint64_t *out);

#endif
