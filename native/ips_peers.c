/* ips_peers.c: members of a group go on talking when an address of one of them changes (SYSTEMS.md S5).
 *
 * A group knows each member by one address, for ever. On the way between two nodes packets bear the addresses
 * that members have now; behind a node, those that the group knows. So what a member of this node sends to one
 * elsewhere has both addresses replaced outwards, what comes from there both inwards, and of an ICMP error those in
 * the packet that it quotes as well. Stateless; a second move replaces the first. An address may be understood
 * before and after it is used (IPS_PEER_ALSO), so that nodes may learn of a move one after the other. Whoever is no
 * member is not translated: what he sends is passed on as it came.
 */
#include "ips_gen.h"
#include "ips_rewrite.h"
#include "ips_worker.h"

/* ---- building ---- */

static uint32_t hash(unsigned family, uint64_t hi, uint64_t lo) {
  return (uint32_t)ips_fold(hi ^ 0x9e3779b97f4a7c15u, lo ^ family);
}

static const struct ips_peer *find(const struct ips_peers *s, unsigned family, ips_u128 key) {
  uint64_t hi = ips_hi(key), lo = ips_lo(key);
  for (uint32_t i = hash(family, hi, lo);; i++) {
    const struct ips_peer *p = s->at + (i & s->mask);
    if (!p->family) return NULL;
    if (p->family == family && ((p->hi ^ hi) | (p->lo ^ lo)) == 0) return p;
  }
}

static bool put(const struct ips_peers *s, struct ips_peer *cells, const struct ips_peer *p) {
  if (find(s, p->family, ips_pair(p->hi, p->lo))) return false;
  uint32_t i = hash(p->family, p->hi, p->lo);
  while (cells[i & s->mask].family) i++;
  cells[i & s->mask] = *p;
  return true;
}

static bool may_be_address(const struct ips_peer_rec *r, const uint8_t *address) {
  return !ips_bad_scope(address, r->family) && (r->family == 6 || ips_all_zero(address + 4, 12));
}

static enum ips_load_error judge(const struct ips_peer_rec *r) {
  if (r->family != 4 && r->family != 6) return IPS_LOAD_BAD_FAMILY;
  bool has_moved = !ips_is_zero(r->now);
  if (r->flags & ~(IPS_PEER_HERE | IPS_PEER_ALSO) || r->reserved || !may_be_address(r, r->address))
    return IPS_LOAD_BAD_PEER;
  if (r->flags & IPS_PEER_ALSO && !has_moved) return IPS_LOAD_BAD_PEER;
  if (has_moved && (!may_be_address(r, r->now) || !memcmp(r->address, r->now, 16))) return IPS_LOAD_BAD_PEER;
  return IPS_LOAD_OK;
}

static enum ips_load_error add(const struct ips_peers *s, struct ips_peer *cells, const struct ips_peer_rec *r) {
  enum ips_load_error error = judge(r);
  if (error) return error;
  bool has_moved = !ips_is_zero(r->now);
  ips_u128 address = ips_ld_address(6, r->address), now = has_moved ? ips_ld_address(6, r->now) : address;
  struct ips_peer p = {ips_hi(address), ips_lo(address), ips_hi(now), ips_lo(now), r->group, r->family,
                       r->flags & IPS_PEER_HERE, true, !has_moved};
  if (!(r->flags & IPS_PEER_ALSO) && !put(s, cells, &p)) return IPS_LOAD_DUPLICATE;
  if (!has_moved) return IPS_LOAD_OK;
  p = (struct ips_peer){p.to_hi, p.to_lo, p.hi, p.lo, p.group, p.family, p.is_here, false, true};
  return put(s, cells, &p) ? IPS_LOAD_OK : IPS_LOAD_DUPLICATE;
}

bool ips_build_peers(struct ips_build *b) {
  uint32_t n = b->image->header.n_peers, cells = 4;
  if (n == 0) return true;
  while (cells < 4 * n) cells *= 2; /* two names each, at most half full */
  struct ips_peer *at = ips_alloc(b->mem, cells * sizeof *at);
  if (!at) return ips_no_memory(b);
  b->out->root.peers = (struct ips_peers){at, cells - 1};
  for (uint32_t i = 0; i < n; i++) {
    enum ips_load_error error = add(&b->out->root.peers, at, b->image->peers + i);
    if (error) return ips_refuse(b->st, error, IPS_IN_PEER, i);
  }
  return true;
}

/* ---- packets ---- */

