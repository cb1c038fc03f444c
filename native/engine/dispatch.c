/* dispatch.c: a packet leaves for its server: destination hardware address the server's, source ours, nothing else.
 *
 * The socket receives nothing (protocol 0) and never waits; what it refuses is counted, for the thread and for the
 * server.
 */
#define _GNU_SOURCE
#include "dispatch.h"
#include "vnet.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { ETHERNET = 14, BEFORE = VNET_BYTES + ETHERNET, SEND_BUFFER = 4 << 20 };

int dispatch_socket(void) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, bytes = SEND_BUFFER;
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

static void unsent(struct worker *w, uint32_t server, int error) {
  flows_dispatch_unsent(w->engine->flows, w->index, server);
  ADD(w->stat->tx_refused[w->side], 1);
  if (error) __atomic_store_n(&w->stat->tx_errno, (uint64_t)error, __ATOMIC_RELAXED);
}

static void put_mac(uint8_t *out, uint64_t mac) {
  for (int i = 0; i < 6; i++) out[i] = (uint8_t)(mac >> (56 - 8 * i));
}

/* The virtio-net header of a frame: what it says of a packet, an Ethernet header further on. */
static struct virtio_net_hdr frame_header(const struct ips_pkt *p) {
  struct virtio_net_hdr h = vnet_out(p);
  if (h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) h.csum_start = (uint16_t)(h.csum_start + ETHERNET);
  if (h.gso_type) h.hdr_len = (uint16_t)(h.hdr_len + ETHERNET);
  return h;
}

void dispatch_send(struct worker *w, struct ips_pkt *p) {
  const struct dispatch *d = w->engine->dispatch;
  uint32_t server = p->server;
  uint64_t to = server <= d->addresses ? atomic_load_explicit(&d->servers[server - 1], memory_order_acquire) : 0;
  uint32_t number = to & 0xffff;
  const struct dispatch_link *link = number ? &d->links[number - 1] : NULL;
  uint64_t from = link ? atomic_load_explicit(&link->at, memory_order_acquire) : 0;
  if (!(to >> 16) || !from || w->packet_fd < 0) return unsent(w, server, 0);
  uint8_t head[BEFORE];
  struct virtio_net_hdr h = frame_header(p);
  uint16_t type = htons(p->data[0] >> 4 == 4 ? ETH_P_IP : ETH_P_IPV6);
  memcpy(head, &h, VNET_BYTES);
  put_mac(head + VNET_BYTES, to);
  put_mac(head + VNET_BYTES + 6, from);
  memcpy(head + VNET_BYTES + 12, &type, sizeof type);
  struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = type, .sll_halen = 6,
                             .sll_ifindex = atomic_load_explicit(&link->ifindex, memory_order_relaxed)};
  struct iovec parts[2] = {{head, BEFORE}, {p->data, p->len}};
  struct msghdr message = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = parts, .msg_iovlen = 2};
  if (sendmsg(w->packet_fd, &message, MSG_DONTWAIT) < 0) return unsent(w, server, errno);
  ADD(w->stat->tx_packets[w->side], 1);
  ADD(w->stat->tx_bytes[w->side], p->len);
}
