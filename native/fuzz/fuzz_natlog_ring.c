/* fuzz_natlog_ring.c: the rings of a NAT log, put and taken in any order, beside counts that cannot be wrong.
 *
 * Steps of two bytes: a ring and a number of records to put, or how many to take. Claims: what was put comes out
 * once, in its ring's order; what was refused was refused for want of room, and is counted; so are the others.
 */
#include "../tests/check.h"
#include "ips_core.h"
#include "ips_natlog_api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { RINGS = 3, ROOM = 8, MOST = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  struct ips_natlog_rec out[MOST];
  struct ips_natlog_stats stats;
  uint64_t put[RINGS] = {0}, taken[RINGS] = {0}, lost = 0, all_put = 0, all_taken = 0;
  struct ips_natlog *log = ips_natlog_new(RINGS, ROOM);
  CHECK(log);
  for (; n >= 2; n -= 2, data += 2) {
    unsigned ring = data[0] % (RINGS + 1), count = data[1] % MOST;
    if (ring == RINGS) {
      size_t got = ips_natlog_take(log, out, count);
      CHECK(got <= count);
      for (size_t i = 0; i < got; i++) {
        uint32_t from = out[i].limit;
        CHECK(from < RINGS && out[i].at_ns == taken[from] && taken[from] < put[from]);
        taken[from]++;
      }
      all_taken += got;
      bool is_empty = all_taken == all_put;
      CHECK(got == count || is_empty);
      continue;
    }
    for (unsigned i = 0; i < count; i++) {
      struct ips_natlog_rec r = {.at_ns = put[ring], .limit = ring, .event = IPS_NATLOG_SESSION_CREATE};
      bool has_room = put[ring] - taken[ring] < ROOM;
      CHECK(ips_natlog_put(log, ring, &r) == has_room);
      if (has_room) put[ring]++, all_put++;
      else lost++;
    }
  }
  ips_natlog_stats(log, &stats);
  CHECK(stats.put == all_put && stats.taken == all_taken && stats.lost == lost);
  ips_natlog_free(log);
  return 0;
}
