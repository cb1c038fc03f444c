/* taps.c: captures and copies for an IDS (S1.16), as on the embedded engine: native/tap has the rings, the thread and
 * the sinks. Copies leave by the kernel's sockets of VPP's network namespace (a management card, a linux-cp pair),
 * never by a worker: what the tap thread cannot keep up with is lost and counted, and forwarding goes on.
 *
 * Messages are handled here and by the process that looks after taps (builder.c), both on the main thread.
 */
#define _GNU_SOURCE
#include "pair.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <vlibapi/api.h>
#include <vlibmemory/api.h>

#include <ipshare/ipshare.api_enum.h>
#include <ipshare/ipshare.api_types.h>

#define REPLY_MSG_ID_BASE ipshare_main.msg_id_base
#include <vlibapi/api_helper_macros.h>

enum { WAITERS = 64 };

typedef struct
{
  u64 id; /* of the tap; 0: free */
  u32 client_index, context;
} waiter_t;

static waiter_t waiters[WAITERS];
static struct ips_ctl_tap_state ended[IPS_CTL_MAX_TAPS]; /* the last that ended, for who asks too late */
static u32 n_ended;

static void
close_events (const struct tap_host *host)
{
  if (host->wake_event >= 0)
    close (host->wake_event);
  if (host->stop_event >= 0)
    close (host->stop_event);
}

bool
ipshare_taps_create (ipshare_main_t *im)
{
  struct tap_worker *at[IPS_CTL_MAX_WORKERS];
  struct tap_host host = { .workers = at,
			   .n_workers = vec_len (im->threads),
			   .wake_event = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK),
			   .stop_event = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK),
			   .device = { "outer", "inner" },
			   .application = "ipshare VPP plugin" };
  bool fits = host.n_workers <= IPS_CTL_MAX_WORKERS && host.wake_event >= 0 && host.stop_event >= 0;
  for (u32 i = 0; fits && i < host.n_workers; i++)
    at[i] = &im->threads[i].tap;
  im->taps = fits ? taps_create (&host) : NULL;
  if (!im->taps)
    close_events (&host);
  return im->taps != NULL;
}

void
ipshare_taps_free (ipshare_main_t *im)
{
  if (!im->taps)
    return;
  struct tap_host host = im->taps->host;
  taps_destroy (im->taps);
  im->taps = NULL;
  close_events (&host);
}

static void
answer (const waiter_t *w, const struct ips_ctl_tap_state *state)
{
  vl_api_registration_t *rp = vl_api_client_index_to_registration (w->client_index);
  u32 bytes = state ? sizeof *state : 0;
  if (!rp)
    return;
  vl_api_ipshare_tap_end_reply_t *rmp = vl_msg_api_alloc_zero (sizeof *rmp + bytes);
  rmp->_vl_msg_id = clib_host_to_net_u16 (VL_API_IPSHARE_TAP_END_REPLY + REPLY_MSG_ID_BASE);
  rmp->context = w->context;
  rmp->retval = clib_host_to_net_u32 (state ? 0 : VNET_API_ERROR_NO_SUCH_ENTRY);
  rmp->bytes = clib_host_to_net_u32 (bytes);
  if (state)
    clib_memcpy (rmp->state, state, bytes);
  vl_api_send_msg (rp, (u8 *) rmp);
}

static void
has_ended (ipshare_main_t *im, u32 slot)
{
  struct ips_ctl_tap_state *state = &ended[n_ended++ % IPS_CTL_MAX_TAPS];
  tap_state (im->taps, slot, state);
  tap_release (im->taps, slot);
  for (waiter_t *w = waiters; w < waiters + WAITERS; w++)
    if (w->id == state->id)
      {
	answer (w, state);
	w->id = 0;
      }
}

