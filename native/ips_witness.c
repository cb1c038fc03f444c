/* ips_witness.c: the rules of a witness, and its questions and answers as 40 bytes, big-endian.
 *
 *  0 version=1, kind, answer, 0 | 4 node of highest | 8 counter | 16 asked_ns | 24 ttl_ns | 32 counter of highest
 *
 * A node may go on under its grant, or go over to a higher counter; another node has to wait until the grant has ended.
 * A counter that is not above what was granted is refused: its reign would be one that nobody may begin any more.
 */
#include "ips_pair.h"
#include "ips_witness_api.h"

enum { VERSION = 1 };

static void st64(uint8_t *p, uint64_t v) { v = ips_be64(v); memcpy(p, &v, 8); }
static uint64_t ld64(const uint8_t *p) { return ips_be64(ips_ld64(p)); }

void ips_witness_encode(const struct ips_witness_msg *m, uint8_t *out) {
  memset(out, 0, IPS_WITNESS_BYTES);
  out[0] = VERSION;
  out[1] = m->kind;
  out[2] = m->answer;
  ips_st32(out + 4, ips_be32(m->highest.node));
  st64(out + 8, m->counter);
  st64(out + 16, m->asked_ns);
  st64(out + 24, m->ttl_ns);
  st64(out + 32, m->highest.counter);
}

bool ips_witness_decode(const uint8_t *b, size_t n, struct ips_witness_msg *out) {
  if (n != IPS_WITNESS_BYTES || b[0] != VERSION || b[3]) return false;
  struct ips_witness_msg m = {
    .kind = b[1], .answer = b[2], .counter = ld64(b + 8), .asked_ns = ld64(b + 16), .ttl_ns = ld64(b + 24),
    .highest = {.counter = ld64(b + 32), .node = ips_be32(ips_ld32(b + 4))},
  };
  bool answers = m.kind == IPS_WITNESS_ANSWER;
  if (m.kind < IPS_WITNESS_ASK || m.kind > IPS_WITNESS_ANSWER) return false;
  if (answers != (m.answer != 0) || m.answer > IPS_PAIR_UNKNOWN) return false;
  if (m.counter >= IPS_PAIR_BOUND || m.asked_ns >= IPS_PAIR_BOUND || m.ttl_ns >= IPS_PAIR_BOUND) return false;
  if (m.highest.counter >= IPS_PAIR_BOUND || !m.highest.counter != !m.highest.node) return false;
  *out = m;
  return true;
}

void ips_witness_start(struct ips_witness *w, struct ips_pair_epoch granted, uint64_t ttl_ns, uint64_t longest_ns,
                       uint64_t now_ns) {
  uint64_t wait = granted.counter ? ttl_ns : longest_ns;
  *w = (struct ips_witness){.granted = granted, .ttl_ns = ttl_ns, .until_ns = now_ns + wait, .longest_ns = longest_ns};
}

int ips_witness_judge(struct ips_witness *w, uint32_t node, const struct ips_witness_msg *m, uint64_t now_ns) {
  if (m->ttl_ns > w->longest_ns) return IPS_PAIR_UNKNOWN;
  bool own = w->granted.node == node && w->granted.counter;
  bool free = now_ns >= w->until_ns || own;
  bool follows = m->counter > w->granted.counter || (own && m->counter == w->granted.counter);
  if (!m->counter || !free || !follows) return IPS_PAIR_REFUSED;
  w->granted = (struct ips_pair_epoch){.counter = m->counter, .node = node};
  w->asked_ns = m->asked_ns;
  w->until_ns = ips_pair_max(w->until_ns, now_ns + m->ttl_ns);
  w->ttl_ns = w->until_ns - now_ns; /* of the longest that is promised: a restart waits for that */
  return IPS_PAIR_GRANTED;
}

void ips_witness_release(struct ips_witness *w, uint32_t node, const struct ips_witness_msg *m, uint64_t now_ns) {
  bool is_it = w->granted.counter == m->counter && w->granted.node == node;
  if (is_it && m->asked_ns >= w->asked_ns) w->until_ns = ips_pair_min(w->until_ns, now_ns);
}
