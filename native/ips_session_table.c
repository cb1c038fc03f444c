/* ips_session_table.c: making and freeing the table; nodes in chains and out of them; records of nodes. */
#include "ips_natlog.h"
#include "ips_session_table.h"
#include <stddef.h>
#include <stdlib.h>

#define BEFORE_NS (1ull << 55) /* 1.1 years: ages of a peer's sessions that can be told */

static uint32_t ticks_of(uint32_t seconds, uint32_t otherwise) {
  uint64_t ns = (uint64_t)(seconds ? seconds : otherwise) * 1000000000ull;
  uint64_t ticks = (ns >> IPS_TICK_SHIFT) + 1; /* the last packet lies anywhere in its tick: never early */
  return ticks > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)ticks;
}

void ips_sessions_set_times(struct ips_sessions *t, const struct ips_session_timeouts *s,
                            bool inbound_refreshes) {
  ips_put(t->ticks.tcp_opening, ticks_of(s->tcp_opening, 240));
  ips_put(t->ticks.tcp_open, ticks_of(s->tcp_open, 7440));
  ips_put(t->ticks.tcp_closing, ticks_of(s->tcp_closing, 240));
  ips_put(t->ticks.udp, ticks_of(s->udp, 300));
  ips_put(t->ticks.icmp, ticks_of(s->icmp, 60));
  ips_put(t->ticks.other, ticks_of(s->other, 600));
  ips_put(t->ticks.refresh, ticks_of(s->refresh, 30));
  ips_put(t->udp_inbound_refreshes, inbound_refreshes);
}

static void set_times(struct ips_sessions *t, const struct ips_sessions_config *c) {
  ips_sessions_set_times(t, &c->timeouts, c->udp_inbound_refreshes != 0);
  t->tombstone_ticks = ticks_of(c->tombstone_s, 120);
  t->start_ns = c->now_ns - BEFORE_NS;
}

static bool take_memory(struct ips_sessions *t, const struct ips_sessions_config *c) {
  uint32_t mappings = c->mappings ? c->mappings : c->sessions;
  t->chains = ips_memory_new((t->mask + 1ul) * sizeof *t->chains);
  t->nodes = ips_memory_new((size_t)t->n_nodes * sizeof *t->nodes);
  if (!t->chains || !t->nodes || !ips_addresses_init(&t->addresses, c->addresses ? c->addresses : 1024))
    return false;
  t->uses = calloc(t->addresses.capacity, sizeof *t->uses);
  return t->uses && ips_mappings_init(&t->mappings, mappings, c->seed ^ 0x5bf03635, &t->addresses) &&
         ips_sources_init(&t->sources, c) && ips_tombstones_init(t, c);
}

struct ips_sessions *ips_sessions_new(const struct ips_sessions_config *c) {
  enum { MOST = 1 << 28, FEW = 1 << 18 };
  if (!c->sessions || c->sessions > MOST || !c->half_open || c->half_open > MOST || c->mappings > 2u * MOST ||
      c->addresses > 1u << 20 || c->tombstones > MOST)
    return NULL;
  struct ips_sessions *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->n_nodes = c->sessions + c->half_open;
  t->capacity = c->sessions;
  t->half_capacity = c->half_open;
  t->seed = c->seed;
  t->standby = c->standby != 0;
  uint32_t chains = 1; /* one for each session; of many, for two to four of them when it is full */
  while (chains <= t->n_nodes / 4 || (chains < t->n_nodes && chains < FEW)) chains *= 2;
  t->mask = chains - 1;
  set_times(t, c);
  if (!take_memory(t, c)) {
    ips_sessions_free(t);
    return NULL;
  }
  for (uint32_t i = 0; i < chains; i++) t->chains[i].head = IPS_NONE;
  ips_stacks_init(&t->free, t->nodes, t->n_nodes, sizeof *t->nodes, offsetof(struct ips_session_node, next));
  return t;
}

void ips_sessions_free(struct ips_sessions *t) {
  if (!t) return;
  ips_memory_free(t->chains, (t->mask + 1ul) * sizeof *t->chains);
  ips_memory_free(t->nodes, (size_t)t->n_nodes * sizeof *t->nodes);
  ips_mappings_close(&t->mappings);
  ips_addresses_close(&t->addresses);
  free(t->uses);
  ips_sources_close(&t->sources);
  ips_tombstones_close(t);
  free(t);
}

void ips_sessions_on_event(struct ips_sessions *t, ips_session_event_fn fn, void *arg) {
  t->event = fn;
  t->event_arg = arg;
}

/* ---- nodes and chains; the chain is locked ---- */

uint32_t ips_session_locate(const struct ips_sessions *t, const struct ips_place *p) {
  uint32_t i = ips_peek(ips_chain_of(t, p)->head);
  while (i != IPS_NONE && !ips_node_is(&t->nodes[i], p)) i = ips_peek(t->nodes[i].next);
  return i;
}

static uint64_t *version_of(struct ips_sessions *t, const struct ips_place *p) {
  return &t->versions[p->hash >> 54 & (IPS_VERSIONS - 1)];
}

uint64_t ips_session_version(struct ips_sessions *t, const struct ips_place *p) {
  return ips_add(*version_of(t, p), 1) + 1;
}

