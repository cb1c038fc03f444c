/* ips_remap_set.c: a node's remaps as packet threads see them: made whole, never changed; and their channels. */
#include "ips_frag.h"
#include "ips_remap.h"
#include <stdlib.h>

static bool is_length(unsigned family, unsigned length) { return length <= (family == 4 ? 32u : 128u); }

static bool is_zero_behind(const uint8_t *address, unsigned family, ips_u128 mask) {
  return (ips_ld_address(family, address) & ~mask) == 0;
}

static bool is_channel(const struct ips_remap_rec *r, ips_u128 mask) {
  const struct ips_remap_channel *c = &r->channel;
  if (c->encap > IPS_ENCAP_GUE || (c->family != 4 && c->family != 6)) return false;
  if (c->encap == IPS_ENCAP_NONE && (c->family != r->family || r->flags & IPS_REMAP_REPLIES)) return false;
  if (c->encap == IPS_ENCAP_GUE && !c->gue_port) return false;
  if (c->mtu && c->mtu < (c->family == 4 ? 128u : 1280u)) return false;
  for (unsigned m = 0; m < 2; m++) {
    if (ips_all_zero(c->local[m], c->family == 4 ? 4 : 16) || ips_all_zero(c->remote[m], c->family == 4 ? 4 : 16))
      return false;
    if (c->encap == IPS_ENCAP_NONE &&
        (!is_zero_behind(c->local[m], c->family, mask) || !is_zero_behind(c->remote[m], c->family, mask)))
      return false;
  }
  bool is_one_local = !memcmp(c->local[0], c->local[1], 16), is_one_remote = !memcmp(c->remote[0], c->remote[1], 16);
  return c->encap == IPS_ENCAP_GUE ? is_one_local && is_one_remote : !is_one_local && !is_one_remote;
}

static struct ips_endpoint_rec end_of(const struct ips_remap_rec *r, unsigned mark) {
  const struct ips_remap_channel *c = &r->channel;
  struct ips_endpoint_rec e = {.encap = c->encap, .path_mtu = c->mtu};
  if (c->encap == IPS_ENCAP_NONE) {
    memcpy(e.local, c->remote[mark], sizeof e.local);
    e.family = r->family;
    e.prefix_len = r->prefix_len;
    return e;
  }
  memcpy(e.tunnel_remote, c->remote[mark], sizeof e.tunnel_remote);
  memcpy(e.tunnel_local, c->local[mark], sizeof e.tunnel_local);
  e.tunnel_family = c->family;
  e.gue_port = c->gue_port;
  if (c->encap == IPS_ENCAP_GUE) e.flags = mark == IPS_REMAP_ASK ? IPS_EP_MARK_ASK : IPS_EP_MARK_FINAL;
  return e;
}

static bool take(struct ips_remap *m, const struct ips_remap_rec *r, const struct ips_remap_state *state) {
  if ((r->family != 4 && r->family != 6) || !is_length(r->family, r->prefix_len)) return false;
  if (r->role < IPS_REMAP_PREPARING || r->role > IPS_REMAP_TAKING || r->peer >= IPS_REMAPS) return false;
  *m = (struct ips_remap){.r = *r, .state = *state, .mask = ips_mask(r->prefix_len)};
  m->key = ips_ld_address(r->family, r->prefix);
  m->rewrites = r->channel.encap == IPS_ENCAP_NONE;
  for (unsigned mark = 0; mark < 2; mark++) m->end[mark] = end_of(r, mark);
  return (m->key & ~m->mask) == 0 && is_channel(r, m->mask) && state->counters &&
         (state->followed != NULL) == !ips_remap_gives(m);
}

/* How deep remaps cover an address of this one. */
static unsigned depth_at(const struct ips_remaps *s, const struct ips_remap *m) {
  unsigned depth = 0;
  for (uint32_t i = 0; i < s->n; i++) depth += ips_remap_has(&s->at[i], m->r.family, m->key) && s->at[i].mask <= m->mask;
  return depth;
}

/* ---- the lane's filter ---- */

static void mark(struct ips_prefix_filter *f, unsigned family, ips_u128 address) {
  uint32_t at = family == 4 ? ips_filter_at4(f, (uint32_t)(address >> 96)) : ips_filter_at6(f, ips_hi(address), ips_lo(address));
  uint64_t *map = family == 4 ? f->map4 : f->map6;
  map[at / 64] |= 1ull << at % 64;
}

/* As many bits count as the shortest prefix of the family has. */
static void choose_bits(const struct ips_remaps *s, struct ips_prefix_filter *f, bool of_channels) {
  ips_u128 mask[2] = {~(ips_u128)0, ~(ips_u128)0};
  for (uint32_t i = 0; i < s->n; i++)
    if (!of_channels || s->at[i].rewrites) mask[s->at[i].r.family == 6] &= s->at[i].mask;
  f->mask4 = (uint32_t)(mask[0] >> 96);
  f->mask6_hi = ips_hi(mask[1]), f->mask6_lo = ips_lo(mask[1]);
}

static void make_filter(struct ips_remaps *s) {
  struct ips_remap_filter *f = &s->filter;
  choose_bits(s, &f->global, false);
  choose_bits(s, &f->channel, true);
  for (uint32_t i = 0; i < s->n; i++) {
    const struct ips_remap *m = &s->at[i];
    mark(&f->global, m->r.family, m->key);
    for (unsigned k = 0; k < 2; k++) {
      const uint8_t *local = m->r.channel.local[k];
      if (m->rewrites) mark(&f->channel, m->r.family, ips_ld_address(m->r.family, local));
      else if (m->r.channel.encap == IPS_ENCAP_GUE) f->ends |= 1ull << (local[m->r.channel.family == 4 ? 3 : 15] & 63);
    }
  }
  f->has_channels = s->any_rewrites;
}

