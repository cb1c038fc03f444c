/* ips_worker.h: the state of one packet thread, and how a packet is counted.
 *
 * A worker belongs to one thread. It sees one root per frame, counts into memory
 * that its host chose, and hands what it makes (errors, segments, answers) to
 * emit(). It never blocks and never allocates after ips_worker_new.
 */
#ifndef IPS_WORKER_H
#define IPS_WORKER_H
#include "ips_core.h"
#include "ips_gro.h"
#include "ips_path.h"
#include "ips_session_api.h"
#include "ips_table.h"

/* What all workers of one node share besides the tables. */
struct ips_shared {
  struct ips_paths paths;
  _Atomic uint64_t forward_until; /* a pair's lease (CLOCK_BOOTTIME ns): workers translate nothing from then on.
                                     UINT64_MAX: the node is no half of a pair */
};
struct ips_shared *ips_tables_shared(struct ips_tables *t);

enum ips_side { IPS_OUTER = 0, IPS_INNER = 1 };
enum {
  IPS_HEADROOM = 128,                       /* before every packet the core makes */
  IPS_SCRATCH_BYTES = IPS_HEADROOM + 65536, /* one segment, fragment or answer */
  IPS_ERROR_BYTES = IPS_HEADROOM + 1280,
  IPS_TRACE_TTL = 32,                       /* below: a traceroute probe, for IPS_EP_TRACE_TUNNEL */
  IPS_DROP_PROBES = 8,
};
#define IPS_PATH_LEARNED_NS (600ull * 1000000000ull) /* RFC 8201 5.3: ten minutes */

/* What the express lane (ips_lane.h) knows of an end point, as long as the generation lives and no path MTU is
 * learned; at most IPS_LANE_NS, since what was learned expires. */
enum { IPS_LANE_ENDS = 256 };
#define IPS_LANE_NS 1000000000ull
struct ips_lane_end {
  uint32_t endpoint; /* IPS_NONE: nothing yet */
  uint32_t room;     /* bytes of the longest packet that is merely rewritten; 0: none is */
  uint32_t local4;   /* first address of its IPv4 local prefix, host order */
  uint8_t min_ttl;   /* below, the whole way has to look */
  uint8_t syn;       /* TCP flags that it has to look at */
  uint16_t via;      /* the record's */
  uint64_t local6_hi, local6_lo; /* of its IPv6 one */
};

struct ips_worker {
  const struct ips_root *root;
  const struct ips_image_header *header; /* of root */
  struct ips_shared *shared;
  struct ips_counters *counters;
  struct ips_cell *cells;
  uint32_t n_cells;
  uint32_t index;
  uint64_t now_ns;
  bool has_lease;           /* read once a frame, before anything is translated */
  bool lane_open[2];        /* by side: this generation lets ordinary packets take the express lane */
  struct ips_lane_end lane_ends[IPS_LANE_ENDS]; /* by end point's number, modulo */
  struct ips_lane_end lane_least;               /* room, min_ttl, syn: what all of these that were met allow */
  uint64_t lane_generation, lane_since_ns;      /* what they are about, and when they were emptied */
  uint32_t lane_learned;
  enum ips_side side;       /* of the packet in hand */
  uint16_t ip_id;           /* of outer IPv4 headers */
  double error_tokens;
  uint64_t error_tokens_at;
  ips_emit_fn emit;
  void *arg;
  struct ips_tables *tables;
  struct ips_sessions *sessions; /* where tracked bindings' flows are followed; NULL: nowhere */
  const struct ips_remaps *remaps; /* ips_remap.h; NULL: none; then there are sessions */
  const struct ips_remap_filter *remap_filter; /* theirs, for the lane; NULL: none */
  uint64_t remap_ends;           /* ... and where their channels end: as ips_root.tunnel_ends */
  const struct ips_clusters *clusters; /* ips_dispatch.h; NULL: none; then there are sessions */
  struct ips_napt *napt;         /* what translates packets without a binding; NULL: nothing */
  bool asks, would_open;         /* asks: NAT opens, touches, holds nothing; would_open: it would, and the
                                    packet in hand is OK but not translated */
  struct ips_gro *gro;
  uint8_t *scratch;         /* IPS_SCRATCH_BYTES */
  uint8_t *train;           /* as many: the tunnel packets of one super-packet, together */
  uint8_t *opened;          /* as many: one of them on arrival */
  bool makes_trains;        /* the host takes UDP super-packets */
  bool coalesces;           /* ... and TCP super-packets */
  uint8_t *error;           /* IPS_ERROR_BYTES */
  struct ips_counters own;  /* where nobody else wants them */
};

