/* ips_ports.c: taking and giving back public ports (contract in ips_ports.h). */
#include "ips_ports.h"

static uint64_t *word_of(struct ips_port_set *s, unsigned proto, uint16_t port, uint64_t *bit) {
  int class = ips_port_class(proto);
  unsigned at = class < 0 ? proto & 255 : port;
  *bit = 1ull << (at & 63);
  return class < 0 ? &s->whole[at / 64] : &s->bits[class][at / 64];
}

bool ips_ports_claim(struct ips_port_set *s, unsigned proto, uint16_t port) {
  uint64_t bit, *word = word_of(s, proto, port, &bit);
  if (__atomic_fetch_or(word, bit, __ATOMIC_ACQ_REL) & bit) return false;
  int class = ips_port_class(proto);
  if (class >= 0) ips_add(s->used[class], 1);
  return true;
}

void ips_ports_give(struct ips_port_set *s, unsigned proto, uint16_t port) {
  uint64_t bit, *word = word_of(s, proto, port, &bit);
  int class = ips_port_class(proto);
  __atomic_fetch_and(word, ~bit, __ATOMIC_ACQ_REL);
  if (class >= 0) ips_add(s->used[class], -1);
}

/* The bits of `word` that belong to ports first .. last. */
static uint64_t within(unsigned word, unsigned first, unsigned last) {
  uint64_t mask = ~0ull;
  if (word == first / 64) mask &= ~0ull << (first & 63);
  if (word == last / 64) mask &= ~0ull >> (63 - (last & 63));
  return mask;
}

uint32_t ips_ports_take(struct ips_port_set *s, unsigned proto, uint16_t least, uint16_t most,
                        uint64_t random) {
  int class = ips_port_class(proto);
  if (class < 0) return ips_ports_claim(s, proto, 0);
  unsigned first = least ? least : class == 2 ? 1 : ips_peek(s->first);
  unsigned last = most ? most : class == 2 ? 65535 : ips_peek(s->last);
  if (last < first) return 0; /* both are changing now */
  unsigned n = last - first + 1;
  if (!least && ips_peek(s->used[class]) >= n) return 0;
  unsigned start = first + (unsigned)((random & UINT32_MAX) * n >> 32), words = last / 64 - first / 64 + 1;
  for (unsigned i = 0; i <= words;
       i++) { /* the word it began in comes again at the end, then with all its bits */
    unsigned word = first / 64 + (start / 64 - first / 64 + i) % words;
    uint64_t *at = &s->bits[class][word], mask = within(word, first, last);
    if (i == 0) mask &= ~0ull << (start & 63);
    for (uint64_t free; (free = ~ips_peek(*at) & mask);) {
      unsigned port = word * 64 + (unsigned)__builtin_ctzll(free);
      if (ips_ports_claim(s, proto, (uint16_t)port)) return port;
    }
  }
  return 0;
}

uint32_t ips_ports_used(const struct ips_port_set *s) {
  uint32_t n = 0;
  for (unsigned i = 0; i < IPS_PORT_CLASSES; i++) n += ips_peek(s->used[i]);
  for (unsigned i = 0; i < 4; i++) n += (uint32_t)__builtin_popcountll(ips_peek(s->whole[i]));
  return n;
}
