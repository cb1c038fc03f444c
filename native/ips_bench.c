/* ips_bench.c: the loops that `ipshare bench` times, in C so that Python is not part of the figure.
 *
 * A translated packet must be made new before it can be translated again; so each
 * round copies the packets into a working area, and ips_bench_packets(w = NULL) times that copying alone.
 */
#include "ips_core.h"
#include <stdlib.h>
#include <time.h>

enum { FRAME = 256, ROOM = 2048, BEFORE = 128 };

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint64_t ips_bench_packets(struct ips_worker *w, int side, const uint8_t *packets, uint32_t stride, const uint16_t *lengths,
                           uint32_t n, uint32_t rounds) {
  if (stride > ROOM - BEFORE) return 0;
  uint8_t *work = aligned_alloc(64, (size_t)FRAME * ROOM);
  if (!work) return 0;
  memset(work, 0, (size_t)FRAME * ROOM);
  uint64_t begin = now_ns(), sum = 0;
  for (uint32_t round = 0; round < rounds; round++) {
    for (uint32_t first = 0; first < n; first += FRAME) {
      uint32_t m = n - first < FRAME ? n - first : FRAME;
      for (uint32_t i = 0; i < m; i++)
        memcpy(work + (size_t)i * ROOM + BEFORE, packets + (size_t)(first + i) * stride, lengths[first + i]);
      if (!w) {
        sum += work[BEFORE];
        continue;
      }
      ips_worker_begin(w, begin);
      for (uint32_t i = 0; i < m; i++) {
        struct ips_pkt p = {.data = work + (size_t)i * ROOM + BEFORE, .len = lengths[first + i],
                            .total_len = lengths[first + i], .headroom = BEFORE};
        sum += (uint64_t)(side == 0 ? ips_outer(w, &p) : ips_inner(w, &p));
      }
      ips_worker_end(w);
    }
  }
  uint64_t took = now_ns() - begin;
  __asm__ volatile("" : : "r"(sum)); /* the result is used: the loop stays */
  free(work);
  return took;
}
