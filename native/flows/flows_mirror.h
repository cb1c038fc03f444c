/* flows_mirror.h: the mirror of a node, as its thread has it.
 *
 * Made and freed by control while the thread does not run (flows_mirror.c); all of it but what is _Atomic and
 * `published` is that thread's own. The channel has the pair's key, but names of its own ("m1", "m2"): keys
 * of datagrams are made from both names, so neither channel opens what was sealed for the other (decision
 * 0020).
 */
#ifndef FLOWS_MIRROR_H
#define FLOWS_MIRROR_H
#include "../ips_mirror_api.h"
#include "flows.h"
#include <poll.h>
#include <sys/socket.h>

enum {
  FLOWS_BATCH = 64,       /* datagrams of one system call */
  FLOWS_ROOM = 2048,      /* a datagram's; longer ones are none of ours */
  FLOWS_DEFERRED = 16384, /* records that wait until what is in their way has gone */
  FLOWS_ITEM = 0,         /* of the seals: config_digest; its parts follow */
};
#define NOBODYS UINT64_MAX /* no role */
#define FLOWS_HELLO_NS 100000000ull
#define FLOWS_SILENCE_NS 1000000000ull

struct flows_path { int fd; uint64_t heard_ns, asked_ns, retry_ns; }; /* asked: by a hello, perhaps an old one */
struct flows_peer {
  struct ips_seal *seal;
  struct flows_path paths[IPS_CTL_PAIR_PATHS];
  uint32_t n_paths, next_path; /* next_path: tried while none is heard */
  uint64_t too_long;
};
struct flows_batch {      /* datagrams of one socket, or to it */
  int fd;
  uint32_t n;
  uint8_t bytes[FLOWS_BATCH][FLOWS_ROOM];
  struct mmsghdr heads[FLOWS_BATCH];
  struct iovec parts[FLOWS_BATCH];
};

struct flows_mirror {
  struct flows *flows;
  struct ips_ctl_mirror set; /* without the key */
  struct ips_mirror *core;
  struct flows_peer peers[IPS_CTL_MIRROR_PEERS];
  struct flows_batch in, out;
  uint64_t told_role, seen_role; /* that the core has taken; that was offered to it */
  uint64_t reigned;   /* the epoch of this node's last reign, and 1: nobody reigned later, as long as it is the role's */
  uint64_t heads, busy_until_ns, published_ns;
  /* flows_sink.c */
  struct flows_deferred { struct ips_session_rec rec; uint64_t since_ns; } *deferred;
  uint32_t n_deferred;
  bool is_summing;           /* in this turn: there is more to be counted */
  bool has_failed;           /* something waited in vain: the stream is refused */
  /* flows_feed.c */
  pthread_mutex_t turn;      /* who applies to the table: the thread, for a turn, or control */
  uint64_t fed_epoch;
  bool has_begun;            /* a snapshot by feed */
  _Atomic bool is_fed;       /* the last one was whole, and nobody said since that it is lost */
  _Atomic uint64_t ready_for; /* the role in which it has all sessions; NOBODYS: it has not */
  pthread_mutex_t lock;      /* of what is published */
  struct ips_mirror_stats stats;
  uint8_t notes[IPS_CTL_MIRROR_PEERS];
  uint16_t differs[IPS_CTL_MIRROR_PEERS];
  uint64_t refused[IPS_CTL_MIRROR_PEERS];
};

void flows_mirror_free(struct flows_mirror *m);
/* The change's number; 0: its ring is full. */
uint64_t flows_mirror_push(struct flows *f, struct flows_mirror *m, uint32_t ring, int op,
                           const struct ips_session_rec *rec);
void flows_mirror_state(struct flows *f, struct ips_ctl_flows_state *out);
/* flows_net.c: the thread's */
bool flows_net_receive(struct flows_mirror *m); /* true: something came */
void flows_net_tick(struct flows_mirror *m, uint64_t now_ns);
uint32_t flows_net_poll(const struct flows_mirror *m, struct pollfd *fds);
void flows_net_close(struct flows_mirror *m);
/* flows_sink.c */
struct ips_mirror_source flows_source(struct flows_mirror *m);
struct ips_mirror_sink flows_sink(struct flows_mirror *m);
void flows_sink_retry(struct flows_mirror *m, uint64_t now_ns);
#endif
