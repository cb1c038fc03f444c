/* node.c: packets through the core.
 *
 *   ip4-lookup -> ipshare-outer-ip4 -> ip4-lookup in the delivery table, or straight to the next hop
 *                 (-inner-, and -ip6)  whatever the FIB has else (PASS, HERE), error-drop, or new packets by emit.c
 *   ip4-unicast -> ipshare-reply-ip4   on interfaces whose packets' sources are looked at (S1.5)
 *
 * A frame sees one generation. The buffer is described to the core (struct ips_pkt), the core decides and changes
 * it, its verdict says what becomes of the buffer. Chained, offloaded and looping packets take special(), apart.
 */
#include <ipshare/ipshare.h>
#include <vnet/feature/feature.h>
#include <vnet/ip/ip.h>
#include <ipshare/ipshare.api_enum.h>
#include "special.h"

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

typedef struct
{
  vlib_main_t *vm;
  vlib_node_runtime_t *node;
  ipshare_thread_t *t;
  u32 send[VLIB_FRAME_SIZE], n_send;
  u16 nexts[VLIB_FRAME_SIZE];
  u32 done[VLIB_FRAME_SIZE], n_done;
  u16 counts[IPS_N_VERDICTS];
} ipshare_frame_t;

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

static_always_inline int
translate (struct ips_worker *core, struct ips_pkt *p, enum ips_side side)
{
  return side == IPS_OUTER ? ips_outer (core, p) : ips_inner (core, p);
}

/* The core has changed *p; the buffer follows. */
static_always_inline void
put_back (vlib_buffer_t *b, const struct ips_pkt *p)
{
  b->current_data = p->data - b->data;
  b->current_length = p->len;
}

static_always_inline u16
look_up (const ipshare_main_t *im, vlib_buffer_t *b, const struct ips_pkt *p)
{
  bool is6 = p->data[0] >> 4 == 6;
  vnet_buffer (b)->sw_if_index[VLIB_TX] = im->delivery_fib[is6 ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4];
  return is6 ? IPSHARE_NEXT_IP6_LOOKUP : IPSHARE_NEXT_IP4_LOOKUP;
}

/* Translated: straight to the end point's next hop where it has one of this family, else to a lookup. */
static_always_inline u16
next_of (const ipshare_main_t *im, const struct ips_worker *core, vlib_buffer_t *b, const struct ips_pkt *p,
	 enum ips_side side, bool is4)
{
  b->flags |= IPSHARE_BUFFER_F;
  const struct ips_endpoint *e = side == IPS_OUTER ? ips_endpoint (core->root, p->endpoint) : NULL;
  if (e && e->r.via && e->r.via < IPSHARE_MAX_NEXT_HOPS)
    {
      const ipshare_next_hop_t *nh = im->next_hops + e->r.via;
      const dpo_id_t *forward = &nh->forward[side];
      if (PREDICT_TRUE (nh->used && forward->dpoi_proto == (is4 ? DPO_PROTO_IP4 : DPO_PROTO_IP6)))
	{
	  vnet_buffer (b)->ip.adj_index[VLIB_TX] = forward->dpoi_index;
	  return forward->dpoi_next_node;
	}
    }
  return look_up (im, b, p);
}

/* Unchanged, to wherever it would have gone without us. */
static u16
follow (const ipshare_main_t *im, vlib_buffer_t *b, const struct ips_pkt *p, int verdict, bool is_reply)
{
  if (is_reply)
    {
      u32 next;
      vnet_feature_next (&next, b);
      return next;
    }
  if (verdict == IPS_HERE && im->delivery_table != im->service_table)
    return look_up (im, b, p);
  const dpo_id_t *parent = &pool_elt_at_index (im->dpos, vnet_buffer (b)->ip.adj_index[VLIB_TX])->parent;
  vnet_buffer (b)->ip.adj_index[VLIB_TX] = parent->dpoi_index;
  return parent->dpoi_next_node;
}

