/* load.c: connections to one address that is served at two places; clients and servers in one process.
 * Compiled when it is used, never installed.
 *
 *   load CLIENT CLIENT SERVER SERVER ADDRESS4 ADDRESS6 KEPT FLOWS RATE PERIOD_MS    first: network namespaces
 *
 * "begin" opens KEPT connections and FLOWS flows of UDP, half of each family, spread over the clients; each
 * says MESSAGE bytes every PERIOD_MS and wants them back, each byte as it was sent; after "hush" they say
 * nothing new, and "close" ends them as their clients would. RATE more connections are opened each second, all
 * the time: one speaks at once, lives a second, speaks again and is closed by its client. A server's first
 * byte, and each of its datagrams, says which server it is. Broken: reset, closed by the server, or silent for
 * PATIENCE; a flow that another server answers has moved. Further commands on stdin: "rate N", "report",
 * "quit"; each has an answer of JSON. Times: CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 8, FIRST_PORT = 7200, MESSAGE = 600, MOST_UNDER_WAY = 4 * MESSAGE, DATAGRAM = 200,
       EVENTS = 256, MOST_AT_ONCE = 64, PLACES = 2, UNKNOWN = 255, PATTERN = 65536 };
#define SECOND 1000000000ull
#define PATIENCE (10 * SECOND)

enum kind { LISTENER, SERVED, ECHO, KEPT, SHORT, FLOW, COMMANDS };
struct end {
  int fd;
  enum kind kind;
  bool is_open, is_dead;
  uint8_t family, server;             /* server: which one this is, or has answered */
  uint32_t seed, sent, back;          /* bytes of the stream; datagrams */
  uint64_t begun_ns, waits_ns;        /* waits_ns: since when an answer is awaited; 0: none is */
  struct end *before, *after;         /* short ones, the oldest first */
};

static struct {
  uint64_t opened, established, done, refused, unanswered, broken, skipped, live;
  uint64_t kept, kept_open, kept_reset, kept_silent, corrupted, echoes, slowest_ns;
  uint64_t flows, flows_known, flows_moved, datagrams, answers;
} count;
static uint64_t latest[2][PLACES]; /* by family, server: when the last one that it accepted was begun */
static struct end oldest = {.before = &oldest, .after = &oldest}, *dead[EVENTS * 4];
static struct sockaddr_storage there[2];
static struct end **held;
static uint8_t pattern[PATTERN + MESSAGE];
static int client_nets[PLACES], loop;
static unsigned n_kept, n_flows, n_held, n_dead, rate;
static uint64_t period_ns;
static bool is_begun, is_hushed;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void broken(const char *what) {
  perror(what);
  exit(1);
}

static int net_of(const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) broken(name);
  return fd;
}

static void enter(int net) {
  if (setns(net, CLONE_NEWNET)) broken("setns");
}

static struct sockaddr_storage at(const struct sockaddr_storage *a, unsigned port) {
  struct sockaddr_storage out = *a;
  if (a->ss_family == AF_INET) ((struct sockaddr_in *)&out)->sin_port = htons((uint16_t)port);
  else ((struct sockaddr_in6 *)&out)->sin6_port = htons((uint16_t)port);
  return out;
}

static struct end *watch(int fd, enum kind kind, uint32_t events) {
  struct end *e = calloc(1, sizeof *e);
  if (!e) broken("memory");
  *e = (struct end){.fd = fd, .kind = kind, .server = UNKNOWN, .begun_ns = now()};
  struct epoll_event want = {.events = events, .data.ptr = e};
  if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &want)) broken("epoll_ctl");
  return e;
}

/* Freed after the events in hand, which may name it. */
static void drop(struct end *e) {
  if (e->is_dead) return;
  e->is_dead = true;
  close(e->fd);
  if (e->before) e->before->after = e->after, e->after->before = e->before;
  if (n_dead == sizeof dead / sizeof *dead) broken("too many ends at once");
  dead[n_dead++] = e;
}

static void bury(void) {
  while (n_dead) free(dead[--n_dead]);
}

/* ---- clients ---- */

