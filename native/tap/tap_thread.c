/* tap_thread.c: takes records off the workers' rings and feeds the sinks. One thread for
 * all taps; what it cannot keep up with is lost in the rings, and counted. */
#include "tap.h"
#include <errno.h>
#include <poll.h>

enum { DRAIN_RECORDS = 256, POLL_STOPPING_MS = 1, POLL_ACTIVE_MS = 100 };

static void deliver(struct taps *t, struct tap_record *r) {
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++) {
    struct tap *tap = &t->slots[slot];
    if (!(r->taps & 1u << slot) || !atomic_load(&tap->status)) continue;
    if (tap->rule.max_packets && atomic_load(&tap->sink.packets) >= tap->rule.max_packets) continue;
    sink_packet(&tap->sink, r);
  }
}

/* True if the ring holds more. */
static bool drain(struct taps *t, struct tap_ring *ring) {
  uint64_t at = atomic_load_explicit(&ring->head, memory_order_relaxed);
  uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
  for (int n = 0; at != tail && n < DRAIN_RECORDS; n++) {
    struct tap_record *r = tap_ring_at(ring, at);
    uint32_t bytes = r->bytes;
    if (r->taps != TAP_FILLER) deliver(t, r);
    at += bytes;
    atomic_store_explicit(&ring->head, at, memory_order_release);
  }
  return at != tail;
}

static bool drain_all(struct taps *t) {
  bool more = false;
  for (uint32_t i = 0; i < t->host.n_workers; i++) more |= t->rings[i].bytes && drain(t, &t->rings[i]);
  return more;
}

static void ask_to_stop(struct taps *t, struct tap *tap) {
  if (!atomic_exchange(&tap->wants_stop, true)) tap_signal(t->host.wake_event);
}

static void look_after_active(struct taps *t, struct tap *tap) {
  bool written = sink_flush(&tap->sink);
  bool broken = !written && atomic_load(&tap->sink.last_errno) != EAGAIN;
  bool full = tap->rule.max_packets && atomic_load(&tap->sink.packets) >= tap->rule.max_packets;
  if (broken || full || (tap->deadline_ns && tap_clock_ns(CLOCK_BOOTTIME) >= tap->deadline_ns))
    ask_to_stop(t, tap);
}

/* Takes out what is in the ring now; what other taps get meanwhile may never end. */
static void drain_present(struct taps *t, struct tap_ring *ring) {
  uint64_t end = atomic_load_explicit(&ring->tail, memory_order_acquire);
  while (atomic_load_explicit(&ring->head, memory_order_relaxed) < end) drain(t, ring);
}

/* Every record for it is in the rings once the workers have moved on. */
static void finish(struct taps *t, struct tap *tap) {
  if (!tap_workers_moved_on(t, tap->seen)) return;
  for (uint32_t i = 0; i < t->host.n_workers; i++)
    if (t->rings[i].bytes) drain_present(t, &t->rings[i]);
  sink_finish(&tap->sink);
  atomic_store(&tap->status, IPS_TAP_ENDED);
  tap_signal(t->host.wake_event);
}

/* Returns how long to sleep, in milliseconds; -1: until kicked. */
static int look_after_taps(struct taps *t) {
  int timeout = -1;
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++) {
    struct tap *tap = &t->slots[slot];
    uint32_t status = atomic_load(&tap->status);
    if (status == IPS_TAP_ACTIVE) look_after_active(t, tap);
    if (status == IPS_TAP_STOPPING) finish(t, tap);
    if (atomic_load(&tap->status) == IPS_TAP_STOPPING) timeout = POLL_STOPPING_MS;
    else if (status == IPS_TAP_ACTIVE && timeout < 0) timeout = POLL_ACTIVE_MS;
  }
  return timeout;
}

static bool rings_empty(const struct taps *t) {
  for (uint32_t i = 0; i < t->host.n_workers; i++)
    if (atomic_load(&t->rings[i].head) != atomic_load(&t->rings[i].tail)) return false;
  return true;
}

void *tap_thread(void *arg) {
  struct taps *t = arg;
  struct pollfd wait[2] = {{.fd = t->kick, .events = POLLIN}, {.fd = t->host.stop_event, .events = POLLIN}};
  for (;;) {
    bool more = drain_all(t);
    int timeout = look_after_taps(t);
    atomic_store(&t->thread_asleep, true);
    atomic_thread_fence(memory_order_seq_cst);
    poll(wait, 2, more || !rings_empty(t) ? 0 : timeout);
    atomic_store(&t->thread_asleep, false);
    uint64_t kicks;
    if (wait[0].revents && read(t->kick, &kicks, sizeof kicks) < 0) continue;
    if (wait[1].revents) break;
  }
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    if (atomic_load(&t->slots[slot].status)) sink_flush(&t->slots[slot].sink);
  return NULL;
}
