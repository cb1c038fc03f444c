/* ips_mapping.c: mappings of inside endpoints to public ones (contract in ips_mapping.h).
 *
 * Whoever holds a port's bit is the only one who may put that public end into the outside chains: so two
 * workers can never map two inside endpoints to one port. The bit is given back after the end has left them.
 */
#include "ips_mapping.h"
#include <stddef.h>

#define KEY_BITS 0xffffffffffffull /* of `rest`; above: the public port */

static uint16_t port_of(uint64_t rest) { return (uint16_t)(rest >> 48); }
static unsigned proto_of(uint64_t rest) { return rest >> 40 & 255; }

static uint64_t hash_in(const struct ips_mappings *m, const struct ips_inner *k) {
  return ips_mix(ips_mix(ips_mix(m->seed, k->address[0]), k->address[1]), k->rest & KEY_BITS);
}
static struct ips_chain *chain_in(const struct ips_mappings *m, const struct ips_inner *k) {
  return &m->in[hash_in(m, k) & m->mask];
}
static struct ips_chain *chain_out(const struct ips_mappings *m, struct ips_outer_end e, unsigned proto) {
  return &m->out[ips_mix(m->seed, (uint64_t)e.number << 32 | e.port | (uint64_t)proto << 16) & m->mask];
}

bool ips_mappings_init(struct ips_mappings *m, uint32_t capacity, uint64_t seed, struct ips_addresses *a) {
  uint32_t chains = 1;
  while (chains <= capacity / 4) chains *= 2;
  *m = (struct ips_mappings){.mask = chains - 1, .capacity = capacity, .seed = seed, .addresses = a};
  m->nodes = ips_memory_new(capacity * sizeof *m->nodes);
  m->in = ips_memory_new(chains * sizeof *m->in);
  m->out = ips_memory_new(chains * sizeof *m->out);
  m->ports = ips_memory_new(a->capacity * sizeof *m->ports);
  if (!m->nodes || !m->in || !m->out || !m->ports) return false;
  ips_stacks_init(&m->free, m->nodes, capacity, sizeof *m->nodes, offsetof(struct ips_mapping, next_in));
  for (uint32_t i = 0; i < chains; i++) m->in[i].head = m->out[i].head = IPS_NONE;
  return true;
}

void ips_mappings_close(struct ips_mappings *m) {
  size_t chains = (m->mask + 1ul) * sizeof *m->in;
  ips_memory_free(m->nodes, m->capacity * sizeof *m->nodes);
  ips_memory_free(m->in, chains);
  ips_memory_free(m->out, chains);
  for (uint32_t i = 0; m->ports && i < m->addresses->n; i++)
    ips_memory_free(m->ports[i], sizeof **m->ports);
  ips_memory_free(m->ports, m->addresses->capacity * sizeof *m->ports);
}

size_t ips_mappings_bytes(const struct ips_mappings *m) {
  size_t bytes = m->capacity * sizeof *m->nodes + 2 * (m->mask + 1ul) * sizeof *m->in +
                 m->addresses->capacity * sizeof *m->ports;
  for (uint32_t i = 0; i < m->addresses->n; i++) bytes += m->ports[i] ? sizeof **m->ports : 0;
  return bytes;
}

/* ---- chains; theirs is locked ---- */

static uint32_t find_in(const struct ips_mappings *m, const struct ips_chain *c, const struct ips_inner *k) {
  for (uint32_t i = ips_peek(c->head); i != IPS_NONE; i = ips_peek(m->nodes[i].next_in)) {
    const struct ips_inner *x = &m->nodes[i].inner;
    if (x->address[0] == k->address[0] && x->address[1] == k->address[1] &&
        !((x->rest ^ k->rest) & KEY_BITS))
      return i;
  }
  return IPS_NONE;
}

/* Takes node i out of a chain, whose links are `link` bytes into a node. */
static void unlink_node(struct ips_mappings *m, struct ips_chain *c, uint32_t i, size_t link) {
  uint32_t *at = &c->head;
  while (ips_peek(*at) != i) at = (uint32_t *)(void *)((uint8_t *)&m->nodes[ips_peek(*at)] + link);
  ips_put(*at, ips_peek(*(uint32_t *)(void *)((uint8_t *)&m->nodes[i] + link)));
}

static struct ips_outer_end end_of(const struct ips_mapping *x) {
  return (struct ips_outer_end){.number = ips_peek(x->number), .port = port_of(ips_peek(x->inner.rest))};
}

/* ---- taking ---- */

/* Paired pooling (RFC 4787 REQ-2): where an inside address begins to search does not depend on anything
 * else, so it stays at one public address while that has ports; without a secret, so that both nodes of a
 * pair agree. */
static uint32_t preferred(const struct ips_inner *k, uint32_t n) {
  uint64_t h = ips_mix(ips_mix(k->rest >> 16 & 0xffff, k->address[0]), k->address[1]);
  return (uint32_t)((h >> 32) * n >> 32);
}

static bool search(struct ips_mappings *m, const struct ips_inner *k, const struct ips_pool_range *ranges,
                   uint32_t n_ranges, uint64_t random, struct ips_outer_end *out) {
  uint32_t total = 0, proto = proto_of(k->rest);
  for (uint32_t r = 0; r < n_ranges; r++) total += ranges[r].n;
  uint32_t start = total ? preferred(k, total) : 0;
  for (uint32_t i = 0; i < total; i++) {
    uint32_t at = (start + i) % total, r = 0;
    while (at >= ranges[r].n) at -= ranges[r++].n;
    const struct ips_pool_range *range = &ranges[r];
    uint32_t number = range->first + at;
    uint32_t port = ips_ports_take(m->ports[number], proto, range->first_port, range->last_port, random);
    if (!port) continue;
    *out = (struct ips_outer_end){.number = number, .port = ips_port_class(proto) < 0 ? 0 : (uint16_t)port};
    return true;
  }
  return false;
}

