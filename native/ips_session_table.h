/* ips_session_table.h: the session table inside: what a session is in memory, and who may do what to it.
 *
 * A session is a node of 104 bytes in the chain of its flow. Nodes change under their chain's lock, but for
 * counters, the time of the last packet and, while they are free, their link. `word` tells state, kind and
 * whether the flow is half-open; its generation makes every new use of a node another word. Readers see
 * ips_chain.h. Half-open flows have nodes and a budget of their own: they are in the same chains,
 * so that a packet needs one look, but can never take a session's place.
 *
 * Versions come from one of 1,024 counters, chosen by the flow, and are taken under the flow's lock. They
 * outlive the session, and what a peer's record says raises them: a flow's versions rise for ever on this
 * node.
 */
#ifndef IPS_SESSION_TABLE_H
#define IPS_SESSION_TABLE_H
#include "ips_dispatch_api.h"
#include "ips_mapping.h"
#include "ips_session_api.h"

enum { IPS_FLOW_WORDS = 5, IPS_VERSIONS = 1024, IPS_TICK_SHIFT = 26 }; /* a tick: 2^26 ns, 67 ms */
_Static_assert(sizeof(struct ips_flow) == 8 * IPS_FLOW_WORDS, "a flow is five words, none of them padding");

struct ips_session_node {
  uint64_t flow[IPS_FLOW_WORDS];
  uint64_t packets[2], bytes[2];
  uint64_t version;
  uint32_t word;         /* state : 4, kind : 3, half-open : 1, mark : 8, generation : 16; kind 0: free */
  uint32_t next;
  uint32_t last, opened; /* ticks */
  uint32_t number;       /* of the mapped address, or NONE */
  uint16_t mapped_port, flags;
};
_Static_assert(sizeof(struct ips_session_node) == 104, "a session is 104 bytes");

#define IPS_WORD_HALF 0x80u
static inline unsigned ips_word_state(uint32_t w) { return w & 15; }
static inline unsigned ips_word_kind(uint32_t w) { return w >> 4 & 7; }
static inline unsigned ips_word_mark(uint32_t w) { return w >> 8 & 255; }

/* How many half-open flows a source has: two rows of counters, of which the lower one is believed, so that
 * it takes two collisions to be refused for another's flows. */
struct ips_sources { uint32_t *rows[2], mask, limit; uint8_t bits4, bits6; uint64_t seed; };

struct ips_tombstone { uint64_t print, version; uint32_t until, used; };
enum { IPS_GRAVES = 8 }; /* tombstones with one hash */

struct ips_sessions {
  struct ips_chain *chains;
  struct ips_session_node *nodes;
  uint32_t mask, n_nodes, capacity, half_capacity;
  uint64_t seed;
  uint64_t start_ns;     /* of tick 0; may be "below" 0 */
  struct ips_stacks free;
  struct ips_mappings mappings;
  struct ips_addresses addresses;
  struct ips_sources sources;
  struct ips_tombstone *tombstones;
  uint32_t grave_mask, tombstone_ticks;
  uint8_t grave_lock;
  uint8_t standby, udp_inbound_refreshes;
  uint32_t floor;        /* no session has been idle since before this tick (promotion) */
  uint32_t cursor;       /* of ips_sessions_expire */
  struct { uint32_t tcp_opening, tcp_open, tcp_closing, udp, icmp, other, refresh; } ticks;
  ips_session_event_fn event;
  void *event_arg;
  struct ips_natlog *log; /* ips_natlog.h; NULL: none */
  uint64_t versions[IPS_VERSIONS];
  /* Snapshots of a peer (ips_session_sweep.c); the mirror's thread alone. */
  uint8_t marks[256];    /* by shard: borne by what its last snapshot, or a change since, confirmed */
  uint64_t swept[4];     /* shards whose unconfirmed sessions go */
  uint32_t sweep_at, sweep_left;
  bool is_new_origin;    /* versions of unconfirmed sessions count as 0 */
  bool is_summing;       /* ips_session_sums.c: nodes below sum_at are in the sums */
  uint32_t sum_at;
  uint64_t sums[256];
  struct ips_server_use *uses; /* by number: sessions of kind DISPATCH */
  uint32_t used, half;   /* sessions, half-open flows now */
  struct ips_sessions_stats stats; /* the counting ones, relaxed */
};

/* A flow as words, and its hash. */
struct ips_place { uint64_t flow[IPS_FLOW_WORDS], hash; };
struct ips_found { uint32_t node, word, number; uint16_t mapped_port, flags; };

static inline uint32_t ips_tick(const struct ips_sessions *t, uint64_t now_ns) {
  uint64_t since = now_ns - t->start_ns; /* begins with more than a year, so that a peer's ages fit */
  return since >> 63 ? 0 : (uint32_t)(since >> IPS_TICK_SHIFT);
}

