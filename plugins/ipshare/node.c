/* node.c: packets through the core.
 *
 *   ip4-lookup -> ipshare-outer-ip4 -> ip4-lookup in the delivery table, or straight to the next hop
 *                 (-inner-, and -ip6)  whatever the FIB has else (PASS, HERE), error-drop, or new packets by emit.c
 *   ip4-unicast -> ipshare-reply-ip4   on interfaces whose packets' sources are looked at (S1.5)
 *               -> ipshare-nat-ip4     on interfaces towards the inside of a NAT (S3.5)
 *   to a cluster's address: ipshare-outer-ip4 -> the server's adjacency, ip4-rewrite (servers.h)
 *
 * A frame sees one generation. Ordinary packets take the core's express lane, inline, and the delivery table is
 * looked up right here: the nodes are siblings of ip4-lookup and ip6-lookup, so what those find is valid for us.
 * To a remapped address: what the lane found out goes on in the core, for a group together.
 * Any other buffer is described to the core (struct ips_pkt), which decides and changes it, and its verdict
 * says what becomes of the buffer. Chained, offloaded and looping packets are for special.c.
 */
#include <ipshare/ipshare.h>
#include <vnet/feature/feature.h>
#include <ipshare/ipshare.api_enum.h>
#include "flows.h"
#include "servers.h"
#include "sources.h"
#include "special.h"
#include "ways.h"

STATIC_ASSERT (IPS_OK == 0, "the verdict that nearly all packets get is the first");

typedef struct
{
  u64 generation;
  u32 cell, endpoint;
  u8 verdict, side, passed;
  u16 next;
} ipshare_trace_t;

#ifndef CLIB_MARCH_VARIANT
u8 *
format_ipshare_trace (u8 *s, va_list *args)
{
  CLIB_UNUSED (vlib_main_t * vm) = va_arg (*args, vlib_main_t *);
  CLIB_UNUSED (vlib_node_t * node) = va_arg (*args, vlib_node_t *);
  ipshare_trace_t *t = va_arg (*args, ipshare_trace_t *);
  if (t->passed)
    return format (s, "not ours: source has no binding");
  s = format (s, "%s: %s (%s)", t->side == IPS_OUTER ? "outer" : "inner", ips_verdict_name (t->verdict),
	      ips_verdict_text (t->verdict));
  s = format (s, "\n  generation %lu", t->generation);
  if (t->cell != IPS_NONE)
    s = format (s, ", cell %u", t->cell);
  if (t->endpoint != IPS_NONE)
    s = format (s, ", end point %u", t->endpoint);
  return format (s, ", next %u", t->next);
}
#else
extern format_function_t format_ipshare_trace;
#endif

static_always_inline void
describe (vlib_buffer_t *b, struct ips_pkt *p)
{
  *p = (struct ips_pkt){ .data = vlib_buffer_get_current (b),
			 .len = b->current_length,
			 .total_len = b->current_length,
			 .headroom = b->current_data + VLIB_BUFFER_PRE_DATA_SIZE,
			 .counter = IPS_NONE,
			 .endpoint = IPS_NONE };
}

/* The core has changed *p; the buffer follows. */
static_always_inline void
put_back (vlib_buffer_t *b, const struct ips_pkt *p)
{
  b->current_data = p->data - b->data;
  b->current_length = p->len;
}

/* Unchanged, to wherever it would have gone without us. */
static u16
follow (const ipshare_main_t *im, const ipshare_frame_t *f, vlib_buffer_t *b, const struct ips_pkt *p, int verdict,
	bool is_feature)
{
  if (is_feature)
    {
      u32 next;
      vnet_feature_next (&next, b);
      return next;
    }
  if (verdict == IPS_HERE && im->delivery_table != im->service_table)
    return resolve (im, f, b, p->data, p->total_len);
  dpo_id_t parent = dpo_now (&pool_elt_at_index (im->dpos, vnet_buffer (b)->ip.adj_index[VLIB_TX])->parent);
  vnet_buffer (b)->ip.adj_index[VLIB_TX] = parent.dpoi_index;
  return parent.dpoi_next_node;
}

