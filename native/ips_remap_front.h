/* ips_remap_front.h: the outer headers of a channel's FINAL packets, made once, with a remap (ips_remap_set.c).
 *
 * The template is what ips_encap writes for a packet whose length, TTL, TOS and entropy are 0, so that there is one
 * opinion of what a channel packet looks like; what differs from packet to packet is put in as words, and the IPv4
 * sum is made of theirs and of the template's, never read back. tests/unit/test_remap_lane.py holds it against ips_encap.
 */
#ifndef IPS_REMAP_FRONT_H
#define IPS_REMAP_FRONT_H
#include "ips_encap.h"

struct ips_remap_front {
  uint8_t octets[64];  /* of them `bytes`; lengths, TOS, TTL, entropy, sum 0; the UDP source port as entropy 0 has it */
  uint8_t bytes;       /* 0: none, it re-addresses */
  uint8_t outer;       /* 20, 40: bytes of the IP header among them */
  uint16_t sum;        /* of the IPv4 header as it is here */
};

/* What of a packet is seen from outside. tos_high: TOS << 8; df: IPS_FRONT_DF or 0. */
enum { IPS_FRONT_DF = 0x40 };
struct ips_front_of { uint32_t ip_len, ttl, tos_high, df, ip_id; uint16_t entropy; };

static inline bool ips_front_has_entropy(const struct ips_remap_front *f) { return f->bytes != 20; }

/* `out`: f->bytes before the packet. */
static inline void ips_front_write(uint8_t *out, const struct ips_remap_front *f, const struct ips_front_of *o) {
  const uint8_t *t = f->octets;
  uint32_t len = o->ip_len + f->bytes;
  if (f->outer == 20) {
    uint32_t length = ips_be16((uint16_t)len), id = ips_be16((uint16_t)o->ip_id);
    uint32_t sum = ips_csum_fold32(f->sum + o->tos_high + length + id + o->df + o->ttl) ^ 0xffffu;
    ips_st32(out, ips_ld32(t) | o->tos_high | length << 16);
    ips_st32(out + 4, id | o->df << 16);
    ips_st64(out + 8, ips_ld64(t + 8) | o->ttl | sum << 16);
    ips_st32(out + 16, ips_ld32(t + 16));
  } else {
    len -= 40;
    ips_st64(out, ips_ld64(t) | ips_be32(o->tos_high << 12 | o->entropy) | (uint64_t)ips_be16((uint16_t)len) << 32 |
                    (uint64_t)o->ttl << 56);
    memcpy(out + 8, t + 8, 32);
  }
  if (f->bytes == f->outer) return;
  if (f->outer == 20) len -= 20;
  ips_st64(out + f->outer, ips_ld64(t + f->outer) | ips_be16(o->entropy & 0x3fff) | (uint64_t)ips_be16((uint16_t)len) << 32);
  ips_st64(out + f->outer + 8, ips_ld64(t + f->outer + 8));
}

/* Of end point e and packets of a family. */
static inline struct ips_remap_front ips_front_made(const struct ips_endpoint_rec *e, unsigned family) {
  struct ips_remap_front f = {.bytes = (uint8_t)ips_encap_overhead(e), .outer = e->tunnel_family == 4 ? 20 : 40};
  struct ips_pkt p = {.data = f.octets + f.bytes, .headroom = f.bytes};
  struct ips_view v = {.family = (uint8_t)family};
  if (f.bytes > sizeof f.octets || ips_encap(&p, &v, e, 0, 0) != IPS_OK) return (struct ips_remap_front){.bytes = 0};
  memset(f.octets + (f.outer == 20 ? 2 : 4), 0, 2);
  if (f.outer == 20) {
    if (family == 6) f.octets[6] = 0; /* DF: said of each packet */
    memset(f.octets + 10, 0, 2);
    f.sum = ips_csum_fold(ips_csum_bytes(f.octets, 20, 0));
  }
  if (f.bytes > f.outer) memset(f.octets + f.outer + 4, 0, 2);
  return f;
}
#endif
