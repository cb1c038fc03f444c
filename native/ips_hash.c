/* ips_hash.c: a hash whose pages are shared between generations.
 *
 * The upper bits of a key's hash choose the page, the lower ones a bucket in it;
 * a full bucket overflows into the next of the same page, so that a change
 * touches one page. A table doubles its pages at three quarters, or when one page
 * is too full. Removal moves later cells back: there are no tombstones.
 */
#include "ips_gen.h"

_Static_assert(sizeof(struct ips_hash_page) <= IPS_PAGE_BYTES, "a hash page is a page");
_Static_assert(sizeof(struct ips_key) * IPS_BUCKET == 64, "a bucket's keys are one cache line");

enum {
  PAGE_LIMIT = IPS_HASH_CELLS * 7 / 8, MEAN_LIMIT = IPS_HASH_CELLS * 3 / 4, MAX_LENGTHS = 129,
  MAX_PAGES_LOG2 = 22,
};

static bool is_free(struct ips_key k) { return (k.hi | k.lo) == 0; }
static bool is_full(const struct ips_hash_page *p, uint32_t bucket) {
  return !is_free(p->keys[bucket * IPS_BUCKET + IPS_BUCKET - 1]);
}
static uint32_t after(uint32_t bucket) { return bucket + 1 == IPS_BUCKETS ? 0 : bucket + 1; }

static bool init(struct ips_mem *m, struct ips_hash *t, unsigned prefix_len, unsigned log2_pages) {
  ips_u128 mask = ips_mask(prefix_len);
  *t = (struct ips_hash){.mask_hi = ips_hi(mask), .mask_lo = ips_lo(mask), .prefix_len = (uint8_t)prefix_len,
                         .shift = (uint8_t)(63 - log2_pages)};
  t->pages = ips_alloc(m, ips_hash_pages(t) * sizeof *t->pages);
  for (uint32_t i = 0; t->pages && i < ips_hash_pages(t); i++)
    t->pages[i] = (void *)(uintptr_t)ips_empty_page;
  return t->pages;
}

static void drop(struct ips_mem *m, struct ips_hash *t) {
  for (uint32_t i = 0; t->pages && i < ips_hash_pages(t); i++) ips_page_drop(m, t->pages[i]);
  ips_release(m, t->pages);
  t->pages = NULL;
  ips_dense_drop(m, &t->dense);
}

/* Cell of the key, or of the free cell where it belongs. The page has a free cell. */
static uint32_t locate(const struct ips_hash_page *page, uint64_t hash, struct ips_key key) {
  for (uint32_t b = ips_bucket_of(hash);; b = after(b))
    for (uint32_t i = b * IPS_BUCKET; i < (b + 1) * IPS_BUCKET; i++)
      if (is_free(page->keys[i]) || (page->keys[i].hi == key.hi && page->keys[i].lo == key.lo)) return i;
}

enum placing { PLACED, NO_ROOM, NO_MEMORY };

static enum placing place(struct ips_mem *m, struct ips_hash *t, struct ips_key key,
                          struct ips_value **value) {
  uint64_t hash = ips_hash_of(key.hi, key.lo);
  struct ips_hash_page **at = &t->pages[(hash >> 1) >> t->shift], *page = ips_page_own(m, *at);
  if (!page) return NO_MEMORY;
  *at = page;
  uint32_t cell = locate(page, hash, key);
  if (is_free(page->keys[cell])) {
    if (page->used >= PAGE_LIMIT) return NO_ROOM;
    page->keys[cell] = key;
    page->values[cell] = (struct ips_value){0};
    page->used++;
    t->count++;
  }
  *value = page->values + cell;
  return PLACED;
}

static bool rebuild(struct ips_mem *m, struct ips_hash *t, unsigned log2_pages) {
  struct ips_hash wider;
  struct ips_value *v;
  enum placing result = PLACED;
  if (log2_pages > MAX_PAGES_LOG2 || !init(m, &wider, t->prefix_len, log2_pages)) return false;
  for (uint32_t i = 0; i < ips_hash_pages(t) && result == PLACED; i++)
    for (uint32_t c = 0; c < IPS_HASH_CELLS && result == PLACED; c++)
      if (!is_free(t->pages[i]->keys[c]) && (result = place(m, &wider, t->pages[i]->keys[c], &v)) == PLACED)
        *v = t->pages[i]->values[c];
  if (result != PLACED) {
    drop(m, &wider);
    return result == NO_ROOM && rebuild(m, t, log2_pages + 1);
  }
  wider.dense = t->dense;
  t->dense = (struct ips_dense){0};
  drop(m, t);
  *t = wider;
  return true;
}

struct ips_value *ips_hash_put(struct ips_mem *m, struct ips_hash *t, ips_u128 key) {
  struct ips_key k = {ips_hi(key), ips_lo(key)};
  struct ips_value *v = NULL;
  t->dense.changes++;
  if (t->count >= (uint64_t)MEAN_LIMIT * ips_hash_pages(t) && !rebuild(m, t, 64u - t->shift)) return NULL;
  for (;;) switch (place(m, t, k, &v)) {
      case PLACED: return v;
      case NO_MEMORY: return NULL;
      case NO_ROOM:
        if (!rebuild(m, t, 64u - t->shift)) return NULL;
    }
}

