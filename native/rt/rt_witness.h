/* rt_witness.h: the engine's side of a witness: questions and answers over UDP (rt_witness.c). */
#ifndef RT_WITNESS_H
#define RT_WITNESS_H
#include "../ips_control.h"
#include "../ips_pair_api.h"
#include "../ips_seal_api.h"

struct rt_witness {
  int fd;                 /* -1: not open */
  uint64_t retry_ns;
  struct ips_seal *seal;  /* NULL: there is no witness */
};
/* False: no memory. `set` without a witness: nothing is asked. */
bool rt_witness_start(struct rt_witness *w, const struct ips_ctl_pair *set, uint64_t boot, ips_random_fn random);
void rt_witness_stop(struct rt_witness *w);
/* IPS_PAIR_ASK or IPS_PAIR_RELEASE. Lost where the witness is not heard: the machine asks again. */
void rt_witness_say(struct rt_witness *w, const struct ips_pair_action *a, uint64_t ttl_ns, uint64_t now_ns);
/* Handshakes, and the socket where it could not be opened before. */
void rt_witness_tick(struct rt_witness *w, const struct ips_ctl_pair_witness *set, uint64_t now_ns);
struct ips_witness_msg;
/* The next answer; false: none is there. */
bool rt_witness_hear(struct rt_witness *w, struct ips_witness_msg *out, uint64_t now_ns);
/* IPS_CTL_PAIR_NO_WITNESS or 0. */
uint32_t rt_witness_notes(const struct rt_witness *w, uint64_t now_ns);
#endif
