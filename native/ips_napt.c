/* ips_napt.c: pools, insides, and the way of a packet through port-translating NAT (contract in
 * ips_napt_api.h). */
#include "ips_napt.h"
#include "ips_frag.h"
#include "ips_icmp.h"
#include "ips_rewrite.h"
#include <stdlib.h>

/* ---- configuration ---- */

static void next_address(unsigned family, uint8_t *address) {
  for (int i = (family == 4 ? 4 : 16) - 1; i >= 0 && ++address[i] == 0; i--) {}
}

/* A configuration is made twice: first without the table's knowledge, to find what is wrong, then, when nothing can be
 * wrong any more, with it. So a refused one takes no number that another could need. */
struct making {
  bool is_real;
  uint32_t tried;              /* addresses */
  struct ips_port_set **sets;  /* for those that have none yet: of the real one */
  uint32_t n_sets, n_new;      /* n_new: addresses without a number */
};

/* The address's number and ports, known from an earlier configuration or new. */
static uint32_t add_address(struct ips_napt *n, struct making *k, unsigned family, const uint8_t *address) {
  struct ips_mappings *m = &n->sessions->mappings;
  struct ips_addresses *all = &n->sessions->addresses;
  if (!k->is_real) {
    uint32_t known = ips_addresses_find(all, family, address);
    k->n_new += known == IPS_NONE;
    k->n_sets += known == IPS_NONE || !m->ports[known];
    return k->tried++;
  }
  uint32_t number = ips_addresses_add_reserved(all, family, address);
  if (!m->ports[number]) ips_put(m->ports[number], k->sets[--k->n_sets]);
  n->is_pool[number] = 1;
  return number;
}

/* A deterministic pool whose subscribers all have a block, and no block in another one of their realm. */
static bool is_plan(const struct ips_napt *n, const struct ips_napt_pool_rec *r) {
  struct ips_block b;
  if (!ips_block_of(r, r->inside, &b) || memcmp(b.subscriber, r->inside, 16)) return false;
  for (const struct ips_napt_pool_rec *p = n->plans; p < n->plans + n->n_plans; p++)
    if (p->realm == r->realm && p->family == r->family &&
        (ips_block_of(p, r->inside, &b) || ips_block_of(r, p->inside, &b)))
      return false;
  return true;
}

static bool add_pool(struct ips_napt *n, struct making *k, const struct ips_napt_pool_rec *r) {
  if (r->block && !is_plan(n, r)) return false;
  struct ips_napt_group *last = n->n_groups ? &n->groups[n->n_groups - 1] : NULL;
  uint8_t address[16];
  memcpy(address, r->first, 16);
  if (!last || last->realm != r->realm || last->family != r->family) {
    last = &n->groups[n->n_groups++];
    *last = (struct ips_napt_group){r->realm, r->family, n->n_ranges, 0};
  }
  for (uint32_t i = 0; i < r->n; i++, next_address(r->family, address)) {
    uint32_t number = add_address(n, k, r->family, address);
    struct ips_pool_range *range = n->ranges + n->n_ranges;
    if (r->block) continue; /* whose ports are whose follows from the record */
    if (i && range[-1].first + range[-1].n == number) {
      range[-1].n++;
      continue;
    }
    *range = (struct ips_pool_range){.first = number, .n = 1};
    n->n_ranges++;
    last->n++;
  }
  if (r->block) n->plans[n->n_plans++] = *r;
  return true;
}

/* Of a pool, as one number. */
static unsigned __int128 first_of(const struct ips_napt_pool_rec *r) {
  if (r->family == 4) return ips_be32(ips_ld32(r->first));
  return (unsigned __int128)ips_be64(ips_ld64(r->first)) << 64 | ips_be64(ips_ld64(r->first + 8));
}

/* No two have an address in common, and none goes round the end. */
static bool are_apart(const struct ips_napt_config *c) {
  for (uint32_t i = 0; i < c->n_pools; i++) {
    const struct ips_napt_pool_rec *r = &c->pools[i];
    unsigned __int128 first = first_of(r), last = first + r->n - 1;
    if (last < first || (r->family == 4 && last > UINT32_MAX)) return false;
    for (uint32_t k = 0; k < i; k++) {
      unsigned __int128 other = first_of(&c->pools[k]);
      if (c->pools[k].family == r->family && other <= last && first <= other + c->pools[k].n - 1) return false;
    }
  }
  return true;
}

