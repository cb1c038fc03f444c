/* flows_packet.c: what a packet thread has to do with tracked connections: enter and leave a frame, hand on
 * changes.
 *
 * Entering is announced before anything shared is read, so that control, which stores first and looks then,
 * sees either a thread that reads the new, or one to wait for.
 */
#define _GNU_SOURCE
#include "../ips_dispatch_api.h"
#include "../ips_worker.h"
#include "flows.h"
#include "flows_mirror.h"
#include "flows_remap.h"

/* An observer follows and translates nothing of its own, whatever is sent to it. */
void flows_enter(struct flows_worker *w) {
  struct flows *f = w->flows;
  atomic_store(&w->frame, atomic_load_explicit(&w->frame, memory_order_relaxed) + 1);
  w->mirror = atomic_load(&f->mirror);
  w->remaps = atomic_load(&f->remaps);
  bool looks_on = atomic_load(&f->is_observer);
  if (looks_on) ips_worker_set_flows(w->core, NULL, NULL);
  else ips_worker_set_flows(w->core, atomic_load(&f->sessions), atomic_load(&f->napt));
  ips_worker_set_remaps(w->core, w->remaps ? w->remaps->core : NULL);
  ips_worker_set_clusters(w->core, looks_on ? NULL : atomic_load(&f->clusters));
}

void flows_leave(struct flows_worker *w) {
  ips_worker_set_clusters(w->core, NULL);
  ips_worker_set_remaps(w->core, NULL);
  ips_worker_set_flows(w->core, NULL, NULL);
  uint64_t frame = atomic_load_explicit(&w->frame, memory_order_relaxed);
  atomic_store_explicit(&w->frame, frame + 1, memory_order_release);
}

void flows_emit(void *worker, struct ips_pkt *p, int kind) {
  const struct flows_worker *w = worker;
  w->core->emit(w->core->arg, p, kind);
}

/* Rings: of packet threads, then ips-mirror's and control's, which are in no frame: nothing is replaced
 * meanwhile. */
void flows_event(void *flows, uint32_t ring, int op, const struct ips_session_rec *rec) {
  struct flows *f = flows;
  struct flows_worker *w = ring < f->n_workers ? &f->workers[ring] : NULL;
  struct flows_mirror *m = w ? w->mirror : atomic_load(&f->mirror);
  const struct flows_remap_set *remaps = w ? w->remaps : atomic_load(&f->remaps);
  if (ips_unlikely(remaps != NULL)) flows_remap_event(f, remaps, ring, op, rec);
  if (!m) return;
  uint64_t number = flows_mirror_push(f, m, ring, op, rec);
  if (!w || !(op & IPS_SESSION_BORN) || !m->set.commit_acked) return;
  w->made = number;
  w->made_in_vain = number == 0;
}
