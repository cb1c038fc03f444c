/* tables_race.c: workers look up while generations come, go back and are freed.
 *
 * Generation with revision r binds every address with an offset that is r; so within one
 * frame all answers, both families, both directions, must tell the same r, and it must be the
 * header's. Built with SAN=thread it shows that nobody reads what another writes; pages
 * are then allocations of their own, so a page freed too early is seen too.
 * usage: tables_race [generations]; prints generations and frames
 */
#include "image.h"
#include "ips_table.h"
#include <pthread.h>

enum { WORKERS = 2, HOSTS = 8 };

static struct ips_tables *tables;
static _Atomic int stop;
static _Atomic uint64_t frames[WORKERS], looked;

static uint16_t offset_of(uint64_t revision) { return (uint16_t)(16 + revision % 100); }

static void check_frame(const struct ips_root *r) {
  uint16_t offset = offset_of(ips_root_header(r)->revision);
  uint8_t global[16], local[16], client[16] = {198, 51, 100, 1};
  struct ips_hit h;
  for (unsigned family = 4; family <= 6; family += 2)
    for (uint16_t host = 0; host < HOSTS; host++) {
      image_address(global, family, host, false);
      CHECK(ips_find_global(r, family, global, client, &h));
      CHECK(h.kind == IPS_KIND_ENDPOINT && h.endpoint == (family == 4 ? 0 : 2));
      CHECK(h.address[family == 4 ? 3 : 15] == offset + host);
      memcpy(local, h.address, 16);
      uint32_t counter = h.counter;
      CHECK(ips_find_local(r, family, local, &h));
      CHECK(h.kind == IPS_KIND_ENDPOINT && memcmp(h.address, global, 16) == 0 && h.counter == counter);
      image_address(global, family, 250, false);
      CHECK(ips_find_global(r, family, global, client, &h) && h.kind == IPS_KIND_POLICY &&
            h.endpoint != IPS_NONE);
    }
}

static void *work(void *arg) {
  uint32_t index = (uint32_t)(uintptr_t)arg;
  uint64_t last = 0;
  while (!atomic_load(&stop)) {
    const struct ips_root *r = ips_reader_begin(tables, index);
    if (r) {
      CHECK(r->generation >= last); /* never back to an older publication */
      last = r->generation;
      for (int i = 0; i < 3; i++) check_frame(r);
      atomic_fetch_add(&looked, 1);
    }
    ips_reader_end(tables, index);
    atomic_fetch_add(&frames[index], 1);
  }
  return NULL;
}

static uint64_t prepare(uint64_t revision, uint64_t base) {
  static struct image m;
  static uint8_t raw[sizeof m];
  image_site(&m, IPS_ROLE_INNER);
  m.h.term = 1, m.h.revision = revision, m.h.base_generation = base, m.h.flags = base ? IPS_IMAGE_DELTA : 0;
  for (unsigned family = 4; family <= 6; family += 2) {
    for (uint16_t host = 0; host < HOSTS; host++)
      image_bind(&m, family, host, family == 4 ? 32 : 128, IPS_KIND_ENDPOINT, family == 4 ? 0 : 2,
                 (uint16_t)(offset_of(revision) + host));
    image_bind(&m, family, 250, family == 4 ? 32 : 128, IPS_KIND_POLICY, family == 4 ? 0 : 1, 250);
  }
  struct ips_load_status st;
  uint64_t generation = ips_tables_prepare(tables, raw, image_seal(&m, raw), &st);
  CHECK(generation && st.error == IPS_LOAD_OK);
  return generation;
}

int main(int argc, char **argv) {
  uint64_t generations = argc > 1 ? strtoull(argv[1], NULL, 10) : 3000, live = 0, x = 88172645463325252u;
  pthread_t threads[WORKERS];
  CHECK((tables = ips_tables_new(WORKERS)) != NULL);
  for (uintptr_t i = 0; i < WORKERS; i++) pthread_create(&threads[i], NULL, work, (void *)i);
  for (uint64_t i = 1; i <= generations; i++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    uint64_t generation = prepare(i, x % 3 && live ? live : 0);
    if (x / 3 % 8 == 0) {
      ips_tables_abort(tables);
    } else {
      CHECK(ips_tables_commit(tables, generation) == 0);
      live = generation;
    }
    /* Going back is followed at once: what a generation tells and its number must agree again. */
    if (x / 24 % 16 == 0 && (generation = prepare(i, 0)))
      CHECK(ips_tables_commit(tables, live = generation) == 0);
    if (x / 384 % 4 == 0) ips_tables_reclaim(tables);
  }
  struct ips_tables_info info;
  uint64_t seen[WORKERS];
  for (int i = 0; i < WORKERS; i++) seen[i] = atomic_load(&frames[i]);
  for (int i = 0; i < WORKERS; i++)
    while (atomic_load(&frames[i]) < seen[i] + 2) sched_yield();
  ips_tables_reclaim(tables);
  ips_tables_info(tables, &info);
  CHECK(info.bytes < 3000000); /* live and previous: everything before them is gone */
  atomic_store(&stop, 1);
  for (int i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
  CHECK(atomic_load(&looked) > 0);
  ips_tables_free(tables);
  printf("%llu %llu\n", (unsigned long long)generations, (unsigned long long)atomic_load(&looked));
  return 0;
}
