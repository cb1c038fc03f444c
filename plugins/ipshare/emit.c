/* emit.c: packets that the core makes: segments, fragments, answers, ICMP errors.
 *
 * The core hands over memory that is its own during the call; it becomes buffers here, which the node sends in the
 * place of the packet that they were made of. Where they go is for the delivery table to say.
 */
#include <ipshare/ipshare.h>
#include <vnet/buffer.h>
#include <vnet/ip/ip.h>

void
ipshare_emit (void *thread, struct ips_pkt *p, int kind)
{
  ipshare_thread_t *t = thread;
  vlib_main_t *vm = vlib_get_main ();
  u32 bi = ~0;
  if (PREDICT_FALSE (t->tap.set != NULL))
    tap_emitted (&t->tap, p, kind);
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
  vnet_buffer (b)->sw_if_index[VLIB_RX] = vnet_buffer (t->current)->sw_if_index[VLIB_RX];
  b->flags |= IPSHARE_BUFFER_F;
  if (kind == IPS_EMIT_ERROR) /* its TTL is already what it should be on the wire */
    b->flags |= VNET_BUFFER_F_LOCALLY_ORIGINATED;
  vec_add1 (t->made, bi);
}
