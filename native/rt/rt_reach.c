/* rt_reach.c: asks gateways by ARP, neighbour solicitation or echo, and looks at links; in the engine's own thread, so
 * that what decides about forwarding depends on no other process.
 *
 * A criterion is not met before its first answer, and after `misses` questions in a row without one. Questions leave by
 * the interface that is named. Sockets are raw; the kernel's filters let through hardly more than the answers. ARP:
 * RFC 826, sender 0 where the interface has no address (RFC 5227 2.1.1). Solicitation: RFC 4861 4.3; the kernel
 * picks the source and sums. Echo: RFC 792, RFC 4443 4.1.
 */
#define _GNU_SOURCE
#include "rt_reach.h"
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h> /* before the kernel's headers, which leave out what it has */
#include <netinet/in.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 512, READS = 64, ECHO = 8, ECHO6 = 128, ECHO6_REPLY = 129, SOLICIT = 135, ADVERTISE = 136, ARP_BYTES = 42 };

void rt_reach_start(struct rt_reach *r) {
  memset(r, 0, sizeof *r);
  for (int i = 0; i < IPS_CTL_PAIR_CRITERIA; i++) r->c[i].fd = -1;
}

void rt_reach_stop(struct rt_reach *r) {
  for (int i = 0; i < IPS_CTL_PAIR_CRITERIA; i++)
    if (r->c[i].fd >= 0) close(r->c[i].fd);
  rt_reach_start(r);
}

/* The interface as it is now: index (0: gone), addresses, up. */
static bool look(struct rt_criterion *c, const char *interface, int *ifindex) {
  struct ifreq q;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return *ifindex = 0, false;
  memset(&q, 0, sizeof q);
  memcpy(q.ifr_name, interface, sizeof q.ifr_name);
  bool there = ioctl(fd, SIOCGIFINDEX, &q) == 0, up = false;
  *ifindex = there ? q.ifr_ifindex : 0;
  if (there && ioctl(fd, SIOCGIFHWADDR, &q) == 0) memcpy(c->mac, q.ifr_hwaddr.sa_data, 6);
  memset(c->own4, 0, sizeof c->own4);
  if (there && ioctl(fd, SIOCGIFADDR, &q) == 0)
    memcpy(c->own4, &((struct sockaddr_in *)&q.ifr_addr)->sin_addr, 4);
  if (there && ioctl(fd, SIOCGIFFLAGS, &q) == 0) up = q.ifr_flags & IFF_UP && q.ifr_flags & IFF_RUNNING;
  close(fd);
  return up;
}

static int open_arp(int ifindex) {
  static const struct sock_filter only_arp[] = {
    BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_ARP, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, ROOM), BPF_STMT(BPF_RET | BPF_K, 0),
  };
  struct sock_fprog filter = {sizeof only_arp / sizeof *only_arp, (struct sock_filter *)(uintptr_t)only_arp};
  struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP), .sll_ifindex = ifindex};
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0 &&
      bind(fd, (struct sockaddr *)&name, sizeof name) == 0)
    return fd;
  close(fd);
  return -1;
}

static int open_icmp(const struct ips_ctl_pair_criterion *k) {
  bool v6 = k->family == 6;
  int hops = 255;
  int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
  if (fd < 0) return -1;
  struct icmp_filter filter4 = {.data = ~(1u << ICMP_ECHOREPLY)};
  struct icmp6_filter filter6;
  memset(&filter6, 0xff, sizeof filter6); /* a bit that is set blocks */
  uint8_t wanted = k->kind == IPS_CTL_PAIR_NEIGHBOUR ? ADVERTISE : ECHO6_REPLY;
  filter6.data[wanted / 32] &= ~(1u << wanted % 32);
  bool ok = setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, k->interface, (socklen_t)strlen(k->interface)) == 0;
  if (v6) {
    setsockopt(fd, IPPROTO_ICMPV6, ICMPV6_FILTER, &filter6, sizeof filter6);
    setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops);
    setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &hops, sizeof hops);
    setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &(int){(int)if_nametoindex(k->interface)}, sizeof hops);
  } else {
    setsockopt(fd, SOL_RAW, ICMP_FILTER, &filter4, sizeof filter4);
  }
  if (ok) return fd;
  close(fd);
  return -1;
}

