/* worker.c: one packet thread: read -> core -> write, on its own queue of each device.
 *
 * A turn takes up to BATCH packets of the outer device, then of the inner one; each
 * batch is one frame of the core. A packet is read, changed and written before the next one
 * is read, so that it never leaves the cache. What the core makes on the way (segments,
 * ICMP errors) goes out of the same device through emit(). Both queues empty: sleep in
 * epoll. Nothing here allocates, locks or logs; what goes wrong is counted.
 */
#define _GNU_SOURCE
#include "engine.h"
#include "tap.h"
#include "vnet.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Counters have one writer; a relaxed store keeps readers from seeing half a number. */
#define ADD(counter, n) __atomic_store_n(&(counter), (counter) + (n), __ATOMIC_RELAXED)

static void device_gone(struct worker *w) {
  int none = 0;
  atomic_compare_exchange_strong(&w->engine->fatal, &none, EXIT_DEVICE_GONE);
  eventfd_signal(w->engine->wake_event);
}

static void refused(struct worker *w) {
  ADD(w->stat->tx_refused[w->side], 1);
  __atomic_store_n(&w->stat->tx_errno, (uint64_t)errno, __ATOMIC_RELAXED);
}

static inline void send_packet(struct worker *w, struct ips_pkt *p) {
  struct virtio_net_hdr header = vnet_out(p);
  ssize_t n;
  if (ips_likely(p->headroom >= VNET_BYTES)) {
    memcpy(p->data - VNET_BYTES, &header, VNET_BYTES);
    n = write(w->fd[w->side], p->data - VNET_BYTES, p->len + VNET_BYTES);
  } else {
    struct iovec parts[2] = {{&header, VNET_BYTES}, {p->data, p->len}};
    n = writev(w->fd[w->side], parts, 2);
  }
  if (ips_unlikely(n < 0)) {
    refused(w);
    return;
  }
  ADD(w->stat->tx_packets[w->side], 1);
  ADD(w->stat->tx_bytes[w->side], p->len);
}

static void emit(void *arg, struct ips_pkt *p, int kind) {
  struct worker *w = arg;
  if (ips_unlikely(w->taps != NULL)) tap_emitted(w, p, kind);
  if (kind != IPS_EMIT_COPY) send_packet(w, p);
}

static inline int call_core(struct worker *w, struct ips_pkt *p) {
  return w->side == IPS_CTL_OUTER ? ips_outer(w->core, p) : ips_inner(w->core, p);
}

static inline void one_packet(struct worker *w, uint8_t *at, uint32_t bytes) {
  struct ips_pkt p;
  int verdict;
  vnet_in(at, bytes, HEADROOM - VNET_BYTES, &p);
  ADD(w->stat->rx_packets[w->side], 1);
  ADD(w->stat->rx_bytes[w->side], p.len);
  if (ips_likely(w->taps == NULL)) {
    verdict = call_core(w, &p);
  } else {
    tap_before(w, &p);
    verdict = call_core(w, &p);
    tap_verdict(w, &p, verdict);
  }
  if (ips_likely(ips_dispositions[verdict] == IPS_SEND)) send_packet(w, &p);
}

static void frame_begin(struct worker *w) {
  atomic_fetch_add(&w->frame, 1); /* a full barrier: taps are read after it */
  w->taps = tap_current(w->engine->taps);
  ips_worker_begin(w->core, clock_ns(CLOCK_BOOTTIME));
}

static void frame_end(struct worker *w) {
  ips_worker_end(w->core);
  if (ips_unlikely(w->taps != NULL)) tap_frame_end(w);
  atomic_store_explicit(&w->frame, w->frame + 1, memory_order_release);
}

/* One batch of one device. Returns true if the queue may hold more. */
static bool turn(struct worker *w, int side) {
  uint8_t *at = w->buffer + HEADROOM - VNET_BYTES;
  int fd = w->fd[side];
  ssize_t n = read(fd, at, PACKET_ROOM);
  if (n < 0 && errno == EAGAIN) return false;
  unsigned left = BATCH;
  w->side = side;
  frame_begin(w);
  while (n > VNET_BYTES) {
    one_packet(w, at, (uint32_t)n);
    if (--left == 0) break;
    n = read(fd, at, PACKET_ROOM);
  }
  int reason = n < 0 ? errno : 0;
  frame_end(w);
  if (reason && reason != EAGAIN && reason != EINTR) device_gone(w);
  return left == 0;
}

static int watch(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Waits for packets. False: the engine ends. */
static bool sleep_until_packets(struct worker *w, int epoll) {
  struct epoll_event events[3];
  __atomic_store_n(&w->stat->asleep, 1, __ATOMIC_RELAXED);
  ADD(w->stat->sleeps, 1);
  int n = epoll_wait(epoll, events, 3, -1);
  __atomic_store_n(&w->stat->asleep, 0, __ATOMIC_RELAXED);
  for (int i = 0; i < n; i++) {
    if (events[i].data.fd == w->engine->stop_event) return false;
    if (events[i].events & (EPOLLERR | EPOLLHUP) && !(events[i].events & EPOLLIN)) {
      device_gone(w);
      return false;
    }
  }
  return true;
}

static void *run(void *arg) {
  struct worker *w = arg;
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  w->stat->tid = (uint64_t)syscall(SYS_gettid);
  watch(epoll, w->engine->stop_event);
  watch(epoll, w->fd[IPS_CTL_OUTER]);
  watch(epoll, w->fd[IPS_CTL_INNER]);
  while (!atomic_load_explicit(&w->engine->fatal, memory_order_relaxed)) {
    bool more = turn(w, IPS_CTL_OUTER);
    more |= turn(w, IPS_CTL_INNER);
    ADD(w->stat->loops, 1);
    if (more && !atomic_load_explicit(&w->engine->stopping, memory_order_relaxed)) continue;
    if (!sleep_until_packets(w, epoll)) break;
  }
  close(epoll);
  return NULL;
}

int worker_start(struct worker *w) {
  struct engine *e = w->engine;
  w->random = 2463534242u + w->index;
  w->buffer = aligned_alloc(64, HEADROOM + PACKET_ROOM);
  w->core = ips_worker_new(e->tables, w->index, emit, w);
  if (!w->buffer || !w->core) return -1;
  ips_worker_set_counters(w->core, region_counters(&e->region, w->index), region_cells(&e->region, w->index),
                          e->options.counter_cells);
  if (pthread_create(&w->thread, NULL, run, w)) return -1;
  char name[16];
  snprintf(name, sizeof name, "ips-worker-%u", w->index);
  pthread_setname_np(w->thread, name);
  w->started = true;
  return 0;
}

void worker_stop(struct worker *w) {
  if (w->started) pthread_join(w->thread, NULL);
  ips_worker_free(w->core);
  free(w->buffer);
  for (int side = 0; side < SIDES; side++) close(w->fd[side]);
}

void workers_snapshot(const struct engine *e, uint64_t *seen) {
  for (uint32_t i = 0; i < e->options.workers; i++) seen[i] = atomic_load(&e->workers[i].frame);
}

bool workers_moved_on(const struct engine *e, const uint64_t *seen) {
  for (uint32_t i = 0; i < e->options.workers; i++)
    if (seen[i] & 1 && atomic_load(&e->workers[i].frame) == seen[i]) return false;
  return true;
}
