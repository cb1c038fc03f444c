/* api.h: what the files with handlers of the binary API share (ipshare.api.in): headers, byte order, late answers. */
#ifndef __included_ipshare_api_h__
#define __included_ipshare_api_h__

#include <ipshare/ipshare.h>
#include <vlibapi/api.h>
#include <vlibmemory/api.h>

#include <ipshare/ipshare.api_enum.h>
#include <ipshare/ipshare.api_types.h>

#define REPLY_MSG_ID_BASE ipshare_main.msg_id_base
#include <vlibapi/api_helper_macros.h>

#define be16(v) clib_host_to_net_u16 (v)
#define be32(v) clib_host_to_net_u32 (v)
#define be64(v) clib_host_to_net_u64 (v)

#define JOB(mp, do_work, when_done)                                                                                   \
  (ipshare_job_t) { .work = do_work, .done = when_done, .client_index = (mp)->client_index, .context = (mp)->context }

/* The answer to a message whose handler returned long ago: zeros, but for the fields that all replies begin with. NULL:
 * the client is gone. */
static inline void *
late_reply (const ipshare_job_t *job, u16 id, u32 size, int rv)
{
  if (!vl_api_client_index_to_registration (job->client_index))
    return NULL;
  vl_api_ipshare_abort_reply_t *rmp = vl_msg_api_alloc_zero (size);
  rmp->_vl_msg_id = be16 (id + REPLY_MSG_ID_BASE);
  rmp->context = job->context;
  rmp->retval = be32 (rv);
  return rmp;
}

static inline void
send_late (const ipshare_job_t *job, void *rmp)
{
  vl_api_registration_t *rp = vl_api_client_index_to_registration (job->client_index);
  if (rp)
    vl_api_send_msg (rp, rmp);
  else
    vl_msg_api_free (rmp);
}

/* rv of a message that needs the tables and the builder. */
static inline int
ready (void)
{
  return ipshare_main.configured ? 0 : VNET_API_ERROR_INIT_FAILED;
}

static inline int
submit (ipshare_job_t job)
{
  return ipshare_builder_submit (&job) ? 0 : VNET_API_ERROR_BUSY;
}

#endif
