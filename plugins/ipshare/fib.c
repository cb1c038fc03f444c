/* fib.c: how packets come to us, and how they leave without a second lookup.
 *
 * Diverted prefixes (Global Networks, own local networks, own tunnel addresses) are entries of the service table,
 * groups' members' of both (decision 0056). Of a network that passes what has no binding, and of members, the entry
 * interposes: the FIB stacks a clone of our DPO on whatever else it has for that prefix, and keeps doing so when routes
 * change. All others are exclusive, because an entry that interposes vanishes with the route below it, and what is
 * translated goes another way (decision 0008).
 *
 * A next hop (an end point's `via`) is a DPO stacked on its tracked FIB entry; a back-walk stacks it anew.
 * Pools have their full size at once: workers read them while the main thread changes them.
 */
#include "flows.h"
#include "servers.h"
#include <vnet/api_errno.h>
#include <vnet/dpo/drop_dpo.h>
#include <vnet/dpo/load_balance.h>
#include <vnet/feature/feature.h>
#include <vnet/fib/fib_entry.h>
#include <vnet/fib/fib_entry_track.h>
#include <vnet/fib/fib_table.h>
#include <vnet/ip/ip.h>

/* ---- the DPO that interposes ---- */

static index_t
dpo_new (ipshare_main_t *im, u8 side, u8 is_peer)
{
  ipshare_dpo_t *d;
  pool_get_zero (im->dpos, d);
  d->side = side;
  d->is_peer = is_peer;
  return d - im->dpos;
}

static void
dpo_lock_one (dpo_id_t *dpo)
{
  pool_elt_at_index (ipshare_main.dpos, dpo->dpoi_index)->locks++;
}

static void
dpo_unlock_one (dpo_id_t *dpo)
{
  ipshare_dpo_t *d = pool_elt_at_index (ipshare_main.dpos, dpo->dpoi_index);
  if (--d->locks)
    return;
  dpo_reset (&d->parent);
  pool_put (ipshare_main.dpos, d);
}

static u8 *
format_ipshare_dpo (u8 *s, va_list *args)
{
  index_t index = va_arg (*args, index_t);
  u32 indent = va_arg (*args, u32);
  ipshare_dpo_t *d = pool_elt_at_index (ipshare_main.dpos, index);
  s = format (s, "ipshare-%s:[%u]", d->side == IPS_OUTER ? "outer" : "inner", index);
  if (dpo_id_is_valid (&d->parent))
    s = format (s, "\n%U%U", format_white_space, indent + 2, format_dpo_id, &d->parent, indent + 4);
  return s;
}

static void
dpo_interpose (const dpo_id_t *original, const dpo_id_t *parent, dpo_id_t *clone)
{
  ipshare_main_t *im = &ipshare_main;
  const ipshare_dpo_t *of = pool_elt_at_index (im->dpos, original->dpoi_index);
  index_t index = dpo_new (im, of->side, of->is_peer);
  dpo_stack (original->dpoi_type, original->dpoi_proto, &pool_elt_at_index (im->dpos, index)->parent, parent);
  dpo_set (clone, original->dpoi_type, original->dpoi_proto, index);
}

static const dpo_vft_t dpo_vft = {
  .dv_lock = dpo_lock_one,
  .dv_unlock = dpo_unlock_one,
  .dv_format = format_ipshare_dpo,
  .dv_mk_interpose = dpo_interpose,
};

static const char *const outer4[] = { "ipshare-outer-ip4", NULL };
static const char *const outer6[] = { "ipshare-outer-ip6", NULL };
static const char *const inner4[] = { "ipshare-inner-ip4", NULL };
static const char *const inner6[] = { "ipshare-inner-ip6", NULL };
static const char *const *const outer_nodes[DPO_PROTO_NUM] = { [DPO_PROTO_IP4] = outer4, [DPO_PROTO_IP6] = outer6 };
static const char *const *const inner_nodes[DPO_PROTO_NUM] = { [DPO_PROTO_IP4] = inner4, [DPO_PROTO_IP6] = inner6 };

/* ---- which prefixes ---- */

void
ipshare_diverted_add (ipshare_diverted_t **to, u32 family, u32 len, const u8 *address, u8 side, bool passes)
{
  ipshare_diverted_t d;
  clib_memset (&d, 0, sizeof d);
  d.side = side;
  d.passes = passes;
  d.prefix.fp_len = len;
  d.prefix.fp_proto = family == 4 ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6;
  if (family == 4)
    clib_memcpy (&d.prefix.fp_addr.ip4, address, 4);
  else
    clib_memcpy (&d.prefix.fp_addr.ip6, address, 16);
  vec_add1 (*to, d);
}

