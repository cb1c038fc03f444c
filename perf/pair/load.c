/* load.c: connections through a pair of gateways, both ends in one process; compiled when it is used, never installed.
 *
 *   load INSIDE OUTSIDE ADDRESS4 ADDRESS6 KEPT RATE      INSIDE, OUTSIDE: names of network namespaces
 *
 * KEPT connections, half of each family, say something once a second and want it back. RATE more are opened each
 * second; one speaks at once, lives a second, speaks again and is closed by its client. A connection that is reset, or
 * whose words do not come back for 15 s, is broken. Commands on stdin, one answer of JSON each: "report", "rate N",
 * "gap FROM UNTIL" (CLOCK_MONOTONIC, ns: what probe.h lost), "quit". The process's own processor time is in the report;
 * the kernel's work on packets is in it, since veth forwards in the sender's context.
 */
#define _GNU_SOURCE
#include "probe.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 8, FIRST_PORT = 7000, PROBE_PORT = 7100, WORDS = 16, EVENTS = 256, MOST_AT_ONCE = 64 };
#define SECOND 1000000000ull
#define PATIENCE (15 * SECOND)

enum kind { LISTENER, SERVED, KEPT, SHORT, COMMANDS };
struct end {
  int fd;
  enum kind kind;
  bool is_open, is_dead;
  uint8_t family, n_said;
  uint32_t n_back;
  uint64_t begun_ns, said_ns;         /* said_ns: 0 unless an answer is awaited */
  struct end *before, *after;         /* short ones, the oldest first */
};

static struct {
  uint64_t opened, established, done, reset, stalled, refused, unanswered, late_opens, skipped;
  uint64_t kept_open, kept_reset, kept_stalled, echoes, slowest_ns, server_resets, live;
} count;
static struct probe probes[2];
static struct end oldest = {.before = &oldest, .after = &oldest}, *dead[EVENTS * 4];
static struct sockaddr_storage there[2];
static struct end **kept;
static unsigned n_kept, n_dead, rate;
static int loop;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* at_ns may have been read before. */
static bool is_over(uint64_t since_ns, uint64_t at_ns, uint64_t most) { return at_ns > since_ns && at_ns - since_ns > most; }
static bool has_patience(const struct end *e, uint64_t at_ns) {
  return !is_over(e->said_ns ? e->said_ns : e->begun_ns, at_ns, PATIENCE);
}

static void broken(const char *what) {
  perror(what);
  exit(1);
}

static void enter(const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || setns(fd, CLONE_NEWNET)) broken(name);
  close(fd);
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
  *e = (struct end){.fd = fd, .kind = kind, .begun_ns = now()};
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

static struct end *open_one(enum kind kind, int family) {
  static unsigned turn;
  int fd = socket(there[family].ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0 && errno == EMFILE && kind == SHORT) return count.skipped++, NULL; /* this process has no more */
  if (fd < 0) broken("socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct sockaddr_storage to = at(&there[family], FIRST_PORT + turn++ % PORTS);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
    count.refused++;
    close(fd);
    return NULL;
  }
  struct end *e = watch(fd, kind, EPOLLIN | EPOLLOUT);
  e->family = (uint8_t)family;
  if (kind == SHORT) {
    e->before = oldest.before, e->after = &oldest;
    oldest.before->after = e, oldest.before = e;
    count.opened++;
  }
  return e;
}

static void ended(struct end *e, int error) {
  if (e->kind == SERVED) count.server_resets += error != 0;
  if (e->kind == SHORT && e->is_open) count.live--, error ? count.reset++ : count.stalled++;
  if (e->kind == SHORT && !e->is_open) error ? count.refused++ : count.unanswered++;
  if (e->kind == KEPT) {
    if (e->is_open) count.kept_open--, error ? count.kept_reset++ : count.kept_stalled++;
    for (unsigned i = 0; i < n_kept; i++)
      if (kept[i] == e) kept[i] = NULL; /* another one takes its place */
  }
  drop(e);
}

static void speak(struct end *e, uint64_t at_ns) {
  static const char words[WORDS] = "are you there? ";
  if (send(e->fd, words, WORDS, MSG_NOSIGNAL) == WORDS) e->said_ns = at_ns, e->n_said++;
  else if (errno != EAGAIN) ended(e, errno);
}

static void connected(struct end *e) {
  int error = 0;
  socklen_t n = sizeof error;
  struct epoll_event want = {.events = EPOLLIN, .data.ptr = e};
  getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &n);
  if (error) return ended(e, error);
  uint64_t at_ns = now();
  e->is_open = true;
  if (at_ns - e->begun_ns > SECOND * 9 / 10) count.late_opens++;
  if (e->kind == KEPT) count.kept_open++;
  else count.established++, count.live++;
  epoll_ctl(loop, EPOLL_CTL_MOD, e->fd, &want);
  speak(e, at_ns);
}

static void heard(struct end *e) {
  char room[256];
  ssize_t n = recv(e->fd, room, sizeof room, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) return ended(e, n < 0 ? errno : ECONNRESET);
  e->n_back += (uint32_t)n;
  if (e->n_back < WORDS) return;
  uint64_t took = now() - e->said_ns;
  if (took > count.slowest_ns) count.slowest_ns = took;
  count.echoes++;
  e->n_back = 0, e->said_ns = 0;
  if (e->kind == SHORT && e->n_said == 2) count.done++, count.live--, drop(e);
}

static void serve(struct end *e) {
  char room[256];
  ssize_t n = recv(e->fd, room, sizeof room, 0);
  if (n > 0 && send(e->fd, room, (size_t)n, MSG_NOSIGNAL) == n) return;
  if (n < 0 && errno == EAGAIN) return;
  ended(e, n < 0 ? errno : 0);
}

