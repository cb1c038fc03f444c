/* ways.h: where the packets of a frame go next, one by one or a lane's group together.
 *
 * An end point whose next hop is known names its way, as fib.c stacked it. Any other packet's is in the delivery table, looked
 * up here as ip4-lookup and ip6-lookup do (decision 0010): our nodes are their siblings, so the arcs of what they
 * find are ours. A group's waits for memory overlap, and what its packets have in common is done once.
 */
#ifndef __included_ipshare_ways_h__
#define __included_ipshare_ways_h__

#include <ipshare/ipshare.h>
#include <vnet/dpo/load_balance.h>
#include <vnet/fib/ip4_fib.h>
#include <vnet/fib/ip6_fib.h>
#include <vnet/ip/ip.h>
#include "../../native/ips_lane.h"

typedef struct
{
  vlib_main_t *vm;
  vlib_node_runtime_t *node;
  ipshare_thread_t *t;
  const u16 *arcs; /* of this node, by ipshare_to_t */
  struct ips_cell *cells;
  u32 n_cells;
  unsigned family; /* whose lookup node's arcs this node shares; 0: none */
  u32 send[VLIB_FRAME_SIZE], n_send;
  u16 nexts[VLIB_FRAME_SIZE];
  u32 done[VLIB_FRAME_SIZE], n_done;
  u32 n_counted; /* verdicts other than OK and drops, in counts */
  u16 counts[IPS_N_VERDICTS];
} ipshare_frame_t;

/* ---- one packet ---- */

/* For a lookup node to look up: the packet as the core left it, of either family. */
static_always_inline u16
look_up (const ipshare_main_t *im, const ipshare_frame_t *f, vlib_buffer_t *b, const u8 *ip)
{
  bool is6 = ip[0] >> 4 == 6;
  vnet_buffer (b)->sw_if_index[VLIB_TX] = im->delivery_fib[is6 ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4];
  return f->arcs[is6 ? IPSHARE_TO_IP6_LOOKUP : IPSHARE_TO_IP4_LOOKUP];
}

/* What lookup nodes do, for one path; several paths are theirs to choose from. */
static_always_inline dpo_id_t
way_of (const ipshare_frame_t *f, vlib_buffer_t *b, u32 fib, const load_balance_t *lb)
{
  if (PREDICT_TRUE (lb->lb_n_buckets == 1))
    return *load_balance_get_bucket_i (lb, 0);
  vnet_buffer (b)->sw_if_index[VLIB_TX] = fib;
  return (dpo_id_t){ .dpoi_next_node = f->arcs[f->family == 4 ? IPSHARE_TO_IP4_LOOKUP : IPSHARE_TO_IP6_LOOKUP] };
}

static_always_inline void
routed (const ipshare_frame_t *f, const load_balance_t *lb, index_t lbi, u32 packets, u32 bytes)
{
  if (PREDICT_TRUE (lb->lb_n_buckets == 1))
    vlib_increment_combined_counter (&load_balance_main.lbm_to_counters, f->vm->thread_index, lbi, packets, bytes);
}

static_always_inline u16
go (vlib_buffer_t *b, dpo_id_t way)
{
  vnet_buffer (b)->ip.adj_index[VLIB_TX] = way.dpoi_index;
  vnet_buffer (b)->ip.flow_hash = 0;
  return way.dpoi_next_node;
}

static_always_inline u16
deliver (const ipshare_main_t *im, const ipshare_frame_t *f, vlib_buffer_t *b, const u8 *ip, u32 bytes, bool is4)
{
  u32 fib = im->delivery_fib[is4 ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6];
  index_t lbi = is4 ? ip4_fib_forwarding_lookup (fib, &((const ip4_header_t *) ip)->dst_address) :
		      ip6_fib_table_fwding_lookup (fib, &((const ip6_header_t *) ip)->dst_address);
  const load_balance_t *lb = load_balance_get (lbi);
  routed (f, lb, lbi, 1, bytes);
  return go (b, way_of (f, b, fib, lb));
}

/* As deliver() does, for a packet of any family, where this node can. Whatever leaves a node by one way stays in order. */
static u16
resolve (const ipshare_main_t *im, const ipshare_frame_t *f, vlib_buffer_t *b, const u8 *ip, u32 bytes)
{
  unsigned family = ip[0] >> 4;
  if (f->family == family)
    return deliver (im, f, b, ip, bytes, family == 4);
  return look_up (im, f, b, ip);
}

/* A DPO that the main thread may change meanwhile, which it does by one store: index and arc of the same one. */
static_always_inline dpo_id_t
dpo_now (const dpo_id_t *dpo)
{
  return (dpo_id_t){ .as_u64 = __atomic_load_n (&dpo->as_u64, __ATOMIC_RELAXED) };
}

