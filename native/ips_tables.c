/* ips_tables.c: generations: prepared aside, live by one store, taken back, read out.
 *
 * Fencing: an image below the highest (term, revision) ever committed here is refused. A
 * rollback does not lower that mark and its generation carries it: going back is a decision made
 * after the revision that it takes back, so an older director's image stays refused, while
 * the same revision may be applied again. What content is live is told by the digest.
 */
#include "ips_digest.h"
#include "ips_gen.h"
#include "ips_worker.h"
#include <stdlib.h>

struct ips_tables *ips_tables_new(uint32_t workers) {
  struct ips_tables *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->workers = workers;
  t->readers = aligned_alloc(64, (workers + 1) * sizeof *t->readers);
  t->control = calloc(1, sizeof *t->control);
  t->shared = ips_shared_new();
  if (!t->readers || !t->control || !t->shared) {
    ips_shared_free(t->shared);
    free(t->readers);
    free(t->control);
    free(t);
    return NULL;
  }
  for (uint32_t i = 0; i <= workers; i++) atomic_init(&t->readers[i].loops, 0);
  ips_mem_init(&t->control->mem);
  return t;
}

void ips_tables_free(struct ips_tables *t) {
  if (!t) return;
  struct ips_control *c = t->control;
  ips_gen_free(c, c->live);
  ips_gen_free(c, c->previous);
  ips_gen_free(c, c->prepared);
  while (c->retired) {
    struct ips_gen *g = c->retired;
    c->retired = g->next;
    ips_gen_free(c, g);
  }
  ips_release(&c->mem, c->cells.used);
  ips_release(&c->mem, c->cells.fresh);
  ips_mem_close(&c->mem);
  ips_shared_free(t->shared);
  free(t->readers);
  free(c);
  free(t);
}

struct ips_mem *ips_tables_mem(struct ips_tables *t) { return &t->control->mem; }
struct ips_shared *ips_tables_shared(struct ips_tables *t) { return t->shared; }

/* ---- counter cells that nothing kept can reach ---- */

static void keep_cells(struct ips_cells *cells, const struct ips_gen *g) {
  if (!g) return;
  const struct ips_root *r = &g->root;
  for (uint32_t i = 0; i < r->first4[256]; i++)
    ips_cells_sweep_keep(cells, r->net4[i].cell, ~r->net4[i].mask + 1);
  for (const struct ips_hash *t = r->global6.tables; t < r->global6.tables + r->global6.n; t++)
    for (uint32_t page = 0; page < ips_hash_pages(t); page++)
      for (uint32_t i = 0; t->pages[page]->used && i < IPS_HASH_CELLS; i++)
        if (t->pages[page]->values[i].kind) ips_cells_sweep_keep(cells, t->pages[page]->values[i].cell, 1);
}

static void sweep_cells(struct ips_control *c) {
  if (!c->cells.sweep_at || c->cells.top < c->cells.sweep_at) return;
  ips_cells_sweep_begin(&c->cells);
  keep_cells(&c->cells, c->live);
  keep_cells(&c->cells, c->previous);
  for (const struct ips_gen *g = c->retired; g; g = g->next) keep_cells(&c->cells, g);
  ips_cells_sweep_end(&c->cells);
}

/* ---- prepare, commit, roll back ---- */

static struct ips_gen *gen_new(struct ips_tables *t, struct ips_content *content, uint64_t term,
                               uint64_t revision) {
  struct ips_control *c = t->control;
  struct ips_gen *g = ips_alloc(&c->mem, sizeof *g + t->workers * sizeof *g->seen);
  if (!g) return NULL;
  g->content = content;
  g->root = content->root;
  g->root.header.term = term;
  g->root.header.revision = revision;
  g->root.generation = ++c->last_generation;
  return g;
}

static bool check_fence(const struct ips_control *c, const struct ips_image_header *h,
                        struct ips_load_status *st) {
  bool is_older = h->term < c->term || (h->term == c->term && h->revision < c->revision);
  if (is_older) return ips_refuse(st, IPS_LOAD_STALE_TERM, IPS_IN_HEADER, 0);
  if (h->flags & IPS_IMAGE_DELTA && (!c->live || h->base_generation != c->live->root.generation))
    return ips_refuse(st, IPS_LOAD_STALE_BASE, IPS_IN_HEADER, 0);
  return true;
}