/* By prefix; where one is both, the Global Network is first. */
static int
compare (void *one, void *other)
{
  const ipshare_diverted_t *a = one, *b = other;
  int order = fib_prefix_cmp ((fib_prefix_t *) &a->prefix, (fib_prefix_t *) &b->prefix);
  return order ? order : (int) a->side - (int) b->side;
}

ipshare_diverted_t *
ipshare_diverted_sorted (ipshare_diverted_t *all)
{
  u32 n = 0;
  if (!all)
    return NULL;
  vec_sort_with_function (all, compare);
  for (u32 i = 0; i < vec_len (all); i++)
    if (n == 0 || fib_prefix_cmp (&all[n - 1].prefix, &all[i].prefix))
      all[n++] = all[i];
  vec_set_len (all, n);
  return all;
}

/* As a packet is addressed that may have to be translated: a member by the name that this side has no more, or has not. */
static void
add_peers (ipshare_diverted_t **to, const struct ips_peer_rec *peer, u32 n)
{
  for (; n--; peer++)
    {
      bool has_moved = !ips_is_zero (peer->now), is_here = peer->flags & IPS_PEER_HERE;
      if (peer->flags & IPS_PEER_ALSO && !is_here)
	continue;
      ipshare_diverted_add (to, peer->family, peer->family == 4 ? 32 : 128, has_moved && is_here ? peer->now : peer->address,
			    IPS_INNER, true);
      vec_end (*to)[-1].is_peer = 1;
    }
}

ipshare_diverted_t *
ipshare_diverted_peers (ipshare_diverted_t *all)
{
  ipshare_diverted_t *d, *peers = NULL;
  vec_foreach (d, all)
    if (d->is_peer)
      vec_add1 (peers, *d);
  return peers;
}

ipshare_diverted_t *
ipshare_diverted_of (const struct ips_image_header *image)
{
  const struct ips_network_rec *network = (const void *) (image + 1);
  const struct ips_endpoint_rec *endpoint = (const void *) (network + image->n_networks);
  const struct ips_policy_rec *policy = (const void *) (endpoint + image->n_endpoints);
  const struct ips_member_rec *member = (const void *) (policy + image->n_policies);
  ipshare_diverted_t *wanted = NULL;
  for (u32 i = 0; image->roles & IPS_ROLE_OUTER && i < image->n_networks; i++)
    ipshare_diverted_add (&wanted, network[i].family, network[i].prefix_len, network[i].prefix, IPS_OUTER,
			  network[i].unmatched == IPS_UNMATCHED_PASS);
  for (u32 i = 0; i < image->n_endpoints; i++)
    {
      const struct ips_endpoint_rec *e = endpoint + i;
      if (image->roles & IPS_ROLE_INNER && e->flags & IPS_EP_SELF && e->prefix_len)
	ipshare_diverted_add (&wanted, e->family, e->prefix_len, e->local, IPS_INNER, false);
      if (e->tunnel_family && !ips_is_zero (e->tunnel_local))
	ipshare_diverted_add (&wanted, e->tunnel_family, e->tunnel_family == 4 ? 32 : 128, e->tunnel_local, IPS_INNER,
			      false);
    }
  add_peers (&wanted, (const void *) (member + image->n_members), image->n_peers);
  return ipshare_diverted_sorted (wanted);
}

/* The largest prefix that begins at `at` and holds no more than n addresses; *n becomes the rest. */
static u32
prefix_len (unsigned family, ips_u128 at, u32 *n)
{
  u32 bits = family == 4 ? 32 : 128, host = 0;
  ips_u128 one = family == 4 ? (ips_u128) 1 << 96 : 1;
  while (host < bits && 2u << host <= *n && !(at & (one << host)))
    host++;
  *n -= 1u << host;
  return bits - host;
}

ipshare_diverted_t *
ipshare_diverted_of_pools (const struct ips_ctl_flows *set)
{
  ipshare_diverted_t *wanted = NULL;
  for (u32 i = 0; i < set->n_pools; i++)
    {
      const struct ips_napt_pool_rec *pool = set->pools + i;
      ips_u128 at = ips_ld_address (pool->family, pool->first), one = pool->family == 4 ? (ips_u128) 1 << 96 : 1;
      for (u32 left = pool->n; left;)
	{
	  u8 address[16];
	  u32 had = left, len = prefix_len (pool->family, at, &left);
	  ips_st_address (address, at);
	  ipshare_diverted_add (&wanted, pool->family, len, address, IPS_OUTER, false);
	  at += one * (had - left);
	}
    }
  return ipshare_diverted_sorted (wanted);
}

static const ipshare_diverted_t *
find (ipshare_diverted_t *among, const ipshare_diverted_t *d)
{
  u32 first = 0, end = vec_len (among);
  while (first < end)
    {
      u32 mid = (first + end) / 2;
      int order = fib_prefix_cmp (&among[mid].prefix, (fib_prefix_t *) &d->prefix);
      if (order == 0)
	return among + mid;
      if (order < 0)
	first = mid + 1;
      else
	end = mid;
    }
  return NULL;
}

