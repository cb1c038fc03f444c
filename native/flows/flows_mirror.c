/* flows_mirror.c: the mirror is set, cleared, begun anew; its figures. Its thread stands still meanwhile. */
#define _GNU_SOURCE
#include "../ips_mirror.h"
#include "flows_mirror.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
  RING = 16384, WINDOW = 1024, LEAST_TOMBSTONES = 8192, MOST_TOMBSTONES = 1 << 20, BURST = 128, SCAN = 4096,
  MOST_RING = 1 << 22, MOST_WINDOW = 16384,
};
#define MS 1000000ull

static void random_octets(void *arg, uint8_t *out, size_t n) {
  (void)arg;
  while (n) {
    ssize_t got = getrandom(out, n, 0);
    if (got > 0) out += got, n -= (size_t)got;
  }
}

static int refuse(const char **sentence, int status, const char *text) {
  *sentence = text;
  return status;
}

static bool is_text(const char *s, size_t n) { return s[0] && memchr(s, 0, n); }
static bool is_power(uint32_t n) { return (n & (n - 1)) == 0; }

static const char *fault(const struct ips_ctl_mirror *c) {
  if (!c->n_peers || c->n_peers > IPS_CTL_MIRROR_PEERS) return "a mirror has 1 to 8 peers";
  if (c->role > IPS_CTL_MIRROR_OBSERVER || c->commit_acked > 1)
    return "unknown role, or commit is neither 0 nor 1";
  if (c->commit_us > IPS_CTL_MIRROR_COMMIT_US || (c->commit_acked && !c->commit_us))
    return "a first packet waits for 1 us to 1 s (commit_us)";
  if (!is_text(c->node, sizeof c->node)) return "the node needs a name";
  if (c->ring && (!is_power(c->ring) || c->ring < 4 || c->ring > MOST_RING))
    return "the ring is a power of two from 4 to 4,194,304";
  if (c->window && (!is_power(c->window) || c->window < 2 || c->window > MOST_WINDOW))
    return "the window is a power of two from 2 to 16,384";
  if (c->n_items > IPS_CTL_MIRROR_ITEMS) return "there can be 12 items";
  for (uint32_t i = 0; i < c->n_items; i++)
    if (!c->items[i].name[0]) return "an item needs a name";
  for (uint32_t i = 0; i < c->n_peers; i++) {
    const struct ips_ctl_mirror_peer *p = &c->peers[i];
    if (!is_text(p->name, sizeof p->name)) return "a peer needs a name";
    if (p->id == c->id) return "a peer has this node's id";
    for (uint32_t k = 0; k < i; k++)
      if (c->peers[k].id == p->id) return "two peers have one id";
    if (!p->n_paths || p->n_paths > IPS_CTL_PAIR_PATHS) return "a peer has 1 to 4 paths";
    for (uint32_t k = 0; k < p->n_paths; k++)
      if ((p->paths[k].family != 4 && p->paths[k].family != 6) || !p->paths[k].local_port ||
          !p->paths[k].remote_port)
        return "a path needs two addresses of one family, and two ports";
  }
  return NULL;
}

static struct ips_seal *channel(const struct ips_ctl_mirror *c, uint32_t peer, uint64_t boot) {
  struct ips_seal_config s = {.boot = boot, .n_keys = 1, .key_numbers = {1},
                              .n_items = (uint8_t)(1 + c->n_items), .hello_ns = FLOWS_HELLO_NS,
                              .silence_ns = FLOWS_SILENCE_NS};
  snprintf((char *)s.id, sizeof s.id, "m%u", c->id);
  snprintf((char *)s.peer, sizeof s.peer, "m%u", c->peers[peer].id);
  memcpy(s.keys[0], c->key, sizeof s.keys[0]);
  s.items[FLOWS_ITEM] = (struct ips_seal_item){.name = "flows", .digest = c->config_digest};
  for (uint32_t i = 0; i < c->n_items; i++) {
    memcpy(s.items[FLOWS_ITEM + 1 + i].name, c->items[i].name, sizeof s.items[0].name);
    s.items[FLOWS_ITEM + 1 + i].digest = c->items[i].digest;
  }
  struct ips_seal *seal = ips_seal_new(&s, random_octets, NULL);
  explicit_bzero(&s, sizeof s);
  return seal;
}

void flows_mirror_free(struct flows_mirror *m) {
  if (!m) return;
  flows_net_close(m);
  ips_mirror_free(m->core);
  for (uint32_t p = 0; p < IPS_CTL_MIRROR_PEERS; p++) ips_seal_free(m->peers[p].seal);
  pthread_mutex_destroy(&m->lock);
  pthread_mutex_destroy(&m->turn);
  free(m->deferred);
  free(m);
}

