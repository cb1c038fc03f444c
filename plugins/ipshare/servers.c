/* servers.c: clusters in VPP (decision 0069): packets to their addresses come to us, and their servers have adjacencies.
 *
 * Addresses of clusters are entries of the service table, as pools are, with a source of their own in the FIB. A server's
 * adjacency is VPP's, as any route over the same neighbour has it: VPP asks, learns and ages. Interfaces are known by
 * name, and may come after the set that names them: the agent makes them later, and looks at servers all the time.
 */
#define _GNU_SOURCE
#include "servers.h"
#include <vnet/adj/adj_nbr.h>
#include <vnet/ip-neighbor/ip_neighbor.h>

static struct ips_ctl_dispatch wanted; /* main thread only */

static void
divert (ipshare_main_t *im)
{
  ipshare_diverted_t *now = NULL, *had = im->clusters;
  for (u32 i = 0; i < wanted.n_clusters; i++)
    {
      const struct ips_cluster_rec *c = &wanted.clusters[i].rec;
      ipshare_diverted_add (&now, c->family, c->family == 4 ? 32 : 128, c->address, IPS_OUTER, false);
    }
  now = ipshare_diverted_sorted (now);
  ipshare_divert (im, im->cluster_source, im->service_fib, had, now, false);
  ipshare_divert (im, im->cluster_source, im->service_fib, had, now, true);
  im->clusters = now;
  vec_free (had);
}

/* ~0: there is none of that name, or it has no neighbours. */
static u32
interface_named (const char *name)
{
  vnet_main_t *vnm = vnet_get_main ();
  vnet_sw_interface_t *si;
  pool_foreach (si, vnm->interface_main.sw_interfaces)
    {
      u8 *s = format (0, "%U%c", format_vnet_sw_if_index_name, vnm, si->sw_if_index, 0);
      bool same = strcmp ((char *) s, name) == 0;
      vec_free (s);
      if (same)
	return vnet_sw_interface_is_p2p (vnm, si->sw_if_index) ? ~0 : si->sw_if_index;
    }
  return ~0;
}

static void
replace (ipshare_main_t *im, u32 number, adj_index_t now)
{
  adj_index_t had = im->servers[number];
  __atomic_store_n (im->servers + number, now, __ATOMIC_RELEASE);
  if (had != ADJ_INDEX_INVALID)
    adj_unlock (had);
}

/* Nobody has sent anything there yet: VPP would drop the packet that makes it ask. */
static void
ask (adj_index_t index)
{
  const ip_adjacency_t *adj = adj_get (index);
  if (adj->lookup_next_index == IP_LOOKUP_NEXT_ARP)
    ip_neighbor_probe (adj);
}

static void
place (ipshare_main_t *im, u32 number, u32 sw_if_index, u32 family, const u8 *address)
{
  ip46_address_t to = { 0 };
  adj_index_t now = ADJ_INDEX_INVALID;
  clib_memcpy (family == 4 ? (u8 *) &to.ip4 : (u8 *) &to.ip6, address, family == 4 ? 4 : 16);
  if (sw_if_index != ~0 && family == 4)
    now = adj_nbr_add_or_lock (FIB_PROTOCOL_IP4, VNET_LINK_IP4, &to, sw_if_index);
  else if (sw_if_index != ~0)
    now = adj_nbr_add_or_lock (FIB_PROTOCOL_IP6, VNET_LINK_IP6, &to, sw_if_index);
  replace (im, number, now);
  if (now != ADJ_INDEX_INVALID)
    ask (now);
}

/* Numbers of addresses come with the session table, and stay. */
static bool
has_places (ipshare_main_t *im)
{
  u32 *all = NULL;
  if (!im->servers && im->flows->sessions)
    {
      vec_validate_init_empty (all, ips_sessions_addresses (im->flows->sessions) - 1, ADJ_INDEX_INVALID);
      __atomic_store_n (&im->servers, all, __ATOMIC_RELEASE);
    }
  return im->servers != NULL;
}

void
ipshare_servers_align (ipshare_main_t *im)
{
  u8 *is_wanted = NULL;
  if (!has_places (im))
    return;
  vec_validate (is_wanted, vec_len (im->servers) - 1);
  for (u32 i = 0; i < wanted.n_clusters; i++)
    {
      const struct ips_cluster_rec *c = &wanted.clusters[i].rec;
      u32 sw_if_index = interface_named (wanted.clusters[i].interface);
      for (u32 k = c->first_server; k < c->first_server + c->n_servers; k++)
	{
	  u32 number = ips_sessions_number (im->flows->sessions, c->family, wanted.servers[k].address);
	  if (number >= vec_len (im->servers))
	    continue;
	  place (im, number, sw_if_index, c->family, wanted.servers[k].address);
	  is_wanted[number] = 1;
	}
    }
  for (u32 number = 0; number < vec_len (im->servers); number++)
    if (!is_wanted[number] && im->servers[number] != ADJ_INDEX_INVALID)
      replace (im, number, ADJ_INDEX_INVALID);
  vec_free (is_wanted);
}

/* Ways are there before packets come, and packets have gone before ways do. */
void
ipshare_servers_set (ipshare_main_t *im, const struct ips_ctl_dispatch *set)
{
  clib_memcpy (&wanted, set, sizeof wanted);
  if (wanted.n_clusters)
    ipshare_servers_align (im);
  divert (im);
  if (!wanted.n_clusters)
    ipshare_servers_align (im);
}

/* Its number may be another interface's tomorrow. */
void
ipshare_servers_interface_gone (ipshare_main_t *im, u32 sw_if_index)
{
  for (u32 number = 0; number < vec_len (im->servers); number++)
    if (im->servers[number] != ADJ_INDEX_INVALID &&
	adj_get (im->servers[number])->rewrite_header.sw_if_index == sw_if_index)
      replace (im, number, ADJ_INDEX_INVALID);
}

void
ipshare_servers_macs (const ipshare_main_t *im, struct ips_ctl_server_state *states, u32 n)
{
  for (struct ips_ctl_server_state *s = states; s < states + n; s++)
    {
      u32 number = ips_sessions_number (im->flows->sessions, s->family, s->address);
      adj_index_t index = ipshare_server_adjacency (im, number + 1);
      const ip_adjacency_t *adj = index != ADJ_INDEX_INVALID ? adj_get (index) : NULL;
      s->has_mac = adj && adj->lookup_next_index == IP_LOOKUP_NEXT_REWRITE && adj->rewrite_header.data_bytes >= 14;
      if (s->has_mac)
	clib_memcpy (s->mac, adj_get_rewrite (index), sizeof s->mac);
    }
}