static void
divert (ipshare_main_t *im, fib_source_t source, const u32 *fib, const ipshare_diverted_t *d,
	const ipshare_diverted_t *had)
{
  fib_protocol_t proto = d->prefix.fp_proto;
  dpo_proto_t dpo_proto = fib_proto_to_dpo (proto);
  fib_entry_flag_t flags = d->passes ? FIB_ENTRY_FLAG_INTERPOSE : FIB_ENTRY_FLAG_EXCLUSIVE;
  dpo_id_t dpo = DPO_INVALID;
  index_t index = dpo_new (im, d->side, d->is_peer);
  dpo_stack (im->dpo_types[d->side], dpo_proto, &pool_elt_at_index (im->dpos, index)->parent, drop_dpo_get (dpo_proto));
  dpo_set (&dpo, im->dpo_types[d->side], dpo_proto, index);
  if (had && had->passes == d->passes)
    fib_table_entry_special_dpo_update (fib[proto], &d->prefix, source, flags, &dpo);
  else
    {
      if (had) /* the two kinds of entry do not turn into each other */
	fib_table_entry_special_remove (fib[proto], &d->prefix, source);
      fib_table_entry_special_dpo_add (fib[proto], &d->prefix, source, flags, &dpo);
    }
  dpo_reset (&dpo);
}

void
ipshare_divert (ipshare_main_t *im, fib_source_t source, const u32 *fib, ipshare_diverted_t *before,
		ipshare_diverted_t *wanted, bool removals)
{
  ipshare_diverted_t *d;
  if (removals)
    {
      vec_foreach (d, before)
	if (!find (wanted, d))
	  fib_table_entry_special_remove (fib[d->prefix.fp_proto], &d->prefix, source);
      return;
    }
  vec_foreach (d, wanted)
    {
      const ipshare_diverted_t *had = find (before, d);
      if (!had || had->side != d->side || had->passes != d->passes || had->is_peer != d->is_peer)
	divert (im, source, fib, d, had);
    }
}

/* ---- next hops ---- */

/* Workers see the old way or the new one, or that there is none and look up: it is one store. */
static void
publish (ipshare_main_t *im, const ipshare_next_hop_t *nh, bool there_is)
{
  fib_protocol_t proto = ip46_address_is_ip4 (&nh->address) ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6;
  u64 way = there_is ? nh->forward[IPS_OUTER].as_u64 : 0;
  __atomic_store_n (&im->ways[proto][nh - im->next_hops].as_u64, way, __ATOMIC_RELEASE);
}

static void
stack (ipshare_next_hop_t *nh)
{
  ipshare_main_t *im = &ipshare_main;
  bool is4 = ip46_address_is_ip4 (&nh->address);
  dpo_id_t via = DPO_INVALID;
  fib_entry_contribute_forwarding (nh->entry, is4 ? FIB_FORW_CHAIN_TYPE_UNICAST_IP4 : FIB_FORW_CHAIN_TYPE_UNICAST_IP6,
				   &via);
  /* A single path, as nearly always: straight to its adjacency, no load balancing on the way. */
  const dpo_id_t *parent = &via;
  if (via.dpoi_type == DPO_LOAD_BALANCE && load_balance_get (via.dpoi_index)->lb_n_buckets == 1)
    parent = load_balance_get_bucket (via.dpoi_index, 0);
  for (u32 side = 0; side < 2; side++)
    dpo_stack (im->dpo_types[side], is4 ? DPO_PROTO_IP4 : DPO_PROTO_IP6, &nh->forward[side], parent);
  dpo_reset (&via);
  publish (im, nh, true);
}

static fib_node_t *
next_hop_node (fib_node_index_t index)
{
  return &ipshare_main.next_hops[index].node;
}

static ipshare_next_hop_t *
next_hop_of (fib_node_t *node)
{
  return (ipshare_next_hop_t *) ((u8 *) node - STRUCT_OFFSET_OF (ipshare_next_hop_t, node));
}

static void
next_hop_last_lock_gone (CLIB_UNUSED (fib_node_t *node))
{
}

static fib_node_back_walk_rc_t
next_hop_back_walk (fib_node_t *node, CLIB_UNUSED (fib_node_back_walk_ctx_t *ctx))
{
  stack (next_hop_of (node));
  return FIB_NODE_BACK_WALK_CONTINUE;
}

static const fib_node_vft_t next_hop_vft = {
  .fnv_get = next_hop_node,
  .fnv_last_lock = next_hop_last_lock_gone,
  .fnv_back_walk = next_hop_back_walk,
};

