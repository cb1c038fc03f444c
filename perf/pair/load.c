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
#include "ends.h"
#include "probe.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { FIRST_PORT = 7000, PROBE_PORT = 7100, WORDS = 16, MOST_AT_ONCE = 64 };
#define PATIENCE (15 * SECOND)

static struct {
  uint64_t opened, established, done, reset, stalled, refused, unanswered, late_opens, skipped;
  uint64_t kept_open, kept_reset, kept_stalled, echoes, slowest_ns, server_resets, live;
} count;
static struct probe probes[2];
static struct end **kept;
static unsigned n_kept;

static bool has_patience(const struct end *e, uint64_t at_ns) {
  return !is_over(e->waits_ns ? e->waits_ns : e->begun_ns, at_ns, PATIENCE);
}

static struct end *open_one(enum kind kind, unsigned family) {
  static unsigned turn;
  struct end *e = ends_open(kind, family, SOCK_STREAM, FIRST_PORT + turn++ % ENDS_PORTS);
  if (e) count.opened += kind == SHORT;
  else if (errno != EMFILE) count.refused++;
  else if (kind == SHORT) count.skipped++; /* this process has no more */
  else broken("socket");
  return e;
}

static void open_short(unsigned number) { open_one(SHORT, (number + 1) & 1); }

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
  if (send(e->fd, words, WORDS, MSG_NOSIGNAL) == WORDS) e->waits_ns = at_ns, e->n_said++;
  else if (errno != EAGAIN) ended(e, errno);
}

static void connected(struct end *e) {
  int error = ends_opened(e);
  if (error) return ended(e, error);
  uint64_t at_ns = now();
  if (at_ns - e->begun_ns > SECOND * 9 / 10) count.late_opens++;
  if (e->kind == KEPT) count.kept_open++;
  else count.established++, count.live++;
  speak(e, at_ns);
}

static void heard(struct end *e) {
  char room[256];
  ssize_t n = recv(e->fd, room, sizeof room, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) return ended(e, n < 0 ? errno : ECONNRESET);
  e->back += (uint32_t)n;
  if (e->back < WORDS) return;
  uint64_t took = now() - e->waits_ns;
  if (took > count.slowest_ns) count.slowest_ns = took;
  count.echoes++;
  e->back = 0, e->waits_ns = 0;
  if (e->kind == SHORT && e->n_said == 2) count.done++, count.live--, drop(e);
}

static void welcome(const struct end *e) {
  for (int fd; (fd = ends_accept(e)) >= 0;) watch(fd, SERVED, EPOLLIN);
}

/* ---- what is due ---- */

static void look_at_short(uint64_t at_ns) {
  for (struct end *e = oldest.after, *after; e != &oldest; e = after) {
    after = e->after;
    if (!is_over(e->begun_ns, at_ns, SECOND) || !has_room_to_drop()) break;
    if (e->is_open && !e->waits_ns && e->n_said == 1) speak(e, at_ns);
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
    if (!*e) *e = open_one(KEPT, (unsigned)(looked % n_kept & 1));
    else if ((*e)->is_open && !(*e)->waits_ns) speak(*e, at_ns);
    else if (!has_patience(*e, at_ns)) ended(*e, 0);
  }
}

static void due(uint64_t at_ns) {
  count.skipped += ends_due_short(at_ns, open_short);
  look_at_short(at_ns);
  look_at_kept(at_ns);
}

/* ---- commands ---- */

static void report(void) {
#define F(name) printf("\"" #name "\": %llu, ", (unsigned long long)count.name)
  printf("{");
  F(opened); F(established); F(done); F(reset); F(stalled); F(refused); F(unanswered); F(late_opens);
  F(skipped); F(kept_open); F(kept_reset); F(kept_stalled); F(echoes); F(slowest_ns); F(server_resets); F(live);
  printf("\"cpu_s\": %.3f}\n", cpu_s());
  count.slowest_ns = 0;
}

static void tell_gaps(uint64_t from, uint64_t until) {
  printf("[");
  for (int i = 0; i < 2; i++) {
    struct gap g = probe_gap(&probes[i], from, until);
    printf("%s{\"lost\": %llu, \"rows\": %llu, \"restored_ns\": %lld, ", i ? ", " : "", (unsigned long long)g.lost,
           (unsigned long long)g.rows, (long long)g.restored_ns);
    printf("\"longest_ns\": %llu, \"later_ns\": %llu, \"late_ns\": %llu}", (unsigned long long)g.longest_ns,
           (unsigned long long)g.later_ns, (unsigned long long)g.late_ns);
  }
  printf("]\n");
}

static void command(const char *line) {
  unsigned long long from, until;
  if (sscanf(line, "gap %llu %llu", &from, &until) == 2) tell_gaps(from, until);
  else if (sscanf(line, "rate %u", &rate) == 1) printf("{}\n");
  else if (!strncmp(line, "report", 6)) report();
  else exit(0);
}

static void set_up(char **a) {
  int inside = net_of(a[0]), outside = net_of(a[1]);
  ends_begin(a[2], a[3]);
  enter(outside);
  for (unsigned i = 0; i < 2; i++) {
    struct sockaddr_storage to = at_port(&there[i], PROBE_PORT);
    if (probe_open(&probes[i], 0, (struct sockaddr *)&to, sizeof to)) broken("probe");
    for (unsigned port = 0; port < ENDS_PORTS; port++)
      watch(ends_listen(i, SOCK_STREAM, FIRST_PORT + port), LISTENER, EPOLLIN);
  }
  enter(inside);
  for (int i = 0; i < 2; i++)
    if (probe_open(&probes[i], 1, (struct sockaddr *)&there[i], sizeof there[i])) broken("probe");
  n_kept = (unsigned)atoi(a[4]);
  rate = (unsigned)atoi(a[5]);
  kept = calloc(n_kept + 1, sizeof *kept);
  if (!kept || !n_kept) exit(2);
  if (probe_start(probes)) broken("probe");
}

static void react(struct end *e) {
  if (e->kind == LISTENER) welcome(e);
  else if (e->kind == SERVED) ends_serve(e, ended);
  else e->is_open ? heard(e) : connected(e);
}

int main(int argc, char **argv) {
  static const struct ends_program program = {.event = react, .command = command, .due = due};
  if (argc != 7) return 2;
  set_up(argv + 1);
  ends_run(&program);
}
