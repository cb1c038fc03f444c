/* alive.c: what VPP's stats segment says of threads, for who looks without asking (ipshare.appliance.guard_signs).
 *
 *   /ipshare/turns      per thread: turns of its loop. VPP lets none sleep for more than 10 ms: one that stands still hangs
 *   /ipshare/pair-turn  CLOCK_BOOTTIME in ns of the last turn of the pair's thread; 0: this node is no half of a pair
 *
 * Written by VPP's collector, with the heartbeat that says of the main thread itself that it goes on.
 */
#include <ipshare/ipshare.h>
#include <vlib/stats/stats.h>

static u32 pair_turn;

static void
collect (vlib_stats_collector_data_t *d)
{
  ipshare_main_t *im = &ipshare_main;
  counter_t **rows = d->entry->data;
  for (u32 i = 0; i < vlib_get_n_threads () && i < vec_len (rows); i++)
    rows[i][0] = __atomic_load_n (&vlib_get_main_by_index (i)->main_loop_count, __ATOMIC_RELAXED);
  struct ips_ctl_pair_state state;
  vlib_stats_set_gauge (pair_turn, im->rt && rt_pair_state (im->rt, &state) ? state.now_ns : 0);
}

void
ipshare_alive_create (void)
{
  u32 turns = vlib_stats_add_counter_vector ("/ipshare/turns");
  vlib_stats_validate (turns, vlib_get_n_threads () - 1, 0);
  pair_turn = vlib_stats_add_gauge ("/ipshare/pair-turn");
  vlib_stats_collector_reg_t r = { .collect_fn = collect, .entry_index = turns };
  vlib_stats_register_collector_fn (&r);
}