/* The mask of `global` is its own then. */
static void name_single(struct ips_remaps *s) {
  struct ips_remap_filter *f = &s->filter;
  uint32_t of4 = 0;
  for (uint32_t i = 0; i < s->n; i++) {
    const struct ips_remap *m = &s->at[i];
    if (m->r.family == 4) of4++, f->one4 = IPS_LANE_REMAPPED | i, f->key4 = (uint32_t)(m->key >> 96);
    else f->one6 = IPS_LANE_REMAPPED | i, f->key6_hi = ips_hi(m->key), f->key6_lo = ips_lo(m->key);
  }
  if (of4 != 1) f->one4 = 0;
  if (s->n - of4 != 1) f->one6 = 0;
}

/* ... and what it does with their packets: no other remap has any address of this one. */
static bool is_alone(const struct ips_remaps *s, const struct ips_remap *m) {
  for (uint32_t i = 0; i < s->n; i++) {
    const struct ips_remap *other = &s->at[i];
    if (other != m && other->r.family == m->r.family && ((other->key ^ m->key) & other->mask & m->mask) == 0) return false;
  }
  return true;
}

static void ready_lane(struct ips_remaps *s) {
  make_filter(s);
  name_single(s);
  for (uint32_t i = 0; i < s->n; i++) {
    struct ips_remap *m = &s->at[i];
    m->is_alone = m->r.role == IPS_REMAP_TAKING && is_alone(s, m);
    if (!m->rewrites) m->front = ips_front_made(&m->end[IPS_REMAP_FINAL], m->r.family);
    uint32_t mtu = m->r.channel.mtu && m->r.channel.mtu < UINT16_MAX ? m->r.channel.mtu : UINT16_MAX;
    m->room = mtu - m->front.bytes;
  }
}

struct ips_remaps *ips_remaps_new(const struct ips_remap_rec *recs, const struct ips_remap_state *states, size_t n,
                                  struct ips_frag_table *frags) {
  struct ips_remaps *s = n <= IPS_REMAPS && frags ? calloc(1, sizeof *s) : NULL;
  if (!s) return NULL;
  s->frags = frags;
  bool fine = true;
  for (; s->n < n && fine; s->n++) {
    struct ips_remap *m = &s->at[s->n];
    fine = take(m, &recs[s->n], &states[s->n]) && (!s->n || m->r.id > m[-1].r.id);
    s->any_rewrites |= m->rewrites;
    s->any_replies |= (m->r.flags & IPS_REMAP_REPLIES) != 0;
  }
  for (uint32_t i = 0; i < s->n && fine; i++) fine = depth_at(s, &s->at[i]) <= IPS_REMAP_DEPTH;
  if (fine) ready_lane(s);
  if (fine) return s;
  free(s);
  return NULL;
}

void ips_remaps_free(struct ips_remaps *s) { free(s); }

void ips_worker_set_remaps(struct ips_worker *w, const struct ips_remaps *s) {
  w->remaps = w->sessions && s && s->n ? s : NULL;
  w->remap_filter = w->remaps ? &s->filter : NULL;
  w->remap_ends = w->remaps ? s->filter.ends : 0;
}

uint32_t ips_remap_first(const struct ips_remaps *s, unsigned family, ips_u128 global) {
  for (uint32_t i = 0; i < s->n; i++)
    if (ips_remap_has(&s->at[i], family, global)) return IPS_LANE_REMAPPED | i;
  return 0;
}

bool ips_remap_cover(const struct ips_remaps *s, unsigned family, const uint8_t *address, struct ips_arrival *a) {
  ips_u128 key = ips_ld_address(family, address);
  a->n = 0;
  for (uint32_t i = 0; i < s->n; i++)
    if (ips_unlikely(ips_remap_has(&s->at[i], family, key)) && a->n < IPS_REMAP_DEPTH) a->at[a->n++] = &s->at[i];
  return a->n != 0;
}

static bool is_end(const struct ips_remap *m, unsigned mark, unsigned family, const uint8_t *address) {
  const struct ips_endpoint_rec *e = &m->end[mark];
  return !m->rewrites && e->tunnel_family == family && !memcmp(e->tunnel_local, address, family == 4 ? 4 : 16);
}

bool ips_remap_is_local(const struct ips_remaps *s, unsigned family, const uint8_t *address) {
  for (uint32_t i = 0; i < s->n; i++)
    if (is_end(&s->at[i], 0, family, address) || is_end(&s->at[i], 1, family, address)) return true;
  return false;
}

const struct ips_remap *ips_remap_channel(const struct ips_remaps *s, unsigned family, const uint8_t *remote,
                                          const uint8_t *local, unsigned *mark) {
  for (uint32_t i = 0; i < s->n; i++)
    for (*mark = 0; *mark < 2; ++*mark)
      if (is_end(&s->at[i], *mark, family, local) &&
          !memcmp(s->at[i].end[*mark].tunnel_remote, remote, family == 4 ? 4 : 16))
        return &s->at[i];
  return NULL;
}

const struct ips_remap *ips_remap_readdressed(const struct ips_remaps *s, unsigned family, const uint8_t *address,
                                              unsigned *mark, uint8_t out[16]) {
  ips_u128 to = ips_ld_address(family, address);
  for (uint32_t i = 0; i < s->n && s->any_rewrites; i++) {
    const struct ips_remap *m = &s->at[i];
    for (*mark = 0; m->rewrites && *mark < 2; ++*mark) {
      if (m->r.family != family || ((to ^ ips_ld_address(family, m->r.channel.local[*mark])) & m->mask)) continue;
      ips_st_address(out, m->key | (to & ~m->mask));
      return m;
    }
  }
  return NULL;
}
