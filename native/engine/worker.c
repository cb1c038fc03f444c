/* worker.c: one packet thread: read -> core -> write, on its own queue of each device.
 *
 * A turn takes some packets of the outer device, then of the inner one (io.h: one by one or
 * as a batch); each is one frame of the core. What the core makes on the way (segments, ICMP
 * errors) goes out of the same device through emit(). Both queues empty: sleep in epoll.
 * Nothing here allocates, locks or logs; what goes wrong is counted.
 */
#define _GNU_SOURCE
#include "dispatch.h"
#include "engine.h"
#include "io.h"
#include "vnet.h"
#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

enum { MANY_IN_VAIN = 64 };

static void device_gone(struct worker *w) {
  int none = 0;
  atomic_compare_exchange_strong(&w->engine->fatal, &none, EXIT_DEVICE_GONE);
  eventfd_signal(w->engine->wake_event);
}

static void emit(void *arg, struct ips_pkt *p, int kind) {
  struct worker *w = arg;
  if (ips_unlikely(w->tap.set != NULL)) tap_emitted(&w->tap, p, kind);
  if (kind != IPS_EMIT_COPY) io_send(w, p, false);
}

/* A packet that has waited for the standby. */
static void send_held(void *arg, struct ips_pkt *p, uint32_t side) {
  struct worker *w = arg;
  w->side = (int)side;
  io_send(w, p, false);
}

static inline int call_core(struct worker *w, struct ips_pkt *p) {
  return w->side == IPS_CTL_OUTER ? ips_outer(w->core, p) : ips_inner(w->core, p);
}

static inline void one_packet(struct worker *w, uint8_t *at, uint32_t bytes, bool is_stable) {
  struct ips_pkt p;
  int verdict;
  vnet_in(at, bytes, HEADROOM - VNET_BYTES, &p);
  ADD(w->stat->rx_packets[w->side], 1);
  ADD(w->stat->rx_bytes[w->side], p.len);
  if (ips_likely(w->tap.set == NULL)) {
    verdict = call_core(w, &p);
  } else {
    tap_before(&w->tap, &p);
    verdict = call_core(w, &p);
    tap_verdict(&w->tap, &p, verdict);
  }
  if (ips_unlikely(ips_dispositions[verdict] != IPS_SEND)) flows_pass(w->flows);
  else if (ips_likely(!flows_hold(w->flows, &p, (uint32_t)w->side))) io_send(w, &p, is_stable);
}

static void frame_begin(struct worker *w, int side) {
  w->side = side;
  tap_begin(&w->tap, side);
  ips_worker_begin(w->core, clock_ns(CLOCK_BOOTTIME));
  flows_begin(w->flows);
}

static void frame_end(struct worker *w) {
  flows_end(w->flows);
  ips_worker_end(w->core);
  tap_end(&w->tap);
}

static bool is_fatal(int error) { return error && error != EAGAIN && error != EINTR; }

/* One by one, all in the same buffer. Returns true if the queue may hold more. */
static bool turn_single(struct worker *w, int side) {
  uint8_t *at = io_slot(w->io, 0) + HEADROOM - VNET_BYTES;
  uint64_t bytes = 0;
  unsigned n = 0;
  int error = 0;
  io_flush(w);
  ssize_t size = read(w->fd[side], at, PACKET_ROOM);
  if (size < 0) error = errno;
  if (size > VNET_BYTES) {
    frame_begin(w, side);
    do {
      one_packet(w, at, (uint32_t)size, false);
      bytes += (uint64_t)size;
      if (++n == BATCH) break;
      size = read(w->fd[side], at, PACKET_ROOM);
      if (size < 0) error = errno;
      /* The process may have been stopped since the frame began: what came meanwhile is judged by now. */
      else if (ips_worker_is_paired(w->core)) ips_worker_look_again(w->core, clock_ns(CLOCK_BOOTTIME));
    } while (size > VNET_BYTES);
    frame_end(w);
  }
  if (is_fatal(error)) device_gone(w);
  w->io->is_large[side] = n && bytes / n > IO_SMALL;
  return n == BATCH || (n && !w->io->is_large[side]);
}

