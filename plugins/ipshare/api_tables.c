/* api_tables.c: the messages about tables. What takes long is a job of the builder's, and its message is answered when
 * the job is done; commit and rollback are immediate, but wait their turn behind a reclaim.
 */
#include "api.h"
#include <time.h>

static u64
clock_ns (void)
{
  struct timespec now;
  clock_gettime (CLOCK_MONOTONIC, &now);
  return (u64) now.tv_sec * 1000000000 + now.tv_nsec;
}

void
ipshare_info_refresh (ipshare_main_t *im)
{
  ips_tables_info (im->tables, &im->info);
  im->cells_used = ips_tables_counter_cells (im->tables);
}

static void
path_of (char to[256], const u8 *from)
{
  memcpy (to, from, 256);
  to[255] = 0;
}

/* The prefixes of the prepared generation live as long as it does: one that is committed without them would take all
 * traffic away from us. */
static void
refresh (ipshare_main_t *im)
{
  ipshare_info_refresh (im);
  if (!im->info.prepared)
    vec_free (im->diverted_prepared);
}

static u32
entries (ipshare_diverted_t *all)
{
  ipshare_diverted_t *peers = ipshare_diverted_peers (all);
  u32 n = vec_len (all) + vec_len (peers);
  vec_free (peers);
  return n;
}

static void
prepare_done (ipshare_job_t *job)
{
  ipshare_main_t *im = &ipshare_main;
  if (job->generation)
    {
      vec_free (im->diverted_prepared);
      im->diverted_prepared = ipshare_diverted_of (job->image);
    }
  if (job->generation && entries (im->diverted_prepared) > IPSHARE_MAX_DIVERTED)
    {
      ips_tables_abort (im->tables);
      job->generation = 0;
      job->status = (struct ips_load_status){ .error = IPS_LOAD_TOO_LARGE, .section = 1, .index = IPSHARE_MAX_DIVERTED };
    }
  int rv = job->error ? VNET_API_ERROR_SYSCALL_ERROR_1 : job->generation ? 0 : VNET_API_ERROR_INVALID_VALUE;
  refresh (im);
  vl_api_ipshare_prepare_reply_t *rmp = late_reply (job, VL_API_IPSHARE_PREPARE_REPLY, sizeof *rmp, rv);
  if (!rmp)
    return;
  rmp->generation = be64 (job->generation);
  rmp->error = be32 (job->error ? job->error : job->status.error);
  rmp->section = be32 (job->status.section);
  rmp->index = be32 (job->status.index);
  rmp->took_ns = be64 (job->took_ns);
  send_late (job, rmp);
}

void
vl_api_ipshare_prepare_t_handler (vl_api_ipshare_prepare_t *mp)
{
  vl_api_ipshare_prepare_reply_t *rmp;
  ipshare_job_t job = JOB (mp, ipshare_job_prepare, prepare_done);
  path_of (job.path, mp->path);
  int rv = ready ();
  if (!rv)
    rv = submit (job);
  if (rv)
    REPLY_MACRO (VL_API_IPSHARE_PREPARE_REPLY);
}

static void
divert (ipshare_main_t *im, ipshare_diverted_t *before, ipshare_diverted_t *wanted, bool removals)
{
  ipshare_divert (im, im->fib_source, im->service_fib, before, wanted, removals);
  if (im->service_table == im->delivery_table)
    return;
  ipshare_diverted_t *had = ipshare_diverted_peers (before), *peers = ipshare_diverted_peers (wanted);
  ipshare_divert (im, im->fib_source, im->delivery_fib, had, peers, removals);
  vec_free (had);
  vec_free (peers);
}

/* What was live becomes what was before. New prefixes come after the tables that know them, old ones go first. */
static void
switch_to (ipshare_main_t *im, ipshare_diverted_t *wanted, int (*change) (u64 *generation), u64 *generation, int *rv)
{
  divert (im, im->diverted, wanted, true);
  *rv = change (generation);
  if (*rv)
    {
      divert (im, wanted, im->diverted, false);
      return;
    }
  divert (im, im->diverted, wanted, false);
  ipshare_diverted_t *old = im->diverted_before;
  im->diverted_before = im->diverted;
  im->diverted = wanted;
  if (old != wanted)
    vec_free (old);
}

static int
change_commit (u64 *generation)
{
  return ips_tables_commit (ipshare_main.tables, *generation) ? VNET_API_ERROR_NO_SUCH_ENTRY : 0;
}

static int
change_rollback (u64 *generation)
{
  *generation = ips_tables_rollback (ipshare_main.tables);
  return *generation ? 0 : VNET_API_ERROR_NO_SUCH_ENTRY;
}

