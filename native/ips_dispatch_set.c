/* ips_dispatch_set.c: a constant set of clusters (contract in ips_dispatch_api.h): made once, searched by all.
 *
 * New connections: a Maglev table for each cluster (ips_maglev.h) over the weights of the servers that take some, by
 * identities that the servers' addresses spell, so that nodes with other numbers for them agree.
 */
#include "ips_dispatch.h"
#include <stdlib.h>
#include <string.h>

#define SEED 0x69707368436c7573ull /* one for all nodes: they have to agree */

static uint32_t cell_of(unsigned family, const uint8_t *address) {
  uint64_t h = ips_mix(ips_mix(family, ips_ld64(address)), ips_ld64(address + 8));
  return (uint32_t)(h ^ h >> 17) % IPS_CLUSTER_CELLS;
}

static bool is_cluster(const struct ips_cluster *c, unsigned family, uint64_t hi, uint64_t lo) {
  return ((ips_ld64(c->address) ^ hi) | (ips_ld64(c->address + 8) ^ lo)) == 0 && c->family == family;
}

/* address: as long as its family's. */
const struct ips_cluster *ips_cluster_find(const struct ips_clusters *s, unsigned family, const uint8_t *address) {
  uint8_t key[16] = {0};
  memcpy(key, address, family == 4 ? 4 : 16);
  uint64_t hi = ips_ld64(key), lo = ips_ld64(key + 8);
  for (uint32_t i = cell_of(family, key); s->cells[i]; i = (i + 1) % IPS_CLUSTER_CELLS)
    if (is_cluster(&s->at[s->cells[i] - 1], family, hi, lo)) return &s->at[s->cells[i] - 1];
  return NULL;
}

const struct ips_server *ips_cluster_server(const struct ips_clusters *s, const struct ips_cluster *c,
                                            uint32_t number) {
  for (uint32_t i = c->first; i < c->first + c->n; i++)
    if (s->servers[i].number == number) return &s->servers[i];
  return NULL;
}

const struct ips_server *ips_cluster_choose(const struct ips_clusters *s, const struct ips_cluster *c,
                                            const struct ips_flow *f) {
  if (ips_unlikely(!c->table)) return NULL;
  uint64_t seed = ips_mix(SEED, (uint64_t)f->src_port << 24 | (uint64_t)f->dst_port << 8 | f->proto);
  uint64_t h = ips_flow_hash(seed, f->family, ips_be64(ips_ld64(f->src)), ips_be64(ips_ld64(f->src + 8)),
                             ips_be64(ips_ld64(f->dst)), ips_be64(ips_ld64(f->dst + 8)));
  return &s->servers[c->first + c->table->table[ips_hi((ips_u128)h * c->table->size)]];
}

/* ---- making one ---- */

static bool is_address(unsigned family, const uint8_t *address) {
  return (family == 4 || family == 6) && !ips_is_zero(address) && (family == 6 || ips_all_zero(address + 4, 12));
}

static uint64_t identity(const struct ips_server_rec *r) {
  return ips_fold(ips_be64(ips_ld64(r->address)) ^ 0x3c79ac492ba7b653u,
                  ips_be64(ips_ld64(r->address + 8)) ^ 0x1c69b3f74ac4ae35u);
}

/* False: no memory. */
static bool fill_table(struct ips_clusters *s, struct ips_cluster *c) {
  struct ips_maglev_member members[IPS_SERVERS];
  for (uint32_t i = 0; i < c->n; i++) {
    const struct ips_server *server = &s->servers[c->first + i];
    uint32_t weight = ips_server_takes(server) ? server->r.weight : 0;
    members[i] = (struct ips_maglev_member){identity(&server->r), weight, i};
  }
  uint32_t n = ips_maglev_order(members, c->n);
  if (!n) return true;
  c->table = ips_maglev_new(&s->mem, members, n, ips_maglev_size(n));
  return c->table != NULL;
}