/* As many deletions as two sets can have. */
static uint32_t tombstones(const struct ips_mirror_config *c) {
  uint64_t n = LEAST_TOMBSTONES;
  while (n < MOST_TOMBSTONES && n < 2ull * c->workers * c->ring) n *= 2;
  return (uint32_t)n;
}

static struct flows_mirror *make(struct flows *f, const struct ips_ctl_mirror *c) {
  struct flows_mirror *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  uint64_t boot = f->run | (uint64_t)++f->n_mirrors << 48;
  pthread_mutex_init(&m->lock, NULL);
  pthread_mutex_init(&m->turn, NULL);
  m->flows = f;
  m->set = *c;
  explicit_bzero(m->set.key, sizeof m->set.key);
  m->told_role = m->seen_role = m->ready_for = NOBODYS;
  struct ips_mirror_config k = {
    .workers = f->n_workers + 2, .ring = c->ring ? c->ring : RING, .window = c->window ? c->window : WINDOW,
    .burst = BURST, .scan = SCAN, .n_peers = c->n_peers, .must_match = 1u << FLOWS_ITEM, .rto_ns = 20 * MS,
    .idle_ns = 100 * MS, .digest_ns = c->digest_ns, .backoff_ns = 100 * MS,
    .source = flows_source(m), .sink = flows_sink(m),
  };
  k.tombstones = tombstones(&k);
  m->deferred = calloc(FLOWS_DEFERRED, sizeof *m->deferred);
  bool fine = m->deferred != NULL;
  for (uint32_t p = 0; p < IPS_CTL_MIRROR_PEERS; p++) {
    for (uint32_t i = 0; i < IPS_CTL_PAIR_PATHS; i++) m->peers[p].paths[i].fd = -1;
    if (p >= c->n_peers) continue;
    m->peers[p].n_paths = c->peers[p].n_paths;
    m->peers[p].seal = k.seals[p] = channel(c, p, boot);
    fine &= k.seals[p] != NULL;
  }
  m->core = fine ? ips_mirror_new(&k) : NULL;
  if (m->core) return m;
  flows_mirror_free(m);
  return NULL;
}

/* NULL: none any more. The thread begins again, with it. */
static int replace(struct flows *f, struct flows_mirror *fresh) {
  struct flows_mirror *old = f->mirror;
  flows_thread_stop(f);
  f->has_mirror = fresh != NULL;
  atomic_store(&f->is_observer, fresh && fresh->set.role == IPS_CTL_MIRROR_OBSERVER);
  atomic_store(&f->mirror, fresh);
  flows_follow(f);
  if (flows_quiesce(f)) flows_mirror_free(old); /* else a packet thread hangs in it: kept for ever */
  return flows_thread_start(f);
}

int flows_mirror_set(struct flows *f, const struct ips_ctl_mirror *c, const char **sentence) {
  if (f->has_mirror && f->runs && memcmp(&f->mirror_set, c, sizeof *c) == 0) return IPS_CTL_OK;
  const char *wrong = fault(c);
  if (wrong) return refuse(sentence, IPS_CTL_BAD_ARGUMENT, wrong);
  if (!f->sessions)
    return refuse(sentence, IPS_CTL_REFUSED,
                  "no connections are tracked on this node: there is nothing to mirror");
  struct flows_mirror *fresh = make(f, c);
  if (!fresh) return refuse(sentence, IPS_CTL_SYSTEM, "out of memory");
  f->mirror_set = *c;
  return replace(f, fresh) ? refuse(sentence, IPS_CTL_SYSTEM, "no thread could be made") : IPS_CTL_OK;
}

void flows_mirror_clear(struct flows *f) {
  if (!f->has_mirror) return;
  replace(f, NULL);
  explicit_bzero(&f->mirror_set, sizeof f->mirror_set);
}

void flows_mirror_renew(struct flows *f) {
  struct flows_mirror *fresh = f->has_mirror ? make(f, &f->mirror_set) : NULL;
  if (fresh) replace(f, fresh);
}

/* ---- figures ---- */

uint64_t flows_mirror_push(struct flows *f, struct flows_mirror *m, uint32_t ring, int op,
                           const struct ips_session_rec *rec) {
  uint64_t number = ips_mirror_push(m->core, ring, op & ~IPS_SESSION_BORN, rec);
  atomic_thread_fence(memory_order_seq_cst); /* the thread says it is idle before it looks at the rings */
  flows_wake(f);
  return number;
}

void flows_mirror_state(struct flows *f, struct ips_ctl_flows_state *out) {
  struct flows_mirror *m = f->mirror;
  if (!m) return;
  pthread_mutex_lock(&m->lock);
  out->mirror = m->stats;
  memcpy(out->peer_notes, m->notes, sizeof out->peer_notes);
  memcpy(out->peer_differs, m->differs, sizeof out->peer_differs);
  memcpy(out->peer_refused, m->refused, sizeof out->peer_refused);
  pthread_mutex_unlock(&m->lock);
}
