/* fuzz_gso.c: segmentation, fragmentation, partial checksums, and coalescing with its undoing.
 *
 * Bytes 0..7: what to do and the offload fields; then packets of (length, bytes), of
 * which segmentation takes the first and coalescing all. Claims: no piece is longer than it may
 * be, payloads add up, and coalesced packets come apart into what was pushed, flow by flow.
 */
#include "ips_gro.h"
#include "ips_parse.h"
#include "ips_tcp.h"
#include "mend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { SCRATCH = 70000, MOST = 64 };

struct sum { uint64_t bytes; uint32_t longest, mtu; };
static void add_up(void *arg, struct ips_pkt *p) {
  struct sum *s = arg;
  struct ips_view v;
  int verdict = ips_parse(p, &v);
  /* Cut below 20 + 60 bytes, a transport header may be cut too; the far side refuses both (RFC 1858). */
  bool is_tiny = s->mtu && s->mtu < 80;
  CHECK(verdict == IPS_OK ||
        (is_tiny && (verdict == IPS_SHORT_FIRST_FRAGMENT || verdict == IPS_BAD_FRAGMENT)));
  s->bytes += p->len;
  if (p->len > s->longest) s->longest = p->len;
  memset(p->data - p->headroom, 0xaa, p->headroom); /* ours to write */
}

static void cut(const uint8_t *how, const uint8_t *data, size_t n) {
  uint8_t *memory, *scratch = malloc(SCRATCH);
  struct ips_pkt p = mend_packet(&memory, 0, data, n);
  mend_ip4(p.data, p.len);
  p.gso_type = how[0] >> 1 & 3;
  p.gso_size = ips_ld16(how + 2);
  p.csum = how[0] >> 3 & 1;
  p.csum_start = how[4];
  p.csum_offset = how[5];
  p.gso_flags = how[0] >> 4 & 1;
  struct sum s = {0};
  if (ips_segment_packet(&p, scratch, SCRATCH, 64, add_up, &s) == IPS_OK)
    CHECK(s.bytes >= p.gso_size || s.bytes >= 28);
  uint32_t mtu = ips_ld16(how + 6);
  s = (struct sum){.mtu = mtu};
  if (ips_fragment4_packet(&p, mtu, scratch, SCRATCH, 64, add_up, &s) == IPS_OK) CHECK(s.longest <= mtu);
  struct ips_view v;
  struct ips_pkt q = p;
  if (ips_parse(&q, &v) == IPS_OK) ips_complete_csum(&q);
  free(memory);
  free(scratch);
}

/* What went in, what came out; compared by flow at the end. */
struct log { uint32_t count; uint8_t *packet[MOST]; uint32_t len[MOST]; };
static void note(struct log *l, const struct ips_pkt *p) {
  CHECK(l->count < MOST);
  l->packet[l->count] = malloc(p->len);
  memcpy(l->packet[l->count], p->data, p->len);
  l->len[l->count++] = p->len;
}
static void note_segment(void *arg, struct ips_pkt *p) { note(arg, p); }
static void note_joined(void *arg, struct ips_pkt *p) {
  static uint8_t scratch[SCRATCH];
  if (p->gso_type == IPS_GSO_NONE)
    note(arg, p);
  else
    CHECK(ips_segment_packet(p, scratch, SCRATCH, 0, note_segment, arg) == IPS_OK);
}

/* Offset of the ports of a whole TCP packet without extension headers, else 0. */
static uint32_t ports_at(const uint8_t *b, uint32_t n) {
  uint32_t at = b[0] >> 4 == 4 ? (b[0] & 15u) * 4 : 40;
  bool fragment = b[0] >> 4 == 4 && (b[6] & 0x3f || b[7]);
  return fragment || b[b[0] >> 4 == 4 ? 9 : 6] != IPS_PROTO_TCP || n < at + 4 ? 0 : at;
}

static bool same_flow(const uint8_t *a, uint32_t na, const uint8_t *b, uint32_t nb) {
  uint32_t at = ports_at(a, na), bt = ports_at(b, nb);
  bool four = a[0] >> 4 == 4;
  return at && bt && a[0] >> 4 == b[0] >> 4 && memcmp(a + at, b + bt, 4) == 0 &&
         memcmp(a + (four ? 12 : 8), b + (four ? 12 : 8), four ? 8 : 32) == 0;
}

/* Every packet of `in` is in `out`, and those of one flow are in the same order. */
static void compare(struct log *in, struct log *out) {
  CHECK(in->count == out->count);
  bool used[MOST] = {0};
  uint32_t place[MOST];
  for (uint32_t i = 0; i < in->count; i++) {
    uint32_t j = 0;
    while (j < out->count &&
           (used[j] || in->len[i] != out->len[j] || memcmp(in->packet[i], out->packet[j], in->len[i])))
      j++;
    CHECK(j < out->count);
    used[j] = true;
    place[i] = j;
    for (uint32_t k = 0; k < i; k++)
      if (same_flow(in->packet[i], in->len[i], in->packet[k], in->len[k])) CHECK(place[k] < j);
  }
}

/* The packet before once more, as the segment that follows it, which mutation would hardly find. */
static struct ips_pkt continued(const struct log *in, bool same_id, uint8_t **memory) {
  uint32_t last = in->count - 1, head = in->packet[last][0] >> 4 == 4 ? 20 : 40;
  struct ips_pkt p = mend_packet(memory, 0, in->packet[last], in->len[last]);
  uint8_t *tcp = p.data + head;
  uint32_t headers = head + 20u <= p.len ? head + ips_tcp_header(tcp) : p.len;
  if (headers < p.len) ips_st32(tcp + 4, ips_be32(ips_be32(ips_ld32(tcp + 4)) + p.len - headers));
  if (head == 20 && !same_id) ips_st16(p.data + 4, ips_be16((uint16_t)(ips_be16(ips_ld16(p.data + 4)) + 1)));
  return p;
}

static void join(const uint8_t *how, const uint8_t *data, size_t n) {
  struct log in = {0}, out = {0};
  struct ips_gro *g = ips_gro_new(1 + (how[1] & 3), 16);
  while (n >= 2 && in.count < MOST) {
    size_t len = (size_t)data[0] | (data[1] & 1u) << 8;
    bool mend = !(data[1] & 2), again = data[1] & 4;
    data += 2;
    n -= 2;
    if (len > n) len = n;
    uint8_t *memory;
    struct ips_pkt p = mend_packet(&memory, 0, data, len);
    if (again && in.count) {
      free(memory);
      p = continued(&in, how[1] & 4, &memory);
      if (len) p.data[p.len - 1] = data[0];
    }
    data += len;
    n -= len;
    if (mend) mend_l4(p.data, p.len, 16);
    struct ips_view v;
    if (ips_parse(&p, &v) == IPS_OK) {
      note(&in, &p);
      if (ips_gro_push(g, &p, &v, note_joined, &out) != IPS_COALESCED) note(&out, &p);
    }
    free(memory);
  }
  ips_gro_flush(g, note_joined, &out);
  compare(&in, &out);
  for (uint32_t i = 0; i < in.count; i++) {
    free(in.packet[i]);
    free(out.packet[i]);
  }
  ips_gro_free(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n < 8 || n > 8192) return 0;
  if (data[0] & 1)
    join(data, data + 8, n - 8);
  else
    cut(data, data + 8, n - 8);
  return 0;
}
