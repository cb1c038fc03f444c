/* ips_lane.h: the express lane: the steps of ips_forward.c for the packets that nearly all are, with everything
 * uncommon left out: whole TCP and UDP, no options or extension headers, nothing left to hardware, to be rewritten
 * and nothing else. Whatever it cannot tell at once it declines, unchanged and uncounted, and ips_outer or
 * ips_inner does what is right; tests/unit/test_express.py holds both against each other.
 *
 * Inline, for hosts that run it over a frame (the VPP plugin) as for ips_forward.c. What an end point allows is
 * remembered (ips_worker.h). No function that takes the address of a local may be called on the way: everything
 * lives in registers. RFC 791, RFC 8200.
 */
#ifndef IPS_LANE_H
#define IPS_LANE_H
#include "ips_csum.h"
#include "ips_worker.h"

#define IPS_HOT static inline __attribute__((__always_inline__))

struct ips_lane_hit { uint32_t cell, endpoint, ip_len; }; /* ip_len: bytes behind it are padding, cut them off */

/* First bytes of addresses that only the whole way may judge (bad_scope), by bit: IPv4, IPv6. */
enum { IPS_ODD4 = 1, IPS_ODD6 = 2 };
extern const uint8_t ips_odd_first_byte[256];

/* Cold: what end point `index` allows now. */
void ips_lane_learn(const struct ips_worker *w, struct ips_lane_end *end, uint32_t index);

IPS_HOT const struct ips_lane_end *ips_lane_end(struct ips_worker *w, uint32_t index) {
  struct ips_lane_end *end = &w->lane_ends[index % IPS_LANE_ENDS];
  if (ips_unlikely(end->endpoint != index)) ips_lane_learn(w, end, index);
  return end;
}

/* Protocols that take the lane: bytes that the header has at least, offset of its checksum << 8; 0: any other. */
extern const uint16_t ips_lane_l4[256];
enum { IPS_LANE_UDP = 8 | 6 << 8 };

/* May a packet of this kind go to the end point by rewriting alone? ip_len: bytes, of its `l4` rule's protocol. */
IPS_HOT bool ips_lane_allows(const struct ips_lane_end *end, const uint8_t *tcp_flags, uint32_t rule, uint32_t ip_len, uint32_t ttl) {
  if (ips_unlikely(ip_len > end->room || ttl < end->min_ttl)) return false;
  return ips_likely(!end->syn) || rule == IPS_LANE_UDP || !(*tcp_flags & end->syn);
}

/* UDP's 0 says "no checksum", and a sum of 0 is written 0xffff there. */
IPS_HOT void ips_lane_mend(uint8_t *field, uint32_t rule, uint16_t delta) {
  uint16_t had = ips_ld16(field), mended = ips_csum_mend(had, delta);
  if (rule == IPS_LANE_UDP) {
    mended = mended ? mended : 0xffff;
    mended = had ? mended : 0;
  }
  ips_st16(field, mended);
}

/* The IPv4 network that the packets of a frame go to: most often all to one. */
struct ips_lane_net4 { uint32_t base, mask, cell; ips_slot *const *pages; };
#define IPS_LANE_NO_NET4 ((struct ips_lane_net4){.base = 1}) /* matches no address */

IPS_HOT bool ips_lane_aim(const struct ips_root *r, struct ips_lane_net4 *net, uint32_t address) {
  if (ips_likely((address & net->mask) == net->base)) return true;
  const struct ips_net4 *n = ips_net4_find(r, address);
  if (!n) return false;
  *net = (struct ips_lane_net4){n->base, n->mask, n->cell, n->pages};
  return true;
}

IPS_HOT const ips_slot *ips_lane_slot(const struct ips_lane_net4 *net, uint32_t address) {
  uint32_t at = address - net->base;
  return &net->pages[at / IPS_PAGE_SLOTS][at % IPS_PAGE_SLOTS];
}

IPS_HOT bool ips_lane_outer4(struct ips_worker *w, struct ips_lane_net4 *net, const uint8_t *ip, uint32_t rule, uint32_t ip_len,
                             uint32_t ttl, struct ips_lane_hit *hit, uint32_t *to) {
  uint32_t address = ips_be32(ips_ld32(ip + 16));
  if (ips_unlikely(!ips_lane_aim(w->root, net, address))) return false;
  ips_slot slot = *ips_lane_slot(net, address);
  uint32_t kind = (uint16_t)slot, index = (uint16_t)(slot >> 16); /* kind and flags: with any flag it is none of ours */
  if (ips_unlikely(kind != IPS_KIND_ENDPOINT)) {
    if (kind == IPS_KIND_POLICY) index = ips_policy_pick(w->root, index, 4, ip + 12, ip + 16);
    else if (kind != IPS_KIND_ADDRESS) return false;
    if (index == IPS_NONE) return false;
  }
  const struct ips_lane_end *end = ips_lane_end(w, index);
  if (!ips_lane_allows(end, ip + 33, rule, ip_len, ttl)) return false;
  *to = ips_be32((uint32_t)(slot >> 32) + (kind == IPS_KIND_ADDRESS ? 0 : end->local4));
  hit->cell = net->cell + (address - net->base);
  hit->endpoint = index;
  return true;
}

