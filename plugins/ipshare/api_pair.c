/* api_pair.c: the messages about the redundant pair: orders to it, its state, and clients that wait for its next change.
 *
 * Semantics and sentences are those of the embedded engine's control socket (native/engine/ops_pair.c).
 */
#include "api.h"
#include "pair.h"

enum
{
  WAITERS = 64,
};

typedef struct
{
  bool waits;
  u32 client_index, context;
  u64 changes;
} waiter_t;

static waiter_t waiters[WAITERS];

/* ---- set, clear, command: jobs of their lane ---- */

static const u16 replies[] = {
  [IPS_CTL_PAIR_SET] = VL_API_IPSHARE_PAIR_SET_REPLY,
  [IPS_CTL_PAIR_CLEAR] = VL_API_IPSHARE_PAIR_CLEAR_REPLY,
  [IPS_CTL_PAIR_COMMAND] = VL_API_IPSHARE_PAIR_COMMAND_REPLY,
};

static void
forget (ipshare_pair_job_t *p)
{
  explicit_bzero (p, sizeof *p); /* there is a key in it */
  free (p);
}

static void
refuse (const ipshare_job_t *job, int op, int rv, int status, const char *sentence)
{
  vl_api_ipshare_pair_set_reply_t *rmp = late_reply (job, replies[op], sizeof *rmp, rv);
  if (!rmp)
    return;
  rmp->status = be32 (status);
  strncpy ((char *) rmp->sentence, sentence ? sentence : "", sizeof rmp->sentence - 1);
  send_late (job, rmp);
}

static void
done (ipshare_job_t *job)
{
  ipshare_pair_job_t *p = job->order;
  ipshare_job_pair_end (job);
  refuse (job, p->op, p->status == IPS_CTL_OK ? 0 : VNET_API_ERROR_INVALID_VALUE, p->status, p->sentence);
  forget (p);
}

/* `p` is the job's from here on, or gone. NULL: no memory. */
static void
start (u32 client_index, u32 context, int op, ipshare_pair_job_t *p, int rv)
{
  ipshare_job_t job = { .work = ipshare_job_pair,
			.done = done,
			.client_index = client_index,
			.context = context,
			.lane = IPSHARE_LANE_PAIR,
			.order = p };
  ipshare_ports_t *ports = NULL;
  if (!rv)
    rv = ready ();
  if (!rv && ipshare_lane_busy (IPSHARE_LANE_PAIR))
    rv = VNET_API_ERROR_BUSY;
  if (!rv && !p)
    rv = VNET_API_ERROR_UNSPECIFIED;
  if (!rv && op == IPS_CTL_PAIR_SET)
    {
      ports = ipshare_ports_new (&p->set);
      ipshare_ports_look (ports);
      ipshare_pair.next = ports;
      rv = ports ? 0 : VNET_API_ERROR_UNSPECIFIED;
    }
  if (!rv)
    {
      p->op = op;
      rv = submit (job);
    }
  if (!rv)
    return;
  if (ports)
    ipshare_pair.next = NULL;
  ipshare_ports_free (ports);
  refuse (&job, op, rv, IPS_CTL_SYSTEM, "");
  if (p)
    forget (p);
}

void
vl_api_ipshare_pair_set_t_handler (vl_api_ipshare_pair_set_t *mp)
{
  ipshare_pair_job_t *p = NULL;
  u32 bytes = sizeof p->set;
  bool fits = be32 (mp->bytes) == bytes && vl_msg_api_get_msg_length (mp) >= sizeof *mp + bytes;
  if (fits && (p = calloc (1, sizeof *p)))
    clib_memcpy (&p->set, mp->pair, bytes);
  if (fits)
    explicit_bzero (mp->pair, bytes);
  start (mp->client_index, mp->context, IPS_CTL_PAIR_SET, p, fits ? 0 : VNET_API_ERROR_INVALID_VALUE_2);
}

void
vl_api_ipshare_pair_clear_t_handler (vl_api_ipshare_pair_clear_t *mp)
{
  start (mp->client_index, mp->context, IPS_CTL_PAIR_CLEAR, calloc (1, sizeof (ipshare_pair_job_t)), 0);
}

void
vl_api_ipshare_pair_command_t_handler (vl_api_ipshare_pair_command_t *mp)
{
  ipshare_pair_job_t *p = calloc (1, sizeof *p);
  if (p)
    p->command = (struct ips_ctl_pair_command){ be32 (mp->order), be32 (mp->argument) };
  start (mp->client_index, mp->context, IPS_CTL_PAIR_COMMAND, p, 0);
}

/* ---- the state ---- */

static int
state_now (struct ips_ctl_pair_state *state)
{
  if (!ipshare_main.configured)
    return VNET_API_ERROR_NO_SUCH_ENTRY;
  if (ipshare_lane_busy (IPSHARE_LANE_PAIR))
    return VNET_API_ERROR_BUSY;
  return rt_pair_state (ipshare_main.rt, state) ? 0 : VNET_API_ERROR_NO_SUCH_ENTRY;
}

static void
tell (const ipshare_job_t *to, u16 id, int rv, const struct ips_ctl_pair_state *state)
{
  u32 bytes = rv ? 0 : sizeof *state;
  vl_api_ipshare_pair_state_reply_t *rmp = late_reply (to, id, sizeof *rmp + bytes, rv);
  if (!rmp)
    return;
  rmp->bytes = be32 (bytes);
  clib_memcpy (rmp->state, state, bytes);
  send_late (to, rmp);
}

void
vl_api_ipshare_pair_state_t_handler (vl_api_ipshare_pair_state_t *mp)
{
  struct ips_ctl_pair_state state;
  ipshare_job_t to = { .client_index = mp->client_index, .context = mp->context };
  int rv = state_now (&state);
  tell (&to, VL_API_IPSHARE_PAIR_STATE_REPLY, rv, &state);
}

static waiter_t *
free_waiter (void)
{
  for (waiter_t *w = waiters; w < waiters + WAITERS; w++)
    if (!w->waits)
      return w;
  return NULL;
}

void
vl_api_ipshare_pair_wait_t_handler (vl_api_ipshare_pair_wait_t *mp)
{
  struct ips_ctl_pair_state state;
  ipshare_job_t to = { .client_index = mp->client_index, .context = mp->context };
  u64 seen = be64 (mp->changes);
  int rv = state_now (&state);
  waiter_t *w = free_waiter ();
  bool waits = rv == VNET_API_ERROR_BUSY || (!rv && state.changes == seen);
  if (waits && w)
    *w = (waiter_t){ true, mp->client_index, mp->context, seen };
  else
    tell (&to, VL_API_IPSHARE_PAIR_WAIT_REPLY, waits ? VNET_API_ERROR_LIMIT_EXCEEDED : rv, &state);
}

void
ipshare_pair_answer_waiters (void)
{
  struct ips_ctl_pair_state state;
  int rv = state_now (&state);
  for (waiter_t *w = waiters; w < waiters + WAITERS; w++)
    {
      ipshare_job_t to = { .client_index = w->client_index, .context = w->context };
      if (!w->waits || (!rv && state.changes == w->changes))
	continue;
      w->waits = false;
      tell (&to, VL_API_IPSHARE_PAIR_WAIT_REPLY, rv, &state);
    }
}

void
ipshare_pair_client_gone (u32 client_index)
{
  for (waiter_t *w = waiters; w < waiters + WAITERS; w++)
    if (w->waits && w->client_index == client_index)
      w->waits = false;
}
