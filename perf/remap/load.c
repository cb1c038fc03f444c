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
#include "ends.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { FIRST_PORT = 7200, MESSAGE = 600, MOST_UNDER_WAY = 4 * MESSAGE, DATAGRAM = 200, MOST_LOOKED_AT = 256, PLACES = 2,
       UNKNOWN = 255, PATTERN = 65536, ECHO = OWN, FLOW };
#define PATIENCE (10 * SECOND)

static struct {
  uint64_t opened, established, done, refused, unanswered, broken, skipped, live;
  uint64_t kept, kept_open, kept_reset, kept_silent, corrupted, echoes, slowest_ns;
  uint64_t flows, flows_known, flows_moved, datagrams, answers;
} count;
static uint64_t latest[2][PLACES]; /* by family, server: when the last one that it accepted was begun */
static struct end **held;
static uint8_t pattern[PATTERN + MESSAGE];
static int client_nets[PLACES];
static unsigned n_kept, n_flows, n_held;
static uint64_t period_ns;
static bool is_begun, is_hushed;

/* ---- clients: an end's `server` is which one has answered ---- */

static struct end *open_one(unsigned kind, unsigned number) {
  static uint32_t serial;
  enter(client_nets[number / 2 % PLACES]);
  int type = kind == FLOW ? SOCK_DGRAM : SOCK_STREAM;
  struct end *e = ends_open(kind, number & 1, type, FIRST_PORT + number / 4 % ENDS_PORTS);
  if (!e && errno == EMFILE) broken("socket");
  if (!e) return count.refused++, NULL;
  e->server = UNKNOWN;
  e->seed = serial++ * 2654435761u;
  count.opened += kind == SHORT;
  return e;
}

static void open_short(unsigned number) { open_one(SHORT, number); }

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
  int error = ends_opened(e);
  if (error) return ended(e, error == ETIMEDOUT);
  if (e->kind == KEPT) count.kept_open++;
  else count.established++, count.live++;
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

/* ---- servers: an end's `server` is which one it is ---- */

static void gone(struct end *e, int error) {
  (void)error; /* its client says what is broken */
  drop(e);
}

static void welcome(const struct end *e) {
  for (int fd; (fd = ends_accept(e)) >= 0;) {
    struct end *served = watch(fd, SERVED, EPOLLIN);
    if (send(fd, &e->server, 1, MSG_NOSIGNAL) != 1) drop(served);
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
  for (unsigned port = FIRST_PORT; port < FIRST_PORT + ENDS_PORTS; port++) {
    watch(ends_listen(family, SOCK_STREAM, port), LISTENER, EPOLLIN)->server = place;
    watch(ends_listen(family, SOCK_DGRAM, port), ECHO, EPOLLIN)->server = place;
  }
}

/* ---- what is due ---- */

static bool is_patient(const struct end *e, uint64_t at_ns) {
  uint64_t since_ns = e->is_open ? e->waits_ns : e->begun_ns;
  return !since_ns || !is_over(since_ns, at_ns, PATIENCE);
}

static void look_at_short(uint64_t at_ns) {
  for (struct end *e = oldest.after, *after; e != &oldest; e = after) {
    after = e->after;
    if (!is_over(e->begun_ns, at_ns, SECOND) || !has_room_to_drop()) break;
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
  if (looked >= n_held && due - looked > n_held) looked = due - n_held; /* each is opened, however late */
  for (int i = 0; looked < due && i < MOST_LOOKED_AT; looked++, i++) {
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

static void due(uint64_t at_ns) {
  count.skipped += ends_due_short(at_ns, open_short);
  look_at_short(at_ns);
  look_at_held(at_ns);
}

/* ---- commands ---- */

static void close_held(void) {
  for (unsigned i = 0; i < n_held; i++) {
    if (!held[i]) continue;
    if (held[i]->kind == KEPT && held[i]->is_open) count.kept_open--;
    drop(held[i]);
    held[i] = NULL;
    if (!has_room_to_drop()) bury(); /* their events are not in hand: this is a command's */
  }
  is_begun = is_hushed = false;
}

static unsigned waiting(void) {
  unsigned n = 0;
  for (unsigned i = 0; i < n_held; i++) n += held[i] && held[i]->kind == KEPT && held[i]->waits_ns;
  return n;
}

static void report(void) {
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
  printf("\"cpu_s\": %.3f}\n", cpu_s());
}

static void begin(void) {
  is_begun = true;
  count.slowest_ns = 0;
}

static void command(const char *line) {
  bool is_fine = true;
  if (!strncmp(line, "report", 6)) return report();
  if (!strncmp(line, "begin", 5) && !is_begun) begin();
  else if (!strncmp(line, "hush", 4)) is_hushed = true;
  else if (!strncmp(line, "close", 5)) close_held();
  else is_fine = sscanf(line, "rate %u", &rate) == 1;
  if (!is_fine) exit(0);
  printf("{}\n");
}

static void make_pattern(void) {
  uint32_t random = 1;
  for (unsigned i = 0; i < PATTERN; i++) {
    random = random * 1664525 + 1013904223;
    pattern[i] = (uint8_t)(random >> 24);
  }
  memcpy(pattern + PATTERN, pattern, MESSAGE);
}

static void set_up(char **a) {
  ends_begin(a[4], a[5]);
  make_pattern();
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
}

static void react(struct end *e) {
  switch (e->kind) {
    case LISTENER: welcome(e); break;
    case SERVED: ends_serve(e, gone); break;
    case ECHO: echo(e); break;
    case FLOW: datagram(e); break;
    default: e->is_open ? heard(e) : connected(e);
  }
}

int main(int argc, char **argv) {
  static const struct ends_program program = {.event = react, .command = command, .due = due};
  if (argc != 11) return 2;
  set_up(argv + 1);
  ends_run(&program);
}