/* Sends the ICMP error about p (v: its view), if allowed by rule, rate and configuration. */
__attribute__((cold)) void ips_worker_error(struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v,
                                            enum ips_error_kind kind, uint32_t mtu);
/* True if the rate allows one more ICMP error now. */
bool ips_worker_may_send_error(struct ips_worker *w);
void ips_worker_emit(struct ips_worker *w, uint8_t *data, uint32_t len, enum ips_emit kind);
void ips_worker_count_drop(struct ips_worker *w, uint32_t counter, int verdict);
/* Where it is counted, or in one of the next ones. */
static inline uint32_t ips_drop_at(uint32_t counter, int verdict) {
  return ((counter * 2654435761u) ^ ((uint32_t)verdict * 40503u)) % IPS_DROP_CELLS;
}

static inline bool ips_is_zero(const uint8_t address[16]) { return (ips_ld64(address) | ips_ld64(address + 8)) == 0; }

/* ips_worker_count_drop, mostly found at once. */
static inline void ips_worker_count_other(struct ips_worker *w, uint32_t counter, int verdict) {
  struct ips_drop_cell *cell = &w->counters->drops[ips_drop_at(counter, verdict)];
  if (ips_unlikely(counter == IPS_NONE || cell->packets == 0 || cell->counter != counter || cell->verdict != (uint32_t)verdict))
    ips_worker_count_drop(w, counter, verdict);
  else
    __atomic_store_n(&cell->packets, cell->packets + 1, __ATOMIC_RELEASE);
}

/* Every packet ends here exactly once. `packets`, `bytes`: as it arrived. */
static inline int ips_worker_count(struct ips_worker *w, enum ips_side side, int verdict, uint32_t counter, uint32_t bytes) {
  w->counters->verdicts[side][verdict]++;
  if (ips_likely(counter < w->n_cells) && (ips_likely(verdict == IPS_OK) || ips_dispositions[verdict] != IPS_DROP)) {
    struct ips_cell *cell = w->cells + counter;
    cell->packets++;
    __asm__("" : "+r"(bytes)); /* two additions in memory are less than a vector put together */
    cell->bytes += bytes;
  }
  if (ips_unlikely(verdict != IPS_OK)) ips_worker_count_other(w, counter, verdict);
  return verdict;
}

/* RFC 1122 3.2.1.3, RFC 4291 2.5/2.7: addresses that are never forwarded. */
static inline bool ips_bad_scope(const uint8_t *a, unsigned family) {
  if (family == 4) {
    uint32_t address = ips_be32(ips_ld32(a));
    return address - (1u << 24) >= 223u << 24 || address >> 24 == 127 || address >> 16 == 0xa9fe;
  }
  if (a[0] == 0xff || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80)) return true;
  return ips_ld64(a) == 0 && (ips_be64(ips_ld64(a + 8)) <= 1);
}

/* ips_unbound.c: a packet that no binding is for, before any byte of it changed; NO_BINDING: NAT has nothing to do
 * with it either. */
__attribute__((cold)) int ips_unbound(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v);

/* ips_track.c: a packet of a tracked binding, which has to bear the addresses that the client knows when it is
 * noted; told when it has been translated. back: the client is its destination. Changes no verdict. */
struct ips_noted { struct ips_flow flow; uint32_t bytes, see; uint8_t tcp_flags; bool is_one; };
void ips_track_note(const struct ips_pkt *p, const struct ips_view *v, uint8_t binding_flags, bool back,
                    struct ips_noted *out);
void ips_track_tell(struct ips_worker *w, const struct ips_noted *n, int verdict);
static inline bool ips_is_tracked(const struct ips_worker *w, const struct ips_hit *h) {
  return ips_unlikely(h->flags & IPS_BINDING_TRACK) && w->sessions;
}

/* ips_peers.c: a packet between members of a group. NO_BINDING: it is none. ips_peers_concern: one of its addresses
 * is a member's, so that it may be here because of that alone. */
__attribute__((cold)) int ips_peers(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v);
__attribute__((cold)) bool ips_peers_concern(const struct ips_root *r, const struct ips_pkt *p,
                                             const struct ips_view *v);

/* ips_remap_set.c: is this address remapped here? IPS_LANE_REMAPPED | number of the first remap that says so; 0: no. */
enum { IPS_LANE_REMAPPED = 1 << 30 };
uint32_t ips_remap_first(const struct ips_remaps *s, unsigned family, ips_u128 global);

/* ips_tunnel.c */
int ips_tunnel_in(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v);
int ips_tunnel_out(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint_rec *e);
/* ips_forward.c: outer translation proper, also of what came out of a tunnel. */
int ips_outer_translate(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v);
#endif
