/* rt_times.c: what a configuration says in two numbers, interval and misses, as all the durations that the pair's
 * machine wants. Pure. ips_pair_check judges the result; what it finds is said to whoever configured it.
 *
 * Dead time: misses x interval, but no less than what machines and links need: 20 ms, since scheduling gaps of 1 to 4 ms
 * are normal on virtual machines (LESSONS.md 30). Lease: what is left of it when the jitter is taken off twice and the
 * clocks are allowed their error. The thread takes a turn each millisecond, of a pair whose interval is more than a tenth
 * of a second a hundred in an interval, but no less than a hundred in a second.
 */
#include "rt.h"

#define MS 1000000ull

static uint64_t tick_of(uint64_t interval_ns) {
  if (interval_ns / 2 < MS) return interval_ns / 2;
  uint64_t part = interval_ns / 100 < 10 * MS ? interval_ns / 100 : 10 * MS;
  return part > MS ? part : MS;
}

void rt_times(const struct ips_ctl_pair *p, struct ips_pair_config *out) {
  uint64_t floor = 20 * MS, dead = p->misses * p->interval_ns;
  *out = (struct ips_pair_config){
    .node = p->node_id, .peer = p->peer_id, .clock_ppm = 500, .n_paths = p->n_paths,
    .mode = p->flags & IPS_CTL_PAIR_QUERY ? IPS_PAIR_QUERIES : IPS_PAIR_HEARTBEATS,
    .preempt = (p->flags & IPS_CTL_PAIR_PREEMPT) != 0, .priority = p->flags & IPS_CTL_PAIR_PREFERRED ? 2 : 1,
    .losses = (uint8_t)(p->misses < 255 ? p->misses : 255), .jitter_times = 3, .interval_ns = p->interval_ns, .floor_ns = floor,
    .jitter_ns = 4 * MS, .dead_ns = dead > floor ? dead : floor,
    .tick_ns = tick_of(p->interval_ns),
  };
  out->lease_ns = out->dead_ns - 2 * out->jitter_ns - out->dead_ns / 1000;
  out->late_ns = out->lease_ns / 2;
  out->stall_ns = out->lease_ns;
  out->hold_ns = 3 * out->dead_ns > 1000 * MS ? 3 * out->dead_ns : 1000 * MS;
  out->preempt_hold_ns = 10000 * MS;
  if (!p->witness.family) return;
  out->witness = 1;
  out->witness_ttl_ns = p->witness.ttl_ns;
  out->witness_ask_ns = p->witness.ttl_ns / 5;
}
