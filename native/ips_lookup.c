/* ips_lookup.c: questions to the live tables from outside of the packet path: one or many keys,
 * counter cells, the deciding binding. Control thread only. */
#include "ips_gen.h"
#include <time.h>

static void answer(const struct ips_root *r, bool found, const struct ips_hit *h, struct ips_lookup *out) {
  const struct ips_endpoint *e = found ? ips_endpoint(r, h->endpoint) : NULL;
  *out = (struct ips_lookup){.found = found, .endpoint = IPS_NONE, .counter = IPS_NONE};
  if (!found) return;
  out->kind = h->kind, out->flags = h->flags, out->unmatched = h->unmatched;
  out->endpoint = h->endpoint, out->counter = h->counter, out->site = e ? e->r.site : 0;
  if (h->kind != IPS_KIND_NONE) memcpy(out->address, h->address, sizeof out->address);
}

size_t ips_lookup_global(const struct ips_tables *t, int family, const uint8_t *keys, const uint8_t *clients,
                         size_t n, struct ips_lookup *out) {
  const struct ips_root *r = ips_tables_live(t);
  size_t found = 0;
  for (size_t i = 0; i < n; i++) {
    struct ips_hit h;
    const uint8_t *client = clients ? clients + 16 * i : NULL;
    bool hit = r && ips_find_global(r, (unsigned)family, keys + 16 * i, client, &h);
    answer(r, hit, &h, out + i);
    found += hit;
  }
  return found;
}

size_t ips_lookup_local(const struct ips_tables *t, int family, const uint8_t *keys, size_t n,
                        struct ips_lookup *out) {
  const struct ips_root *r = ips_tables_live(t);
  size_t found = 0;
  for (size_t i = 0; i < n; i++) {
    struct ips_hit h;
    bool hit = r && ips_find_local(r, (unsigned)family, keys + 16 * i, &h);
    answer(r, hit, &h, out + i);
    found += hit;
  }
  return found;
}

uint32_t ips_lookup_policy(const struct ips_tables *t, uint32_t policy, int family, const uint8_t *client,
                           const uint8_t *global) {
  const struct ips_root *r = ips_tables_live(t);
  return r ? ips_policy_pick(r, policy, (unsigned)family, client, global) : IPS_NONE;
}

int ips_lookup_binding(const struct ips_tables *t, int family, const uint8_t *key,
                       struct ips_binding_rec *out) {
  if (!t->control->live || (family != 4 && family != 6)) return 0;
  const struct ips_binding_rec *b = ips_records_cover(&t->control->live->content->records, (uint8_t)family,
                                                      ips_ld_address((unsigned)family, key),
                                                      family == 4 ? 32 : 128);
  if (b) *out = *b;
  return b != NULL;
}

uint64_t ips_bench_lookup(const struct ips_tables *t, int local, int family, const uint8_t *keys,
                          const uint8_t *clients, size_t n, uint32_t rounds, uint32_t ahead) {
  const struct ips_root *r = ips_tables_live(t);
  struct timespec begin, end;
  uint32_t sum = 0;
  if (!r) return 0;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (uint32_t round = 0; round < rounds; round++)
    for (size_t i = 0; i < n; i++) {
      struct ips_hit h;
      if (ahead && i + ahead < n) ips_prefetch_global(r, (unsigned)family, keys + 16 * (i + ahead));
      bool hit = local
                 ? ips_find_local(r, (unsigned)family, keys + 16 * i, &h)
                 : ips_find_global(r, (unsigned)family, keys + 16 * i, clients ? clients + 16 * i : NULL, &h);
      if (hit) sum += h.endpoint + ips_ld32(h.address) + h.counter;
    }
  clock_gettime(CLOCK_MONOTONIC, &end);
  __asm__ volatile("" : : "r"(sum)); /* the result is used: the loop stays */
  return (uint64_t)(end.tv_sec - begin.tv_sec) * 1000000000u + (uint64_t)end.tv_nsec -
         (uint64_t)begin.tv_nsec;
}

/* ---- counter cells ---- */

uint32_t ips_tables_counter_cells(const struct ips_tables *t) { return t->control->cells.top; }

static uint32_t cell_of(const struct ips_root *r, const struct ips_binding_rec *b, uint32_t *span) {
  *span = 1;
  if (b->family == 4 && b->prefix_len <= 32) {
    uint32_t address = ips_be32(ips_ld32(b->global));
    const struct ips_net4 *n = ips_net4_find(r, address);
    if (!n || b->prefix_len < n->prefix_len) return IPS_NONE;
    *span = (uint32_t)1 << (32 - b->prefix_len);
    return n->cell + (address - n->base);
  }
  ips_u128 global = ips_global_of(b);
  const struct ips_hash *t = b->family == 6 ? ips_lpm_table(&r->global6, b->prefix_len) : NULL;
  const struct ips_value *v = t ? ips_hash_find(t, ips_hi(global), ips_lo(global)) : NULL;
  return v ? v->cell : IPS_NONE;
}

void ips_tables_counter_index(const struct ips_tables *t, const struct ips_binding_rec *recs, size_t n,
                              uint32_t *index, uint32_t *span) {
  const struct ips_root *r = ips_tables_live(t);
  for (size_t i = 0; i < n; i++) {
    index[i] = r ? cell_of(r, recs + i, span + i) : IPS_NONE;
    if (index[i] == IPS_NONE) span[i] = 0;
  }
}

size_t ips_tables_fresh_cells(const struct ips_tables *t, struct ips_cell_range *out, size_t room) {
  const struct ips_cells *c = &t->control->cells;
  for (size_t i = 0; i < c->n_fresh && i < room; i++) out[i] = c->fresh[i];
  return c->n_fresh;
}
