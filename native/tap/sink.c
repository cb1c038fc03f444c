/* sink.c: sends or writes the packets of one tap. Runs in the tap thread only, except
 * sink_open, which the main thread calls before the tap exists. */
#define _GNU_SOURCE
#include "sink.h"
#include "../ips_parse.h"
#include "tap.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum { VXLAN_PORT = 4789, SEND_BUFFER = 1 << 22, LAST_CHANCE_MS = 2000, SMALLEST_BLOCK = 80 };
struct vxlan_frame { uint8_t vxlan[8]; struct ether_header ethernet; } __attribute__((packed));

static int open_file(struct sink *s, int fd, const struct tap_host *host, const char **sentence) {
  struct stat st;
  int mode = fcntl(fd, F_GETFL);
  s->fd = fd;
  *sentence = "a file or pipe, open for writing, has to come with the request";
  if (mode < 0 || (mode & O_ACCMODE) == O_RDONLY || fstat(fd, &st)) return EBADF;
  if (S_ISFIFO(st.st_mode)) { /* O_NONBLOCK belongs to the open file, the client's: take one of our own */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    s->fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    *sentence = "the pipe cannot be opened for writing: has it a reader?";
    if (s->fd < 0) return errno;
    close(fd);
  } else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode)) {
    return EBADF;
  }
  s->buffer = malloc(SINK_BUFFER);
  *sentence = "no memory for the file's buffer";
  if (!s->buffer) return ENOMEM;
  s->used = (uint32_t)pcapng_header(s->buffer, SINK_BUFFER, host->device, host->application);
  return 0;
}

static int open_interface(struct sink *s, const char **sentence) {
  static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255}, none[6];
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_halen = 6};
  to.sll_ifindex = (int)if_nametoindex(s->rule.interface);
  *sentence = "no such network interface";
  if (!to.sll_ifindex) return ENODEV;
  memcpy(to.sll_addr, memcmp(s->rule.mac, none, 6) ? s->rule.mac : broadcast, 6);
  memcpy(&s->to, &to, sizeof to);
  s->to_bytes = sizeof to;
  s->fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  *sentence = "no permission to send packets on an interface: the engine needs CAP_NET_RAW";
  return s->fd < 0 ? errno : 0;
}

static int open_collector(struct sink *s, const char **sentence) {
  uint16_t port = htons(s->rule.collector_port ? s->rule.collector_port : VXLAN_PORT);
  bool v4 = s->rule.collector_family == 4;
  if (v4) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = port};
    memcpy(&to.sin_addr, s->rule.collector, 4);
    memcpy(&s->to, &to, s->to_bytes = sizeof to);
  } else {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = port};
    memcpy(&to.sin6_addr, s->rule.collector, 16);
    memcpy(&s->to, &to, s->to_bytes = sizeof to);
  }
  s->fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  *sentence = "the collector has no route from here";
  if (s->fd < 0) return errno;
  int fragment_freely = IP_PMTUDISC_DONT; /* a copy of a full-sized packet is larger than the link */
  if (v4) setsockopt(s->fd, IPPROTO_IP, IP_MTU_DISCOVER, &fragment_freely, sizeof fragment_freely);
  return connect(s->fd, (struct sockaddr *)&s->to, s->to_bytes) ? errno : 0;
}

int sink_open(struct sink *s, const struct ips_ctl_tap *rule, int fd, const struct tap_host *host,
              const char **sentence) {
  *s = (struct sink){.rule = *rule, .fd = -1};
  int error;
  switch (rule->target) {
    case IPS_TAP_FILE: error = open_file(s, fd, host, sentence); break;
    case IPS_TAP_INTERFACE: error = open_interface(s, sentence); break;
    default: error = open_collector(s, sentence); break;
  }
  int bytes = SEND_BUFFER;
  if (!error && rule->target != IPS_TAP_FILE) setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  if (error) sink_close(s);
  return error;
}

static void lost(struct sink *s, int error) {
  atomic_fetch_add(&s->lost, 1);
  atomic_store(&s->last_errno, (uint32_t)error);
}

static void delivered(struct sink *s, uint32_t bytes) {
  atomic_fetch_add(&s->packets, 1);
  atomic_fetch_add(&s->bytes, bytes);
}

static uint32_t truncated(const struct sink *s, uint32_t bytes) {
  return s->rule.snaplen && s->rule.snaplen < bytes ? s->rule.snaplen : bytes;
}

bool sink_flush(struct sink *s) {
  while (s->used) {
    ssize_t n = write(s->fd, s->buffer, s->used);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      atomic_store(&s->last_errno, n < 0 ? (uint32_t)errno : (uint32_t)EIO);
      return false;
    }
    s->used -= (uint32_t)n;
    memmove(s->buffer, s->buffer + n, s->used);
  }
  s->waiting = 0;
  return true;
}

