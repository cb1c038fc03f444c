/* ips_mirror_tomb.c: deletions that a late change could undo.
 *
 * Two hash tables, of this set and of the one before; the end of a set empties the older one. Open
 * addressing, filled to three quarters at most; full is told, never forgotten.
 */
#include "ips_mirror.h"
#include <stdlib.h>

bool ips_tombs_new(struct ips_mirror_tombs *t, uint32_t n, size_t *memory) {
  t->mask = n - 1;
  bool fine = true;
  for (unsigned i = 0; i < 2; i++) {
    t->at[i] = calloc(n, sizeof *t->at[i]);
    t->used[i] = calloc(n, sizeof *t->used[i]);
    fine = fine && t->at[i] && t->used[i];
    *memory += n * (sizeof *t->at[i] + sizeof *t->used[i]);
  }
  return fine;
}

void ips_tombs_free(struct ips_mirror_tombs *t) {
  for (unsigned i = 0; i < 2; i++) {
    free(t->at[i]);
    free(t->used[i]);
  }
}

/* Where the flow is, or where it would go. */
static struct ips_mirror_tomb *place(const struct ips_mirror_tombs *t, unsigned which,
                                     const struct ips_flow *f) {
  uint32_t i = (uint32_t)ips_flow_hash(f) & t->mask;
  while (t->at[which][i].version && memcmp(&t->at[which][i].flow, f, sizeof *f) != 0) i = (i + 1) & t->mask;
  return &t->at[which][i];
}

bool ips_tombs_add(struct ips_mirror_tombs *t, const struct ips_session_rec *r) {
  struct ips_mirror_tomb *at = place(t, t->young, &r->flow);
  if (!at->version) {
    if (t->n[t->young] > t->mask / 4 * 3) return false;
    at->flow = r->flow;
    t->used[t->young][t->n[t->young]++] = (uint32_t)(at - t->at[t->young]);
  }
  if (r->version > at->version) at->version = r->version;
  return true;
}

uint64_t ips_tombs_version(const struct ips_mirror_tombs *t, const struct ips_flow *f) {
  uint64_t version = 0;
  for (unsigned i = 0; i < 2; i++) {
    uint64_t here = t->n[i] ? place(t, i, f)->version : 0;
    if (here > version) version = here;
  }
  return version;
}

static void empty(struct ips_mirror_tombs *t, unsigned which) {
  for (uint32_t i = 0; i < t->n[which]; i++) t->at[which][t->used[which][i]].version = 0;
  t->n[which] = 0;
}

void ips_tombs_turn(struct ips_mirror_tombs *t) {
  t->young ^= 1;
  empty(t, t->young);
}

void ips_tombs_clear(struct ips_mirror_tombs *t) {
  empty(t, 0);
  empty(t, 1);
}
