/* fuzz_decap.c: tunnel packets and ICMP errors about them. Byte 0: which sums are made true and
 * what the host claims about checksums; the rest is the packet.
 *
 * Claims: a refused packet is unchanged; what comes out lies inside of what went in; encapsulated
 * again and taken out again it is the same; a relayed error stays within its room.
 */
#include "ips_encap.h"
#include "ips_parse.h"
#include "mend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void round_trip(struct ips_pkt *inner, uint8_t how) {
  struct ips_endpoint_rec e = {.local = {10, 1, 0, 250}, .encap = how & 1 ? IPS_ENCAP_GUE : IPS_ENCAP_IPIP,
                               .tunnel_family = how & 2 ? 6 : 4, .gue_port = 6080, .family = how & 64 ? 6 : 4};
  if (how & 1 && how & 128) e.flags = IPS_EP_MARK_PREVIOUS;
  uint8_t *memory, *again;
  struct ips_gue_private said;
  struct ips_view v;
  struct ips_pkt p = mend_packet(&memory, IPS_ENCAP_MAX_OVERHEAD, inner->data, inner->len);
  struct ips_tunnel_info info;
  if (ips_encap_packet(&p, &e, 77, 88) == IPS_OK) {
    struct ips_pkt q = mend_packet(&again, 0, p.data, p.len);
    CHECK(ips_parse(&q, &v) == IPS_OK && ips_decap_marked(&q, &v, &info, &said) == IPS_OK);
    CHECK(q.len == p.len - ips_encap_overhead(&e));
    CHECK(memcmp(q.data, memory + IPS_ENCAP_MAX_OVERHEAD, q.len) == 0);
    CHECK(said.mark == (e.flags ? IPS_GUE_PREVIOUS : 0) && said.family == (e.flags ? e.family : 0));
    CHECK(!e.flags || memcmp(said.address, e.local, 16) == 0);
    free(again);
  }
  free(memory);
}

static void errors(const struct ips_pkt *p) {
  struct ips_tunnel_error e;
  uint8_t source[16] = {192, 0, 2, 1}, *out = malloc(600);
  if (ips_tunnel_error_packet(p, &e) == IPS_OK) {
    CHECK(e.inner_at + e.inner_len <= p->len);
    CHECK(ips_relay_error(p, &e, source, source, out, 600) <= 600);
  }
  free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n < 1 || n > 4096) return 0;
  uint8_t how = data[0], *memory;
  struct ips_pkt p = mend_packet(&memory, 0, data + 1, n - 1);
  if (how & 4) mend_ip4(p.data, p.len);
  if (how & 8) mend_l4(p.data, p.len, how & 16 ? 2 : 6);
  if (how & 32) {
    p.csum = IPS_CSUM_PARTIAL;
    p.csum_start = n > 3 ? data[2] : 0;
    p.csum_offset = how & 64 ? 16 : 6;
  }
  errors(&p);
  uint8_t *before = malloc(n);
  memcpy(before, p.data, n - 1);
  uint8_t *start = p.data;
  struct ips_tunnel_info info;
  struct ips_gue_private said;
  struct ips_view v;
  struct ips_pkt q = p;
  if (ips_parse(&q, &v) == IPS_OK && ips_decap_marked(&q, &v, &info, &said) == IPS_OK) {
    CHECK(said.mark <= IPS_GUE_PREVIOUS && (said.family != 0) == (said.mark == IPS_GUE_PREVIOUS));
    p = q;
    CHECK(p.data > start && p.data + p.len <= start + n - 1 && p.headroom == p.data - start);
    if (p.csum == IPS_CSUM_FULL) round_trip(&p, how);
  } else {
    CHECK(p.data == start && memcmp(before, start, n - 1) == 0);
  }
  free(before);
  free(memory);
  return 0;
}
