/* natlog_host.c: the thread of NAT logs with real collectors on loopback, IPFIX by IPv4 and syslog by IPv6.
 *
 * Two threads open and end sessions; both collectors hear of every one; a collector that is not there is
 * counted and hinders nobody; the same order again changes nothing, another one begins anew. With SAN=thread also:
 * no data race.
 */
#define _GNU_SOURCE
#include "../natlog/natlog.h"
#include "check.h"
#include "ips_napt_api.h"
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS = 2, EACH = 200, HEARD = 2 * THREADS * EACH }; /* each session begins and ends */

static struct ips_sessions *table;

static void *work(void *arg) {
  uint32_t me = (uint32_t)(uintptr_t)arg;
  for (uint32_t i = 0; i < EACH; i++) {
    struct ips_session_rec r = {.flow = {.src = {10, 0, 0, 1}, .dst = {198, 51, 100, 1}, .family = 4, .proto = 17,
                                         .src_port = (uint16_t)(1000 * (me + 1) + i), .dst_port = 53, .realm = 1},
                                .mapped = {203, 0, 113, 0}, .mapped_port = (uint16_t)(5000 * (me + 1) + i),
                                .kind = IPS_SESSION_NAPT, .state = IPS_STATE_OPEN, .version = 1};
    CHECK(ips_sessions_apply(table, me, IPS_SESSION_UPSERT, &r, 1, NULL) == IPS_APPLIED);
    CHECK(ips_sessions_close(table, me, &r.flow, 1) == 1);
  }
  return NULL;
}

static int collector(int family, uint16_t *port) {
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval patience = {.tv_sec = 30};
  int buffer = 1 << 21, fd = socket(family, SOCK_DGRAM, 0);
  socklen_t size = family == AF_INET ? sizeof four : sizeof six;
  struct sockaddr *at = family == AF_INET ? (void *)&four : (void *)&six;
  CHECK(fd >= 0 && !bind(fd, at, size) && !getsockname(fd, at, &size));
  CHECK(!setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer));
  CHECK(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience));
  *port = ntohs(family == AF_INET ? four.sin_port : six.sin6_port);
  return fd;
}

/* Data records in a message, of the four kinds that come here. */
static uint32_t records_in(const uint8_t *p, size_t n) {
  uint32_t count = 0;
  for (size_t at = 16, bytes; at + 4 <= n; at += bytes) {
    unsigned id = p[at] << 8 | p[at + 1];
    bytes = (size_t)p[at + 2] << 8 | p[at + 3];
    CHECK(bytes >= 4);
    if (id == 258) count += (uint32_t)(bytes - 4) / 72;
    if (id == 260) count += (uint32_t)(bytes - 4) / 27;
  }
  return count;
}

int main(void) {
  struct ips_sessions_config sc = {.sessions = 1000, .half_open = 10, .now_ns = 1};
  struct ips_napt_pool_rec pool = {.first = {203, 0, 113, 0}, .n = 1, .realm = 1, .family = 4};
  struct ips_napt_config nc = {.pools = &pool, .n_pools = 1};
  struct ips_ctl_natlog c = {.what = IPS_NATLOG_SESSIONS | IPS_NATLOG_MAPPINGS, .template_s = 600, .n_targets = 3,
                             .host = "node"};
  struct ips_ctl_natlog_state state;
  const char *sentence;
  uint16_t ports[3];
  int fds[3] = {collector(AF_INET, &ports[0]), collector(AF_INET6, &ports[1]), collector(AF_INET, &ports[2])};
  close(fds[2]); /* nobody is there */
  for (unsigned i = 0; i < 3; i++)
    c.targets[i] = (struct ips_ctl_natlog_target){.port = ports[i], .family = i == 1 ? 6 : 4, .facility = 16,
                                                  .format = i ? IPS_CTL_NATLOG_SYSLOG : IPS_CTL_NATLOG_IPFIX};
  memcpy(c.targets[0].address, (uint8_t[]){127, 0, 0, 1}, 4);
  memcpy(c.targets[2].address, (uint8_t[]){127, 0, 0, 1}, 4);
  c.targets[1].address[15] = 1;

  struct natlog *n = natlog_create(THREADS);
  table = ips_sessions_new(&sc);
  struct ips_napt *napt = ips_napt_new(table, NULL, &nc);
  CHECK(n && table && napt);
  natlog_attach(n, table);
  CHECK(natlog_set(n, &c, &sentence) == IPS_CTL_OK && natlog_set(n, &c, &sentence) == IPS_CTL_OK);
  pthread_t threads[THREADS];
  for (uintptr_t i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, work, (void *)i));
  for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);

  char b[2048];
  uint32_t heard = 0, lines = 0; /* a session of a peer's word ends here: no beginning, and its mapping's end */
  while (heard < HEARD) {
    ssize_t bytes = recv(fds[0], b, sizeof b, 0);
    CHECK(bytes > 16);
    heard += records_in((const uint8_t *)b, (size_t)bytes);
  }
  for (; lines < HEARD; lines++) {
    ssize_t bytes = recv(fds[1], b, sizeof b - 1, 0);
    CHECK(bytes > 0);
    b[bytes] = 0;
    CHECK(!strncmp(b, "<134>1 ", 7) && strstr(b, " node ipshare ") && strstr(b, "-DELETE - realm=1 proto=17"));
  }
  do natlog_state(n, &state);
  while (state.targets[2].unsent + state.targets[2].datagrams < HEARD); /* of a pair of refusals one is a retry */
  CHECK(state.records == HEARD && !state.lost && state.targets[2].last_errno);
  CHECK(state.targets[1].datagrams == HEARD && !state.targets[0].unsent && !state.targets[1].unsent);

  struct ips_ctl_natlog bad = c;
  bad.targets[1].family = 5;
  CHECK(natlog_set(n, &bad, &sentence) == IPS_CTL_BAD_ARGUMENT && sentence);
  bad = c;
  memset(bad.host, 'x', sizeof bad.host);
  CHECK(natlog_set(n, &bad, &sentence) == IPS_CTL_BAD_ARGUMENT);
  bad = c;
  bad.n_targets = 9;
  CHECK(natlog_set(n, &bad, &sentence) == IPS_CTL_BAD_ARGUMENT);
  c.n_targets = 0;
  CHECK(natlog_set(n, &c, &sentence) == IPS_CTL_OK);
  natlog_state(n, &state);
  CHECK(state.n_targets == 0);
  ips_napt_free(napt);
  ips_sessions_set_log(table, NULL);
  ips_sessions_free(table);
  natlog_destroy(n);
  printf("%u events in IPFIX, %u in syslog\n", heard, lines);
  return 0;
}