uint64_t ips_tables_prepare(struct ips_tables *t, const void *bytes, size_t n, struct ips_load_status *st) {
  struct ips_control *c = t->control;
  struct ips_image image;
  struct ips_content *content = NULL;
  *st = (struct ips_load_status){0};
  ips_tables_abort(t);
  sweep_cells(c);
  if (ips_image_open(&c->mem, bytes, n, &image, st) && check_fence(c, &image.header, st) &&
      ips_image_check(&c->mem, &image, st))
    content = ips_build(&c->mem, &c->cells, &image, c->live ? c->live->content : NULL, st);
  ips_image_close(&c->mem, &image);
  if (!content) return 0;
  if (!c->cells.sweep_at)
    ips_cells_sweep_later(&c->cells, c->cells.top); /* the first leaves nothing behind */
  c->prepared = gen_new(t, content, image.header.term, image.header.revision);
  if (c->prepared) return c->prepared->root.generation;
  ips_content_drop(&c->mem, content);
  ips_refuse(st, IPS_LOAD_NO_MEMORY, IPS_IN_HEADER, 0);
  return 0;
}

void ips_tables_abort(struct ips_tables *t) {
  ips_gen_free(t->control, t->control->prepared);
  t->control->prepared = NULL;
  t->control->cells.n_fresh = 0;
}

static void publish(struct ips_tables *t, struct ips_gen *g) {
  struct ips_control *c = t->control;
  struct ips_gen *before = c->previous;
  atomic_store_explicit(&t->live, &g->root, memory_order_seq_cst);
  c->previous = c->live;
  c->live = g;
  ips_retire(t, before);
}

int ips_tables_commit(struct ips_tables *t, uint64_t generation) {
  struct ips_control *c = t->control;
  if (generation == 0) return -1;
  if (c->live && c->live->root.generation == generation) return 0;
  if (!c->prepared || c->prepared->root.generation != generation) return -1;
  struct ips_gen *g = c->prepared;
  c->prepared = NULL;
  c->cells.n_fresh = 0;
  c->term = g->root.header.term;
  c->revision = g->root.header.revision;
  publish(t, g);
  return 0;
}

uint64_t ips_tables_rollback(struct ips_tables *t) {
  struct ips_control *c = t->control;
  struct ips_gen *g = c->previous ? gen_new(t, c->previous->content, c->term, c->revision) : NULL;
  if (!g) return 0;
  g->content->refs++;
  ips_tables_abort(t); /* it was made for what is now going */
  publish(t, g);
  return g->root.generation;
}

/* ---- read out ---- */

/* Everything of the header that says what the node does; sizes and counts follow from the records, numbers
 * are its name. `flags` of a generation's header are without DELTA. */
static uint64_t settings_digest(const struct ips_image_header *h) {
  struct ips_digest_state d;
  ips_digest_begin(&d);
  ips_digest_add(&d, &h->flags, sizeof h->flags);
  ips_digest_add(&d, &h->roles, sizeof *h - offsetof(struct ips_image_header, roles));
  return ips_digest_end(&d);
}

void ips_tables_info(const struct ips_tables *t, struct ips_tables_info *out) {
  const struct ips_control *c = t->control;
  *out = (struct ips_tables_info){.bytes = c->mem.bytes};
  if (c->previous) out->previous = c->previous->root.generation;
  if (c->prepared) out->prepared = c->prepared->root.generation;
  if (!c->live) return;
  const struct ips_image_header *h = &c->live->root.header;
  out->generation = c->live->root.generation;
  out->term = h->term, out->revision = h->revision;
  out->digest = ips_content_digest(c->live->content);
  out->settings = settings_digest(h);
  out->n_networks = h->n_networks, out->n_endpoints = h->n_endpoints, out->n_policies = h->n_policies;
  out->n_members = h->n_members, out->n_peers = h->n_peers, out->n_bindings = h->n_bindings, out->roles = h->roles;
}

size_t ips_tables_dump(const struct ips_tables *t, void *out, size_t room) {
  if (!t->control->live) return 0;
  struct ips_content *content = t->control->live->content;
  struct ips_image_header h = t->control->live->root.header;
  h.digest = ips_content_digest(content);
  if (room < h.total_bytes) return h.total_bytes;
  uint8_t *at = out;
  memcpy(at, &h, sizeof h), at += sizeof h;
  memcpy(at, content->sections, content->section_bytes), at += content->section_bytes;
  for (uint32_t i = 0; i < content->records.n_chunks; i++) {
    size_t n = content->records.chunks[i].n * sizeof(struct ips_binding_rec);
    memcpy(at, content->records.chunks[i].at, n), at += n;
  }
  return h.total_bytes;
}
