/* ips_digest.c: see ips_digest.h; ips_digest() is the whole in one call. */
#include "ips_digest.h"
#include "ips_core.h"

static const uint64_t odd[4] = {0xa24baed4963ee407u, 0x9fb21c651e98df25u, 0xd6e8feb86659fd93u,
                                0xc2b2ae3d27d4eb4fu};

static inline uint64_t rotate(uint64_t v, unsigned by) { return v << by | v >> (64 - by); }

static inline void block(uint64_t lane[4], const uint8_t *p) {
  for (int i = 0; i < 4; i++) lane[i] = rotate(lane[i] ^ ips_ld64(p + 8 * i), 29) * odd[i];
}

void ips_digest_begin(struct ips_digest_state *d) {
  *d = (struct ips_digest_state){.lane = {odd[3], odd[2], odd[1], odd[0]}};
}

void ips_digest_add(struct ips_digest_state *d, const void *bytes, size_t n) {
  const uint8_t *p = bytes;
  d->total += n;
  if (d->n_rest) {
    size_t take = sizeof d->rest - d->n_rest;
    if (take > n) take = n;
    memcpy(d->rest + d->n_rest, p, take);
    d->n_rest += take, p += take, n -= take;
    if (d->n_rest < sizeof d->rest) return;
    block(d->lane, d->rest);
    d->n_rest = 0;
  }
  uint64_t lane[4] = {d->lane[0], d->lane[1], d->lane[2], d->lane[3]};
  for (; n >= 32; p += 32, n -= 32) block(lane, p);
  memcpy(d->lane, lane, sizeof lane);
  if (n) memcpy(d->rest, p, n);
  d->n_rest = n;
}

uint64_t ips_digest_end(struct ips_digest_state *d) {
  if (d->n_rest) {
    memset(d->rest + d->n_rest, 0, sizeof d->rest - d->n_rest);
    block(d->lane, d->rest);
  }
  uint64_t h = d->total * odd[1];
  for (int i = 0; i < 4; i++) {
    h = (rotate(h, 23) ^ d->lane[i]) * odd[0];
    h ^= h >> 32;
  }
  h *= odd[2];
  return h ^ h >> 29;
}

uint64_t ips_digest(const void *bytes, size_t n) {
  struct ips_digest_state d;
  ips_digest_begin(&d);
  if (n) ips_digest_add(&d, bytes, n);
  return ips_digest_end(&d);
}