static_always_inline void
trace (const ipshare_frame_t *f, vlib_buffer_t *b, const struct ips_pkt *p, int verdict, enum ips_side side, u16 next,
       bool passed)
{
  if (PREDICT_TRUE (!(f->node->flags & VLIB_NODE_FLAG_TRACE && b->flags & VLIB_BUFFER_IS_TRACED)))
    return;
  ipshare_trace_t *t = vlib_add_trace (f->vm, f->node, b, sizeof *t);
  const struct ips_root *root = f->t->core->root;
  *t = (ipshare_trace_t){ .generation = root ? root->generation : 0,
			  .cell = p->counter,
			  .endpoint = p->endpoint,
			  .verdict = verdict,
			  .side = side,
			  .passed = passed,
			  .next = next };
}

/* Made packets can fill the arrays before the frame is done. */
static __attribute__ ((noinline)) void
enqueue (ipshare_frame_t *f)
{
  vlib_buffer_enqueue_to_next (f->vm, f->node, f->send, f->nexts, f->n_send);
  f->n_send = 0;
}

static_always_inline void
send_to_next (ipshare_frame_t *f, u32 bi, u16 next)
{
  if (PREDICT_FALSE (f->n_send == VLIB_FRAME_SIZE))
    enqueue (f);
  f->send[f->n_send] = bi;
  f->nexts[f->n_send++] = next;
}

/* A member's packet (S5): the entry of a member that it meets is where it is not translated once more. */
static u16
resolve_peer (const ipshare_main_t *im, const ipshare_frame_t *f, vlib_buffer_t *b, const struct ips_pkt *p)
{
  bool is4 = p->data[0] >> 4 == 4;
  if (f->family != (is4 ? 4 : 6))
    return look_up (im, f, b, p->data);
  u32 fib = im->delivery_fib[is4 ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6];
  const u8 *to = ips_field_at (p->data, f->family, IPS_DST);
  dpo_id_t way = *dpo_to (fib, to, is4);
  if (way.dpoi_type != im->dpo_types[IPS_INNER])
    return deliver (im, f, b, p->data, p->total_len, is4);
  return go (b, dpo_now (&pool_elt_at_index (im->dpos, way.dpoi_index)->parent));
}

/* To a cluster's server, not marked: it meets no entry of ours any more, and VPP's errors about it come as others do. */
static u16
to_server (const ipshare_main_t *im, const ipshare_frame_t *f, vlib_buffer_t *b, u32 server)
{
  return f->arcs[ipshare_to_server (im, f->vm->thread_index, b, server, f->node->errors[IPS_NO_SERVER])];
}

/* What the core made of one packet goes where that packet's place is. */
static void
send_made (ipshare_main_t *im, ipshare_frame_t *f)
{
  u32 *bi;
  vec_foreach (bi, f->t->made)
    {
      vlib_buffer_t *b = vlib_get_buffer (f->vm, *bi);
      u32 server = vnet_buffer (b)->ip.adj_index[VLIB_TX];
      send_to_next (f, *bi,
		    PREDICT_FALSE (server) ? to_server (im, f, b, server) :
					     resolve (im, f, b, vlib_buffer_get_current (b), b->current_length));
    }
  vec_reset_length (f->t->made);
}

/* Off the lane. */
static __attribute__ ((noinline)) u16
uncommon (ipshare_main_t *im, ipshare_frame_t *f, u32 bi, vlib_buffer_t *b, struct ips_pkt *p, int verdict,
	  bool is_feature, bool taken)
{
  u16 next = f->arcs[IPSHARE_TO_DROP];
  switch (taken ? IPS_CONSUMED : ips_dispositions[verdict])
    {
    case IPS_SEND:
      f->counts[verdict]++;
      put_back (b, p);
      if (verdict == IPS_PASS || verdict == IPS_HERE)
	next = follow (im, f, b, p, verdict, is_feature);
      else if (verdict == IPS_PEER) /* no mark: VPP's errors about it, and whatever meets a member's entry, come again */
	next = resolve_peer (im, f, b, p);
      else if (verdict == IPS_DISPATCHED)
	next = to_server (im, f, b, p->server);
      else
	{
	  if (!is_from_nat (p, verdict, is_feature))
	    b->flags |= IPSHARE_BUFFER_F;
	  next = resolve (im, f, b, p->data, p->total_len);
	}
      send_to_next (f, bi, next);
      break;
    case IPS_CONSUMED:
      f->counts[verdict]++;
      f->done[f->n_done++] = bi;
      break;
    default: /* error-drop counts it */
      b->error = f->node->errors[verdict];
      send_to_next (f, bi, next);
      return next;
    }
  f->n_counted++;
  return next;
}

