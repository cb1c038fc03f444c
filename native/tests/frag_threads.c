/* frag_threads.c: two workers share one fragment table: every fragment of every datagram arrives in
 * random order at a random worker, and none is lost or doubled. Built with SAN=thread it also
 * shows that there is no data race.
 */
#include "ips_frag.h"
#include "ips_parse.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORKERS = 2, IDS = 4000, PIECES = 5, IN_FLIGHT = 8 };

static struct ips_frag_table *table;
static uint32_t seen[IDS][PIECES];
static uint32_t wrong;

static uint32_t build(uint8_t *b, uint32_t id, uint32_t piece) {
  memset(b, 0, 20);
  memset(b + 20, (int)(id & 0xff), 64);
  b[0] = 0x45;
  b[3] = 84;
  ips_st16(b + 4, ips_be16((uint16_t)id));
  ips_st16(b + 6, ips_be16((uint16_t)((piece < PIECES - 1 ? 0x2000 : 0) | piece * 8)));
  b[8] = 64;
  b[9] = IPS_PROTO_UDP;
  memcpy(b + 12, "\xc0\0\2\1\xc0\0\2\2", 8);
  ips_st16(b + 10, (uint16_t)~ips_csum_fold(ips_csum_bytes(b, 20, 0)));
  if (piece == 0) ips_st16(b + 20, ips_be16((uint16_t)(id + 1)));
  return 84;
}

static void arrived(const struct ips_pkt *p, const struct ips_view *v) {
  __atomic_fetch_add(&seen[v->frag_id][v->fragment_at / 64], 1, __ATOMIC_RELAXED);
  for (uint32_t i = v->fragment_at ? 20 : 22; i < p->len; i++)
    if (p->data[i] != (uint8_t)v->frag_id) __atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
}

static void emitted(void *arg, struct ips_pkt *p) {
  struct ips_view v;
  (void)arg;
  if (ips_parse(p, &v) == IPS_OK) arrived(p, &v);
}

static void one(uint32_t id, uint32_t piece) {
  uint8_t bytes[84];
  struct ips_pkt p = {.data = bytes, .len = build(bytes, id, piece), .total_len = sizeof bytes};
  struct ips_view v;
  struct ips_frag_flow flow;
  if (ips_parse(&p, &v) != IPS_OK) abort();
  int verdict = ips_frag_ports(table, &p, &v, 1, &flow);
  if (verdict == IPS_HELD) return;
  if (verdict != IPS_OK) {
    __atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
    return;
  }
  if (flow.src_port != (uint16_t)(id + 1)) __atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
  if (piece == 0) ips_frag_learn(table, &p, &v, 1, &flow, emitted, NULL);
  arrived(&p, &v);
}

/* Both workers go through the same shuffled lists; each takes every second entry. */
static void *work(void *arg) {
  uint32_t worker = *(uint32_t *)arg, random = 12345;
  for (uint32_t base = 0; base < IDS; base += IN_FLIGHT) {
    uint32_t list[IN_FLIGHT * PIECES];
    for (uint32_t i = 0; i < IN_FLIGHT * PIECES; i++) list[i] = i;
    for (uint32_t i = IN_FLIGHT * PIECES - 1; i > 0; i--) {
      random = random * 1664525 + 1013904223;
      uint32_t j = (random >> 8) % (i + 1), keep = list[i];
      list[i] = list[j];
      list[j] = keep;
    }
    for (uint32_t i = worker; i < IN_FLIGHT * PIECES; i += WORKERS)
      one(base + list[i] / PIECES, list[i] % PIECES);
  }
  return NULL;
}

int main(void) {
  table = ips_frag_new(8 * IDS, 16384, 128, 3);
  pthread_t threads[WORKERS];
  uint32_t index[WORKERS];
  for (uint32_t i = 0; i < WORKERS; i++) {
    index[i] = i;
    if (pthread_create(&threads[i], NULL, work, &index[i]) != 0) abort();
  }
  for (uint32_t i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
  for (uint32_t id = 0; id < IDS; id++)
    for (uint32_t piece = 0; piece < PIECES; piece++) wrong += seen[id][piece] != 1;
  struct ips_frag_stats stats;
  ips_frag_stats(table, &stats);
  printf("frag_threads: %u datagrams, %llu fragments held, %u wrong\n", stats.datagrams,
         (unsigned long long)stats.held_total, wrong);
  wrong += stats.held != 0 || stats.released != stats.held_total || stats.full != 0 || stats.held_total == 0;
  ips_frag_free(table);
  return wrong != 0;
}
