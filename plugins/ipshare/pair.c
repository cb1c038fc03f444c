/* pair.c: this node's half of a redundant pair (SYSTEMS.md S2, S3.2), hosted in VPP.
 *
 * The real-time thread is native/rt's and knows nothing of VPP. It is set, cleared and told in a lane of its own
 * (builder.c), since that waits for threads and disks. It is no thread of VPP's: it takes no signal, allocates from no
 * heap of VPP's, and no barrier stops it. What workers did it reads off their loops; who sleeps has nothing to do.
 * A process node does the main thread's part: frames out of interfaces, their state, clients that wait.
 */
#define _GNU_SOURCE
#include "flows.h"
#include "pair.h"
#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <vlib/file.h>
#include <vnet/api_errno.h>

#define TURN_S	 1e-3 /* while there is a pair: a busy main thread looks at descriptors rarely */
#define NEXT_S 1e-4 /* while announcements wait */
#define STARVED_NS 100000000ull /* a sleeping thread may take so long to wake */
#define GLANCE_S 0.02 /* at their state */
#define LOOK_S	 1.0  /* at interfaces, should nobody have said that they changed */

ipshare_pair_t ipshare_pair = { .woken = -1 };
static vlib_node_registration_t ipshare_pair_process;

/* ---- the real-time thread ---- */

/* Packets are the workers' affair, or the main thread's where there are none. */
static u32
first_packet_thread (void)
{
  return vlib_get_n_threads () > 1;
}

/* VPP lets no thread sleep for more than 10 ms: one that does not go on for long is starved, or stopped. */
static bool
is_idle (u32 worker, u64 loops)
{
  struct timespec t;
  clock_gettime (CLOCK_BOOTTIME, &t);
  u64 now = (u64) t.tv_sec * 1000000000ull + (u64) t.tv_nsec;
  if (ipshare_pair.loops[worker] != loops || !ipshare_pair.moved_ns[worker])
    ipshare_pair.moved_ns[worker] = now;
  ipshare_pair.loops[worker] = loops;
  return now - ipshare_pair.moved_ns[worker] < STARVED_NS;
}

static void
progress (CLIB_UNUSED (void *arg), u64 *out)
{
  u32 first = first_packet_thread ();
  for (u32 i = first; i < vlib_get_n_threads (); i++)
    {
      const vlib_main_t *vm = vlib_get_main_by_index (i);
      u64 *slept = ipshare_pair.slept + i - first;
      u64 loops = (u64) __atomic_load_n (&vm->main_loop_count, __ATOMIC_RELAXED);
      bool idle = is_idle (i - first, loops);
      if (idle && __atomic_load_n (&vm->thread_sleeps, __ATOMIC_RELAXED))
	++*slept;
      out[i - first] = loops + *slept;
    }
}

/* VPP's main thread stays on one processor, and who is made by it would stay there too: next to a loop that never ends.
 * Anywhere will do but where workers are. */
void
ipshare_leave_processors (void)
{
  cpu_set_t wanted;
  long n = sysconf (_SC_NPROCESSORS_CONF);
  CPU_ZERO (&wanted);
  for (long i = 0; i < n && i < CPU_SETSIZE; i++)
    CPU_SET (i, &wanted);
  for (u32 i = 1; i < vlib_get_n_threads (); i++)
    if (vlib_worker_threads[i].cpu_id >= 0 && vlib_worker_threads[i].cpu_id < CPU_SETSIZE)
      CPU_CLR (vlib_worker_threads[i].cpu_id, &wanted);
  sched_setaffinity (0, sizeof wanted, &wanted); /* not possible: where we are */
}

void
ipshare_job_pair (ipshare_job_t *job)
{
  ipshare_pair_job_t *p = job->order;
  struct rt *rt = ipshare_main.rt;
  u32 begun = rt->begun;
  bool was_set = rt->is_set;
  switch (p->op)
    {
    case IPS_CTL_PAIR_SET:
      ipshare_leave_processors ();
      p->status = rt_pair_set (rt, &p->set, &p->sentence);
      if (rt->begun != begun)
	ipshare_flows_other_pair (false, true);
      break;
    case IPS_CTL_PAIR_CLEAR:
      rt_pair_clear (rt);
      ipshare_flows_other_pair (true, was_set);
      p->status = IPS_CTL_OK;
      break;
    default:
      p->status = rt_pair_order (rt, &p->command, &p->sentence);
    }
}

