/* ips_blocks.c: deterministic ports (RFC 7422): subscriber number <-> block number, arithmetic and nothing else.
 *
 * Subscribers are numbered from the beginning of the inside prefix, blocks from the first port of the first
 * address on; what is left of an address's ports and is no whole block is given to nobody. Numbers of
 * addresses: IPv4 in the upper 32 of 128 bits, so that both families are one case.
 */
#include "ips_core.h"
#include "ips_napt_api.h"

typedef unsigned __int128 number;

static number load(const uint8_t *address) {
  return (number)ips_be64(ips_ld64(address)) << 64 | ips_be64(ips_ld64(address + 8));
}
static void store(uint8_t *address, number x) {
  for (unsigned i = 0; i < 16; i++) address[i] = (uint8_t)(x >> (120 - 8 * i));
}

/* Blocks of one address; 0: the record makes no sense. */
static uint32_t blocks(const struct ips_napt_pool_rec *r, uint32_t *first) {
  unsigned width = r->family == 4 ? 32 : 128, last = r->first_port | r->last_port ? r->last_port : 65535;
  *first = r->first_port | r->last_port ? r->first_port : 1024;
  if ((r->family != 4 && r->family != 6) || !r->block || !*first || *first > last || !r->inside_len ||
      r->inside_len > r->unit_len || r->unit_len > width || r->unit_len - r->inside_len > 24)
    return 0;
  uint32_t each = (last - *first + 1) / r->block;
  return 1ull << (r->unit_len - r->inside_len) <= (uint64_t)each * r->n ? each : 0;
}

static bool is_inside(const struct ips_napt_pool_rec *r, number address) {
  return !((address ^ load(r->inside)) >> (128 - r->inside_len));
}

static void fill(const struct ips_napt_pool_rec *r, uint32_t subscriber, uint32_t each, uint32_t first,
                 struct ips_block *out) {
  number unit = (number)1 << (128 - r->unit_len);
  *out = (struct ips_block){.index = subscriber / each, .family = r->family, .subscriber_len = r->unit_len};
  out->first = (uint16_t)(first + subscriber % each * r->block);
  out->last = (uint16_t)(out->first + r->block - 1);
  number step = (number)1 << (r->family == 4 ? 96 : 0);
  store(out->address, load(r->first) + step * out->index);
  store(out->subscriber, load(r->inside) + unit * subscriber);
}

bool ips_block_of(const struct ips_napt_pool_rec *r, const uint8_t *inside, struct ips_block *out) {
  uint32_t first, each = blocks(r, &first);
  number address = load(inside);
  if (!each || !is_inside(r, address)) return false;
  fill(r, (uint32_t)((address - load(r->inside)) >> (128 - r->unit_len)), each, first, out);
  return true;
}

bool ips_block_at(const struct ips_napt_pool_rec *r, const uint8_t *public_address, uint16_t port,
                  struct ips_block *out) {
  uint32_t first, each = blocks(r, &first);
  number index = (load(public_address) - load(r->first)) >> (r->family == 4 ? 96 : 0);
  if (!each || load(public_address) < load(r->first) || index >= r->n || port < first) return false;
  uint32_t block = (port - first) / r->block;
  uint64_t subscriber = (uint64_t)index * each + block;
  if (block >= each || subscriber >> (r->unit_len - r->inside_len)) return false;
  fill(r, (uint32_t)subscriber, each, first, out);
  return true;
}
