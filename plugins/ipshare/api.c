/* api.c: the binary API (ipshare.api.in): who runs, counters, packets, next hops; and the list of all messages. Handlers
 * run on the main thread. Those about tables, taps, the pair and tracked connections have files of their own.
 */
#include "api.h"
#include <vnet/format_fns.h>
#include <vnet/ip/ip_types_api.h>
#include <unistd.h>

/* ---- who, and how set up ---- */

static void
vl_api_ipshare_hello_t_handler (vl_api_ipshare_hello_t *mp)
{
  vl_api_ipshare_hello_reply_t *rmp;
  ipshare_main_t *im = &ipshare_main;
  u64 free_bytes, size;
  int rv = 0;
  ipshare_stats_space (&free_bytes, &size);
  REPLY_MACRO2 (VL_API_IPSHARE_HELLO_REPLY, ({
		  strncpy ((char *) rmp->version, IPSHARE_VERSION, sizeof rmp->version - 1);
		  clib_memcpy (rmp->boot_id, im->boot_id, sizeof im->boot_id);
		  rmp->pid = be32 (getpid ());
		  rmp->n_workers = be32 (vlib_get_n_threads ());
		  rmp->configured = im->configured;
		  rmp->service_table = be32 (im->service_table);
		  rmp->delivery_table = be32 (im->delivery_table);
		  rmp->counter_cells = be32 (im->counter_cells);
		  rmp->stats_free = be64 (free_bytes);
		  rmp->stats_size = be64 (size);
		}));
}

static void
vl_api_ipshare_configure_t_handler (vl_api_ipshare_configure_t *mp)
{
  vl_api_ipshare_configure_reply_t *rmp;
  u32 bad_table;
  u64 needed;
  int rv = ipshare_configure (&ipshare_main, be32 (mp->service_table), be32 (mp->delivery_table),
			      be32 (mp->counter_cells), &bad_table, &needed);
  REPLY_MACRO2 (VL_API_IPSHARE_CONFIGURE_REPLY, ({
		  rmp->bad_table = be32 (bad_table);
		  rmp->stats_needed = be64 (needed);
		}));
}

static void
vl_api_ipshare_info_t_handler (vl_api_ipshare_info_t *mp)
{
  vl_api_ipshare_info_reply_t *rmp;
  const struct ips_tables_info *i = &ipshare_main.info;
  int rv = 0;
  REPLY_MACRO2 (VL_API_IPSHARE_INFO_REPLY, ({
		  rmp->generation = be64 (i->generation);
		  rmp->previous = be64 (i->previous);
		  rmp->prepared = be64 (i->prepared);
		  rmp->term = be64 (i->term);
		  rmp->revision = be64 (i->revision);
		  rmp->digest = be64 (i->digest);
		  rmp->settings = be64 (i->settings);
		  rmp->bytes = be64 (i->bytes);
		  rmp->n_networks = be32 (i->n_networks);
		  rmp->n_endpoints = be32 (i->n_endpoints);
		  rmp->n_policies = be32 (i->n_policies);
		  rmp->n_members = be32 (i->n_members);
		  rmp->n_bindings = be32 (i->n_bindings);
		  rmp->roles = be32 (i->roles);
		  rmp->counter_cells_used = be32 (ipshare_main.cells_used);
		}));
}

/* ---- counters ---- */

