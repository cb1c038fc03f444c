/* rt_link.h: the interfaces that VIPs are on: their state and their frames. Who has them is the host's affair: Linux
 * (rt_link.c), or a host that keeps its interfaces to itself (VPP), behind the same few functions. */
#ifndef RT_LINK_H
#define RT_LINK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { RT_FRAME = 1522 };

struct rt_link {
  char name[64];
  int fd;            /* readable when frames wait: ARP, neighbour discovery; -1: not open */
  int ifindex;       /* of Linux */
  uint8_t mac[6];
  bool wants_all;    /* multicast groups: more addresses than could be joined */
  bool is_up;        /* there, administratively up, carrier */
};

/* Called by the real-time thread, but for events and close, which the control side calls too while that does not run. */
struct rt_links {
  int (*events)(void *arg); /* a descriptor that becomes readable when some interface changes; -1 with errno */
  void (*drain_events)(int fd);
  /* Looks at the interface; opens it when it is there, closes it when it is gone or another one of the same name.
   * solicited: n last three octets of IPv6 addresses whose solicitations are wanted. */
  void (*refresh)(void *arg, struct rt_link *l, const uint8_t (*solicited)[3], unsigned n);
  void (*close)(struct rt_link *l);
  /* Bytes of the next frame; -1: none. Own frames are not among them. */
  ssize_t (*receive)(void *arg, struct rt_link *l, uint8_t *out, size_t room);
  /* False: there is no room now. What a link that is down swallows has left. */
  bool (*send)(void *arg, const struct rt_link *l, const uint8_t *frame, size_t n);
};
extern const struct rt_links rt_links_of_linux; /* whose arg is nothing */
#endif