static struct end *open_one(enum kind kind, unsigned number) {
  static uint32_t serial;
  unsigned family = number & 1;
  enter(client_nets[number / 2 % PLACES]);
  int type = kind == FLOW ? SOCK_DGRAM : SOCK_STREAM, on = 1;
  int fd = socket(there[family].ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) broken("socket");
  if (kind != FLOW) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct sockaddr_storage to = at(&there[family], FIRST_PORT + number / 4 % PORTS);
  uint64_t begun_ns = now(); /* before its SYN leaves: nobody knows when this process goes on */
  if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
    count.refused++;
    close(fd);
    return NULL;
  }
  struct end *e = watch(fd, kind, kind == FLOW ? EPOLLIN : EPOLLIN | EPOLLOUT);
  e->family = (uint8_t)family;
  e->begun_ns = begun_ns;
  e->seed = serial++ * 2654435761u;
  if (kind != SHORT) return e;
  e->before = oldest.before, e->after = &oldest;
  oldest.before->after = e, oldest.before = e;
  count.opened++;
  return e;
}

static void ended(struct end *e, bool is_silent) {
  if (e->kind == SHORT) {
    if (e->is_open) count.live--, count.broken++;
    else is_silent ? count.unanswered++ : count.refused++;
  } else if (e->kind == KEPT) {
    if (e->is_open) count.kept_open--;
    is_silent ? count.kept_silent++ : count.kept_reset++;
    for (unsigned i = 0; i < n_held; i++)
      if (held[i] == e) held[i] = NULL;
  }
  drop(e);
}

static void speak(struct end *e, uint64_t at_ns) {
  if (e->kind == FLOW) {
    uint8_t said[DATAGRAM];
    memcpy(said, &e->sent, 4);
    memcpy(said + 4, pattern + ((e->seed + e->sent) & (PATTERN - 1)), sizeof said - 4);
    if (send(e->fd, said, sizeof said, 0) == (ssize_t)sizeof said) count.datagrams++, e->sent++;
    return;
  }
  if (e->sent - e->back > MOST_UNDER_WAY - MESSAGE) return;
  ssize_t n = send(e->fd, pattern + ((e->seed + e->sent) & (PATTERN - 1)), MESSAGE, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN) return ended(e, false);
  if (n > 0) e->sent += (uint32_t)n, e->waits_ns = e->waits_ns ? e->waits_ns : at_ns;
}

static void connected(struct end *e) {
  int error = 0;
  socklen_t n = sizeof error;
  struct epoll_event want = {.events = EPOLLIN, .data.ptr = e};
  getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &n);
  if (error) return ended(e, error == ETIMEDOUT);
  e->is_open = true;
  if (e->kind == KEPT) count.kept_open++;
  else count.established++, count.live++;
  epoll_ctl(loop, EPOLL_CTL_MOD, e->fd, &want);
  speak(e, now());
}

static void answered_by(struct end *e, uint8_t server) {
  if (server >= PLACES) {
    count.corrupted++;
    return;
  }
  e->server = server;
  if (e->begun_ns > latest[e->family][server]) latest[e->family][server] = e->begun_ns;
}

static void heard(struct end *e) {
  uint8_t room[MOST_UNDER_WAY + 1], *said = room;
  ssize_t n = recv(e->fd, room, sizeof room, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) return ended(e, n < 0 && errno == ETIMEDOUT);
  if (e->server == UNKNOWN) answered_by(e, *said++), n--;
  for (ssize_t i = 0; i < n; i++)
    count.corrupted += said[i] != pattern[(e->seed + e->back + (uint32_t)i) & (PATTERN - 1)];
  e->back += (uint32_t)n;
  if (e->back > e->sent) count.corrupted++;
  uint64_t at_ns = now(), took = e->waits_ns ? at_ns - e->waits_ns : 0;
  if (took > count.slowest_ns) count.slowest_ns = took;
  e->waits_ns = e->back == e->sent ? 0 : at_ns; /* the longest silence counts, not the longest stream */
  if (e->back != e->sent) return;
  count.echoes++;
  if (e->kind == SHORT && e->sent > MESSAGE) count.done++, count.live--, drop(e);
}

static void datagram(struct end *e) {
  uint8_t said[DATAGRAM + 2];
  for (ssize_t n; (n = recv(e->fd, said, sizeof said, MSG_DONTWAIT)) >= 0;) {
    uint32_t number;
    memcpy(&number, said + 1, 4);
    if (n != DATAGRAM + 1 || number >= e->sent || said[0] >= PLACES ||
        memcmp(said + 5, pattern + ((e->seed + number) & (PATTERN - 1)), DATAGRAM - 4)) {
      count.corrupted++;
      continue;
    }
    count.answers++;
    if (e->server == UNKNOWN) e->server = said[0], count.flows_known++;
    else if (e->server != said[0] && !e->is_open) e->is_open = true, count.flows_moved++; /* counted once */
  }
}

