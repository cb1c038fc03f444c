/* probe.h: one datagram a millisecond through the pair and back, for each family, in a thread that nothing of the
 * load delays; and the time for which none came back. The log holds a minute; its times are CLOCK_MONOTONIC. */
#ifndef PROBE_H
#define PROBE_H
#include <stdint.h>
#include <sys/socket.h>

enum { PROBE_LOG = 65536 };

struct probe {
  int fd, echo;                   /* inside and outside; both belong to the thread */
  uint64_t sent[PROBE_LOG], back[PROBE_LOG]; /* back: 0 until the answer comes */
  uint64_t next;                  /* number of the next one */
};
/* What was not answered of the probes sent in a window. A row: at least PROBE_ROW in turn. */
enum { PROBE_ROW = 3 };
struct gap {
  uint64_t lost, rows;            /* all; rows of them */
  int64_t restored_ns;            /* the first answer after the first row, since the window's begin; 0: no row; -1: none came */
  uint64_t longest_ns, later_ns;  /* from a row's first probe to the next answer: of all rows; of all but the first */
  uint64_t late_ns;               /* how late this thread itself was, at worst, in the window */
};

int probe_open(struct probe *p, int is_inside, const struct sockaddr *outside, socklen_t n); /* 0, or -1 */
int probe_start(struct probe *both);  /* two of them */
struct gap probe_gap(const struct probe *p, uint64_t from_ns, uint64_t until_ns);
#endif
