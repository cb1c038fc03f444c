/* probe.c: see probe.h. The thread is a real-time one where that is allowed, of less priority than the pair's own. */
#define _GNU_SOURCE
#include "probe.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define MS 1000000ull
enum { PRIORITY = 10 };

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int probe_open(struct probe *p, int is_inside, const struct sockaddr *outside, socklen_t n) {
  int fd = socket(outside->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (is_inside) return p->fd = fd, 0; /* not connected: an ICMP error of a dying gateway is no answer */
  p->echo = fd;
  return bind(fd, outside, n);
}

static struct sockaddr_storage to[2];

static void send_one(struct probe *p, const struct sockaddr_storage *there) {
  uint64_t number = p->next, at = now();
  __atomic_store_n(&p->back[number % PROBE_LOG], 0, __ATOMIC_RELAXED);
  __atomic_store_n(&p->sent[number % PROBE_LOG], at, __ATOMIC_RELAXED);
  if (sendto(p->fd, &number, sizeof number, MSG_DONTWAIT, (const struct sockaddr *)there, sizeof *there) < 0) {
    /* no route, no neighbour: not answered */
  }
  __atomic_store_n(&p->next, number + 1, __ATOMIC_RELEASE);
}

static void echo(int fd) {
  uint64_t number;
  struct sockaddr_storage from;
  socklen_t n = sizeof from;
  for (int i = 0; i < 64; i++, n = sizeof from) {
    if (recvfrom(fd, &number, sizeof number, MSG_DONTWAIT, (struct sockaddr *)&from, &n) != sizeof number) return;
    if (sendto(fd, &number, sizeof number, MSG_DONTWAIT, (struct sockaddr *)&from, n) < 0) return;
  }
}

static void answers(struct probe *p) {
  uint64_t number;
  for (int i = 0; i < 64 && recv(p->fd, &number, sizeof number, MSG_DONTWAIT) == sizeof number; i++)
    if (number < p->next && p->next - number < PROBE_LOG)
      __atomic_store_n(&p->back[number % PROBE_LOG], now(), __ATOMIC_RELAXED);
}

static void *run(void *arg) {
  struct probe *both = arg;
  struct sched_param priority = {.sched_priority = PRIORITY};
  prctl(PR_SET_TIMERSLACK, 1UL);
  pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
  for (uint64_t due = now();;) {
    uint64_t at = now();
    if (at >= due) {
      for (int i = 0; i < 2; i++) send_one(&both[i], &to[i]);
      due = at - due > 100 * MS ? at + MS : due + MS;
    }
    struct pollfd fds[4];
    for (int i = 0; i < 4; i++) fds[i] = (struct pollfd){.fd = i < 2 ? both[i].fd : both[i - 2].echo, .events = POLLIN};
    at = now();
    struct timespec left = {.tv_nsec = at < due ? (long)(due - at) : 0};
    if (ppoll(fds, 4, &left, NULL) <= 0) continue;
    for (int i = 0; i < 2; i++) echo(both[i].echo);
    for (int i = 0; i < 2; i++) answers(&both[i]);
  }
  return NULL;
}

int probe_start(struct probe *both) {
  pthread_t thread;
  for (int i = 0; i < 2; i++) {
    socklen_t n = sizeof to[i];
    if (getsockname(both[i].echo, (struct sockaddr *)&to[i], &n)) return -1;
  }
  return pthread_create(&thread, NULL, run, both) ? -1 : 0;
}

/* A row ended, by an answer, or with the window (back 0). */
static void end_row(struct gap *g, uint64_t length, uint64_t begun, uint64_t from_ns, uint64_t back, uint64_t until_ns) {
  if (length < PROBE_ROW) return;
  uint64_t took = (back ? back : until_ns) - begun;
  if (!g->rows++) g->restored_ns = back ? (int64_t)(back - from_ns) : -1;
  else if (took > g->later_ns) g->later_ns = took;
  if (took > g->longest_ns) g->longest_ns = took;
}

struct gap probe_gap(const struct probe *p, uint64_t from_ns, uint64_t until_ns) {
  struct gap g = {0};
  uint64_t end = __atomic_load_n(&p->next, __ATOMIC_ACQUIRE), row = 0, begun = 0, before = 0;
  for (uint64_t i = end > PROBE_LOG - 64 ? end - PROBE_LOG + 64 : 0; i < end; i++) {
    uint64_t sent = p->sent[i % PROBE_LOG], back = p->back[i % PROBE_LOG];
    if (sent >= until_ns) break;
    if (sent >= from_ns) {
      if (before && sent - before > MS && sent - before - MS > g.late_ns) g.late_ns = sent - before - MS;
      if (back) end_row(&g, row, begun, from_ns, back, until_ns);
      else if (!row) begun = sent;
      row = back ? 0 : row + 1;
      g.lost += !back;
    }
    before = sent;
  }
  end_row(&g, row, begun, from_ns, 0, until_ns);
  return g;
}
