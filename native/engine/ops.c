/* ops.c: the operations of the control socket, but taps (ops_tap.c), the pair (ops_pair.c),
 * tracked connections (ops_flows.c) and WHY (why.c).
 * Each gets a frame that is in order, and checks its payload by itself. */
#define _GNU_SOURCE
#include "../ips_worker.h"
#include "control.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>

int refuse(struct call *c, int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(c->error.text, sizeof c->error.text, format, arguments);
  va_end(arguments);
  return status;
}

static int refuse_errno(struct call *c, const char *step) {
  c->error.system_errno = errno;
  return refuse(c, IPS_CTL_SYSTEM, "%s: %s", step, strerror(errno));
}

static int op_hello(struct call *c) {
  const struct engine *e = c->control->engine;
  struct ips_ctl_hello h = {
    .started_ns = e->started_ns, .netns = e->netns, .pid = (uint32_t)getpid(), .workers = e->options.workers,
    .protocol = IPS_CTL_VERSION, .features = e->features, .outer_ifindex = e->ifindex[0],
    .inner_ifindex = e->ifindex[1],
  };
  memcpy(h.boot_id, e->boot_id, sizeof h.boot_id);
  snprintf(h.outer, sizeof h.outer, "%s", e->options.device[IPS_CTL_OUTER]);
  snprintf(h.inner, sizeof h.inner, "%s", e->options.device[IPS_CTL_INNER]);
  snprintf(h.engine_version, sizeof h.engine_version, "%s", IPS_ENGINE_VERSION);
  snprintf(h.node, sizeof h.node, "%s", e->options.node);
  memcpy(c->out, &h, c->out_bytes = sizeof h);
  return IPS_CTL_OK;
}

/* Workers that neither sleep nor have finished a turn for HUNG_NS. */
uint32_t workers_hung(struct control *c, uint64_t now_ns) {
  uint32_t hung = 0;
  for (uint32_t i = 0; i < c->engine->options.workers; i++) {
    const struct ips_ctl_worker *w = region_worker(&c->engine->region, i);
    uint64_t loops = __atomic_load_n(&w->loops, __ATOMIC_RELAXED);
    if (loops != c->loops[i] || __atomic_load_n(&w->asleep, __ATOMIC_RELAXED) || !c->moved_ns[i]) {
      c->loops[i] = loops;
      c->moved_ns[i] = now_ns;
    }
    hung += now_ns - c->moved_ns[i] > HUNG_NS;
  }
  return hung;
}

static int op_info(struct call *c) {
  struct engine *e = c->control->engine;
  struct ips_ctl_info info = {.now_ns = clock_ns(CLOCK_BOOTTIME),
                              .reclaimed_bytes = c->control->reclaimed_bytes,
                              .counter_cells = e->options.counter_cells,
                              .cells_used = ips_tables_counter_cells(e->tables),
                              .clients = c->control->n_clients};
  ips_tables_info(e->tables, &info.tables);
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    info.taps += atomic_load(&e->taps->slots[slot].status) != 0;
  info.workers_hung = workers_hung(c->control, info.now_ns);
  memcpy(c->out, &info, c->out_bytes = sizeof info);
  return IPS_CTL_OK;
}

/* Maps a memfd that cannot change or shrink while we read it: a plain file could be cut by
 * its owner at any moment, and reading past the cut is a SIGBUS. */
int map_sealed(struct call *c, void **map, size_t *bytes) {
  const int needed = F_SEAL_SHRINK | F_SEAL_WRITE;
  *map = NULL;
  *bytes = 0;
  struct stat st;
  if (c->fd < 0) return refuse(c, IPS_CTL_BAD_FD, "a memfd has to come with this request");
  int seals = fcntl(c->fd, F_GET_SEALS);
  if (seals < 0) return refuse(c, IPS_CTL_BAD_FD, "the descriptor is no memfd");
  if ((seals & needed) != needed)
    return refuse(c, IPS_CTL_BAD_FD, "the memfd lacks the seals F_SEAL_SHRINK and F_SEAL_WRITE");
  if (fstat(c->fd, &st) || st.st_size == 0) return refuse(c, IPS_CTL_BAD_FD, "the memfd is empty");
  *bytes = (size_t)st.st_size;
  *map = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, c->fd, 0);
  return *map == MAP_FAILED ? refuse_errno(c, "mmap") : IPS_CTL_OK;
}

static int return_generation(struct call *c, uint64_t generation) {
  struct ips_ctl_generation g = {generation};
  memcpy(c->out, &g, c->out_bytes = sizeof g);
  return IPS_CTL_OK;
}

