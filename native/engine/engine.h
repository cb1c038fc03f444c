/* engine.h: what the files of ipshare-engine share.
 *
 * main.c starts everything in order: options -> socket lock -> counter region (region.c)
 * -> TUN devices (tun.c) -> tables -> workers (worker.c) and the tap thread (tap/) ->
 * control socket (control.c), which the main thread serves until SIGTERM. A packet
 * never meets the main thread: worker.c reads it from a queue, calls the core and writes
 * it back to the device it came from.
 *
 * Threads: main (control), one per worker, one for taps; of a redundant pair two more (rt/rt.h), of tracked connections one
 * (flows/flows.h), and one while they are dumped. Written by one thread and read by others:
 * only what is _Atomic here, the counter region, and the rings of tap/tap_ring.h.
 */
#ifndef ENGINE_H
#define ENGINE_H
#include "../ips_control.h"
#include "../ips_core.h"
#include "../natlog/natlog.h"
#include "../flows/flows.h"
#include "../rt/rt.h"
#include "../tap/tap.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* Exit codes; ipshare/engine/embedded/launch.py turns them into exceptions. */
enum exit_code {
  EXIT_OK = 0,
  EXIT_USAGE = 2,
  EXIT_NO_TUN = 3,       /* /dev/net/tun is missing */
  EXIT_PRIVILEGE = 4,
  EXIT_NAME_TAKEN = 5,   /* a network device of that name exists */
  EXIT_SOCKET = 6,       /* another engine holds the socket, or it cannot be made */
  EXIT_SYSTEM = 7,       /* a system call failed, memory ran out */
  EXIT_DEVICE_GONE = 8,  /* a device was removed while we ran */
};

enum {
  BATCH = 64,              /* packets of one device per frame, at most */
  HEADROOM = 256,          /* before a packet read from a device; the vnet header takes part of it */
  PACKET_ROOM = 65536 + 128,
  SIDES = 2,
};
#define NS_PER_S 1000000000ull
#define HUNG_NS NS_PER_S
#define STARVED_NS (NS_PER_S / 10) /* packets may wait so long for a worker that sleeps */

struct options {
  const char *socket;
  const char *device[SIDES]; /* outer, inner */
  const char *node;
  uint32_t workers;
  uint32_t counter_cells;
  int nice;                  /* 0: as it was started */
  bool json_errors;
  bool plain_io;             /* read() and write() even where io_uring could be used */
};

struct region { /* region.c */
  int fd;          /* ours, writable through the one mapping only */
  int public_fd;   /* opened read-only, for clients */
  struct ips_ctl_region *header;
};

struct io;
struct worker {
  struct engine *engine;
  struct ips_worker *core;
  struct ips_ctl_worker *stat;
  int fd[SIDES];              /* our queue of each device */
  int epoll;                  /* of both, and of the engine's stop_event */
  int side;                   /* of the frame in hand */
  uint32_t index;
  struct tap_worker tap;
  struct flows_worker *flows; /* flows/flows.h */
  int hold_timer;             /* timerfd: a packet that waits for the standby has waited long enough */
  pthread_t thread;
  bool started;
  uint64_t slept;             /* looks of the pair's thread that found it asleep, with nothing to do */
  uint64_t waits_ns, waits_sleep; /* since when these found packets in its queues, and in which sleep that was */
  int packet_fd;              /* dispatch.h: AF_PACKET; -1: the kernel has none */
  struct io *io;              /* io.h: buffers and batches */
};

struct engine {
  struct options options;
  struct ips_tables *tables;
  struct worker *workers;
  struct region region;
  struct taps *taps;
  struct rt *rt;           /* rt/rt.h */
  struct natlog *natlog;   /* natlog/natlog.h */
  struct flows *flows;     /* flows/flows.h */
  struct dispatch *dispatch; /* dispatch.h */
  uint8_t boot_id[16];
  uint64_t started_ns;
  uint64_t netns;
  uint32_t features;
  uint32_t ifindex[SIDES];
  int stop_event;          /* eventfd; readable: workers and the tap thread end */
  int wake_event;          /* eventfd to the main thread: tap state changed, or `fatal` */
  _Atomic int fatal;       /* exit code asked for by a worker, or 0 */
  _Atomic bool stopping;   /* set before stop_event is signalled */
  struct ips_worker *why;  /* private worker of op WHY, index = number of workers */
};

/* fail.c: one sentence on stderr, as text or, with --json-errors, as a line of JSON. */
void fail_use_json(bool json);
/* Says it and returns the code. `hint` is the remedy. */
int fail(int code, const char *hint, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* tun.c: opens `workers` queues of a new device each; fds[i x SIDES + side]. Returns an exit code. */
int tun_open_all(struct engine *e, int *fds);

/* region.c. Returns 0, or -1 with errno. */
int region_create(struct region *r, uint32_t workers, uint32_t cells, const uint8_t boot_id[16]);
struct ips_ctl_worker *region_worker(const struct region *r, uint32_t worker);
struct ips_counters *region_counters(const struct region *r, uint32_t worker);
struct ips_cell *region_cells(const struct region *r, uint32_t worker);
/* cells.c: before a commit. False: no memory, nothing cleared. */
bool cells_clear_fresh(const struct engine *e);
/* A memfd of that size, mapped writable (*map NULL where bytes is 0). The descriptor, or -1 with errno. */
int memfd_new(const char *name, size_t bytes, void **map);
/* It is filled: unmapped, and nobody can write or resize it any more. 0, or -1 with errno. */
int memfd_seal(int fd, void *map, size_t bytes);

/* worker.c */
int worker_start(struct worker *w); /* 0, or an errno */
void worker_stop(struct worker *w);

/* control.c: serves the socket until SIGTERM or SHUTDOWN; returns an exit code. */
int control_listen(const char *path, int *lock_fd);
int control_run(struct engine *e, int listen_fd);

/* notify.c: sd_notify(3) without its library; does nothing without NOTIFY_SOCKET. */
void notify(const char *state);
uint64_t notify_watchdog_ns(void); /* interval asked for by WATCHDOG_USEC, 0: none */

/* Adds to a counter of the region, which has one writer; no reader sees half a number. */
#define ADD(counter, n) __atomic_store_n(&(counter), (counter) + (n), __ATOMIC_RELAXED)

static inline void eventfd_signal(int fd) {
  uint64_t one = 1;
  if (write(fd, &one, sizeof one) < 0) { /* EAGAIN: it is readable already */ }
}
static inline uint64_t clock_ns(int clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}
#endif
