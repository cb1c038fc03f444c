/* ips_parts.c: the small parts of a root: scopes and local prefixes, policies, tunnel addresses. */
#include "ips_gen.h"
#include <stdlib.h>

/* ---- which end points this node maps back (SYSTEMS S1.3, S1.5) ---- */

static enum ips_scope scope_of(const struct ips_endpoint_rec *e, uint32_t roles) {
  bool is_own = e->flags & IPS_EP_SELF && roles & (IPS_ROLE_INNER | IPS_ROLE_REPLY_LOCAL);
  if (e->flags & IPS_EP_DISTRIBUTION || e->prefix_len == 0 || !(is_own || roles & IPS_ROLE_REPLY_GLOBAL))
    return IPS_NOT_MAPPED;
  return e->encap == IPS_ENCAP_NONE ? IPS_MAPPED : IPS_MAPPED_SOFT;
}

static int by_prefix(const void *x, const void *y) {
  const struct ips_prefix *a = x, *b = y;
  ips_u128 one = ips_pair(a->hi, a->lo), other = ips_pair(b->hi, b->lo);
  if (one != other) return one < other ? -1 : 1;
  return (int)a->prefix_len - (int)b->prefix_len;
}

static bool homes_of(struct ips_build *b, unsigned family, struct ips_prefixes *out) {
  const struct ips_root *r = &b->out->root;
  if (!(out->at = ips_alloc(b->mem, (r->header.n_endpoints + 1) * sizeof *out->at))) return ips_no_memory(b);
  uint32_t n = 0;
  for (uint32_t i = 0; i < r->header.n_endpoints; i++) {
    const struct ips_endpoint_rec *e = &r->endpoints[i].r;
    if (b->out->scope[i] == IPS_NOT_MAPPED || e->family != family) continue;
    ips_u128 base = ips_ld_address(6, e->local), mask = ips_mask(e->prefix_len);
    out->at[n++] =
      (struct ips_prefix){ips_hi(base), ips_lo(base), ips_hi(mask), ips_lo(mask), e->prefix_len, 0};
  }
  qsort(out->at, n, sizeof *out->at, by_prefix);
  for (uint32_t i = 0; i < n; i++) { /* those within others add nothing */
    const struct ips_prefix *p = out->at + i, *last = out->n ? out->at + out->n - 1 : NULL;
    if (last && (p->hi & last->mask_hi) == last->hi && (p->lo & last->mask_lo) == last->lo) continue;
    out->at[out->n++] = *p;
  }
  return true;
}

bool ips_build_homes(struct ips_build *b) {
  struct ips_content *c = b->out;
  if (!(c->scope = ips_alloc(b->mem, c->root.header.n_endpoints + 1))) return ips_no_memory(b);
  for (uint32_t i = 0; i < c->root.header.n_endpoints; i++)
    c->scope[i] = (uint8_t)scope_of(&c->root.endpoints[i].r, c->root.header.roles);
  return homes_of(b, 4, &c->root.home4) && homes_of(b, 6, &c->root.home6);
}

/* ---- policies ---- */

struct known { struct ips_maglev **cells; uint32_t mask; }; /* tables by what they were made of */

static struct ips_maglev **cell_of(const struct known *k, const struct ips_maglev_member *members, uint32_t n,
                                   uint32_t size) {
  for (uint32_t at = (uint32_t)ips_digest(members, n * sizeof *members) + size;; at++) {
    struct ips_maglev **cell = k->cells + (at & k->mask);
    if (!*cell || ((*cell)->n == n && (*cell)->size == size &&
                   memcmp((*cell)->members, members, n * sizeof *members) == 0))
      return cell;
  }
}

static struct ips_maglev *table_of(struct ips_build *b, const struct known *known, uint32_t first, uint32_t n_members,
                                   uint32_t table_size, struct ips_maglev_member *scratch) {
  for (uint32_t i = 0; i < n_members; i++) {
    const struct ips_member_rec *member = b->image->members + first + i;
    scratch[i] = (struct ips_maglev_member){ips_maglev_identity(b->image->endpoints + member->endpoint),
                                            member->weight, member->endpoint};
  }
  uint32_t n = ips_maglev_order(scratch, n_members);
  uint32_t size = table_size ? table_size : ips_maglev_size(n_members);
  struct ips_maglev **cell = cell_of(known, scratch, n, size);
  if (!*cell) return *cell = ips_maglev_new(b->mem, scratch, n, size);
  (*cell)->refs++;
  return *cell;
}

static uint32_t own_member(const struct ips_build *b, const struct ips_policy_rec *p) {
  for (uint32_t i = 0; i < p->n_members + p->n_previous; i++) {
    uint32_t e = b->image->members[p->first_member + i].endpoint;
    if (b->image->endpoints[e].flags & IPS_EP_SELF) return e;
  }
  return IPS_NONE;
}