/* ---- servers ---- */

static void serve(struct end *e) {
  uint8_t room[MOST_UNDER_WAY];
  ssize_t n = recv(e->fd, room, sizeof room, 0);
  if (n > 0 && send(e->fd, room, (size_t)n, MSG_NOSIGNAL) == n) return;
  if (n >= 0 || errno != EAGAIN) drop(e);
}

static void welcome(const struct end *e) {
  for (int fd; (fd = accept4(e->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (send(fd, &e->server, 1, MSG_NOSIGNAL) == 1) watch(fd, SERVED, EPOLLIN);
    else close(fd);
  }
}

static void echo(const struct end *e) {
  uint8_t said[DATAGRAM + 2] = {e->server};
  struct sockaddr_storage from;
  socklen_t size = sizeof from;
  for (;; size = sizeof from) {
    ssize_t n = recvfrom(e->fd, said + 1, DATAGRAM + 1, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
    if (n < 0) return;
    sendto(e->fd, said, (size_t)n + 1, MSG_DONTWAIT, (struct sockaddr *)&from, size);
  }
}

static void listen_at(uint8_t place, unsigned family) {
  for (unsigned port = 0; port < PORTS; port++) {
    struct sockaddr_storage here = at(&there[family], FIRST_PORT + port);
    for (int type = SOCK_STREAM;; type = SOCK_DGRAM) {
      int fd = socket(here.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here)) broken("bind");
      if (type == SOCK_STREAM && listen(fd, 4096)) broken("listen");
      watch(fd, type == SOCK_STREAM ? LISTENER : ECHO, EPOLLIN)->server = place;
      if (type == SOCK_DGRAM) break;
    }
  }
}

/* ---- what is due ---- */

static void open_due(uint64_t at_ns) {
  static uint64_t since, opened, of;
  static unsigned number;
  if (of != rate) since = at_ns, opened = 0, of = rate;
  uint64_t due = (at_ns - since) / 1000 * rate / 1000000;
  for (int i = 0; i < MOST_AT_ONCE && opened < due; i++, opened++) open_one(SHORT, number++);
  if (due > opened + rate / 2) count.skipped += due - opened, opened = due; /* this machine cannot: said */
}

static bool is_over(uint64_t since_ns, uint64_t at_ns, uint64_t most) {
  return at_ns > since_ns && at_ns - since_ns > most;
}
static bool is_patient(const struct end *e, uint64_t at_ns) {
  uint64_t since_ns = e->is_open ? e->waits_ns : e->begun_ns;
  return !since_ns || !is_over(since_ns, at_ns, PATIENCE);
}

static void look_at_short(uint64_t at_ns) {
  for (struct end *e = oldest.after, *after; e != &oldest; e = after) {
    after = e->after;
    if (!is_over(e->begun_ns, at_ns, SECOND) || n_dead > EVENTS) break;
    if (e->is_open && !e->waits_ns && e->sent == MESSAGE) speak(e, at_ns);
    else if (!is_patient(e, at_ns)) ended(e, true);
  }
}

/* Each in its turn, evenly over the period. */
static void look_at_held(uint64_t at_ns) {
  static uint64_t looked, since_ns;
  if (!is_begun) {
    since_ns = 0;
    return;
  }
  if (!since_ns) since_ns = at_ns, looked = 0;
  uint64_t due = (at_ns - since_ns) * n_held / period_ns;
  if (due - looked > n_held) looked = due - n_held;
  for (int i = 0; looked < due && i < EVENTS; looked++, i++) {
    struct end *e = held[looked % n_held];
    if (looked < n_held) {
      e = held[looked] = open_one(looked < n_kept ? KEPT : FLOW, (unsigned)looked);
      if (e && e->kind == KEPT) count.kept++;
      else if (e) count.flows++;
    }
    if (!e) continue;
    if (!is_hushed && (e->kind == FLOW || e->is_open)) speak(e, at_ns);
    if (e->kind == KEPT && !e->is_dead && !is_patient(e, at_ns)) ended(e, true);
  }
}

/* ---- commands ---- */

static void close_held(void) {
  for (unsigned i = 0; i < n_held; i++) {
    if (!held[i]) continue;
    if (held[i]->kind == KEPT && held[i]->is_open) count.kept_open--;
    drop(held[i]);
    held[i] = NULL;
    if (n_dead > EVENTS) bury(); /* their events are not in hand: this is a command's */
  }
  is_begun = is_hushed = false;
}

static unsigned waiting(void) {
  unsigned n = 0;
  for (unsigned i = 0; i < n_held; i++) n += held[i] && held[i]->kind == KEPT && held[i]->waits_ns;
  return n;
}

static void report(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  const struct timeval *u = &used.ru_utime, *k = &used.ru_stime;
  double cpu = (double)(u->tv_sec + k->tv_sec) + 1e-6 * (double)(u->tv_usec + k->tv_usec);
#define F(name) printf("\"" #name "\": %llu, ", (unsigned long long)count.name)
  printf("{");
  F(opened); F(established); F(done); F(refused); F(unanswered); F(broken); F(skipped); F(live);
  F(kept); F(kept_open); F(kept_reset); F(kept_silent); F(corrupted); F(echoes); F(slowest_ns);
  F(flows); F(flows_known); F(flows_moved); F(datagrams); F(answers);
  printf("\"latest_ns\": [");
  for (int f = 0; f < 2; f++)
    printf("%s[%llu, %llu]", f ? ", " : "", (unsigned long long)latest[f][0],
           (unsigned long long)latest[f][1]);
  printf("], \"waiting\": %u, ", waiting());
  printf("\"cpu_s\": %.3f}\n", cpu);
}

static void command(void) {
  char line[256];
  ssize_t n = read(0, line, sizeof line - 1);
  if (n <= 0) exit(0);
  line[n] = 0;
  if (!strncmp(line, "begin", 5) && !is_begun) {
    is_begun = true;
    count.slowest_ns = 0;
    printf("{}\n");
  } else if (!strncmp(line, "hush", 4)) {
    is_hushed = true;
    printf("{}\n");
  } else if (!strncmp(line, "close", 5)) {
    close_held();
    printf("{}\n");
  } else if (sscanf(line, "rate %u", &rate) == 1) {
    printf("{}\n");
  } else if (!strncmp(line, "report", 6)) {
    report();
  } else {
    exit(0);
  }
  fflush(stdout);
}

static void set_up(char **a) {
  struct rlimit files = {200000, 200000};
  setrlimit(RLIMIT_NOFILE, &files);
  struct sockaddr_in *v4 = (struct sockaddr_in *)&there[0];
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&there[1];
  v4->sin_family = AF_INET, v6->sin6_family = AF_INET6;
  if (inet_pton(AF_INET, a[4], &v4->sin_addr) != 1 || inet_pton(AF_INET6, a[5], &v6->sin6_addr) != 1) exit(2);
  loop = epoll_create1(EPOLL_CLOEXEC);
  uint32_t random = 1;
  for (unsigned i = 0; i < PATTERN; i++) {
    random = random * 1664525 + 1013904223;
    pattern[i] = (uint8_t)(random >> 24);
  }
  memcpy(pattern + PATTERN, pattern, MESSAGE);
  for (uint8_t i = 0; i < PLACES; i++) {
    client_nets[i] = net_of(a[i]);
    enter(net_of(a[PLACES + i]));
    for (unsigned family = 0; family < 2; family++) listen_at(i, family);
  }
  n_kept = (unsigned)atoi(a[6]);
  n_flows = (unsigned)atoi(a[7]);
  rate = (unsigned)atoi(a[8]);
  period_ns = (uint64_t)atoi(a[9]) * 1000000;
  n_held = n_kept + n_flows;
  held = calloc(n_held + 1, sizeof *held);
  if (!held || !n_held || !period_ns) exit(2);
  watch(0, COMMANDS, EPOLLIN);
}

static struct end *commands; /* handled after the events in hand: "close" frees what they may name */

static void react(const struct epoll_event *event) {
  struct end *e = event->data.ptr;
  if (e->is_dead) return;
  switch (e->kind) {
    case COMMANDS: commands = e; break;
    case LISTENER: welcome(e); break;
    case SERVED: serve(e); break;
    case ECHO: echo(e); break;
    case FLOW: datagram(e); break;
    default: e->is_open ? heard(e) : connected(e);
  }
}

int main(int argc, char **argv) {
  static struct epoll_event events[EVENTS];
  if (argc != 11) return 2;
  set_up(argv + 1);
  for (;;) {
    int n = epoll_wait(loop, events, EVENTS, 1);
    for (int i = 0; i < n; i++) react(&events[i]);
    bury();
    if (commands) command();
    commands = NULL;
    uint64_t at_ns = now();
    open_due(at_ns);
    look_at_short(at_ns);
    look_at_held(at_ns);
    bury();
  }
}
