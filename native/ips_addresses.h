/* ips_addresses.h: a number for each address that sessions are mapped to (pool addresses, servers).
 *
 * A session then holds four bytes instead of sixteen. Numbers are of this node only and never leave it.
 * Addresses are added, never removed; looking up takes no lock.
 */
#ifndef IPS_ADDRESSES_H
#define IPS_ADDRESSES_H
#include "ips_chain.h"

struct ips_address { uint64_t hi, lo; uint8_t family; uint8_t reserved[7]; };
struct ips_addresses {
  struct ips_address *list; /* by number */
  uint32_t *slots;          /* open addressing; number + 1 */
  uint32_t n, capacity, mask;
  uint32_t reserved;        /* numbers that ips_addresses_add does not give out */
  uint8_t lock;
};

bool ips_addresses_init(struct ips_addresses *a, uint32_t capacity);
void ips_addresses_close(struct ips_addresses *a);
size_t ips_addresses_bytes(const struct ips_addresses *a);
/* address: 16 bytes, of IPv4 the first four and zeros. NONE: not there; of _add: no room. */
uint32_t ips_addresses_find(const struct ips_addresses *a, unsigned family, const uint8_t *address);
uint32_t ips_addresses_add(struct ips_addresses *a, unsigned family, const uint8_t *address);
/* The next n new addresses have numbers for certain, if they are added here. false: there are not so many, nothing is
 * reserved. 0: what is left of it is anybody's again. One thread. */
bool ips_addresses_reserve(struct ips_addresses *a, uint32_t n);
uint32_t ips_addresses_add_reserved(struct ips_addresses *a, unsigned family, const uint8_t *address);

static inline void ips_address_copy(const struct ips_addresses *a, uint32_t number, uint8_t *out) {
  memcpy(out, &a->list[number].hi, 8);
  memcpy(out + 8, &a->list[number].lo, 8);
}
#endif