static void
vl_api_ipshare_counters_t_handler (vl_api_ipshare_counters_t *mp)
{
  vl_api_ipshare_counters_reply_t *rmp;
  struct ips_counters *sum = calloc (1, sizeof *sum);
  ipshare_thread_t *t;
  u64 no_buffers = 0;
  int rv = sum ? 0 : VNET_API_ERROR_UNSPECIFIED;
  vec_foreach (t, ipshare_main.threads)
    if (sum)
      {
	for (u32 v = 0; v < 2 * IPS_MAX_VERDICTS; v++)
	  sum->verdicts[v / IPS_MAX_VERDICTS][v % IPS_MAX_VERDICTS] +=
	    t->counters->verdicts[v / IPS_MAX_VERDICTS][v % IPS_MAX_VERDICTS];
	sum->frames += t->counters->frames;
	sum->packets += t->counters->packets;
	sum->errors_sent += t->counters->errors_sent;
	sum->errors_limited += t->counters->errors_limited;
	sum->drop_overflow += t->counters->drop_overflow;
	no_buffers += t->no_buffers;
      }
  REPLY_MACRO2 (VL_API_IPSHARE_COUNTERS_REPLY, ({
		  if (sum)
		    {
		      rmp->frames = be64 (sum->frames);
		      rmp->packets = be64 (sum->packets);
		      rmp->errors_sent = be64 (sum->errors_sent);
		      rmp->errors_limited = be64 (sum->errors_limited);
		      rmp->drop_overflow = be64 (sum->drop_overflow);
		      rmp->no_buffers = be64 (no_buffers);
		      for (u32 v = 0; v < 2 * IPS_MAX_VERDICTS; v++)
			rmp->verdicts[v] = be64 (sum->verdicts[v / IPS_MAX_VERDICTS][v % IPS_MAX_VERDICTS]);
		    }
		}));
  free (sum);
}

static void
vl_api_ipshare_drops_dump_t_handler (vl_api_ipshare_drops_dump_t *mp)
{
  vl_api_registration_t *rp = vl_api_client_index_to_registration (mp->client_index);
  ipshare_thread_t *t;
  if (!rp)
    return;
  vec_foreach (t, ipshare_main.threads)
    for (u32 i = 0; i < IPS_DROP_CELLS; i++)
      {
	struct ips_drop_cell *cell = t->counters->drops + i;
	u64 packets = __atomic_load_n (&cell->packets, __ATOMIC_ACQUIRE);
	if (!packets)
	  continue;
	vl_api_ipshare_drops_details_t *rmp = vl_msg_api_alloc_zero (sizeof *rmp);
	rmp->_vl_msg_id = be16 (VL_API_IPSHARE_DROPS_DETAILS + REPLY_MSG_ID_BASE);
	rmp->context = mp->context;
	rmp->cell = be32 (cell->counter);
	rmp->verdict = be32 (cell->verdict);
	rmp->packets = be64 (packets);
	vl_api_send_msg (rp, (u8 *) rmp);
      }
}

/* ---- paths and packets ---- */

static void
vl_api_ipshare_path_mtu_t_handler (vl_api_ipshare_path_mtu_t *mp)
{
  vl_api_ipshare_path_mtu_reply_t *rmp;
  ipshare_main_t *im = &ipshare_main;
  int rv = ready ();
  const struct ips_root *root = rv ? NULL : ips_tables_live (im->tables); /* only this thread makes another one live */
  const struct ips_endpoint *e = root ? ips_endpoint (root, be32 (mp->endpoint)) : NULL;
  if (!rv && !e)
    rv = VNET_API_ERROR_NO_SUCH_ENTRY;
  if (e && !ips_path_learn (&ips_tables_shared (im->tables)->paths, ips_path_key (&e->r), be32 (mp->mtu),
			    ipshare_now_ns () + (u64) be32 (mp->seconds) * 1000000000))
    rv = VNET_API_ERROR_LIMIT_EXCEEDED;
  REPLY_MACRO (VL_API_IPSHARE_PATH_MTU_REPLY);
}

