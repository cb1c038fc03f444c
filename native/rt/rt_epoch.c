/* rt_epoch.c: the epoch file: one line "ipshare epoch 1 COUNTER CHECK", CHECK being a digest of the counter.
 *
 * A reign uses no counter that is not here already (DESIGN.md 9), and a disk may take its time: the standby
 * reserves the next counter in advance, and the thread here waits for the disk instead of the real-time one. Counters
 * only rise; a crash leaves the old line or the new one.
 */
#define _GNU_SOURCE
#include "rt_epoch.h"
#include "../ips_digest.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LINE = 96 };

static uint64_t check_of(uint64_t counter) {
  struct ips_digest_state d;
  ips_digest_begin(&d);
  ips_digest_add(&d, "ipshare epoch 1", 15);
  ips_digest_add(&d, &counter, sizeof counter);
  return ips_digest_end(&d);
}

static int line_of(uint64_t counter, char out[LINE]) {
  return snprintf(out, LINE, "ipshare epoch 1 %" PRIu64 " %016" PRIx64 "\n", counter, check_of(counter));
}

int rt_epoch_read(const char *path, uint64_t *counter) {
  char line[LINE], again[LINE] = "";
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return errno == ENOENT ? 0 : -1;
  ssize_t n = read(fd, line, sizeof line - 1);
  close(fd);
  if (n < 0) return -1;
  line[n] = 0;
  bool is_ours = sscanf(line, "ipshare epoch 1 %" SCNu64 " ", counter) == 1;
  if (is_ours) line_of(*counter, again);
  if (is_ours && strcmp(line, again) == 0) return 1;
  errno = EBADMSG;
  return -1;
}

static int sync_directory(const char *path) {
  char name[256];
  snprintf(name, sizeof name, "%s", path);
  char *slash = strrchr(name, '/');
  if (!slash) return 0;
  slash[slash == name] = 0;
  int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  int failed = fsync(fd);
  close(fd);
  return failed;
}

int rt_epoch_write(const char *path, uint64_t counter) {
  char aside[272], line[LINE];
  int n = line_of(counter, line);
  snprintf(aside, sizeof aside, "%s.new", path);
  int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return -1;
  bool written = write(fd, line, (size_t)n) == n && fsync(fd) == 0;
  int error = errno;
  close(fd);
  if (written) return rename(aside, path) || sync_directory(path) ? -1 : 0;
  errno = error;
  return -1;
}

static void signal_event(int fd) {
  uint64_t one = 1;
  if (write(fd, &one, sizeof one) < 0) { /* EAGAIN: it is readable already */ }
}

static void *run(void *arg) {
  struct rt_epoch *e = arg;
  for (;;) {
    uint64_t events, wanted;
    poll(&(struct pollfd){.fd = e->wake, .events = POLLIN}, 1, -1);
    if (read(e->wake, &events, sizeof events) < 0 && errno != EAGAIN) break;
    while ((wanted = atomic_load(&e->wanted)) > atomic_load(&e->on_disk)) {
      if (rt_epoch_write(e->path, wanted)) {
        atomic_store(&e->failed, wanted);
        signal_event(e->done);
        break; /* asked for again, it is tried again */
      }
      atomic_store(&e->failed, 0);
      atomic_store(&e->on_disk, wanted);
      signal_event(e->done);
    }
    if (atomic_load(&e->stop)) break;
  }
  return NULL;
}

int rt_epoch_start(struct rt_epoch *e, const char *path) {
  snprintf(e->path, sizeof e->path, "%s", path);
  atomic_store(&e->stop, false);
  atomic_store(&e->wanted, 0);
  atomic_store(&e->failed, 0);
  e->wake = eventfd(0, EFD_CLOEXEC);
  e->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (e->wake < 0 || e->done < 0) return errno;
  int error = pthread_create(&e->thread, NULL, run, e);
  e->started = error == 0;
  if (e->started) pthread_setname_np(e->thread, "ips-epoch");
  return error;
}

void rt_epoch_want(struct rt_epoch *e, uint64_t counter) {
  if (counter > atomic_load(&e->wanted)) atomic_store(&e->wanted, counter);
  signal_event(e->wake);
}

void rt_epoch_stop(struct rt_epoch *e) {
  if (e->started) {
    atomic_store(&e->stop, true);
    signal_event(e->wake);
    pthread_join(e->thread, NULL);
  }
  e->started = false;
  if (e->wake >= 0) close(e->wake);
  if (e->done >= 0) close(e->done);
  e->wake = e->done = -1;
}
