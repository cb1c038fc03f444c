/* natlog_threads.c: eight threads put records into four rings, two into each, while one takes them out.
 *
 * No record is torn, doubled or out of its producer's order; what was put is what was taken, and what was
 * refused is what was counted as lost. With SAN=thread also: no data race.
 */
#include "check.h"
#include "ips_natlog_api.h"
#include <pthread.h>
#include <sched.h>
#include <string.h>

enum { THREADS = 8, RINGS = 4, EACH = 20000, RECORDS = 64, ROOM = 50 };

static struct ips_natlog *ring;
static uint32_t done;
static uint64_t refused[THREADS];

static void *produce(void *arg) {
  uint32_t me = (uint32_t)(uintptr_t)arg;
  for (uint32_t i = 0; i < EACH; i++) {
    struct ips_natlog_rec r = {.at_ns = i, .limit = me, .event = IPS_NATLOG_SESSION_CREATE};
    memset(r.mapped, (int)(i + me), sizeof r.mapped);
    if (!ips_natlog_put(ring, me % RINGS, &r)) {
      refused[me]++;
      sched_yield();
    }
  }
  __atomic_fetch_add(&done, 1, __ATOMIC_RELEASE);
  return NULL;
}

static size_t take(uint64_t *next) {
  struct ips_natlog_rec r[ROOM];
  size_t n = ips_natlog_take(ring, r, ROOM);
  for (size_t i = 0; i < n; i++) {
    CHECK(r[i].limit < THREADS && r[i].at_ns >= next[r[i].limit] && r[i].at_ns < EACH);
    next[r[i].limit] = r[i].at_ns + 1;
    for (unsigned k = 0; k < sizeof r[i].mapped; k++) CHECK(r[i].mapped[k] == (uint8_t)(r[i].at_ns + r[i].limit));
  }
  return n;
}

int main(void) {
  pthread_t threads[THREADS];
  uint64_t next[THREADS] = {0}, taken = 0, lost = 0;
  struct ips_natlog_stats stats;
  ring = ips_natlog_new(RINGS, RECORDS);
  CHECK(ring);
  for (uintptr_t i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, produce, (void *)i));
  while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < THREADS) {
    size_t n = take(next);
    taken += n;
    if (!n) sched_yield();
  }
  for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (size_t n; (n = take(next));) taken += n;
  for (unsigned i = 0; i < THREADS; i++) lost += refused[i];
  ips_natlog_stats(ring, &stats);
  CHECK(stats.taken == taken && stats.put == taken && stats.lost == lost && taken + lost == THREADS * EACH);
  ips_natlog_free(ring);
  printf("%llu records taken, %llu lost and counted\n", (unsigned long long)taken, (unsigned long long)lost);
  return 0;
}
