/* ips_tunnel.c: packets into, out of and about the tunnels between distribution and end points.
 *
 * Out (S1.6, S1.7): super-packets are segmented first, since no virtio-net header can say
 * "TSO inside IP-in-IP"; packets without DF that are too long are fragmented first, so
 * that the far side never has to reassemble. GUE packets of one super-packet are UDP datagrams of one
 * flow: where the host can, they travel as a train, one UDP super-packet (USO), cut by whoever has to. In: only from a configured peer, and only what may come
 * this way: to a Global IP of ours, or, a reply on its way out, from one. ICMP errors about our
 * tunnel packets teach the path MTU and go on to the inner packet's sender (RFC 2473 8).
 */
#include "ips_encap.h"
#include "ips_parse.h"
#include "ips_remap.h"
#include "ips_tunnel.h"
#include "ips_worker.h"

enum { ICMP4_ECHO = 8, ICMP6_ECHO = 128, MIN_MTU4 = 576, MIN_MTU6 = 1280 };

/* ---- out ---------------------------------------------------------------- */

struct outgoing { /* what the pieces of one packet share */
  struct ips_worker *w;
  const struct ips_endpoint_rec *e;
  uint16_t entropy;
  int verdict;     /* of the first piece that failed, else OK */
  struct ips_pkt train; /* tunnel packets that leave as one UDP super-packet; len 0: none */
};

/* Bytes of the outer IP and UDP headers, which a train has once; the GUE header is in every piece. */
static inline uint32_t train_header(const struct ips_endpoint_rec *e) { return (e->tunnel_family == 4 ? 20u : 40u) + IPS_UDP_HEADER; }

/* The headers of a train say its whole length, its checksum is the pseudo-header's (RFC 768, 8200 8.1). */
static void send_train(struct outgoing *o) {
  struct ips_pkt *t = &o->train;
  uint32_t udp_at = train_header(o->e) - IPS_UDP_HEADER, udp_len = t->len - udp_at;
  if (t->len == 0) return;
  if (udp_len > t->gso_size + (uint32_t)IPS_UDP_HEADER) {
    const uint8_t *addresses = ips_field_at(t->data, o->e->tunnel_family, IPS_SRC);
    uint64_t pseudo = ips_csum_bytes(addresses, o->e->tunnel_family == 4 ? 8 : 32, ips_be16((uint16_t)udp_len));
    ips_st16(t->data + udp_at + 4, ips_be16((uint16_t)udp_len));
    ips_st16(t->data + udp_at + 6, ips_csum_fold(pseudo + ips_be16(IPS_PROTO_UDP)));
    ips_st16(t->data + (udp_at == 20 ? 2 : 4), ips_be16((uint16_t)(udp_at == 20 ? t->len : udp_len)));
    if (udp_at == 20) ips_write_header_sum(t->data, 20);
    t->gso_type = IPS_GSO_UDP;
    t->csum = IPS_CSUM_PARTIAL;
    t->csum_start = (uint16_t)udp_at;
    t->csum_offset = 6;
  } else {
    t->gso_size = 0; /* one packet is no train */
  }
  t->total_len = t->len;
  o->w->emit(o->w->arg, t, IPS_EMIT_PACKET);
  *t = (struct ips_pkt){0};
}

/* All pieces of a train are equally long, but for the last. */
static void join_train(struct outgoing *o, const struct ips_pkt *piece) {
  struct ips_pkt *t = &o->train;
  uint32_t header = train_header(o->e), bytes = piece->len - header;
  if (t->len && (bytes > t->gso_size || t->len + bytes > UINT16_MAX)) send_train(o);
  if (t->len == 0) {
    *t = (struct ips_pkt){.data = o->w->train + IPS_HEADROOM, .headroom = IPS_HEADROOM, .gso_size = (uint16_t)bytes,
                          .counter = piece->counter, .endpoint = piece->endpoint};
    memcpy(t->data, piece->data, header);
    t->len = header;
  }
  memcpy(t->data + t->len, piece->data + header, bytes);
  t->len += bytes;
  if (bytes < t->gso_size) send_train(o);
}

static void send_piece(void *arg, struct ips_pkt *piece) {
  struct outgoing *o = arg;
  struct ips_view v;
  int verdict = ips_parse(piece, &v);
  if (verdict == IPS_OK) verdict = ips_encap(piece, &v, o->e, o->entropy, o->w->ip_id++);
  if (verdict != IPS_OK) {
    if (o->verdict == IPS_OK) o->verdict = verdict;
  } else if (o->e->encap == IPS_ENCAP_GUE && o->w->makes_trains) {
    join_train(o, piece);
  } else {
    o->w->emit(o->w->arg, piece, IPS_EMIT_PACKET);
  }
}

