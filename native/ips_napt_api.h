/* ips_napt_api.h: source NAT with pools of public addresses and ports (SYSTEMS.md S3.1, S3.5).
 *
 * A worker calls ips_napt_out for a packet from inside and ips_napt_in for one from outside; the packet is
 * parsed, its session looked up or opened, address, port and every checksum over them changed. A packet is
 * changed only after everything that could refuse it was checked. TTL and path MTU are the host's to check,
 * before: errors about translated packets find their way back by the session they quote. Read by cffi too.
 *
 * RFC 4787 (UDP), RFC 5382 (TCP), RFC 5508 (ICMP), RFC 6888 (pools). SCTP, ESP and other protocols: the
 * address alone is translated (DESIGN.md 3), and one inside host at a time has such a protocol at a public
 * address. AH, active routing headers, ICMP that is neither echo nor error: UNTRANSLATABLE.
 */
#ifndef IPS_NAPT_API_H
#define IPS_NAPT_API_H
#include "ips_session_api.h"

struct ips_napt_pool_rec {   /* public addresses of one realm; a realm may have several records */
  uint8_t first[16];
  uint32_t n;                /* addresses from `first` on, 1 .. 65,536 */
  uint16_t realm;            /* the same number at both nodes of a pair */
  uint8_t family, reserved;
  uint16_t first_port, last_port; /* given out; 0, 0: 1,024 .. 65,535. ICMP identifiers: all but 0 */
  /* Deterministic ports (RFC 7422): block > 0. The subscribers of `inside`, each a prefix of unit_len bits,
   * have the blocks of `block` ports in their order, address by address; nobody else has ports of this pool,
   * and they have no others. ICMP identifiers: the same numbers. */
  uint8_t inside[16];
  uint8_t inside_len, unit_len; /* 1 .. 32 or 128; at most 2^24 subscribers */
  uint16_t block;
};
struct ips_block {
  uint8_t address[16];       /* public */
  uint8_t subscriber[16];    /* first inside address */
  uint32_t index;            /* of the address in its pool */
  uint16_t first, last;      /* ports */
  uint8_t family, subscriber_len, reserved[2];
};
/* Both ways, without any state: the block of an inside address, the block that a public end is in. False: the
 * pool is not deterministic, or it is in none (a port that is left over at the end of an address too). */
bool ips_block_of(const struct ips_napt_pool_rec *pool, const uint8_t *inside, struct ips_block *out);
bool ips_block_at(const struct ips_napt_pool_rec *pool, const uint8_t *address, uint16_t port,
                  struct ips_block *out);
struct ips_napt_inside_rec { /* whose sources are translated; the longest prefix decides */
  uint8_t prefix[16];
  uint8_t family, prefix_len;
  uint16_t realm;
};
enum ips_napt_filtering {
  IPS_FILTER_ENDPOINT_INDEPENDENT = 0, /* whoever knows a mapping may use it (RFC 4787 REQ-8, transparency) */
  IPS_FILTER_ADDRESS_AND_PORT = 1,     /* only whom the inside endpoint has sent to */
};
struct ips_napt_config {
  const struct ips_napt_pool_rec *pools;
  const struct ips_napt_inside_rec *insides;
  uint32_t n_pools, n_insides;         /* at most 64 and 256 */
  uint8_t filtering;                   /* enum ips_napt_filtering */
  uint8_t reserved[7];
  uint64_t seed;                       /* secret random number */
};

struct ips_napt;
/* frags: the table that tells later fragments their ports; NULL: fragments are refused (FRAGMENTS_FULL).
 * NULL: no memory, a number out of range, pools that overlap, more addresses than the table can number. A
 * second one of the same sessions replaces the first, which translates on until no worker uses it and it is
 * freed; then ips_sessions_prune ends the sessions of addresses that are in no pool any more. Free it before
 * its sessions.
 */
struct ips_napt *ips_napt_new(struct ips_sessions *s, struct ips_frag_table *frags,
                              const struct ips_napt_config *c);
void ips_napt_free(struct ips_napt *n);
/* Where translated fragments go that had to wait for their first one (verdict HELD); they are emitted, as
 * IPS_EMIT_PACKET, during the call that brings the first one. Before the worker starts; workers 0 .. 63. */
void ips_napt_set_emit(struct ips_napt *n, uint32_t worker, ips_emit_fn emit, void *arg);

/* From inside. OK; HAIRPINNED (destination translated too: deliver it inside); NO_BINDING: its source is of
 * no inside prefix; refusals: NO_SESSION (mid-stream segment of nothing known), SESSIONS_FULL,
 * HALF_OPEN_FULL, SOURCE_LIMIT, PORTS_EXHAUSTED, UNTRANSLATABLE, BAD_QUOTE, FILTERED (hairpin), and those of
 * parser and fragments. */
int ips_napt_out(struct ips_napt *n, struct ips_pkt *p, uint32_t worker, uint64_t now_ns);
/* From outside. NO_BINDING: its destination is no pool address. NO_SESSION: no mapping; FILTERED: mapping,
 * but not for this sender. */
int ips_napt_in(struct ips_napt *n, struct ips_pkt *p, uint32_t worker, uint64_t now_ns);

struct ips_napt_address { /* one public address */
  uint8_t address[16];
  uint8_t family, reserved;
  uint16_t realm;
  uint32_t tcp, udp, icmp, whole; /* ports in use; protocols in use that have none */
};
/* Writes at most `room`; returns how many there are. */
size_t ips_napt_addresses(const struct ips_napt *n, struct ips_napt_address *out, size_t room);

/* From the next packet on the worker follows tracked bindings in s, and translates with n, from either side,
 * what no binding is for. NULL: it does not. */
void ips_worker_set_flows(struct ips_worker *w, struct ips_sessions *s, struct ips_napt *n);

/* Processor nanoseconds of `rounds` passes over n UDP packets from inside, which are copied each time;
 * copy_only: of the copying alone. Packets as ips_bench_packets takes them. 0: out of memory or a size out
 * of range. */
uint64_t ips_bench_napt(struct ips_napt *n, const uint8_t *packets, uint32_t stride, const uint16_t *lengths,
                        uint32_t count, uint32_t rounds, int copy_only, uint64_t now_ns);

#endif
