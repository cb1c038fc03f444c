/* sessions_threads.c: four workers open, use, look up, end, scan and expire the same few flows, through
 * port-translating NAT with too few ports, sessions and half-open places for all of them.
 *
 * While they run: a scanned record is never a mixture of two sessions. Whenever they rest: no flow twice, no
 * public port of two inside endpoints, no inside endpoint with two public ones, and as many bits set as
 * there are mappings. At the end nothing is left: no session, mapping, port, or half-open flow on anybody's
 * account, and the last thing told about every flow is that it ended. With SAN=thread also: no data race.
 */
#include "check.h"
#include "ips_napt.h"
#include "ips_tcp.h"
#include <pthread.h>
#include <stdio.h>

enum { WORKERS = 4, ROUNDS = 12, OPS = 3000, HOSTS = 8, PORTS = 8, REMOTES = 4, PER = HOSTS * PORTS * REMOTES,
       FLOWS = 2 * PER, ROOM = 512 };
#define SECOND 1000000000ull

static struct ips_sessions *table;
static struct ips_napt *napt;
static pthread_barrier_t rest;
static uint64_t now = SECOND, told[FLOWS]; /* highest version << 1 | it ended */

struct random { uint32_t state; };
static uint32_t draw(struct random *r, uint32_t n) {
  r->state = r->state * 1664525 + 1013904223;
  return (uint32_t)((uint64_t)(r->state >> 4) * n >> 28);
}

/* Every field follows from the number, so that a torn record shows. */
static struct ips_flow flow_of(uint32_t i) {
  uint32_t host = i % HOSTS, port = i / HOSTS % PORTS, remote = i / HOSTS / PORTS % REMOTES;
  struct ips_flow f = {.src = {10, 0, 0, (uint8_t)host}, .dst = {198, 51, 100, (uint8_t)remote}, .family = 4,
                       .src_port = (uint16_t)(1000 + port), .realm = 3};
  f.proto = i < PER ? IPS_PROTO_UDP : IPS_PROTO_TCP;
  f.dst_port = (uint16_t)(5000 + host * 64 + port * 8 + remote);
  return f;
}
static uint32_t number_of(const struct ips_flow *f) {
  uint32_t i = f->src[3] + HOSTS * (f->src_port - 1000u + PORTS * f->dst[3]);
  i += f->proto == IPS_PROTO_TCP ? PER : 0;
  struct ips_flow same = flow_of(i % FLOWS);
  CHECK(i < FLOWS && memcmp(f, &same, sizeof same) == 0);
  return i;
}

