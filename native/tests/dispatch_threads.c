/* dispatch_threads.c: three packet threads send packets to a cluster, while a fourth replaces the set of servers, says what
 * a peer would say of the same flows, and ends sessions.
 *
 * While they run: a packet goes to a server of a set that was in force, or to nobody, and stays as it was. Whenever they
 * rest: what each server is said to have is what a scan of the table finds, half-open flows aside. At the end, all sessions
 * over, no server has any. With SAN=thread also: no data race.
 */
#include "check.h"
#include "ips_csum.h"
#include "ips_dispatch.h"
#include "ips_frag.h"
#include "ips_napt_api.h"
#include "ips_tcp.h"
#include "image.h"
#include <pthread.h>

enum { THREADS = 3, ROUNDS = 10, OPS = 4000, CLIENTS = 64, SERVERS = 6, ROOM = 4096 };
#define SECOND 1000000000ull

static struct ips_sessions *table;
static struct ips_tables *tables;
static struct ips_worker *workers[THREADS];
static struct ips_clusters *_Atomic now_set;
static pthread_barrier_t rest;
static uint64_t now = SECOND;

static uint32_t draw(uint32_t *state, uint32_t n) {
  *state = *state * 1664525 + 1013904223;
  return (uint32_t)((uint64_t)(*state >> 4) * n >> 28);
}

static const struct ips_cluster_rec CLUSTER = {.address = {198, 51, 100, 10}, .n_servers = SERVERS, .family = 4};

static struct ips_clusters *make_set(uint32_t *random, struct ips_frag_table *frags, struct ips_server_count *counts) {
  struct ips_server_rec servers[SERVERS] = {0};
  const char *fault;
  for (uint32_t i = 0; i < SERVERS; i++) {
    servers[i] = (struct ips_server_rec){.weight = draw(random, 4), .state = (uint8_t)(1 + draw(random, 3))};
    memcpy(servers[i].address, (uint8_t[]){10, 0, 0, (uint8_t)(1 + i)}, 4);
  }
  struct ips_clusters *s = ips_clusters_new(table, &CLUSTER, 1, servers, SERVERS, frags, counts, &fault);
  CHECK(s && !fault);
  return s;
}

static uint32_t build(uint8_t *b, uint32_t client, uint8_t flags) {
  static const uint8_t plain[20] = {0x45, [3] = 40, [8] = 9, [9] = IPS_PROTO_TCP, [16] = 198, 51, 100, 10};
  memset(b, 0, 40);
  memcpy(b, plain, sizeof plain);
  b[12] = 192, b[13] = 0, b[14] = 2, b[15] = (uint8_t)client;
  ips_st16(b + 10, (uint16_t)~ips_csum_fold(ips_csum_bytes(b, 20, 0)));
  ips_st16(b + 20, ips_be16((uint16_t)(1000 + client)));
  ips_st16(b + 22, ips_be16(80));
  b[32] = 0x50, b[33] = flags;
  return 40;
}

static void emit(void *arg, struct ips_pkt *p, int kind) { (void)arg, (void)p, (void)kind; }

static void one_packet(struct ips_worker *w, uint32_t *random) {
  static const uint8_t kinds[] = {IPS_TCP_SYN, IPS_TCP_SYN, IPS_TCP_ACK, IPS_TCP_ACK, IPS_TCP_FIN | IPS_TCP_ACK, IPS_TCP_RST};
  uint8_t room[IPS_HEADROOM + 40], *b = room + IPS_HEADROOM, before[40];
  struct ips_pkt p = {.data = b, .headroom = IPS_HEADROOM};
  p.len = p.total_len = build(b, draw(random, CLIENTS), kinds[draw(random, sizeof kinds)]);
  memcpy(before, b, sizeof before);
  ips_worker_begin(w, __atomic_load_n(&now, __ATOMIC_RELAXED));
  ips_worker_set_clusters(w, atomic_load(&now_set));
  int verdict = ips_outer(w, &p);
  ips_worker_set_clusters(w, NULL);
  ips_worker_end(w);
  CHECK(verdict == IPS_DISPATCHED || verdict == IPS_NO_SERVER);
  CHECK((verdict == IPS_DISPATCHED) == (p.server > 0) && p.server <= SERVERS && p.data == b && p.len == 40);
  CHECK(memcmp(before, b, sizeof before) == 0);
}

static void *packets(void *arg) {
  struct ips_worker *w = arg;
  uint32_t random = 7 + w->index;
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < OPS; i++) one_packet(w, &random);
    pthread_barrier_wait(&rest);
    pthread_barrier_wait(&rest);
  }
  return NULL;
}

