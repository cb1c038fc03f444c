/* ips_gro.h: coalescing of TCP segments that came out of a tunnel, so that the host can hand
 * up to 64 kB at once to its kernel (virtio-net cannot do it for packets inside IP-in-IP).
 *
 * A worker pushes the packets of one batch and flushes at the batch's end. The order of packets
 * of one flow never changes. What is joined comes apart again, by ips_segment, into the same
 * bytes: equal headers, contiguous data, a verified canonical checksum. IPv4 ids either count up
 * by one or, with DF set, are all equal (gso_flags IPS_GSO_FIXED_ID); a kernel that segments
 * the latter itself counts up, which RFC 6864 4.1 allows for atomic datagrams.
 */
#ifndef IPS_GRO_H
#define IPS_GRO_H
#include "ips_core.h"

enum { IPS_GRO_MAX_FLOWS = 16, IPS_GRO_MAX_HEADROOM = 1024 };

/* Packets that come out by ips_packet_fn: plain ones as they went in, or with gso_size, csum PARTIAL and
 * its offsets set, ready for a virtio-net header. p->data has the headroom asked for. */

/* flows: 1 .. IPS_GRO_MAX_FLOWS open at once. NULL: out of memory or range. */
struct ips_gro *ips_gro_new(unsigned flows, uint16_t headroom);
void ips_gro_free(struct ips_gro *g); /* drops what is held: flush first */
/* COALESCED: p was copied in and is done. OK: p is not for us, send it now; held packets of its flow were
 * emitted before. */
int ips_gro_push(struct ips_gro *g, const struct ips_pkt *p, const struct ips_view *v, ips_packet_fn emit,
                 void *arg);
/* Emits everything held, in the order in which the flows were opened. */
void ips_gro_flush(struct ips_gro *g, ips_packet_fn emit, void *arg);
#endif