static const char *add_servers(struct ips_clusters *s, const struct ips_cluster_rec *r, const struct ips_server_rec *servers) {
  for (uint32_t i = r->first_server; i < r->first_server + r->n_servers; i++) {
    const struct ips_server_rec *server = &servers[i];
    if (!is_address(r->family, server->address)) return "a server needs an address of its cluster's family";
    if (server->state < IPS_SERVER_UP || server->state > IPS_SERVER_FAILED) return "unknown state of a server";
    if (!memcmp(server->address, r->address, 16)) return "a server needs an address of its own, beside the cluster's";
    for (uint32_t k = r->first_server; k < i; k++)
      if (!memcmp(servers[k].address, server->address, 16)) return "a server is twice in a cluster";
    uint32_t number = ips_addresses_add(&s->sessions->addresses, r->family, server->address);
    if (number == IPS_NONE) return "the session table has no room for another server's address";
    s->servers[i] = (struct ips_server){*server, number};
  }
  return NULL;
}

static const char *add_cluster(struct ips_clusters *s, const struct ips_cluster_rec *r, const struct ips_server_rec *servers) {
  struct ips_cluster *c = &s->at[s->n];
  if (!is_address(r->family, r->address)) return "a cluster needs an address";
  if (ips_cluster_find(s, r->family, r->address)) return "an address is of two clusters";
  if (!r->n_servers || r->n_servers > s->n_servers || r->first_server > s->n_servers - r->n_servers)
    return "a cluster needs servers that are there";
  const char *fault = add_servers(s, r, servers);
  if (fault) return fault;
  *c = (struct ips_cluster){.first = r->first_server, .n = r->n_servers, .family = r->family};
  memcpy(c->address, r->address, sizeof c->address);
  if (!fill_table(s, c)) return "out of memory";
  uint32_t i = cell_of(r->family, r->address);
  while (s->cells[i]) i = (i + 1) % IPS_CLUSTER_CELLS;
  s->cells[i] = (uint8_t)++s->n;
  return NULL;
}

struct ips_clusters *ips_clusters_new(struct ips_sessions *sessions, const struct ips_cluster_rec *clusters,
                                      size_t n_clusters, const struct ips_server_rec *servers, size_t n_servers,
                                      struct ips_frag_table *frags, struct ips_server_count *counts,
                                      const char **fault) {
  const char *wrong = n_clusters > IPS_CLUSTERS || n_servers > IPS_SERVERS ? "too many clusters or servers" : NULL;
  struct ips_clusters *s = wrong ? NULL : calloc(1, sizeof *s);
  if (!s && !wrong) wrong = "out of memory";
  if (s) {
    ips_mem_init(&s->mem);
    s->sessions = sessions, s->frags = frags, s->counts = counts;
    s->addresses = sessions->addresses.capacity;
    s->n_servers = (uint32_t)n_servers;
    for (size_t i = 0; i < n_clusters && !wrong; i++) wrong = add_cluster(s, &clusters[i], servers);
  }
  if (wrong) {
    ips_clusters_free(s);
    s = NULL;
  }
  if (fault) *fault = wrong;
  return s;
}

void ips_clusters_free(struct ips_clusters *s) {
  if (!s) return;
  for (uint32_t i = 0; i < IPS_CLUSTERS; i++) ips_maglev_drop(&s->mem, s->at[i].table);
  ips_mem_close(&s->mem);
  free(s);
}

uint32_t ips_clusters_table(const struct ips_clusters *s, uint32_t cluster, uint16_t *out, uint32_t room) {
  const struct ips_maglev *t = cluster < s->n ? s->at[cluster].table : NULL;
  if (!t) return 0;
  memcpy(out, t->table, (t->size < room ? t->size : room) * sizeof *out);
  return t->size;
}

/* ---- numbers and uses ---- */

uint32_t ips_sessions_addresses(const struct ips_sessions *s) { return s->addresses.capacity; }
uint32_t ips_sessions_number(const struct ips_sessions *s, int family, const uint8_t *address) {
  return ips_addresses_find(&s->addresses, (unsigned)family, address);
}
void ips_sessions_use(const struct ips_sessions *s, uint32_t number, struct ips_server_use *out) {
  *out = (struct ips_server_use){0};
  if (number >= s->addresses.capacity) return;
  out->left = ips_peek(s->uses[number].left);
  out->open = ips_peek(s->uses[number].open);
}
