/* csum_exhaustive.c: the incremental checksum against plain arithmetic modulo 65,535, for all
 * 65,536 fields x a set of deltas (with the argument "all": every delta, about a minute).
 *
 * Proves what ips_csum.h claims: a right sum stays right and a wrong one as wrong as it was; every
 * field comes back, but for 0xffff with a delta other than 0 where 0x0000 and 0xffff mean the
 * same. The wide forms (fold, 32 and 128 bits, byte strings at every
 * length and alignment) are compared with loops over words. Silent and 0 if all holds.
 */
#include "ips_csum.h"
#include <stdio.h>
#include <stdlib.h>

static unsigned long checks;

static void require(bool holds, const char *what, unsigned long a, unsigned long b) {
  checks++;
  if (holds) return;
  fprintf(stderr, "%s fails for 0x%lx, 0x%lx\n", what, a, b);
  exit(1);
}

/* The sum that a field claims, plus the delta, as one of 65,535 classes. */
static unsigned claimed(unsigned field, unsigned delta) { return (65535 - field + delta) % 65535; }

static void one_way(unsigned field, unsigned delta) {
  unsigned sum = claimed(field, delta), plain = ips_csum_mend((uint16_t)field, (uint16_t)delta);
  require(plain == (delta ? 65535 - (sum ? sum : 65535) : field), "mend", field, delta);
  unsigned none = ips_csum_mend_zero((uint16_t)field, (uint16_t)delta);
  require(none == (field ? delta ? 65535 - sum : field : 0), "mend_zero", field, delta);
  unsigned total = (field + delta) % 65535, partial = ips_csum_mend_partial((uint16_t)field, (uint16_t)delta);
  require(partial == (delta ? total ? total : 65535 : field), "mend_partial", field, delta);
}

static void there_and_back(unsigned field, unsigned delta) {
  uint16_t f = (uint16_t)field, d = (uint16_t)delta, back = (uint16_t)((65535 - delta) % 65535);
  unsigned plain = ips_csum_mend(ips_csum_mend(f, d), back);
  require(plain == (field == 0xffff && delta ? 0 : field), "mend and back", field, delta);
  require(ips_csum_mend_zero(ips_csum_mend_zero(f, d), back) == field, "mend_zero and back", field, delta);
  unsigned partial = ips_csum_mend_partial(ips_csum_mend_partial(f, d), back);
  require(partial == (field == 0 && delta ? 0xffff : field), "mend_partial and back", field, delta);
}

static bool is_chosen(unsigned delta) {
  bool near_a_power = false;
  for (unsigned power = 1; power <= 0x10000; power *= 2)
    near_a_power |= delta + 2 >= power && delta <= power + 2;
  return near_a_power || delta < 64 || delta > 65535 - 64 || delta % 257 == 0 || delta % 331 == 7;
}

static void fields_and_deltas(bool all) {
  for (unsigned delta = 0; delta < 65535; delta++) {
    if (!all && !is_chosen(delta)) continue;
    for (unsigned field = 0; field < 65536; field++) {
      one_way(field, delta);
      there_and_back(field, delta);
    }
  }
}

static void deltas_of_words(bool all) {
  for (unsigned before = 0; before < 65536; before++) {
    if (!all && !is_chosen(before) && before != 65535) continue;
    for (unsigned after = 0; after < 65536; after++) {
      unsigned delta = ips_csum_delta16((uint16_t)before, (uint16_t)after);
      require(delta == (after + 65535 - before) % 65535, "delta16", before, after);
    }
  }
}

static uint64_t state = 0x9e3779b97f4a7c15;

/* Half of the words are at the edges, where carries and the two zeros are. */
static uint64_t random_words(void) {
  static const uint16_t edges[] = {0, 0xffff, 1, 0xfffe, 0x8000, 0x7fff, 0xff, 0xff00};
  uint64_t words = 0;
  for (int i = 0; i < 4; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    words = words << 16 | (state >> 60 & 1 ? edges[state >> 40 & 7] : state >> 20 & 0xffff);
  }
  return words;
}

static uint64_t plain_sum(const uint8_t *bytes, size_t n) {
  uint64_t sum = 0;
  for (size_t i = 0; i < n; i += 2) {
    uint8_t word[2] = {bytes[i], i + 1 < n ? bytes[i + 1] : 0};
    sum += ips_ld16(word);
  }
  return sum;
}

static void wide_forms(void) {
  for (int i = 0; i < 1000000; i++) {
    uint64_t b[2] = {random_words(), random_words()}, a[2] = {random_words(), random_words()};
    unsigned before = plain_sum((uint8_t *)b, 16) % 65535, after = plain_sum((uint8_t *)a, 16) % 65535;
    require(ips_csum_delta128(b, a) == (after + 65535 - before) % 65535, "delta128", before, after);
    uint32_t old = (uint32_t)b[0], new = (uint32_t)a[0];
    unsigned expected =
      (unsigned)((plain_sum((uint8_t *)&new, 4) + 4 * 65535 - plain_sum((uint8_t *)&old, 4)) % 65535);
    require(ips_csum_delta32(old, new) == expected, "delta32", old, new);
    unsigned fold = ips_csum_fold(b[0]), sum = plain_sum((uint8_t *)b, 8) % 65535;
    require(fold == (b[0] ? sum ? sum : 65535 : 0), "fold", (unsigned long)b[0], fold);
    require(ips_csum_join(expected % 65535, fold % 65535) == (expected + fold) % 65535, "join", expected,
            fold);
  }
}

static void byte_strings(void) {
  uint64_t room[24];
  for (int round = 0; round < 40; round++) {
    for (int i = 0; i < 24; i++) room[i] = random_words();
    for (unsigned at = 0; at < 8; at++) {
      for (unsigned n = 0; n <= 160; n++) {
        const uint8_t *bytes = (const uint8_t *)room + at;
        uint64_t plain = plain_sum(bytes, n);
        unsigned fold = ips_csum_fold(ips_csum_bytes(bytes, n, 0)), sum = plain % 65535;
        require(fold == (plain ? sum ? sum : 65535 : 0), "bytes", at, n);
        if (n % 2 == 0) {
          uint64_t split = ips_csum_bytes(bytes + n, 9, ips_csum_bytes(bytes, n, 0));
          require(ips_csum_fold(split) == ips_csum_fold(ips_csum_bytes(bytes, n + 9, 0)), "split", at, n);
        }
      }
    }
  }
}

int main(int argc, char **argv) {
  bool all = argc > 1 && !strcmp(argv[1], "all");
  fields_and_deltas(all);
  deltas_of_words(all);
  wide_forms();
  byte_strings();
  printf("%lu checks\n", checks);
  return checks < 100000000; /* a loop that ran empty proves nothing */
}