static bool make_policies(struct ips_build *b, struct ips_policy *out, const struct known *known,
                          struct ips_maglev_member *scratch) {
  const struct ips_content *base = b->base;
  for (uint32_t i = 0; base && i < 2 * base->root.header.n_policies; i++) {
    struct ips_maglev *g = base->maglev[i];
    if (g) *cell_of(known, g->members, g->n, g->size) = g;
  }
  for (uint32_t i = 0; i < b->image->header.n_policies; i++) {
    const struct ips_policy_rec *p = b->image->policies + i;
    uint32_t previous = p->first_member + p->n_members;
    struct ips_maglev *g = b->out->maglev[2 * i] = table_of(b, known, p->first_member, p->n_members, p->table_size, scratch);
    struct ips_maglev *was = b->out->maglev[2 * i + 1] =
      p->n_previous ? table_of(b, known, previous, p->n_previous, p->table_size, scratch) : NULL;
    if (!g || (p->n_previous && !was)) return ips_no_memory(b);
    ips_u128 mask6 = ips_mask(p->v6_bits);
    out[i] = (struct ips_policy){.table = g->table, .size = g->size, .own = own_member(b, p), .seed = p->seed,
                                 .mask4 = ips_hi(ips_mask(p->v4_bits)) >> 32, .mask6_hi = ips_hi(mask6),
                                 .mask6_lo = ips_lo(mask6)};
    if (was) out[i].previous = was->table, out[i].previous_size = was->size;
  }
  return true;
}

bool ips_build_policies(struct ips_build *b) {
  uint32_t n = b->image->header.n_policies, most = 0, cells = 4;
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t k = 0; k < 2; k++) {
      uint32_t members = k ? b->image->policies[i].n_previous : b->image->policies[i].n_members;
      if (members > most) most = members;
    }
  while (cells < 4 * (n + (b->base ? b->base->root.header.n_policies : 0))) cells *= 2;
  struct ips_policy *policies = ips_alloc(b->mem, (n + 1) * sizeof *policies);
  struct known known = {ips_alloc(b->mem, cells * sizeof *known.cells), cells - 1};
  struct ips_maglev_member *scratch = ips_alloc(b->mem, (most + 1) * sizeof *scratch);
  b->out->root.policies = policies;
  b->out->maglev = ips_alloc(b->mem, (2 * n + 1) * sizeof *b->out->maglev);
  bool done = policies && known.cells && scratch && b->out->maglev
              ? make_policies(b, policies, &known, scratch)
              : ips_no_memory(b);
  ips_release(b->mem, known.cells);
  ips_release(b->mem, scratch);
  return done;
}

/* ---- tunnels ---- */

static void put_tunnel(struct ips_root *r, struct ips_tunnel *cells, unsigned family, ips_u128 from, ips_u128 to,
                       uint32_t endpoint) {
  struct ips_tunnel t = {{ips_hi(from), ips_lo(from)}, {ips_hi(to), ips_lo(to)}, endpoint, family};
  uint32_t i = ips_tunnel_hash(family, t.remote, t.local);
  while (cells[i & r->tunnel_mask].family) i++;
  cells[i & r->tunnel_mask] = t;
}

static void add_tunnel(struct ips_root *r, struct ips_tunnel *cells, unsigned family, const uint8_t *remote,
                       const uint8_t *local, uint32_t endpoint) {
  static const uint8_t none[16];
  ips_u128 from = ips_ld_address(family, remote ? remote : none), to = ips_ld_address(family, local);
  if (to == 0 || (remote && from == 0) || ips_tunnel_find(r, family, from, to)) return;
  put_tunnel(r, cells, family, from, to, endpoint);
  if (!remote) r->tunnel_ends |= 1ull << (local[family == 4 ? 3 : 15] & 63);
}

bool ips_build_tunnels(struct ips_build *b) {
  struct ips_root *r = &b->out->root;
  uint32_t n = 8, ends = 0; /* up to three cells for each end point, at most three quarters in use */
  for (uint32_t i = 0; i < r->header.n_endpoints; i++) ends += r->endpoints[i].r.tunnel_family != 0;
  while (n < 4 * ends) n *= 2;
  struct ips_tunnel *cells = ips_alloc(b->mem, n * sizeof *cells);
  if (!cells) return ips_no_memory(b);
  r->tunnels = cells;
  r->tunnel_mask = n - 1;
  for (uint32_t i = 0; i < r->header.n_endpoints; i++) {
    const struct ips_endpoint_rec *e = &r->endpoints[i].r;
    if (!e->tunnel_family) continue;
    add_tunnel(r, cells, e->tunnel_family, e->tunnel_remote, e->tunnel_local, i);
    add_tunnel(r, cells, e->tunnel_family, NULL, e->tunnel_local, IPS_NONE);
    if (e->flags & IPS_EP_SELF) /* "there" is here */
      add_tunnel(r, cells, e->tunnel_family, NULL, e->tunnel_remote, IPS_NONE);
    ips_u128 name = e->flags & IPS_EP_WAY ? ips_ld_address(e->family, e->local) : 0;
    if (name && !ips_tunnel_find(r, e->family, name, IPS_WAY_LOCAL))
      put_tunnel(r, cells, e->family, name, IPS_WAY_LOCAL, i);
  }
  return true;
}
