/* tables_damage.c: an image cut at every byte, and with every bit turned, its digest mended: refused or
 * taken, but never a crash, and what is taken answers. For SAN=address,undefined.
 * prints how many were refused and how many taken
 */
#include "image.h"
#include "ips_table.h"

static struct image m;
static uint8_t raw[sizeof m];
static unsigned long refused, taken;

static void look_around(const struct ips_tables *t) {
  const struct ips_root *r = ips_tables_live(t);
  uint8_t key[16];
  struct ips_hit h;
  for (unsigned family = 4; family <= 6; family += 2)
    for (uint16_t host = 0; host < 256; host += 5) {
      image_address(key, family, host, false);
      ips_find_global_self(r, family, key, &h);
      if (ips_find_global(r, family, key, key, &h) && h.endpoint != IPS_NONE)
        ips_find_local(r, family, h.address, &h);
    }
}

/* bytes at `at` in a block of exactly that size, so that one read too far is seen. */
static void attempt(struct ips_tables *t, const uint8_t *at, size_t n) {
  struct ips_load_status st;
  uint8_t *exact = malloc(n ? n : 1);
  memcpy(exact, at, n);
  uint64_t generation = ips_tables_prepare(t, exact, n, &st);
  free(exact);
  CHECK((generation != 0) == (st.error == IPS_LOAD_OK) && st.error <= IPS_LOAD_BAD_NETWORK &&
        st.section <= 5);
  if (!generation) {
    refused++;
    return;
  }
  taken++;
  ips_tables_commit(t, generation);
  look_around(t);
  ips_tables_reclaim(t);
}

static void mend(uint8_t *at, size_t n) {
  struct ips_image_header h;
  memcpy(&h, at, sizeof h);
  h.digest = ips_digest(at + sizeof h, n - sizeof h);
  memcpy(at, &h, sizeof h);
}

int main(void) {
  image_site(&m, IPS_ROLE_INNER | IPS_ROLE_OUTER | IPS_ROLE_REPLY_GLOBAL);
  for (unsigned family = 4; family <= 6; family += 2) {
    unsigned whole = family == 4 ? 32 : 128;
    image_bind(&m, family, 0, whole - 7, IPS_KIND_ENDPOINT, family == 4 ? 0 : 2, 0);
    image_bind(&m, family, 9, whole, IPS_KIND_ENDPOINT, family == 4 ? 1 : 3, 9);
    image_bind(&m, family, 128, whole - 1, IPS_KIND_POLICY, family == 4 ? 0 : 1, 128);
    image_bind(&m, family, 200, whole, IPS_KIND_ADDRESS, family == 4 ? 0 : 2, 77);
  }
  size_t n = image_seal(&m, raw);
  struct ips_tables *t = ips_tables_new(1);
  for (size_t i = 0; i < n; i++) attempt(t, raw, i);
  CHECK(refused == n && taken == 0);
  for (size_t bit = 0; bit < 8 * n; bit++) {
    raw[bit / 8] ^= (uint8_t)(1 << bit % 8);
    if (bit / 8 >= sizeof m.h) mend(raw, n);
    attempt(t, raw, n);
    raw[bit / 8] ^= (uint8_t)(1 << bit % 8);
    if (t->control && bit % 64 == 0) { /* terms that were taken must not fence off the rest */
      ips_tables_free(t);
      t = ips_tables_new(1);
    }
  }
  ips_tables_free(t);
  CHECK(taken > 100 && refused > n + 100);
  printf("%lu %lu\n", refused, taken);
  return 0;
}
