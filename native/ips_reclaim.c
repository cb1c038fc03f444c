/* ips_reclaim.c: when may a generation be freed? When no worker can still be looking at it.
 *
 * A worker's loop counter is odd while it is inside a frame. A generation that is no longer
 * live is put on a list with all counters as they were then; a worker that was outside, or has
 * moved since, cannot hold it: it loaded the live root after the other one had been
 * stored. Both sides order "store mine, then load yours" sequentially consistent. Nobody waits
 * for anybody: what is still in use stays on the list until a later call.
 */
#include "ips_gen.h"

void ips_gen_free(struct ips_control *c, struct ips_gen *g) {
  if (!g) return;
  ips_content_drop(&c->mem, g->content);
  ips_release(&c->mem, g);
}

void ips_retire(struct ips_tables *t, struct ips_gen *g) {
  if (!g) return;
  for (uint32_t i = 0; i < t->workers; i++)
    g->seen[i] = atomic_load_explicit(&t->readers[i].loops, memory_order_seq_cst);
  g->next = t->control->retired;
  t->control->retired = g;
}

static bool may_be_in_use(const struct ips_tables *t, const struct ips_gen *g) {
  for (uint32_t i = 0; i < t->workers; i++)
    if (g->seen[i] % 2 && atomic_load_explicit(&t->readers[i].loops, memory_order_acquire) == g->seen[i])
      return true;
  return false;
}

size_t ips_tables_reclaim(struct ips_tables *t) {
  struct ips_control *c = t->control;
  size_t before = c->mem.bytes;
  for (struct ips_gen **at = &c->retired; *at;) {
    struct ips_gen *g = *at;
    if (may_be_in_use(t, g)) {
      at = &g->next;
      continue;
    }
    *at = g->next;
    ips_gen_free(c, g);
  }
  return before - c->mem.bytes;
}