static int op_prepare(struct call *c) {
  void *map;
  size_t bytes;
  struct ips_load_status load = {0};
  int status = map_sealed(c, &map, &bytes);
  if (status != IPS_CTL_OK) return status;
  uint64_t generation = ips_tables_prepare(c->control->engine->tables, map, bytes, &load);
  munmap(map, bytes);
  c->control->prepared_by = generation ? c->client->number : 0;
  if (generation) return return_generation(c, generation);
  c->error = (struct ips_ctl_error){.load_error = load.error, .section = load.section, .index = load.index};
  return refuse(c, IPS_CTL_IMAGE_REFUSED, "image refused: %s", ips_load_error_text(load.error));
}

static int op_commit(struct call *c) {
  struct ips_ctl_generation g;
  memcpy(&g, c->payload, sizeof g);
  if (!cells_clear_fresh(c->control->engine))
    return refuse(c, IPS_CTL_SYSTEM, "out of memory: nothing was committed");
  if (ips_tables_commit(c->control->engine->tables, g.generation))
    return refuse(c, IPS_CTL_NO_GENERATION,
                  "generation %llu is not prepared: prepare it (again), another client may have replaced it",
                  (unsigned long long)g.generation);
  c->control->prepared_by = 0;
  return return_generation(c, g.generation);
}

static int op_abort(struct call *c) {
  ips_tables_abort(c->control->engine->tables);
  c->control->prepared_by = 0;
  return IPS_CTL_OK;
}

static int op_rollback(struct call *c) {
  uint64_t generation = ips_tables_rollback(c->control->engine->tables);
  if (!generation) return refuse(c, IPS_CTL_NO_GENERATION, "there is no earlier generation");
  c->control->prepared_by = 0; /* it was discarded */
  return return_generation(c, generation);
}

static int op_dump(struct call *c) {
  struct ips_tables *t = c->control->engine->tables;
  struct ips_tables_info info;
  void *map;
  size_t bytes = ips_tables_dump(t, NULL, 0);
  ips_tables_info(t, &info);
  if (!bytes) return refuse(c, IPS_CTL_NO_GENERATION, "no generation is loaded");
  c->reply_fd = memfd_new("ipshare-dump", bytes, &map);
  if (c->reply_fd < 0) return refuse_errno(c, "memfd_create");
  ips_tables_dump(t, map, bytes);
  if (memfd_seal(c->reply_fd, map, bytes)) return refuse_errno(c, "sealing");
  return return_generation(c, info.generation);
}

static int op_counters(struct call *c) {
  c->reply_fd = fcntl(c->control->engine->region.public_fd, F_DUPFD_CLOEXEC, 0);
  return c->reply_fd < 0 ? refuse_errno(c, "dup") : IPS_CTL_OK;
}

static void fill_cells(const struct ips_tables *t, const struct ips_binding_rec *records, size_t n,
                       struct ips_ctl_cells *out) {
  enum { CHUNK = 256 };
  uint32_t index[CHUNK], span[CHUNK];
  for (size_t at = 0; at < n; at += CHUNK) {
    size_t some = n - at < CHUNK ? n - at : CHUNK;
    ips_tables_counter_index(t, records + at, some, index, span);
    for (size_t i = 0; i < some; i++) out[at + i] = (struct ips_ctl_cells){index[i], span[i]};
  }
}

static int op_cells(struct call *c) {
  void *records, *map;
  size_t bytes;
  int status = map_sealed(c, &records, &bytes);
  if (status != IPS_CTL_OK) return status;
  size_t n = bytes / sizeof(struct ips_binding_rec), out_bytes = n * sizeof(struct ips_ctl_cells);
  if (bytes % sizeof(struct ips_binding_rec)) {
    status = refuse(c, IPS_CTL_BAD_LENGTH, "the memfd holds no whole number of binding records");
  } else if ((c->reply_fd = memfd_new("ipshare-cells", out_bytes, &map)) < 0) {
    status = refuse_errno(c, "memfd_create");
  } else {
    fill_cells(c->control->engine->tables, records, n, map);
    if (memfd_seal(c->reply_fd, map, out_bytes)) status = refuse_errno(c, "sealing");
  }
  munmap(records, bytes);
  return status;
}

static int op_path_mtu(struct call *c) {
  struct ips_ctl_path_mtu m;
  struct ips_tables *t = c->control->engine->tables;
  memcpy(&m, c->payload, sizeof m);
  const struct ips_root *root = ips_tables_live(t);
  const struct ips_endpoint *e = root ? ips_endpoint(root, m.endpoint) : NULL;
  if (!e)
    return refuse(c, IPS_CTL_BAD_ARGUMENT, "the live generation has no end point record %u", m.endpoint);
  uint32_t least = ips_path_least(&e->r);
  if (m.mtu && m.mtu < least) return refuse(c, IPS_CTL_BAD_ARGUMENT, "no path has an MTU below %u", least);
  uint64_t until = clock_ns(CLOCK_BOOTTIME) + m.seconds * NS_PER_S;
  if (!ips_path_learn(&ips_tables_shared(t)->paths, ips_path_key(&e->r), m.mtu, until))
    return refuse(c, IPS_CTL_TOO_MANY, "no room to remember another path");
  return IPS_CTL_OK;
}

