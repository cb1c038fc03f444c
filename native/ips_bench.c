/* ips_bench.c: the loops that `ipshare bench` times, in C so that Python is not part of the figure.
 *
 * A translated packet must be made new before it can be translated again; so each
 * round copies the packets into a working area and describes each by a struct ips_pkt, and
 * ips_bench_packets(w = NULL) times that alone.
 * Time is this thread's processor time: waiting for a core is no cost of a packet. The places of the
 * working area differ modulo a page, or all packets would fight for the same few lines of the nearest cache.
 */
#include "ips_core.h"
#include <stdlib.h>
#include <time.h>

enum { FRAME = 256, ROOM = 2048 + 64, BEFORE = 128 };

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint64_t ips_bench_clock(uint32_t additions) {
  uint64_t begin = now_ns(), x = 0;
  for (uint64_t i = 0; i < additions; i += 8)
    for (unsigned k = 0; k < 8; k++) { /* is unrolled; the barrier keeps it from becoming one addition of 8 */
      x++;
      __asm__ volatile("" : "+r"(x));
    }
  return now_ns() - begin;
}

static bool all_fit(const uint16_t *lengths, uint32_t n, uint32_t stride) {
  for (uint32_t i = 0; i < n; i++)
    if (lengths[i] > stride) return false;
  return true;
}

static inline void look_ahead(const struct ips_worker *w, int side, const uint8_t *work,
                              const uint16_t *lengths, uint32_t i, uint32_t m, uint32_t ahead) {
  uint32_t far = i + ahead, near = i + ahead / 2;
  if (far < m) ips_prefetch(w, side, work + (size_t)far * ROOM + BEFORE, lengths[far], IPS_PREFETCH_FIRST);
  if (near < m)
    ips_prefetch(w, side, work + (size_t)near * ROOM + BEFORE, lengths[near], IPS_PREFETCH_SECOND);
}

uint64_t ips_bench_packets(struct ips_worker *w, int side, const uint8_t *packets, uint32_t stride,
                           const uint16_t *lengths, uint32_t n, uint32_t rounds, uint32_t ahead) {
  if (stride > ROOM - BEFORE || !all_fit(lengths, n, stride)) return 0;
  uint8_t *work = aligned_alloc(64, (size_t)FRAME * ROOM);
  if (!work) return 0;
  memset(work, 0, (size_t)FRAME * ROOM);
  uint64_t begin = now_ns(), sum = 0;
  for (uint32_t round = 0; round < rounds; round++) {
    for (uint32_t first = 0; first < n; first += FRAME) {
      uint32_t m = n - first < FRAME ? n - first : FRAME;
      for (uint32_t i = 0; i < m; i++)
        memcpy(work + (size_t)i * ROOM + BEFORE, packets + (size_t)(first + i) * stride, lengths[first + i]);
      if (w) ips_worker_begin(w, begin);
      for (uint32_t i = 0; i < m; i++) {
        if (ahead && w) look_ahead(w, side, work, lengths + first, i, m, ahead);
        struct ips_pkt p = {.data = work + (size_t)i * ROOM + BEFORE, .len = lengths[first + i],
                            .total_len = lengths[first + i], .headroom = BEFORE};
        __asm__ volatile("" : : "r"(&p) : "memory"); /* made in memory, with the core and without */
        if (w) sum += (uint64_t)(side == 0 ? ips_outer(w, &p) : ips_inner(w, &p));
      }
      if (w) ips_worker_end(w);
    }
  }
  uint64_t took = now_ns() - begin;
  __asm__ volatile("" : : "r"(sum)); /* the result is used: the loop stays */
  free(work);
  return took;
}
