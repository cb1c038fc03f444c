/* rt_reach.h: reachability criteria (SYSTEMS.md S2.6): gateways that answer, links that are up (rt_reach.c). */
#ifndef RT_REACH_H
#define RT_REACH_H
#include "../ips_control.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rt_criterion {
  int fd;               /* -1: none open */
  int ifindex;          /* of the interface that the socket is bound to */
  uint8_t mac[6], own4[4];
  uint16_t sequence;    /* of the question that waits for its answer; 0: none does */
  bool met, asked;
  uint32_t missed;      /* in a row */
  uint64_t next_ns;
};
struct rt_reach { struct rt_criterion c[IPS_CTL_PAIR_CRITERIA]; };

void rt_reach_start(struct rt_reach *r);
void rt_reach_stop(struct rt_reach *r);
/* Reads answers, asks what is due. Returns bit i: criterion i is not met. Never waits. */
uint32_t rt_reach_turn(struct rt_reach *r, const struct ips_ctl_pair *set, uint64_t now_ns);
#endif
