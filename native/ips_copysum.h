/* ips_copysum.h: copies bytes and adds up their Internet checksum in the same pass (RFC 1071).
 *
 * The loop is written so that compilers vectorise it: 32-bit words into 64-bit lanes, which
 * cannot overflow for anything that fits into a packet. Sums are over native words, the
 * result is folded and stored as it is: byte order cancels (RFC 1071 2(B)).
 */
#ifndef IPS_COPYSUM_H
#define IPS_COPYSUM_H
#include "ips_core.h"

/* Unfolded sum of the n bytes; an odd last byte counts as if a zero followed. */
static inline uint64_t ips_copy_sum(uint8_t *restrict to, const uint8_t *restrict from, size_t n) {
  uint64_t sum = 0;
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    uint32_t word = ips_ld32(from + i);
    ips_st32(to + i, word);
    sum += word;
  }
  if (i < n) {
    uint32_t word = 0;
    memcpy(&word, from + i, n - i);
    memcpy(to + i, from + i, n - i);
    sum += word;
  }
  return sum;
}
#endif
