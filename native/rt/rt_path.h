/* rt_path.h: the UDP sockets between the two nodes of a pair (rt_path.c). */
#ifndef RT_PATH_H
#define RT_PATH_H
#include "../ips_control.h"
#include <sys/types.h>

/* A connected, non-blocking socket; -1 with errno: not possible now. */
int rt_path_open(const struct ips_ctl_pair_path *p);
/* The same for one of several peers at one local port: the kernel gives each socket its peer's datagrams. */
int rt_path_open_shared(const struct ips_ctl_pair_path *p);
/* Bytes of the next datagram, 0 for one that is empty or longer than room; -1: there is none. */
ssize_t rt_path_receive(int fd, uint8_t *out, size_t room);
/* Sends, or does not. */
void rt_path_send(int fd, const uint8_t *bytes, size_t n);
#endif
