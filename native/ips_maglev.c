/* ips_maglev.c: filling the table; contract in ips_maglev.h.
 *
 * Shares: floor(size * weight / sum), the rest by largest remainder, at least one slot each; with
 * size > 100 x members of like weight a share is exact within 1 %. Turn k of a member with share t stands at
 * (2k + 1) * size / 2t; turns at the same place go by identity.
 */
#include "ips_maglev.h"
#include "ips_table.h"
#include <stdlib.h>

bool ips_is_prime(uint32_t n) {
  if (n < 4) return n >= 2;
  if (n % 2 == 0) return false;
  for (uint32_t d = 3; d <= n / d; d += 2)
    if (n % d == 0) return false;
  return true;
}

uint32_t ips_maglev_size(uint32_t members) {
  static const uint32_t primes[] = {65537, 1048583, 8388617};
  unsigned i = 0;
  /* Below 600 slots for each, a change moves more than twice its share. */
  while (i < 2 && primes[i] <= (uint64_t)members * 600) i++;
  return primes[i];
}

uint64_t ips_maglev_identity(const struct ips_endpoint_rec *e) {
  bool has_local = e->prefix_len != 0;
  const uint8_t *a = has_local ? e->local : e->tunnel_remote;
  uint64_t kind = has_local ? (uint64_t)e->family << 8 | e->prefix_len : (uint64_t)e->tunnel_family << 16;
  return ips_fold(ips_be64(ips_ld64(a)) ^ 0x3c79ac492ba7b653u,
                  ips_be64(ips_ld64(a + 8)) ^ kind ^ 0x1c69b3f74ac4ae35u);
}

static int by_identity(const void *x, const void *y) {
  const struct ips_maglev_member *a = x, *b = y;
  if (a->identity != b->identity) return a->identity < b->identity ? -1 : 1;
  if (a->weight != b->weight) return a->weight < b->weight ? -1 : 1;
  return a->endpoint < b->endpoint ? -1 : a->endpoint > b->endpoint;
}

struct part { uint64_t remainder; uint32_t member, slots, at, skip; };

static int by_remainder(const void *x, const void *y) {
  const struct part *a = x, *b = y;
  if (a->remainder != b->remainder) return a->remainder > b->remainder ? -1 : 1;
  return a->member < b->member ? -1 : 1;
}
static int by_member(const void *x, const void *y) {
  const struct part *a = x, *b = y;
  return a->member < b->member ? -1 : 1;
}

static void share_out(const struct ips_maglev *g, struct part *parts) {
  uint64_t sum = 0, given = 0;
  for (uint32_t i = 0; i < g->n; i++) sum += g->members[i].weight;
  for (uint32_t i = 0; i < g->n; i++) {
    uint64_t exact = (uint64_t)g->size * g->members[i].weight;
    parts[i] = (struct part){.remainder = exact % sum, .member = i, .slots = (uint32_t)(exact / sum)};
    if (parts[i].slots == 0) parts[i].slots = 1, parts[i].remainder = 0;
    given += parts[i].slots;
  }
  qsort(parts, g->n, sizeof *parts, by_remainder);
  for (uint32_t i = 0; given < g->size; i = (i + 1) % g->n) parts[i].slots++, given++;
  while (given > g->size) { /* the least shares were rounded up: the greatest pays */
    struct part *most = parts;
    for (uint32_t i = 1; i < g->n; i++)
      if (parts[i].slots > most->slots) most = parts + i;
    uint64_t over = given - g->size, spare = most->slots / 2;
    uint32_t take = (uint32_t)(over < spare ? over : spare);
    most->slots -= take, given -= take;
  }
  qsort(parts, g->n, sizeof *parts, by_member);
}

static void set_permutations(const struct ips_maglev *g, struct part *parts) {
  for (uint32_t i = 0, twin = 0; i < g->n; i++) {
    twin = i && g->members[i].identity == g->members[i - 1].identity ? twin + 1 : 0;
    uint64_t h = ips_fold(g->members[i].identity ^ 0x9fb21c651e98df25u, 0xa24baed4963ee407u + twin);
    parts[i].at = (uint32_t)(h % g->size);
    parts[i].skip = (uint32_t)(ips_fold(h ^ 0xd6e8feb86659fd93u, 0xe7037ed1a0b428dbu) % (g->size - 1)) + 1;
  }
}

