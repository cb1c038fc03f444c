/* ips_local.c: local -> global, for the end points that this node maps back.
 *
 * Each binding claims one local prefix at its end point, a policy's binding one at every
 * member; claims stand in a hash for each prefix length. A claim says nothing of exceptions:
 * where a longer binding takes a Global IP elsewhere, the look-up notices that the claim no longer
 * holds (ips_still_bound) and goes on to shorter claims, so a delta touches only its own claims.
 *
 * Two claims to one prefix: an error, unless an end point is encapsulated to; then many
 * Global IPs may share an address (S1.6) and only the tunnel tells them apart. Such a
 * claim is soft: it yields to others, and the cell is marked as contested; when its holder
 * leaves, the tables are made anew, so that what is found depends on the content only.
 */
#include "ips_gen.h"

enum outcome { DONE, FAILED, ANEW };
enum { AHEAD = 8 };

struct ips_claims ips_claims_of(const struct ips_content *c, const struct ips_binding_rec *b) {
  if (b->kind == IPS_KIND_POLICY) {
    const struct ips_policy_rec *p = ips_policies(c) + b->target;
    return (struct ips_claims){.members = ips_members(c) + p->first_member, .n = p->n_members};
  }
  return (struct ips_claims){.n = b->kind == IPS_KIND_ENDPOINT || b->kind == IPS_KIND_ADDRESS,
                             .single = b->target};
}

bool ips_claims_next(const struct ips_content *c, const struct ips_binding_rec *b, struct ips_claims *i,
                     uint32_t *endpoint, ips_u128 *local) {
  while (i->at < i->n) {
    uint32_t e = i->members ? i->members[i->at].endpoint : i->single;
    i->at++;
    if (c->scope[e] == IPS_NOT_MAPPED) continue;
    *endpoint = e;
    *local = ips_ld_address(6, b->local) +
             (b->kind == IPS_KIND_ADDRESS ? 0 : ips_ld_address(6, c->root.endpoints[e].r.local));
    return true;
  }
  return false;
}

static struct ips_lpm *tables(struct ips_content *c, unsigned family) {
  return family == 4 ? &c->root.local4 : &c->root.local6;
}

static struct ips_value value_of(const struct ips_content *c, const struct ips_binding_rec *rec,
                                 uint32_t endpoint) {
  struct ips_value v = {.kind = rec->kind, .flags = rec->flags, .target = (uint16_t)endpoint};
  ips_u128 global = ips_global_of(rec);
  v.hi = ips_hi(global);
  if (rec->family == 4) {
    const struct ips_net4 *n = ips_net4_find(&c->root, (uint32_t)(global >> 96));
    v.lo = ips_slot_of(rec);
    v.cell = n->cell + (uint32_t)(global >> 96) - n->base;
  } else {
    v.lo = ips_lo(global);
    v.cell = ips_hash_find(ips_lpm_table(&c->root.global6, rec->prefix_len), v.hi, v.lo)->cell;
  }
  if (c->scope[endpoint] == IPS_MAPPED_SOFT) v.flags |= IPS_VALUE_SOFT;
  return v;
}

static bool same_global(unsigned family, const struct ips_value *a, const struct ips_value *b) {
  return a->hi == b->hi && (family == 4 || a->lo == b->lo);
}

/* Names whichever of the two the image brought; of two, the later. */
static enum outcome both_claim(struct ips_build *b, const struct ips_binding_rec *rec,
                               const struct ips_value *other) {
  struct ips_binding_rec key = {.family = rec->family, .prefix_len = rec->prefix_len};
  ips_st_address(key.global, ips_pair(other->hi, rec->family == 4 ? 0 : other->lo));
  uint32_t i = ips_build_index(b, rec), j = ips_build_index(b, &key);
  ips_refuse(b->st, IPS_LOAD_OVERLAP, IPS_IN_BINDING, i == IPS_NONE || (j != IPS_NONE && j > i) ? j : i);
  return FAILED;
}

