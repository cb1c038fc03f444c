/* flows_net.c: the mirror's datagrams: one UDP socket for each path to each peer, read and written in
 * batches.
 *
 * Handshakes go round over all paths while the peer is heard on none; everything else takes the first path
 * that it was heard on lately. A path that cannot be opened now is tried again: links come and go. What the
 * kernel does not take is lost, as on any network: the mirror sends it again.
 */
#define _GNU_SOURCE
#include "../rt/rt_path.h"
#include "../ips_seal.h"
#include "flows_mirror.h"
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>

enum { MOST_BATCHES = 8, BUFFER = 4 << 20, CLASS_BULK = 0x28 }; /* AF11 (RFC 2597) */
#define RETRY_NS 500000000ull

static bool is_late(uint64_t at_ns, uint64_t now_ns) { return !at_ns || now_ns - at_ns >= FLOWS_SILENCE_NS; }

/* What a recording cannot be: a hello can, and so can the message that ended a handshake. */
static bool is_fresh(int result) { return result <= IPS_SEAL_KEEPALIVE_ || result == IPS_SEAL_OPENED_; }

static void open_path(struct flows_path *p, const struct ips_ctl_pair_path *rec, uint64_t now_ns) {
  int class = CLASS_BULK, priority = 0, buffer = BUFFER;
  if (p->fd >= 0 || now_ns < p->retry_ns) return;
  p->retry_ns = now_ns + RETRY_NS;
  p->fd = rt_path_open_shared(rec);
  if (p->fd < 0) return;
  setsockopt(p->fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority);
  setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  if (rec->family == 4) setsockopt(p->fd, IPPROTO_IP, IP_TOS, &class, sizeof class);
  else setsockopt(p->fd, IPPROTO_IPV6, IPV6_TCLASS, &class, sizeof class);
}

/* ---- out ---- */

static void flush(struct flows_batch *b) {
  for (uint32_t i = 0; i < b->n;) {
    int n = sendmmsg(b->fd, b->heads + i, b->n - i, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR && errno != ECONNREFUSED) break; /* refused: said once, of an earlier one */
    if (n > 0) i += (uint32_t)n;
  }
  b->n = 0;
}

static int socket_to(struct flows_peer *p, uint64_t now_ns) {
  for (uint32_t i = 0; i < p->n_paths; i++)
    if (p->paths[i].fd >= 0 && !is_late(p->paths[i].heard_ns, now_ns)) return p->paths[i].fd;
  for (uint32_t i = 0; i < p->n_paths; i++) /* handshakes: in turn, first where they were asked for */
    if (p->paths[i].fd >= 0 && !is_late(p->paths[i].asked_ns, now_ns)) {
      p->paths[i].asked_ns = 0;
      return p->paths[i].fd;
    }
  for (uint32_t i = 0; i < p->n_paths; i++) {
    int fd = p->paths[p->next_path++ % p->n_paths].fd;
    if (fd >= 0) return fd;
  }
  return -1;
}

static void emit(void *arg, uint32_t peer, const uint8_t *bytes, size_t len) {
  struct flows_mirror *m = arg;
  struct flows_batch *b = &m->out;
  int fd = socket_to(&m->peers[peer], flows_now_ns());
  if (fd < 0 || len > FLOWS_ROOM) return;
  if (b->n == FLOWS_BATCH || (b->n && b->fd != fd)) flush(b);
  b->fd = fd;
  memcpy(b->bytes[b->n], bytes, len);
  b->parts[b->n] = (struct iovec){b->bytes[b->n], len};
  b->heads[b->n] = (struct mmsghdr){.msg_hdr = {.msg_iov = &b->parts[b->n], .msg_iovlen = 1}};
  b->n++;
  m->busy_until_ns = flows_now_ns() + 5000000;
}

void flows_net_tick(struct flows_mirror *m, uint64_t now_ns) {
  for (uint32_t p = 0; p < m->set.n_peers; p++)
    for (uint32_t i = 0; i < m->peers[p].n_paths; i++)
      open_path(&m->peers[p].paths[i], &m->set.peers[p].paths[i], now_ns);
  ips_mirror_tick(m->core, now_ns, emit, m);
  if (m->out.n) flush(&m->out);
}

/* ---- in ---- */

/* How many came; less than a batch: there are no more. */
static uint32_t receive(struct flows_mirror *m, uint32_t peer, struct flows_path *path) {
  struct flows_batch *b = &m->in;
  for (uint32_t i = 0; i < FLOWS_BATCH; i++) {
    b->parts[i] = (struct iovec){b->bytes[i], FLOWS_ROOM};
    b->heads[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &b->parts[i], .msg_iovlen = 1}};
  }
  int n = recvmmsg(path->fd, b->heads, FLOWS_BATCH, MSG_DONTWAIT, NULL);
  if (n < 0) return errno == ECONNREFUSED || errno == EINTR ? FLOWS_BATCH : 0; /* said once: look again */
  uint64_t now = flows_now_ns();
  for (int i = 0; i < n; i++) {
    if (b->heads[i].msg_hdr.msg_flags & MSG_TRUNC) {
      m->peers[peer].too_long++;
      continue;
    }
    int result = ips_mirror_input(m->core, peer, b->bytes[i], b->heads[i].msg_len, now);
    if (is_fresh(result)) path->heard_ns = now;
    else if (result < IPS_SEAL_SHORT_) path->asked_ns = now;
  }
  return (uint32_t)n;
}

bool flows_net_receive(struct flows_mirror *m) {
  bool any = false;
  for (uint32_t p = 0; p < m->set.n_peers; p++)
    for (uint32_t i = 0; i < m->peers[p].n_paths; i++) {
      struct flows_path *path = &m->peers[p].paths[i];
      uint32_t n = FLOWS_BATCH;
      for (unsigned k = 0; path->fd >= 0 && n == FLOWS_BATCH && k < MOST_BATCHES; k++) {
        n = receive(m, p, path);
        any |= n != 0;
      }
    }
  if (any) m->busy_until_ns = flows_now_ns() + 5000000;
  return any;
}

uint32_t flows_net_poll(const struct flows_mirror *m, struct pollfd *fds) {
  uint32_t n = 0;
  for (uint32_t p = 0; p < m->set.n_peers; p++)
    for (uint32_t i = 0; i < m->peers[p].n_paths; i++)
      if (m->peers[p].paths[i].fd >= 0)
        fds[n++] = (struct pollfd){.fd = m->peers[p].paths[i].fd, .events = POLLIN};
  return n;
}

void flows_net_close(struct flows_mirror *m) {
  for (uint32_t p = 0; p < IPS_CTL_MIRROR_PEERS; p++)
    for (uint32_t i = 0; i < IPS_CTL_PAIR_PATHS; i++) {
      if (m->peers[p].paths[i].fd >= 0) close(m->peers[p].paths[i].fd);
      m->peers[p].paths[i].fd = -1;
    }
}
