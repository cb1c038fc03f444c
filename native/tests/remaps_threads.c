/* remaps_threads.c: three packet threads take packets of remapped and of other addresses, while a fourth replaces the set of
 * remaps, tells them flows of the giver and ends flows.
 *
 * What must hold: a packet that goes on to another node goes to one of its channel's ends, as counted; an address that no
 * set has remapped is delivered; a packet's bytes leave the buffer in no other case. With SAN=thread also: no data race; with
 * SAN=address: nothing replaced is used.
 */
#include "check.h"
#include "image.h"
#include "ips_csum.h"
#include "ips_frag.h"
#include "ips_napt_api.h"
#include "ips_remap.h"
#include "ips_tcp.h"
#include <pthread.h>

enum { THREADS = 3, ROUNDS = 10, OPS = 4000, HOSTS = 16, REMAPPED = 8, CLIENTS = 16, SETS = 20 };
#define SECOND 1000000000ull

/* Who takes from peer 0 and leaves to peer 1: one after the other, both at once, neither. */
static const uint8_t KINDS[][2] = {
  {IPS_REMAP_READY}, {IPS_REMAP_TAKING}, {IPS_REMAP_TAKING, IPS_REMAP_PREPARING}, {IPS_REMAP_TAKING, IPS_REMAP_LEAVING},
  {IPS_REMAP_LEAVING}, {0}};
enum { N_KINDS = sizeof KINDS / sizeof *KINDS };

struct thread {
  struct ips_worker *worker;
  uint64_t followed, asked, opened, packets;
};

static struct ips_tables *tables;
static struct ips_sessions *table, *followed;
static struct thread threads[THREADS];
static uint64_t counters[THREADS * IPS_REMAP_COUNTERS];
static struct ips_remaps *_Atomic now_set;
static pthread_barrier_t rest;

static uint32_t draw(uint32_t *state, uint32_t n) {
  *state = *state * 1664525 + 1013904223;
  return (uint32_t)((uint64_t)(*state >> 4) * n >> 28);
}

static struct ips_remap_rec remap(uint64_t id, uint8_t role, uint8_t peer, uint8_t encap) {
  struct ips_remap_rec r = {.id = id, .prefix = {203, 0, 113}, .prefix_len = 29, .family = 4, .role = role, .peer = peer,
                            .channel = {.encap = encap, .family = 4, .gue_port = encap == IPS_ENCAP_GUE ? 6080 : 0, .mtu = 1400}};
  for (unsigned mark = 0; mark < 2; mark++) {
    uint8_t last = (uint8_t)(peer * 8 + (encap == IPS_ENCAP_GUE ? 2 : mark));
    memcpy(r.channel.local[mark], (uint8_t[]){192, 0, 2, (uint8_t)(32 + last)}, 4);
    memcpy(r.channel.remote[mark], (uint8_t[]){192, 0, 2, (uint8_t)(64 + last)}, 4);
  }
  return r;
}

static struct ips_remaps *make_set(const uint8_t kind[2], struct ips_frag_table *frags) {
  struct ips_remap_rec recs[2];
  struct ips_remap_state states[2];
  size_t n = 0;
  for (uint8_t i = 0; i < 2; i++) {
    if (!kind[i]) continue;
    bool takes = kind[i] >= IPS_REMAP_READY;
    states[n] = (struct ips_remap_state){.followed = takes ? followed : NULL, .counters = counters};
    recs[n++] = remap(1 + i, kind[i], takes ? 0 : 1, takes ? IPS_ENCAP_IPIP : IPS_ENCAP_GUE);
  }
  struct ips_remaps *s = n ? ips_remaps_new(recs, states, n, frags) : NULL;
  CHECK(s || !n);
  return s;
}

static void build(uint8_t *b, uint32_t host, uint32_t client, uint8_t flags) {
  static const uint8_t plain[20] = {0x45, [3] = 40, [8] = 9, [9] = IPS_PROTO_TCP, [16] = 10};
  memset(b, 0, 40);
  memcpy(b, plain, sizeof plain);
  b[12] = 198, b[13] = 51, b[14] = 100, b[15] = (uint8_t)client, b[19] = (uint8_t)host;
  ips_st16(b + 10, (uint16_t)~ips_csum_fold(ips_csum_bytes(b, 20, 0)));
  ips_st16(b + 20, ips_be16((uint16_t)(1000 + client)));
  ips_st16(b + 22, ips_be16(80));
  b[32] = 0x50, b[33] = flags;
}

static void emit(void *arg, struct ips_pkt *p, int kind) { (void)arg, (void)p, (void)kind; }

static void one_packet(struct thread *t, uint32_t *random) {
  static const uint8_t kinds[] = {IPS_TCP_SYN, IPS_TCP_ACK, IPS_TCP_ACK, IPS_TCP_ACK, IPS_TCP_FIN | IPS_TCP_ACK, IPS_TCP_RST};
  uint8_t room[IPS_HEADROOM + 40], *b = room + IPS_HEADROOM;
  uint32_t host = draw(random, HOSTS);
  struct ips_pkt p = {.data = b, .headroom = IPS_HEADROOM, .len = 40, .total_len = 40};
  build(b, host, draw(random, CLIENTS), kinds[draw(random, sizeof kinds)]);
  ips_worker_begin(t->worker, SECOND);
  ips_worker_set_remaps(t->worker, atomic_load(&now_set));
  int verdict = ips_inner(t->worker, &p);
  ips_worker_set_remaps(t->worker, NULL);
  ips_worker_end(t->worker);
  bool goes_on = verdict == IPS_FOLLOWED || verdict == IPS_ASKED;
  t->packets++;
  t->followed += verdict == IPS_FOLLOWED;
  t->asked += verdict == IPS_ASKED;
  t->opened += verdict == IPS_OPENED_HERE;
  CHECK(host < REMAPPED || verdict == IPS_OK);
  CHECK(goes_on == (p.len > 40) && (goes_on || p.data == b));
  if (goes_on) CHECK(p.data[16] == 192 && p.data[19] >= 64 && p.data[19] < 64 + 16);
  else if (ips_dispositions[verdict] == IPS_SEND) CHECK(b[16] == 203 && b[18] == 113 && b[19] == host);
}

