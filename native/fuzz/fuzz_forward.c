/* fuzz_forward.c: any bytes as a packet through the whole path of a node that has every role.
 *
 * Input: side, what the host can do, and offload fields (8 bytes), then the packet; a bit of the first byte
 * asks for true IPv4 header sums, outside and inside of a tunnel, or few mutations would get past them. Of the
 * second, two bits make it, or what it quotes, a packet between members of a group, two others say which
 * addresses are remapped (remaps.h), and one makes it a packet to a cluster (clusters.h).
 * Checked besides the sanitizers: whatever is sent parses again, and nothing is held back for coalescing
 * where the host wants none; what is dispatched to a server stays as it was.
 */
#include "../tests/image.h"
#include "ips_parse.h"
#include "ips_worker.h"
#include "ips_napt_api.h"
#include "clusters.h"
#include "mend.h"
#include "remaps.h"

static struct ips_worker *worker;
static struct ips_tables *tables;

static void on_emit(void *arg, struct ips_pkt *p, int kind) {
  (void)arg;
  struct ips_view v;
  if (kind == IPS_EMIT_COPY) return;
  struct ips_pkt q = *p;
  CHECK(ips_parse(&q, &v) == IPS_OK);
}

static struct ips_endpoint_rec v4_end(uint8_t net, uint8_t encap, uint16_t flags) {
  return (struct ips_endpoint_rec){
    .local = {10, net}, .tunnel_remote = {10, net, 0, 254}, .tunnel_local = {192, 0, 2, 10}, .family = 4,
    .prefix_len = 24, .encap = encap, .tunnel_family = 4, .gue_port = 6080, .flags = flags, .path_mtu = 1400,
    .site = net,
  };
}

static void fill_endpoints(struct image *m) {
  struct ips_endpoint_rec *e = m->endpoints;
  e[0] = v4_end(1, IPS_ENCAP_NONE, IPS_EP_MSS_CLAMP | IPS_EP_TRACE_TUNNEL);
  e[1] = v4_end(2, IPS_ENCAP_IPIP, IPS_EP_MSS_CLAMP);
  e[2] = v4_end(3, IPS_ENCAP_GUE, 0);
  e[3] = v4_end(4, IPS_ENCAP_NONE, IPS_EP_SELF);
  e[4] = (struct ips_endpoint_rec){
    .local = {0x20, 1, 0xd, 0xb8, 0xa}, .tunnel_remote = {0x20, 1, 0xd, 0xb8, 0xa, [15] = 0xfe},
    .tunnel_local = {0x20, 1, 0xd, 0xb8, 0xf, [15] = 0x10}, .family = 6, .prefix_len = 64,
    .encap = IPS_ENCAP_GUE, .tunnel_family = 6, .gue_port = 6080, .path_mtu = 1400,
  };
  e[5] = (struct ips_endpoint_rec){
    .tunnel_remote = {192, 0, 2, 20}, .tunnel_local = {10, 4, 0, 254}, .family = 4, .encap = IPS_ENCAP_GUE,
    .tunnel_family = 4, .gue_port = 6080, .flags = IPS_EP_DISTRIBUTION, .path_mtu = 1500,
  };
  e[6] = (struct ips_endpoint_rec){ /* a way to who is known as the tunnel of e[2] */
    .local = {10, 3, 0, 254}, .tunnel_remote = {10, 3, 0, 251}, .tunnel_local = {10, 4, 0, 251}, .family = 4,
    .encap = IPS_ENCAP_GUE, .tunnel_family = 4, .gue_port = 6080, .flags = IPS_EP_WAY | IPS_EP_MARK_FINAL, .path_mtu = 1400,
  };
  m->h.n_endpoints = 7;
}

/* Every kind of binding; policy 0 over end points 0 to 3, all of them differently before; policy 1 (replies) over the
 * distribution point. */
static void fill_bindings(struct image *m) {
  m->policies[0] = (struct ips_policy_rec){.n_members = 3, .n_previous = 3, .v4_bits = 32, .v6_bits = 64, .seed = 7};
  m->policies[1] =
    (struct ips_policy_rec){.first_member = 6, .n_members = 1, .v4_bits = 32, .v6_bits = 64, .seed = 7};
  for (uint32_t i = 0; i < 3; i++) m->members[i] = (struct ips_member_rec){i, 1};
  for (uint32_t i = 0; i < 3; i++) m->members[3 + i] = (struct ips_member_rec){1 + i, 1 + 3 * i};
  m->members[6] = (struct ips_member_rec){5, 1};
  m->h.n_members = 7;
  for (uint16_t host = 0; host < 4; host++) image_bind(m, 4, host, 32, IPS_KIND_ENDPOINT, host, host);
  image_bind(m, 4, 4, 32, IPS_KIND_POLICY, 0, 4);
  image_bind(m, 4, 5, 32, IPS_KIND_HERE, 0, 0);
  image_bind(m, 4, 6, 32, IPS_KIND_DOWN, 0, 0);
  for (uint32_t i = 1; i < m->h.n_bindings; i += 2) m->bindings[i].flags = IPS_BINDING_COPY;
  image_bind(m, 6, 0, 64, IPS_KIND_ENDPOINT, 4, 0);
}

/* Names of members of a group: two here, two elsewhere, of whom each second one has moved. */
static const uint8_t names4[6][4] = {{10, 9, 0, 1}, {10, 9, 0, 2}, {10, 9, 9, 2}, {10, 9, 0, 3}, {10, 9, 0, 4},
                                     {10, 9, 9, 4}};