static void
vl_api_ipshare_why_t_handler (vl_api_ipshare_why_t *mp)
{
  vl_api_ipshare_why_reply_t *rmp;
  ipshare_main_t *im = &ipshare_main;
  u32 bytes = be32 (mp->bytes), verdict = 0, n = 0, omitted = 0;
  u64 generation = 0;
  u8 *data = NULL, *room = NULL;
  struct ips_pkt p = { .counter = IPS_NONE, .endpoint = IPS_NONE };
  int rv = ready ();
  if (!rv && (mp->side > 1 || mp->gso_type > IPS_GSO_UDP || bytes > 65575 ||
	      vl_msg_api_get_msg_length (mp) < sizeof *mp + bytes))
    rv = VNET_API_ERROR_INVALID_VALUE;
  if (!rv && !(room = malloc (IPSHARE_LINEAR + 1024)))
    rv = VNET_API_ERROR_UNSPECIFIED;
  if (!rv)
    {
      memcpy (room + IPS_HEADROOM, mp->packet, bytes);
      p = (struct ips_pkt){ .data = room + IPS_HEADROOM,
			    .len = bytes,
			    .total_len = bytes,
			    .headroom = IPS_HEADROOM,
			    .gso_size = be16 (mp->gso_size),
			    .gso_type = mp->gso_type,
			    .counter = IPS_NONE,
			    .endpoint = IPS_NONE };
      data = ipshare_why (im, mp->side, &p, &verdict, &generation, &n, &omitted);
    }
  REPLY_MACRO3 (VL_API_IPSHARE_WHY_REPLY, vec_len (data), ({
		  rmp->verdict = be32 (verdict);
		  rmp->generation = be64 (generation);
		  rmp->cell = be32 (p.counter);
		  rmp->endpoint = be32 (p.endpoint);
		  rmp->n_packets = be32 (n);
		  rmp->omitted = be32 (omitted);
		  rmp->bytes = be32 (vec_len (data));
		  clib_memcpy (rmp->data, data, vec_len (data));
		}));
  vec_free (data);
  free (room);
}

/* ---- interfaces and next hops ---- */

static void
vl_api_ipshare_reply_interface_t_handler (vl_api_ipshare_reply_interface_t *mp)
{
  vl_api_ipshare_reply_interface_reply_t *rmp;
  int rv = ready ();
  VALIDATE_SW_IF_INDEX (mp);
  if (!rv && mp->side > 1)
    rv = VNET_API_ERROR_INVALID_VALUE;
  if (!rv)
    rv = ipshare_reply_interface (&ipshare_main, be32 (mp->sw_if_index), mp->side, mp->enable);
  BAD_SW_IF_INDEX_LABEL;
  REPLY_MACRO (VL_API_IPSHARE_REPLY_INTERFACE_REPLY);
}

static void
vl_api_ipshare_reply_interface_dump_t_handler (vl_api_ipshare_reply_interface_dump_t *mp)
{
  vl_api_registration_t *rp = vl_api_client_index_to_registration (mp->client_index);
  const u8 *sides = ipshare_main.reply_side_by_interface;
  for (u32 i = 0; rp && i < vec_len (sides); i++)
    {
      if (!sides[i])
	continue;
      vl_api_ipshare_reply_interface_details_t *rmp = vl_msg_api_alloc_zero (sizeof *rmp);
      rmp->_vl_msg_id = be16 (VL_API_IPSHARE_REPLY_INTERFACE_DETAILS + REPLY_MSG_ID_BASE);
      rmp->context = mp->context;
      rmp->sw_if_index = be32 (i);
      rmp->side = sides[i] - 1;
      vl_api_send_msg (rp, (u8 *) rmp);
    }
}

static void
vl_api_ipshare_next_hop_add_t_handler (vl_api_ipshare_next_hop_add_t *mp)
{
  vl_api_ipshare_next_hop_add_reply_t *rmp;
  ip46_address_t address;
  u32 id = 0;
  int rv = ready ();
  ip_address_decode (&mp->address, &address);
  if (!rv)
    id = ipshare_next_hop_add (&ipshare_main, &address, be32 (mp->table_id), &rv);
  REPLY_MACRO2 (VL_API_IPSHARE_NEXT_HOP_ADD_REPLY, ({ rmp->id = be32 (id); }));
}

static void
vl_api_ipshare_next_hop_del_t_handler (vl_api_ipshare_next_hop_del_t *mp)
{
  vl_api_ipshare_next_hop_del_reply_t *rmp;
  int rv = ready ();
  if (!rv)
    rv = ipshare_next_hop_del (&ipshare_main, be32 (mp->id));
  REPLY_MACRO (VL_API_IPSHARE_NEXT_HOP_DEL_REPLY);
}

