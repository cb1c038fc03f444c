/* ips_core.h: what the parts of the core agree on among themselves.
 *
 * A packet passes: ips_parse -> ips_find_* (tables) -> checks (TTL, MTU) ->
 * ips_rewrite or ips_encap/ips_decap -> the host sends. Everything here is
 * sans-I/O: no socket, clock, thread, allocation in the packet path. Functions that can
 * fail return a verdict (ips_verdict.def), IPS_OK = 0. A packet is changed only
 * after everything that could refuse it has been checked.
 *
 * Hot functions are static inline in the header named beside their prototype;
 * cold ones are in the .c file of the same name.
 */
#ifndef IPS_CORE_H
#define IPS_CORE_H
#include "ips_api.h"
#include <string.h>

/* ips_be16() .. swap without asking, and no test has ever run on a machine where they must not. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the core knows little-endian machines only");

enum ips_verdict {
#define V(name, disposition, text) IPS_##name,
#include "ips_verdict.def"
#undef V
  IPS_N_VERDICTS
};

static const uint8_t ips_dispositions[] = {
#define V(name, disposition, text) IPS_##disposition,
#include "ips_verdict.def"
#undef V
};

#define IPS_NONE UINT32_MAX
#define ips_likely(x) __builtin_expect(!!(x), 1)
#define ips_unlikely(x) __builtin_expect(!!(x), 0)

/* Unaligned loads and stores; a packet may start at any address. */
static inline uint16_t ips_ld16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t ips_ld32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t ips_ld64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void ips_st16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void ips_st32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void ips_st64(void *p, uint64_t v) { memcpy(p, &v, 8); }
static inline uint16_t ips_be16(uint16_t v) { return __builtin_bswap16(v); }
static inline uint32_t ips_be32(uint32_t v) { return __builtin_bswap32(v); }
static inline uint64_t ips_be64(uint64_t v) { return __builtin_bswap64(v); }

static inline bool ips_all_zero(const void *bytes, size_t n) {
  const uint8_t *p = bytes;
  while (n && *p == 0) p++, n--;
  return n == 0;
}

enum {
  IPS_PROTO_HOPOPTS = 0, IPS_PROTO_ICMP = 1, IPS_PROTO_IPIP = 4, IPS_PROTO_TCP = 6, IPS_PROTO_UDP = 17,
  IPS_PROTO_DCCP = 33, IPS_PROTO_IPV6 = 41, IPS_PROTO_ROUTING = 43, IPS_PROTO_FRAGMENT = 44,
  IPS_PROTO_ESP = 50, IPS_PROTO_AH = 51, IPS_PROTO_ICMP6 = 58, IPS_PROTO_NONE = 59, IPS_PROTO_DSTOPTS = 60,
  IPS_PROTO_SCTP = 132, IPS_PROTO_MOBILITY = 135, IPS_PROTO_UDPLITE = 136,
};

/* ---- ips_parse.h: where things are in a packet ------------------------- */

/* struct ips_view: ips_api.h. */
/* Validates and finds. Verdicts: SHORT .. BAD_OFFLOAD, SOURCE_ROUTE. Trailing
 * bytes beyond ip_len (Ethernet padding) are cut off p. Inline in ips_parse.h:
 *   int ips_parse(struct ips_pkt *p, struct ips_view *v);
 */
enum ips_field { IPS_SRC = 0, IPS_DST = 1 };
static inline const uint8_t *ips_field_at(const uint8_t *ip, unsigned family, enum ips_field f) {
  return ip + (family == 4 ? 12 + 4 * f : 8 + 16 * f);
}

/* ---- ips_rewrite.h ------------------------------------------------------
 *   int ips_rewrite(struct ips_pkt *p, const struct ips_view *v, enum ips_field f, const uint8_t *address);
 * Writes the 4 or 16 bytes of `address` into field f and mends every sum that covers them:
 * IPv4 header, L4 (also in a fragment that covers the checksum's bytes), ICMP
 * errors: the quoted packet's opposite field (an error *to* X quotes a packet *from* X:
 * f = DST changes the quote's source, f = SRC the quote's destination), where it equals the old address,
 * and the quote's own checksums as far as they are quoted; the outer ICMP sum.
 * Verdicts: BAD_QUOTE (f = DST and the quote's source is another; f = SRC and its destination is already the
 * new address), SHORT_L4 (ICMP error in a chained buffer). Nothing is changed unless OK.
 *   void ips_clamp_mss(struct ips_pkt *p, const struct ips_view *v, unsigned mss);
 */

/* ---- ips_error.c: ICMP errors about packets, before a byte changes ------ */

enum ips_error_kind { IPS_ERR_TTL, IPS_ERR_TOO_BIG, IPS_ERR_HOST_UNREACHABLE, IPS_ERR_ADMIN };
/* Writes the ICMP error about p, quoting it as it is, to out (room bytes; needs
 * 1,280 for v6, 576 for v4). source: 16 bytes. Returns its length, 0 where RFC 1122 3.2.2 /
 * RFC 4443 2.4 forbid an error (about errors, non-first fragments, multicast, ...). mtu for TOO_BIG. */
size_t ips_make_error(const struct ips_pkt *p, const struct ips_view *v, enum ips_error_kind kind,
                      uint32_t mtu, const uint8_t *source, uint8_t *out, size_t room);
/* An ICMP/ICMPv6 echo request turned into its reply in place. */
void ips_make_echo_reply(struct ips_pkt *p, const struct ips_view *v);

