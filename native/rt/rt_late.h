/* rt_late.h: how late the real-time thread was, and why, as facts for whoever asks (rt_late.c). */
#ifndef RT_LATE_H
#define RT_LATE_H
#include "../ips_control.h"
#include <stdbool.h>
#include <stdint.h>

struct rt_late {
  int schedstat;               /* of this thread; -1: this kernel does not tell */
  uint64_t limit_ns;           /* what comes later than that counts */
  uint64_t begun_ns, due_ns;   /* the turn in hand; the next one begins no later than due */
  uint64_t based_ns;           /* when the two below were read */
  uint64_t waited_ns, ran_ns;  /* so far: for a processor, on one */
  uint64_t slept;              /* when the turn in hand began: how often the thread had waited */
  uint64_t stall_ns;           /* a worker that stands still for so long counts */
  bool is_stalled;
};

/* All by the thread itself. */
void rt_late_open(struct rt_late *l, uint64_t limit_ns, uint64_t stall_ns);
void rt_late_close(struct rt_late *l);
void rt_late_woken(struct rt_late *l, uint64_t now_ns, struct ips_ctl_pair_state *s);
/* The turn is over; the next one is due after tick_ns. */
void rt_late_done(struct rt_late *l, uint64_t now_ns, uint64_t tick_ns, struct ips_ctl_pair_state *s);
/* The slowest worker has not advanced for still_ns. */
void rt_late_workers(struct rt_late *l, uint64_t still_ns, uint64_t now_ns, struct ips_ctl_pair_state *s);
#endif