/* The whole way. */
static __attribute__ ((noinline)) void
one (ipshare_main_t *im, ipshare_frame_t *f, u32 bi, vlib_buffer_t *b, enum ips_side side, bool is_feature)
{
  struct ips_pkt p;
  bool taken = false;
  int verdict;
  describe (b, &p);
  f->t->current = b;
  if (PREDICT_FALSE (b->flags & IPSHARE_SPECIAL_F))
    verdict = ipshare_special (im, f->vm, f->t, bi, b, &p, side, is_feature, &taken);
  else
    verdict = ipshare_core (f->t, &p, side, &taken);
  if (PREDICT_FALSE (vec_len (f->t->made)))
    send_made (im, f);
  u16 next = uncommon (im, f, bi, b, &p, verdict, is_feature, taken);
  if (PREDICT_FALSE (f->node->flags & VLIB_NODE_FLAG_TRACE))
    trace (f, b, &p, verdict, side, next, false);
}

static_always_inline void
begin (ipshare_main_t *im, ipshare_frame_t *f, vlib_main_t *vm, vlib_node_runtime_t *node, ipshare_node_t kind)
{
  f->vm = vm;
  f->node = node;
  f->arcs = im->arcs[kind];
  f->family = kind == IPSHARE_OUTER4 || kind == IPSHARE_INNER4 ? 4 : kind == IPSHARE_OUTER6 || kind == IPSHARE_INNER6 ? 6 : 0;
  f->t = vec_elt_at_index (im->threads, vm->thread_index);
  f->cells = f->t->core->cells;
  f->n_cells = f->t->core->n_cells;
  f->n_send = f->n_done = f->n_counted = 0;
  clib_memset (f->counts, 0, sizeof f->counts);
  tap_begin (&f->t->tap, IPS_OUTER); /* the side is set for each packet */
  ips_worker_begin (f->t->core, ipshare_now_ns ());
  flows_begin (f->t->flows);
}

static_always_inline void
end (ipshare_frame_t *f)
{
  if (PREDICT_FALSE (flows_end (f->t->flows)))
    ipshare_held_soon (f->vm);
  ips_worker_end (f->t->core);
  tap_end (&f->t->tap);
  if (PREDICT_TRUE (f->n_send))
    vlib_buffer_enqueue_to_next (f->vm, f->node, f->send, f->nexts, f->n_send);
  if (PREDICT_FALSE (f->n_done))
    vlib_buffer_free (f->vm, f->done, f->n_done);
  for (u32 v = 0; v < IPS_N_VERDICTS && f->n_counted; v++)
    if (f->counts[v])
      vlib_node_increment_counter (f->vm, f->node->node_index, v, f->counts[v]);
}

static_always_inline void
bring (struct ips_lane_group *g, vlib_buffer_t **b, u32 n, bool is4)
{
  for (u32 i = 0; i < n; i++)
    {
      ips_lane_bring (g, i, vlib_buffer_get_current (b[i]), is4 ? 4 : 6);
      g->len[i] = b[i]->flags & IPSHARE_SPECIAL_F ? 0 : b[i]->current_length;
    }
}

