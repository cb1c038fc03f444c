/* api_flows.c: the messages about tracked connections, NAT, the mirror, remaps and clusters.
 *
 * Orders are those of the embedded engine's control socket (native/flows/flows_orders.c); here is how they come and
 * go. All but states are carried out in a lane (flows.c).
 */
#include "api.h"
#include "flows.h"

static void
answer (const ipshare_job_t *job, const ipshare_flows_job_t *f, int rv)
{
  const struct flows_order *o = f ? &f->order : NULL;
  int status = f ? f->status : IPS_CTL_SYSTEM;
  u32 bytes = !rv && status == IPS_CTL_OK ? o->reply_bytes : 0;
  if (!rv && status != IPS_CTL_OK)
    rv = VNET_API_ERROR_INVALID_VALUE;
  vl_api_ipshare_flows_reply_t *rmp = late_reply (job, VL_API_IPSHARE_FLOWS_REPLY, sizeof *rmp + bytes, rv);
  if (!rmp)
    return;
  rmp->status = be32 (status);
  if (o)
    rmp->error = be32 (o->error);
  if (o)
    flows_order_explain (o, (char *) rmp->sentence, sizeof rmp->sentence);
  rmp->bytes = be32 (bytes);
  if (bytes)
    clib_memcpy (rmp->reply, flows_order_reply (o), bytes);
  send_late (job, rmp);
}

static void
forget (ipshare_flows_job_t *f)
{
  free (f->order.servers);
  explicit_bzero (f, sizeof *f + f->bytes); /* a mirror has a key */
  free (f);
}

static void
done (ipshare_job_t *job)
{
  ipshare_flows_job_t *f = job->order;
  ipshare_job_flows_end (job);
  answer (job, f, 0);
  forget (f);
}

/* NULL: no memory, or not what the operation takes (*rv). */
static ipshare_flows_job_t *
job_of (vl_api_ipshare_flows_t *mp, int *rv)
{
  u32 op = be32 (mp->op), bytes = be32 (mp->bytes);
  long wanted = flows_order_bytes (op);
  ipshare_flows_job_t *f = NULL;
  *rv = wanted < 0 ? VNET_API_ERROR_UNIMPLEMENTED : VNET_API_ERROR_INVALID_VALUE_2;
  if (bytes == wanted && vl_msg_api_get_msg_length (mp) >= sizeof *mp + bytes)
    {
      *rv = (f = calloc (1, sizeof *f + bytes)) ? 0 : VNET_API_ERROR_UNSPECIFIED;
      if (f)
	clib_memcpy (f->payload, mp->payload, bytes);
      explicit_bzero (mp->payload, bytes);
    }
  if (f)
    {
      f->bytes = bytes;
      f->order = (struct flows_order){ .op = op, .payload = f->payload, .fd = -1 };
    }
  if (f && op == IPS_CTL_DISPATCH_STATE && !(f->order.servers = calloc (IPS_SERVERS, sizeof *f->order.servers)))
    {
      *rv = VNET_API_ERROR_UNSPECIFIED;
      forget (f);
      return NULL;
    }
  return f;
}

static bool
is_state (int op)
{
  return op == IPS_CTL_FLOWS_STATE || op == IPS_CTL_REMAP_STATE || op == IPS_CTL_REMAP_LIST;
}

/* At once: workers and lanes go on, nobody waits. */
static void
tell_state (const ipshare_job_t *to, ipshare_flows_job_t *f)
{
  ipshare_main_t *im = &ipshare_main;
  struct flows_order *o = &f->order;
  if (o->op == IPS_CTL_REMAP_LIST && !(o->remaps = calloc (IPS_REMAPS, sizeof *o->remaps)))
    {
      answer (to, NULL, VNET_API_ERROR_UNSPECIFIED);
      return;
    }
  ipshare_flows_enter (im);
  f->status = flows_order (im->flows, im->natlog, o);
  ipshare_flows_leave (im);
  answer (to, f, 0);
  free (o->remaps);
}

void
vl_api_ipshare_flows_t_handler (vl_api_ipshare_flows_t *mp)
{
  ipshare_job_t job = JOB (mp, ipshare_job_flows, done);
  int rv = ready ();
  ipshare_flows_job_t *f = rv ? NULL : job_of (mp, &rv);
  bool at_once = f && is_state (f->order.op);
  if (at_once)
    tell_state (&job, f);
  else if (f)
    {
      job.lane = f->order.op == IPS_CTL_SESSIONS_DUMP ? IPSHARE_LANE_SESSIONS : IPSHARE_LANE_FLOWS;
      job.order = f;
      strncpy (job.path, (char *) mp->path, sizeof job.path - 1);
      rv = submit (job);
    }
  if (rv)
    answer (&job, NULL, rv);
  if (f && (rv || at_once))
    forget (f);
}

/* ---- interfaces that the inside is behind ---- */

void
vl_api_ipshare_nat_interface_t_handler (vl_api_ipshare_nat_interface_t *mp)
{
  vl_api_ipshare_nat_interface_reply_t *rmp;
  int rv = ready ();
  VALIDATE_SW_IF_INDEX (mp);
  if (!rv)
    rv = ipshare_nat_interface (&ipshare_main, be32 (mp->sw_if_index), be16 (mp->realm), mp->enable);
  BAD_SW_IF_INDEX_LABEL;
  REPLY_MACRO (VL_API_IPSHARE_NAT_INTERFACE_REPLY);
}

void
vl_api_ipshare_nat_interface_dump_t_handler (vl_api_ipshare_nat_interface_dump_t *mp)
{
  vl_api_registration_t *rp = vl_api_client_index_to_registration (mp->client_index);
  u16 **all = ipshare_main.realms_by_interface;
  for (u32 i = 0; rp && i < vec_len (all); i++)
    for (u32 k = 0; k < vec_len (all[i]); k++)
      {
	vl_api_ipshare_nat_interface_details_t *rmp = vl_msg_api_alloc_zero (sizeof *rmp);
	rmp->_vl_msg_id = be16 (VL_API_IPSHARE_NAT_INTERFACE_DETAILS + REPLY_MSG_ID_BASE);
	rmp->context = mp->context;
	rmp->sw_if_index = be32 (i);
	rmp->realm = be16 (all[i][k]);
	vl_api_send_msg (rp, (u8 *) rmp);
      }
}