/* As the mirror would, in the ring of nobody else. */
static void say(uint32_t *random, uint64_t version) {
  struct ips_session_rec r = {.flow = {.src = {192, 0, 2}, .dst = {198, 51, 100, 10}, .dst_port = 80, .family = 4,
                                       .proto = IPS_PROTO_TCP},
                              .kind = IPS_SESSION_DISPATCH, .version = version};
  uint32_t client = draw(random, CLIENTS);
  r.flow.src[3] = (uint8_t)client, r.flow.src_port = (uint16_t)(1000 + client);
  r.state = (uint8_t)(1 + draw(random, 6));
  memcpy(r.mapped, (uint8_t[]){10, 0, 0, (uint8_t)(1 + draw(random, SERVERS))}, 4);
  ips_sessions_apply(table, THREADS, draw(random, 3) ? IPS_SESSION_UPSERT : IPS_SESSION_DELETE, &r, now, NULL);
  if (draw(random, 3) == 0) ips_sessions_close(table, THREADS, &r.flow, now);
}

/* Nobody moves: what is reckoned is what there is. */
static void compare(void) {
  static struct ips_session_rec all[ROOM];
  uint32_t left[SERVERS] = {0}, open[SERVERS] = {0}, sum = 0, scanned = 0;
  struct ips_sessions_stats stats;
  uint64_t cursor = 0;
  for (size_t n; (n = ips_sessions_scan(table, &cursor, now, all, ROOM)) > 0;)
    for (size_t i = 0; i < n; i++, scanned++) {
      CHECK(all[i].kind == IPS_SESSION_DISPATCH && all[i].mapped[3] >= 1 && all[i].mapped[3] <= SERVERS);
      left[all[i].mapped[3] - 1]++;
      open[all[i].mapped[3] - 1] += all[i].state <= IPS_STATE_OPEN;
    }
  ips_sessions_stats(table, &stats);
  for (uint32_t i = 0; i < SERVERS; i++) {
    struct ips_server_use use;
    uint8_t address[16] = {10, 0, 0, (uint8_t)(1 + i)};
    ips_sessions_use(table, ips_sessions_number(table, 4, address), &use);
    CHECK(use.left >= left[i] && use.open >= open[i] && use.open <= use.left);
    sum += use.left;
  }
  CHECK(scanned == stats.sessions && sum == stats.sessions + stats.half_open);
}

int main(void) {
  const struct ips_sessions_config c = {.sessions = 4096, .half_open = 4096, .half_open_per_source = 4096, .seed = 3,
                                        .now_ns = SECOND};
  static struct image image;
  static uint8_t raw[sizeof image];
  struct ips_load_status st;
  pthread_t threads[THREADS];
  uint32_t random = 1;
  uint64_t version = 1;
  table = ips_sessions_new(&c);
  tables = ips_tables_new(THREADS);
  struct ips_frag_table *frags = ips_frag_new(64, 32, 512, 3);
  struct ips_server_count *counts = calloc((size_t)THREADS * ips_sessions_addresses(table), sizeof *counts);
  CHECK(table && tables && frags && counts);
  image_site(&image, IPS_ROLE_OUTER);
  CHECK(ips_tables_commit(tables, ips_tables_prepare(tables, raw, image_seal(&image, raw), &st)) == 0);
  pthread_barrier_init(&rest, NULL, THREADS + 1);
  atomic_store(&now_set, make_set(&random, frags, counts));
  struct ips_clusters *old[ROUNDS * 20];
  uint32_t n_old = 0;
  for (uint32_t i = 0; i < THREADS; i++) {
    workers[i] = ips_worker_new(tables, i, emit, NULL);
    ips_worker_set_flows(workers[i], table, NULL);
    CHECK(workers[i] && pthread_create(&threads[i], NULL, packets, workers[i]) == 0);
  }
  for (int round = 0; round < ROUNDS; round++) {
    for (int k = 0; k < 20; k++) {
      old[n_old++] = atomic_exchange(&now_set, make_set(&random, frags, counts));
      for (int i = 0; i < 100; i++) say(&random, version += 3);
      ips_sessions_expire(table, THREADS, now, 64);
    }
    pthread_barrier_wait(&rest);
    compare();
    while (n_old) ips_clusters_free(old[--n_old]); /* nobody is in a frame */
    __atomic_store_n(&now, now + 100 * SECOND, __ATOMIC_RELAXED);
    pthread_barrier_wait(&rest);
  }
  for (uint32_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  __atomic_store_n(&now, now + 100000 * SECOND, __ATOMIC_RELAXED);
  for (int pass = 0; pass < 2; pass++) ips_sessions_expire(table, 0, now, ips_sessions_buckets(table));
  compare();
  struct ips_sessions_stats stats;
  ips_sessions_stats(table, &stats);
  CHECK(stats.sessions == 0 && stats.half_open == 0);
  printf("dispatch_threads: %d packets, %llu records applied\n", THREADS * ROUNDS * OPS, (unsigned long long)stats.applied);
  for (uint32_t i = 0; i < THREADS; i++) ips_worker_free(workers[i]);
  ips_clusters_free(atomic_load(&now_set));
  ips_tables_free(tables);
  ips_sessions_free(table);
  ips_frag_free(frags);
  free(counts);
  return 0;
}
