/* rt_reach.c: what an active node should reach, judged at each turn of the thread. The judgement is native/ips_reach.c's,
 * the interfaces are those of Linux (rt_ask.c) or of a host that has its own (struct rt_askers). */
#include "rt_reach.h"
#include <string.h>

void rt_reach_start(struct rt_reach *r, const struct rt_askers *askers, void *arg) {
  memset(r->c, 0, sizeof r->c);
  rt_ask_start(r->of_linux);
  r->askers = askers ? askers : &rt_askers_of_linux;
  r->arg = askers ? arg : r->of_linux;
}

void rt_reach_stop(struct rt_reach *r) { rt_ask_stop(r->of_linux); }

static void turn_one(struct rt_reach *r, uint32_t i, const struct ips_ctl_pair_criterion *k, uint64_t now_ns) {
  struct ips_reach *c = &r->c[i];
  if (k->kind == IPS_CTL_PAIR_LINK) {
    if (now_ns >= c->next_ns) ips_reach_looked(c, now_ns, k->interval_ns, r->askers->is_up(r->arg, i, k));
    return;
  }
  if (r->askers->answered(r->arg, i, k, c->sequence)) ips_reach_answered(c);
  if (ips_reach_due(c, now_ns, k->interval_ns, k->misses)) r->askers->ask(r->arg, i, k, c->sequence);
}

uint32_t rt_reach_turn(struct rt_reach *r, const struct ips_ctl_pair *set, uint64_t now_ns) {
  uint32_t failed = 0;
  for (uint32_t i = 0; i < set->n_criteria; i++) {
    turn_one(r, i, &set->criteria[i], now_ns);
    if (!r->c[i].met) failed |= 1u << i;
  }
  return failed;
}