/* Encapsulates p towards e. The caller has checked TTL and, with DF, length. */
int ips_tunnel_out(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint_rec *e) {
  if (ips_unlikely(e->tunnel_family == 0)) return IPS_NO_TUNNEL;
  struct outgoing o = {.w = w, .e = e, .entropy = ips_flow_entropy(p, v), .verdict = IPS_OK};
  int verdict;
  if (p->gso_type != IPS_GSO_NONE) {
    verdict = ips_segment(p, v, w->scratch, IPS_SCRATCH_BYTES, IPS_HEADROOM, send_piece, &o);
    send_train(&o);
    return verdict != IPS_OK ? verdict : o.verdict != IPS_OK ? o.verdict : IPS_SPLIT;
  }
  if (p->csum == IPS_CSUM_PARTIAL && (verdict = ips_complete_csum(p)) != IPS_OK) return verdict;
  uint32_t limit = ips_path_mtu(&w->shared->paths, e, w->now_ns);
  uint32_t room = limit == UINT32_MAX ? limit : limit - ips_encap_overhead(e);
  if (ips_unlikely(p->total_len > room && !v->dont_fragment && v->family == 4)) {
    verdict = ips_fragment4(p, v, room, w->scratch, IPS_SCRATCH_BYTES, IPS_HEADROOM, send_piece, &o);
    send_train(&o);
    return verdict != IPS_OK ? verdict : o.verdict != IPS_OK ? o.verdict : IPS_SPLIT;
  }
  verdict = ips_encap(p, v, e, o.entropy, w->ip_id++);
  return verdict == IPS_OK ? IPS_ENCAPSULATED : verdict;
}

/* ---- in ----------------------------------------------------------------- */

static void emit_now(void *arg, struct ips_pkt *p) {
  struct ips_worker *w = arg;
  w->emit(w->arg, p, IPS_EMIT_PACKET);
}

/* p has become the inner packet; it goes on to its destination. */
static int send_on(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  if (ips_unlikely(v->ttl <= 1)) {
    ips_worker_error(w, p, v, IPS_ERR_TTL, 0);
    return IPS_TTL_EXPIRED;
  }
  if (w->coalesces && v->proto == IPS_PROTO_TCP && ips_gro_push(w->gro, p, v, emit_now, w) == IPS_COALESCED) return IPS_COALESCED;
  return IPS_DECAPSULATED;
}

/* Of a remapped address, out of a tunnel or a channel. */
static __attribute__((noinline)) int arrived(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v,
                                             struct ips_arrival *a) {
  int verdict = ips_remap_arrive(w, p, v, a);
  if (verdict != IPS_REMAP_DELIVER) return verdict;
  verdict = send_on(w, p, v);
  return verdict == IPS_DECAPSULATED && a->verdict != IPS_OK ? a->verdict : verdict;
}

/* Came through a tunnel to one of our devices. was: the way to the end point that its sender names, or NULL. */
static int deliver(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h,
                   const struct ips_endpoint *was) {
  p->counter = h->counter;
  p->endpoint = h->endpoint;
  if (h->flags & IPS_BINDING_COPY) w->emit(w->arg, p, IPS_EMIT_COPY);
  if (ips_unlikely(h->kind == IPS_KIND_DOWN)) {
    ips_worker_error(w, p, v, IPS_ERR_HOST_UNREACHABLE, 0);
    return IPS_HOST_DOWN;
  }
  struct ips_arrival a = {.from = IPS_FROM_NETWORK, .binding_flags = h->flags};
  if (ips_unlikely(w->remaps != NULL) &&
      ips_remap_cover(w->remaps, v->family, ips_field_at(p->data, v->family, IPS_DST), &a))
    return arrived(w, p, v, &a);
  if (ips_unlikely(was != NULL) && w->sessions) {
    a.way = &was->r;
    return arrived(w, p, v, &a);
  }
  if (!ips_is_tracked(w, h)) return send_on(w, p, v);
  struct ips_noted noted;
  ips_track_note(p, v, h->flags, false, &noted);
  int verdict = send_on(w, p, v);
  ips_track_tell(w, &noted, verdict == IPS_COALESCED ? IPS_DECAPSULATED : verdict);
  return verdict;
}

