/* fuzz_witness.c: records of a witness, and any sequence of questions to its rules.
 *
 * First byte odd: a record for the decoder. Else a list of steps of six bytes: who asks, what for, how much
 * later. Claims: what is decoded encodes to the same bytes; nobody gets a grant before the one of another node
 * has ended, not after a restart from what was on the disk either; counters of different nodes never fall; a
 * refused question changes nothing.
 */
#include "../tests/check.h"
#include "ips_core.h"
#include "ips_witness_api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { NODES = 3 };
#define MS 1000000ull
#define LONGEST (200 * MS)

static void record(const uint8_t *data, size_t n) {
  struct ips_witness_msg m;
  uint8_t again[IPS_WITNESS_BYTES];
  memset(&m, 0xa5, sizeof m);
  if (!ips_witness_decode(data, n, &m)) {
    for (size_t i = 0; i < sizeof m; i++) CHECK(((const uint8_t *)&m)[i] == 0xa5);
    return;
  }
  ips_witness_encode(&m, again);
  CHECK(n == sizeof again && memcmp(data, again, n) == 0);
}

static void rules(const uint8_t *op, size_t n) {
  struct ips_witness w;
  struct ips_pair_epoch disk = {0};
  uint64_t now = 1000 * MS, disk_ttl = 0, free_ns = 0, highest = 0;
  uint32_t holder = 0;
  ips_witness_start(&w, disk, 0, LONGEST, now);
  uint64_t begun = now;
  bool is_blank = true;
  for (; n >= 6; n -= 6, op += 6) {
    uint32_t node = 1 + op[1] % NODES;
    struct ips_witness_msg m = {.kind = IPS_WITNESS_ASK, .counter = op[2] % 16,
                                .asked_ns = now - op[3] * 1000u, .ttl_ns = op[4] * MS};
    now += op[5] * MS;
    if (op[0] % 8 == 7) { /* started again, with what it had on its disk */
      ips_witness_start(&w, disk, disk_ttl, LONGEST, now);
      if (free_ns < now + disk_ttl && holder) free_ns = now + disk_ttl;
      continue;
    }
    struct ips_witness before = w;
    if (op[0] % 8 == 6) {
      ips_witness_release(&w, node, &m, now);
      bool is_it = node == holder && m.counter == before.granted.counter && m.asked_ns >= before.asked_ns;
      if (is_it && free_ns > now) free_ns = now;
      CHECK(w.granted.counter == before.granted.counter && w.granted.node == before.granted.node);
      continue;
    }
    int answer = ips_witness_judge(&w, node, &m, now);
    if (answer != IPS_PAIR_GRANTED) {
      CHECK(memcmp(&w, &before, sizeof w) == 0);
      continue;
    }
    CHECK(m.counter && m.ttl_ns <= LONGEST);
    CHECK(node == holder || now >= free_ns);
    CHECK(node == holder ? m.counter >= highest : m.counter > highest);
    CHECK(!is_blank || now >= begun + LONGEST); /* nothing on its disk: it may have granted anything before */
    is_blank = false;
    if (node != holder || free_ns < now + m.ttl_ns) free_ns = now + m.ttl_ns;
    holder = node;
    highest = m.counter;
    disk = w.granted;
    disk_ttl = w.ttl_ns;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n == 0) return 0;
  if (data[0] & 1) record(data + 1, n - 1);
  else rules(data + 1, n - 1);
  return 0;
}
