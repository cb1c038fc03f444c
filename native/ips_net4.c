/* ips_net4.c: the networks of a generation, and the slots of the IPv4 ones.
 *
 * Built anew, bindings are written in their order, so the longest prevails where
 * they nest. Patched, the addresses under a changed prefix are set to what covers
 * them now and then written again from what lies within: what a removed host
 * binding uncovers comes back.
 */
#include "ips_gen.h"
#include <stdlib.h>

struct placed { ips_u128 base; uint32_t index; uint8_t prefix_len; };

static int by_base(const void *x, const void *y) {
  const struct placed *a = x, *b = y;
  if (a->base != b->base) return a->base < b->base ? -1 : 1;
  return (int)a->prefix_len - (int)b->prefix_len;
}

static struct placed *sorted(struct ips_build *b, unsigned family, uint32_t *n) {
  struct placed *p = ips_alloc(b->mem, (b->image->header.n_networks + 1) * sizeof *p);
  *n = 0;
  for (uint32_t i = 0; p && i < b->image->header.n_networks; i++) {
    const struct ips_network_rec *rec = b->image->networks + i;
    if (rec->family == family)
      p[(*n)++] = (struct placed){ips_ld_address(6, rec->prefix), i, rec->prefix_len};
  }
  if (p) qsort(p, *n, sizeof *p, by_base);
  return p;
}

static bool overlap(struct ips_build *b, const struct placed *p, uint32_t n) {
  for (uint32_t i = 1; i < n; i++)
    if ((p[i].base & ips_mask(p[i - 1].prefix_len)) == p[i - 1].base)
      return !ips_refuse(b->st, IPS_LOAD_BAD_NETWORK, IPS_IN_NETWORK,
                         p[i].index > p[i - 1].index ? p[i].index : p[i - 1].index);
  return false;
}

static uint32_t addresses(const struct ips_net4 *n) { return ~n->mask + 1; }
static uint32_t pages_of(const struct ips_net4 *n) { return (addresses(n) - 1) / IPS_PAGE_SLOTS + 1; }

static const struct ips_net4 *same_in(const struct ips_content *base, const struct ips_net4 *n) {
  const struct ips_net4 *old = base ? ips_net4_find(&base->root, n->base) : NULL;
  return old && old->base == n->base && old->mask == n->mask ? old : NULL;
}

static bool place4(struct ips_build *b, const struct placed *p, uint32_t n) {
  struct ips_root *r = &b->out->root;
  if (!(r->net4 = ips_alloc(b->mem, (n + 1) * sizeof *r->net4))) return ips_no_memory(b);
  for (uint32_t i = 0; i < n; i++) {
    struct ips_net4 net = {.base = (uint32_t)(p[i].base >> 96),
                           .mask = (uint32_t)(ips_mask(p[i].prefix_len) >> 96),
                           .unmatched = b->image->networks[p[i].index].unmatched,
                           .prefix_len = p[i].prefix_len};
    const struct ips_net4 *old = same_in(b->base, &net);
    net.cell = old ? old->cell : ips_cells_take(b->mem, b->cells, addresses(&net));
    if (net.cell == IPS_NONE) return ips_no_memory(b);
    if (net.cell == IPS_CELLS_EXHAUSTED)
      return ips_refuse(b->st, IPS_LOAD_TOO_LARGE, IPS_IN_NETWORK, p[i].index);
    r->net4[i] = net;
    for (unsigned byte = net.base >> 24; byte < 256; byte++) r->first4[byte + 1] = (uint16_t)(i + 1);
  }
  return true;
}

static bool place6(struct ips_build *b, const struct placed *p, uint32_t n) {
  struct ips_prefixes *s = &b->out->root.net6;
  if (!(s->at = ips_alloc(b->mem, (n + 1) * sizeof *s->at))) return ips_no_memory(b);
  for (; s->n < n; s->n++) {
    ips_u128 mask = ips_mask(p[s->n].prefix_len);
    s->at[s->n] = (struct ips_prefix){
      ips_hi(p[s->n].base), ips_lo(p[s->n].base), ips_hi(mask), ips_lo(mask), p[s->n].prefix_len,
      b->image->networks[p[s->n].index].unmatched,
    };
  }
  return true;
}

bool ips_build_networks(struct ips_build *b) {
  uint32_t n4, n6;
  struct placed *four = sorted(b, 4, &n4), *six = sorted(b, 6, &n6);
  bool done = four && six
              ? !overlap(b, four, n4) && !overlap(b, six, n6) && place4(b, four, n4) && place6(b, six, n6)
              : ips_no_memory(b);
  ips_release(b->mem, four);
  ips_release(b->mem, six);
  return done;
}

/* ---- slots ---- */

ips_slot ips_slot_of(const struct ips_binding_rec *b) {
  bool leads_on = b->kind != IPS_KIND_HERE && b->kind != IPS_KIND_DOWN;
  return b->kind | (ips_slot)b->flags << 8 |
         (leads_on ? (ips_slot)(uint16_t)b->target << 16 | (ips_slot)ips_be32(ips_ld32(b->local)) << 32 : 0);
}

static bool open_pages(struct ips_build *b, struct ips_net4 *n) {
  const struct ips_net4 *old = b->patch ? same_in(b->base, n) : NULL;
  if (!(n->pages = ips_alloc(b->mem, pages_of(n) * sizeof *n->pages))) return ips_no_memory(b);
  for (uint32_t i = 0; i < pages_of(n); i++)
    n->pages[i] = old ? ips_page_ref(old->pages[i]) : (void *)(uintptr_t)ips_empty_page;
  return true;
}

