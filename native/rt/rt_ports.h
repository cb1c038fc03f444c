/* rt_ports.h: sub-interfaces that are up on the active node and down on the other (rt_ports.c). */
#ifndef RT_PORTS_H
#define RT_PORTS_H
#include "../ips_control.h"
#include <pthread.h>
#include <stdatomic.h>

/* A host that has the interfaces itself; both are called by the real-time thread and do not wait. */
struct rt_port_setter {
  void (*want)(bool up);
  uint64_t (*wrong)(void);  /* as below */
};

struct rt_ports {
  const struct ips_ctl_pair *set;
  const struct rt_port_setter *setter; /* NULL: Linux, by the thread below */
  int wake;                 /* eventfd to this thread */
  pthread_t thread;
  bool started;
  _Atomic bool stop, up;    /* up: as they are to be */
  _Atomic uint64_t wrong;   /* bit i: sub-interface i is not as it is to be, or not there */
};
/* 0, or an errno. All are down when it returns, those that are there. */
int rt_ports_start(struct rt_ports *p, const struct ips_ctl_pair *set, const struct rt_port_setter *setter);
uint64_t rt_ports_wrong(const struct rt_ports *p);
void rt_ports_want(struct rt_ports *p, bool up); /* does not wait */
void rt_ports_stop(struct rt_ports *p);          /* and down */
#endif
