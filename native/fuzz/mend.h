/* mend.h: makes the sums of a fuzzed packet true, so that mutation gets past them.
 * Written apart from the code under test, byte by byte. */
#ifndef FUZZ_MEND_H
#define FUZZ_MEND_H
#include "../tests/check.h"
#include "ips_core.h"

static inline uint32_t mend_sum(const uint8_t *b, size_t n, uint32_t sum) {
  for (size_t i = 0; i < n; i++) sum += i % 2 ? b[i] : (uint32_t)b[i] << 8;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

static inline void mend_put(uint8_t *field, uint32_t sum) {
  field[0] = (uint8_t)(~sum >> 8);
  field[1] = (uint8_t)~sum;
}

static inline void mend_ip4(uint8_t *b, size_t n) {
  size_t header = n ? (b[0] & 15u) * 4 : 0;
  if (n < 20 || b[0] >> 4 != 4 || header < 20 || header > n) return;
  b[10] = b[11] = 0;
  mend_put(b + 10, mend_sum(b, header, 0));
}

/* Length field and transport checksum (at `field`) of a packet without options or extensions. */
static inline void mend_l4(uint8_t *b, size_t n, size_t field) {
  size_t header = n && b[0] >> 4 == 4 ? 20 : 40, from = header == 20 ? 12 : 8;
  if (n < header + field + 2 || (header == 40 && b[0] >> 4 != 6)) return;
  size_t l4 = n - header;
  if (header == 20) {
    b[0] = 0x45;
    b[2] = (uint8_t)(n >> 8);
    b[3] = (uint8_t)n;
  } else {
    b[4] = (uint8_t)(l4 >> 8);
    b[5] = (uint8_t)l4;
  }
  uint32_t pseudo = header == 20 && b[9] == IPS_PROTO_ICMP ? 0
                    : mend_sum(b + from, header == 20 ? 8 : 32, (uint32_t)l4 + b[header == 20 ? 9 : 6]);
  b[header + field] = b[header + field + 1] = 0;
  mend_put(b + header + field, mend_sum(b + header, l4, pseudo));
  mend_ip4(b, n);
}

static inline struct ips_pkt mend_packet(uint8_t **memory, uint16_t headroom, const uint8_t *data, size_t n) {
  *memory = malloc(headroom + n);
  memcpy(*memory + headroom, data, n);
  return (struct ips_pkt){.data = *memory + headroom, .len = (uint32_t)n, .total_len = (uint32_t)n,
                          .headroom = headroom};
}
#endif
