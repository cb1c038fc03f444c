/* rt_late.c: was this thread late, by how much, and what kept it?
 *
 * Two gaps can be too long: from when a turn was due to when it began, and from its begin to its end. Of a long one the
 * kernel's own account says the cause: time that the thread was ready and had no processor (schedstat), time that it ran
 * (its own clock), whether it gave the processor up (rusage). None of these: the time passed while nothing ran here,
 * which is the machine's doing: it stood still, or was in an interrupt. The first two accounts are read every BASE_NS
 * and when something was late, so an ordinary turn costs one system call more.
 */
#define _GNU_SOURCE
#include "rt_late.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define BASE_NS 10000000ull

static uint64_t ran_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* "RAN WAITED TIMES" */
static uint64_t waited_ns(const struct rt_late *l) {
  char text[96];
  unsigned long long ran, waited = 0;
  ssize_t n = l->schedstat < 0 ? -1 : pread(l->schedstat, text, sizeof text - 1, 0);
  text[n > 0 ? n : 0] = 0;
  return sscanf(text, "%llu %llu", &ran, &waited) == 2 ? waited : 0;
}

/* How often the thread has waited for something. */
static uint64_t slept(void) {
  struct rusage u;
  return getrusage(RUSAGE_THREAD, &u) ? 0 : (uint64_t)u.ru_nvcsw;
}

static void read_base(struct rt_late *l, uint64_t now_ns) {
  l->based_ns = now_ns;
  l->waited_ns = waited_ns(l);
  l->ran_ns = ran_ns();
}

static void note(struct ips_ctl_pair_state *s, int why, uint64_t late_ns, uint64_t now_ns) {
  s->late[why - 1]++;
  if (late_ns > s->longest_late_ns[why - 1]) s->longest_late_ns[why - 1] = late_ns;
  s->last_late_at_ns = now_ns;
  s->last_late_ns = late_ns;
  s->last_late = (uint32_t)why;
}

void rt_late_open(struct rt_late *l, uint64_t limit_ns, uint64_t stall_ns) {
  *l = (struct rt_late){.limit_ns = limit_ns, .stall_ns = stall_ns, .due_ns = UINT64_MAX};
  l->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
}

void rt_late_close(struct rt_late *l) {
  if (l->schedstat >= 0) close(l->schedstat);
  l->schedstat = -1;
}

void rt_late_woken(struct rt_late *l, uint64_t now_ns, struct ips_ctl_pair_state *s) {
  l->begun_ns = now_ns;
  l->slept = slept();
  if (now_ns <= l->due_ns || now_ns - l->due_ns <= l->limit_ns) return;
  uint64_t late = now_ns - l->due_ns, waited = waited_ns(l) - l->waited_ns;
  note(s, waited >= late / 2 ? IPS_CTL_PAIR_LATE_PROCESSOR : IPS_CTL_PAIR_LATE_MACHINE, late, now_ns);
  read_base(l, now_ns);
}

void rt_late_done(struct rt_late *l, uint64_t now_ns, uint64_t tick_ns, struct ips_ctl_pair_state *s) {
  uint64_t took = now_ns - l->begun_ns;
  l->due_ns = now_ns + tick_ns;
  if (took > l->limit_ns) {
    uint64_t waited = waited_ns(l) - l->waited_ns, ran = ran_ns() - l->ran_ns;
    int why = waited >= took / 2 ? IPS_CTL_PAIR_LATE_PROCESSOR
              : ran >= took / 2     ? IPS_CTL_PAIR_LATE_WORK
              : slept() > l->slept  ? IPS_CTL_PAIR_LATE_LOCK : IPS_CTL_PAIR_LATE_MACHINE;
    note(s, why, took, now_ns);
  }
  if (took > l->limit_ns || now_ns - l->based_ns >= BASE_NS) read_base(l, now_ns);
}

/* Counted once for each time that one stands still. */
void rt_late_workers(struct rt_late *l, uint64_t still_ns, uint64_t now_ns, struct ips_ctl_pair_state *s) {
  const int why = IPS_CTL_PAIR_LATE_WORKER;
  if (still_ns <= l->stall_ns) {
    l->is_stalled = false;
    return;
  }
  if (!l->is_stalled) note(s, why, still_ns, now_ns);
  l->is_stalled = true;
  if (still_ns > s->longest_late_ns[why - 1]) s->longest_late_ns[why - 1] = s->last_late_ns = still_ns;
}
