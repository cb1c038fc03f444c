/* ips_session_apply.c: what a peer says about its sessions, in any order, any number of times.
 *
 * The version decides: a record that is not newer than what is known changes nothing. A deletion leaves a
 * tombstone (flow's hash, version), so that a refresh that comes later is not taken for a new session; a
 * deletion that is older than the session at hand is about an earlier one. Values from the wire are checked
 * here, every one: no number of them is an index. A mapped port that another inside endpoint has is
 * refused, and the owner named; the bit is never merely set (LESSONS.md 17).
 */
#include "ips_session_table.h"
#include <stdlib.h>

/* ---- tombstones ---- */

bool ips_tombstones_init(struct ips_sessions *t, const struct ips_sessions_config *c) {
  uint32_t want = c->tombstones ? c->tombstones : c->sessions / 32 + 1, graves = 1;
  while (graves * IPS_GRAVES < want) graves *= 2;
  t->grave_mask = graves - 1;
  t->tombstones = ips_memory_new((size_t)graves * IPS_GRAVES * sizeof *t->tombstones);
  return t->tombstones;
}

void ips_tombstones_close(struct ips_sessions *t) {
  ips_memory_free(t->tombstones, (t->grave_mask + 1ul) * IPS_GRAVES * sizeof *t->tombstones);
}

uint32_t ips_tombstones_now(const struct ips_sessions *t) { return (uint32_t)ips_peek(t->stats.tombstones); }

static void lock_graves(struct ips_sessions *t) {
  while (__atomic_exchange_n(&t->grave_lock, 1, __ATOMIC_ACQUIRE)) ips_relax();
}
static void unlock_graves(struct ips_sessions *t) { __atomic_store_n(&t->grave_lock, 0, __ATOMIC_RELEASE); }

/* Its tombstone, or a place for one: free, expired, or the one that would go first. */
static struct ips_tombstone *grave(struct ips_sessions *t, const struct ips_place *p, uint32_t tick) {
  struct ips_tombstone *first = &t->tombstones[(p->hash >> 32 & t->grave_mask) * IPS_GRAVES], *best = NULL;
  for (struct ips_tombstone *g = first; g < first + IPS_GRAVES; g++) {
    if (g->used && g->until < tick) {
      g->used = 0;
      ips_add(t->stats.tombstones, -1);
    }
    if (g->used && g->print == p->hash) return g;
    if (!best || (best->used && (!g->used || g->until < best->until))) best = g;
  }
  return best;
}

void ips_tombstones_forget(struct ips_sessions *t) {
  lock_graves(t);
  memset(t->tombstones, 0, (t->grave_mask + 1ul) * IPS_GRAVES * sizeof *t->tombstones);
  ips_put(t->stats.tombstones, 0);
  unlock_graves(t);
}

/* The version that was deleted; 0: nobody remembers any. */
static uint64_t buried(struct ips_sessions *t, const struct ips_place *p, uint32_t tick) {
  lock_graves(t);
  const struct ips_tombstone *g = grave(t, p, tick);
  uint64_t version = g->used && g->print == p->hash ? g->version : 0;
  unlock_graves(t);
  return version;
}

static bool bury(struct ips_sessions *t, const struct ips_place *p, uint64_t version, uint32_t tick) {
  lock_graves(t);
  struct ips_tombstone *g = grave(t, p, tick);
  bool known = g->used && g->print == p->hash, later = !known || g->version < version;
  if (!known && g->used) ips_add(t->stats.tombstones_lost, 1);
  if (!known && !g->used) ips_add(t->stats.tombstones, 1);
  if (later) *g = (struct ips_tombstone){p->hash, version, tick + t->tombstone_ticks, 1};
  unlock_graves(t);
  return later;
}

/* ---- is it a record? ---- */

static bool is_address(unsigned family, const uint8_t *address) {
  return family == 6 || ips_all_zero(address + 4, 12);
}

/* All that a deletion says. */
static bool is_named(const struct ips_session_rec *r) {
  const struct ips_flow *f = &r->flow;
  return (f->family == 4 || f->family == 6) && is_address(f->family, f->src) && is_address(f->family, f->dst) &&
         r->version;
}

static bool is_sound(const struct ips_session_rec *r) {
  const struct ips_flow *f = &r->flow;
  if (!is_named(r) || !is_address(f->family, r->mapped)) return false;
  if (r->kind < IPS_SESSION_TRACK || r->kind > IPS_SESSION_DISPATCH) return false;
  if (r->state < IPS_STATE_OPENING || r->state > IPS_STATE_RESET) return false;
  if (r->kind == IPS_SESSION_TRACK) return ips_all_zero(r->mapped, 16) && !r->mapped_port;
  return r->kind != IPS_SESSION_NAPT || (r->mapped_port != 0) == (ips_port_class(f->proto) >= 0);
}

