/* ips_shared.c: what all workers of a node share and what outlives generations: learned path MTUs, fragments. */
#include "ips_gen.h"
#include "ips_worker.h"
#include <stdlib.h>
#include <sys/random.h>

enum { FRAGMENTED_DATAGRAMS = 4096, HELD_FRAGMENTS = 1024, HELD_BYTES = 2048 };

struct ips_shared *ips_shared_new(void) {
  struct ips_shared *s = calloc(1, sizeof *s);
  uint64_t seed = 0;
  if (!s || getrandom(&seed, sizeof seed, 0) != sizeof seed) { /* unknown to who sends fragments */
    free(s);
    return NULL;
  }
  s->fragments = ips_frag_new(FRAGMENTED_DATAGRAMS, HELD_FRAGMENTS, HELD_BYTES, seed);
  if (s->fragments) return s;
  free(s);
  return NULL;
}

void ips_shared_free(struct ips_shared *s) {
  if (!s) return;
  ips_frag_free(s->fragments);
  free(s);
}