static bool is_pool(const struct ips_napt_pool_rec *r) {
  return (r->family == 4 || r->family == 6) && r->n && r->n <= 65536 && (!r->last_port || r->first_port) &&
         r->first_port <= r->last_port && (r->family == 6 || ips_all_zero(r->first + 4, 12));
}

/* From now on ports are given out, and records of a peer are judged, by this configuration. */
static void take_effect(const struct ips_napt *n, const struct ips_napt_config *c) {
  struct ips_mappings *m = &n->sessions->mappings;
  for (uint32_t i = 0; i < ips_get(n->sessions->addresses.n); i++)
    if (m->ports[i] && !n->is_pool[i]) ips_put(m->ports[i]->is_live, 0);
  for (const struct ips_napt_pool_rec *r = c->pools; r < c->pools + c->n_pools; r++) {
    uint8_t address[16];
    memcpy(address, r->first, 16);
    for (uint32_t i = 0; i < r->n; i++, next_address(r->family, address)) {
      struct ips_port_set *s = m->ports[ips_addresses_find(&n->sessions->addresses, r->family, address)];
      ips_put(s->first, r->first_port | r->last_port ? r->first_port : 1024);
      ips_put(s->last, r->first_port | r->last_port ? r->last_port : 65535);
      ips_put(s->realm, r->realm);
      ips_put(s->is_live, 1);
    }
  }
}

/* By realm and family, so that each has its ranges in a row. */
static bool add_pools(struct ips_napt *n, struct making *made, const struct ips_napt_config *c) {
  for (uint32_t i = 0; i < c->n_pools; i++) {
    bool first = true;
    for (uint32_t k = 0; k < i; k++)
      first &= c->pools[k].realm != c->pools[i].realm || c->pools[k].family != c->pools[i].family;
    for (uint32_t k = i; k < c->n_pools && first; k++)
      if (c->pools[k].realm == c->pools[i].realm && c->pools[k].family == c->pools[i].family &&
          !add_pool(n, made, &c->pools[k]))
        return false;
  }
  return true;
}

static struct ips_napt_inside inside_of(const struct ips_napt_inside_rec *r) {
  unsigned bits = r->prefix_len;
  struct ips_napt_inside x = {.family = r->family, .prefix_len = r->prefix_len};
  x.mask_hi = bits >= 64 ? ~0ull : bits ? ~0ull << (64 - bits) : 0;
  x.mask_lo = bits <= 64 ? 0 : ~0ull << (128 - bits);
  x.hi = ips_be64(ips_ld64(r->prefix));
  x.lo = ips_be64(ips_ld64(r->prefix + 8));
  return x;
}

static bool add_inside(struct ips_napt *n, const struct ips_napt_inside_rec *r) {
  if ((r->family != 4 && r->family != 6) || r->prefix_len > (r->family == 4 ? 32 : 128)) return false;
  struct ips_napt_inside x = inside_of(r);
  while (x.group < n->n_groups &&
         (n->groups[x.group].realm != r->realm || n->groups[x.group].family != r->family))
    x.group++;
  if (x.group == n->n_groups || (x.hi & ~x.mask_hi) || (x.lo & ~x.mask_lo)) return false;
  uint32_t at = n->n_insides++;
  for (; at && n->insides[at - 1].prefix_len < x.prefix_len; at--) n->insides[at] = n->insides[at - 1];
  n->insides[at] = x;
  return true;
}

/* Room for the worst: each address a row of its own. */
static bool take_memory(struct ips_napt *n, const struct ips_napt_config *c) {
  uint32_t addresses = 0, room = n->sessions->addresses.capacity;
  for (uint32_t i = 0; i < c->n_pools; i++) {
    if (!is_pool(&c->pools[i]) || c->pools[i].n > room - addresses) return false;
    addresses += c->pools[i].n;
  }
  n->ranges = calloc(addresses + 1, sizeof *n->ranges);
  n->is_pool = calloc(room, 1);
  return n->ranges && n->is_pool;
}

/* Memory for what the real one adds, and numbers. */
static bool reserve(struct ips_napt *n, struct making *k) {
  uint32_t wanted = k->n_sets;
  k->sets = calloc(wanted + 1, sizeof *k->sets);
  for (k->n_sets = 0; k->sets && k->n_sets < wanted; k->n_sets++)
    if (!(k->sets[k->n_sets] = ips_memory_new(sizeof **k->sets))) break;
  return k->sets && k->n_sets == wanted && ips_addresses_reserve(&n->sessions->addresses, k->n_new);
}

