/* rt_ask.c: gateways of Linux interfaces, asked by raw sockets; in the engine's own thread, so that what decides about
 * forwarding depends on no other process.
 *
 * Questions leave by the interface that is named; the kernel's filters let through hardly more than the answers, and it
 * picks the source of what is ICMP and sums ICMPv6. What a question is, and an answer, is native/ips_reach.c's.
 */
#define _GNU_SOURCE
#include "../ips_core.h"
#include "../ips_csum.h"
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

enum { ROOM = 512, READS = 64, ECHO6_REPLY = 129, ADVERTISE = 136 };

void rt_ask_start(struct rt_ask *asked) {
  memset(asked, 0, IPS_CTL_PAIR_CRITERIA * sizeof *asked);
  for (int i = 0; i < IPS_CTL_PAIR_CRITERIA; i++) asked[i].fd = -1;
}

void rt_ask_stop(struct rt_ask *asked) {
  for (int i = 0; i < IPS_CTL_PAIR_CRITERIA; i++)
    if (asked[i].fd >= 0) close(asked[i].fd);
  rt_ask_start(asked);
}

/* The interface as it is now: index (0: gone), addresses, up. */
static bool look(struct rt_ask *c, const char *interface, int *ifindex) {
  struct ifreq q;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return *ifindex = 0, false;
  memset(&q, 0, sizeof q);
  memcpy(q.ifr_name, interface, sizeof q.ifr_name - 1); /* of 64 octets; a longer name is none of Linux */
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

static struct ips_reach_question question_of(const struct rt_ask *c, const struct ips_ctl_pair_criterion *k,
                                             uint16_t sequence) {
  struct ips_reach_question q = {.family = k->family, .is_echo = k->kind == IPS_CTL_PAIR_ECHO, .sequence = sequence};
  memcpy(q.address, k->address, sizeof q.address);
  memcpy(q.source, c->own4, sizeof c->own4);
  memcpy(q.mac, c->mac, sizeof q.mac);
  return q;
}

static void send_icmp(const struct rt_ask *c, const struct ips_reach_question *q) {
  union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } to = {.v4 = {.sin_family = AF_INET}};
  socklen_t size = sizeof to.v4;
  uint8_t m[IPS_REACH_ROOM];
  size_t n = ips_reach_icmp(q, m);
  if (q->family == 4) {
    ips_st16(m + 2, (uint16_t)~ips_csum_fold(ips_csum_bytes(m, n, 0)));
    memcpy(&to.v4.sin_addr, q->address, 4);
  } else {
    static const uint8_t solicited[13] = {0xff, 2, [11] = 1, [12] = 0xff};
    to.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_scope_id = (uint32_t)c->ifindex};
    memcpy(&to.v6.sin6_addr, q->address, 16);
    if (!q->is_echo) memcpy(&to.v6.sin6_addr, solicited, sizeof solicited);
    size = sizeof to.v6;
  }
  if (sendto(c->fd, m, n, MSG_DONTWAIT, &to.any, size) < 0) { /* counts as a question without an answer */ }
}

static void ask(void *arg, uint32_t i, const struct ips_ctl_pair_criterion *k, uint16_t sequence) {
  struct rt_ask *c = (struct rt_ask *)arg + i;
  bool arp = k->kind == IPS_CTL_PAIR_NEIGHBOUR && k->family == 4;
  uint8_t frame[IPS_REACH_ROOM];
  int ifindex;
  look(c, k->interface, &ifindex);
  if (c->fd >= 0 && c->ifindex != ifindex) {
    close(c->fd);
    c->fd = -1;
  }
  c->ifindex = ifindex;
  if (c->fd < 0 && ifindex) c->fd = arp ? open_arp(ifindex) : open_icmp(k);
  if (c->fd < 0) return;
  struct ips_reach_question q = question_of(c, k, sequence);
  if (!arp) send_icmp(c, &q);
  else if (send(c->fd, frame, ips_reach_frame(&q, frame), MSG_DONTWAIT) < 0) { /* as there */ }
}

static bool is_up(void *arg, uint32_t i, const struct ips_ctl_pair_criterion *k) {
  int ifindex;
  return look((struct rt_ask *)arg + i, k->interface, &ifindex);
}

/* from: of ICMP; ICMPv4 comes with its IP header. */
static bool is_answer(const struct ips_reach_question *q, const uint8_t *p, size_t n, const struct sockaddr_storage *from) {
  if (!q->is_echo && q->family == 4)
    return n >= IPS_REACH_ETH && ips_reach_is_arp(q, p, p + IPS_REACH_ETH, n - IPS_REACH_ETH);
  if (q->family == 6) return ips_reach_is_icmp(q, (const uint8_t *)&((const struct sockaddr_in6 *)from)->sin6_addr, p, n);
  size_t head = n ? (p[0] & 15) * 4u : 0;
  return n >= head && ips_reach_is_icmp(q, (const uint8_t *)&((const struct sockaddr_in *)from)->sin_addr, p + head, n - head);
}

static bool answered(void *arg, uint32_t i, const struct ips_ctl_pair_criterion *k, uint16_t sequence) {
  struct rt_ask *c = (struct rt_ask *)arg + i;
  struct ips_reach_question q = question_of(c, k, sequence);
  uint8_t bytes[ROOM];
  bool found = false;
  for (int left = READS; c->fd >= 0 && left; left--) {
    struct sockaddr_storage from = {0};
    socklen_t size = sizeof from;
    ssize_t n = recvfrom(c->fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
    if (n < 0 && (errno == ENETDOWN || errno == EHOSTUNREACH)) continue;
    if (n < 0) break;
    found |= is_answer(&q, bytes, (size_t)n, &from);
  }
  return found;
}

const struct rt_askers rt_askers_of_linux = {.is_up = is_up, .ask = ask, .answered = answered};
