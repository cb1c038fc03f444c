/* main.c: ipshare-engine: options, start in order, stop in reverse order.
 *
 * The engine outlives whoever started it: it takes no notice of a hang-up or a broken pipe, and
 * ends on SIGTERM, SIGINT or SHUTDOWN only, or when one of its devices is removed. It
 * configures nothing but its two devices; addresses, routes and rules are the agent's.
 */
#define _GNU_SOURCE
#include "engine.h"
#include "control.h"
#include "dispatch.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const char USAGE[] =
  "usage: ipshare-engine --socket PATH [--workers N] [--outer NAME] [--inner NAME]\n"
  "                      [--counter-cells N] [--node NAME] [--nice N] [--plain-io] [--json-errors] [--version]\n";

static int usage(const char *what, const char *value) {
  int code = fail(EXIT_USAGE, "see --help", "%s%s%s", what, value ? " " : "", value ? value : "");
  return -code;
}

/* Returns the number, or -1 where it is none or out of range. */
static long number(const char *text, long least, long most) {
  char *end;
  errno = 0;
  long n = strtol(text, &end, 10);
  return *text && !*end && !errno && n >= least && n <= most ? n : -1;
}

static bool is_device_name(const char *name) {
  return *name && strlen(name) < IFNAMSIZ && !strpbrk(name, "/:% \t\n") && strcmp(name, ".") &&
         strcmp(name, "..");
}

static long default_workers(void) {
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  return cpus < 1 ? 1 : cpus > 8 ? 8 : cpus;
}

enum option_code {
  OPT_SOCKET = 256, OPT_WORKERS, OPT_OUTER, OPT_INNER, OPT_CELLS, OPT_NODE, OPT_NICE, OPT_PLAIN, OPT_JSON, OPT_VERSION,
  OPT_HELP,
};
static const struct option OPTIONS[] = {
  {"socket", required_argument, NULL, OPT_SOCKET},
  {"workers", required_argument, NULL, OPT_WORKERS},
  {"outer", required_argument, NULL, OPT_OUTER},
  {"inner", required_argument, NULL, OPT_INNER},
  {"counter-cells", required_argument, NULL, OPT_CELLS},
  {"node", required_argument, NULL, OPT_NODE},
  {"nice", required_argument, NULL, OPT_NICE},
  {"plain-io", no_argument, NULL, OPT_PLAIN},
  {"json-errors", no_argument, NULL, OPT_JSON},
  {"version", no_argument, NULL, OPT_VERSION},
  {"help", no_argument, NULL, OPT_HELP},
  {0},
};

/* 0: run; 1: everything was said, end well; negative: an exit code. */
static int set_option(struct options *o, int code, const char *value) {
  long n = 0;
  switch (code) {
    case OPT_SOCKET: o->socket = value; break;
    case OPT_OUTER: o->device[IPS_CTL_OUTER] = value; break;
    case OPT_INNER: o->device[IPS_CTL_INNER] = value; break;
    case OPT_NODE: o->node = value; break;
    case OPT_PLAIN: o->plain_io = true; break;
    case OPT_JSON: fail_use_json(o->json_errors = true); break;
    case OPT_WORKERS:
      if ((n = number(value, 1, IPS_CTL_MAX_WORKERS)) < 0)
        return usage("--workers is a number from 1 to 64, not", value);
      o->workers = (uint32_t)n;
      break;
    case OPT_CELLS:
      if ((n = number(value, 1, 1 << 28)) < 0)
        return usage("--counter-cells is a number from 1 to 268435456, not", value);
      o->counter_cells = (uint32_t)n;
      break;
    case OPT_NICE:
      if (*value == '-') value++;
      if ((n = number(value, 0, 20)) < 0) return usage("--nice is a number from -20 to 0, not", value);
      o->nice = -(int)n;
      break;
    case OPT_VERSION: puts("ipshare-engine " IPS_ENGINE_VERSION); return 1;
    case OPT_HELP: fputs(USAGE, stdout); return 1;
    default: return usage("unknown or incomplete option", NULL);
  }
  return 0;
}