enum way { NEITHER, OUTWARDS, INWARDS };

/* Which way a packet between these two goes, at a node that stands between members and the way. */
static enum way way_of(const struct ips_peer *from, const struct ips_peer *to) {
  if (!from || !to || from->group != to->group || from->is_here == to->is_here) return NEITHER;
  if (from->is_here) return from->is_address && to->is_address ? OUTWARDS : NEITHER;
  return from->is_now && to->is_now ? INWARDS : NEITHER;
}

static const struct ips_peer *peer_at(const struct ips_root *r, unsigned family, const uint8_t *ip, enum ips_field f) {
  return find(&r->peers, family, ips_ld_address(family, ips_field_at(ip, family, f)));
}

/* True: it has another name on the side that the packet goes to, which is in *out. */
static bool other_name(const struct ips_peer *p, enum way way, uint8_t out[16]) {
  if (!p || (p->is_address && p->is_now) || !(way == OUTWARDS ? p->is_address : p->is_now)) return false;
  ips_st_address(out, ips_pair(p->to_hi, p->to_lo));
  return true;
}

/* The whole of the quoted packet's addresses; NULL: cut before them, or of another family. */
static const uint8_t *quote_of(const struct ips_pkt *p, const struct ips_view *v) {
  uint32_t at = v->l4 + 8u;
  if (p->len < at + (v->family == 4 ? 20u : 40u) || p->data[at] >> 4 != v->family) return NULL;
  return p->data + at;
}

/* An error goes against the packet that it is about: to its sender, from its destination or a router. */
static int translate_error(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const uint8_t *quote,
                           enum way way) {
  const struct ips_peer *sender = peer_at(w->root, v->family, quote, IPS_SRC);
  const struct ips_peer *target = peer_at(w->root, v->family, quote, IPS_DST);
  bool is_from_target = peer_at(w->root, v->family, p->data, IPS_SRC) == target;
  uint8_t name[16];
  int verdict = IPS_OK;
  if (other_name(sender, way, name)) verdict = ips_rewrite(p, v, IPS_DST, name);
  if (verdict == IPS_OK && other_name(target, way, name))
    verdict = is_from_target ? ips_rewrite(p, v, IPS_SRC, name) : ips_rewrite_quoted(p, v, IPS_DST, name);
  return verdict;
}

static int translate(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, enum way way) {
  const struct ips_peer *from = peer_at(w->root, v->family, p->data, IPS_SRC);
  const struct ips_peer *to = peer_at(w->root, v->family, p->data, IPS_DST);
  uint8_t name[16];
  int verdict = IPS_OK;
  if (other_name(to, way, name)) verdict = ips_rewrite(p, v, IPS_DST, name);
  if (verdict == IPS_OK && other_name(from, way, name)) verdict = ips_rewrite(p, v, IPS_SRC, name);
  return verdict;
}

/* The way that a packet goes: an error, against that of the packet that it is about, if the members match. */
static enum way way_at(const struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v,
                       const uint8_t *quote) {
  const uint8_t *ip = quote ? quote : p->data;
  const struct ips_peer *from = peer_at(w->root, v->family, ip, IPS_SRC);
  const struct ips_peer *to = peer_at(w->root, v->family, ip, IPS_DST);
  if (!quote) return way_of(from, to);
  /* What the quoted packet's target, or a router on that side, says of it bears the names of its side. */
  if (memcmp(ips_field_at(quote, v->family, IPS_SRC), ips_field_at(p->data, v->family, IPS_DST),
             v->family == 4 ? 4 : 16))
    return NEITHER;
  return way_of(to, from);
}

int ips_peers(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  bool is_error = ips_is_icmp_error(p, v);
  const uint8_t *quote = is_error ? quote_of(p, v) : NULL;
  enum way way = is_error && !quote ? NEITHER : way_at(w, p, v, quote);
  if (way == NEITHER) return IPS_NO_BINDING;
  if (v->ttl <= 1) {
    ips_worker_error(w, p, v, IPS_ERR_TTL, 0);
    return IPS_TTL_EXPIRED;
  }
  int verdict = is_error ? translate_error(w, p, v, quote, way) : translate(w, p, v, way);
  return verdict == IPS_OK ? IPS_PEER : verdict;
}

bool ips_peers_concern(const struct ips_root *r, const struct ips_pkt *p, const struct ips_view *v) {
  return peer_at(r, v->family, p->data, IPS_SRC) || peer_at(r, v->family, p->data, IPS_DST);
}