void ips_session_raise_version(struct ips_sessions *t, const struct ips_place *p, uint64_t version) {
  uint64_t *at = version_of(t, p), now = ips_peek(*at);
  while (now < version &&
         !__atomic_compare_exchange_n(at, &now, version, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

void ips_session_write(struct ips_session_node *n, const struct ips_place *p, uint32_t number, uint16_t port,
                       uint16_t flags, uint32_t tick) {
  for (unsigned i = 0; i < IPS_FLOW_WORDS; i++) ips_put(n->flow[i], p->flow[i]);
  for (unsigned i = 0; i < 2; i++) {
    ips_put(n->packets[i], 0);
    ips_put(n->bytes[i], 0);
  }
  ips_put(n->version, 0);
  ips_put(n->last, tick);
  ips_put(n->opened, tick);
  ips_put(n->number, number);
  ips_put(n->mapped_port, port);
  ips_put(n->flags, flags);
}

/* word: state, kind, half-open; the generation is added here. */
void ips_session_link(struct ips_sessions *t, const struct ips_place *p, uint32_t node, uint32_t word) {
  struct ips_session_node *n = &t->nodes[node];
  struct ips_chain *c = ips_chain_of(t, p);
  uint32_t generation = (ips_peek(n->word) >> 16) + 1;
  ips_put(n->next, ips_peek(c->head));
  ips_put(n->word, word | generation << 16);
  ips_session_reckon(t, ips_peek(n->number), 0, word);
  ips_put(c->head, node);
}

void ips_session_unlink(struct ips_sessions *t, const struct ips_place *p, uint32_t node) {
  uint32_t *at = &ips_chain_of(t, p)->head;
  while (ips_peek(*at) != node) at = &t->nodes[ips_peek(*at)].next;
  ips_put(*at, ips_peek(t->nodes[node].next));
  uint32_t word = ips_peek(t->nodes[node].word);
  ips_session_reckon(t, ips_peek(t->nodes[node].number), word, 0);
  ips_put(t->nodes[node].word, word & 0xffff0000u);
}

bool ips_session_release(struct ips_sessions *t, uint32_t worker, const struct ips_place *p, uint32_t node,
                         uint32_t word, uint16_t flags) {
  struct ips_flow f = ips_flow_of(p->flow);
  bool gone = false;
  if (ips_word_kind(word) == IPS_SESSION_NAPT) {
    struct ips_inner inner = ips_inner_of(&f);
    gone = ips_mapping_give(&t->mappings, worker, &inner);
  }
  ips_stacks_push(&t->free, worker, node);
  if (word & IPS_WORD_HALF) ips_source_give(&t->sources, &f, flags);
  uint32_t *budget = word & IPS_WORD_HALF ? &t->half : &t->used;
  ips_add(*budget, -1);
  ips_add(t->stats.ended, 1);
  return gone;
}

void ips_session_end(struct ips_sessions *t, uint32_t worker, const struct ips_place *p, uint32_t node,
                     uint64_t now_ns) {
  struct ips_session_node *n = &t->nodes[node];
  struct ips_session_rec r;
  struct ips_outer_end end = {.number = ips_peek(n->number), .port = ips_peek(n->mapped_port)};
  uint32_t word = ips_peek(n->word);
  uint16_t flags = ips_peek(n->flags);
  bool half = word & IPS_WORD_HALF;
  if (!half) ips_put(n->version, ips_session_version(t, p));
  ips_session_record(t, n, ips_tick(t, now_ns), &r);
  ips_session_unlink(t, p, node);
  if (!half) ips_session_tell(t, worker, IPS_SESSION_DELETE, &r); /* before anybody can have its port */
  ips_chain_unlock(ips_chain_of(t, p));
  bool gone = ips_session_release(t, worker, p, node, word, flags);
  ips_log_session(t, worker, IPS_NATLOG_SESSION_DELETE, &r, now_ns);
  if (gone) ips_log_mapping(t, worker, IPS_NATLOG_MAPPING_DELETE, &r.flow, end, now_ns);
}

/* ---- records ---- */

static uint64_t ns_since(uint32_t tick, uint32_t then) {
  return tick > then ? (uint64_t)(tick - then) << IPS_TICK_SHIFT : 0;
}

void ips_session_record(const struct ips_sessions *t, const struct ips_session_node *n, uint32_t tick,
                        struct ips_session_rec *out) {
  uint32_t word = ips_get(n->word), number = ips_get(n->number), last = ips_get(n->last),
           floor = ips_peek(t->floor);
  uint64_t flow[IPS_FLOW_WORDS];
  for (unsigned i = 0; i < IPS_FLOW_WORDS; i++) flow[i] = ips_get(n->flow[i]);
  memset(out, 0, sizeof *out); /* padding too: records are compared and written as bytes */
  out->flow = ips_flow_of(flow);
  out->mapped_port = ips_get(n->mapped_port);
  out->kind = (uint8_t)ips_word_kind(word);
  out->state = (uint8_t)ips_word_state(word);
  out->flags = ips_get(n->flags);
  out->version = ips_get(n->version);
  out->age_s = (uint32_t)(ns_since(tick, ips_get(n->opened)) / 1000000000u);
  uint64_t idle_ms = ns_since(tick, last > floor ? last : floor) / 1000000u;
  out->idle_ms = idle_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)idle_ms;
  if (number < t->addresses.capacity) ips_address_copy(&t->addresses, number, out->mapped);
  for (unsigned i = 0; i < 2; i++) {
    out->packets[i] = ips_get(n->packets[i]);
    out->bytes[i] = ips_get(n->bytes[i]);
  }
}
