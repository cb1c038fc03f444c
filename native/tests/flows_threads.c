/* flows_threads.c: packet threads, ips-mirror, the pair's thread and control at the same tracked connections.
 *
 * Two nodes in one process, their mirrors on loopback. While two packet threads of the first translate, with
 * first packets that wait for the other node, control replaces NAT and mirror, lists and closes, and roles
 * go to and fro. What must hold: every packet that was kept is sent or dropped, none twice; a node without
 * its lease sends nothing that waited; whoever waits for a standby that fell silent goes on; at rest both
 * tables are equal. With SAN=thread also: no data race; with SAN=address: nothing replaced is used.
 */
#define _GNU_SOURCE
#include "../flows/flows.h"
#include "../flows/flows_mirror.h"
#include "../ips_worker.h"
#include "image.h"
#include <pthread.h>
#include <sched.h>

enum { WORKERS = 2, ROUNDS = 60, HOSTS = 8, PORTS = 32, PATIENCE_S = 100, BYTES = 40, ROOM = 128 };

struct node {
  struct ips_tables *tables;
  struct flows *flows;
  uint32_t n_workers;
};
struct thread {                /* a packet thread */
  struct ips_worker *core;
  struct flows_worker *flows;
  uint64_t kept, sent;         /* sent: after it was kept */
  uint32_t random;
  _Alignas(8) uint8_t bytes[ROOM + BYTES];
};

static struct node nodes[2] = {{.n_workers = WORKERS}, {.n_workers = 1}};
static struct thread threads[WORKERS];
static _Atomic bool stop;
static _Atomic uint64_t turns[WORKERS];

static void nothing(void *arg, struct ips_pkt *p, int kind) { (void)arg, (void)p, (void)kind; }
static void send_held(void *arg, struct ips_pkt *p, uint32_t side) {
  struct thread *t = arg;
  CHECK(p->len == BYTES && p->data[0] == 0x45 && side <= 1);
  t->sent++;
}

static void load(struct node *n) {
  static struct image m;
  static uint8_t raw[sizeof m];
  struct ips_load_status st;
  image_site(&m, IPS_ROLE_OUTER);
  m.h.term = m.h.revision = 1;
  uint64_t generation = ips_tables_prepare(n->tables, raw, image_seal(&m, raw), &st);
  CHECK(generation && ips_tables_commit(n->tables, generation) == 0);
}

/* ---- control's messages ---- */

static struct ips_ctl_flows flows_message(uint32_t n_pools, uint8_t filtering) {
  struct ips_ctl_flows c = {.sessions = 4096, .half_open = 512, .half_open_per_source = 256, .addresses = 8,
                            .filtering = filtering, .n_pools = n_pools, .n_insides = 1};
  for (uint8_t i = 0; i < n_pools; i++)
    c.pools[i] = (struct ips_napt_pool_rec){.first = {198, 18, 0, i}, .n = 1, .family = 4, .realm = 3};
  c.insides[0] =
    (struct ips_napt_inside_rec){.prefix = {10, 1, 0, 0}, .family = 4, .prefix_len = 16, .realm = 3};
  return c;
}

static struct ips_ctl_mirror mirror_message(uint8_t me, uint32_t commit_us) {
  uint32_t pid = (uint32_t)getpid();
  struct ips_ctl_mirror c = {.node = "n", .id = me, .n_peers = 1, .commit_acked = commit_us != 0,
                             .commit_us = commit_us, .ring = 1024, .config_digest = 1};
  struct ips_ctl_mirror_peer *p = &c.peers[0];
  *p = (struct ips_ctl_mirror_peer){.name = "p", .id = (uint8_t)(3 - me), .n_paths = 1};
  p->paths[0] = (struct ips_ctl_pair_path){.local = {127, (uint8_t)(pid >> 8 | 1), (uint8_t)pid, me},
                                           .remote = {127, (uint8_t)(pid >> 8 | 1), (uint8_t)pid, p->id},
                                           .local_port = 6082, .remote_port = 6082, .family = 4};
  return c;
}

static void set(struct node *n, uint32_t n_pools, uint8_t filtering) {
  struct ips_ctl_flows c = flows_message(n_pools, filtering);
  const char *sentence = "";
  if (flows_set(n->flows, &c, &sentence) == IPS_CTL_OK) return;
  fprintf(stderr, "%s\n", sentence);
  abort();
}

static void mirror(uint8_t me, uint32_t commit_us) {
  struct ips_ctl_mirror c = mirror_message(me, commit_us);
  const char *sentence = "";
  CHECK(flows_mirror_set(nodes[me - 1].flows, &c, &sentence) == IPS_CTL_OK);
}

/* ---- packet threads ---- */

static uint32_t draw(struct thread *t, uint32_t n) {
  t->random = t->random * 1664525 + 1013904223;
  return (t->random >> 8) % n;
}

