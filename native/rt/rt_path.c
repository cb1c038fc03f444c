/* rt_path.c: the UDP sockets between the two nodes of a pair, one for each path.
 *
 * A socket is bound and connected, so the kernel hands us datagrams of the peer's address only. A path whose
 * address or route is missing now is opened later: a pair has to start, and go on, with a link down. What the
 * kernel refuses to send says nothing about the peer (LESSONS.md 29): it is not even looked at.
 */
#define _GNU_SOURCE
#include "rt_path.h"
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLASS_CONTROL = 0xc0 }; /* CS6 (RFC 4594): network control */

static socklen_t fill(struct sockaddr_storage *out, unsigned family, const uint8_t *address, uint16_t port) {
  memset(out, 0, sizeof *out);
  if (family == 4) {
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    memcpy(&in->sin_addr, address, 4);
    return sizeof *in;
  }
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(port);
  memcpy(&in6->sin6_addr, address, 16);
  return sizeof *in6;
}

static void set_options(int fd, unsigned family) {
  int on = 1, class = CLASS_CONTROL, priority = 6;
  setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority);
  if (family == 4) {
    setsockopt(fd, IPPROTO_IP, IP_TOS, &class, sizeof class);
    setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
  } else {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &class, sizeof class);
    setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on);
  }
}

static int open_path(const struct ips_ctl_pair_path *p, int shares_port) {
  struct sockaddr_storage local, remote;
  socklen_t n = fill(&local, p->family, p->local, p->local_port);
  fill(&remote, p->family, p->remote, p->remote_port);
  int fd = socket(local.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  set_options(fd, p->family);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &shares_port, sizeof shares_port);
  if (bind(fd, (struct sockaddr *)&local, n) == 0 && connect(fd, (struct sockaddr *)&remote, n) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int rt_path_open(const struct ips_ctl_pair_path *p) { return open_path(p, 0); }
int rt_path_open_shared(const struct ips_ctl_pair_path *p) { return open_path(p, 1); }

ssize_t rt_path_receive(int fd, uint8_t *out, size_t room) {
  for (int tries = 0; tries < 4; tries++) { /* an ICMP error that came before is reported first */
    ssize_t n = recv(fd, out, room, MSG_DONTWAIT | MSG_TRUNC);
    if (n >= 0) return (size_t)n > room ? 0 : n;
    if (errno == EAGAIN || errno == EINTR) return -1;
  }
  return -1;
}

void rt_path_send(int fd, const uint8_t *bytes, size_t n) {
  if (send(fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) { /* the next one may pass */ }
}
