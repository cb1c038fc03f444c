/* ips_sources.c: how many half-open flows a source has, in bounded memory, without a lock.
 *
 * Two rows of counters, each with a hash of its own. What is taken is given back, so a counter is never too
 * low; the lower of the two is too high only where other sources fell on both.
 */
#include "ips_session_table.h"
#include <stdlib.h>

bool ips_sources_init(struct ips_sources *s, const struct ips_sessions_config *c) {
  uint32_t n = 64;
  while (n < c->half_open && n < 1u << 24) n *= 2;
  *s = (struct ips_sources){.mask = n - 1,
                            .limit = c->half_open_per_source ? c->half_open_per_source : UINT32_MAX,
                            .bits4 = c->source_bits4 ? c->source_bits4 : 32,
                            .bits6 = c->source_bits6 ? c->source_bits6 : 64,
                            .seed = c->seed};
  for (unsigned i = 0; i < 2; i++) s->rows[i] = ips_memory_new(n * sizeof *s->rows[i]);
  return s->rows[0] && s->rows[1] && s->bits4 <= 32 && s->bits6 <= 128;
}

void ips_sources_close(struct ips_sources *s) {
  for (unsigned i = 0; i < 2; i++) ips_memory_free(s->rows[i], (s->mask + 1ul) * sizeof *s->rows[i]);
}

static uint64_t leading(uint64_t word, unsigned bits) {
  return bits >= 64 ? word : bits ? word & ~0ull << (64 - bits) : 0;
}

static void cells(const struct ips_sources *s, const struct ips_flow *f, uint32_t flags, uint32_t *cell[2]) {
  const uint8_t *source = flags & IPS_SESSION_FROM_OUTSIDE ? f->dst : f->src;
  unsigned bits = f->family == 4 ? s->bits4 : s->bits6;
  uint64_t hi = leading(ips_be64(ips_ld64(source)), bits);
  uint64_t lo = leading(ips_be64(ips_ld64(source + 8)), bits > 64 ? bits - 64 : 0);
  uint64_t h = ips_mix(ips_mix(ips_mix(s->seed, hi), lo), (uint64_t)f->realm << 8 | f->family);
  cell[0] = &s->rows[0][h & s->mask];
  cell[1] = &s->rows[1][h >> 40 & s->mask];
}

void ips_source_give(struct ips_sources *s, const struct ips_flow *f, uint32_t flags) {
  uint32_t *cell[2];
  cells(s, f, flags, cell);
  for (unsigned i = 0; i < 2; i++) ips_add(*cell[i], -1);
}

bool ips_source_take(struct ips_sources *s, const struct ips_flow *f, uint32_t flags) {
  uint32_t *cell[2];
  cells(s, f, flags, cell);
  uint32_t a = ips_add(*cell[0], 1), b = ips_add(*cell[1], 1);
  if (a < s->limit || b < s->limit) return true;
  for (unsigned i = 0; i < 2; i++) ips_add(*cell[i], -1);
  return false;
}
