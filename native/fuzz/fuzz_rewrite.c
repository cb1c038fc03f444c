/* fuzz_rewrite.c: any packet with any address written into it, and back: S1.3 as a property.
 *
 * Input: 8 bytes of fields as for fuzz_parse.c (the last two: which field, MSS), 16 bytes of address, then
 * the packet, whose IPv4 header sum and length are made to fit, or nothing would pass. Beside
 * what the sanitizers see: a refused packet is unchanged; an accepted one comes back byte for
 * byte, but for a field 0xffff that comes back as 0x0000 (ips_csum.h; a partial sum: 0 as 0xffff), and for
 * bytes of checksums only; an ICMP error about it verifies; MSS clamping and echo replies stay inside.
 */
#include "../tests/check.h"
#include "ips_rewrite.h"

static void make_lengths_fit(uint8_t *data, uint32_t size) {
  if (size >= 40 && data[0] >> 4 == 6) ips_st16(data + 4, ips_be16((uint16_t)(size - 40)));
  uint32_t header = (data[0] & 15) * 4u;
  if (data[0] >> 4 != 4 || header < 20 || header > size) return;
  ips_st16(data + 2, ips_be16((uint16_t)size));
  ips_st16(data + 10, 0);
  ips_st16(data + 10, (uint16_t)~ips_csum_fold(ips_csum_bytes(data, header, 0)));
}

/* The two spellings of zero are all that may differ. */
static void require_same(const uint8_t *sent, const uint8_t *back, uint32_t size) {
  for (uint32_t i = 0; i < size; i++)
    if (sent[i] != back[i]) CHECK((sent[i] == 0xff && back[i] == 0) || (sent[i] == 0 && back[i] == 0xff));
  uint32_t differ = 0;
  for (uint32_t i = 0; i < size; i++) differ += sent[i] != back[i];
  CHECK(differ <= 6); /* the transport's sum, or an ICMP error's, the quoted header's and transport's */
}

static void there_and_back(struct ips_pkt *p, enum ips_field f, const uint8_t *address) {
  uint8_t old[16], *sent = malloc(p->len + 1);
  struct ips_view v;
  memcpy(sent, p->data, p->len);
  CHECK(ips_parse(p, &v) == IPS_OK);
  memcpy(old, ips_field_at(p->data, v.family, f), v.family == 4 ? 4 : 16);
  if (ips_rewrite(p, &v, f, address)) {
    CHECK(!memcmp(p->data, sent, p->len));
  } else {
    CHECK(ips_parse(p, &v) == IPS_OK);
    CHECK(!memcmp(ips_field_at(p->data, v.family, f), address, v.family == 4 ? 4 : 16));
    CHECK(ips_rewrite(p, &v, f, old) == IPS_OK);
    require_same(sent, p->data, p->len);
  }
  free(sent);
}

static void check_errors(struct ips_pkt *p, uint32_t mtu) {
  static const uint8_t source[16] = {0x20, 0x01, 0x0d, 0xb8, 1};
  uint8_t *out = malloc(1280);
  for (int kind = IPS_ERR_TTL; kind <= IPS_ERR_ADMIN; kind++) {
    struct ips_pkt error = {.data = out, .len = (uint32_t)ips_error_about(p, kind, mtu, source, out, 1280)};
    error.total_len = error.len;
    struct ips_view v;
    if (!error.len) continue;
    CHECK(ips_parse(&error, &v) == IPS_OK && v.ip_len == error.len && ips_is_icmp_error(&error, &v));
    uint32_t bytes = error.len - v.l4;
    uint64_t sum = v.family == 4 ? 0 : ips_csum_pseudo(out, 6, IPS_PROTO_ICMP6, bytes);
    CHECK(ips_csum_fold(ips_csum_bytes(out + v.l4, bytes, sum)) == 0xffff);
  }
  free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  if (size < 25 || size > 65535 + 24) return 0;
  uint32_t total = (uint32_t)size - 24;
  uint8_t *data = malloc(total);
  memcpy(data, input + 24, total);
  make_lengths_fit(data, total);
  struct ips_pkt p = {.data = data, .len = total, .total_len = total, .csum = input[0] & 3,
                      .csum_start = (uint16_t)(input[1] * 2), .csum_offset = (uint16_t)(input[2] * 2),
                      .gso_type = input[3] & 3, .gso_size = input[4]};
  struct ips_view v;
  if (ips_parse(&p, &v) == IPS_OK) {
    there_and_back(&p, input[6] & 1 ? IPS_DST : IPS_SRC, input + 8);
    check_errors(&p, input[7] * 64u);
    ips_clamp(&p, input[7] * 8u);
    ips_answer_echo(&p);
  }
  free(data);
  return 0;
}
