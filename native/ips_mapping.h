/* ips_mapping.h: endpoint-independent mappings (RFC 4787 REQ-1): inside address and port <-> public
 * address and port, of one protocol, in one realm.
 *
 * An object of its own, counted by its sessions: the first one makes it and takes the port, the last one
 * gives the port back, in that instant. From outside it is found without a lock. A mapping without
 * translatable ports has port 0 on both sides. Lock order: inside chain, then outside chain.
 */
#ifndef IPS_MAPPING_H
#define IPS_MAPPING_H
#include "ips_addresses.h"
#include "ips_flow_api.h"
#include "ips_ports.h"

struct ips_inner {      /* the key from inside */
  uint64_t address[2];
  uint64_t rest;        /* port, realm << 16, family << 32, protocol << 40 */
};
struct ips_outer_end {  /* what it is mapped to */
  uint32_t number;      /* of the address */
  uint16_t port;
  bool is_new;          /* of ips_mapping_take: made by this call */
};
struct ips_mapping {
  struct ips_inner inner; /* the upper 16 bits of `rest`: the public port */
  uint32_t number, refs, next_in, next_out;
};
_Static_assert(sizeof(struct ips_mapping) == 40, "a mapping is 40 bytes");

struct ips_mappings {
  struct ips_mapping *nodes;
  struct ips_chain *in, *out;
  uint32_t mask, capacity;
  uint64_t seed;
  struct ips_stacks free;
  struct ips_addresses *addresses;
  struct ips_port_set **ports; /* by address number; NULL: no pool's */
  uint32_t used;
};

/* What a search for a public port needs to know of its pool: numbers first .. first + n - 1. */
struct ips_pool_range {
  uint32_t first, n;
  uint16_t first_port, last_port; /* 0, 0: what each address gives out */
};

bool ips_mappings_init(struct ips_mappings *m, uint32_t capacity, uint64_t seed, struct ips_addresses *a);
void ips_mappings_close(struct ips_mappings *m);
size_t ips_mappings_bytes(const struct ips_mappings *m);

static inline struct ips_inner ips_inner_of(const struct ips_flow *f) {
  uint64_t port = ips_port_class(f->proto) < 0 ? 0 : f->src_port;
  return (struct ips_inner){{ips_ld64(f->src), ips_ld64(f->src + 8)},
                            port | (uint64_t)f->realm << 16 | (uint64_t)f->family << 32 |
                              (uint64_t)f->proto << 40};
}

/* One more session uses the mapping of `inner`; makes it, in one of the ranges, if it is new. OK with *out,
 * PORTS_EXHAUSTED, SESSIONS_FULL (no mapping left). */
int ips_mapping_take(struct ips_mappings *m, uint32_t worker, const struct ips_inner *inner,
                     const struct ips_pool_range *ranges, uint32_t n_ranges, uint64_t random,
                     struct ips_outer_end *out);
/* The same with this public end. False: it is another's, or `inner` has another, or no mapping is left; then
 * *owner is who has the public port (rest 0: nobody), and *had is what `inner` has. */
bool ips_mapping_claim(struct ips_mappings *m, uint32_t worker, const struct ips_inner *inner,
                       struct ips_outer_end want, struct ips_inner *owner, struct ips_outer_end *had);
/* True: that was the last one that used it; it is gone. */
bool ips_mapping_give(struct ips_mappings *m, uint32_t worker, const struct ips_inner *inner);
/* False: none. proto: of the packet. */
bool ips_mapping_from_outside(const struct ips_mappings *m, struct ips_outer_end end, unsigned proto,
                              struct ips_inner *out);
#endif
