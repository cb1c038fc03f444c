/* ends.h: connections to an address and those who serve it, all in one process and one thread; shared by the
 * loads of perf/pair and perf/remap, which say what is said on them and what counts as broken.
 *
 * A program has its own kinds from OWN on, sets `there`, opens with ends_open(), and gives ends_run() what to do
 * with an event, with a command on stdin (one line, one answer of JSON), and with what is due. "Short" ones hang
 * in a list, the oldest first; ends_due_short() opens them at a rate. Times: CLOCK_MONOTONIC.
 */
#ifndef ENDS_H
#define ENDS_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { ENDS_PORTS = 8, ENDS_EVENTS = 256 };
#define SECOND 1000000000ull

enum kind { LISTENER, SERVED, COMMANDS, KEPT, SHORT, OWN };
struct end {
  int fd;
  uint8_t kind;
  bool is_open, is_dead;
  uint8_t family, server, n_said;
  uint32_t seed, sent, back;          /* octets of the stream; datagrams */
  uint64_t begun_ns, waits_ns;        /* waits_ns: since when an answer is awaited; 0: none is */
  struct end *before, *after;         /* short ones, the oldest first */
};
struct ends_program {
  void (*event)(struct end *e);       /* of what is no command */
  void (*command)(const char *line);  /* prints its answer */
  void (*due)(uint64_t at_ns);        /* about each millisecond */
};

extern struct sockaddr_storage there[2]; /* the address, by family: IPv4, IPv6 */
extern struct end oldest;                /* the list's head */
extern unsigned rate;                    /* short ones opened each second */

uint64_t now(void);
void broken(const char *what);           /* says why, ends the process */
int net_of(const char *name);            /* of a network namespace */
void enter(int net);
void ends_begin(const char *address4, const char *address6);
struct sockaddr_storage at_port(const struct sockaddr_storage *a, unsigned port);

struct end *watch(int fd, unsigned kind, uint32_t events);
void drop(struct end *e);                /* closed now, freed after the events in hand, which may name it */
void bury(void);
bool has_room_to_drop(void);

/* NULL: not even begun; errno says why. */
struct end *ends_open(unsigned kind, unsigned family, int type, unsigned port);
int ends_opened(struct end *e);          /* what came of it: 0, or errno */
void ends_serve(struct end *e, void (*ended)(struct end *e, int error)); /* says back what it hears */
int ends_accept(const struct end *e);    /* -1: there are no more */
int ends_listen(unsigned family, int type, unsigned port);

bool is_over(uint64_t since_ns, uint64_t at_ns, uint64_t most); /* at_ns may have been read before */
/* Returns how many were left out because this machine cannot. */
uint64_t ends_due_short(uint64_t at_ns, void (*open_one)(unsigned number));
double cpu_s(void);
void ends_run(const struct ends_program *p) __attribute__((noreturn));
#endif