static void welcome(const struct end *e) {
  for (int fd; (fd = accept4(e->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(fd, SERVED, EPOLLIN);
  }
}

/* ---- what is due ---- */

static void open_due(uint64_t at_ns) {
  static uint64_t since, opened, of;
  static int family;
  if (of != rate) since = at_ns, opened = 0, of = rate;
  uint64_t due = (at_ns - since) / 1000 * rate / 1000000;
  for (int i = 0; i < MOST_AT_ONCE && opened < due; i++, opened++) open_one(SHORT, family = !family);
  if (due > opened + rate / 2) count.skipped += due - opened, opened = due; /* this machine cannot: said */
}

static void look_at_short(uint64_t at_ns) {
  for (struct end *e = oldest.after, *after; e != &oldest; e = after) {
    after = e->after;
    if (!is_over(e->begun_ns, at_ns, SECOND) || n_dead > EVENTS) break;
    if (e->is_open && !e->said_ns && e->n_said == 1) speak(e, at_ns);
    else if (!has_patience(e, at_ns)) ended(e, 0);
  }
}

/* All of them in a second, evenly. */
static void look_at_kept(uint64_t at_ns) {
  static uint64_t looked, since;
  if (!since) since = at_ns;
  uint64_t due = (at_ns - since) / 1000 * n_kept / 1000000;
  if (due - looked > n_kept) looked = due - n_kept;
  for (int i = 0; looked < due && i < MOST_AT_ONCE; looked++, i++) {
    struct end **e = &kept[looked % n_kept];
    if (!*e) *e = open_one(KEPT, (int)(looked % n_kept & 1));
    else if ((*e)->is_open && !(*e)->said_ns) speak(*e, at_ns);
    else if (!has_patience(*e, at_ns)) ended(*e, 0);
  }
}

/* ---- commands ---- */

static void report(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  const struct timeval *u = &used.ru_utime, *k = &used.ru_stime;
  double cpu = (double)(u->tv_sec + k->tv_sec) + 1e-6 * (double)(u->tv_usec + k->tv_usec);
#define F(name) printf("\"" #name "\": %llu, ", (unsigned long long)count.name)
  printf("{");
  F(opened); F(established); F(done); F(reset); F(stalled); F(refused); F(unanswered); F(late_opens);
  F(skipped); F(kept_open); F(kept_reset); F(kept_stalled); F(echoes); F(slowest_ns); F(server_resets); F(live);
  printf("\"cpu_s\": %.3f}\n", cpu);
  count.slowest_ns = 0;
}

static void command(void) {
  char line[256], *words = line;
  ssize_t n = read(0, line, sizeof line - 1);
  if (n <= 0) exit(0);
  line[n] = 0;
  unsigned long long from, until;
  if (sscanf(words, "gap %llu %llu", &from, &until) == 2) {
    printf("[");
    for (int i = 0; i < 2; i++) {
      struct gap g = probe_gap(&probes[i], from, until);
      printf("%s{\"lost\": %llu, \"rows\": %llu, \"restored_ns\": %lld, ", i ? ", " : "", (unsigned long long)g.lost,
             (unsigned long long)g.rows, (long long)g.restored_ns);
      printf("\"longest_ns\": %llu, \"later_ns\": %llu, \"late_ns\": %llu}", (unsigned long long)g.longest_ns,
             (unsigned long long)g.later_ns, (unsigned long long)g.late_ns);
    }
    printf("]\n");
  } else if (sscanf(words, "rate %u", &rate) == 1) {
    printf("{}\n");
  } else if (!strncmp(words, "report", 6)) {
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
  if (inet_pton(AF_INET, a[2], &v4->sin_addr) != 1 || inet_pton(AF_INET6, a[3], &v6->sin6_addr) != 1) exit(2);
  loop = epoll_create1(EPOLL_CLOEXEC);
  enter(a[1]);
  for (int i = 0; i < 2; i++) {
    struct sockaddr_storage to = at(&there[i], PROBE_PORT);
    if (probe_open(&probes[i], 0, (struct sockaddr *)&to, sizeof to)) broken("probe");
    for (unsigned port = 0; port < PORTS; port++) {
      int fd = socket(there[i].ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      to = at(&there[i], FIRST_PORT + port);
      if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof to) || listen(fd, 4096)) broken("listen");
      watch(fd, LISTENER, EPOLLIN);
    }
  }
  enter(a[0]);
  for (int i = 0; i < 2; i++)
    if (probe_open(&probes[i], 1, (struct sockaddr *)&there[i], sizeof there[i])) broken("probe");
  n_kept = (unsigned)atoi(a[4]);
  rate = (unsigned)atoi(a[5]);
  kept = calloc(n_kept + 1, sizeof *kept);
  if (!kept || !n_kept) exit(2);
  watch(0, COMMANDS, EPOLLIN);
  if (probe_start(probes)) broken("probe");
}

static void react(const struct epoll_event *event) {
  struct end *e = event->data.ptr;
  if (e->is_dead) return;
  switch (e->kind) {
    case COMMANDS: command(); break;
    case LISTENER: welcome(e); break;
    case SERVED: serve(e); break;
    default: e->is_open ? heard(e) : connected(e);
  }
}

int main(int argc, char **argv) {
  static struct epoll_event events[EVENTS];
  if (argc != 7) return 2;
  set_up(argv + 1);
  for (;;) {
    int n = epoll_wait(loop, events, EVENTS, 1);
    for (int i = 0; i < n; i++) react(&events[i]);
    uint64_t at_ns = now();
    open_due(at_ns);
    look_at_short(at_ns);
    look_at_kept(at_ns);
    bury();
  }
}