/* OK with the number of its mapped address (TRACK: NONE). */
static int number_of(struct ips_sessions *t, const struct ips_session_rec *r, uint32_t *number) {
  *number = IPS_NONE;
  if (r->kind == IPS_SESSION_TRACK) return IPS_APPLIED;
  if (r->kind == IPS_SESSION_DISPATCH) {
    *number = ips_addresses_add(&t->addresses, r->flow.family, r->mapped);
    return *number == IPS_NONE ? IPS_APPLY_FULL : IPS_APPLIED;
  }
  *number = ips_addresses_find(&t->addresses, r->flow.family, r->mapped);
  const struct ips_port_set *s = *number == IPS_NONE ? NULL : ips_get(t->mappings.ports[*number]);
  return s && ips_get(s->is_live) && ips_peek(s->realm) == r->flow.realm ? IPS_APPLIED : IPS_APPLY_BAD;
}

/* ---- applying ---- */

static uint32_t ago(uint32_t tick, uint64_t ns) {
  uint64_t ticks = ns >> IPS_TICK_SHIFT;
  return ticks >= tick ? 1 : tick - (uint32_t)ticks;
}

/* What the record says of the session itself; the chain is locked, or the node not linked yet. */
static void take_over(struct ips_session_node *n, const struct ips_session_rec *r, uint32_t tick) {
  for (unsigned i = 0; i < 2; i++) {
    ips_put(n->packets[i], r->packets[i]);
    ips_put(n->bytes[i], r->bytes[i]);
  }
  ips_put(n->flags, (uint16_t)(r->flags & (IPS_SESSION_FROM_OUTSIDE | IPS_SESSION_ONE_SIDED)));
  ips_put(n->last, ago(tick, r->idle_ms * 1000000ull));
  ips_put(n->opened, ago(tick, r->age_s * 1000000000ull));
  ips_put(n->version, r->version);
}

static void name_owner(const struct ips_sessions *t, const struct ips_session_rec *rec,
                       const struct ips_inner *owner, struct ips_outer_end had, struct ips_session_rec *out) {
  memset(out, 0, sizeof *out);
  out->flow =
      (struct ips_flow){.family = rec->flow.family, .proto = rec->flow.proto, .realm = rec->flow.realm};
  out->kind = IPS_SESSION_NAPT;
  if (owner->rest) {
    memcpy(out->flow.src, owner->address, 16);
    out->flow.src_port = (uint16_t)owner->rest;
    memcpy(out->mapped, rec->mapped, 16);
    out->mapped_port = rec->mapped_port;
  } else if (had.number != IPS_NONE) {
    memcpy(out->flow.src, rec->flow.src, 16);
    out->flow.src_port = rec->flow.src_port;
    ips_address_copy(&t->addresses, had.number, out->mapped);
    out->mapped_port = had.port;
  }
}

/* A flow that is not in the table. IPS_APPLIED, FULL, CONFLICT; -1: it is there now. */
static int add(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
               const struct ips_session_rec *r, uint32_t number, uint32_t tick,
               struct ips_session_rec *owner) {
  struct ips_inner inner = ips_inner_of(&r->flow), holder = {.rest = 0};
  struct ips_outer_end end = {.number = number, .port = r->mapped_port}, had = {.number = IPS_NONE};
  bool napt = r->kind == IPS_SESSION_NAPT;
  if (!ips_budget_take(&t->used, t->capacity)) return IPS_APPLY_FULL;
  if (napt && !ips_mapping_claim(&t->mappings, worker, &inner, end, &holder, &had)) {
    ips_add(t->used, -1);
    if (!holder.rest && had.number == IPS_NONE) return IPS_APPLY_FULL; /* nobody has it: no mapping is left */
    name_owner(t, r, &holder, had, owner);
    return IPS_APPLY_CONFLICT;
  }
  uint32_t node = ips_stacks_pop(&t->free, worker);
  while (node == IPS_NONE) node = ips_stacks_pop(&t->free, worker);
  ips_session_write(&t->nodes[node], p, number, r->mapped_port, 0, tick);
  take_over(&t->nodes[node], r, tick);
  ips_chain_lock(ips_chain_of(t, p));
  bool late = ips_session_locate(t, p) != IPS_NONE;
  if (!late)
    ips_session_link(t, p, node, r->state | (uint32_t)r->kind << 4 | ips_session_mark(t, &r->flow) << 8);
  ips_chain_unlock(ips_chain_of(t, p));
  if (!late) return IPS_APPLIED;
  ips_stacks_push(&t->free, worker, node);
  if (napt) ips_mapping_give(&t->mappings, worker, &inner);
  ips_add(t->used, -1);
  return -1;
}

/* Of a session of the table; one that is another origin's, and not confirmed, is older than all. */
static uint64_t version_here(const struct ips_sessions *t, const struct ips_session_node *n, unsigned mark) {
  return t->is_new_origin && ips_word_mark(ips_peek(n->word)) != mark ? 0 : ips_peek(n->version);
}

/* One that is, at node i, with its chain locked, which is given back. -1: another session of that flow, which
 * the record's followed; it has been ended. */
