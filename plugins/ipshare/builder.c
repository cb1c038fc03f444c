/* builder.c: what takes long, or waits, is done beside VPP's threads: tables are read, validated and built in one lane,
 * the pair is set, cleared and told in another, which waits for no tables, and so are tracked connections; these are
 * listed in a fourth.
 *
 * A lane's plain pthread waits for one job at a time and uses only the core and libc: VPP's heap, vectors and clock belong
 * to VPP's threads. A process node looks every 200 us whether the job at hand is done, because a busy main
 * thread polls file descriptors only once in a thousand loops, and finishes it on the main thread. In the idle
 * time between jobs the lane of tables frees generations that no worker can see any more.
 */
#define _GNU_SOURCE
#include <ipshare/ipshare.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FREE, QUEUED, DONE };
#define MOST_BYTES (4ull << 30) /* of a file: 80 million bindings; what is larger is something else */

typedef struct
{
  const char *name;
  pthread_t thread;
  bool started;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  ipshare_job_t job, waiting; /* waiting: taken while only a reclaim was under way */
  bool has_waiting;
  int state; /* atomic */
} lane_t;

#define LANE(thread_name) { .name = thread_name, .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER }
static lane_t lanes[IPSHARE_N_LANES] = {
  [IPSHARE_LANE_TABLES] = LANE ("ipshare-build"),
  [IPSHARE_LANE_PAIR] = LANE ("ipshare-pair"),
  [IPSHARE_LANE_FLOWS] = LANE ("ipshare-flows"),
  [IPSHARE_LANE_SESSIONS] = LANE ("ipshare-list"),
};

