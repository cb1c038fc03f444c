/* region.c: the counters' shared memory, and memfds in general.
 *
 * Workers count in place; clients get a read-only descriptor of the same pages, so
 * that reading a million counters costs the engine nothing. Pages that no packet ever
 * touched take no memory. Seals: nobody can shrink it under a reader (SIGBUS) and no
 * client can write to it.
 */
#define _GNU_SOURCE
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define PAGE 4096ull

static uint64_t page_align(uint64_t n) { return (n + PAGE - 1) & ~(PAGE - 1); }

int memfd_new(const char *name, size_t bytes, void **map) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  *map = NULL;
  if (ftruncate(fd, (off_t)bytes) == 0 && bytes) {
    *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*map != MAP_FAILED) return fd;
  } else if (!bytes) {
    return fd;
  }
  int reason = errno;
  close(fd);
  errno = reason;
  return -1;
}

int memfd_seal(int fd, void *map, size_t bytes) {
  if (map) munmap(map, bytes); /* F_SEAL_WRITE is refused while a writable mapping lives */
  return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
}

/* A second, read-only open file: the descriptor's mode is what stops a client from writing
 * on kernels without F_SEAL_FUTURE_WRITE (Linux < 5.1). */
static int reopen_read_only(int fd) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, O_RDONLY | O_CLOEXEC);
}

int region_create(struct region *r, uint32_t workers, uint32_t cells, const uint8_t boot_id[16]) {
  struct ips_ctl_region layout = {
    .magic = IPS_CTL_MAGIC, .version = IPS_CTL_VERSION, .n_workers = workers, .n_cells = cells,
    .worker_offset = page_align(sizeof layout), .worker_stride = page_align(sizeof(struct ips_ctl_worker)),
    .counters_stride = page_align(sizeof(struct ips_counters)),
    .cells_stride = page_align(sizeof(struct ips_cell) * (uint64_t)cells),
  };
  memcpy(layout.boot_id, boot_id, 16);
  layout.counters_offset = layout.worker_offset + workers * layout.worker_stride;
  layout.cells_offset = layout.counters_offset + workers * layout.counters_stride;
  layout.total_bytes = layout.cells_offset + workers * layout.cells_stride;
  void *map;
  r->fd = memfd_new("ipshare-counters", layout.total_bytes, &map);
  if (r->fd < 0) return -1;
  r->header = map;
  *r->header = layout;
  fcntl(r->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  fcntl(r->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE); /* where the kernel knows it */
  r->public_fd = reopen_read_only(r->fd);
  return r->public_fd < 0 ? -1 : 0;
}

static void *at(const struct region *r, uint64_t offset) { return (uint8_t *)r->header + offset; }

struct ips_ctl_worker *region_worker(const struct region *r, uint32_t worker) {
  return at(r, r->header->worker_offset + worker * r->header->worker_stride);
}
struct ips_counters *region_counters(const struct region *r, uint32_t worker) {
  return at(r, r->header->counters_offset + worker * r->header->counters_stride);
}
struct ips_cell *region_cells(const struct region *r, uint32_t worker) {
  return at(r, r->header->cells_offset + worker * r->header->cells_stride);
}