void sink_finish(struct sink *s) {
  uint64_t deadline = tap_clock_ns(CLOCK_BOOTTIME) + LAST_CHANCE_MS * 1000000ull, now;
  while (!sink_flush(s) && atomic_load(&s->last_errno) == EAGAIN &&
         (now = tap_clock_ns(CLOCK_BOOTTIME)) < deadline) {
    struct pollfd reader = {.fd = s->fd, .events = POLLOUT};
    poll(&reader, 1, (int)((deadline - now) / 1000000) + 1);
  }
  uint32_t whole = s->used ? s->used / SMALLEST_BLOCK + 1 : 0; /* packets that may be in the buffer, at most */
  uint32_t missing = s->waiting < whole ? s->waiting : whole;
  atomic_fetch_sub(&s->packets, missing);
  atomic_fetch_add(&s->lost, missing);
  sink_close(s);
}

static void to_file(struct sink *s, const struct tap_record *r) {
  uint32_t kept = truncated(s, r->kept);
  size_t n = pcapng_packet(s->buffer + s->used, SINK_BUFFER - s->used, r, r->data, kept);
  if (!n) {
    sink_flush(s);
    n = pcapng_packet(s->buffer + s->used, SINK_BUFFER - s->used, r, r->data, kept);
  }
  if (!n) {
    lost(s, (int)atomic_load(&s->last_errno));
    return;
  }
  s->used += (uint32_t)n;
  s->waiting++;
  delivered(s, kept);
}

/* RFC 7348: VNI, then an Ethernet frame. The source address tells the device it was seen on. */
static struct vxlan_frame vxlan_header(uint32_t vni, uint8_t side, bool v4) {
  struct vxlan_frame f = {
    .vxlan = {0x08, 0, 0, 0, (uint8_t)(vni >> 16), (uint8_t)(vni >> 8), (uint8_t)vni, 0},
    .ethernet = {.ether_dhost = {2, 0, 0, 0, 0, 0xff},
                 .ether_shost = {2, 0, 0, 0, 0, side},
                 .ether_type = htons(v4 ? ETHERTYPE_IP : ETHERTYPE_IPV6)}};
  return f;
}

struct sending { struct sink *sink; uint8_t side; };

static void transmit(void *arg, struct ips_pkt *p) {
  struct sink *s = ((struct sending *)arg)->sink;
  uint32_t kept = truncated(s, p->len);
  bool v4 = p->data[0] >> 4 == 4;
  struct vxlan_frame frame = vxlan_header(s->rule.vni, ((struct sending *)arg)->side, v4);
  struct sockaddr_storage to = s->to; /* its alignment suits every kind */
  struct iovec parts[2] = {{&frame, sizeof frame}, {p->data, kept}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  if (s->rule.target == IPS_TAP_INTERFACE) {
    ((struct sockaddr_ll *)&to)->sll_protocol = frame.ethernet.ether_type;
    message = (struct msghdr){.msg_name = &to, .msg_namelen = s->to_bytes, .msg_iov = parts + 1,
                              .msg_iovlen = 1};
  }
  if (sendmsg(s->fd, &message, MSG_NOSIGNAL) < 0) lost(s, errno);
  else delivered(s, kept);
}

static struct ips_pkt as_packet(struct tap_record *r) {
  return (struct ips_pkt){.data = r->data, .len = r->kept, .total_len = r->length, .gso_size = r->gso_size,
                          .gso_type = r->gso_type, .csum = r->csum, .csum_start = r->csum_start,
                          .csum_offset = r->csum_offset, .counter = r->cell, .endpoint = IPS_NONE};
}

static void to_network(struct sink *s, struct tap_record *r) {
  static uint8_t scratch[2 * 65536]; /* the tap thread's */
  struct ips_pkt p = as_packet(r);
  struct ips_view view;
  struct sending sending = {s, r->side};
  if (!p.gso_type) {
    transmit(&sending, &p);
    return;
  }
  if (ips_parse(&p, &view) != IPS_OK ||
      ips_segment(&p, &view, scratch, sizeof scratch, 0, transmit, &sending) != IPS_OK)
    lost(s, EPROTO);
}

void sink_packet(struct sink *s, struct tap_record *r) {
  struct ips_pkt p = as_packet(r);
  /* Whoever reads copies expects complete checksums. Those of super-packets are made with the segments. */
  if (!p.gso_type && p.csum == IPS_CSUM_PARTIAL && r->kept == r->length && ips_complete_csum(&p) == IPS_OK)
    r->csum = IPS_CSUM_FULL;
  if (s->rule.target == IPS_TAP_FILE) to_file(s, r);
  else to_network(s, r);
}

void sink_close(struct sink *s) {
  if (s->fd >= 0) close(s->fd);
  free(s->buffer);
  s->fd = -1;
  s->buffer = NULL;
  s->used = 0;
}
