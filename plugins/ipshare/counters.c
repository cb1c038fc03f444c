/* counters.c: counter cells in VPP's stats segment.
 *
 * A cell of the core (packets, bytes) has the layout of a combined counter, so each worker counts straight into
 * its own vector of /ipshare/cells and nobody copies. The vectors get their full size before anything counts and
 * never grow: a segment that is exhausted ends VPP, so the room is checked first.
 */
#include <ipshare/ipshare.h>
#include <vlib/stats/stats.h>
#include <vnet/api_errno.h>

STATIC_ASSERT_SIZEOF (struct ips_cell, sizeof (vlib_counter_t));

#define SLACK (4 << 20) /* what VPP itself may still want of the segment */

void
ipshare_stats_space (u64 *free_bytes, u64 *size)
{
  vlib_stats_segment_t *sm = vlib_stats_get_segment ();
  *free_bytes = clib_mem_get_heap_free_space (sm->heap);
  *size = clib_mem_get_heap_size (sm->heap);
}

int
ipshare_counters_create (ipshare_main_t *im, u32 cells, u64 *needed)
{
  u32 n_threads = vlib_get_n_threads ();
  u64 bytes = (u64) n_threads * ((u64) cells * sizeof (vlib_counter_t) + CLIB_CACHE_LINE_BYTES), free_bytes, size;
  *needed = 0;
  if (cells)
    {
      ipshare_stats_space (&free_bytes, &size);
      if (bytes + SLACK > free_bytes)
	{
	  *needed = size - free_bytes + bytes + 2 * SLACK;
	  return VNET_API_ERROR_LIMIT_EXCEEDED;
	}
      im->cells.name = "ipshare-cells";
      im->cells.stat_segment_name = "/ipshare/cells";
      vlib_validate_combined_counter (&im->cells, cells - 1);
    }
  for (u32 i = 0; i < n_threads; i++)
    {
      struct ips_cell *at = cells ? (struct ips_cell *) im->cells.counters[i] : NULL;
      if (at)
	clib_memset (at, 0, (u64) cells * sizeof *at); /* also makes every page resident, before packets touch it */
      ips_worker_set_counters (im->threads[i].core, im->threads[i].counters, at, cells);
    }
  return 0;
}

static void
clear (ipshare_main_t *im, struct ips_cell_range range)
{
  u32 end = clib_min ((u64) range.first + range.n, im->counter_cells);
  for (u32 i = 0; i < vec_len (im->threads); i++)
    {
      struct ips_drop_cell *drops = im->threads[i].counters->drops;
      if (range.first < end)
	memset (im->cells.counters[i] + range.first, 0, (end - range.first) * sizeof (vlib_counter_t));
      for (u32 k = 0; k < IPS_DROP_CELLS; k++)
	if (drops[k].packets && drops[k].counter - range.first < range.n)
	  __atomic_store_n (&drops[k].packets, 0, __ATOMIC_RELEASE);
    }
}

bool
ipshare_counters_clear_fresh (ipshare_main_t *im)
{
  size_t n = ips_tables_fresh_cells (im->tables, NULL, 0);
  if (n == 0)
    return true;
  struct ips_cell_range *ranges = malloc (n * sizeof *ranges);
  if (!ranges)
    return false;
  ips_tables_fresh_cells (im->tables, ranges, n);
  for (size_t i = 0; i < n; i++)
    clear (im, ranges[i]);
  free (ranges);
  return true;
}
