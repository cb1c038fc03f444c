/* natlog_send.c: records to datagrams, datagrams to collectors.
 *
 * All IPFIX collectors get the same messages, so one sequence number serves them; a message that could not
 * be sent shows there as a gap. Syslog has no such number: its losses are said in a line of their own.
 * A send that the system refuses is tried once more (the refusal may be an ICMP error about an earlier one, or a
 * full buffer, which gets some milliseconds) and then counted.
 */
#define _GNU_SOURCE
#include "natlog_send.h"
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 21, PATIENCE_MS = 5 };

static uint64_t clock_of(clockid_t which) {
  struct timespec t;
  clock_gettime(which, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int natlog_open(const struct ips_ctl_natlog_target *t) {
  int buffer = BUFFER, family = t->family == 6 ? AF_INET6 : AF_INET;
  int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer); /* less is no error */
  return fd;
}

/* Connected, so that the system tells of a collector that is not there. The route may come later than we. */
static bool is_connected(struct natlog_target *t, const struct ips_ctl_natlog_target *to) {
  struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(to->port)};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(to->port)};
  memcpy(&in4.sin_addr, to->address, 4);
  memcpy(&in6.sin6_addr, to->address, 16);
  const struct sockaddr *address = to->family == 6 ? (const void *)&in6 : (const void *)&in4;
  if (!t->connected) t->connected = !connect(t->fd, address, to->family == 6 ? sizeof in6 : sizeof in4);
  return t->connected;
}

/* Sends the n datagrams that are in n->bytes. */
static void send_all(struct natlog *n, struct natlog_target *t, unsigned count) {
  if (!is_connected(t, &n->config.targets[t - n->targets])) {
    t->sent.last_errno = errno;
    t->sent.unsent += count;
    return;
  }
  struct mmsghdr messages[NATLOG_BATCH] = {0};
  struct iovec parts[NATLOG_BATCH];
  for (unsigned i = 0; i < count; i++) {
    parts[i] = (struct iovec){n->bytes[i], n->sizes[i]};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
  }
  bool again = false;
  for (unsigned at = 0; at < count;) {
    int sent = sendmmsg(t->fd, messages + at, count - at, 0);
    if (sent > 0) {
      t->sent.datagrams += (unsigned)sent;
      at += (unsigned)sent;
      again = false;
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    t->sent.last_errno = errno;
    struct pollfd wait = {.fd = t->fd, .events = POLLOUT};
    if (!again && errno == EAGAIN) poll(&wait, 1, PATIENCE_MS);
    if (again) {
      t->sent.unsent++;
      at++;
    }
    again = !again;
  }
}

static void to_format(struct natlog *n, unsigned format, unsigned count) {
  for (uint32_t i = 0; i < n->config.n_targets; i++)
    if (n->config.targets[i].format == format) send_all(n, &n->targets[i], count);
}

static bool has(const struct natlog *n, unsigned format) {
  for (uint32_t i = 0; i < n->config.n_targets; i++)
    if (n->config.targets[i].format == format) return true;
  return false;
}

static void ipfix(struct natlog *n, size_t count, uint64_t lost, uint64_t now_ns, uint64_t unix_ns) {
  unsigned made = 0;
  size_t used;
  for (size_t at = 0;; at += used) {
    size_t bytes = ips_ipfix_message(&n->ipfix, n->records + at, count - at, &used, lost, now_ns, unix_ns,
                                     n->bytes[made], NATLOG_DATAGRAM);
    if (!bytes) break;
    n->sizes[made++] = bytes;
    if (made == NATLOG_BATCH) break; /* cannot be: one record fits into each */
  }
  to_format(n, IPS_CTL_NATLOG_IPFIX, made);
}

static void syslog_losses(struct natlog *n, uint64_t lost, uint64_t unix_ns) {
  for (uint32_t i = 0; i < n->config.n_targets; i++) {
    struct natlog_target *t = &n->targets[i];
    if (n->config.targets[i].format != IPS_CTL_NATLOG_SYSLOG || lost + t->sent.unsent == t->lost_told) continue;
    t->lost_told = lost + t->sent.unsent;
    n->syslog.facility = n->config.targets[i].facility;
    n->sizes[0] = ips_syslog_lost(&n->syslog, t->lost_told, unix_ns, (char *)n->bytes[0], NATLOG_DATAGRAM);
    send_all(n, t, 1);
  }
}

/* Once for each facility: the lines of a target differ in nothing else. */
static void syslog(struct natlog *n, size_t count, uint64_t now_ns, uint64_t unix_ns) {
  for (uint32_t i = 0; i < n->config.n_targets; i++) {
    if (n->config.targets[i].format != IPS_CTL_NATLOG_SYSLOG) continue;
    unsigned made = 0;
    n->syslog.facility = n->config.targets[i].facility;
    for (size_t r = 0; r < count; r++) {
      size_t bytes = ips_syslog_line(&n->syslog, &n->records[r], now_ns, unix_ns, (char *)n->bytes[made],
                                     NATLOG_DATAGRAM);
      if (bytes) n->sizes[made++] = bytes;
    }
    send_all(n, &n->targets[i], made);
  }
}

void natlog_turn(struct natlog *n) {
  struct ips_natlog_stats stats;
  size_t count;
  do {
    count = ips_natlog_take(n->rings, n->records, NATLOG_BATCH);
    n->taken += count;
    ips_natlog_stats(n->rings, &stats);
    uint64_t now_ns = clock_of(CLOCK_BOOTTIME), unix_ns = clock_of(CLOCK_REALTIME);
    if (has(n, IPS_CTL_NATLOG_IPFIX)) ipfix(n, count, stats.lost, now_ns, unix_ns);
    syslog(n, count, now_ns, unix_ns);
    syslog_losses(n, stats.lost, unix_ns);
  } while (count == NATLOG_BATCH);
}