/* A reply that an end point sent through us (S1.5). To another Global IP it turns around here. */
static int reply_out(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_hit *h) {
  p->counter = h->counter;
  if (ips_in_network(w->root, v->family, ips_field_at(p->data, v->family, IPS_DST))) return ips_outer_translate(w, p, v);
  return send_on(w, p, v);
}

static bool is_with(const struct ips_arrival *a, uint8_t peer, uint32_t flags) {
  for (uint8_t i = 0; i < a->n; i++)
    if (a->at[i]->r.peer == peer && (a->at[i]->r.flags & flags) == flags) return true;
  return false;
}

/* p has come by a way (IPS_EP_WAY) from the end point that got its slot of a policy: FINAL. */
static int out_of_way(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_endpoint *way) {
  struct ips_arrival a = {.from = IPS_FROM_FINAL, .way = &way->r};
  struct ips_hit h;
  const uint8_t *dst = ips_field_at(p->data, v->family, IPS_DST);
  if (!(w->header->roles & IPS_ROLE_INNER) || !ips_find_global_self(w->root, v->family, dst, &h) || h.kind == IPS_KIND_NONE)
    return IPS_NOT_OF_REMAP;
  p->counter = h.counter;
  p->endpoint = h.endpoint;
  a.binding_flags = h.flags;
  if (h.kind == IPS_KIND_DOWN) {
    ips_worker_error(w, p, v, IPS_ERR_HOST_UNREACHABLE, 0);
    return IPS_HOST_DOWN;
  }
  if (w->sessions) return arrived(w, p, v, &a);
  int verdict = send_on(w, p, v);
  return verdict == IPS_DECAPSULATED ? IPS_FINAL_HERE : verdict;
}

/* Of what comes out of a channel: OK, or why it is nobody's. */
static int judge_inside(struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v) {
  const uint8_t *src = ips_field_at(p->data, v->family, IPS_SRC), *dst = ips_field_at(p->data, v->family, IPS_DST);
  if (ips_is_tunnel_local(w->root, v->family, dst)) return IPS_LOOP;
  if (w->remaps && ips_remap_is_local(w->remaps, v->family, dst)) return IPS_LOOP;
  if (ips_bad_scope(src, v->family)) return IPS_SOURCE_SCOPE;
  return ips_bad_scope(dst, v->family) ? IPS_DESTINATION_SCOPE : IPS_OK;
}

/* The way that has the same channel as a remap. */
static const struct ips_endpoint *way_beside(const struct ips_worker *w, const struct ips_remap *m) {
  const struct ips_endpoint_rec *e = &m->end[IPS_REMAP_FINAL];
  const struct ips_endpoint *way =
    ips_endpoint(w->root, ips_find_tunnel(w->root, e->tunnel_family, e->tunnel_remote, e->tunnel_local));
  return way && way->r.flags & IPS_EP_WAY ? way : NULL;
}

/* p has come out of the channel to the peer of m. */
static int out_of_channel(struct ips_worker *w, struct ips_pkt *p, const struct ips_remap *m, unsigned mark) {
  struct ips_arrival a = {.from = mark == IPS_REMAP_ASK ? IPS_FROM_ASK : IPS_FROM_FINAL, .asker = m->r.peer}, back = {0};
  struct ips_view v;
  struct ips_hit h;
  int verdict = ips_parse(p, &v);
  if (verdict == IPS_OK) verdict = judge_inside(w, p, &v);
  if (verdict != IPS_OK) return verdict;
  const uint8_t *src = ips_field_at(p->data, v.family, IPS_SRC), *dst = ips_field_at(p->data, v.family, IPS_DST);
  if (ips_remap_cover(w->remaps, v.family, dst, &a) && is_with(&a, m->r.peer, 0)) {
    if (ips_find_global_self(w->root, v.family, dst, &h)) {
      p->counter = h.counter;
      p->endpoint = h.endpoint;
      a.binding_flags = h.flags;
    }
    return arrived(w, p, &v, &a);
  }
  if (mark == IPS_REMAP_ASK && ips_remap_cover(w->remaps, v.family, src, &back) &&
      is_with(&back, m->r.peer, IPS_REMAP_REPLIES)) {
    verdict = send_on(w, p, &v);
    if (ips_dispositions[verdict] != IPS_DROP) ips_remap_count(w, m, IPS_RM_REPLY_IN);
    return verdict == IPS_DECAPSULATED ? IPS_REPLY_BACK : verdict;
  }
  const struct ips_endpoint *way = mark == IPS_REMAP_FINAL && !a.n ? way_beside(w, m) : NULL;
  verdict = way ? out_of_way(w, p, &v, way) : IPS_NOT_OF_REMAP;
  if (verdict == IPS_NOT_OF_REMAP) ips_remap_count(w, m, IPS_RM_DROP_CHANNEL);
  return verdict;
}

