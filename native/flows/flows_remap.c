/* flows_remap.c: remaps are set, cleared, told of. A set is replaced by one store, while ips-mirror stands still;
 * the answer comes when every packet thread has ended the frame in which it could see the one before.
 */
#define _GNU_SOURCE
#include "flows_remap.h"
#include "../ips_remap.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_FOLLOWED = 1 << 20, MOST_FLOWS = 1 << 28 };

static int refuse(const char **sentence, int status, const char *text) {
  *sentence = text;
  return status;
}

static bool gives(uint8_t role) { return role == IPS_REMAP_PREPARING || role == IPS_REMAP_LEAVING; }
static bool is_text(const char *s, size_t n) { return s[0] && memchr(s, 0, n); }
static bool is_power(uint32_t n, uint32_t least, uint32_t most) {
  return !n || ((n & (n - 1)) == 0 && n >= least && n <= most);
}

static const char *fault(const struct ips_ctl_remap *c) {
  if (!c->id || c->id >> 56) return "the id of a remap is from 1 to 2^56 - 1";
  if (c->role < IPS_REMAP_PREPARING || c->role > IPS_REMAP_TAKING) return "unknown role";
  if (c->flags & ~(uint32_t)(IPS_REMAP_QUIC | IPS_REMAP_REPLIES | IPS_REMAP_UNKNOWN_HERE)) return "unknown flags";
  if (!is_text(c->node, sizeof c->node) || !is_text(c->peer, sizeof c->peer)) return "both nodes need names";
  if (!strcmp(c->node, c->peer)) return "a remap is between two different nodes";
  if (c->flows > MOST_FLOWS) return "there can be 268,435,456 flows";
  if (!is_power(c->ring, 4, 1 << 22)) return "the ring is a power of two from 4 to 4,194,304";
  if (!is_power(c->window, 2, 16384)) return "the window is a power of two from 2 to 16,384";
  if (!c->n_paths || c->n_paths > IPS_CTL_PAIR_PATHS) return "a remap has 1 to 4 paths";
  for (uint32_t k = 0; k < c->n_paths; k++)
    if ((c->paths[k].family != 4 && c->paths[k].family != 6) || !c->paths[k].local_port || !c->paths[k].remote_port)
      return "a path needs two addresses of one family, and two ports";
  return NULL;
}

static void free_remap(struct flows_remap *r) {
  if (!r) return;
  flows_mirror_free(r->m);
  ips_sessions_free(r->core.followed);
  free(r->core.counters);
  pthread_mutex_destroy(&r->lock);
  explicit_bzero(&r->set, sizeof r->set);
  free(r);
}

static struct ips_sessions *followed(const struct flows *f, const struct ips_ctl_remap *c) {
  uint32_t most = f->set.sessions < MOST_FOLLOWED ? f->set.sessions : MOST_FOLLOWED;
  const struct ips_sessions_config s = {.sessions = c->flows ? c->flows : most, .half_open = 1,
                                        .half_open_per_source = 1, .mappings = 1, .addresses = 1, .standby = 1,
                                        .seed = f->seed, .now_ns = flows_now_ns()};
  return ips_sessions_new(&s);
}

static struct flows_remap *make(struct flows *f, const struct ips_ctl_remap *c) {
  struct flows_remap *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  pthread_mutex_init(&r->lock, NULL);
  r->set = *c;
  r->prefix = (struct ips_session_prefix){.len = c->prefix_len, .family = c->family};
  memcpy(r->prefix.address, c->prefix, sizeof r->prefix.address);
  r->core.counters = calloc((f->n_workers + 2) * IPS_REMAP_COUNTERS, sizeof *r->core.counters);
  if (!gives(c->role)) r->core.followed = followed(f, c);
  bool fine = r->core.counters && (gives(c->role) || r->core.followed);
  r->m = fine ? flows_remap_channel(f, r) : NULL;
  if (r->m) return r;
  free_remap(r);
  return NULL;
}