static void
commit (ipshare_job_t *job)
{
  ipshare_main_t *im = &ipshare_main;
  u64 began = clock_ns ();
  int rv = 0;
  if (job->generation != im->info.prepared || !job->generation)
    rv = job->generation && job->generation == im->info.generation ? 0 : VNET_API_ERROR_NO_SUCH_ENTRY;
  else
    {
      ipshare_diverted_t *wanted = im->diverted_prepared;
      im->diverted_prepared = NULL;
      switch_to (im, wanted, change_commit, &job->generation, &rv);
    }
  job->took_ns = clock_ns () - began;
  refresh (im);
  vl_api_ipshare_commit_reply_t *rmp = late_reply (job, VL_API_IPSHARE_COMMIT_REPLY, sizeof *rmp, rv);
  if (!rmp)
    return;
  rmp->generation = be64 (im->info.generation);
  rmp->took_ns = be64 (job->took_ns);
  send_late (job, rmp);
}

void
vl_api_ipshare_commit_t_handler (vl_api_ipshare_commit_t *mp)
{
  vl_api_ipshare_commit_reply_t *rmp;
  ipshare_job_t job = JOB (mp, ipshare_job_nothing, commit);
  job.generation = be64 (mp->generation);
  int rv = ready ();
  if (!rv && !ipshare_builder_busy ())
    commit (&job);
  else if (!rv)
    rv = submit (job);
  if (rv)
    REPLY_MACRO (VL_API_IPSHARE_COMMIT_REPLY);
}

static void
rollback (ipshare_job_t *job)
{
  ipshare_main_t *im = &ipshare_main;
  u64 began = clock_ns ();
  int rv = im->info.previous ? 0 : VNET_API_ERROR_NO_SUCH_ENTRY;
  if (!rv)
    switch_to (im, im->diverted_before, change_rollback, &job->generation, &rv);
  refresh (im);
  vl_api_ipshare_rollback_reply_t *rmp = late_reply (job, VL_API_IPSHARE_ROLLBACK_REPLY, sizeof *rmp, rv);
  if (!rmp)
    return;
  rmp->generation = be64 (job->generation);
  rmp->took_ns = be64 (clock_ns () - began);
  send_late (job, rmp);
}

void
vl_api_ipshare_rollback_t_handler (vl_api_ipshare_rollback_t *mp)
{
  vl_api_ipshare_rollback_reply_t *rmp;
  ipshare_job_t job = JOB (mp, ipshare_job_nothing, rollback);
  int rv = ready ();
  if (!rv && !ipshare_builder_busy ())
    rollback (&job);
  else if (!rv)
    rv = submit (job);
  if (rv)
    REPLY_MACRO (VL_API_IPSHARE_ROLLBACK_REPLY);
}

void
vl_api_ipshare_abort_t_handler (vl_api_ipshare_abort_t *mp)
{
  vl_api_ipshare_abort_reply_t *rmp;
  int rv = ready ();
  if (!rv && ipshare_builder_busy ())
    rv = VNET_API_ERROR_BUSY;
  if (!rv)
    {
      ips_tables_abort (ipshare_main.tables);
      refresh (&ipshare_main);
    }
  REPLY_MACRO (VL_API_IPSHARE_ABORT_REPLY);
}

static void
read_done (ipshare_job_t *job)
{
  int rv = job->error ? VNET_API_ERROR_SYSCALL_ERROR_1 : job->bytes ? 0 : VNET_API_ERROR_NO_SUCH_ENTRY;
  vl_api_ipshare_read_reply_t *rmp = late_reply (job, VL_API_IPSHARE_READ_REPLY, sizeof *rmp, rv);
  if (!rmp)
    return;
  rmp->error = be32 (job->error);
  rmp->generation = be64 (job->generation);
  rmp->bytes = be64 (job->bytes);
  send_late (job, rmp);
}

void
vl_api_ipshare_read_t_handler (vl_api_ipshare_read_t *mp)
{
  vl_api_ipshare_read_reply_t *rmp;
  ipshare_job_t job = JOB (mp, ipshare_job_dump, read_done);
  path_of (job.path, mp->path);
  int rv = ready ();
  if (!rv)
    rv = submit (job);
  if (rv)
    REPLY_MACRO (VL_API_IPSHARE_READ_REPLY);
}

/* ---- which cells count for which bindings ---- */

static void
counter_index_done (ipshare_job_t *job)
{
  vl_api_ipshare_counter_index_reply_t *rmp = late_reply (job, VL_API_IPSHARE_COUNTER_INDEX_REPLY, sizeof *rmp,
							   job->error ? VNET_API_ERROR_SYSCALL_ERROR_1 : 0);
  if (!rmp)
    return;
  rmp->error = be32 (job->error);
  rmp->n = be32 (job->n);
  send_late (job, rmp);
}

void
vl_api_ipshare_counter_index_t_handler (vl_api_ipshare_counter_index_t *mp)
{
  vl_api_ipshare_counter_index_reply_t *rmp;
  ipshare_job_t job = JOB (mp, ipshare_job_counter_index, counter_index_done);
  path_of (job.path, mp->records);
  path_of (job.out, mp->out);
  int rv = ready ();
  if (!rv)
    rv = submit (job);
  if (rv)
    REPLY_MACRO (VL_API_IPSHARE_COUNTER_INDEX_REPLY);
}
