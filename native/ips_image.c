/* ips_image.c: is this an image, and do its small records make sense?
 *
 * Nothing of an image is believed before it was compared with the bytes that are
 * there. Order of judgement: sizes, digest, fence, base, then networks' to members'
 * own fields; bindings are judged by ips_binding.c. The first bad record is named.
 */
#include "ips_gen.h"
#include "ips_path.h"

enum { MAX_SMALL = 65535, MAX_BINDINGS = 1 << 28 };

/* Records are read where they lie, compared as bytes, and written by NumPy: no padding, 8-byte steps. */
_Static_assert(sizeof(struct ips_image_header) == 152 && sizeof(struct ips_network_rec) == 24 &&
                 sizeof(struct ips_endpoint_rec) == 64 && sizeof(struct ips_policy_rec) == 24 &&
                 sizeof(struct ips_member_rec) == 8 && sizeof(struct ips_peer_rec) == 40 &&
                 sizeof(struct ips_binding_rec) == 48,
               "layout of an image");

#define HEADER(error) return ips_refuse(st, error, IPS_IN_HEADER, 0)

static bool check_sizes(const struct ips_image_header *h, size_t n, struct ips_load_status *st) {
  if (h->magic != IPS_IMAGE_MAGIC) HEADER(IPS_LOAD_BAD_MAGIC);
  if (h->version != IPS_IMAGE_VERSION) HEADER(IPS_LOAD_BAD_VERSION);
  if (h->header_bytes != sizeof *h || h->network_bytes != sizeof(struct ips_network_rec) ||
      h->endpoint_bytes != sizeof(struct ips_endpoint_rec) ||
      h->policy_bytes != sizeof(struct ips_policy_rec) || h->member_bytes != sizeof(struct ips_member_rec) ||
      h->peer_bytes != sizeof(struct ips_peer_rec) || h->binding_bytes != sizeof(struct ips_binding_rec))
    HEADER(IPS_LOAD_BAD_RECORD_SIZE);
  if (h->n_networks > MAX_SMALL || h->n_endpoints > MAX_SMALL || h->n_policies > MAX_SMALL ||
      h->n_peers > MAX_SMALL || h->n_bindings > MAX_BINDINGS)
    HEADER(IPS_LOAD_TOO_LARGE);
  uint64_t total = sizeof *h + (uint64_t)h->n_networks * h->network_bytes +
                   (uint64_t)h->n_endpoints * h->endpoint_bytes + (uint64_t)h->n_policies * h->policy_bytes +
                   (uint64_t)h->n_members * h->member_bytes + (uint64_t)h->n_peers * h->peer_bytes +
                   (uint64_t)h->n_bindings * h->binding_bytes;
  if (total != h->total_bytes || total > n) HEADER(IPS_LOAD_TRUNCATED);
  return true;
}

/* Bits and bytes that mean nothing in this version must be zero, so that a later one can use them. */
static bool check_header(const struct ips_image_header *h, struct ips_load_status *st) {
  const uint32_t flags = IPS_IMAGE_DELTA | IPS_IMAGE_ANTISPOOF;
  const uint32_t roles = IPS_ROLE_OUTER | IPS_ROLE_INNER | IPS_ROLE_REPLY_TUNNEL | IPS_ROLE_REPLY_LOCAL |
                         IPS_ROLE_REPLY_GLOBAL;
  if (h->flags & ~flags || h->roles & ~roles || h->reserved) HEADER(IPS_LOAD_BAD_VERSION);
  if (!ips_all_zero(h->icmp_source4 + 4, 12)) HEADER(IPS_LOAD_BAD_FAMILY);
  if (h->reply_policy != IPS_NONE && h->reply_policy >= h->n_policies) HEADER(IPS_LOAD_BAD_TARGET);
  return true;
}

bool ips_image_open(struct ips_mem *m, const void *bytes, size_t n, struct ips_image *image,
                    struct ips_load_status *st) {
  *image = (struct ips_image){0};
  struct ips_image_header *h = &image->header;
  if (n < sizeof *h) HEADER(IPS_LOAD_TRUNCATED);
  memcpy(h, bytes, sizeof *h);
  if (!check_sizes(h, n, st)) return false;
  if (h->digest != ips_digest((const uint8_t *)bytes + sizeof *h, h->total_bytes - sizeof *h))
    HEADER(IPS_LOAD_BAD_DIGEST);
  if (!check_header(h, st)) return false;
  const uint8_t *at = (const uint8_t *)bytes;
  if ((uintptr_t)bytes % 8) {
    if (!(image->copy = ips_alloc(m, h->total_bytes))) HEADER(IPS_LOAD_NO_MEMORY);
    at = memcpy(image->copy, bytes, h->total_bytes);
  }
  image->sections = at += sizeof *h;
  image->networks = (const void *)at, at += h->n_networks * sizeof *image->networks;
  image->endpoints = (const void *)at, at += h->n_endpoints * sizeof *image->endpoints;
  image->policies = (const void *)at, at += h->n_policies * sizeof *image->policies;
  image->members = (const void *)at, at += h->n_members * sizeof *image->members;
  image->peers = (const void *)at, at += h->n_peers * sizeof *image->peers;
  image->bindings = (const void *)at;
  image->section_bytes = (size_t)(at - image->sections);
  return true;
}