/* p came from the other end of a way. */
static int open_way(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *outer, const struct ips_endpoint *way) {
  struct ips_gue_private said = {0};
  struct ips_tunnel_info info;
  struct ips_view v;
  struct ips_pkt q = *p;
  int verdict = ips_decap_marked(&q, outer, &info, &said);
  uint8_t mark = way->r.encap == IPS_ENCAP_GUE ? IPS_GUE_FINAL : 0;
  if (verdict == IPS_OK && (info.encap != way->r.encap || said.mark != mark)) verdict = IPS_TUNNEL_HEADER;
  if (verdict == IPS_OK) verdict = ips_parse(&q, &v);
  if (verdict == IPS_OK) verdict = judge_inside(w, &q, &v);
  if (verdict != IPS_OK) return verdict;
  *p = q;
  return out_of_way(w, p, &v, way);
}

static int open_channel(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *outer, const struct ips_remap *m,
                        unsigned mark) {
  struct ips_tunnel_info info;
  struct ips_gue_private said = {0};
  if (outer->proto == IPS_PROTO_UDP && !outer->is_fragment &&
      (p->len < outer->l4 + 8u || ips_be16(ips_ld16(p->data + outer->l4 + 2)) != m->r.channel.gue_port))
    return IPS_TUNNEL_HEADER;
  int verdict = ips_decap_marked(p, outer, &info, &said);
  if (verdict == IPS_OK && (info.encap != m->r.channel.encap || (info.encap == IPS_ENCAP_GUE) != (said.mark != 0) ||
                            said.mark == IPS_GUE_PREVIOUS))
    verdict = IPS_TUNNEL_HEADER;
  if (verdict != IPS_OK) {
    ips_remap_count(w, m, IPS_RM_DROP_CHANNEL);
    return verdict;
  }
  return out_of_channel(w, p, m, said.mark ? said.mark - 1u : mark);
}

static int open_tunnel(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *outer) {
  const uint8_t *remote = ips_field_at(p->data, outer->family, IPS_SRC), *local = ips_field_at(p->data, outer->family, IPS_DST);
  const struct ips_endpoint *peer = ips_endpoint(w->root, ips_find_tunnel(w->root, outer->family, remote, local));
  if (!peer || ips_unlikely(peer->r.flags & IPS_EP_WAY)) {
    unsigned mark;
    const struct ips_remap *m = w->remaps ? ips_remap_channel(w->remaps, outer->family, remote, local, &mark) : NULL;
    if (m) return open_channel(w, p, outer, m, mark);
    if (!peer) return IPS_TUNNEL_SOURCE;
  }
  if (outer->proto == IPS_PROTO_UDP && !outer->is_fragment &&
      (p->len < outer->l4 + 8u || ips_be16(ips_ld16(p->data + outer->l4 + 2)) != peer->r.gue_port))
    return IPS_TUNNEL_HEADER;

  if (ips_unlikely(peer->r.flags & IPS_EP_WAY)) return open_way(w, p, outer, peer);

  struct ips_pkt q = *p;
  struct ips_tunnel_info info;
  struct ips_gue_private said = {0};
  struct ips_view v;
  struct ips_hit h;
  int verdict = ips_decap_marked(&q, outer, &info, &said);
  if (verdict != IPS_OK) return verdict;
  if (said.mark && said.mark != IPS_GUE_PREVIOUS) return IPS_TUNNEL_HEADER;
  const struct ips_endpoint *was = ips_unlikely(said.mark) ? ips_way_to(w->root, said.family, said.address) : NULL;
  if ((verdict = ips_parse(&q, &v)) != IPS_OK) return verdict;
  const uint8_t *src = ips_field_at(q.data, v.family, IPS_SRC), *dst = ips_field_at(q.data, v.family, IPS_DST);
  if (ips_is_tunnel_local(w->root, v.family, dst)) return IPS_LOOP;
  *p = q;
  if (w->header->roles & IPS_ROLE_INNER && ips_find_global_self(w->root, v.family, dst, &h) && h.kind != IPS_KIND_NONE)
    return deliver(w, p, &v, &h, was);
  if (w->header->roles & IPS_ROLE_OUTER && ips_find_global(w->root, v.family, src, dst, &h)) return reply_out(w, p, &v, &h);
  return IPS_TUNNEL_INNER;
}

