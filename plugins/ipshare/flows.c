/* flows.c: native/flows hosted in VPP: its life, its orders, and the packets that have waited for the standby.
 *
 * Control of tracked connections is one thread at a time: whoever holds `turn`, a lane's thread (builder.c). A slice
 * of an order is done under it, and others have theirs in between. The main thread, which must not wait, looks as packet
 * threads do: what it found is not freed before it has left.
 */
#define _GNU_SOURCE
#include "flows.h"
#include "pair.h"
#include "servers.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MOST_FED (256 << 20) /* bytes of one message's records */

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* ---- life ---- */

/* Packet threads, and the main thread's questions. */
static bool
attach (ipshare_main_t *im)
{
  ipshare_thread_t *t;
  u32 n = vec_len (im->threads);
  vec_foreach (t, im->threads)
    if (!(t->flows = flows_attach (im->flows, t - im->threads, t->core, ipshare_let_go, t)))
      return false;
  return flows_attach (im->flows, n, im->why, ipshare_let_go, NULL) != NULL;
}

bool
ipshare_flows_create (ipshare_main_t *im)
{
  u32 n = vec_len (im->threads) + 1;
  im->flows = n <= FLOWS_WORKERS ? flows_create (n) : NULL;
  im->natlog = natlog_create (n + 2); /* and ips-mirror, control */
  return im->flows && im->natlog && attach (im);
}

void
ipshare_flows_free (ipshare_main_t *im)
{
  flows_destroy (im->flows);
  natlog_destroy (im->natlog);
  im->flows = NULL;
  im->natlog = NULL;
}

void
ipshare_flows_other_pair (bool is_cleared, bool was_set)
{
  struct flows *f = ipshare_main.flows;
  pthread_mutex_lock (&turn);
  if (is_cleared)
    flows_no_pair (f);
  if (was_set)
    flows_mirror_renew (f);
  pthread_mutex_unlock (&turn);
}

void
ipshare_flows_enter (ipshare_main_t *im)
{
  flows_begin (im->flows->workers + vec_len (im->threads));
  if (!im->why->remaps && !im->why->clusters) /* who asks is not followed; where these are, sessions are looked at alone */
    im->why->sessions = NULL;
}

void
ipshare_flows_leave (ipshare_main_t *im)
{
  flows_end (im->flows->workers + vec_len (im->threads));
}

/* ---- orders (a lane's thread) ---- */

static int
fail (ipshare_flows_job_t *f, int error, const char *sentence)
{
  f->order.error = error;
  f->order.sentence = sentence;
  return IPS_CTL_SYSTEM;
}