void ips_image_close(struct ips_mem *m, struct ips_image *image) { ips_release(m, image->copy); }

/* ---- networks (overlaps: ips_net4.c) ---- */

#define HERE(error) return ips_refuse(st, error, section, i)

static bool is_prefix(unsigned family, const uint8_t address[16], unsigned prefix_len, unsigned shortest) {
  unsigned longest = family == 4 ? 32 : 128;
  return prefix_len >= shortest && prefix_len <= longest &&
         (ips_ld_address(6, address) & ~ips_mask(prefix_len)) == 0;
}

static bool check_network(const struct ips_network_rec *n, uint32_t i, struct ips_load_status *st) {
  const enum ips_section section = IPS_IN_NETWORK;
  if (n->family != 4 && n->family != 6) HERE(IPS_LOAD_BAD_FAMILY);
  if (!is_prefix(n->family, n->prefix, n->prefix_len, IPS_MIN_NETWORK_BITS)) HERE(IPS_LOAD_BAD_PREFIX);
  bool has_zero = ips_all_zero(n->prefix, 16); /* the unspecified address is in it */
  if (has_zero || n->unmatched > IPS_UNMATCHED_PASS || !ips_all_zero(n->reserved, sizeof n->reserved))
    HERE(IPS_LOAD_BAD_NETWORK);
  return true;
}

/* ---- end points ---- */

static bool has_sound_tunnel(const struct ips_endpoint_rec *e) {
  if (e->tunnel_family == 0) return ips_all_zero(e->tunnel_remote, 16) && ips_all_zero(e->tunnel_local, 16);
  if (e->tunnel_family != 4 && e->tunnel_family != 6) return false;
  if (e->tunnel_family == 4 &&
      !(ips_all_zero(e->tunnel_remote + 4, 12) && ips_all_zero(e->tunnel_local + 4, 12)))
    return false;
  if (e->flags & IPS_EP_SELF) return true; /* its own tunnel ends here: either address may be left out */
  return !ips_all_zero(e->tunnel_remote, 16) && !ips_all_zero(e->tunnel_local, 16);
}

/* Another end point by the name that distribution points give it, and the channel to it. */
static bool is_way(const struct ips_endpoint_rec *e) {
  bool is_gue = e->encap == IPS_ENCAP_GUE;
  unsigned bits = e->family == 4 ? 32 : 128;
  if ((e->family != 4 && e->family != 6) || !is_prefix(e->family, e->local, bits, bits) || ips_all_zero(e->local, 16))
    return false;
  if (e->prefix_len != 0 || e->encap > IPS_ENCAP_GUE || e->encap == IPS_ENCAP_NONE || e->tunnel_family == 0) return false;
  if (e->flags != (IPS_EP_WAY | (is_gue ? IPS_EP_MARK_FINAL : 0)) || !has_sound_tunnel(e)) return false;
  return (!is_gue || e->gue_port) && (!e->path_mtu || (e->path_mtu >= ips_path_least(e) && e->path_mtu <= 65535));
}

static bool check_endpoint(const struct ips_endpoint_rec *e, uint32_t i, struct ips_load_status *st) {
  const enum ips_section section = IPS_IN_ENDPOINT;
  const uint16_t flags = IPS_EP_SELF | IPS_EP_MSS_CLAMP | IPS_EP_DISTRIBUTION | IPS_EP_TRACE_TUNNEL;
  if (e->flags & IPS_EP_WAY) return is_way(e) || ips_refuse(st, IPS_LOAD_BAD_ENDPOINT, section, i);
  bool is_distribution = e->flags & IPS_EP_DISTRIBUTION;
  if (e->family != 4 && e->family != 6 && !(is_distribution && e->family == 0)) HERE(IPS_LOAD_BAD_FAMILY);
  bool has_local = !ips_all_zero(e->local, 16);
  if (has_local && (is_distribution || !is_prefix(e->family, e->local, e->prefix_len, IPS_MIN_NETWORK_BITS)))
    HERE(IPS_LOAD_BAD_PREFIX);
  if (!has_local && e->prefix_len != 0) HERE(IPS_LOAD_BAD_PREFIX);
  if (e->flags & ~flags || e->encap > IPS_ENCAP_GUE || !has_sound_tunnel(e)) HERE(IPS_LOAD_BAD_ENDPOINT);
  if (ips_path_has_tunnel(e) && e->tunnel_family == 0) HERE(IPS_LOAD_BAD_ENDPOINT);
  if (e->encap == IPS_ENCAP_GUE && e->gue_port == 0) HERE(IPS_LOAD_BAD_ENDPOINT);
  if (e->path_mtu && (e->path_mtu < ips_path_least(e) || e->path_mtu > 65535)) HERE(IPS_LOAD_BAD_ENDPOINT);
  return true;
}