static int update(struct ips_sessions *t, uint32_t worker, const struct ips_place *p,
                  const struct ips_session_rec *r, uint32_t i, uint32_t number, uint32_t tick) {
  struct ips_session_node *n = &t->nodes[i];
  uint32_t word = ips_peek(n->word);
  uint16_t flags = ips_peek(n->flags);
  bool half = word & IPS_WORD_HALF;
  unsigned mark = ips_session_mark(t, &r->flow);
  int result = IPS_APPLIED;
  if (!half && version_here(t, n, mark) >= r->version) {
    result = IPS_APPLY_STALE;
    ips_put(n->word, (word & ~0xff00u) | mark << 8);
  } else if (ips_word_kind(word) != r->kind || ips_peek(n->number) != number ||
             ips_peek(n->mapped_port) != r->mapped_port) {
    ips_session_unlink(t, p, i);
    ips_chain_unlock(ips_chain_of(t, p));
    ips_session_release(t, worker, p, i, word, flags);
    return -1;
  } else if (half && !ips_budget_take(&t->used, t->capacity)) {
    result = IPS_APPLY_FULL;
  } else {
    take_over(n, r, tick);
    ips_session_reckon(t, number, word, r->state | (uint32_t)r->kind << 4);
    ips_put(n->word, (word & 0xffff0000u) | r->state | (uint32_t)r->kind << 4 | mark << 8);
  }
  ips_chain_unlock(ips_chain_of(t, p));
  if (half && result == IPS_APPLIED) {
    ips_source_give(&t->sources, &r->flow, flags);
    ips_add(t->half, -1);
  }
  return result;
}

static int upsert(struct ips_sessions *t, uint32_t worker, const struct ips_session_rec *r, uint32_t tick,
                  struct ips_session_rec *owner) {
  struct ips_place p = ips_place_of(t, &r->flow);
  uint32_t number;
  int result = number_of(t, r, &number);
  if (result) return result;
  ips_session_raise_version(t, &p, r->version);
  do {
    ips_chain_lock(ips_chain_of(t, &p));
    uint32_t i = ips_session_locate(t, &p);
    if (i != IPS_NONE) {
      result = update(t, worker, &p, r, i, number, tick);
    } else {
      ips_chain_unlock(ips_chain_of(t, &p));
      result =
          buried(t, &p, tick) >= r->version ? IPS_APPLY_STALE : add(t, worker, &p, r, number, tick, owner);
    }
  } while (result < 0);
  return result;
}

static int delete(struct ips_sessions *t, uint32_t worker, const struct ips_session_rec *r, uint32_t tick) {
  struct ips_place p = ips_place_of(t, &r->flow);
  ips_session_raise_version(t, &p, r->version);
  ips_chain_lock(ips_chain_of(t, &p));
  uint32_t i = ips_session_locate(t, &p);
  if (i == IPS_NONE ||
      (!(ips_peek(t->nodes[i].word) & IPS_WORD_HALF) &&
       version_here(t, &t->nodes[i], ips_session_mark(t, &r->flow)) > r->version)) {
    ips_chain_unlock(ips_chain_of(t, &p));
    return bury(t, &p, r->version, tick) && i == IPS_NONE ? IPS_APPLIED : IPS_APPLY_STALE;
  }
  uint32_t word = ips_peek(t->nodes[i].word);
  uint16_t flags = ips_peek(t->nodes[i].flags);
  ips_session_unlink(t, &p, i);
  bury(t, &p, r->version, tick);
  ips_chain_unlock(ips_chain_of(t, &p));
  ips_session_release(t, worker, &p, i, word, flags);
  return IPS_APPLIED;
}

/* The session's node, for the sums that are being counted. */
static uint32_t counted(const struct ips_sessions *t, const struct ips_flow *f) {
  struct ips_found found;
  if (!t->is_summing) return IPS_NONE;
  struct ips_place p = ips_place_of(t, f);
  return ips_session_find(t, &p, &found) ? found.node : IPS_NONE;
}

int ips_sessions_apply(struct ips_sessions *t, uint32_t worker, int op, const struct ips_session_rec *rec,
                       uint64_t now_ns, struct ips_session_rec *owner) {
  struct ips_session_rec unasked;
  uint32_t tick = ips_tick(t, now_ns);
  int result = IPS_APPLY_BAD;
  ips_sums_before(t, counted(t, &rec->flow));
  if (is_sound(rec) && op == IPS_SESSION_UPSERT)
    result = upsert(t, worker, rec, tick, owner ? owner : &unasked);
  if (is_named(rec) && op == IPS_SESSION_DELETE) result = delete(t, worker, rec, tick);
  ips_sums_after(t, counted(t, &rec->flow));
  uint64_t *counters[] = {&t->stats.applied, &t->stats.stale, &t->stats.conflicts, &t->stats.apply_full,
                          &t->stats.apply_bad};
  ips_add(*counters[result], 1);
  return result;
}
