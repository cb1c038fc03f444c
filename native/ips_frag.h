/* ips_frag.h: which ports belong to a fragment (one bounded table for all workers).
 *
 * Only a datagram's first fragment bears its ports. Whoever needs them calls ips_frag_ports;
 * for a first fragment it then says, by ips_frag_learn, what the rest of the datagram shall be told.
 * Later fragments that came early are copied and come back out of ips_frag_learn. A bucket has a
 * one-byte lock that is never held during emit. Time is a parameter; a datagram lives two seconds;
 * all memory is taken by ips_frag_new; full means a counted refusal.
 *
 * RFC 791 3.2, RFC 8200 4.5 (key: addresses, id, protocol; for IPv6 without the protocol, which may
 * differ between fragments there), RFC 1858, RFC 5722.
 */
#ifndef IPS_FRAG_H
#define IPS_FRAG_H
#include "ips_core.h"
#include "ips_gro.h"

enum { IPS_FRAG_EARLY = 4, IPS_FRAG_HEADROOM = 128 };
#define IPS_FRAG_LIFE_NS (2ull * 1000000000ull)

struct ips_frag_table;

/* datagrams: capacity, rounded up to a power of two >= 16; as entries lie in buckets of 16, refusals
 * begin at about half of it. held: early fragments in all, 1 .. 2^24 - 1, of at most held_bytes each (IP
 * header included, 68 .. 65,535). seed: any secret random number, so that nobody can aim at one bucket. NULL:
 * out of memory or range. */
struct ips_frag_table *ips_frag_new(uint32_t datagrams, uint32_t held, uint32_t held_bytes, uint64_t seed);
void ips_frag_free(struct ips_frag_table *t);

/* OK: *flow holds the datagram's ports (of ICMP echo the identifier in both, 0 for protocols without) and
 * for a later fragment the value given to ips_frag_learn. HELD: copied into the table. Also for packets that
 * are no fragment (value 0). Verdicts: SHORT_FIRST_FRAGMENT, SHORT_L4, FRAGMENTS_FULL. */
int ips_frag_ports(struct ips_frag_table *t, const struct ips_pkt *p, const struct ips_view *v,
                   uint64_t now_ns, struct ips_frag_flow *flow);
/* For the first fragment p: remembers *flow for two seconds, then emits the early fragments (the first
 * fragment itself stays with the caller). A repeated first fragment: OK and *flow gets what was remembered;
 * one with other ports: BAD_FRAGMENT. FRAGMENTS_FULL: not remembered. */
int ips_frag_learn(struct ips_frag_table *t, const struct ips_pkt *p, const struct ips_view *v,
                   uint64_t now_ns, struct ips_frag_flow *flow, ips_packet_fn emit, void *arg);
/* Looks through the next `buckets` buckets for what has expired; returns the number of early fragments that
 * it dropped (verdict FRAGMENT_LATE). Look-ups drop them from their own bucket too: the sum is stats.late. */
uint32_t ips_frag_expire(struct ips_frag_table *t, uint64_t now_ns, uint32_t buckets);
void ips_frag_stats(const struct ips_frag_table *t, struct ips_frag_stats *out);
#endif