/* ---- policies and members ---- */

static bool has_weight(const struct ips_image *image, uint32_t first, uint32_t n) {
  uint64_t sum = 0;
  for (uint32_t k = 0; k < n; k++) sum += image->members[first + k].weight;
  return sum != 0;
}

static bool check_policy(const struct ips_image *image, uint32_t i, struct ips_load_status *st) {
  const enum ips_section section = IPS_IN_POLICY;
  const struct ips_policy_rec *p = image->policies + i;
  if (p->first_member > image->header.n_members ||
      (uint64_t)p->n_members + p->n_previous > image->header.n_members - p->first_member)
    HERE(IPS_LOAD_BAD_TARGET);
  if (p->n_members == 0 || p->n_members > MAX_SMALL || p->v4_bits > 32 || p->v6_bits > 128) HERE(IPS_LOAD_BAD_POLICY);
  uint32_t most = p->n_members > p->n_previous ? p->n_members : p->n_previous;
  if (p->table_size && (p->table_size > IPS_MAGLEV_MAX || p->table_size <= (uint64_t)most * 100 ||
                        !ips_is_prime(p->table_size)))
    HERE(IPS_LOAD_BAD_POLICY);
  if (!has_weight(image, p->first_member, p->n_members)) HERE(IPS_LOAD_BAD_POLICY);
  if (p->n_previous && !has_weight(image, p->first_member + p->n_members, p->n_previous)) HERE(IPS_LOAD_BAD_POLICY);
  return true;
}

/* No end point twice in one table of a policy, no way in any; reply_policy: only what can be reached through a
 * tunnel. */
static bool check_members(struct ips_mem *m, const struct ips_image *image, struct ips_load_status *st) {
  uint32_t *seen_in = ips_alloc(m, ((size_t)image->header.n_endpoints + 1) * sizeof *seen_in);
  if (!seen_in) return ips_refuse(st, IPS_LOAD_NO_MEMORY, IPS_IN_HEADER, 0);
  enum ips_load_error error = IPS_LOAD_OK;
  uint32_t index = 0;
  for (uint32_t i = 0; i < 2 * image->header.n_policies && !error; i++) {
    const struct ips_policy_rec *p = image->policies + i / 2;
    uint32_t first = p->first_member + (i % 2 ? p->n_members : 0), n = i % 2 ? p->n_previous : p->n_members;
    for (index = first; index < first + n && !error; index++) {
      uint32_t e = image->members[index].endpoint;
      if (seen_in[e] == i + 1 || image->endpoints[e].flags & IPS_EP_WAY) error = IPS_LOAD_BAD_POLICY;
      if (i / 2 == image->header.reply_policy && image->endpoints[e].tunnel_family == 0)
        error = IPS_LOAD_BAD_TARGET;
      seen_in[e] = i + 1;
    }
  }
  ips_release(m, seen_in);
  return !error || ips_refuse(st, error, IPS_IN_MEMBER, index - 1);
}

bool ips_image_check(struct ips_mem *m, const struct ips_image *image, struct ips_load_status *st) {
  const struct ips_image_header *h = &image->header;
  for (uint32_t i = 0; i < h->n_networks; i++)
    if (!check_network(image->networks + i, i, st)) return false;
  for (uint32_t i = 0; i < h->n_endpoints; i++)
    if (!check_endpoint(image->endpoints + i, i, st)) return false;
  for (uint32_t i = 0; i < h->n_members; i++)
    if (image->members[i].endpoint >= h->n_endpoints)
      return ips_refuse(st, IPS_LOAD_BAD_TARGET, IPS_IN_MEMBER, i);
  for (uint32_t i = 0; i < h->n_policies; i++)
    if (!check_policy(image, i, st)) return false;
  return check_members(m, image, st);
}
