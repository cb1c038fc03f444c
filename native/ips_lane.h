/* ips_lane.h: the express lane: the steps of ips_forward.c for the packets that nearly all are, with everything
 * uncommon left out: whole TCP and UDP, no options or extension headers, nothing left to hardware, to be rewritten
 * and nothing else. Whatever it cannot tell at once it declines, unchanged and uncounted, and ips_outer or
 * ips_inner does what is right; tests/unit/test_express.py holds both against each other.
 *
 * Inline, for hosts that run it over a frame (the VPP plugin) as for ips_forward.c. What an end point allows is
 * remembered for the length of a frame, because a generation does not change within one. No function that
 * takes the address of a local may be called on the way: everything lives in registers. RFC 791, RFC 8200.
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

/* Cold: what end point `index` allows in this frame. */
void ips_lane_learn(const struct ips_worker *w, struct ips_lane_end *end, uint32_t index);

IPS_HOT const struct ips_lane_end *ips_lane_end(struct ips_worker *w, uint32_t index) {
  struct ips_lane_end *end = &w->lane_ends[index % IPS_LANE_ENDS];
  if (ips_unlikely(end->endpoint != index)) ips_lane_learn(w, end, index);
  return end;
}

/* May a packet of this kind go to the end point by rewriting alone? l4: offset of the TCP header, 0 for UDP. */
IPS_HOT bool ips_lane_allows(const struct ips_lane_end *end, const uint8_t *ip, uint32_t l4, uint32_t ip_len, uint32_t ttl) {
  if (ips_unlikely(ip_len > end->room || ttl < end->min_ttl)) return false;
  return ips_likely(!end->syn) || !l4 || !(ip[l4 + 13] & end->syn);
}

IPS_HOT void ips_lane_mend(uint8_t *field, bool tcp, uint16_t delta) {
  uint16_t had = ips_ld16(field), mended = ips_csum_mend(had, delta), udp = mended ? mended : 0xffff;
  udp = had ? udp : 0;
  ips_st16(field, tcp ? mended : udp);
}

IPS_HOT bool ips_lane_outer4(struct ips_worker *w, const uint8_t *ip, bool tcp, uint32_t ip_len, uint32_t ttl,
                             struct ips_lane_hit *hit, uint32_t *to) {
  const struct ips_root *r = w->root;
  uint32_t address = ips_be32(ips_ld32(ip + 16));
  const struct ips_net4 *n = ips_net4_find(r, address);
  if (ips_unlikely(!n)) return false;
  uint32_t at = address - n->base;
  ips_slot slot = n->pages[at / IPS_PAGE_SLOTS][at % IPS_PAGE_SLOTS];
  uint32_t kind = (uint16_t)slot, index = (uint16_t)(slot >> 16); /* kind and flags: with any flag it is none of ours */
  if (ips_unlikely(kind != IPS_KIND_ENDPOINT)) {
    if (kind == IPS_KIND_POLICY) index = ips_policy_pick(r, index, 4, ip + 12, ip + 16);
    else if (kind != IPS_KIND_ADDRESS) return false;
    if (index == IPS_NONE) return false;
  }
  const struct ips_lane_end *end = ips_lane_end(w, index);
  if (!ips_lane_allows(end, ip, tcp ? 20 : 0, ip_len, ttl)) return false;
  *to = ips_be32((uint32_t)(slot >> 32) + (kind == IPS_KIND_ADDRESS ? 0 : end->local4));
  hit->cell = n->cell + at;
  hit->endpoint = index;
  return true;
}

IPS_HOT bool ips_lane_has(const struct ips_hit *h) {
  return !h->flags && (h->kind == IPS_KIND_ENDPOINT || h->kind == IPS_KIND_POLICY || h->kind == IPS_KIND_ADDRESS);
}

/* Translates an ordinary packet of `len` bytes, or declines. `checked`: the host has seen that the header's sum is
 * right. Counts nothing. */
