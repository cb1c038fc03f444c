/* flows.h: tracked connections of a running node: the session table, NAT by ports, the mirror (SYSTEMS.md S3,
 * S4.3).
 *
 *   packet threads: flows_begin .. flows_end around a frame; the core translates and follows (ips_unbound.c,
 *                   ips_track.c); changes go into the mirror's ring of the thread (flows_packet.c)
 *   ips-mirror:     one thread at normal priority (flows_thread.c): the mirror's sockets, sealed channels,
 *                   ticks; time-outs; what a peer's snapshot does not know. The pair's real-time thread never
 *                   waits for it
 *   control:        sets, replaces and looks (flows.c, flows_list.c, flows_mirror.c); one thread
 *
 * Both hosts of the core can have it, as they have the taps. What packet threads see changes by one store;
 * what was there before is freed when each of them has ended the frame that it was in.
 */
#ifndef FLOWS_H
#define FLOWS_H
#include "../ips_control_flows.h"
#include "../ips_core.h"
#include "../ips_frag.h"
#include "../ips_session_api.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

enum {
  FLOWS_WORKERS = IPS_CTL_MAX_WORKERS,
  FLOWS_SOCKETS = (IPS_CTL_MIRROR_PEERS + 64) * IPS_CTL_PAIR_PATHS, /* of the mirror, of IPS_REMAPS remaps */
  FLOWS_SLICE = 4096,       /* sessions looked at before anything else may have its turn */
};

struct flows;
struct flows_mirror;        /* flows_mirror.h */
struct flows_remap_set;     /* flows_remap.h */
struct flows_clusters;      /* flows_dispatch.c */

/* Packets that wait until the standby has their session (flows_hold.c): of one packet thread. */
enum { FLOWS_HELD = 256, FLOWS_ARENA = 512 * 1024 };
struct flows_held {
  struct ips_pkt pkt;       /* data: unused */
  uint64_t number, until_ns, key, datagram; /* keys: of flows_hold.c */
  uint32_t at, room;        /* in the arena; room: with what was left unused before it */
  uint32_t tag;             /* the host's */
  bool is_first;            /* it made the session; else it waits behind such a one */
};
/* Sends a packet that has waited; tag: as flows_hold was told it, where it came from. Its thread's. */
typedef void (*flows_send_fn)(void *arg, struct ips_pkt *p, uint32_t tag);

struct flows_worker {       /* of one packet thread, which alone writes it */
  _Atomic uint64_t frame;   /* odd while the thread is in a frame */
  struct flows *flows;
  struct ips_worker *core;
  struct flows_mirror *mirror; /* of this frame */
  const struct flows_remap_set *remaps; /* of this frame; NULL: none */
  uint32_t index;
  bool made_in_vain;        /* the packet in hand made a session that no ring had room for */
  uint64_t made;            /* number of the change by which it made one; 0: it did not */
  struct flows_held *held;  /* FLOWS_HELD of them, from first_held on */
  uint8_t *arena;
  uint32_t first_held, n_held, arena_used, arena_next;
  struct flows_mirror *held_by; /* whose numbers they wait for */
  flows_send_fn send;
  void *send_arg;
  int committed_event;      /* eventfd to the packet thread */
  _Atomic uint64_t waits_for; /* it sleeps until this change is at the standby; 0: it does not */
  _Atomic uint64_t committed, uncommitted, hold_full, hold_dropped, now_held;
} __attribute__((aligned(64)));

struct flows {
  struct flows_worker workers[FLOWS_WORKERS];
  uint32_t n_workers;
  /* Written by the control thread, read by all. Once set, sessions stay. */
  _Atomic(struct ips_sessions *) sessions;
  _Atomic(struct ips_napt *) napt;
  _Atomic(struct flows_mirror *) mirror;
  _Atomic(struct flows_remap_set *) remaps; /* NULL: none */
  _Atomic(struct ips_clusters *) clusters; /* NULL: none */
  _Atomic uint64_t role;    /* epoch << 1 | active; written by the pair's thread, else by control */
  _Atomic bool is_observer; /* a further standby: never active */
  /* The control thread's. */
  struct ips_ctl_flows set;
  struct ips_ctl_mirror mirror_set;
  struct flows_clusters *dispatch;
  struct ips_frag_table *frags;
  struct ips_napt *stuck;   /* replaced while a packet thread hung: kept */
  uint64_t seed;
  uint64_t run;             /* IPS_MIRROR_RUN of this process, */
  uint16_t n_mirrors;       /* and how many mirrors it has had */
  bool has_mirror;
  /* ips-mirror */
  pthread_t thread;
  bool runs;
  int wake;                 /* eventfd to the thread */
  _Atomic uint64_t prunes;  /* asked for: sessions whose address has left its pool */
  _Atomic bool stop, is_idle; /* is_idle: whoever has something for it wakes it */
};