static void drop_reserve(struct ips_napt *n, struct making *k) {
  while (k->sets && k->n_sets) ips_memory_free(k->sets[--k->n_sets], sizeof **k->sets);
  free(k->sets);
  ips_addresses_reserve(&n->sessions->addresses, 0);
}

static bool add_all(struct ips_napt *n, struct making *k, const struct ips_napt_config *c) {
  n->n_groups = n->n_ranges = n->n_plans = n->n_insides = 0;
  bool fits = add_pools(n, k, c);
  for (uint32_t i = 0; i < c->n_insides && fits; i++) fits = add_inside(n, &c->insides[i]);
  return fits;
}

struct ips_napt *ips_napt_new(struct ips_sessions *s, struct ips_frag_table *frags,
                              const struct ips_napt_config *c) {
  if (c->n_pools > IPS_NAPT_POOLS || c->n_insides > IPS_NAPT_INSIDES ||
      c->filtering > IPS_FILTER_ADDRESS_AND_PORT)
    return NULL;
  struct ips_napt *n = calloc(1, sizeof *n);
  if (!n) return NULL;
  *n = (struct ips_napt){.sessions = s, .frags = frags, .seed = c->seed, .filtering = c->filtering};
  struct making k = {.is_real = false};
  bool fits = take_memory(n, c) && are_apart(c) && add_all(n, &k, c) && reserve(n, &k);
  if (fits) {
    k.is_real = true;
    add_all(n, &k, c);
    take_effect(n, c);
  }
  drop_reserve(n, &k);
  if (fits) return n;
  ips_napt_free(n);
  return NULL;
}

void ips_napt_free(struct ips_napt *n) { /* its port bitmaps belong to the sessions' mappings */
  if (!n) return;
  free(n->ranges);
  free(n->is_pool);
  free(n);
}

void ips_napt_set_emit(struct ips_napt *n, uint32_t worker, ips_emit_fn emit, void *arg) {
  if (worker >= IPS_NAPT_WORKERS) return;
  n->emit[worker].fn = emit;
  n->emit[worker].arg = arg;
}

const struct ips_napt_group *ips_napt_group(const struct ips_napt *n, unsigned family,
                                            const uint8_t *address) {
  uint64_t hi = (uint64_t)ips_be32(ips_ld32(address)) << 32, lo = 0;
  if (family == 6) {
    hi = ips_be64(ips_ld64(address));
    lo = ips_be64(ips_ld64(address + 8));
  }
  for (const struct ips_napt_inside *x = n->insides; x < n->insides + n->n_insides; x++)
    if (x->family == family && (hi & x->mask_hi) == x->hi && (lo & x->mask_lo) == x->lo)
      return &n->groups[x->group];
  return NULL;
}

const struct ips_pool_range *ips_napt_ranges(const struct ips_napt *n, const struct ips_napt_group *g,
                                             const struct ips_flow *f, struct ips_pool_range *own,
                                             uint32_t *n_ranges) {
  struct ips_block b;
  for (const struct ips_napt_pool_rec *p = n->plans; p < n->plans + n->n_plans; p++) {
    if (p->realm != g->realm || p->family != f->family || !ips_block_of(p, f->src, &b))
      continue;
    *own = (struct ips_pool_range){ips_napt_number(n, f->family, b.address), 1, b.first, b.last};
    *n_ranges = own->first != IPS_NONE;
    return own;
  }
  *n_ranges = g->n;
  return n->ranges + g->first;
}

uint32_t ips_napt_number(const struct ips_napt *n, unsigned family, const uint8_t *address) {
  uint8_t key[16];
  ips_copy_address(key, family, address);
  uint32_t number = ips_addresses_find(&n->sessions->addresses, family, key);
  return number != IPS_NONE && n->is_pool[number] ? number : IPS_NONE;
}

size_t ips_napt_addresses(const struct ips_napt *n, struct ips_napt_address *out, size_t room) {
  const struct ips_sessions *s = n->sessions;
  size_t count = 0;
  for (uint32_t i = 0; i < ips_get(s->addresses.n); i++) {
    if (!n->is_pool[i]) continue;
    const struct ips_port_set *p = s->mappings.ports[i];
    struct ips_napt_address a = {.family = s->addresses.list[i].family, .realm = ips_peek(p->realm)};
    ips_address_copy(&s->addresses, i, a.address);
    a.tcp = ips_peek(p->used[0]);
    a.udp = ips_peek(p->used[1]);
    a.icmp = ips_peek(p->used[2]);
    a.whole = ips_ports_used(p) - a.tcp - a.udp - a.icmp;
    if (count < room) out[count] = a;
    count++;
  }
  return count;
}
