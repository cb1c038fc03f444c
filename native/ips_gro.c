/* ips_gro.c: coalescing (contract in ips_gro.h).
 *
 * An open flow is a packet in a 64 kB buffer that grows at its end. A segment is joined if its header
 * is what ips_segment would write for it, and its checksum verifies while it is copied. Whatever
 * does not fit closes the flow first: emitted, then the packet in hand follows. FIN, PSH and a short
 * segment can only be last; SYN, RST, URG, pure ACKs, options and extension headers never wait.
 */
#include "ips_gro.h"
#include "ips_copysum.h"
#include "ips_encap.h"
#include "ips_parse.h"
#include "ips_tcp.h"
#include <stdlib.h>

enum { MAX_PACKET = 65535 };

struct flow {
  uint8_t *ip;        /* the packet so far; headroom before it, room for MAX_PACKET */
  uint32_t len;
  uint32_t hash;
  uint32_t next_seq;
  uint32_t counter, endpoint;
  uint64_t opened;    /* order of opening */
  uint16_t segments;  /* 0: free */
  uint16_t size;      /* payload of all segments but the last */
  uint16_t first_id;
  uint8_t family, l4, headers;
  bool fixed_id;
};

struct ips_gro {
  unsigned flows, open;
  uint16_t headroom;
  uint64_t opened;
  uint8_t *memory;
  struct flow flow[IPS_GRO_MAX_FLOWS];
};

struct ips_gro *ips_gro_new(unsigned flows, uint16_t headroom) {
  if (flows == 0 || flows > IPS_GRO_MAX_FLOWS || headroom > IPS_GRO_MAX_HEADROOM) return NULL;
  struct ips_gro *g = calloc(1, sizeof *g);
  size_t each = ((size_t)headroom + MAX_PACKET + 63) & ~(size_t)63;
  if (!g || !(g->memory = malloc(flows * each))) {
    free(g);
    return NULL;
  }
  g->flows = flows;
  g->headroom = headroom;
  for (unsigned i = 0; i < flows; i++) g->flow[i].ip = g->memory + i * each + headroom;
  return g;
}

void ips_gro_free(struct ips_gro *g) {
  if (!g) return;
  free(g->memory);
  free(g);
}

/* ---- out ---------------------------------------------------------------- */

/* The header of several segments in one: lengths, and the checksum as a card would want it. */
static void finish(struct flow *f, struct ips_pkt *p) {
  uint32_t l4_len = f->len - f->l4;
  if (f->family == 4) {
    ips_st16(f->ip + 2, ips_be16((uint16_t)f->len));
    ips_write_header_sum(f->ip, f->l4);
  } else {
    ips_st16(f->ip + 4, ips_be16((uint16_t)l4_len));
  }
  ips_st16(f->ip + f->l4 + IPS_TCP_SUM,
           ips_csum_fold(ips_csum_pseudo(f->ip, f->family, IPS_PROTO_TCP, l4_len)));
  p->gso_type = IPS_GSO_TCP;
  p->gso_size = f->size;
  p->gso_flags = f->fixed_id ? IPS_GSO_FIXED_ID : 0;
  p->csum = IPS_CSUM_PARTIAL;
  p->csum_start = f->l4;
  p->csum_offset = IPS_TCP_SUM;
}

static void close_flow(struct ips_gro *g, struct flow *f, ips_packet_fn emit, void *arg) {
  struct ips_pkt p = {.data = f->ip, .len = f->len, .total_len = f->len, .headroom = g->headroom,
                      .counter = f->counter, .endpoint = f->endpoint};
  if (f->segments > 1) finish(f, &p);
  f->segments = 0;
  g->open--;
  emit(arg, &p);
}

static struct flow *oldest(struct ips_gro *g) {
  struct flow *found = NULL;
  for (unsigned i = 0; i < g->flows; i++) {
    struct flow *f = &g->flow[i];
    if (f->segments && (!found || f->opened < found->opened)) found = f;
  }
  return found;
}

void ips_gro_flush(struct ips_gro *g, ips_packet_fn emit, void *arg) {
  while (g->open) close_flow(g, oldest(g), emit, arg);
}

