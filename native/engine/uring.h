/* uring.h: several reads and writes in one system call (io_uring), by the raw interface.
 *
 * Used as a batch, not asynchronously: no operation may wait (RWF_NOWAIT), so each of a
 * submission is done, in order, when uring_run returns. A read of an empty queue is
 * -EAGAIN. No thread, callback or completion outlives the call. Where the kernel or a container's
 * seccomp filter has no io_uring, workers use read() and write().
 */
#ifndef URING_H
#define URING_H
#include "engine.h"

enum { URING_ENTRIES = 128 };
struct io_uring_sqe;
struct io_uring_cqe;

struct uring {
  int fd;              /* -1: none */
  int device[SIDES];
  uint32_t queued;     /* operations since the last run */
  uint32_t sq_tail;
  uint32_t *sq_tail_shared, *cq_head, *cq_tail;
  uint32_t sq_mask, cq_mask;
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  void *map;
  size_t map_bytes, sqes_bytes;
};

/* Returns 0, or -1 where it cannot be used here. The devices are not registered with the ring: a ring is
 * taken down by the kernel some time after its process, and registered devices would outlive a killed engine
 * and stop the next. */
int uring_open(struct uring *u, const int device[SIDES]);
void uring_close(struct uring *u);

static inline uint32_t uring_room(const struct uring *u) { return URING_ENTRIES - u->queued; }
/* tag comes back with the result. There must be room. */
void uring_queue(struct uring *u, bool is_write, int side, void *bytes, uint32_t n, uint64_t tag);
/* Carries out all that is queued. done() is called for each operation, in their order. 0, or an errno. */
int uring_run(struct uring *u, void (*done)(void *arg, uint64_t tag, int result), void *arg);
#endif