/* The destination, which a translation has to find first, is the last to be mixed in; words that are 0, as IPv4 leaves two,
 * are left out. */
static inline uint64_t ips_place_hash(const struct ips_sessions *t, const uint64_t *flow) {
  uint64_t hash = ips_mix(ips_mix(t->seed, flow[4]), flow[0]);
  if (flow[1]) hash = ips_mix(hash, flow[1]);
  hash = ips_mix(hash, flow[2]);
  return flow[3] ? ips_mix(hash, flow[3]) : hash;
}
static inline struct ips_place ips_place_of(const struct ips_sessions *t, const struct ips_flow *f) {
  struct ips_place p;
  memcpy(p.flow, f, sizeof p.flow);
  p.hash = ips_place_hash(t, p.flow);
  return p;
}
static inline struct ips_chain *ips_chain_of(const struct ips_sessions *t, const struct ips_place *p) {
  return &t->chains[p->hash & t->mask];
}
static inline struct ips_flow ips_flow_of(const uint64_t *words) {
  struct ips_flow f;
  memcpy(&f, words, sizeof f);
  return f;
}

static inline bool ips_node_is(const struct ips_session_node *n, const struct ips_place *p) {
  _Static_assert(IPS_FLOW_WORDS == 5, "written out: the compiler makes a loop of it where it is in line");
  return !((ips_get(n->flow[0]) ^ p->flow[0]) | (ips_get(n->flow[4]) ^ p->flow[4]) | (ips_get(n->flow[2]) ^ p->flow[2]) |
           (ips_get(n->flow[1]) ^ p->flow[1]) | (ips_get(n->flow[3]) ^ p->flow[3]));
}

/* Without a lock. */
static inline bool ips_session_find(const struct ips_sessions *t, const struct ips_place *p,
                                    struct ips_found *out) {
  const struct ips_chain *c = ips_chain_of(t, p);
  for (;;) {
    uint32_t seq = ips_chain_begin(c), steps = 0, i = ips_get(c->head);
    bool found = false;
    for (; i != IPS_NONE; i = ips_get(t->nodes[i].next)) {
      if (ips_unlikely(++steps % IPS_CHAIN_STEPS == 0) && !ips_chain_is_still(c, seq)) break;
      const struct ips_session_node *n = &t->nodes[i];
      if (!ips_node_is(n, p)) continue;
      *out = (struct ips_found){i, ips_get(n->word), ips_get(n->number), ips_get(n->mapped_port),
                                ips_get(n->flags)};
      found = true;
      break;
    }
    if (ips_likely(ips_chain_is_still(c, seq))) return found;
  }
}
/* The same where a look at the chain's first session tells, as it mostly does; in few instructions, in line. ELSEWHERE: it does
 * not, ips_session_find will. all: else only node and word are filled. */
enum ips_head { IPS_HEAD_NOBODY, IPS_HEAD_FOUND, IPS_HEAD_ELSEWHERE };
static inline __attribute__((__always_inline__)) enum ips_head ips_session_head(const struct ips_sessions *t, const struct ips_place *p,
                                                                                bool all, struct ips_found *out) {
  const struct ips_chain *c = ips_chain_of(t, p);
  uint32_t seq = ips_get(c->seq), i = ips_get(c->head);
  if (ips_unlikely(seq & 1)) return IPS_HEAD_ELSEWHERE;
  if (i == IPS_NONE) return ips_likely(ips_chain_is_still(c, seq)) ? IPS_HEAD_NOBODY : IPS_HEAD_ELSEWHERE;
  const struct ips_session_node *n = &t->nodes[i];
  if (!ips_node_is(n, p)) return IPS_HEAD_ELSEWHERE;
  out->node = i;
  out->word = ips_get(n->word);
  if (all) out->number = ips_get(n->number), out->mapped_port = ips_get(n->mapped_port), out->flags = ips_get(n->flags);
  return ips_likely(ips_chain_is_still(c, seq)) ? IPS_HEAD_FOUND : IPS_HEAD_ELSEWHERE;
}

/* How many sessions a server has: the word of a node with that number became another one. 0: it is in no chain. */
static inline void ips_session_reckon(struct ips_sessions *t, uint32_t number, uint32_t before, uint32_t after) {
  bool was = ips_word_kind(before) == IPS_SESSION_DISPATCH, is = ips_word_kind(after) == IPS_SESSION_DISPATCH;
  if (ips_likely(!(was | is)) || number >= t->addresses.capacity) return;
  bool was_open = was && ips_word_state(before) <= IPS_STATE_OPEN, is_open = is && ips_word_state(after) <= IPS_STATE_OPEN;
  if (was != is) ips_add(t->uses[number].left, is ? 1 : -1);
  if (was_open != is_open) ips_add(t->uses[number].open, is_open ? 1 : -1);
}

