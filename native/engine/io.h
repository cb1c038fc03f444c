/* io.h: how a worker's packets come from and go to its device queues.
 *
 * Two ways, by what comes. Large packets: read() one, the core, write() it, while it is in the cache.
 * Small ones: where io_uring works, one system call writes the previous batch and reads the
 * next one. Measured on a busy two-core Linux 6.18 with 64 bytes: 5 % and 21 % more than read/write in two
 * series; multishot io_uring less than that, IFF_NAPI 15 % less than without. Large packets in batches would
 * leave the cache: 32 of them are 2 MB.
 *
 * Order within a queue is kept: whatever is written directly first sends what is staged.
 */
#ifndef IO_H
#define IO_H
#include "uring.h"

enum {
  IO_BATCH = 32,
  IO_SLOT = HEADROOM + PACKET_ROOM,     /* a packet may be a super-packet, one never knows */
  IO_SMALL = 2048,                      /* bytes of packets that are worth a batch */
  IO_ARENA = 1 << 18,                   /* copies of small packets that the core made */
};

struct io {
  struct uring ring;
  bool batched;                /* ring is there */
  uint8_t *slots;              /* IO_BATCH; of a submission, writes out of them come before reads into them */
  uint8_t *arena;
  uint32_t arena_used;
  uint32_t staged;             /* writes in the ring */
  uint32_t want[SIDES];        /* reads that the next batch tries */
  bool is_large[SIDES];        /* the last batch was mostly large packets */
  int result[IO_BATCH];        /* of the reads */
};

int io_open(struct worker *w); /* 0, or -1: no memory */
void io_close(struct worker *w);
/* Out of the device of the frame in hand. is_stable: the packet's bytes stay until the next batch is read. */
void io_send(struct worker *w, struct ips_pkt *p, bool is_stable);
/* Sends what is staged; before sleeping. */
void io_flush(struct worker *w);
/* Reads up to io->want[side] packets into the slots; results are in io->result. False: there was none. */
bool io_read_batch(struct worker *w, int side);

static inline uint8_t *io_slot(const struct io *io, uint32_t i) { return io->slots + (size_t)i * IO_SLOT; }
#endif