static void fill_peers(struct image *m) {
  for (uint32_t i = 0; i < 8; i++) {
    struct ips_peer_rec *p = m->peers + i;
    uint32_t member = i % 4, at = (uint32_t[]){0, 1, 3, 4}[member];
    p->family = i < 4 ? 4 : 6, p->group = 1, p->flags = member < 2 ? IPS_PEER_HERE : 0;
    uint8_t *start[] = {p->address + (i < 4 ? 0 : 12), p->now + (i < 4 ? 0 : 12)};
    if (i >= 4) p->address[0] = 0xfd;
    memcpy(start[0], names4[at], 4);
    if (member % 2 == 0) continue;
    if (i >= 4) p->now[0] = 0xfd;
    memcpy(start[1], names4[at + 1], 4);
  }
  m->h.n_peers = 8;
}

static void name_ends(uint8_t *ip, size_t n, uint8_t which) {
  unsigned v6 = n && ip[0] >> 4 == 6;
  if (n < (v6 ? 40u : 20u)) return;
  for (unsigned f = 0; f < 2; f++) {
    uint8_t *at = ip + (v6 ? 8 + 16 * f : 12 + 4 * f);
    if (v6) memset(at, 0, 12), at[0] = 0xfd;
    memcpy(at + (v6 ? 12 : 0), names4[(which >> 3 * f & 7) % 6], 4);
  }
}

static void load(void) {
  static struct image m;
  static uint8_t raw[sizeof m];
  image_site(&m, IPS_ROLE_OUTER | IPS_ROLE_INNER | IPS_ROLE_REPLY_TUNNEL);
  m.networks[0].unmatched = IPS_UNMATCHED_UNREACHABLE;
  m.h.reply_policy = 1, m.h.icmp_rate = 1000000;
  memcpy(m.h.icmp_source4, "\xc0\0\2\1", 4);
  memcpy(m.h.icmp_source6, "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
  fill_endpoints(&m);
  fill_bindings(&m);
  fill_peers(&m);
  struct ips_load_status st;
  uint64_t generation = ips_tables_prepare(tables, raw, image_seal(&m, raw), &st);
  if (!generation)
    fprintf(stderr, "%s (section %u, %u)\n", ips_load_error_text(st.error), st.section, st.index);
  CHECK(generation && ips_tables_commit(tables, generation) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!tables) {
    tables = ips_tables_new(1);
    worker = ips_worker_new(tables, 0, on_emit, NULL);
    CHECK(tables && worker);
    load();
    make_remaps();
    make_clusters(remap_sessions);
  }
  if (size < 8 || size > 8 + 65535) return 0;
  uint8_t *room = malloc(IPS_HEADROOM + size - 8); /* exact: one byte too far is seen */
  memcpy(room + IPS_HEADROOM, data + 8, size - 8);
  struct ips_pkt p = {.data = room + IPS_HEADROOM, .len = (uint32_t)size - 8, .total_len = (uint32_t)size - 8,
                      .headroom = IPS_HEADROOM, .gso_type = (data[0] >> 1) % 3, .csum = (data[0] >> 3) % 3,
                      .gso_size = ips_ld16(data + 2), .csum_start = ips_ld16(data + 4),
                      .csum_offset = ips_ld16(data + 6)};
  if (data[1] & 32) name_cluster(room + IPS_HEADROOM, size - 8);
  if (data[1] & 8) name_ends(room + IPS_HEADROOM, size - 8, data[4]);
  size_t quote = size > 8 && room[IPS_HEADROOM] >> 4 == 6 ? 48 : 28;
  if (data[1] & 16 && size - 8 > quote) {
    name_ends(room + IPS_HEADROOM + quote, size - 8 - quote, data[5]);
    if (data[0] & 0x20) mend_ip4(room + IPS_HEADROOM + quote, size - 8 - quote);
  }
  if (data[0] & 0x20) {
    size_t n = size - 8, header = n ? (room[IPS_HEADROOM] & 15u) * 4 : 0;
    for (size_t gue = 0; gue <= 12; gue += 12)
      if (n > header + gue) mend_ip4(room + IPS_HEADROOM + header + gue, n - header - gue);
    mend_ip4(room + IPS_HEADROOM, n);
  }
  ips_worker_set_trains(worker, data[0] & 0x40);
  ips_worker_set_coalescing(worker, !(data[1] & 1));
  const struct ips_remaps *remaps = remap_sets[data[1] >> 1 & 3];
  ips_worker_begin(worker, 1000000000u);
  ips_worker_set_flows(worker, remaps || data[1] & 32 ? remap_sessions : NULL, NULL);
  ips_worker_set_clusters(worker, data[1] & 32 ? clusters : NULL);
  uint64_t before = ips_digest(room, IPS_HEADROOM + size - 8);
  ips_worker_set_remaps(worker, remaps);
  int verdict = data[0] & 1 ? ips_inner(worker, &p) : ips_outer(worker, &p);
  CHECK(verdict >= 0 && verdict < IPS_N_VERDICTS);
  CHECK(verdict != IPS_DISPATCHED || (p.server && ips_digest(room, IPS_HEADROOM + size - 8) == before));
  CHECK(verdict != IPS_COALESCED || !(data[1] & 1));
  bool is_tunnelled = verdict == IPS_ENCAPSULATED || verdict == IPS_FOLLOWED || verdict == IPS_ASKED ||
                      verdict == IPS_REPLY_BACK;
  if (ips_dispositions[verdict] == IPS_SEND && !is_tunnelled) {
    struct ips_pkt copy = p;
    struct ips_view v;
    CHECK(ips_parse(&copy, &v) == IPS_OK);
  }
  ips_worker_end(worker);
  free(room);
  return 0;
}