/* A fragment has no ports: whatever is held between its two addresses goes first. */
static void close_pair(struct ips_gro *g, const struct ips_pkt *p, const struct ips_view *v,
                       ips_packet_fn emit, void *arg) {
  const uint8_t *addresses = ips_field_at(p->data, v->family, IPS_SRC);
  for (unsigned i = 0; i < g->flows; i++) {
    struct flow *f = &g->flow[i];
    if (f->segments && f->family == v->family &&
        memcmp(ips_field_at(f->ip, f->family, IPS_SRC), addresses, v->family == 4 ? 8 : 32) == 0)
      close_flow(g, f, emit, arg);
  }
}

/* ---- in ----------------------------------------------------------------- */

static uint32_t hash_of(const struct ips_pkt *p, const struct ips_view *v) {
  const uint8_t *a = ips_field_at(p->data, v->family, IPS_SRC);
  uint64_t h = ips_ld32(p->data + v->l4);
  for (unsigned i = 0; i < (v->family == 4 ? 8u : 32u); i += 8)
    h = (h ^ ips_ld64(a + i)) * 0x9e3779b97f4a7c15ull;
  return (uint32_t)(h >> 32);
}

static struct flow *find(struct ips_gro *g, const struct ips_pkt *p, const struct ips_view *v,
                         uint32_t hash) {
  for (unsigned i = 0; i < g->flows; i++) {
    struct flow *f = &g->flow[i];
    if (f->segments && f->hash == hash && f->family == v->family &&
        ips_ld32(f->ip + f->l4) == ips_ld32(p->data + v->l4) &&
        memcmp(ips_field_at(f->ip, f->family, IPS_SRC), ips_field_at(p->data, v->family, IPS_SRC),
               v->family == 4 ? 8 : 32) == 0)
      return f;
  }
  return NULL;
}

/* Bytes of IP and TCP header of a segment that may be joined to others; 0: it may not. */
static uint32_t joinable(const struct ips_pkt *p, const struct ips_view *v) {
  const uint8_t *tcp = p->data + v->l4;
  uint32_t headers = v->l4 + ips_tcp_header(tcp);
  if (v->l4 != (v->family == 4 ? 20 : 40) || p->csum != IPS_CSUM_FULL || p->gso_type != IPS_GSO_NONE)
    return 0;
  if (p->len != v->ip_len || headers < v->l4 + 20u || headers >= p->len || p->len > MAX_PACKET) return 0;
  if ((tcp[IPS_TCP_FLAGS] & (IPS_TCP_ACK | IPS_TCP_SYN | IPS_TCP_RST | IPS_TCP_URG)) != IPS_TCP_ACK) return 0;
  return ips_ld16(tcp + IPS_TCP_SUM) == 0xffff ? 0 : headers; /* another 0: would not come back as it is */
}

/* Copies the payload to its place behind the flow's and verifies p's checksum on the way. */
static bool copy_payload(struct flow *f, uint32_t at, const struct ips_pkt *p, const struct ips_view *v,
                         uint32_t headers) {
  uint64_t sum = ips_copy_sum(f->ip + at, p->data + headers, p->len - headers);
  sum = ips_csum_add(sum, ips_csum_pseudo(p->data, v->family, IPS_PROTO_TCP, p->len - v->l4));
  return ips_csum_fold(ips_csum_bytes(p->data + v->l4, headers - v->l4, sum)) == 0xffff;
}

static bool same_ip_header(const struct flow *f, const uint8_t *ip) {
  if (f->family == 6) return ips_ld32(f->ip) == ips_ld32(ip) && ips_ld16(f->ip + 6) == ips_ld16(ip + 6);
  if (ips_ld16(f->ip) != ips_ld16(ip) || ips_ld32(f->ip + 6) != ips_ld32(ip + 6)) return false;
  uint16_t id = ips_be16(ips_ld16(ip + 4));
  bool may_be_fixed = f->segments == 1 ? ips_be16(ips_ld16(ip + 6)) & IPS_DF : f->fixed_id;
  if (id == f->first_id && may_be_fixed) return true;
  return id == (uint16_t)(f->first_id + f->segments) && (f->segments == 1 || !f->fixed_id);
}

