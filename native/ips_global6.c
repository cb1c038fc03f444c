/* ips_global6.c: IPv6 global -> local: a hash for each prefix length in use.
 *
 * A prefix keeps the counter cell that it had in the base generation, also when the
 * tables are built anew.
 */
#include "ips_gen.h"

enum { AHEAD = 8 };

static bool put(struct ips_build *b, const struct ips_binding_rec *rec, uint32_t expected) {
  struct ips_hash *t = ips_lpm_add(b->mem, &b->out->root.global6, rec->prefix_len, expected);
  struct ips_value *v = t ? ips_hash_put(b->mem, t, ips_global_of(rec)) : NULL;
  if (!v) return ips_no_memory(b);
  uint32_t cell = v->cell;
  if (v->kind == 0) {
    ips_u128 global = ips_global_of(rec);
    const struct ips_hash *was = b->base ? ips_lpm_table(&b->base->root.global6, rec->prefix_len) : NULL;
    const struct ips_value *old = was ? ips_hash_find(was, ips_hi(global), ips_lo(global)) : NULL;
    v->kind = rec->kind; /* never 0 in a table that may have to be dropped */
    cell = old ? old->cell : ips_cells_take(b->mem, b->cells, 1);
    if (cell == IPS_NONE) return ips_no_memory(b);
    if (cell == IPS_CELLS_EXHAUSTED)
      return ips_refuse(b->st, IPS_LOAD_TOO_LARGE, IPS_IN_BINDING, ips_build_index(b, rec));
  }
  bool leads_on = rec->kind != IPS_KIND_HERE && rec->kind != IPS_KIND_DOWN;
  ips_u128 local = leads_on ? ips_ld_address(6, rec->local) : 0;
  *v = (struct ips_value){.hi = ips_hi(local), .lo = ips_lo(local), .kind = rec->kind, .flags = rec->flags,
                          .target = (uint16_t)rec->target, .cell = cell};
  return ips_dense_mend(b->mem, t, ips_global_of(rec)) || ips_no_memory(b);
}

static bool put_all(struct ips_build *b) {
  const struct ips_records *records = &b->out->records;
  const struct ips_binding_rec *rec;
  uint32_t lengths[129] = {0};
  struct ips_position begin = ips_records_seek(records, 6, 0, 0), p = begin;
  while ((rec = ips_records_next(records, &p))) lengths[rec->prefix_len]++;
  struct ips_position ahead = begin;
  for (unsigned i = 0; i < AHEAD && ips_records_next(records, &ahead); i++) {}
  for (p = begin; (rec = ips_records_next(records, &p));) {
    const struct ips_binding_rec *later = ips_records_next(records, &ahead);
    const struct ips_hash *t = later ? ips_lpm_table(&b->out->root.global6, later->prefix_len) : NULL;
    if (t) ips_hash_expect(t, ips_global_of(later)); /* a million misses in turn take half a second */
    if (!put(b, rec, lengths[rec->prefix_len])) return false;
  }
  return true;
}

static bool patch(struct ips_build *b) {
  for (uint32_t i = 0; i < b->n_changes; i++) {
    const struct ips_change *c = b->changes + i;
    if ((c->now ? c->now : c->old)->family != 6) continue;
    if (c->now ? !put(b, c->now, 1)
               : !ips_hash_remove(b->mem, ips_lpm_table(&b->out->root.global6, c->old->prefix_len),
                                  ips_global_of(c->old)))
      return c->now ? false : ips_no_memory(b);
  }
  return true;
}

bool ips_build_global6(struct ips_build *b) {
  if (!ips_lpm_copy(b->mem, &b->out->root.global6, b->patch ? &b->base->root.global6 : NULL))
    return ips_no_memory(b);
  if (!(b->patch ? patch(b) : put_all(b))) return false;
  ips_lpm_trim(b->mem, &b->out->root.global6);
  return ips_dense_settle(b->mem, &b->out->root.global6) || ips_no_memory(b);
}
