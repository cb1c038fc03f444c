/* processors.c: more processors for a VPP under test than the machine has.
 *
 * VPP gives its main thread and each worker a processor of its own, and does not start where there are fewer. Preloaded,
 * and with `cpu { relative main-core 0 }`, this says that there are IPSHARE_PROCESSORS of them; threads run wherever the
 * kernel likes. Not pinned, because VPP ends itself where a worker does not answer its main thread within a second. For
 * tests of what two workers do to each other; they measure nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

int
sched_getaffinity (pid_t pid, size_t n, cpu_set_t *set)
{
  int (*next) (pid_t, size_t, cpu_set_t *) = dlsym (RTLD_NEXT, "sched_getaffinity");
  const char *said = getenv ("IPSHARE_PROCESSORS");
  int result = next (pid, n, set);
  for (int i = 0; result == 0 && said && i < atoi (said); i++)
    CPU_SET_S ((size_t) i, n, set);
  return result;
}

int
sched_setaffinity (pid_t pid, size_t n, const cpu_set_t *set)
{
  (void) pid, (void) n, (void) set;
  return 0;
}

int
pthread_setaffinity_np (pthread_t thread, size_t n, const cpu_set_t *set)
{
  (void) thread, (void) n, (void) set;
  return 0;
}