void ips_hash_expect(const struct ips_hash *t, ips_u128 key) {
  uint64_t hash = ips_hash_of(ips_hi(key), ips_lo(key));
  const struct ips_hash_page *page = ips_page_of(t, hash);
  uint32_t bucket = ips_bucket_of(hash) * IPS_BUCKET;
  ips_page_expect(page);
  __builtin_prefetch(page->keys + bucket, 1);
  __builtin_prefetch(page->values + bucket, 1);
  __builtin_prefetch(page->values + bucket + IPS_BUCKET - 1, 1);
  __builtin_prefetch(&page->used, 1);
}

/* The hole at `hole` is filled from the cells behind it that were displaced across it. */
static void close_hole(struct ips_hash_page *page, uint32_t hole) {
  for (;;) {
    uint32_t bucket = hole / IPS_BUCKET, last = bucket * IPS_BUCKET + IPS_BUCKET - 1;
    bool was_full = !is_free(page->keys[last]);
    while (last > hole && is_free(page->keys[last])) last--;
    page->keys[hole] = page->keys[last], page->values[hole] = page->values[last];
    page->keys[last] = (struct ips_key){0, 0}, page->values[last] = (struct ips_value){0};
    if (!was_full) return;
    hole = IPS_HASH_CELLS;
    for (uint32_t b = after(bucket); hole == IPS_HASH_CELLS; b = after(b)) {
      for (uint32_t i = b * IPS_BUCKET; i < (b + 1) * IPS_BUCKET && !is_free(page->keys[i]); i++) {
        uint32_t home = ips_bucket_of(ips_hash_of(page->keys[i].hi, page->keys[i].lo));
        uint32_t walked = (b + IPS_BUCKETS - home) % IPS_BUCKETS,
                 back = (b + IPS_BUCKETS - bucket) % IPS_BUCKETS;
        if (walked < back) continue;
        page->keys[last] = page->keys[i], page->values[last] = page->values[i];
        hole = i;
        break;
      }
      if (hole == IPS_HASH_CELLS && !is_full(page, b)) return;
    }
  }
}

bool ips_hash_remove(struct ips_mem *m, struct ips_hash *t, ips_u128 key) {
  struct ips_key k = {ips_hi(key), ips_lo(key)};
  if (!t || !ips_hash_find(t, k.hi, k.lo)) return true;
  uint64_t hash = ips_hash_of(k.hi, k.lo);
  struct ips_hash_page **at = &t->pages[(hash >> 1) >> t->shift], *page = ips_page_own(m, *at);
  if (!page) return false;
  *at = page;
  close_hole(page, locate(page, hash, k));
  page->used--;
  t->count--;
  if (page->used == 0) {
    ips_page_drop(m, page);
    *at = (void *)(uintptr_t)ips_empty_page;
  }
  t->dense.changes++;
  return ips_dense_mend(m, t, key);
}

/* ---- one table for each prefix length ---- */

bool ips_lpm_copy(struct ips_mem *m, struct ips_lpm *out, const struct ips_lpm *from) {
  *out = (struct ips_lpm){.tables = ips_alloc(m, MAX_LENGTHS * sizeof *out->tables)};
  if (!out->tables) return false;
  for (uint32_t i = 0; from && i < from->n; i++) {
    struct ips_hash *t = out->tables + i;
    *t = from->tables[i];
    t->dense = (struct ips_dense){0};
    t->pages = ips_alloc(m, ips_hash_pages(t) * sizeof *t->pages);
    if (!t->pages) return false;
    out->n++;
    for (uint32_t p = 0; p < ips_hash_pages(t); p++) t->pages[p] = ips_page_ref(from->tables[i].pages[p]);
    if (!ips_dense_copy(m, &t->dense, &from->tables[i].dense)) return false;
  }
  return true;
}

void ips_lpm_drop(struct ips_mem *m, struct ips_lpm *s) {
  for (uint32_t i = 0; i < s->n; i++) drop(m, s->tables + i);
  ips_release(m, s->tables);
  *s = (struct ips_lpm){0};
}

struct ips_hash *ips_lpm_table(const struct ips_lpm *s, unsigned prefix_len) {
  for (uint32_t i = 0; i < s->n; i++)
    if (s->tables[i].prefix_len == prefix_len) return s->tables + i;
  return NULL;
}

struct ips_hash *ips_lpm_add(struct ips_mem *m, struct ips_lpm *s, unsigned prefix_len, uint32_t expected) {
  struct ips_hash *t = ips_lpm_table(s, prefix_len), made;
  if (t) return t;
  unsigned log2_pages = 0;
  while (log2_pages < MAX_PAGES_LOG2 && (uint64_t)MEAN_LIMIT << log2_pages < expected) log2_pages++;
  if (!init(m, &made, prefix_len, log2_pages)) return NULL;
  uint32_t i = s->n++;
  for (; i > 0 && s->tables[i - 1].prefix_len < prefix_len; i--) s->tables[i] = s->tables[i - 1];
  s->tables[i] = made;
  return s->tables + i;
}

void ips_lpm_trim(struct ips_mem *m, struct ips_lpm *s) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < s->n; i++)
    if (s->tables[i].count)
      s->tables[kept++] = s->tables[i];
    else
      drop(m, s->tables + i);
  s->n = kept;
}