static_always_inline void
trace (ipshare_frame_t *f, vlib_buffer_t *b, const struct ips_pkt *p, int verdict, enum ips_side side, u16 next,
       bool passed)
{
  if (PREDICT_TRUE (!(b->flags & VLIB_BUFFER_IS_TRACED)))
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

static_always_inline void
send_to_next (ipshare_frame_t *f, u32 bi, u16 next)
{
  f->send[f->n_send] = bi;
  f->nexts[f->n_send++] = next;
}

/* Any verdict but OK. */
static __attribute__ ((noinline)) u16
uncommon (ipshare_main_t *im, ipshare_frame_t *f, u32 bi, vlib_buffer_t *b, struct ips_pkt *p, int verdict,
	  bool is_reply, bool taken)
{
  u16 next = IPSHARE_NEXT_DROP;
  switch (taken ? IPS_CONSUMED : ips_dispositions[verdict])
    {
    case IPS_SEND:
      f->counts[verdict]++;
      put_back (b, p);
      if (verdict == IPS_PASS || verdict == IPS_HERE)
	next = follow (im, b, p, verdict, is_reply);
      else
	{
	  b->flags |= IPSHARE_BUFFER_F;
	  next = look_up (im, b, p);
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
    }
  return next;
}

static_always_inline void
one (ipshare_main_t *im, ipshare_frame_t *f, u32 bi, vlib_buffer_t *b, enum ips_side side, bool is4, bool is_reply)
{
  struct ips_pkt p;
  bool taken = false;
  int verdict;
  u16 next;
  describe (b, &p);
  f->t->current = b;
  if (PREDICT_FALSE (b->flags & IPSHARE_SPECIAL_F))
    verdict = ipshare_special (im, f->vm, f->t, bi, b, &p, side, &taken);
  else
    verdict = translate (f->t->core, &p, side);
  if (PREDICT_TRUE (verdict == IPS_OK && !taken))
    {
      put_back (b, &p);
      next = next_of (im, f->t->core, b, &p, side, is4);
      send_to_next (f, bi, next);
      f->counts[IPS_OK]++;
    }
  else
    next = uncommon (im, f, bi, b, &p, verdict, is_reply, taken);
  if (PREDICT_FALSE (f->node->flags & VLIB_NODE_FLAG_TRACE))
    trace (f, b, &p, verdict, side, next, false);
}

static_always_inline void
begin (ipshare_main_t *im, ipshare_frame_t *f, vlib_main_t *vm, vlib_node_runtime_t *node)
{
  f->vm = vm;
  f->node = node;
  f->t = vec_elt_at_index (im->threads, vm->thread_index);
  f->n_send = f->n_done = 0;
  clib_memset (f->counts, 0, sizeof f->counts);
  ips_worker_begin (f->t->core, ipshare_now_ns (vm));
}

static_always_inline void
end (ipshare_frame_t *f)
{
  ips_worker_end (f->t->core);
  if (PREDICT_TRUE (f->n_send))
    vlib_buffer_enqueue_to_next (f->vm, f->node, f->send, f->nexts, f->n_send);
  if (PREDICT_FALSE (f->n_done))
    vlib_buffer_free (f->vm, f->done, f->n_done);
  if (PREDICT_FALSE (vec_len (f->t->made)))
    ipshare_emit_flush (f->vm, f->node, f->t);
  for (u32 v = 0; v < IPS_N_VERDICTS; v++)
    if (f->counts[v])
      vlib_node_increment_counter (f->vm, f->node->node_index, v, f->counts[v]);
}

enum
{
  FAR = 16384,	/* bindings from which tables do not stay in the caches */
  AHEAD = 8,	/* packets between asking for a table's memory and reading it */
};

static_always_inline void
prefetch (const struct ips_worker *core, vlib_buffer_t **b, u32 i, u32 n, enum ips_side side)
{
  if (i + AHEAD < n)
    ips_prefetch (core, side, vlib_buffer_get_current (b[i + AHEAD]), b[i + AHEAD]->current_length,
		  IPS_PREFETCH_FIRST);
  if (i + AHEAD / 2 < n)
    ips_prefetch (core, side, vlib_buffer_get_current (b[i + AHEAD / 2]), b[i + AHEAD / 2]->current_length,
		  IPS_PREFETCH_SECOND);
}

static_always_inline uword
translate_frame (vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame, enum ips_side side, bool is4)
{
  ipshare_main_t *im = &ipshare_main;
  vlib_buffer_t *b[VLIB_FRAME_SIZE];
  u32 *from = vlib_frame_vector_args (frame), n = frame->n_vectors;
  ipshare_frame_t f;
  begin (im, &f, vm, node);
  vlib_get_buffers (vm, from, b, n);
  bool far = f.t->core->root && f.t->core->header->n_bindings >= FAR;
  for (u32 i = 0; i < AHEAD && far && i < n; i++)
    ips_prefetch (f.t->core, side, vlib_buffer_get_current (b[i]), b[i]->current_length, IPS_PREFETCH_FIRST);
  for (u32 i = 0; i < n; i++)
    {
      if (far)
	prefetch (f.t->core, b, i, n, side);
      one (im, &f, from[i], b[i], side, is4, false);
    }
  end (&f);
  return n;
}

/* Has the packet a source that we translate or tunnel? */
static_always_inline bool
is_reply_of_ours (const struct ips_worker *core, vlib_buffer_t *b, enum ips_side side, unsigned family)
{
  struct ips_hit h;
  const u8 *ip = vlib_buffer_get_current (b);
  if (!core->root || b->current_length < (family == 4 ? 20 : 40))
    return false;
  const u8 *from = ips_field_at (ip, family, IPS_SRC);
  return side == IPS_INNER ? ips_in_network (core->root, family, from) : ips_find_local (core->root, family, from, &h);
}

static_always_inline uword
reply_frame (vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame, bool is4)
{
  ipshare_main_t *im = &ipshare_main;
  vlib_buffer_t *b[VLIB_FRAME_SIZE];
  u32 *from = vlib_frame_vector_args (frame), n = frame->n_vectors;
  ipshare_frame_t f;
  if (PREDICT_FALSE (!im->configured))
    {
      /* The feature is only switched on by API, after ipshare_configure. */
      vlib_buffer_free (vm, from, n);
      return n;
    }
  begin (im, &f, vm, node);
  vlib_get_buffers (vm, from, b, n);
  for (u32 i = 0; i < n; i++)
    {
      u32 sw_if_index = vnet_buffer (b[i])->sw_if_index[VLIB_RX], next;
      enum ips_side side = im->reply_side_by_interface[sw_if_index] == 1 + IPS_OUTER ? IPS_OUTER : IPS_INNER;
      if (is_reply_of_ours (f.t->core, b[i], side, is4 ? 4 : 6))
	{
	  one (im, &f, from[i], b[i], side, is4, true);
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

#define NEXTS { [IPSHARE_NEXT_DROP] = "error-drop", [IPSHARE_NEXT_IP4_LOOKUP] = "ip4-lookup", \
		[IPSHARE_NEXT_IP6_LOOKUP] = "ip6-lookup" }
#define NODE(id, node_name, body)                                                                                     \
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
    .n_next_nodes = IPSHARE_N_NEXT,                                                                                   \
    .next_nodes = NEXTS,                                                                                              \
  };

NODE (ipshare_outer_ip4_node, "ipshare-outer-ip4", translate_frame (vm, node, frame, IPS_OUTER, true))
NODE (ipshare_outer_ip6_node, "ipshare-outer-ip6", translate_frame (vm, node, frame, IPS_OUTER, false))
NODE (ipshare_inner_ip4_node, "ipshare-inner-ip4", translate_frame (vm, node, frame, IPS_INNER, true))
NODE (ipshare_inner_ip6_node, "ipshare-inner-ip6", translate_frame (vm, node, frame, IPS_INNER, false))
NODE (ipshare_reply_ip4_node, "ipshare-reply-ip4", reply_frame (vm, node, frame, true))
NODE (ipshare_reply_ip6_node, "ipshare-reply-ip6", reply_frame (vm, node, frame, false))

#ifndef CLIB_MARCH_VARIANT
VNET_FEATURE_INIT (ipshare_reply_ip4, static) = {
  .arc_name = "ip4-unicast",
  .node_name = "ipshare-reply-ip4",
};
VNET_FEATURE_INIT (ipshare_reply_ip6, static) = {
  .arc_name = "ip6-unicast",
  .node_name = "ipshare-reply-ip6",
};
#endif
