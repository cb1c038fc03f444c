/* flows_remap.h: the remaps of a node (SYSTEMS.md S4): who has which flows, told to whom.
 *
 *   packet threads: see a constant set of them (flows_enter); changes of a giver's flows go into the ring of
 *                   each remap that covers them (flows_packet.c)
 *   ips-mirror:     the channel of each remap's mirror, as of the node's own; the fence; counting
 *                   (flows_remap_turn.c)
 *   control:        sets, clears, looks (flows_remap.c). The thread stands still while a set is replaced
 *
 * Each remap has a mirror of its own between its two nodes: what one tells is no other's, and ends with it.
 */
#ifndef FLOWS_REMAP_H
#define FLOWS_REMAP_H
#include "../ips_control_remap.h"
#include "flows_mirror.h"

struct flows_remap {
  struct ips_ctl_remap set;    /* with the key: what is said again is compared */
  struct ips_remap_state core; /* followed: of who takes */
  struct flows_mirror *m;      /* the mirror's channel: its one peer is the other node */
  uint64_t since_ns, tracked_ns;
  struct ips_session_prefix prefix;
  /* ips-mirror's */
  uint64_t promote_at;         /* ~0: flows that were half-open before are sessions */
  uint64_t fence[IPS_MIRROR_WORKERS]; /* heads of the rings when this node began to leave */
  bool has_fence;
  uint64_t heads;
  uint64_t tally_at, tally_began_ns;
  struct ips_session_tally tally;
  /* published */
  pthread_mutex_t lock;
  struct ips_ctl_remap_state state;
};
/* What packet threads see; replaced as a whole. */
struct flows_remap_set {
  struct ips_remaps *core;
  uint32_t n;
  struct flows_remap *at[IPS_REMAPS]; /* as in core, by id */
};

/* Control: statuses of ips_control.h; *sentence says what is wrong. */
int flows_remap_set(struct flows *f, const struct ips_ctl_remap *c, const char **sentence);
bool flows_remap_clear(struct flows *f, uint64_t id, struct ips_ctl_remap_state *last); /* false: none of that id */
bool flows_remap_state(struct flows *f, uint64_t id, struct ips_ctl_remap_state *out);
uint32_t flows_remap_list(struct flows *f, struct ips_ctl_remap_state *out, uint32_t room);
/* Where the giver's flows are, and how they are known there. NULL: none of that id. */
const struct ips_sessions *flows_remap_table(struct flows *f, uint64_t id, struct ips_ctl_session_filter *filter);
void flows_remap_close(struct flows *f); /* all; no thread is inside */

/* flows_remap_turn.c: the thread's */
bool flows_remap_turn(struct flows *f, struct flows_remap *r); /* true: there is more to do at once */
bool flows_remap_is_busy(const struct flows_remap *r, uint64_t now_ns);
uint64_t flows_remap_heads(const struct flows *f, const struct flows_remap *r);
struct flows_mirror *flows_remap_channel(struct flows *f, struct flows_remap *r); /* NULL: no memory */
void flows_remap_publish(struct flows *f, struct flows_remap *r);
/* A change of a session: to whom it concerns. */
void flows_remap_event(struct flows *f, const struct flows_remap_set *s, uint32_t ring, int op,
                       const struct ips_session_rec *rec);
#endif