/* What a feed brings: read, not mapped, as images are (builder.c). */
static int
read_fed (ipshare_job_t *job, ipshare_flows_job_t *f)
{
  struct stat st;
  int fd = open (job->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  bool is_file = fd >= 0 && fstat (fd, &st) == 0 && S_ISREG (st.st_mode) && st.st_size <= MOST_FED;
  struct ips_ctl_fed *fed = is_file ? malloc (st.st_size + 1) : NULL;
  while (fed && f->order.fed_bytes < st.st_size)
    {
      ssize_t n = read (fd, (u8 *) fed + f->order.fed_bytes, st.st_size - f->order.fed_bytes);
      if (n < 0 && errno == EINTR)
	continue;
      if (n <= 0)
	break;
      f->order.fed_bytes += n;
    }
  int error = fed ? 0 : fd < 0 ? errno : !is_file ? EINVAL : ENOMEM;
  if (fd >= 0)
    close (fd);
  f->order.fed = fed;
  return error ? fail (f, error, "the records cannot be read") : IPS_CTL_OK;
}

static int
open_beside (ipshare_job_t *job, ipshare_flows_job_t *f)
{
  struct flows_order *o = &f->order;
  bool is_dump = o->op == IPS_CTL_SESSIONS_DUMP || o->op == IPS_CTL_REMAP_FLOWS;
  if (o->op == IPS_CTL_SESSIONS_FEED && job->path[0])
    return read_fed (job, f);
  if (!is_dump && o->op != IPS_CTL_NAT_ADDRESSES)
    return IPS_CTL_OK;
  o->fd = open (job->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (o->fd < 0)
    return fail (f, errno, "VPP cannot make the file");
  if (is_dump && !(o->some = malloc (FLOWS_SLICE * sizeof *o->some)))
    return fail (f, ENOMEM, "no memory");
  return IPS_CTL_OK;
}

static int
slice (ipshare_flows_job_t *f)
{
  ipshare_main_t *im = &ipshare_main;
  if (f->order.op == IPS_CTL_SESSIONS_DUMP) /* beside all others */
    return flows_order (im->flows, im->natlog, &f->order);
  pthread_mutex_lock (&turn);
  int status = flows_order (im->flows, im->natlog, &f->order);
  pthread_mutex_unlock (&turn);
  return status;
}

void
ipshare_job_flows (ipshare_job_t *job)
{
  const struct timespec pause = { .tv_nsec = 100000 }; /* a mutex goes to who asks first */
  ipshare_flows_job_t *f = job->order;
  ipshare_leave_processors ();
  f->status = open_beside (job, f);
  if (f->status == IPS_CTL_OK)
    while ((f->status = slice (f)) == FLOWS_MORE)
      nanosleep (&pause, NULL);
  if (f->order.fd >= 0)
    close (f->order.fd);
  if (f->order.fd >= 0 && f->status != IPS_CTL_OK)
    unlink (job->path);
  free ((void *) f->order.fed);
  free (f->order.some);
}

void
ipshare_job_flows_end (ipshare_job_t *job)
{
  const ipshare_flows_job_t *f = job->order;
  if (f->status != IPS_CTL_OK)
    return;
  if (f->order.op == IPS_CTL_FLOWS_SET)
    ipshare_nat_pools (&ipshare_main, (const struct ips_ctl_flows *) f->payload);
  if (f->order.op == IPS_CTL_REMAP_SET || f->order.op == IPS_CTL_REMAP_CLEAR)
    ipshare_remap_channels (&ipshare_main);
  if (f->order.op == IPS_CTL_DISPATCH_SET)
    ipshare_servers_set (&ipshare_main, (const struct ips_ctl_dispatch *) f->payload);
  if (f->order.op == IPS_CTL_DISPATCH_STATE)
    {
      ipshare_servers_align (&ipshare_main);
      ipshare_servers_macs (&ipshare_main, f->order.servers, f->order.reply_bytes / sizeof *f->order.servers);
    }
}

/* ---- packets that have waited (decision 0042) ---- */

static void
send_held (vlib_main_t *vm, vlib_node_runtime_t *node, u32 *let_go)
{
  u16 nexts[FLOWS_HELD];
  u32 n = clib_min (vec_len (let_go), FLOWS_HELD);
  for (u32 i = 0; i < n; i++)
    {
      vlib_buffer_t *b = vlib_get_buffer (vm, let_go[i]);
      const u8 *ip = vlib_buffer_get_current (b);
      u32 server = vnet_buffer (b)->ip.adj_index[VLIB_TX];
      nexts[i] = ip[0] >> 4 == 6 ? IPSHARE_TO_IP6_LOOKUP : IPSHARE_TO_IP4_LOOKUP;
      if (server)
	nexts[i] = ipshare_to_server (&ipshare_main, vm->thread_index, b, server, 0);
    }
  vlib_buffer_enqueue_to_next (vm, node, let_go, nexts, n);
}

static uword
held_input (vlib_main_t *vm, vlib_node_runtime_t *node, CLIB_UNUSED (vlib_frame_t *frame))
{
  ipshare_thread_t *t = vec_elt_at_index (ipshare_main.threads, vm->thread_index);
  flows_release (t->flows);
  u32 n = vec_len (t->let_go);
  if (n)
    send_held (vm, node, t->let_go);
  vec_reset_length (t->let_go);
  if (!t->flows->n_held)
    vlib_node_set_state (vm, node->node_index, VLIB_NODE_STATE_DISABLED);
  return n;
}

VLIB_REGISTER_NODE (ipshare_held_node, static) = {
  .function = held_input,
  .name = "ipshare-held-input",
  .type = VLIB_NODE_TYPE_INPUT,
  .state = VLIB_NODE_STATE_DISABLED, /* while nothing waits */
  .n_next_nodes = IPSHARE_N_TO,
  .next_nodes = IPSHARE_ARCS,
};

void
ipshare_held_soon (vlib_main_t *vm)
{
  if (vlib_node_get_state (vm, ipshare_held_node.index) == VLIB_NODE_STATE_DISABLED)
    vlib_node_set_state (vm, ipshare_held_node.index, VLIB_NODE_STATE_POLLING);
}
