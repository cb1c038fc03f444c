/* special.c: packets that VPP describes with flags.
 *
 * Checksums left to the egress: VPP wants flags, and does not care what is in the field; the core wants a partial
 * checksum, as virtio has it, so that it can finish it where it has to (encapsulation). Translated here and there.
 * Chains of buffers: the core wants the packet in one piece, because ICMP errors quote and tunnels cut it. It is
 * copied, and where it kept its length, copied back: what a rewrite changes may be far behind (IPv6 extension
 * headers, quotes).
 */
#include "special.h"
#include <vnet/ip/ip.h>

static u32
l4_offset (vlib_buffer_t *b, const struct ips_pkt *p)
{
  if (b->flags & VNET_BUFFER_F_L4_HDR_OFFSET_VALID)
    return vnet_buffer (b)->l4_hdr_offset - b->current_data;
  return p->data[0] >> 4 == 4 ? (p->data[0] & 15) * 4 : 40;
}

/* False: the flags contradict the packet. */
static bool
to_partial (vlib_buffer_t *b, struct ips_pkt *p, bool tcp)
{
  u32 l4 = l4_offset (b, p), field = tcp ? 16 : 6, is4 = p->data[0] >> 4 == 4;
  if (l4 > p->len || l4 < (is4 ? 20 : 40) || l4 + (tcp ? 20 : 8) > p->len)
    return false;
  u32 from = is4 ? 12 : 8, bytes = is4 ? 8 : 32;
  u32 ip_len = is4 ? clib_net_to_host_u16 (ips_ld16 (p->data + 2)) : 40 + clib_net_to_host_u16 (ips_ld16 (p->data + 4));
  if (ip_len < l4 + 8) /* padding does not count, a length of 0 (jumbo) is none that we know */
    return false;
  u64 sum = (tcp ? IP_PROTOCOL_TCP : IP_PROTOCOL_UDP) + (ip_len - l4);
  for (u32 i = 0; i < bytes; i += 2)
    sum += clib_net_to_host_u16 (ips_ld16 (p->data + from + i));
  while (sum >> 16)
    sum = (sum & 0xffff) + (sum >> 16);
  ips_st16 (p->data + l4 + field, clib_host_to_net_u16 (sum));
  p->csum = IPS_CSUM_PARTIAL;
  p->csum_start = l4;
  p->csum_offset = field;
  return true;
}

static bool
offloads (vlib_buffer_t *b, struct ips_pkt *p)
{
  vnet_buffer_oflags_t flags = b->flags & VNET_BUFFER_F_OFFLOAD ? vnet_buffer (b)->oflags : 0;
  if (flags & VNET_BUFFER_OFFLOAD_F_IP_CKSUM && p->len >= 20 && p->data[0] >> 4 == 4 && (p->data[0] & 15) >= 5)
    {
      ip4_header_t *ip = (ip4_header_t *) p->data;
      if (ip4_header_bytes (ip) > p->len)
	return false;
      ip->checksum = ip4_header_checksum (ip); /* for the core; the flag stays: VPP's segmentation knows IPv4 by it */
    }
  bool tcp = flags & VNET_BUFFER_OFFLOAD_F_TCP_CKSUM, udp = flags & VNET_BUFFER_OFFLOAD_F_UDP_CKSUM;
  if ((tcp || udp) && !to_partial (b, p, tcp))
    return false;
  if (b->flags & VNET_BUFFER_F_GSO)
    {
      p->gso_size = vnet_buffer2 (b)->gso_size;
      p->gso_type = tcp ? IPS_GSO_TCP : udp ? IPS_GSO_UDP : IPS_GSO_NONE;
      return p->gso_type != IPS_GSO_NONE;
    }
  return true;
}

/* The sum is complete now: nobody shall do it again. */
static void
offloads_done (vlib_buffer_t *b, const struct ips_pkt *p, bool other_header)
{
  if (other_header)
    vnet_buffer_offload_flags_clear (b, VNET_BUFFER_OFFLOAD_F_IP_CKSUM);
  if (p->csum != IPS_CSUM_PARTIAL)
    vnet_buffer_offload_flags_clear (b, VNET_BUFFER_OFFLOAD_F_TCP_CKSUM | VNET_BUFFER_OFFLOAD_F_UDP_CKSUM);
  if (p->gso_type == IPS_GSO_NONE)
    b->flags &= ~VNET_BUFFER_F_GSO;
}

static void
copy_back (vlib_main_t *vm, vlib_buffer_t *b, const u8 *from, u32 bytes)
{
  for (; bytes; b = vlib_get_buffer (vm, b->next_buffer))
    {
      u32 n = clib_min (bytes, b->current_length);
      clib_memcpy_fast (vlib_buffer_get_current (b), from, n);
      from += n;
      bytes -= n;
      if (!(b->flags & VLIB_BUFFER_NEXT_PRESENT))
	return;
    }
}

static int
chained (vlib_main_t *vm, ipshare_thread_t *t, u32 bi, vlib_buffer_t *b, struct ips_pkt *p, enum ips_side side,
	 bool *taken)
{
  u8 *linear = t->linear + IPS_HEADROOM;
  struct ips_pkt first = *p;
  vlib_buffer_contents (vm, bi, linear);
  p->data = linear;
  p->len = p->total_len;
  p->headroom = IPS_HEADROOM;
  u32 bytes = p->total_len;
  int verdict = ipshare_core (t, p, side, taken);
  if (!*taken && ips_dispositions[verdict] == IPS_SEND && verdict != IPS_PASS && verdict != IPS_HERE)
    {
      if (p->data == linear && p->total_len == bytes)
	copy_back (vm, b, linear, bytes);
      else
	{
	  ipshare_emit (t, p, IPS_EMIT_PACKET);
	  *taken = true;
	}
    }
  p->data = first.data;
  p->len = first.len;
  return verdict;
}

int
ipshare_special (ipshare_main_t *im, vlib_main_t *vm, ipshare_thread_t *t, u32 bi, vlib_buffer_t *b,
		 struct ips_pkt *p, enum ips_side side, bool is_feature, bool *taken)
{
  bool had_offload = b->flags & (VNET_BUFFER_F_OFFLOAD | VNET_BUFFER_F_GSO);
  const u8 *header = p->data;
  int verdict;
  p->total_len = vlib_buffer_length_in_chain (vm, b);
  if (b->flags & IPSHARE_BUFFER_F) /* to a member of a group it was on its way anyway */
    {
      bool is_peer = !is_feature && pool_elt_at_index (im->dpos, vnet_buffer (b)->ip.adj_index[VLIB_TX])->is_peer;
      return ips_worker_count (t->core, side, is_peer ? IPS_PASS : IPS_LOOP, IPS_NONE, p->total_len);
    }
  if (p->total_len > 65535 + 40 || !offloads (b, p))
    return ips_worker_count (t->core, side, IPS_BAD_OFFLOAD, IPS_NONE, p->total_len);
  if (b->flags & VLIB_BUFFER_NEXT_PRESENT)
    verdict = chained (vm, t, bi, b, p, side, taken);
  else
    verdict = ipshare_core (t, p, side, taken);
  if (had_offload && !*taken && ips_dispositions[verdict] == IPS_SEND)
    offloads_done (b, p, p->data != header); /* tunnels put one before it, or take it away */
  return verdict;
}