static void pass(struct thread *t, struct ips_pkt *p, int side) {
  int verdict = side ? ips_inner(t->core, p) : ips_outer(t->core, p);
  if (ips_dispositions[verdict] != IPS_SEND) flows_pass(t->flows);
  else t->kept += flows_hold(t->flows, p, (uint32_t)side);
}

/* A datagram from inside and its answer, which makes the session. */
static void question_and_answer(struct thread *t, uint32_t host, uint32_t port) {
  uint8_t *ip = t->bytes + ROOM, address[4], two[2];
  uint32_t sum = 0;
  memset(ip, 0, BYTES);
  memcpy(ip, (uint8_t[]){0x45, 0, 0, BYTES, 0, 0, 0x40, 0, 64, IPS_PROTO_UDP}, 10);
  memcpy(ip + 12, (uint8_t[]){10, 1, 0, (uint8_t)host, 192, 0, 2, 9}, 8);
  ips_st16(ip + 20, ips_be16((uint16_t)port));
  ips_st16(ip + 22, ips_be16(53));
  ips_st16(ip + 24, ips_be16(BYTES - 20));
  for (int i = 0; i < 20; i += 2) sum += ips_ld16(ip + i);
  sum = (sum & 0xffff) + (sum >> 16);
  ips_st16(ip + 10, (uint16_t)~(sum + (sum >> 16)));
  struct ips_pkt p = {.data = ip, .len = BYTES, .total_len = BYTES, .headroom = ROOM};
  ips_worker_begin(t->core, flows_now_ns());
  flows_begin(t->flows);
  pass(t, &p, IPS_INNER);
  if (ip[12] == 198) {
    memcpy(address, ip + 12, 4), memcpy(ip + 12, ip + 16, 4), memcpy(ip + 16, address, 4);
    memcpy(two, ip + 20, 2), memcpy(ip + 20, ip + 22, 2), memcpy(ip + 22, two, 2);
    p = (struct ips_pkt){.data = ip, .len = BYTES, .total_len = BYTES, .headroom = ROOM};
    pass(t, &p, IPS_OUTER);
  }
  flows_end(t->flows);
  ips_worker_end(t->core);
}

static void *work(void *arg) {
  struct thread *t = arg;
  while (!atomic_load(&stop)) {
    for (int i = 0; i < 16; i++)
      question_and_answer(t, draw(t, HOSTS), 1000 * (1 + t->flows->index) + draw(t, PORTS));
    flows_release(t->flows);
    atomic_fetch_add(&turns[t->flows->index], 1);
    sched_yield();
  }
  return NULL;
}

/* The pair's: this node active or not, epochs rising. */
static void *flip(void *unused) {
  (void)unused;
  for (uint64_t epoch = 10; !atomic_load(&stop); epoch++) {
    flows_role(nodes[0].flows, epoch % 3 != 0, epoch);
    flows_ready(nodes[0].flows, true);
    nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
  }
  return NULL;
}

/* ---- what is looked at ---- */

static bool are_equal(void) {
  uint64_t sums[2][IPS_MIRROR_SHARDS];
  for (int i = 0; i < 2; i++) ips_sessions_sums(nodes[i].flows->sessions, sums[i]);
  return memcmp(sums[0], sums[1], sizeof sums[0]) == 0;
}

static uint32_t peer_ready(void) {
  struct ips_ctl_flows_state s;
  flows_state(nodes[0].flows, &s);
  return s.mirror.peers[0].is_ready && !s.mirror.peers[0].lag_events;
}

/* What each node's mirror has counted, for who has to find out why nothing comes. */
static bool in_vain(void) {
  for (int i = 0; i < 2; i++) {
    struct ips_ctl_flows_state s;
    flows_state(nodes[i].flows, &s);
    fprintf(stderr, "node %d: standby %u, sessions %u, phase %d, epoch %llu, lag %llu, notes %u;", i,
            s.sessions.standby, s.sessions.sessions, s.mirror.peers[0].phase,
            (unsigned long long)s.mirror.epoch, (unsigned long long)s.mirror.peers[0].lag_events,
            s.peer_notes[0]);
    for (int c = 0; c < ips_mirror_counters(); c++)
      if (s.mirror.counters[c])
        fprintf(stderr, " %s %llu", ips_mirror_counter_name(c), (unsigned long long)s.mirror.counters[c]);
    fprintf(stderr, "\n");
  }
  return false;
}

#define AWAIT(claim) \
  do { \
    uint64_t end_ns = flows_now_ns() + PATIENCE_S * 1000000000ull; \
    while (!(claim)) { \
      CHECK(flows_now_ns() < end_ns || in_vain()); \
      nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); \
    } \
  } while (0)