/* What the lane took is written and counted. */
static_always_inline void
change (const ipshare_frame_t *f, const struct ips_lane_group *g, vlib_buffer_t *b, u32 i, bool is4)
{
  ips_lane_write (g, i, is4 ? 4 : 6);
  b->current_length = g->ip_len[i];
  b->flags |= IPSHARE_BUFFER_F;
  ips_lane_count (f->cells, f->n_cells, g->cell[i], g->len[i]);
}

/* All of a group go on. Looked up is what is about to be written: addresses that have just been written cannot be read as
 * fast. */
static_always_inline void
send_group (const ipshare_main_t *im, ipshare_frame_t *f, const struct ips_lane_group *g, const u32 *from, vlib_buffer_t **b,
	    u32 n, enum ips_side side, bool is4)
{
  dpo_id_t ways[IPS_LANE_GROUP];
  ways_of (im, f, g, b, n, side, is4, ways);
  if (PREDICT_FALSE (f->n_send + n > VLIB_FRAME_SIZE))
    enqueue (f);
  u16 *nexts = f->nexts + f->n_send;
  clib_memcpy_fast (f->send + f->n_send, from, n * sizeof *from);
  f->n_send += n;
  for (u32 i = 0; i < n; i++)
    {
      change (f, g, b[i], i, is4);
      nexts[i] = go (b[i], ways[i]);
    }
}

/* Of a remapped address. */
static __attribute__ ((noinline)) void
remapped (ipshare_main_t *im, ipshare_frame_t *f, u32 bi, vlib_buffer_t *b, const struct ips_ordinary *o,
	  const struct ips_place *place, bool is4)
{
  struct ips_pkt p;
  describe (b, &p);
  f->t->current = b;
  int verdict = ips_remap_ordinary (f->t->core, &p, o, place, is4 ? 4 : 6);
  if (PREDICT_FALSE (verdict < 0))
    {
      one (im, f, bi, b, IPS_INNER, false);
      return;
    }
  f->t->core->counters->packets++;
  bool taken = flows_hold (f->t->flows, &p, ipshare_tag (b, IPS_INNER));
  u16 next = uncommon (im, f, bi, b, &p, verdict, false, taken);
  if (PREDICT_FALSE (f->node->flags & VLIB_NODE_FLAG_TRACE))
    trace (f, b, &p, verdict, IPS_INNER, next, false);
}

/* As many packets as a group takes, in the order in which they came. Returns how many the lane took. The group's address
 * is given to nobody: every step would wait for memory. */
static_always_inline u32
translate_group (ipshare_main_t *im, ipshare_frame_t *f, struct ips_lane_net4 *net, const u32 *from,
		 vlib_buffer_t **b, u32 n, enum ips_side side, bool is4)
{
  struct ips_lane_group g;
  struct ips_ordinary o[IPS_LANE_GROUP];
  struct ips_place places[IPS_LANE_GROUP];
  u32 taken = 0, n_o = 0, at = 0;
  bring (&g, b, n, is4);
  u32 declined = ips_lane (f->t->core, side, IPS_TRUST_ROUTED, net, &g, n, is4 ? 4 : 6);
  if (PREDICT_TRUE (!declined && !(f->node->flags & VLIB_NODE_FLAG_TRACE)))
    {
      send_group (im, f, &g, from, b, n, side, is4);
      return n;
    }
  for (u32 i = 0; i < n && side == IPS_INNER; i++)
    if (g.declined[i] & IPS_LANE_REMAPPED)
      o[n_o++] = ips_lane_ordinary (&g, i, is4 ? 4 : 6);
  if (n_o)
    ips_remap_places (f->t->core, o, places, n_o, is4 ? 4 : 6);
  for (u32 i = 0; i < n; i++)
    if (side == IPS_INNER && g.declined[i] & IPS_LANE_REMAPPED)
      remapped (im, f, from[i], b[i], o + at, places + at, is4), at++;
    else if (g.declined[i])
      one (im, f, from[i], b[i], side, false);
    else
      {
	struct ips_pkt p = { .counter = g.cell[i], .endpoint = g.endpoint[i] };
	dpo_id_t way = next_hop (im, side == IPS_OUTER ? g.via[i] : 0, is4);
	change (f, &g, b[i], i, is4);
	u16 next = way.as_u64 ? go (b[i], way) : deliver (im, f, b[i], g.ip[i], g.ip_len[i], is4);
	send_to_next (f, from[i], next);
	trace (f, b[i], &p, IPS_OK, side, next, false);
	taken++;
      }
  return taken;
}

