/* configure.c: what has to be there before the first tables: threads' workers, counters, the two FIB tables.
 *
 * Runs once, under the worker barrier, while no packet comes to us. The plugin alone, loaded but not configured,
 * costs nothing.
 */
#include "flows.h"
#include "pair.h"
#include <vnet/fib/fib_table.h>
#include <vnet/api_errno.h>

static int
find_tables (ipshare_main_t *im, u32 *bad_table)
{
  for (fib_protocol_t proto = FIB_PROTOCOL_IP4; proto <= FIB_PROTOCOL_IP6; proto++)
    {
      u32 service = fib_table_find (proto, im->service_table), delivery = fib_table_find (proto, im->delivery_table);
      *bad_table = service == ~0 ? im->service_table : im->delivery_table;
      if (service == ~0 || delivery == ~0)
	return VNET_API_ERROR_NO_SUCH_FIB;
      im->service_fib[proto] = service;
      im->delivery_fib[proto] = delivery;
    }
  return 0;
}

static void
lock_tables (ipshare_main_t *im)
{
  for (fib_protocol_t proto = FIB_PROTOCOL_IP4; proto <= FIB_PROTOCOL_IP6; proto++)
    {
      fib_table_lock (im->service_fib[proto], proto, im->fib_source);
      fib_table_lock (im->delivery_fib[proto], proto, im->fib_source);
    }
}

static bool
make_thread (ipshare_main_t *im, u32 index)
{
  ipshare_thread_t *t = vec_elt_at_index (im->threads, index);
  t->linear = malloc (IPSHARE_LINEAR);
  t->counters = calloc (1, sizeof *t->counters);
  t->core = ips_worker_new (im->tables, index, ipshare_emit, t);
  if (!t->linear || !t->counters || !t->core)
    return false;
  ips_worker_set_coalescing (t->core, false);
  t->tap.core = t->core;
  return true;
}

static void
free_threads (ipshare_main_t *im)
{
  ipshare_thread_t *t;
  ipshare_taps_free (im);
  ipshare_flows_free (im);
  vec_foreach (t, im->threads)
    {
      free (t->linear);
      free (t->counters);
      ips_worker_free (t->core);
    }
  vec_free (im->threads);
  ips_worker_free (im->why);
  im->why = NULL;
  ips_tables_free (im->tables);
  im->tables = NULL;
}

static bool
make_threads (ipshare_main_t *im)
{
  u32 n = vlib_get_n_threads ();
  im->tables = ips_tables_new (n + 1); /* and one reader for questions */
  if (!im->tables)
    return false;
  vec_validate_aligned (im->threads, n - 1, CLIB_CACHE_LINE_BYTES);
  for (u32 i = 0; i < n; i++)
    if (!make_thread (im, i))
      return false;
  im->why = ips_worker_new (im->tables, n, ipshare_why_emit, NULL);
  if (im->why)
    {
      ips_worker_set_coalescing (im->why, false);
      im->why->asks = true;
    }
  return im->why != NULL && ipshare_taps_create (im) && ipshare_flows_create (im);
}

int
ipshare_configure (ipshare_main_t *im, u32 service, u32 delivery, u32 cells, u32 *bad_table, u64 *needed)
{
  int rv;
  *bad_table = ~0;
  *needed = 0;
  if (im->configured)
    return im->service_table == service && im->delivery_table == delivery && im->counter_cells == cells ?
	     0 :
	     VNET_API_ERROR_INVALID_VALUE_2;
  im->service_table = service;
  im->delivery_table = delivery;
  if ((rv = find_tables (im, bad_table)))
    return rv;
  *bad_table = ~0;
  if (!make_threads (im))
    {
      free_threads (im);
      return VNET_API_ERROR_UNSPECIFIED;
    }
  if ((rv = ipshare_counters_create (im, cells, needed)))
    {
      free_threads (im);
      return rv;
    }
  if (!ipshare_pair_create (im))
    {
      free_threads (im);
      return VNET_API_ERROR_UNSPECIFIED;
    }
  im->counter_cells = cells;
  ipshare_alive_create ();
  lock_tables (im);
  ipshare_options_enable ();
  im->configured = 1;
  ipshare_info_refresh (im);
  vlib_log_notice (im->log, "configured: service table %u, delivery table %u, %u counter cells", service, delivery,
		   cells);
  return 0;
}
