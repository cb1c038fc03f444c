/* ops_flows.c: the operations on tracked connections; what they mean is in native/flows/. */
#define _GNU_SOURCE
#include "control.h"
#include "../ips_napt_api.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static struct flows *flows_of(const struct call *c) { return c->control->engine->flows; }

int op_flows_set(struct call *c) {
  static struct ips_ctl_flows wanted;
  const char *sentence = "";
  memcpy(&wanted, c->payload, sizeof wanted);
  int status = flows_set(flows_of(c), &wanted, &sentence);
  if (flows_of(c)->sessions) natlog_attach(c->control->engine->natlog, flows_of(c)->sessions);
  return status == IPS_CTL_OK ? status : refuse(c, status, "%s", sentence);
}

int op_flows_state(struct call *c) {
  struct ips_ctl_flows_state state;
  flows_state(flows_of(c), &state);
  memcpy(c->out, &state, c->out_bytes = sizeof state);
  return IPS_CTL_OK;
}

int op_mirror_set(struct call *c) {
  struct ips_ctl_mirror wanted;
  const char *sentence = "";
  memcpy(&wanted, c->payload, sizeof wanted);
  int status = flows_mirror_set(flows_of(c), &wanted, &sentence);
  explicit_bzero(&wanted, sizeof wanted);
  return status == IPS_CTL_OK ? status : refuse(c, status, "%s", sentence);
}

int op_mirror_clear(struct call *c) {
  flows_mirror_clear(flows_of(c));
  return IPS_CTL_OK;
}

int op_sessions_feed(struct call *c) {
  struct ips_ctl_feed feed;
  const char *sentence = "";
  void *fed = NULL;
  size_t bytes = 0;
  memcpy(&feed, c->payload, sizeof feed);
  int status = c->fd >= 0 || feed.count ? map_sealed(c, &fed, &bytes) : IPS_CTL_OK;
  if (status != IPS_CTL_OK) return status;
  if (bytes != feed.count * sizeof(struct ips_ctl_fed))
    status = refuse(c, IPS_CTL_BAD_LENGTH, "the memfd does not hold %u records", feed.count);
  else if ((status = flows_feed(flows_of(c), &feed, fed, &sentence)) != IPS_CTL_OK)
    status = refuse(c, status, "%s", sentence);
  if (fed) munmap(fed, bytes);
  return status;
}

static int no_flows(struct call *c) {
  return refuse(c, IPS_CTL_REFUSED, "no connections are tracked on this node");
}

int op_nat_addresses(struct call *c) {
  const struct flows *f = flows_of(c);
  void *map;
  if (!f->napt) return no_flows(c);
  size_t n = ips_napt_addresses(f->napt, NULL, 0), bytes = n * sizeof(struct ips_napt_address);
  c->reply_fd = memfd_new("ipshare-nat-addresses", bytes, &map);
  if (c->reply_fd < 0) return refuse(c, IPS_CTL_SYSTEM, "memfd_create: %s", strerror(errno));
  if (n) ips_napt_addresses(f->napt, map, n);
  if (memfd_seal(c->reply_fd, map, bytes)) return refuse(c, IPS_CTL_SYSTEM, "sealing: %s", strerror(errno));
  return IPS_CTL_OK;
}

static int take_filter(struct call *c, struct ips_ctl_session_filter *filter) {
  memcpy(filter, c->payload, sizeof *filter);
  const char *fault = flows_filter_fault(filter);
  if (fault) return refuse(c, IPS_CTL_BAD_ARGUMENT, "%s", fault);
  return flows_of(c)->sessions ? IPS_CTL_OK : no_flows(c);
}

/* ---- closing: a slice at a time, other clients' requests between them; one at a time ---- */

static struct {
  bool runs;
  struct ips_ctl_session_filter filter;
  uint64_t cursor;
  struct ips_ctl_closed closed;
  uint32_t client, seq;
} closing;

static bool close_some(struct control *c) {
  closing.runs =
    flows_close_some(c->engine->flows, &closing.filter, &closing.cursor, &closing.closed.closed);
  if (closing.runs) eventfd_signal(c->engine->wake_event);
  return closing.runs;
}

int op_sessions_close(struct call *c) {
  struct ips_ctl_session_filter filter;
  int status = take_filter(c, &filter);
  if (status != IPS_CTL_OK) return status;
  if (!flows_is_active(flows_of(c)))
    return refuse(c, IPS_CTL_REFUSED, "this node is a standby: close the sessions at the active node");
  if (closing.runs && control_client(c->control, closing.client))
    return refuse(c, IPS_CTL_TOO_MANY, "other sessions are being closed: try again");
  closing.filter = filter;
  closing.cursor = closing.closed.closed = 0;
  closing.client = c->client->number;
  closing.seq = c->head.seq;
  c->deferred = close_some(c->control);
  memcpy(c->out, &closing.closed, c->out_bytes = sizeof closing.closed);
  return IPS_CTL_OK;
}

/* Whose client has gone ends where it is. */
static void answer_closing(struct control *c) {
  static const struct ips_ctl_error lost = {.text = "this node became a standby meanwhile: some are closed"};
  struct client *client = closing.runs ? control_client(c, closing.client) : NULL;
  struct ips_ctl_request to = {.op = IPS_CTL_SESSIONS_CLOSE, .seq = closing.seq};
  if (!client) {
    closing.runs = false;
  } else if (!flows_is_active(c->engine->flows)) {
    closing.runs = false;
    control_reply(client, &to, IPS_CTL_REFUSED, &lost, sizeof lost, -1);
  } else if (!close_some(c)) {
    control_reply(client, &to, IPS_CTL_OK, &closing.closed, sizeof closing.closed, -1);
  }
}

