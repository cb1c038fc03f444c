/* ips_pair_check.c: do a pair's times fit together? And the texts of its lists.
 *
 * The rules are ips_pair_rule.def; each is one claim. What they give together: a node that stops speaking
 * has stopped forwarding two jitters before its peer takes over, whatever their clocks do within clock_ppm.
 */
#include "ips_pair.h"

#define HOUR_NS (3600ull * 1000000000ull)

static bool in_range(const struct ips_pair_config *c) {
  const uint64_t times[] = {
    c->tick_ns, c->interval_ns, c->dead_ns, c->lease_ns, c->floor_ns, c->jitter_ns, c->late_ns, c->stall_ns,
    c->hold_ns, c->preempt_hold_ns, c->witness_ttl_ns, c->witness_ask_ns,
  };
  for (size_t i = 0; i < sizeof times / sizeof *times; i++)
    if (times[i] > HOUR_NS) return false;
  return c->clock_ppm <= 100000 && c->dead_ns > 0 && c->lease_ns > 0;
}

#define slow ips_pair_slow
#define fast ips_pair_fast
uint64_t ips_pair_check(const struct ips_pair_config *c) {
  uint64_t failed = 0;
  int i = 0;
  if (!in_range(c)) return 1; /* nothing can be computed with it */
#define C(name, claim, text) failed |= (uint64_t)!(claim) << i++;
#include "ips_pair_rule.def"
#undef C
  return failed;
}

static const char *const rules[][2] = {
#define C(name, claim, text) {#name, text},
#include "ips_pair_rule.def"
#undef C
};
static const char *const reasons[][2] = {
#define R(name, text) {#name, text},
#include "ips_pair_reason.def"
#undef R
};
static const char *const refusals[] = {
#define P(name, text) text,
#include "ips_pair_refusal.def"
#undef P
};
static const char *const states[] = {NULL, "initial", "active", "standby", "inop"};

enum { N_RULES = sizeof rules / sizeof *rules };
_Static_assert(N_RULES <= 64, "a rule is a bit");

int ips_pair_rules(void) { return N_RULES; }
int ips_pair_reasons(void) { return IPS_N_PAIR_REASONS; }
int ips_pair_refusals(void) { return IPS_N_PAIR_REFUSALS; }
const char *ips_pair_rule_name(int i) { return i >= 0 && i < N_RULES ? rules[i][0] : NULL; }
const char *ips_pair_rule(int i) { return i >= 0 && i < N_RULES ? rules[i][1] : NULL; }
const char *ips_pair_reason_name(int i) { return i >= 0 && i < IPS_N_PAIR_REASONS ? reasons[i][0] : NULL; }
const char *ips_pair_reason(int i) { return i >= 0 && i < IPS_N_PAIR_REASONS ? reasons[i][1] : NULL; }
const char *ips_pair_refusal(int i) { return i >= 0 && i < IPS_N_PAIR_REFUSALS ? refusals[i] : NULL; }
const char *ips_pair_state_name(int s) {
  return s >= IPS_PAIR_INITIAL && s <= IPS_PAIR_INOP ? states[s] : NULL;
}
