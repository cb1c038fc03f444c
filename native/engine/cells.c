/* cells.c: counter cells that a prepared generation gives to new bindings begin at zero.
 *
 * Called between prepare and commit, when no worker can reach these cells: what they count
 * belongs to bindings that no kept generation knows any more (ips_tables_fresh_cells).
 */
#include "engine.h"
#include <stdlib.h>

static void clear(const struct engine *e, struct ips_cell_range range) {
  uint32_t kept = e->options.counter_cells;
  uint32_t end = range.first + range.n < kept ? range.first + range.n : kept;
  for (uint32_t i = 0; i < e->options.workers; i++) {
    struct ips_cell *cells = region_cells(&e->region, i);
    if (range.first < end) memset(cells + range.first, 0, (end - range.first) * sizeof *cells);
    struct ips_drop_cell *drops = region_counters(&e->region, i)->drops;
    for (uint32_t k = 0; k < IPS_DROP_CELLS; k++)
      if (drops[k].packets && drops[k].counter - range.first < range.n)
        __atomic_store_n(&drops[k].packets, 0, __ATOMIC_RELEASE);
  }
}

bool cells_clear_fresh(const struct engine *e) {
  size_t n = ips_tables_fresh_cells(e->tables, NULL, 0);
  if (n == 0) return true;
  struct ips_cell_range *ranges = malloc(n * sizeof *ranges);
  if (!ranges) return false;
  ips_tables_fresh_cells(e->tables, ranges, n);
  for (size_t i = 0; i < n; i++) clear(e, ranges[i]);
  free(ranges);
  return true;
}
