/* ips_dense.c: an index over a hash of whole IPv6 addresses, where they stand close together.
 *
 * Addresses that differ in their last twelve bits only are a group; one with enough bindings has a page
 * of 8-byte slots (ips_table.h). The hash stays what decides: a slot repeats it or is 0, so what does not
 * fit into a slot (other kinds, flags, values or cells far from the others') costs time and nothing else.
 * A change of the hash mends the slot at once; which groups have pages is decided anew when as much has
 * changed as is worth it.
 */
#include "ips_gen.h"

_Static_assert(IPS_DENSE_SLOTS * sizeof(ips_slot) == IPS_PAGE_BYTES, "a group's slots are a page");

enum {
  LEAST = IPS_DENSE_SLOTS / 8, /* bindings that a page is worth, at 64 bytes each */
  BLOCK_BITS = IPS_DENSE_FIELD - 1, BEFORE = 1 << (BLOCK_BITS - 1),
};

/* The hash's writes, since groups were last chosen, after which they are chosen anew. */
static bool is_due(const struct ips_hash *t) { return t->dense.changes > t->count / 8 + 64; }

void ips_dense_drop(struct ips_mem *m, struct ips_dense *d) {
  for (uint32_t i = 0; d->groups && i <= d->mask; i++) ips_page_drop(m, d->groups[i].slots);
  ips_release(m, d->groups);
  *d = (struct ips_dense){0};
}

bool ips_dense_copy(struct ips_mem *m, struct ips_dense *out, const struct ips_dense *from) {
  *out = (struct ips_dense){.changes = from->changes};
  if (!from->n) return true;
  struct ips_dense_group *groups = ips_alloc(m, (from->mask + 1) * sizeof *groups);
  if (!groups) return false;
  memcpy(groups, from->groups, (from->mask + 1) * sizeof *groups);
  for (uint32_t i = 0; i <= from->mask; i++)
    if (groups[i].slots) ips_page_ref(groups[i].slots);
  *out = (struct ips_dense){groups, from->mask, from->n, from->changes};
  return true;
}

static ips_slot slot_of(const struct ips_dense_group *g, const struct ips_value *v) {
  if (!v || v->flags & IPS_VALUE_FLAGS) return 0;
  if (v->kind != IPS_KIND_ENDPOINT && v->kind != IPS_KIND_POLICY && v->kind != IPS_KIND_ADDRESS) return 0;
  ips_u128 away = ips_pair(v->hi, v->lo) - ips_pair(g->base_hi, g->base_lo);
  uint32_t cell = v->cell - g->base_cell;
  if (away >> IPS_DENSE_FIELD || cell >> IPS_DENSE_FIELD) return 0;
  return v->kind | (ips_slot)v->target << 4 | (ips_slot)away << 20 | (ips_slot)cell << (20 + IPS_DENSE_FIELD);
}

bool ips_dense_mend(struct ips_mem *m, struct ips_hash *t, ips_u128 key) {
  struct ips_dense_group *g = (void *)(uintptr_t)ips_dense_group_of(&t->dense, ips_hi(key), ips_lo(key));
  if (!g) return true;
  ips_slot slot = slot_of(g, ips_hash_find(t, ips_hi(key), ips_lo(key)));
  uint32_t at = ips_lo(key) % IPS_DENSE_SLOTS;
  if (g->slots[at] == slot) return true;
  ips_slot *own = ips_page_own(m, g->slots);
  if (!own) return false;
  g->slots = own;
  own[at] = slot;
  return true;
}

/* ---- which groups ---- */

/* Most of a group's values and cells lie where its vote says: a few that lie elsewhere do not count. */
struct vote { ips_u128 block; uint32_t votes; };
struct tally { uint64_t hi, lo; uint32_t count; struct vote value, cell; };
struct tallies { struct tally *at; uint32_t mask, n, dense; };

static void cast(struct vote *v, ips_u128 value) {
  ips_u128 block = value >> BLOCK_BITS;
  if (v->votes == 0) v->block = block;
  if (v->block == block) v->votes++; else v->votes--;
}
static ips_u128 base_of(const struct vote *v) { return (v->block << BLOCK_BITS) - BEFORE; }

static struct tally *tally_of(const struct tallies *s, uint64_t hi, uint64_t lo) {
  for (uint32_t i = ips_dense_hash(hi, lo);; i++) {
    struct tally *t = s->at + (i & s->mask);
    if (!t->count || (t->hi == hi && t->lo == lo)) return t;
  }
}

