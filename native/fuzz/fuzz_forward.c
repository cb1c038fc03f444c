/* fuzz_forward.c: any bytes as a packet through the whole path of a node that has every role.
 *
 * Input: side and offload fields (8 bytes), then the packet; a bit of the first byte asks for true IPv4 header
 * sums, outside and inside of a tunnel, or few mutations would get past them. Checked besides the sanitizers:
 * whatever is sent parses again.
 */
#include "ips_parse.h"
#include "ips_worker.h"
#include "mend.h"
#include <stdio.h>

enum { N_NETWORKS = 2, N_ENDPOINTS = 6, N_POLICIES = 2, N_MEMBERS = 4, N_BINDINGS = 8 };
struct image {
  struct ips_image_header h;
  struct ips_network_rec networks[N_NETWORKS];
  struct ips_endpoint_rec endpoints[N_ENDPOINTS];
  struct ips_policy_rec policies[N_POLICIES];
  struct ips_member_rec members[N_MEMBERS];
  struct ips_binding_rec bindings[N_BINDINGS];
};

static struct ips_worker *worker;
static struct ips_tables *tables;

static void on_emit(void *arg, struct ips_pkt *p, int kind) {
  (void)arg;
  struct ips_view v;
  if (kind == IPS_EMIT_COPY) return;
  struct ips_pkt q = *p;
  if (ips_parse(&q, &v) != IPS_OK) abort();
}

static struct ips_endpoint_rec v4_end(uint8_t net, uint8_t encap, uint16_t flags) {
  return (struct ips_endpoint_rec){.local = {10, net}, .tunnel_remote = {10, net, 0, 254}, .tunnel_local = {192, 0, 2, 10},
                                   .family = 4, .prefix_len = 24, .encap = encap, .tunnel_family = 4, .gue_port = 6080,
                                   .flags = flags, .path_mtu = 1400, .site = net};
}