/* Slots first .. last of n get what `rec` says of these addresses (NULL: nothing). */
static bool fill(struct ips_build *b, struct ips_net4 *n, const struct ips_binding_rec *rec, uint32_t first,
                 uint32_t last) {
  ips_slot slot = 0, step = 0;
  if (rec) {
    step = rec->kind == IPS_KIND_HERE || rec->kind == IPS_KIND_DOWN ? 0 : IPS_SLOT_STEP;
    slot = ips_slot_of(rec) + (n->base + first - ips_be32(ips_ld32(rec->global))) * step;
  }
  for (uint32_t page = first / IPS_PAGE_SLOTS; page <= last / IPS_PAGE_SLOTS; page++) {
    ips_slot *at = ips_page_own(b->mem, n->pages[page]);
    if (!at) return ips_no_memory(b);
    n->pages[page] = at;
    uint32_t end = page == last / IPS_PAGE_SLOTS ? last % IPS_PAGE_SLOTS : IPS_PAGE_SLOTS - 1;
    uint32_t begin = page == first / IPS_PAGE_SLOTS ? first % IPS_PAGE_SLOTS : 0;
    for (uint32_t i = begin; i <= end; i++, slot += step) at[i] = slot;
  }
  return true;
}

static struct ips_net4 *net_of(struct ips_build *b, uint32_t address) {
  return (struct ips_net4 *)(uintptr_t)ips_net4_find(&b->out->root, address);
}
static uint32_t first_of(const struct ips_binding_rec *rec) { return ips_be32(ips_ld32(rec->global)); }
static uint32_t last_of(const struct ips_binding_rec *rec) {
  return first_of(rec) | (uint32_t)(~ips_mask(rec->prefix_len) >> 96);
}

static bool write_record(struct ips_build *b, const struct ips_binding_rec *rec) {
  struct ips_net4 *n = net_of(b, first_of(rec));
  return fill(b, n, rec, first_of(rec) - n->base, last_of(rec) - n->base);
}

static bool write_all(struct ips_build *b) {
  const struct ips_binding_rec *rec;
  for (struct ips_position p = {0, 0}; (rec = ips_records_next(&b->out->records, &p)) && rec->family == 4;) {
    b->out->lengths4[rec->prefix_len]++;
    if (!write_record(b, rec)) return false;
  }
  return true;
}

static bool mend(struct ips_build *b, const struct ips_binding_rec *changed) {
  const struct ips_records *records = &b->out->records;
  uint32_t first = first_of(changed), last = last_of(changed);
  struct ips_net4 *n = net_of(b, first);
  const struct ips_binding_rec *rec =
    ips_records_cover(records, 4, ips_global_of(changed), changed->prefix_len);
  if (!fill(b, n, rec, first - n->base, last - n->base)) return false;
  if (changed->prefix_len == 32) return true;
  struct ips_position p = ips_records_seek(records, 4, ips_global_of(changed), changed->prefix_len + 1u);
  while ((rec = ips_records_next(records, &p)) && rec->family == 4 && first_of(rec) <= last)
    if (!write_record(b, rec)) return false;
  return true;
}

static bool mend_all(struct ips_build *b) {
  uint64_t mended = 0; /* addresses below are done */
  memcpy(b->out->lengths4, b->base->lengths4, sizeof b->out->lengths4);
  for (uint32_t i = 0; i < b->n_changes; i++) {
    const struct ips_change *c = b->changes + i;
    const struct ips_binding_rec *rec = c->now ? c->now : c->old;
    if (rec->family != 4) break;
    if (!c->old) b->out->lengths4[rec->prefix_len]++;
    if (!c->now) b->out->lengths4[rec->prefix_len]--;
    if (last_of(rec) < mended) continue;
    if (!mend(b, rec)) return false;
    mended = (uint64_t)last_of(rec) + 1;
  }
  return true;
}

/* Pages that came out as they were are shared after all. */
static void share_equal(struct ips_build *b, struct ips_net4 *n) {
  const struct ips_net4 *old = same_in(b->base, n);
  for (uint32_t i = 0; old && i < pages_of(n); i++) {
    if (n->pages[i] == old->pages[i] || memcmp(n->pages[i], old->pages[i], IPS_PAGE_BYTES)) continue;
    ips_page_drop(b->mem, n->pages[i]);
    n->pages[i] = ips_page_ref(old->pages[i]);
  }
}

bool ips_build_slots(struct ips_build *b) {
  struct ips_root *r = &b->out->root;
  for (uint32_t i = 0; i < r->first4[256]; i++)
    if (!open_pages(b, r->net4 + i)) return false;
  if (!(b->patch ? mend_all(b) : write_all(b))) return false;
  for (uint32_t i = 0; i < r->first4[256] && !b->patch; i++) share_equal(b, r->net4 + i);
  for (unsigned bits = 1; bits <= 32; bits++)
    if (b->out->lengths4[bits]) r->longest4 = (uint8_t)bits;
  return true;
}

void ips_drop_slots(struct ips_mem *m, struct ips_root *r) {
  for (uint32_t i = 0; r->net4 && i < r->first4[256]; i++) {
    for (uint32_t p = 0; r->net4[i].pages && p < pages_of(r->net4 + i); p++)
      ips_page_drop(m, r->net4[i].pages[p]);
    ips_release(m, r->net4[i].pages);
  }
  ips_release(m, r->net4);
}
