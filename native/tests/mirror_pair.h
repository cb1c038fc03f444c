/* mirror_pair.h: an active node and its standby in one process, for the C tests and fuzz targets: seals
 * with a counting source of octets, a queue of datagrams between them. The tables are the includer's.
 */
#ifndef TEST_MIRROR_PAIR_H
#define TEST_MIRROR_PAIR_H
#include "check.h"
#include "ips_mirror.h"

enum { PAIR_QUEUE = 256 };

struct pair_node {
  struct ips_seal *seal;
  struct ips_mirror *m;
  uint64_t random;
};
struct pair_datagram { uint32_t to; size_t len; uint8_t bytes[IPS_SEAL_DATAGRAM]; };
struct pair {
  struct pair_node node[2]; /* 0 active, 1 standby */
  struct pair_datagram queue[PAIR_QUEUE];
  uint32_t queued, from;    /* from: whose tick it is */
  uint64_t now;
};

static inline void pair_random(void *arg, uint8_t *out, size_t n) {
  struct pair_node *node = arg;
  for (size_t i = 0; i < n; i++) {
    node->random = node->random * 6364136223846793005u + 1442695040888963407u;
    out[i] = (uint8_t)(node->random >> 56);
  }
}

static inline void pair_emit(void *arg, uint32_t peer, const uint8_t *bytes, size_t len) {
  struct pair *p = arg;
  (void)peer;
  if (p->queued == PAIR_QUEUE) return; /* lost, as on any network */
  struct pair_datagram *d = &p->queue[p->queued++];
  d->to = p->from ^ 1;
  d->len = len;
  memcpy(d->bytes, bytes, len);
}

/* Both with this configuration; the tables of node i get tables[i] as their argument. */
static inline void pair_new(struct pair *p, struct ips_mirror_config c, void *tables[2]) {
  p->queued = p->from = 0;
  p->now = 1000000000;
  for (uint32_t i = 0; i < 2; i++) {
    struct pair_node *n = &p->node[i];
    n->random = 77 + i;
    struct ips_seal_config s = {.id = {(uint8_t)(1 + i)}, .peer = {(uint8_t)(2 - i)}, .boot = 5 + i,
                                .n_keys = 1,
                                .key_numbers = {1}, .hello_ns = 10000000, .silence_ns = 1000000000};
    n->seal = ips_seal_new(&s, pair_random, n);
    c.n_peers = 1;
    c.seals[0] = n->seal;
    c.source.arg = c.sink.arg = tables[i];
    n->m = ips_mirror_new(&c);
    CHECK(n->seal && n->m);
  }
  CHECK(ips_mirror_set_role(p->node[0].m, true, 1));
}

static inline void pair_free(struct pair *p) {
  for (uint32_t i = 0; i < 2; i++) {
    ips_mirror_free(p->node[i].m);
    ips_seal_free(p->node[i].seal);
  }
}

/* A millisecond: both tick, then what they sent arrives, but every drop-th datagram (0: all arrive). */
static inline void pair_step(struct pair *p, uint32_t drop) {
  static uint32_t counted;
  p->now += 1000000;
  for (p->from = 0; p->from < 2; p->from++) ips_mirror_tick(p->node[p->from].m, p->now, pair_emit, p);
  uint32_t n = p->queued;
  p->queued = 0; /* input sends nothing */
  for (uint32_t i = 0; i < n; i++) {
    if (drop && ++counted % drop == 0) continue;
    const struct pair_datagram *d = &p->queue[i];
    ips_mirror_input(p->node[d->to].m, 0, d->bytes, d->len, p->now);
  }
}

static inline bool pair_ready(const struct pair *p) {
  struct ips_mirror_stats stats;
  ips_mirror_stats(p->node[0].m, p->now, &stats);
  return stats.peers[0].is_ready && stats.peers[0].lag_events == 0;
}
#endif
