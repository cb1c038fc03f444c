/* ips_pair_wire.c: a heartbeat as 64 bytes, big-endian.
 *
 *  0 version=1, kind, state, flags | 4 node | 8 boot | 16 to_boot | 24 sent_ns | 32 echo_ns | 40 claim |
 * 48 epoch counter | 56 epoch node | 60 priority, 3 bytes zero
 *
 * What comes in was authenticated, but not understood: length and each value are checked before it is
 * used, and the numbers are bounded so that sums cannot overflow.
 */
#include "ips_pair.h"

enum { VERSION = 1, ALL_FLAGS = 127 };

static void st32(uint8_t *p, uint32_t v) { ips_st32(p, ips_be32(v)); }
static void st64(uint8_t *p, uint64_t v) { v = ips_be64(v); memcpy(p, &v, 8); }
static uint32_t ld32(const uint8_t *p) { return ips_be32(ips_ld32(p)); }
static uint64_t ld64(const uint8_t *p) { return ips_be64(ips_ld64(p)); }

void ips_pair_encode(const struct ips_pair_msg *m, uint8_t *out) {
  memset(out, 0, IPS_PAIR_BYTES);
  out[0] = VERSION;
  out[1] = m->kind;
  out[2] = m->state;
  out[3] = m->flags;
  st32(out + 4, m->node);
  st64(out + 8, m->boot);
  st64(out + 16, m->to_boot);
  st64(out + 24, m->sent_ns);
  st64(out + 32, m->echo_ns);
  st64(out + 40, m->claim);
  st64(out + 48, m->epoch.counter);
  st32(out + 56, m->epoch.node);
  out[60] = m->priority;
}

static bool flags_agree(const struct ips_pair_msg *m) {
  const uint8_t passive = IPS_PAIR_ELIGIBLE | IPS_PAIR_CLAIM | IPS_PAIR_VOTE | IPS_PAIR_WANT;
  bool active = m->state == IPS_PAIR_ACTIVE;
  if (m->flags & ~ALL_FLAGS || (active && m->flags & passive)) return false;
  if (!active && m->flags & IPS_PAIR_FORWARDS) return false;
  return (m->flags & (IPS_PAIR_CLAIM | IPS_PAIR_VOTE)) != (IPS_PAIR_CLAIM | IPS_PAIR_VOTE);
}

static int judge(const struct ips_pair_msg *m) {
  if (m->kind < IPS_PAIR_HEARTBEAT || m->kind > IPS_PAIR_RESIGN) return IPS_PAIR_BAD_KIND;
  if (m->state < IPS_PAIR_INITIAL || m->state > IPS_PAIR_INOP) return IPS_PAIR_BAD_STATE;
  if (m->kind == IPS_PAIR_RESIGN && m->state == IPS_PAIR_ACTIVE) return IPS_PAIR_BAD_STATE;
  if (!flags_agree(m)) return IPS_PAIR_BAD_FLAGS;
  if (!m->node) return IPS_PAIR_BAD_NODE;
  if (!m->boot) return IPS_PAIR_BAD_BOOT;
  if (m->epoch.counter >= IPS_PAIR_BOUND || !m->epoch.counter != !m->epoch.node) return IPS_PAIR_BAD_EPOCH;
  if (m->state == IPS_PAIR_ACTIVE && !m->epoch.counter) return IPS_PAIR_BAD_EPOCH;
  if (!m->sent_ns || m->sent_ns >= IPS_PAIR_BOUND || m->echo_ns >= IPS_PAIR_BOUND) return IPS_PAIR_BAD_TIME;
  if (m->echo_ns && !m->to_boot) return IPS_PAIR_BAD_TIME;
  bool claims = m->flags & (IPS_PAIR_CLAIM | IPS_PAIR_VOTE);
  return claims != (m->claim != 0) || m->claim >= IPS_PAIR_BOUND ? IPS_PAIR_BAD_CLAIM : IPS_PAIR_BAD_TAKEN;
}

int ips_pair_decode(const uint8_t *b, size_t n, struct ips_pair_msg *out) {
  if (n != IPS_PAIR_BYTES) return IPS_PAIR_BAD_LENGTH;
  if (b[0] != VERSION) return IPS_PAIR_BAD_VERSION;
  if (!ips_all_zero(b + 61, 3)) return IPS_PAIR_BAD_RESERVED;
  struct ips_pair_msg m = {
    .kind = b[1], .state = b[2], .flags = b[3], .priority = b[60], .node = ld32(b + 4), .boot = ld64(b + 8),
    .to_boot = ld64(b + 16), .sent_ns = ld64(b + 24), .echo_ns = ld64(b + 32), .claim = ld64(b + 40),
    .epoch = {.counter = ld64(b + 48), .node = ld32(b + 56)},
  };
  int bad = judge(&m);
  if (!bad) *out = m;
  return bad;
}
