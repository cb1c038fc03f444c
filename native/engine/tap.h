/* tap.h: captures and copies (S1.16): what the packet path, the control socket and the tap thread share.
 *
 *   worker:  tap_before / tap_emitted put packets into the ring, tap_verdict decides who wants them
 *   thread:  takes records off the rings and hands them to each tap's sink (sink.h)
 *   control: starts and stops taps; publishes the set that workers read
 *
 * Which taps exist is one immutable tap_set; workers load the pointer once per frame. No tap:
 * the pointer is NULL and the packet path pays one branch. A slot's life:
 * FREE -> ACTIVE (control) -> LEAVING (control, while it republishes the set without it; the thread leaves it alone)
 * -> STOPPING (control) -> ENDED (thread: every worker has left the frame that could know it, its records are out of
 * the rings, the sink closed) -> FREE (control).
 */
#ifndef TAP_H
#define TAP_H
#include "engine.h"
#include "sink.h"
#include "tap_ring.h"

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

struct taps {
  _Atomic(struct tap_set *) current;
  _Atomic bool thread_asleep;
  struct tap slots[IPS_CTL_MAX_TAPS];
  struct tap_ring rings[IPS_CTL_MAX_WORKERS];
  struct tap_set *retired;
  struct engine *engine;
  uint64_t next_id;
  int kick;                         /* eventfd to the thread */
  pthread_t thread;
  bool running;
};

/* tap_worker.c, by worker threads */
static inline const struct tap_set *tap_current(struct taps *t) {
  return atomic_load(&t->current); /* in the one order of all with worker.frame: publish() reads them the other way round */
}
void tap_before(struct worker *w, const struct ips_pkt *p);
void tap_emitted(struct worker *w, const struct ips_pkt *p, int kind);
void tap_verdict(struct worker *w, const struct ips_pkt *p, int verdict);
void tap_frame_end(struct worker *w);

/* tap_thread.c */
void *tap_thread(void *taps);

/* tap.c, by the main thread */
int taps_create(struct engine *e);
void taps_destroy(struct taps *t);
/* Takes fd (FILE), which may be -1. Returns a status; *sentence says what is wrong, *slot is the new tap. */
int tap_start(struct taps *t, const struct ips_ctl_tap *rule, int fd, int owner, uint32_t *slot, const char **sentence);
void tap_stop(struct taps *t, uint32_t slot);
void tap_release(struct taps *t, uint32_t slot); /* ENDED -> FREE */
int tap_slot_of(const struct taps *t, uint64_t id); /* or -1 */
void tap_state(const struct taps *t, uint32_t slot, struct ips_ctl_tap_state *out);
void taps_client_gone(struct taps *t, int client);
void taps_tick(struct taps *t); /* stops what wants to stop, frees retired sets */
#endif