static void heard(void *arg, uint32_t worker, int op, const struct ips_session_rec *r) {
  uint64_t *at = &told[number_of(&r->flow)], mine = r->version << 1 | (op == IPS_SESSION_DELETE);
  uint64_t had = __atomic_load_n(at, __ATOMIC_RELAXED);
  (void)arg, (void)worker;
  CHECK(r->version > 0 && mine >> 1 != had >> 1);
  while (had < mine &&
         !__atomic_compare_exchange_n(at, &had, mine, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

static uint32_t build(uint8_t *b, const uint8_t *src, const uint8_t *dst, uint16_t sport, uint16_t dport,
                      uint8_t proto, uint8_t flags) {
  uint32_t len = proto == IPS_PROTO_TCP ? 40 : 28;
  memset(b, 0, len);
  b[0] = 0x45;
  b[3] = (uint8_t)len;
  b[8] = 9;
  b[9] = proto;
  memcpy(b + 12, src, 4);
  memcpy(b + 16, dst, 4);
  ips_st16(b + 10, (uint16_t)~ips_csum_fold(ips_csum_bytes(b, 20, 0)));
  ips_st16(b + 20, ips_be16(sport));
  ips_st16(b + 22, ips_be16(dport));
  if (proto == IPS_PROTO_TCP) b[33] = flags;
  return len;
}

/* From inside; where it went out, perhaps an answer to it. */
static void converse(struct random *r, uint32_t worker, uint64_t at) {
  static const uint8_t kinds[] = {IPS_TCP_SYN, IPS_TCP_SYN, IPS_TCP_ACK, IPS_TCP_FIN | IPS_TCP_ACK,
                                  IPS_TCP_RST};
  struct ips_flow f = flow_of(draw(r, FLOWS));
  uint8_t b[40];
  struct ips_pkt p = {.data = b};
  p.len = p.total_len = build(b, f.src, f.dst, f.src_port, f.dst_port, f.proto, kinds[draw(r, sizeof kinds)]);
  if (ips_napt_out(napt, &p, worker, at) != IPS_OK || !draw(r, 3)) return;
  uint8_t src[4], dst[4];
  memcpy(dst, b + 12, 4);
  memcpy(src, b + 16, 4);
  p.len = p.total_len =
      build(b, src, dst, f.dst_port, ips_be16(ips_ld16(b + 20)), f.proto, kinds[1 + draw(r, 4)]);
  ips_napt_in(napt, &p, worker, at); /* whoever has the port by now */
}

static void look(struct random *r, uint64_t at) {
  struct ips_session_rec rec;
  uint64_t cursor = draw(r, 400);
  for (unsigned i = 0; i < 8 && ips_sessions_scan(table, &cursor, at, &rec, 1); i++) {
    number_of(&rec.flow);
    CHECK(rec.mapped[0] == 203 && rec.mapped_port >= 2000 && rec.mapped_port < 2100 && rec.version > 0);
  }
  struct ips_flow f = flow_of(draw(r, FLOWS));
  if (ips_sessions_get(table, &f, at, &rec)) CHECK(memcmp(&rec.flow, &f, sizeof f) == 0);
}

static uint32_t bits_set(void) {
  struct ips_napt_address a[4];
  size_t n = ips_napt_addresses(napt, a, 4);
  uint32_t bits = 0;
  for (size_t i = 0; i < n; i++) bits += a[i].tcp + a[i].udp + a[i].icmp + a[i].whole;
  return bits;
}

static void all_is_well(void) {
  static struct ips_session_rec all[ROOM];
  struct ips_sessions_stats s;
  uint64_t cursor = 0;
  size_t n = ips_sessions_scan(table, &cursor, now, all, ROOM);
  ips_sessions_stats(table, &s);
  CHECK(n == s.sessions && s.sessions <= s.capacity && s.half_open <= s.half_open_capacity);
  CHECK(s.mappings == bits_set());
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < i; k++) {
      const struct ips_session_rec *a = &all[i], *b = &all[k];
      bool inside = a->flow.proto == b->flow.proto && a->flow.src_port == b->flow.src_port &&
                    !memcmp(a->flow.src, b->flow.src, 16);
      bool outside = a->flow.proto == b->flow.proto && a->mapped_port == b->mapped_port &&
                     !memcmp(a->mapped, b->mapped, 16);
      CHECK(inside == outside && memcmp(&a->flow, &b->flow, sizeof a->flow));
    }
}

static void *work(void *arg) {
  uint32_t worker = *(uint32_t *)arg;
  struct random r = {worker * 7919 + 1};
  for (unsigned round = 0; round < ROUNDS; round++) {
    for (unsigned i = 0; i < OPS; i++) {
      uint64_t at = __atomic_add_fetch(&now, SECOND / 100, __ATOMIC_RELAXED);
      struct ips_flow f = flow_of(draw(&r, FLOWS));
      uint32_t what = draw(&r, 16);
      if (what == 0) ips_sessions_close(table, worker, &f, at);
      else if (what == 1) ips_sessions_expire(table, worker, at, 16);
      else if (what == 2) look(&r, at);
      else converse(&r, worker, at);
    }
    pthread_barrier_wait(&rest);
    if (worker == 0) all_is_well();
    pthread_barrier_wait(&rest);
  }
  return NULL;
}

static void all_is_gone(void) {
  struct ips_sessions_stats s;
  uint64_t at = __atomic_load_n(&now, __ATOMIC_RELAXED) + 100000 * SECOND;
  ips_sessions_expire(table, 0, at, ips_sessions_buckets(table));
  ips_sessions_stats(table, &s);
  CHECK(s.sessions == 0 && s.half_open == 0 && s.mappings == 0 && bits_set() == 0);
  for (unsigned row = 0; row < 2; row++)
    for (uint32_t i = 0; i <= table->sources.mask; i++) CHECK(table->sources.rows[row][i] == 0);
  uint32_t heard_of = 0;
  for (uint32_t i = 0; i < FLOWS; i++) {
    CHECK(!told[i] || (told[i] & 1));
    heard_of += told[i] != 0;
  }
  CHECK(s.opened == s.ended && heard_of > FLOWS / 2);
  printf("sessions_threads: %llu flows opened, %llu promoted, %llu + %llu + %llu + %llu refused, none left\n",
         (unsigned long long)s.opened, (unsigned long long)s.promoted, (unsigned long long)s.full,
         (unsigned long long)s.half_open_full, (unsigned long long)s.source_limit,
         (unsigned long long)s.ports_exhausted);
  fflush(stdout);
  CHECK(s.full && s.half_open_full && s.source_limit && s.ports_exhausted && s.expired);
}

int main(void) {
  struct ips_sessions_config c = {.sessions = 140, .half_open = 16, .half_open_per_source = 4, .seed = 11,
                                  .now_ns = now,
                                  .timeouts = {.tcp_opening = 100, .tcp_open = 400, .tcp_closing = 50,
                                               .udp = 60, .refresh = 5}};
  struct ips_napt_pool_rec pool = {.first = {203, 0, 113, 1}, .n = 1, .realm = 3, .family = 4,
                                   .first_port = 2000, .last_port = 2039};
  struct ips_napt_inside_rec inside = {.prefix = {10}, .family = 4, .prefix_len = 8, .realm = 3};
  struct ips_napt_config nc = {.pools = &pool, .insides = &inside, .n_pools = 1, .n_insides = 1, .seed = 5};
  table = ips_sessions_new(&c);
  napt = ips_napt_new(table, NULL, &nc);
  CHECK(napt);
  ips_sessions_on_event(table, heard, NULL);
  pthread_barrier_init(&rest, NULL, WORKERS);
  pthread_t threads[WORKERS];
  uint32_t index[WORKERS];
  for (uint32_t i = 0; i < WORKERS; i++) {
    index[i] = i;
    CHECK(pthread_create(&threads[i], NULL, work, &index[i]) == 0);
  }
  for (uint32_t i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
  all_is_gone();
  ips_napt_free(napt);
  ips_sessions_free(table);
  return 0;
}
