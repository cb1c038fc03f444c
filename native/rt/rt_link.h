/* rt_link.h: the Linux interfaces that VIPs are on: their state and their frames (rt_link.c). */
#ifndef RT_LINK_H
#define RT_LINK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { RT_FRAME = 1522 };

struct rt_link {
  char name[16];
  int fd;            /* AF_PACKET: ARP and neighbour solicitations; -1: not open */
  int ifindex;
  uint8_t mac[6];
  bool wants_all;    /* multicast groups: more addresses than could be joined */
  bool is_up;        /* there, administratively up, carrier */
};
/* A socket that becomes readable when some interface changes; -1 with errno. */
int rt_link_events(void);
void rt_link_drain_events(int fd);
/* Looks at the interface; opens its socket when it is there, closes it when it is gone or another one of the
 * same name. solicited: n last three octets of IPv6 addresses whose solicitations are wanted. */
void rt_link_refresh(struct rt_link *l, const uint8_t (*solicited)[3], unsigned n);
void rt_link_close(struct rt_link *l);
/* Bytes of the next frame; -1: none. Own frames are not among them. */
ssize_t rt_link_receive(struct rt_link *l, uint8_t *out, size_t room);
void rt_link_send(const struct rt_link *l, const uint8_t *frame, size_t n);
#endif
