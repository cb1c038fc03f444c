/* ips_session_scan.c: consistent copies of sessions while workers go on; one session; figures.
 *
 * The scan goes through the nodes, which never move: what is open all the while is seen exactly once. A
 * node's copy is believed if its chain was still and its word the same (its generation too) before and after.
 */
#include "ips_session_table.h"

/* True: *out is a whole session. */
static bool copy_node(const struct ips_sessions *t, uint32_t i, uint32_t tick, struct ips_session_rec *out) {
  const struct ips_session_node *n = &t->nodes[i];
  for (;;) {
    uint32_t word = ips_get(n->word);
    uint64_t flow[IPS_FLOW_WORDS];
    for (unsigned k = 0; k < IPS_FLOW_WORDS; k++) flow[k] = ips_get(n->flow[k]);
    struct ips_flow f = ips_flow_of(flow);
    struct ips_place p = ips_place_of(t, &f);
    const struct ips_chain *c = ips_chain_of(t, &p);
    uint32_t seq = ips_chain_begin(c);
    if (!ips_word_kind(word) || (word & IPS_WORD_HALF)) {
      if (ips_get(n->word) == word) return false;
      continue;
    }
    ips_session_record(t, n, tick, out);
    if (ips_chain_is_still(c, seq) && ips_get(n->word) == word && ips_node_is(n, &p)) return true;
  }
}

size_t ips_sessions_scan(const struct ips_sessions *t, uint64_t *cursor, uint64_t now_ns,
                         struct ips_session_rec *out, size_t room) {
  uint32_t tick = ips_tick(t, now_ns);
  size_t n = 0;
  for (; n < room && *cursor < ips_get(t->free.fresh); ++*cursor)
    n += copy_node(t, (uint32_t)*cursor, tick, &out[n]);
  return n;
}

int ips_sessions_get(const struct ips_sessions *t, const struct ips_flow *flow, uint64_t now_ns,
                     struct ips_session_rec *out) {
  struct ips_place p = ips_place_of(t, flow);
  const struct ips_chain *c = ips_chain_of(t, &p);
  for (;;) {
    uint32_t seq = ips_chain_begin(c);
    struct ips_found f;
    if (!ips_session_find(t, &p, &f)) return 0;
    ips_session_record(t, &t->nodes[f.node], ips_tick(t, now_ns), out);
    if (ips_chain_is_still(c, seq)) return 1;
  }
}

static size_t memory(const struct ips_sessions *t) {
  return sizeof *t + (t->mask + 1ul) * sizeof *t->chains + (size_t)t->n_nodes * sizeof *t->nodes +
         ips_mappings_bytes(&t->mappings) + ips_addresses_bytes(&t->addresses) +
         2 * (t->sources.mask + 1ul) * sizeof *t->sources.rows[0] +
         (t->grave_mask + 1ul) * IPS_GRAVES * sizeof *t->tombstones;
}

void ips_sessions_stats(const struct ips_sessions *t, struct ips_sessions_stats *out) {
  const uint64_t *from = &t->stats.opened;
  uint64_t *to = &out->opened;
  *out = (struct ips_sessions_stats){
    .sessions = ips_peek(t->used), .half_open = ips_peek(t->half), .mappings = ips_peek(t->mappings.used),
    .tombstones = ips_tombstones_now(t), .capacity = t->capacity, .half_open_capacity = t->half_capacity,
    .mapping_capacity = t->mappings.capacity, .standby = ips_get(t->standby), .bytes = memory(t),
  };
  for (; from <= &t->stats.tombstones_lost; from++, to++) *to = ips_peek(*from);
}
