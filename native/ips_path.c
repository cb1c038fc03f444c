/* ips_path.c: the cold half of ips_path.h. */
#include "ips_path.h"

static uint32_t first_cell(const uint8_t key[16]) {
  uint64_t h = (ips_ld64(key) ^ (ips_ld64(key + 8) * 0x9e3779b97f4a7c15ull)) * 0xff51afd7ed558ccdull;
  return (uint32_t)(h >> 40) % IPS_PATH_CELLS;
}

static struct ips_path_cell *find(const struct ips_paths *paths, const uint8_t key[16],
                                  struct ips_path_cell **free_cell) {
  uint32_t at = first_cell(key);
  for (unsigned i = 0; i < IPS_PATH_PROBES; i++) {
    struct ips_path_cell *cell = (struct ips_path_cell *)&paths->cells[(at + i) % IPS_PATH_CELLS];
    if (!atomic_load_explicit(&cell->used, memory_order_acquire)) {
      if (free_cell) *free_cell = cell;
      return NULL;
    }
    if (memcmp(cell->key, key, 16) == 0) return cell;
  }
  return NULL;
}

uint32_t ips_path_learned(const struct ips_paths *paths, const uint8_t key[16], uint64_t now_ns) {
  struct ips_path_cell *cell = find(paths, key, NULL);
  if (!cell || atomic_load_explicit(&cell->expires_ns, memory_order_acquire) <= now_ns) return 0;
  return atomic_load_explicit(&cell->mtu, memory_order_relaxed);
}

bool ips_path_learn(struct ips_paths *paths, const uint8_t key[16], uint32_t mtu, uint64_t expires_ns) {
  struct ips_path_cell *free_cell = NULL;
  while (atomic_flag_test_and_set_explicit(&paths->writing, memory_order_acquire)) {
  }
  struct ips_path_cell *cell = find(paths, key, &free_cell);
  if (!cell && free_cell && mtu) {
    cell = free_cell;
    memcpy(cell->key, key, 16);
  }
  if (cell) {
    atomic_store_explicit(&cell->mtu, mtu, memory_order_relaxed);
    atomic_store_explicit(&cell->expires_ns, mtu ? expires_ns : 0, memory_order_release);
    atomic_store_explicit(&cell->used, 1, memory_order_release);
    atomic_fetch_add_explicit(&paths->learned, 1, memory_order_release);
  }
  atomic_flag_clear_explicit(&paths->writing, memory_order_release);
  return cell != NULL || mtu == 0;
}