static int op_shutdown(struct call *c) {
  c->control->ending = true;
  return IPS_CTL_OK;
}

static const struct operation {
  int (*call)(struct call *c);
  uint32_t bytes;     /* of the payload; ~0: the operation looks itself */
  bool takes_fd;
} operations[] = {
  [IPS_CTL_HELLO] = {op_hello, 0, false},
  [IPS_CTL_INFO] = {op_info, 0, false},
  [IPS_CTL_PREPARE] = {op_prepare, 0, true},
  [IPS_CTL_COMMIT] = {op_commit, sizeof(struct ips_ctl_generation), false},
  [IPS_CTL_ABORT] = {op_abort, 0, false},
  [IPS_CTL_ROLLBACK] = {op_rollback, 0, false},
  [IPS_CTL_DUMP] = {op_dump, 0, false},
  [IPS_CTL_COUNTERS] = {op_counters, 0, false},
  [IPS_CTL_CELLS] = {op_cells, 0, true},
  [IPS_CTL_WHY] = {op_why, UINT32_MAX, false},
  [IPS_CTL_TAP_START] = {op_tap_start, sizeof(struct ips_ctl_tap), true},
  [IPS_CTL_TAP_STOP] = {op_tap_stop, sizeof(struct ips_ctl_tap_id), false},
  [IPS_CTL_TAP_WAIT] = {op_tap_wait, sizeof(struct ips_ctl_tap_id), false},
  [IPS_CTL_TAP_LIST] = {op_tap_list, 0, false},
  [IPS_CTL_PATH_MTU] = {op_path_mtu, sizeof(struct ips_ctl_path_mtu), false},
  [IPS_CTL_SHUTDOWN] = {op_shutdown, 0, false},
  [IPS_CTL_PAIR_SET] = {op_pair_set, sizeof(struct ips_ctl_pair), false},
  [IPS_CTL_PAIR_CLEAR] = {op_pair_clear, 0, false},
  [IPS_CTL_PAIR_STATE] = {op_pair_state, 0, false},
  [IPS_CTL_PAIR_WAIT] = {op_pair_wait, sizeof(struct ips_ctl_pair_seen), false},
  [IPS_CTL_FLOWS_SET] = {op_flows, sizeof(struct ips_ctl_flows), false},
  [IPS_CTL_FLOWS_STATE] = {op_flows, 0, false},
  [IPS_CTL_SESSIONS_DUMP] = {op_sessions_dump, sizeof(struct ips_ctl_session_filter), false},
  [IPS_CTL_SESSIONS_CLOSE] = {op_sessions_close, sizeof(struct ips_ctl_session_filter), false},
  [IPS_CTL_NAT_ADDRESSES] = {op_nat_addresses, 0, false},
  [IPS_CTL_MIRROR_SET] = {op_flows, sizeof(struct ips_ctl_mirror), false},
  [IPS_CTL_MIRROR_CLEAR] = {op_flows, 0, false},
  [IPS_CTL_SESSIONS_FEED] = {op_sessions_feed, sizeof(struct ips_ctl_feed), true},
  [IPS_CTL_PAIR_COMMAND] = {op_pair_command, sizeof(struct ips_ctl_pair_command), false},
  [IPS_CTL_NATLOG_SET] = {op_flows, sizeof(struct ips_ctl_natlog), false},
  [IPS_CTL_NATLOG_STATE] = {op_flows, 0, false},
  [IPS_CTL_REMAP_SET] = {op_flows, sizeof(struct ips_ctl_remap), false},
  [IPS_CTL_REMAP_CLEAR] = {op_remap_clear, sizeof(struct ips_ctl_remap_id), false},
  [IPS_CTL_REMAP_LIST] = {op_flows, 0, false},
  [IPS_CTL_REMAP_STATE] = {op_flows, sizeof(struct ips_ctl_remap_id), false},
  [IPS_CTL_REMAP_FLOWS] = {op_sessions_dump, sizeof(struct ips_ctl_remap_wanted), false},
  [IPS_CTL_DISPATCH_SET] = {op_dispatch_set, sizeof(struct ips_ctl_dispatch), false},
  [IPS_CTL_DISPATCH_STATE] = {op_dispatch_state, 0, false},
};

int control_call(struct call *c) {
  uint32_t op = c->head.op;
  if (op >= sizeof operations / sizeof *operations || !operations[op].call)
    return refuse(c, IPS_CTL_UNKNOWN_OP, "unknown operation %u", op);
  if (operations[op].bytes != UINT32_MAX && operations[op].bytes != c->head.bytes)
    return refuse(c, IPS_CTL_BAD_LENGTH, "operation %u takes %u bytes, not %u", op, operations[op].bytes,
                  c->head.bytes);
  if (c->fd >= 0 && !operations[op].takes_fd)
    return refuse(c, IPS_CTL_BAD_FD, "operation %u takes no descriptor", op);
  return operations[op].call(c);
}