/* ---- ips_table.h: what a worker reads ----------------------------------- */

struct ips_root;
struct ips_endpoint { /* as stored in a root: one cache line */
  struct ips_endpoint_rec r;
};
_Static_assert(sizeof(struct ips_endpoint) == 64, "an end point is one cache line");
struct ips_hit {
  uint8_t kind, flags;   /* enum ips_kind, enum ips_binding_flags; kind NONE: in a network, no binding */
  uint8_t unmatched;     /* of the network, where kind is NONE */
  uint8_t reserved;
  uint32_t endpoint;     /* index, or IPS_NONE */
  uint32_t previous;     /* POLICY: index + 1 of the end point that had this client before, if another; else 0 */
  uint32_t counter;      /* cell, or IPS_NONE */
  uint8_t address[16];   /* the other side's address (kinds ENDPOINT, POLICY, ADDRESS) */
};
/* Inline in ips_table.h. key, client, global, address: 4 or 16 bytes; client is the far one, for policies.
 *
 *   bool ips_find_global(r, family, key, client, struct ips_hit *h)
 *     global -> local. False: the address is in no network.
 *   bool ips_find_global_self(r, family, key, struct ips_hit *h)
 *     The same for this node's own end points (IPS_EP_SELF): of a POLICY the own member, kind NONE where
 *     no own end point has the address.
 *   bool ips_find_local(r, family, key, struct ips_hit *h)
 *     local -> global. False: the address is in no local prefix that this node maps back.
 *   bool ips_in_network(r, family, key)
 *     Is it in any Global Network of the root?
 *   const struct ips_endpoint *ips_endpoint(r, index)
 *   uint32_t ips_find_tunnel(r, family, remote, local)
 *     The end point record with these tunnel addresses, or IPS_NONE.
 *   bool ips_is_tunnel_local(r, family, address)
 *     Is it one of our own: tunnel_local of any end point?
 *   const struct ips_endpoint *ips_way_to(r, family, address)
 *     The way to the end point that others know by this tunnel address (IPS_EP_WAY), or NULL.
 *   uint32_t ips_policy_pick(r, policy, family, client, global)
 *   const struct ips_image_header *ips_root_header(r)
 *   const struct ips_root *ips_tables_live(t)
 *     The live generation, by an acquire load.
 */

/* ---- ips_encap.h: IP-in-IP and GUE -------------------------------------- */

enum { IPS_EP_MARKS = IPS_EP_MARK_PREVIOUS | IPS_EP_MARK_FINAL | IPS_EP_MARK_ASK };
/* Bytes that encapsulation adds for this end point (20/40, +8 UDP +4 GUE, +4 a mark, +4/16 an address). */
static inline unsigned ips_encap_overhead(const struct ips_endpoint_rec *e) {
  return e->encap == IPS_ENCAP_NONE && !e->tunnel_family ? 0
         : (e->tunnel_family == 4 ? 20u : 40u) + (e->encap == IPS_ENCAP_GUE ? 12u : 0u) +
           (ips_likely(!(e->flags & IPS_EP_MARKS)) ? 0u
            : !(e->flags & IPS_EP_MARK_PREVIOUS)   ? 4u
                                                   : e->family == 4 ? 8u : 20u);
}
/*   int ips_encap(struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint_rec *e,
 *                 uint16_t entropy, uint16_t ip_id);
 * Puts the outer headers before p (needs headroom; verdict NO_ROOM). p must not be GSO and its checksum
 * must be complete (ips_complete_csum). Outer TTL = inner TTL (traceroute through the tunnel), DSCP copied,
 * ECN by RFC 6040 normal mode, DF set (v4 outer) where the inner packet has DF or is v6.
 *   int ips_decap(struct ips_pkt *p, const struct ips_view *v, struct ips_tunnel_info *info);
 * Strips IP-in-IP or GUE; ECN by RFC 6040 4.2 (CE on Not-ECT inner: drop, TUNNEL_INNER); the lower of both
 * TTLs goes on. Validates the UDP checksum of GUE when it is not zero.
 */

/* ---- ips_gso.c / ips_gro.c: software segmentation and coalescing -------- */

/* Fills in a partial checksum. Verdict BAD_OFFLOAD if the fields lie. */
int ips_complete_csum(struct ips_pkt *p);
/* Calls emit for each segment of a GSO super-packet (TCP: seq, flags, IP id, lengths, sums; UDP_L4),
 * each with `headroom` writable bytes before it, built in scratch (bytes: headroom + IP and transport header
 * + gso_size). p stays as it is. Verdicts: BAD_OFFLOAD, NO_ROOM (scratch); then nothing was emitted. */
int ips_segment(const struct ips_pkt *p, const struct ips_view *v, uint8_t *scratch, size_t scratch_bytes,
                uint16_t headroom, ips_packet_fn emit, void *arg);
/* Cuts an IPv4 packet without DF into pieces of at most mtu bytes; one that fits, of either family, is
 * emitted as it is. scratch: headroom + mtu bytes. Verdicts: TOO_BIG (IPv6, DF, or no room for a header and 8
 * bytes), BAD_OPTION, BAD_OFFLOAD (segment first, complete the checksum first), NO_ROOM: nothing emitted. */
int ips_fragment4(const struct ips_pkt *p, const struct ips_view *v, uint32_t mtu, uint8_t *scratch,
                  size_t scratch_bytes, uint16_t headroom, ips_packet_fn emit, void *arg);

#endif
