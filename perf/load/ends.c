/* ends.c: what is in ends.h: sockets in an epoll loop, their list, their pace. Compiled when it is used, never
 * installed. */
#define _GNU_SOURCE
#include "ends.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST_AT_ONCE = 64, MOST_OCTETS = 4096, BACKLOG = 4096 };

struct sockaddr_storage there[2];
struct end oldest = {.before = &oldest, .after = &oldest};
unsigned rate;
static struct end *dead[ENDS_EVENTS * 4];
static unsigned n_dead;
static int loop;

uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

void broken(const char *what) {
  perror(what);
  exit(1);
}

int net_of(const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) broken(name);
  return fd;
}

void enter(int net) {
  if (setns(net, CLONE_NEWNET)) broken("setns");
}

void ends_begin(const char *address4, const char *address6) {
  struct rlimit files = {200000, 200000};
  setrlimit(RLIMIT_NOFILE, &files);
  struct sockaddr_in *v4 = (struct sockaddr_in *)&there[0];
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&there[1];
  v4->sin_family = AF_INET, v6->sin6_family = AF_INET6;
  if (inet_pton(AF_INET, address4, &v4->sin_addr) != 1 || inet_pton(AF_INET6, address6, &v6->sin6_addr) != 1) exit(2);
  loop = epoll_create1(EPOLL_CLOEXEC);
  if (loop < 0) broken("epoll_create1");
}

struct sockaddr_storage at_port(const struct sockaddr_storage *a, unsigned port) {
  struct sockaddr_storage out = *a;
  if (a->ss_family == AF_INET) ((struct sockaddr_in *)&out)->sin_port = htons((uint16_t)port);
  else ((struct sockaddr_in6 *)&out)->sin6_port = htons((uint16_t)port);
  return out;
}

struct end *watch(int fd, unsigned kind, uint32_t events) {
  struct end *e = calloc(1, sizeof *e);
  if (!e) broken("memory");
  *e = (struct end){.fd = fd, .kind = (uint8_t)kind, .begun_ns = now()};
  struct epoll_event want = {.events = events, .data.ptr = e};
  if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &want)) broken("epoll_ctl");
  return e;
}

void drop(struct end *e) {
  if (e->is_dead) return;
  e->is_dead = true;
  close(e->fd);
  if (e->before) e->before->after = e->after, e->after->before = e->before;
  if (n_dead == sizeof dead / sizeof *dead) broken("too many ends at once");
  dead[n_dead++] = e;
}

void bury(void) {
  while (n_dead) free(dead[--n_dead]);
}

bool has_room_to_drop(void) { return n_dead <= ENDS_EVENTS; }

/* ---- opening, serving ---- */

static void no_delay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

struct end *ends_open(unsigned kind, unsigned family, int type, unsigned port) {
  int fd = socket(there[family].ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return NULL;
  if (type == SOCK_STREAM) no_delay(fd);
  struct sockaddr_storage to = at_port(&there[family], port);
  uint64_t begun_ns = now(); /* before its SYN leaves: nobody knows when this process goes on */
  if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
    int why = errno;
    close(fd);
    errno = why;
    return NULL;
  }
  struct end *e = watch(fd, kind, type == SOCK_STREAM ? EPOLLIN | EPOLLOUT : EPOLLIN);
  e->family = (uint8_t)family;
  e->begun_ns = begun_ns;
  if (kind != SHORT) return e;
  e->before = oldest.before, e->after = &oldest;
  oldest.before->after = e, oldest.before = e;
  return e;
}

int ends_opened(struct end *e) {
  int error = 0;
  socklen_t n = sizeof error;
  struct epoll_event want = {.events = EPOLLIN, .data.ptr = e};
  getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &n);
  if (error) return error;
  e->is_open = true;
  return epoll_ctl(loop, EPOLL_CTL_MOD, e->fd, &want) ? errno : 0;
}

void ends_serve(struct end *e, void (*ended)(struct end *e, int error)) {
  uint8_t room[MOST_OCTETS];
  ssize_t n = recv(e->fd, room, sizeof room, 0);
  if (n > 0 && send(e->fd, room, (size_t)n, MSG_NOSIGNAL) == n) return;
  if (n < 0 && errno == EAGAIN) return;
  ended(e, n < 0 ? errno : 0);
}

int ends_accept(const struct end *e) {
  int fd = accept4(e->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) no_delay(fd);
  return fd;
}

int ends_listen(unsigned family, int type, unsigned port) {
  struct sockaddr_storage here = at_port(&there[family], port);
  int fd = socket(here.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here)) broken("bind");
  if (type == SOCK_STREAM && listen(fd, BACKLOG)) broken("listen");
  return fd;
}

/* ---- what is due ---- */

bool is_over(uint64_t since_ns, uint64_t at_ns, uint64_t most) {
  return at_ns > since_ns && at_ns - since_ns > most;
}

uint64_t ends_due_short(uint64_t at_ns, void (*open_one)(unsigned number)) {
  static uint64_t since, opened, of;
  static unsigned number;
  if (of != rate) since = at_ns, opened = 0, of = rate;
  uint64_t due = (at_ns - since) / 1000 * rate / 1000000, left_out = 0;
  for (int i = 0; i < MOST_AT_ONCE && opened < due; i++, opened++) open_one(number++);
  if (due > opened + rate / 2) left_out = due - opened, opened = due;
  return left_out;
}

double cpu_s(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  const struct timeval *u = &used.ru_utime, *k = &used.ru_stime;
  return (double)(u->tv_sec + k->tv_sec) + 1e-6 * (double)(u->tv_usec + k->tv_usec);
}

/* After the events in hand: a command may free what they name. */
static void take_command(const struct ends_program *p) {
  char line[256];
  ssize_t n = read(0, line, sizeof line - 1);
  if (n <= 0) exit(0);
  line[n] = 0;
  p->command(line);
  fflush(stdout);
}

void ends_run(const struct ends_program *p) {
  static struct epoll_event events[ENDS_EVENTS];
  watch(0, COMMANDS, EPOLLIN);
  for (;;) {
    bool has_command = false;
    int n = epoll_wait(loop, events, ENDS_EVENTS, 1);
    for (int i = 0; i < n; i++) {
      struct end *e = events[i].data.ptr;
      if (e->kind == COMMANDS) has_command = true;
      else if (!e->is_dead) p->event(e);
    }
    bury();
    if (has_command) take_command(p);
    p->due(now());
    bury();
  }
}
