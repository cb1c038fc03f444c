/* image.h: table images for the C tests and fuzz targets: filled in record by record, then sealed. */
#ifndef TEST_IMAGE_H
#define TEST_IMAGE_H
#include "check.h"
#include "ips_core.h"
#include <stddef.h>

enum {
  IMAGE_NETWORKS = 4, IMAGE_ENDPOINTS = 7, IMAGE_POLICIES = 2, IMAGE_MEMBERS = 7, IMAGE_PEERS = 8,
  IMAGE_BINDINGS = 1024,
};

struct image {
  struct ips_image_header h;
  struct ips_network_rec networks[IMAGE_NETWORKS];
  struct ips_endpoint_rec endpoints[IMAGE_ENDPOINTS];
  struct ips_policy_rec policies[IMAGE_POLICIES];
  struct ips_member_rec members[IMAGE_MEMBERS];
  struct ips_peer_rec peers[IMAGE_PEERS];
  struct ips_binding_rec bindings[IMAGE_BINDINGS];
};

/* Two families; end points 0 and 1 of IPv4, 2 and 3 of IPv6, the even ones ours; policy 0 over 0 and 1,
 * policy 1 over 2 and 3. */
static inline void image_site(struct image *m, uint32_t roles) {
  *m = (struct image){.h = {.magic = IPS_IMAGE_MAGIC, .version = IPS_IMAGE_VERSION,
                            .header_bytes = sizeof m->h, .roles = roles, .reply_policy = IPS_NONE,
                            .n_networks = 2, .n_endpoints = 4, .n_policies = 2, .n_members = 4}};
  m->networks[0] = (struct ips_network_rec){.prefix = {203, 0, 113, 0}, .family = 4, .prefix_len = 24};
  m->networks[1] = (struct ips_network_rec){.prefix = {0x20, 1, 0xd, 0xb8, 1}, .family = 6, .prefix_len = 64};
  for (uint8_t i = 0; i < 2; i++) {
    uint16_t flags = i ? 0 : IPS_EP_SELF;
    m->endpoints[i] =
      (struct ips_endpoint_rec){.local = {10, 0, i, 0}, .family = 4, .prefix_len = 24, .flags = flags};
    m->endpoints[2 + i] = (struct ips_endpoint_rec){
      .local = {0x20, 1, 0xd, 0xb8, 2, i}, .family = 6, .prefix_len = 64, .flags = flags};
    m->policies[i] = (struct ips_policy_rec){
      .first_member = 2 * i, .n_members = 2, .table_size = 307, .v4_bits = 32, .v6_bits = 64};
  }
  for (uint32_t i = 0; i < 4; i++)
    m->members[i] = (struct ips_member_rec){.endpoint = i, .weight = 1 + i % 2};
}

/* Address number `host` of the network of this family; `local`: of an end point's offset. */
static inline void image_address(uint8_t out[16], unsigned family, uint16_t host, bool local) {
  static const uint8_t net6[8] = {0x20, 1, 0xd, 0xb8, 1}, net4[3] = {203, 0, 113};
  memset(out, 0, 16);
  if (!local) memcpy(out, family == 4 ? net4 : net6, family == 4 ? 3 : 8);
  if (family == 4) out[3] = (uint8_t)host;
  else out[14] = (uint8_t)(host >> 8), out[15] = (uint8_t)host;
}

static inline void image_bind(struct image *m, unsigned family, uint16_t host, unsigned prefix_len,
                              uint8_t kind, uint32_t target, uint16_t offset) {
  struct ips_binding_rec *b = &m->bindings[m->h.n_bindings++];
  *b = (struct ips_binding_rec){
    .family = (uint8_t)family, .prefix_len = (uint8_t)prefix_len, .kind = kind, .target = target};
  image_address(b->global, family, host, false);
  image_address(b->local, family, offset, true);
}

/* Packs into out (room for sizeof(struct image)) and returns the bytes. */
static inline size_t image_seal(const struct image *m, uint8_t *out) {
  struct ips_image_header h = m->h;
  h.network_bytes = sizeof *m->networks, h.endpoint_bytes = sizeof *m->endpoints;
  h.policy_bytes = sizeof *m->policies, h.member_bytes = sizeof *m->members;
  h.peer_bytes = sizeof *m->peers, h.binding_bytes = sizeof *m->bindings;
  const void *sections[] = {m->networks, m->endpoints, m->policies, m->members, m->peers, m->bindings};
  size_t sizes[] = {h.n_networks * sizeof *m->networks, h.n_endpoints * sizeof *m->endpoints,
                    h.n_policies * sizeof *m->policies, h.n_members * sizeof *m->members,
                    h.n_peers * sizeof *m->peers,
                    h.n_bindings * sizeof *m->bindings};
  size_t at = sizeof h;
  for (int i = 0; i < 6; i++) {
    memcpy(out + at, sections[i], sizes[i]);
    at += sizes[i];
  }
  h.total_bytes = at;
  h.digest = ips_digest(out + sizeof h, at - sizeof h);
  memcpy(out, &h, sizeof h);
  return at;
}
#endif
