/* neighbours.c: the servers' hardware addresses, from the kernel's neighbour table by rtnetlink (RFC 826, RFC 4861 are
 * the kernel's business: we say which addresses are in use, it resolves and confirms them, and says what it found).
 *
 * NTF_USE once a second for each server: the kernel asks for what it does not know, and confirms what has become stale. A
 * change that anybody announces comes as a message at once. What the kernel forgets stays written down here.
 */
#define _GNU_SOURCE
#include "dispatch.h"
#include <errno.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { RECEIVE_BUFFER = 1 << 20 };
struct question { struct nlmsghdr head; struct ndmsg about; struct rtattr attribute; uint8_t address[16]; };

int dispatch_open(struct engine *e) {
  struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_NEIGH};
  int bytes = RECEIVE_BUFFER;
  struct dispatch *d = e->dispatch = calloc(1, sizeof *d);
  if (!d) return -1;
  d->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (d->netlink < 0 || bind(d->netlink, (struct sockaddr *)&name, sizeof name)) return -1;
  setsockopt(d->netlink, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  return 0;
}

void dispatch_close(struct engine *e) {
  if (!e->dispatch) return;
  if (e->dispatch->netlink >= 0) close(e->dispatch->netlink);
  free(e->dispatch->servers);
  free(e->dispatch);
}

/* ---- interfaces ---- */

/* Its number and hardware address now; false: there is none, or it is none of Ethernet's kind. */
static bool look_up(struct dispatch_link *l) {
  struct ifreq r = {0};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  uint64_t mac = 0;
  memcpy(r.ifr_name, l->name, sizeof r.ifr_name);
  bool there = fd >= 0 && ioctl(fd, SIOCGIFINDEX, &r) == 0;
  int ifindex = r.ifr_ifindex;
  there = there && ioctl(fd, SIOCGIFHWADDR, &r) == 0 && r.ifr_hwaddr.sa_family == 1 /* ARPHRD_ETHER */;
  for (int i = 0; there && i < 6; i++) mac |= (uint64_t)(uint8_t)r.ifr_hwaddr.sa_data[i] << (56 - 8 * i);
  if (fd >= 0) close(fd);
  atomic_store(&l->ifindex, there ? ifindex : 0);
  atomic_store(&l->at, mac);
  return there;
}

/* 1 + its place; 0: there is no such interface, or no room. */
static uint32_t link_of(struct dispatch *d, const char *name) {
  uint32_t i = 0;
  while (i < d->n_links && strcmp(d->links[i].name, name) != 0) i++;
  if (i < d->n_links) return i + 1;
  if (i == DISPATCH_LINKS) return 0;
  snprintf(d->links[i].name, sizeof d->links[i].name, "%s", name);
  if (!look_up(&d->links[i])) return 0;
  d->n_links++;
  return i + 1;
}

/* ---- questions to the kernel ---- */

static void say(const struct dispatch *d, struct question *q, uint32_t bytes) {
  q->head.nlmsg_len = bytes;
  if (send(d->netlink, q, bytes, MSG_DONTWAIT) < 0) { /* no memory: again in a second */ }
}

static void use(const struct dispatch *d, uint64_t at, const struct ips_cluster_rec *c, const uint8_t *address) {
  uint16_t size = c->family == 4 ? 4 : 16;
  int ifindex = at & 0xffff ? atomic_load(&d->links[(at & 0xffff) - 1].ifindex) : 0;
  if (!ifindex) return;
  struct question q = {
    .head = {.nlmsg_type = RTM_NEWNEIGH, .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE},
    .about = {.ndm_family = c->family == 4 ? AF_INET : AF_INET6, .ndm_ifindex = ifindex, .ndm_flags = NTF_USE},
    .attribute = {.rta_type = NDA_DST, .rta_len = (uint16_t)RTA_LENGTH(size)},
  };
  memcpy(q.address, address, size);
  say(d, &q, (uint32_t)(offsetof(struct question, address) + size));
}

