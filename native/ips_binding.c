/* ips_binding.c: may this binding stand on these networks, end points and policies?
 *
 * Bindings of the image are judged with their index. A delta also moves the ground
 * under bindings that it does not mention; where that happened they are judged
 * again, and what is wrong with one of them is reported with index ~0.
 */
#include "ips_gen.h"

struct fit { uint8_t family, prefix_len; }; /* of a policy: what every member takes; family 0: not a target */

/* May a binding lead to this end point? Not to one that this node would have to rewrite to and cannot. */
static bool is_target(const struct ips_image *image, const struct ips_endpoint_rec *e) {
  if (e->flags & (IPS_EP_DISTRIBUTION | IPS_EP_WAY)) return false;
  bool can_send = ips_has_local(e) || e->encap != IPS_ENCAP_NONE || e->flags & IPS_EP_SELF;
  return can_send || !(image->header.roles & IPS_ROLE_OUTER);
}

static struct fit fit_of(const struct ips_image *image, const struct ips_policy_rec *p) {
  struct fit fit = {0, 0};
  for (uint32_t i = 0; i < p->n_members + p->n_previous; i++) {
    const struct ips_endpoint_rec *e = image->endpoints + image->members[p->first_member + i].endpoint;
    if (i >= p->n_members && !(e->flags & IPS_EP_SELF)) continue; /* merely named: nothing is sent there */
    if (!is_target(image, e) || (fit.family && e->family != fit.family)) return (struct fit){0, 0};
    fit.family = e->family;
    if (e->prefix_len > fit.prefix_len) fit.prefix_len = e->prefix_len;
  }
  return fit;
}

static bool in_network(const struct ips_root *r, const struct ips_binding_rec *b) {
  if (b->family == 4) {
    const struct ips_net4 *n = ips_net4_find(r, ips_be32(ips_ld32(b->global)));
    return n && n->prefix_len <= b->prefix_len;
  }
  ips_u128 global = ips_global_of(b);
  const struct ips_prefix *n = ips_prefixes_find(&r->net6, ips_hi(global), ips_lo(global));
  return n && n->prefix_len <= b->prefix_len;
}

static enum ips_load_error judge_local(const struct ips_binding_rec *b, unsigned target_len) {
  ips_u128 local = ips_ld_address(6, b->local);
  bool fits = target_len <= b->prefix_len && (local & ips_mask(target_len)) == 0;
  return fits && (local & ~ips_mask(b->prefix_len)) == 0 ? IPS_LOAD_OK : IPS_LOAD_BAD_OFFSET;
}

static enum ips_load_error judge(const struct ips_build *b, const struct fit *fits,
                                 const struct ips_binding_rec *rec) {
  const struct ips_image *image = b->image;
  if (rec->family != 4 && rec->family != 6) return IPS_LOAD_BAD_FAMILY;
  unsigned longest = rec->family == 4 ? 32 : 128;
  if (rec->prefix_len == 0 || rec->prefix_len > longest || ips_global_of(rec) & ~ips_mask(rec->prefix_len))
    return IPS_LOAD_BAD_PREFIX;
  if (rec->kind > IPS_KIND_DOWN || rec->flags & ~(IPS_BINDING_COPY | IPS_BINDING_TRACK | IPS_BINDING_TRACK_BOTH)) return IPS_LOAD_BAD_KIND;
  if (rec->kind == IPS_KIND_NONE) /* removed: then its network may go as well */
    return image->header.flags & IPS_IMAGE_DELTA ? IPS_LOAD_OK : IPS_LOAD_BAD_KIND;
  if (!in_network(&b->out->root, rec)) return IPS_LOAD_OUTSIDE;
  if (rec->kind == IPS_KIND_HERE || rec->kind == IPS_KIND_DOWN) return IPS_LOAD_OK;
  if (rec->kind == IPS_KIND_POLICY) {
    if (rec->target >= image->header.n_policies || fits[rec->target].family != rec->family)
      return IPS_LOAD_BAD_TARGET;
    return judge_local(rec, fits[rec->target].prefix_len);
  }
  if (rec->target >= image->header.n_endpoints) return IPS_LOAD_BAD_TARGET;
  const struct ips_endpoint_rec *e = image->endpoints + rec->target;
  if (e->family != rec->family || !is_target(image, e)) return IPS_LOAD_BAD_TARGET;
  if (rec->kind == IPS_KIND_ENDPOINT) return judge_local(rec, e->prefix_len);
  return ips_all_zero(rec->local, 16) ? IPS_LOAD_BAD_OFFSET : judge_local(rec, 0);
}

static bool check_image(const struct ips_build *b, const struct fit *fits) {
  const struct ips_binding_rec *recs = b->image->bindings;
  for (uint32_t i = 0; i < b->image->header.n_bindings; i++) {
    enum ips_load_error error = judge(b, fits, recs + i);
    if (!error && i > 0) {
      int order = ips_record_order(recs + i - 1, recs + i);
      error = order > 0 ? IPS_LOAD_NOT_SORTED : order == 0 ? IPS_LOAD_DUPLICATE : IPS_LOAD_OK;
    }
    if (error) return ips_refuse(b->st, error, IPS_IN_BINDING, i);
  }
  return true;
}

/* Does everything that a binding is judged by stand as it stood in the base? */
static bool same_ground(const struct ips_build *b) {
  const struct ips_content *base = b->base;
  const struct ips_image_header *now = &b->image->header, *old = &base->root.header;
  if (now->n_networks != old->n_networks || now->n_endpoints != old->n_endpoints ||
      now->n_policies != old->n_policies || now->n_members != old->n_members ||
      memcmp(b->image->networks, ips_networks(base), now->n_networks * sizeof *b->image->networks) ||
      memcmp(b->image->policies, ips_policies(base), now->n_policies * sizeof *b->image->policies) ||
      memcmp(b->image->members, ips_members(base), now->n_members * sizeof *b->image->members))
    return false;
  const struct ips_image old_image = {.header = *old};
  for (uint32_t i = 0; i < now->n_endpoints; i++) {
    const struct ips_endpoint_rec *e = b->image->endpoints + i, *was = &base->root.endpoints[i].r;
    if (e->family != was->family || e->prefix_len != was->prefix_len ||
        is_target(b->image, e) != is_target(&old_image, was))
      return false;
  }
  return true;
}

static bool check_kept(const struct ips_build *b, const struct fit *fits) {
  const struct ips_binding_rec *rec;
  if (!(b->image->header.flags & IPS_IMAGE_DELTA) || same_ground(b)) return true;
  for (struct ips_position p = {0, 0}; (rec = ips_records_next(&b->out->records, &p));) {
    enum ips_load_error error = judge(b, fits, rec);
    if (error) return ips_refuse(b->st, error, IPS_IN_BINDING, ips_build_index(b, rec));
  }
  return true;
}

static bool with_fits(struct ips_build *b, bool (*check)(const struct ips_build *, const struct fit *)) {
  uint32_t n = b->image->header.n_policies;
  struct fit *fits = ips_alloc(b->mem, (n + 1) * sizeof *fits);
  if (!fits) return ips_no_memory(b);
  for (uint32_t i = 0; i < n; i++) fits[i] = fit_of(b->image, b->image->policies + i);
  bool fine = check(b, fits);
  ips_release(b->mem, fits);
  return fine;
}
bool ips_check_bindings(struct ips_build *b) { return with_fits(b, check_image); }
bool ips_check_kept(struct ips_build *b) { return with_fits(b, check_kept); }
