/* flows.c: life of a node's tracked connections: what is set, what replaces it while packets pass, whose turn
 * it is to be active. */
#define _GNU_SOURCE
#include "flows.h"
#include "flows_dispatch.h"
#include "flows_mirror.h"
#include "flows_remap.h"
#include "../ips_mirror.h"
#include "../ips_napt_api.h"
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>

enum { FRAGMENTED = 8192, EARLY = 1024, EARLY_BYTES = 2048, LAST_MS = 2000 };

struct flows *flows_create(uint32_t n_workers) {
  struct flows *f = aligned_alloc(64, (sizeof *f + 63) & ~(size_t)63);
  if (!f) return NULL;
  memset(f, 0, sizeof *f);
  f->n_workers = n_workers;
  f->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  bool fine = f->wake >= 0 && getrandom(&f->seed, sizeof f->seed, 0) == sizeof f->seed &&
              getrandom(&f->run, sizeof f->run, 0) == sizeof f->run;
  f->run = (f->run & IPS_MIRROR_RUN) | 1;
  for (uint32_t i = 0; i < FLOWS_WORKERS; i++) {
    f->workers[i].flows = f;
    f->workers[i].committed_event = -1;
  }
  flows_no_pair(f);
  if (fine) return f;
  flows_destroy(f);
  return NULL;
}

void flows_destroy(struct flows *f) {
  if (!f) return;
  flows_thread_stop(f);
  flows_mirror_free(f->mirror);
  flows_remap_close(f);
  flows_dispatch_close(f);
  for (uint32_t i = 0; i < FLOWS_WORKERS; i++) flows_hold_close(&f->workers[i]);
  ips_napt_free(f->napt);
  ips_napt_free(f->stuck);
  ips_frag_free(f->frags);
  ips_sessions_free(f->sessions);
  if (f->wake >= 0) close(f->wake);
  explicit_bzero(&f->mirror_set, sizeof f->mirror_set);
  free(f);
}

struct flows_worker *flows_attach(struct flows *f, uint32_t index, struct ips_worker *core,
                                  flows_send_fn send, void *arg) {
  struct flows_worker *w = &f->workers[index];
  w->core = core;
  w->index = index;
  w->send = send;
  w->send_arg = arg;
  return flows_hold_open(w) ? w : NULL;
}

/* ---- roles ---- */

/* A node that never becomes active keeps its sessions as a standby does, whatever else it is. */
bool flows_is_active(const struct flows *f) { return f->role & 1 && !f->is_observer; }

/* The table follows the role; the last word of the pair's thread holds, whichever thread brings it. */
void flows_follow(struct flows *f) {
  struct ips_sessions *s = f->sessions;
  for (uint64_t role = ~f->role; s && role != f->role;) {
    role = f->role;
    if (flows_is_active(f)) ips_sessions_promote(s, flows_now_ns());
    else ips_sessions_stand_by(s);
  }
}

void flows_role(void *flows, bool is_active, uint64_t epoch) {
  struct flows *f = flows;
  atomic_store(&f->role, epoch << 1 | is_active);
  flows_follow(f);
  flows_wake(f);
}

/* Without a pair nobody keeps epochs for this node; the calendar's seconds rise over its restarts. */
void flows_no_pair(struct flows *f) { flows_role(f, true, (uint64_t)time(NULL)); }

/* ---- replacing ---- */

bool flows_quiesce(struct flows *f) {
  const struct timespec pause = {.tv_nsec = 50000};
  uint64_t end = flows_now_ns() + LAST_MS * 1000000ull;
  for (uint32_t i = 0; i < f->n_workers; i++) {
    uint64_t frame = atomic_load(&f->workers[i].frame);
    while (frame & 1 && atomic_load(&f->workers[i].frame) == frame) {
      if (flows_now_ns() > end) return false;
      nanosleep(&pause, NULL);
    }
  }
  return true;
}

static int refuse(const char **sentence, int status, const char *text) {
  *sentence = text;
  return status;
}

static const char *fault(const struct ips_ctl_flows *c) {
  uint64_t addresses = 0, most = c->addresses ? c->addresses : 1024;
  if (c->n_pools > IPS_CTL_POOLS) return "there can be 64 pools";
  if (c->n_insides > IPS_CTL_INSIDES) return "there can be 256 inside prefixes";
  if (c->filtering > IPS_FILTER_ADDRESS_AND_PORT) return "unknown kind of filtering";
  for (uint32_t i = 0; i < c->n_pools; i++) {
    const struct ips_napt_pool_rec *p = &c->pools[i];
    if (p->family != 4 && p->family != 6) return "a pool's family is 4 or 6";
    if (!p->n || p->n > 65536) return "a pool has 1 to 65,536 addresses";
    if ((p->last_port && !p->first_port) || p->first_port > p->last_port)
      return "a pool's ports go from a first one, not 0, to a last one";
    addresses += p->n;
  }
  if (addresses > most) return "the pools have more addresses than `addresses` says";
  for (uint32_t i = 0; i < c->n_insides; i++) {
    bool has_pool = false;
    for (uint32_t k = 0; k < c->n_pools; k++)
      has_pool |= c->pools[k].realm == c->insides[i].realm && c->pools[k].family == c->insides[i].family;
    if (!has_pool) return "an inside prefix needs a pool of its realm and family";
  }
  return NULL;
}