static void *packets(void *arg) {
  struct thread *t = arg;
  uint32_t random = 7 + t->worker->index;
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < OPS; i++) one_packet(t, &random);
    pthread_barrier_wait(&rest);
    pthread_barrier_wait(&rest);
  }
  return NULL;
}

/* The giver's stream, and what control ends of this node's own, in the ring of nobody else. */
static void say(uint32_t *random, uint64_t version) {
  uint32_t client = draw(random, CLIENTS);
  struct ips_session_rec r = {
    .flow = {.src = {198, 51, 100, (uint8_t)client}, .dst = {203, 0, 113, (uint8_t)draw(random, REMAPPED)},
             .src_port = (uint16_t)(1000 + client), .dst_port = 80, .family = 4, .proto = IPS_PROTO_TCP},
    .kind = IPS_SESSION_TRACK, .state = (uint8_t)(IPS_STATE_OPENING + draw(random, 4)), .version = version};
  ips_sessions_apply(followed, THREADS, draw(random, 3) ? IPS_SESSION_UPSERT : IPS_SESSION_DELETE, &r, SECOND, NULL);
  if (draw(random, 3) == 0) ips_sessions_close(table, THREADS, &r.flow, SECOND);
}

static uint64_t counted(enum ips_remap_counter c) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < THREADS; i++) n += counters[i * IPS_REMAP_COUNTERS + c];
  return n;
}

static struct thread all(void) {
  struct thread sum = {0};
  for (uint32_t i = 0; i < THREADS; i++) {
    sum.followed += threads[i].followed, sum.asked += threads[i].asked;
    sum.opened += threads[i].opened, sum.packets += threads[i].packets;
  }
  return sum;
}

static struct ips_sessions *make_table(bool is_standby) {
  const struct ips_sessions_config c = {.sessions = 4096, .half_open = 4096, .half_open_per_source = 4096, .seed = 3,
                                        .standby = is_standby, .now_ns = SECOND};
  struct ips_sessions *t = ips_sessions_new(&c);
  CHECK(t);
  return t;
}

int main(void) {
  static struct image image;
  static uint8_t raw[sizeof image];
  struct ips_load_status st;
  pthread_t running[THREADS];
  struct ips_remaps *old[ROUNDS * SETS];
  uint32_t random = 1, n_old = 0;
  uint64_t version = 1;
  table = make_table(false);
  followed = make_table(true);
  tables = ips_tables_new(THREADS);
  struct ips_frag_table *frags = ips_frag_new(64, 32, 512, 3);
  CHECK(tables && frags);
  image_site(&image, IPS_ROLE_INNER);
  image_bind(&image, 4, 0, 24, IPS_KIND_ENDPOINT, 0, 0);
  uint64_t generation = ips_tables_prepare(tables, raw, image_seal(&image, raw), &st);
  CHECK(generation && ips_tables_commit(tables, generation) == 0);
  pthread_barrier_init(&rest, NULL, THREADS + 1);
  for (uint32_t i = 0; i < THREADS; i++) {
    threads[i].worker = ips_worker_new(tables, i, emit, NULL);
    CHECK(threads[i].worker);
    ips_worker_set_flows(threads[i].worker, table, NULL);
    CHECK(pthread_create(&running[i], NULL, packets, &threads[i]) == 0);
  }
  for (int round = 0; round < ROUNDS; round++) {
    for (int k = 0; k < SETS; k++) {
      old[n_old++] = atomic_exchange(&now_set, make_set(KINDS[draw(&random, N_KINDS)], frags));
      for (int i = 0; i < 100; i++) say(&random, version += 3);
    }
    pthread_barrier_wait(&rest);
    struct thread sum = all();
    CHECK(counted(IPS_RM_FOLLOWED) + counted(IPS_RM_FOLLOWED_UNKNOWN) == sum.followed);
    CHECK(counted(IPS_RM_ASKED) == sum.asked && counted(IPS_RM_OPENED) == sum.opened);
    while (n_old) ips_remaps_free(old[--n_old]); /* nobody is in a frame */
    pthread_barrier_wait(&rest);
  }
  for (uint32_t i = 0; i < THREADS; i++) pthread_join(running[i], NULL);
  struct thread sum = all();
  CHECK(sum.followed && sum.asked && sum.opened);
  printf("%llu packets, %llu followed, %llu asked, %llu opened\n", (unsigned long long)sum.packets,
         (unsigned long long)sum.followed, (unsigned long long)sum.asked, (unsigned long long)sum.opened);
  for (uint32_t i = 0; i < THREADS; i++) ips_worker_free(threads[i].worker);
  ips_remaps_free(atomic_load(&now_set));
  ips_tables_free(tables);
  ips_sessions_free(table);
  ips_sessions_free(followed);
  ips_frag_free(frags);
  return 0;
}
