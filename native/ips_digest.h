/* ips_digest.h: the digest of an image, also over bytes that come in pieces.
 *
 * Finds damage and tells contents apart; it is not keyed and no defence against an
 * adversary. Four lanes of 64 bits take 32 bytes in turn, as little-endian words:
 * lane = rotate_left(lane ^ word, 29) * odd constant, a bijection of the word and of
 * the lane. The tail is padded with zeros; the length enters at the end.
 */
#ifndef IPS_DIGEST_H
#define IPS_DIGEST_H
#include <stddef.h>
#include <stdint.h>

struct ips_digest_state {
  uint64_t lane[4], total;
  uint8_t rest[32];
  size_t n_rest;
};
void ips_digest_begin(struct ips_digest_state *d);
void ips_digest_add(struct ips_digest_state *d, const void *bytes, size_t n);
uint64_t ips_digest_end(struct ips_digest_state *d);
#endif
