/* ips_build.c: from an image and the live content to the next content.
 *
 * A delta names its changes; a full image is compared with what is live, so that an image
 * that says the same again, but for a few bindings, costs and copies as little as a
 * delta. Where much changed, or the networks did, indices are made anew. The result
 * depends on the content alone, not on the way that led to it.
 */
#include "ips_digest.h"
#include "ips_gen.h"

uint32_t ips_build_index(const struct ips_build *b, const struct ips_binding_rec *rec) {
  uint32_t lo = 0, hi = b->image->header.n_bindings;
  while (lo < hi) {
    uint32_t mid = (lo + hi) / 2;
    if (ips_record_order(b->image->bindings + mid, rec) < 0) lo = mid + 1; else hi = mid;
  }
  bool is_there = lo < b->image->header.n_bindings && ips_record_order(b->image->bindings + lo, rec) == 0;
  return is_there ? lo : IPS_NONE;
}

/* ---- what changed ---- */

static bool same_record(const struct ips_binding_rec *a, const struct ips_binding_rec *b) {
  return memcmp(a, b, sizeof *a) == 0;
}

static bool changes_of_delta(struct ips_build *b) {
  const struct ips_image_header *h = &b->image->header;
  if (!(b->changes = ips_alloc(b->mem, ((size_t)h->n_bindings + 1) * sizeof *b->changes)))
    return ips_no_memory(b);
  for (uint32_t i = 0; i < h->n_bindings; i++) {
    const struct ips_binding_rec *now = b->image->bindings + i;
    const struct ips_binding_rec *old = ips_records_find(&b->base->records, now);
    if (now->kind == IPS_KIND_NONE) now = NULL;
    if (old == now || (old && now && same_record(old, now))) continue;
    b->changes[b->n_changes++] = (struct ips_change){old, now};
  }
  return true;
}

static uint32_t patch_limit(const struct ips_content *base) { return base->records.count / 8 + 64; }

/* False: more than worth mending (or no memory to find out: building anew asks for more and will say so). */
static bool changes_of_full(struct ips_build *b) {
  uint32_t limit = patch_limit(b->base), n = b->image->header.n_bindings, i = 0;
  if (!(b->changes = ips_alloc(b->mem, ((size_t)limit + 1) * sizeof *b->changes))) return false;
  struct ips_position p = {0, 0};
  const struct ips_binding_rec *old = ips_records_next(&b->base->records, &p), *recs = b->image->bindings;
  while (old || i < n) {
    int order = !old ? 1 : i == n ? -1 : ips_record_order(old, recs + i);
    if (order != 0 || !same_record(old, recs + i)) {
      if (b->n_changes == limit) return false;
      b->changes[b->n_changes++] = (struct ips_change){order <= 0 ? old : NULL, order >= 0 ? recs + i : NULL};
    }
    if (order <= 0) old = ips_records_next(&b->base->records, &p);
    if (order >= 0) i++;
  }
  return true;
}

static bool same_networks(const struct ips_content *a, const struct ips_content *b) {
  uint32_t n4 = a->root.first4[256], n6 = a->root.net6.n;
  if (n4 != b->root.first4[256] || n6 != b->root.net6.n) return false;
  for (uint32_t i = 0; i < n4; i++)
    if (a->root.net4[i].base != b->root.net4[i].base || a->root.net4[i].mask != b->root.net4[i].mask)
      return false;
  for (uint32_t i = 0; i < n6; i++) {
    const struct ips_prefix *x = a->root.net6.at + i, *y = b->root.net6.at + i;
    if (x->hi != y->hi || x->lo != y->lo || x->prefix_len != y->prefix_len) return false;
  }
  return true;
}

static bool build_records(struct ips_build *b) {
  const struct ips_image_header *h = &b->image->header;
  bool merge = b->base && (h->flags & IPS_IMAGE_DELTA || changes_of_full(b));
  if (h->flags & IPS_IMAGE_DELTA && !changes_of_delta(b)) return false;
  if (merge ? !ips_records_merge(b->mem, &b->out->records, &b->base->records, b->changes, b->n_changes)
            : !ips_records_copy(b->mem, &b->out->records, b->image->bindings, h->n_bindings))
    return ips_no_memory(b);
  b->patch = merge && b->n_changes <= patch_limit(b->base) && same_networks(b->base, b->out);
  return true;
}

