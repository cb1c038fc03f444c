/* ips_session_memory.c: the large arrays of the session table: taken once, touched at once.
 *
 * Every page is written here, so that no packet meets the first touch of a page, and a machine that has
 * too little memory says so when the table is made and not a day later.
 */
#include "ips_chain.h"
#include <sys/mman.h>

enum { SMALL_PAGE = 4096 };

void *ips_memory_new(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
  madvise(p, bytes, MADV_HUGEPAGE); /* a kernel without it only makes look-ups slower */
  for (size_t i = 0; i < bytes; i += SMALL_PAGE) ((volatile uint8_t *)p)[i] = 0;
  return p;
}

void ips_memory_free(void *p, size_t bytes) {
  if (p) munmap(p, bytes);
}