/* Both chains get node i; that of `in` is locked, and the port's bit is ours. */
static void insert(struct ips_mappings *m, struct ips_chain *in, uint32_t i, const struct ips_inner *k,
                   struct ips_outer_end end) {
  struct ips_mapping *x = &m->nodes[i];
  struct ips_chain *out = chain_out(m, end, proto_of(k->rest));
  ips_chain_lock(out);
  ips_put(x->inner.address[0], k->address[0]);
  ips_put(x->inner.address[1], k->address[1]);
  ips_put(x->inner.rest, (k->rest & KEY_BITS) | (uint64_t)end.port << 48);
  ips_put(x->number, end.number);
  ips_put(x->refs, 1);
  ips_put(x->next_in, ips_peek(in->head));
  ips_put(in->head, i);
  ips_put(x->next_out, ips_peek(out->head));
  ips_put(out->head, i);
  ips_chain_unlock(out);
  ips_add(m->used, 1);
}

int ips_mapping_take(struct ips_mappings *m, uint32_t worker, const struct ips_inner *k,
                     const struct ips_pool_range *ranges, uint32_t n_ranges, uint64_t random,
                     struct ips_outer_end *out) {
  struct ips_chain *in = chain_in(m, k);
  int verdict = IPS_OK;
  ips_chain_lock(in);
  uint32_t i = find_in(m, in, k);
  if (i != IPS_NONE) {
    ips_add(m->nodes[i].refs, 1);
    *out = end_of(&m->nodes[i]);
  } else if ((i = ips_stacks_pop(&m->free, worker)) == IPS_NONE) {
    verdict = IPS_SESSIONS_FULL;
  } else if (!search(m, k, ranges, n_ranges, random, out)) {
    ips_stacks_push(&m->free, worker, i);
    verdict = IPS_PORTS_EXHAUSTED;
  } else {
    insert(m, in, i, k, *out);
    out->is_new = true;
  }
  ips_chain_unlock(in);
  return verdict;
}

bool ips_mapping_claim(struct ips_mappings *m, uint32_t worker, const struct ips_inner *k,
                       struct ips_outer_end want, struct ips_inner *owner, struct ips_outer_end *had) {
  struct ips_chain *in = chain_in(m, k);
  struct ips_port_set *ports = m->ports[want.number];
  unsigned proto = proto_of(k->rest);
  bool claimed = false;
  *owner = (struct ips_inner){.rest = 0};
  *had = (struct ips_outer_end){.number = IPS_NONE};
  ips_chain_lock(in);
  uint32_t i = find_in(m, in, k);
  if (i != IPS_NONE) {
    *had = end_of(&m->nodes[i]);
    claimed = had->number == want.number && had->port == want.port;
    if (claimed) ips_add(m->nodes[i].refs, 1);
  } else if ((i = ips_stacks_pop(&m->free, worker)) != IPS_NONE) {
    claimed = ips_ports_claim(ports, proto, want.port);
    if (claimed) insert(m, in, i, k, want);
    else ips_stacks_push(&m->free, worker, i);
  }
  ips_chain_unlock(in);
  if (!claimed && (!ips_mapping_from_outside(m, want, proto, owner) ||
                   (!memcmp(owner->address, k->address, sizeof k->address) && owner->rest == k->rest)))
    owner->rest = 0;
  return claimed;
}

bool ips_mapping_give(struct ips_mappings *m, uint32_t worker, const struct ips_inner *k) {
  struct ips_chain *in = chain_in(m, k);
  ips_chain_lock(in);
  uint32_t i = find_in(m, in, k);
  if (i == IPS_NONE || __atomic_sub_fetch(&m->nodes[i].refs, 1, __ATOMIC_ACQ_REL)) {
    ips_chain_unlock(in);
    return false;
  }
  struct ips_outer_end end = end_of(&m->nodes[i]);
  struct ips_chain *out = chain_out(m, end, proto_of(k->rest));
  ips_chain_lock(out);
  unlink_node(m, out, i, offsetof(struct ips_mapping, next_out));
  ips_chain_unlock(out);
  unlink_node(m, in, i, offsetof(struct ips_mapping, next_in));
  ips_ports_give(m->ports[end.number], proto_of(k->rest), end.port);
  ips_stacks_push(&m->free, worker, i);
  ips_add(m->used, -1);
  ips_chain_unlock(in);
  return true;
}

bool ips_mapping_from_outside(const struct ips_mappings *m, struct ips_outer_end end, unsigned proto,
                              struct ips_inner *out) {
  if (ips_port_class(proto) < 0) end.port = 0;
  const struct ips_chain *c = chain_out(m, end, proto);
  for (;;) {
    uint32_t seq = ips_chain_begin(c), steps = 0, i = ips_get(c->head);
    bool found = false;
    for (; i != IPS_NONE && !found; i = ips_get(m->nodes[i].next_out)) {
      if (++steps % IPS_CHAIN_STEPS == 0 && !ips_chain_is_still(c, seq)) break;
      const struct ips_mapping *x = &m->nodes[i];
      uint64_t rest = ips_get(x->inner.rest);
      found = ips_get(x->number) == end.number && port_of(rest) == end.port && proto_of(rest) == proto;
      if (found)
        *out =
            (struct ips_inner){{ips_get(x->inner.address[0]), ips_get(x->inner.address[1])}, rest & KEY_BITS};
    }
    if (ips_chain_is_still(c, seq)) return found;
  }
}