/* Which ports are in use now; the others go. */
void
ipshare_job_pair_end (CLIB_UNUSED (ipshare_job_t *job))
{
  struct ips_ctl_pair_state state;
  ipshare_ports_t *had = ipshare_pair.shown, *next = ipshare_pair.next;
  bool is_set = rt_pair_state (ipshare_main.rt, &state);
  ipshare_ports_t *now = !is_set ? NULL : next && next->adopted ? next : had;
  ipshare_pair.next = NULL;
  if (now != had)
    ipshare_ports_show (now);
  if (had != now)
    ipshare_ports_free (had);
  if (next != now)
    ipshare_ports_free (next);
  ipshare_pair_wake ();
}

/* ---- the main thread's part ---- */

void
ipshare_pair_wake (void)
{
  vlib_process_signal_event (vlib_get_main (), ipshare_pair_process.index, 0, 0);
}

static clib_error_t *
woken (clib_file_t *file)
{
  u64 n;
  if (read (file->file_descriptor, &n, sizeof n) == sizeof n)
    ipshare_pair_wake ();
  return 0;
}

static clib_error_t *
interface_changed (CLIB_UNUSED (vnet_main_t *vnm), CLIB_UNUSED (u32 index), CLIB_UNUSED (u32 flags))
{
  if (ipshare_pair.shown)
    ipshare_pair_wake ();
  return 0;
}

VNET_SW_INTERFACE_ADMIN_UP_DOWN_FUNCTION (interface_changed);
VNET_HW_INTERFACE_LINK_UP_DOWN_FUNCTION (interface_changed);

static clib_error_t *
interface_came_or_went (vnet_main_t *vnm, u32 sw_if_index, u32 is_add)
{
  if (!is_add)
    ipshare_ports_gone (sw_if_index);
  return interface_changed (vnm, sw_if_index, is_add);
}

VNET_SW_INTERFACE_ADD_DEL_FUNCTION (interface_came_or_went);

static uword
process (vlib_main_t *vm, CLIB_UNUSED (vlib_node_runtime_t *node), CLIB_UNUSED (vlib_frame_t *frame))
{
  f64 looked = 0, glanced = 0;
  bool more = false;
  for (;;)
    {
      bool timed_out = false;
      if (ipshare_pair.shown)
	timed_out = vlib_process_wait_for_event_or_clock (vm, more ? NEXT_S : TURN_S) <= 0;
      else
	vlib_process_wait_for_event (vm);
      vlib_process_get_events (vm, NULL);
      more = ipshare_ports_send (vm, ipshare_pair.shown);
      ipshare_reach_send (vm, ipshare_pair.shown);
      ipshare_subports_set (ipshare_pair.shown, true);
      if (timed_out && vlib_time_now (vm) >= glanced + GLANCE_S)
	{
	  glanced = vlib_time_now (vm);
	  ipshare_ports_glance (ipshare_pair.shown);
	}
      if (timed_out && vlib_time_now (vm) < looked + LOOK_S)
	continue;
      looked = vlib_time_now (vm);
      ipshare_ports_look (ipshare_pair.shown);
      if (ipshare_main.rt && !ipshare_lane_busy (IPSHARE_LANE_PAIR))
	ipshare_pair_answer_waiters ();
    }
  return 0;
}

VLIB_REGISTER_NODE (ipshare_pair_process, static) = {
  .function = process,
  .type = VLIB_NODE_TYPE_PROCESS,
  .name = "ipshare-pair-process",
};

/* ---- at configuring ---- */

bool
ipshare_pair_create (ipshare_main_t *im)
{
  u32 first = first_packet_thread ();
  ipshare_pair.woken = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (ipshare_pair.woken < 0)
    return false;
  im->rt = rt_create (&(struct rt_host){ .tables = im->tables,
					 .progress = progress,
					 .n_workers = vlib_get_n_threads () - first,
					 .wake_event = ipshare_pair.woken,
					 .role = flows_role,
					 .mirror_ready = flows_ready,
					 .flows = im->flows,
					 .links = &ipshare_links,
					 .askers = &ipshare_askers,
					 .port_setter = &ipshare_port_setter });
  if (im->rt)
    clib_file_add (&file_main, &(clib_file_t){ .read_function = woken,
					       .file_descriptor = ipshare_pair.woken,
					       .description = format (0, "ipshare pair") });
  else
    close (ipshare_pair.woken);
  return im->rt != NULL;
}
