/* tap.h: captures and copies (S1.16): what the packet path, the control side and the tap thread share. Both
 * hosts of the core have them: ipshare-engine and the VPP plugin.
 *
 *   worker:  tap_before / tap_emitted put packets into the ring, tap_verdict decides who wants them
 *   thread:  takes records off the rings and hands them to each tap's sink (sink.h)
 *   control: starts and stops taps; publishes the set that workers read
 *
 * Which taps exist is one immutable tap_set; workers load the pointer once per frame. No tap:
 * the pointer is NULL and the packet path pays one branch. A slot's life:
 * FREE -> ACTIVE (control) -> LEAVING (control, while it republishes the set without it; the thread leaves it
 * alone) -> STOPPING (control) -> ENDED (thread: every worker has left the frame that could know it, its
 * records are out of the rings, the sink closed) -> FREE (control).
 */
#ifndef TAP_H
#define TAP_H
#include "../ips_control.h"
#include "../ips_worker.h"
#include "sink.h"
#include "tap_ring.h"
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

struct tap {
  _Atomic uint32_t status;          /* enum ips_tap_status, 0: free */
  _Atomic bool wants_stop;          /* thread -> control: a limit was reached */
  uint64_t id, started_ns, deadline_ns;
  int owner;                        /* client that it ends with, or -1 */
  struct ips_ctl_tap rule;
  uint64_t seen[IPS_CTL_MAX_WORKERS]; /* frames in hand when the set without it was published */
  uint64_t lost_base[IPS_CTL_MAX_WORKERS];
  struct sink sink;
};

struct tap_set {
  uint32_t n;
  struct { uint32_t slot; struct ips_ctl_tap rule; } taps[IPS_CTL_MAX_TAPS];
  uint64_t retired_seen[IPS_CTL_MAX_WORKERS];
  struct tap_set *next_retired;
};

/* A packet thread's part; its host embeds it. */
struct tap_worker {
  struct taps *taps;
  const struct tap_set *set;  /* of the frame in hand; NULL: none */
  struct tap_ring *ring;
  const struct ips_worker *core;
  int side;                   /* of the frame in hand: enum ips_side */
  uint32_t random;            /* xorshift32 state of the sampling; not 0 */
  _Atomic uint64_t frame;     /* odd while a frame is in hand */
};

/* Who has the taps. */
struct tap_host {
  struct tap_worker *const *workers; /* copied by taps_create */
  uint32_t n_workers;                /* at most IPS_CTL_MAX_WORKERS */
  int wake_event;             /* eventfd to the control side: a tap's state changed */
  int stop_event;             /* readable: the tap thread ends */
  const char *device[2];      /* names of the sides in captures: outer, inner */
  const char *application;
};

struct taps {
  _Atomic(struct tap_set *) current;
  _Atomic bool thread_asleep;
  struct tap slots[IPS_CTL_MAX_TAPS];
  struct tap_ring rings[IPS_CTL_MAX_WORKERS];
  struct tap_set *retired;
  struct tap_host host;
  struct tap_worker *workers[IPS_CTL_MAX_WORKERS];
  uint64_t next_id;
  int kick;                         /* eventfd to the thread */
  pthread_t thread;
  bool running;
};

static inline void tap_signal(int event) {
  uint64_t one = 1;
  if (write(event, &one, sizeof one) < 0) { /* EAGAIN: it is readable already */ }
}

/* tap_worker.c, by packet threads: around each frame, and where w->set is not NULL around each packet. */
static inline void tap_begin(struct tap_worker *w, int side) {
  atomic_fetch_add(&w->frame, 1); /* a full barrier before the read of taps; publish(): the other way round */
  w->set = atomic_load(&w->taps->current);
  w->side = side;
}
void tap_before(struct tap_worker *w, const struct ips_pkt *p);
void tap_emitted(struct tap_worker *w, const struct ips_pkt *p, int kind);
void tap_verdict(struct tap_worker *w, const struct ips_pkt *p, int verdict);
void tap_frame_end(struct tap_worker *w);
static inline void tap_end(struct tap_worker *w) {
  if (ips_unlikely(w->set != NULL)) tap_frame_end(w);
  atomic_store_explicit(&w->frame, w->frame + 1, memory_order_release);
}

/* tap_thread.c */
void *tap_thread(void *taps);

bool tap_workers_moved_on(const struct taps *t, const uint64_t *seen);

/* tap.c, by the control side, one thread */
struct taps *taps_create(const struct tap_host *host); /* NULL: no memory, no descriptors */
void taps_destroy(struct taps *t);                     /* stop_event is readable, no worker runs */
/* Takes fd (FILE), which may be -1. Returns a status; *sentence says what is wrong, *slot is the new tap. */
int tap_start(struct taps *t, const struct ips_ctl_tap *rule, int fd, int owner, uint32_t *slot,
              const char **sentence);
void tap_stop(struct taps *t, uint32_t slot);
void tap_release(struct taps *t, uint32_t slot); /* ENDED -> FREE */
int tap_slot_of(const struct taps *t, uint64_t id); /* or -1 */
void tap_state(const struct taps *t, uint32_t slot, struct ips_ctl_tap_state *out);
void taps_client_gone(struct taps *t, int client);
void taps_tick(struct taps *t); /* stops what wants to stop, frees retired sets */
#endif