IPS_HOT bool ips_lane4(struct ips_worker *w, enum ips_side side, uint8_t *ip, uint32_t len, bool checked,
                       struct ips_lane_hit *hit) {
  if (ips_unlikely(!w->lane_open[side] || len < 28)) return false;
  uint64_t first = ips_ld64(ip), second = ips_ld64(ip + 8);
  uint32_t ip_len = ips_be16((uint16_t)(first >> 16)), ttl = (uint8_t)second, proto = (uint8_t)(second >> 8);
  bool tcp = proto == IPS_PROTO_TCP;
  if (ips_unlikely((first & 0xff3f0000000000ffu) != 0x45)) return false; /* version and length; fragments */
  if (ips_unlikely((!tcp && proto != IPS_PROTO_UDP) || ip_len > len || ip_len < (tcp ? 40u : 28u))) return false;
  if (!checked && ips_unlikely(ips_csum_fold(ips_csum_add(ips_csum_add(first, second), ips_ld32(ip + 16))) != 0xffff)) return false;
  if (ips_unlikely((ips_odd_first_byte[ip[12]] | ips_odd_first_byte[ip[16]]) & IPS_ODD4)) return false;
  if (ips_unlikely(w->root->tunnel_ends >> (ip[19] & 63) & 1) && !tcp) return false; /* perhaps a tunnel */
  uint32_t to;
  if (side == IPS_OUTER) {
    if (!ips_lane_outer4(w, ip, tcp, ip_len, ttl, hit, &to)) return false;
  } else {
    struct ips_hit h;
    if (ttl <= 1 || !ips_find_local(w->root, 4, ip + 16, &h) || !ips_lane_has(&h)) return false;
    to = ips_ld32(h.address);
    hit->cell = h.counter;
    hit->endpoint = h.endpoint;
  }
  hit->ip_len = ip_len;
  uint16_t delta = ips_csum_delta32(ips_ld32(ip + 16), to);
  ips_st16(ip + 10, ips_csum_mend(ips_ld16(ip + 10), delta));
  ips_st32(ip + 16, to);
  ips_lane_mend(ip + (tcp ? 36 : 26), tcp, delta);
  return true;
}

IPS_HOT bool ips_lane6(struct ips_worker *w, enum ips_side side, uint8_t *ip, uint32_t len, struct ips_lane_hit *hit) {
  if (ips_unlikely(!w->lane_open[side] || len < 48)) return false;
  uint32_t ip_len = 40u + ips_be16(ips_ld16(ip + 4)), proto = ip[6], ttl = ip[7];
  bool tcp = proto == IPS_PROTO_TCP;
  if (ips_unlikely(ip[0] >> 4 != 6 || (!tcp && proto != IPS_PROTO_UDP))) return false;
  if (ips_unlikely(ip_len > len || ip_len < (tcp ? 60u : 48u) || ttl <= 1)) return false;
  if (ips_unlikely((ips_odd_first_byte[ip[8]] | ips_odd_first_byte[ip[24]]) & IPS_ODD6)) return false;
  if (ips_unlikely(w->root->tunnel_ends >> (ip[39] & 63) & 1) && !tcp) return false;
  struct ips_hit h;
  if (side == IPS_OUTER) {
    if (!ips_find_global(w->root, 6, ip + 24, ip + 8, &h) || !ips_lane_has(&h) || h.endpoint == IPS_NONE) return false;
    if (!ips_lane_allows(ips_lane_end(w, h.endpoint), ip, tcp ? 40 : 0, ip_len, ttl)) return false;
  } else if (!ips_find_local(w->root, 6, ip + 24, &h) || !ips_lane_has(&h)) {
    return false;
  }
  hit->cell = h.counter;
  hit->endpoint = h.endpoint;
  hit->ip_len = ip_len;
  uint16_t delta = ips_csum_delta128(ip + 24, h.address);
  memcpy(ip + 24, h.address, 16);
  ips_lane_mend(ip + (tcp ? 56 : 46), tcp, delta);
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