static u32
next_hop_find (ipshare_main_t *im, const ip46_address_t *address, u32 table_id)
{
  for (u32 i = 1; i < IPSHARE_MAX_NEXT_HOPS; i++)
    if (im->next_hops[i].used && im->next_hops[i].table_id == table_id &&
	ip46_address_is_equal (&im->next_hops[i].address, address))
      return i;
  return 0;
}

u32
ipshare_next_hop_add (ipshare_main_t *im, const ip46_address_t *address, u32 table_id, int *rv)
{
  fib_protocol_t proto = ip46_address_is_ip4 (address) ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6;
  u32 fib = fib_table_find (proto, table_id), id = next_hop_find (im, address, table_id);
  *rv = fib == ~0 ? VNET_API_ERROR_NO_SUCH_FIB : 0;
  if (id || *rv)
    return id;
  for (id = 1; id < IPSHARE_MAX_NEXT_HOPS && im->next_hops[id].used; id++)
    ;
  if (id == IPSHARE_MAX_NEXT_HOPS)
    {
      *rv = VNET_API_ERROR_LIMIT_EXCEEDED;
      return 0;
    }
  ipshare_next_hop_t *nh = im->next_hops + id;
  fib_prefix_t host = { .fp_proto = proto, .fp_len = proto == FIB_PROTOCOL_IP4 ? 32 : 128, .fp_addr = *address };
  clib_memset (nh, 0, sizeof *nh);
  nh->address = *address;
  nh->table_id = table_id;
  fib_node_init (&nh->node, im->next_hop_type);
  fib_node_lock (&nh->node);
  nh->entry = fib_entry_track (fib, &host, im->next_hop_type, id, &nh->sibling);
  stack (nh);
  nh->used = 1;
  return id;
}

int
ipshare_next_hop_del (ipshare_main_t *im, u32 id)
{
  if (id == 0 || id >= IPSHARE_MAX_NEXT_HOPS || !im->next_hops[id].used)
    return VNET_API_ERROR_NO_SUCH_ENTRY;
  ipshare_next_hop_t *nh = im->next_hops + id;
  nh->used = 0;
  publish (im, nh, false);
  fib_entry_untrack (nh->entry, nh->sibling);
  for (u32 side = 0; side < 2; side++)
    dpo_reset (&nh->forward[side]);
  return 0;
}

/* ---- replies: sources to look at (S1.5) ---- */

int
ipshare_reply_interface (ipshare_main_t *im, u32 sw_if_index, u8 side, bool enable)
{
  vec_validate (im->reply_side_by_interface, sw_if_index);
  u8 had = im->reply_side_by_interface[sw_if_index], wanted = enable ? side + 1 : 0;
  im->reply_side_by_interface[sw_if_index] = wanted;
  if (!had != !wanted)
    {
      vnet_feature_enable_disable ("ip4-unicast", "ipshare-reply-ip4", sw_if_index, enable, 0, 0);
      vnet_feature_enable_disable ("ip6-unicast", "ipshare-reply-ip6", sw_if_index, enable, 0, 0);
    }
  return 0;
}

/* Its number may be another interface's tomorrow. */
static clib_error_t *
interface_gone (CLIB_UNUSED (vnet_main_t *vnm), u32 sw_if_index, u32 is_add)
{
  ipshare_main_t *im = &ipshare_main;
  if (!is_add && sw_if_index < vec_len (im->reply_side_by_interface))
    ipshare_reply_interface (im, sw_if_index, 0, false);
  if (!is_add)
    {
      ipshare_nat_interface_gone (im, sw_if_index);
      ipshare_servers_interface_gone (im, sw_if_index);
    }
  return 0;
}

VNET_SW_INTERFACE_ADD_DEL_FUNCTION (interface_gone);

void
ipshare_fib_init (ipshare_main_t *im)
{
  im->fib_source = fib_source_allocate ("ipshare", FIB_SOURCE_PRIORITY_HI, FIB_SOURCE_BH_SIMPLE);
  im->channel_source = fib_source_allocate ("ipshare-channel", FIB_SOURCE_PRIORITY_HI, FIB_SOURCE_BH_SIMPLE);
  im->cluster_source = fib_source_allocate ("ipshare-cluster", FIB_SOURCE_PRIORITY_HI, FIB_SOURCE_BH_SIMPLE);
  im->dpo_types[IPS_OUTER] = dpo_register_new_type (&dpo_vft, outer_nodes);
  im->dpo_types[IPS_INNER] = dpo_register_new_type (&dpo_vft, inner_nodes);
  im->next_hop_type = fib_node_register_new_type ("ipshare-next-hop", &next_hop_vft);
  pool_init_fixed (im->dpos, IPSHARE_MAX_DPOS);
  vec_validate (im->next_hops, IPSHARE_MAX_NEXT_HOPS - 1);
  for (u32 family = 0; family < 2; family++)
    vec_validate (im->ways[family], IPSHARE_MAX_NEXT_HOPS - 1);
}
