/* ips_maglev.h: tables of consistent hashing (S1.8), after Eisenbud et al., "Maglev", NSDI 2016, section 3.4.
 *
 * A table of prime size names an end point in every slot. Each member takes exactly its
 * share by weight; members take turns spread evenly over the filling, each the next free slot of
 * its own permutation, so that little moves when the set changes. A member is known
 * by its local prefix (a distribution point: by its tunnel address), never by an index, so
 * that machines with different images agree. Where the size is left to the core it depends on the
 * number of members only, in wide steps; a change of size moves most flows.
 */
#ifndef IPS_MAGLEV_H
#define IPS_MAGLEV_H
#include "ips_core.h"
#include "ips_mem.h"

enum { IPS_MAGLEV_MAX = 1 << 24 };

struct ips_maglev_member {
  uint64_t identity;
  uint32_t weight, endpoint;
};
struct ips_maglev { /* shared between generations, and between policies that ask for the same */
  uint32_t refs, size, n;
  uint16_t *table;
  struct ips_maglev_member members[]; /* ordered */
};
bool ips_is_prime(uint32_t n);
uint32_t ips_maglev_size(uint32_t members); /* 65537 up to 109 members, 1048583 up to 1747, then 8388617 */
uint64_t ips_maglev_identity(const struct ips_endpoint_rec *e);
/* Takes out members without a weight and sorts the others by identity; returns how many there are. */
uint32_t ips_maglev_order(struct ips_maglev_member *members, uint32_t n);
/* Of ordered members, at least one; more than 100 * n slots. NULL: no memory. */
struct ips_maglev *ips_maglev_new(struct ips_mem *m, const struct ips_maglev_member *members, uint32_t n,
                                  uint32_t size);
void ips_maglev_drop(struct ips_mem *m, struct ips_maglev *g);
#endif
