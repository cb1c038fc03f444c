/* pair_model.c: every order of up to FAULTS events within DEPTH steps, on the real pair machine.
 *
 *   pair_model [DEPTH [FAULTS]]      defaults: 10 1
 *
 * From a cold start and from a settled pair; with and without witness; heartbeats and queries; equal clocks
 * and clocks at both ends of the allowed rate error. A state that was reached before with as many faults
 * left is not explored again (64-bit hashes). Claims after every input: pair_world.h. Claims at each leaf:
 * all faults end, then within an interval at most one forwards, and a little later exactly one, for good.
 */
#include "pair_world.h"
#include <stdio.h>
#include <stdlib.h>

enum { MAX_DEPTH = 40 };
static uint64_t *seen, mask, states, leaves, double_active;
static enum event path[MAX_DEPTH];
static int depth = 10, faults = 1;

static uint64_t hash_of(const struct world *w, int left, int at) {
  const uint8_t *p = (const uint8_t *)w;
  uint64_t h = 0x9e3779b97f4a7c15ull * (uint64_t)(left * 64 + at + 1);
  for (size_t i = 0; i + 8 <= sizeof *w; i += 8) {
    h = (h ^ ips_ld64(p + i)) * 0xff51afd7ed558ccdull;
    h ^= h >> 32;
  }
  return h ? h : 1;
}

static bool is_new(uint64_t h) {
  uint64_t i = h & mask;
  for (; seen[i]; i = (i + 1) & mask)
    if (seen[i] == h) return false;
  if (++states > mask / 4 * 3) {
    fprintf(stderr, "pair_model: too many states\n");
    exit(2);
  }
  seen[i] = h;
  return true;
}

static void stop_if_broken(int at, const char *where) {
  if (!broken) return;
  fprintf(stderr, "pair_model: does not hold %s: %s\n  witness %d mode %d rates %d %d; events:",
          where, broken,
          setup.witness, setup.mode, setup.rate[0], setup.rate[1]);
  for (int i = 0; i < at; i++) fprintf(stderr, " %s", event_names[path[i]]);
  fprintf(stderr, "\n");
  exit(1);
}

/* Everything works again. */
static void leaf(const struct world *reached, int at) {
  static struct world w;
  w = *reached;
  heal(&w);
  leaves++;
  for (int i = 0; i < 60; i++) {
    step(&w, EV_NOTHING);
    if (i > 4) CLAIM(!(forwards(&w, 0) && forwards(&w, 1)));
    if (i > 40) CLAIM(forwards(&w, 0) != forwards(&w, 1));
    if (i > 40) CLAIM((w.n[0].m.state == IPS_PAIR_ACTIVE) != (w.n[1].m.state == IPS_PAIR_ACTIVE));
  }
  stop_if_broken(at, "after the heal");
}

static void explore(const struct world *from, int at, int left) {
  if (at == depth || left == 0) {
    leaf(from, at);
    if (at == depth) return;
  }
  for (int e = 0; e < (left ? N_EVENTS : 1); e++) {
    if (e >= EV_WITNESS && !setup.witness) break;
    struct world w = *from;
    path[at] = e;
    step(&w, e);
    double_active += forwards(&w, 0) && forwards(&w, 1);
    stop_if_broken(at + 1, "here");
    int rest = left - (e != EV_NOTHING);
    if (is_new(hash_of(&w, rest, at))) explore(&w, at + 1, rest);
  }
}

int main(int argc, char **argv) {
  if (argc > 1) depth = atoi(argv[1]);
  if (argc > 2) faults = atoi(argv[2]);
  if (depth < 1 || depth > MAX_DEPTH || faults < 0) return 2;
  uint64_t size = 1ull << (faults > 2 ? 26 : 21), total = 0, all_leaves = 0;
  mask = size - 1;
  seen = malloc(size * sizeof *seen);
  if (!seen) return 2;
  const int rates[][2] = {{0, 0}, {90000, -90000}, {-90000, 90000}};
  for (int run = 0; run < 24; run++) {
    struct setup s = {.witness = run & 1, .mode = run >> 1 & 1, 
                      .rate = {rates[run / 8][0], rates[run / 8][1]}};
    struct world w;
    new_world(&w, &s);
    CHECK(!(ips_pair_check(&w.n[0].m.cfg) | ips_pair_check(&w.n[1].m.cfg)));
    memset(seen, 0, size * sizeof *seen);
    states = leaves = double_active = 0;
    for (int i = 0; i < (run & 4 ? 20 : 0); i++) step(&w, EV_NOTHING);
    stop_if_broken(0, "at the start");
    explore(&w, 0, faults);
    CHECK(setup.witness == (double_active == 0) || depth < 8 || faults < 1);
    total += states;
    all_leaves += leaves;
  }
  free(seen);
  printf("pair_model: depth %d, %d faults, %llu states, %llu ends\n", depth, faults,
         (unsigned long long)total,
         (unsigned long long)all_leaves);
  return 0;
}