struct flows *flows_create(uint32_t n_workers);
void flows_destroy(struct flows *f);        /* no packet thread may be inside */
/* Before the packet thread starts. */
struct flows_worker *flows_attach(struct flows *f, uint32_t index, struct ips_worker *core,
                                  flows_send_fn send, void *arg); /* NULL: no memory, no descriptor */

/* ---- packet threads ---- */
void flows_enter(struct flows_worker *w);
void flows_leave(struct flows_worker *w);
static inline void flows_begin(struct flows_worker *w) {
  if (atomic_load_explicit(&w->flows->sessions, memory_order_relaxed)) flows_enter(w);
}
/* True: packets wait for the standby (flows_release). */
static inline bool flows_end(struct flows_worker *w) {
  if (ips_likely(!(atomic_load_explicit(&w->frame, memory_order_relaxed) & 1))) return false;
  flows_leave(w);
  return w->n_held;
}

/* After a packet that may be sent, in its frame. True: it is kept, and sent later. */
bool flows_keep(struct flows_worker *w, const struct ips_pkt *p, uint32_t tag);
void flows_not_kept(struct flows_worker *w);
static inline bool flows_hold(struct flows_worker *w, const struct ips_pkt *p, uint32_t tag) {
  return ips_unlikely(w->made | w->n_held | w->made_in_vain) && flows_keep(w, p, tag);
}
/* After any other packet: what it made was sent by emit(), and waits for nobody. */
static inline void flows_pass(struct flows_worker *w) {
  if (ips_unlikely(w->made | w->made_in_vain)) flows_not_kept(w);
}
/* Sends what need not wait any longer; outside of frames. */
void flows_let_go(struct flows_worker *w);
static inline void flows_release(struct flows_worker *w) {
  if (ips_unlikely(w->n_held)) flows_let_go(w);
}
/* Before the thread sleeps: nanoseconds until something has to be sent whatever the standby says; 0: do not
 * sleep; UINT64_MAX: nothing waits. committed_event becomes readable when the standby has said it. */
uint64_t flows_before_sleep(struct flows_worker *w);

/* ---- the pair's thread ---- */
void flows_role(void *flows, bool is_active, uint64_t epoch);
/* The active node's sessions are here, up to date. Without a mirror: true, unless there is one to come. */
bool flows_ready(void *flows, bool is_mirrored);

/* ---- control: statuses of ips_control.h; *sentence says what is wrong ---- */
int flows_set(struct flows *f, const struct ips_ctl_flows *c, const char **sentence);
void flows_state(struct flows *f, struct ips_ctl_flows_state *out);
void flows_no_pair(struct flows *f); /* the node is no half of a pair: active */
int flows_mirror_set(struct flows *f, const struct ips_ctl_mirror *c, const char **sentence);
void flows_mirror_clear(struct flows *f);
int flows_feed(struct flows *f, const struct ips_ctl_feed *c, const struct ips_ctl_fed *fed, const char **sentence);
/* The mirror begins anew with what was set, the pair being another one. */
void flows_mirror_renew(struct flows *f);

/* flows_list.c: sessions that match, a slice for each call; *cursor begins at 0, ~0: that was all. */
const char *flows_filter_fault(const struct ips_ctl_session_filter *filter); /* NULL: it is one */
bool flows_matches(const struct ips_ctl_session_filter *filter, const struct ips_session_rec *r);
/* Copies into out, which has room for FLOWS_SLICE; *scanned grows. Returns how many. */
size_t flows_select(const struct ips_sessions *t, const struct ips_ctl_session_filter *filter, uint64_t *cursor,
                    struct ips_session_rec *out, uint64_t *scanned);
/* Ends those that match, a slice for each call; *cursor and *closed begin at 0. False: that was all. */
bool flows_close_some(struct flows *f, const struct ips_ctl_session_filter *filter, uint64_t *cursor,
                      uint64_t *closed);

/* flows.c, for the other files */
bool flows_quiesce(struct flows *f);        /* each packet thread has ended its frame; false: one hangs */
bool flows_is_active(const struct flows *f);
void flows_follow(struct flows *f);          /* the session table takes its role */
static inline uint32_t flows_thread_ring(const struct flows *f) { return f->n_workers; }
static inline uint32_t flows_control_ring(const struct flows *f) { return f->n_workers + 1; }
/* flows_hold.c */
bool flows_hold_open(struct flows_worker *w); /* false: no memory, no descriptor */
void flows_hold_close(struct flows_worker *w);
void flows_hold_committed(struct flows *f, struct flows_mirror *m); /* ips-mirror: wakes who waits */
void flows_hold_state(const struct flows *f, struct ips_ctl_flows_state *out);
/* flows_packet.c */
void flows_emit(void *worker, struct ips_pkt *p, int kind);
void flows_event(void *flows, uint32_t worker, int op, const struct ips_session_rec *rec);
/* flows_thread.c: control starts and stops it */
int flows_thread_start(struct flows *f); /* 0, or an errno */
void flows_thread_stop(struct flows *f);
void flows_wake(struct flows *f);

static inline uint64_t flows_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_BOOTTIME, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}
#endif
