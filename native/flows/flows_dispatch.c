/* flows_dispatch.c: the set of clusters is made, replaced by one store, told of. */
#define _GNU_SOURCE
#include "flows_dispatch.h"
#include "../ips_dispatch.h"
#include <stdlib.h>
#include <string.h>

struct flows_clusters {
  struct ips_ctl_dispatch set;
  struct ips_server_count *counts; /* of each packet thread, by number of an address */
};

static int refuse(const char **sentence, int status, const char *text) {
  *sentence = text;
  return status;
}

static size_t n_counts(const struct flows *f) { return (size_t)f->n_workers * ips_sessions_addresses(f->sessions); }

/* Taken once: numbers of addresses stay. NULL: no memory. */
static struct flows_clusters *kept(struct flows *f) {
  if (f->dispatch) return f->dispatch;
  struct flows_clusters *d = calloc(1, sizeof *d);
  if (d) d->counts = ips_memory_new(n_counts(f) * sizeof *d->counts);
  if (d && !d->counts) {
    free(d);
    d = NULL;
  }
  return f->dispatch = d;
}

static struct ips_clusters *make(struct flows *f, const struct ips_ctl_dispatch *c, const char **fault) {
  struct ips_cluster_rec recs[IPS_CLUSTERS];
  for (uint32_t i = 0; i < c->n_clusters; i++) recs[i] = c->clusters[i].rec;
  return ips_clusters_new(f->sessions, recs, c->n_clusters, c->servers, c->n_servers, f->frags, f->dispatch->counts, fault);
}

const char *flows_dispatch_fault(const struct ips_ctl_dispatch *c) {
  if (c->n_clusters > IPS_CLUSTERS || c->n_servers > IPS_SERVERS)
    return "there can be 64 clusters with 512 servers in all";
  for (uint32_t i = 0; i < c->n_clusters; i++) {
    const struct ips_cluster_rec *r = &c->clusters[i].rec;
    if (r->first_server > c->n_servers || r->n_servers > c->n_servers - r->first_server)
      return "a cluster's servers are not there";
    if (!memchr(c->clusters[i].interface, 0, sizeof c->clusters[i].interface))
      return "no interface has so long a name";
  }
  return NULL;
}

int flows_dispatch_set(struct flows *f, const struct ips_ctl_dispatch *c, const char **sentence) {
  const char *fault = flows_dispatch_fault(c);
  if (fault) return refuse(sentence, IPS_CTL_BAD_ARGUMENT, fault);
  if (!c->n_clusters && !f->dispatch) return IPS_CTL_OK;
  if (!f->sessions)
    return refuse(sentence, IPS_CTL_REFUSED, "no connections are tracked on this node: none could stay with its server");
  if (f->dispatch && !memcmp(&f->dispatch->set, c, sizeof *c)) return IPS_CTL_OK;
  if (!kept(f)) return refuse(sentence, IPS_CTL_SYSTEM, "out of memory");
  struct ips_clusters *fresh = c->n_clusters ? make(f, c, &fault) : NULL, *old = atomic_load(&f->clusters);
  if (fault) return refuse(sentence, IPS_CTL_BAD_ARGUMENT, fault);
  f->dispatch->set = *c;
  atomic_store(&f->clusters, fresh);
  if (flows_quiesce(f)) ips_clusters_free(old); /* else a packet thread hangs: what it may look at is kept for ever */
  return IPS_CTL_OK;
}

const struct ips_ctl_dispatch *flows_dispatch_wanted(const struct flows *f) {
  return f->dispatch ? &f->dispatch->set : NULL;
}

static void add_counts(const struct flows *f, uint32_t number, struct ips_ctl_server_state *s) {
  uint32_t addresses = ips_sessions_addresses(f->sessions);
  for (uint32_t w = 0; w < f->n_workers; w++) {
    const struct ips_server_count *c = &f->dispatch->counts[(size_t)w * addresses + number];
    s->opened += ips_get(c->opened);
    s->packets += ips_get(c->packets);
    s->bytes += ips_get(c->bytes);
    s->untracked += ips_get(c->untracked);
    s->unsent += ips_get(c->unsent);
  }
}

uint32_t flows_dispatch_state(const struct flows *f, struct ips_ctl_server_state *out) {
  const struct ips_ctl_dispatch *set = flows_dispatch_wanted(f);
  uint32_t n = 0;
  for (uint32_t i = 0; set && i < set->n_clusters; i++) {
    const struct ips_cluster_rec *c = &set->clusters[i].rec;
    for (uint32_t k = 0; k < c->n_servers; k++, n++) {
      const struct ips_server_rec *server = &set->servers[c->first_server + k];
      uint32_t number = ips_sessions_number(f->sessions, c->family, server->address);
      struct ips_server_use use;
      ips_sessions_use(f->sessions, number, &use);
      out[n] = (struct ips_ctl_server_state){.weight = server->weight, .left = use.left, .open = use.open,
                                             .family = c->family, .state = server->state};
      memcpy(out[n].cluster, c->address, sizeof out[n].cluster);
      memcpy(out[n].address, server->address, sizeof out[n].address);
      add_counts(f, number, &out[n]);
    }
  }
  return n;
}

void flows_dispatch_unsent(struct flows *f, uint32_t worker, uint32_t server) {
  uint32_t addresses = ips_sessions_addresses(f->sessions);
  if (!server || server > addresses) return;
  struct ips_server_count *c = &f->dispatch->counts[(size_t)worker * addresses + server - 1];
  ips_put(c->unsent, c->unsent + 1);
}

void flows_dispatch_close(struct flows *f) {
  ips_clusters_free(atomic_load(&f->clusters));
  if (!f->dispatch) return;
  ips_memory_free(f->dispatch->counts, n_counts(f) * sizeof *f->dispatch->counts);
  free(f->dispatch);
}