static bool same_tcp_header(const struct flow *f, const uint8_t *tcp) {
  const uint8_t *head = f->ip + f->l4;
  uint8_t differing = (uint8_t)(head[IPS_TCP_FLAGS] ^ tcp[IPS_TCP_FLAGS]) &
                      (uint8_t)~(IPS_TCP_FIN | IPS_TCP_PSH | IPS_TCP_CWR);
  return ips_be32(ips_ld32(tcp + 4)) == f->next_seq && ips_ld32(head + 8) == ips_ld32(tcp + 8) &&
         head[12] == tcp[12] && differing == 0 && !(tcp[IPS_TCP_FLAGS] & IPS_TCP_CWR) &&
         ips_ld16(head + 14) == ips_ld16(tcp + 14) &&
         memcmp(head + 18, tcp + 18, f->headers - f->l4 - 18) == 0; /* urgent pointer, options */
}

/* False: p does not continue the flow. Else it is in, and *last says that nothing can follow. */
static bool append(struct flow *f, const struct ips_pkt *p, const struct ips_view *v, uint32_t headers,
                   bool *last) {
  const uint8_t *tcp = p->data + v->l4;
  uint32_t payload = p->len - headers;
  if (payload > f->size || f->len + payload > MAX_PACKET || headers != f->headers) return false;
  if (!same_ip_header(f, p->data) || !same_tcp_header(f, tcp) || !copy_payload(f, f->len, p, v, headers))
    return false;
  if (f->segments == 1 && f->family == 4) f->fixed_id = ips_be16(ips_ld16(p->data + 4)) == f->first_id;
  f->segments++;
  f->len += payload;
  f->next_seq += payload;
  f->ip[f->l4 + IPS_TCP_FLAGS] |= tcp[IPS_TCP_FLAGS] & (IPS_TCP_FIN | IPS_TCP_PSH);
  *last = payload < f->size || tcp[IPS_TCP_FLAGS] & (IPS_TCP_FIN | IPS_TCP_PSH);
  return true;
}

static struct flow *free_flow(struct ips_gro *g, ips_packet_fn emit, void *arg) {
  if (g->open == g->flows) close_flow(g, oldest(g), emit, arg);
  for (unsigned i = 0;; i++)
    if (!g->flow[i].segments) return &g->flow[i];
}

static int open_flow(struct ips_gro *g, struct flow *f, const struct ips_pkt *p, const struct ips_view *v,
                     uint32_t headers, uint32_t hash) {
  if (!copy_payload(f, headers, p, v, headers)) return IPS_OK;
  memcpy(f->ip, p->data, headers);
  f->len = p->len;
  f->hash = hash;
  f->next_seq = ips_be32(ips_ld32(p->data + v->l4 + 4)) + p->len - headers;
  f->counter = p->counter;
  f->endpoint = p->endpoint;
  f->opened = g->opened++;
  f->segments = 1;
  f->size = (uint16_t)(p->len - headers);
  f->first_id = v->family == 4 ? ips_be16(ips_ld16(p->data + 4)) : 0;
  f->family = v->family;
  f->l4 = (uint8_t)v->l4;
  f->headers = (uint8_t)headers;
  f->fixed_id = false;
  g->open++;
  return IPS_COALESCED;
}

int ips_gro_push(struct ips_gro *g, const struct ips_pkt *p, const struct ips_view *v, ips_packet_fn emit,
                 void *arg) {
  if (v->proto != IPS_PROTO_TCP) return IPS_OK;
  if (v->is_fragment || p->len < v->l4 + 20u) {
    close_pair(g, p, v, emit, arg);
    return IPS_OK;
  }
  uint32_t hash = hash_of(p, v), headers = joinable(p, v);
  struct flow *f = find(g, p, v, hash);
  bool last = false;
  if (f && headers && append(f, p, v, headers, &last)) {
    if (last) close_flow(g, f, emit, arg);
    return IPS_COALESCED;
  }
  if (f) close_flow(g, f, emit, arg);
  if (!headers || p->data[v->l4 + IPS_TCP_FLAGS] & (IPS_TCP_FIN | IPS_TCP_PSH)) return IPS_OK;
  return open_flow(g, free_flow(g, emit, arg), p, v, headers, hash);
}

int ips_gro_push_packet(struct ips_gro *g, struct ips_pkt *p, ips_packet_fn emit, void *arg) {
  struct ips_view v;
  int verdict = ips_parse(p, &v);
  return verdict != IPS_OK ? verdict : ips_gro_push(g, p, &v, emit, arg);
}
