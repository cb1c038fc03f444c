/* rt_epoch.h: the highest epoch's counter on disk, written by a thread of its own (rt_epoch.c). */
#ifndef RT_EPOCH_H
#define RT_EPOCH_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct rt_epoch {
  char path[256];
  int wake;                    /* eventfd to this thread */
  int done;                    /* eventfd to who asked */
  pthread_t thread;
  bool started;
  _Atomic bool stop;
  _Atomic uint64_t wanted;     /* counter to be written */
  _Atomic uint64_t on_disk;    /* counter that is there */
  _Atomic uint64_t failed;     /* counter whose writing failed last; 0: none since */
};
/* 1: *counter was read; 0: there is no file; -1: there is one that cannot be read or is damaged (errno; EBADMSG:
 * damaged). A damaged file is never taken for a missing one: what it said is unknown, not zero. */
int rt_epoch_read(const char *path, uint64_t *counter);
/* Written aside, synchronised, renamed, directory synchronised. 0, or -1 with errno. */
int rt_epoch_write(const char *path, uint64_t counter);
int rt_epoch_start(struct rt_epoch *e, const char *path); /* 0, or an errno */
void rt_epoch_want(struct rt_epoch *e, uint64_t counter); /* does not wait */
void rt_epoch_stop(struct rt_epoch *e);
#endif
