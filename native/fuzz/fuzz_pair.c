/* fuzz_pair.c: heartbeat records, frames for virtual addresses, and any sequence of inputs to the pair
 * machine.
 *
 * First byte % 3: 0 a record for the decoder, 1 a frame for ips_vip_answer, 2 a list of steps of four bytes
 * (what, how long, two arguments). Claims: what is decoded encodes to the same bytes; an answer fits and is
 * never an answer to itself; the machine never forwards without a reign on disk, and says only what the
 * decoder takes.
 */
#include "../tests/check.h"
#include "ips_pair.h"
#include "ips_vip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void record(const uint8_t *data, size_t n) {
  struct ips_pair_msg m;
  uint8_t again[IPS_PAIR_BYTES];
  int refused = ips_pair_decode(data, n, &m);
  CHECK(ips_pair_refusal(refused) != NULL);
  if (refused) return;
  ips_pair_encode(&m, again);
  CHECK(n == sizeof again && memcmp(data, again, n) == 0);
}

static void frame(const uint8_t *data, size_t n) {
  static const struct ips_vip vips[] = {
    {.address = {192, 0, 2, 1}, .mac = {2, 0, 0, 0, 0, 1}, .family = 4},
    {.address = {0x20, 1, 0xd, 0xb8, [15] = 1}, .mac = {2, 0, 0, 0, 0, 1}, .family = 6, .router = 1},
  };
  uint8_t *exact = malloc(n ? n : 1), out[IPS_VIP_ROOM], more[IPS_VIP_ROOM];
  size_t size, size2;
  uint32_t which, which2;
  memcpy(exact, data, n);
  int result = ips_vip_answer(vips, 2, exact, n, out, &size, &which);
  CHECK(ips_vip_result(result) != NULL && (result == IPS_VIP_ANSWERED) == (size != 0) && size <= sizeof out);
  if (size) {
    CHECK(which < 2 && memcmp(out + 6, vips[which].mac, 6) == 0);
    CHECK(ips_vip_answer(vips, 2, out, size, more, &size2, &which2) == IPS_VIP_NOT_OURS);
  }
  free(exact);
}

static void carry_out(struct ips_pair *m, const struct ips_pair_actions *out, uint64_t *disk) {
  for (uint32_t i = 0; i < out->n; i++) {
    const struct ips_pair_action *a = &out->a[i];
    struct ips_pair_msg msg;
    uint8_t bytes[IPS_PAIR_BYTES];
    if (a->kind == IPS_PAIR_PERSIST) *disk = ips_pair_max(*disk, a->value);
    if (a->kind == IPS_PAIR_LEASE && a->value) 
      CHECK(m->reign && m->reign <= m->durable && m->durable <= *disk);
    if (a->kind != IPS_PAIR_SEND) continue;
    ips_pair_encode(&a->msg, bytes);
    CHECK(ips_pair_decode(bytes, sizeof bytes, &msg) == 0);
  }
  CHECK(m->state == IPS_PAIR_ACTIVE || m->forward_until_ns == 0);
  CHECK((m->state == IPS_PAIR_ACTIVE) == (m->reign != 0));
  CHECK(m->forward_until_ns <= m->sent_ns + m->cfg.lease_ns);
}

static struct ips_pair_msg said(const struct ips_pair *m, const uint8_t *op, uint64_t now) {
  struct ips_pair_msg msg = {
    .kind = (uint8_t)(1 + op[2] % 4), .state = (uint8_t)(1 + op[2] / 4 % 4), .flags = op[3] & 63, .node = 2,
    .boot = 1 + op[3] % 3, .to_boot = op[2] & 64 ? m->boot : 0, .sent_ns = now + op[3],
        .claim = op[3] & 24 ? m->durable : 0,
    .echo_ns = op[2] & 128 ? m->stamp_ns : 0, .epoch = {.counter = op[1] % 8u,
        .node = op[1] % 8u ? 1 + op[1] / 128 : 0},
  };
  if (!msg.to_boot) msg.echo_ns = 0;
  return msg;
}

static void machine(const uint8_t *op, size_t n) {
  const uint64_t ms = 1000000;
  struct ips_pair_config cfg = {
    .node = 1, .peer = 2, .n_paths = 2, .losses = 3, .jitter_times = 1, .tick_ns = ms,
        .interval_ns = 2 * ms, .dead_ns = 10 * ms,
    .lease_ns = 8 * ms, .late_ns = 3 * ms, .stall_ns = 4 * ms, .hold_ns = 20 * ms, .witness_ttl_ns = 20 * ms,
    .witness_ask_ns = 2 * ms, .witness = n % 2, .mode = n / 2 % 2, .preempt = n / 4 % 2, .clock_ppm = 500,
  };
  struct ips_pair m;
  struct ips_pair_actions out;
  uint64_t now = 1000 * ms, disk = 0;
  CHECK(ips_pair_check(&cfg) == 0);
  ips_pair_start(&m, &cfg, 9, n & 8, 0, now);
  for (; n >= 4; n -= 4, op += 4) {
    now += op[0] & 128 ? op[1] * ms : ms;
    struct ips_pair_facts facts = {op[2] & 1 ? now : now - 5 * ms, op[2] >> 1 & 1, op[2] >> 2 & 1,
        op[2] >> 3 & 1, op[2] >> 4 & 1};
    struct ips_pair_epoch highest = {.counter = op[3] % 8u, .node = 1 + op[3] / 8 % 2u};
    struct ips_pair_msg msg = said(&m, op, now);
    uint8_t bytes[IPS_PAIR_BYTES];
    switch (op[0] % 8) {
      case 0: case 1: ips_pair_tick(&m, now, &out); break;
      case 2: ips_pair_set_facts(&m, &facts, now, &out); break;
      case 3: ips_pair_persisted(&m, m.persisting, op[2] & 1, now, &out); break;
      case 4: ips_pair_order(&m, op[2] % 6, now, &out); break;
      case 5: ips_pair_witness(&m, op[2] % 4, m.durable, highest, now - op[1] * 1000u, now, &out); break;
      case 6: now -= op[2] == 255 ? 50 * ms : 0; ips_pair_tick(&m, now, &out); break;
      default:
        ips_pair_encode(&msg, bytes);
        if (ips_pair_decode(bytes, sizeof bytes, &msg)) continue;
        ips_pair_message(&m, &msg, now, &out);
    }
    carry_out(&m, &out, &disk);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n == 0) return 0;
  if (data[0] % 3 == 0) record(data + 1, n - 1);
  else if (data[0] % 3 == 1) frame(data + 1, n - 1);
  else machine(data + 1, n - 1);
  return 0;
}
