/* ips_gso.c: what a network card would have done: partial checksums and segmentation.
 *
 * virtio-net cannot say "TCP super-packet inside IP-in-IP", so super-packets are cut here before
 * they are encapsulated. Each segment is built in the caller's scratch memory, its payload
 * copied and summed in one pass, and handed to emit before the next one is built: one
 * segment's worth of memory, which stays in the first-level cache. The super-packet stays as it is.
 *
 * TCP: sequence numbers, FIN and PSH on the last, CWR on the first segment (RFC 3168 6.1.2), IPv4 ids
 * counting up (IPS_GSO_FIXED_ID: all equal). UDP: datagrams of gso_size with a header each.
 */
#include "ips_copysum.h"
#include "ips_encap.h"
#include "ips_tcp.h"

enum { UDP_SUM = 6 };

int ips_complete_csum(struct ips_pkt *p) {
  if (p->csum != IPS_CSUM_PARTIAL) return IPS_OK;
  uint32_t field = (uint32_t)p->csum_start + p->csum_offset;
  if (p->gso_type != IPS_GSO_NONE || p->total_len != p->len || p->csum_start < 20 || field + 2 > p->len)
    return IPS_BAD_OFFLOAD;
  uint16_t sum = (uint16_t)~ips_csum_fold(ips_csum_bytes(p->data + p->csum_start, p->len - p->csum_start, 0));
  if (sum == 0 && p->csum_offset == UDP_SUM) sum = 0xffff; /* 0 would say "none" (RFC 768) */
  ips_st16(p->data + field, sum);
  p->csum = IPS_CSUM_FULL;
  return IPS_OK;
}

/* A super-packet taken apart. */
struct job {
  const struct ips_pkt *p;
  const struct ips_view *v;
  uint32_t headers, payload; /* bytes: IP and L4 headers; the rest */
  uint32_t sum_at;           /* offset of the L4 checksum */
  uint64_t pseudo;           /* sum of the pseudo-header without its length */
  bool no_sum;               /* UDP without a checksum stays without */
};

/* Where a routing header names the final destination, only the host's partial sum knows it. */
static int pseudo_header(struct job *j) {
  const struct ips_pkt *p = j->p;
  uint32_t l4_len = j->headers + j->payload - j->v->l4;
  if (!j->v->routing_active) {
    j->pseudo = ips_csum_pseudo(p->data, j->v->family, j->v->proto, 0);
    return IPS_OK;
  }
  if (p->csum != IPS_CSUM_PARTIAL) return IPS_BAD_OFFLOAD;
  j->pseudo = (uint64_t)ips_ld16(p->data + j->sum_at) + (uint16_t)~ips_be16((uint16_t)l4_len);
  return IPS_OK;
}

static int open_job(struct job *j, const struct ips_pkt *p, const struct ips_view *v) {
  bool tcp = p->gso_type == IPS_GSO_TCP;
  uint32_t l4_min = tcp ? 20 : 8;
  *j = (struct job){.p = p, .v = v};
  if ((!tcp && p->gso_type != IPS_GSO_UDP) || p->gso_size == 0 ||
      v->proto != (tcp ? IPS_PROTO_TCP : IPS_PROTO_UDP) || v->is_fragment || v->frag_header || v->has_ah ||
      p->len < v->ip_len || v->l4 + l4_min > v->ip_len)
    return IPS_BAD_OFFLOAD;
  const uint8_t *l4 = p->data + v->l4;
  uint32_t l4_header = tcp ? ips_tcp_header(l4) : 8;
  if (l4_header < l4_min || v->l4 + l4_header > v->ip_len) return IPS_BAD_OFFLOAD;
  if (tcp && l4[IPS_TCP_FLAGS] & (IPS_TCP_SYN | IPS_TCP_RST)) return IPS_BAD_OFFLOAD; /* not to be repeated */
  if (v->l4 + l4_header + p->gso_size - (v->family == 6 ? 40 : 0) > UINT16_MAX) return IPS_BAD_OFFLOAD;
  j->headers = v->l4 + l4_header;
  j->payload = v->ip_len - j->headers;
  j->sum_at = v->l4 + (tcp ? IPS_TCP_SUM : UDP_SUM);
  j->no_sum = !tcp && p->csum == IPS_CSUM_FULL && ips_ld16(p->data + j->sum_at) == 0;
  return pseudo_header(j);
}

static void write_ip(uint8_t *ip, const struct job *j, uint32_t len, uint32_t index) {
  if (j->v->family == 6) {
    ips_st16(ip + 4, ips_be16((uint16_t)(len - 40)));
    return;
  }
  ips_st16(ip + 2, ips_be16((uint16_t)len));
  if (!(j->p->gso_flags & IPS_GSO_FIXED_ID))
    ips_st16(ip + 4, ips_be16((uint16_t)(ips_be16(ips_ld16(ip + 4)) + index)));
  ips_write_header_sum(ip, (ip[0] & 15u) * 4);
}

static void write_l4(uint8_t *ip, const struct job *j, uint32_t at, uint32_t n, uint64_t payload_sum) {
  uint8_t *l4 = ip + j->v->l4;
  uint32_t l4_len = j->headers - j->v->l4 + n;
  if (j->p->gso_type == IPS_GSO_TCP) {
    ips_st32(l4 + 4, ips_be32(ips_be32(ips_ld32(l4 + 4)) + at));
    if (at + n < j->payload) l4[IPS_TCP_FLAGS] &= (uint8_t)~(IPS_TCP_FIN | IPS_TCP_PSH);
    if (at > 0) l4[IPS_TCP_FLAGS] &= (uint8_t)~IPS_TCP_CWR;
  } else {
    ips_st16(l4 + 4, ips_be16((uint16_t)l4_len));
  }
  if (j->no_sum) return;
  ips_st16(ip + j->sum_at, 0);
  uint64_t sum = ips_csum_add(j->pseudo, payload_sum + ips_be16((uint16_t)l4_len));
  uint16_t field = (uint16_t)~ips_csum_fold(ips_csum_bytes(l4, j->headers - j->v->l4, sum));
  ips_st16(ip + j->sum_at, field == 0 && j->p->gso_type == IPS_GSO_UDP ? 0xffff : field);
}

int ips_segment(const struct ips_pkt *p, const struct ips_view *v, uint8_t *scratch, size_t scratch_bytes,
                uint16_t headroom, ips_packet_fn emit, void *arg) {
  struct job j;
  int verdict = open_job(&j, p, v);
  if (verdict != IPS_OK) return verdict;
  uint32_t size = p->gso_size < j.payload ? p->gso_size : j.payload;
  if (scratch_bytes < (size_t)headroom + j.headers + size) return IPS_NO_ROOM;

  uint32_t at = 0, index = 0;
  do {
    uint32_t n = j.payload - at < size ? j.payload - at : size;
    uint8_t *ip = scratch + headroom;
    memcpy(ip, p->data, j.headers);
    uint64_t payload_sum = ips_copy_sum(ip + j.headers, p->data + j.headers + at, n);
    write_ip(ip, &j, j.headers + n, index++);
    write_l4(ip, &j, at, n, payload_sum);
    struct ips_pkt segment = {.data = ip, .len = j.headers + n, .total_len = j.headers + n,
                              .headroom = headroom, .counter = p->counter, .endpoint = p->endpoint};
    emit(arg, &segment);
    at += n;
  } while (at < j.payload);
  return IPS_OK;
}
