/* ips_addresses.c: numbers of addresses (contract in ips_addresses.h). A slot is written last, by a release
 * store: who sees a number sees its address.
 */
#include "ips_addresses.h"
#include <stdlib.h>

bool ips_addresses_init(struct ips_addresses *a, uint32_t capacity) {
  uint32_t slots = 2;
  while (slots < 2 * capacity) slots *= 2;
  *a = (struct ips_addresses){.capacity = capacity, .mask = slots - 1};
  a->list = calloc(capacity, sizeof *a->list);
  a->slots = calloc(slots, sizeof *a->slots);
  return a->list && a->slots;
}

void ips_addresses_close(struct ips_addresses *a) {
  free(a->list);
  free(a->slots);
}

size_t ips_addresses_bytes(const struct ips_addresses *a) {
  return a->capacity * sizeof *a->list + (a->mask + 1ul) * sizeof *a->slots;
}

static struct ips_address of(unsigned family, const uint8_t *address) {
  return (struct ips_address){ips_ld64(address), ips_ld64(address + 8), (uint8_t)family, {0}};
}
static uint32_t first_slot(const struct ips_addresses *a, const struct ips_address *x) {
  return (uint32_t)ips_mix(ips_mix(x->family, x->hi), x->lo) & a->mask;
}

/* The slot that has it, or a free one. */
static uint32_t *slot_of(const struct ips_addresses *a, const struct ips_address *x) {
  for (uint32_t i = first_slot(a, x);; i = (i + 1) & a->mask) {
    uint32_t number = ips_get(a->slots[i]);
    if (!number) return &a->slots[i];
    const struct ips_address *y = &a->list[number - 1];
    if (y->hi == x->hi && y->lo == x->lo && y->family == x->family) return &a->slots[i];
  }
}

uint32_t ips_addresses_find(const struct ips_addresses *a, unsigned family, const uint8_t *address) {
  struct ips_address x = of(family, address);
  return ips_get(*slot_of(a, &x)) - 1;
}

static void lock(struct ips_addresses *a) {
  while (__atomic_exchange_n(&a->lock, 1, __ATOMIC_ACQUIRE)) ips_relax();
}
static void unlock(struct ips_addresses *a) { __atomic_store_n(&a->lock, 0, __ATOMIC_RELEASE); }

bool ips_addresses_reserve(struct ips_addresses *a, uint32_t n) {
  lock(a);
  bool fits = n <= a->capacity - a->n;
  a->reserved = fits ? n : 0;
  unlock(a);
  return fits;
}

static uint32_t add(struct ips_addresses *a, unsigned family, const uint8_t *address, bool is_reserved) {
  struct ips_address x = of(family, address);
  lock(a);
  uint32_t *slot = slot_of(a, &x), number = ips_peek(*slot) - 1;
  bool has_room = is_reserved ? a->reserved > 0 : a->capacity - a->n > a->reserved;
  if (number == IPS_NONE && has_room) {
    number = a->n;
    a->list[number] = x;
    ips_put(a->n, number + 1);
    ips_put(*slot, number + 1);
    if (is_reserved) a->reserved--;
  }
  unlock(a);
  return number;
}

uint32_t ips_addresses_add(struct ips_addresses *a, unsigned family, const uint8_t *address) {
  return add(a, family, address, false);
}
uint32_t ips_addresses_add_reserved(struct ips_addresses *a, unsigned family, const uint8_t *address) {
  return add(a, family, address, true);
}