struct opening {
  struct ips_worker *w;
  struct ips_pkt *train;
  int verdict; /* of the first piece that was refused, else SPLIT */
};

static void open_piece(void *arg, struct ips_pkt *piece) {
  struct opening *o = arg;
  struct ips_view v;
  int verdict = ips_parse(piece, &v);
  if (verdict == IPS_OK) verdict = open_tunnel(o->w, piece, &v);
  if (o->train->counter == IPS_NONE) o->train->counter = piece->counter, o->train->endpoint = piece->endpoint;
  if (ips_dispositions[verdict] == IPS_SEND) o->w->emit(o->w->arg, piece, IPS_EMIT_PACKET);
  if (ips_dispositions[verdict] == IPS_DROP && o->verdict == IPS_SPLIT) o->verdict = verdict;
}

/* A train: each packet in it as if it had come alone. */
static int open_train(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *outer) {
  struct opening o = {w, p, IPS_SPLIT};
  int verdict = ips_segment(p, outer, w->opened, IPS_SCRATCH_BYTES, IPS_HEADROOM, open_piece, &o);
  return verdict != IPS_OK ? verdict : o.verdict;
}

/* ---- about -------------------------------------------------------------- */

static bool is_ours(const struct ips_endpoint_rec *e, const struct ips_tunnel_error *t) {
  uint8_t encap = e->encap == IPS_ENCAP_GUE ? IPS_ENCAP_GUE : IPS_ENCAP_IPIP;
  return t->encap == encap && (encap != IPS_ENCAP_GUE || t->dst_port == e->gue_port);
}

/* The tunnel that an error is about; NULL: none of ours. */
static const struct ips_endpoint_rec *tunnel_of(const struct ips_worker *w, const struct ips_tunnel_error *t) {
  const struct ips_endpoint *e = ips_endpoint(w->root, ips_find_tunnel(w->root, t->family, t->remote, t->local));
  unsigned mark;
  if (e) return &e->r;
  const struct ips_remap *m = w->remaps ? ips_remap_channel(w->remaps, t->family, t->remote, t->local, &mark) : NULL;
  return m ? &m->end[mark] : NULL;
}

static int tunnel_error(struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v) {
  struct ips_tunnel_error t = {0};
  int verdict = ips_tunnel_error(p, v, &t);
  if (t.kind == IPS_TUNNEL_ERROR_NONE) return IPS_TUNNEL_ERROR_BAD;
  const struct ips_endpoint_rec *e = tunnel_of(w, &t);
  if (!e || !is_ours(e, &t)) return IPS_TUNNEL_ERROR_BAD;
  if (t.kind == IPS_TUNNEL_ERROR_TOO_BIG) {
    uint32_t floor = t.family == 4 ? MIN_MTU4 : MIN_MTU6, mtu = t.mtu + ips_encap_overhead(e);
    ips_path_learn(&w->shared->paths, ips_path_key(e), mtu > floor ? mtu : floor, w->now_ns + IPS_PATH_LEARNED_NS);
  }
  if (verdict != IPS_OK) return verdict;
  size_t n = ips_relay_error(p, &t, w->header->icmp_source4, w->header->icmp_source6, w->error + IPS_HEADROOM,
                             IPS_ERROR_BYTES - IPS_HEADROOM);
  if (n && ips_worker_may_send_error(w)) {
    w->counters->errors_sent++;
    ips_worker_emit(w, w->error + IPS_HEADROOM, (uint32_t)n, IPS_EMIT_ERROR);
  }
  return IPS_TUNNEL_ERROR_RELAYED;
}

static int tunnel_icmp(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  if (v->is_fragment || p->len < v->l4 + 8u) return IPS_TUNNEL_HEADER;
  uint8_t type = p->data[v->l4];
  if (type != (v->family == 4 ? ICMP4_ECHO : ICMP6_ECHO)) return tunnel_error(w, p, v);
  if (p->csum == IPS_CSUM_PARTIAL && ips_complete_csum(p) != IPS_OK) return IPS_BAD_OFFLOAD;
  ips_make_echo_reply(p, v);
  w->emit(w->arg, p, IPS_EMIT_PACKET);
  return IPS_ANSWERED;
}

/* A packet to one of our own tunnel addresses. */
int ips_tunnel_in(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  bool icmp = v->proto == (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6);
  if (icmp) return tunnel_icmp(w, p, v);
  return p->gso_type == IPS_GSO_UDP ? open_train(w, p, v) : open_tunnel(w, p, v);
}
