/* ips_bench_mirror.c: what `ipshare bench mirror` times: an active node and its standby in one thread, with a
 * network between them that delays and loses, in its own time.
 *
 * Each node's work is timed apart, in this thread's processor time: pushing is the workers' and counts to
 * neither. The network's time goes on by a millisecond a round. The sessions are made by rule, the standby
 * adds up what it is told: so the end is checked, and no table is part of the figure.
 */
#include "ips_mirror.h"
#include "ips_seal.h"
#include <stdlib.h>
#include <time.h>

enum { MS = 1000000, FLIGHT = 1 << 15, WORKERS = 2 };

struct datagram { uint64_t due_ns; uint32_t to, len; uint8_t bytes[IPS_SEAL_DATAGRAM]; };
struct bench {
  struct ips_seal *seals[2];
  struct ips_mirror *m[2];
  struct datagram *way;
  uint64_t first, last;        /* of the way: a queue, as every delay is the same */
  uint64_t now_ns, delay_ns, random, loss_ppm, lost;
  uint32_t from;
  uint64_t cpu_ns[2], sessions, pushed, sum; /* sum: of what the standby was told */
};

static uint64_t cpu_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t draw(struct bench *b) {
  b->random = b->random * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(b->random >> 32);
}

static void random_octets(void *arg, uint8_t *out, size_t n) {
  while (n--) out[n] = (uint8_t)draw(arg);
}

/* Session number i: half of them IPv6, as port-translating tables have them. */
static struct ips_session_rec session(uint64_t i) {
  struct ips_session_rec r = {
    .flow = {.family = i & 1 ? 6 : 4, .proto = 6, .realm = 1, .src_port = (uint16_t)i, .dst_port = 443},
    .mapped_port = (uint16_t)(i * 7 | 1), .kind = IPS_SESSION_NAPT, .state = IPS_STATE_OPEN, .version = 1 + i,
    .age_s = 60, .idle_ms = 40, .packets = {10 + (i & 255), 9}, .bytes = {1500 + (i & 0xffff), 900}};
  memcpy(r.flow.src, &i, r.flow.family == 6 ? 8 : 4);
  r.flow.dst[0] = 198, r.mapped[0] = 203;
  return r;
}

static size_t scan(void *arg, uint64_t *cursor, struct ips_session_rec *out, size_t room) {
  const struct bench *b = arg;
  size_t n = 0;
  for (; n < room && *cursor < b->sessions; ++*cursor) out[n++] = session(*cursor);
  if (*cursor == b->sessions) *cursor = UINT64_MAX;
  return n;
}
static int apply(void *arg, int op, const struct ips_session_rec *r) {
  (void)op;
  ((struct bench *)arg)->sum += r->version * 31 + r->bytes[0];
  return 0;
}
static void mark_snapshot(void *arg, int shard, bool yes) { (void)arg, (void)shard, (void)yes; }
static int digest(void *arg, bool begins, uint64_t *sums) { return (void)arg, (void)begins, (void)sums, -1; }

static void emit(void *arg, uint32_t peer, const uint8_t *bytes, size_t len) {
  struct bench *b = arg;
  (void)peer;
  if (draw(b) % 1000000 < b->loss_ppm || b->last - b->first == FLIGHT) {
    b->lost++;
    return;
  }
  struct datagram *d = &b->way[b->last++ % FLIGHT];
  d->due_ns = b->now_ns + b->delay_ns;
  d->to = b->from ^ 1;
  d->len = (uint32_t)len;
  memcpy(d->bytes, bytes, len);
}

static void round_of(struct bench *b) {
  b->now_ns += MS;
  for (; b->first != b->last && b->way[b->first % FLIGHT].due_ns <= b->now_ns; b->first++) {
    const struct datagram *d = &b->way[b->first % FLIGHT];
    uint64_t begin = cpu_now();
    ips_mirror_input(b->m[d->to], 0, d->bytes, d->len, b->now_ns);
    b->cpu_ns[d->to] += cpu_now() - begin;
  }
  for (b->from = 0; b->from < 2; b->from++) {
    uint64_t begin = cpu_now();
    ips_mirror_tick(b->m[b->from], b->now_ns, emit, b);
    b->cpu_ns[b->from] += cpu_now() - begin;
  }
}

