/* ips_shared.c: what all workers of a node share and what outlives generations: learned path MTUs. */
#include "ips_gen.h"
#include "ips_worker.h"
#include <stdlib.h>

struct ips_shared *ips_shared_new(void) { return calloc(1, sizeof(struct ips_shared)); }
void ips_shared_free(struct ips_shared *s) { free(s); }