/* To the end point's next hop, where it has one of this family; else 0. */
static_always_inline dpo_id_t
next_hop (const ipshare_main_t *im, u32 via, bool is4)
{
  dpo_id_t none = { .as_u64 = 0 };
  return PREDICT_TRUE (via < IPSHARE_MAX_NEXT_HOPS) ? dpo_now (&im->ways[is4 ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6][via]) : none;
}

/* ---- a group that the lane took ---- */

/* The delivery table's load balances for the packets of a group. */
static_always_inline void
routes4 (u32 fib, const struct ips_lane_group *g, u32 n, index_t *lbi)
{
  for (u32 i = 0; i < n; i++)
    lbi[i] = ip4_fib_forwarding_lookup (fib, (const ip4_address_t *) (g->new4 + i));
}

static_always_inline bool
route6 (u64 hi, u64 lo, u64 fib_and_length, index_t *lbi)
{
  clib_bihash_kv_24_8_t kv = { .key = { hi, lo, fib_and_length } }, found;
  if (clib_bihash_search_inline_2_24_8 (&ip6_fib_fwding_table.ip6_hash, &kv, &found))
    return false;
  *lbi = found.value;
  return true;
}

/* As ip6_fib_table_fwding_lookup does: a hash for each prefix length in use, longest first. But all packets take a length
 * together, and where their addresses agree in that many bits, one of them asks for all. */
static_always_inline void
routes6 (u32 fib, const struct ips_lane_group *g, u32 n, index_t *lbi)
{
  const u8 *lengths = ip6_fib_fwding_table.prefix_lengths_in_search_order;
  u64 differ_hi = 0, differ_lo = 0;
  u8 left[IPS_LANE_GROUP];
  for (u32 i = 0; i < n; i++)
    {
      differ_hi |= g->new_hi[i] ^ g->new_hi[0];
      differ_lo |= g->new_lo[i] ^ g->new_lo[0];
      left[i] = i;
      lbi[i] = 0;
    }
  for (u32 l = 0; l < vec_len (lengths) && n; l++)
    {
      const ip6_address_t *mask = ip6_main.fib_masks + lengths[l];
      u64 of = (u64) fib << 32 | lengths[l];
      bool all_one = ((differ_hi & mask->as_u64[0]) | (differ_lo & mask->as_u64[1])) == 0, found = false;
      index_t it = 0;
      u32 n_left = 0;
      for (u32 k = 0; k < n; k++)
	{
	  u32 i = left[k];
	  if (!all_one || k == 0)
	    found = route6 (g->new_hi[i] & mask->as_u64[0], g->new_lo[i] & mask->as_u64[1], of, &it);
	  if (found)
	    lbi[i] = it;
	  else
	    left[n_left++] = i;
	}
      n = n_left;
    }
}

/* By the delivery table. Nearly always all have a route in common. */
static_always_inline void
look_up_group (const ipshare_main_t *im, const ipshare_frame_t *f, const struct ips_lane_group *g, vlib_buffer_t **b, u32 n,
	       bool is4, bool all, dpo_id_t *ways)
{
  u32 fib = im->delivery_fib[is4 ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6], differ = 0, bytes = 0;
  index_t lbi[IPS_LANE_GROUP];
  if (is4)
    routes4 (fib, g, n, lbi);
  else
    routes6 (fib, g, n, lbi);
  for (u32 i = 0; i < n; i++)
    {
      differ |= lbi[i] ^ lbi[0];
      bytes += g->ip_len[i];
    }
  const load_balance_t *first = load_balance_get (lbi[0]);
  if (PREDICT_TRUE (all && !differ && first->lb_n_buckets == 1))
    {
      routed (f, first, lbi[0], n, bytes);
      for (u32 i = 0; i < n; i++)
	ways[i] = *load_balance_get_bucket_i (first, 0);
      return;
    }
  for (u32 i = 0; i < n; i++)
    if (all || !ways[i].as_u64)
      {
	const load_balance_t *lb = load_balance_get (lbi[i]);
	routed (f, lb, lbi[i], 1, g->ip_len[i]);
	ways[i] = way_of (f, b[i], fib, lb);
      }
}

/* Where a group goes that the lane took: straight to the end points' next hops, else by the delivery table. */
static_always_inline void
ways_of (const ipshare_main_t *im, const ipshare_frame_t *f, const struct ips_lane_group *g, vlib_buffer_t **b, u32 n,
	 enum ips_side side, bool is4, dpo_id_t *ways)
{
  u32 stacked = 0;
  for (u32 i = 0; i < n && side == IPS_OUTER; i++)
    {
      ways[i] = next_hop (im, g->via[i], is4);
      stacked += ways[i].as_u64 != 0;
    }
  if (stacked < n)
    look_up_group (im, f, g, b, n, is4, stacked == 0, ways);
}

#endif
