/* subports.c: interfaces with a workload's MAC address, up while this node is active, else down (SYSTEMS.md S3.4): the same
 * address on two ports poisons a switch.
 *
 * The real-time thread says which by one word and wakes the main thread, which alone may touch interfaces. One that is not
 * as it is to be (somebody else set it, it was made later) is set again soon. An agent takes no part.
 */
#include "pair.h"

#define AGAIN_S 0.1

static void
want (bool up)
{
  __atomic_store_n (&ipshare_pair.live->want_up, up, __ATOMIC_RELEASE);
  rt_signal (ipshare_pair.woken);
}

static uint64_t
wrong (void)
{
  return __atomic_load_n (&ipshare_pair.live->wrong, __ATOMIC_ACQUIRE);
}

const struct rt_port_setter ipshare_port_setter = { .want = want, .wrong = wrong };

/* Whether it is as it is to be. */
static bool
set (vlib_main_t *vm, u32 sw_if_index, bool up)
{
  vnet_main_t *vnm = vnet_get_main ();
  if (!vnet_sw_interface_is_valid (vnm, sw_if_index))
    return false;
  u32 flags = vnet_sw_interface_get_flags (vnm, sw_if_index);
  u32 wanted = up ? flags | VNET_SW_INTERFACE_FLAG_ADMIN_UP : flags & ~VNET_SW_INTERFACE_FLAG_ADMIN_UP;
  if (flags == wanted)
    return true;
  vlib_worker_thread_barrier_sync (vm);
  clib_error_t *error = vnet_sw_interface_set_flags (vnm, sw_if_index, wanted);
  vlib_worker_thread_barrier_release (vm);
  clib_error_free (error);
  return vnet_sw_interface_is_admin_up (vnm, sw_if_index) == up;
}

void
ipshare_subports_set (ipshare_ports_t *ports, bool up)
{
  vlib_main_t *vm = vlib_get_main ();
  u64 bad = 0;
  if (!ports || !ports->n_subports)
    return;
  up = up && __atomic_load_n (&ports->want_up, __ATOMIC_ACQUIRE);
  if (ports->set_s && ports->set_up == up && vlib_time_now (vm) < ports->set_s + AGAIN_S)
    return;
  ports->set_up = up;
  ports->set_s = vlib_time_now (vm);
  for (u32 i = 0; i < ports->n_subports; i++)
    if (!set (vm, ports->at[ports->subports[i]].sw_if_index, up))
      bad |= 1ull << i;
  __atomic_store_n (&ports->wrong, bad, __ATOMIC_RELEASE);
}
