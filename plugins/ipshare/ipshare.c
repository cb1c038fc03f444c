/* ipshare.c: the plugin itself, and what `vppctl show ipshare` says. */
#include "flows.h"
#include <vnet/plugin/plugin.h>
#include <vpp/app/version.h>
#include <sys/random.h>

ipshare_main_t ipshare_main;

VLIB_PLUGIN_REGISTER () = {
  .version = IPSHARE_VERSION,
  .version_required = VPP_BUILD_VER, /* binary interfaces of VPP change with every release */
  .description = "ipshare: stateless translation of public addresses",
};

static clib_error_t *
init (vlib_main_t *vm)
{
  ipshare_main_t *im = &ipshare_main;
  im->log = vlib_log_register_class ("ipshare", 0);
  if (getrandom (im->boot_id, sizeof im->boot_id, 0) != sizeof im->boot_id)
    return clib_error_return_unix (0, "ipshare: no randomness for the boot id");
  ipshare_fib_init (im);
  ipshare_nodes_init (vm, im);
  return ipshare_api_init (vm);
}

VLIB_INIT_FUNCTION (init) = {
  .runs_after = VLIB_INITS ("ip4_init", "ip6_init", "fib_module_init"),
};

/* ---- show ipshare ---- */

static void
show_flows (vlib_main_t *vm)
{
  struct ips_ctl_flows_state s;
  ipshare_flows_enter (&ipshare_main);
  flows_state (ipshare_main.flows, &s);
  ipshare_flows_leave (&ipshare_main);
  if (!s.has_flows)
    return;
  vlib_cli_output (vm, "sessions: %u of %u, %u half open, %u mappings, %u public addresses%s", s.sessions.sessions,
		   s.sessions.capacity, s.sessions.half_open, s.sessions.mappings, s.n_addresses,
		   s.sessions.standby ? " (standby)" : "");
  if (s.has_mirror)
    vlib_cli_output (vm, "first packets: %lu committed, %lu not, %lu wait", s.committed, s.uncommitted, s.held);
}

static clib_error_t *
show_summary (vlib_main_t *vm)
{
  ipshare_main_t *im = &ipshare_main;
  const struct ips_tables_info *i = &im->info;
  vlib_cli_output (vm, "ipshare %s, service table %u, delivery table %u", IPSHARE_VERSION, im->service_table,
		   im->delivery_table);
  vlib_cli_output (vm, "generation %lu (before: %lu, prepared: %lu), term %lu, revision %lu", i->generation,
		   i->previous, i->prepared, i->term, i->revision);
  vlib_cli_output (vm, "%u bindings in %u networks, %u end points, %u policies, %U", i->n_bindings, i->n_networks,
		   i->n_endpoints, i->n_policies, format_memory_size, i->bytes);
  vlib_cli_output (vm, "counter cells: %u of %u", im->cells_used, im->counter_cells);
  show_flows (vm);
  return 0;
}

static clib_error_t *
show_prefixes (vlib_main_t *vm)
{
  ipshare_diverted_t *d;
  ipshare_next_hop_t *nh;
  vec_foreach (d, ipshare_main.diverted)
    vlib_cli_output (vm, "%U: %s", format_fib_prefix, &d->prefix, d->is_peer ? "peer" : d->side == IPS_OUTER ? "outer" : "inner");
  vec_foreach (d, ipshare_main.pools)
    vlib_cli_output (vm, "%U: pool", format_fib_prefix, &d->prefix);
  vec_foreach (d, ipshare_main.channels)
    vlib_cli_output (vm, "%U: channel", format_fib_prefix, &d->prefix);
  vec_foreach (d, ipshare_main.clusters)
    vlib_cli_output (vm, "%U: cluster", format_fib_prefix, &d->prefix);
  vec_foreach (nh, ipshare_main.next_hops)
    if (nh->used)
      vlib_cli_output (vm, "next hop %u: %U table %u\n  %U", (u32) (nh - ipshare_main.next_hops), format_ip46_address,
		       &nh->address, IP46_TYPE_ANY, nh->table_id, format_dpo_id, &nh->forward[0], 4);
  return 0;
}

static clib_error_t *
show_verdicts (vlib_main_t *vm)
{
  ipshare_thread_t *t;
  for (u32 side = 0; side < 2; side++)
    for (u32 v = 0; v < IPS_N_VERDICTS; v++)
      {
	u64 n = 0;
	vec_foreach (t, ipshare_main.threads)
	  n += t->counters->verdicts[side][v];
	if (n)
	  vlib_cli_output (vm, "%-6s %-22s %12lu  %s", side == IPS_OUTER ? "outer" : "inner", ips_verdict_name (v), n,
			   ips_verdict_text (v));
      }
  return 0;
}

static clib_error_t *
show_address (vlib_main_t *vm, const ip46_address_t *address, unsigned family)
{
  struct ips_lookup l;
  u8 key[16] = { 0 };
  const u8 *bytes = family == 4 ? address->ip4.as_u8 : address->ip6.as_u8;
  memcpy (key, bytes, family == 4 ? 4 : 16);
  for (u32 local = 0; local < 2; local++)
    {
      size_t found = local ? ips_lookup_local (ipshare_main.tables, family, key, 1, &l) :
			     ips_lookup_global (ipshare_main.tables, family, key, NULL, 1, &l);
      if (!found)
	continue;
      vlib_cli_output (vm, "%s: kind %u, %U%s, end point %d, cell %d", local ? "local -> global" : "global -> local",
		       l.kind, family == 4 ? (format_function_t *) format_ip4_address : format_ip6_address, l.address,
		       l.flags & IPS_BINDING_COPY ? ", copied" : "", l.endpoint, l.counter);
      return 0;
    }
  vlib_cli_output (vm, "no Global and no local network of ours");
  return 0;
}

static clib_error_t *
show (vlib_main_t *vm, unformat_input_t *input, vlib_cli_command_t *cmd)
{
  ip46_address_t address;
  if (!ipshare_main.configured)
    return clib_error_return (0, "not configured yet: the driver does that");
  if (unformat_check_input (input) == UNFORMAT_END_OF_INPUT)
    return show_summary (vm);
  if (unformat (input, "prefixes"))
    return show_prefixes (vm);
  if (unformat (input, "verdicts"))
    return show_verdicts (vm);
  if (ipshare_builder_busy ())
    return clib_error_return (0, "tables are being prepared: ask again");
  clib_memset (&address, 0, sizeof address);
  if (unformat (input, "address %U", unformat_ip4_address, &address.ip4))
    return show_address (vm, &address, 4);
  if (unformat (input, "address %U", unformat_ip6_address, &address.ip6))
    return show_address (vm, &address, 6);
  return clib_error_return (0, "unknown input '%U'", format_unformat_error, input);
}

VLIB_CLI_COMMAND (show_ipshare_command, static) = {
  .path = "show ipshare",
  .short_help = "show ipshare [prefixes | verdicts | address <address>]",
  .function = show,
  .is_mp_safe = 1,
};
