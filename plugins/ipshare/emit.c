/* emit.c: packets that the core makes: segments, fragments, answers, ICMP errors.
 *
 * The core hands over memory that is its own during the call; it becomes buffers here, which the node sends in the
 * place of the packet that they were made of. Where they go is for the delivery table to say.
 */
#include <ipshare/ipshare.h>
#include <vnet/buffer.h>
#include <vnet/ip/ip.h>

/* A chain of buffers with a copy of the bytes, all or none: vlib_buffer_add_data() loses what it has got when there are
 * no more. */
static vlib_buffer_t *
copy (vlib_main_t *vm, const u8 *from, u32 bytes, u32 *bi)
{
  u32 room = vlib_buffer_get_default_data_size (vm);
  if (vlib_buffer_alloc (vm, bi, 1) != 1)
    return NULL;
  vlib_buffer_t *first = vlib_get_buffer (vm, *bi), *b = first;
  for (u32 at = 0;;)
    {
      b->current_data = 0;
      b->current_length = clib_min (room, bytes - at);
      clib_memcpy_fast (b->data, from + at, b->current_length);
      at += b->current_length;
      if (at == bytes)
	break;
      if (vlib_buffer_alloc (vm, &b->next_buffer, 1) != 1)
	{
	  vlib_buffer_free_one (vm, *bi);
	  return NULL;
	}
      b->flags |= VLIB_BUFFER_NEXT_PRESENT;
      b = vlib_get_buffer (vm, b->next_buffer);
    }
  first->total_length_not_including_first_buffer = bytes - first->current_length;
  first->flags |= VLIB_BUFFER_TOTAL_LENGTH_VALID;
  return first;
}

void
ipshare_emit (void *thread, struct ips_pkt *p, int kind)
{
  ipshare_thread_t *t = thread;
  u32 bi;
  if (PREDICT_FALSE (t->tap.set != NULL))
    tap_emitted (&t->tap, p, kind);
  if (kind == IPS_EMIT_COPY)
    return;
  if (p->csum == IPS_CSUM_PARTIAL)
    ips_complete_csum (p);
  vlib_buffer_t *b = copy (vlib_get_main (), p->data, p->len, &bi);
  if (!b)
    {
      t->no_buffers++;
      return;
    }
  vnet_buffer (b)->sw_if_index[VLIB_RX] = vnet_buffer (t->current)->sw_if_index[VLIB_RX];
  vnet_buffer (b)->sw_if_index[VLIB_TX] = ~0;
  vnet_buffer (b)->ip.fib_index = /* where VPP, should the packet be for itself, looks for a way back to the source */
    ipshare_main.delivery_fib[p->data[0] >> 4 == 6 ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4];
  b->flags |= IPSHARE_BUFFER_F;
  if (kind == IPS_EMIT_ERROR) /* its TTL is already what it should be on the wire */
    b->flags |= VNET_BUFFER_F_LOCALLY_ORIGINATED;
  vec_add1 (t->made, bi);
}
