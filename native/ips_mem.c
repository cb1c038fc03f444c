/* ips_mem.c: counted allocation; 32 kB pages with reference counts, cut from 2 MB slabs.
 *
 * Slabs are aligned for huge pages: a million bindings then need tens of TLB entries
 * instead of thousands. Pages are 64 bytes apart from being aligned to
 * their size, so that the same offset in many pages does not fall into one cache set.
 * Under a sanitizer each page is an allocation of its own, so that it is watched.
 */
#include "ips_mem.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define WATCHED 1
#endif
#endif

enum { SLAB_BYTES = 2 << 20, LINE = 64, STRIDE = IPS_PAGE_BYTES + LINE, SLAB_PAGES = SLAB_BYTES / STRIDE };

struct page_head { /* the line before a page */
  uint32_t refs;
  struct ips_slab *slab;
  struct page_head *next_free;
};
struct ips_slab { /* in the tail that pages leave over */
  struct ips_slab *next, **at;
  struct page_head *free;
  uint32_t used, fresh; /* pages handed out; pages never handed out begin at `fresh` */
};
_Static_assert(SLAB_PAGES * STRIDE + sizeof(struct ips_slab) <= SLAB_BYTES,
               "a slab has room for its own head");
_Static_assert(sizeof(struct page_head) <= LINE, "a page's head is one line");

const uint64_t ips_empty_page[IPS_PAGE_BYTES / 8] __attribute__((aligned(64)));

void ips_mem_init(struct ips_mem *m) { *m = (struct ips_mem){.fail_after = -1}; }

static bool refused(struct ips_mem *m) {
  if (m->fail_after < 0) return false;
  return m->fail_after == 0 || m->fail_after-- == 0;
}

/* ---- blocks: a line with the size stands before each ---- */

void *ips_alloc(struct ips_mem *m, size_t bytes) {
  if (bytes > SIZE_MAX / 2 || refused(m)) return NULL;
  size_t whole = (bytes + 2 * LINE - 1) / LINE * LINE;
  char *p = aligned_alloc(LINE, whole);
  if (!p) return NULL;
  memset(p, 0, whole);
  *(size_t *)p = whole;
  m->bytes += whole;
  return p + LINE;
}

void *ips_alloc_grow(struct ips_mem *m, void *old, size_t bytes) {
  void *p = ips_alloc(m, bytes);
  if (!p || !old) return p;
  size_t had = *(size_t *)((char *)old - LINE) - LINE;
  memcpy(p, old, had < bytes ? had : bytes);
  ips_release(m, old);
  return p;
}

void ips_release(struct ips_mem *m, void *p) {
  if (!p) return;
  char *block = (char *)p - LINE;
  m->bytes -= *(size_t *)block;
  free(block);
}

/* ---- pages ---- */

static struct page_head *head_of(const void *page) {
  return (struct page_head *)((char *)(uintptr_t)page - LINE);
}

#ifdef WATCHED
static struct page_head *take_page(struct ips_mem *m) {
  (void)m;
  return aligned_alloc(LINE, STRIDE);
}
static void give_page(struct ips_mem *m, struct page_head *h) {
  (void)m;
  free(h);
}
void ips_mem_close(struct ips_mem *m) { (void)m; }
#else
static struct ips_slab *slab_new(void) {
  char *raw = mmap(NULL, 2 * SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return NULL;
  char *base = (char *)(((uintptr_t)raw + SLAB_BYTES - 1) & ~(uintptr_t)(SLAB_BYTES - 1));
  if (base > raw) munmap(raw, (size_t)(base - raw));
  munmap(base + SLAB_BYTES, (size_t)(raw + SLAB_BYTES - base));
  madvise(base, SLAB_BYTES, MADV_HUGEPAGE); /* a kernel without it only makes lookups slower */
  return (struct ips_slab *)(base + SLAB_BYTES - sizeof(struct ips_slab));
}

static char *slab_base(struct ips_slab *s) { return (char *)s + sizeof *s - SLAB_BYTES; }

static void slab_link(struct ips_mem *m, struct ips_slab *s) { /* the list holds slabs with a free page */
  s->next = m->slabs;
  s->at = &m->slabs;
  if (s->next) s->next->at = &s->next;
  m->slabs = s;
}

static void slab_unlink(struct ips_slab *s) {
  *s->at = s->next;
  if (s->next) s->next->at = s->at;
}

static struct page_head *take_page(struct ips_mem *m) {
  struct ips_slab *s = m->slabs;
  if (!s) {
    if (!(s = slab_new())) return NULL;
    s->free = NULL;
    s->used = s->fresh = 0;
    slab_link(m, s);
  }
  struct page_head *h = s->free;
  if (h)
    s->free = h->next_free;
  else
    h = (struct page_head *)(slab_base(s) + (size_t)s->fresh++ * STRIDE);
  h->slab = s;
  if (++s->used == SLAB_PAGES) slab_unlink(s);
  return h;
}

static void give_page(struct ips_mem *m, struct page_head *h) {
  struct ips_slab *s = h->slab;
  h->next_free = s->free;
  s->free = h;
  if (s->used-- == SLAB_PAGES) slab_link(m, s);
  if (s->used || (m->slabs == s && !s->next)) return; /* the last one with room is kept for the next change */
  slab_unlink(s);
  munmap(slab_base(s), SLAB_BYTES);
}

void ips_mem_close(struct ips_mem *m) {
  for (struct ips_slab *s = m->slabs, *next; s; s = next) {
    next = s->next;
    munmap(slab_base(s), SLAB_BYTES);
  }
  m->slabs = NULL;
}
#endif

void *ips_page_new(struct ips_mem *m, const void *copy_of) {
  struct page_head *h = refused(m) ? NULL : take_page(m);
  if (!h) return NULL;
  char *page = (char *)h + LINE;
  h->refs = 1;
  m->bytes += STRIDE;
  if (copy_of)
    memcpy(page, copy_of, IPS_PAGE_BYTES);
  else
    memset(page, 0, IPS_PAGE_BYTES);
  return page;
}

void *ips_page_ref(void *page) {
  if (page != (const void *)ips_empty_page) head_of(page)->refs++;
  return page;
}

void ips_page_expect(const void *page) { __builtin_prefetch(head_of(page), 1); }

void ips_page_drop(struct ips_mem *m, void *page) {
  if (!page || page == (const void *)ips_empty_page || --head_of(page)->refs) return;
  m->bytes -= STRIDE;
  give_page(m, head_of(page));
}

void *ips_page_own(struct ips_mem *m, void *page) {
  if (page == (const void *)ips_empty_page) return ips_page_new(m, NULL);
  if (head_of(page)->refs == 1) return page;
  void *copy = ips_page_new(m, page);
  if (copy) head_of(page)->refs--;
  return copy;
}
