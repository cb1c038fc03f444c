/* uring.c: set-up and use of one io_uring, io_uring(7). */
#define _GNU_SOURCE
#include "uring.h"
#include <errno.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static int enter(const struct uring *u, uint32_t n) {
  return (int)syscall(__NR_io_uring_enter, u->fd, n, n ? n : 1, IORING_ENTER_GETEVENTS, NULL, 0);
}

static int map_rings(struct uring *u, const struct io_uring_params *p) {
  const size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
  const size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
  u->map_bytes = sq > cq ? sq : cq;
  u->sqes_bytes = p->sq_entries * sizeof(struct io_uring_sqe);
  u->map =
    mmap(NULL, u->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQ_RING);
  if (u->map == MAP_FAILED) return u->map = NULL, -1;
  void *sqes =
    mmap(NULL, u->sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQES);
  if (sqes == MAP_FAILED) return -1;
  uint8_t *base = u->map;
  uint32_t *array = (uint32_t *)(base + p->sq_off.array);
  for (uint32_t i = 0; i < p->sq_entries; i++) array[i] = i; /* entry i of the ring is always SQE i */
  u->sqes = sqes;
  u->sq_tail_shared = (uint32_t *)(base + p->sq_off.tail);
  u->sq_tail = *u->sq_tail_shared;
  u->cq_head = (uint32_t *)(base + p->cq_off.head);
  u->cq_tail = (uint32_t *)(base + p->cq_off.tail);
  u->cqes = (struct io_uring_cqe *)(base + p->cq_off.cqes);
  u->sq_mask = p->sq_entries - 1;
  u->cq_mask = p->cq_entries - 1;
  return 0;
}

static void keep_result(void *arg, uint64_t tag, int result) {
  (void)tag;
  *(int *)arg = result;
}

/* A read of the queue, which nobody can have filled yet: any result but EAGAIN says that this kernel does not
 * do what we need. TUN devices know RWF_NOWAIT since Linux 6.4; before: EOPNOTSUPP. */
static int try_read(struct uring *u) {
  uint8_t bytes[64];
  int result = 0;
  uring_queue(u, false, IPS_CTL_OUTER, bytes, sizeof bytes, 0);
  return uring_run(u, keep_result, &result) || result != -EAGAIN ? -1 : 0;
}

int uring_open(struct uring *u, const int device[SIDES]) {
  struct io_uring_params p = {0};
  *u = (struct uring){.fd = (int)syscall(__NR_io_uring_setup, URING_ENTRIES, &p)};
  if (u->fd < 0) return -1;
  const uint32_t needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS;
  memcpy(u->device, device, sizeof u->device);
  if ((p.features & needed) == needed && map_rings(u, &p) == 0 && try_read(u) == 0) return 0;
  uring_close(u);
  return -1;
}

void uring_close(struct uring *u) {
  if (u->fd < 0) return;
  if (u->sqes) munmap(u->sqes, u->sqes_bytes);
  if (u->map) munmap(u->map, u->map_bytes);
  close(u->fd);
  u->fd = -1;
}

void uring_queue(struct uring *u, bool is_write, int side, void *bytes, uint32_t n, uint64_t tag) {
  struct io_uring_sqe *s = &u->sqes[u->sq_tail++ & u->sq_mask];
  memset(s, 0, sizeof *s);
  s->opcode = is_write ? IORING_OP_WRITE : IORING_OP_READ;
  s->fd = u->device[side];
  s->addr = (uint64_t)(uintptr_t)bytes;
  s->len = n;
  s->off = UINT64_MAX; /* no position: a device */
  s->rw_flags = RWF_NOWAIT; /* O_NONBLOCK does not do: the ring would wait for a packet by itself */
  s->user_data = tag;
  u->queued++;
}

int uring_run(struct uring *u, void (*done)(void *arg, uint64_t tag, int result), void *arg) {
  uint32_t left = u->queued;
  __atomic_store_n(u->sq_tail_shared, u->sq_tail, __ATOMIC_RELEASE);
  for (uint32_t to_submit = left; left;) {
    int n = enter(u, to_submit);
    if (n < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) return errno;
    if (n > 0) to_submit -= (uint32_t)n;
    uint32_t head = *u->cq_head, tail = __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE);
    for (; head != tail; head++, left--) {
      const struct io_uring_cqe *c = &u->cqes[head & u->cq_mask];
      done(arg, c->user_data, c->res);
    }
    __atomic_store_n(u->cq_head, head, __ATOMIC_RELEASE);
  }
  u->queued = 0;
  return 0;
}
