/* options.c: IPv4 packets with options.
 *
 * VPP punts them before any lookup (ip4-options), so a feature on the punt path takes those back that a lookup would
 * have brought to us, and leaves the rest to whoever wants punted packets. ip4-input has checked their header.
 */
#include <ipshare/ipshare.h>
#include <vnet/dpo/load_balance.h>
#include <vnet/feature/feature.h>
#include <vnet/fib/ip4_fib.h>

typedef enum
{
  OPTIONS_NEXT_DROP,
  OPTIONS_NEXT_OUTER,
  OPTIONS_NEXT_INNER,
  OPTIONS_N_NEXT,
} options_next_t;

/* Ours: where to, and the buffer's DPO is set. */
static bool
take (ipshare_main_t *im, vlib_buffer_t *b, u32 *next)
{
  ip4_header_t *ip = vlib_buffer_get_current (b);
  if (b->current_length < sizeof *ip || ip4_header_bytes (ip) <= sizeof *ip || b->flags & IPSHARE_BUFFER_F)
    return false;
  u32 fib = vec_elt (ip4_main.fib_index_by_sw_if_index, vnet_buffer (b)->sw_if_index[VLIB_RX]);
  const load_balance_t *lb = load_balance_get (ip4_fib_forwarding_lookup (fib, &ip->dst_address));
  const dpo_id_t *dpo = load_balance_get_bucket_i (lb, 0);
  if (dpo->dpoi_type != im->dpo_types[IPS_OUTER] && dpo->dpoi_type != im->dpo_types[IPS_INNER])
    return false;
  vnet_buffer (b)->ip.adj_index[VLIB_TX] = dpo->dpoi_index;
  *next = dpo->dpoi_type == im->dpo_types[IPS_OUTER] ? OPTIONS_NEXT_OUTER : OPTIONS_NEXT_INNER;
  return true;
}

VLIB_NODE_FN (ipshare_options_ip4_node) (vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame)
{
  u32 *from = vlib_frame_vector_args (frame), n = frame->n_vectors;
  vlib_buffer_t *b[VLIB_FRAME_SIZE];
  u16 nexts[VLIB_FRAME_SIZE];
  vlib_get_buffers (vm, from, b, n);
  for (u32 i = 0; i < n; i++)
    {
      u32 next;
      if (!take (&ipshare_main, b[i], &next))
	vnet_feature_next (&next, b[i]);
      nexts[i] = next;
    }
  vlib_buffer_enqueue_to_next (vm, node, from, nexts, n);
  return n;
}

VLIB_REGISTER_NODE (ipshare_options_ip4_node) = {
  .name = "ipshare-options-ip4",
  .vector_size = sizeof (u32),
  .type = VLIB_NODE_TYPE_INTERNAL,
  .n_next_nodes = OPTIONS_N_NEXT,
  .next_nodes = {
    [OPTIONS_NEXT_DROP] = "error-drop",
    [OPTIONS_NEXT_OUTER] = "ipshare-outer-ip4",
    [OPTIONS_NEXT_INNER] = "ipshare-inner-ip4",
  },
};

VNET_FEATURE_INIT (ipshare_options_ip4, static) = {
  .arc_name = "ip4-punt",
  .node_name = "ipshare-options-ip4",
  .runs_before = VNET_FEATURES ("ip4-punt-policer"),
};

void
ipshare_options_enable (void)
{
  vnet_feature_enable_disable ("ip4-punt", "ipshare-options-ip4", 0, 1, 0, 0);
}
