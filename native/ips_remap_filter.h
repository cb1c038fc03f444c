/* ips_remap_filter.h: may an address be remapped? What the express lane asks of each packet while a node has remaps.
 *
 * One remap in a family: its prefix is compared. Several: a bitmap over a hash of as many leading bits as the shortest
 * prefix of the family has: no bit, no remap.
 * With a bit the set is asked (ips_remap_first). Made with the set (ips_remap_set.c), never changed.
 */
#ifndef IPS_REMAP_FILTER_H
#define IPS_REMAP_FILTER_H
#include "ips_table.h"

enum { IPS_FILTER_BITS = 512 };

struct ips_prefix_filter {
  uint64_t map4[IPS_FILTER_BITS / 64], map6[IPS_FILTER_BITS / 64];
  uint64_t mask6_hi, mask6_lo;
  uint32_t mask4;
};
struct ips_remap_filter {
  struct ips_prefix_filter global;   /* remapped prefixes */
  struct ips_prefix_filter channel;  /* of re-addressing channels, here */
  bool has_channels;                 /* there are such channels */
  uint32_t one4, one6;               /* the answer of ips_remap_first for addresses of the family's only remap; 0: not one alone, */
  uint32_t key4;                     /* whose prefix this is, under the mask of `global` */
  uint64_t key6_hi, key6_lo;
  uint64_t ends;                     /* bit n: an address of a GUE channel here ends in n, modulo 64; the lane takes no IP-in-IP */
};

static inline uint32_t ips_filter_at4(const struct ips_prefix_filter *f, uint32_t address) {
  return (address & f->mask4) * 0x9e3779b1u >> 23;
}
static inline uint32_t ips_filter_at6(const struct ips_prefix_filter *f, uint64_t hi, uint64_t lo) {
  uint64_t h = (hi & f->mask6_hi) * 0x9e3779b97f4a7c15u ^ (lo & f->mask6_lo) * 0xd6e8feb86659fd93u;
  return (uint32_t)(h >> 55);
}
static inline bool ips_filter_has4(const struct ips_prefix_filter *f, uint32_t address) {
  uint32_t at = ips_filter_at4(f, address);
  return f->map4[at / 64] >> (at % 64) & 1;
}
static inline bool ips_filter_has6(const struct ips_prefix_filter *f, uint64_t hi, uint64_t lo) {
  uint32_t at = ips_filter_at6(f, hi, lo);
  return f->map6[at / 64] >> (at % 64) & 1;
}
#endif