bool
ipshare_taps_tick (ipshare_main_t *im)
{
  bool soon = false;
  taps_tick (im->taps);
  for (u32 slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    {
      u32 status = atomic_load (&im->taps->slots[slot].status);
      if (status == IPS_TAP_ENDED)
	has_ended (im, slot);
      soon |= status == IPS_TAP_STOPPING || status == IPS_TAP_LEAVING;
    }
  return soon;
}

static clib_error_t *
client_gone (u32 client_index)
{
  ipshare_builder_client_gone (client_index);
  ipshare_pair_client_gone (client_index);
  if (ipshare_main.taps)
    taps_client_gone (ipshare_main.taps, client_index);
  for (waiter_t *w = waiters; w < waiters + WAITERS; w++)
    if (w->client_index == client_index)
      w->id = 0;
  ipshare_process_wake ();
  return 0;
}

VL_MSG_API_REAPER_FUNCTION (client_gone);

/* A file for appending; -1 and errno. */
static int
open_target (const struct ips_ctl_tap *rule, const u8 path[256])
{
  char name[256];
  memcpy (name, path, sizeof name);
  name[255] = 0;
  errno = 0;
  return rule->target == IPS_TAP_FILE ? open (name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600) : -1;
}

static int
start (vl_api_ipshare_tap_start_t *mp, struct ips_ctl_tap_state *state, const char **sentence)
{
  struct ips_ctl_tap rule;
  u32 slot;
  *sentence = "not configured yet";
  if (!ipshare_main.configured)
    return VNET_API_ERROR_INIT_FAILED;
  *sentence = "the rule is not one of this version";
  if (clib_net_to_host_u32 (mp->bytes) != sizeof rule || vl_msg_api_get_msg_length (mp) < sizeof *mp + sizeof rule)
    return VNET_API_ERROR_INVALID_VALUE;
  clib_memcpy (&rule, mp->rule, sizeof rule);
  int fd = open_target (&rule, mp->path);
  *sentence = "VPP cannot open the file";
  if (fd < 0 && errno)
    return VNET_API_ERROR_SYSCALL_ERROR_1;
  switch (tap_start (ipshare_main.taps, &rule, fd, mp->client_index, &slot, sentence))
    {
    case IPS_CTL_OK:
      tap_state (ipshare_main.taps, slot, state);
      return 0;
    case IPS_CTL_TOO_MANY:
      return VNET_API_ERROR_LIMIT_EXCEEDED;
    case IPS_CTL_SYSTEM:
    case IPS_CTL_BAD_FD:
      return VNET_API_ERROR_SYSCALL_ERROR_1;
    default:
      return VNET_API_ERROR_INVALID_VALUE;
    }
}

void
vl_api_ipshare_tap_start_t_handler (vl_api_ipshare_tap_start_t *mp)
{
  vl_api_ipshare_tap_start_reply_t *rmp;
  struct ips_ctl_tap_state state;
  const char *sentence = "";
  errno = 0;
  int rv = start (mp, &state, &sentence);
  int error = errno;
  u32 bytes = rv ? 0 : sizeof state;
  REPLY_MACRO3 (VL_API_IPSHARE_TAP_START_REPLY, bytes, ({
		  rmp->error = clib_host_to_net_u32 (rv ? error : 0);
		  if (rv)
		    strncpy ((char *) rmp->sentence, sentence, sizeof rmp->sentence - 1);
		  rmp->bytes = clib_host_to_net_u32 (bytes);
		  clib_memcpy (rmp->state, &state, bytes);
		}));
}

static waiter_t *
free_waiter (void)
{
  for (waiter_t *w = waiters; w < waiters + WAITERS; w++)
    if (!w->id)
      return w;
  return NULL;
}

void
vl_api_ipshare_tap_end_t_handler (vl_api_ipshare_tap_end_t *mp)
{
  ipshare_main_t *im = &ipshare_main;
  waiter_t asked = { clib_net_to_host_u64 (mp->id), mp->client_index, mp->context }, *place = free_waiter ();
  int slot = im->taps && asked.id ? tap_slot_of (im->taps, asked.id) : -1;
  for (u32 i = 0; slot < 0 && asked.id && i < IPS_CTL_MAX_TAPS; i++)
    if (ended[i].id == asked.id)
      {
	answer (&asked, &ended[i]);
	return;
      }
  if (slot < 0 || !place)
    {
      answer (&asked, NULL);
      return;
    }
  *place = asked;
  if (mp->stop)
    tap_stop (im->taps, slot);
  ipshare_process_wake ();
}

void
vl_api_ipshare_tap_dump_t_handler (vl_api_ipshare_tap_dump_t *mp)
{
  vl_api_registration_t *rp = vl_api_client_index_to_registration (mp->client_index);
  struct ips_ctl_tap_state state;
  for (u32 slot = 0; rp && ipshare_main.taps && slot < IPS_CTL_MAX_TAPS; slot++)
    {
      if (!atomic_load (&ipshare_main.taps->slots[slot].status))
	continue;
      tap_state (ipshare_main.taps, slot, &state);
      vl_api_ipshare_tap_details_t *rmp = vl_msg_api_alloc_zero (sizeof *rmp + sizeof state);
      rmp->_vl_msg_id = clib_host_to_net_u16 (VL_API_IPSHARE_TAP_DETAILS + REPLY_MSG_ID_BASE);
      rmp->context = mp->context;
      rmp->bytes = clib_host_to_net_u32 (sizeof state);
      clib_memcpy (rmp->state, &state, sizeof state);
      vl_api_send_msg (rp, (u8 *) rmp);
    }
}
