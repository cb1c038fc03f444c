/* ips_bench_sessions.c: the loops that `ipshare bench` times about sessions and port-translating NAT.
 *
 * Processor time of this thread, as in ips_bench.c. Flows are numbered; their addresses and ports are made
 * of the number, so that nothing but the table is measured.
 */
#include "ips_napt_api.h"
#include "ips_core.h"
#include <stdlib.h>
#include <time.h>

enum { FRAME = 256, PLACE = 2048 + 64 };

static uint64_t cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static struct ips_flow flow_number(uint32_t i) {
  struct ips_flow f = {.src_port = (uint16_t)i, .dst_port = 53, .family = 4, .proto = IPS_PROTO_UDP};
  ips_st32(f.src, ips_be32(0x0a000000u + (i >> 14)));
  ips_st32(f.dst, ips_be32(0xc6336401u));
  f.src_port = (uint16_t)(1024 + (i & 0x3fff));
  return f;
}

int ips_bench_sessions(struct ips_sessions *t, uint32_t n, uint32_t rounds, uint64_t *out) {
  const uint64_t now = 1ull << 40;
  uint64_t begin = cpu_ns();
  for (uint32_t i = 0; i < n; i++) {
    struct ips_flow f = flow_number(i);
    if (ips_session_see(t, 0, &f, 0, 0, 64, NULL, now) || ips_session_see(t, 0, &f, 0, 0, 64, NULL, now))
      return -1;
  }
  out[0] = cpu_ns() - begin;
  begin = cpu_ns();
  for (uint32_t k = 0; k < rounds; k++)
    for (uint32_t i = 0; i < n; i++) {
      struct ips_flow f = flow_number(i);
      if (ips_session_see(t, 0, &f, 0, 0, 64, NULL, now)) return -1;
    }
  out[1] = cpu_ns() - begin;
  begin = cpu_ns();
  for (uint32_t i = 0; i < n; i++) {
    struct ips_flow f = flow_number(i);
    ips_sessions_close(t, 0, &f, now);
  }
  out[2] = cpu_ns() - begin;
  return 0;
}

uint64_t ips_bench_napt(struct ips_napt *n, const uint8_t *packets, uint32_t stride, const uint16_t *lengths,
                        uint32_t count, uint32_t rounds, int copy_only, uint64_t now_ns) {
  if (stride > PLACE - 128) return 0;
  for (uint32_t i = 0; i < count; i++)
    if (lengths[i] > stride) return 0;
  uint8_t *work = aligned_alloc(64, (size_t)FRAME * PLACE);
  if (!work) return 0;
  memset(work, 0, (size_t)FRAME * PLACE);
  uint64_t begin = cpu_ns(), sum = 0;
  for (uint32_t round = 0; round < rounds; round++)
    for (uint32_t first = 0; first < count; first += FRAME) {
      uint32_t m = count - first < FRAME ? count - first : FRAME;
      for (uint32_t i = 0; i < m; i++)
        memcpy(work + (size_t)i * PLACE, packets + (size_t)(first + i) * stride, lengths[first + i]);
      for (uint32_t i = 0; i < m; i++) {
        struct ips_pkt p = {
            .data = work + (size_t)i * PLACE, .len = lengths[first + i], .total_len = lengths[first + i]};
        __asm__ volatile("" : : "r"(&p) : "memory"); /* made in memory, with the core and without */
        if (!copy_only) sum += (uint64_t)ips_napt_out(n, &p, 0, now_ns);
      }
    }
  uint64_t took = cpu_ns() - begin;
  __asm__ volatile("" : : "r"(sum)); /* the result is used: the loop stays */
  free(work);
  return took;
}