static int parse(int argc, char **argv, struct options *o) {
  *o = (struct options){.device = {"ips-out", "ips-in"}, .node = "", .workers = (uint32_t)default_workers(),
                        .counter_cells = 1 << 20};
  opterr = 0;
  for (int code; (code = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
    int done = set_option(o, code, optarg);
    if (done) return done;
  }
  if (optind < argc) return usage("unexpected argument", argv[optind]);
  if (!o->socket) return usage("--socket is missing", NULL);
  for (int side = 0; side < SIDES; side++)
    if (!is_device_name(o->device[side])) return usage("not a name for a network device:", o->device[side]);
  if (!strcmp(o->device[0], o->device[1]))
    return usage("--outer and --inner are the same device:", o->device[0]);
  return 0;
}

static int cannot_start(void) {
  return fail(EXIT_SYSTEM,
              "raise the limit of open files or of memory, or ask for fewer --counter-cells or --workers",
              "cannot start: %s", strerror(errno));
}

/* Before other work of the machine, where that is allowed; threads inherit it. Where the kernel groups processes by
 * session (autogroup), niceness holds within the session only, and the group has one of its own. Never real-time: a
 * packet thread that has packets does not sleep. */
static void take_priority(int nice) {
  char text[8];
  if (!nice || setpriority(PRIO_PROCESS, 0, nice)) return; /* without privilege: as everybody */
  int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (write(fd, text, (size_t)snprintf(text, sizeof text, "%d", nice)) < 0) { /* no groups here */ }
  close(fd);
}

/* A worker that sleeps has nothing to do, which is as good as having done it; unless packets wait for it all the while:
 * then it is starved, or stopped. */
static bool is_idle(struct worker *w, uint64_t sleeps) {
  struct pollfd queues[SIDES];
  for (int side = 0; side < SIDES; side++) queues[side] = (struct pollfd){.fd = w->fd[side], .events = POLLIN};
  uint64_t now = clock_ns(CLOCK_BOOTTIME);
  bool waits = poll(queues, SIDES, 0) > 0 && (queues[0].revents | queues[1].revents) & POLLIN;
  if (!waits || !w->waits_ns || w->waits_sleep != sleeps) w->waits_ns = now;
  w->waits_sleep = sleeps;
  return now - w->waits_ns < STARVED_NS;
}

/* Of every worker, for the pair's lease. */
static void worker_progress(void *arg, uint64_t *out) {
  const struct engine *e = arg;
  for (uint32_t i = 0; i < e->options.workers; i++) {
    const struct ips_ctl_worker *at = region_worker(&e->region, i);
    struct worker *w = &e->workers[i];
    bool asleep = __atomic_load_n(&at->asleep, __ATOMIC_RELAXED);
    if (asleep && is_idle(w, __atomic_load_n(&at->sleeps, __ATOMIC_RELAXED))) w->slept++;
    out[i] = asleep ? w->slept : __atomic_load_n(&at->loops, __ATOMIC_RELAXED) + w->slept;
  }
}

/* What needs no device: identity, events, shared memory, tables. */
static int prepare(struct engine *e) {
  struct stat st;
  uint32_t workers = e->options.workers;
  e->started_ns = clock_ns(CLOCK_BOOTTIME);
  e->netns = stat("/proc/self/ns/net", &st) ? 0 : (uint64_t)st.st_ino;
  e->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  e->wake_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (e->stop_event < 0 || e->wake_event < 0 ||
      getrandom(e->boot_id, sizeof e->boot_id, 0) != sizeof e->boot_id)
    return cannot_start();
  e->workers = aligned_alloc(64, ((workers * sizeof *e->workers) + 63) & ~(size_t)63);
  if (!e->workers) return cannot_start();
  memset(e->workers, 0, workers * sizeof *e->workers);
  if (region_create(&e->region, workers, e->options.counter_cells, e->boot_id)) return cannot_start();
  e->tables = ips_tables_new(workers + 1);
  if (e->tables) e->why = ips_worker_new(e->tables, workers, why_emit, NULL);
  if (!e->why) return cannot_start();
  struct tap_host host = {.n_workers = workers, .wake_event = e->wake_event, .stop_event = e->stop_event,
                          .device = {e->options.device[0], e->options.device[1]},
                          .application = "ipshare-engine"};
  struct tap_worker *at[IPS_CTL_MAX_WORKERS];
  host.workers = at;
  for (uint32_t i = 0; i < workers; i++) at[i] = &e->workers[i].tap;
  e->taps = taps_create(&host);
  if (!(e->flows = flows_create(workers)) || dispatch_open(e)) return cannot_start();
  e->rt = rt_create(&(struct rt_host){.tables = e->tables, .progress = worker_progress, .arg = e, .n_workers = workers,
                                      .wake_event = e->wake_event, .role = flows_role, .mirror_ready = flows_ready,
                                      .flows = e->flows});
  e->natlog = natlog_create(workers + 2); /* packet threads, ips-mirror, control */
  if (!e->taps || !e->rt || !e->natlog) return cannot_start();
  return EXIT_OK;
}

static int open_devices(struct engine *e) {
  int fds[IPS_CTL_MAX_WORKERS * SIDES];
  int code = tun_open_all(e, fds);
  if (code) return code;
  for (uint32_t i = 0; i < e->options.workers; i++) {
    struct worker *w = &e->workers[i];
    w->engine = e;
    w->index = i;
    w->stat = region_worker(&e->region, i);
    memcpy(w->fd, fds + i * SIDES, sizeof w->fd);
  }
  return EXIT_OK;
}

static int start_workers(struct engine *e) {
  for (uint32_t i = 0; i < e->options.workers; i++) {
    errno = worker_start(&e->workers[i]);
    if (errno) return cannot_start();
  }
  return EXIT_OK;
}

static void stop(struct engine *e) {
  atomic_store(&e->stopping, true);
  eventfd_signal(e->stop_event);
  for (uint32_t i = 0; i < e->options.workers; i++) worker_stop(&e->workers[i]);
  rt_destroy(e->rt);
  flows_destroy(e->flows);
  dispatch_close(e);
  natlog_destroy(e->natlog);
  taps_destroy(e->taps);
  ips_worker_free(e->why);
  ips_tables_free(e->tables);
  munmap(e->region.header, e->region.header->total_bytes);
  free(e->workers);
}

static void set_signals(void) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGINT);
  pthread_sigmask(SIG_BLOCK, &blocked, NULL); /* inherited by all threads; control.c reads them */
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
}

int main(int argc, char **argv) {
  static struct engine engine;
  struct engine *e = &engine;
  int lock_fd, parsed = parse(argc, argv, &e->options);
  if (parsed) return parsed < 0 ? -parsed : EXIT_OK;
  set_signals();
  take_priority(e->options.nice);
  int listen_fd = control_listen(e->options.socket, &lock_fd);
  if (listen_fd < 0) return -listen_fd;
  int code = prepare(e);
  if (!code) code = open_devices(e);
  if (code || (code = start_workers(e))) { /* the process's end frees what was begun */
    unlink(e->options.socket);
    return code;
  }
  code = control_run(e, listen_fd);
  unlink(e->options.socket);
  stop(e);
  close(listen_fd);
  close(lock_fd);
  if (code == EXIT_DEVICE_GONE)
    return fail(code, "start the engine again; it makes the devices anew",
                "network device %s or %s was removed", e->options.device[0], e->options.device[1]);
  return code;
}
