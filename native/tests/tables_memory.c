/* tables_memory.c: every allocation of every kind of change refused once: the error says so, nothing is
 * changed, nothing is lost. Built with SAN=address,undefined it also shows that nothing leaks.
 * prints how many refusals there were
 */
#include "image.h"
#include "ips_gen.h"

enum { CROWD = 600 };

static uint8_t raw[sizeof(struct image)];
static struct image m;
static unsigned long refusals;

static void *dump(struct ips_tables *t, size_t *n) {
  *n = ips_tables_dump(t, NULL, 0);
  void *out = malloc(*n + 1);
  CHECK(ips_tables_dump(t, out, *n) == *n);
  return out;
}

/* The image in raw: refused as often as it asks for memory, taken in the end. */
static uint64_t load(struct ips_tables *t, size_t bytes) {
  struct ips_mem *mem = ips_tables_mem(t);
  struct ips_load_status st;
  size_t before_bytes, after_bytes;
  void *before = dump(t, &before_bytes), *after;
  uint64_t generation = 0;
  for (long long allowed = 0; !generation; allowed++) {
    mem->fail_after = allowed;
    generation = ips_tables_prepare(t, raw, bytes, &st);
    mem->fail_after = -1;
    if (generation) break;
    CHECK(st.error == IPS_LOAD_NO_MEMORY);
    refusals++;
    after = dump(t, &after_bytes);
    CHECK(before_bytes == after_bytes && memcmp(before, after, before_bytes) == 0);
    free(after);
  }
  free(before);
  CHECK(ips_tables_commit(t, generation) == 0);
  ips_tables_reclaim(t);
  return generation;
}

static void bindings(unsigned shift, uint8_t kind) {
  for (unsigned family = 4; family <= 6; family += 2) {
    unsigned whole = family == 4 ? 32 : 128;
    image_bind(&m, family, 0, whole - 7, IPS_KIND_ENDPOINT, family == 4 ? 0 : 2, 0);
    for (uint16_t i = 0; i < 40; i++)
      image_bind(&m, family, (uint16_t)(2 * i + shift), whole, kind, family == 4 ? 1 : 3,
                 (uint16_t)(2 * i + shift));
    image_bind(&m, family, 128, whole, IPS_KIND_POLICY, family == 4 ? 0 : 1, 128);
    /* in a hole of the /25 */
    image_bind(&m, family, 129, whole, IPS_KIND_ENDPOINT, family == 4 ? 0 : 2, (uint16_t)(2 + shift));
  }
  for (uint16_t i = 0; i < CROWD; i++) /* so close together that they have slots besides the hash */
    image_bind(&m, 6, 1000 + i, 128, IPS_KIND_ENDPOINT, 2, 1000 + i);
}

static void refused_rollback(struct ips_tables *t) {
  ips_tables_mem(t)->fail_after = 0;
  size_t before, after;
  void *one = dump(t, &before), *other;
  CHECK(ips_tables_rollback(t) == 0);
  other = dump(t, &after);
  CHECK(before == after && memcmp(one, other, before) == 0);
  free(one);
  free(other);
  ips_tables_mem(t)->fail_after = -1;
  CHECK(ips_tables_rollback(t) != 0);
}

int main(void) {
  for (unsigned misaligned = 0; misaligned < 2; misaligned++) {
    struct ips_tables *t = ips_tables_new(2);
    image_site(&m, IPS_ROLE_INNER | IPS_ROLE_OUTER);
    bindings(0, IPS_KIND_ENDPOINT);
    uint64_t live = load(t, image_seal(&m, raw));
    image_site(&m, IPS_ROLE_INNER | IPS_ROLE_OUTER); /* a delta that changes, adds and removes */
    m.h.flags = IPS_IMAGE_DELTA, m.h.base_generation = live;
    for (unsigned family = 4; family <= 6; family += 2) {
      image_bind(&m, family, 6, family == 4 ? 32 : 128, IPS_KIND_NONE, 0, 0);
      image_bind(&m, family, 7, family == 4 ? 32 : 128, IPS_KIND_DOWN, 0, 0);
      image_bind(&m, family, 8, family == 4 ? 32 : 128, IPS_KIND_HERE, 0, 0);
    }
    live = load(t, image_seal(&m, raw));
    image_site(&m, IPS_ROLE_REPLY_GLOBAL); /* a complete one: other roles, other networks, other policies */
    m.networks[m.h.n_networks++] =
      (struct ips_network_rec){.prefix = {198, 51, 100}, .family = 4, .prefix_len = 24};
    m.policies[0].table_size = 0;
    bindings(1, IPS_KIND_HERE);
    load(t, image_seal(&m, raw));
    refused_rollback(t);
    ips_tables_free(t);
  }
  CHECK(refusals > 100);
  printf("%lu\n", refusals);
  return 0;
}
