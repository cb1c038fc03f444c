/* ips_napt.h: port-translating NAT inside: from a packet's ends to a decision, from a decision to bytes.
 *
 * A packet passes: parse -> ends (ports, for fragments from the fragment table) -> decide (session, mapping:
 * what the ends become) -> write. Errors go another way: the packet that they quote decides.
 */
#ifndef IPS_NAPT_H
#define IPS_NAPT_H
#include "ips_napt_api.h"
#include "ips_parse.h"
#include "ips_session_table.h"

enum { IPS_NAPT_POOLS = 64, IPS_NAPT_INSIDES = 256, IPS_NAPT_WORKERS = 64 };

struct ips_napt_group {
  uint16_t realm;
  uint8_t family;
  uint32_t first, n;
}; /* ranges[first ..] of one realm, family */
struct ips_napt_inside { uint64_t hi, lo, mask_hi, mask_lo; uint8_t family, prefix_len; uint32_t group; };

struct ips_napt {
  struct ips_sessions *sessions;
  struct ips_frag_table *frags;
  uint64_t seed;
  uint8_t filtering;
  uint32_t n_ranges, n_groups, n_insides, n_plans;
  struct ips_pool_range *ranges; /* numbers in a row; an address that was known before ends a row */
  uint8_t *is_pool;              /* by number of an address */
  struct ips_napt_group groups[IPS_NAPT_POOLS];
  struct ips_napt_pool_rec plans[IPS_NAPT_POOLS]; /* the deterministic ones */
  struct ips_napt_inside insides[IPS_NAPT_INSIDES]; /* the longest prefix first */
  struct { ips_emit_fn fn; void *arg; } emit[IPS_NAPT_WORKERS];
};

/* Who sends a packet and who gets it. ICMP echo: the identifier in both ports. */
struct ips_ends {
  uint8_t src[16], dst[16];
  uint16_t src_port, dst_port;
  uint8_t family, proto;
};
/* What they become. */
struct ips_turn {
  bool src, dst;
  uint8_t src_address[16], dst_address[16];
  uint16_t src_port, dst_port;
};
/* What else is to be known of a packet. */
struct ips_carried { uint8_t tcp_flags; bool opens, asks; uint32_t bytes, worker; uint64_t now_ns; };
/* asks: nothing is opened or touched; a packet from inside that would open a flow: this, for a verdict. */
enum { IPS_NAPT_WOULD_OPEN = -1 };

/* The group whose inside the address is in; NULL: none. */
const struct ips_napt_group *ips_napt_group(const struct ips_napt *n, unsigned family,
                                            const uint8_t *address);
/* What a mapping of that source may be taken from: *n_ranges of them, or `own`, filled here. */
const struct ips_pool_range *ips_napt_ranges(const struct ips_napt *n, const struct ips_napt_group *g,
                                             const struct ips_flow *f, struct ips_pool_range *own,
                                             uint32_t *n_ranges);
/* The number of a pool address; NONE: it is none. */
uint32_t ips_napt_number(const struct ips_napt *n, unsigned family, const uint8_t *address);

/* ---- ips_napt_flow.c ---- */
int ips_napt_decide_out(struct ips_napt *n, const struct ips_ends *e, const struct ips_napt_group *g,
                        const struct ips_carried *c, struct ips_turn *turn);
/* number: of e->dst. */
int ips_napt_decide_in(struct ips_napt *n, const struct ips_ends *e, uint32_t number,
                       const struct ips_carried *c, struct ips_turn *turn);
/* The flow of the mapping at (number, e->dst_port), towards e->src. False: no mapping. */
bool ips_napt_flow_in(const struct ips_napt *n, const struct ips_ends *e, uint32_t number,
                      struct ips_flow *flow);

/* ---- ips_napt_packet.c ---- */
/* What would become of this packet now: translated, or why not; nothing is opened, touched, held or sent.
 * Limits and free ports are not asked for. */
int ips_napt_ask(struct ips_napt *n, struct ips_pkt *p, bool is_outer, uint64_t now_ns);

/* ---- ips_napt_write.c ---- */
void ips_napt_write(struct ips_pkt *p, const struct ips_view *v, const struct ips_turn *turn);
/* Where a protocol keeps its checksum, 0: none that is known; *zero: 0 says "none"; *pseudo: addresses are
 * in it. */
unsigned ips_napt_sum_at(unsigned family, unsigned proto, bool *zero, bool *pseudo);

/* ---- ips_napt_error.c ---- */
int ips_napt_error_out(struct ips_napt *n, struct ips_pkt *p, const struct ips_view *v);
int ips_napt_error_in(struct ips_napt *n, struct ips_pkt *p, const struct ips_view *v, uint32_t number);

static inline void ips_copy_address(uint8_t *to, unsigned family, const uint8_t *from) {
  memset(to, 0, 16);
  memcpy(to, from, family == 4 ? 4 : 16);
}
#endif