IPS_HOT bool ips_lane_has(const struct ips_hit *h) {
  return !h->flags && (h->kind == IPS_KIND_ENDPOINT || h->kind == IPS_KIND_POLICY || h->kind == IPS_KIND_ADDRESS);
}

/* How sure the host is of what it brings: HEADER: the IPv4 header's sum is right. ROUTED: too, and a packet to one of our
 * tunnel addresses comes by the inner side. */
enum ips_lane_trust { IPS_TRUST_NOTHING, IPS_TRUST_HEADER, IPS_TRUST_ROUTED };

/* Translates an ordinary packet of `len` bytes, or declines. Counts nothing. */
IPS_HOT bool ips_lane4(struct ips_worker *w, enum ips_side side, struct ips_lane_net4 *net, uint8_t *ip, uint32_t len,
                       enum ips_lane_trust trust, struct ips_lane_hit *hit) {
  if (ips_unlikely(!w->lane_open[side] || len < 28)) return false;
  uint64_t first = ips_ld64(ip), second = ips_ld64(ip + 8);
  uint32_t ip_len = ips_be16((uint16_t)(first >> 16)), ttl = (uint8_t)second, rule = ips_lane_l4[(uint8_t)(second >> 8)];
  if (ips_unlikely((first & 0xff3f0000000000ffu) != 0x45)) return false; /* version and length; fragments */
  if (ips_unlikely(!rule || ip_len > len || ip_len < 20 + (rule & 0xff))) return false;
  if (trust < IPS_TRUST_HEADER && ips_unlikely(ips_csum_fold(ips_csum_add(ips_csum_add(first, second), ips_ld32(ip + 16))) != 0xffff))
    return false;
  if (ips_unlikely(ips_odd_first_byte[(uint8_t)(second >> 32)] & IPS_ODD4)) return false;
  if (!(side == IPS_OUTER && trust == IPS_TRUST_ROUTED) && ips_unlikely(w->root->tunnel_ends >> (ip[19] & 63) & 1) &&
      rule == IPS_LANE_UDP)
    return false; /* perhaps a tunnel */
  uint32_t to, old = ips_ld32(ip + 16);
  if (side == IPS_OUTER) {
    if (!ips_lane_outer4(w, net, ip, rule, ip_len, ttl, hit, &to)) return false;
  } else {
    struct ips_hit h;
    if (ttl <= 1 || !ips_find_local(w->root, 4, ip + 16, &h) || !ips_lane_has(&h)) return false;
    to = ips_ld32(h.address);
    hit->cell = h.counter;
    hit->endpoint = h.endpoint;
  }
  hit->ip_len = ip_len;
  uint16_t delta = ips_csum_delta32(old, to);
  ips_st16(ip + 10, ips_csum_mend((uint16_t)(second >> 16), delta));
  ips_st32(ip + 16, to);
  ips_lane_mend(ip + 20 + (rule >> 8), rule, delta);
  return true;
}

IPS_HOT bool ips_lane6(struct ips_worker *w, enum ips_side side, uint8_t *ip, uint32_t len, enum ips_lane_trust trust,
                       struct ips_lane_hit *hit) {
  if (ips_unlikely(!w->lane_open[side] || len < 48)) return false;
  uint64_t first = ips_ld64(ip);
  uint32_t ip_len = 40u + ips_be16((uint16_t)(first >> 32)), ttl = (uint8_t)(first >> 56);
  uint32_t rule = ips_lane_l4[(uint8_t)(first >> 48)];
  if (ips_unlikely((first & 0xf0) != 0x60 || !rule || ttl <= 1)) return false;
  if (ips_unlikely(ip_len > len || ip_len < 40 + (rule & 0xff))) return false;
  if (ips_unlikely(ips_odd_first_byte[ip[8]] & IPS_ODD6)) return false;
  if (!(side == IPS_OUTER && trust == IPS_TRUST_ROUTED) && ips_unlikely(w->root->tunnel_ends >> (ip[39] & 63) & 1) &&
      rule == IPS_LANE_UDP)
    return false;
  struct ips_hit h;
  if (side == IPS_OUTER) {
    if (!ips_find_global(w->root, 6, ip + 24, ip + 8, &h) || !ips_lane_has(&h) || h.endpoint == IPS_NONE) return false;
    if (!ips_lane_allows(ips_lane_end(w, h.endpoint), ip + 53, rule, ip_len, ttl)) return false;
  } else if (!ips_find_local(w->root, 6, ip + 24, &h) || !ips_lane_has(&h)) {
    return false;
  }
  hit->cell = h.counter;
  hit->endpoint = h.endpoint;
  hit->ip_len = ip_len;
  uint16_t delta = ips_csum_delta128(ip + 24, h.address);
  memcpy(ip + 24, h.address, 16);
  ips_lane_mend(ip + 40 + (rule >> 8), rule, delta);
  return true;
}

/* Counting, for who runs the lane over a frame: each packet's cell, and all of them at its end. */
IPS_HOT void ips_lane_count(struct ips_worker *w, uint32_t cell, uint32_t bytes) {
  if (ips_unlikely(cell >= w->n_cells)) return;
  w->cells[cell].packets++;
  w->cells[cell].bytes += bytes;
}
static inline void ips_lane_counted(struct ips_worker *w, enum ips_side side, uint32_t packets) {
  w->counters->verdicts[side][IPS_OK] += packets;
  w->counters->packets += packets;
}
#endif