/* All packets of a frame. Returns how many the lane took. */
static_always_inline u32
translate_all (ipshare_main_t *im, ipshare_frame_t *f, const u32 *from, vlib_buffer_t **b, u32 n, enum ips_side side,
	       bool is4)
{
  struct ips_lane_net4 net = IPS_LANE_NO_NET4;
  u32 on_lane = 0;
  if (PREDICT_TRUE (f->t->core->lane_open[side] && !f->t->tap.set)) /* the lane shows nobody its packets */
    for (u32 i = 0, size; i < n; i += size)
      {
	size = clib_min (n - i, IPS_LANE_GROUP);
	on_lane += translate_group (im, f, &net, from + i, b + i, size, side, is4);
      }
  else
    for (u32 i = 0; i < n; i++)
      one (im, f, from[i], b[i], side, false);
  return on_lane;
}

static_always_inline uword
translate_frame (vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame, ipshare_node_t kind,
		 enum ips_side side, bool is4)
{
  ipshare_main_t *im = &ipshare_main;
  vlib_buffer_t *b[VLIB_FRAME_SIZE];
  u32 *from = vlib_frame_vector_args (frame), n = frame->n_vectors;
  ipshare_frame_t f;
  begin (im, &f, vm, node, kind);
  vlib_get_buffers (vm, from, b, n);
  u32 on_lane = translate_all (im, &f, from, b, n, side, is4);
  ips_lane_counted (f.t->core, side, on_lane);
  if (PREDICT_TRUE (on_lane))
    vlib_node_increment_counter (vm, node->node_index, IPS_OK, on_lane);
  end (&f);
  return n;
}

/* On as if we were not there. */
static uword
pass_frame (vlib_main_t *vm, vlib_node_runtime_t *node, u32 *from, u32 n)
{
  vlib_buffer_t *b[VLIB_FRAME_SIZE];
  u16 nexts[VLIB_FRAME_SIZE];
  vlib_get_buffers (vm, from, b, n);
  for (u32 i = 0; i < n; i++)
    {
      u32 next;
      vnet_feature_next (&next, b[i]);
      nexts[i] = next;
    }
  vlib_buffer_enqueue_to_next (vm, node, from, nexts, n);
  return n;
}

/* Of the features: packets whose source is of interest go to the core, the others pass. */
static_always_inline uword
source_frame (vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame, ipshare_node_t kind, bool is4)
{
  ipshare_main_t *im = &ipshare_main;
  vlib_buffer_t *b[VLIB_FRAME_SIZE];
  u32 *from = vlib_frame_vector_args (frame), n = frame->n_vectors;
  ipshare_frame_t f;
  bool is_nat = kind == IPSHARE_NAT4 || kind == IPSHARE_NAT6;
  if (PREDICT_FALSE (!im->configured))
    return pass_frame (vm, node, from, n);
  begin (im, &f, vm, node, kind);
  vlib_get_buffers (vm, from, b, n);
  for (u32 i = 0; i < n; i++)
    {
      u32 next;
      enum ips_side side = IPS_INNER;
      bool is_ours = is_nat ? is_inside (im, f.t->core, b[i], is4) : is_reply (im, f.t->core, b[i], &side, is4);
      if (is_ours)
	{
	  one (im, &f, from[i], b[i], side, true);
	  continue;
	}
      vnet_feature_next (&next, b[i]);
      send_to_next (&f, from[i], next);
      if (PREDICT_FALSE (node->flags & VLIB_NODE_FLAG_TRACE))
	trace (&f, b[i], &(struct ips_pkt){ .counter = IPS_NONE, .endpoint = IPS_NONE }, IPS_OK, side, next, true);
    }
  end (&f);
  return n;
}

