/* fuzz_image.c: bytes as a table image. What the fuzzer cannot guess is mended (magic, sizes, digest), so
 * that it reaches the judgement of records; then a second image, if there are bytes left, against the first.
 *
 * Claims: no crash; a refused image changes nothing; what was taken reads back as an image that is
 * taken again and has the same digest; every address that is bound to an end point that this node maps back
 * is either found there or no address of its own.
 */
#include "../tests/image.h"
#include "ips_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { ROOM = 1 << 16 };

/* Header fields from the fuzzer: flags, roles, counts; then records until the bytes end. */
static size_t mend_image(uint8_t *out, const uint8_t *data, size_t n, uint64_t base) {
  struct ips_image_header h = {.magic = IPS_IMAGE_MAGIC, .version = IPS_IMAGE_VERSION,
                               .header_bytes = sizeof h, .network_bytes = sizeof(struct ips_network_rec),
                               .endpoint_bytes = sizeof(struct ips_endpoint_rec),
                               .policy_bytes = sizeof(struct ips_policy_rec),
                               .member_bytes = sizeof(struct ips_member_rec),
                               .peer_bytes = sizeof(struct ips_peer_rec),
                               .binding_bytes = sizeof(struct ips_binding_rec), .reply_policy = IPS_NONE};
  if (n < 6) return 0;
  h.flags = data[0] & 3, h.roles = data[1] & 31;
  h.n_networks = data[2] % 8, h.n_endpoints = data[3] % 8;
  h.n_policies = data[4] % 4, h.n_members = data[5] % 8;
  h.n_peers = data[0] >> 2 & 7;
  if (h.flags & IPS_IMAGE_DELTA) h.base_generation = base;
  if (data[5] & 128) h.reply_policy = 0;
  data += 6, n -= 6;
  size_t fixed = h.n_networks * sizeof(struct ips_network_rec) +
                 h.n_endpoints * sizeof(struct ips_endpoint_rec) +
                 h.n_policies * sizeof(struct ips_policy_rec) + h.n_members * sizeof(struct ips_member_rec) +
                 h.n_peers * sizeof(struct ips_peer_rec);
  if (n < fixed || n > ROOM - sizeof h) return 0;
  h.n_bindings = (uint32_t)((n - fixed) / sizeof(struct ips_binding_rec));
  n = fixed + h.n_bindings * sizeof(struct ips_binding_rec);
  memcpy(out + sizeof h, data, n);
  h.total_bytes = sizeof h + n;
  h.digest = ips_digest(out + sizeof h, n);
  memcpy(out, &h, sizeof h);
  return h.total_bytes;
}

/* Networks of whole /8s are sound, but each costs megabytes: the fuzzer has no time for them. */
static bool is_small(const uint8_t *image) {
  struct ips_image_header h;
  memcpy(&h, image, sizeof h);
  for (uint32_t i = 0; i < h.n_networks; i++) {
    const uint8_t *net = image + sizeof h + i * sizeof(struct ips_network_rec);
    if (net[offsetof(struct ips_network_rec, family)] == 4 &&
        net[offsetof(struct ips_network_rec, prefix_len)] < 18)
      return false;
  }
  for (uint32_t i = 0; i < h.n_policies; i++) {
    size_t at = sizeof h + h.n_networks * sizeof(struct ips_network_rec) +
                h.n_endpoints * sizeof(struct ips_endpoint_rec);
    struct ips_policy_rec p;
    memcpy(&p, image + at + i * sizeof p, sizeof p);
    if (p.table_size > 70000) return false;
  }
  return true;
}

static void check_maps(const struct ips_tables *t, const uint8_t *image) {
  const struct ips_root *r = ips_tables_live(t);
  struct ips_image_header h;
  memcpy(&h, image, sizeof h);
  const uint8_t *at = image + h.total_bytes - h.n_bindings * sizeof(struct ips_binding_rec);
  for (uint32_t i = 0; i < h.n_bindings; i++) {
    struct ips_binding_rec b;
    struct ips_hit there, back;
    memcpy(&b, at + i * sizeof b, sizeof b);
    if (b.family != 4 && b.family != 6) continue;
    if (!ips_find_global(r, b.family, b.global, b.global, &there) || there.endpoint == IPS_NONE) continue;
    CHECK(there.endpoint < h.n_endpoints);
    if (!ips_find_local(r, b.family, there.address, &back) || back.kind == IPS_KIND_NONE) continue;
    CHECK(back.endpoint < h.n_endpoints && ips_in_network(r, b.family, back.address));
  }
}

static void check_reads_back(const struct ips_tables *t) {
  size_t n = ips_tables_dump(t, NULL, 0);
  uint8_t *image = malloc(n);
  struct ips_tables *other = ips_tables_new(1);
  struct ips_tables_info one, two;
  struct ips_load_status st;
  CHECK(other && ips_tables_dump(t, image, n) == n);
  uint64_t generation = ips_tables_prepare(other, image, n, &st);
  CHECK(generation && ips_tables_commit(other, generation) == 0);
  ips_tables_info(t, &one);
  ips_tables_info(other, &two);
  CHECK(one.digest == two.digest && one.settings == two.settings && one.n_bindings == two.n_bindings);
  ips_tables_free(other);
  free(image);
}

static uint64_t load(struct ips_tables *t, const uint8_t *data, size_t n, uint64_t base) {
  static uint8_t image[ROOM];
  struct ips_load_status st;
  struct ips_tables_info before, after;
  size_t bytes = mend_image(image, data, n, base);
  if (bytes == 0 || !is_small(image)) return 0;
  ips_tables_info(t, &before);
  uint64_t generation = ips_tables_prepare(t, image, bytes, &st);
  ips_tables_info(t, &after);
  CHECK(before.generation == after.generation && before.digest == after.digest);
  CHECK((generation != 0) == (st.error == IPS_LOAD_OK));
  if (!generation) return 0;
  CHECK(ips_tables_commit(t, generation) == 0);
  check_maps(t, image);
  check_reads_back(t);
  return generation;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n < 2) return 0;
  size_t first = 2 + ((size_t)data[0] << 8 | data[1]);
  if (first > n) first = n;
  struct ips_tables *t = ips_tables_new(1);
  uint64_t generation = load(t, data + 2, first - 2, 0);
  if (generation && first < n && load(t, data + first, n - first, generation)) {
    CHECK(ips_tables_rollback(t));
    ips_tables_reclaim(t);
    check_reads_back(t);
  }
  ips_tables_free(t);
  return 0;
}