static u64
clock_ns (void)
{
  struct timespec now;
  clock_gettime (CLOCK_MONOTONIC, &now);
  return (u64) now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *
run (void *arg)
{
  lane_t *lane = arg;
  pthread_mutex_lock (&lane->mutex);
  for (;;)
    {
      while (__atomic_load_n (&lane->state, __ATOMIC_ACQUIRE) != QUEUED)
	pthread_cond_wait (&lane->wake, &lane->mutex);
      u64 began = clock_ns ();
      lane->job.work (&lane->job);
      lane->job.took_ns = clock_ns () - began;
      __atomic_store_n (&lane->state, DONE, __ATOMIC_RELEASE);
    }
  return NULL;
}

static bool
start (lane_t *lane)
{
  sigset_t all, before;
  if (lane->started)
    return true;
  sigfillset (&all); /* VPP's signals are the main thread's */
  pthread_sigmask (SIG_SETMASK, &all, &before);
  lane->started = pthread_create (&lane->thread, NULL, run, lane) == 0;
  pthread_sigmask (SIG_SETMASK, &before, NULL);
  if (lane->started)
    pthread_setname_np (lane->thread, lane->name);
  return lane->started;
}

static vlib_node_registration_t ipshare_builder_process;

static bool
is_busy (const lane_t *lane)
{
  return __atomic_load_n (&lane->state, __ATOMIC_ACQUIRE) != FREE;
}

bool
ipshare_builder_busy (void)
{
  return is_busy (lanes + IPSHARE_LANE_TABLES);
}

bool
ipshare_lane_busy (u32 lane)
{
  return is_busy (lanes + lane);
}

static void
reclaim (CLIB_UNUSED (ipshare_job_t *job))
{
  ips_tables_reclaim (ipshare_main.tables);
}

static bool
submit (const ipshare_job_t *job)
{
  lane_t *lane = lanes + job->lane;
  if (!start (lane))
    return false;
  if (is_busy (lane))
    {
      if (lane->job.work != reclaim || lane->has_waiting)
	return false;
      lane->waiting = *job;
      lane->has_waiting = true;
      return true;
    }
  pthread_mutex_lock (&lane->mutex);
  lane->job = *job;
  __atomic_store_n (&lane->state, QUEUED, __ATOMIC_RELEASE);
  pthread_cond_signal (&lane->wake);
  pthread_mutex_unlock (&lane->mutex);
  return true;
}

void
ipshare_process_wake (void)
{
  vlib_process_signal_event (vlib_get_main (), ipshare_builder_process.index, 0, 0);
}

bool
ipshare_builder_submit (ipshare_job_t *job)
{
  if (!submit (job))
    return false;
  ipshare_process_wake ();
  return true;
}

/* ---- jobs (builder's thread) ---- */

/* Reads, and does not map: whoever cuts a mapped file short ends VPP by SIGBUS. */
static void
fill (int fd, ipshare_job_t *job)
{
  struct stat st;
  if (fstat (fd, &st))
    {
      job->error = errno;
      return;
    }
  job->error = !S_ISREG (st.st_mode) ? EINVAL : st.st_size > MOST_BYTES ? EFBIG : 0;
  if (!job->error && !(job->image = malloc (st.st_size + 1)))
    job->error = ENOMEM;
  if (job->error)
    return;
  while (job->image_bytes < st.st_size)
    {
      ssize_t n = read (fd, (u8 *) job->image + job->image_bytes, st.st_size - job->image_bytes);
      if (n < 0 && errno == EINTR)
	continue;
      if (n < 0)
	job->error = errno;
      if (n <= 0)
	return;
      job->image_bytes += n;
    }
}

static bool
load (ipshare_job_t *job)
{
  int fd = open (job->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0)
    {
      job->error = errno;
      return false;
    }
  fill (fd, job);
  close (fd);
  return job->error == 0;
}

void
ipshare_job_nothing (CLIB_UNUSED (ipshare_job_t *job))
{
}

void
ipshare_job_prepare (ipshare_job_t *job)
{
  ipshare_main_t *im = &ipshare_main;
  if (!load (job))
    return;
  job->generation = ips_tables_prepare (im->tables, job->image, job->image_bytes, &job->status);
  if (job->generation && !ipshare_counters_clear_fresh (im))
    {
      ips_tables_abort (im->tables);
      job->generation = 0;
      job->status = (struct ips_load_status){ .error = IPS_LOAD_NO_MEMORY };
    }
}

static int
write_file (const char *path, const void *bytes, size_t n)
{
  int fd = open (path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600), error = 0;
  if (fd < 0)
    return errno;
  for (size_t at = 0; at < n && !error;)
    {
      ssize_t wrote = write (fd, (const u8 *) bytes + at, n - at);
      if (wrote > 0)
	at += wrote;
      else if (errno != EINTR)
	error = errno;
    }
  if (close (fd) && !error)
    error = errno;
  if (error)
    unlink (path);
  return error;
}

void
ipshare_job_dump (ipshare_job_t *job)
{
  struct ips_tables *t = ipshare_main.tables;
  struct ips_tables_info info;
  ips_tables_info (t, &info);
  job->generation = info.generation;
  job->bytes = ips_tables_dump (t, NULL, 0);
  void *image = malloc (job->bytes ? job->bytes : 1);
  if (!image)
    job->error = ENOMEM;
  else if (job->bytes)
    {
      ips_tables_dump (t, image, job->bytes);
      job->error = write_file (job->path, image, job->bytes);
    }
  free (image);
}

void
ipshare_job_counter_index (ipshare_job_t *job)
{
  if (!load (job))
    return;
  size_t n = job->image_bytes / sizeof (struct ips_binding_rec);
  u32 *cells = malloc (2 * n * sizeof *cells + 1);
  if (!cells || job->image_bytes % sizeof (struct ips_binding_rec))
    job->error = cells ? EINVAL : ENOMEM;
  else
    {
      ips_tables_counter_index (ipshare_main.tables, (const void *) job->image, n, cells, cells + n);
      job->error = write_file (job->out, cells, 2 * n * sizeof *cells);
      job->n = n;
    }
  free (cells);
}

/* ---- main thread ---- */

/* Its number may be another client's in a moment. */
void
ipshare_builder_client_gone (u32 client_index)
{
  for (lane_t *lane = lanes; lane < lanes + IPSHARE_N_LANES; lane++)
    {
      if (lane->job.client_index == client_index)
	lane->job.client_index = ~0;
      if (lane->waiting.client_index == client_index)
	lane->waiting.client_index = ~0;
    }
}

static void
finish (lane_t *lane)
{
  ipshare_job_t job = lane->job;
  if (__atomic_load_n (&lane->state, __ATOMIC_ACQUIRE) != DONE)
    return;
  if (job.done)
    job.done (&job);
  free (job.image);
  __atomic_store_n (&lane->state, FREE, __ATOMIC_RELEASE);
  if (lane->has_waiting)
    {
      lane->has_waiting = false;
      submit (&lane->waiting);
    }
}

static uword
process (vlib_main_t *vm, CLIB_UNUSED (vlib_node_runtime_t *node), CLIB_UNUSED (vlib_frame_t *frame))
{
  f64 last_reclaim = 0;
  bool tap_ends = false;
  for (;;)
    {
      bool busy = false;
      for (u32 lane = 0; lane < IPSHARE_N_LANES; lane++)
	busy |= ipshare_lane_busy (lane);
      vlib_process_wait_for_event_or_clock (vm, busy ? 200e-6 : tap_ends ? 1e-3 : 1.0);
      vlib_process_get_events (vm, NULL);
      for (lane_t *lane = lanes; lane < lanes + IPSHARE_N_LANES; lane++)
	finish (lane);
      tap_ends = ipshare_main.configured && ipshare_taps_tick (&ipshare_main);
      if (ipshare_main.configured && !ipshare_builder_busy () && vlib_time_now (vm) > last_reclaim + 0.9)
	{
	  last_reclaim = vlib_time_now (vm);
	  submit (&(ipshare_job_t){ .work = reclaim });
	}
    }
  return 0;
}

VLIB_REGISTER_NODE (ipshare_builder_process, static) = {
  .function = process,
  .type = VLIB_NODE_TYPE_PROCESS,
  .name = "ipshare-builder-process",
};