/* sibling: whose arcs a node shares; NULL for the features, which have their own. */
#define NODE(id, node_name, sibling, body)                                                                            \
  VLIB_NODE_FN (id) (vlib_main_t * vm, vlib_node_runtime_t * node, vlib_frame_t * frame)                              \
  {                                                                                                                   \
    return body;                                                                                                      \
  }                                                                                                                   \
  VLIB_REGISTER_NODE (id) = {                                                                                         \
    .name = node_name,                                                                                                \
    .vector_size = sizeof (u32),                                                                                      \
    .format_trace = format_ipshare_trace,                                                                             \
    .type = VLIB_NODE_TYPE_INTERNAL,                                                                                  \
    .n_errors = IPSHARE_N_ERROR,                                                                                      \
    .error_counters = ipshare_error_counters,                                                                         \
    .sibling_of = sibling,                                                                                            \
  };

NODE (ipshare_outer_ip4_node, "ipshare-outer-ip4", "ip4-lookup",
      translate_frame (vm, node, frame, IPSHARE_OUTER4, IPS_OUTER, true))
NODE (ipshare_outer_ip6_node, "ipshare-outer-ip6", "ip6-lookup",
      translate_frame (vm, node, frame, IPSHARE_OUTER6, IPS_OUTER, false))
NODE (ipshare_inner_ip4_node, "ipshare-inner-ip4", "ip4-lookup",
      translate_frame (vm, node, frame, IPSHARE_INNER4, IPS_INNER, true))
NODE (ipshare_inner_ip6_node, "ipshare-inner-ip6", "ip6-lookup",
      translate_frame (vm, node, frame, IPSHARE_INNER6, IPS_INNER, false))
NODE (ipshare_reply_ip4_node, "ipshare-reply-ip4", NULL, source_frame (vm, node, frame, IPSHARE_REPLY4, true))
NODE (ipshare_reply_ip6_node, "ipshare-reply-ip6", NULL, source_frame (vm, node, frame, IPSHARE_REPLY6, false))
NODE (ipshare_nat_ip4_node, "ipshare-nat-ip4", NULL, source_frame (vm, node, frame, IPSHARE_NAT4, true))
NODE (ipshare_nat_ip6_node, "ipshare-nat-ip6", NULL, source_frame (vm, node, frame, IPSHARE_NAT6, false))

#ifndef CLIB_MARCH_VARIANT
void
ipshare_nodes_init (vlib_main_t *vm, ipshare_main_t *im)
{
  const u32 nodes[IPSHARE_N_NODES] = { ipshare_outer_ip4_node.index, ipshare_outer_ip6_node.index,
				       ipshare_inner_ip4_node.index, ipshare_inner_ip6_node.index,
				       ipshare_reply_ip4_node.index, ipshare_reply_ip6_node.index,
				       ipshare_nat_ip4_node.index,   ipshare_nat_ip6_node.index };
  char *names[IPSHARE_N_TO] = IPSHARE_ARCS;
  for (u32 i = 0; i < IPSHARE_N_NODES; i++)
    for (u32 to = 0; to < IPSHARE_N_TO; to++)
      im->arcs[i][to] = vlib_node_add_next (vm, nodes[i], vlib_get_node_by_name (vm, (u8 *) names[to])->index);
}
#endif

#ifndef CLIB_MARCH_VARIANT
#define FEATURE(id, arc, name, ...)                                                                                   \
  VNET_FEATURE_INIT (id, static) = { .arc_name = arc, .node_name = name, __VA_ARGS__ }
FEATURE (ipshare_reply_ip4, "ip4-unicast", "ipshare-reply-ip4");
FEATURE (ipshare_reply_ip6, "ip6-unicast", "ipshare-reply-ip6");
FEATURE (ipshare_nat_ip4, "ip4-unicast", "ipshare-nat-ip4", .runs_after = VNET_FEATURES ("ipshare-reply-ip4"));
FEATURE (ipshare_nat_ip6, "ip6-unicast", "ipshare-nat-ip6", .runs_after = VNET_FEATURES ("ipshare-reply-ip6"));
#endif