static enum outcome claim(struct ips_build *b, const struct ips_binding_rec *rec, uint32_t expected) {
  struct ips_claims i = ips_claims_of(b->out, rec);
  uint32_t endpoint;
  ips_u128 local;
  while (ips_claims_next(b->out, rec, &i, &endpoint, &local)) {
    struct ips_hash *t = ips_lpm_add(b->mem, tables(b->out, rec->family), rec->prefix_len, expected);
    struct ips_value *v = t ? ips_hash_put(b->mem, t, local) : NULL, mine = value_of(b->out, rec, endpoint);
    if (!v) {
      ips_no_memory(b);
      return FAILED;
    }
    bool is_soft = mine.flags & IPS_VALUE_SOFT, was_soft = v->flags & IPS_VALUE_SOFT;
    if (v->kind == 0) {
      *v = mine;
    } else if (same_global(rec->family, v, &mine)) { /* two members of a policy with one local prefix */
      if (was_soft && !is_soft) mine.flags |= v->flags & IPS_VALUE_CONTESTED, *v = mine;
    } else if (!was_soft && !is_soft) {
      return both_claim(b, rec, v);
    } else {
      if (was_soft && !is_soft) *v = mine;
      v->flags |= IPS_VALUE_CONTESTED;
    }
    if (!ips_dense_mend(b->mem, t, local)) {
      ips_no_memory(b);
      return FAILED;
    }
  }
  return DONE;
}

/* Claims of a binding as the base knew it; b->out has the same end points, policies and scopes. */
static enum outcome give_up(struct ips_build *b, const struct ips_binding_rec *rec) {
  struct ips_claims i = ips_claims_of(b->base, rec);
  uint32_t endpoint;
  ips_u128 local, global = ips_global_of(rec);
  while (ips_claims_next(b->base, rec, &i, &endpoint, &local)) {
    struct ips_hash *t = ips_lpm_table(tables(b->out, rec->family), rec->prefix_len);
    const struct ips_value *v = t ? ips_hash_find(t, ips_hi(local), ips_lo(local)) : NULL;
    if (!v || !same_global(rec->family, v, &(struct ips_value){.hi = ips_hi(global), .lo = ips_lo(global)}))
      continue;
    if (v->flags & IPS_VALUE_CONTESTED) return ANEW;
    if (!ips_hash_remove(b->mem, t, local)) {
      ips_no_memory(b);
      return FAILED;
    }
  }
  return DONE;
}

/* ---- claims within claims ---- */

static bool has_shorter(const struct ips_lpm *s, const struct ips_hash *than, ips_u128 local) {
  for (const struct ips_hash *t = than + 1; t < s->tables + s->n; t++)
    if (ips_hash_find(t, ips_hi(local) & t->mask_hi, ips_lo(local) & t->mask_lo)) return true;
  return false;
}

static bool any_nested(const struct ips_lpm *s) {
  for (const struct ips_hash *t = s->tables; t + 1 < s->tables + s->n; t++)
    for (uint32_t page = 0; page < ips_hash_pages(t); page++)
      for (uint32_t i = 0; t->pages[page]->used && i < IPS_HASH_CELLS; i++) {
        struct ips_key k = t->pages[page]->keys[i];
        if ((k.hi | k.lo) && has_shorter(s, t, ips_pair(k.hi, k.lo))) return true;
      }
  return false;
}

/* A new claim of the longest length can only lie within others; any other may contain some as well. */
static bool change_nests(struct ips_build *b) {
  bool search[2] = {false, false};
  for (uint32_t n = 0; n < b->n_changes; n++) {
    const struct ips_binding_rec *rec = b->changes[n].now;
    if (!rec) continue;
    struct ips_lpm *s = tables(b->out, rec->family);
    struct ips_claims i = ips_claims_of(b->out, rec);
    uint32_t endpoint;
    ips_u128 local;
    while (ips_claims_next(b->out, rec, &i, &endpoint, &local)) {
      const struct ips_hash *t = ips_lpm_table(s, rec->prefix_len);
      if (has_shorter(s, t, local)) return true;
      if (t != s->tables) search[rec->family == 6] = true;
    }
  }
  return (search[0] && any_nested(tables(b->out, 4))) || (search[1] && any_nested(tables(b->out, 6)));
}

/* ---- building ---- */

