/* emit.c: packets that the core makes: segments, fragments, answers, ICMP errors.
 *
 * The core hands over memory that is its own during the call; it becomes buffers here, which the node enqueues when
 * its frame is done. Where they go is for the delivery table to say.
 */
#include <ipshare/ipshare.h>
#include <vnet/buffer.h>
#include <vnet/ip/ip.h>

void
ipshare_emit (void *thread, struct ips_pkt *p, int kind)
{
  ipshare_main_t *im = &ipshare_main;
  ipshare_thread_t *t = thread;
  vlib_main_t *vm = vlib_get_main ();
  u32 bi = ~0;
  if (kind == IPS_EMIT_COPY)
    return;
  if (p->csum == IPS_CSUM_PARTIAL)
    ips_complete_csum (p);
  if (vlib_buffer_add_data (vm, &bi, p->data, p->len) || bi == ~0)
    {
      t->no_buffers++;
      return;
    }
  vlib_buffer_t *b = vlib_get_buffer (vm, bi);
  bool is6 = p->data[0] >> 4 == 6;
  vnet_buffer (b)->sw_if_index[VLIB_RX] = vnet_buffer (t->current)->sw_if_index[VLIB_RX];
  vnet_buffer (b)->sw_if_index[VLIB_TX] = im->delivery_fib[is6 ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4];
  b->flags |= IPSHARE_BUFFER_F;
  if (kind == IPS_EMIT_ERROR) /* its TTL is already what it should be on the wire */
    b->flags |= VNET_BUFFER_F_LOCALLY_ORIGINATED;
  vec_add1 (t->made, bi);
  vec_add1 (t->made_to, is6 ? IPSHARE_TO_IP6_LOOKUP : IPSHARE_TO_IP4_LOOKUP);
}

void
ipshare_emit_flush (vlib_main_t *vm, vlib_node_runtime_t *node, ipshare_thread_t *t, const u16 *arcs)
{
  u16 nexts[VLIB_FRAME_SIZE];
  for (u32 at = 0, n; at < vec_len (t->made); at += n)
    {
      n = clib_min (vec_len (t->made) - at, VLIB_FRAME_SIZE);
      for (u32 i = 0; i < n; i++)
	nexts[i] = arcs[t->made_to[at + i]];
      vlib_buffer_enqueue_to_next (vm, node, t->made + at, nexts, n);
    }
  vec_reset_length (t->made);
  vec_reset_length (t->made_to);
}
