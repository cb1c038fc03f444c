/* rt_ports.c: sub-interfaces with a workload's MAC address wait on the standby, down and without ARP: the same address on
 * two ports poisons a switch (SYSTEMS.md S3.4). The engine sets them up when it becomes active, down when it is so
 * no more, whether or not an agent is there; who makes them is the agent.
 *
 * In a thread of its own: the kernel may take milliseconds for it, and a heartbeat must not wait. One that is not as it is
 * to be (somebody else touched it, it was made later) is set again every second. Down first, then without ARP; with ARP
 * first, then up: no frame in between.
 */
#define _GNU_SOURCE
#include "rt_ports.h"
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AGAIN_MS = 1000 };

static bool set_flags(int fd, struct ifreq *q, short flags) {
  if (q->ifr_flags == flags) return true;
  q->ifr_flags = flags;
  return ioctl(fd, SIOCSIFFLAGS, q) == 0;
}

static bool set_port(int fd, const char *interface, bool up) {
  struct ifreq q;
  memset(&q, 0, sizeof q);
  memcpy(q.ifr_name, interface, sizeof q.ifr_name - 1); /* of 64 octets */
  if (strlen(interface) >= sizeof q.ifr_name || ioctl(fd, SIOCGIFFLAGS, &q)) return false;
  short flags = q.ifr_flags;
  if (up)
    return set_flags(fd, &q, (short)(flags & ~IFF_NOARP)) && set_flags(fd, &q, (short)((flags & ~IFF_NOARP) | IFF_UP));
  return set_flags(fd, &q, (short)(flags & ~IFF_UP)) && set_flags(fd, &q, (short)((q.ifr_flags & ~IFF_UP) | IFF_NOARP));
}

static void set_all(struct rt_ports *p) {
  uint64_t wrong = 0;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  for (uint32_t i = 0; i < p->set->n_ports; i++)
    if (fd < 0 || !set_port(fd, p->set->ports[i], atomic_load(&p->up))) wrong |= 1ull << i;
  if (fd >= 0) close(fd);
  atomic_store(&p->wrong, wrong);
}

static void *work(void *arg) {
  struct rt_ports *p = arg;
  uint64_t events;
  while (!atomic_load(&p->stop)) {
    set_all(p);
    poll(&(struct pollfd){.fd = p->wake, .events = POLLIN}, 1, AGAIN_MS);
    if (read(p->wake, &events, sizeof events) < 0) continue; /* the second is over */
  }
  return NULL;
}

int rt_ports_start(struct rt_ports *p, const struct ips_ctl_pair *set, const struct rt_port_setter *setter) {
  memset(p, 0, sizeof *p);
  p->set = set;
  p->setter = setter;
  p->wake = -1;
  if (setter) setter->want(false);
  if (!set->n_ports || setter) return 0;
  set_all(p);
  p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (p->wake < 0) return -1;
  int error = pthread_create(&p->thread, NULL, work, p);
  p->started = !error;
  return error;
}

uint64_t rt_ports_wrong(const struct rt_ports *p) { return p->setter ? p->setter->wrong() : atomic_load(&p->wrong); }

void rt_ports_want(struct rt_ports *p, bool up) {
  uint64_t one = 1;
  if (p->setter) p->setter->want(up);
  if (!p->started || atomic_exchange(&p->up, up) == up) return;
  if (write(p->wake, &one, sizeof one) < 0) { /* EAGAIN: it is readable already */ }
}

void rt_ports_stop(struct rt_ports *p) {
  uint64_t one = 1;
  if (p->started) {
    atomic_store(&p->stop, true);
    if (write(p->wake, &one, sizeof one) < 0) { /* EAGAIN: it is readable already */ }
    pthread_join(p->thread, NULL);
    atomic_store(&p->up, false);
    set_all(p);
  }
  if (p->setter) p->setter->want(false);
  if (p->wake >= 0) close(p->wake);
  p->started = false;
  p->setter = NULL;
  p->wake = -1;
}
