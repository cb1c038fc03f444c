/* fuzz_parse.c: any bytes and any offload fields through ips_parse.
 *
 * Input: 8 bytes of fields (csum, csum_start / 2, csum_offset / 2, gso_type, gso_size, how much of the packet
 * is shown, 2 spare), then the packet. Beside what the sanitizers see: a refused packet
 * keeps its length, and every offset of an accepted one lies inside of it.
 */
#include "../tests/check.h"
#include "ips_parse.h"

static void check_view(const struct ips_pkt *p, const struct ips_view *v) {
  CHECK(p->total_len == v->ip_len && p->len <= v->ip_len);
  CHECK(v->family == 4 || v->family == 6);
  CHECK(v->l4 >= (v->family == 4 ? 20 : 40) && v->l4 <= p->len);
  CHECK(v->fragment_at || v->l4 + ips_l4_rule(v->family, v->proto)->min <= p->len);
  CHECK(v->is_fragment == (v->fragment_at || v->more_fragments));
  CHECK(!v->frag_header || v->frag_header + 8u <= v->l4);
  if (p->csum == IPS_CSUM_PARTIAL) CHECK((uint32_t)p->csum_start + p->csum_offset + 2 <= p->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  if (size < 8 || size > 70000) return 0;
  uint32_t total = (uint32_t)size - 8, shown = input[5] ? total * input[5] / 255 : total;
  uint8_t *data = malloc(shown ? shown : 1); /* exactly as long as what may be read */
  memcpy(data, input + 8, shown);
  struct ips_pkt p = {.data = data, .len = shown, .total_len = total, .csum = input[0] & 3,
                      .csum_start = (uint16_t)(input[1] * 2), .csum_offset = (uint16_t)(input[2] * 2),
                      .gso_type = input[3] & 3, .gso_size = input[4]};
  struct ips_view v;
  int verdict = ips_parse(&p, &v);
  if (verdict)
    CHECK(p.len == shown && p.total_len == total);
  else
    check_view(&p, &v);
  CHECK(!memcmp(data, input + 8, shown)); /* reads, never writes */
  free(data);
  return 0;
}