static void load(void) {
  static struct image i;
  i.h = (struct ips_image_header){.magic = IPS_IMAGE_MAGIC, .version = IPS_IMAGE_VERSION, .header_bytes = sizeof i.h,
    .total_bytes = sizeof i, .network_bytes = sizeof *i.networks, .endpoint_bytes = sizeof *i.endpoints,
    .policy_bytes = sizeof *i.policies, .member_bytes = sizeof *i.members, .binding_bytes = sizeof *i.bindings,
    .n_networks = N_NETWORKS, .n_endpoints = N_ENDPOINTS, .n_policies = N_POLICIES, .n_members = N_MEMBERS,
    .n_bindings = N_BINDINGS, .roles = IPS_ROLE_OUTER | IPS_ROLE_INNER | IPS_ROLE_REPLY_TUNNEL, .reply_policy = 1,
    .icmp_source4 = {192, 0, 2, 1}, .icmp_source6 = {0x20, 1, 0xd, 0xb8, [15] = 1}, .icmp_rate = 1000000};
  i.networks[0] = (struct ips_network_rec){.prefix = {203, 0, 113}, .family = 4, .prefix_len = 24, .unmatched = IPS_UNMATCHED_UNREACHABLE};
  i.networks[1] = (struct ips_network_rec){.prefix = {0x20, 1, 0xd, 0xb8, 1}, .family = 6, .prefix_len = 64};
  i.endpoints[0] = v4_end(1, IPS_ENCAP_NONE, IPS_EP_MSS_CLAMP | IPS_EP_TRACE_TUNNEL);
  i.endpoints[1] = v4_end(2, IPS_ENCAP_IPIP, IPS_EP_MSS_CLAMP);
  i.endpoints[2] = v4_end(3, IPS_ENCAP_GUE, 0);
  i.endpoints[3] = v4_end(4, IPS_ENCAP_NONE, IPS_EP_SELF);
  i.endpoints[4] = (struct ips_endpoint_rec){.local = {0x20, 1, 0xd, 0xb8, 0xa}, .tunnel_remote = {0x20, 1, 0xd, 0xb8, 0xa, [15] = 0xfe},
    .tunnel_local = {0x20, 1, 0xd, 0xb8, 0xf, [15] = 0x10}, .family = 6, .prefix_len = 64, .encap = IPS_ENCAP_GUE,
    .tunnel_family = 6, .gue_port = 6080, .path_mtu = 1400};
  i.endpoints[5] = (struct ips_endpoint_rec){.tunnel_remote = {192, 0, 2, 20}, .tunnel_local = {10, 4, 0, 254}, .family = 4,
    .encap = IPS_ENCAP_GUE, .tunnel_family = 4, .gue_port = 6080, .flags = IPS_EP_DISTRIBUTION, .path_mtu = 1500};
  i.policies[0] = (struct ips_policy_rec){.first_member = 0, .n_members = 3, .v4_bits = 32, .v6_bits = 64, .seed = 7};
  i.policies[1] = (struct ips_policy_rec){.first_member = 3, .n_members = 1, .v4_bits = 32, .v6_bits = 64, .seed = 7};
  for (uint32_t n = 0; n < 3; n++) i.members[n] = (struct ips_member_rec){n, 1};
  i.members[3] = (struct ips_member_rec){5, 1};
  const uint8_t kinds[] = {IPS_KIND_ENDPOINT, IPS_KIND_ENDPOINT, IPS_KIND_ENDPOINT, IPS_KIND_ENDPOINT, IPS_KIND_POLICY, IPS_KIND_HERE, IPS_KIND_DOWN};
  for (uint8_t n = 0; n < 7; n++)
    i.bindings[n] = (struct ips_binding_rec){.global = {203, 0, 113, n}, .local = {0, 0, 0, kinds[n] <= IPS_KIND_POLICY ? n : 0}, .family = 4,
      .prefix_len = 32, .kind = kinds[n], .flags = n & 1, .target = n < 4 ? n : 0};
  i.bindings[7] = (struct ips_binding_rec){.global = {0x20, 1, 0xd, 0xb8, 1}, .family = 6, .prefix_len = 64, .kind = IPS_KIND_ENDPOINT, .target = 4};
  i.h.digest = ips_digest((const uint8_t *)&i + sizeof i.h, sizeof i - sizeof i.h);
  struct ips_load_status st;
  uint64_t generation = ips_tables_prepare(tables, &i, sizeof i, &st);
  if (!generation || ips_tables_commit(tables, generation)) {
    fprintf(stderr, "image refused: %s (section %u, index %u)\n", ips_load_error_text(st.error), st.section, st.index);
    abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!tables) {
    tables = ips_tables_new(1);
    worker = ips_worker_new(tables, 0, on_emit, NULL);
    if (!tables || !worker) abort();
    load();
  }
  if (size < 8 || size > 8 + 65535) return 0;
  uint8_t *room = malloc(IPS_HEADROOM + size - 8); /* exact: one byte too far is seen */
  memcpy(room + IPS_HEADROOM, data + 8, size - 8);
  struct ips_pkt p = {.data = room + IPS_HEADROOM, .len = (uint32_t)size - 8, .total_len = (uint32_t)size - 8, .headroom = IPS_HEADROOM,
                      .gso_type = (data[0] >> 1) % 3, .csum = (data[0] >> 3) % 3, .gso_size = ips_ld16(data + 2),
                      .csum_start = ips_ld16(data + 4), .csum_offset = ips_ld16(data + 6)};
  if (data[0] & 0x20) {
    size_t n = size - 8, header = n ? (room[IPS_HEADROOM] & 15u) * 4 : 0;
    for (size_t gue = 0; gue <= 12; gue += 12)
      if (n > header + gue) mend_ip4(room + IPS_HEADROOM + header + gue, n - header - gue);
    mend_ip4(room + IPS_HEADROOM, n);
  }
  ips_worker_set_trains(worker, data[0] & 0x40);
  ips_worker_begin(worker, 1000000000u);
  int verdict = data[0] & 1 ? ips_inner(worker, &p) : ips_outer(worker, &p);
  if (verdict < 0 || verdict >= IPS_N_VERDICTS) abort();
  if (ips_dispositions[verdict] == IPS_SEND && verdict != IPS_ENCAPSULATED) {
    struct ips_pkt copy = p;
    struct ips_view v;
    if (ips_parse(&copy, &v) != IPS_OK) abort();
  }
  ips_worker_end(worker);
  free(room);
  return 0;
}
