/* rt_link.c: Linux interfaces by AF_PACKET and ioctl; their changes by rtnetlink, whose messages only say "look again".
 *
 * The kernel's filter lets through what a VIP's holder has to answer or to know: ARP, and ICMPv6 types 135 and 136 right
 * behind the IPv6 header (RFC 4861 7.1.1 allows no extension header that we would have to follow: hop limit 255, and
 * hosts send none). Everything else about frames is ips_vip.c's.
 */
#define _GNU_SOURCE
#include "rt_link.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Offsets into an Ethernet frame. */
enum { AT_TYPE = 12, AT_NEXT_HEADER = 20, AT_ICMP6 = 54, ICMP6 = 58, SOLICITATION = 135, ADVERTISEMENT = 136 };

static const struct sock_filter NEIGHBOURS[] = {
  BPF_STMT(BPF_LD | BPF_H | BPF_ABS, AT_TYPE),
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_ARP, 6, 0),
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 0, 6),
  BPF_STMT(BPF_LD | BPF_B | BPF_ABS, AT_NEXT_HEADER),
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ICMP6, 0, 4),
  BPF_STMT(BPF_LD | BPF_B | BPF_ABS, AT_ICMP6),
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOLICITATION, 1, 0),
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ADVERTISEMENT, 0, 1),
  BPF_STMT(BPF_RET | BPF_K, RT_FRAME),
  BPF_STMT(BPF_RET | BPF_K, 0),
};

static int open_events(void *arg) {
  (void)arg;
  struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof name) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

static void drain_events(int fd) {
  char ignored[8192];
  for (int i = 0; i < 64; i++)
    if (recv(fd, ignored, sizeof ignored, MSG_DONTWAIT) < 0 && errno != ENOBUFS) return;
}

static void close_link(struct rt_link *l) {
  if (l->fd >= 0) close(l->fd);
  l->fd = -1;
  l->ifindex = 0;
}

static void open_socket(struct rt_link *l) {
  struct sock_fprog filter = {sizeof NEIGHBOURS / sizeof *NEIGHBOURS, (struct sock_filter *)(uintptr_t)NEIGHBOURS};
  struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = l->ifindex};
  l->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* protocol 0: nothing before the filter */
  if (l->fd < 0) return;
  if (setsockopt(l->fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) ||
      bind(l->fd, (struct sockaddr *)&name, sizeof name)) {
    close(l->fd);
    l->fd = -1;
  }
}

/* Solicited-node multicast (RFC 4291 2.7.1), so that the card does not filter it out. Again: harmless. */
static void join(const struct rt_link *l, const uint8_t last[3]) {
  struct packet_mreq group = {.mr_ifindex = l->ifindex, .mr_type = PACKET_MR_MULTICAST, .mr_alen = 6,
                              .mr_address = {0x33, 0x33, 0xff, last[0], last[1], last[2]}};
  setsockopt(l->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &group, sizeof group);
}

/* False: there is no interface of that name. */
static bool ask(struct rt_link *l, int *ifindex) {
  struct ifreq r;
  l->is_up = false;
  if (strlen(l->name) >= sizeof r.ifr_name) return false; /* as long as only VPP's can be */
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  memset(&r, 0, sizeof r);
  memcpy(r.ifr_name, l->name, sizeof r.ifr_name);
  bool there = ioctl(fd, SIOCGIFINDEX, &r) == 0;
  *ifindex = r.ifr_ifindex;
  if (there && ioctl(fd, SIOCGIFHWADDR, &r) == 0) memcpy(l->mac, r.ifr_hwaddr.sa_data, 6);
  l->is_up = there && ioctl(fd, SIOCGIFFLAGS, &r) == 0 && r.ifr_flags & IFF_UP && r.ifr_flags & IFF_RUNNING;
  close(fd);
  return there;
}

static void refresh(void *arg, struct rt_link *l, const uint8_t (*solicited)[3], unsigned n) {
  (void)arg;
  int ifindex = 0;
  if (!ask(l, &ifindex)) {
    close_link(l);
    return;
  }
  if (l->fd >= 0 && l->ifindex == ifindex) return;
  close_link(l);
  l->ifindex = ifindex;
  open_socket(l);
  for (unsigned i = 0; l->fd >= 0 && i < n; i++) join(l, solicited[i]);
  struct packet_mreq all = {.mr_ifindex = ifindex, .mr_type = PACKET_MR_ALLMULTI};
  if (l->fd >= 0 && l->wants_all) setsockopt(l->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all);
}

static ssize_t receive(void *arg, struct rt_link *l, uint8_t *out, size_t room) {
  (void)arg;
  struct sockaddr_ll from;
  for (int i = 0; i < 64; i++) {
    socklen_t bytes = sizeof from;
    ssize_t n = recvfrom(l->fd, out, room, MSG_DONTWAIT, (struct sockaddr *)&from, &bytes);
    if (n < 0 && errno == ENETDOWN) continue; /* said once when the interface goes down */
    if (n < 0) return -1;
    if (from.sll_pkttype != PACKET_OUTGOING) return n;
  }
  return -1;
}

/* On a link that is down: announced again when it is up. */
static bool send_frame(void *arg, const struct rt_link *l, const uint8_t *frame, size_t n) {
  (void)arg;
  return l->fd < 0 || send(l->fd, frame, n, MSG_DONTWAIT) >= 0 || (errno != EAGAIN && errno != ENOBUFS);
}

const struct rt_links rt_links_of_linux = {
  .events = open_events, .drain_events = drain_events, .refresh = refresh, .close = close_link, .receive = receive,
  .send = send_frame,
};
