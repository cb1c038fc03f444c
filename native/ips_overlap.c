/* ips_overlap.c: where claims lie within claims, does any local address answer for two Global IPs?
 *
 * Rarely needed, so it is plain: cut every binding into the ranges that longer
 * bindings leave to it, move each to its end points' local addresses, sort, and look
 * at neighbours. Two prefixes that overlap only where a longer binding has
 * taken the Global IPs elsewhere are no error: that is how a freed local address is used again.
 */
#include "ips_gen.h"
#include <stdlib.h>

struct range { ips_u128 first, last; const struct ips_binding_rec *rec; };
struct ranges { struct range *at; uint32_t n, room; };
/* A binding whose end was not reached yet; next: its first address that was not given away. */
struct open { const struct ips_binding_rec *rec; ips_u128 next; bool done; };

static ips_u128 last_of(const struct ips_binding_rec *rec) {
  return ips_global_of(rec) | ~ips_mask(rec->prefix_len);
}

static bool keep(struct ips_build *b, struct ranges *r, struct range range) {
  if (r->n == r->room) {
    uint32_t room = r->room * 2 + 1024;
    struct range *wider = ips_alloc_grow(b->mem, r->at, room * sizeof *wider);
    if (!wider) return ips_no_memory(b);
    r->at = wider, r->room = room;
  }
  r->at[r->n++] = range;
  return true;
}

/* Global addresses first .. last are rec's own. */
static bool own(struct ips_build *b, struct ranges *r, const struct ips_binding_rec *rec, ips_u128 first,
                ips_u128 last) {
  struct ips_claims i = ips_claims_of(b->out, rec);
  uint32_t endpoint;
  ips_u128 local;
  while (ips_claims_next(b->out, rec, &i, &endpoint, &local)) {
    ips_u128 move = local - ips_global_of(rec);
    if (b->out->scope[endpoint] == IPS_MAPPED && !keep(b, r, (struct range){first + move, last + move, rec}))
      return false;
  }
  return true;
}

static bool close_until(struct ips_build *b, struct ranges *r, struct open *stack, unsigned *depth,
                        const ips_u128 *next) {
  while (*depth && (!next || last_of(stack[*depth - 1].rec) < *next)) {
    struct open *top = stack + --*depth;
    if (!top->done && !own(b, r, top->rec, top->next, last_of(top->rec))) return false;
  }
  return true;
}

static bool collect(struct ips_build *b, unsigned family, struct ranges *r) {
  struct open stack[129];
  unsigned depth = 0;
  const struct ips_binding_rec *rec;
  for (struct ips_position p = ips_records_seek(&b->out->records, (uint8_t)family, 0, 0);
       (rec = ips_records_next(&b->out->records, &p)) && rec->family == family;) {
    ips_u128 first = ips_global_of(rec), last = last_of(rec);
    if (!close_until(b, r, stack, &depth, &first)) return false;
    if (depth) {
      struct open *top = stack + depth - 1;
      if (!top->done && top->next < first && !own(b, r, top->rec, top->next, first - 1)) return false;
      top->done = last == last_of(top->rec);
      top->next = last + 1;
    }
    stack[depth++] = (struct open){rec, first, false};
  }
  return close_until(b, r, stack, &depth, NULL);
}

static int by_first(const void *x, const void *y) {
  const struct range *a = x, *b = y;
  if (a->first != b->first) return a->first < b->first ? -1 : 1;
  return a->last < b->last ? -1 : a->last > b->last;
}

static bool disjoint(struct ips_build *b, struct ranges *r) {
  qsort(r->at, r->n, sizeof *r->at, by_first);
  for (uint32_t i = 1, widest = 0; i < r->n; i++) { /* widest: of those before, the one that ends last */
    if (r->at[i].first <= r->at[widest].last && r->at[i].rec != r->at[widest].rec) {
      uint32_t one = ips_build_index(b, r->at[i].rec), other = ips_build_index(b, r->at[widest].rec);
      return ips_refuse(b->st, IPS_LOAD_OVERLAP, IPS_IN_BINDING,
                        one == IPS_NONE || (other != IPS_NONE && other > one) ? other : one);
    }
    if (r->at[i].last > r->at[widest].last) widest = i;
  }
  return true;
}

bool ips_build_overlaps(struct ips_build *b) {
  if (!b->out->nested) return true;
  bool fine = true;
  for (unsigned family = 4; family <= 6 && fine; family += 2) {
    struct ranges r = {0};
    fine = collect(b, family, &r) && (r.n == 0 || disjoint(b, &r));
    ips_release(b->mem, r.at);
  }
  return fine;
}