/* NULL: not possible. Nobody sees it yet. */
static struct ips_sessions *make_sessions(struct flows *f, const struct ips_ctl_flows *c) {
  const struct ips_sessions_config s = {
    .sessions = c->sessions, .half_open = c->half_open, .half_open_per_source = c->half_open_per_source,
    .mappings = c->mappings, .tombstones = c->tombstones, .addresses = c->addresses,
    .tombstone_s = c->tombstone_s,
    .source_bits4 = c->source_bits4, .source_bits6 = c->source_bits6, .standby = !flows_is_active(f),
    .udp_inbound_refreshes = c->udp_inbound_refreshes, .seed = f->seed, .now_ns = flows_now_ns(),
    .timeouts = c->timeouts,
  };
  if (!f->frags) f->frags = ips_frag_new(FRAGMENTED, EARLY, EARLY_BYTES, f->seed ^ 0x9d3f);
  struct ips_sessions *t = f->frags ? ips_sessions_new(&s) : NULL;
  if (t) ips_sessions_on_event(t, flows_event, f);
  return t;
}

/* Refused: everything is as it was. */
static int replace_napt(struct flows *f, struct ips_sessions *t, const struct ips_ctl_flows *c,
                        const char **sentence) {
  const struct ips_napt_config n = {.pools = c->pools, .insides = c->insides, .n_pools = c->n_pools,
                                    .n_insides = c->n_insides, .filtering = c->filtering,
                                    .seed = f->seed ^ 0x51ab};
  struct ips_napt *fresh = ips_napt_new(t, f->frags, &n), *old = f->napt;
  if (!fresh)
    return refuse(sentence, IPS_CTL_BAD_ARGUMENT,
                  "pools overlap, a prefix has host bits, or `addresses` has no room for addresses that came "
                  "and went");
  if (!f->sessions) {
    atomic_store(&f->sessions, t);
    flows_follow(f);
  }
  for (uint32_t i = 0; i < f->n_workers; i++)
    if (f->workers[i].core) ips_napt_set_emit(fresh, i, flows_emit, &f->workers[i]);
  atomic_store(&f->napt, fresh);
  if (flows_quiesce(f)) {
    ips_napt_free(old);
  } else {
    ips_napt_free(f->stuck == old ? NULL : f->stuck);
    f->stuck = old;
  }
  atomic_fetch_add(&f->prunes, 1); /* sessions of addresses that have left the pools */
  flows_wake(f);
  return IPS_CTL_OK;
}

int flows_set(struct flows *f, const struct ips_ctl_flows *c, const char **sentence) {
  if (f->napt && f->runs && memcmp(&f->set, c, sizeof *c) == 0) return IPS_CTL_OK;
  const char *wrong = fault(c);
  if (wrong) return refuse(sentence, IPS_CTL_BAD_ARGUMENT, wrong);
  if (f->sessions && (memcmp(&f->set, c, offsetof(struct ips_ctl_flows, timeouts)) ||
                      f->set.source_bits4 != c->source_bits4 || f->set.source_bits6 != c->source_bits6))
    return refuse(sentence, IPS_CTL_REFUSED,
                  "the sizes of the session table are those of the engine's first one: restart the engine to "
                  "change them");
  struct ips_sessions *t = f->sessions ? f->sessions : make_sessions(f, c);
  if (!t)
    return refuse(sentence, IPS_CTL_BAD_ARGUMENT, "no memory for so many sessions, or a number out of range");
  int status = replace_napt(f, t, c, sentence);
  if (status != IPS_CTL_OK) {
    if (!f->sessions) ips_sessions_free(t);
    return status;
  }
  ips_sessions_set_times(f->sessions, &c->timeouts, c->udp_inbound_refreshes != 0);
  f->set = *c;
  if (!f->runs && flows_thread_start(f)) return refuse(sentence, IPS_CTL_SYSTEM, "no thread could be made");
  return IPS_CTL_OK;
}

void flows_state(struct flows *f, struct ips_ctl_flows_state *out) {
  *out = (struct ips_ctl_flows_state){.now_ns = flows_now_ns(), .has_flows = f->sessions != NULL,
                                      .has_mirror = f->has_mirror, .is_ready = flows_ready(f, false)};
  if (f->sessions) ips_sessions_stats(f->sessions, &out->sessions);
  if (f->napt) out->n_addresses = (uint32_t)ips_napt_addresses(f->napt, NULL, 0);
  flows_mirror_state(f, out);
  flows_hold_state(f, out);
}
