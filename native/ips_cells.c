/* ips_cells.c: which counter cell belongs to what.
 *
 * An IPv4 network owns a run of cells, one for each of its addresses; an IPv6 binding owns
 * one. A prefix keeps its cell from generation to generation, whatever it is bound to.
 * Cells are not counted back one by one: they are given out upwards, and when twice
 * as many were given out as the last sweep found in use, the next prepare marks what the
 * generations still kept can reach, and the rest is free. So a cell is given out again only
 * after the last generation that knew its old owner is gone and no worker can write it;
 * such cells are listed as fresh, for the host to clear before it commits.
 */
#include "ips_gen.h"

enum { SWEEP_FLOOR = 4096 };

static bool is_used(const struct ips_cells *c, uint32_t cell) {
  return c->used[cell / 64] >> (cell % 64) & 1;
}

static void mark(struct ips_cells *c, uint32_t first, uint32_t n) {
  for (uint32_t i = first; i < first + n;) {
    if (i % 64 == 0 && first + n - i >= 64) {
      c->used[i / 64] = UINT64_MAX;
      i += 64;
    } else {
      c->used[i / 64] |= 1ull << (i % 64);
      i++;
    }
  }
}

static bool reserve(struct ips_mem *m, struct ips_cells *c, uint32_t top) {
  uint32_t words = (top + 63) / 64;
  if (words <= c->words) return true;
  words += words / 2 + 64;
  uint64_t *used = ips_alloc_grow(m, c->used, words * sizeof *used);
  if (!used) return false;
  c->used = used;
  c->words = words;
  return true;
}

static bool note_fresh(struct ips_mem *m, struct ips_cells *c, uint32_t first, uint32_t n) {
  struct ips_cell_range *last = c->n_fresh ? c->fresh + c->n_fresh - 1 : NULL;
  if (last && last->first + last->n == first) {
    last->n += n;
    return true;
  }
  if (c->n_fresh == c->room_fresh) {
    uint32_t room = c->room_fresh * 2 + 16;
    struct ips_cell_range *wider = ips_alloc_grow(m, c->fresh, room * sizeof *wider);
    if (!wider) return false;
    c->fresh = wider;
    c->room_fresh = room;
  }
  c->fresh[c->n_fresh++] = (struct ips_cell_range){first, n};
  return true;
}

/* First of n free neighbours below top, or IPS_NONE. */
static uint32_t find_run(struct ips_cells *c, uint32_t n) {
  uint32_t run = 0;
  for (uint32_t i = n == 1 ? c->cursor : 0; i < c->top; i++) {
    if (i % 64 == 0 && c->used[i / 64] == UINT64_MAX) {
      run = 0;
      i += 63;
      continue;
    }
    run = is_used(c, i) ? 0 : run + 1;
    if (run == n) return i + 1 - n;
  }
  return IPS_NONE;
}

uint32_t ips_cells_take(struct ips_mem *m, struct ips_cells *c, uint32_t n) {
  uint32_t first = c->free >= n ? find_run(c, n) : IPS_NONE;
  if (first != IPS_NONE) {
    if (!note_fresh(m, c, first, n)) return IPS_NONE;
    c->free -= n;
    if (n == 1) c->cursor = first + 1;
  } else {
    first = c->top;
    if (n > IPS_CELLS_MAX - first) return IPS_CELLS_EXHAUSTED;
    if (!reserve(m, c, first + n)) return IPS_NONE;
    c->top += n;
  }
  mark(c, first, n);
  return first;
}

void ips_cells_sweep_begin(struct ips_cells *c) { memset(c->used, 0, c->words * sizeof *c->used); }
void ips_cells_sweep_keep(struct ips_cells *c, uint32_t first, uint32_t n) { mark(c, first, n); }
void ips_cells_sweep_later(struct ips_cells *c, uint32_t in_use) { c->sweep_at = 2 * in_use + SWEEP_FLOOR; }
void ips_cells_sweep_end(struct ips_cells *c) {
  uint32_t in_use = 0;
  for (uint32_t i = 0; i < c->words; i++) in_use += (uint32_t)__builtin_popcountll(c->used[i]);
  c->free = c->top - in_use;
  c->cursor = 0;
  ips_cells_sweep_later(c, in_use);
}