static uint64_t list(struct flows *f) {
  static struct ips_session_rec some[FLOWS_SLICE];
  struct ips_ctl_session_filter any = {0};
  uint64_t cursor = 0, scanned = 0, n = 0;
  while (cursor != UINT64_MAX) n += flows_select(f->sessions, &any, &cursor, some, &scanned);
  return n;
}

/* Everything at once. */
static void busy(void) {
  pthread_t running[WORKERS], pair;
  struct ips_ctl_session_filter any = {0}, few = {.limit = 5};
  for (int i = 0; i < WORKERS; i++) CHECK(!pthread_create(&running[i], NULL, work, &threads[i]));
  CHECK(!pthread_create(&pair, NULL, flip, NULL));
  for (uint32_t i = 0; i < ROUNDS; i++) {
    uint64_t before[WORKERS];
    struct ips_ctl_flows_state state;
    for (int k = 0; k < WORKERS; k++) before[k] = atomic_load(&turns[k]);
    set(&nodes[0], 1 + i % 2, i / 2 % 2);
    if (i % 5 == 1) mirror(1, i % 2 ? 300 : 0);
    if (i % 5 == 3) mirror(1, 20000 + i);
    if (i % 16 == 4) flows_mirror_clear(nodes[0].flows);
    if (i % 16 == 12) flows_mirror_renew(nodes[0].flows);
    if (i % 16 == 8) mirror(2, i);
    list(nodes[0].flows);
    list(nodes[1].flows);
    uint64_t cursor = 0, closed = 0;
    while (flows_close_some(nodes[0].flows, i % 8 ? &few : &any, &cursor, &closed)) {}
    flows_state(nodes[0].flows, &state);
    for (int k = 0; k < WORKERS; k++) AWAIT(atomic_load(&turns[k]) > before[k] + 1);
  }
  atomic_store(&stop, true);
  for (int i = 0; i < WORKERS; i++) pthread_join(running[i], NULL);
  pthread_join(pair, NULL);
}

/* Without a lease nothing goes that waited, with one everything does when commit_us is over. */
static void silent_standby(bool has_lease) {
  struct thread *t = &threads[0];
  mirror(1, 500000);
  AWAIT(peer_ready());
  flows_thread_stop(nodes[1].flows);
  uint64_t kept = t->kept, sent = t->sent;
  for (uint32_t i = 0; i < 8; i++) question_and_answer(t, HOSTS + has_lease, 7000 + i);
  CHECK(t->kept - kept == 8 && t->sent == sent);
  if (!has_lease) ips_tables_set_lease(nodes[0].tables, flows_now_ns() - 1);
  AWAIT((flows_release(t->flows), t->flows->n_held == 0));
  CHECK(t->sent - sent == (has_lease ? 8 : 0));
  ips_tables_set_lease(nodes[0].tables, UINT64_MAX);
  CHECK(flows_thread_start(nodes[1].flows) == 0);
}

int main(void) {
  for (uint8_t i = 0; i < 2; i++) {
    struct node *n = &nodes[i];
    CHECK((n->tables = ips_tables_new(n->n_workers)) && (n->flows = flows_create(n->n_workers)));
    load(n);
    flows_role(n->flows, i == 0, 1);
  }
  for (uint32_t i = 0; i < WORKERS; i++) {
    struct thread *t = &threads[i];
    t->random = 7 + i;
    CHECK((t->core = ips_worker_new(nodes[0].tables, i, nothing, t)) &&
          (t->flows = flows_attach(nodes[0].flows, i, t->core, send_held, t)));
  }
  for (uint8_t i = 0; i < 2; i++) {
    set(&nodes[i], 2, 0);
    mirror(i + 1, 50000);
  }
  AWAIT(peer_ready()); /* so that something waits */
  busy();
  flows_role(nodes[0].flows, true, 1 << 20);
  set(&nodes[0], 2, 0);
  mirror(1, 50000);
  mirror(2, 0);
  uint64_t kept = 0, sent = 0;
  for (uint32_t i = 0; i < WORKERS; i++) {
    AWAIT((flows_release(threads[i].flows), threads[i].flows->n_held == 0));
    kept += threads[i].kept, sent += threads[i].sent;
  }
  struct ips_ctl_flows_state state;
  flows_state(nodes[0].flows, &state);
  CHECK(sent + state.hold_dropped == kept && state.held == 0);
  silent_standby(true);
  silent_standby(false);
  AWAIT(peer_ready() && are_equal());
  printf("flows_threads: %llu kept, %llu sent, %llu sessions\n", (unsigned long long)kept,
         (unsigned long long)sent, (unsigned long long)list(nodes[1].flows));
  CHECK(list(nodes[1].flows) > 0);
  for (uint32_t i = 0; i < WORKERS; i++) ips_worker_free(threads[i].core);
  for (int i = 0; i < 2; i++) {
    flows_destroy(nodes[i].flows);
    ips_tables_free(nodes[i].tables);
  }
  return 0;
}