static void ask_for_all(const struct dispatch *d) {
  struct question q = {.head = {.nlmsg_type = RTM_GETNEIGH, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
  say(d, &q, NLMSG_LENGTH(sizeof q.about));
}

void dispatch_tick(struct engine *e) {
  struct dispatch *d = e->dispatch;
  const struct ips_ctl_dispatch *set = flows_dispatch_wanted(e->flows);
  if (!set || !set->n_clusters) return;
  for (uint32_t i = 0; i < d->n_links; i++) look_up(&d->links[i]);
  for (uint32_t i = 0; i < set->n_clusters; i++) {
    const struct ips_cluster_rec *c = &set->clusters[i].rec;
    for (uint32_t k = c->first_server; k < c->first_server + c->n_servers; k++) {
      uint32_t number = ips_sessions_number(e->flows->sessions, c->family, set->servers[k].address);
      if (number < d->addresses) use(d, atomic_load(&d->servers[number]), c, set->servers[k].address);
    }
  }
}

/* ---- what the kernel says ---- */

static void learn(struct engine *e, const struct nlmsghdr *m) {
  enum { KNOWN = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP };
  struct dispatch *d = e->dispatch;
  const struct ndmsg *about = NLMSG_DATA(m);
  uint8_t address[16] = {0};
  const uint8_t *mac = NULL;
  if (m->nlmsg_type != RTM_NEWNEIGH || m->nlmsg_len < NLMSG_LENGTH(sizeof *about) || !(about->ndm_state & KNOWN)) return;
  if (about->ndm_family != AF_INET && about->ndm_family != AF_INET6) return;
  size_t size = about->ndm_family == AF_INET ? 4 : 16;
  int left = (int)(m->nlmsg_len - NLMSG_LENGTH(sizeof *about));
  const struct rtattr *a = (const struct rtattr *)((const uint8_t *)about + NLMSG_ALIGN(sizeof *about));
  for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
    if (a->rta_type == NDA_DST && RTA_PAYLOAD(a) == size) memcpy(address, RTA_DATA(a), size);
    if (a->rta_type == NDA_LLADDR && RTA_PAYLOAD(a) == 6) mac = RTA_DATA(a);
  }
  if (!mac || !e->flows->sessions) return;
  uint32_t number = ips_sessions_number(e->flows->sessions, size == 4 ? 4 : 6, address);
  if (number >= d->addresses) return;
  uint64_t now = atomic_load(&d->servers[number]) & 0xffff;
  if (!now || atomic_load(&d->links[now - 1].ifindex) != about->ndm_ifindex) return;
  for (int i = 0; i < 6; i++) now |= (uint64_t)mac[i] << (56 - 8 * i);
  atomic_store_explicit(&d->servers[number], now, memory_order_release);
}

void dispatch_follow(struct engine *e) {
  static _Alignas(8) uint8_t in[32768];
  for (int i = 0; i < 64; i++) {
    ssize_t n = recv(e->dispatch->netlink, in, sizeof in, MSG_DONTWAIT);
    if (n < 0 && errno == ENOBUFS) ask_for_all(e->dispatch); /* some were lost */
    else if (n < 0 && errno != EINTR) return;
    uint32_t left = n < 0 ? 0 : (uint32_t)n;
    for (const struct nlmsghdr *m = (void *)in; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) learn(e, m);
  }
}

/* ---- set ---- */

/* Numbers of addresses, and so these places, come with the session table. */
static bool take_places(struct engine *e) {
  struct dispatch *d = e->dispatch;
  if (d->servers || !e->flows->sessions) return true;
  uint32_t n = ips_sessions_addresses(e->flows->sessions);
  d->servers = calloc(n, sizeof *d->servers);
  d->addresses = d->servers ? n : 0;
  return d->servers != NULL;
}

const char *dispatch_prepare(struct engine *e, const struct ips_ctl_dispatch *c) {
  struct dispatch *d = e->dispatch;
  if (!take_places(e)) return "out of memory";
  for (uint32_t i = 0; i < c->n_clusters; i++) {
    if (!memchr(c->clusters[i].interface, 0, sizeof d->links[0].name)) return "no interface has so long a name";
    if (!link_of(d, c->clusters[i].interface)) return "there is no such Ethernet interface for a cluster's servers";
  }
  return NULL;
}

/* After the set is the one in force: every server has a number, and its link. */
void dispatch_set(struct engine *e, const struct ips_ctl_dispatch *c) {
  struct dispatch *d = e->dispatch;
  for (uint32_t i = 0; i < c->n_clusters; i++) {
    const struct ips_cluster_rec *r = &c->clusters[i].rec;
    uint32_t link = link_of(d, c->clusters[i].interface);
    for (uint32_t k = r->first_server; k < r->first_server + r->n_servers; k++) {
      uint32_t number = ips_sessions_number(e->flows->sessions, r->family, c->servers[k].address);
      if (number < d->addresses && (atomic_load(&d->servers[number]) & 0xffff) != link)
        atomic_store(&d->servers[number], (uint64_t)link);
    }
  }
  if (!c->n_clusters) return;
  dispatch_tick(e);
  ask_for_all(d); /* what is resolved already makes no message of its own */
}

bool dispatch_mac(const struct engine *e, uint32_t number, uint8_t mac[6]) {
  const struct dispatch *d = e->dispatch;
  uint64_t at = number < d->addresses ? atomic_load(&d->servers[number]) : 0;
  for (int i = 0; i < 6; i++) mac[i] = (uint8_t)(at >> (56 - 8 * i));
  return at >> 16 != 0;
}