static bool widen(struct ips_mem *m, struct tallies *s) {
  struct tallies wider = {.mask = 2 * s->mask + 1, .n = s->n, .dense = s->dense};
  if (!(wider.at = ips_alloc(m, ((size_t)wider.mask + 1) * sizeof *wider.at))) return false;
  for (uint32_t i = 0; i <= s->mask; i++)
    if (s->at[i].count) *tally_of(&wider, s->at[i].hi, s->at[i].lo) = s->at[i];
  ips_release(m, s->at);
  *s = wider;
  return true;
}

/* The table's next binding from *p on; the key is not 0. */
struct place { uint32_t page, cell; };
static const struct ips_value *next(const struct ips_hash *t, struct place *p, struct ips_key *key) {
  for (; p->page < ips_hash_pages(t); p->page++, p->cell = 0) {
    const struct ips_hash_page *page = t->pages[p->page];
    for (; page->used && p->cell < IPS_HASH_CELLS; p->cell++)
      if (page->values[p->cell].kind) {
        *key = page->keys[p->cell];
        return page->values + p->cell++;
      }
  }
  return NULL;
}

/* A million addresses that stand alone are not to fill a table of tallies: first it is asked how many are
 * in groups with the same hash, modulo so much that few groups have it by chance. */
static bool tally(struct ips_mem *m, const struct ips_hash *t, struct tallies *s) {
  uint32_t cells = 1024;
  while (cells < t->count / 64) cells *= 2;
  uint32_t *alike = ips_alloc(m, cells * sizeof *alike);
  const struct ips_value *v;
  struct ips_key k;
  s->mask = 63;
  s->at = ips_alloc(m, (s->mask + 1) * sizeof *s->at);
  bool done = alike && s->at;
  for (struct place p = {0, 0}; done && next(t, &p, &k);)
    alike[ips_dense_hash(k.hi, k.lo & IPS_DENSE_GROUP) & (cells - 1)]++;
  for (struct place p = {0, 0}; done && (v = next(t, &p, &k));) {
    k.lo &= IPS_DENSE_GROUP;
    if (alike[ips_dense_hash(k.hi, k.lo) & (cells - 1)] < LEAST) continue;
    struct tally *group = tally_of(s, k.hi, k.lo);
    if (!group->count) group->hi = k.hi, group->lo = k.lo, s->n++;
    if (++group->count == LEAST) s->dense++;
    cast(&group->value, ips_pair(v->hi, v->lo));
    cast(&group->cell, v->cell);
    if (s->n > s->mask / 2) done = widen(m, s);
  }
  ips_release(m, alike);
  return done;
}

static bool open_groups(struct ips_mem *m, const struct tallies *s, struct ips_dense *d) {
  if (!s->dense) return true;
  for (d->mask = 7; d->mask < 2 * s->dense;) d->mask = 2 * d->mask + 1;
  if (!(d->groups = ips_alloc(m, (d->mask + 1) * sizeof *d->groups))) return false;
  for (uint32_t i = 0; i <= s->mask; i++) {
    const struct tally *from = s->at + i;
    if (from->count < LEAST) continue;
    uint32_t at = ips_dense_hash(from->hi, from->lo);
    while (d->groups[at & d->mask].slots) at++;
    ips_slot *slots = ips_page_new(m, NULL);
    if (!slots) return false;
    ips_u128 base = base_of(&from->value);
    d->groups[at & d->mask] = (struct ips_dense_group){
      from->hi, from->lo, ips_hi(base), ips_lo(base), slots, (uint32_t)base_of(&from->cell)};
    d->n++;
  }
  return true;
}

static bool choose(struct ips_mem *m, struct ips_hash *t) {
  struct tallies s = {0};
  const struct ips_value *v;
  struct ips_key k;
  ips_dense_drop(m, &t->dense);
  bool done = tally(m, t, &s) && open_groups(m, &s, &t->dense);
  ips_release(m, s.at);
  for (struct place p = {0, 0}; done && t->dense.n && (v = next(t, &p, &k));) {
    const struct ips_dense_group *g = ips_dense_group_of(&t->dense, k.hi, k.lo);
    if (g) g->slots[k.lo % IPS_DENSE_SLOTS] = slot_of(g, v);
  }
  return done;
}

bool ips_dense_settle(struct ips_mem *m, struct ips_lpm *s) {
  return !s->n || s->tables->prefix_len != 128 || !is_due(s->tables) || choose(m, s->tables);
}