/* turns[]: whose turn it is, in order; a counting sort by place. */
static void order_turns(const struct ips_maglev *g, const struct part *parts, uint32_t *begins,
                        uint16_t *turns) {
  for (int pass = 0; pass < 2; pass++) {
    for (uint32_t i = 0; i < g->n; i++)
      for (uint64_t k = 0; k < parts[i].slots; k++) {
        uint32_t place = (uint32_t)((2 * k + 1) * g->size / (2 * (uint64_t)parts[i].slots));
        if (pass) turns[begins[place]++] = (uint16_t)i;
        else begins[place + 1]++;
      }
    for (uint32_t p = 1; !pass && p <= g->size; p++) begins[p] += begins[p - 1];
  }
}

static void fill(struct ips_maglev *g, struct part *parts, const uint16_t *turns) {
  memset(g->table, 0xff, g->size * sizeof *g->table); /* no end point has index 0xffff */
  for (uint32_t turn = 0; turn < g->size; turn++) {
    struct part *p = parts + turns[turn];
    while (g->table[p->at] != UINT16_MAX)
      p->at = p->at >= g->size - p->skip ? p->at - (g->size - p->skip) : p->at + p->skip;
    g->table[p->at] = (uint16_t)g->members[turns[turn]].endpoint;
  }
}

uint32_t ips_maglev_order(struct ips_maglev_member *members, uint32_t n) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < n; i++)
    if (members[i].weight) members[kept++] = members[i];
  qsort(members, kept, sizeof *members, by_identity);
  return kept;
}

struct ips_maglev *ips_maglev_new(struct ips_mem *m, const struct ips_maglev_member *members, uint32_t n,
                                  uint32_t size) {
  struct ips_maglev *g = ips_alloc(m, sizeof *g + n * sizeof *members);
  struct part *parts = ips_alloc(m, n * sizeof *parts);
  uint32_t *begins = ips_alloc(m, (size + 1) * sizeof *begins);
  uint16_t *turns = ips_alloc(m, size * sizeof *turns);
  if (g && parts && begins && turns && (g->table = ips_alloc(m, size * sizeof *g->table))) {
    g->refs = 1, g->size = size, g->n = n;
    memcpy(g->members, members, n * sizeof *members);
    share_out(g, parts);
    set_permutations(g, parts);
    order_turns(g, parts, begins, turns);
    fill(g, parts, turns);
  } else {
    ips_release(m, g);
    g = NULL;
  }
  ips_release(m, parts);
  ips_release(m, begins);
  ips_release(m, turns);
  return g;
}

void ips_maglev_drop(struct ips_mem *m, struct ips_maglev *g) {
  if (!g || --g->refs) return;
  ips_release(m, g->table);
  ips_release(m, g);
}

int ips_maglev_table(const struct ips_endpoint_rec *ends, const uint32_t *weights, uint32_t n, uint32_t size,
                     uint16_t *out) {
  struct ips_mem mem;
  ips_mem_init(&mem);
  if (n == 0 || n > UINT16_MAX || size > IPS_MAGLEV_MAX || size <= (uint64_t)n * 100 || !ips_is_prime(size))
    return -1;
  struct ips_maglev_member *members = ips_alloc(&mem, n * sizeof *members);
  for (uint32_t i = 0; members && i < n; i++)
    members[i] = (struct ips_maglev_member){ips_maglev_identity(ends + i), weights[i], i};
  uint32_t kept = members ? ips_maglev_order(members, n) : 0;
  struct ips_maglev *g = kept ? ips_maglev_new(&mem, members, kept, size) : NULL;
  if (g) memcpy(out, g->table, size * sizeof *out);
  ips_maglev_drop(&mem, g);
  ips_release(&mem, members);
  return g ? 0 : -1;
}