static void send_arp(struct rt_criterion *c, const struct ips_ctl_pair_criterion *k) {
  uint8_t f[ARP_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  static const uint8_t head[10] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
  memcpy(f + 6, c->mac, 6);
  memcpy(f + 12, head, sizeof head);
  memcpy(f + 22, c->mac, 6);
  memcpy(f + 28, c->own4, 4);
  memcpy(f + 38, k->address, 4);
  if (send(c->fd, f, sizeof f, MSG_DONTWAIT) < 0) { /* counts as a question without an answer */ }
}

static uint16_t sum_of(const uint8_t *p, size_t n) {
  uint32_t sum = 0;
  for (size_t i = 0; i + 1 < n; i += 2) sum += (uint32_t)(p[i] << 8 | p[i + 1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

static void send_icmp4(struct rt_criterion *c, const struct ips_ctl_pair_criterion *k) {
  uint8_t m[16] = {ECHO, 0, 0, 0, 'i', 'p', (uint8_t)(c->sequence >> 8), (uint8_t)c->sequence};
  struct sockaddr_in to = {.sin_family = AF_INET};
  uint16_t sum = sum_of(m, sizeof m);
  m[2] = (uint8_t)(sum >> 8);
  m[3] = (uint8_t)sum;
  memcpy(&to.sin_addr, k->address, 4);
  if (sendto(c->fd, m, sizeof m, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to) < 0) { /* as above */ }
}

static void send_icmp6(struct rt_criterion *c, const struct ips_ctl_pair_criterion *k) {
  struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_scope_id = (uint32_t)c->ifindex};
  uint8_t m[32] = {ECHO6, 0, 0, 0, 'i', 'p', (uint8_t)(c->sequence >> 8), (uint8_t)c->sequence};
  size_t n = 16;
  memcpy(&to.sin6_addr, k->address, 16);
  if (k->kind == IPS_CTL_PAIR_NEIGHBOUR) {
    static const uint8_t solicited[13] = {0xff, 2, [11] = 1, [12] = 0xff};
    memset(m, 0, sizeof m);
    m[0] = SOLICIT;
    memcpy(m + 8, k->address, 16);
    m[24] = m[25] = 1; /* source link-layer address */
    memcpy(m + 26, c->mac, 6);
    memcpy(&to.sin6_addr, solicited, 13);
    n = sizeof m;
  }
  if (sendto(c->fd, m, n, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to) < 0) { /* as above */ }
}

/* Is it the answer? from: of ICMP; ICMPv4 comes with its IP header. */
static bool is_answer(const struct rt_criterion *c, const struct ips_ctl_pair_criterion *k, const uint8_t *p, size_t n,
                      const struct sockaddr_storage *from) {
  if (k->kind == IPS_CTL_PAIR_NEIGHBOUR && k->family == 4)
    return n >= ARP_BYTES && p[21] == 2 && memcmp(p + 28, k->address, 4) == 0 && memcmp(p, c->mac, 6) == 0;
  if (k->kind == IPS_CTL_PAIR_NEIGHBOUR) return n >= 24 && p[0] == ADVERTISE && memcmp(p + 8, k->address, 16) == 0;
  bool v6 = k->family == 6;
  size_t head = v6 ? 0 : n ? (p[0] & 15) * 4u : 0;
  const void *source = v6 ? (const void *)&((const struct sockaddr_in6 *)from)->sin6_addr
                          : (const void *)&((const struct sockaddr_in *)from)->sin_addr;
  if (n < head + 8 || memcmp(source, k->address, v6 ? 16 : 4)) return false;
  const uint8_t *m = p + head;
  return m[0] == (v6 ? ECHO6_REPLY : ICMP_ECHOREPLY) && m[4] == 'i' && m[5] == 'p' &&
         (m[6] << 8 | m[7]) == c->sequence;
}

static void hear(struct rt_criterion *c, const struct ips_ctl_pair_criterion *k) {
  uint8_t bytes[ROOM];
  for (int i = 0; c->fd >= 0 && i < READS; i++) {
    struct sockaddr_storage from = {0};
    socklen_t size = sizeof from;
    ssize_t n = recvfrom(c->fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
    if (n < 0 && (errno == ENETDOWN || errno == EHOSTUNREACH)) continue;
    if (n < 0) return;
    if (!c->asked || !is_answer(c, k, bytes, (size_t)n, &from)) continue;
    c->asked = false;
    c->missed = 0;
    c->met = true;
  }
}

static void question(struct rt_criterion *c, const struct ips_ctl_pair_criterion *k) {
  int ifindex;
  bool up = look(c, k->interface, &ifindex);
  if (k->kind == IPS_CTL_PAIR_LINK) {
    c->met = up;
    return;
  }
  if (c->asked && ++c->missed >= k->misses) c->met = false;
  if (c->fd >= 0 && c->ifindex != ifindex) {
    close(c->fd);
    c->fd = -1;
  }
  c->ifindex = ifindex;
  bool arp = k->kind == IPS_CTL_PAIR_NEIGHBOUR && k->family == 4;
  if (c->fd < 0 && ifindex) c->fd = arp ? open_arp(ifindex) : open_icmp(k);
  c->sequence++;
  c->asked = true;
  if (c->fd < 0) return;
  if (arp) send_arp(c, k);
  else if (k->family == 4) send_icmp4(c, k);
  else send_icmp6(c, k);
}

uint32_t rt_reach_turn(struct rt_reach *r, const struct ips_ctl_pair *set, uint64_t now_ns) {
  uint32_t failed = 0;
  for (uint32_t i = 0; i < set->n_criteria; i++) {
    struct rt_criterion *c = &r->c[i];
    const struct ips_ctl_pair_criterion *k = &set->criteria[i];
    hear(c, k);
    if (now_ns >= c->next_ns) {
      question(c, k);
      c->next_ns = now_ns + k->interval_ns;
    }
    if (!c->met) failed |= 1u << i;
  }
  return failed;
}
