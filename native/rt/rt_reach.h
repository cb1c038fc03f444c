/* rt_reach.h: reachability criteria (SYSTEMS.md S2.6): gateways that answer, links that are up (rt_reach.c). Who has the
 * interfaces that they are on asks for us: Linux (rt_ask.c), or a host that keeps its interfaces to itself (VPP). */
#ifndef RT_REACH_H
#define RT_REACH_H
#include "../ips_control.h"
#include "../ips_reach_api.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* By the real-time thread; none of them waits. i: number of the criterion. */
struct rt_askers {
  bool (*is_up)(void *arg, uint32_t i, const struct ips_ctl_pair_criterion *k); /* its link */
  void (*ask)(void *arg, uint32_t i, const struct ips_ctl_pair_criterion *k, uint16_t sequence);
  /* Whether that question, or one to a neighbour, was answered since the last call. */
  bool (*answered)(void *arg, uint32_t i, const struct ips_ctl_pair_criterion *k, uint16_t sequence);
};

struct rt_ask {
  int fd;               /* -1: none open */
  int ifindex;          /* of the interface that the socket is bound to */
  uint8_t mac[6], own4[4];
};
struct rt_reach {
  struct ips_reach c[IPS_CTL_PAIR_CRITERIA];
  const struct rt_askers *askers;
  void *arg;
  struct rt_ask of_linux[IPS_CTL_PAIR_CRITERIA];
};

void rt_reach_start(struct rt_reach *r, const struct rt_askers *askers, void *arg); /* NULL: Linux */
void rt_reach_stop(struct rt_reach *r);
/* Takes answers, asks what is due. Returns bit i: criterion i is not met. Never waits. */
uint32_t rt_reach_turn(struct rt_reach *r, const struct ips_ctl_pair *set, uint64_t now_ns);

/* rt_ask.c */
extern const struct rt_askers rt_askers_of_linux; /* whose arg is the struct rt_ask of all criteria */
void rt_ask_start(struct rt_ask *asked);
void rt_ask_stop(struct rt_ask *asked);
#endif