static bool same_claimants(const struct ips_build *b) {
  const struct ips_content *now = b->out, *was = b->base;
  uint32_t n = now->root.header.n_endpoints;
  if (n != was->root.header.n_endpoints || memcmp(now->scope, was->scope, n)) return false;
  for (uint32_t i = 0; i < n; i++) {
    const struct ips_endpoint_rec *e = &now->root.endpoints[i].r, *old = &was->root.endpoints[i].r;
    if (e->family != old->family || e->prefix_len != old->prefix_len || memcmp(e->local, old->local, 16))
      return false;
  }
  const struct ips_image_header *h = &now->root.header, *g = &was->root.header;
  if (h->n_policies != g->n_policies || h->n_members != g->n_members) return false;
  return memcmp(ips_policies(now), ips_policies(was), h->n_policies * sizeof(struct ips_policy_rec)) == 0 &&
         memcmp(ips_members(now), ips_members(was), h->n_members * sizeof(struct ips_member_rec)) == 0;
}

static enum outcome patch(struct ips_build *b) {
  if (!ips_lpm_copy(b->mem, &b->out->root.local4, &b->base->root.local4) ||
      !ips_lpm_copy(b->mem, &b->out->root.local6, &b->base->root.local6)) {
    ips_no_memory(b);
    return FAILED;
  }
  enum outcome o = DONE;
  for (uint32_t i = 0; i < b->n_changes && o == DONE; i++)
    if (b->changes[i].old) o = give_up(b, b->changes[i].old);
  for (uint32_t i = 0; i < b->n_changes && o == DONE; i++)
    if (b->changes[i].now) o = claim(b, b->changes[i].now, 1);
  b->out->nested = o == DONE && (b->base->nested || change_nests(b));
  return o;
}

static void count_claims(const struct ips_content *c, uint32_t counts[2][129]) {
  const struct ips_binding_rec *rec;
  uint32_t endpoint;
  ips_u128 local;
  for (struct ips_position p = {0, 0}; (rec = ips_records_next(&c->records, &p));)
    for (struct ips_claims i = ips_claims_of(c, rec); ips_claims_next(c, rec, &i, &endpoint, &local);)
      counts[rec->family == 6][rec->prefix_len]++;
}

static void expect(struct ips_content *c, const struct ips_binding_rec *rec) {
  struct ips_claims i = ips_claims_of(c, rec);
  uint32_t endpoint;
  ips_u128 local;
  const struct ips_hash *t = ips_lpm_table(tables(c, rec->family), rec->prefix_len);
  if (!t || !ips_claims_next(c, rec, &i, &endpoint, &local)) return;
  ips_hash_expect(t, local);
  if (rec->family == 6) /* its cell is there */
    ips_hash_expect(ips_lpm_table(&c->root.global6, rec->prefix_len), ips_global_of(rec));
}

static enum outcome anew(struct ips_build *b) {
  struct ips_content *c = b->out;
  const struct ips_binding_rec *rec, *later;
  uint32_t counts[2][129] = {{0}};
  enum outcome o = DONE;
  if (!ips_lpm_copy(b->mem, &c->root.local4, NULL) || !ips_lpm_copy(b->mem, &c->root.local6, NULL)) {
    ips_no_memory(b);
    return FAILED;
  }
  count_claims(c, counts);
  struct ips_position p = {0, 0}, ahead = {0, 0};
  for (unsigned i = 0; i < AHEAD && ips_records_next(&c->records, &ahead); i++) {}
  while (o == DONE && (rec = ips_records_next(&c->records, &p))) {
    if ((later = ips_records_next(&c->records, &ahead))) expect(c, later);
    o = claim(b, rec, counts[rec->family == 6][rec->prefix_len]);
  }
  c->nested = o == DONE && (any_nested(&c->root.local4) || any_nested(&c->root.local6));
  return o;
}

bool ips_build_local(struct ips_build *b) {
  enum outcome o = b->patch && same_claimants(b) ? patch(b) : ANEW;
  if (o == ANEW) {
    ips_lpm_drop(b->mem, &b->out->root.local4);
    ips_lpm_drop(b->mem, &b->out->root.local6);
    o = anew(b);
  }
  if (o == FAILED) return false;
  ips_lpm_trim(b->mem, &b->out->root.local4);
  ips_lpm_trim(b->mem, &b->out->root.local6);
  return ips_dense_settle(b->mem, &b->out->root.local6) || ips_no_memory(b);
}
