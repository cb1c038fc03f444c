/* rt.h: the one real-time thread of a node: it is half of a redundant pair (SYSTEMS.md S2.2, S2.3, S2.6, S3.2).
 *
 *   thread:   sockets (rt_path.c, rt_link.c) -> ips_seal_open -> ips_pair_* -> actions: datagrams, the lease that
 *             workers read, VIP frames, state (rt_pair.c, rt_vip.c); never allocates, never waits for the disk
 *   disk:     a second thread writes the epoch file (rt_epoch.c)
 *   control:  sets, clears, orders and looks; its requests reach the thread by two atomic words
 *
 * The machine that decides is native/ips_pair.c; nothing here does. With it lives and dies the data path: heartbeats
 * come from the process that forwards. Both hosts of the core can have it, as they have the taps.
 */
#ifndef RT_H
#define RT_H
#include "../ips_control.h"
#include "../ips_pair_api.h"
#include "../ips_seal_api.h"
#include "../ips_table.h"
#include "../ips_vip_api.h"
#include "rt_epoch.h"
#include "rt_late.h"
#include "rt_link.h"
#include "rt_ports.h"
#include "rt_reach.h"
#include "rt_witness.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

/* Who has the thread. */
struct rt_host {
  struct ips_tables *tables;  /* whose workers take the lease */
  /* Adds up what worker i did; one that sleeps counts as advancing. Called by the thread. */
  void (*progress)(void *arg, uint64_t *out);
  void *arg;
  uint32_t n_workers;
  int wake_event;             /* eventfd to the control side: the state changed */
  /* NULL: the host tracks no connections. role is called before the first packet passes under a lease, and after
   * the lease is gone; is_active false, epoch 0: when a pair begins. */
  void (*role)(void *flows, bool is_active, uint64_t epoch);
  bool (*mirror_ready)(void *flows, bool is_mirrored); /* the active node's sessions are here */
  void *flows;
  /* Who has the interfaces; all NULL: Linux. */
  const struct rt_links *links;
  void *links_arg;
  const struct rt_askers *askers;
  void *askers_arg;
  const struct rt_port_setter *port_setter;
};

enum { RT_LINKS = IPS_CTL_PAIR_VIPS + IPS_CTL_PAIR_PUBLICS, RT_SEAL_ITEM = 0 };

/* Where the announcement of all public addresses is; one that is wanted meanwhile follows. */
struct rt_walk { uint32_t prefix, address; uint64_t next_ns; bool runs, again; };
struct rt_vip { uint32_t link; struct ips_ctl_pair_vip rec; };

struct rt {
  struct rt_host host;
  /* As set; constant while the thread runs. */
  bool is_set, runs;
  uint32_t begun;             /* how often a pair was set or cleared */
  struct ips_ctl_pair set;
  struct ips_pair_config times;
  struct rt_vip vips[IPS_CTL_PAIR_VIPS];
  bool link_is_port[RT_LINKS];    /* a sub-interface: down on the standby, and that is no fault */
  uint32_t public_link[IPS_CTL_PAIR_PUBLICS];
  struct rt_walk walk;
  uint32_t n_links;
  /* The thread's own. */
  struct rt_link links[RT_LINKS];
  int path[IPS_CTL_PAIR_PATHS];
  uint64_t path_retry_ns[IPS_CTL_PAIR_PATHS], path_heard_ns[IPS_CTL_PAIR_PATHS];
  uint32_t hello_path;            /* that the next handshake message takes */
  int link_events;
  struct ips_seal *seal;
  struct ips_pair machine;
  struct ips_pair_workers workers;
  struct ips_pair_actions actions;
  struct ips_ctl_pair_state state; /* counters and notes; the rest is filled in by publish() */
  struct rt_epoch epoch;
  struct rt_late late;
  struct rt_witness witness;
  struct rt_reach reach;
  struct rt_ports ports;
  uint64_t contested_ns;          /* when somebody else last announced a VIP */
  uint64_t told;                  /* changes that the control side knows of */
  uint64_t told_role;             /* epoch << 1 | active */
  /* Shared. */
  pthread_t thread;
  int kick;                       /* eventfd to the thread */
  _Atomic bool stop;
  _Atomic uint64_t order;         /* 1 + order << 32 | argument; 0: none */
  _Atomic(const char *) answer;   /* to the last order: NULL, or why nothing was done */
  int answered;                   /* eventfd to who ordered */
  pthread_mutex_t published_lock; /* the thread only tries it */
  struct ips_ctl_pair_state published;
};

/* rt.c, by the control side, one thread. */
struct rt *rt_create(const struct rt_host *host); /* NULL: no memory, no descriptors */
void rt_destroy(struct rt *rt);
/* Status of ips_control.h, *sentence says what is wrong. What runs is replaced; the same again changes nothing. */
int rt_pair_set(struct rt *rt, const struct ips_ctl_pair *p, const char **sentence);
void rt_pair_clear(struct rt *rt);
bool rt_pair_state(struct rt *rt, struct ips_ctl_pair_state *out); /* false: no pair is set */
int rt_pair_order(struct rt *rt, const struct ips_ctl_pair_command *c, const char **sentence);

/* rt_thread.c */
void *rt_thread(void *rt);
/* rt_pair.c: what the machine wants done. */
void rt_carry_out(struct rt *rt, uint64_t now_ns);
void rt_say_due(struct rt *rt, uint64_t now_ns); /* handshakes of the sealed channel */
/* rt_vip.c */
void rt_vip_announce(struct rt *rt);
void rt_vip_answer(struct rt *rt, uint32_t link, const uint8_t *frame, size_t n);
/* rt_public.c */
void rt_public_announce(struct rt *rt);               /* all of them, from now on, paced */
void rt_public_turn(struct rt *rt, uint64_t now_ns);  /* the next few */
/* Public addresses on that link that the frame is about, as VIPs: how many, at most 2. */
uint32_t rt_public_find(const struct rt *rt, uint32_t link, const uint8_t *frame, size_t n, struct ips_vip *out);
bool rt_public_say(struct rt *rt, uint32_t link, const struct ips_vip *v); /* false: there was no room */
/* rt_times.c: durations from what a configuration says. */
void rt_times(const struct ips_ctl_pair *p, struct ips_pair_config *out);

static inline void rt_signal(int event) {
  uint64_t one = 1;
  if (write(event, &one, sizeof one) < 0) { /* EAGAIN: it is readable already */ }
}
static inline uint64_t rt_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_BOOTTIME, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}
#endif
