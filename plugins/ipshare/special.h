/* special.h: packets that VPP describes with flags: chained, offloaded, super-packets, and our own again. */
#ifndef __included_ipshare_special_h__
#define __included_ipshare_special_h__
#include <ipshare/ipshare.h>
#include <vnet/buffer.h>

#define IPSHARE_SPECIAL_F (VLIB_BUFFER_NEXT_PRESENT | VNET_BUFFER_F_OFFLOAD | VNET_BUFFER_F_GSO | IPSHARE_BUFFER_F)

/* p: as described from the first buffer. *taken: the packet was sent on as a new one, or is kept; the buffer is done. */
int ipshare_special (ipshare_main_t *im, vlib_main_t *vm, ipshare_thread_t *t, u32 bi, vlib_buffer_t *b,
		     struct ips_pkt *p, enum ips_side side, bool is_feature, bool *taken);
#endif
