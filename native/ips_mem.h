/* ips_mem.h: memory of the tables: counted, refusable, pages shared between generations.
 *
 * Everything a generation is made of comes from here, so that its size can be
 * reported and every allocation can be made to fail in a test. A page is 32 kB
 * of slots, hash cells or records with a reference count; it is written only by
 * the one who holds the only reference. Control thread only: no lock, no atomic.
 */
#ifndef IPS_MEM_H
#define IPS_MEM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IPS_PAGE_BYTES = 32768 };

struct ips_slab;
struct ips_mem {
  size_t bytes;         /* handed out now, pages included */
  long long fail_after; /* allocations that still succeed; negative: all (set by tests) */
  struct ips_slab *slabs;
};

void ips_mem_init(struct ips_mem *m);
void ips_mem_close(struct ips_mem *m); /* everything was released before */

void *ips_alloc(struct ips_mem *m, size_t bytes); /* zeroed, 64-byte aligned; NULL: no memory */
/* Old content is kept, the rest zeroed. NULL: no memory, and `old` stays. */
void *ips_alloc_grow(struct ips_mem *m, void *old, size_t bytes);
void ips_release(struct ips_mem *m, void *p);     /* NULL is fine */

/* The page of zeros that stands for "nothing here"; never written, never counted. */
extern const uint64_t ips_empty_page[IPS_PAGE_BYTES / 8];

void *ips_page_new(struct ips_mem *m, const void *copy_of); /* one reference; copy_of NULL: zeroed */
void *ips_page_ref(void *page);
void ips_page_expect(const void *page); /* asks for the line that ips_page_own reads */
void ips_page_drop(struct ips_mem *m, void *page);
/* A page with the same bytes that the caller may write: itself if nobody else has
 * it, else a copy, and the caller's reference to `page` is given up. NULL: no memory, nothing changed. */
void *ips_page_own(struct ips_mem *m, void *page);
#endif
