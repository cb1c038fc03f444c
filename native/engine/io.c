/* io.c: reading and writing the device queues, one by one or in batches. */
#define _GNU_SOURCE
#include "io.h"
#include "dispatch.h"
#include "vnet.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* What a result belongs to: a read has its slot, a write WRITE, side and bytes of the packet. */
#define WRITE (1ull << 63)
#define WRITE_TAG(side, bytes) (WRITE | (uint64_t)(side) << 32 | (bytes))

int io_open(struct worker *w) {
  struct io *io = calloc(1, sizeof *io);
  w->io = io;
  if (!io) return -1;
  io->ring.fd = -1;
  io->batched = !w->engine->options.plain_io && uring_open(&io->ring, w->fd) == 0;
  io->want[0] = io->want[1] = 1;
  io->arena = malloc(IO_ARENA);
  void *slots = mmap(NULL, (size_t)IO_BATCH * IO_SLOT, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (slots == MAP_FAILED) return -1;
  io->slots = slots;
  return io->arena ? 0 : -1;
}

void io_close(struct worker *w) {
  struct io *io = w->io;
  if (!io) return;
  uring_close(&io->ring);
  if (io->slots) munmap(io->slots, (size_t)IO_BATCH * IO_SLOT);
  free(io->arena);
  free(io);
}

static void written(struct worker *w, int side, uint32_t bytes, int error) {
  if (ips_unlikely(error)) {
    ADD(w->stat->tx_refused[side], 1);
    __atomic_store_n(&w->stat->tx_errno, (uint64_t)error, __ATOMIC_RELAXED);
    return;
  }
  ADD(w->stat->tx_packets[side], 1);
  ADD(w->stat->tx_bytes[side], bytes);
}

static void done(void *arg, uint64_t tag, int result) {
  struct worker *w = arg;
  if (tag & WRITE) written(w, tag >> 32 & 1, (uint32_t)tag, result < 0 ? -result : 0);
  else w->io->result[tag] = result;
}

/* The ring itself failing is a fault of the kernel or of ours; the worker goes on without it. */
static void run_ring(struct worker *w) {
  struct io *io = w->io;
  int error = uring_run(&io->ring, done, w);
  if (ips_unlikely(error)) {
    io->batched = false;
    __atomic_store_n(&w->stat->tx_errno, (uint64_t)error, __ATOMIC_RELAXED);
  }
  io->staged = 0;
  io->arena_used = 0;
}

void io_flush(struct worker *w) {
  if (w->io->staged) run_ring(w);
}

static void stage(struct worker *w, uint8_t *at, uint32_t bytes) {
  struct io *io = w->io;
  uring_queue(&io->ring, true, w->side, at, bytes, WRITE_TAG(w->side, bytes - VNET_BYTES));
  io->staged++;
}

static void write_now(struct worker *w, struct ips_pkt *p, struct virtio_net_hdr *header) {
  ssize_t n;
  if (ips_likely(p->headroom >= VNET_BYTES)) {
    memcpy(p->data - VNET_BYTES, header, VNET_BYTES);
    n = write(w->fd[w->side], p->data - VNET_BYTES, p->len + VNET_BYTES);
  } else {
    struct iovec parts[2] = {{header, VNET_BYTES}, {p->data, p->len}};
    n = writev(w->fd[w->side], parts, 2);
  }
  written(w, w->side, p->len, n < 0 ? errno : 0);
}

void io_send(struct worker *w, struct ips_pkt *p, bool is_stable) {
  struct io *io = w->io;
  if (ips_unlikely(p->server)) {
    dispatch_send(w, p);
    return;
  }
  struct virtio_net_hdr header = vnet_out(p);
  if (!io->batched || p->len > IO_SMALL) {
    io_flush(w);
    write_now(w, p, &header);
    return;
  }
  uint32_t bytes = p->len + VNET_BYTES, aligned = (bytes + 7) & ~7u;
  if (uring_room(&io->ring) <= IO_BATCH || (!is_stable && io->arena_used + aligned > IO_ARENA)) io_flush(w);
  if (is_stable && p->headroom >= VNET_BYTES) {
    memcpy(p->data - VNET_BYTES, &header, VNET_BYTES);
    stage(w, p->data - VNET_BYTES, bytes);
    return;
  }
  uint8_t *copy = io->arena + io->arena_used;
  memcpy(copy, &header, VNET_BYTES);
  memcpy(copy + VNET_BYTES, p->data, p->len);
  io->arena_used += aligned;
  stage(w, copy, bytes);
}

bool io_read_batch(struct worker *w, int side) {
  struct io *io = w->io;
  uint32_t want = io->want[side], got = 0;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < want; i++) {
    io->result[i] = -EAGAIN;
    uring_queue(&io->ring, false, side, io_slot(io, i) + HEADROOM - VNET_BYTES, PACKET_ROOM, i);
  }
  run_ring(w);
  for (uint32_t i = 0; i < want; i++) {
    if (io->result[i] < 0) continue;
    got++;
    bytes += (uint32_t)io->result[i];
  }
  io->is_large[side] = got && bytes / got > IO_SMALL;
  io->want[side] = got < want ? got + 1 : want * 2 < IO_BATCH ? want * 2 : IO_BATCH;
  return got || io->result[0] != -EAGAIN;
}