static bool is_done(const struct bench *b) {
  struct ips_mirror_stats s;
  ips_mirror_stats(b->m[0], b->now_ns, &s);
  return s.peers[0].is_ready && s.peers[0].lag_events == 0;
}

static bool start(struct bench *b, uint32_t window, uint32_t ring) {
  struct ips_mirror_config c = {
    .workers = WORKERS, .ring = ring, .window = window, .tombstones = 1024, .burst = window, .scan = 1 << 16,
    .n_peers = 1, .rto_ns = 20 * MS, .idle_ns = 50 * MS, .backoff_ns = 100 * MS,
    .source = {.arg = b, .scan = scan},
    .sink = {.arg = b, .apply = apply, .begin_snapshot = mark_snapshot, .end_snapshot = mark_snapshot,
             .digest = digest}};
  b->way = malloc(FLIGHT * sizeof *b->way);
  for (uint32_t i = 0; i < 2; i++) {
    struct ips_seal_config s = {.id = {(uint8_t)(1 + i)}, .peer = {(uint8_t)(2 - i)}, .boot = 1 + i,
                                .n_keys = 1, .hello_ns = 20 * MS, .silence_ns = 1000ull * MS};
    b->seals[i] = c.seals[0] = ips_seal_new(&s, random_octets, b);
    b->m[i] = b->seals[i] ? ips_mirror_new(&c) : NULL;
  }
  return b->way && b->m[0] && b->m[1] && ips_mirror_set_role(b->m[0], true, 1);
}

static void stop(struct bench *b) {
  for (uint32_t i = 0; i < 2; i++) {
    ips_mirror_free(b->m[i]);
    ips_seal_free(b->seals[i]);
  }
  free(b->way);
}

/* As many as the rings take in this round, and no more than `rate` of them. */
static void push(struct bench *b, uint64_t n, uint64_t rate, uint32_t ring) {
  for (uint32_t w = 0; w < WORKERS; w++)
    for (uint64_t i = 0; i < rate / WORKERS && b->pushed < n; i++) {
      const struct ips_mirror_ring *r = &b->m[0]->rings[w];
      if (r->head - r->tail >= ring / 2) break; /* one that falls behind shows in the figure */
      struct ips_session_rec rec = session(b->pushed++);
      ips_mirror_push(b->m[0], w, IPS_SESSION_UPSERT, &rec);
    }
}

int ips_bench_mirror(struct ips_mirror_bench *out, uint64_t events, uint64_t sessions, uint64_t rate,
                     uint32_t loss_ppm, uint64_t round_trip_ns) {
  enum { WINDOW = 2048, RING = 1 << 14, PATIENCE = 1000 * 1000 };
  struct bench b = {.now_ns = 1000ull * MS, .random = 5, .delay_ns = round_trip_ns / 2};
  bool fine = start(&b, WINDOW, RING);
  uint64_t begin_ns = b.now_ns, rounds = 0, wanted = 0;
  b.sessions = sessions;
  for (; fine && !sessions && !is_done(&b) && rounds < PATIENCE; rounds++) round_of(&b);
  if (!sessions) begin_ns = b.now_ns, b.cpu_ns[0] = b.cpu_ns[1] = 0;
  b.loss_ppm = loss_ppm;
  b.sum = 0;
  for (rounds = 0; fine && (b.pushed < events || !is_done(&b)) && rounds < PATIENCE; rounds++) {
    push(&b, events, rate, RING);
    round_of(&b);
  }
  for (uint64_t i = 0; i < events + sessions; i++) {
    struct ips_session_rec r = session(i);
    wanted += r.version * 31 + r.bytes[0];
  }
  fine = fine && rounds < PATIENCE && b.sum == wanted;
  struct ips_mirror_stats s = {0};
  if (fine) ips_mirror_stats(b.m[0], b.now_ns, &s);
  *out = (struct ips_mirror_bench){
    .sender_ns = b.cpu_ns[0], .receiver_ns = b.cpu_ns[1], .network_ns = b.now_ns - begin_ns, .lost = b.lost,
    .memory = fine ? ips_mirror_memory(b.m[0]) : 0,
    .datagrams = s.counters[IPS_M_DATAGRAMS_SENT] + s.counters[IPS_M_DATAGRAMS_RESENT],
    .resent = s.counters[IPS_M_DATAGRAMS_RESENT], .streams = s.counters[IPS_M_STREAMS]};
  stop(&b);
  return fine ? 0 : -1;
}