/* ips_session_sums.c: a node that this thread is about to change, and one that it has changed. */
void ips_sums_before(struct ips_sessions *t, uint32_t node);
void ips_sums_after(struct ips_sessions *t, uint32_t node);

/* ---- ips_session_table.c; the chain is locked ---- */
uint32_t ips_session_locate(const struct ips_sessions *t, const struct ips_place *p); /* node or NONE */
uint64_t ips_session_version(struct ips_sessions *t, const struct ips_place *p);
void ips_session_raise_version(struct ips_sessions *t, const struct ips_place *p, uint64_t version);
void ips_session_record(const struct ips_sessions *t, const struct ips_session_node *n, uint32_t tick,
                        struct ips_session_rec *out);
void ips_session_write(struct ips_session_node *n, const struct ips_place *p, uint32_t number, uint16_t port,
                       uint16_t flags, uint32_t tick);
void ips_session_link(struct ips_sessions *t, const struct ips_place *p, uint32_t node, uint32_t word);
void ips_session_unlink(struct ips_sessions *t, const struct ips_place *p, uint32_t node);
/* After the chain was unlocked: what a removed node held. `word`: as it was. True: its mapping, the last
 * one's that used it, is gone. */
bool ips_session_release(struct ips_sessions *t, uint32_t worker, const struct ips_place *p, uint32_t node,
                         uint32_t word, uint16_t flags);
/* Ends a session found at `node`, with its lock held, which is given back; logged. */
void ips_session_end(struct ips_sessions *t, uint32_t worker, const struct ips_place *p, uint32_t node,
                     uint64_t now_ns);
static inline void ips_session_tell(struct ips_sessions *t, uint32_t worker, int op,
                                    const struct ips_session_rec *r) {
  if (t->event) t->event(t->event_arg, worker, op, r);
}

/* ---- ips_sources.c ---- */
bool ips_sources_init(struct ips_sources *s, const struct ips_sessions_config *c);
void ips_sources_close(struct ips_sources *s);
bool ips_source_take(struct ips_sources *s, const struct ips_flow *f, uint32_t flags);
void ips_source_give(struct ips_sources *s, const struct ips_flow *f, uint32_t flags);

/* ---- ips_session_tcp.c: what a packet makes of a state; pure ---- */
struct ips_step { uint8_t state; bool promote, reopen; };
/* from_opener: who sent it. */
struct ips_step ips_session_step(unsigned proto, unsigned state, bool one_sided, bool from_opener,
                                 uint8_t tcp_flags);
/* Ticks that the session may be idle. */
uint32_t ips_session_patience(const struct ips_sessions *t, unsigned proto, unsigned state, unsigned flags);

/* ---- ips_session_see.c ---- */
struct ips_opening {
  uint8_t kind, state;
  uint16_t flags, port;
  uint32_t number;      /* of the mapped address, whose mapping the caller has taken; or NONE */
};
/* Opens a half-open flow. OK, or a refusal; IPS_OPENED_BY_ANOTHER: it exists now. A refusal leaves the
 * mapping with the caller. */
enum { IPS_OPENED_BY_ANOTHER = -1 };
int ips_session_open(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                     const struct ips_opening *o, uint32_t bytes, uint64_t now_ns);
struct ips_packet_seen { uint8_t side, tcp_flags, at_once; uint32_t bytes; }; /* side 0: sent by flow.src */
/* A packet of a session that was found. OK, SESSIONS_FULL (no room to promote it), NO_SESSION (ended
 * meanwhile). */
int ips_session_touch(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                      const struct ips_found *f, const struct ips_packet_seen *s, uint64_t now_ns);

/* One packet of a flow whose place is known; found: NULL, or where it is. */
int ips_session_see_at(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                       const struct ips_found *found, uint32_t see, uint8_t tcp_flags, uint32_t bytes,
                       const uint8_t *mapped, uint64_t now_ns);

/* ---- ips_session_packet.c ---- */
/* False: a later fragment or an ICMP error. back: whose destination opened. */
bool ips_session_flow_of(const struct ips_pkt *p, const struct ips_view *v, uint16_t realm, bool back,
                         struct ips_flow *out, uint8_t *tcp_flags);

/* ---- ips_session_sweep.c: the mark of a session that a snapshot confirms; 0: none was ever begun ---- */
unsigned ips_session_mark(const struct ips_sessions *t, const struct ips_flow *f);

/* ---- ips_session_apply.c ---- */
void ips_tombstones_forget(struct ips_sessions *t);
bool ips_tombstones_init(struct ips_sessions *t, const struct ips_sessions_config *c);
void ips_tombstones_close(struct ips_sessions *t);
uint32_t ips_tombstones_now(const struct ips_sessions *t);
#endif
