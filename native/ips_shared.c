/* ips_shared.c: what all workers of a node share and what outlives generations: learned path MTUs. */
#include "ips_gen.h"
#include "ips_worker.h"
#include <stdlib.h>

struct ips_shared *ips_shared_new(void) {
  struct ips_shared *s = calloc(1, sizeof *s);
  if (s) atomic_init(&s->forward_until, UINT64_MAX);
  return s;
}
void ips_shared_free(struct ips_shared *s) { free(s); }

void ips_tables_set_lease(struct ips_tables *t, uint64_t until_ns) {
  atomic_store_explicit(&ips_tables_shared(t)->forward_until, until_ns, memory_order_release);
}