/* Writes the batch before and reads the next in one system call. Returns true if the queue may hold more. */
static bool turn_batch(struct worker *w, int side) {
  struct io *io = w->io;
  uint32_t want = io->want[side];
  if (!io_read_batch(w, side)) return false;
  uint8_t *at = io_slot(io, 0) + HEADROOM - VNET_BYTES;
  int error = 0;
  frame_begin(w, side);
  for (uint32_t i = 0; i < want; i++, at += IO_SLOT) {
    if (ips_likely(io->result[i] > VNET_BYTES)) one_packet(w, at, (uint32_t)io->result[i], true);
    else if (io->result[i] < 0 && is_fatal(-io->result[i])) error = -io->result[i];
  }
  frame_end(w);
  if (error) device_gone(w);
  return true;
}

static inline bool turn(struct worker *w, int side) {
  return w->io->batched && !w->io->is_large[side] ? turn_batch(w, side) : turn_single(w, side);
}

static bool watch(const struct worker *w, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Wakes the thread in time for the packet that has waited longest. False: that is now. */
static bool set_hold_timer(struct worker *w) {
  uint64_t left = flows_before_sleep(w->flows);
  struct itimerspec when = {.it_value = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)}};
  return left && timerfd_settime(w->hold_timer, 0, &when, NULL) == 0;
}

/* Waits for packets. False: the engine ends. */
static bool sleep_until_packets(struct worker *w) {
  struct epoll_event events[5];
  if (ips_unlikely(w->flows->n_held) && !set_hold_timer(w)) return true;
  __atomic_store_n(&w->stat->asleep, 1, __ATOMIC_RELAXED);
  ADD(w->stat->sleeps, 1);
  int n = epoll_wait(w->epoll, events, 5, -1);
  __atomic_store_n(&w->stat->asleep, 0, __ATOMIC_RELAXED);
  for (int i = 0; i < n; i++) {
    uint64_t count;
    int fd = events[i].data.fd;
    if (fd == w->engine->stop_event) return false;
    if (fd == w->hold_timer || fd == w->flows->committed_event) {
      if (read(fd, &count, sizeof count) < 0) { /* EAGAIN: set anew meanwhile */ }
      continue;
    }
    if (events[i].events & (EPOLLERR | EPOLLHUP) && !(events[i].events & EPOLLIN)) {
      device_gone(w);
      return false;
    }
  }
  return true;
}

static void *run(void *arg) {
  struct worker *w = arg;
  w->stat->tid = (uint64_t)syscall(SYS_gettid);
  for (unsigned in_vain = 0; !atomic_load_explicit(&w->engine->fatal, memory_order_relaxed);) {
    bool more = turn(w, IPS_CTL_OUTER);
    more |= turn(w, IPS_CTL_INNER);
    flows_release(w->flows);
    ADD(w->stat->loops, 1);
    in_vain = more ? 0 : in_vain + 1;
    if (in_vain > MANY_IN_VAIN) w->io->batched = false; /* woken for packets that its reads do not see */
    if (more && !atomic_load_explicit(&w->engine->stopping, memory_order_relaxed)) continue;
    io_flush(w);
    if (!sleep_until_packets(w)) break;
  }
  return NULL;
}

int worker_start(struct worker *w) {
  struct engine *e = w->engine;
  w->core = ips_worker_new(e->tables, w->index, emit, w);
  w->tap.core = w->core;
  errno = ENOMEM; /* what no system call says */
  if (io_open(w) || !w->core || !(w->flows = flows_attach(e->flows, w->index, w->core, send_held, w))) return errno;
  w->hold_timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
  w->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (w->epoll < 0 || !watch(w, e->stop_event) || !watch(w, w->fd[IPS_CTL_OUTER]) ||
      !watch(w, w->fd[IPS_CTL_INNER]) || !watch(w, w->hold_timer) || !watch(w, w->flows->committed_event))
    return errno;
  w->packet_fd = dispatch_socket();
  if (w->io->batched) e->features |= IPS_CTL_FEATURE_URING;
  ips_worker_set_trains(w->core, (e->features & IPS_CTL_FEATURE_USO) != 0);
  ips_worker_set_counters(w->core, region_counters(&e->region, w->index), region_cells(&e->region, w->index),
                          e->options.counter_cells);
  int error = pthread_create(&w->thread, NULL, run, w);
  if (error) return error;
  char name[16];
  snprintf(name, sizeof name, "ips-worker-%u", w->index);
  pthread_setname_np(w->thread, name);
  w->started = true;
  return 0;
}

void worker_stop(struct worker *w) {
  if (w->started) pthread_join(w->thread, NULL);
  ips_worker_free(w->core);
  io_close(w);
  close(w->epoll);
  close(w->hold_timer);
  if (w->packet_fd >= 0) close(w->packet_fd);
  for (int side = 0; side < SIDES; side++) close(w->fd[side]);
}
