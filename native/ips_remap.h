/* ips_remap.h: remaps inside the core: what packet threads see of them, and where packets meet them.
 *
 * A policy that changed has no remap: a packet that names the end point which had its slot before is judged by the same
 * function, with the way there (IPS_EP_WAY) in place of a remap, and what comes back that way is FINAL.
 *
 * ips_remap_lane.c: ordinary packets of one remap. ips_remap_set.c: a constant set of a node's remaps, their channels, what covers an address.
 * ips_remap_flow.c: which flow a packet is of, and whether it opens one. ips_remap_packet.c: the packet's way,
 * by ips_remap_decide (ips_remap.c). Called by ips_forward.c and ips_tunnel.c wherever a packet has reached a
 * device of this node and bears the addresses that the client knows.
 */
#ifndef IPS_REMAP_H
#define IPS_REMAP_H
#include "ips_remap_api.h"
#include "ips_remap_filter.h"
#include "ips_remap_front.h"
#include "ips_session_table.h"
#include "ips_table.h"
#include "ips_worker.h"

enum ips_remap_counter {
#define M(name, text) IPS_RM_##name,
#include "ips_remap.def"
#undef M
};

struct ips_remap {
  struct ips_remap_rec r;
  struct ips_remap_state state;
  ips_u128 key, mask;
  struct ips_endpoint_rec end[2]; /* by mark: as ips_encap takes it, or, re-addressing, local = remote prefix */
  bool rewrites;
  bool is_alone; /* taken, and no other remap has any of its addresses */
  uint32_t room; /* bytes of the longest FINAL packet, without the channel's headers, as long as no path MTU is learned */
  struct ips_remap_front front; /* of FINAL packets */
};
struct ips_remaps {
  uint32_t n;
  bool any_rewrites, any_replies;
  struct ips_frag_table *frags;
  struct ips_remap_filter filter;
  struct ips_remap at[IPS_REMAPS]; /* by id */
};

static inline bool ips_remap_has(const struct ips_remap *m, unsigned family, ips_u128 address) {
  return ((address ^ m->key) & m->mask) == 0 && m->r.family == family;
}
static inline bool ips_remap_gives(const struct ips_remap *m) { return m->r.role <= IPS_REMAP_LEAVING; }
static inline void ips_remap_count(const struct ips_worker *w, const struct ips_remap *m, enum ips_remap_counter c) {
  uint64_t *at = m->state.counters + w->index * IPS_REMAP_COUNTERS + c;
  if (!w->asks) __atomic_store_n(at, *at + 1, __ATOMIC_RELAXED);
}

/* A packet that has reached this node and one of its remapped addresses. */
struct ips_arrival {
  const struct ips_remap *at[IPS_REMAP_DEPTH]; /* the address's remaps, by id */
  const struct ips_endpoint_rec *way;          /* n 0: of a policy's address; to the end point that had it before */
  uint8_t n, from, asker;                      /* enum ips_remap_from */
  uint8_t binding_flags;
  uint8_t verdict;                             /* out: of a packet that is delivered, or IPS_OK: as ever */
};
/* ips_remap_set.c */
/* Fills at and n. False: the address is not remapped. */
bool ips_remap_cover(const struct ips_remaps *s, unsigned family, const uint8_t *address, struct ips_arrival *a);
bool ips_remap_is_local(const struct ips_remaps *s, unsigned family, const uint8_t *address);
/* A packet from remote to local: its channel, NULL: none. *mark: FINAL or ASK, as far as addresses say it. */
const struct ips_remap *ips_remap_channel(const struct ips_remaps *s, unsigned family, const uint8_t *remote,
                                          const uint8_t *local, unsigned *mark);
/* A re-addressed packet's remap, NULL: none; its address as the client knows it. */
const struct ips_remap *ips_remap_readdressed(const struct ips_remaps *s, unsigned family, const uint8_t *address,
                                              unsigned *mark, uint8_t out[16]);

/* ips_remap_flow.c */
struct ips_remap_packet { struct ips_flow flow; uint8_t tcp_flags; bool has_flow, opens, is_error; };
/* Where later fragments find their ports: that of the remaps, else NAT's; NULL: the host has none. */
struct ips_frag_table *ips_remap_frags(const struct ips_worker *w);
/* OK, or a verdict: HELD, or what is wrong with a fragment. */
int ips_remap_flow_of(struct ips_worker *w, struct ips_frag_table *frags, const struct ips_pkt *p,
                      const struct ips_view *v, bool quic, struct ips_remap_packet *out);

/* ips_remap_packet.c */
enum { IPS_REMAP_DELIVER = -1 };
/* p bears the client's addresses. DELIVER: the caller does, and follows it no more; else p's verdict. */
int ips_remap_arrive(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, struct ips_arrival *a);
/* A device's packet on its way to a client: followed; true: it goes through a channel, *verdict says how. */
bool ips_remap_reply(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, int *verdict);

/* ips_forward.c: TTL and length are judged, the sender told; then p is encapsulated towards e, or, with an
 * address for field f, rewritten. */
int ips_send_to(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint_rec *e,
                enum ips_field f, const uint8_t *rewrite_to);
#endif