/* ---- content ---- */

static struct ips_content *content_new(struct ips_mem *m, const struct ips_image *image) {
  struct ips_content *c = ips_alloc(m, sizeof *c);
  if (!c) return NULL;
  c->refs = 1;
  c->section_bytes = image->section_bytes;
  c->sections = ips_alloc(m, image->section_bytes);
  struct ips_endpoint *endpoints = ips_alloc(m, (image->header.n_endpoints + 1) * sizeof *endpoints);
  c->root.endpoints = endpoints;
  c->root.header = image->header;
  if (!c->sections || !endpoints) {
    ips_content_drop(m, c);
    return NULL;
  }
  memcpy(c->sections, image->sections, image->section_bytes);
  for (uint32_t i = 0; i < image->header.n_endpoints; i++) endpoints[i].r = image->endpoints[i];
  return c;
}

static void drop_maglev(struct ips_mem *m, struct ips_content *c) {
  for (uint32_t i = 0; c->maglev && i < 2 * c->root.header.n_policies; i++) ips_maglev_drop(m, c->maglev[i]);
  ips_release(m, c->maglev);
}

void ips_content_drop(struct ips_mem *m, struct ips_content *c) {
  if (!c || --c->refs) return;
  struct ips_root *r = &c->root;
  ips_drop_slots(m, r);
  ips_lpm_drop(m, &r->global6);
  ips_lpm_drop(m, &r->local4);
  ips_lpm_drop(m, &r->local6);
  drop_maglev(m, c);
  ips_records_drop(m, &c->records);
  const void *blocks[] = {
    r->net6.at, r->home4.at, r->home6.at, r->endpoints, r->policies, r->tunnels, r->peers.at, c->scope, c->sections, c};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ips_release(m, (void *)(uintptr_t)blocks[i]);
}

/* The header that a complete image of this content has. */
static void settle_header(const struct ips_build *b) {
  struct ips_content *c = b->out;
  struct ips_image_header *h = &c->root.header;
  c->digested = !(h->flags & IPS_IMAGE_DELTA);
  c->digest = c->digested ? h->digest : 0;
  h->flags &= ~(uint32_t)IPS_IMAGE_DELTA;
  h->base_generation = 0;
  h->n_bindings = c->records.count;
  h->total_bytes = sizeof *h + c->section_bytes + (uint64_t)c->records.count * sizeof(struct ips_binding_rec);
}

uint64_t ips_content_digest(struct ips_content *c) {
  if (!c->digested) {
    struct ips_digest_state d;
    ips_digest_begin(&d);
    ips_digest_add(&d, c->sections, c->section_bytes);
    for (uint32_t i = 0; i < c->records.n_chunks; i++)
      ips_digest_add(&d, c->records.chunks[i].at, c->records.chunks[i].n * sizeof(struct ips_binding_rec));
    c->digest = ips_digest_end(&d);
    c->digested = true;
  }
  return c->digest;
}

struct ips_content *ips_build(struct ips_mem *m, struct ips_cells *cells, const struct ips_image *image,
                              const struct ips_content *base, struct ips_load_status *st) {
  struct ips_build b = {.mem = m, .cells = cells, .image = image, .base = base, .st = st,
                        .out = content_new(m, image)};
  bool done = b.out ? ips_build_networks(&b) && ips_check_bindings(&b) && build_records(&b) &&
                        ips_check_kept(&b) && ips_build_homes(&b) && ips_build_policies(&b) &&
                        ips_build_tunnels(&b) && ips_build_peers(&b) && ips_build_slots(&b) && ips_build_global6(&b) &&
                        ips_build_local(&b) && ips_build_overlaps(&b)
                    : ips_no_memory(&b);
  ips_release(m, b.changes);
  if (done) {
    settle_header(&b);
    return b.out;
  }
  ips_content_drop(m, b.out);
  return NULL;
}
