/* vnet.h: struct virtio_net_hdr, as a TUN device wants it, <-> struct ips_pkt.
 *
 * The header lies directly before the packet, so that one read() or write() moves both.
 * Read: NEEDS_CSUM becomes IPS_CSUM_PARTIAL; DATA_VALID and nothing are IPS_CSUM_FULL. Written:
 * hdr_len and the ECN flag are derived from the packet, because the core may have
 * changed its headers. The core does not see the ECN flag: it means that only the first
 * segment of a super-packet carries CWR (RFC 3168 6.1.2), which is so if CWR is set at all.
 */
#ifndef VNET_H
#define VNET_H
#include "../ips_tcp.h"
#include "engine.h"
#include <linux/virtio_net.h>

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif
enum { VNET_BYTES = sizeof(struct virtio_net_hdr), GSO_UNKNOWN = 255 };

static inline uint8_t vnet_gso_in(uint8_t type) {
  switch (type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE: return IPS_GSO_NONE;
    case VIRTIO_NET_HDR_GSO_TCPV4:
    case VIRTIO_NET_HDR_GSO_TCPV6: return IPS_GSO_TCP;
    case VIRTIO_NET_HDR_GSO_UDP_L4: return IPS_GSO_UDP;
    default: return GSO_UNKNOWN; /* the core's verdict: BAD_OFFLOAD */
  }
}

/* at: the header, `bytes` of header and packet together (>= VNET_BYTES). */
static inline void vnet_in(uint8_t *at, uint32_t bytes, uint16_t headroom, struct ips_pkt *p) {
  struct virtio_net_hdr h;
  memcpy(&h, at, sizeof h);
  bool partial = h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
  *p = (struct ips_pkt){
    .data = at + VNET_BYTES, .len = bytes - VNET_BYTES, .total_len = bytes - VNET_BYTES, .headroom = headroom,
    .gso_type = vnet_gso_in(h.gso_type), .gso_size = h.gso_type ? h.gso_size : 0,
    .csum = partial ? IPS_CSUM_PARTIAL : IPS_CSUM_FULL,
    .csum_start = partial ? h.csum_start : 0, .csum_offset = partial ? h.csum_offset : 0,
    .counter = IPS_NONE, .endpoint = IPS_NONE,
  };
}

/* Offset of the L4 header of a super-packet: csum_start where its checksum is partial, else behind the
 * IP header; the kernel makes no super-packet with extension headers and a complete checksum. */
static inline uint32_t vnet_l4(const struct ips_pkt *p) {
  if (p->csum == IPS_CSUM_PARTIAL) return p->csum_start;
  return p->data[0] >> 4 == 4 ? (p->data[0] & 15) * 4u : 40u;
}

static inline struct virtio_net_hdr vnet_out(const struct ips_pkt *p) {
  struct virtio_net_hdr h = {0};
  if (p->csum == IPS_CSUM_PARTIAL) {
    h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    h.csum_start = p->csum_start;
    h.csum_offset = p->csum_offset;
  }
  if (ips_likely(p->gso_type == IPS_GSO_NONE)) return h;
  uint32_t l4 = vnet_l4(p);
  h.gso_size = p->gso_size;
  if (p->gso_type == IPS_GSO_UDP) {
    h.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
    h.hdr_len = (uint16_t)(l4 + 8);
  } else if (l4 + 20 <= p->len) {
    h.gso_type = p->data[0] >> 4 == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
    h.hdr_len = (uint16_t)(l4 + ips_tcp_header(p->data + l4));
    if (p->data[l4 + IPS_TCP_FLAGS] & IPS_TCP_CWR) h.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
  }
  return h;
}
#endif