/* api_tables.c */
void vl_api_ipshare_prepare_t_handler (vl_api_ipshare_prepare_t *mp);
void vl_api_ipshare_commit_t_handler (vl_api_ipshare_commit_t *mp);
void vl_api_ipshare_rollback_t_handler (vl_api_ipshare_rollback_t *mp);
void vl_api_ipshare_abort_t_handler (vl_api_ipshare_abort_t *mp);
void vl_api_ipshare_read_t_handler (vl_api_ipshare_read_t *mp);
void vl_api_ipshare_counter_index_t_handler (vl_api_ipshare_counter_index_t *mp);

/* api_pair.c */
void vl_api_ipshare_pair_set_t_handler (vl_api_ipshare_pair_set_t *mp);
void vl_api_ipshare_pair_clear_t_handler (vl_api_ipshare_pair_clear_t *mp);
void vl_api_ipshare_pair_command_t_handler (vl_api_ipshare_pair_command_t *mp);
void vl_api_ipshare_pair_state_t_handler (vl_api_ipshare_pair_state_t *mp);
void vl_api_ipshare_pair_wait_t_handler (vl_api_ipshare_pair_wait_t *mp);

/* api_flows.c */
void vl_api_ipshare_flows_t_handler (vl_api_ipshare_flows_t *mp);
void vl_api_ipshare_nat_interface_t_handler (vl_api_ipshare_nat_interface_t *mp);
void vl_api_ipshare_nat_interface_dump_t_handler (vl_api_ipshare_nat_interface_dump_t *mp);

/* taps.c */
void vl_api_ipshare_tap_start_t_handler (vl_api_ipshare_tap_start_t *mp);
void vl_api_ipshare_tap_end_t_handler (vl_api_ipshare_tap_end_t *mp);
void vl_api_ipshare_tap_dump_t_handler (vl_api_ipshare_tap_dump_t *mp);

#include <ipshare/ipshare.api.c>

/* All but those that change the graph: configure, reply_interface, nat_interface. */
static const u16 barrier_free[] = {
  VL_API_IPSHARE_HELLO,	   VL_API_IPSHARE_PREPARE,	 VL_API_IPSHARE_COMMIT,	  VL_API_IPSHARE_ABORT,
  VL_API_IPSHARE_ROLLBACK, VL_API_IPSHARE_INFO,		 VL_API_IPSHARE_READ,	  VL_API_IPSHARE_COUNTER_INDEX,
  VL_API_IPSHARE_COUNTERS, VL_API_IPSHARE_DROPS_DUMP,	 VL_API_IPSHARE_PATH_MTU, VL_API_IPSHARE_WHY,
  VL_API_IPSHARE_NEXT_HOP_ADD, VL_API_IPSHARE_NEXT_HOP_DEL, VL_API_IPSHARE_REPLY_INTERFACE_DUMP,
  VL_API_IPSHARE_TAP_START, VL_API_IPSHARE_TAP_END, VL_API_IPSHARE_TAP_DUMP,
  VL_API_IPSHARE_PAIR_SET, VL_API_IPSHARE_PAIR_CLEAR,	 VL_API_IPSHARE_PAIR_COMMAND, VL_API_IPSHARE_PAIR_STATE,
  VL_API_IPSHARE_PAIR_WAIT,   VL_API_IPSHARE_FLOWS,	 VL_API_IPSHARE_NAT_INTERFACE_DUMP,
};

clib_error_t *
ipshare_api_init (CLIB_UNUSED (vlib_main_t *vm))
{
  REPLY_MSG_ID_BASE = setup_message_id_table ();
  for (u32 i = 0; i < ARRAY_LEN (barrier_free); i++)
    vl_api_set_msg_thread_safe (vlibapi_get_main (), REPLY_MSG_ID_BASE + barrier_free[i], 1);
  return 0;
}
