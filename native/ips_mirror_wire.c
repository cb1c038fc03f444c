/* ips_mirror_wire.c: one session record on the wire.
 *
 * what (op | v6 4 | mapped 8 | counters 16 | flags 32) | protocol | realm (2) | ports (2, 2) | addresses (4
 * or 16 each) | version (8); of an upsert also kind | state | age (4) | idle (4), and if so marked: mapped
 * address (4 or 16) and port (2), flags (4), four counters as LEB128. Big-endian; nothing is an index. What
 * has more than one form is refused, so that equal records are equal octets.
 */
#include "ips_mirror.h"

enum { OP = 3, SIX = 4, MAPPED = 8, COUNTERS = 16, FLAGS = 32, KNOWN = 63 };
enum { FIXED = 16, UPSERT = 10 };

static uint8_t *put_number(uint8_t *out, uint64_t v) {
  for (; v >= 128; v >>= 7) *out++ = (uint8_t)(v | 128);
  *out++ = (uint8_t)v;
  return out;
}

/* NULL: cut, too large or longer than it has to be. */
static const uint8_t *get_number(const uint8_t *in, const uint8_t *end, uint64_t *v) {
  *v = 0;
  for (unsigned shift = 0; in < end && shift < 70; shift += 7) {
    uint8_t b = *in++;
    if (shift == 63 && b > 1) return NULL;
    *v |= (uint64_t)(b & 127) << shift;
    if (b < 128) return b == 0 && shift ? NULL : in;
  }
  return NULL;
}

size_t ips_mirror_put(uint8_t *out, int op, const struct ips_session_rec *r) {
  const struct ips_flow *f = &r->flow;
  bool six = f->family == 6, upsert = op == IPS_SESSION_UPSERT;
  size_t a = six ? 16 : 4;
  bool mapped = upsert && (r->mapped_port || !ips_all_zero(r->mapped, 16));
  bool counters = upsert && (r->packets[0] | r->packets[1] | r->bytes[0] | r->bytes[1]);
  out[0] = (uint8_t)(op | (six ? SIX : 0) | (mapped ? MAPPED : 0) | (counters ? COUNTERS : 0) |
                     (upsert && r->flags ? FLAGS : 0));
  out[1] = f->proto;
  ips_put16(out + 2, f->realm);
  ips_put16(out + 4, f->src_port);
  ips_put16(out + 6, f->dst_port);
  ips_put64(out + 8, r->version);
  uint8_t *at = out + FIXED;
  memcpy(at, f->src, a);
  memcpy(at + a, f->dst, a);
  at += 2 * a;
  if (!upsert) return (size_t)(at - out);
  at[0] = r->kind, at[1] = r->state;
  ips_put32(at + 2, r->age_s);
  ips_put32(at + 6, r->idle_ms);
  at += UPSERT;
  if (mapped) {
    memcpy(at, r->mapped, a);
    ips_put16(at + a, r->mapped_port);
    at += a + 2;
  }
  if (r->flags) ips_put32(at, r->flags), at += 4;
  if (counters)
    for (unsigned i = 0; i < 2; i++) at = put_number(put_number(at, r->packets[i]), r->bytes[i]);
  return (size_t)(at - out);
}

static bool is_kind_and_state(const struct ips_session_rec *r) {
  return r->kind >= IPS_SESSION_TRACK && r->kind <= IPS_SESSION_DISPATCH && r->state >= IPS_STATE_OPENING &&
         r->state <= IPS_STATE_RESET;
}

size_t ips_mirror_get(const uint8_t *in, size_t len, int *op, struct ips_session_rec *r) {
  if (len < FIXED) return 0;
  uint8_t what = in[0];
  size_t a = what & SIX ? 16 : 4, need = FIXED + 2 * a;
  bool upsert = (what & OP) == IPS_SESSION_UPSERT;
  if (what & ~KNOWN || (!upsert && (what & ~SIX) != IPS_SESSION_DELETE)) return 0;
  if (upsert) need += UPSERT + (what & MAPPED ? a + 2 : 0) + (what & FLAGS ? 4u : 0);
  if (len < need) return 0;
  *op = what & OP;
  *r = (struct ips_session_rec){
    .flow = {.family = what & SIX ? 6 : 4, .proto = in[1], .realm = ips_get16(in + 2),
             .src_port = ips_get16(in + 4), .dst_port = ips_get16(in + 6)},
    .version = ips_get64(in + 8)};
  if (r->version == 0) return 0;
  const uint8_t *at = in + FIXED;
  memcpy(r->flow.src, at, a);
  memcpy(r->flow.dst, at + a, a);
  at += 2 * a;
  if (!upsert) return need;
  r->kind = at[0], r->state = at[1], r->age_s = ips_get32(at + 2), r->idle_ms = ips_get32(at + 6);
  at += UPSERT;
  if (!is_kind_and_state(r)) return 0;
  if (what & MAPPED) {
    memcpy(r->mapped, at, a);
    r->mapped_port = ips_get16(at + a);
    at += a + 2;
    if (!r->mapped_port && ips_all_zero(r->mapped, 16)) return 0;
  }
  if (what & FLAGS) {
    r->flags = ips_get32(at), at += 4;
    if (!r->flags) return 0;
  }
  if (what & COUNTERS) {
    for (unsigned i = 0; i < 2 && at; i++) {
      at = get_number(at, in + len, &r->packets[i]);
      if (at) at = get_number(at, in + len, &r->bytes[i]);
    }
    if (!at || !(r->packets[0] | r->packets[1] | r->bytes[0] | r->bytes[1])) return 0;
  }
  return (size_t)(at - in);
}

/* ---- hashes ------------------------------------------------------------------- */

static inline uint64_t mix(uint64_t h, uint64_t word) {
  h = (h ^ word) * 0x9e3779b97f4a7c15ull;
  return h ^ h >> 32;
}

uint64_t ips_flow_hash(const struct ips_flow *f) {
  uint64_t h = (uint64_t)f->src_port << 48 | (uint64_t)f->dst_port << 32 | (uint64_t)f->realm << 16 |
               (uint64_t)f->family << 8 | f->proto;
  h = mix(0x6970736d6972726full, h);
  for (unsigned i = 0; i < (f->family == 6 ? 16 : 4); i += f->family == 6 ? 8 : 4) {
    h = mix(h, f->family == 6 ? ips_get64(f->src + i) : ips_get32(f->src + i));
    h = mix(h, f->family == 6 ? ips_get64(f->dst + i) : ips_get32(f->dst + i));
  }
  return mix(h, 0);
}

uint8_t ips_mirror_shard(const struct ips_flow *f) { return (uint8_t)(ips_flow_hash(f) >> 56); }

uint64_t ips_mirror_digest(const struct ips_session_rec *r) {
  uint64_t h = mix(ips_flow_hash(&r->flow), r->version);
  h = mix(h, (uint64_t)r->mapped_port << 48 | (uint64_t)r->kind << 40 | (uint64_t)r->state << 32 | r->flags);
  h = mix(mix(h, ips_get64(r->mapped)), ips_get64(r->mapped + 8));
  return mix(h, 1);
}