/* ---- the dump: a thread of its own goes through the table; one at a time ---- */

static struct {
  pthread_t thread;
  bool runs;
  _Atomic bool done, give_up;
  struct engine *engine;
  const struct ips_sessions *table;
  struct ips_ctl_session_filter filter;
  uint32_t client, seq, op;
  struct ips_ctl_sessions found;
  struct ips_session_rec *some; /* FLOWS_SLICE of them */
  int fd, error;
} dump = {.fd = -1};

static bool write_all(int fd, const void *bytes, size_t n) {
  for (const uint8_t *at = bytes; n;) {
    ssize_t some = write(fd, at, n);
    if (some < 0 && errno != EINTR) return false;
    if (some > 0) at += some, n -= (size_t)some;
  }
  return true;
}

static void *run_dump(void *unused) {
  (void)unused;
  const struct ips_ctl_session_filter *filter = &dump.filter;
  uint64_t cursor = 0, kept = 0;
  dump.found = (struct ips_ctl_sessions){.now_ns = clock_ns(CLOCK_BOOTTIME)};
  while (cursor != UINT64_MAX && !dump.error && !atomic_load(&dump.give_up)) {
    size_t n = flows_select(dump.table, filter, &cursor, dump.some, &dump.found.scanned), wanted = n;
    if (filter->limit && kept + n > filter->limit) wanted = (size_t)(filter->limit - kept);
    if (!write_all(dump.fd, dump.some, wanted * sizeof *dump.some)) dump.error = errno;
    kept += wanted;
    dump.found.matched += n;
  }
  if (!dump.error && memfd_seal(dump.fd, NULL, 0)) dump.error = errno;
  atomic_store(&dump.done, true);
  eventfd_signal(dump.engine->wake_event);
  return NULL;
}

/* Whose result nobody wants any more, or was told. */
static void dump_end(void) {
  if (!dump.runs) return;
  atomic_store(&dump.give_up, true);
  pthread_join(dump.thread, NULL);
  if (dump.fd >= 0) close(dump.fd);
  free(dump.some);
  dump.some = NULL;
  dump.fd = -1;
  dump.runs = false;
}

int op_sessions_dump(struct call *c) {
  struct ips_ctl_session_filter filter;
  int status = take_filter(c, &filter);
  return status != IPS_CTL_OK ? status : dump_sessions(c, flows_of(c)->sessions, &filter);
}

int dump_sessions(struct call *c, const struct ips_sessions *table, const struct ips_ctl_session_filter *filter) {
  if (dump.runs && !control_client(c->control, dump.client)) dump_end();
  if (dump.runs) return refuse(c, IPS_CTL_TOO_MANY, "another dump of the sessions is under way: try again");
  dump.fd = memfd_new("ipshare-sessions", 0, &(void *){NULL});
  dump.some = malloc(FLOWS_SLICE * sizeof *dump.some);
  dump.engine = c->control->engine;
  dump.table = table;
  dump.filter = *filter;
  dump.client = c->client->number;
  dump.seq = c->head.seq;
  dump.op = c->head.op;
  dump.error = 0;
  atomic_store(&dump.done, false);
  atomic_store(&dump.give_up, false);
  errno = dump.fd < 0 || !dump.some ? ENOMEM : pthread_create(&dump.thread, NULL, run_dump, NULL);
  if (errno) {
    if (dump.fd >= 0) close(dump.fd);
    free(dump.some);
    dump.fd = -1, dump.some = NULL;
    return refuse(c, IPS_CTL_SYSTEM, "the dump could not begin: %s", strerror(errno));
  }
  dump.runs = c->deferred = true;
  return IPS_CTL_OK;
}

static void answer_dump(struct control *c) {
  if (!dump.runs || !atomic_load(&dump.done)) return;
  struct client *client = control_client(c, dump.client);
  struct ips_ctl_request to = {.op = (uint16_t)dump.op, .seq = dump.seq};
  if (client && !dump.error) {
    control_reply(client, &to, IPS_CTL_OK, &dump.found, sizeof dump.found, dump.fd);
  } else if (client) {
    struct ips_ctl_error error = {.system_errno = dump.error};
    snprintf(error.text, sizeof error.text, "the dump failed: %s", strerror(dump.error));
    control_reply(client, &to, IPS_CTL_SYSTEM, &error, sizeof error, -1);
  }
  dump_end();
}

void end_dump_of(struct control *c, const struct ips_sessions *table) {
  static const struct ips_ctl_error gone = {.text = "the remap was cleared meanwhile"};
  struct client *client = dump.runs && dump.table == table ? control_client(c, dump.client) : NULL;
  struct ips_ctl_request to = {.op = (uint16_t)dump.op, .seq = dump.seq};
  if (client) control_reply(client, &to, IPS_CTL_BAD_ARGUMENT, &gone, sizeof gone, -1);
  if (dump.runs && dump.table == table) dump_end();
}

void answer_flows(struct control *c) {
  answer_closing(c);
  answer_dump(c);
}

void stop_dump(void) { dump_end(); }
