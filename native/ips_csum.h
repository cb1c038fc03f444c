/* ips_csum.h: the Internet checksum (RFC 1071) and its incremental update (RFC 1624).
 *
 * All sums are taken over 16-bit words as they lie in memory; ones' complement
 * addition does not care about byte order (RFC 1071 2 B), so nothing is swapped.
 * A delta is what a change of bytes adds to the sum, as 0 .. 0xfffe: the class
 * of zero is written 0, never 0xffff.
 *
 * Coming back (S1.3). mend(mend(F, d), -d) = F holds for every d and every
 * field F, but for F = 0xffff of TCP, DCCP, ICMP and IPv4 where d != 0, which
 * comes back as 0x0000. There it is impossible: 0x0000 and 0xffff are one value
 * of the sum, every other value has one way to be written, so both arrive at one
 * field and cannot be told apart. No sender that computes the sum writes it:
 * a sum over a non-zero word is never 0. UDP and UDP-Lite write 0xffff for it and keep
 * 0 for "none", so all 65,536 fields come back. tests/csum_exhaustive.c proves it.
 */
#ifndef IPS_CSUM_H
#define IPS_CSUM_H
#include "ips_core.h"

/* Ones' complement sum of the two or four words in s. 0 only for s = 0. */
static inline uint16_t ips_csum_fold32(uint32_t s) {
  s += s << 16 | s >> 16; /* upper half: hi + lo + carry of lo + hi */
  return (uint16_t)(s >> 16);
}
static inline uint16_t ips_csum_fold(uint64_t s) {
  s += s << 32 | s >> 32;
  return ips_csum_fold32((uint32_t)(s >> 32));
}

/* a + b with end-around carry. */
static inline uint64_t ips_csum_add(uint64_t a, uint64_t b) {
  a += b;
  return a + (a < b);
}

/* 16-bit sums; 0 only for 0 + 0. */
static inline uint16_t ips_csum_add16(uint16_t a, uint16_t b) {
  a = (uint16_t)(a + b);
  return (uint16_t)(a + (a < b));
}

static inline uint16_t ips_csum_class(uint16_t sum) { return sum == 0xffff ? 0 : sum; }

static inline uint16_t ips_csum_delta16(uint16_t before, uint16_t after) {
  return ips_csum_class(ips_csum_add16(after, (uint16_t)~before));
}
static inline uint16_t ips_csum_delta32(uint32_t before, uint32_t after) {
  uint32_t s = after + ~before;
  return ips_csum_class(ips_csum_fold32(s + (s < after)));
}
/* Of 16 bytes each. */
static inline uint16_t ips_csum_delta128(const void *before, const void *after) {
  const uint8_t *b = before, *a = after;
  uint64_t s = ips_csum_add(ips_csum_add(ips_ld64(a), ips_ld64(a + 8)),
                            ips_csum_add(~ips_ld64(b), ~ips_ld64(b + 8)));
  return ips_csum_class(ips_csum_fold(s));
}
/* Both changes together. */
static inline uint16_t ips_csum_join(uint16_t d, uint16_t e) {
  return ips_csum_class(ips_csum_add16(d, e));
}

/* RFC 1624 eqn. 3: the complemented field after a change of delta. */
static inline uint16_t ips_csum_mend(uint16_t field, uint16_t delta) {
  return (uint16_t)~ips_csum_add16((uint16_t)~field, delta);
}
/* The same where 0 says "no checksum" and a computed 0 is written 0xffff (RFC 768, 3828, 6935). */
static inline uint16_t ips_csum_mend_zero(uint16_t field, uint16_t delta) {
  uint16_t mended = ips_csum_mend(field, delta);
  mended = mended ? mended : 0xffff;
  return field ? mended : 0;
}
/* Of an uncomplemented sum (IPS_CSUM_PARTIAL). */
static inline uint16_t ips_csum_mend_partial(uint16_t field, uint16_t delta) {
  return ips_csum_add16(field, delta);
}

/* Sum of n bytes onto `sum`; a zero is thought behind an odd last one. Complement of its fold = checksum. */
static inline uint64_t ips_csum_bytes(const void *bytes, size_t n, uint64_t sum) {
  const uint8_t *b = bytes;
  for (; n >= 8; n -= 8, b += 8) sum = ips_csum_add(sum, ips_ld64(b));
  uint64_t rest = 0;
  memcpy(&rest, b, n);
  return ips_csum_add(sum, rest);
}

/* Sum of the pseudo header of RFC 793 / RFC 8200 8.1 from the addresses in the IP header. */
static inline uint64_t ips_csum_pseudo(const uint8_t *ip, unsigned family, unsigned proto,
                                       uint32_t l4_bytes) {
  uint64_t sum = (uint64_t)ips_be32(l4_bytes) + ips_be32(proto);
  return family == 4 ? ips_csum_bytes(ip + 12, 8, sum) : ips_csum_bytes(ip + 8, 32, sum);
}

#endif
