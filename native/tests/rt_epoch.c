/* rt_epoch.c: the epoch file: what was written is read, a missing one is told from a damaged one, however it was cut or
 * flipped; the thread writes what was asked for, says so, and says what could not be written.
 */
#define _GNU_SOURCE
#include "rt/rt_epoch.h"
#include "check.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned damaged;
static char directory[64], path[80];

static size_t slurp(char *out, size_t room) {
  int fd = open(path, O_RDONLY);
  ssize_t n = read(fd, out, room);
  close(fd);
  return n < 0 ? 0 : (size_t)n;
}

static void spill(const char *bytes, size_t n) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  CHECK(write(fd, bytes, n) == (ssize_t)n);
  close(fd);
}

static void reads_what_was_written(void) {
  static const uint64_t counters[] = {1, 2, 4294967296ull, UINT64_MAX};
  uint64_t got;
  CHECK(rt_epoch_read(path, &got) == 0);
  for (unsigned i = 0; i < sizeof counters / sizeof *counters; i++) {
    CHECK(rt_epoch_write(path, counters[i]) == 0);
    CHECK(rt_epoch_read(path, &got) == 1 && got == counters[i]);
  }
  struct stat st;
  CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
}

static void tells_damage_from_absence(void) {
  char whole[128], broken[128];
  uint64_t got;
  CHECK(rt_epoch_write(path, 77) == 0);
  size_t n = slurp(whole, sizeof whole);
  for (size_t cut = 0; cut < n; cut++) {
    spill(whole, cut);
    CHECK(rt_epoch_read(path, &got) == -1 && errno == EBADMSG);
    damaged++;
  }
  for (size_t bit = 0; bit < n * 8; bit++) {
    memcpy(broken, whole, n);
    broken[bit / 8] = (char)(broken[bit / 8] ^ 1 << bit % 8);
    spill(broken, n);
    CHECK(rt_epoch_read(path, &got) == -1);
    damaged++;
  }
  spill(whole, n);
  CHECK(rt_epoch_read(path, &got) == 1 && got == 77);
}

static void await(struct rt_epoch *e) {
  uint64_t events;
  CHECK(poll(&(struct pollfd){.fd = e->done, .events = POLLIN}, 1, 60000) == 1);
  CHECK(read(e->done, &events, sizeof events) == sizeof events);
}

static void the_thread_writes(void) {
  struct rt_epoch e = {.wake = -1, .done = -1};
  uint64_t got;
  CHECK(rt_epoch_start(&e, path) == 0);
  atomic_store(&e.on_disk, 77);
  for (uint64_t counter = 78; counter < 90; counter++) {
    rt_epoch_want(&e, counter);
    while (atomic_load(&e.on_disk) < counter) await(&e);
    CHECK(rt_epoch_read(path, &got) == 1 && got == counter);
  }
  CHECK(unlink(path) == 0 && rmdir(directory) == 0);
  rt_epoch_want(&e, 90);
  while (atomic_load(&e.failed) != 90) await(&e);
  CHECK(atomic_load(&e.on_disk) == 89);
  CHECK(mkdir(directory, 0700) == 0);
  rt_epoch_want(&e, 90); /* asked for again */
  while (atomic_load(&e.on_disk) != 90) await(&e);
  rt_epoch_stop(&e);
  CHECK(rt_epoch_read(path, &got) == 1 && got == 90);
}

int main(void) {
  const char *tmp = getenv("TMPDIR");
  snprintf(directory, sizeof directory, "%s/ipshare-epoch-%d", tmp ? tmp : "/tmp", (int)getpid());
  CHECK(mkdir(directory, 0700) == 0);
  snprintf(path, sizeof path, "%s/epoch", directory);
  reads_what_was_written();
  tells_damage_from_absence();
  the_thread_writes();
  unlink(path);
  rmdir(directory);
  printf("%u damaged epoch files were told\n", damaged);
  return 0;
}