/* ---- sets ---- */

static struct ips_remap_rec record_of(const struct flows_remap_set *s, uint32_t i) {
  const struct ips_ctl_remap *c = &s->at[i]->set;
  struct ips_remap_rec rec = {.id = c->id, .prefix_len = c->prefix_len, .family = c->family, .role = c->role,
                              .flags = c->flags, .channel = c->channel};
  memcpy(rec.prefix, c->prefix, sizeof rec.prefix);
  while (strcmp(s->at[rec.peer]->set.peer, c->peer) != 0) rec.peer++;
  return rec;
}

static struct flows_remap_set *set_of(const struct flows *f, struct flows_remap *const *at, uint32_t n) {
  struct ips_remap_rec recs[IPS_REMAPS];
  struct ips_remap_state states[IPS_REMAPS];
  struct flows_remap_set *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->n = n;
  memcpy(s->at, at, n * sizeof *at);
  for (uint32_t i = 0; i < n; i++) {
    recs[i] = record_of(s, i);
    states[i] = s->at[i]->core;
  }
  s->core = ips_remaps_new(recs, states, n, f->frags);
  if (s->core) return s;
  free(s);
  return NULL;
}

static void free_set(struct flows_remap_set *s) {
  if (!s) return;
  ips_remaps_free(s->core);
  free(s);
}

/* False: a packet thread hangs; what it may look at is kept for ever. */
static bool replace(struct flows *f, struct flows_remap_set *fresh) {
  struct flows_remap_set *old = atomic_load(&f->remaps);
  if (fresh && !fresh->n) {
    free_set(fresh);
    fresh = NULL;
  }
  atomic_store(&f->remaps, fresh);
  bool is_seen = flows_quiesce(f);
  if (is_seen) free_set(old);
  return is_seen;
}

static uint32_t position(const struct flows_remap_set *s, uint64_t id) {
  uint32_t i = 0;
  while (s && i < s->n && s->at[i]->set.id < id) i++;
  return i;
}

static struct flows_remap *find(const struct flows *f, uint64_t id) {
  const struct flows_remap_set *s = f->remaps;
  uint32_t i = position(s, id);
  return s && i < s->n && s->at[i]->set.id == id ? s->at[i] : NULL;
}

static int change_role(struct flows *f, struct flows_remap *r, const struct ips_ctl_remap *c, const char **sentence) {
  const struct flows_remap_set *now = f->remaps;
  struct ips_ctl_remap before = r->set;
  before.role = c->role;
  bool may = gives(r->set.role) == gives(c->role) && !memcmp(&before, c, sizeof before);
  explicit_bzero(&before, sizeof before);
  if (!may) return refuse(sentence, IPS_CTL_REFUSED, "only the role of a remap can change, within its side: clear it first");
  uint8_t role = r->set.role;
  flows_thread_stop(f);
  r->set.role = c->role;
  struct flows_remap_set *fresh = set_of(f, now->at, now->n);
  if (fresh) {
    replace(f, fresh);
    r->since_ns = flows_now_ns();
    r->has_fence = false;
    r->state.fence_applied = 0;
    flows_remap_publish(f, r);
  } else {
    r->set.role = role;
  }
  int failed = flows_thread_start(f);
  if (!fresh) return refuse(sentence, IPS_CTL_SYSTEM, "out of memory");
  return failed ? refuse(sentence, IPS_CTL_SYSTEM, "no thread could be made") : IPS_CTL_OK;
}

