/* clusters.h: a cluster for fuzz_forward: v4 and v6, servers up, drained and failed, in the small session table of the
 * remaps, which is full soon. A packet can be made one to it (name_cluster). */
#ifndef FUZZ_CLUSTERS_H
#define FUZZ_CLUSTERS_H
#include "../tests/check.h"
#include "ips_dispatch_api.h"
#include "ips_frag.h"

static struct ips_clusters *clusters;
static const uint8_t cluster4[16] = {198, 51, 100, 10}, cluster6[16] = {0x20, 1, 0xd, 0xb8, 0, 0xc, [15] = 0x10};

static void make_clusters(struct ips_sessions *sessions) {
  struct ips_cluster_rec recs[2] = {{.n_servers = 3, .family = 4}, {.first_server = 3, .n_servers = 3, .family = 6}};
  struct ips_server_rec servers[6] = {0};
  memcpy(recs[0].address, cluster4, 16);
  memcpy(recs[1].address, cluster6, 16);
  for (uint8_t i = 0; i < 6; i++) {
    servers[i].address[0] = i < 3 ? 10 : 0xfd, servers[i].address[3] = (uint8_t)(i + 1);
    servers[i].weight = 1, servers[i].state = (uint8_t)(1 + i % 3);
  }
  clusters = ips_clusters_new(sessions, recs, 2, servers, 6, ips_frag_new(64, 32, 512, 3), NULL, NULL);
  CHECK(clusters);
}

static void name_cluster(uint8_t *ip, size_t n) {
  unsigned v6 = n && ip[0] >> 4 == 6;
  if (n >= (v6 ? 40u : 20u)) memcpy(ip + (v6 ? 24 : 16), v6 ? cluster6 : cluster4, v6 ? 16 : 4);
}
#endif
