/* ips_fragment.c: cuts an IPv4 packet that may be cut (RFC 791 3.2) before it enters a tunnel.
 *
 * Fragmenting the inner packet instead of the tunnel packet leaves reassembly to the
 * receiver, where it belongs, and keeps the tunnel's end stateless (RFC 4459 3.1 with DF clear).
 * The first piece has the whole header, the others only the options whose copy bit is
 * set. A packet that is a fragment already is cut further. Pieces are built one after the other in the
 * caller's scratch memory; the packet stays as it is.
 */
#include "ips_encap.h"

enum { OPT_END = 0, OPT_NOP = 1, OPT_COPIED = 0x80, IP4_MAX = 60 };

/* Header of the later pieces: options without the copy bit left out. Returns its length, 0 if the
 * options are malformed. */
static uint32_t later_header(const uint8_t *ip, uint32_t length, uint8_t out[IP4_MAX]) {
  uint32_t to = 20;
  memset(out, OPT_END, IP4_MAX);
  memcpy(out, ip, 20);
  for (uint32_t at = 20; at < length && ip[at] != OPT_END;) {
    if (ip[at] == OPT_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= length || ip[at + 1] < 2 || at + ip[at + 1] > length) return 0;
    if (ip[at] & OPT_COPIED) {
      memcpy(out + to, ip + at, ip[at + 1]);
      to += ip[at + 1];
    }
    at += ip[at + 1];
  }
  to = (to + 3) & ~3u;
  out[0] = (uint8_t)(0x40 | to / 4);
  return to;
}

static void write_piece(uint8_t *ip, uint32_t header, const uint8_t *payload, uint32_t n, uint32_t offset,
                        bool more) {
  uint16_t flags = ips_be16(ips_ld16(ip + 6)) & (uint16_t)~(IPS_MF | IPS_FRAG_OFFSET);
  memcpy(ip + header, payload, n);
  ips_st16(ip + 2, ips_be16((uint16_t)(header + n)));
  ips_st16(ip + 6, ips_be16((uint16_t)(flags | (more ? IPS_MF : 0) | offset / 8)));
  ips_write_header_sum(ip, header);
}

int ips_fragment4(const struct ips_pkt *p, const struct ips_view *v, uint32_t mtu, uint8_t *scratch,
                  size_t scratch_bytes, uint16_t headroom, ips_packet_fn emit, void *arg) {
  if (p->gso_type != IPS_GSO_NONE || p->csum != IPS_CSUM_FULL || p->len < v->ip_len) return IPS_BAD_OFFLOAD;
  uint32_t header = v->family == 4 ? (p->data[0] & 15u) * 4 : 0;
  if (v->ip_len > mtu && (v->family != 4 || v->dont_fragment || mtu < header + 8)) return IPS_TOO_BIG;
  uint8_t later[IP4_MAX];
  uint32_t later_len = v->ip_len > mtu ? later_header(p->data, header, later) : header;
  if (v->family == 4 && later_len == 0) return IPS_BAD_OPTION;
  if (scratch_bytes < (size_t)headroom + (v->ip_len < mtu ? v->ip_len : mtu)) return IPS_NO_ROOM;

  uint8_t *ip = scratch + headroom;
  struct ips_pkt piece = {.data = ip, .headroom = headroom, .counter = p->counter, .endpoint = p->endpoint};
  if (v->ip_len <= mtu) {
    memcpy(ip, p->data, v->ip_len);
    piece.len = piece.total_len = v->ip_len;
    emit(arg, &piece);
    return IPS_OK;
  }
  uint32_t payload = v->ip_len - header;
  for (uint32_t at = 0, n; at < payload; at += n) {
    uint32_t head = at == 0 ? header : later_len;
    uint32_t most = mtu - head;
    n = payload - at <= most ? payload - at : most & ~7u;
    memcpy(ip, at == 0 ? p->data : later, head);
    write_piece(ip, head, p->data + header + at, n, v->fragment_at + at,
                v->more_fragments || at + n < payload);
    piece = (struct ips_pkt){.data = ip, .len = head + n, .total_len = head + n, .headroom = headroom,
                             .counter = p->counter, .endpoint = p->endpoint};
    emit(arg, &piece);
  }
  return IPS_OK;
}
