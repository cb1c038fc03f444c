/* fuzz_napt.c: port-translating NAT under any sequence of packets from both sides, and time.
 *
 * The input is a list of steps: one byte (bits 0-1: from inside, from outside, time, end all; bit 2: mend
 * the transport sum as TCP's, bit 3: as UDP's; bit 4: partial sum of TCP), two of length, the packet.
 * Claims: a refused packet is as it was; a translated one parses, is as long, and a sum that was right is
 * right; what left comes back to its source when it is answered; as many ports are taken as there are
 * mappings; limits hold; at the end nothing is left.
 */
#include "ips_frag.h"
#include "ips_napt_api.h"
#include "ips_parse.h"
#include "mend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { LONGEST = 700, SESSIONS = 12, HALF = 6 };

struct state {
  struct ips_sessions *s;
  struct ips_napt *n;
  struct ips_frag_table *frags;
  uint64_t now;
};

static void emitted(void *arg, struct ips_pkt *p, int kind) {
  struct ips_view v;
  (void)arg;
  CHECK(kind == IPS_EMIT_PACKET && ips_parse(p, &v) == IPS_OK && v.fragment_at);
  memset(p->data - p->headroom, 0x55, p->headroom);
}

/* Of a whole TCP or UDP packet with a sum; true where it says nothing. */
static bool sum_is_right(const uint8_t *b, size_t n, const struct ips_view *v) {
  bool tcp = v->proto == IPS_PROTO_TCP, udp = v->proto == IPS_PROTO_UDP;
  size_t from = v->family == 4 ? 12 : 8, l4 = n - v->l4;
  if ((!tcp && !udp) || v->is_fragment || v->routing_active) return true;
  if (udp && !b[v->l4 + 6] && !b[v->l4 + 7]) return true;
  uint32_t pseudo = mend_sum(b + from, v->family == 4 ? 8 : 32, (uint32_t)l4 + v->proto);
  return mend_sum(b + v->l4, l4, pseudo) == 0xffff;
}

static void swap(uint8_t *a, uint8_t *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint8_t x = a[i];
    a[i] = b[i];
    b[i] = x;
  }
}

/* The answer to a packet that has just left goes to where that came from (`sent`). */
static void answer(struct state *s, struct ips_pkt *p, const struct ips_view *v, const uint8_t *sent) {
  size_t size = v->family == 4 ? 4 : 16, src = v->family == 4 ? 12 : 8;
  if ((v->proto != IPS_PROTO_TCP && v->proto != IPS_PROTO_UDP) || v->is_fragment) return;
  swap(p->data + src, p->data + src + size, size);
  swap(p->data + v->l4, p->data + v->l4 + 2, 2);
  int verdict = ips_napt_in(s->n, p, 1, s->now);
  CHECK(verdict == IPS_OK || verdict == IPS_SESSIONS_FULL || verdict == IPS_NO_SESSION);
  if (verdict == IPS_NO_SESSION) CHECK(v->proto == IPS_PROTO_TCP);
  if (verdict != IPS_OK) return;
  CHECK(!memcmp(p->data + src + size, sent + src, size) &&
        ips_ld16(p->data + v->l4 + 2) == ips_ld16(sent + v->l4));
}

static void translate(struct state *s, uint8_t how, const uint8_t *data, size_t n) {
  uint8_t *memory, *copy = malloc(n + 1);
  struct ips_pkt p = mend_packet(&memory, 0, data, n);
  struct ips_view v = {0};
  mend_ip4(p.data, n);
  if (how & 4) mend_l4(p.data, n, 16);
  else if (how & 8) mend_l4(p.data, n, 6);
  if (how & 16) {
    p.csum = IPS_CSUM_PARTIAL;
    p.csum_start = n && p.data[0] >> 4 == 4 ? 20 : 40;
    p.csum_offset = 16;
  }
  bool right = ips_parse(&p, &v) == IPS_OK && sum_is_right(p.data, p.len, &v) && !(how & 16);
  uint32_t len = p.len;
  memcpy(copy, p.data, len);
  int verdict = how & 1 ? ips_napt_in(s->n, &p, 0, s->now) : ips_napt_out(s->n, &p, 0, s->now);
  CHECK(p.len == len);
  if (ips_verdict_disposition(verdict) != IPS_SEND) {
    CHECK(memcmp(p.data, copy, len) == 0);
  } else {
    CHECK(ips_parse(&p, &v) == IPS_OK && (!right || sum_is_right(p.data, p.len, &v)));
    if (verdict == IPS_OK && !(how & 1)) answer(s, &p, &v, copy);
  }
  free(memory);
  free(copy);
}

static void all_is_well(struct state *s, bool empty) {
  struct ips_napt_address a[8];
  struct ips_sessions_stats stats;
  uint32_t bits = 0;
  size_t count = ips_napt_addresses(s->n, a, 8);
  for (size_t i = 0; i < count; i++) bits += a[i].tcp + a[i].udp + a[i].icmp + a[i].whole;
  ips_sessions_stats(s->s, &stats);
  CHECK(bits == stats.mappings && stats.sessions <= SESSIONS && stats.half_open <= HALF);
  CHECK(stats.opened == stats.ended + stats.sessions + stats.half_open);
  if (empty) CHECK(stats.sessions == 0 && stats.half_open == 0 && bits == 0);
}

static void expire(struct state *s, uint64_t seconds) {
  s->now += seconds * 1000000000ull;
  ips_sessions_expire(s->s, 0, s->now, ips_sessions_buckets(s->s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  const struct ips_napt_pool_rec pools[2] = {
    {.first = {203, 0, 113, 0}, .n = 2, .realm = 1, .family = 4, .first_port = 2000, .last_port = 2003},
    {.first = {0x20, 1, 0xd, 0xb8, 0, 1}, .n = 2, .realm = 1, .family = 6}};
  const struct ips_napt_inside_rec insides[2] = {
      {.prefix = {10}, .family = 4, .prefix_len = 8, .realm = 1},
      {.prefix = {0xfd}, .family = 6, .prefix_len = 8, .realm = 1}};
  struct ips_sessions_config sc = {.sessions = SESSIONS, .half_open = HALF, .now_ns = 1, .addresses = 8};
  struct ips_napt_config nc = {.pools = pools, .insides = insides, .n_pools = 2, .n_insides = 2,
                               .filtering = n ? data[0] & 1 : 0};
  struct state s = {.s = ips_sessions_new(&sc), .frags = ips_frag_new(16, 8, 256, 1), .now = 1};
  s.n = ips_napt_new(s.s, s.frags, &nc);
  CHECK(s.n);
  ips_napt_set_emit(s.n, 0, emitted, NULL);
  for (n = n ? n - 1 : 0, data++; n >= 3;) {
    size_t len = data[1] | (size_t)data[2] << 8, step = data[0];
    len = len > n - 3 ? n - 3 : len > LONGEST ? LONGEST : len;
    if ((step & 3) == 2) expire(&s, data[1]);
    else if ((step & 3) == 3) expire(&s, 100000);
    else translate(&s, (uint8_t)step, data + 3, len);
    all_is_well(&s, (step & 3) == 3);
    data += 3 + len;
    n -= 3 + len;
  }
  expire(&s, 100000);
  all_is_well(&s, true);
  ips_napt_free(s.n);
  ips_frag_free(s.frags);
  ips_sessions_free(s.s);
  return 0;
}
