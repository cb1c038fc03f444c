/* tap.c: the main thread's part of taps: starts, stops, publishes what workers see. */
#define _GNU_SOURCE
#include "tap.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

static void workers_snapshot(const struct taps *t, uint64_t *seen) {
  for (uint32_t i = 0; i < t->host.n_workers; i++) seen[i] = atomic_load(&t->workers[i]->frame);
}

/* True if every worker has left the frame that it had in hand when `seen` was taken. */
bool tap_workers_moved_on(const struct taps *t, const uint64_t *seen) {
  for (uint32_t i = 0; i < t->host.n_workers; i++)
    if (seen[i] % 2 && atomic_load(&t->workers[i]->frame) == seen[i]) return false;
  return true;
}

struct taps *taps_create(const struct tap_host *host) {
  struct taps *t = aligned_alloc(64, (sizeof *t + 63) & ~(size_t)63);
  if (!t) return NULL;
  memset(t, 0, sizeof *t);
  t->host = *host;
  t->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (t->kick < 0) return free(t), NULL;
  for (uint32_t i = 0; i < host->n_workers; i++) {
    t->workers[i] = host->workers[i];
    host->workers[i]->taps = t;
    host->workers[i]->ring = &t->rings[i];
    host->workers[i]->random = 2463534242u + i;
  }
  return t;
}

void taps_destroy(struct taps *t) {
  if (t->running) pthread_join(t->thread, NULL);
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    if (atomic_load(&t->slots[slot].status)) sink_close(&t->slots[slot].sink);
  for (uint32_t i = 0; i < t->host.n_workers; i++)
    if (t->rings[i].bytes) munmap(t->rings[i].bytes, TAP_RING_BYTES);
  while (t->retired) {
    struct tap_set *set = t->retired;
    t->retired = set->next_retired;
    free(set);
  }
  free(atomic_load(&t->current));
  close(t->kick);
  free(t);
}

/* Rings and thread exist from the first tap on: who never captures pays no memory. */
static int ensure_running(struct taps *t) {
  for (uint32_t i = 0; i < t->host.n_workers; i++) {
    if (t->rings[i].bytes) continue;
    void *bytes = mmap(NULL, TAP_RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) return ENOMEM;
    t->rings[i].bytes = bytes;
  }
  if (t->running) return 0;
  int error = pthread_create(&t->thread, NULL, tap_thread, t);
  t->running = !error;
  return error;
}

/* New set of the active taps for the workers; NULL where there is none. 0, or ENOMEM and nothing changed. */
static int publish(struct taps *t) {
  struct tap_set *set = NULL, *old = atomic_load(&t->current);
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++) {
    if (atomic_load(&t->slots[slot].status) != IPS_TAP_ACTIVE) continue;
    if (!set && !(set = calloc(1, sizeof *set))) return ENOMEM;
    set->taps[set->n].slot = slot;
    set->taps[set->n++].rule = t->slots[slot].rule;
  }
  atomic_store(&t->current, set); /* before the frames are looked at: workers do it the other way round */
  if (old) {
    workers_snapshot(t, old->retired_seen);
    old->next_retired = t->retired;
    t->retired = old;
  }
  return 0;
}

static const char *rule_mistake(const struct ips_ctl_tap *r) {
  if (r->target < IPS_TAP_FILE || r->target > IPS_TAP_COLLECTOR) return "unknown target";
  if (!(r->flags & (IPS_TAP_BEFORE | IPS_TAP_AFTER | IPS_TAP_MARKED)))
    return "neither before, after nor marked packets";
  if (r->flags & ~(uint32_t)(IPS_TAP_BEFORE | IPS_TAP_AFTER | IPS_TAP_MARKED | IPS_TAP_OWNED))
    return "unknown flags";
  if (r->flags & IPS_TAP_MARKED && r->flags & (IPS_TAP_BEFORE | IPS_TAP_AFTER))
    return "marked packets are copied as they came: no other choice goes with it";
  if (!(r->sides & 3) || r->sides & ~3u) return "sides are bit 0 (outer) and bit 1 (inner)";
  if (!r->sample) return "sample is 1 of so many: at least 1";
  if (r->target == IPS_TAP_COLLECTOR && r->collector_family != 4 && r->collector_family != 6)
    return "the collector's address family is 4 or 6";
  if (r->vni >> 24) return "a VNI has 24 bits";
  if (r->target == IPS_TAP_INTERFACE && !memchr(r->interface, 0, sizeof r->interface))
    return "interface name too long";
  return NULL;
}