static int add(struct flows *f, struct flows_remap *r, const char **sentence) {
  const struct flows_remap_set *now = f->remaps;
  struct flows_remap *at[IPS_REMAPS];
  uint32_t n = now ? now->n : 0, i = position(now, r->set.id);
  if (n) memcpy(at, now->at, i * sizeof *at);
  if (n) memcpy(at + i + 1, now->at + i, (n - i) * sizeof *at);
  at[i] = r;
  struct flows_remap_set *fresh = set_of(f, at, n + 1);
  if (!fresh)
    return refuse(sentence, IPS_CTL_BAD_ARGUMENT,
                  "prefix or channel is none that can be: host bits, a missing or repeated address, an MTU too small, "
                  "another family or replies where packets are re-addressed; or more than 8 remaps of one address");
  flows_thread_stop(f);
  replace(f, fresh);
  r->since_ns = r->tracked_ns = flows_now_ns();
  flows_remap_publish(f, r);
  return flows_thread_start(f) ? refuse(sentence, IPS_CTL_SYSTEM, "no thread could be made") : IPS_CTL_OK;
}

int flows_remap_set(struct flows *f, const struct ips_ctl_remap *c, const char **sentence) {
  struct flows_remap *r = find(f, c->id);
  if (r && memcmp(&r->set, c, sizeof *c) == 0) return IPS_CTL_OK;
  const char *wrong = fault(c);
  if (wrong) return refuse(sentence, IPS_CTL_BAD_ARGUMENT, wrong);
  if (!f->sessions)
    return refuse(sentence, IPS_CTL_REFUSED, "no connections are tracked on this node: none could be followed");
  if (r) return change_role(f, r, c, sentence);
  const struct flows_remap_set *now = f->remaps;
  if (now && now->n == IPS_REMAPS) return refuse(sentence, IPS_CTL_TOO_MANY, "there are 64 remaps: clear one first");
  if (!(r = make(f, c))) return refuse(sentence, IPS_CTL_SYSTEM, "no memory for so many flows");
  int status = add(f, r, sentence);
  if (status == IPS_CTL_BAD_ARGUMENT) free_remap(r);
  return status;
}

bool flows_remap_clear(struct flows *f, uint64_t id, struct ips_ctl_remap_state *last) {
  const struct flows_remap_set *now = f->remaps;
  struct flows_remap *r = find(f, id), *at[IPS_REMAPS];
  if (!r) return false;
  flows_thread_stop(f);
  flows_remap_publish(f, r);
  *last = r->state;
  uint32_t n = 0;
  for (uint32_t i = 0; i < now->n; i++)
    if (now->at[i] != r) at[n++] = now->at[i];
  struct flows_remap_set *fresh = set_of(f, at, n);
  if (fresh && replace(f, fresh)) free_remap(r);
  flows_thread_start(f);
  return fresh != NULL;
}

bool flows_remap_state(struct flows *f, uint64_t id, struct ips_ctl_remap_state *out) {
  struct flows_remap *r = find(f, id);
  if (!r) return false;
  pthread_mutex_lock(&r->lock);
  *out = r->state;
  pthread_mutex_unlock(&r->lock);
  out->now_ns = flows_now_ns();
  return true;
}

uint32_t flows_remap_list(struct flows *f, struct ips_ctl_remap_state *out, uint32_t room) {
  const struct flows_remap_set *s = f->remaps;
  uint32_t n = 0;
  for (; s && n < s->n && n < room; n++) flows_remap_state(f, s->at[n]->set.id, &out[n]);
  return n;
}

const struct ips_sessions *flows_remap_table(struct flows *f, uint64_t id, struct ips_ctl_session_filter *filter) {
  const struct flows_remap *r = find(f, id);
  *filter = (struct ips_ctl_session_filter){.kind = IPS_SESSION_TRACK};
  if (!r) return NULL;
  filter->family = r->set.family;
  filter->dst_len = r->set.prefix_len;
  memcpy(filter->dst, r->set.prefix, sizeof filter->dst);
  return r->core.followed ? r->core.followed : f->sessions;
}

void flows_remap_close(struct flows *f) {
  struct flows_remap_set *s = f->remaps;
  for (uint32_t i = 0; s && i < s->n; i++) free_remap(s->at[i]);
  free_set(s);
}
