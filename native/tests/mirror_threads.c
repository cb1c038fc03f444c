/* mirror_threads.c: workers open, change and close the same sessions while the real-time thread mirrors
 * them over a network that loses: in the end both tables are equal, whatever overtook what, full rings
 * included; a change that was called committed is never missing. Built with SAN=thread it also shows that
 * there is no data race.
 */
#include "mirror_pair.h"
#include <pthread.h>
#include <sched.h>

enum { WORKERS = 3, SESSIONS = 200, CHANGES = 15000, PACED = 12000 };

struct session { uint8_t lock; bool is_open, is_confirmed; uint64_t version; uint32_t age; };
struct table { struct session s[SESSIONS]; };

static struct table tables[2];
static struct pair both;
static uint32_t running = WORKERS, committed, early, refused;

static void lock(struct session *s) { while (__atomic_exchange_n(&s->lock, 1, __ATOMIC_ACQUIRE)); }
static void unlock(struct session *s) { __atomic_store_n(&s->lock, 0, __ATOMIC_RELEASE); }

static struct ips_session_rec record_of(uint32_t number, const struct session *s) {
  struct ips_session_rec r = {.flow = {.family = 4, .proto = 6, .src_port = (uint16_t)number}, .kind = 1,
                              .state = IPS_STATE_OPEN, .version = s->version, .age_s = s->age};
  r.flow.src[0] = 10;
  return r;
}

static size_t scan(void *arg, uint64_t *cursor, struct ips_session_rec *out, size_t room) {
  struct table *t = arg;
  size_t n = 0;
  for (; *cursor < SESSIONS && n < room; ++*cursor) {
    struct session *s = &t->s[*cursor];
    lock(s);
    if (s->is_open) out[n++] = record_of((uint32_t)*cursor, s);
    unlock(s);
  }
  if (*cursor == SESSIONS) *cursor = UINT64_MAX;
  return n;
}

static int apply(void *arg, int op, const struct ips_session_rec *r) {
  struct session *s = &((struct table *)arg)->s[r->flow.src_port];
  s->is_confirmed = true;
  if (s->is_open && s->version >= r->version) return 0;
  s->is_open = op == IPS_SESSION_UPSERT;
  s->version = r->version;
  s->age = r->age_s;
  return 0;
}

static void begin_snapshot(void *arg, int shard, bool is_new_origin) {
  struct table *t = arg;
  CHECK(shard == -1);
  for (uint32_t i = 0; i < SESSIONS; i++) {
    t->s[i].is_confirmed = false;
    if (is_new_origin) t->s[i].version = 0;
  }
}

static void end_snapshot(void *arg, int shard, bool is_complete) {
  struct table *t = arg;
  (void)shard;
  for (uint32_t i = 0; i < SESSIONS && is_complete; i++) t->s[i].is_open &= t->s[i].is_confirmed;
}

static int digest(void *arg, bool begins, uint64_t *sums) {
  struct table *t = arg;
  (void)begins;
  memset(sums, 0, IPS_MIRROR_SHARDS * sizeof *sums);
  for (uint32_t i = 0; i < SESSIONS; i++) {
    struct ips_session_rec r = record_of(i, &t->s[i]);
    if (t->s[i].is_open) sums[ips_mirror_shard(&r.flow)] += ips_mirror_digest(&r);
  }
  return 1;
}

/* One change, pushed under the session's lock. Its number in the ring. */
static uint64_t change(uint32_t worker, uint32_t number, uint32_t random) {
  struct session *s = &tables[0].s[number];
  lock(s);
  bool closes = s->is_open && random % 3 == 0;
  s->is_open = !closes;
  s->version++;
  s->age = random;
  struct ips_session_rec r = record_of(number, s);
  uint64_t at = ips_mirror_push(both.node[0].m, worker, closes ? IPS_SESSION_DELETE : IPS_SESSION_UPSERT, &r);
  unlock(s);
  return at;
}

static void *work(void *arg) {
  uint32_t worker = *(uint32_t *)arg, random = 99 + worker;
  for (uint32_t i = 0; i < CHANGES; i++) {
    random = random * 1664525 + 1013904223;
    uint64_t at = change(worker, (random >> 8) % SESSIONS, random >> 4);
    if (!at) __atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
    if (at && ips_mirror_committed(both.node[0].m, worker, at + 1) == IPS_COMMIT_DONE)
      __atomic_fetch_add(&early, 1, __ATOMIC_RELAXED); /* one that does not exist yet */
    /* At first in measure, waiting for the standby now and then; at last as fast as it goes. */
    for (uint32_t wait = 0; at && i < PACED && i % 16 == 0 && wait < 1000; wait++, sched_yield())
      if (ips_mirror_committed(both.node[0].m, worker, at) == IPS_COMMIT_DONE) {
        __atomic_fetch_add(&committed, 1, __ATOMIC_RELAXED);
        break;
      }
  }
  __atomic_fetch_sub(&running, 1, __ATOMIC_RELEASE);
  return NULL;
}

static uint32_t differences(void) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < SESSIONS; i++) {
    const struct session *a = &tables[0].s[i], *b = &tables[1].s[i];
    n += a->is_open != b->is_open || (a->is_open && (a->version != b->version || a->age != b->age));
  }
  return n;
}

int main(void) {
  void *args[2] = {&tables[0], &tables[1]};
  struct ips_mirror_config c = {.workers = WORKERS, .ring = 64, .window = 64, .tombstones = 4096, .burst = 64,
                                .scan = 128, .rto_ns = 5000000, .idle_ns = 10000000, .backoff_ns = 5000000,
                                .digest_ns = 20000000, .source = {.scan = scan},
                                .sink = {.apply = apply, .begin_snapshot = begin_snapshot,
                                         .end_snapshot = end_snapshot, .digest = digest}};
  pair_new(&both, c, args);
  while (!pair_ready(&both)) pair_step(&both, 0);
  pthread_t threads[WORKERS];
  uint32_t index[WORKERS];
  for (uint32_t i = 0; i < WORKERS; i++) {
    index[i] = i;
    CHECK(pthread_create(&threads[i], NULL, work, &index[i]) == 0);
  }
  while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) pair_step(&both, 50);
  for (uint32_t i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
  uint32_t steps = 0;
  while (!pair_ready(&both) && steps++ < 20000) pair_step(&both, 50);
  struct ips_mirror_stats sent, got;
  ips_mirror_stats(both.node[0].m, both.now, &sent);
  ips_mirror_stats(both.node[1].m, both.now, &got);
  printf("mirror_threads: %u committed, %llu applied, %llu obsolete, %llu streams, %llu full, %u differ\n",
         committed, (unsigned long long)got.counters[IPS_M_APPLIED],
         (unsigned long long)got.counters[IPS_M_OBSOLETE], (unsigned long long)sent.counters[IPS_M_STREAMS],
         (unsigned long long)sent.counters[IPS_M_RING_FULL], differences());
  CHECK(pair_ready(&both) && differences() == 0 && early == 0);
  CHECK(sent.counters[IPS_M_RING_FULL] == refused && got.counters[IPS_M_SHARDS_DIVERGED] == 0);
  CHECK(got.counters[IPS_M_MALFORMED] == 0 && sent.counters[IPS_M_ACKS_BAD] == 0);
  pair_free(&both);
  return 0;
}