static int free_slot(const struct taps *t) {
  for (int slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    if (!atomic_load(&t->slots[slot].status)) return slot;
  return -1;
}

int tap_start(struct taps *t, const struct ips_ctl_tap *rule, int fd, int owner, uint32_t *slot,
              const char **sentence) {
  int status = IPS_CTL_BAD_ARGUMENT, error = 0, at = free_slot(t);
  if (at < 0) status = IPS_CTL_TOO_MANY;
  *sentence = at < 0 ? "all taps are in use" : rule_mistake(rule);
  if (!*sentence && rule->target == IPS_TAP_FILE && fd < 0)
    *sentence = "a capture to a file needs the file's descriptor";
  if (*sentence) {
    if (fd >= 0) close(fd);
    return status;
  }
  struct tap *tap = &t->slots[at];
  tap->id = ++t->next_id; /* field by field: the thread looks at `status`, which stays 0 */
  tap->owner = rule->flags & IPS_TAP_OWNED ? owner : -1;
  tap->rule = *rule;
  tap->started_ns = tap_clock_ns(CLOCK_BOOTTIME);
  atomic_store(&tap->wants_stop, false);
  tap->deadline_ns = rule->max_ms ? tap->started_ns + rule->max_ms * 1000000ull : 0;
  for (uint32_t i = 0; i < t->host.n_workers; i++) tap->lost_base[i] = atomic_load(&t->rings[i].lost[at]);
  error = sink_open(&tap->sink, rule, fd, &t->host, sentence);
  if (error) return errno = error, error == EBADF ? IPS_CTL_BAD_FD : IPS_CTL_SYSTEM;
  atomic_store(&tap->status, IPS_TAP_ACTIVE);
  *sentence = "no memory for the rings";
  error = ensure_running(t);
  if (!error) error = publish(t);
  if (error) {
    atomic_store(&tap->status, 0);
    sink_close(&tap->sink);
    return errno = error, IPS_CTL_SYSTEM;
  }
  tap_signal(t->kick);
  *slot = (uint32_t)at;
  return IPS_CTL_OK;
}

void tap_stop(struct taps *t, uint32_t slot) {
  struct tap *tap = &t->slots[slot];
  if (atomic_load(&tap->status) != IPS_TAP_ACTIVE) return;
  atomic_store(&tap->wants_stop, true); /* until publish() succeeds, taps_tick tries again */
  uint32_t active = IPS_TAP_ACTIVE;
  if (!atomic_compare_exchange_strong(&tap->status, &active, IPS_TAP_LEAVING)) return;
  if (publish(t)) {
    atomic_store(&tap->status, IPS_TAP_ACTIVE);
    return;
  }
  workers_snapshot(t, tap->seen);
  atomic_store(&tap->status, IPS_TAP_STOPPING);
  tap_signal(t->kick);
}

void tap_release(struct taps *t, uint32_t slot) { atomic_store(&t->slots[slot].status, 0); }

int tap_slot_of(const struct taps *t, uint64_t id) {
  for (int slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    if (atomic_load(&t->slots[slot].status) && t->slots[slot].id == id) return slot;
  return -1;
}

void tap_state(const struct taps *t, uint32_t slot, struct ips_ctl_tap_state *out) {
  const struct tap *tap = &t->slots[slot];
  *out = (struct ips_ctl_tap_state){
    .id = tap->id, .started_ns = tap->started_ns, .packets = atomic_load(&tap->sink.packets),
    .bytes = atomic_load(&tap->sink.bytes), .lost_target = atomic_load(&tap->sink.lost),
    .status = atomic_load(&tap->status), .target_errno = atomic_load(&tap->sink.last_errno), .tap = tap->rule,
  };
  for (uint32_t i = 0; i < t->host.n_workers; i++)
    out->lost_ring += atomic_load(&t->rings[i].lost[slot]) - tap->lost_base[i];
}

void taps_client_gone(struct taps *t, int client) {
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    if (atomic_load(&t->slots[slot].status) && t->slots[slot].owner == client) tap_stop(t, slot);
}

void taps_tick(struct taps *t) {
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    if (atomic_load(&t->slots[slot].wants_stop)) tap_stop(t, slot);
  for (struct tap_set **link = &t->retired; *link;) {
    struct tap_set *set = *link;
    if (!tap_workers_moved_on(t, set->retired_seen)) {
      link = &set->next_retired;
      continue;
    }
    *link = set->next_retired;
    free(set);
  }
}
