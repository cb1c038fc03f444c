/* emit.c: packets that the core makes: segments, fragments, answers, ICMP errors; and copies that have waited for the
 * standby (decision 0021).
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

static void
address_buffer (vlib_buffer_t *b, const struct ips_pkt *p, u32 from)
{
  vnet_buffer (b)->sw_if_index[VLIB_RX] = from;
  vnet_buffer (b)->sw_if_index[VLIB_TX] = ~0;
  vnet_buffer (b)->ip.adj_index[VLIB_TX] = p->server; /* who sends it finds the adjacency */
  vnet_buffer (b)->ip.fib_index = /* where VPP, should the packet be for itself, looks for a way back to the source */
    ipshare_main.delivery_fib[p->data[0] >> 4 == 6 ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4];
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
  address_buffer (b, p, vnet_buffer (t->current)->sw_if_index[VLIB_RX]);
  b->flags |= IPSHARE_BUFFER_F;
  if (kind == IPS_EMIT_ERROR) /* its TTL is already what it should be on the wire */
    b->flags |= VNET_BUFFER_F_LOCALLY_ORIGINATED;
  vec_add1 (t->made, bi);
}

/* A super-packet, as VPP wants to be told of it. */
static void
mark_super (vlib_buffer_t *b, const struct ips_pkt *p)
{
  bool is6 = p->data[0] >> 4 == 6, tcp = p->gso_type == IPS_GSO_TCP;
  u32 l4 = p->csum == IPS_CSUM_PARTIAL ? p->csum_start : is6 ? 40 : (p->data[0] & 15) * 4;
  b->flags |= VNET_BUFFER_F_GSO | VNET_BUFFER_F_L2_HDR_OFFSET_VALID | VNET_BUFFER_F_L3_HDR_OFFSET_VALID |
	      VNET_BUFFER_F_L4_HDR_OFFSET_VALID | (is6 ? VNET_BUFFER_F_IS_IP6 : VNET_BUFFER_F_IS_IP4);
  vnet_buffer (b)->l2_hdr_offset = vnet_buffer (b)->l3_hdr_offset = b->current_data;
  vnet_buffer (b)->l4_hdr_offset = b->current_data + l4;
  vnet_buffer2 (b)->gso_size = p->gso_size;
  vnet_buffer2 (b)->gso_l4_hdr_sz = tcp && l4 + 12 < p->len ? (p->data[l4 + 12] >> 4) * 4 : 8;
  vnet_buffer_offload_flags_set (b, (tcp ? VNET_BUFFER_OFFLOAD_F_TCP_CKSUM : VNET_BUFFER_OFFLOAD_F_UDP_CKSUM) |
				      (is6 ? 0 : VNET_BUFFER_OFFLOAD_F_IP_CKSUM));
}

void
ipshare_let_go (void *thread, struct ips_pkt *p, u32 tag)
{
  ipshare_thread_t *t = thread;
  u32 bi;
  if (p->csum == IPS_CSUM_PARTIAL && p->gso_type == IPS_GSO_NONE)
    ips_complete_csum (p);
  vlib_buffer_t *b = copy (vlib_get_main (), p->data, p->len, &bi);
  if (!b)
    {
      t->no_buffers++;
      return;
    }
  address_buffer (b, p, tag >> 1);
  vnet_buffer (b)->sw_if_index[VLIB_TX] = vnet_buffer (b)->ip.fib_index;
  if ((tag & 1) == IPS_OUTER)
    b->flags |= IPSHARE_BUFFER_F;
  if (p->gso_type != IPS_GSO_NONE)
    mark_super (b, p);
  vec_add1 (t->let_go, bi);
}
