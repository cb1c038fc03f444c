/* fuzz_frag.c: the fragment table under any sequence of fragments, first fragments and time.
 *
 * The input is a list of (operation, id, offset, size, ...) of five bytes. Claims: every fragment comes out
 * exactly once, as OK, as an emitted copy, counted as late, or refused; what is held never exceeds its bound;
 * the ports of a known datagram are those of the first first fragment.
 */
#include "ips_frag.h"
#include "ips_parse.h"
#include "mend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { DATAGRAMS = 16, HELD = 12, HELD_BYTES = 128, IDS = 32 };

struct state {
  struct ips_frag_table *t;
  uint64_t now, held, released;
  uint16_t port[IDS];     /* of the first fragment that was learnt; 0: none */
  uint64_t until[IDS];
};

static void released(void *arg, struct ips_pkt *p) {
  struct state *s = arg;
  struct ips_view v;
  CHECK(ips_parse(p, &v) == IPS_OK && v.fragment_at != 0);
  for (uint32_t i = v.l4; i < p->len; i++) CHECK(p->data[i] == (uint8_t)v.frag_id);
  memset(p->data - p->headroom, 0x55, p->headroom);
  s->released++;
}

static uint32_t build(uint8_t *b, bool six, uint8_t id, uint8_t offset, uint8_t size, uint16_t port) {
  uint32_t header = six ? 48 : 20, len = header + 8 + (size % 16) * 8u;
  memset(b, 0, header);
  memset(b + header, id, len - header);
  b[0] = six ? 0x60 : 0x45;
  if (six) {
    ips_st16(b + 4, ips_be16((uint16_t)(len - 40)));
    b[6] = IPS_PROTO_FRAGMENT;
    b[7] = 9;
    b[40] = IPS_PROTO_UDP;
    ips_st16(b + 42, ips_be16((uint16_t)(offset * 8 | 1)));
    ips_st32(b + 44, ips_be32(id));
  } else {
    ips_st16(b + 2, ips_be16((uint16_t)len));
    ips_st16(b + 4, ips_be16(id));
    ips_st16(b + 6, ips_be16((uint16_t)(0x2000 | offset)));
    b[8] = 9;
    b[9] = IPS_PROTO_UDP;
    mend_ip4(b, len);
  }
  if (offset == 0) ips_st16(b + header, ips_be16(port));
  return len;
}

static void step(struct state *s, const uint8_t *op) {
  uint8_t bytes[256], id = op[1] % IDS;
  bool six = id & 1;
  if (op[0] % 8 == 7) s->now += (uint64_t)op[2] << 24;
  if (op[0] % 8 == 6) ips_frag_expire(s->t, s->now, op[2] % 4);
  if (op[0] % 8 >= 6) return;
  uint8_t offset = op[0] % 8 < 2 ? 0 : (uint8_t)(op[2] | 1);
  uint16_t port = (uint16_t)(1 + op[4] % 2);
  struct ips_pkt p = {.data = bytes, .len = build(bytes, six, id, offset, op[3], port)};
  p.total_len = p.len;
  struct ips_frag_flow flow;
  int verdict = ips_frag_ports_packet(s->t, &p, s->now, &flow);
  if (verdict == IPS_HELD) s->held++;
  if (verdict != IPS_OK) return;
  if (offset) {
    CHECK(s->now < s->until[id] && flow.src_port == s->port[id] && flow.value == id);
    return;
  }
  flow.value = id;
  verdict = ips_frag_learn_packet(s->t, &p, s->now, &flow, released, s);
  bool known = s->now < s->until[id];
  if (verdict == IPS_OK) CHECK(!known || s->port[id] == port);
  if (verdict == IPS_BAD_FRAGMENT) CHECK(known && s->port[id] != port);
  if (verdict == IPS_OK && !known) {
    s->port[id] = port;
    s->until[id] = s->now + IPS_FRAG_LIFE_NS;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  struct state s = {.t = ips_frag_new(DATAGRAMS, HELD, HELD_BYTES, 7), .now = 1};
  for (; n >= 5; n -= 5, data += 5) {
    step(&s, data);
    struct ips_frag_stats stats;
    ips_frag_stats(s.t, &stats);
    CHECK(stats.held <= HELD && stats.datagrams <= DATAGRAMS);
    CHECK(s.held == stats.held_total && s.released == stats.released);
    CHECK(stats.held_total == stats.released + stats.late + stats.held);
  }
  ips_frag_free(s.t);
  return 0;
}
